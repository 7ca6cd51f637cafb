"""Links to the illustrated posts."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="The illustrated transformer, BERT, and GPT posts are the most-linked ML explainers on the internet.",
    source="Alammar, jalammar.github.io",
    kind="none",
    cannot="needs a count of links over the web, and no claim asks the network",
)
