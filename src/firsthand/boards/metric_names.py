"""The direction of a metric by its name, for files that do not state it."""

from __future__ import annotations

import re

_WORD = re.compile(r"[a-z0-9]+")
_LOWER = frozenset(
    {"perplexity", "ppl", "bits", "bpb", "bpc", "nll", "mse", "rmse", "mae", "wer", "cer", "ter", "brier", "ece"}
)
"""Words in the names of metrics of which lower is better."""
_LOWER_LAST = frozenset({"error", "errors", "loss", "losses"})
"""Words that mean the same at the end of a name, or with `rate`: an `error_detection` is none."""
_TURNED = frozenset(
    {"neg", "negative", "negated", "minus", "inverse", "no", "non", "skill", "improvement", "reduction"}
)
"""Words that turn a name's direction: `neg_loss`, `brier_skill_score`."""


def is_lower_better(name: str) -> bool:
    """True for the name of a metric of which lower is better, such as `word_perplexity` or `error rate`.

    The name is a benchmark's where no metric is stated.
    """
    words = _WORD.findall(name.casefold())
    ends = {*words} if "rate" in words else {*words[-1:]}
    return _TURNED.isdisjoint(words) and not (_LOWER.isdisjoint(words) and _LOWER_LAST.isdisjoint(ends))
