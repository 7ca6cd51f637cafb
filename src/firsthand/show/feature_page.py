"""The dashboard of a sparse autoencoder: one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from firsthand.show.html_page import page_html


def feature_page(
    title: str, reports: Sequence[Any], *, latents: int, tokens: int, measures: Sequence[tuple[str, str]] = (),
    prompt: str = "", steered: Mapping[int, Sequence[Any]] = MappingProxyType({}),
) -> str:  # fmt: skip
    """The page of these feature reports; texts of tokens are untrusted and escaped.

    `steered` has by feature what the model wrote after `prompt` at each strength (`interp/steered_texts.py`).
    """
    return page_html(
        "features", title=title, reports=list(reports), latents=latents, tokens=tokens, measures=list(measures),
        printable=token_text, log1p=math.log1p, prompt=prompt, steered=steered,
    )  # fmt: skip


def measure_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The measures among an autoencoder's facts, as names and numbers to show."""
    measures = facts.get("measures")
    return [
        (name.replace("_", " "), f"{value:.3f}")
        for name, value in (measures.items() if isinstance(measures, dict) else ())
        if isinstance(value, float)
    ]


def token_text(text: str) -> str:
    """A token with its line ends and tabs shown as signs; an empty one as an empty set."""
    return text.replace("\n", "↵").replace("\r", "␍").replace("\t", "⇥") or "∅"
