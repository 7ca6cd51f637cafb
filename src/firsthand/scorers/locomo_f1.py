"""LoCoMo's score of an answer: F1 of stemmed words, by the question's category (Maharana et al., 2024)."""

from __future__ import annotations

import re
import string
from collections import Counter
from functools import lru_cache
from typing import Any

from firsthand.benchmark import needing
from firsthand.errors import MissingExtra
from firsthand.scorers.whole_answer import whole_answer
from firsthand.task import Task
from firsthand.trace import Score, Trace

MAX_CHARS = 100_000
"""An answer with more characters scores 0."""
_ARTICLES = re.compile(r"\b(a|an|the|and)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@lru_cache(maxsize=1)
def stemmer() -> Any:
    """NLTK's Porter stemmer, which the authors use. MissingExtra without it."""
    try:
        from nltk.stem import PorterStemmer
    except ImportError:
        raise MissingExtra("nltk", "text", "LoCoMo's F1") from None
    return PorterStemmer()


@needing(stemmer)
def locomo_f1(task: Task, trace: Trace) -> Score:
    """Score 0 to 1: F1 for categories 2 to 4, the mean over the answer's parts for 1, a refusal for 5.

    In category 3 only the part of the reference before a semicolon counts.
    """
    answer = whole_answer(trace, MAX_CHARS)
    category, reference = int(task.secret["category"]), str(task.secret["answer"])
    if category == 5:
        refused = "no information available" in answer.lower() or "not mentioned" in answer.lower()
        return Score("locomo_f1", float(refused))
    if category == 1:
        return Score("locomo_f1", parts_f1(answer, reference))
    return Score("locomo_f1", stemmed_f1(answer, reference.split(";")[0].strip() if category == 3 else reference))


def stemmed_f1(answer: str, reference: str) -> float:
    """Return the F1 of the stemmed words of two texts, articles, `and`, commas and punctuation aside."""
    said, wanted = _stems(answer), _stems(reference)
    shared = sum((Counter(said) & Counter(wanted)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(said), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def parts_f1(answer: str, reference: str) -> float:
    """Return the mean, over the reference's parts between commas, of the best F1 of a part of the answer."""
    said = [part.strip() for part in answer.split(",")][:200]
    wanted = [part.strip() for part in reference.split(",")]
    return sum(max(stemmed_f1(part, each) for part in said) for each in wanted) / len(wanted)


def _stems(text: str) -> list[str]:
    plain = text.replace(",", "").lower().translate(_PUNCTUATION)
    return [str(stemmer().stem(word)) for word in _ARTICLES.sub(" ", plain).split()]
