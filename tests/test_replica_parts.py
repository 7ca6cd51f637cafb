"""Parts of replicas as whole values: settings, what travels, routing, answers that go on, and the jobs of one replica."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from firsthand import __version__
from firsthand.cluster.outbox import PATIENCE_S, Outbox
from firsthand.cluster.replicas.replica_messages import (
    delta_json,
    delta_of,
    error_of,
    failure_message,
    prompt_json,
    prompt_of,
    sampling_of,
    text_prompt_of,
    tool_of,
)
from firsthand.cluster.replicas.replica_settings import ReplicaSettings
from firsthand.cluster.replicas.replica_slots import ReplicaStatus, Slot, total_counters
from firsthand.cluster.replicas.replica_worker import Replica, _read_weights, open_replica
from firsthand.cluster.replicas.replicated_model import EmbeddedTexts
from firsthand.cluster.replicas.resume import ShownAnswer, ShownPart
from firsthand.cluster.replicas.router import Router, max_load, message_text, next_turn_hashes, prefix_hashes
from firsthand.errors import ConfigError, ModelError, ModelFileError, TransientError, UnknownName
from firsthand.message import Json, ToolCall, assistant, user
from firsthand.model import CallDelta, Completion, Delta, Sampling, ToolSpec, Usage
from replica_scripted import Adaptable, Echo


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))


# -- settings, messages, slots --


def test_settings_of_replicas_go_with_a_number_of_them():
    assert ReplicaSettings(1000, "auto", 1024, 0).replicas == 1000 and ReplicaSettings().replica_cpus is None
    assert ReplicaSettings(1, None, 0, 1024.0).replica_gpus == 1024
    for given, said in (
        ({"replicas": 0}, "replicas is 0: give 1 to 1000"), ({"replicas": 1001}, "replicas is 1001: give 1 to 1000"),
        ({"address": "auto"}, "address is for replicas: say how many, as in --replicas 2"),
        ({"replica_cpus": 2.0}, "replica_cpus is for replicas: say how many, as in --replicas 2"),
        ({"replica_gpus": 1}, "replica_gpus is for replicas: say how many, as in --replicas 2"),
        ({"replicas": 2, "replica_cpus": -1}, "replica_cpus is -1: give a number from 0 to 1024"),
        ({"replicas": 2, "replica_gpus": 1025}, "replica_gpus is 1025: give a number from 0 to 1024"),
        *(({"replicas": 2, name: number}, f"{name} is {number}: give a number from 0 to 1024")
          for name in ("replica_cpus", "replica_gpus") for number in (math.nan, math.inf, -0.5, 1024.5)),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as found:
            ReplicaSettings(**given)
        assert str(found.value) == said


def test_prompts_pieces_and_errors_travel_as_plain_data():
    told = [user("Hi"), assistant("so")]
    assert prompt_json("x") == "x" and prompt_json((1, 2)) == {"ids": [1, 2]} == prompt_json([1, 2])
    assert prompt_json([]) == {"ids": []} and prompt_json(told) == {"messages": [each.to_json() for each in told]}
    assert prompt_of({"ids": [1, 2]}) == (1, 2) and prompt_of(prompt_json(told)) == told == text_prompt_of(
        prompt_json(told)
    )
    assert text_prompt_of("x") == "x" == prompt_of("x")
    assert prompt_of(prompt_json(())) == () == prompt_of({"ids": []}), "a prompt of no tokens is a prompt"
    assert delta_json(Delta("")) == {} and delta_of({}) == Delta("")
    call, done = CallDelta(1, "c", "add", '{"a"'), Completion(assistant("a"), "stop", Usage(1, 2, 3))
    whole = Delta("t", done, call, 2, (4, 5), (-0.5, -1.0), ((("é", -0.1),), ()), 0.25, num_held=3)
    body = delta_json(whole)
    assert body == {
        "text": "t", "completion": done.to_json(), "call": asdict(call), "index": 2, "token_ids": (4, 5),
        "logprobs": (-0.5, -1.0), "top_logprobs": ((("é", -0.1),), ()), "waited_s": 0.25, "num_held": 3,
    }  # fmt: skip
    assert delta_of({**body, "top_logprobs": [[["é", -0.1]], []]}) == whole
    sampling = Sampling(max_tokens=3, stop=("a",), logit_bias=((3, 1.0),))
    assert sampling_of({**sampling.to_json(), "logit_bias": [[3, 1.0]], "stop": ["a"]}) == sampling
    spec = ToolSpec("add", "Adds.", {"type": "object"})
    assert tool_of(spec.to_json()) == spec
    assert failure_message(4, ModelError("no")) == {"kind": "failed", "job": 4, "error": "ModelError", "message": "no"}
    late = failure_message(4, TransientError("wait", 0.0))
    assert late == {"kind": "failed", "job": 4, "error": "TransientError", "message": "wait", "retry_after_s": 0.0}
    here = error_of(late)
    assert isinstance(here, TransientError) and (str(here), here.retry_after_s) == ("wait", 0.0)
    assert type(error_of(failure_message(1, UnknownName("who")))) is UnknownName
    assert str(error_of(failure_message(1, KeyError("k")))) == "in a replica: KeyError: 'k'"


def test_numbers_of_slots_are_sums_of_all_their_processes():
    one = Slot(0, counters={"a": 1.0, "oldest_wait_s": 2.0}, ended={"a": 10.0, "b": 3.0}, load=4, restarts=2)
    two = Slot(1, "ready", counters={"oldest_wait_s": 5.0, "a": 100.0})
    assert total_counters([one, two]) == {"a": 111.0, "oldest_wait_s": 5.0, "b": 3.0} and total_counters([]) == {}
    assert one.status == ReplicaStatus(0, "starting", 2, 4, {"a": 1.0, "oldest_wait_s": 2.0})
    status = two.status
    two.counters["a"] = 0.0
    assert status.counters["a"] == 100.0 and status.state == "ready"


def test_an_outbox_is_emptied_by_a_take_and_waits_for_the_first():
    async def work() -> None:
        box = Outbox()
        assert await box.take(0.001) == [] and PATIENCE_S == 1.0
        box.put({"n": 1})
        box.put({"n": 2})
        assert await box.take(0.001) == [{"n": 1}, {"n": 2}] and await box.take(0.001) == []
        waiting = asyncio.create_task(box.take(30))
        await asyncio.sleep(0)
        box.put({"n": 3})
        assert await waiting == [{"n": 3}]

    run(work())


def test_each_take_waits_as_long_as_it_is_told_to():
    ended: list[float] = []

    async def taken(box: Outbox, patience_s: float) -> None:
        assert await box.take(patience_s) == []
        ended.append(patience_s)

    async def work() -> None:
        await asyncio.gather(*(taken(Outbox(), each) for each in (0.06, 0.03, 0.0)))
        assert ended == [0.0, 0.03, 0.06], "whoever is told to wait the least ends first, though it began last"
        box = Outbox()
        box.put({"n": 1})
        assert await box.take(0.0) == [{"n": 1}] and await box.take(0.0) == []
        both = asyncio.gather(box.take(30), box.take(30))
        await asyncio.sleep(0)
        for number in (2, 3):
            box.put({"n": number})
        assert await both == [[{"n": 2}, {"n": 3}], []], "a message is given once"

    run(work())


# -- routing --


def test_prefixes_are_hashes_of_pieces_of_64_characters_or_16_ids():
    a, b = prefix_hashes("x" * 65), prefix_hashes("x" * 64)
    assert len(a) == 2 and a[:1] == b and len(prefix_hashes("")) == 0 and prefix_hashes("x" * 64, space=1) != b
    assert b == [hash((None, "x" * 64))] and a[1] == hash((a[0], "x"))
    call = ToolCall("id", "add", {"a": 1})
    assert (
        message_text(assistant("so", call)) == 'assistant\nso[["add",{"a":1},null]]'
        and message_text(user("Hi")) == "user\nHi"
    )
    told = [user("Hi"), assistant("y" * 70)]
    assert prefix_hashes(told) == next_turn_hashes(prefix_hashes(told[:1]), told[1])
    spaced = next_turn_hashes([], told[0], space="s")
    assert spaced == prefix_hashes(told[:1], space="s") and len(prefix_hashes(told)) == 3
    tool = ToolSpec("t", "d", {})
    assert prefix_hashes("q", [tool])[-1] != prefix_hashes("q")[0] and len(prefix_hashes(range(47))) == 2
    assert len(prefix_hashes("x" * 64 * 16385)) == 16384
    before = prefix_hashes("q")
    next_turn_hashes(before, told[1])
    assert before == prefix_hashes("q")


def test_a_router_weighs_caches_loads_and_turns():
    router = Router()
    for number, blocks in ((0, 2), (1, 100), (2, 0)):
        router.open(number, blocks)
    assert [router.choose([], {0: 0, 1: 0, 2: 0}) for _ in range(4)] == [0, 1, 2, 0]
    assert router.choose([], {1: 1, 0: 0}) == 0
    router.note(1, [5, 6, 7])
    assert [router.match(1, given) for given in ([5, 6, 9, 7], [9, 5], [5, 6, 7, 8], [])] == [2, 0, 3, 0]
    assert router.choose([5, 6], {0: 0, 1: 4, 2: 0}) == 1 and router.choose([5, 6], {0: 0, 1: 5, 2: 0}) == 2
    assert (max_load({0: 0}), max_load({0: 4, 1: 2})) == (4.0, 7.0)
    router.note(0, [1, 2, 3])
    assert router.num_known(0) == 2 and router.match(0, [1, 2, 3]) == 2
    router.note(0, [1, 9])
    assert router.match(0, [1, 9]) == 2 and router.match(0, [1, 2]) == 1
    router.note(2, [4, 5])
    assert router.num_known(2) == 1 and router.match(2, [4]) == 1
    router.close(1)
    router.note(1, [5])
    router.close(1)
    assert router.num_known(1) == 0 and router.num_known(9) == 0


# -- answers that go on --


def test_what_was_shown_is_left_out_and_must_be_the_same():
    part = ShownPart()
    assert (part.rest("abc"), part.at) == (0, 3)
    part.at = 0
    assert part.rest("ab") == 2 and part.rest("cd") == 1 and part.shown == list("abcd")
    part.at = 0
    with pytest.raises(ModelError, match="gave another answer: send the request again"):
        part.rest("ax")
    answer = ShownAnswer()
    first = Delta("ab", index=1, token_ids=(1, 2), logprobs=(-1.0, -2.0), top_logprobs=((("a", -1.0),), (("b", -2.0),)))
    assert answer.rest(first) == first
    assert answer.rest(Delta("", call=CallDelta(0, "c", "add", '{"a'))) == Delta(
        "", call=CallDelta(0, "c", "add", '{"a')
    )
    answer.restart()
    assert answer.rest(Delta("a", token_ids=(1,), logprobs=(-1.0,))) is None
    rest = answer.rest(
        Delta("bc", token_ids=(2, 3), logprobs=(-2.0, -3.0), top_logprobs=((("b", -2.0),), (("c", -3.0),)))
    )
    assert rest == Delta("c", token_ids=(3,), logprobs=(-3.0,), top_logprobs=((("c", -3.0),),))
    assert answer.rest(Delta("", call=CallDelta(0, "d", "add", '{"'))) is None
    assert answer.rest(Delta("", call=CallDelta(0, "", None, 'a": 1}'))) == Delta(
        "", call=CallDelta(0, "", None, '": 1}')
    )
    assert answer.rest(Delta("", call=CallDelta(1, "e", "sub", ""))) == Delta("", call=CallDelta(1, "e", "sub", ""))
    done = Completion(assistant("abc"), "stop", Usage())
    assert answer.rest(Delta("", done)) == Delta("", done) and answer.ended
    answer.restart()
    assert answer.rest(Delta("abc", done)) is None


# -- one replica --


async def said(replica: Replica, count: int = 1) -> list[Json]:
    found: list[Json] = []
    while len(found) < count:
        found += await replica.outgoing(5)
    return found


async def asked(replica: Replica, method: str, **body: Any) -> Any:
    replica.handle([{"kind": "do", "job": 1, "method": method, **body}])
    (message,) = await said(replica)
    if message["kind"] == "failed":
        raise error_of(message)
    assert message["kind"] == "end" and message["job"] == 1
    return message["value"]


def test_tokens_that_are_held_back_are_told_once():
    first, more, text, last = (
        Delta("a", token_ids=(1,), num_held=1), Delta("", num_held=2), Delta("b", token_ids=(2, 3)), Delta("", num_held=1),
    )  # fmt: skip
    answer = ShownAnswer()
    assert [answer.rest(each) for each in (first, more)] == [first, more]
    answer.restart()
    told = [answer.rest(each) for each in (first, more, Delta("", num_held=3), text, last)]
    assert told == [None, None, Delta("", num_held=3), text, None], "as many tokens as were computed before"
    assert answer.rest(Delta("", num_held=2)) == Delta("", num_held=2)


def test_a_replica_does_each_job_and_says_what_came_of_it():
    class Embedder:
        name = "e"

        async def embed(self, texts: Any) -> Any:
            return [[1.0]] * len(texts)

        async def embed_counted(self, texts: Any, *, whole: bool = False) -> Any:
            return EmbeddedTexts([[1, 2]] * len(texts), [3.0] * len(texts), [0] * len(texts))  # type: ignore[list-item]

    async def work() -> None:
        model = Adaptable()
        replica = Replica(model, Embedder())  # type: ignore[arg-type]
        assert await replica.begin() == {
            "same": {"firsthand": __version__, "model": "local:echo", "embedder": "e"}, "embedder": "e",
            "facts": asdict(await model.load()), "counters": {"num_blocks": 9.0, "prompt_tokens": 4.0},
        }  # fmt: skip
        assert [each[0] for each in model.asked] == ["stream_many", "stream_many", "tokenize", "rate"]
        assert [each[3]["n"] for each in model.asked[:2]] == [3, 3] and model.asked[3][2] == 2
        model.asked.clear()
        assert await asked(replica, "tokenize", prompt="x", tools=[], template={"a": 1}) == [1, 2, 3]
        assert (
            await asked(replica, "detokenize", ids=[1, 2]) == "ab"
            and await asked(replica, "counters") == await model.counters()
        )
        assert await asked(replica, "rate", ids=[1, 2], top=1, options={"priority": 3}) == [[2, -2.0, (("x", -0.5),)]]
        scored = await asked(replica, "score", prompt="p", continuations=["a", "bc"])
        assert [each["logprob"] for each in scored["likelihoods"]] == [-1, -2]
        assert model.asked == [
            ("tokenize", "x", [], {"a": 1}), ("rate", [1, 2], 1, {"priority": 3}), ("score", "p", ["a", "bc"]),
        ]  # fmt: skip
        assert await asked(replica, "vocabulary") == ["ú", "û", "ü", "ý", "þ"]
        assert await asked(replica, "embed", texts=["a", "b"], whole=False, owner="") == {
            "vectors": [[1.0, 2.0]] * 2, "num_tokens": [3, 3], "truncated": [False, False],
        }  # fmt: skip
        given = {"prompt": "q", "tools": [], "sampling": Sampling(9).to_json(), "options": {"n": 2, "run": "r"}}
        replica.handle([{"kind": "do", "job": 8, "method": "stream_many", **given}])
        told = await said(replica, 7)
        assert [each["kind"] for each in told] == ["delta"] * 6 + ["end"] and {each["job"] for each in told} == {8}
        ends = [delta_of(each["delta"]).completion for each in told if "completion" in each.get("delta", {})]
        assert [each and each.prompt_ids for each in ends] == [(7, 8), None]
        assert model.asked[-1] == ("stream_many", "q", Sampling(9), {"tools": [], "n": 2, "run": "r"})
        with pytest.raises(ConfigError, match="no adapter red"):
            await asked(replica, "score", prompt="p", continuations=["a"], adapter="red")
        await replica.close()
        assert model.is_closed and not replica._running

    run(work())


def test_adapters_of_a_replica_are_loaded_by_version_undone_and_settled():
    async def work() -> None:
        model = Adaptable()
        replica = Replica(model)
        red = {"name": "red", "folder": "/a", "version": 4, "replace": True}
        assert await asked(replica, "load_adapter", **red) == "local:echo+red@/a" and replica.undoing is not None
        assert model.given == [("red", "/a", 4, True)]
        await asked(replica, "settle_adapters")
        assert replica.undoing is None
        await asked(replica, "load_adapter", **{**red, "folder": "/b"})
        await asked(replica, "undo_adapters")
        assert model.beside == {"red": "/a"} and replica.undoing is None
        await asked(replica, "undo_adapters")
        assert await asked(replica, "unload_adapter", name="red") == "" and model.beside == {}
        await asked(replica, "undo_adapters")
        assert model.beside == {"red": "/a"}
        await asked(replica, "score", prompt="p", continuations=["a"], adapter="red")
        with pytest.raises(ModelFileError, match=r"^the adapter 'red' cannot be read: No such file or directory$"):
            await asked(replica, "load_adapter", **{**red, "folder": "gone"})
        assert replica.undoing is None and model.beside == {"red": "/a"}
        bare = Replica(Echo())
        for method in ("load_adapter", "unload_adapter"):
            with pytest.raises(ConfigError, match=r"^the replicas' model takes no adapters beside it$"):
                await asked(bare, method, **red)
        with pytest.raises(ConfigError, match="takes no adapters"):
            await asked(bare, "score", prompt="p", continuations=[], adapter="red")
        with pytest.raises(ConfigError, match=r"^the replicas' model takes no new weights while it runs$"):
            await asked(bare, "load_weights", file="x", version=1)

    run(work())


def test_weights_are_read_whole_with_their_digest(tmp_path: Path):
    import torch
    from safetensors.torch import save_file

    file = tmp_path / "w.safetensors"
    save_file({"b": torch.ones(300_000), "a": torch.zeros(1)}, file)  # more than a megabyte
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    model = Adaptable()
    assert run(asked(Replica(model), "load_weights", file=str(file), version=3)) == digest
    assert model.given == [(["a", "b"], 3, digest)]
    with pytest.raises(ModelFileError, match=r"none cannot be read: No such file or directory$"):
        _read_weights(tmp_path / "none")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        ModelFileError, match=r"w\.safetensors is no whole safetensors file \(.*\): write the weights again$"
    ):
        _read_weights(file)
    with pytest.raises(
        ConfigError, match=r"scripted:echo does not run here, so it cannot have replicas: leave out --replicas"
    ):
        open_replica({"model": "scripted:echo", "embedder": None, "engine": {}, "neighbours": 1})
    assert open_replica({"model": None, "embedder": None, "engine": {}, "neighbours": 1}).model is None
