"""Bounds the log-probs of prompts that one request may ask for: they cost little to compute and much to write."""

from __future__ import annotations

from firsthand.serve.http.refusals import bad

MAX_CELLS = 1 << 20
"""Log-probs of prompt tokens in one answer to a request: a prompt of 49,000 tokens with the 20 most probable of each."""


def check_cells(cells: int, field: str) -> None:
    """Refuse a request for more log-probs of prompts than MAX_CELLS."""
    if cells > MAX_CELLS:
        raise bad(
            f"the request asks for {cells} log-probs of its prompts, each token's once for every answer: {MAX_CELLS} is the "
            "most, so send fewer prompts at a time, or set n or the log-probs of each token lower",
            field,
            "invalid_value",
        )
