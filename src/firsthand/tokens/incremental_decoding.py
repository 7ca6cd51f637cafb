"""Incremental decoding: ids in, text out as soon as it is certain, and stop strings that may span tokens.

What a Decoder gives, joined, equals `Tokenizer.decode` of all ids; half a UTF-8 character is held back until its rest has
come. StopStrings finds the first place where a stop string is complete.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from firsthand._moved import old_names
from firsthand.tokens.tokenizer import Tokenizer


class IncrementalDetokenizer:
    """Text of tokens that come one by one; each token costs time in its own length only.

    `continuing` says that the text goes on after other text, so that a space before its first word is kept.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True, continuing: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = tokenizer.strips_leading_space and not continuing

    def feed(self, token_id: int) -> str:
        """The text that this token makes certain; empty while a character is incomplete."""
        return self._strip_first_space(self._utf8.decode(self._tokenizer.visible_bytes(token_id, self._skip_special)))

    def finish(self) -> str:
        """What was still held back, an incomplete character as U+FFFD."""
        return self._strip_first_space(self._utf8.decode(b"", final=True))

    def _strip_first_space(self, text: str) -> str:
        if self._strip and text:
            self._strip = False
            return text[1:] if text.startswith(" ") else text
        return text


class StopStrings:
    """Watches the text of an answer for the first place where one of the `stop` strings is complete.

    Where several are complete at the same character, the one that begins first counts. After each `feed`, `take` gives
    the text that may be shown: nothing of a stop string, nor of what could still become one. In the text of the first
    `after` tokens none is looked for. With `include` the text ends after the stop string, so that nothing waits for one.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], *, skip_special: bool = True,
                 continuing: bool = False, after: int = 0, include: bool = False) -> None:  # fmt: skip
        self._decoder = IncrementalDetokenizer(tokenizer, skip_special=skip_special, continuing=continuing)
        self._early = after
        self._include = include
        self._matchers = [_Matcher(string) for string in stop if string]
        self._waiting = ""
        self.stopped: str | None = None
        """The stop string that was found."""

    def feed(self, token_id: int) -> bool:
        """Whether a stop string is complete with this token, or was before."""
        text = self._decoder.feed(token_id)
        if self._early > 0:
            self._early -= 1
            self._waiting += text
            return False
        return self._read(text)

    def finish(self) -> bool:
        """Ends the text: an incomplete character counts as U+FFFD, and nothing more is held back."""
        found = self._read(self._decoder.finish())
        self._matchers = []
        return found

    def take(self) -> str:
        """The text that has become certain since the last call, cut before the stop string if there is one."""
        held = max(matcher.matched for matcher in self._matchers) if self._matchers and not self._include else 0
        cut = len(self._waiting) - held
        text, self._waiting = self._waiting[:cut], self._waiting[cut:]
        return text

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
    """How much of a string the text ends with, one character at a time (Knuth, Morris and Pratt, 1977)."""

    def __init__(self, string: str) -> None:
        self.string = string
        self.matched = 0
        self._shorter = [0] * len(string)
        length = 0
        for index in range(1, len(string)):
            while length and string[index] != string[length]:
                length = self._shorter[length - 1]
            length += string[index] == string[length]
            self._shorter[index] = length

    def step(self, character: str) -> bool:
        """Whether the string is complete with this character."""
        while self.matched and self.string[self.matched] != character:
            self.matched = self._shorter[self.matched - 1]
        self.matched += self.string[self.matched] == character
        return self.matched == len(self.string)


__getattr__ = old_names(__name__, {"Decoder": "IncrementalDetokenizer"})
