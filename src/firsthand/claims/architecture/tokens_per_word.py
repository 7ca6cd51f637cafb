"""Words per token, by tokenizer, language and kind of text."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="1 token ≈ 0.75 words on average",
    source="OpenAI help, What are tokens and how to count them",
    kind="small",
    cost_s=4,
    needs=("model smollm2",),
)


def measure(lab: Lab) -> Measurement:
    """Words of the text over tokens of SmolLM2's tokenizer; 0.75 is meant for English prose."""
    import inspect

    from firsthand.tokens.fertility import fertility
    from firsthand.tokens.pretrained import load

    tokenizer = load(lab.path("smollm2"))
    rows = [(each.language, each.words / each.tokens) for each in fertility(tokenizer) if each.words]
    code = inspect.getsource(inspect)[:20_000]
    rows.append(("Python code", len(code.split()) / len(tokenizer.encode(code))))
    english = next(value for name, value in rows if name == "English")
    values = sorted(value for _, value in rows)
    return Measurement(
        english,
        f"words per token in English (all texts: {values[0]:.2f} to {values[-1]:.2f})",
        unit="words per token",
        columns=("text", "words per token"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """English within 0.65 to 0.85; other texts may differ."""
    lowest = min((float(row[1]) for row in m.rows), default=m.value)
    if not 0.65 <= m.value <= 0.85:
        return ruling("does not hold here", f"English prose has {m.value:.2f} words per token")
    if lowest < 0.65:
        return ruling("holds in part", f"English prose has {m.value:.2f}, other texts as few as {lowest:.2f}")
    return ruling("holds here", f"English prose has {m.value:.2f} and no text fewer than {lowest:.2f}")
