"""Judges of retrieval with each setting given, what they ask and tell, and judgements that were stopped."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.journal import MemoryJournal
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.scorers import model_judge
from firsthand.scorers.model_judge import JudgeScorer, pairwise, reference, rubric
from firsthand.scorers.rag_judgements import (
    RagJudge,
    answer_relevance,
    context_precision,
    context_recall,
    faithfulness,
    reference_of,
)
from firsthand.task import Task
from firsthand.trace import Score, Trace
from test_scorers_verdicts_kept import READ, trace


def test_judges_of_retrieval_pass_every_setting_on(tmp_path: Path) -> None:
    for make in (faithfulness, context_precision, context_recall):
        made: Any = make(judge="scripted:echo", how="words", max_chars=9, limit_tokens=7)
        assert (made.name, dict(made.agent.options), made.agent.limits, made.embedder) == (
            make.__name__, {"how": "words", "max_chars": 9}, Limits(tokens=7), None,
        )  # fmt: skip
        with pytest.raises(
            ConfigError, match=f"^{make.__name__} needs a judge: name a model, as in {make.__name__}:judge=smollm2 or"
        ):
            make()
    folder = tmp_path / "embedder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    relevant: Any = answer_relevance(
        judge="scripted:echo", embedder=f"{folder}@bfloat16", questions=5, max_chars=9, limit_tokens=7
    )
    assert (relevant.name, dict(relevant.agent.options), relevant.agent.limits.tokens) == (
        "answer_relevance", {"questions": 5, "max_chars": 9}, 7,
    )  # fmt: skip
    assert (relevant.embedder.path, relevant.embedder.name, relevant.embedder._precision) == (
        folder,
        f"{folder}@bfloat16",
        "bfloat16",
    )
    assert relevant.described == (
        f"judge {relevant.agent.model.name} ({relevant.agent.model.fingerprint}), answer_relevance: questions=5, max_chars=9"
        f"; embedder {folder}@bfloat16"
    )
    default: Any = answer_relevance(judge="scripted:echo", embedder=str(folder))
    assert dict(default.agent.options) == {"questions": 3, "max_chars": 8000} and default.agent.limits.tokens is None


def test_references_are_texts_whatever_they_are() -> None:
    given: tuple[dict[str, Any], ...] = (
        {"reference": 0, "answers": ["x"]}, {"reference": "", "answer": "x"}, {"answers": [0, 1], "answer": "x"},
        {"answers": None, "answer": 5}, {"answers": ()}, {"answer": 0},
    )  # fmt: skip
    assert [reference_of(each) for each in given] == ["0", "", "0", "5", "", "0"]


def judged(
    made: RagJudge, *replies: str, budget: Budget | None = None, secret: Any = None, **more: Any
) -> tuple[Score, Any]:
    model = Scripted(list(replies))
    judge = RagJudge(made.name, model_judge.replace(made.agent, model=model), made.embedder)
    given: Trace = trace(more.pop("answer", "A."), calls=(READ,), epoch=4, **more)
    task = Task("t7", "Q?", secret={"answer": "ref"} if secret is None else secret, metadata={"protected": "why"})
    return asyncio.run(judge.judged(task, given, MemoryJournal(), budget)), model


def test_a_stopped_or_empty_judgement_is_no_zero() -> None:
    made: Any = faithfulness(judge="scripted:echo", how="words", limit_tokens=1)
    stopped, _ = judged(made, "x")
    assert stopped.failed and stopped.unjudged and stopped.value == 0.0
    assert str(stopped.failure).startswith("the judge gave no verdict: ") and stopped.detail["trace"]["epoch"] == 4
    assert {key: stopped.detail[key] for key in ("judge", "protocol", "calls", "tokens", "cost_usd")} == {
        "judge": "scripted", "protocol": "faithfulness", "calls": 0, "tokens": 0, "cost_usd": 0.0,
    }  # fmt: skip
    free: Any = faithfulness(judge="scripted:echo", how="words")
    nothing, _ = judged(free, json.dumps({"statements": []}))
    assert nothing.failure == "the text states nothing that could be judged" and nothing.detail["verdicts"] == []
    assert nothing.detail["trace"]["benchmark"] == "faithfulness of b" and nothing.detail["trace"]["task_id"] == "t7"
    lost, _ = judged(RagJudge("context_recall", free.agent), secret={"reference": ""})
    assert (lost.failure, lost.detail) == ("context_recall compares with a reference answer, and the task has none", {})
    silent, _ = judged(free, answer=None)
    assert silent.failure == "the attempt gave no answer"


def test_judgements_count_against_the_budget_of_the_run_and_are_replayed_from_its_journal() -> None:
    states = json.dumps({"statements": ["One.", "Two."]})
    free: Any = faithfulness(judge="scripted:echo", how="words")
    whole, tight = Budget(Limits(calls=9)), Budget(Limits(calls=2))
    found, _ = judged(free, states, "yes", "no", budget=whole)
    assert (found.value, whole.calls, whole.spent.total_tokens) == (
        0.5,
        3,
        found.detail["tokens"],
    ) and whole.hit is None
    short, _ = judged(free, states, "yes", "no", budget=tight)
    assert (short.failure, short.unjudged) == ("the judge gave no verdict: it was stopped by its limit of calls", True)
    assert (tight.calls, tight.hit, short.detail["calls"]) == (2, "calls", 2)
    journal, once = MemoryJournal(), Scripted([states, "yes", "no"])
    twice = RagJudge(free.name, model_judge.replace(free.agent, model=once))
    for _ in range(2):  # the second time the model has nothing left to say
        same = asyncio.run(twice.judged(Task("t7", "Q?"), trace("A.", calls=(READ,), epoch=4), journal))
        assert (same.value, same.failure, same.detail["calls"]) == (0.5, None, 3)
    rated: Any = rubric(judge="scripted:echo", how="words", reasoning="none")
    task, journal, spent = Task("t7", "Q?"), MemoryJournal(), Budget(Limits())
    judge = model_judge.judged_by(rated, Scripted(["[[7]]"]))
    first = asyncio.run(judge.judged(task, trace("A.", epoch=4), journal, spent))
    assert (spent.calls, spent.spent.total_tokens) == (first.detail["calls"], first.detail["tokens"]) == (
        1, first.detail["tokens"],
    )  # fmt: skip
    again = asyncio.run(judge.judged(task, trace("A.", epoch=4), journal, Budget(Limits())))  # nothing is left to say
    assert (again.value, again.failure) == (first.value, None) and first.value == 7.0


def test_a_judge_describes_itself_by_all_that_decides_and_is_for_its_kind() -> None:
    made: Any = rubric(
        judge="scripted:echo",
        rubric="Be 'short'.",
        low=0,
        high=3,
        how="words",
        reasoning="none",
        max_chars=250,
        max_tokens=8,
    )
    model = f"judge {made.agent.model.name} ({made.agent.model.fingerprint})"
    options = "reasoning=none, how=words, max_chars=250, reasoning_tokens=8"
    assert made.described == f"{model}, rubric: {options}, low=0, high=3; rubric \"Be 'short'.\""
    pair: Any = pairwise(judge="scripted:echo", against="base", orders="first", combine="consistent", how="words")
    assert pair.described == (
        f"{model}, pairwise: reasoning=protocol, how=words, orders=first, combine=consistent, max_chars=24000, "
        "reasoning_tokens=512; against base"
    )
    assert asyncio.run(pair(Task("t", "Q?"), trace("x", task_id="t"))) == Score(
        "pairwise", 0.0, {}, failure="base has no attempt at t to compare with", unjudged=True
    )
    for make, given, why in (
        (rubric, {"protocol": "pairwise"},
            "the judge protocol pairwise is not for one answer: use pairwise:protocol=..."),
        (reference, {"protocol": "arena-hard"},
            "the judge protocol arena-hard is not for one answer: use pairwise:protocol=..."),
        (pairwise, {"protocol": "hle", "against": "b"},
         "the judge protocol hle is not for pairs: use rubric:protocol=... or reference:protocol=..."),
        (pairwise, {"against": ""},
            "pairwise compares with an agent of the run: name it, as in pairwise:judge=smollm2:against=direct"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            make(judge="scripted:echo", **given)  # type: ignore[operator]
        assert str(refused.value) == why
    for low, high in ((10, 1), (4, 4), (-1, 5), (2, 103)):
        with pytest.raises(ConfigError) as refused:
            rubric(low=low, high=high)  # before a judge is looked for
        assert str(refused.value) == f"the scale is {low} to {high}: give whole numbers from 0, at most 101 of them"
    widest: Any = rubric(judge="scripted:echo", low=2, high=102)
    assert widest.settings == {"low": 2, "high": 102}
    own: Any = rubric(judge="scripted:echo", protocol="mt-bench-single-v1", low=10, high=1)
    assert (own.settings, own.extra) == ({}, {}), "a published protocol has a scale of its own"
    assert made.agent.model is pair.agent.model, "one model, opened once for all scorers"
    mute = model_judge.replace(made.agent, pattern=direct, options={}, model=Scripted(["7"]))
    silent = asyncio.run(JudgeScorer("rubric", mute, "rubric", made.settings, made.extra)(Task("t", "Q?"), trace("x")))
    assert (silent.value, silent.unjudged) == (0.0, True), "an answer without a verdict is no zero"
    assert str(silent.failure).startswith("the judge gave no verdict: ") and silent.detail["calls"] == 1
    hle: Any = reference(judge="scripted:echo", protocol="hle")
    assert (hle.name, hle.protocol, hle.settings, hle.extra) == ("hle", "hle", {}, {})
    published: Any = rubric(judge="scripted:echo", protocol="mt-bench-single-v1")
    assert (published.settings, published.extra, published.protocol) == ({}, {}, "mt-bench-single-v1")
