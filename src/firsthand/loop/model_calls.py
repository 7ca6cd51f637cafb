"""The calls of the model that an attempt makes: sampled answers, likelihoods, and answers of a decoder of one's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import cast

from firsthand.errors import ConfigError, FirsthandError
from firsthand.loop.attempt import CUT_BY_RUN
from firsthand.loop.call_cost import CallCost
from firsthand.loop.concurrency import derive_seed
from firsthand.loop.open_call import OpenCall
from firsthand.loop.prompt_size import ESTIMATED, estimated_usage
from firsthand.loop.request_key import request_key
from firsthand.message import Json, canonical
from firsthand.model import (
    Completion,
    DistributionCapability,
    DistributionModel,
    Likelihood,
    Prompt,
    Sampling,
    Scored,
    ToolSpec,
    Usage,
)

Decoding = Callable[[DistributionModel, Sequence[Prompt]], Awaitable[Completion]]
"""Computes one answer to several prompts together, step by step, from whole distributions of the model."""
_GRANTED = "granted"
"""Key of the journal's record of a grant that was smaller than the request."""


async def sample_answers(
    call: OpenCall, wanted: Sampling, specs: Sequence[ToolSpec], n: int, prompt: str | None
) -> list[tuple[int, object]]:
    """Sample `n` answers to the conversation, or to a raw text; returns for each its node and its lease on the cache."""
    attempt = call.attempt
    sent = await call.borders().prompt(prompt)
    asked = sent.prompt
    if wanted.seed is None:
        wanted = wanted.with_seed(derive_seed(attempt.seed, call.effect))

    def key(sampling: Sampling) -> str:
        return request_key(attempt.agent.model.fingerprint, asked, sampling, specs, n)

    request = key(wanted)
    sampling, recorded, cost, height = await _granted(call, asked, specs, wanted, n, request, key)
    request = request if sampling is wanted else key(sampling)
    leases: list[object] = [None] * n

    async def ask() -> Json:
        call.begin("generate", {"n": n})
        completions = await attempt.complete(call.effect, asked, sampling, specs, n)
        leases[:] = [completion.lease for completion in completions]
        counted, mark = await _counted(call, completions, [asked], specs)
        cost.answer = _total(counted)  # paid, also if the reply cannot be kept
        if sampling is not wanted and _is_cut(counted) and call.budget.is_shared(height):
            mark = mark | {CUT_BY_RUN: True}
        return attempt.to_reply(counted, call.node) | mark

    try:
        async with call.in_time():
            body = await attempt.reply(call.effect, request, ask, recorded, cost)
        completions = attempt.from_reply(body, call.node)
        if sampling is not wanted and _is_cut(completions):
            call.budget.mark_cut(height, cost.granted)
    except FirsthandError as error:
        call.record("generate", request, usage=cost.usage, detail=sent.detail, error=str(error))
        raise
    finally:
        cost.settle()
    nodes = tuple(attempt.add_node(call.node, completion.message) for completion in completions)
    detail: Json = {
        "finish_reasons": [completion.finish_reason for completion in completions],
        "sampling": sampling.to_json(),
        "tools": [spec.name for spec in specs],
    }
    detail |= _mark(body)
    if sampling.top_logprobs:
        detail["top_logprobs"] = [_alternatives(completion) for completion in completions]
    detail |= sent.detail
    attempt.record_generation(
        call.effect,
        call.node,
        call.started_s,
        request,
        nodes=nodes,
        ids=completions[0].prompt_ids,
        specs=specs,
        usage=cost.usage,
        detail=detail,
        replayed=recorded is not None,
    )
    return list(zip(nodes, leases, strict=True))


async def score_continuations(call: OpenCall, continuations: Sequence[str], prompt: str | None) -> list[Likelihood]:
    """The likelihood of each continuation, after the conversation or after a raw text."""
    attempt, model = call.attempt, call.attempt.agent.model
    sent = await call.borders().prompt(prompt)
    asked = sent.prompt
    request = request_key(model.fingerprint, asked, continuations=continuations)
    recorded = call.find(request)
    cost = CallCost(call.budget)
    if recorded is None:
        async with call.turn():
            size = await call.size(asked, continuations=continuations)
            cost = CallCost(call.budget, call.reserve(max(1, size), least=max(1, size)), size)

    async def ask() -> Json:
        call.begin("score")
        scored, mark = await model.score(asked, continuations), {}
        cost.answer = scored.usage
        if call.budget.counts_tokens and not scored.usage.total_tokens:
            cost.answer = replace(scored.usage, prompt_tokens=await call.size(asked, continuations=continuations))
            mark = {ESTIMATED: True}
        return replace(scored, usage=cost.answer).to_json() | mark

    try:
        async with call.in_time():
            body = await attempt.reply(call.effect, request, ask, recorded, cost)
        scored = Scored.from_json(body)
    except FirsthandError as error:
        call.record("score", request, usage=cost.usage, detail=sent.detail, error=str(error))
        raise
    finally:
        cost.settle()
    detail = {"prompt": None, "likelihoods": body["likelihoods"]} | _mark(body) | sent.detail
    call.record("score", request, usage=cost.usage, detail=detail, replayed=recorded is not None)
    return list(scored.likelihoods)


