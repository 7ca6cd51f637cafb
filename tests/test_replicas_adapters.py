"""Adapters beside replicas: on all of them or on none, also on one that was lost meanwhile, and in routing of their own."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters_tiny import adapter, write, write_house
from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.replicas.in_process import InProcessStarter
from firsthand.cluster.replicas.replica_settings import ReplicaSettings
from firsthand.cluster.replicas.replica_worker import Replica
from firsthand.cluster.replicas.replicated_model import ReplicatedModel
from firsthand.cluster.replicas.router import next_turn_hashes, prefix_hashes
from firsthand.commands import serve as command
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError, ModelError, ModelFileError, TransientError
from firsthand.message import assistant, user
from firsthand.model import Sampling
from firsthand.nn import weights
from firsthand.providers.local import Local
from served import serving
from test_replicas import fleet_of, gather, joined, killed, until

CONFIG = EngineConfig(kv_memory_bytes=1 << 22, threads=1, max_adapters=3)
LONG = Sampling(max_tokens=60, temperature=0.9, seed=7, ignore_eos=True)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and a folder `adapters` with three good ones, a large one and a bad one."""
    house = tmp_path_factory.mktemp("house")
    model = write_house(house)
    write(house / "adapters" / "large", model, adapter(model, 5, rank=64))
    cut = write(house / "adapters" / "cut", model, adapter(model, 3)) / "adapter_model.safetensors"
    cut.write_bytes(cut.read_bytes()[:100])
    return house


def local(house: Path, **settings: Any) -> Local:
    return Local(house / "model", config=replace(CONFIG, **settings))


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 100))


async def told(model: Any) -> Any:
    """What a model says."""
    return joined(await gather(model, "What is", LONG))


async def by_each(model: ReplicatedModel, name: str | None = None) -> list[Any]:
    """What each replica says, with an adapter or without; an error's text where it says nothing."""
    found = []
    for slot in model.fleet.slots:
        body = {"method": "score", "prompt": "What", "continuations": [" is"], "adapter": name}
        try:
            found.append((await model.fleet.call(body, slot=slot))["likelihoods"])
        except ConfigError as error:
            found.append(str(error))
    return found


async def has(model: ReplicatedModel, name: str | None, answer: Any) -> bool:
    return await by_each(model, name) == [answer] * len(model.fleet.slots)


async def scored(house: Path) -> dict[str | None, Any]:
    """What one model says without an adapter and with each."""
    alone = local(house)
    found = {}
    for name in (None, "red", "green", "blue"):
        if name is not None:
            await alone.load_adapter(name, house / "adapters" / name)
        found[name] = (await (alone.with_adapter(name) if name else alone).score("What", [" is"])).to_json()[
            "likelihoods"
        ]
    alone.close()
    return found


@pytest.mark.slow
def test_every_replica_has_what_was_given_loaded_and_taken_away(house: Path) -> None:
    async def main() -> None:
        expected = await scored(house)
        alone = Local(house / "model", config=CONFIG, adapters={"red": house / "adapters" / "red"})
        async with fleet_of(lambda: Replica(local(house))) as (model, _):
            model.put_adapter("red", house / "adapters" / "red")
            with pytest.raises(ConfigError, match="two adapters have the name 'red'"):
                model.put_adapter("red", house)
            await model.load()
            red = model.with_adapter("red")
            assert await told(red) == await told(alone.with_adapter("red")) != await told(model)
            assert red.fingerprint == alone.with_adapter("red").fingerprint != model.fingerprint
            assert await red.rate([3, 4, 5]) == await alone.with_adapter("red").rate([3, 4, 5])
            await model.load_adapter("green", house / "adapters" / "green")
            assert [await has(model, name, expected[name]) for name in (None, "red", "green")] == [True] * 3
            await model.load_adapter("green", house / "adapters" / "blue", replace=True)
            assert await has(model, "green", expected["blue"])
            assert dict(model.adapters) == {n: house / "adapters" / f for n, f in (("red", "red"), ("green", "blue"))}
            await model.unload_adapter("green")
            assert all("no adapter 'green'" in each for each in await by_each(model, "green"))
            for gone in (model.with_adapter, model.unload_adapter):
                with pytest.raises(ConfigError, match="no adapter 'green' is beside the model: there are red"):
                    await gone("green")  # type: ignore[misc]
            assert (await model.counters())["adapters"] == 2
        alone.close()

    run(main())


