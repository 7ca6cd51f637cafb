"""Judges as scorers: what they are asked, what their score says, and the figures of embeddings by hand."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, ModelError
from firsthand.loop.concurrency import Retry
from firsthand.preference import Preference
from firsthand.providers.scripted import Scripted
from firsthand.scorers import embedded
from firsthand.scorers.embeddings.embedding_metrics import bitext_f1, pair_average_precision, spearman, v_measure
from firsthand.scorers.model_judge import JudgeScorer, about_judge, judged_by, pairwise, reference, rubric
from firsthand.scorers.rag_judgements import RagJudge, context_recall, faithfulness, reference_of, relevance, share
from firsthand.scorers.rankings.ranking_metrics import (
    average_precision,
    first_of_each,
    ndcg,
    precision,
    ranked,
    recall,
    reciprocal_rank,
)
from firsthand.scorers.rankings.retrieved import RETRIEVE
from firsthand.scorers.text import common_length, embedding_similarity, f1, references
from firsthand.task import Task
from firsthand.trace import Call, Failure, Score, Trace


def trace(answer: str | None = "", *, task_id: str = "t", **more: Any) -> Trace:
    return Trace(task_id, "b", task_id, {"name": "a"}, 0, 0, "", 0.0, answer=answer, **more)


def asked(**secret: Any) -> Task:
    return Task("t", "?", secret=secret)


def refusal(function: Any, *args: Any, **given: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        function(*args, **given)
    return str(refused.value)


def test_a_judge_is_made_with_all_its_settings_and_described_by_them(tmp_path: Path) -> None:
    made: Any = rubric(
        judge="scripted:echo", low=2, high=5, rubric="Be short.", max_chars=900, max_tokens=7, limit_tokens=50
    )
    assert (made.name, made.protocol, made.settings, made.extra, made.against) == (
        "rubric", "rubric", {"low": 2, "high": 5}, {"rubric": "Be short."}, "",
    )  # fmt: skip
    options = {"reasoning": "protocol", "how": "auto", "max_chars": 900, "reasoning_tokens": 7}
    assert made.agent.options == options and made.agent.name == "judge scripted:echo" and made.agent.limits.tokens == 50
    model = made.agent.model
    assert made.described == (
        f"judge {model.name} ({model.fingerprint}), rubric: reasoning=protocol, how=auto, max_chars=900, "
        "reasoning_tokens=7, "
        "low=2, high=5; rubric 'Be short.'"
    )
    bench: Any = rubric(judge="scripted:echo", protocol="mt-bench-single-v1")
    assert (bench.settings, bench.extra, bench.agent.limits.tokens) == ({}, {}, None)
    pair: Any = pairwise(judge="scripted:echo", against="base", orders="first", combine="mean")
    assert (
        pair.agent.options["orders"] == "first"
        and pair.agent.options["combine"] == "mean"
        and pair.described.endswith("; against base")
    )
    assert [reference(judge="scripted:echo", protocol=each).name for each in ("reference", "hle")] == [
        "reference",
        "hle",
    ]  # type: ignore[union-attr]
    file = tmp_path / "r.md"
    file.write_text(" Be kind.\n")
    assert rubric(judge="scripted:echo", rubric=str(file)).extra == {"rubric": "Be kind."}  # type: ignore[union-attr]
    file.write_text(" ")
    assert (
        refusal(rubric, judge="scripted:echo", rubric=str(file))
        == f"the rubric {str(file)!r} has 0 characters: give 1 to 20000"
    )
    assert refusal(rubric, judge="scripted:echo", rubric=str(tmp_path / "n.txt")).startswith("the rubric ")
    needs = "needs a judge: name a model, as in {0}:judge=smollm2 or judge=openai:NAME@URL"
    assert (
        refusal(rubric) == f"rubric {needs.format('rubric')}"
        and refusal(reference) == f"reference {needs.format('reference')}"
    )
    assert refusal(faithfulness) == f"faithfulness {needs.format('faithfulness')}"
    assert refusal(pairwise, judge="scripted:echo") == (
        "pairwise compares with an agent of the run: name it, as in pairwise:judge=smollm2:against=direct"
    )
    assert refusal(rubric, judge="scripted:echo", protocol="pairwise") == (
        "the judge protocol pairwise is not for one answer: use pairwise:protocol=..."
    )
    assert refusal(pairwise, judge="scripted:echo", against="a", protocol="rubric") == (
        "the judge protocol rubric is not for pairs: use rubric:protocol=... or reference:protocol=..."
    )
    retry = Retry(2)
    other = judged_by(made, Scripted(["x"]), retry=retry)
    assert (
        other.agent.retry == retry
        and other.agent.model.name == "scripted"
        and judged_by(made, model).agent.retry == made.agent.retry
    )


def test_a_pair_is_judged_against_the_rivals_attempt_and_kept_as_a_vote() -> None:
    made: Any = pairwise(judge="scripted:echo", against="base", orders="first")
    rival = Trace("r", "b", "t", {"name": "base"}, 0, 0, "", 0.0, answer="theirs")
    judge = judged_by(made, Scripted(score=lambda prompt, text: math.log(0.75 if text.strip() == "[[A]]" else 0.125)))
    lone = asyncio.run(judge(Task("t", "Q?"), trace("ours")))
    assert lone == Score("pairwise", 0.0, {}, failure="base has no attempt at t to compare with", unjudged=True)
    ready = JudgeScorer(judge.name, judge.agent, judge.protocol, against="base", rivals={("b", "t", 0): rival})
    task = Task("t", "Q?", choices=("x",), metadata={"protected": "asked"}, secret={"answer": "ref"})
    found = asyncio.run(ready(task, trace("ours")))
    assert (
        found.value == pytest.approx(0.75 + 0.125 / 2)
        and found.detail["against"] == "r"
        and found.detail["verdict"] == "A"
    )
    assert found.detail["judge"] == "scripted" and found.detail["protocol"] == "pairwise" and found.detail["calls"] == 1
    inner = found.detail["trace"]
    assert "Q?" not in json.dumps(inner["agent"])
    vote = ready.preference(trace("ours"), found)
    assert vote is not None and (vote.task_id, vote.a, vote.b, vote.winner, vote.by) == (
        "t",
        "t",
        "r",
        "a",
        "judge:scripted",
    )
    assert isinstance(vote, Preference) and ready.preference(trace("ours"), lone) is None
    for verdict, winner in (("B", "b"), ("tie", "tie")):
        kept = ready.preference(trace("ours"), Score("pairwise", 0.0, {"verdict": verdict}))
        assert kept is not None and kept.winner == winner
    failed = Trace("r", "b", "t", {"name": "base"}, 0, 0, "", 0.0, error=Failure("E", "m"))
    assert (
        JudgeScorer("p", judge.agent, "pairwise", against="base", rivals={("b", "t", 0): failed}).rival_of(trace())
        is None
    )
    fields = ready._task(task, trace("ours"), rival).metadata["judge"]["fields"]
    assert fields == {"question": task.question, "answer_a": "ours", "answer_b": "theirs"}
    single: Any = rubric(judge="scripted:echo", rubric="Be short.")
    about = single._task(task, trace(None), None).metadata
    assert about["protected"] == "asked" and about["judge"]["low"] == 1 and about["judge"]["protocol"] == "rubric"
    assert about["judge"]["fields"] == {"question": task.question, "answer": "", "rubric": "Be short."}
    dead = judged_by(single, Scripted(error=ModelError("gone")), retry=Retry(1))
    nothing = asyncio.run(dead(Task("t", "Q?"), trace("x")))
    assert (
        nothing.unjudged and nothing.failure is not None and nothing.failure.startswith("the judge gave no verdict: ")
    )


def test_judgements_are_summed_up_in_words() -> None:
    def score(**detail: Any) -> Score:
        return Score("s", 0.0, {"judge": "m", "protocol": "p", **detail})

    scores = [
        score(by="logprobs", tokens=1000, cost_usd=0.5, calls=2, orders=["A", "A"], first=0.75),
        score(by="text", tokens=234, calls=1, orders=["A", "B"]),
        score(by="logprobs", orders=["A"], first=1.0, forged=True),
        score(by="rule: empty", orders=["A", "B"], first=1.0),
        score(),
        Score("s", 1.0, {}),
    ]
    assert about_judge(scores) == {
        "judge": "m, protocol p",
        "judging": "3 calls, 1,234 tokens, $0.5000",
        "verdicts": "2 by logprobs, 1 by text, 1 by rule: empty, 1 without",
        "position": "the answer shown first is preferred with probability 0.38; same verdict in both orders: 50%",
        "forged": "1 answers contained markers of the judge's prompt, which were neutralised",
    }
    assert about_judge([score(by="text", calls=1, tokens=5)]) == {
        "judge": "m, protocol p", "judging": "1 calls, 5 tokens", "verdicts": "1 by text",
    }  # fmt: skip
    both = [Score("s", 1.0, {"judge": judge, "protocol": "p", "by": "text", "calls": 1}) for judge in "aba"]
    assert about_judge(both)["judge"] == "a, protocol p; b, protocol p"
    assert about_judge([Score("s", 1.0)]) == {}


def test_judgements_of_retrieval_need_an_answer_passages_and_a_reference() -> None:
    item = {"document": "d", "text": "passage", "score": 1.0}
    read = Call(":0", "tool", None, 0.0, 0.0, "", detail={"name": RETRIEVE, "items": [item, {**item, "text": ""}]})
    full = trace("answer", calls=(read,))
    agent: Any = faithfulness(judge="scripted:echo", max_chars=500, limit_tokens=9).agent  # type: ignore[union-attr]
    assert agent.options == {"how": "auto", "max_chars": 500} and agent.limits.tokens == 9

    def question(name: str, task: Task, made: Trace) -> Any:
        return RagJudge(name, agent)._asked(task, made)

    task = asked(answers=["ref", "other"])
    base = {"question": "?", "answer": "answer"}
    assert question("faithfulness", task, full) == {"metric": "faithfulness", **base, "passages": ["passage"]}
    assert question("answer_relevance", task, full) == {"metric": "answer_relevance", **base}
    assert question("context_recall", task, full) == {
        "metric": "context_recall",
        **base,
        "passages": ["passage"],
        "reference": "ref",
    }
    assert question("context_precision", task, trace(None, calls=(read,)))["answer"] == ""
    assert (
        question("faithfulness", task, trace(" ", calls=(read,)))
        == question("answer_relevance", task, trace())
        == "the attempt gave no answer"
    )
    assert question("faithfulness", task, trace("x")) == "the attempt retrieved no passages"
    assert (
        question("context_recall", asked(), full)
        == "context_recall compares with a reference answer, and the task has none"
    )
    assert [
        reference_of(each)
        for each in ({"reference": 5, "answer": "x"}, {"answers": ["a", "b"]}, {"answers": [], "answer": "c"}, {})
    ] == ["5", "a", "c", ""]
    assert share([True, False, True, True]) == 0.75 and share([]) is None
    judge: Any = context_recall(judge="scripted:echo")
    assert judge.described == (
        f"judge {judge.agent.model.name} ({judge.agent.model.fingerprint}), context_recall: how=auto, max_chars=8000"
    )
    failed = asyncio.run(judge(asked(answer="r"), trace("x")))
    assert failed == Score("context_recall", 0.0, {}, failure="the attempt retrieved no passages", unjudged=True)

    async def values() -> list[Any]:
        embedder: Any = SimpleNamespace(name="e", embed=_embed)
        relevant = RagJudge("answer_relevance", agent, embedder)
        assert relevant.described.endswith("; embedder e")
        return [
            await relevance(embedder, "a", ["b", "c"], [False, True]),
            await relevance(embedder, "a", ["b"], [True]),
            await relevance(embedder, "a", [], []),
            await relevant._value({"questions": ["b", "c"], "noncommittal": [False, False]}, Task("t", "a")),
            await judge._value({"verdicts": [1, 0, 1]}, task),
            await RagJudge("context_precision", agent)._value({"verdicts": [0, 1, 1]}, task),
        ]

    assert asyncio.run(values()) == [0.7, 0.0, None, 0.7, pytest.approx(2 / 3), pytest.approx((1 / 2 + 2 / 3) / 2)]


async def _embed(texts: Sequence[str]) -> list[list[float]]:
    known = {"a": [1.0, 0.0], "b": [0.6, 0.8], "c": [0.8, 0.6], "ref": [0.0, 1.0]}
    return [known[each] for each in texts]


def test_texts_are_compared_by_words_subsequences_and_vectors() -> None:
    assert (
        f1("the cat sat", "a cat ran") == pytest.approx(0.5)
        and f1("a b", "b b c") == pytest.approx(2 / 4)
        and f1("", "the") == 0.0
        and f1("x", "") == 0
    )
    assert [
        common_length(a, b)
        for a, b in (("abcd", "bd"), ("abc", "cba"), ("", "a"), ("aab", "ab"), ("ab" * 40, "ba" * 40))
    ] == [2, 1, 0, 2, 79]
    embedder: Any = SimpleNamespace(name="e", embed=_embed)
    scorer = embedding_similarity(embedder)
    assert asyncio.run(scorer(asked(references=["c", "ref"]), trace("a"))) == Score("similarity", 0.8, {"by": "e"})
    assert asyncio.run(scorer(asked(answer="c"), trace(" "))) == Score("similarity", 0.0, {"by": "e", "empty": True})
    assert references(asked(references=["a", 5], answer="b")) == ["a", "5"] and references(
        asked(references=[], answer="b")
    ) == ["b"]


def test_rankings_are_measured_at_their_bounds() -> None:
    order, marks = ["a", "b", "c", "d"], {"b": 2, "d": 1, "x": 1, "a": -1}
    assert (
        recall(order, marks, 2) == pytest.approx(1 / 3)
        and recall(order, marks) == pytest.approx(2 / 3)
        and precision(order, marks, 8) == 2 / 8
    )
    assert reciprocal_rank(order, marks, 1) == 0 and reciprocal_rank(order, marks, 2) == 0.5
    assert average_precision(order, marks) == pytest.approx((1 / 2 + 2 / 4) / 3) and average_precision(
        order, marks, 3
    ) == pytest.approx(1 / 6)
    gains, best = 2 / math.log2(3) + 1 / math.log2(5), 2 + 1 / math.log2(3) + 1 / 2
    assert ndcg(order, marks) == pytest.approx(gains / best) and ndcg(order, marks, 2) == pytest.approx(
        2 / math.log2(3) / (2 + 1 / math.log2(3))
    )
    assert ndcg(order, {"a": 0}) == recall(order, {}) == average_precision(order, {"a": -1}) == 0
    assert ranked({"a": 1.0, "c": 2.0, "b": 1.0}) == ["c", "b", "a"] and first_of_each("abac") == ["a", "b", "c"]
    said = "the ranking has 'a' twice: give each document once, as first_of_each does"
    for measure in (ndcg, recall, reciprocal_rank, average_precision):
        assert refusal(measure, ["a", "b", "a"], marks) == said
        assert refusal(measure, order, marks, 0) == "k is 0: a ranking is cut after 1 document or more"


def test_figures_of_embeddings_are_those_of_their_formulas() -> None:
    assert spearman([1, 2, 2, 4], [1, 3, 2, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5)) and math.isnan(
        spearman([1, 1], [1, 2])
    )
    assert spearman([1, 2], [2, 1]) == -1.0
    assert refusal(spearman, [1], [1]) == "1 and 1 values were to be correlated: give two or more of each, equally many"
    assert refusal(spearman, [1, 2], [1, 2, 3]).startswith("2 and 3 values")
    # thresholds .9: 1 of 1; .5: two at once, 2 of 3 in all; .1: 3 of 4
    assert pair_average_precision([0.5, 0.9, 0.5, 0.1], [1, 1, 0, 1]) == pytest.approx(
        (1 * 1 + 1 * 2 / 3 + 1 * 3 / 4) / 3
    )
    assert math.isnan(pair_average_precision([0.5], [0])) and math.isnan(pair_average_precision([], []))
    assert (
        refusal(pair_average_precision, [1.0], [1, 0])
        == "there are 1 similarities and 2 labels: give one for each pair"
    )
    assert (
        v_measure(["a", "a", "b"], [1, 1, 2]) == 1.0
        and v_measure(["a", "b"], [1, 1]) == 0.0
        and v_measure(["a", "a"], [1, 2]) == 0.0
    )
    entropy, joint = math.log(2), math.log(2) * 2 / 4
    assert v_measure(["a", "a", "b", "b"], [1, 1, 1, 2]) == pytest.approx(
        2 * (h := (mutual := entropy - (0.75 * (-(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)))) / entropy)
        * (c := mutual / (-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))) / (h + c)
    ) and joint > 0  # fmt: skip
    assert refusal(v_measure, [], []) == "there are 0 labels and 0 clusters: give one of each for every text"
    # targets 0, 1, 1, 2 and found 0, 0, 1, 1: F1 of 0 is 2/3, of 1 is 2/4, of 2 is 0
    assert bitext_f1([0, 0, 1, 1], [0, 1, 1, 2]) == pytest.approx((2 / 3 * 1 + 2 / 4 * 2 + 0) / 4)
    assert bitext_f1([0, 0], [0, 1], np.array([3.0, 1.0])) == pytest.approx((2 * 3 / (3 + 4) * 3 + 0) / 4)
    assert refusal(bitext_f1, [], []) == "there are 0 found and 0 gold targets: give one of each for every source"


def test_scores_of_embeddings_keep_what_their_figures_need() -> None:
    pair = {"cosine": 0.5, "dot": 2.0, "euclidean": -3.0, "manhattan": -4.0}
    assert embedded.cosine_spearman(asked(similarity="3"), trace(json.dumps(pair))) == Score(
        "cosine_spearman", 0.5, {"gold": 3.0}
    )
    assert embedded.max_ap(asked(similar=True), trace(json.dumps(pair))) == Score("max_ap", 0.5, {"gold": 1, **pair})
    assert embedded.bitext_weighted_f1(asked(place="3"), trace("3")) == Score(
        "bitext_weighted_f1", 1.0, {"found": 3, "gold": 3}
    )
    assert embedded.few_shot_accuracy(asked(label="x"), trace('["x", "y", "x"]')).value == pytest.approx(2 / 3)
    assert embedded.cluster_v_measure(asked(labels=["a", "b"]), trace("[0, 1]")).value == 1.0
    assert embedded.summary_spearman(asked(ratings=[1, 2, 3]), trace("[0.1, 0.3, 0.2]")).value == pytest.approx(0.5)
    assert embedded.summary_spearman(asked(ratings=[1, 2]), trace("[1, 1]")).failure == (
        "all summaries are equally similar, so there is no correlation"
    )
    for answer, scorer in (
        ("[]", embedded.few_shot_accuracy),
        ("x", embedded.max_ap),
        ("{}", embedded.cluster_v_measure),
        (None, embedded.bitext_weighted_f1),
    ):
        with pytest.raises(ValueError, match="embedding tasks are answered by the pattern embed"):
            scorer(asked(label="x", similar=1, labels=[], place=1), trace(answer))

    def kept(name: str, *rows: tuple[float, Mapping[str, float]]) -> list[Trace]:
        return [
            trace(task_id=str(at), scores=(Score(name, value, dict(detail)),))
            for at, (value, detail) in enumerate(rows)
        ]

    (figure,) = embedded.spearman_figures(
        kept("cosine_spearman", (0.1, {"gold": 1}), (0.2, {"gold": 3}), (0.3, {"gold": 2}))
    )
    assert (figure.name, figure.tasks) == ("cosine_spearman", ("0", "1", "2")) and figure.of(np.array([[1, 1, 1]]))[
        0
    ] == pytest.approx(0.5)
    rows = [
        (0.9, {"gold": 0, "cosine": 0.9, "dot": 1, "euclidean": 1, "manhattan": 0}),
        (0.1, {"gold": 1, "cosine": 0.1, "dot": 0, "euclidean": 2, "manhattan": -1}),
    ]
    (best,) = embedded.max_ap_figures(kept("max_ap", *rows))
    assert best.of(np.array([[1, 1]]))[0] == 1.0
    for right in embedded.SIMILARITIES:  # each may be the one that is best
        wrong = {each: float(each != right) for each in embedded.SIMILARITIES}
        (best,) = embedded.max_ap_figures(
            kept(
                "max_ap",
                (0.0, {"gold": 0, **wrong}),
                (0.0, {"gold": 1, **{each: 1 - value for each, value in wrong.items()}}),
            )
        )
        assert best.of(np.array([[1, 1]]))[0] == 1.0, right
    (found,) = embedded.bitext_figures(
        kept("bitext_weighted_f1", (1.0, {"found": 0, "gold": 0}), (0.0, {"found": 0, "gold": 1}))
    )
    assert found.of(np.array([[1, 1]]))[0] == pytest.approx((2 / 3) / 2)
    (one,) = embedded.bitext_figures(kept("bitext_weighted_f1", (1.0, {"found": 0, "gold": 0})))
    assert one.of(np.array([[1]])).tolist() == [1.0]
    for figures in (embedded.spearman_figures, embedded.max_ap_figures, embedded.bitext_figures):
        (none,) = figures([])
        assert none.tasks == () and np.isnan(none.of(np.ones((1, 0)))[0]), "no attempt has the score"
    some = kept("cosine_spearman", (0.1, {"gold": 1}), (9.0, {"gold": 0}), (0.2, {"gold": 3}), (0.4, {"gold": 2}))
    some[1] = trace(task_id="1", scores=(Score("cosine_spearman", 0.0, failure="no vector"), Score("other", 1.0)))
    (rest,) = embedded.spearman_figures([trace(task_id="none"), *some])
    assert rest.tasks == ("0", "2", "3") and rest.of(np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1]])).tolist() == [
        0.5,
        1,
        -1,
    ]
