"""Choices, references and votes of rare attempts: no reference, blank and very long answers, ties, other texts."""

from __future__ import annotations

import math
from typing import Any

import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.scorers import familiar, human_votes
from firsthand.scorers.choice import acc, acc_bytes, acc_mutual_info, acc_norm, chosen_letter, logprobs, mc1, mc2
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Score, Trace


def task(**secret: Any) -> Task:
    return Task("t", "?", secret=secret)


def attempt(answer: str | None = "", *, task_id: str = "t", epoch: int = 0, **more: Any) -> Trace:
    return Trace("i", "b", task_id, {"name": "a"}, epoch, 0, "", 0.0, answer=answer, **more)


def scored(prompt: str | None, texts: dict[str, Any], kind: Any = "score") -> Call:
    told = [{"text": text, "logprob": value} for text, value in texts.items()]
    return Call(":0", kind, None, 0.0, 0.0, "", detail={"prompt": prompt, "likelihoods": told})


# -- choices --


def is_refused(scorer: Any, task: Task, made: Trace) -> bool:
    """True if the scorer says that the task has nothing to compare with."""
    try:
        scorer(task, made)
    except DataError as error:
        return "to compare with" in str(error)
    return False


def test_without_a_right_choice_no_answer_is_judged_and_the_first_choice_can_be_right() -> None:
    none, first = (Task("t", "?", choices=(" x", " y"), secret=secret) for secret in ({}, {"gold": 0}))
    for name, scorer in (("acc", acc), ("acc_norm", acc_norm), ("acc_bytes", acc_bytes), ("mc1", mc1)):
        for made, chosen, value in (
            (attempt("what"), None, 0.0),
            (attempt(None), None, 0.0),
            (attempt(" \n"), None, 0.0),
            (attempt("\n(A). "), "A", 1.0),
            (attempt("Y"), "B", 0.0),
        ):
            by = {"chosen": chosen, "by": "answer"}
            assert is_refused(scorer, none, made), (name, made.answer)
            assert scorer(first, made) == Score(name, value, by), (name, made.answer)
        likely = attempt("B", calls=(scored(None, {" x": -1.0, " y": -2.0}),))
        assert is_refused(scorer, none, likely)
        assert scorer(first, likely) == Score(name, 1.0, {"chosen": "A", "by": "logprob"})
    for answer, named in (("what", None), (None, None), (" ", None), ("a", "A"), ("The answer is B", "B")):
        assert is_refused(familiar.choice, none, attempt(answer)), answer
        assert familiar.choice(first, attempt(answer)) == Score("choice", float(named == "A"), {"chosen": named}), (
            answer
        )


@pytest.mark.slow
def test_a_very_long_answer_names_its_choice_wherever_it_stands() -> None:
    named = Task("t", "?", choices=("red", "blue"), secret={"gold": 1})
    for answer, chosen in (
        ("x" * 20_000 + " The answer is B", "B"),
        ("The answer is A. " + "x " * 10_000 + "The answer is B", "B"),
        ("(B)\n" + "x" * 19_998, "B"),
        ("B\n" + "x" * 999_998, "B"),
        ("B\n" + "x" * 999_999, None),
        ("x" * 999_984 + " The answer is B", "B"),
        ("x" * 999_985 + " The answer is B", None),
    ):
        assert familiar.choice(named, attempt(answer)) == Score("choice", float(chosen == "B"), {"chosen": chosen})
    for answer, at in (
        ("B" + " " * 1_999 + "no", None),
        ("B" + " " * 1_000_000 + "no", None),
        ("B" + " " * 1_000_000, 1),
        (" " * 1_000_000 + "B", 1),
    ):
        assert chosen_letter(answer, named) == at, len(answer)
    letters = Task("t", "?", choices=("B", " A ", "Straße", "same", "Same"))
    for answer, at in (
        ("B", 1),
        ("a", 0),
        ("\nE:", 4),
        ("F", None),
        ("(STRASSE)", 2),
        ("same", 3),
        ("SAME", None),
        ("[B]", None),
        ("AB", None),
    ):
        assert chosen_letter(answer, letters) == at, answer


