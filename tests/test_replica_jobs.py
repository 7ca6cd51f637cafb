"""The jobs of one replica: answers in pieces, jobs broken off, adapters put back, and a replica in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from firsthand import __version__
from firsthand.cluster.replicas import replica_worker
from firsthand.cluster.replicas.in_process import InProcessReplica, InProcessStarter
from firsthand.cluster.replicas.replica_messages import delta_json, delta_of, prompt_json, sampling_of, tool_of
from firsthand.cluster.replicas.replica_worker import Replica, open_replica, warm_up
from firsthand.cluster.replicas.replicated_model import EmbeddedTexts
from firsthand.cluster.spread.run_worker import Lost
from firsthand.errors import ConfigError, ModelError, TransientError
from firsthand.grammar import json_schema
from firsthand.message import Json, assistant, user
from firsthand.model import CallDelta, Completion, Delta, Sampling, ToolSpec, Usage
from replica_scripted import Adaptable, Echo

ADD = ToolSpec("add", "Adds.", {"type": "object"})


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 30))


async def said(replica: Replica, count: int) -> list[Json]:
    found: list[Json] = []
    while len(found) < count:
        found += await replica.outgoing(5)
    return found


def do(job: int, method: str, **body: Any) -> Json:
    return {"kind": "do", "job": job, "method": method, **body}


class Slow(Echo):
    """An Echo whose answers wait, and whose encoder rates no texts."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.broken = asyncio.Event(), 0

    async def stream_many(self, prompt: Any, sampling: Any, **options: Any) -> Any:
        self.asked.append((prompt, sampling, options))
        try:
            yield Delta("a")
            await self.go.wait()
            yield Delta("b", Completion(assistant("ab"), "stop", Usage(1, 0, 2)))
        finally:
            self.broken += not self.go.is_set()

    async def rate(self, ids: Sequence[int], top: int = 0, **options: Any) -> Any:
        self.asked.append((list(ids), top, options))
        raise ConfigError("an encoder-decoder does not rate")


def test_jobs_run_side_by_side_and_those_that_are_aborted_say_nothing_more():
    async def work() -> None:
        model = Slow()
        replica = Replica(model)
        body = {"prompt": prompt_json([user("q")]), "sampling": Sampling(seed=4).to_json(), "tools": [ADD.to_json()],
                "options": {"n": 1, "run": "r"}}  # fmt: skip
        replica.handle([do(1, "stream_many", **body), do(2, "stream_many", **{**body, "prompt": {"ids": [3, 4]}}),
                        do(3, "detokenize", ids=[1])])  # fmt: skip
        first = await said(replica, 3)
        assert sorted(first, key=lambda message: message["job"]) == [
            {"kind": "delta", "job": 1, "delta": {"text": "a"}}, {"kind": "delta", "job": 2, "delta": {"text": "a"}},
            {"kind": "end", "job": 3, "value": "a"},
        ]  # fmt: skip
        assert model.asked == [
            ([user("q")], Sampling(seed=4), {"tools": [ADD], "n": 1, "run": "r"}),
            ((3, 4), Sampling(seed=4), {"tools": [ADD], "n": 1, "run": "r"}),
        ]  # fmt: skip
        assert sorted(replica._running) == [1, 2]
        replica.handle([{"kind": "abort", "job": 1}, {"kind": "abort", "job": 9}, {"kind": "abort", "job": 3}])
        while list(replica._running) != [2]:
            await asyncio.sleep(0)
        assert model.broken == 1
        model.go.set()
        end = await said(replica, 2)
        done = Completion(assistant("ab"), "stop", Usage(1, 0, 2))
        assert end == [
            {"kind": "delta", "job": 2, "delta": delta_json(Delta("b", done))},
            {"kind": "end", "job": 2, "value": None},
        ]
        assert replica._running == {} and await replica.outgoing(0.001) == []
        model.go.clear()
        replica.handle([do(5, "stream_many", **body)])
        await said(replica, 1)
        await replica.close()
        assert model.is_closed and model.broken == 2 and replica._running == {}

    run(work())


