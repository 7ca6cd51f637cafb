"""The workers of a run on a Ray cluster: an actor for each GPU, or for each machine where there are none.

This process connects to the cluster, keeps a worker on every machine that has room, replaces those that are lost, and finds
machines that join. An actor builds its agents from the run's settings by the name of a function, `module:function`, and so
loads each model once. Messages are bytes; the cluster holds none of the run. Ray is the extra `cluster`.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from firsthand.cluster.spread.run_worker import Lost, Worker, difference, pack, unpack
from firsthand.errors import ConfigError, FirsthandError, MissingExtra
from firsthand.message import Json

LOCAL_STORE_BYTES = 100 << 20
"""Ray's object store where we start Ray ourselves; messages are small."""
STAYS_HERE = (".git", ".venv", "venv", "node_modules", "__pycache__", "*.gguf", "*.safetensors", "*.sqlite*")
"""What of the working folder never travels."""
LOOK_AGAIN_S = 2.0
"""How often the cluster's machines are looked at."""
MAX_FALSE_STARTS = 3
"""After so many workers in a row that ended before they were ready, the run ends."""
UNTIL_DEAD_S = 10.0
"""How long a cluster may take to accept a connection."""
UNTIL_GONE_S = 20.0
"""How long the head of the cluster may not answer: Ray can start it anew."""
UNTIL_TOLD_S = 20.0
"""After so long without any worker, the user is told that it waits."""


class Place(NamedTuple):
    """Where a worker is: the id of the machine, and which of its workers there."""

    node: str
    at: int


