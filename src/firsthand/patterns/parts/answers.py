"""Extracts answers and numbers from a model's output, for patterns and scorers.

Every function here takes text of any kind and length, in linear time. Bounds in characters count what is said: see
`filler.py`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice

from firsthand.patterns.parts.boxes import last_boxed, line_of_box
from firsthand.patterns.parts.equations import is_check, remarks, right_side
from firsthand.patterns.parts.exclamations import without_exclamations
from firsthand.patterns.parts.filler import without_filler
from firsthand.patterns.parts.last_line import last_line_answer
from firsthand.patterns.parts.plain_values import MARK, plain_values
from firsthand.patterns.parts.spelled_numbers import with_digits
from firsthand.patterns.parts.stated_choice import stated_choice
from firsthand.patterns.parts.statements import STATED, STATED_ABROAD, TAKEN_BACK_ABROAD, expected
from firsthand.patterns.parts.taken_back import BEFORE_CHARS, asserts, taken_back
from firsthand.patterns.parts.value_words import changes_value, multiple
from firsthand.system.normalised_text import normalised_text
from firsthand.system.said_text import said_text
from firsthand.task import Task

TAIL_CHARS = 20_000
"""Answers are searched in the last characters only, of a longer text without its filler."""
MAX_NUMBER_CHARS = 320
MOST_REMARKS = 8
"""Places where a stated number may end before a remark that are tried."""

_HASHES = re.compile(r"####[ \t]*([^\n]*)")
# A comma groups digits by three, or by two before the last three as in India: `12,34` is two numbers.
_GROUPED = r"(?:\d{1,3}(?:,\d{3}){1,100}|\d{1,2}(?:,\d{2}){1,100},\d{3})(?![,\d])|\d+"
_NUMBER = re.compile(
    rf"[-−]?\$?(?:(?:{_GROUPED})(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{{1,4}}(?![\d\w]))?(?:[ \t]*/[ \t]*(?:{_GROUPED}))?"
)
_TAGGED = re.compile(r"<answer>([^<\n]*)</answer>", re.IGNORECASE)
# `not 5 but 6`; and `not 5, it is 6` where no other number follows.
_NOT_BUT = re.compile(
    rf"\bnot[ \t]+{_NUMBER.pattern}(?:[ \t]*,?[ \t]*but[ \t]+(?=[-−$]*\d)"
    rf"|[ \t]*[,;.:-][ \t]*(?:but[ \t]+)?(?:it|that)(?:['’]s|[ \t]+(?:is|was))[ \t]+"
    rf"(?={_NUMBER.pattern}(?![^\d\n]{{0,200}}\b(?:less|more|fewer|short|off|times|away)\b)[^\d\n]{{0,200}}(?:\n|$)))",
    re.IGNORECASE,
)
_MIXED = re.compile(r"([-−]?\d{1,20})[ \t]+(\d{1,20}/\d{1,20})")
_FRAC = re.compile(r"\\[dtc]?frac(?:\{(-?\d{1,100})\}\{(\d{1,100})\}|[ ]?(\d)[ ]?(\d))")
_WHOLE_FRAC = re.compile(r"(\d)[ \t]*(?=\\[dtc]?frac)")
_TIMES_TEN = re.compile(
    r"(?<=\d)[ \t]*(?:×|·|\*|x|\\times|\\cdot)[ \t]*10[ \t]*(?:\^|\*\*)[ \t]*\{?([-−–+]?\d{1,4})\}?(?!\d)"
)
_UNIT_POWER = re.compile(r"(?<=[A-Za-z}])[ \t]*(?:\^[ \t]*\{?[23]\}?(?!\d)|[²³])")
_LATEX_SPACE = re.compile(r"\\(?:left|right)(?![A-Za-z])|\\[,;:! ]|(?<![A-Za-z]) | (?![A-Za-z])|\$")
_LATEX_FRAC = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_DIGIT_FRAC = re.compile(r"\\frac(\d)(\d)")
_BARE_NUMBER = re.compile(r"(?:[-−+$\d.,/⁄ (){}×·*^¼-¾⅐-⅞]|(?<=\d)[eE](?=[-+]?\d)|\\(?:frac|times|cdot)(?![A-Za-z]))+")
_LETTERS = re.compile(r"[^\W\d_]+")
_WIDE = str.maketrans({"。": ". ", "！": "! ", "？": "? ", "；": "; ", "，": ", ", "（": " (", "）": ")", "：": ":"})
_CONTRARY = re.compile(r"[.!?…;,]*+[ \t]*+(?:but|however|yet|round(?:ed|ing))\b", re.IGNORECASE)
_VULGAR = re.compile(r"(?:(\d)[ \t]*|(?<![ \t])[ \t]*)([¼-¾⅐-⅞])")


def extract_answer(text: str, task: Task) -> str | None:
    """The answer that `text` gives to `task`, or None if it gives none.

    Looked for in this order, the last of its kind each time: `#### X` (GSM8K), `\\boxed{X}` (MATH), `The answer is X` or
    `Answer: X`; and where the task's hint speaks of a number, the last number. Where one is wanted, a form whose X is none,
    or that the words before it do not assert, is passed over, and behind what takes a statement back the last number counts
    (see `taken_back.py`). A number that goes on (`5:30`, `5 - 2`) is given with its line, which is no number to a scorer.
    Where the task has choices, `stated_choice` reads the letter. The answer to a verbatim task is the text, and where the
    task says `last_line`, the last line alone is read.
    """
    if task.verbatim:
        return text
    text = said_text(text) or text  # all of an answer that was cut off in its thought
    text = text if task.last_line or not wants_number(task) else without_exclamations(text, task.prompt)
    tail = _tail(text, whole=task.last_line or bool(task.choices) or not wants_number(task))
    if task.last_line:
        return last_line_answer(tail, task, is_number=wants_number(task))
    if task.choices:
        return stated_choice(tail, task, parse_number)
    if not wants_number(task):
        return next((answer for stated in _stated(tail) if (answer := _fit(stated, task)) is not None), None)
    changed = 0
    for stated, end in _standing(tail):
        if (taken := taken_back(tail[end:])) is not None:
            changed = max(changed, end + taken)
        elif (answer := _fit(stated, task, *(beside := line_of_box(tail, end, stated)))) is not None:
            return f"{beside[0]}{answer}".strip() if _is_otherwise(beside[0]) else answer
    if (answer := _stated_abroad(tail[changed:], task)) is not None:
        return answer
    tail = _as_slash(plain_values(tail[changed:]))
    found = _last(_NUMBER, tail)
    return None if found is None else _with_what_changes_it(tail, found)


def _is_otherwise(before: str) -> bool:
    """True if another box stands before a box in its sentence, and `or` between them."""
    line = before.rpartition("\n")[2]
    sentence, box = line.rfind(".") + 1, line.casefold().find("\\boxed{")
    return box >= 0 and any(
        found.start() > box for found in re.finditer(r"\bor\b", line, re.IGNORECASE) if found.start() >= sentence
    )


def answer_or_text(text: str, task: Task) -> str:
    """The answer that `text` gives, or else the text itself, stripped: for patterns that must return something.

    A text whose last line is no answer, where it has to be, gives "".
    """
    found = extract_answer(text, task)
    if found is None:
        return "" if task.last_line and not task.verbatim else (said_text(text) or text).strip()
    return found


def given_answer(text: str, task: Task) -> str | None:
    """The answer of a pattern as a vote: None if the task asks for a number or a choice and it holds none."""
    found = extract_answer(text, task)
    if found is None and not task.choices and not wants_number(task):
        return (said_text(text) or text).strip() or None
    return found


def answer_form(task: Task, otherwise: str = "the answer") -> str:
    """The form of the answer, in words for a prompt."""
    form = "the letter of the right choice" if task.choices else task.hint or otherwise
    return f"{form}, on a last line of its own" if task.last_line and form and not task.verbatim else form


def wants_number(task: Task) -> bool:
    """True if the task's hint asks for a number."""
    return task.hint is not None and re.search(r"\b(number|integer)\b", task.hint) is not None


