"""Scoring 300,000 hostile characters is bounded, and rules made linear still find what the published ones do."""

from __future__ import annotations

import inspect
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from firsthand.benchmarks import creative, crosswords, game24
from firsthand.errors import FirsthandError
from firsthand.patterns import code_act
from firsthand.patterns.parts import actions, answers, fenced_code, self_tests, thoughts
from firsthand.scorers import (
    assertion,
    choice,
    code,
    contained,
    function_calls,
    human_votes,
    instructions,
    match,
    symbolic,
    written,
)
from firsthand.scorers import text as text_scorers
from firsthand.scorers.patches import patch, test_logs
from firsthand.task import Task
from firsthand.trace import Trace
from thorough import part, repetitions

NUM_CHARS = 300_000
CPU_S = 3.0
"""Far more than any scorer takes, and less than the shortest of what was quadratic."""
EMPTY = Trace("t", "b", "a", {"name": "n"}, 0, 0, "2026-01-01T00:00:00+00:00", 0.0)
TASK = Task(
    "a",
    "p",
    choices=("one", "two"),
    secret={
        "answer": "1", "answers": ["one", "x"], "references": ["the cat sat"], "options": 4, "gold": 0, "board": "a" * 25,
        "endings": ["a.", "b."], "calls": {"kind": "some"}, "numbers": "1 2 3 4",
    },
    metadata={"numbers": "1 2 3 4"},
)  # fmt: skip
NUMBER = replace(TASK, choices=(), hint="a number")
ARGUMENTS: dict[str, dict[str, Any]] = {
    "keywords:existence": {"keywords": ["correlated", "experiencing"]},
    "keywords:frequency": {"keyword": "a b", "frequency": 2, "relation": "at least"},
    "keywords:forbidden_words": {"forbidden_words": ["sleep", "cook"]},
    "keywords:letter_frequency": {"letter": "c", "let_frequency": 2, "let_relation": "less than"},
    "language:response_language": {"language": "hi"},
    "length_constraints:number_sentences": {"num_sentences": 2, "relation": "at least"},
    "length_constraints:number_paragraphs": {"num_paragraphs": 3},
    "length_constraints:number_words": {"num_words": 300, "relation": "at least"},
    "length_constraints:nth_paragraph_first_word": {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "a"},
    "detectable_content:number_placeholders": {"num_placeholders": 2},
    "detectable_content:postscript": {"postscript_marker": "P.P.S"},
    "detectable_format:number_bullet_lists": {"num_bullets": 3},
    "detectable_format:number_highlighted_sections": {"num_highlights": 2},
    "detectable_format:multiple_sections": {"section_spliter": "SECTION", "num_sections": 2},
    "combination:repeat_prompt": {"prompt_to_repeat": "a b"},
    "startend:end_checker": {"end_phrase": "a b"},
    "change_case:capital_word_frequency": {"capital_frequency": 2, "capital_relation": "at least"},
}
SCORERS = (
    match.exact, match.normalised, match.numeric, match.flexible, match.strict, contained.string_match_all,
    contained.string_match_part, contained.best_subspan_em, contained.contains_value, written.gsm8k_strict,
    written.gsm8k_cot_strict, written.gsm8k_flexible, written.bbh_exact, written.simple_evals_letter,
    written.mmlu_pro_letter, written.mmlu_pro_tiger, symbolic.boxed, symbolic.minerva, text_scorers.token_f1,
    text_scorers.bleu, text_scorers.chrf, text_scorers.rouge_l, choice.acc, function_calls.function_calls,
    creative.endings, crosswords.words, game24.solved, game24.solved_by_any,
)  # fmt: skip


