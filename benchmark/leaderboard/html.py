"""Pieces of HTML from strings that others wrote: anything that looks like markup is shown as it reads."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

_LINK = re.compile(r"https?://[^\s<>\"'()]+|\b(?:doi:10\.\d{4,9}/[^\s,;]+|arXiv:\d{4}\.\d{4,5})")
_RESOLVERS = {"doi:": "https://doi.org/", "arXiv:": "https://arxiv.org/abs/"}


def linked(text: str) -> Markup:
    """The text with its web addresses, DOIs and arXiv numbers as links; anything else, markup too, as it reads."""
    parts, end = [], 0
    for found in _LINK.finditer(text):
        name = found[0].rstrip(".,;:")
        target = name
        for prefix, resolver in _RESOLVERS.items():
            if name.startswith(prefix):
                target = resolver + name.removeprefix(prefix)
        parts += [
            escape(text[end : found.start()]),
            Markup('<a href="{}" rel="noopener noreferrer">{}</a>').format(target, name),
        ]
        end = found.start() + len(name)
    return Markup("").join([*parts, escape(text[end:])])


def spans(text: str) -> Markup:
    """A sentence whose words between backticks are code."""
    parts = text.split("`")
    shown = (Markup("<code>{}</code>").format(part) if index % 2 else escape(part) for index, part in enumerate(parts))
    return Markup("").join(shown)
