"""Replaces the secrets that a list of rules finds in a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from firsthand.ingest.secret_texts import PUT
from firsthand.ingest.stepped_matches import stepped_matches

Rule: TypeAlias = tuple[re.Pattern[str], Callable[[re.Match[str]], bool]]
"""An expression whose group `secret` (else `plain`) holds what may be a secret, and a function that decides if it is one."""


def without_matches(text: str, rules: Sequence[Rule]) -> tuple[str, int]:
    """The text with the secrets of each rule in turn replaced, and how many they were."""
    number = 0
    for expression, is_secret in rules:
        pieces, end = [], 0
        for match in stepped_matches(expression, text):
            if is_secret(match):
                begin, after = match.span("secret" if match["secret"] is not None else "plain")
                pieces += [text[end:begin], PUT]
                end = after
        number += len(pieces) // 2
        text = "".join([*pieces, text[end:]]) if pieces else text
    return text, number