def readers() -> dict[str, Callable[[str], Any]]:
    """Everything that reads an answer, by name."""
    found: dict[str, Callable[[str], Any]] = {
        each.__name__: lambda text, each=each: each(TASK, replace(EMPTY, answer=text)) for each in SCORERS
    }
    for name in instructions.VERIFIERS:
        arguments = ARGUMENTS.get(name, {})
        found[name] = lambda text, name=name, arguments=arguments: instructions.follows(
            text[: instructions.MAX_CHARS], name, arguments
        )
    for parser in test_logs.PARSERS:
        found[f"log {parser}"] = lambda text, parser=parser: test_logs.read_log(text, parser)
    return found | {
        "versions": lambda text: instructions.versions(text[: instructions.MAX_CHARS]),
        "completion": lambda text: code.answered_code(text, "def f(x):\n", "f"),
        "program": lambda text: code.answered_code(text, "", "f"),
        "calls": lambda text: function_calls.read_calls(text[: function_calls.MAX_CHARS - 10]),
        "find_patch": patch.find_patch,
        "read_patch": patch.read_patch,
        "predicted output": lambda text: assertion.predicted(text, "output"),
        "predicted input": lambda text: assertion.predicted(text, "input"),
        "choice": lambda text: answers.extract_answer(text, TASK),
        "number": lambda text: answers.extract_answer(text, NUMBER),
        "vote": lambda text: answers.given_answer(text, NUMBER),
        "items": lambda text: answers.listed(text, 5),
        "normal form": answers.normal_form,
        "action": actions.parse_action,
        "fences": fenced_code.fenced_code,
        "code action": fenced_code.first_action,
        "final": code_act._FINAL.search,
        "equal": lambda text: symbolic.comparison(text[:499], "x+1"),
        "boxed text": lambda text: symbolic.comparison(text[-20_000:], "x+1"),
        "own tests": self_tests._RESULT.findall,
        "votes": lambda text: thoughts.count_votes(3, [text]),
        "last word": thoughts.last_word,
        "verdict": human_votes._WRITTEN.findall,
    }


UNITS = (
    "<", ">", "<<a>>", "*", "* ", "*a*", "**a**", "-", "- a", "\n", "\n\n", "\n ", "\n* ", "\n*", "\n-", " ", "\t", " \n",
    "\r", "\r\n", "0", "9", "1,", "1.", ".1", "1 ", "1/", "1/2 ", "-1", "$1", "+", "1+", "(1+", "(", "()", ")", "[", "[]",
    "]", "[[A]]", "{", "{}", "}", "\\boxed{", "\\boxed{}", "\\", "\\\\", "\\frac{", "\\text{", "\\sqrt", "^", "_", "_{",
    "a", "a ", "A", "A\n", "aB", "the ", "The answer is ", "the answer is", "answer is (", "Answer:", "Answer: A", "#### ",
    "#### 1", '"', "'", '"a"', "`", "```", "```\n", "```python\n", "=", "==", "x=", "assert ", "[ANSWER]", "f(x=1)", "f(",
    "f(x=[", "f(x=-", "f.", "x,", "Action: ", "Action", "Final Answer:", "diff --git a/x b/x\n", "--- a/x\n+++ b/x\n",
    "@@ -1,1 +1,1 @@\n", "<patch>", "</patch>", "own test 1: ", "p.", "p. p. s", "SECTION 1\n", "***", "******", "\u3000",
    "\u00a0", "\u2028", "\x85", "e\u0301", "\u0301", "\ufdfa", "ß", "İ", "\U0001f600", "\ud800", "\x00", "\x1f", "中", "ا",
    "٠", "²", ".", "...", "?!", ". ", "Mr. ", "!'\")", "w-", "a-b.", "Step 1: ", "1) ", "best choice is", "a b c d e\n",
    "coherency score is ", "PASSED ", "a PASSED\n", "\x1b[1m", "_ a.py:b ", "x (a.b) ... ", "if x:\n", "def f():\n",
    "lambda:", "not ", "await ", "x if x else ", "f'{", "#", '{"a":', "[1,", "1e9", "\\sin ", "\\log_", "&", "\\cup", "!",
    "|", "%", "~",
)  # fmt: skip
"""Each is repeated, alone and in pairs, to NUM_CHARS."""
FRAMED = (
    ("<<", "a", ""), ("", "<", ">"), ("\n", "\n* ", ""), ("a", " ", "b"), ("Answer:", " ", "z"), ("answer is", " ", "x"),
    ("*", " ", "*"), ("[", "\n", "]"), ("1", " ", "/"), ("1,", "0", ""), ("-", "0", "."), ("\\boxed{", "{", ""),
    ("\\boxed{1", " ", "}"), ("def f", "\n", "x"), ("f(x='", "a", "')"), ("f(", "x=1,", ")"), ("p", ".", " s"),
    ("x", "\r", "\n"), (". ", "\n", "a"), (".", ")", "A"), (".", " ", "A"), ("#### ", "9", ""), ("```python\n", "a\n", ""),
)  # fmt: skip
QUADRATIC = (
    ("mmlu_pro_tiger", "", "<"), ("length_constraints:number_sentences", "", "?!"), ("gsm8k_flexible", "-", "0"),
    ("detectable_content:number_placeholders", "", "["), ("detectable_content:postscript", "a", " "),
    ("detectable_format:number_bullet_lists", "", "\n"), ("detectable_format:title", "", "<"), ("completion", "", "A\n"),
    ("boxed text", "1", " "), ("boxed", "\\boxed{1", " "),
)  # fmt: skip
"""What was, and the beginning and the unit of a text that showed it."""


