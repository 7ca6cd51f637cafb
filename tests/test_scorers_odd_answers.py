"""Scorers on answers that are empty, equal, at a limit or in several parts, and on attempts that lack what they read."""

from __future__ import annotations

import math
from typing import Any

import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.message import assistant
from firsthand.scorers import (
    choice,
    contained,
    document_answers,
    evidence_recall,
    familiar,
    held_value,
    human_votes,
    match,
    monitored,
    poisoned,
    ranking,
    symbolic,
    text,
    written,
)
from firsthand.scorers.rankings import ranking_metrics
from firsthand.scorers.rankings.retrieved import passages
from firsthand.scorers.rankings.retrieved import ranking as ranking_of
from firsthand.stats.rater_agreement import Judged
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Node, Score, Trace


def attempt(answer: str | None = "", **more: Any) -> Trace:
    return Trace(
        "i", "b", more.pop("task_id", "t"), {"name": "a"}, more.pop("epoch", 0), 0, "", 0.0, answer=answer, **more
    )


def task(*, choices: Any = (), metadata: Any = None, prompt: str = "Q?", **secret: Any) -> Task:
    return Task("t", prompt, choices=tuple(choices), secret=secret, metadata=metadata or {})


def values(scores: Any) -> dict[str, float]:
    return {each.name: each.value for each in (scores if isinstance(scores, tuple) else (scores,))}


# -- texts --


def test_words_letters_and_numbers_are_found_where_their_rule_looks() -> None:
    several = task(answers=["24", "", "b c"])
    assert contained.contains_words(several, attempt("240, b-C!")).value == 1.0
    assert contained.contains_words(several, attempt("240 bc")).value == 0.0 and not contained.has_words("a", " ! ")
    found = contained.string_match_all(task(answers=["One", "two", "x\ny"]), attempt(" oNE x\ty "))
    assert (found.value, found.detail) == (2 / 3, {"found": ["One", "x\ny"]})
    assert contained.string_match(task(answers=["a", "b"], match="part"), attempt("b")) == Score(
        "string_match", 1.0, {"found": ["b"]}
    )
    assert contained.string_match(task(answers=["a", "b"], match="all"), attempt("b")).value == 0.5
    assert contained.best_subspan_em(task(answer="The cat"), attempt("a CAT!\nThe dog")) == Score(
        "best_subspan_em", 1.0, {"line": "cat"}
    )
    assert contained.best_subspan_em(task(answers=["dog"]), attempt("a cat\ndog")).value == 0.0
    assert contained.contains_value(task(answers=["AB", "c"]), attempt("x" * 999_998 + "ab")).value == 1.0
    assert contained.contains_value(task(answers=["AB", "c"]), attempt("x" * 999_999 + "ab")).value == 0.0
    with pytest.raises(DataError, match="no reference answer"):
        contained.contains_words(task(answers=[], answer="x"), attempt("x"))
    held = held_value.held_value(task(answer=7, wrong=[70, "no"]), attempt("7, not 70"))
    assert held == Score("held_value", 0.0, {"answer": "7, not 70", "wrong": [70]})
    assert held_value.held_value(task(answer=0), attempt("0")).value == 1.0
    assert [familiar.includes(task(answers=["", "É"]), attempt(each)).value for each in ("é", "x", None)] == [
        1.0,
        0.0,
        0.0,
    ]
    assert (
        familiar.contains(task(answer="É"), attempt("é")).value == 0.0
        and familiar.contains(task(answer="e"), attempt("the" + "x" * 999_997)).value == 1.0
    )
    assert familiar.contains(task(answer="e"), attempt("the" + "x" * 999_998)).value == 0.0
    assert familiar.includes(task(answer="e"), attempt("e" + "x" * 999_999)).value == 1.0
    assert familiar.includes(task(answer="e"), attempt("e" + "x" * 1_000_000)).value == 0.0
    last = familiar.regex(pattern=r"Answer: *(\w*)")
    assert last(task(answers=["x", " B "]), attempt("Answer: a\nAnswer: b")) == Score("regex", 1.0, {"found": "b"})
    assert last(task(answer="a"), attempt("none")) == Score("regex", 0.0, {"found": None})
    assert familiar.regex()(task(answers=["^b", "a$"]), attempt("xa")).value == 1.0
    with pytest.raises(ConfigError, match=r"the reference of task t is no regular expression"):
        familiar.regex()(task(answer="("), attempt("x"))
    assert values(document_answers.document_answer(task(document="", answers=[]), attempt("NOT in the passages."))) == {
        "document_answer": 1.0, "refuses_unanswerable": 1.0}  # fmt: skip
    assert values(document_answers.document_answer(task(document="d", answers=["x", "y"]),
        attempt("y, not in the documents"))) == {
        "document_answer": 0.0, "refuses_answerable": 1.0}  # fmt: skip
    cited = [Event("rag_answer", 0.0, {"citations": [{"document": "d:1", "quote": "a b c d"}]}),
             Event("rag_answer", 1.0, {"citations": [{"document": "e:1", "quote": "a b"}, {"document": "d:12",
                 "quote": "A, x b"}]})]  # fmt: skip
    quoted = task(document="d", quote="a b c d")
    assert values(document_answers.gold_citation(quoted, attempt(events=tuple(cited)))) == {"gold_citation": 1.0}
    assert values(
        document_answers.gold_citation(task(document="d", quote="a b c d e"), attempt(events=tuple(cited)))
    ) == {"gold_citation": 0.0}
    assert document_answers.gold_citation(task(document="", quote=""), attempt(events=tuple(cited))) == ()


