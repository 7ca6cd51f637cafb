"""A Trace is training data: prompt ids, masks, log-probs and versions per branch, from a real rollout to a gradient step."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.context import Context
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ModelError, StoreError
from firsthand.loop.journal import MemoryJournal
from firsthand.loop.protection import shareable
from firsthand.message import Message, Sampled, Text, ToolCall, ToolResult, assistant, user
from firsthand.model import Sampling
from firsthand.nn import weights
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder
from firsthand.providers.cached import Cached, MemoryStore, Replay
from firsthand.providers.local import Local
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs.forking import Fork, fork
from firsthand.runs.store import create
from firsthand.show.trace_tree import plain_lines, trace_lines
from firsthand.task import Task
from firsthand.tool import tool
from firsthand.trace import Call, Node, PromptIds, Score, Trace, TrainingSample

CONFIG = EngineConfig(weights="float32", kv_cache="float32", kv_memory_bytes=8 << 20, threads=1)
SAMPLING = Sampling(max_tokens=10, temperature=0.7, top_p=0.9)
TASK = Task("sum", "What is 12 + 30?")


@tool(effect="read")
def add(a: int, b: int) -> int:
    """The sum of two numbers."""
    return a + b


async def two_branches(task: Task, ctx: Context) -> str:
    """A turn, a tool, then three answers, one of which goes on for another turn."""
    ctx = await ctx.say(task.question).generate(tools=[add])
    result = await ctx.call(ToolCall("call_0", "add", {"a": 12, "b": 30}))
    first, second, _ = await ctx.say(result).sample(3, tools=[add])
    await second.say("Are you sure?").generate(tools=[add], max_tokens=6)
    return first.text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"), max_position=2048)


@pytest.fixture
def model(folder: Path) -> Iterator[Local]:
    local = Local(folder, name="tiny", config=CONFIG, free_calls=True)
    yield local
    local.close()


def attempt(model: Any, pattern: Any = two_branches, **more: Any) -> Trace:
    trace = asyncio.run(rollout(Agent("a", model, pattern, tools=(add,), sampling=SAMPLING), TASK, **more))
    assert trace.error is None, trace.error
    return trace


def again(trace: Trace) -> Trace:
    """The trace after JSON."""
    return Trace.from_json(json.loads(json.dumps(trace.to_json())))


def forward(model: Decoder, sample: TrainingSample) -> torch.Tensor:
    """The log-prob of each token but the first, given those before it: T - 1."""
    ids = torch.tensor(sample.token_ids)
    hidden_ND = model(ids, torch.arange(len(ids)), Packed([len(ids)]))
    return model.logits(hidden_ND[:-1]).log_softmax(-1).gather(1, ids[1:, None])[:, 0]


@pytest.mark.slow
def test_a_policy_gradient_step_on_a_rollout(model: Local, folder: Path) -> None:
    def rewarded(task: Task, trace: Trace) -> tuple[Score, ...]:
        steps = (index for index, node in enumerate(trace.nodes) if node.message.sampled)
        return (Score("exact", 1.0), *(Score("step", 0.25 * node, node=node) for node in steps))

    benchmark = Benchmark("adhoc", lambda seed: [TASK], scorers=(rewarded,))
    trace = again(attempt(model, benchmark=benchmark, seed=1))
    samples = list(trace.samples())
    leaves = [index for index in range(len(trace.nodes)) if all(node.parent != index for node in trace.nodes)]
    assert [sample.leaf for sample in samples] == leaves and len(samples) == 3
    policy = weights.load(folder)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    losses = []
    for sample in samples:
        mask = torch.tensor(sample.mask[1:], dtype=torch.bool)
        logprobs = forward(policy, sample)
        recorded = torch.tensor(sample.logprobs[1:])
        assert (logprobs - recorded)[mask].abs().max() < 1e-4, "what the engine recorded is what the trainer computes"
        assert sample.behaviour_logprobs is not None and sample.versions is not None
        ratio = (logprobs - torch.tensor(sample.behaviour_logprobs[1:])).exp()
        assert (ratio[mask] < 0.999).any(), "at temperature 0.7 with top-p the policy that acted was another one"
        losses.append(-(ratio * sum(score.value for score in sample.scores))[mask].mean())
        assert {version for version, on in zip(sample.versions, sample.mask, strict=True) if on} == {0}
    loss = torch.stack(losses).mean()
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    state = policy.state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in state.items())
    asyncio.run(model.update(state, 1))
    learned = attempt(model, seed=1)
    for sample in learned.samples():
        assert sample.versions is not None
        assert {version for version, on in zip(sample.versions, sample.mask, strict=True) if on} == {1}
        mask = torch.tensor(sample.mask[1:], dtype=torch.bool)
        assert (forward(policy, sample) - torch.tensor(sample.logprobs[1:]))[mask].abs().max() < 1e-4


def test_a_branch_holds_its_turns_as_they_were_sampled(model: Local) -> None:
    trace = again(attempt(model, seed=2))
    for sample in trace.samples():
        path = trace.path(sample.leaf)
        assert [node for node, _, _ in sample.spans] == [n for n in path if trace.nodes[n].message.sampled]
        sampled_at = set[int]()
        for node, start, stop in sample.spans:
            born = trace.nodes[node].message.sampled
            assert born is not None and born.behaviour_logprobs is not None and sample.behaviour_logprobs is not None
            assert sample.token_ids[start:stop] == born.token_ids
            assert sample.logprobs[start:stop] == born.logprobs
            assert sample.behaviour_logprobs[start:stop] == born.behaviour_logprobs
            call = next(index for index, call in enumerate(trace.calls) if node in call.nodes)
            assert sample.token_ids[:start] == trace.prompt_ids(call)
            sampled_at |= set(range(start, stop))
        assert {place for place, on in enumerate(sample.mask) if on} == sampled_at
        assert all(sample.logprobs[place] == 0 for place in range(len(sample.mask)) if place not in sampled_at)
    # what the model was really given
    for index, call in enumerate(trace.calls):
        if call.kind == "generate":
            tools = [trace.tools[place] for place in call.tools]
            ids = asyncio.run(model.tokenize(trace.messages(call.at), tools))
            assert trace.prompt_ids(index) == tuple(ids) and call.usage.prompt_tokens == len(ids)
    assert trace.tools == (add.spec,) and [call.tools for call in trace.calls] == [(0,), (), (0,), (0,)]


def test_versions_change_in_the_middle_of_an_answer(model: Local) -> None:
    async def run() -> Sampled:
        await model.load()
        sampled = None
        seen = 0
        deltas = model.stream_many(
            "What is 12 + 30?", Sampling(max_tokens=200, temperature=1.0, ignore_eos=True, seed=1)
        )
        async for delta in deltas:
            seen += len(delta.token_ids)
            if seen == 5:
                assert model._loaded is not None
                state = {name: value * 1.01 for name, value in weights.load(model.path).state_dict().items()}
                await model.update(state, 7, recompute=False)
            if delta.completion is not None:
                sampled = delta.completion.message.sampled
        assert sampled is not None
        return sampled

    sampled = asyncio.run(run())
    assert sampled.versions is not None and len(sampled.versions) == len(sampled.token_ids) == 200
    turn = sampled.versions.index(7)
    assert 5 <= turn < 200 and sampled.versions == (0,) * turn + (7,) * (200 - turn)
    body = sampled.to_json()
    assert body["versions"] == [[0, turn], [7, 200 - turn]] and Sampled.from_json(body) == sampled
    old, new = weights.load(model.path), weights.load(model.path)
    new.load_state_dict({name: value * 1.01 for name, value in new.state_dict().items()})
    prompt = asyncio.run(model.tokenize("What is 12 + 30?"))
    ids = (*prompt, *sampled.token_ids)
    sample = TrainingSample(0, ids, (1,) * len(ids), (), (), (), (), ())
    recorded = torch.tensor(sampled.logprobs)
    with torch.no_grad():
        gaps = [(forward(each, sample)[len(prompt) - 1 :] - recorded).abs() for each in (old, new)]
    assert gaps[0][:turn].max() < 1e-4 and gaps[1][:turn].max() > 1e-2, "the first tokens are the old weights' own"
    assert gaps[0][turn:].max() > 1e-3, "and the last are not"


async def chatty(task: Task, ctx: Context, *, turns: int = 12) -> str:
    ctx = ctx.say(task.question)
    for turn in range(turns):
        ctx = (await ctx.generate()).say(f"And {turn} more, with a few words around it?")
    return ctx.messages[-2].text


def stored_ids(trace: Trace) -> int:
    return sum(len(call.prompt.ids) for call in trace.calls if call.prompt is not None)


def test_a_conversation_stores_each_prompt_token_once(model: Local) -> None:
    journal, store = MemoryJournal(), MemoryStore()
    trace = attempt(Cached(model, store), chatty, journal=journal)
    prompts = [trace.prompt_ids(index) for index in range(len(trace.calls))]
    whole = prompts[-1]
    assert whole is not None and len(prompts) == 12
    sampled = sum(len(node.message.sampled.token_ids) for node in trace.nodes if node.message.sampled)
    assert sum(len(ids or ()) for ids in prompts) > 5 * len(whole), "the prompts grow"
    assert stored_ids(trace) <= len(whole) <= stored_ids(trace) + sampled
    for kept in (journal.entries, store.replies):
        bodies = [body["prompt"] for body in kept.values()]
        assert sum(len(body["ids"]) for body in bodies) == stored_ids(trace)
        assert sum("after" in body for body in bodies) == 11
    (only,) = trace.samples()
    assert len(only.spans) == 12 and only.token_ids[: len(whole)] == whole


def test_samples_of_one_prompt_store_it_once(model: Local) -> None:
    async def asked_twice(task: Task, ctx: Context) -> str:
        ctx = ctx.say(task.question)
        await ctx.sample(4)
        return (await ctx.generate()).text

    trace = attempt(model, asked_twice)
    first, second = (call.prompt for call in trace.calls)
    assert first is not None and second is not None and (first.after, second.after) == (None, 0)
    assert second.ids == () and trace.prompt_ids(1) == trace.prompt_ids(0) == first.ids
    assert len(list(trace.samples())) == 5


def same(one: Trace, other: Trace) -> bool:
    """Whether two traces hold the same tokens, prompts and schemas."""
    return (
        one.nodes == other.nodes
        and one.tools == other.tools
        and [one.prompt_ids(i) for i in range(len(one.calls))] == [other.prompt_ids(i) for i in range(len(other.calls))]
        and list(one.samples()) == list(other.samples())
    )


@pytest.mark.slow
def test_resume_replay_and_forks_give_the_same_training_data(model: Local, tmp_path: Path) -> None:
    run = create(tmp_path, {}, "example")
    journal = run.journal("attempt")
    trace = attempt(model, journal=journal, seed=4)
    resumed = attempt(model, journal=run.journal("attempt"), seed=4)
    assert all(call.replayed for call in resumed.calls) and same(trace, resumed)
    replayed = attempt(Replay(run, name="tiny", fingerprint=model.fingerprint), seed=4)
    assert same(trace, replayed)
    store = MemoryStore()
    cached = [attempt(Cached(model, store), seed=4) for _ in range(2)]
    assert same(trace, cached[0]) and same(trace, cached[1])
    run.append(trace)
    assert same(trace, run.trace(trace.id)) and run.trace(trace.id) == trace
    # a fork gets the parent's prompts with its replies, and goes on from them
    what = Fork(trace, len(trace.nodes) - 3, Agent("a", model, two_branches, tools=(add,), sampling=SAMPLING))
    assert same(trace, asyncio.run(fork(what, TASK)))
    run.close()


def test_a_resumed_attempt_takes_no_ids_that_are_not_its_own(model: Local) -> None:
    journal = MemoryJournal()
    trace = attempt(model, chatty, journal=journal)
    body = next(reply for reply in journal.entries.values() if "after" in reply["prompt"])
    body["prompt"]["ids"][0] += 1
    resumed = attempt(model, chatty, journal=journal)
    unknown = [index for index in range(12) if resumed.prompt_ids(index) is None]
    assert unknown and resumed.nodes == trace.nodes
    with pytest.raises(ModelError, match="has no token ids"):
        list(resumed.samples())


def test_a_trace_without_ids_says_so() -> None:
    async def once(task: Task, ctx: Context) -> str:
        return (await ctx.say(task.question).generate()).text

    trace = attempt(Scripted(["42"]), once)
    with pytest.raises(ModelError, match=r"message 1 of trace .* has no token ids: scripted did not report them"):
        list(trace.samples())
    nothing = Trace("id", "b", "t", {"name": "a"}, 0, 0, "", 0.0, (Node(None, user("hi")),))
    with pytest.raises(ModelError, match="no sampled message"):
        list(nothing.samples())


def sampled(*ids: int) -> Message:
    return Message(
        "assistant", (Text(str(ids)),), Sampled(ids, (-0.5,) * len(ids), (-0.25,) * len(ids), (3,) * len(ids))
    )


def by_hand(second: PromptIds, *, edited: bool = False) -> Trace:
    first = assistant("edited") if edited else sampled(10, 11)
    nodes = (
        Node(None, user("a")),
        Node(0, first),
        Node(1, user("b")),
        Node(2, sampled(12)),
        Node(2, user("no answer")),
    )
    calls = (
        Call(":0", "generate", 0, 0.0, 0.0, "r0", nodes=(1,), prompt=PromptIds((1, 2))),
        Call(":1", "generate", 2, 0.0, 0.0, "r1", nodes=(3,), prompt=second),
    )
    scores = (Score("s", 1.0), Score("step", 0.5, node=1), Score("step", 0.25, node=3), Score("step", 0.1, node=4))
    return Trace("id", "b", "t", {"name": "a"}, 0, 0, "", 0.0, nodes, calls, scores=scores)


def test_a_branch_is_one_sample_with_the_scores_at_its_nodes() -> None:
    one, other = by_hand(PromptIds((3, 4), 0, 0, 4)).samples()
    assert one == TrainingSample(
        leaf=3,
        token_ids=(1, 2, 10, 11, 3, 4, 12),
        mask=(0, 0, 1, 1, 0, 0, 1),
        logprobs=(0, 0, -0.5, -0.5, 0, 0, -0.5),
        behaviour_logprobs=(0, 0, -0.25, -0.25, 0, 0, -0.25),
        versions=(-1, -1, 3, 3, -1, -1, 3),
        spans=((1, 2, 4), (3, 6, 7)),
        scores=(Score("step", 0.5, node=1), Score("step", 0.25, node=3)),
    )
    assert (other.leaf, other.token_ids, other.spans) == (4, (1, 2, 10, 11), ((1, 2, 4),))
    assert [score.value for score in other.scores] == [0.5, 0.1]


def test_a_prompt_that_was_rendered_anew_begins_a_sample_of_its_own() -> None:
    one, other, _ = by_hand(PromptIds((7, 8), 0, 0, 1)).samples()
    assert (one.leaf, one.token_ids, one.mask) == (3, (1, 2, 10, 11), (0, 0, 1, 1))
    assert (other.leaf, other.token_ids, other.mask) == (3, (1, 7, 8, 12), (0, 0, 0, 1))


def test_an_edited_answer_is_part_of_the_prompt() -> None:
    (one,) = by_hand(PromptIds((7, 8), 0, 0, 2), edited=True).samples()
    assert (one.token_ids, one.mask, one.spans) == ((1, 2, 7, 8, 12), (0, 0, 0, 0, 1), ((3, 4, 5),))


@pytest.mark.parametrize("prompt", [PromptIds((), 1), PromptIds((), -1), PromptIds((), 0, 1), PromptIds((), 0, -1)])
def test_a_prompt_that_continues_no_earlier_answer_is_refused(prompt: PromptIds) -> None:
    body = json.loads(json.dumps(by_hand(prompt).to_json()))
    with pytest.raises(StoreError, match="continues no earlier call"):
        Trace.from_json(body)


def test_scores_at_nodes_are_kept_shown_and_no_part_of_the_attempts_value(tmp_path: Path) -> None:
    trace = by_hand(PromptIds((3, 4), 0, 0, 4))
    trace = trace.scored((trace.scores[1], *trace.scores))
    assert trace.value() == 1.0 and trace.score("step") is None and trace.value("step") is None
    run = create(tmp_path, {}, "example")
    run.append(trace)
    assert run.trace("id") == trace and next(run.rows()).score == 1.0
    run.close()
    lines = plain_lines(trace_lines(trace))
    assert [line.strip() for line in lines if "score" in line][1:3] == ["score s: 1", "score step at #1: 0.5"]


def test_a_protected_trace_is_shared_without_its_prompts(model: Local) -> None:
    trace = asyncio.run(
        rollout(
            Agent("a", model, two_branches, tools=(add,), sampling=SAMPLING),
            Task("sum", "What is 12 + 30?", metadata={"protected": "it is a test set"}),
        )
    )
    assert trace.protected and any(call.prompt for call in trace.calls)
    shared = json.dumps(shareable(trace).to_json())
    assert "token_ids" not in shared and '"ids"' not in shared


def test_a_tool_result_between_turns_is_no_sampled_token(model: Local) -> None:
    trace = attempt(model, seed=3)
    place = next(i for i, node in enumerate(trace.nodes) if any(isinstance(p, ToolResult) for p in node.message.parts))
    for sample in trace.samples():
        starts = [start for _, start, _ in sample.spans]
        stops = [stop for _, _, stop in sample.spans]
        assert place in trace.path(sample.leaf) and not any(sample.mask[stops[0] : starts[1]])
        text = asyncio.run(model.detokenize(sample.token_ids[stops[0] : starts[1]]))
        assert "42" in text
