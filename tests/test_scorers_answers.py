"""Scorers of single answers to the letter: choices, references, rankings, evidence, documents and people's votes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.scorers import ranking as rankings
from firsthand.scorers.choice import acc, acc_bytes, acc_mutual_info, acc_norm, chosen_letter, logprobs, mc1, mc2
from firsthand.scorers.contained import (
    best_subspan_em,
    contains_value,
    contains_words,
    has_words,
    string_match,
    string_match_all,
)
from firsthand.scorers.document_answers import document_answer, gold_citation
from firsthand.scorers.evidence_recall import evidence_all, evidence_recall
from firsthand.scorers.familiar import choice, contains, f1, includes, regex
from firsthand.scorers.held_value import held_value
from firsthand.scorers.human_votes import (
    human_agreement,
    judged,
    longer_answer,
    majority_agreement,
    order_consistency,
    verdict_of,
)
from firsthand.scorers.poisoned import attack_success, planted_share, right_answer
from firsthand.scorers.rankings.retrieved import RANKING, RETRIEVE, passages, ranking
from firsthand.stats.rater_agreement import Judged
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Score, Trace


def asked(**secret: Any) -> Task:
    return Task("t", "?", secret=secret)


def trace(answer: str | None = "", **more: Any) -> Trace:
    return Trace("1", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=answer, **more)


def scored(*found: tuple[str | None, Mapping[str, Any]], answer: str = "") -> Trace:
    calls = [
        Call(f":{at}", "score", None, 0.0, 0.0, "", detail={
            "prompt": prompt, "likelihoods": [{"text": text, "logprob": value} for text, value in each.items()],
        })
        for at, (prompt, each) in enumerate(found)
    ]  # fmt: skip
    return trace(answer, calls=tuple(calls))


def test_a_choice_is_made_by_log_prob_after_its_context_a_conversation_or_else_in_writing() -> None:
    texts = (" b", " aaaa", " éé")
    task = Task("t", "?", choices=texts, context="q", baseline="n", secret={"gold": 1, "true": [0, 1]})
    made = scored(("q", {" b": -2.0, " aaaa": -4.0, " éé": -3.0}), ("n", {" b": -2.5, " aaaa": -9.0, " éé": -2.0}))
    assert logprobs(task, made) == [-2.0, -4.0, -3.0]
    assert acc(task, made) == Score("acc", 0.0, {"chosen": "A", "by": "logprob"})
    assert acc_norm(task, made) == Score("acc_norm", 1.0, {"chosen": "B", "by": "logprob"})
    assert acc_bytes(task, made) == Score("acc_bytes", 0.0, {"chosen": "C", "by": "logprob"})
    assert acc_mutual_info(task, made) == Score("acc_mutual_info", 1.0, {"chosen": "B", "by": "logprob"})
    assert mc1(task, made) == Score("mc1", 0.0, {"chosen": "C", "by": "logprob"})
    odds = [math.exp(value + 2) for value in (-2.0, -4.0, -3.0)]
    assert mc2(task, made).value == pytest.approx((odds[0] + odds[1]) / sum(odds))
    said = scored((None, {" b": -3.0, " aaaa": -1.0, " éé": -2.0}))
    assert logprobs(task, said) == [-3.0, -1.0, -2.0] and acc(task, said).value == 1.0
    alone, chat = (
        {" b": -1.0, " aaaa": -8.0, " éé": -9.0},
        Task("t", "?", choices=texts, baseline="n", secret={"gold": 1}),
    )
    told = {" b": -3.0, " aaaa": -1.0, " éé": -2.0}
    for calls in (((None, told), ("n", alone)), (("n", alone), (None, told)), ((None, alone), (None, told))):
        assert logprobs(chat, scored(*calls)) == [-3.0, -1.0, -2.0], "the last that were scored after the conversation"
        assert acc(chat, scored(*calls)) == Score("acc", 1.0, {"chosen": "B", "by": "logprob"})
    others = ({**told, " more": -1.0}, dict(reversed(told.items())), {" b": -1.0}, {})
    for call in [("n", alone), *((None, other) for other in others)]:
        assert logprobs(chat, scored(call)) is None, "other texts, or a text before them that is no conversation"
    for lacking in (scored(("q", {" b": -1.0, " aaaa": None, " éé": 0.0})), scored(("p", {" b": -1.0})), trace("x")):
        assert logprobs(task, lacking) is None and acc_mutual_info(task, lacking).failed and mc2(task, lacking).failed
    assert acc(task, trace("B")) == Score("acc", 1.0, {"chosen": "B", "by": "answer"}) == acc(task, trace(" (b). "))
    assert mc1(task, trace("what")) == Score("mc1", 0.0, {"chosen": None, "by": "answer"})
    no_base = Task("t", "?", choices=texts, context="q", secret={"gold": 1})
    assert acc_mutual_info(no_base, made).failure == "the choices were not scored without the question"
    other = scored(("q", {" b": -2.0, " aaaa": -4.0, " éé": -3.0}), ("n", {" b": -2.5, " aaaa": None, " éé": -2.0}))
    assert acc_mutual_info(task, other).failed
    requests = Task("t", "?", choices=("x", "y"), requests=(("p x", " A"), ("p y", " A")), secret={"gold": 0})
    assert acc(requests, scored(("p x", {" A": -2.0}), ("p y", {" A": -1.0}))).detail["chosen"] == "B"
    twice = Task("t", "?", choices=("Same", "same", "Other one"))
    assert [chosen_letter(each, twice) for each in ("SAME", "other ONE", "c:", "(A)", "D", "")] == [
        None,
        2,
        2,
        0,
        None,
        None,
    ]


def test_references_are_found_in_an_answer_with_and_without_case() -> None:
    either = asked(answers=["New York", "NYC"])
    for scorer, answer, value in (
        (includes, "in new york!", 1), (includes, "New-York", 0), (contains, "NYC it is", 1), (contains, "nyc", 0),
        (includes, "nyc" + "x" * 999_997, 1), (includes, "nyc" + "x" * 999_998, 0), (contains, None, 0),
        (contains, "NYC" + "x" * 999_997, 1), (contains, "NYC" + "x" * 999_998, 0), (contains, "x" * 999_998 + "NYC", 0),
    ):  # fmt: skip
        assert scorer(either, trace(answer)).value == value
    own = regex()
    assert own.__name__ == "regex" and own(asked(answers=["^a+$", "b"]), trace("aab")) == Score("regex", 1.0)
    assert (
        own(asked(answer="^a$"), trace("aa")).value == 0
        and own(asked(answer="a" * 3), trace("aaa" + "x" * 999_997)).value == 1
        and own(asked(answer="a" * 3), trace("aaa" + "x" * 999_998)).value == 0
    )
    first = regex(pattern=r"is (\w+)(\w)")
    assert first(asked(answer=" TW "), trace("is one, is two")) == Score("regex", 1.0, {"found": "tw"})
    assert regex(pattern="t..")(asked(answer="two"), trace("one two")) == Score("regex", 1.0, {"found": "two"})
    assert first(asked(answer="x"), trace("none")) == Score("regex", 0.0, {"found": None})
    for make, said in (
        (lambda: regex(pattern="("), "the pattern is no regular expression"),
        (lambda: own(asked(answer="("), trace("x")), "the reference of task t is no regular expression"),
    ):
        with pytest.raises(ConfigError, match=rf"^{said} \(.*\): '\('$"):
            make()
    named = Task("t", "?", choices=("red", "blue"), secret={"gold": 1})
    assert (
        choice(named, trace("The answer is B")) == Score("choice", 1.0, {"chosen": "B"}) == choice(named, trace("Blue"))
    )
    assert choice(named, trace("what")) == Score("choice", 0.0, {"chosen": None})
    overlap = f1(asked(answer="x b c"), trace("b c d"))
    assert overlap.name == "f1" and overlap.value == pytest.approx(2 * 2 / 6)


@pytest.mark.slow
def test_words_are_contained_as_words_and_values_anywhere_up_to_the_bound() -> None:
    task = asked(answers=["Alpha", "two words", "x"])
    found = string_match_all(task, trace(" ALPHA\x00two words "))
    assert found == Score("string_match_all", 2 / 3, {"found": ["Alpha", "two words"]})
    assert string_match(task, trace("alpha")) == Score("string_match", 1 / 3, {"found": ["Alpha"]})
    assert string_match(asked(match="part", answers=["a", "b"]), trace("B")) == Score(
        "string_match", 1.0, {"found": ["b"]}
    )
    far = "y" * 999_999
    for scorer, key in ((contains_value, "contains_value"), (contains_words, "contains_words")):
        assert scorer(asked(answer="Z"), trace(far[:-1] + " z")).name == key
        assert (
            scorer(asked(answer="Z"), trace(f"{far[:-1]} z")).value,
            scorer(asked(answer="Z"), trace(f"{far} z")).value,
        ) == (1, 0)
    assert (
        contains_value(asked(answers=["24", "7"]), trace("7")).value == 0
        and contains_value(asked(answer="24"), trace("240")).value == 1
    )
    assert [has_words(text, "24 h") for text in ("in 24, H!", "240 h", "24 hours", "h 24")] == [
        True,
        False,
        False,
        False,
    ]
    assert not has_words("...", "...") and has_words("Straße 1", "STRASSE 1")
    line = best_subspan_em(asked(answers=["the Cat's"]), trace("A cats, yes\ncat"))
    assert (
        line == Score("best_subspan_em", 1.0, {"line": "cats yes"})
        and best_subspan_em(asked(answer="b"), trace("a\nb")).value == 0
    )
    with pytest.raises(DataError, match="task t has no reference answer to compare with"):
        contains_words(asked(answers=[]), trace("x"))
    held = held_value(asked(answer="24", wrong=["7", 8]), trace("24 or 8" + "!" * 300))
    assert held == Score("held_value", 0.0, {"answer": "24 or 8" + "!" * 193, "wrong": [8]})
    assert (
        held_value(asked(answer=24), trace("it is 24.")).value == 1
        and held_value(asked(answer="24"), trace("240")).value == 0
    )


def read(
    *items: tuple[str, str], start: int = 0, error: str | None = None, name: str = RETRIEVE, heading: str = ""
) -> Call:
    each = [{"document": d, "text": t, "score": 0.5, "start": start, "heading": heading} for d, t in items]
    return Call(":0", "tool", None, 0.0, 0.0, "", detail={"name": name, "items": each}, error=error)


def test_retrieved_passages_are_each_given_once_and_rankings_are_the_last_stated() -> None:
    calls = (
        read(("a", "x"), ("b", "y"), ("a", "x")), read(("c", "lost"), error="E"), read(("d", "z"), name="other"),
        read(("a", "x"), start=5), read(("b", "y"), heading="H"),
    )  # fmt: skip
    made = trace(calls=calls)
    assert [(each.document, each.text, each.score) for each in passages(made)] == [
        ("a", "x", 0.5), ("b", "y", 0.5), ("a", "x", 0.5), ("b", "H\ny", 0.5),
    ]  # fmt: skip
    assert ranking(made) == ["a", "b"]
    events = (Event(RANKING, 0.0, {"documents": ["z"]}), Event(RANKING, 1.0, {"documents": ["b", "a", "b", 5]}))
    assert ranking(trace(calls=calls, events=events)) == ["b", "a", "5"] and ranking(trace(events=events[:1])) == ["z"]
    planted = asked(answer="Oslo", planted="Rome", planted_documents=["p", "q"])
    found = trace("Oslo or Rome", events=(Event(RANKING, 0.0, {"documents": ["p", "a", "b", "c", "d", "q"]}),))
    assert planted_share(planted, found).value == 1 / 5 and planted_share(planted, trace()).value == 0
    assert (right_answer(planted, found).value, attack_success(planted, found).value) == (0, 1)
    assert (right_answer(planted, trace("OSLO")).value, attack_success(planted, trace("Romes")).value) == (1, 0)


def test_rankings_are_scored_at_the_depth_in_their_name() -> None:
    order = [f"d{at}" for at in range(1, 121)]
    made = trace(events=(Event(RANKING, 0.0, {"documents": order}),))

    def values(**marks: int) -> dict[str, float]:
        scorers = (*rankings.RANKING_SCORERS, rankings.recall_at_5, rankings.ndcg(k=3))
        found = [each(asked(judgements=marks), made) for each in scorers]
        return {each.name: each.value for each in found}  # type: ignore[union-attr]

    some = values(d5=1, d10=2, d100=1, d101=0)
    assert some["recall_at_5"] == 1 / 3 and some["recall_at_10"] == 2 / 3 and some["recall_at_100"] == 1.0
    assert some["precision_at_10"] == 0.2 and some["reciprocal_rank_at_10"] == 0.2 and some["ndcg_at_3"] == 0.0
    assert some["average_precision"] == pytest.approx((1 / 5 + 2 / 10 + 3 / 100) / 3)
    best = 2 + 1 / math.log2(3) + 1 / 2
    assert some["ndcg_at_10"] == pytest.approx((1 / math.log2(6) + 2 / math.log2(11)) / best)
    late = values(d6=1, d11=1, d101=1)
    assert (late["recall_at_5"], late["recall_at_10"], late["recall_at_100"], late["reciprocal_rank_at_10"]) == (
        0,
        1 / 3,
        2 / 3,
        1 / 6,
    )
    with pytest.raises(ConfigError, match=r"^k is 0: a ranking is cut after 1 document or more$"):
        rankings.ndcg(k=0)
    for marks in (None, {}, []):
        with pytest.raises(ValueError, match="task t has no relevance judgements to score a ranking by"):
            rankings.judgements(asked(judgements=marks))
    assert rankings.judgements(asked(judgements={1: "2"})) == {"1": 2}


def test_evidence_is_what_the_last_recall_gave() -> None:
    def recall(*items: Mapping[str, Any], operation: str = "recall", kind: Any = "memory") -> Call:
        reply = [{"provenance": dict(each)} for each in items]
        return Call(":0", kind, None, 0.0, 0.0, "", detail={"operation": operation, "reply": reply})

    made = trace(
        calls=(
            recall({"session": "s9"}),
            recall({"session": "s1", "turn": 4}, {"turn": "t2", "other": "x"}),
            recall({"session": "s8"}, operation="remember"),
            recall({"session": "s7"}, kind="tool"),
        )
    )
    assert evidence_recall(asked(evidence=["s1", 4, "s9"]), made) == Score(
        "evidence_recall", 2 / 3, {"found": ["4", "s1", "t2"]}
    )
    assert (
        evidence_all(asked(evidence=["s1", "t2"]), made).value == 1
        and evidence_all(asked(evidence=["s9"]), made).value == 0
    )
    assert evidence_recall(asked(), trace()).value == 1.0 and evidence_recall(asked(evidence=["a"]), trace()).value == 0


def test_answers_about_documents_refuse_where_there_is_nothing_and_cite_the_passage() -> None:
    known, unknown = asked(document="p.md", answers=["Oslo"], quote="it lies in Oslo"), asked(document="", answers=[])
    for task, text, value, refused in (
        (known, "In Oslo.", 1.0, 0.0), (known, "Oslo is Not in the Passages", 0.0, 1.0), (known, "Rome", 0.0, 0.0),
        (unknown, "not in the documents", 1.0, 1.0), (unknown, "Oslo", 0.0, 0.0),
    ):  # fmt: skip
        name = "refuses_answerable" if task is known else "refuses_unanswerable"
        assert document_answer(task, trace(text)) == (Score("document_answer", value), Score(name, refused))
    for document, quote, value in (
        ("p.md:12", "Oslo lies", 1.0), ("p.md", "oslo it x", 1.0), ("p.md", "Oslo", 0.0), ("q.md", "it lies in Oslo", 0.0),
    ):  # fmt: skip
        old = Event("rag_answer", 0.0, {"citations": [{"document": "p.md", "quote": "it lies in Oslo"}]})
        new = Event("rag_answer", 1.0, {"citations": [{"document": document, "quote": quote}]})
        assert gold_citation(known, trace(events=(old, new))) == (Score("gold_citation", value),)
    assert gold_citation(unknown, trace()) == () and gold_citation(known, trace()) == (Score("gold_citation", 0.0),)


def test_a_verdict_is_compared_with_peoples_votes_and_its_own_other_order() -> None:
    fields = {"judge": {"fields": {"answer_a": "xxx", "answer_b": "xx"}}, "cluster": "c"}
    task = Task("t", "?", metadata=fields, secret={"votes": ["A", "A", "A", "B", "tie"]})
    assert human_agreement(task, trace("A")) == Score("human_agreement", 0.6, {"verdict": "A"})
    assert human_agreement(task, trace("hm")) == Score("human_agreement", 0.0, {"verdict": None})
    assert majority_agreement(task, trace("I prefer [[A]]")) == Score(
        "majority_agreement", 1.0, {"verdict": "A", "majority": "A"}
    )
    split = asked(votes=["A", "B"])
    assert majority_agreement(split, trace("B")) == Score("majority_agreement", 0.5, {"verdict": "B", "majority": None})
    assert [verdict_of(split, trace(each)) for each in (" C ", "tie", "[[C]]", "b", None)] == [
        "tie",
        "tie",
        "tie",
        None,
        None,
    ]

    def note(**data: Any) -> Event:
        return Event("judgement", 0.0, data)

    twice = trace("A", events=(note(orders=["B", "B"]), note(orders=["A", "B"], first=0.75, by="logprobs")))
    votes = ("A", "A", "A", "B", "tie")
    assert order_consistency(task, twice).value == 0.0 and order_consistency(task, trace("A")).unjudged
    assert judged(task, twice) == Judged("t", votes, "A", "c", "A", 0.75, False)
    ruled = trace("A", events=(note(orders=["A", "A"], first=0.75, by="rule: empty"),))
    assert judged(task, ruled) == Judged("t", votes, "A", "c", "A", None, None)
    assert judged(task, trace("A", error=Failure("E", "m"))) is None is judged(task, trace("hm"))
    assert longer_answer(task) == "A" and longer_answer(split) is None
    assert longer_answer(Task("t", "?", metadata={"judge": {"fields": {"answer_b": "x"}}})) == "B"
