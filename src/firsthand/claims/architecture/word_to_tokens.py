"""Tokens of one word."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.stats.intervals import proportion_interval

CLAIM = Claim(
    quote="The same word can be 1–4 tokens depending on context.",
    source="Sennrich et al. 2016, arXiv:1508.07909",
    kind="small",
    cost_s=1,
    needs=("model smollm2",),
)
WORDS = (
    "tokenization",
    "internationalisation",
    "running",
    "cat",
    "photosynthesis",
    "hello",
    "antidisestablishmentarianism",
)


def measure(lab: Lab) -> Measurement:
    """Each word with and without a blank, capitalised and in capitals."""
    from collections import Counter

    from firsthand.tokens.fertility import ARTICLE_1
    from firsthand.tokens.pretrained import load

    tokenizer = load(lab.path("smollm2"))
    words = [word.strip(".,") for word in ARTICLE_1["English"].split()] + list(WORDS)
    sizes: Counter[int] = Counter()
    moving = 0
    for word in dict.fromkeys(words):
        forms = {
            len(tokenizer.encode(form)) for form in (word, f" {word}", f" {word.capitalize()}", f" {word.upper()}")
        }
        sizes.update(forms)
        moving += len(forms) > 1
    total = len(dict.fromkeys(words))
    low, high = proportion_interval(moving, total)
    rows = tuple((str(size), float(count)) for size, count in sorted(sizes.items()))
    return Measurement(
        max(sizes),
        f"most tokens of one word; {moving} of {total} words differ by blank and case [{low:.0%}, {high:.0%}]",
        n=total,
        columns=("tokens", "forms"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """One to four is the list's range."""
    if m.value <= 4:
        return ruling("holds here", f"at most {m.value:.0f} tokens, by the blank before it and its case")
    return ruling("holds in part", f"blank and case change it, and some words take more than 4: up to {m.value:.0f}")
