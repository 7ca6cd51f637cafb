"""Words per token, by tokenizer, language and kind of text."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="1 token ≈ 0.75 words on average",
    source="OpenAI help, What are tokens and how to count them",
    kind="small",
    cost_s=2,
    needs=("model smollm2",),
)


def measure(lab: Lab) -> Measurement:
    """Words of the text over tokens of SmolLM2's tokenizer; 0.75 is meant for English prose."""
    import inspect

    from firsthand.claims.all_claims import all_claims
    from firsthand.tokens.fertility import fertility
    from firsthand.tokens.pretrained import load

    tokenizer = load(lab.path("smollm2"))
    prose = " ".join(each.claim.quote for each in all_claims().values())
    code = inspect.getsource(inspect)[:20_000]
    texts = {"English prose: the list's sentences": prose, "Python code": code}
    rows = [(name, len(text.split()) / len(tokenizer.encode(text))) for name, text in texts.items()]
    rows += [(f"{each.language}, article 1", each.words / each.tokens) for each in fertility(tokenizer) if each.words]
    return _measured(rows)


def _measured(rows: list[tuple[str, float]]) -> Measurement:
    """The mean and the bounds of the English texts; `rows` are names of texts and their words per token."""
    english = [value for name, value in rows if "English" in name]
    return Measurement(
        sum(english) / len(english),
        "words per token in English, the mean of two texts, and between which values they lie",
        min(english),
        max(english),
        len(english),
        unit="words per token",
        columns=("text", "words per token"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """All English texts within a tenth of 0.75, or on both sides of it."""
    low, high = m.bounds
    if low >= 0.65 and high <= 0.85:
        return ruling("holds here", f"English texts have {low:.2f} to {high:.2f}")
    if low <= 0.75 <= high:
        why = f"0.75 lies between English texts of {low:.2f} (technical) and {high:.2f} (plain)"
        return ruling("holds in part", f"{why}; code and other languages have fewer")
    return ruling("does not hold here", f"English texts have {low:.2f} to {high:.2f}")