@pytest.mark.slow
def test_a_load_that_fails_on_one_replica_is_undone_on_the_others_to_the_bit(house: Path, tmp_path: Path) -> None:
    """The second replica has less room. What is put back comes from memory: the folder may hold something else by now."""
    work = Path(shutil.copytree(house / "adapters" / "red", tmp_path / "work"))
    room = iter([{}, {"max_adapters": 2, "adapter_memory_bytes": 1 << 16}])

    async def main() -> None:
        expected = await scored(house)
        async with fleet_of(lambda: Replica(local(house, **next(room)))) as (model, _):
            model.put_adapter("red", work)
            await model.load()
            write(work, weights.load(house / "model"), adapter(weights.load(house / "model"), 9))
            for name, in_place in (("large", False), ("red", True)):
                with pytest.raises(ConfigError, match="bytes: an adapter of at most 65536 is allowed here"):
                    await model.load_adapter(name, house / "adapters" / "large", replace=in_place)
                assert await has(model, "red", expected["red"]) and dict(model.adapters) == {"red": work}
                assert all("no adapter 'large'" in each for each in await by_each(model, "large"))
            await model.load_adapter("green", house / "adapters" / "green")
            with pytest.raises(ConfigError, match=r"no room for the adapter 'blue'"):
                await model.load_adapter("blue", house / "adapters" / "blue")
            with pytest.raises(ModelFileError):
                await model.load_adapter("cut", house / "adapters" / "cut")
            assert [await has(model, name, expected[name]) for name in ("red", "green")] == [True] * 2
            assert (await model.counters())["adapters"] == 4
            replica = model.fleet.slots[0].process.replica  # type: ignore[union-attr]
            await replica.model.unload_adapter("green")  # type: ignore[union-attr]
            with pytest.raises(ConfigError, match="no adapter 'green'"):
                await model.unload_adapter("green")
            assert list(model.adapters) == ["red", "green"]
            assert (await by_each(model, "green"))[1] == expected["green"], "it is put back where it was taken away"

    run(main())


@pytest.mark.slow
def test_a_replica_that_cannot_undo_is_started_again_with_what_the_others_have(house: Path) -> None:
    made: list[Local] = []

    class Stubborn(Local):
        """Cannot put anything back."""

        async def restore_adapter(self, name: str, kept: Any) -> None:
            raise ConfigError("no way back")

    def make() -> Replica:
        kind = Stubborn if not made else Local
        small = {"max_adapters": 1} if len(made) == 1 else {}
        made.append(kind(house / "model", config=replace(CONFIG, **small)))
        return Replica(made[-1])

    async def main() -> None:
        expected = await scored(house)
        async with fleet_of(make) as (model, starter):
            model.put_adapter("red", house / "adapters" / "red")
            await model.load()
            with pytest.raises(ConfigError, match="no room for the adapter 'blue'"):
                await model.load_adapter("blue", house / "adapters" / "blue")
            await until(lambda: len(starter.started) == 3 and all(s.state == "ready" for s in model.fleet.slots))
            assert await has(model, "red", expected["red"])
            assert all("no adapter 'blue'" in each for each in await by_each(model, "blue"))

    run(main())


@pytest.mark.slow
def test_a_replica_that_was_lost_comes_back_with_what_the_others_have(house: Path) -> None:

    async def main() -> None:
        expected = await scored(house)
        async with fleet_of(lambda: Replica(local(house))) as (model, _):
            await model.load()
            await model.load_adapter("green", house / "adapters" / "green")
            green, shown = model.with_adapter("green"), []
            whole = await told(green)
            async for delta in green.stream_many("What is", LONG):
                shown.append(delta)
                if len(shown) == 9:
                    killed(model)
                    break_off = asyncio.create_task(model.load_adapter("blue", house / "adapters" / "blue"))
            assert joined(shown) == whole, "the answer goes on with the adapter"
            await break_off
            await until(lambda: all(slot.state == "ready" for slot in model.fleet.slots))
            assert [await has(model, name, expected[name]) for name in ("green", "blue")] == [True] * 2

    run(main())


@pytest.mark.slow
def test_a_replica_that_would_read_other_files_than_the_others_stays_out_until_all_read_them(
    house: Path, tmp_path: Path
) -> None:
    work = Path(shutil.copytree(house / "adapters" / "green", tmp_path / "green"))

    async def main() -> None:
        expected = await scored(house)
        async with fleet_of(lambda: Replica(local(house))) as (model, starter):
            await model.load()
            await model.load_adapter("green", work)
            green = model.with_adapter("green")
            whole = await told(green)
            write(work, weights.load(house / "model"), adapter(weights.load(house / "model"), 9))
            starter.started[-1].kill()
            await until(lambda: any(slot.state == "failed" for slot in model.fleet.slots))
            assert "the files of the adapter 'green' are not those" in model.fleet.problem
            assert await told(green) == whole, "the other one goes on"
            await model.load_adapter("green", work, replace=True)
            await until(lambda: all(slot.state == "ready" for slot in model.fleet.slots))
            both = await by_each(model, "green")
            assert both[0] == both[1] != expected["green"]

    run(main())


