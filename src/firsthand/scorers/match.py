"""Compares an answer with the reference in `task.secret["answer"]`: exactly, by words, by number.

All scorers are pure, fast and bounded, and give a Score for any text. Numbers are parsed in `patterns/parts/answers.py`.
Left out: symbolic mathematics (`symbolic.py`) and judges (`model_judge.py`).
"""

from __future__ import annotations

import re
import string
import unicodedata
from fractions import Fraction

from firsthand.patterns.parts.answers import last_number, parse_number
from firsthand.patterns.parts.exclamations import without_exclamations
from firsthand.scorers.whole_answer import whole_answer
from firsthand.task import Task
from firsthand.trace import Score, Trace

TOLERANCE = Fraction(1, 10**6)
"""Relative tolerance of equal numbers, so that 0.333333 equals 1/3 to six digits."""

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_GROUP = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+|(?<=\d)(?=[¼-¾⅐-⅞])")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_QUOTES = str.maketrans("‘’‚‛ʼ“”„‟«»‹›", "'''''\"\"\"\"\"\"''")
_HYPHEN = re.compile(r"(?<=[^\W\d_]{2})-(?=[^\W\d_]{2})")  # New-York and New York have the same words
# Signs that make another value or name: -5, -(5), -**5**, !=5, 1.5, 3/4, 5:30, 2^3, A+, C++, C#, <5;
# not those of `well-known` and B-52.
_MEANT = re.compile(
    r"(?<![^\W_])-(?=[-+(\[{|*_`\\]{0,9}\.?\d)|!(?==)"
    r"|(?<![^\W_])\.(?=\d)|(?<=\d)[^\w\s]{1,9}(?=\d)|(?<=[^\W_])(?:\++|#+)(?![^\W_])|[<>^]"
    r"|(?:(?<=\b[a-z])|(?<=\b[a-z]{2}))-(?![-\w])"
    # Operators between and before single letters and digits: a-b, x=5, -x, !A, but not R&B in a word or well-known.
    r"|(?<=\b[^\W_])[-+*/=|](?=[^\W_]\b)|(?<![^\W_)])[-!~¬](?=[^\W\d_]\b|inf\b|[∞π])"
)


def exact(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer is the reference, ignoring surrounding whitespace."""
    return _score("exact", (trace.answer or "").strip() == _reference(task).strip(), trace)


def normalised(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer has the reference's words, ignoring case, articles, punctuation and spacing.

    That is SQuAD's rule, but for signs that make another value or name: -5 is not 5, 1.5 is not 15, A+ is not "an A".
    """
    return _score("normalised", same_words(whole_answer(trace), _reference(task)), trace)


def numeric(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer's number is the reference's: commas, $, %, units and fractions are read, 72.0 is 72."""
    answer = without_exclamations(trace.answer or "", task.prompt)
    return _score("numeric", same_number(answer, _reference(task)), trace)


def flexible(task: Task, trace: Trace) -> Score:
    """Score 1 if the last number of the answer is the reference's: GSM8K's flexible-extract."""
    found = last_number(trace.answer or "")
    return _score("flexible", found is not None and same_number(found, _reference(task)), trace)


def strict(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer is the reference and the model's last answer states it as `#### 42`: GSM8K's strict-match.

    Of several samples, one that states it is enough. The first such statement of a text counts.
    """
    generations = [call for call in trace.calls if call.kind == "generate" and call.nodes]
    texts = [trace.nodes[node].message.text for node in generations[-1].nodes] if generations else []
    stated = [found.group(1) for text in texts if (found := _STRICT.search(text))]
    reference = _plain(_reference(task))
    correct = reference in map(_plain, stated) and _plain(whole_answer(trace)) == reference
    return _score("strict", correct, trace)


def same_number(answer: str, reference: str, tolerance: Fraction = TOLERANCE) -> bool:
    """Return whether two texts are the same number, to a relative tolerance; integers must be equal."""
    left, right = parse_number(answer), parse_number(reference)
    if left is None or right is None:
        return False
    whole = left.denominator == right.denominator == 1
    return left == right if whole else abs(left - right) <= tolerance * abs(right)


def same_words(answer: str, reference: str) -> bool:
    """Return whether two texts have the same words and the same signs that make a value; see `normalised`."""
    texts = [_with_meant_signs(each).translate(_QUOTES) for each in (answer, reference)]
    parted = [normalise(_HYPHEN.sub(" ", each)) for each in texts]
    if parted[0] and parted[0] == parted[1]:
        return True
    for form in (normalise, _with_articles, str.strip):  # "A" is a name where nothing but an article is left
        ours, theirs = map(form, texts)
        if ours or theirs:
            return ours == theirs
    return False


def normalise(text: str) -> str:
    """Return a text's words: case folded, accents composed, no articles, no punctuation, single spaces."""
    return " ".join(_ARTICLES.sub(" ", _with_articles(text)).split())


def _with_articles(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().translate(_PUNCTUATION).split())


def _with_meant_signs(text: str) -> str:
    """Return the text with a private character for each sign that makes another value or name."""
    text = unicodedata.normalize("NFKC", _RAISED.sub(lambda found: f"^{found.group()}" if found.group() else " ", text))
    text = "".join("-" if each == "−" or unicodedata.category(each) == "Pd" else each for each in text).casefold()
    text = re.sub(r"^\s*-\s+(?=[.\d])", "-", _GROUP.sub("", text.replace("$", "")))
    return _MEANT.sub(lambda found: "".join(chr(0xE000 + ord(each)) for each in found.group()), text)


def _reference(task: Task) -> str:
    return str(task.secret.get("answer", ""))


def _plain(number: str) -> str:
    """Return a number as GSM8K compares it: without , and $ and a trailing full stop."""
    return re.sub(r"[,$]", "", number.strip()).removesuffix(".")


def _score(name: str, correct: bool, trace: Trace) -> Score:
    return Score(name, float(correct), {"answer": (trace.answer or "")[:200]})
