"""Metrics, costs and modalities to docs/metrics.md: every fact from its own file."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2

from benchmark import facts
from benchmark.facts import Fact, MetricFact

WIDTH = 120  # of a line


def metrics_page(needs: Mapping[str, Sequence[str]]) -> str:
    """The page; `needs` names the promises any one of which gives a metric its evidence, for those that are known."""
    sections: dict[str, list[dict[str, Any]]] = {}
    for fact in facts.metrics().values():
        entry = {"name": fact.name, "facts": _facts(fact, needs.get(fact.name, ())), "lines": _lines(fact)}
        sections.setdefault(fact.section, []).append(entry)
    template = files("benchmark.report").joinpath("templates/metrics.md").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    page = environment.from_string(template).render(
        modalities=list(facts.modalities().values()),
        sections=[{"title": title, "metrics": metrics} for title, metrics in sections.items()],
        costs=[_cost(fact) for fact in facts.COSTS.values()],
        derived=[_cost(fact) for fact in facts.DERIVED.values()],
    )
    return page.rstrip() + "\n"


def _facts(fact: Fact, needs: Sequence[str] = ()) -> str:
    said = [f"Unit: {fact.unit}", f"better: {fact.better}", f"version: {fact.version}"]
    said += [f"needs: {' or '.join(needs)}"] if needs else []
    said += ["compare: within one hardware"] if fact.machine else []
    return "; ".join(said)


def _lines(fact: MetricFact) -> list[str]:
    parts = ("formula", "protocol", "source", "weaknesses")
    return [
        textwrap.fill(
            f"- {part.capitalize()}: {getattr(fact, part)}",
            WIDTH,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for part in parts
    ]


def _cost(fact: Fact) -> dict[str, Any]:
    return {"name": fact.name, "facts": _facts(fact), "formula": textwrap.fill(fact.formula, WIDTH)}