def repeated(unit: str) -> str:
    return (unit * (NUM_CHARS // len(unit) + 1))[:NUM_CHARS]


@contextmanager
def bounded(name: str) -> Iterator[None]:
    """Fails if the block needs more than CPU_S seconds of this process's own time, however busy the machine is."""

    def stop(*_: object) -> None:
        raise AssertionError(f"{name} takes more than {CPU_S:g} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def read_all(texts: dict[str, str]) -> None:
    for name, read in readers().items():
        for of, text in texts.items():
            with bounded(f"{name} of {of}"), suppress(FirsthandError):
                assert not inspect.isawaitable(read(text))


@pytest.mark.parametrize("name, begin, unit", QUADRATIC)
def test_what_was_quadratic_is_bounded(name: str, begin: str, unit: str) -> None:
    with bounded(name):
        readers()[name](f"{begin}{repeated(unit)}x")


@pytest.mark.slow
def test_all_that_reads_an_answer_is_bounded() -> None:
    read_all({repr(unit): repeated(unit) for unit in part(UNITS, 5)})
    read_all({repr(frame): frame[0] + repeated(frame[1]) + frame[2] for frame in FRAMED})
    rng = Random(4)
    pairs = ["".join(rng.sample(UNITS, 2)) for _ in range(repetitions(80, 10))]
    read_all({repr(pair): repeated(pair) for pair in pairs})


# -- the published rules, as they are written, on short texts --


def short_texts(alphabet: tuple[str, ...], count: int = 4000) -> Iterator[str]:
    rng = Random(9)
    for _ in range(count):
        yield "".join(rng.choice(alphabet) for _ in range(rng.randrange(14)))


def published_bullets(text: str) -> int:
    stars = re.findall(r"^\s*\*[^\*].*$", text, flags=re.MULTILINE)
    return len(stars) + len(re.findall(r"^\s*-.*$", text, flags=re.MULTILINE))


def test_bullets_are_counted_as_published() -> None:
    for text in short_texts(("*", "-", "a", " ", "\n", "\n", "\t", "\r", "\x0b", "\u2028")):
        if text.strip():
            assert instructions._bullets(text, num_bullets=published_bullets(text)), text


def test_titles_and_placeholders_are_found_as_published() -> None:
    for text in short_texts(("<", "<<", ">", ">>", "a", " ", "\n", "[", "]")):
        titles = [each for each in re.findall(r"<<[^\n]+>>", text) if each.lstrip("<").rstrip(">").strip()]
        assert instructions._title(text) is bool(titles), text
        assert instructions._num_placeholders(text) == len(re.findall(r"\[.*?\]", text)), text


def test_postscripts_are_found_as_published() -> None:
    for text in short_texts(("p", "p.", ".", "s", "S", " ", "\n", "a", "P.S.")):
        for marker, pattern in {
            "P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$", "a s": r"\s*a s.*$", "a|p": r"\s*a|p.*$",
        }.items():  # fmt: skip
            published = re.findall(pattern, text.lower(), flags=re.MULTILINE)
            assert instructions._postscript(text, postscript_marker=marker) is bool(published), (text, marker)


def test_sentences_end_where_they_did() -> None:
    before = re.compile(r"[.?!]+[\"'”’)\]*]*(?=\s+[^\sa-z])")
    for text in short_texts((".", "?", "!", '"', ")", " ", "\n", "A", "b", "Mr", "e.g", "*")):
        assert [each.span() for each in before.finditer(text)] == [
            each.span() for each in instructions._END.finditer(text)
        ], text


def test_the_harness_number_is_the_published_one() -> None:
    def published(text: str) -> str:
        for pattern in (",", r"\$", r"(?s).*#### ", r"\.$"):
            text = re.sub(pattern, "", text)
        return text.lower()

    for text in short_texts(("#### ", "#", "###", " ", ".", ",", "$", "1", "A", "\n")):
        assert written.harness_number(text) == published(text), text


def test_the_tiger_rule_is_the_published_one() -> None:
    published = re.compile(r".*[aA]nswer:\s*([A-J])")
    for text in short_texts(("answer:", "Answer:", "nswer:", "A", "B", "K", " ", "\n", "x", ":")):
        found = published.search(text)
        assert written._tiger_answer(text) == (found and found.group(1)), text


def test_hundreds_of_factors_are_no_answer_and_no_error() -> None:
    for text in ("1e" * 240, "ab1" * 160, "the " * 120, "1j" * 200):
        assert symbolic.comparison(text, "x+1")[0] is False
