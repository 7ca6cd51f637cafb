"""Scores generated answers by the extraction rules of published harnesses, with their regular expressions.

The scorers read the attempt's answer, which for a task of such a protocol is the model's whole output. The extracted text is
in the score's detail, so that a wrong extraction can be told from a wrong answer.
"""

from __future__ import annotations

import re
from random import Random

from firsthand.scorers.reference_answers import reference_answers
from firsthand.scorers.whole_answer import whole_answer
from firsthand.task import Task
from firsthand.trace import Score, Trace

TIGER_SEED = 12345

_GSM8K_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_GSM8K_COT = re.compile(r"The answer is (-?[0-9.,]+).")
_GSM8K_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_BBH = re.compile(r"(?<=the answer is )(.*)(?=.)")
_SIMPLE_EVALS = re.compile(r"(?i)Answer[ \t]*:[ \t]*\$?([A-D])\$?")
_PRO = re.compile(r"answer is \(?([A-J])\)?")
_PRO_AGAIN = re.compile(r"(?=[aA]nswer:\s*+([A-J]))")


def gsm8k_strict(task: Task, trace: Trace) -> Score:
    """Score 1 if the first `#### 42` is the reference: lm-evaluation-harness, gsm8k, strict-match."""
    return _score("strict-match", _first(_GSM8K_STRICT, trace), task, number=True)


def gsm8k_cot_strict(task: Task, trace: Trace) -> Score:
    """Score 1 if the first `The answer is 42.` is the reference: lm-evaluation-harness, gsm8k_cot, strict-match."""
    return _score("strict-match", _first(_GSM8K_COT, trace), task, number=True)


def gsm8k_flexible(task: Task, trace: Trace) -> Score:
    """Score 1 if the last number is the reference, by the harness's rule: lm-evaluation-harness, flexible-extract."""
    found = None
    for match in _GSM8K_FLEXIBLE.finditer(_text(trace)):
        found = match.group(1) or match.group(2)
    return _score("flexible-extract", found, task, number=True)


def bbh_exact(task: Task, trace: Trace) -> Score:
    """Score 1 if the text after the first `the answer is`, less its last character, is the target: harness's BBH."""
    return _score("exact_match", _first(_BBH, trace), task)


def simple_evals_letter(task: Task, trace: Trace) -> Score:
    """Score 1 if the first `Answer: X` names the right letter, A to D, in either case: OpenAI's simple-evals."""
    found = _first(_SIMPLE_EVALS, trace)
    return _score("exact_match", None if found is None else found.upper(), task)


def mmlu_pro_letter(task: Task, trace: Trace) -> Score:
    """Score 1 if the first `answer is (X)` is the right letter, 0 if there is none: lm-evaluation-harness, mmlu_pro."""
    return _score("exact_match", _first(_PRO, trace), task)


def mmlu_pro_tiger(task: Task, trace: Trace) -> Score:
    """Score 1 if the letter is right by TIGER-Lab's three rules in turn; if none finds one, their seeded guess is scored.

    The rules are `answer is (X)`, `Answer: X`, and the last capital from A to J. Their script sets the seed to 12345 before
    each guess, so the guess depends on the number of options alone (Wang et al., 2024).
    """
    text = _text(trace)
    found = _PRO.search(text)
    letter = found.group(1) if found else _tiger_answer(text)
    if letter is None:
        letter = next((each for each in reversed(text) if each in "ABCDEFGHIJ"), None)
    if letter is not None:
        return _score("acc_tiger", letter, task)
    guess = chr(ord("A") + Random(TIGER_SEED).randint(0, int(task.secret["options"]) - 1))
    return Score("acc_tiger", float(guess == _reference(task)), {"found": None, "guess": guess})


def harness_number(text: str) -> str:
    """Return the text as the harness compares it: no `,` and `$`, nothing up to `####`, no final full stop, lower case."""
    text = text.replace(",", "").replace("$", "").rpartition("#### ")[2]
    return re.sub(r"\.$", "", text).lower()


def _tiger_answer(text: str) -> str | None:
    """The letter that `.*[aA]nswer:\\s*([A-J])` finds, the last one in the first line that has any, in linear time."""
    letter, end = None, len(text)
    for found in _PRO_AGAIN.finditer(text):
        if letter is None:
            end = text.find("\n", found.start()) % (len(text) + 1)
        elif found.start() > end:
            break
        letter = found.group(1)
    return letter


def _text(trace: Trace) -> str:
    return whole_answer(trace)


def _first(pattern: re.Pattern[str], trace: Trace) -> str | None:
    found = pattern.search(_text(trace))
    return found.group(1) if found else None


def _reference(task: Task) -> str:
    return reference_answers(task)[0]


def _score(name: str, found: str | None, task: Task, *, number: bool = False) -> Score:
    same = harness_number if number else str
    wanted = same(_reference(task))
    correct = found is not None and same(found.strip()) == wanted
    return Score(name, float(correct), {"found": None if found is None else found[:200]})
