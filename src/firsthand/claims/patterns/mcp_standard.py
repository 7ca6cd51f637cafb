"""MCP as the standard for tools."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="MCP (Model Context Protocol): Anthropic's open standard for agent↔tool communication — like USB for AI tools",
    source="modelcontextprotocol.io",
    kind="none",
    cannot=(
        "a statement about adoption; `firsthand mcp` serves and calls tools, and its tests run the official "
        "conformance suite"
    ),
)