def states_number(text: str) -> bool:
    """True if a line of the text states a number in one of the forms of `extract_answer`: a box, or `The answer is 5`."""
    return any(re.search(r"\d", stated) for stated, _ in _standing(_tail(text)))


def states_answer(text: str) -> bool:
    """True if the text states an answer in one of the forms of `extract_answer`, whatever the answer is."""
    tail = _tail(text)
    return next(_stated(tail), None) is not None or _TAGGED.search(tail) is not None


def last_number(text: str) -> str | None:
    """The last number in the text, without $ and grouping commas, or None."""
    found = _last(_NUMBER, _as_slash(plain_values(_tail(text))))
    return None if found is None else _clean(found.group())


def parse_number(text: str) -> Fraction | None:
    """The number that `text` is: `1,234.50`, `$5`, `15%` (15), `3/4`, `1 1/2`, `\\frac12`, `½`, `1.5 × 10^3`, `18 cm^2`.

    Units and words around one number are dropped, a percent sign too; `5 million` is 5,000,000. None for several numbers,
    a number beside a word or sign that changes it (`minus 5`, `√5`, `5²`, `5k`, `x<5`; see `value_words.py`), a factorial,
    or a number with more than 320 characters.
    """
    text = without_filler(text.strip())
    if len(text) > 1000:
        return None
    text = _NOT_BUT.sub("", plain_values(text))
    if right_side(text) is None:
        return None
    text = _signed(_TIMES_TEN.sub(lambda found: f"e{found.group(1)}", _as_slash(_UNIT_POWER.sub("", text))))
    if re.search(r"\d[ \t]*!(?!=)", text):
        return None
    if mixed := _MIXED.fullmatch(text):
        whole, part = Fraction(mixed.group(1)), _fraction(mixed.group(2))
        return None if part is None else whole + (-part if text.startswith("-") else part)
    found = list(_NUMBER.finditer(text))
    if len(found) != 1:
        return None
    factor, after = multiple(text[found[0].end() :])
    value = _fraction(_clean(found[0].group()))
    return None if value is None or changes_value(text[: found[0].start()], found[0].group(), after) else value * factor


