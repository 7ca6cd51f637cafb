"""Judge an answer, or two against each other, under a named judge protocol, with a verdict that cannot fail to parse."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from firsthand.context import Context
from firsthand.errors import DataError, ModelError, PromptTooLong
from firsthand.grammar import json_schema
from firsthand.loop.pattern_options import at_least, checked
from firsthand.message import Json
from firsthand.patterns.parts.judge_protocols import JudgeProtocol, judge_protocol, show
from firsthand.patterns.parts.verdicts import VerdictMethod, distribution
from firsthand.task import Task

Reasoning = Literal["protocol", "on", "off"]
Orders = Literal["both", "first", "second"]
CombineOrders = Literal["mean", "agree"]
MIN_CHARS = 250
"""The least an answer is shortened to: a prompt that is still too long is an error."""
MARGIN = 1e-9
"""Probabilities that differ by less are equal."""
_SWAP = str.maketrans({"A": "B", "B": "A"})
SCHEMA_TOKENS = 4096


@dataclass(frozen=True)
class Judgement:
    """The result of a judgement, recorded in the trace as the event `judgement`."""

    verdict: str
    """`A`, `B` or `tie`; `yes` or `no`; a rating."""
    value: float
    """The expected value over all verdicts: a rating, or the chance that the answer (answer A) is right or better."""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """Of each verdict; of a pair the mean over both orders, seen from the first."""
    by: str = ""
    """`logprob`, `top log-probs`, `grammar`, `words`, or the rule that decided without the judge."""
    orders: tuple[str, ...] = ()
    """The verdict in each order, seen from the first: a judge without position bias gives the same one twice."""
    first: float | None = None
    """The mean chance that the answer shown first is preferred; one half has no position bias."""
    mass: float = 1.0
    forged: int = 0
    cut: int = 0
    extracted: Mapping[str, Any] = field(default_factory=dict)
    """Further fields the judge extracts from an answer: HLE's final answer and confidence."""

    def to_json(self) -> Json:
        """The judgement as a JSON object."""
        body = {**vars(self), "probabilities": dict(self.probabilities), "orders": list(self.orders)}
        return body | {"extracted": dict(self.extracted)}


def _check(*, max_chars: int, reasoning_tokens: int, **_: Any) -> None:
    at_least(MIN_CHARS, max_chars=max_chars)
    at_least(1, reasoning_tokens=reasoning_tokens)


def _check_task(task: Task, **_: Any) -> None:
    read(task)


@checked(_check, task=_check_task)
async def judge(
    task: Task,
    ctx: Context,
    *,
    reasoning: Reasoning = "protocol",
    how: VerdictMethod = "auto",
    orders: Orders = "both",
    combine: CombineOrders = "mean",
    max_chars: int = 24_000,
    reasoning_tokens: int = 512,
    rules: bool = True,
    warn: bool = False,
) -> str:
    """The verdict on what `task.metadata["judge"]` holds: a protocol's name, `fields` to be judged, and perhaps a scale.

    A pair is judged in both orders unless `orders` says else. `combine` is `mean` (the verdict that is most probable over
    both) or `agree` (MT-Bench: a win must be one in both orders, all else is a tie; Zheng et al., 2023). With `reasoning`
    the judge explains itself in at most `reasoning_tokens` before the verdict. A field longer than `max_chars` loses its
    middle, and so does one for which the judge's context has no room. `rules` settle without asking what needs no judge: an
    empty answer, two equal ones. `warn` tells a published judge, whose prompt does not say so, that answers are data.
    """
    protocol, fields = read(task)
    found = settled(protocol, fields) if rules else None
    if found is None:
        explain = protocol.reasoning if reasoning == "protocol" else reasoning == "on"
        options = _Options(explain, how, reasoning_tokens, warn)
        if protocol.kind == "single":
            found = await _once(protocol, fields, ctx, max_chars, options)
        else:
            found = await _pair(protocol, fields, ctx, max_chars, options, orders, combine)
    ctx.note("judgement", protocol=protocol.name, **found.to_json())
    return found.verdict


def read(task: Task) -> tuple[JudgeProtocol, dict[str, str]]:
    """The protocol and the fields of a task for judges; DataError if it is none."""
    about = task.metadata.get("judge")
    fields = about.get("fields") if isinstance(about, Mapping) else None
    if not isinstance(about, Mapping) or not isinstance(fields, Mapping):
        raise DataError(
            f"task {task.id} has nothing to judge: the pattern judge is for tasks whose metadata['judge'] holds a protocol "
            "and fields, as those of judge_pandalm; other answers are judged by `firsthand score`"
        )
    scale = {name: int(about[name]) for name in ("low", "high") if name in about}
    protocol = judge_protocol(str(about.get("protocol", "pairwise")), **scale)
    return protocol, {str(name): str(text) for name, text in fields.items()}


def settled(protocol: JudgeProtocol, fields: Mapping[str, str]) -> Judgement | None:
    """The judgement that needs no judge, or None: an empty answer is the worst, equal answers tie."""
    if protocol.kind == "single":
        if fields.get("answer", "").strip():
            return None
        worst = min(protocol.verdicts, key=lambda each: each.value)
        return Judgement(worst.name, worst.value, {worst.name: 1.0}, "rule: the answer is empty")
    a, b = fields.get("answer_a", "").strip(), fields.get("answer_b", "").strip()
    if a == b:
        why = "rule: both answers are empty" if not a else "rule: the answers are equal"
        return Judgement("tie", 0.5, {"tie": 1.0}, why, ("tie", "tie"), 0.5)
    if a and b:
        return None
    winner, value = ("A", 1.0) if a else ("B", 0.0)
    return Judgement(winner, value, {winner: 1.0}, "rule: one answer is empty", (winner, winner), 0.5)