def test_log_probs_of_choices_are_the_last_of_their_own_text_and_prompt() -> None:
    one = Task("t", "?", choices=(" x", " y"), context="q", baseline="n", secret={"gold": 1})
    right, wrong = {" x": -2.0, " y": -1.0}, {" x": -1.0, " y": -2.0}
    for calls, found in (
        ([scored("q", right), scored("q", wrong)], [-1.0, -2.0]),
        ([scored("q", {" x": -3}), scored("q", {" y": -4, " z": -5})], [-3.0, -4.0]),
        ([scored("q", right), scored(None, wrong)], [-2.0, -1.0]),
        ([scored(None, wrong), scored("p", right)], [-1.0, -2.0]),
        ([scored("q", right, kind="generate")], None),
        ([scored("q", {" x": -2.0, " y": "-1"})], None),
        ([scored("q", {" x": -2.0, " y": math.nan})], None),
        ([scored("q", {" x": -2.0, " y": -math.inf})], [-2.0, -math.inf]),
        ([Call(":0", "score", None, 0.0, 0.0, "")], None),
    ):
        assert logprobs(one, attempt(calls=tuple(calls))) == found
    assert logprobs(Task("t", "?"), attempt()) is None, "no choices have no log-probs"
    never = attempt(calls=(scored("q", {" x": -math.inf, " y": -1.0}),))
    assert [mc2(Task("t", "?", choices=(" x", " y"), context="q", secret={"true": true}), never).value
            for true in ([0], [1], [0, 1])] == [0.0, 1.0, 1.0]  # fmt: skip
    with pytest.raises(DataError) as refused:  # TruthfulQA has a true choice in each question
        mc2(Task("t", "?", choices=(" x", " y"), context="q", secret={"true": []}), never)
    assert str(refused.value) == (
        "task t: secret['true']: a list of indices from 0 to 1, each once, was expected, not []"
    )


def test_a_choice_gains_from_the_question_over_the_same_texts_without_it() -> None:
    one = Task("t", "?", choices=(" x", " y"), context="q", baseline="n", secret={"gold": 1})
    asked, alone = scored("q", {" x": -2.0, " y": -3.0}), {" x": -1.0, " y": -4.0}
    gains = Score("acc_mutual_info", 1.0, {"chosen": "B", "by": "logprob"})
    lacking = Score("acc_mutual_info", 0.0, failure="the choices were not scored without the question")
    for before, found in (
        ([scored("n", alone)], gains),
        ([scored("n", {" x": -1.0, " z": -4.0})], lacking),
        ([scored("n", dict(reversed(alone.items())))], lacking),
        ([scored("n", {" x": -1.0})], lacking),
        ([scored("n", {**alone, " z": -1.0})], lacking),
        ([scored("n", alone, kind="generate")], lacking),
        ([scored("m", alone)], lacking),
        ([scored("n", {" x": -1.0, " z": -4.0}), scored("n", alone)], gains),
        ([scored("n", alone), scored("n", {" x": -9.0, " y": -1.0})], gains),
        ([scored("n", {" x": -1.0, " y": None})], lacking),
        ([], lacking),
    ):
        assert acc_mutual_info(one, attempt(calls=(*before, asked))) == found, before
        assert acc_mutual_info(one, attempt(calls=(asked, *before))) == found, before
    tie = attempt(calls=(asked, scored("n", {" x": -1.0, " y": -2.0})))
    assert acc_mutual_info(one, tie) == Score("acc_mutual_info", 0.0, {"chosen": "A", "by": "logprob"})
    no_baseline = Task("t", "?", choices=(" x", " y"), context="q", secret={"gold": 1})
    assert acc_mutual_info(no_baseline, attempt(calls=(asked, scored(None, alone)))) == lacking
    no_context = Task("t", "?", choices=(" x", " y"), baseline="n", secret={"gold": 1})
    chat = (scored(None, {" x": -2.0, " y": -3.0}), scored("n", alone))
    assert acc_mutual_info(no_context, attempt(calls=chat)) == lacking
    assert acc_mutual_info(one, attempt("B", calls=(scored("n", alone),))) == lacking