def normal_form(answer: str) -> str:
    """The key of equal answers: the value of a bare number (`$1,200.0`, `\\dfrac{1}{2}`), else the text, trimmed.

    A unit, a name or a percent sign makes another answer. LaTeX is the same with `\\dfrac` for `\\frac` and other spaces.
    Case counts in LaTeX, in words of mixed case (`AaBb`) and in texts without a word of three letters (`p`, `CO`, `Bb`), but
    for `no` and the first letter of a word (`Up`).
    """
    text = " ".join(answer.split())
    if "\\" in text:
        text = _DIGIT_FRAC.sub(r"\\frac{\1}{\2}", _LATEX_FRAC.sub(r"\\frac", _LATEX_SPACE.sub("", text)))
    number = parse_number(text) if len(text) <= MAX_NUMBER_CHARS and _BARE_NUMBER.fullmatch(text) else None
    if number is not None:
        return str(number)
    text = text.strip(" .")
    runs = [] if "\\" in text else _LETTERS.findall(text)
    is_words = any(len(run) >= 3 for run in runs) and all(
        run.islower() or run.isupper() or run == run.capitalize() for run in runs
    )
    if not is_words and len(runs) == 1 and len({*text.casefold()}) > 1 and text == text.capitalize():
        return text.casefold()
    return text.casefold() if is_words or text.casefold() == "no" else text


def _tail(text: str, *, whole: bool = False) -> str:
    """The end of the text, without filler; `whole`: a text that is no longer stays as it is."""
    return text if whole and len(text) <= TAIL_CHARS else without_filler(text)[-TAIL_CHARS:]


def _stated(text: str) -> Iterator[str]:
    """The stated answers, by the order of their kinds."""
    hashes, stated = _last(_HASHES, text), _last(STATED, text)
    for found in (hashes and hashes[1], last_boxed(text), stated and stated[1]):
        if found and found.strip():
            yield found.strip()
    yield from (supposed[1].strip() for supposed in expected(text))


def _standing(text: str) -> Iterator[tuple[str, int]]:
    """The last statement of each kind that the words before it assert, by the order of the kinds, with its end."""
    for pattern in (_HASHES, None, _TAGGED, STATED):
        if pattern is None:
            yield from _boxed(text)
            continue
        said = [
            each for each in pattern.finditer(text) if each[1].strip() and asserts(text[: each.start()][-BEFORE_CHARS:])
        ]
        yield from ((each[1].strip(), each.end(1)) for each in said[-1:])
    yield from ((each[1].strip(), each.end(1)) for each in expected(text))


def _stated_abroad(text: str, task: Task) -> str | None:
    """The number stated in another language beside an equation, on the last line with a digit: `Antwort: 5 (3 + 2 = 5)`."""
    found = _last(STATED_ABROAD, text)
    if (
        found is None
        or "=" not in found[1]
        or TAKEN_BACK_ABROAD.search(found[1])
        or re.search(r"\d", text[found.end() :])
    ):
        return None
    answer = _fit(found[1].strip(), task)
    return answer if answer is not None and parse_number(answer) is not None else None