def test_numbers_are_the_same_to_their_tolerance_and_whole_ones_exactly() -> None:
    assert [match.same_number("1000001", "1000000"), match.same_number("1000000.5", "1000000"),
        match.same_number("-0.5", "0.5"),
            match.same_number("0", "0.0"), match.same_number("1000001.5", "1000000"), match.same_number("x", "1")] == [
        False, True, False, True, False, False]  # fmt: skip
    assert (
        match.flexible(task(answer="0"), attempt("5, then 0")).value == 1.0
        and match.flexible(task(answer="0"), attempt("x")).value == 0.0
    )
    assert (
        match.normalised(task(answer="."), attempt("")).value == 0.0
        and match.normalised(task(answer="."), attempt(" The ")).value == 0.0
        and match.normalised(task(answer="the"), attempt(" The ")).value == 1.0
    )
    assert (
        match.exact(task(answer="x"), attempt(None)) == Score("exact", 0.0, {"answer": ""})
        and match.exact(task(answer=0), attempt(" 0\n")).value == 1.0
    )

    def strict(*said: str, answer: str = "1,200", kinds: Any = ("generate", "generate")) -> float:
        nodes = (Node(None, assistant("#### 7")), *(Node(None, assistant(each)) for each in said))
        calls = (Call(":0", kinds[0], None, 0.0, 0.0, "r", nodes=(0,)),
                 Call(":1", kinds[1], None, 0.0, 0.0, "r", nodes=tuple(range(1, len(nodes)))))  # fmt: skip
        return match.strict(task(answer="$1200."), attempt(answer, nodes=nodes, calls=calls)).value

    assert [strict("#### 5\n#### 1200", "#### 1,200."), strict("#### 5\n#### 1200"), strict("#### 1200", answer="1201"),
            strict("#### 1200", kinds=("generate", "score")), strict()] == [1.0, 0.0, 0.0, 0.0, 0.0]  # fmt: skip
    assert (
        text.f1("the a", "an") == 0.0
        and text.f1("", "x") == 0.0
        and text.f1("a b b c", "b c d") == pytest.approx(4 / 6)
    )
    assert text.references(task(references=[], answer=5)) == ["5"] and text.references(
        task(references=[1, 2], answer=5)
    ) == ["1", "2"]
    assert text.token_f1(task(references=["x y", "b"]), attempt("b")) == Score("token_f1", 1.0, {"answer": "b"})
    assert text._streams([["a", "b"], ["c"]]) == [["a", "c"], ["b", None]] and text._streams([]) == []
    assert (
        text.common_length("abcbdab", "bdcaba") == 4 and text.common_length("", "a") == text.common_length("a", "") == 0
    )
    said = "Final Answer: The final answer is 3. I hope it is correct. Final Answer: The final answer is 4"
    assert symbolic.minerva(task(answer="3"), attempt(said)) == Score("minerva", 1.0, {"found": " 3", "by": "text"})
    assert symbolic.minerva(task(answer="3"), attempt("3")) == Score("minerva", 0.0, {"found": None})
    assert symbolic.boxed(task(answer="1/2"), attempt(r"\boxed{3} or \boxed{0.5}")).detail == {
        "found": "0.5",
        "by": "numbers",
    }
    assert symbolic.boxed(task(answer="5"), attempt(" " * 99 + "5")).value == 1.0 and symbolic.boxed(
        task(answer="5"), attempt(" " * 100 + "5")
    ).detail == {"found": None}


