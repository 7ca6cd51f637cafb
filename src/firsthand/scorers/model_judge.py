"""Scores answers with a judge model: by a rubric, by equivalence with the reference, or against another agent's answer.

A judgement is an attempt of its own: the judge is an Agent with the pattern `judge`, and its prompt, reply and cost are a
Trace, kept in the score's detail. A judge that fails (a dead endpoint, a limit, no verdict) gives an error, never a zero.
Verdicts, and their weighting by log-probs, are in `patterns/judge.py`; protocols in `patterns/parts/judge_protocols.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import NamedSetting, Scorer
from firsthand.errors import ConfigError, reason_of
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.concurrency import Retry
from firsthand.loop.journal import Journal, MemoryJournal
from firsthand.message import Json
from firsthand.model import Model
from firsthand.patterns.judge import CombineOrders, Orders, Reasoning, judge
from firsthand.patterns.parts.judge_protocols import fields_of, judge_protocol
from firsthand.patterns.parts.verdicts import VerdictMethod
from firsthand.preference import Preference, utc_now
from firsthand.rollout import rollout
from firsthand.scorers.human_votes import judgement_of
from firsthand.scorers.reference_answers import told_references
from firsthand.system.ordinary_file import read_ordinary_text
from firsthand.task import Task
from firsthand.trace import Score, Trace

RUBRIC = (
    "The best answer does exactly what the question asks, is correct in every statement, is complete, and is easy to "
    "follow. The worst is wrong, beside the point, or empty."
)
MAX_RUBRIC_CHARS = 20_000


@dataclass(frozen=True)
class JudgeScorer:
    """A scorer that calls a judge model, made by `rubric`, `reference` or `pairwise`."""

    max_wait_s: ClassVar[None] = None
    """No bound: a slow model of one's own may have many judgements to make."""
    name: str
    agent: Agent
    """The judge."""
    protocol: str
    settings: Json = field(default_factory=dict)
    """Settings of the judge's task besides its fields: the scale."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Fields that are equal for every answer: the rubric."""
    against: str = ""
    """Pairs only: the agent whose attempts are answer B."""
    rivals: Mapping[tuple[str, str, int], Trace] | None = None
    """That agent's attempts, by (benchmark, task, epoch)."""

    @property
    def described(self) -> str:
        """Return everything that decides a verdict, as text: scorers with equal descriptions give comparable scores."""
        given = ", ".join(f"{key}={value}" for key, value in {**self.agent.options, **self.settings}.items())
        rubric = f"; rubric {self.extra['rubric']!r}" if "rubric" in self.extra else ""
        against = f"; against {self.against}" if self.against else ""
        return (
            f"judge {self.agent.model.name} ({self.agent.model.fingerprint}), {self.protocol}: {given}{against}{rubric}"
        )

    async def __call__(self, task: Task, trace: Trace) -> Score:
        """Return the verdict on an attempt, without a journal."""
        return await self.judged(task, trace, MemoryJournal())

    async def judged(self, task: Task, trace: Trace, journal: Journal, budget: Budget | None = None) -> Score:
        """Return the verdict on an attempt. An interrupted judgement repeats no call that is in `journal`."""
        rival = self.rival_of(trace)
        if self.against and rival is None:
            return self._failed(f"{self.against} has no attempt at {trace.task_id} to compare with")
        judged = await rollout(
            self.agent,
            self._task(task, trace, rival),
            benchmark=NamedSetting(f"judgement of {trace.benchmark}"),
            epoch=trace.epoch,
            journal=journal,
            budget=budget,
        )
        noted = judgement_of(judged)
        usage = judged.usage
        about: Json = {
            "judge": self.agent.model.name,
            "protocol": self.protocol,
            "calls": len(judged.calls),
            "tokens": usage.total_tokens,
            "cost_usd": usage.cost_usd,
        }
        if judged.error is not None or judged.answer is None or not noted:
            why = judged.error.message if judged.error else f"it was stopped by its limit of {judged.stop_reason}"
            return self._failed(f"the judge gave no verdict: {why}", about | {"trace": judged.to_json()})
        about |= {key: noted[key] for key in _TOLD if noted.get(key) not in (None, [], {}, 0)}
        about |= {"against": rival.id} if rival is not None else {}
        about |= dict(noted.get("extracted", {}))
        return Score(self.name, float(noted["value"]), about | {"trace": judged.to_json()})

    def rival_of(self, trace: Trace) -> Trace | None:
        """Return the attempt that a trace is compared with, or None if it is missing or unfinished."""
        found = (self.rivals or {}).get((trace.benchmark, trace.task_id, trace.epoch))
        return found if found is not None and found.error is None else None

    def preference(self, trace: Trace, score: Score) -> Preference | None:
        """Return the verdict on a pair as a vote; None for a rating, or without a verdict."""
        rival, verdict = self.rival_of(trace), score.detail.get("verdict")
        if rival is None or score.failed:
            return None
        winner = {"A": "a", "B": "b"}.get(str(verdict), "tie")
        return Preference(trace.task_id, trace.id, rival.id, winner, f"judge:{self.agent.model.name}", utc_now())  # type: ignore[arg-type]

    def _task(self, task: Task, trace: Trace, rival: Trace | None) -> Task:
        known = {
            "question": task.question,
            "answer": trace.answer or "",
            "answer_a": trace.answer or "",
            "answer_b": (rival.answer or "") if rival is not None else "",
            **self.extra,
        }
        if task.secret.get("answer") not in (None, ""):  # a judge that reads "" or None takes any answer for wrong
            known["reference"] = str(task.secret["answer"])
        elif (told := told_references(task)) is not None:
            known["reference"] = told
        wanted = fields_of(judge_protocol(self.protocol))
        fields = {name: text for name, text in known.items() if name in wanted}
        about = {"protocol": self.protocol, "fields": fields, **self.settings}
        return Task(task.id, task.prompt, metadata={"judge": about, **_protection(task)})

    def _failed(self, why: str, about: Json | None = None) -> Score:
        return Score(self.name, 0.0, about or {}, failure=why, unjudged=True)