def _boxed(text: str) -> Iterator[tuple[str, int]]:
    """The content of the last box, if it has one, and the place where it ends."""
    if (found := last_boxed(text)) and found.strip():
        yield found.strip(), text.rfind("\\boxed{") + len("\\boxed{") + len(found)


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last match in the text."""
    last = deque(pattern.finditer(text), maxlen=1)
    return last[0] if last else None


def _fit(stated: str, task: Task, before: str = "", after: str = "") -> str | None:
    """The stated answer in the form that the task asks for, or None if it does not fit.

    `before` and `after` are what stands on its line around a box.
    """
    if wants_number(task):
        again = _last(STATED, stated)  # The answer is 5. No: the answer is 6
        if again and re.search(r"\d", again[1]) and re.search(r"[.!?;][ \t]", stated[: again.start()]):
            stated = again[1] if asserts(stated[: again.start()]) else stated[: again.start()]
        return _number_of(before, stated, after, task)
    stated = stated.strip("*_ \t`\"'$")
    return stated.rstrip(".").rstrip("*") or None


def _number_of(before: str, stated: str, after: str, task: Task) -> str | None:
    """The number that is stated; or the line, for a scorer to see, where it is an equation or goes on with another value."""
    marked = plain_values(f"{before}{MARK}{stated}{MARK}{after}")
    before, stated, after = marked.split(MARK) if marked.count(MARK) == 2 else ("", plain_values(stated), "")
    stated = _as_slash(stated.strip("*_ \t`\"'$") if before + after == "" else stated)
    stated = with_digits(stated)
    if not _NUMBER.search(stated):
        return None
    stated = _NOT_BUT.sub("", stated)
    value = _side(stated, task.prompt)
    if value is None:
        return stated[: 2 * MAX_NUMBER_CHARS]
    if not _NUMBER.search(value):
        value = stated
    before = "" if re.match(r"[ \t$]*=", after) and not re.search(r"-[ \t]*$", before) else before  # x + [5] = 8
    text = _signed(before + _signed(value)) + after
    start = len(text) - len(after) - len(_signed(value))
    found = next((each for each in _NUMBER.finditer(text) if each.end() > start), None)
    return None if found is None else _with_what_changes_it(text, found)


def _side(stated: str, question: str) -> str | None:
    """The right side of the equation that is stated, or all without one, up to a remark with an equation; see `right_side`.

    A remark that takes the number back is none: what it says instead is stated. One in brackets stays (`5 (or 6 if n = 3)`).
    """
    if "=" not in stated:
        return stated
    stated = stated.translate(_WIDE)
    for at in islice(remarks(stated), MOST_REMARKS):
        head, rest = with_digits(stated[:at]), stated[at:]
        side = right_side(head, question) if "=" in rest else None
        if side is not None and parse_number(side) is not None:
            if taken_back(rest) is not None or (_CONTRARY.match(rest) and not is_check(rest)):
                break
            return f"{side.rstrip('*_ ')} {rest.lstrip()}" if rest.lstrip().startswith(("(", "[")) else side
    return right_side(stated, question)


def _as_slash(text: str) -> str:
    """The text with `\\frac{1}{2}`, `\\frac12` and `½` as `1/2`, and `1½` as `1 1/2`."""
    text = _WHOLE_FRAC.sub(r"\1 ", text)
    text = _FRAC.sub(lambda found: f"{found[1] or found[3]}/{found[2] or found[4]}", text)
    return (
        _VULGAR.sub(lambda found: f"{found[1] or ''} {normalised_text('NFKC', found[2])}", text)
        .replace("⁄", "/")
        .strip()
    )


def _with_what_changes_it(text: str, found: re.Match[str]) -> str:
    """The number that was found; or its line, for a scorer to see, where a word or sign makes another value of it."""
    found = _mixed_around(text, found)
    before, number = text[: found.start()], _clean(found.group())
    factor, after = multiple(text[found.end() : found.end() + MAX_NUMBER_CHARS])
    line = before.rpartition("\n")[2][-MAX_NUMBER_CHARS:] + found.group() + text[found.end() :].partition("\n")[0]
    if changes_value(before, found.group(), after):
        return line[: 2 * MAX_NUMBER_CHARS].strip()
    if found.re is _MIXED:
        return found.group() if factor == 1 else line[: 2 * MAX_NUMBER_CHARS].strip()
    value = _fraction(number)
    return number if factor == 1 or value is None else str(value * factor)


def _mixed_around(text: str, found: re.Match[str]) -> re.Match[str]:
    """The mixed number (`1 1/2`) that begins or ends with the number that was found, or else the number."""
    begin = max(0, found.start() - 22)
    around = (each for each in _MIXED.finditer(text, begin, found.end() + 42))
    return next((each for each in around if found.start() == each.start() or found.end() == each.end()), found)


def _signed(text: str) -> str:
    """The text with `- 5` as `-5` where it begins, or follows `:` or `=`."""
    return re.sub(r"(^|[:=]\s*)(\$?)-\s+(?=[$\d.])", r"\1\2-", text.strip())


def _clean(number: str) -> str:
    return re.sub(r"[,$ \t]", "", number).replace("−", "-").rstrip(".")


def _fraction(text: str) -> Fraction | None:
    if len(text) > MAX_NUMBER_CHARS:
        return None
    numerator, slash, denominator = text.partition("/")
    _, _, exponent = numerator.lower().partition("e")
    if exponent and abs(int(exponent)) > MAX_NUMBER_CHARS:
        return None
    try:
        value = Fraction(numerator)
        return value / Fraction(denominator) if slash else value
    except (ValueError, ZeroDivisionError):
        return None