def test_written_answers_are_extracted_by_the_rule_of_their_harness() -> None:
    def found(scorer: Any, said: str, **secret: Any) -> Any:
        score = scorer(task(**secret), attempt(said))
        return score.value, score.detail.get("found"), score.name

    assert found(written.gsm8k_strict, "#### -1,000.\n#### 5", answer="#### -1000") == (1.0, "-1,000.", "strict-match")
    assert found(written.gsm8k_cot_strict, "The answer is 5.5.", answer="5.5") == (1.0, "5.5", "strict-match")
    assert found(written.gsm8k_flexible, "$1,2 and 7", answer="7") == (1.0, "7", "flexible-extract")
    assert found(written.gsm8k_flexible, "none", answer="7") == (0.0, None, "flexible-extract")
    assert found(written.bbh_exact, "So the answer is (B).\nthe answer is (C).", answer="(B)") == (
        1.0,
        "(B)",
        "exact_match",
    )
    assert found(written.simple_evals_letter, "answer : $c$ Answer: D", answer="C") == (1.0, "C", "exact_match")
    assert found(written.mmlu_pro_letter, "answer is K; answer is (J)", answer="J") == (1.0, "J", "exact_match")
    for answer, letter in (("answer is (C) Answer: D", "C"), ("Answer: A answer:  B\nAnswer: D", "B"), ("x\nE or F?",
        "F"),
                           ("Answer:\n\nA x Answer: B\nanswer: C", "A")):  # fmt: skip
        assert found(written.mmlu_pro_tiger, answer, answer=letter, options=10) == (1.0, letter, "acc_tiger"), answer
    guessed = written.mmlu_pro_tiger(task(answer="G", options=10), attempt("no"))
    assert guessed.detail == {"found": None, "guess": "G"} and guessed.value == 1.0
    assert written.harness_number("$1,0#### X5.") == "x5" and written.harness_number("5..") == "5."


# -- choices and votes --


def test_choices_are_scored_by_all_or_by_the_answer_s_letter() -> None:
    four = task(choices=(" a", " bbbb", " é", "no"), gold=1, true=[0, 1])

    def scored(*logprobs: Any, answer: str = "") -> Trace:
        told = [{"text": each, "logprob": value} for each, value in zip(four.choices, logprobs, strict=False)]
        return attempt(answer, calls=(Call(":0", "score", 0, 0.0, 0.0, "r", detail={"likelihoods": told}),))

    trace = scored(-1.0, -2.0, -1.5, -9.0)
    by = {
        each.name: (each.value, each.detail.get("chosen"))
        for each in (f(four, trace) for f in (choice.acc, choice.acc_norm, choice.acc_bytes, choice.mc1))
    }
    assert by == {"acc": (0.0, "A"), "acc_norm": (1.0, "B"), "acc_bytes": (1.0, "B"), "mc1": (0.0, "C")}
    assert choice.mc1(four, scored(-1.0, -1.2, -1.5, -9.0)).detail == {"chosen": "B", "by": "logprob"}
    weights = [math.exp(each) for each in (-1.0, -2.0, -1.5, -9.0)]
    assert choice.mc2(four, trace).value == pytest.approx((weights[0] + weights[1]) / sum(weights))
    assert choice.acc(four, scored(-2.0, -2.0, -2.0, -2.0)).detail["chosen"] == "A", "the first of equal ones"
    for lacking in (
        scored(-1.0, -2.0, -1.5),
        scored(-1.0, -2.0, -1.5, None),
        scored(-1.0, -2.0, -1.5, math.nan),
        attempt(),
    ):
        assert choice.logprobs(four, lacking) is None
        assert choice.mc2(four, lacking).failure == "the choices were not scored by log-prob"
        assert choice.acc_mutual_info(four, lacking).failure == "the choices were not scored without the question"
    assert [choice.chosen_letter(each, four) for each in ("(b).", "BBBB", " É ", "E", "", "a")] == [
        1,
        1,
        2,
        None,
        None,
        0,
    ]
    assert choice.mc1(four, attempt("b")) == Score("mc1", 1.0, {"chosen": "B", "by": "answer"})
    assert choice.chosen_letter("x", task(choices=("x", "x", "y"))) is None, "two choices of one text"
    capitals = task(choices=("x", "X", "y", "No", "NO"))
    assert [choice.chosen_letter(each, capitals) for each in ("x", "X", "Y", "NO", "no")] == [0, 1, 2, 4, None]
    blank = task(choices=(" ", "yes"), gold=0)
    told = [{"text": " ", "logprob": -1.5}, {"text": "yes", "logprob": -3.0}]
    scored_blank = attempt(calls=(Call(":0", "score", 0, 0.0, 0.0, "r", detail={"likelihoods": told}),))
    assert choice.acc_norm(blank, scored_blank).detail == {"chosen": "B", "by": "logprob"}, "-1.5 is less than -3 / 3"
    assert familiar.choice(four, attempt("The answer is B")) == Score("choice", 1.0, {"chosen": "B"})
    assert familiar.choice(four, attempt("xyz")) == Score("choice", 0.0, {"chosen": None})


