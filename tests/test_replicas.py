"""Several replicas as one model, in this process: routing, and answers that go on when the one that gave them is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firsthand import grammar
from firsthand.cluster.outbox import Outbox
from firsthand.cluster.replicas import replica_messages, router
from firsthand.cluster.replicas.fleet import MAX_LOSSES, Fleet
from firsthand.cluster.replicas.in_process import InProcessReplica, InProcessStarter
from firsthand.cluster.replicas.replica_slots import GAUGES, Slot, total_counters
from firsthand.cluster.replicas.replica_worker import Replica, open_replica
from firsthand.cluster.replicas.replicated_model import ReplicatedEmbedder, ReplicatedModel
from firsthand.cluster.replicas.resume import ShownAnswer
from firsthand.cluster.replicas.router import Router, next_turn_hashes, prefix_hashes
from firsthand.cluster.spread.run_worker import pack, unpack
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ModelError, PromptTooLong, TransientError
from firsthand.message import Json, Message, Sampled, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import CallDelta, Completion, Delta, Sampling, ToolSpec, Usage
from firsthand.providers.local import Local
from firsthand.providers.local_embedder import LocalEmbedder
from tiny import write_model

LONG = Sampling(max_tokens=40, temperature=0.9, seed=7, ignore_eos=True, top_logprobs=2)


# -- what travels --


def test_everything_travels_unchanged() -> None:
    call = ToolCall("c1", "add", {"a": 1.5, "b": None}, None)
    told = [
        system("Be brief. \ud800"),
        user("2 + 2?"),
        Message("assistant", (Text("so"), call), Sampled((5, 6), (-0.1, -1e-300), (-0.2, 0.0), (3, 4))),
        Message("tool", (ToolResult("c1", "add", "4", origin="web"),)),
    ]
    for prompt in ("a text", (1, 2, 3), told):
        assert replica_messages.prompt_of(unpack(pack(replica_messages.prompt_json(prompt)))) == prompt
    samplings = [
        Sampling(),
        Sampling(9, 0.7, 3, 0.9, 0.1, 1.1, 0.5, -0.5, 2**63, ("a", "\n"), 4, grammar.regex("[ab]+")),
        Sampling(logit_bias=((3, -100.0), (4, 0.5)), stop_ids=(7,), ignore_eos=True),
        Sampling(allowed_token_ids=(3, 4), bad_words=("a", "\ud800"), skip_special_tokens=False),
        Sampling(include_stop_str_in_output=True, min_tokens=4, grammar=grammar.regex("a+")),
    ]
    for sampling in samplings:
        assert replica_messages.sampling_of(unpack(pack(sampling.to_json()))) == sampling
    spec = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "number"}}})
    assert replica_messages.tool_of(unpack(pack(spec.to_json()))) == spec
    tops = ((("a", -0.5), ("b", float("-inf"))),)
    completion = Completion(told[2], "tool_calls", Usage(3, 2, 1), tops, prompt_ids=(1, 2, 3))
    for delta in (
        Delta("x", index=3, token_ids=(4, 5), logprobs=(-0.25, -1e-17), top_logprobs=((("é", -0.1),), ())),
        Delta("", completion),
        Delta("", call=CallDelta(0, "c1", "add", '{"a"')),
    ):
        assert replica_messages.delta_of(unpack(pack(replica_messages.delta_json(delta)))) == delta


def test_an_error_there_is_the_same_error_here() -> None:
    there = TransientError("wait a little", 3.5)
    here = replica_messages.error_of(unpack(pack(replica_messages.failure_message(1, there))))
    assert isinstance(here, TransientError) and str(here) == "wait a little" and here.retry_after_s == 3.5
    assert isinstance(
        replica_messages.error_of(replica_messages.failure_message(1, PromptTooLong("too long"))), PromptTooLong
    )
    bug = replica_messages.error_of(replica_messages.failure_message(1, ZeroDivisionError("oh")))
    assert type(bug) is RuntimeError and "ZeroDivisionError: oh" in str(bug)


# -- routing --


def opened(count: int, num_blocks: int = 1000) -> Router:
    found = Router()
    for number in range(count):
        found.open(number, num_blocks)
    return found


def test_a_conversations_next_turn_begins_with_all_of_the_turn_before() -> None:
    asked = [system("You are helpful."), user("Hi")]
    answer = assistant("Hello, how can I help you today?" * 5, ToolCall("id-of-the-server", "add", {"a": 1}))
    known = next_turn_hashes(prefix_hashes(asked), answer)
    shown = assistant(answer.text, ToolCall("id-of-the-client", "add", {"a": 1}))
    again = prefix_hashes([*asked, shown, user("And now?")])
    assert again[: len(known)] == known and len(again) == len(known) + 1
    other = prefix_hashes([*asked, assistant("Goodbye."), user("And now?")])
    assert other[:2] == known[:2] and not set(other[2:]) & set(again)


def test_texts_ids_and_tools_have_beginnings_too() -> None:
    text = "".join(chr(97 + i % 26) for i in range(640))
    assert len(prefix_hashes(text)) == 10 and prefix_hashes(text + "more")[:10] == prefix_hashes(text)
    assert prefix_hashes(tuple(range(100)))[:3] == prefix_hashes(tuple(range(50)))
    tool = ToolSpec("add", "Adds.", {"type": "object"})
    assert not set(prefix_hashes([user("Hi")], [tool])) & set(prefix_hashes([user("Hi")]))
    assert [len(prefix_hashes((1,) * count)) for count in (0, 1, 15, 16, 17, 31, 32, 33)] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert [len(prefix_hashes("x" * count)) for count in (0, 1, 64, 65, 128)] == [0, 1, 1, 2, 2]
    assert len(prefix_hashes("x" * (router.MAX_PROMPT + 10) * router.PIECE_CHARS)) == router.MAX_PROMPT


def test_a_request_goes_where_its_beginning_is_known_until_that_one_has_too_much_to_do() -> None:
    found = opened(3)
    wanted = prefix_hashes("An agent with a long system prompt. " * 20)
    found.note(1, wanted)
    most = router.max_load({0: 0, 1: 0, 2: 0})
    assert found.choose(wanted, {0: 0, 1: int(most), 2: 0}) == 1
    elsewhere = found.choose(wanted, {0: 0, 1: int(most) + 1, 2: 0})
    assert elsewhere != 1
    found.note(elsewhere, wanted)
    assert found.choose(wanted, {0: 0, 1: 2, 2: 0}) == elsewhere, "of two that know as much, the one with less to do"


def test_unrelated_prompts_are_spread_evenly() -> None:
    found, loads, given_to = opened(4), dict.fromkeys(range(4), 0), [0] * 4
    for number in range(200):
        wanted = prefix_hashes(f"{number} is a question of its own")
        chosen = found.choose(wanted, loads)
        found.note(chosen, wanted)
        given_to[chosen] += 1
        loads[chosen] += 1
        if number % 2:  # half of them end at once
            loads[chosen] -= 1
    assert max(given_to) - min(given_to) <= 2


def test_a_beginning_that_all_share_ends_up_everywhere() -> None:
    found, loads = opened(2), {0: 0, 1: 0}
    shared = "The same system prompt for everybody. " * 10
    for number in range(60):
        wanted = prefix_hashes(shared + f"{number}" * 70)
        chosen = found.choose(wanted, loads)
        found.note(chosen, wanted)
        loads[chosen] += 1
        assert abs(loads[0] - loads[1]) <= router.max_load(loads) - min(loads.values()) + 1
    assert min(loads.values()) >= 20


def test_what_is_remembered_has_bounds_and_goes_with_the_replica() -> None:
    found = opened(1, num_blocks=50)
    first = prefix_hashes("a" * 64 * 40)
    found.note(0, first)
    assert found.match(0, first) == 40
    for number in range(1000):
        found.note(0, prefix_hashes(f"{number:064}" * 3))
    assert found.num_known(0) == 50 and found.match(0, first) == 0
    found.note(0, prefix_hashes("b" * 64 * 500))
    assert found.num_known(0) == 50 and found.match(0, prefix_hashes("b" * 64 * 500)) == 50
    found.close(0)
    found.note(0, first)
    assert found.num_known(0) == 0


def test_the_end_of_a_prompt_is_forgotten_before_its_beginning() -> None:
    found = opened(1, num_blocks=6)
    first, second = prefix_hashes("a" * 64 * 4), prefix_hashes("b" * 64 * 4)
    found.note(0, first)
    found.note(0, second)
    assert found.match(0, second) == 4 and found.match(0, first) == 2, "the two longest prefixes of the older are gone"
    found.note(0, first[:2])
    found.note(0, prefix_hashes("c" * 64 * 3))
    assert found.match(0, first) == 2 and found.match(0, second) == 1, "what is sent again is the newest"


@pytest.mark.parametrize(("least", "most"), [(0, 4), (2, 7), (3, 8.5), (100, 154)])
def test_a_replica_may_be_ahead_by_a_few_answers_and_half_of_the_least(least: int, most: float) -> None:
    assert router.max_load({0: least + 50, 1: least, 2: least + 1}) == most
    found = opened(2)
    wanted = prefix_hashes("A known beginning. " * 20)
    found.note(0, wanted)
    assert found.choose(wanted, {0: int(most), 1: least}) == 0
    assert found.choose(wanted, {0: int(most) + 1, 1: least}) == 1


def test_the_numbers_of_all_engines_are_sums_and_the_longest_wait() -> None:
    here = Slot(0, counters={"running": 2.0, "oldest_wait_s": 3.0, "steps": 10.0}, ended={"steps": 5.0})
    there = Slot(
        1, counters={"running": 1.0, "oldest_wait_s": 7.0, "steps": 20.0, "adapters": 1.0}, ended={"refused": 2.0}
    )
    assert total_counters([here, there]) == {
        "running": 3.0, "oldest_wait_s": 7.0, "steps": 35.0, "adapters": 1.0, "refused": 2.0,
    }  # fmt: skip
    assert total_counters([]) == {}


def test_an_outbox_gives_each_message_once_and_waits_when_it_has_none() -> None:
    async def used() -> None:
        box = Outbox()
        box.put({"n": 1})
        box.put({"n": 2})
        assert await box.take() == [{"n": 1}, {"n": 2}]
        waiting = asyncio.create_task(box.take(60))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done(), "it is empty again, so whoever takes waits"
        box.put({"n": 3})
        assert await waiting == [{"n": 3}] and await box.take(0.001) == []

    asyncio.run(used())


# -- going on --

CALL = st.tuples(st.just("call"), st.sampled_from(["add", "find"]), st.text("ab1{}", max_size=6))
TEXT = st.tuples(st.just("text"), st.text("abc", min_size=1, max_size=8))


def told(parts: list[Any], cuts: Callable[[int], int]) -> list[Delta]:
    """An answer of texts and calls in pieces, cut as `cuts` says; each text has a token for each character."""
    found, calls = [], 0
    for part in parts:
        if part[0] == "text":
            at = 0
            while at < len(part[1]):
                size = 1 + cuts(3)
                piece = part[1][at : at + size]
                ids = tuple(map(ord, piece))
                found.append(Delta(piece, token_ids=ids, logprobs=tuple(-i / 7 for i in ids)))
                at += size
        else:
            found.append(Delta("", call=CallDelta(calls, f"c{calls}", part[1], part[2][: cuts(3)])))
            at = len(found[-1].call.arguments)  # type: ignore[union-attr]
            while at < len(part[2]):
                size = 1 + cuts(3)
                found.append(Delta("", call=CallDelta(calls, arguments=part[2][at : at + size])))
                at += size
            calls += 1
    return [*found, Delta("", Completion(assistant("done"), "stop", Usage()))]


def joined(deltas: list[Delta]) -> Any:
    """What the pieces say together."""
    calls: dict[int, list[str]] = {}
    for each in deltas:
        if each.call is not None:
            one = calls.setdefault(each.call.index, ["", "", ""])
            one[0] += each.call.id
            one[1] += each.call.name or ""
            one[2] += each.call.arguments
    ids = [id for each in deltas for id in each.token_ids]
    logprobs = [lp for each in deltas for lp in each.logprobs]
    return (
        "".join(each.text for each in deltas),
        ids,
        logprobs,
        calls,
        sum(each.completion is not None for each in deltas),
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(TEXT, CALL), max_size=5), st.randoms(use_true_random=False), st.data())
def test_an_answer_that_is_given_again_in_other_pieces_goes_on_where_it_was(parts: Any, rng: Any, data: Any) -> None:
    whole = told(parts, lambda most: 0)
    seen, shown = ShownAnswer(), []
    for _ in range(data.draw(st.integers(0, 3))):
        pieces_now = told(parts, lambda most: rng.randrange(most + 1))
        for each in pieces_now[: data.draw(st.integers(0, len(pieces_now)))]:
            shown += [fresh] if (fresh := seen.rest(each)) is not None else []
        seen.restart()
    for each in told(parts, lambda most: rng.randrange(most + 1)):
        shown += [fresh] if (fresh := seen.rest(each)) is not None else []
    assert joined(shown) == joined(whole)


def test_another_answer_is_never_glued_to_the_first() -> None:
    seen = ShownAnswer()
    seen.rest(Delta("The sum", token_ids=(1, 2)))
    seen.restart()
    with pytest.raises(ModelError, match="gave another answer"):
        seen.rest(Delta("The result", token_ids=(1, 3)))
    seen.restart()
    with pytest.raises(ModelError, match="gave another answer"):
        seen.rest(Delta("The sum", token_ids=(1, 3)))


# -- a fleet --


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "m", max_position=2048)


def local(folder: Path) -> Local:
    return Local(folder, config=EngineConfig(kv_memory_bytes=1 << 22, threads=1))


@asynccontextmanager
async def fleet_of(
    make: Callable[[], Replica], count: int = 2, **options: Any
) -> AsyncIterator[tuple[ReplicatedModel, Any]]:
    """A model of so many replicas, and what started them."""
    starter = InProcessStarter(make)
    model = ReplicatedModel(Fleet(starter, count, **options), "tiny")
    try:
        yield model, starter
    finally:
        model.close()
        tasks = model.fleet._tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(each._closing for each in starter.started if each._closing), return_exceptions=True)


def in_loop(work: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., None]:
    """A test that is a coroutine."""

    def test(folder: Path) -> None:
        asyncio.run(asyncio.wait_for(work(folder), 100))

    test.__name__ = work.__name__
    return test


async def gather(model: Any, prompt: Any, sampling: Sampling = LONG, **options: Any) -> list[Delta]:
    async with aclosing(model.stream_many(prompt, sampling, **options)) as deltas:
        return [delta async for delta in deltas]


def killed(model: ReplicatedModel) -> InProcessReplica:
    """The replica that has something to do, killed."""
    slot = next(slot for slot in model.fleet.slots if slot.load)
    assert isinstance(slot.process, InProcessReplica)
    slot.process.kill()
    return slot.process


def test_replicas_share_their_machines_memory_and_on_a_gpu_each_asks_its_own(folder: Path) -> None:
    told: Json = {"model": str(local(folder).path), "embedder": None, "engine": {}, "neighbours": 4}
    configs = [cast(Local, open_replica(told | {"engine": engine}).model).config for engine in ({}, {"device": "cuda"})]
    assert 0 < (configs[0].kv_memory_bytes or 0) <= 1 << 29 and configs[1].kv_memory_bytes is None
    given = {"kv_memory_bytes": 12_345_678, "threads": 3, "max_waiting": 7}
    own = cast(Local, open_replica(told | {"engine": given, "free_calls": True, "device": "cpu"}).model)
    assert own.config == replace(configs[0], **given) and own.free_calls
    for calls in ({}, {"free_calls": False}):
        plain = cast(Local, open_replica(told | {"neighbours": 0} | calls).model)
        assert not plain.free_calls and (plain.config.kv_memory_bytes or 0) > (configs[0].kv_memory_bytes or 0)


@pytest.mark.slow
@in_loop
async def test_replicas_answer_what_one_model_answers(folder: Path) -> None:
    alone = local(folder)
    async with fleet_of(lambda: Replica(local(folder))) as (model, _):
        assert await model.load() == await alone.load() and model.fingerprint == alone.fingerprint
        chat = [user("What is 12 + 30?")]
        assert joined(await gather(model, chat, n=2)) == joined(await gather(alone, chat, n=2))
        assert await model.complete("The", LONG, n=2) == await alone.complete("The", LONG, n=2)
        ids = await model.tokenize(chat)
        assert ids == await alone.tokenize(chat) and model.spell(ids) == alone.spell(ids)
        assert await model.detokenize(ids) == await alone.detokenize(ids)
        assert await model.rate(ids, 2) == await alone.rate(ids, 2)
        assert await model.score("The answer", [" is 42", "42"]) == await alone.score("The answer", [" is 42", "42"])
        with pytest.raises(PromptTooLong):
            await gather(model, "too long " * 2000)
    alone.close()


@pytest.mark.slow
@in_loop
async def test_a_second_turn_goes_to_the_replica_of_the_first_and_computes_its_new_tokens_only(folder: Path) -> None:
    async with fleet_of(lambda: Replica(local(folder))) as (model, _):
        await model.load()
        chats = [[user(f"Conversation {number}: " + f"{number} " * 30)] for number in range(12)]
        short = Sampling(max_tokens=8, ignore_eos=True)
        first = [(await model.complete(chat, short))[0] for chat in chats]
        shares = [slot.counters for slot in model.fleet.slots if (await model.counters())]
        assert all(share["requests"] >= 4 for share in shares), "unrelated conversations are spread"
        for chat, answer in zip(chats, first, strict=True):
            again = [*chat, answer.message, user("Go on.")]
            (second,) = await model.complete(again, short)
            before = answer.usage.prompt_tokens + answer.usage.completion_tokens
            assert second.usage.cached_tokens >= before - 1


@pytest.mark.slow
@in_loop
async def test_a_killed_replicas_answers_go_on_elsewhere_to_the_bit(folder: Path) -> None:
    alone, chat = local(folder), [user("What is 12 + 30? The answer is")]
    forms: list[dict[str, Any]] = [
        {"n": 3},
        {"tools": [ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})]},
        {"sampling": replace(LONG, grammar=grammar.regex("[a-z ]{60}"), ignore_eos=False)},
        {
            "sampling": replace(
                LONG,
                stop=("zzzz",),
                repetition_penalty=1.2,
                presence_penalty=0.5,
                frequency_penalty=0.2,
                allowed_token_ids=tuple(range(3, 250)),
                bad_words=("a", "42", "the sum"),
                min_tokens=30,
                skip_special_tokens=False,
                include_stop_str_in_output=True,
            )
        },
    ]
    expected = [joined(await gather(alone, chat, **form)) for form in forms]
    alone.close()
    async with fleet_of(lambda: Replica(local(folder))) as (model, starter):
        await model.load()
        for form, whole in zip(forms, expected, strict=True):
            shown = []
            async for delta in model.stream_many(chat, form.pop("sampling", LONG), **form):
                shown.append(delta)
                if len(shown) == 9:
                    killed(model)
            assert joined(shown) == whole
            await until(lambda: all(slot.state == "ready" for slot in model.fleet.slots))
        assert len(starter.started) == 2 + len(forms)
        assert sum(status.restarts for status in model.fleet.statuses()) == len(forms)


@pytest.mark.slow
@in_loop
async def test_an_answer_without_a_seed_goes_on_too_and_others_are_untouched(folder: Path) -> None:
    async with fleet_of(lambda: Replica(local(folder))) as (model, _):
        await model.load()
        sampling = replace(LONG, seed=None, max_tokens=60)
        asked = [asyncio.create_task(gather(model, f"Question {i}", sampling)) for i in range(8)]
        await until(lambda: all(slot.load == 4 for slot in model.fleet.slots))
        await asyncio.sleep(0.02)
        killed(model)
        for found in await asyncio.gather(*asked):
            _, ids, logprobs, _, ends = joined(found)
            assert len(ids) == len(logprobs) == 60 and ends == 1
            assert [*found[-1].completion.message.sampled.token_ids] == ids  # type: ignore[union-attr]
        assert all(status.answers == 0 for status in model.fleet.statuses())


@pytest.mark.slow
@in_loop
async def test_what_kills_every_replica_is_given_up_and_the_next_request_is_answered(folder: Path) -> None:
    async with fleet_of(lambda: Replica(local(folder)), 3) as (model, _):
        await model.load()
        body = {"method": "stream_many", "prompt": "x", "tools": [], "options": {}}
        body["sampling"] = replace(LONG, max_tokens=1900, top_logprobs=0).to_json()
        with pytest.raises(TransientError, match=f"was lost {MAX_LOSSES} times"):
            async for message in model.fleet.stream(body):
                if message["kind"] == "delta":
                    killed(model)
        assert sum(status.restarts for status in model.fleet.statuses()) >= MAX_LOSSES - 1
        assert joined(await gather(model, "The"))[1]


@pytest.mark.slow
@in_loop
async def test_a_client_that_leaves_ends_its_answer_in_the_replica(folder: Path) -> None:
    async with fleet_of(lambda: Replica(local(folder))) as (model, _):
        await model.load()
        async with aclosing(model.stream_many("The", replace(LONG, max_tokens=1900), n=4)) as deltas:
            async for _ in deltas:
                break
        while (await model.counters())["running"]:
            await asyncio.sleep(0.01)
        assert (await model.counters())["waiting"] == 0 and not any(status.answers for status in model.fleet.statuses())


@pytest.mark.slow
@in_loop
async def test_replicas_embed_and_need_no_other_model(folder: Path) -> None:
    from embedder_tiny import write_embedder  # imports transformers

    words = write_embedder(folder.parent / "e")
    alone = LocalEmbedder(words, compiled=False)
    texts = ["the cat sat on the mat", "the dog ran", "the cat " * 200]
    starter = InProcessStarter(lambda: Replica(None, LocalEmbedder(words, compiled=False)))
    fleet = Fleet(starter, 2)
    embedder = ReplicatedEmbedder(fleet, "tiny-embedder")
    try:
        assert await embedder.embed([]) == []
        here, there = await alone.embed_counted(texts), await embedder.embed_counted(texts)
        assert there.vectors == here.vectors.tolist() and await embedder.embed(texts) == there.vectors
        assert tuple(there.num_tokens) == here.num_tokens and tuple(there.truncated) == here.truncated
        assert there.truncated == [False, False, True]
    finally:
        embedder.close()
        for task in fleet._tasks:
            task.cancel()


class Deaf(Replica):
    """Is there, takes jobs, and says nothing."""

    async def begin(self) -> Any:
        return {"same": {}, "facts": {}}

    async def outgoing(self, patience_s: float = 1.0) -> list[Any]:
        await asyncio.sleep(1000)
        return []


@pytest.mark.slow
@in_loop
async def test_a_replica_without_a_sign_of_life_is_started_again(folder: Path) -> None:
    async with fleet_of(lambda: Deaf(None), 1, silent_s=0.05) as (model, starter):
        await model.fleet.ready()
        with pytest.raises(TransientError, match="no sign of life"):
            await model.fleet.call({"method": "tokenize", "prompt": "x", "tools": []})
        assert len(starter.started) >= 2


@pytest.mark.slow
@in_loop
async def test_replicas_that_are_not_alike_or_cannot_work_are_left_out_with_the_reason(folder: Path) -> None:
    other = write_model(folder.parent / "other", seed=5, max_position=2048)
    made: list[Path] = []

    def make() -> Replica:
        made.append(folder if not made else other)
        return Replica(local(made[-1]))

    async with fleet_of(make) as (model, _):
        await model.load()
        states = {status.state for status in model.fleet.statuses()}
        assert states == {"ready", "failed"} and "one request would have two answers" in model.fleet.problem
        assert joined(await gather(model, "The"))[1]
    async with fleet_of(lambda: Replica(Local(folder / "none.gguf"))) as (model, _):
        with pytest.raises(ModelError, match=r"none\.gguf"):
            await model.load()
        with pytest.raises(ModelError, match="no replica can work"):
            await gather(model, "The")


@pytest.mark.slow
@in_loop
async def test_what_engines_count_only_grows_while_replicas_come_and_go(folder: Path) -> None:
    async with fleet_of(lambda: Replica(local(folder))) as (model, _):
        await model.load()
        await gather(model, "The", n=2)
        before = await model.counters()
        for slot in model.fleet.slots:
            slot.process.kill()  # type: ignore[union-attr]
        await until(
            lambda: all(slot.state == "ready" for slot in model.fleet.slots) and model.fleet.statuses()[0].restarts
        )
        after = await model.counters()
        assert all(after[name] >= before[name] for name in before if name not in GAUGES)
        assert after["decode_tokens"] >= before["decode_tokens"] > 0


async def until(fact: Callable[[], Any]) -> None:
    while not fact():
        await asyncio.sleep(0.005)
