"""Scores retrieval-augmented answers by a judge model: faithfulness, answer relevance, context precision and recall.

The formulas are RAGAS's (Es et al., 2024), without the 1e-10 that it adds to context precision. A judgement is an attempt of
its own by the pattern `judge_rag`, kept in the score's detail. One that fails is a failed score: an error in tables, counted
there, and never a zero in a mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import mul
from typing import Any, ClassVar

from firsthand.agent import Agent
from firsthand.benchmark import NamedSetting, Scorer
from firsthand.errors import ConfigError, FirsthandError
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.journal import Journal, MemoryJournal
from firsthand.message import Json
from firsthand.model import Embedder
from firsthand.patterns.judge_rag import METRICS, judge_rag
from firsthand.patterns.parts.verdicts import VerdictMethod
from firsthand.rollout import rollout
from firsthand.scorers.model_judge import open_judge
from firsthand.scorers.rankings.ranking_metrics import verdict_precision
from firsthand.scorers.rankings.retrieved import passages
from firsthand.task import Task
from firsthand.trace import Score, Trace


@dataclass(frozen=True)
class RagJudge:
    """A scorer that calls a judge model about the passages and the answer of an attempt."""

    max_wait_s: ClassVar[None] = None
    """No bound: a slow model of one's own may have many judgements to make."""
    name: str
    agent: Agent
    """The judge."""
    embedder: Embedder | None = None
    """With answer_relevance: compares the questions that were made from the answer with the one that was asked."""

    @property
    def described(self) -> str:
        """Everything that decides a judgement, as text: scorers with equal descriptions give comparable scores."""
        given = ", ".join(f"{key}={value}" for key, value in self.agent.options.items())
        by = f"; embedder {self.embedder.name}" if self.embedder is not None else ""
        return f"judge {self.agent.model.name} ({self.agent.model.fingerprint}), {self.name}: {given}{by}"

    async def __call__(self, task: Task, trace: Trace) -> Score:
        """Return the judgement of an attempt, without a journal."""
        return await self.judged(task, trace, MemoryJournal())

    async def judged(self, task: Task, trace: Trace, journal: Journal, budget: Budget | None = None) -> Score:
        """Return the judgement of an attempt. An interrupted one repeats no call that is in `journal`."""
        asked = self._asked(task, trace)
        if isinstance(asked, str):
            return self._failed(asked)
        about = Task(task.id, task.prompt, metadata={"rag_judgement": asked, **_protection(task)})
        judged = await rollout(
            self.agent,
            about,
            benchmark=NamedSetting(f"{self.name} of {trace.benchmark}"),
            epoch=trace.epoch,
            journal=journal,
            budget=budget,
        )
        usage = judged.usage
        detail: Json = {
            "judge": self.agent.model.name,
            "protocol": self.name,
            "calls": len(judged.calls),
            "tokens": usage.total_tokens,
            "cost_usd": usage.cost_usd,
        }
        if judged.error is not None or judged.stop_reason != "done" or not judged.answer:
            why = judged.error.message if judged.error else f"it was stopped by its limit of {judged.stop_reason}"
            return self._failed(f"the judge gave no verdict: {why}", detail | {"trace": judged.to_json()})
        found = json.loads(judged.answer)
        detail |= {**found, "trace": judged.to_json()}
        try:
            value = await self._value(found, task)
        except FirsthandError as error:
            return self._failed(f"the judgement could not be computed: {error}", detail)
        if value is None:
            return self._failed("the text states nothing that could be judged", detail)
        return Score(self.name, value, detail)

    def _asked(self, task: Task, trace: Trace) -> Json | str:
        """The text shown to the judge; a string says why there is nothing to judge."""
        found: Json = {"metric": self.name, "question": task.question, "answer": trace.answer or ""}
        if self.name in ("faithfulness", "answer_relevance") and not found["answer"].strip():
            return "the attempt gave no answer"
        if self.name != "answer_relevance":
            found["passages"] = [each.text for each in passages(trace) if each.text]
            if not found["passages"]:
                return "the attempt retrieved no passages"
        if self.name in ("context_precision", "context_recall"):
            found["reference"] = reference_of(task.secret)
            if not found["reference"]:
                return f"{self.name} compares with a reference answer, and the task has none"
        return found

    async def _value(self, found: Json, task: Task) -> float | None:
        if self.name == "answer_relevance":
            assert self.embedder is not None
            return await relevance(self.embedder, task.question, found["questions"], found["noncommittal"])
        verdicts = [bool(each) for each in found["verdicts"]]
        if self.name == "context_precision":
            return verdict_precision(verdicts)
        return share(verdicts)

    def _failed(self, why: str, detail: Json | None = None) -> Score:
        return Score(self.name, 0.0, detail or {}, failure=why, unjudged=True)


