"""Entries of vocabularies."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="GPT-4: ~100K vocab (cl100k). Llama 3: 128K vocab",
    source="OpenAI tiktoken, cl100k_base; Llama 3, arXiv:2407.21783",
    kind="arithmetic",
    cost_s=1,
)
CL100K = 100_256 + 5
"""Ranks and special tokens of OpenAI's file."""


def measure(lab: Lab) -> Measurement:
    """Vocabularies of published configurations."""
    from firsthand.hub.model_shapes import KNOWN_SHAPES

    rows = [
        ("cl100k_base (published rank file)", float(CL100K)),
        *((n, float(s.vocab_size)) for n, s in KNOWN_SHAPES.items()),
    ]
    llama = KNOWN_SHAPES["llama-3-8b"].vocab_size
    return Measurement(llama, "entries of Llama 3's vocabulary", columns=("model", "entries"), rows=tuple(rows))


def judge(m: Measurement) -> Verdict:
    """128K within a thousand."""
    if 127_000 <= m.value <= 129_000:
        return ruling("holds here", f"Llama 3 has {m.value:,.0f}, cl100k_base 100,256 and five special tokens")
    return ruling("does not hold here", f"Llama 3's vocabulary has {m.value:,.0f} entries")