async def decode_answer(
    call: OpenCall,
    decoding: Decoding,
    positions: Sequence[int | None],
    settings: Json,
    sampling: Sampling,
    max_tokens: int,
    prompts: Sequence[str] | None,
) -> int:
    """Compute one answer from the prompts of several positions together; returns its node. See `Context.decode`."""
    attempt, model = call.attempt, call.attempt.agent.model
    texts = [None] * len(positions) if prompts is None else list(prompts)
    sent = [await call.borders_at(at).prompt(text) for at, text in zip(positions, texts, strict=True)]
    asked = [each.prompt for each in sent]
    keys = [request_key(model.fingerprint, each) for each in asked]
    request = request_key(model.fingerprint, canonical([settings | {"max_tokens": max_tokens}, keys]))
    recorded = call.find(request)
    if recorded is None and not isinstance(model, DistributionCapability):
        raise ConfigError(
            f"{model.name} gives no log-probs of the whole vocabulary, which {settings.get('decoder')} mixes: "
            "use a local model, such as smollm2"
        )
    cost = CallCost(call.budget)
    if recorded is None:
        async with call.turn():
            size = sum([await call.size(each) for each in asked])
            most = max(1, size + len(asked) * max_tokens)
            cost = CallCost(call.budget, call.reserve(most, least=most), size)

    async def ask() -> Json:
        call.begin("generate", {"n": 1})
        made = await decoding(cast(DistributionModel, model), asked)
        counted, mark = await _counted(call, [made], asked)
        cost.answer = _total(counted)
        return attempt.to_reply(counted, call.node) | mark

    try:
        async with call.in_time():
            body = await attempt.reply(call.effect, request, ask, recorded, cost)
        (completion,) = attempt.from_reply(body, call.node)
    except FirsthandError as error:
        call.record("generate", request, usage=cost.usage, error=str(error))
        raise
    finally:
        cost.settle()
    node = attempt.add_node(call.node, completion.message)
    detail: Json = {
        "finish_reasons": [completion.finish_reason],
        "sampling": sampling.to_json(),
        "tools": [],
        "decoding": settings,
        "positions": list(positions),
        "prompts": [each.detail for each in sent],
    }
    detail |= _mark(body)
    if completion.top_logprobs:
        detail["top_logprobs"] = [_alternatives(completion)]
    call.record("generate", request, usage=cost.usage, nodes=(node,), detail=detail, replayed=recorded is not None)
    return node


async def _counted(
    call: OpenCall, completions: list[Completion], prompts: Sequence[Prompt], specs: Sequence[ToolSpec] = ()
) -> tuple[list[Completion], Json]:
    """The answers with an estimate of their tokens where a budget counts them and none are reported, and its mark."""
    if not call.budget.counts_tokens or _total(completions).total_tokens:
        return completions, {}
    size = sum([await call.size(each, specs) for each in prompts])
    return estimated_usage(completions, size), {ESTIMATED: True}


def _total(completions: Sequence[Completion]) -> Usage:
    return sum((completion.usage for completion in completions), Usage())


def _is_cut(completions: Sequence[Completion]) -> bool:
    return any(each.finish_reason == "length" for each in completions)


def _mark(reply: Json) -> Json:
    """The mark of a reply whose tokens are an estimate, for its call's detail."""
    return {ESTIMATED: True} if reply.get(ESTIMATED) else {}


def _alternatives(completion: Completion) -> list[list[list[object]]]:
    return [[list(pair) for pair in token] for token in completion.top_logprobs]


async def _granted(
    call: OpenCall,
    prompt: Prompt,
    specs: Sequence[ToolSpec],
    asked: Sampling,
    n: int,
    request: str,
    key: Callable[[Sampling], str],
) -> tuple[Sampling, Json | None, CallCost, int]:
    """The sampling the budget allows, the recorded reply if any, the cost to fill in, and the budget that cut it.

    What a budget has left depends on which branch came first, so a grant of less than was asked is recorded too: the
    reply that was given under it is found again whatever comes first when the attempt is resumed. One that the budget of
    the whole run has cut short is not: it says nothing about the agent, and what is left there is another matter now.
    """
    recorded = call.find(request)
    if recorded is not None:
        return asked, recorded, CallCost(call.budget), 0
    if (earlier := call.find(f"{_GRANTED}:{request}")) is not None:
        reduced, height = replace(asked, max_tokens=earlier[_GRANTED]), earlier.get("height", 0)
        recorded = call.find(key(reduced))
        if recorded is not None and not (
            call.budget.is_shared(height) and _is_cut(call.attempt.from_reply(recorded, call.node))
        ):
            return reduced, recorded, CallCost(call.budget), height
    async with call.turn():
        size = await call.size(prompt, specs)
        height = call.budget.tightest()
        granted = call.reserve(size + n * asked.max_tokens, least=size + n)
    each, cost = (granted - size) // n, CallCost(call.budget, granted, size)
    if each >= asked.max_tokens:
        return asked, None, cost, height
    call.attempt.journal.record(call.effect, f"{_GRANTED}:{request}", {_GRANTED: each, "height": height})
    return replace(asked, max_tokens=each), None, cost, height