_TOLD = ("verdict", "probabilities", "by", "orders", "first", "mass", "forged", "cut")


def rubric(
    *,
    judge: str = "",
    protocol: str = "rubric",
    rubric: str = RUBRIC,
    low: int = 1,
    high: int = 10,
    reasoning: Reasoning = "protocol",
    how: VerdictMethod = "auto",
    max_chars: int = 24_000,
    max_tokens: int = 512,
    limit_tokens: int = 0,
) -> Scorer:
    """Rate answers from `low` to `high` with a judge model: the expected rating over its verdict's probabilities.

    `rubric` states the criteria, as text or a .txt or .md file. Other protocols: mt-bench-single-v1 (1 to 10 by its own
    prompt), mt-bench-single-math-v1. `limit_tokens` is the token limit of one judgement.
    """
    options = _options(reasoning=reasoning, how=how, max_chars=max_chars, reasoning_tokens=max_tokens)
    own = protocol == "rubric"
    judge_protocol(protocol, low=low, high=high)  # raises before any model is opened
    return JudgeScorer(
        "rubric",
        _judge_agent(judge, "rubric", options, limit_tokens),
        _of_kind(protocol, "single"),
        {"low": low, "high": high} if own else {},
        {"rubric": _text(rubric)} if own else {},
    )


def reference(
    *,
    judge: str = "",
    protocol: str = "reference",
    reasoning: Reasoning = "protocol",
    how: VerdictMethod = "auto",
    max_chars: int = 24_000,
    max_tokens: int = 512,
    limit_tokens: int = 0,
) -> Scorer:
    """Score the probability, by a judge model, that an answer is equivalent to the reference. Also: protocol=hle."""
    options = _options(reasoning=reasoning, how=how, max_chars=max_chars, reasoning_tokens=max_tokens)
    name = "reference" if protocol == "reference" else protocol
    return JudgeScorer(name, _judge_agent(judge, "reference", options, limit_tokens), _of_kind(protocol, "single"))


def pairwise(
    *,
    judge: str = "",
    against: str = "",
    protocol: str = "pairwise",
    orders: Orders = "both",
    combine: CombineOrders = "mean",
    reasoning: Reasoning = "protocol",
    how: VerdictMethod = "auto",
    max_chars: int = 24_000,
    max_tokens: int = 512,
    limit_tokens: int = 0,
) -> Scorer:
    """Score the probability, by a judge model, that an answer beats that of the agent `against` in the run; ties count half.

    Both orders are judged. Protocols: pairwise, mt-bench-pair-v2, mt-bench-pair-math-v1, alpaca-eval, arena-hard.
    """
    if not against:
        raise ConfigError(
            "pairwise compares with an agent of the run: name it, as in pairwise:judge=smollm2:against=direct"
        )
    options = _options(
        reasoning=reasoning,
        how=how,
        orders=orders,
        combine=combine,
        max_chars=max_chars,
        reasoning_tokens=max_tokens,
    )
    agent = _judge_agent(judge, "pairwise", options, limit_tokens)
    return JudgeScorer("pairwise", agent, _of_kind(protocol, "pairwise"), against=against)


