"""Looks for a canary: a word that stands only in private data, and says so when a call or the answer repeats it.

Letters and digits are compared in any case and Unicode form, with or without signs between them, and from base64, hex, URLs
and HTML entities. It reports.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from firsthand.errors import ConfigError
from firsthand.guard import AttemptView, GuardVerdict
from firsthand.message import Json
from firsthand.safety.rules.escaped_text import unescaped
from firsthand.system.normalised_text import normalised_text
from firsthand.tool import Tool

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]\w{1,30});")
_URL_SAFE = str.maketrans("-_", "+/")


def holds(text: str, word: str) -> bool:
    """True if the word stands in the text, as it is, spaced out, reversed, escaped, in base64 or in hex."""
    wanted = letters_of(word)
    for plain in map(
        letters_of, (text, unescaped(text), _ENTITY.sub(lambda found: html.unescape(found[0]), text), unquote(text))
    ):
        if wanted in plain or wanted[::-1] in plain or word.encode().hex() in plain:
            return True
    joined = "".join(text.split()).translate(_URL_SAFE)
    for lead, whole in enumerate((0, 2, 3)):  # the first character of base64 that no byte before the word has a part of
        if base64.b64encode(b" " * lead + word.encode()).decode()[whole:-4] in joined:
            return True
    return False


def letters_of(text: str) -> str:
    """The letters and digits of a text, in small letters and one Unicode form."""
    return re.sub(r"[\W_]", "", normalised_text("NFKC", text)).casefold()


@dataclass(frozen=True)
class CanaryWatch:
    """The guard."""

    name = "canary"
    word: str

    def call(self, view: AttemptView, tool: Tool, arguments: Json) -> GuardVerdict:
        """Notes a call whose arguments hold the word."""
        return self._seen(_texts(arguments), f"an argument of {tool.name}")

    def answer(self, view: AttemptView, answer: str) -> GuardVerdict:
        """Notes an answer that holds it."""
        return self._seen(answer, "the answer")

    def _seen(self, text: str, where: str) -> GuardVerdict:
        return GuardVerdict.passed(self.name, f"{where} holds the canary" if holds(text, self.word) else "")


def _texts(value: Any) -> str:
    """The keys and values within a value, one after another: JSON would spell a line break as a letter n."""
    if isinstance(value, Mapping):
        return "\n".join(f"{key}\n{_texts(each)}" for key, each in value.items())
    return "\n".join(map(_texts, value)) if isinstance(value, list | tuple) else str(value)


def canary(*, word: str = "") -> CanaryWatch:
    """A detector of a word of at least 8 letters and digits that you put into private data."""
    if len(re.sub(r"[\W_]", "", word)) < 8:
        raise ConfigError(
            f"canary needs a word of 8 or more letters and digits: canary:word=..., and {word!r} was given"
        )
    return CanaryWatch(word)