def test_a_change_is_finished_when_its_caller_leaves_and_needs_a_replica(house: Path) -> None:
    async def main() -> None:
        async with fleet_of(lambda: Replica(local(house))) as (model, _):
            with pytest.raises(TransientError, match="no replica is there to load the adapter 'red'"):
                await model.load_adapter("red", house / "adapters" / "red")
            await model.load()
            leaving = asyncio.create_task(model.load_adapter("red", house / "adapters" / "red"))
            await asyncio.sleep(0)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            await until(lambda: "red" in model.adapters)
            assert len({str(each) for each in await by_each(model, "red")}) == 1

    run(main())


def test_a_bad_adapter_at_the_start_is_told_and_no_replica_takes_requests(house: Path) -> None:
    async def main() -> None:
        async with fleet_of(lambda: Replica(local(house)), 1) as (model, _):
            model.put_adapter("cut", house / "adapters" / "cut")
            with pytest.raises(ModelError, match="cut"):
                await model.load()

    run(main())


def test_prompts_of_one_adapter_are_nothing_to_another() -> None:
    chat = [user("What is 12 + 30? " * 20)]
    spaces = [None, ("red", 1), ("red", 2), ("green", 1), (None, "salt")]
    found = [set(next_turn_hashes(prefix_hashes(chat, space=space), assistant("42"), space=space)) for space in spaces]
    assert all(not a & b for at, a in enumerate(found) for b in found[:at])
    assert not set(next_turn_hashes([], assistant("42"), space=1)) & set(next_turn_hashes([], assistant("42"), space=2))


def test_requests_of_an_adapter_stay_where_its_prompts_are_known(house: Path) -> None:
    async def main() -> None:
        async with fleet_of(lambda: Replica(local(house))) as (model, _):
            model.put_adapter("red", house / "adapters" / "red")
            await model.load()
            short, prompt = Sampling(max_tokens=4, ignore_eos=True), "An agent with a long system prompt. " * 9
            both = (model, model.with_adapter("red"))
            first = [(await each.complete(prompt, short))[0].usage for each in both]
            again = [(await each.complete(prompt, short))[0].usage for each in both for _ in range(3)]
            assert [usage.cached_tokens for usage in first] == [0, 0]
            assert all(usage.cached_tokens > 100 for usage in again)

    run(main())


# -- over HTTP --


@pytest.mark.slow
def test_clients_load_adapters_into_all_replicas(house: Path) -> None:
    model = ReplicatedModel(Fleet(InProcessStarter(lambda: Replica(local(house))), 2), "tiny")
    command.put_adapters(
        model,
        command.Config(
            model="tiny", replication=ReplicaSettings(replicas=2), adapter=(f"red={house / 'adapters' / 'red'}",)
        ),
    )
    with serving(model, name="tiny", adapter_root=house / "adapters") as running, httpx.Client(timeout=60) as session:

        def post(path: str, **body: Any) -> httpx.Response:
            return session.post(f"{running.url}/v1/{path}", json=body)

        def say(name: str) -> set[str]:
            body = {"model": name, "max_tokens": 9, "temperature": 1.0, "seed": 4}
            return {post("completions", prompt="What is", **body).json()["choices"][0]["text"] for _ in range(4)}

        assert post("load_lora_adapter", lora_name="green", lora_path="green").json()["status"] == "loaded"
        listed = [each["id"] for each in session.get(f"{running.url}/v1/models").json()["data"]]
        assert listed == ["tiny", "red", "green"]
        said = [say(name) for name in listed]
        assert all(len(each) == 1 for each in said) and len(set.union(*said)) == 3
        for path, status in (("cut", 400), ("../model", 400)):
            refused = post("load_lora_adapter", lora_name="bad", lora_path=path)
            assert refused.status_code == status and str(house) not in refused.text, refused.text
        assert post("load_lora_adapter", lora_name="red", lora_path="blue").status_code == 400
        assert post("load_lora_adapter", lora_name="red", lora_path="blue", load_inplace=True).status_code == 200
        assert say("red") not in said
        assert post("unload_lora_adapter", lora_name="green").status_code == 200
        assert post("completions", model="green", prompt="x").status_code == 404
