"""A fleet of scripted replicas: what a model behind it is asked and answers, adapters and weights of all, losses."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from firsthand.cluster.replicas import fleet as fleets
from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.replicas.in_process import InProcessReplica, InProcessStarter
from firsthand.cluster.replicas.replica_slots import ReplicaJob, ReplicaStatus
from firsthand.cluster.replicas.replica_weights import LoadedWeights
from firsthand.cluster.replicas.replica_worker import Replica
from firsthand.cluster.replicas.replicated_model import EmbeddedTexts, ReplicatedEmbedder, ReplicatedModel
from firsthand.cluster.replicas.router import prefix_hashes
from firsthand.cluster.spread.run_worker import Lost
from firsthand.errors import ConfigError, ModelError, ModelFileError
from firsthand.message import Json
from firsthand.model import Sampling, TokenRating, ToolSpec
from replica_scripted import Adaptable, Echo


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))


def with_fleet(work: Any, *models: Any) -> None:
    """Runs work with a model that replicas of these models compute, and their processes."""

    async def all_of_it() -> None:
        left = iter(models)
        starter = InProcessStarter(lambda: Replica(next(left)))
        made = ReplicatedModel(Fleet(starter, len(models)), "team")
        try:
            await work(made, starter.started)
        finally:
            made.close()
            for task in made.fleet._tasks:
                task.cancel()
            await asyncio.gather(*made.fleet._tasks, return_exceptions=True)

    run(all_of_it())


def test_a_replicated_model_asks_its_replicas_and_reads_their_answers():
    async def work(model: ReplicatedModel, started: list[InProcessReplica]) -> None:
        with pytest.raises(ModelError, match=r"^no replica is ready yet: load the model first$"):
            _ = model.fingerprint
        assert model.problem == "its replicas are being started" and not model.is_alive
        facts = await model.load()
        assert facts == await Echo().load() and model.fingerprint == "local:echo" and model.is_alive
        assert model.spell([4, 0]) == [b"\xfe", b"\xfa"]
        only.asked.clear()
        deltas = [delta async for delta in model.stream_many("q", Sampling(5), n=2, run="r", cache_salt="s")]
        ends = [delta.completion for delta in deltas if delta.completion is not None]
        assert [each.prompt_ids for each in ends] == [(7, 8), (7, 8)] and [each.index for each in deltas] == [0] * 3 + [
            1
        ] * 3
        _, prompt, sampling, options = only.asked.pop()
        assert prompt == "q" and options == {"tools": [], "n": 2, "run": "r", "cache_salt": "s"}
        assert sampling.max_tokens == 5 and 0 <= sampling.seed < 2**62
        assert [each.message.text for each in await model.complete("q", Sampling(seed=3), n=2)] == ["ab", "ab"]
        assert only.asked.pop()[2].seed == 3
        assert [each.logprob for each in (await model.score("p", ["a", "bc"])).likelihoods] == [-1, -2]
        tool = ToolSpec("t", "d", {})
        assert await model.tokenize("x", [tool], template={"k": 1}) == [1, 2, 3]
        assert only.asked.pop() == ("tokenize", "x", [tool], {"k": 1})
        await model.tokenize("x", template=MappingProxyType({"k": 1}))
        assert type(only.asked.pop()[-1]) is dict, "what is sent to a replica can be written as JSON"
        assert await model.detokenize((1, 2)) == "ab" and await model.counters() == await only.counters()
        assert await model.rate((1, 2, 3), 1, priority=2) == [TokenRating(n, -float(n), (("x", -0.5),)) for n in (2, 3)]
        assert only.asked.pop() == ("rate", [1, 2, 3], 1, {"priority": 2})
        assert "".join([delta.text async for delta in model.stream("q", Sampling())]) == "ab"
        assert model.fleet.statuses() == [ReplicaStatus(0, "ready", 0, 0, await only.counters())]
        assert model.fleet.router.match(0, prefix_hashes("q", space=model._space("s"))) == 1
        assert model.fleet.router.match(0, prefix_hashes("q", space=model._space("other"))) == 0

    only = Adaptable()
    with_fleet(work, only)


def test_adapters_and_weights_of_all_replicas_count_in_the_fingerprint(tmp_path: Path):
    async def work(model: ReplicatedModel, started: list[InProcessReplica]) -> None:
        model.put_adapter("early", "/e")
        with pytest.raises(ConfigError, match=r"^two adapters have the name 'early': give each its own$"):
            model.put_adapter("early", "/f")
        await model.load()
        assert one.beside == two.beside == {"early": "/e"}
        await model.load_adapter("red", "/r", version=3)
        assert one.given[-1] == two.given[-1] == ("red", "/r", 3, False)
        assert model.adapters == {"early": Path("/e"), "red": Path("/r")}
        red = model.with_adapter("red")
        assert (red.name, red.fingerprint, model.chosen) == ("red", "local:echo+red@/r", None)
        spaces = [red._space(), model._space(), red._space("salt")]
        assert spaces == [(("red", 1), None, ""), (None, None, ""), (("red", 1), None, "salt")]
        await model.load_adapter("red", "/r", replace=True)
        assert red._space() != spaces[0] and one.given[-1][3] is True
        model.weights.loaded = LoadedWeights(Path("w"), 2, "d" * 64)
        assert model.fingerprint == "local:echo, weights " + "d" * 16
        assert red.fingerprint == "local:echo+red@/r, weights " + "d" * 16 and red._space()[1] == "d" * 64  # type: ignore[index]
        with pytest.raises(ConfigError, match=r"^no adapter 'blue' is beside the model: there are early, red$"):
            model.with_adapter("blue")
        with pytest.raises(ModelFileError, match="the adapter 'blue' cannot be read"):
            await model.load_adapter("blue", "gone")
        assert set(model.adapters) == {"early", "red"} == set(one.beside)
        two.name = "other"  # its adapters now differ
        with pytest.raises(
            ConfigError, match="cannot load the adapter 'blue': its files are not the same on all of their mach"
        ):
            await model.load_adapter("blue", "/b")
        assert "blue" not in one.beside and "blue" not in two.beside
        await model.unload_adapter("red")
        assert set(one.beside) == {"early"} == set(two.beside) == set(model.adapters)

    one, two = Adaptable(), Adaptable()
    with_fleet(work, one, two)


def test_a_fleet_names_its_losses_and_gives_up_after_three(monkeypatch: pytest.MonkeyPatch):
    assert (fleets.MAX_LOSSES, fleets.MAX_FALSE_STARTS, fleets.SILENT_S) == (3, 3, 60.0)

    async def work(model: ReplicatedModel, started: list[InProcessReplica]) -> None:
        events: list[Any] = []
        fleet = model.fleet
        fleet.on_event = lambda event, **fields: events.append((event, fields))
        await model.load()
        slot = fleet.slots[0]
        slot.counters = {"num_blocks": 9.0, "prompt_tokens": 4.0}
        job = ReplicaJob(99, 2)
        slot.jobs[99] = job
        fleet._lose(slot, Lost("it fell"), "failed")
        assert (slot.state, slot.problem, slot.is_connected) == ("failed", "it fell", False)
        assert (slot.counters, slot.ended) == ({}, {"prompt_tokens": 4.0}) and str(
            job.messages.get_nowait()
        ) == "it fell"
        assert events[-1] == ("replica_lost", {"replica": 0, "reason": "it fell", "jobs": 1})
        assert events[0][0] == "replica_ready" and events[0][1] == {"replica": 0, "where": "place 0"}
        with pytest.raises(ModelError, match=r"^no replica can work: it fell$"):
            await fleet.call({"method": "counters"})
        with pytest.raises(Lost, match="it was lost before the job was sent"):
            await fleet.call({"method": "counters"}, slot=slot)
        started[0].kill()
        with pytest.raises(Lost, match=r"^the replica on place 0 was lost: it was killed$"):
            await started[0].receive()

    with_fleet(work, Echo())


def test_an_embedder_behind_replicas_gives_vectors_and_counts():
    async def work() -> None:
        sent: list[Any] = []

        class Asked(Fleet):
            async def ready(self) -> Json:
                return {}

            async def call(self, body: Json, prefix: Any = (), *, slot: Any = None) -> Any:
                sent.append(body)
                return {"vectors": [[1.0], [2.0]], "num_tokens": [3, 4], "truncated": [False, True]}

        embedder = ReplicatedEmbedder(Asked(InProcessStarter(lambda: Replica(None)), 1), "e")
        assert await embedder.embed(()) == [] and not sent
        assert await embedder.embed(("a", "b")) == [[1.0], [2.0]] and sent == [
            {"method": "embed", "texts": ["a", "b"], "whole": False, "owner": ""}
        ]
        assert await embedder.embed_counted(["a", "b"]) == EmbeddedTexts([[1.0], [2.0]], [3, 4], [False, True])
        embedder.close()

    run(work())
