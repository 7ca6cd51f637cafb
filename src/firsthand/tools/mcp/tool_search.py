"""Finds tools by the words of a query, for servers with too many to offer at once."""

from __future__ import annotations

import re
from collections.abc import Mapping

from firsthand.tool import Tool


def ranked(query: str, tools: Mapping[str, Tool], most: int) -> list[str]:
    """The names of the tools that share most words with a query, rare words counting more; ties in order of names."""
    words = {name: _words(f"{name} {tool.spec.description}") for name, tool in tools.items()}
    count = {word: sum(word in each for each in words.values()) for word in _words(query)}
    scores = {
        name: sum(1.0 / count[word] for word in count if word in own) + sum(word in _words(name) for word in count)
        for name, own in words.items()
    }
    best = sorted((name for name in scores if scores[name] > 0), key=lambda name: (-scores[name], name))
    return best[:most]


def _words(text: str) -> set[str]:
    split = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
    return {word.removesuffix("s") for word in re.findall(r"[a-z0-9]+", split.lower()) if len(word) > 1}