def test_the_prompt_s_ids_go_with_the_first_end_alone_and_failures_end_their_job():
    class Two(Echo):
        async def stream_many(self, prompt: Any, sampling: Any, **options: Any) -> Any:
            for index, ids in ((1, (7, 8)), (0, (7, 8)), (2, (7, 8))):
                yield Delta("x", index=index)
                yield Delta("", Completion(assistant("x"), "stop", Usage(), prompt_ids=ids), index=index)
            raise TransientError("busy", 2.5)

    async def work() -> None:
        replica = Replica(Two())
        replica.handle([do(4, "stream_many", prompt="q", sampling=Sampling().to_json(), tools=[], options={}),
                        do(6, "unknown"), do(7, "score", prompt="p", continuations=[], adapter="red")])  # fmt: skip
        found = await said(replica, 9)
        ends = [delta_of(each["delta"]) for each in found if each["kind"] == "delta" and "completion" in each["delta"]]
        assert [(delta.index, delta.completion and delta.completion.prompt_ids) for delta in ends] == [
            (1, (7, 8)), (0, None), (2, None),
        ]  # fmt: skip
        failed = {each["job"]: each for each in found if each["kind"] == "failed"}
        assert failed[4] == {
            "kind": "failed",
            "job": 4,
            "error": "TransientError",
            "message": "busy",
            "retry_after_s": 2.5,
        }
        assert failed[6] == {"kind": "failed", "job": 6, "error": "KeyError", "message": "'unknown'"}
        assert failed[7]["message"] == "the replicas' model takes no adapters beside it" and len(failed) == 3
        assert replica._running == {}

    run(work())


def test_a_model_is_used_once_in_every_way_before_it_is_ready():
    model = Echo()
    run(warm_up(model))
    assert model.asked == [
        ("stream_many", "Hello there", Sampling(max_tokens=4), {"n": 3}),
        ("stream_many", "Hello there", Sampling(max_tokens=4, temperature=1.0, top_p=0.9, seed=1), {"n": 3}),
        ("tokenize", "one two three", [], None), ("rate", [1, 2, 3], 2, {}),
    ]  # fmt: skip

    async def slow() -> list[Any]:
        made = Slow()
        made.go.set()
        await warm_up(made)
        return made.asked

    assert run(slow())[-1] == ([1, 2, 3], 2, {}), "a model that rates no texts is ready too"

    class Broken(Echo):
        async def rate(self, ids: Sequence[int], top: int = 0, **options: Any) -> Any:
            raise ModelError("broken")

    with pytest.raises(ModelError, match=r"^broken$"):
        run(warm_up(Broken()))


class Vectors:
    """An embedder that counts no tokens."""

    name = "words"

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.is_closed = False

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked.append(list(texts))
        return [[float(len(text))] for text in texts]

    def close(self) -> None:
        self.is_closed = True


class Counting(Vectors):
    fingerprint = "counting:1"

    async def embed_counted(self, texts: Sequence[str], *, whole: bool = False) -> Any:
        return EmbeddedTexts([(1, 2)] * len(texts), (3, 4.0), (0, 1))  # type: ignore[arg-type,list-item]


def test_a_replica_of_an_embedder_alone_is_described_by_what_decides_its_vectors():
    async def work() -> None:
        for embedder, fingerprint, value in (
            (Vectors(), "words", {"vectors": [[2.0], [1.0]]}),
            (Counting(), "counting:1",
             {"vectors": [[1.0, 2.0]] * 2, "num_tokens": [3, 4], "truncated": [False, True]}),
        ):  # fmt: skip
            replica = Replica(None, embedder)
            assert await replica.begin() == {
                "same": {"firsthand": __version__, "embedder": fingerprint}, "embedder": "words",
            }  # fmt: skip
            replica.handle([do(1, "embed", texts=["ab", "c"], whole=False, owner="")])
            (message,) = await said(replica, 1)
            assert message == {"kind": "end", "job": 1, "value": value} and embedder.asked[0] == ["Hello"]
            await replica.close()
            assert embedder.is_closed

    run(work())


def test_an_embedder_is_opened_by_its_name_with_the_threads_of_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = {"model": None, "embedder": str(tmp_path), "engine": {"threads": 3}, "neighbours": 2}
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    replica = open_replica(settings)
    made: Any = replica.embedder
    assert replica.model is None and (made.name, made.path) == (str(tmp_path), tmp_path)
    assert made._settings == (None, None, 3)
    other: Any = open_replica({**settings, "engine": {}}).embedder
    assert other._settings == (None, None, None)
    assert open_replica({**settings, "embedder": None}).embedder is None
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    other = open_replica({**settings, "embedder": f"~/{tmp_path.name}"}).embedder
    assert (other.name, other.path) == (f"~/{tmp_path.name}", tmp_path), "known by the name it was asked by"


