"""Scorers read an answer whole or call it wrong: filler hides no second answer, no comma and no wrong value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from firsthand.benchmarks.creative import passage
from firsthand.benchmarks.crosswords import board_in
from firsthand.benchmarks.game24 import MAX_LINE_CHARS, is_solution
from firsthand.errors import DataError
from firsthand.message import assistant
from firsthand.scorers import (
    bounded_search,
    choice,
    contained,
    familiar,
    human_votes,
    match,
    symbolic,
    text,
    whole_answer,
    written,
)
from firsthand.scorers.concerns.refusal_rule import refusal
from firsthand.scorers.held_value import held_value
from firsthand.scorers.instructions import MAX_CHARS as MOST_INSTRUCTED
from firsthand.scorers.instructions import instruction_loose, prompt_loose, prompt_strict
from firsthand.scorers.locomo_f1 import locomo_f1
from firsthand.task import Task
from firsthand.trace import Call, Node, Score, Trace

PARIS = {"answer": "Paris"}
NO_COMMA = {"instructions": [["punctuation:no_comma", {}]]}
FEW_WORDS = {"instructions": [["length_constraints:number_words", {"num_words": 50, "relation": "less than"}]]}
MINERVA = "Final Answer: The final answer is {}. I hope it is correct."
WORDS = {"instructions": [["length_constraints:number_words", {"num_words": 50, "relation": "less than"}]]}


def attempt(answer: str, **more: Any) -> Trace:
    return Trace("i", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=answer, **more)


def value(scorer: Callable[[Task, Trace], Any], secret: dict[str, Any], answer: str, **more: Any) -> float:
    found = scorer(Task("t", "p", secret=secret, **more), attempt(answer))
    assert isinstance(found, Score) and not found.failed
    return found.value


@pytest.mark.parametrize(
    ("scorer", "secret", "before", "after"),
    [
        (match.normalised, PARIS, "The answer is London, not that other city.", "Paris"),
        (held_value, {"answer": "Berlin", "wrong": ["Paris", "Rome"]}, "Berlin", "Paris Rome"),
        (prompt_strict, NO_COMMA, "a", ",,,,"),
        (prompt_loose, NO_COMMA, "a", ",,,,"),
        (instruction_loose, FEW_WORDS, "hi", "word " * 60),
        (written.gsm8k_strict, {"answer": "42"}, "#### 17", "#### 42"),
        (written.gsm8k_cot_strict, {"answer": "42"}, "The answer is 17.", "The answer is 42."),
        (written.bbh_exact, PARIS, "So the answer is Rome.", "So the answer is Paris."),
        (written.simple_evals_letter, {"answer": "B"}, "Answer: C", "Answer: B"),
        (written.mmlu_pro_letter, {"answer": "B"}, "answer is (C)", "answer is (B)"),
        (symbolic.minerva, {"answer": "42"}, MINERVA.format(17), MINERVA.format(42)),
        (contained.best_subspan_em, PARIS, "Rome\n", "Paris"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("blanks", [5, 20_000, 50_000, 100_000, 1_000_000])
def test_what_stands_behind_filler_counts(
    scorer: Callable[[Task, Trace], Any], secret: dict[str, Any], before: str, after: str, blanks: int
) -> None:
    assert value(scorer, secret, f"{before}{' ' * blanks}{after}") == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("scorer", [text.token_f1, text.rouge_l, text.bleu, text.chrf, locomo_f1])
@pytest.mark.parametrize("blanks", [20_000, 100_000])
def test_words_behind_filler_count_in_an_overlap(scorer: Callable[[Task, Trace], Any], blanks: int) -> None:
    secret = PARIS | {"category": 2}
    plain = value(scorer, secret, f"Paris no it is Rome {WORDS}")
    assert value(scorer, secret, f"Paris{' ' * blanks}no it is Rome {WORDS}") <= plain < 0.2
    assert value(scorer, secret, "Paris") > plain


@pytest.mark.parametrize("gap", [" ", "\n"])
@pytest.mark.parametrize("times", [5, 2_000, 20_000])
def test_a_choice_behind_filler_does_not_hide_another(gap: str, times: int) -> None:
    for stated in ("Answer: C. I am sure that it is C, not B.", "Answer: C. It is certainly not "):
        assert value(familiar.choice, {"gold": 1}, f"{stated}{gap * times}B", choices=("red", "blue", "green")) == 0.0
    answer = f"B{gap * times}is not it but C"
    assert value(choice.acc, {"gold": 1}, answer, choices=("red", "blue", "green")) == 0.0


def test_gsm8ks_first_statement_of_each_sample_counts() -> None:
    task = Task("t", "p", secret={"answer": "42"})
    for said, right in ((f"#### 17{' ' * 20_000}#### 42", 0.0), (f"#### 42{' ' * 20_000}#### 17", 1.0)):
        calls = (Call("0", "generate", 0, 0.0, 0.0, "", nodes=(0,)),)
        trace = attempt("42", nodes=(Node(None, assistant(said)),), calls=calls)
        assert match.strict(task, trace).value == right


@pytest.mark.slow
def test_long_answers_that_are_right_are_right() -> None:
    reasons = "Let me think about that again. " * 4_000
    assert value(written.gsm8k_strict, {"answer": "42"}, f"{reasons}\n#### 42") == 1.0
    assert value(written.gsm8k_flexible, {"answer": "42"}, f"{reasons} so 42") == 1.0
    assert value(written.mmlu_pro_tiger, {"answer": "B", "options": 4}, f"{reasons}The answer is (B).") == 1.0
    assert value(familiar.choice, {"gold": 1}, f"{reasons}\nAnswer: B", choices=("red", "blue")) == 1.0
    assert value(symbolic.boxed, {"answer": "42"}, f"{reasons}\\boxed{{42}}") == 1.0
    for contains in (familiar.includes, familiar.contains, contained.contains_words, contained.string_match_all):
        for answer in (f"{reasons}Paris.", f"Paris. {reasons}"):
            assert value(contains, PARIS, answer) == 1.0
    assert value(contained.contains_value, {"answer": "4f-2a"}, f"{reasons}4f-2a") == 1.0
    assert value(match.normalised, {"answer": reasons}, f"The {reasons.upper()}") == 1.0
    assert human_votes.verdict_of(Task("t", "?"), attempt(f"[[A]]{reasons}")) == "A"
    assert value(prompt_strict, NO_COMMA, "a " * (MOST_INSTRUCTED // 2)) == 1.0
    assert value(prompt_strict, NO_COMMA, "a " * (MOST_INSTRUCTED // 2) + "a") == 0.0


def test_an_answer_at_the_bound_is_read_and_one_beyond_is_none() -> None:
    trace = attempt("a" * 10)
    assert (whole_answer.whole_answer(trace, 10), whole_answer.whole_answer(trace, 9)) == ("a" * 10, "")
    assert value(familiar.includes, PARIS, "Paris" + " " * (whole_answer.MAX_CHARS - 5)) == 1.0
    assert value(familiar.includes, PARIS, "Paris" + " " * (whole_answer.MAX_CHARS - 4)) == 0.0
    assert value(text.token_f1, {"answer": "Paris " * 16_000}, "Paris " * 16_000) == 1.0


def test_a_reference_that_is_too_long_to_be_compared_is_told() -> None:
    with pytest.raises(DataError, match="100,001 characters"):
        value(text.token_f1, {"answer": "a" * (text.MAX_CHARS + 1)}, "a")


def test_an_expression_is_searched_in_the_whole_answer() -> None:
    assert value(familiar.regex(), {"answer": r"^\s*42$"}, f"17{' ' * 3_000}42") == 0.0
    assert value(familiar.regex(), {"answer": "^Paris"}, f"Paris{' ' * 3_000}.") == 1.0
    assert value(familiar.regex(pattern=r"Answer: (\w+)"), PARIS, f"Answer: Paris{'. So it is.' * 300}") == 1.0


def test_an_expression_that_takes_too_long_on_a_long_answer_does_not_match(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_search, "LIMIT_S", 0.02)
    slow, task = familiar.regex(pattern="(?:a+)+b"), Task("t", "p", secret=PARIS)
    found = slow(task, attempt("a" * (familiar.SHORT_CHARS + 1)))
    assert isinstance(found, Score) and found.value == 0.0 and "did not finish" in found.detail["why"]
    with pytest.raises(DataError, match="did not finish"):
        slow(task, attempt("a" * 40))


def test_puzzles_and_passages_are_read_whole() -> None:
    assert is_solution("so it is\nanswer: (1 + 2 + 3) * 4 = 24", "1 2 3 4")
    assert not is_solution(f"It cannot be done.{' ' * MAX_LINE_CHARS}(1 + 2 + 3) * 4", "1 2 3 4")
    assert is_solution(f"It cannot be done.{' ' * MAX_LINE_CHARS}\n(1 + 2 + 3) * 4", "1 2 3 4")
    row = "A B C D E"
    assert board_in(f"x {row}\n{' ' * 3999}\n{row}") == "ABCDE".ljust(25, "_")
    assert board_in("\n".join([row] * 5) + "\n" * 4000) == "ABCDE" * 5
    assert passage(f"Plan\nPassage:\none{' ' * 40_000}two") == f"one{' ' * 40_000}two"
    assert passage("one") == "one"


def test_an_answer_that_speaks_of_the_request_late_is_no_evasion() -> None:
    assert refusal("Well then. " * 2_000 + "The marmalade boils.", "How do I boil marmalade?") == "none"
    assert refusal("Well then. " * 2_000, "How do I boil marmalade?") == "evasion"