def test_lengths_leave_out_one_leading_space_and_ties_go_to_the_first() -> None:
    for texts, scorer, chosen in (
        ({"  a": -2.0, " bb": -3.0}, acc_norm, "A"),  # two characters each
        ({"a ": -2.0, " b": -1.5}, acc_norm, "A"),
        ({" aa": -2.0, " bbbb": -4.0}, acc_norm, "A"),
        ({" bbbb": -4.0, " aa": -2.0}, acc_bytes, "A"),
        ({"\ud800": -3.0, "aa": -2.5}, acc_bytes, "A"),  # three bytes
        ({"\ud800": -3.0, "aa": -2.5}, acc_norm, "B"),
        ({"": -1.5, "aa": -2.0}, acc_norm, "B"),
        ({"": -1.5, "aa": -4.0}, acc_bytes, "A"),
        ({"a": -1.0, "b": -1.0}, acc, "A"),
        ({"a": 0.0, "b": 0.5}, acc, "B"),
    ):
        one = Task("t", "?", choices=tuple(texts), secret={"gold": 0})
        found = scorer(one, attempt(calls=(scored(None, texts),)))
        assert found == Score(scorer.__name__, float(chosen == "A"), {"chosen": chosen, "by": "logprob"}), texts
    three = {"a": -1.0, "b": -2.0, "c": -2.0}
    for gold, true, value, chosen in (
        (0, [0], 1.0, "A"),
        (1, [0, 1], 0.0, "C"),  # a false one is as probable
        (1, [0, 1, 2], 1.0, "B"),
        (2, [0, 2], 0.0, "B"),
        (2, [0, 1, 2], 1.0, "C"),
        (2, [], 0.0, "A"),
    ):
        one = Task("t", "?", choices=tuple(three), secret={"gold": gold, "true": true})
        assert mc1(one, attempt(calls=(scored(None, three),))) == Score(
            "mc1", value, {"chosen": chosen, "by": "logprob"}
        )
    plain = Task("t", "?", choices=tuple(three), secret={"gold": 0})
    assert mc1(plain, attempt(calls=(scored(None, three),))).value == 1.0, "without true ones all are rivals"


# -- references and votes --


def test_references_are_looked_for_in_the_whole_answer() -> None:
    long = "x" * 999_997
    for scorer, reference, answer, value in (
        (familiar.includes, "NYC", f"nyc{long}", 1),
        (familiar.includes, "NYC", f"nyc{long}x", 0),
        (familiar.includes, "NYC", f"{long}nyc", 1),
        (familiar.includes, "NYC", f"{long}xnyc", 0),
        (familiar.includes, "STRASSE", "in der Straße", 1),
        (familiar.includes, 24, "it is 240", 1),
        (familiar.contains, "NYC", f"NYC{long}", 1),
        (familiar.contains, "NYC", f"NYC{long}x", 0),
        (familiar.contains, "NYC", f"{long}NYC", 1),
        (familiar.contains, "NYC", f"{long}xNYC", 0),
        (familiar.contains, " a", "a", 0),
        (familiar.regex(), "^a{3}", f"aaa{long}", 1),
        (familiar.regex(), "^a{3}", f"aaa{long}x", 0),
        (familiar.regex(), "b$", f"{long}xxb", 1),
        (familiar.regex(), "b$", f"{long}xxxb", 0),
    ):
        assert scorer(task(answer=reference), attempt(answer)) == Score(scorer.__name__, value), answer[:30]  # type: ignore[comparison-overlap]
    for scorer in (familiar.includes, familiar.contains):
        for secret, value in (
            ({"answers": ["y"], "answer": "x"}, 0.0),
            ({"answers": ["y", "", "x"]}, 1.0),
        ):
            assert scorer(task(**secret), attempt("x")) == Score(scorer.__name__, value), secret
        for nothing in ({"answers": []}, {"answers": [""]}, {"answer": None}):
            assert is_refused(scorer, task(**nothing), attempt("x")), nothing