def test_verdicts_of_judges_are_compared_with_people_s_votes() -> None:
    votes = task(votes=["A", "tie", "A"], metadata={"judge": {"fields": {"answer_a": "xx", "answer_b": "y"}}})
    even = task(votes=["A", "B"])
    assert (
        human_votes.verdict_of(votes, attempt("[[A]] no, [[C]]")) is None
        and human_votes.verdict_of(votes, attempt(" tie ")) == "tie"
    )
    assert human_votes.verdict_of(votes, attempt("C")) == "tie" and human_votes.verdict_of(votes, attempt("a")) is None
    assert human_votes.human_agreement(votes, attempt("A")) == Score("human_agreement", 2 / 3, {"verdict": "A"})
    assert human_votes.majority_agreement(votes, attempt("B")).detail == {"verdict": "B", "majority": "A"}
    assert human_votes.majority_agreement(even, attempt("B")) == Score(
        "majority_agreement", 0.5, {"verdict": "B", "majority": None}
    )
    both = [
        Event("judgement", 0.0, {"orders": ["A", "A"]}),
        Event("judgement", 1.0, {"orders": ["A", "B"], "first": 0, "by": "logprob"}),
    ]
    trace = attempt("A", events=tuple(both))
    assert human_votes.order_consistency(votes, trace).value == 0.0
    assert human_votes.order_consistency(votes, attempt("A")).failure == "the pair was not judged in both orders"
    assert human_votes.judged(votes, trace) == Judged("t", ("A", "tie", "A"), "A", None, "A", 0.0, False)
    by_rule = (Event("judgement", 0.0, {"orders": ["A", "A"], "first": 0.5, "by": "rule: equal"}),)
    assert human_votes.judged(even, attempt("B", events=by_rule)) == Judged(
        "t", ("A", "B"), "B", None, None, None, None
    )
    assert (
        human_votes.judged(votes, attempt("x")) is None
        and human_votes.judged(votes, attempt("A", error=Failure("E", "m"))) is None
    )
    tasks = {("b", "t"): votes, ("b", "a"): Task("a", "", secret={"votes": ["A"]})}
    traces = [attempt("A"), attempt("?"), attempt("B", epoch=1), attempt("B", task_id="a")]
    items, missing = human_votes.judged_items(tasks, traces)
    assert ([each.item for each in items], missing) == (["a", "t"], 1)
    assert [human_votes.longer_answer(each) for each in (votes, even)] == ["A", None]


# -- rankings --


