"""How much training a record stands for."""

from __future__ import annotations

import re

from benchmark.record.schema import Record, origins

_SHARE = re.compile(r"at ([\d,]+) of ([\d,]+) examples")  # how a reason says where training ended


def share_done(record: Record) -> float | None:
    """The share of its examples that training saw, where the record says it, or its reason if it is an old one: all of
    them in a run that finished."""
    if record.share is not None:
        return record.share
    if record.reason is not None and (found := _SHARE.search(record.reason)) is not None:
        seen, planned = (int(number.replace(",", "")) for number in found.groups())
        return seen / planned if planned else None
    return 1.0 if record.status == "finished" else None


def examples_seen(record: Record) -> float | None:
    """How many examples training saw; `None` where the record does not say."""
    share = share_done(record)
    return None if share is None else float(record.config["budget"]["examples"]) * share


def training_flops(record: Record) -> float | None:
    """Forward and backward passes over all examples that training saw, those of its stages included; `None` where the
    record does not say."""
    each, examples = record.scores.get("flops_per_example"), examples_seen(record)
    if each is None or each.value is None or examples is None:
        return None
    return each.value * examples + sum(origin.get("training_flops") or 0.0 for origin in origins(record).values())