def test_an_adapter_that_cannot_be_loaded_leaves_nothing_to_undo():
    async def work() -> None:
        model = Adaptable()
        replica = Replica(model)

        async def ask(method: str, **body: Any) -> Any:
            return await replica_worker._METHODS[method](replica, body)

        red = {"name": "red", "folder": "/a", "version": 4, "replace": False}
        assert await ask("load_adapter", **red) == "local:echo+red@/a"
        blue = {**red, "name": "blue", "folder": "/b"}
        assert await ask("load_adapter", **blue) == "local:echo+blue@/b" and model.given[-1] == ("blue", "/b", 4, False)
        await ask("undo_adapters")
        assert model.beside == {"red": "/a"} and replica.undoing is None, "the last change alone"
        await ask("unload_adapter", name="red")
        with pytest.raises(KeyError):
            await ask("unload_adapter", name="red")
        assert replica.undoing is None and model.beside == {}
        await ask("load_adapter", **red)
        replica.adapter_model.with_adapter = _raises  # type: ignore[method-assign]
        with pytest.raises(ModelError, match="bad rank"):
            await ask("load_adapter", **{**red, "folder": "/c"})
        await ask("undo_adapters")
        assert model.beside == {"red": "/a"}, "what was loaded and cannot be used is put back"
        assert await ask("settle_adapters") is None and replica.undoing is None

    run(work())


def _raises(name: str) -> Any:
    raise ModelError(f"bad rank of {name}")


def test_every_setting_of_a_sampling_and_piece_survives_the_way():
    grammar = json_schema({"type": "object", "properties": {"a": {"type": "integer"}}})
    sampling = Sampling(
        max_tokens=3, temperature=0.5, stop=("a", "b"), seed=9, logit_bias=((3, 1.5), (4, -2.0)), grammar=grammar
    )
    read = sampling_of(sampling.to_json())
    assert read == sampling and read.logit_bias == ((3, 1.5), (4, -2.0)) and read.stop == ("a", "b")
    assert sampling_of(Sampling().to_json()) == Sampling() and sampling_of({"grammar": None, "seed": 0}).seed == 0
    assert tool_of({"function": {"name": "n", "description": "d", "parameters": {"x": 1}}}) == ToolSpec(
        "n", "d", {"x": 1}
    )
    empty = Delta("", call=CallDelta(0), index=0, waited_s=0.0)
    assert delta_json(empty) == {"call": {"index": 0, "id": "", "name": None, "arguments": ""}}
    assert delta_of({"index": 3, "token_ids": [1, 2], "logprobs": [-0.5], "waited_s": 1.5}) == Delta(
        "", index=3, token_ids=(1, 2), logprobs=(-0.5,), waited_s=1.5
    )


# -- in this process --


def test_a_replica_in_this_process_is_lost_at_once_when_it_is_killed():
    async def work() -> None:
        starter = InProcessStarter(lambda: Replica(Echo()))
        one, two = starter.start(4), starter.start(7)
        assert (one.name, two.name, starter.started) == ("place 4", "place 7", [one, two])
        assert one.replica is not two.replica and starter.close() is None  # type: ignore[func-returns-value]
        description = await one.begin()
        assert description["facts"]["vocab_size"] == 5 and description["same"]["model"] == "local:echo"
        await one.send((do(3, "rate", ids=[1, 2], top=1, options={}),))
        assert await one.receive() == [{"kind": "end", "job": 3, "value": [[2, -2.0, [["x", -0.5]]]]}], "as over a wire"
        waiting = asyncio.create_task(one.receive())
        await asyncio.sleep(0)
        one.kill()
        one.kill()
        one.close()
        with pytest.raises(Lost, match=r"^the replica on place 4 was lost: it was killed$"):
            await waiting
        for lost in (one.send([]), one.receive()):
            with pytest.raises(Lost, match="the replica on place 4 was lost"):
                await lost
        assert one._closing is not None
        await one._closing
        assert one.replica.the_model.is_closed and not two.replica.the_model.is_closed  # type: ignore[attr-defined]
        two.close()
        assert two._closing is not None
        await two._closing
        assert two.replica.the_model.is_closed  # type: ignore[attr-defined]

    run(work())

    class Refuses(Echo):
        async def load(self) -> Any:
            raise ModelError("no file")

    with pytest.raises(ConfigError, match=r"^the replica on here cannot work: no file$"):
        run(InProcessReplica(Replica(Refuses()), "here").begin())


def test_a_receive_that_is_given_up_takes_no_message_of_the_next():
    async def work() -> None:
        others = asyncio.all_tasks()
        remote = InProcessReplica(Replica(Echo()), "here")
        given_up = asyncio.create_task(remote.receive())
        for _ in range(5):
            await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        await remote.send([{"kind": "do", "job": 4, "method": "detokenize", "ids": [1, 2]}])
        assert await remote.receive() == [{"kind": "end", "job": 4, "value": "ab"}]
        waiting = asyncio.create_task(remote.receive())
        for _ in range(5):
            await asyncio.sleep(0)
        remote.kill()
        for call in (waiting, remote.receive(), remote.send([])):
            with pytest.raises(Lost, match=r"^the replica on here was lost: it was killed$"):
                await call
        for _ in range(5):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == others, "nothing goes on waiting"

    run(work())
