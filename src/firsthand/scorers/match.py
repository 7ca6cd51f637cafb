"""Compares an answer with the reference in `task.secret["answer"]`, or one of `["answers"]`: exactly, by words, by number.

All scorers are pure, fast and bounded, and give a Score for any text; a task without a reference is a DataError,
as is one whose reference is no number, for those that compare numbers.
Numbers are parsed in `patterns/parts/answers.py`.
Left out: symbolic mathematics (`symbolic.py`) and judges (`model_judge.py`).
"""

from __future__ import annotations

import re
import string
import unicodedata
from fractions import Fraction

from firsthand.errors import DataError
from firsthand.patterns.parts.answers import last_number, parse_number
from firsthand.patterns.parts.exclamations import without_exclamations
from firsthand.scorers.reference_answers import accepted_answers
from firsthand.scorers.whole_answer import whole_answer
from firsthand.system.normalised_text import normalised_text
from firsthand.task import Task
from firsthand.trace import Score, Trace

TOLERANCE = Fraction(1, 10**6)
"""Relative tolerance of equal numbers. At this one, a decimal of six digits is also what rounds to it: 0.166667 is 1/6."""

_ROUNDED_DIGITS = 6
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_DIGITS = re.compile(r"-?[0-9.]+")
_GROUP = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+|(?<=\d)(?=[¼-¾⅐-⅞])")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_KEPT = "‰‱′·⌈⌉⌊⌋"  # punctuation by its category, but it makes another value
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
# In texts that are nothing but an expression, also those between a name and a number, and the factorial of an argument:
# x+10, pi/2, O(n!), but not 2*x, and not HTTP/2, which HTTP2 is as well.
_EXPRESSION = re.compile(r"(?:(?<![^\W\d_])(?:pi|[^\W\d_])(?![^\W\d_])|[-+*/=!^().\d\s\U000f0000-\U000ffffd])+")
_MEANT_IN_EXPRESSION = re.compile(r"(?<=[^\W\d_])[+/=](?=\d)|(?<=\d)[+/=](?=[^\W\d_])|(?<=\w\([^\W\d_])!(?=\))")
_INTERVAL = re.compile(r"[\s$]{0,3}([(\[\]])[^()\[\],;]+(?:[,;][^()\[\],;]+)+([)\[\]])[\s$.]{0,3}")


