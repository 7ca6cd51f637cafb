"""Finds tools by the words of a query, for servers with too many to offer at once."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from firsthand.system.normalised_text import normalised_text
from firsthand.tool import Tool

_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
"""Letters of languages that put no blanks between words: Thai, Lao, Burmese, Khmer, Japanese and Chinese."""


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
    """The words of a text in any language, and the pairs of letters of those that have no blanks between words."""
    split = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
    letters = "".join(
        char if unicodedata.category(char)[0] in "LNM" else " " for char in normalised_text("NFKC", split.lower())
    )
    words = {word.removesuffix("s") for word in letters.split() if len(word) > 1}
    pairs = {run[at : at + 2] for run in _UNSPACED.findall(letters) for at in range(max(len(run) - 1, 1))}
    return words | pairs
