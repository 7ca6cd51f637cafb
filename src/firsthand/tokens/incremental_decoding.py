"""Incremental detokenizer: ids in, text out as soon as it is certain, and stop strings that may span tokens.

The pieces of an IncrementalDetokenizer, joined, equal `Tokenizer.decode` of all ids; an incomplete UTF-8 character is
held back until its rest has come. StopStrings finds the first place where a stop string is complete.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from firsthand.tokens.calls.harmony_text import HarmonyPiece, HarmonyText
from firsthand.tokens.tokenizer import Tokenizer


class IncrementalDetokenizer:
    """Decodes tokens one by one; each takes time in its own length only.

    `continuing`: the text continues other text, so a space before its first word is kept.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True, continuing: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = tokenizer.strips_leading_space and not continuing

    def feed(self, token_id: int) -> str:
        """Returns the text that this token completes; empty while a character is incomplete."""
        return self._strip_first_space(self._utf8.decode(self._tokenizer.visible_bytes(token_id, self._skip_special)))

    def finish(self) -> str:
        """Returns the text held back, an incomplete character as U+FFFD."""
        return self._strip_first_space(self._utf8.decode(b"", final=True))

    def _strip_first_space(self, text: str) -> str:
        if self._strip and text:
            self._strip = False
            return text[1:] if text.startswith(" ") else text
        return text


@dataclass(frozen=True)
class StopString:
    """A stop string and its search table, which takes time in the string's length to make: one serves all answers."""

    string: str
    shorter: tuple[int, ...]
    """For each beginning of the string the length of its longest end that is a shorter beginning."""

    @classmethod
    def of(cls, string: str) -> StopString:
        """Returns the string with its table (Knuth, Morris and Pratt, 1977)."""
        shorter = [0] * len(string)
        length = 0
        for index in range(1, len(string)):
            while length and string[index] != string[length]:
                length = shorter[length - 1]
            length += string[index] == string[length]
            shorter[index] = length
        return cls(string, tuple(shorter))


class StopStrings:
    """Finds the first place in an answer's text where one of the `stop` strings is complete.

    If several are complete at the same character, the one that begins first counts. After each `feed`, `take` returns
    the text that may be shown: no part of a stop string, nor of what could still become one. The text of the first
    `after` tokens is not searched. With `include` the text ends after the stop string, so nothing is held back. Give
    `StopString`s where several answers have the same ones. `channels` reads the tokens of an answer in Harmony's channels.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str | StopString], *, skip_special: bool = True,
                 continuing: bool = False, after: int = 0, include: bool = False,
                 channels: HarmonyText | None = None) -> None:  # fmt: skip
        self.channels = channels
        self._decoder = IncrementalDetokenizer(tokenizer, skip_special=skip_special, continuing=continuing)
        self._early = after
        self._include = include
        self._matchers = [_Matcher(StopString.of(each) if isinstance(each, str) else each) for each in stop if each]
        self._waiting = ""
        self.stopped: str | None = None
        """The stop string that was found."""

    @property
    def cuts(self) -> bool:
        """True if a stop string has ended the text, or may still cut off a part of it."""
        return self.stopped is not None or (bool(self._matchers) and not self._include)

    def feed(self, token_id: int) -> bool:
        """Returns whether a stop string is complete, with this token or before."""
        is_early = self._early > 0
        self._early -= is_early
        if self.channels is not None:
            return self._read_pieces(self.channels.feed(token_id), is_early)
        text = self._decoder.feed(token_id)
        if is_early:
            self._waiting += text
            return False
        return self._read(text)

    def finish(self) -> bool:
        """End the text: an incomplete character becomes U+FFFD, and nothing more is held back."""
        if self.channels is not None:
            found = self._read_pieces(self.channels.finish())
        else:
            found = self._read(self._decoder.finish())
        self._matchers = []
        return found

    def take(self) -> str:
        """Returns the text that became certain since the last call, cut before the stop string if there is one."""
        held = max(matcher.matched for matcher in self._matchers) if self._matchers and not self._include else 0
        cut = len(self._waiting) - held
        text, self._waiting = self._waiting[:cut], self._waiting[cut:]
        return text

    def _read_pieces(self, pieces: Sequence[HarmonyPiece], is_early: bool = False) -> bool:
        """Read text and marks; a stop string is sought in the text of one message."""
        for text, is_mark in pieces:
            if (is_mark or is_early) and self.stopped is None:
                self._waiting += text
                for matcher in self._matchers:
                    matcher.matched = 0
            else:
                self._read(text)
        return self.stopped is not None

    def _read(self, text: str) -> bool:
        if self.stopped is not None:
            return True
        for index, character in enumerate(text if self._matchers else ""):
            complete = [matcher.string for matcher in self._matchers if matcher.step(character)]
            if complete:
                self.stopped = max(complete, key=len)
                self._waiting += text[: index + 1]
                if not self._include:
                    self._waiting = self._waiting[: -len(self.stopped)]
                self._matchers = []
                return True
        self._waiting += text
        return False


class _Matcher:
    """Tracks how much of a string the text ends with, one character at a time."""

    def __init__(self, stop: StopString) -> None:
        self.string, self._shorter = stop.string, stop.shorter
        self.matched = 0

    def step(self, character: str) -> bool:
        """Returns whether the string is complete with this character."""
        while self.matched and self.string[self.matched] != character:
            self.matched = self._shorter[self.matched - 1]
        self.matched += self.string[self.matched] == character
        return self.matched == len(self.string)