def judged_by(scorer: JudgeScorer, model: Model, *, retry: Retry | None = None) -> JudgeScorer:
    """Return the scorer with another judge, such as a model that is open already."""
    return replace(scorer, agent=replace(scorer.agent, model=model, retry=retry or scorer.agent.retry))


def about_judge(scores: Sequence[Score]) -> dict[str, str]:
    """Summarise the judge, or several together, by heading: cost, kinds of verdicts, position bias, forged markers."""
    judgements = [score.detail for score in scores if "judge" in score.detail]
    if not judgements:
        return {}
    by: dict[str, int] = {}
    for each in judgements:
        by[str(each.get("by", ""))] = by.get(str(each.get("by", "")), 0) + 1
    tokens, cost = (
        sum(each.get("tokens", 0) for each in judgements),
        sum(each.get("cost_usd", 0.0) for each in judgements),
    )
    about = {
        "judge": "; ".join(dict.fromkeys(f"{each['judge']}, protocol {each['protocol']}" for each in judgements)),
        "judging": f"{sum(each.get('calls', 0) for each in judgements)} calls, {tokens:,} tokens"
        + (f", ${cost:.4f}" if cost else ""),
        "verdicts": ", ".join(f"{count} by {way}" if way else f"{count} without" for way, count in by.items()),
    }
    pairs = [
        each for each in judgements if len(each.get("orders", ())) == 2 and not str(each.get("by")).startswith("rule")
    ]
    if pairs:
        same = sum(each["orders"][0] == each["orders"][1] for each in pairs) / len(pairs)
        first = sum(each.get("first", 0.0) for each in pairs) / len(pairs)
        about["position"] = (
            f"the answer shown first is preferred with probability {first:.2f}; same verdict in both orders: {same:.0%}"
        )
    forged = sum(bool(each.get("forged")) for each in judgements)
    if forged:
        about["forged"] = f"{forged} answers contained markers of the judge's prompt, which were neutralised"
    return about


@cache
def open_judge(name: str) -> Model:
    """Return the model of that name, opened once however many scorers use it."""
    return catalog.model(name)


def _judge_agent(model: str, scorer: str, options: Mapping[str, Any], limit_tokens: int) -> Agent:
    if not model:
        raise ConfigError(
            f"{scorer} needs a judge: name a model, as in {scorer}:judge=smollm2 or judge=openai:NAME@URL"
        )
    limits = Limits(tokens=limit_tokens or None)
    return Agent(f"judge {model}", open_judge(model), judge, options, limits=limits)


def _options(**given: Any) -> dict[str, Any]:
    return given


def _of_kind(protocol: str, kind: str) -> str:
    if judge_protocol(protocol).kind != kind:
        wanted = "one answer" if kind == "single" else "pairs"
        raise ConfigError(f"the judge protocol {protocol} is not for {wanted}: use {_other(kind)}")
    return protocol


def _other(kind: str) -> str:
    return "pairwise:protocol=..." if kind == "single" else "rubric:protocol=... or reference:protocol=..."


def _text(given: str) -> str:
    """Return the rubric: the given text, or the content of a named .txt or .md file."""
    if not given.endswith((".txt", ".md")):
        return given
    try:
        text = read_ordinary_text(Path(given), 4 * MAX_RUBRIC_CHARS).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the rubric {given!r} cannot be read as text: {reason_of(error)}") from None
    if not 0 < len(text) <= MAX_RUBRIC_CHARS:
        raise ConfigError(f"the rubric {given!r} has {len(text)} characters: give 1 to {MAX_RUBRIC_CHARS}")
    return text


def _protection(task: Task) -> Json:
    """Return the metadata that protects the judge's task if the judged task is protected."""
    return {"protected": task.metadata["protected"]} if "protected" in task.metadata else {}