def test_rankings_are_read_from_the_last_statement_and_cut_at_exactly_their_depth() -> None:
    items = [{"document": "d1", "text": "x", "score": 1}, {"document": "d1", "text": "y", "score": 2, "heading": "h",
        "start": 3},
             {"document": "d2", "text": "x", "score": 0}, {"document": "d1", "text": "x", "score": 9}]  # fmt: skip
    third = [{"document": "d3", "text": "z", "score": 4}]
    ends = (
        ("other", None, items),
        ("retrieve", "broke", third),
        ("retrieve", None, items),
        ("retrieve", "", items + third),
    )
    calls = [
        Call(f":{n}", "tool", None, 0.0, 0.0, "r", detail={"name": name, "items": held}, error=error)
        for n, (name, error, held) in enumerate(ends)
    ]
    read = attempt(calls=tuple(calls))
    assert [(each.document, each.text, each.score) for each in passages(read)] == [
        ("d1", "x", 1.0),
        ("d1", "h\ny", 2.0),
        ("d2", "x", 0.0),
        ("d3", "z", 4.0),
    ]
    assert ranking_of(read) == ["d1", "d2", "d3"]
    stated = attempt(
        calls=tuple(calls),
        events=(Event("ranking", 0.0, {"documents": ["z"]}), Event("ranking", 1.0, {"documents": [2, 1, 2]})),
    )
    assert (
        ranking_of(stated) == ["2", "1"]
        and ranking_of(attempt(events=(Event("ranking", 0.0, {}),), calls=tuple(calls))) == []
    )
    order, judged = [f"d{n}" for n in range(12)], task(judgements={"d1": 2, "d9": 1, "d10": 1, "gone": -1, "x": 0})
    trace = attempt(events=(Event("ranking", 0.0, {"documents": order}),))
    best = 2 + 1 / math.log2(3) + 1 / 2
    assert ranking.ndcg_at_10(judged, trace).value == pytest.approx((2 / math.log2(3) + 1 / math.log2(11)) / best)
    assert ranking.ndcg(k=11)(judged, trace) == Score(
        "ndcg_at_11", pytest.approx((2 / math.log2(3) + 1 / math.log2(11) + 1 / math.log2(12)) / best)
    )  # type: ignore[arg-type]
    assert ranking.ndcg(k=1)(judged, trace).value == 0.0
    with pytest.raises(ConfigError, match="k is 0: a ranking is cut after 1 document or more"):
        ranking.ndcg(k=0)
    assert ranking.average_precision(judged, trace).value == pytest.approx((1 / 2 + 2 / 10 + 3 / 11) / 3)
    assert [f(judged, trace).value for f in (ranking.recall_at_5, ranking.recall_at_10, ranking.recall_at_100,
        ranking.precision_at_10, ranking.reciprocal_rank_at_10)] == [
        pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0, 0.2, 0.5,
    ]  # fmt: skip
    assert (
        ranking_metrics.verdict_precision([False, True, True]) == pytest.approx((1 / 2 + 2 / 3) / 2)
        and ranking_metrics.verdict_precision([]) == 0.0
    )
    assert ranking_metrics.ranked({"a": 1.0, "c": 1.0, "b": 2.0}) == ["b", "c", "a"]
    with pytest.raises(ConfigError, match="'a' twice"):
        ranking_metrics.recall(["b", "a", "a"], {"a": 1}, 1)
    for nothing in ({}, None, []):
        with pytest.raises(ValueError, match="task t has no relevance judgements"):
            ranking.judgements(task(judgements=nothing))
    planted = task(planted_documents=["d1", "d4", "d5"], answer="right", planted="Wrong one")
    assert (
        poisoned.planted_share(planted, trace).value == 0.4 and poisoned.planted_share(planted, attempt()).value == 0.0
    )
    assert [(poisoned.right_answer(planted, attempt(a)).value, poisoned.attack_success(planted, attempt(a)).value)
            for a in ("right!", "right, wrong one", None)] == [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)]  # fmt: skip
    recall = [Call(f":{n}", "memory", None, 0.0, 0.0, "r", detail={"operation": op, "reply": reply}) for n, (op,
        reply) in enumerate((
        ("recall", [{"provenance": {"session": "old"}}]), ("recall", [{"provenance": {"session": 1, "turn": "b"}},
            {}]), ("store", [{"provenance": {"turn": "c"}}])))]  # fmt: skip
    asked = task(evidence=[1, "c"])
    assert evidence_recall.evidence_recall(asked, attempt(calls=tuple(recall))) == Score(
        "evidence_recall", 0.5, {"found": ["1", "b"]}
    )
    assert evidence_recall.evidence_all(asked, attempt(calls=tuple(recall))).value == 0.0
    assert (
        evidence_recall.evidence_all(task(), attempt()).value
        == 1.0
        == evidence_recall.evidence_recall(task(), attempt()).value
    )
    scorer: Any = monitored.monitor_alarms(threshold=0.5)
    with pytest.raises(DataError, match="no step has monitor scores"):
        scorer(task(), attempt(nodes=(Node(None, assistant("x")),)))