class Share(NamedTuple):
    """What of a machine one worker takes."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Plan:
    """What every worker is made of."""

    target: str
    """`module:function`: gives a Worker of the settings."""
    settings: Json
    expected: Json
    """What `Worker.about` must say there."""
    count: int | None = None
    """This many workers, or one for each GPU or machine."""
    gpus: bool = False
    """Whether a worker can use a GPU."""


class Actor:
    """What runs on the cluster: a Worker behind bytes."""

    def __init__(self) -> None:
        self.worker: Worker | None = None

    async def begin(self, target: str, settings: bytes) -> bytes:
        """Build the worker; says what it is, or why it cannot be."""
        module, _, name = target.partition(":")
        try:
            self.worker = getattr(importlib.import_module(module), name)(unpack(settings))
            assert isinstance(self.worker, Worker)
            return pack(self.worker.about())
        except (FirsthandError, ImportError, AttributeError, OSError) as error:
            return pack({"problem": str(error)})

    async def exchange(self, messages: bytes) -> bytes:
        """What `Worker.exchange` says."""
        assert self.worker is not None
        return pack(await self.worker.exchange(unpack(messages)))


class RayWorker:
    """One actor, as a Remote."""

    def __init__(self, ray: Any, actor: Any, name: str):
        self.ray, self.actor, self.name = ray, actor, name
        self.open = True

    async def begin(self, plan: Plan) -> None:
        """Wait until it is there and has built its agents. Lost if it ends before, ConfigError if it cannot work."""
        said = unpack(await self._ask(self.actor.begin.remote(plan.target, pack(plan.settings))))
        problem = said.get("problem") or difference(plan.expected, said)
        if problem:
            raise ConfigError(
                f"the worker on {self.name} cannot take part: {problem}; every machine needs the same firsthand, "
                "models under the same paths, and the keys in its environment"
            )

    async def exchange(self, messages: Sequence[Json]) -> list[Json]:
        """What it says to the messages."""
        said: list[Json] = unpack(await self._ask(self.actor.exchange.remote(pack(list(messages)))))
        return said

    async def close(self) -> None:
        """End it."""
        if not self.open:
            return
        self.open = False
        with suppress(Exception):  # it may be gone, and the cluster too
            self.ray.kill(self.actor, no_restart=True)

    async def _ask(self, reference: Any) -> bytes:
        return await heard(self.ray, reference, f"the worker on {self.name}")


class RayFleet:
    """The workers of a cluster that this process is connected to."""

    def __init__(self, ray: Any, plan: Plan, say: Callable[[str], None]):
        self.ray, self.plan, self.say = ray, plan, say
        self.held: dict[Place, RayWorker] = {}
        self.false_starts: Counter[Place] = Counter()
        self.problem = ""
        self.gone = False
        """Whether the head of the cluster is: then Ray is asked no more, for it would wait a minute and end the process."""
        client = ray.util.client.ray.is_connected()
        self.head = None if client else ray.get_runtime_context().gcs_address

    async def workers(self) -> AsyncGenerator[RayWorker, None]:
        """Workers as they get ready; new ones where one was lost or a machine has joined."""
        starting: dict[asyncio.Task[None], Place] = {}
        began, told = time.monotonic(), False
        shares(self.ray.nodes(), self.plan.count, gpus=self.plan.gpus)  # with too many, before anything is started
        try:
            while True:
                await self._expect_head()
                for place in self._hire():
                    starting[asyncio.create_task(self.held[place].begin(self.plan))] = place
                if not self.held:
                    raise ConfigError(f"no worker can begin: {self.problem}")
                if starting:
                    await asyncio.wait(starting, timeout=LOOK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(LOOK_AGAIN_S)
                for task in [task for task in starting if task.done()]:
                    if await self._ready(task, place := starting.pop(task)):
                        told = True
                        yield self.held[place]
                if not told and time.monotonic() - began > UNTIL_TOLD_S:
                    told = True
                    self.say(
                        "no worker has begun yet: the cluster's CPUs or GPUs are in use, or a model is being loaded"
                    )
        finally:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
            for worker in [] if self.gone else self.held.values():
                await worker.close()

    async def _expect_head(self) -> None:
        """ConfigError if the head of the cluster has not answered for a while."""
        if self.head is None:
            return
        host, _, port = self.head.rpartition(":")
        began = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(UNTIL_DEAD_S):
                    _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
                writer.close()
                return
            except OSError:
                if time.monotonic() - began > UNTIL_GONE_S:
                    self.gone = True
                    for worker in self.held.values():
                        worker.open = False
                    raise ConfigError(
                        f"the head of the Ray cluster, {self.head}, is gone: resume the run on another cluster, or here "
                        "without --on"
                    ) from None
            await asyncio.sleep(LOOK_AGAIN_S)

    def _hire(self) -> list[Place]:
        """The places of the cluster that had no worker, each with a new one, which is about to begin."""
        nodes, count = self.ray.nodes(), self.plan.count
        wanted = shares(nodes, count, gpus=self.plan.gpus, strict=False)
        self.held = {place: worker for place, worker in self.held.items() if worker.open}
        hired = []
        for place, share in wanted.items():
            taken = place in self.held or self.false_starts[place] >= MAX_FALSE_STARTS
            if not taken and (count is None or len(self.held) < count):
                self.held[place] = self._start(place, share, name_of(nodes, place.node))
                hired.append(place)
        return hired

    def _start(self, place: Place, share: Share, name: str) -> RayWorker:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(place.node, soft=False)
        actor = self.ray.remote(Actor).options(
            num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0, scheduling_strategy=there
        )
        return RayWorker(self.ray, actor.remote(), name)

    async def _ready(self, task: asyncio.Task[None], place: Place) -> bool:
        """Whether a worker that was started can be used. Where one cannot, no other is tried; one that was lost may be."""
        try:
            task.result()
        except (Lost, ConfigError) as error:
            await self.held[place].close()
            self.false_starts[place] += 1 if isinstance(error, Lost) else MAX_FALSE_STARTS
            self.problem = str(error)
            if self.false_starts[place] >= MAX_FALSE_STARTS:
                self.say(self.problem)
            return False
        self.false_starts[place] = 0
        return True


@contextmanager
def on_ray(
    address: str | None, plan: Plan, *, folder: Path | None, home: Path, say: Callable[[str], None]
) -> Iterator[RayFleet]:
    """A fleet on the cluster at the address, or the one this machine is in, or one of this machine alone.

    `folder`, if given, is what the workers find as their working folder; of what lies in it, `home` stays here.
    """
    ray = importlib.import_module("ray")
    options: Json = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    if folder is not None:
        kept = [f"/{home.relative_to(folder)}"] if home.is_relative_to(folder) and home != folder else []
        options["runtime_env"] = {"working_dir": str(folder), "excludes": [*STAYS_HERE, *kept]}
    try:
        connect(ray, address, options)
    except FirsthandError:
        raise
    except Exception as error:
        where = f"the Ray cluster at {address}" if address else "a Ray cluster on this machine"
        raise ConfigError(f"{where} cannot be used: {reason(error)}") from None
    fleet = RayFleet(ray, plan, say)
    try:
        with quiet():
            yield fleet
    finally:
        if not fleet.gone:
            ray.shutdown()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Ray from printing the last log lines of a machine that was lost: what matters of it we say in a sentence."""
    printing: Any = importlib.import_module("ray._private.worker")
    before = getattr(printing, "_worker_logs_enabled", True)
    printing._worker_logs_enabled = False
    try:
        yield
    finally:
        printing._worker_logs_enabled = before