def faithfulness(
    *, judge: str = "", how: VerdictMethod = "auto", max_chars: int = 8000, limit_tokens: int = 0
) -> Scorer:
    """Score the share of the answer's statements that the retrieved passages support, by a judge model."""
    return _judge("faithfulness", judge, {"how": how, "max_chars": max_chars}, limit_tokens)


def answer_relevance(
    *,
    judge: str = "",
    embedder: str = "minilm",
    questions: int = 3,
    max_chars: int = 8000,
    limit_tokens: int = 0,
) -> Scorer:
    """Score the mean cosine of the question with questions made from the answer; 0 if all call it noncommittal."""
    from firsthand.providers.local_embedder import open_embedder

    made = _judge("answer_relevance", judge, {"questions": questions, "max_chars": max_chars}, limit_tokens)
    return replace(made, embedder=open_embedder(embedder))


def context_precision(
    *, judge: str = "", how: VerdictMethod = "auto", max_chars: int = 8000, limit_tokens: int = 0
) -> Scorer:
    """Score the average precision of the passages' order, each judged by whether it helps to reach the reference."""
    return _judge("context_precision", judge, {"how": how, "max_chars": max_chars}, limit_tokens)


def context_recall(
    *, judge: str = "", how: VerdictMethod = "auto", max_chars: int = 8000, limit_tokens: int = 0
) -> Scorer:
    """Score the share of the reference's statements that the retrieved passages support, by a judge model."""
    return _judge("context_recall", judge, {"how": how, "max_chars": max_chars}, limit_tokens)


def share(verdicts: Sequence[bool]) -> float | None:
    """Return the share of true verdicts; None if there are none, for then nothing was judged."""
    return sum(verdicts) / len(verdicts) if verdicts else None


async def relevance(
    embedder: Embedder, question: str, made: Sequence[str], noncommittal: Sequence[bool]
) -> float | None:
    """Return the mean cosine of the question with those made from the answer; 0 if each time it was noncommittal."""
    if not made:
        return None
    ours, *theirs = await embedder.embed([question, *made])
    mean = sum(sum(map(mul, ours, each)) for each in theirs) / len(theirs)
    return 0.0 if all(noncommittal) else mean


def reference_of(secret: Mapping[str, Any]) -> str:
    """Return the task's reference answer as text; empty if it has none."""
    first = secret["reference"] if "reference" in secret else (secret.get("answers") or [secret.get("answer")])[0]
    return "" if first is None else str(first)


def _judge(metric: str, model: str, options: Json, limit_tokens: int) -> RagJudge:
    assert metric in METRICS
    if not model:
        raise ConfigError(
            f"{metric} needs a judge: name a model, as in {metric}:judge=smollm2 or judge=openai:NAME@URL"
        )
    limits = Limits(tokens=limit_tokens or None)
    return RagJudge(metric, Agent(f"judge {model}", open_judge(model), judge_rag, options, limits=limits))


def _protection(task: Task) -> Json:
    return {"protected": task.metadata["protected"]} if "protected" in task.metadata else {}