def test_a_pattern_gives_its_first_group_the_last_time_that_it_matches() -> None:
    for pattern, answer, references, value, found in (
        (r"=(\w*)(\d)", "=a1 =b2", ["b"], 1.0, "b"),
        (r"=(\w*)(\d)", "=a1 =b2", ["a", "2"], 0.0, "b"),
        (r"a(b)?", "ab a", ["b"], 0.0, ""),
        (r"=( \w+ )", "= B ", ["a", " b"], 1.0, " B "),
        (r"(?:a)b", "abab", ["AB"], 1.0, "ab"),
        ("x", "", ["x"], 0.0, None),
        ("^(.)", "b" + "x" * 999_999, ["b"], 1.0, "b"),
        ("^(.)", "b" + "x" * 1_000_000, ["b"], 0.0, None),
    ):
        scorer: Any = familiar.regex(pattern=pattern)
        assert scorer(task(answers=references), attempt(answer)) == Score("regex", value, {"found": found}), pattern
    either: Any = familiar.regex()
    assert [either(task(answers=each), attempt("ab")).value for each in (["x", "b$"], ["x", "^b"])] == [1, 0]
    assert is_refused(either, task(answers=[]), attempt("ab"))
    for wrong in ("(" * 90, "a{99999999999999999999}", "(" * 5_000 + ")" * 5_000):
        with pytest.raises(ConfigError) as refused:
            familiar.regex(pattern=wrong)
        said = str(refused.value)
        assert said.startswith("the pattern is no regular expression (") and said.endswith(f"): {wrong[:80]!r}")


def test_a_verdict_is_the_only_one_that_is_written() -> None:
    for answer, verdict in (
        ("x" * 999_995 + "[[B]]", "B"),
        ("x" * 999_996 + "[[B]]", None),
        ("[[A]]" + "x" * 999_995, "A"),
        ("[[A]]" + "x" * 999_996, None),
        ("[[A]]" + "x" * 20_000 + "[[C]]", None),
        ("[[A]][[B]]", None),
        ("[[B]], not [[D]] or [[tie]] or [b]", "B"),
        ("\n A ", "A"),
        ("B", "B"),
        ("C", "tie"),
        (" tie\n", "tie"),
        ("Tie", None),
        ("[[a]]", "A"),
        ("", None),
        (None, None),
    ):
        assert human_votes.verdict_of(task(votes=[]), attempt(answer)) == verdict, (answer or "")[-30:]
        agreed = {"A": 0.5, "B": 0.25, "tie": 0.25, None: 0.0}[verdict]
        even = task(votes=["A", "B", "A", "tie"])
        assert human_votes.human_agreement(even, attempt(answer)) == Score(
            "human_agreement", agreed, {"verdict": verdict}
        )
        assert human_votes.majority_agreement(even, attempt(answer)) == Score(
            "majority_agreement", agreed, {"verdict": verdict, "majority": None}
        )
        tied = task(votes=["tie", "B", "tie"])
        assert human_votes.majority_agreement(tied, attempt(answer)) == Score(
            "majority_agreement", float(verdict == "tie"), {"verdict": verdict, "majority": "tie"}
        )
        item = human_votes.judged(tied, attempt(answer))
        assert (item is None) == (verdict is None) and (item is None or item.verdict == verdict)
    failed = attempt("A", error=Failure("E", "m"))
    items, missing = human_votes.judged_items({("b", "t"): tied}, [failed, attempt(""), attempt("A", epoch=1)])
    assert (items, missing) == ([], 2)
    for orders, value, failure in (
        (["A", "A"], 1.0, None),
        (["A", "tie"], 0.0, None),
        (["A"], 0.0, "the pair was not judged in both orders"),
        (["A", "A", "A"], 0.0, "the pair was not judged in both orders"),
    ):
        made = attempt("A", events=(Event("judgement", 0.0, {"orders": orders}),))
        expected = Score("order_consistency", value, failure=failure, unjudged=failure is not None)
        assert human_votes.order_consistency(tied, made) == expected, orders