def expect_cluster(address: str | None) -> None:
    """MissingExtra without Ray; ConfigError if nothing answers at the address. Ray itself would try for minutes."""
    if find_spec("ray") is None:
        raise MissingExtra("ray", "cluster", "--on ray")
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None or address in ("auto", "local") or "://" in address:
        return
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 1 << 16):
        raise ConfigError(
            f"{address!r} is no address of a Ray cluster: give HOST:PORT, as `ray start --head` prints it"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=UNTIL_DEAD_S).close()
    except OSError as error:
        raise ConfigError(
            f"no Ray cluster answers at {address} ({error.strerror or error}): see `ray status`, or start one with "
            "`ray start --head`"
        ) from None


def connect(ray: Any, address: str | None, options: Json) -> None:
    """Connect to a cluster, or start one of this machine alone where none was named and none runs."""
    if address is None:
        try:
            ray.init(address="auto", **{key: value for key, value in options.items() if key != "include_dashboard"})
            return
        except ConnectionError:
            ray.init(address="local", object_store_memory=LOCAL_STORE_BYTES, **options)
            return
    ray.init(address=address, **{key: value for key, value in options.items() if key != "include_dashboard"})


def shares(
    nodes: Sequence[Mapping[str, Any]], count: int | None, *, gpus: bool, strict: bool = True
) -> dict[Place, Share]:
    """A place for each worker, and what it takes of its machine.

    Without a `count`: one for each GPU if `gpus` can be used and there are any, otherwise one for each machine with a CPU.
    With one: that many, spread over the machines. No machine is a ConfigError, and so is too high a count if `strict`.
    """
    room: dict[str, tuple[int, int]] = {}
    for node in nodes:
        resources = node.get("Resources", {})
        if node["Alive"] and resources.get("CPU", 0) >= 1:
            room[node["NodeID"]] = (int(resources["CPU"]), int(resources.get("GPU", 0)) if gpus else 0)
    on_gpus = any(num_gpus for _, num_gpus in room.values())
    most = {node: min(each) if on_gpus else each[0] for node, each in room.items() if each[1] or not on_gpus}
    if not most:
        raise ConfigError("no machine of the Ray cluster has a CPU to give: start one with `ray start --address=...`")
    if strict and count is not None and count > sum(most.values()):
        each = "GPU" if on_gpus else "CPU"
        raise ConfigError(
            f"workers is {count}, and the cluster has room for {sum(most.values())}, one for each {each}: ask for fewer"
        )
    numbers = most if on_gpus else dict.fromkeys(most, 1)
    if count is not None:
        numbers = dict.fromkeys(most, 0)
        while sum(numbers.values()) < min(count, sum(most.values())):
            free = [node for node in most if numbers[node] < most[node]]
            numbers[min(free, key=numbers.__getitem__)] += 1
    return {
        Place(node, at): Share(room[node][0] // number, int(on_gpus))
        for node, number in numbers.items()
        for at in range(number)
    }


def name_of(nodes: Sequence[Mapping[str, Any]], node_id: str) -> str:
    """The machine's name, as its owner knows it, and the beginning of its id, for several may run on one machine."""
    found = next((node for node in nodes if node["NodeID"] == node_id), {})
    return f"{found.get('NodeManagerHostname', 'an unknown machine')} ({node_id[:6]})"


async def heard(ray: Any, reference: Any, who: str) -> bytes:
    """What an actor answers; Lost, with `who` it was, if it is gone."""
    try:
        answer: bytes = await reference
    except ray.exceptions.RayTaskError:  # a bug of ours over there keeps its traceback
        raise
    except ray.exceptions.RayError as error:
        raise Lost(f"{who} was lost ({reason(error)})") from None
    return answer


def reason(error: BaseException) -> str:
    """What went wrong, in one short line, without Ray's ids and logs."""
    text = " ".join(str(error).split())
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "No module named 'firsthand" in text:
        return "firsthand is not installed there, or is another version: install the same one on every machine"
    if "Version mismatch" in text:
        return (
            "this process has another version of Ray or Python than the cluster: " + text[text.index(":") + 1 :].strip()
        )
    if "exceeds the maximum size" in text:
        return "the folder this was started in is too large to travel: start in one that holds only what the run names"
    if "OutOfMemoryError" in kinds:
        return "its machine ran out of memory"
    if "node has died" in text or "node was terminated" in text or "NodeDiedError" in kinds:
        return "its machine is gone"
    if "ActorUnavailableError" in kinds:
        return "it cannot be reached any more"
    if "creation task" in text or "__init__" in text:
        return text[:300]
    return "its process ended" if "ActorDiedError" in kinds else text[:300] or type(error).__name__
