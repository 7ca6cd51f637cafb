"""A2A between frameworks."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Google A2A: Agent-to-Agent protocol for cross-framework communication",
    source="a2a-protocol.org",
    kind="none",
    cannot="needs agents of other frameworks; the tests run the A2A project's conformance kit against `firsthand serve`",
)
