"""The exam: the laws that a class's promises call for, one after another, whatever its code does."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmark.build import check_options, resolve
from benchmark.config import load_model
from benchmark.exams import Exam, LawVerdict, version_of_laws
from benchmark.models.base import GenerativeModel
from benchmark.record import now, sources
from benchmark.spec import BadInput, Conditional, Structure, one_line
from benchmark.testing.laws import LAWS, promises
from benchmark.testing.subject import PATIENT, QUICK, Subject
from benchmark.testing.universe import CONDITIONS

MOST = 200  # characters that a table shows of what is wrong


@dataclass(frozen=True)
class Candidate:
    """Who sits the exam: a class, its options, and the data and conditions that it accepts."""

    target: str
    cls: type[GenerativeModel]
    options: Mapping[str, Any]
    structures: tuple[Structure, ...]
    conditions: tuple[Structure, ...]


def candidate(
    name: str,
    options: Mapping[str, Any],
    structures: Sequence[Structure] = (),
    conditions: Sequence[Structure] = (),
    trust: Sequence[str] = (),
) -> Candidate:
    """The class at the import path `name`, or of the configured model `name` with what its file says.

    `options` come on top. Of a configured model, `structures` and `conditions` may leave some out; a bare class is
    examined on a grid, under labels if it promises to obey conditions, unless they say otherwise. Raises `BadInput`
    where the class cannot be imported, or does not accept what is given.
    """
    target, given, none = name, dict(options), False
    if "." not in name:
        config = load_model(name)
        none = "conditions" in config.model_fields_set and not config.conditions  # its file says so
        target, given = config.target, config.options | given
        structures = _among(config.structures, structures, f"model {name!r}", "--structure")
        conditions = _among(config.conditions, conditions, f"model {name!r}", "--condition")
    cls = resolve(target, GenerativeModel, trust)
    checked = check_options("model", cls, given, given=("spec", "first_stage"))
    conditional = promises(cls, Conditional)
    if "." in name:
        structures = structures or ("grid",)
        conditions = conditions or (("label",) if conditional else ())
    if conditional != bool(conditions) and not none:
        raise BadInput(
            f"{target} promises Conditional, but its file lists no conditions: add conditions: [label]"
            if conditional
            else f"{target} does not promise Conditional, but conditions are given: {', '.join(conditions)}"
        )
    for kind in conditions:
        if kind not in CONDITIONS:
            raise BadInput(f"{target} accepts conditions of the kind {kind!r} (examined are: {', '.join(CONDITIONS)})")
    return Candidate(target, cls, checked, tuple(structures), tuple(conditions))


def _among(accepted: tuple[Structure, ...], given: Sequence[Structure], who: str, option: str) -> tuple[Structure, ...]:
    for one in given:
        if one not in accepted:
            raise BadInput(f"{option} {one}: {who} accepts {', '.join(accepted) or 'none'}")
    return tuple(given) or accepted


def examine(
    who: Candidate,
    at_length: bool = False,
    trust: Sequence[str] = (),
    tell: Callable[[LawVerdict], None] = lambda verdict: None,
) -> Exam:
    """Run every law that binds a class; `tell` hears each verdict at once. A law that fails stops no other."""
    verdicts = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning\.|torch\.")
        for verdict in _verdicts(who, at_length, trust):
            tell(verdict)
            verdicts.append(verdict)
    return Exam(
        target=who.target,
        options=dict(who.options),
        structures=who.structures,
        conditions=who.conditions,
        at_length=at_length,
        sources=sources([who.target]),
        version=version_of_laws(),
        when=now(),
        laws=tuple(verdicts),
    )


def _verdicts(who: Candidate, at_length: bool, trust: Sequence[str]) -> Iterator[LawVerdict]:
    for structure in who.structures:
        build = partial(who.cls, **who.options)
        subject = Subject(build, structure, who.conditions, PATIENT if at_length else QUICK, trust)
        for law in LAWS:
            if law.binds(who.cls, structure, who.conditions):
                before = time.perf_counter()
                problem = _problem(partial(law.check, subject))
                seconds = round(time.perf_counter() - before, 2)
                yield LawVerdict(
                    law=law.name,
                    structure=structure,
                    promise=law.promise(who.cls),
                    seconds=seconds,
                    problem=problem,
                )


def _problem(check: Callable[[], None]) -> str | None:
    """What is wrong, in one line; `None` where the law holds."""
    try:
        check()
    except AssertionError as error:
        return _line(str(error)) or "an assertion of its own code failed"
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the code of others raises, the other laws are still of interest
        return _line(f"{type(error).__name__}: {error}")
    return None


def _line(text: str) -> str:
    """The first paragraph of a message, on one line and not too long for a table."""
    line = one_line(" ".join(text.split("\n\n")[0].split()))
    return line if len(line) <= MOST else f"{line[: MOST - 1]}…"
