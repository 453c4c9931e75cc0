"""Ours beside what a user would otherwise install, for speed: one file for each kind of model, one entry for each pair.

No peer is imported before its pair is built.
"""

from __future__ import annotations

from benchmark.peers import flows
from benchmark.peers.pair import Pair
from benchmark.spec import unknown

#: Every pair by name.
PAIRS: dict[str, Pair] = {pair.name: pair for pair in flows.pairs()}


def asked_for(names: tuple[str, ...]) -> list[Pair]:
    """The pairs so called, all of them for none. Raises `BadInput` for an unknown name, or where a peer is missing that
    was asked for by name."""
    for name in names:
        if name not in PAIRS:
            raise unknown("pair", name, PAIRS)
        PAIRS[name].require()
    return [PAIRS[name] for name in dict.fromkeys(names)] or list(PAIRS.values())
