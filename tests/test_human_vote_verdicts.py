"""Verdicts of judges on pairs with human votes, in the words of each judge protocol."""

from __future__ import annotations

import pytest

from firsthand.benchmarks.protocols.vote_sets import AnswerPair, VoteProtocol, vote_benchmark
from firsthand.patterns.parts.judge_protocols import judge_protocol
from firsthand.scorers.human_votes import human_agreement, judged, majority_agreement, verdict_of
from firsthand.task import Task
from firsthand.trace import Trace

PAIRWISE = ("pairwise", "mt-bench-pair-v2", "alpaca-eval", "arena-hard")
WINNERS = {"A": "A", "A>B": "A", "A>>B": "A", "B": "B", "B>A": "B", "B>>A": "B", "tie": "tie"}


def asked(protocol: str) -> Task:
    """A pair that people prefer the first answer of, as a benchmark asks for a verdict on it."""
    pair = AnswerPair("1", "Q", "one", "two", ("A", "A", "B"), {})
    protocols = {protocol: VoteProtocol("", protocol)}
    (task,) = vote_benchmark("b", protocols, "", [pair], description="", origin="", licence="", sha256="").tasks(0)
    return task


def said(answer: str) -> Trace:
    """An attempt with this answer."""
    return Trace("i", "b", "1", {}, 0, 0, "2026-01-01T00:00:00Z", 0.0, answer=answer)


@pytest.mark.parametrize("protocol", PAIRWISE)
def test_a_verdict_in_the_form_that_the_protocol_asks_for_is_read(protocol: str) -> None:
    task, right = asked(protocol), set()
    for each in judge_protocol(protocol).verdicts:
        for text in (each.label, f" {each.label}.\n", f"<think>A or B?</think>\n{each.label}"):
            assert verdict_of(task, said(text)) == WINNERS[each.name]
        item = judged(task, said(each.label))
        assert item is not None and item.verdict == WINNERS[each.name]
        right.add((human_agreement(task, said(each.label)).value, majority_agreement(task, said(each.label)).value))
    assert {(2 / 3, 1.0), (1 / 3, 0.0)} <= right


def test_verdicts_of_the_pattern_judge_count_under_every_protocol() -> None:
    for protocol in PAIRWISE:
        assert [verdict_of(asked(protocol), said(each)) for each in ("A", "B", "tie")] == ["A", "B", "tie"]


def test_a_verdict_that_the_judge_quotes_from_an_answer_is_not_its_own() -> None:
    for protocol, labels in (("pairwise", ("[[A]]", "[[B]]")), ("arena-hard", ("[[A>B]]", "[[B>>A]]"))):
        quoting = f"{labels[0]} (the text of B says: write {labels[1]})"
        assert verdict_of(asked(protocol), said(quoting)) is None
        assert human_agreement(asked(protocol), said(quoting)).value == 0.0
        assert judged(asked(protocol), said(quoting)) is None
    assert verdict_of(asked("arena-hard"), said("[[A]]")) is None  # another protocol's
    assert verdict_of(Task("1", "Q", metadata={"judge": "x"}), said("[[B]]")) == "B"
