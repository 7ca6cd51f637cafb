"""The direction of a metric by its name, for files that do not state it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_WORD = re.compile(r"[a-z0-9]+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LOWER = frozenset(
    {"perplexity", "ppl", "bpb", "bpc", "nll", "mse", "rmse", "mae", "mape", "wer", "cer", "ter", "brier", "ece"}
    | {"logloss", "crossentropy"}
)
"""Words in the names of metrics of which lower is better."""
_LOWER_LAST = frozenset({"error", "errors", "loss", "losses"})
"""Words that mean the same at the end of a name, before `rate` or after `rate of`: an `error_detection` is none."""
_UNITS = frozenset({"nats", "percent", "pct", "mean", "avg", "average"})
"""Words at the end of a name that do not change its direction."""
_MINUS = frozenset({"neg", "negated", "minus", "inverse"})
_NOT = frozenset({"no", "non", "negative"})
"""Words that turn the direction of the metric behind them: `no_error`, but not `non_english_perplexity`."""
_HANDLED = frozenset(
    {"find", "finds", "spot", "spots", "detect", "detects", "catch", "catches", "fix", "fixes", "locate", "locates"}
    | {"identify", "identifies", "avoid", "avoids", "handle", "handles", "explain", "explains", "without"}
)
"""Words before an error that is a thing to deal with: `finds_error`."""
_BETWEEN = frozenset({"log", "mean", "root", "squared", "absolute", "word", "byte", "token"})
_GAINS = frozenset({"skill", "improvement", "reduction"})
"""Words behind a metric that turn its direction: `brier_skill_score`."""
_HIGHER_LAST = frozenset({"accuracy", "acc", "f1", "precision", "recall", "auc", "auroc", "detection", "correction"})
_HIGHER = _HIGHER_LAST | frozenset(
    {"accuracies", "reward", "rewards", "return", "returns", "bleu", "rouge", "chrf", "ndcg", "mrr", "mcc", "r2", "iou"}
    | {"match", "pass", "win", "wins", "success", "solved", "loglikelihood"}
)
"""Words at the end of the names of metrics of which higher is better, before `rate`, a number, or the name of a split."""
_SPLITS = frozenset({"train", "val", "valid", "validation", "eval", "dev", "test", "rate", "rates", "at", "k"})
_TURNING = frozenset(
    {
        "to",
        "until",
        "till",
        "per",
        "before",
        "no",
        "non",
        "not",
        "false",
        "negative",
        "std",
        "delta",
        "attack",
        "attacks",
    }
    | {"attacker", "jailbreak", "injection", "harmful"}
)
"""Words before the metric that leave its direction open: `steps_to_success`, `cost_per_success`, `false_match_rate`."""
_ONE_LESS = re.compile(
    r"(?:^|\()\s*1\s*[-−–/](?!\s*(?:shot|best|gram|step|nn|hop|pass|day|hour|turn)s?(?![a-z]))", re.I
)
"""`1 - WER`, and the reciprocal `1/perplexity`; not a `1-best WER`."""


def is_lower_better(name: str) -> bool:
    """True for the name of a metric of which lower is better, such as `word_perplexity` or `error rate`.

    The name is a benchmark's where no metric is stated.
    """
    words = _WORD.findall(_HUMP.sub(" ", name).casefold())
    while words and words[-1] in _UNITS:
        words.pop()
    at = next((i for i in range(len(words)) if _is_loss(words, i)), None)
    if at is None or words[-1] in _HIGHER_LAST or _ONE_LESS.search(name):
        return False
    before = words[:at]
    if not (_MINUS.isdisjoint(before) and _HANDLED.isdisjoint(before) and _GAINS.isdisjoint(words[at:])):
        return False
    while before and before[-1] in _BETWEEN:
        before.pop()
    return _NOT.isdisjoint(before[-1:])


def is_higher_better(name: str) -> bool:
    """True for the name of a metric of which higher is better, such as `val_accuracy`, `recall@10` or `neg_loss`.

    Of most names neither is known: `latency` is not one of either.
    """
    if is_lower_better(name):
        return False
    words = _WORD.findall(_HUMP.sub(" ", name).casefold())
    if any(_is_loss(words, i) for i in range(len(words))):  # a negated one, or a gain
        return True
    while words and (words[-1] in _UNITS | _SPLITS or words[-1].isdigit()):
        words.pop()
    if words[-1:] == [] or words[-1] not in _HIGHER or _ONE_LESS.search(name):
        return False
    return (_MINUS | _TURNING).isdisjoint(words[:-1])


def unstated_direction(name: str, details: Iterable[Mapping[str, Any]]) -> str:
    """A sentence for scores whose name says that lower is better, and whose details say nothing of it; else empty.

    Scorers state it (`Score.is_harm`), and a share of a figure (`Score.corpus`) has the figure's, so the name alone turns
    no score of a run.
    """
    if not is_lower_better(name) or any("is_harm" in each or "corpus" in each for each in details):
        return ""
    return (
        f"Higher counts as better for {name}, whose name says that lower is: its scorer states the direction in the detail "
        'of its Score, as {"is_harm": True}, or False if higher is better'
    )


def _is_loss(words: Sequence[str], i: int) -> bool:
    """True if the word at `i`, with those beside it, names a metric of which lower is better."""
    word, last = words[i], words[max(i - 1, 0) : i]
    if word in _LOWER_LAST:
        return i + 1 == len(words) or words[i + 1] in ("rate", "rates") or words[max(i - 2, 0) : i] == ["rate", "of"]
    if word in ("neg", "negative"):
        return words[i + 1 : i + 2] == ["loglikelihood"] or words[i + 1 : i + 3] == ["log", "likelihood"]
    return (
        word in _LOWER or (word == "bits" and not "".join(last).isdigit()) or (word == "entropy" and last == ["cross"])
    )