def exact(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer is the reference, ignoring surrounding whitespace."""
    return _score("exact", (trace.answer or "").strip() in map(str.strip, accepted_answers(task)), trace)


def normalised(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer has the reference's words, ignoring case, articles, punctuation and spacing.

    That is SQuAD's rule, but for signs that make another value or name: -5 is not 5, 1.5 is not 15, A+ is not "an A", and
    [0,1) alone is not [0,1]. Punctuation is that of any script: 「東京」。 is 東京.
    """
    return _score("normalised", any(same_words(whole_answer(trace), each) for each in accepted_answers(task)), trace)


def numeric(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer's number is the reference's: commas, $, %, units and fractions are read, 72.0 is 72."""
    answer = without_exclamations(trace.answer or "", task.prompt)
    return _score("numeric", any(same_number(answer, each) for each in accepted_numbers(task, "numeric")), trace)


def flexible(task: Task, trace: Trace) -> Score:
    """Score 1 if the last number of the answer is the reference's: GSM8K's flexible-extract."""
    found = last_number(trace.answer or "")
    references = accepted_numbers(task, "flexible")
    correct = [found is not None and same_number(found, each) for each in references]
    return _score("flexible", any(correct), trace)


def strict(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer is the reference and the model's last answer states it as `#### 42`: GSM8K's strict-match.

    Of several samples, one that states it is enough. The first such statement of a text counts.
    """
    generations = [call for call in trace.calls if call.kind == "generate" and call.nodes]
    texts = [trace.nodes[node].message.text for node in generations[-1].nodes] if generations else []
    stated = [found.group(1) for text in texts if (found := _STRICT.search(text))]
    correct = (
        set(map(_plain, accepted_numbers(task, "strict"))) & set(map(_plain, stated)) & {_plain(whole_answer(trace))}
    )
    return _score("strict", bool(correct), trace)


def accepted_numbers(task: Task, scorer: str) -> list[str]:
    """Return the accepted answers that are numbers to `numeric`, `flexible` or `strict`.

    DataError as `accepted_answers`, or if none is: every answer would be wrong.
    """
    given = accepted_answers(task)
    if found := [each for each in given if is_comparable(each, scorer)]:
        return found
    raise DataError(f"task {task.id:.100}: {no_number(given[0], scorer)}")


def is_comparable(reference: str, scorer: str) -> bool:
    """Return whether a reference is a number to `numeric` or `flexible`: 1,000, 3/4 and 5 km are, 10^3, 4:00 and two not.

    To `strict` it is one of digits alone, as behind `####`.
    """
    return (
        _DIGITS.fullmatch(_plain(reference)) is not None if scorer == "strict" else parse_number(reference) is not None
    )


def no_number(reference: str, scorer: str) -> str:
    """Return the message that a reference is no number to a scorer."""
    return (
        f"the reference answer {reference!r:.60} is no number that {scorer} reads, and no answer could be right: write "
        "it in digits, or take a scorer that fits it, such as boxed for mathematics or normalised for words"
    )


def same_number(answer: str, reference: str, tolerance: Fraction = TOLERANCE) -> bool:
    """Return whether two texts are the same number, to a relative tolerance, in either order; integers must be equal.

    With the default tolerance, a number also equals the decimal of six or more digits to which it rounds.
    """
    left, right = parse_number(answer), parse_number(reference)
    if left is None or right is None:
        return False
    if left.denominator == right.denominator == 1:
        return left == right
    rounded = tolerance == TOLERANCE and (_rounds_to(left, right) or _rounds_to(right, left))
    return rounded or abs(left - right) <= tolerance * max(abs(left), abs(right))


def _rounds_to(value: Fraction, decimal: Fraction) -> bool:
    """True if the second is a decimal of six or more digits, with places, to which the first rounds: 1/6 to 0.166667."""
    places = next((count for count in range(40) if 10**count % decimal.denominator == 0), 0)
    return (
        places > 0
        and abs(decimal) * 10**places >= 10 ** (_ROUNDED_DIGITS - 1)
        and abs(value - decimal) * 2 * 10**places <= 1
    )


def same_words(answer: str, reference: str) -> bool:
    """Return whether two texts have the same words and the same signs that make a value; see `normalised`."""
    if _are_other_intervals(_INTERVAL.fullmatch(_folded(answer)), _INTERVAL.fullmatch(_folded(reference))):
        return False
    texts = [_with_meant_signs(each).translate(_QUOTES) for each in (answer, reference)]
    if all(map(_EXPRESSION.fullmatch, texts)):
        texts = [_MEANT_IN_EXPRESSION.sub(_kept, each) for each in texts]
    parted = [_words(_HYPHEN.sub(" ", each)) for each in texts]
    if parted[0] and parted[0] == parted[1]:
        return True
    for form in (_words, _with_articles, str.strip):  # "A" is a name where nothing but an article is left
        ours, theirs = map(form, texts)
        if ours or theirs:
            return ours == theirs
    return False


def normalise(text: str) -> str:
    """Return a text's words by SQuAD's rule: case folded, accents composed, no articles or ASCII punctuation."""
    return " ".join(_ARTICLES.sub(" ", _folded(text).translate(_PUNCTUATION)).split())


def _words(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", _with_articles(text)).split())


def _with_articles(text: str) -> str:
    text = _folded(text)
    return " ".join(text.translate(dict.fromkeys(ord(each) for each in set(text) if _is_punctuation(each))).split())


def _folded(text: str) -> str:
    return normalised_text("NFKC", text).casefold()


def _is_punctuation(sign: str) -> bool:
    return sign in string.punctuation or (unicodedata.category(sign)[0] == "P" and sign not in _KEPT)


def _are_other_intervals(left: re.Match[str] | None, right: re.Match[str] | None) -> bool:
    """True if two texts are nothing but values in brackets, and these differ: `[0,1)` is `[0,1[`, but not `[0,1]`.

    (3,4) and [3,4] may both be a point or a list: only brackets of two kinds, or reversed ones, tell an interval.
    """
    if not left or not right or {left[1] + left[2], right[1] + right[2]} == {"()", "[]"}:
        return False
    return (left[1] == "[", left[2] == "]") != (right[1] == "[", right[2] == "]")


def _with_meant_signs(text: str) -> str:
    """Return the text with a private character for each sign that makes another value or name."""
    text = normalised_text("NFKC", _RAISED.sub(lambda found: f"^{found.group()}" if found.group() else " ", text))
    text = "".join("-" if each == "−" or unicodedata.category(each) == "Pd" else each for each in text).casefold()
    text = re.sub(r"^\s*-\s+(?=[.\d])", "-", _GROUP.sub("", text.replace("$", "")))
    return _MEANT.sub(_kept, text)


def _kept(signs: re.Match[str]) -> str:
    """Return private characters, which are no punctuation, in the signs' place."""
    return "".join(chr(0xF0000 + ord(each) % 0xFFFE) for each in signs.group())


def _plain(number: str) -> str:
    """Return a number as GSM8K compares it: without , and $ and a trailing full stop."""
    return re.sub(r"[,$]", "", number.strip()).removesuffix(".")


def _score(name: str, correct: bool, trace: Trace) -> Score:
    return Score(name, float(correct), {"answer": (trace.answer or "")[:200]})
