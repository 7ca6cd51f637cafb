"""LangSmith as the tool for LangChain."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="The essential observability tool for any LangChain-based system.",
    source="LangSmith",
    kind="none",
    cannot="a judgement about a hosted product; traces of LangChain come in here by OTLP (`firsthand studio`)",
)