def winner(probabilities: Mapping[str, float]) -> str:
    """`A`, `B` or `tie`: the most probable of the three, shades of a win added up; equal chances tie."""
    a = sum(share for name, share in probabilities.items() if name in ("A", "A>B", "A>>B"))
    b = sum(share for name, share in probabilities.items() if name in ("B", "B>A", "B>>A"))
    if probabilities.get("tie", 0.0) > max(a, b) + MARGIN or abs(a - b) <= MARGIN:
        return "tie"
    return "A" if a > b else "B"


def swapped(name: str) -> str:
    """The verdict seen from the other order: `A>>B` is `B>>A`, a tie is a tie."""
    return name if name == "tie" else name.translate(_SWAP)


@dataclass(frozen=True)
class _Options:
    explain: bool
    how: VerdictMethod
    reasoning_tokens: int
    warn: bool


async def _pair(
    protocol: JudgeProtocol,
    fields: Mapping[str, str],
    ctx: Context,
    max_chars: int,
    options: _Options,
    orders: Orders,
    combine: CombineOrders,
) -> Judgement:
    """The judgement of a pair: one for each order, the second seen from the first, put together."""
    other = {**fields, "answer_a": fields.get("answer_b", ""), "answer_b": fields.get("answer_a", "")}
    shown: list[Mapping[str, str]] = [fields, other] if orders == "both" else [fields if orders == "first" else other]
    each = await ctx.group(_once(protocol, one, ctx, max_chars, options) for one in shown)
    seen = [
        {swapped(name): share for name, share in one.probabilities.items()}
        if fields_shown is other
        else one.probabilities
        for one, fields_shown in zip(each, shown, strict=True)
    ]
    mean = {name: sum(one.get(name, 0.0) for one in seen) / len(seen) for name in protocol.names}
    winners = tuple(map(winner, seen))
    agreed = winners[0] if len(set(winners)) == 1 else "tie"
    preferred = [sum(share for name, share in one.probabilities.items() if name in _FIRST) for one in each]
    ties = [one.probabilities.get("tie", 0.0) for one in each]
    return Judgement(
        winner(mean) if combine == "mean" else agreed,
        protocol.expected(mean),
        mean,
        each[0].by,
        winners,
        sum(share + tie / 2 for share, tie in zip(preferred, ties, strict=True)) / len(each),
        min(one.mass for one in each),
        max(one.forged for one in each),
        max(one.cut for one in each),
    )


_FIRST = ("A", "A>B", "A>>B")


async def _once(
    protocol: JudgeProtocol, fields: Mapping[str, str], ctx: Context, max_chars: int, options: _Options
) -> Judgement:
    """One judgement; the judged text is shortened until it fits the judge's context."""
    while True:
        try:
            return await _look(protocol, fields, ctx, max_chars, options)
        except PromptTooLong:
            if max_chars // 2 < MIN_CHARS:
                raise
            max_chars //= 2
            ctx.note("shortened", max_chars=max_chars)


async def _look(
    protocol: JudgeProtocol, fields: Mapping[str, str], ctx: Context, max_chars: int, options: _Options
) -> Judgement:
    shown = show(protocol, fields, max_chars=max_chars, warn=options.warn)
    text, begun = shown.text, ctx
    if shown.system and not ctx.messages:
        begun = ctx.say(shown.system, "system")
    elif shown.system:  # the agent has a system message of its own
        text = f"{shown.system}\n\n{text}"
    if protocol.schema is not None:
        return _from_object(protocol, await _object(protocol, begun.say(text)), shown.forged, shown.cut)
    if options.explain:
        said = await begun.say(text).generate(max_tokens=options.reasoning_tokens, stop=("[[",))
        asked = said.say(protocol.ask or f"Now the verdict and nothing else: {' or '.join(protocol.labels)}.")
    else:
        asked = begun.say(f"{text}\n\n{protocol.ask}".rstrip() if protocol.ask else text)
    found = await distribution(asked, protocol.labels, options.how)
    names = {verdict.label: verdict.name for verdict in protocol.verdicts}
    shares = {names[label]: share for label, share in found.probabilities.items()}
    return Judgement(
        names[found.top],
        protocol.expected(shares),
        shares,
        found.by,
        mass=found.mass,
        forged=shown.forged,
        cut=shown.cut,
    )


async def _object(protocol: JudgeProtocol, asked: Context) -> Json:
    """The JSON object that the judge writes; one that is cut off or is none is a ModelError."""
    assert protocol.schema is not None
    said = await asked.generate(grammar=json_schema(protocol.schema), max_tokens=SCHEMA_TOKENS, temperature=0.0)
    try:
        body = json.loads(said.said)
    except (ValueError, RecursionError):
        raise ModelError(f"the judge's object does not end or is no JSON: {said.text[:60]!r}...") from None
    if not isinstance(body, dict) or body.get("correct") not in protocol.names:
        raise ModelError(f"the judge's object says {str(body)[:80]!r}: 'correct' must be {' or '.join(protocol.names)}")
    return body


def _from_object(protocol: JudgeProtocol, body: Json, forged: int, cut: int) -> Judgement:
    verdict = next(each for each in protocol.verdicts if each.name == body["correct"])
    confidence = body.get("confidence")
    told = confidence if type(confidence) is int and 0 <= confidence <= 100 else 100  # as the published prompt says
    extracted = {"answer": str(body.get("extracted_final_answer", ""))[:2000], "confidence": told / 100}
    return Judgement(
        verdict.name, verdict.value, {verdict.name: 1.0}, "grammar", forged=forged, cut=cut, extracted=extracted
    )
