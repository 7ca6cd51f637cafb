"""Workers of a run on a Ray cluster: one actor per GPU, or per machine where there are none.

This process connects to the cluster, keeps a worker on every machine that has room, replaces lost ones, and finds machines
that join. An actor builds its agents from the run's settings with a function that Ray imports by name, so it loads each
model once. Messages are bytes; the cluster stores none of the run. Ray is the extra `cluster`.
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
"""Parts of the working folder that are never sent to workers."""
LOOK_AGAIN_S = 2.0
"""Seconds between two looks at the cluster's machines."""
MAX_FALSE_STARTS = 3
"""Workers in a row that may end before they are ready; one more ends the run."""
UNTIL_DEAD_S = 10.0
"""Seconds that a cluster may take to accept a connection."""
UNTIL_GONE_S = 20.0
"""Seconds that the head of the cluster may not answer: Ray can restart it."""
UNTIL_TOLD_S = 20.0
"""Seconds without any worker after which the user is told."""


class WorkerSlot(NamedTuple):
    """A place for one worker: the id of the machine, and the worker's number there."""

    node: str
    at: int


class Share(NamedTuple):
    """The CPUs and GPUs of a machine that one worker takes."""

    cpus: float
    gpus: float


BuildWorker = Callable[[Json], Worker]
"""A run's settings as plain data -> a Worker."""


@dataclass(frozen=True)
class WorkerSpec:
    """Describes the workers of one run: all are built alike."""

    build: BuildWorker
    """A function at the top of a module, so that Ray imports it on the worker's machine by its name."""
    settings: Json
    """Plain data, the argument of `build`."""
    expected: Json
    """`Worker.about` as it must be there."""
    count: int | None = None
    """This many workers, or one for each GPU or machine."""
    gpus: bool = False
    """True if a worker can use a GPU."""


class Actor:
    """Runs a Worker on the cluster; messages are bytes."""

    def __init__(self) -> None:
        self.worker: Worker | None = None

    async def begin(self, build: BuildWorker, settings: bytes) -> bytes:
        """Build the worker; returns its `about`, or the problem."""
        try:
            self.worker = build(unpack(settings))
            return pack(self.worker.about())
        except (FirsthandError, ImportError, AttributeError, OSError) as error:
            return pack({"problem": str(error) or type(error).__name__})

    async def exchange(self, messages: bytes) -> bytes:
        """As `Worker.exchange`, packed."""
        assert self.worker is not None
        return pack(await self.worker.exchange(unpack(messages)))


class RayWorker:
    """One actor on the cluster, as a Remote."""

    def __init__(self, ray: Any, actor: Any, name: str):
        self.ray, self.actor, self.name = ray, actor, name
        self.open = True

    async def begin(self, spec: WorkerSpec) -> None:
        """Wait until it has started and built its agents. Lost if it ends before, ConfigError if it cannot work."""
        found = self._read(await self._ask(self.actor.begin.remote(spec.build, pack(spec.settings))))
        try:
            problem = found.get("problem") or difference(spec.expected, found)
        except AttributeError:
            raise Lost(f"the worker on {self.name} sent what is no description of a worker") from None
        if problem:
            raise ConfigError(
                f"the worker on {self.name} cannot take part: {problem}; every machine needs the same firsthand, "
                "models under the same paths, and the keys in its environment"
            )

    async def exchange(self, messages: Sequence[Json]) -> list[Json]:
        """Give it messages and return its own."""
        replies: list[Json] = self._read(await self._ask(self.actor.exchange.remote(pack(list(messages)))))
        return replies

    async def close(self) -> None:
        """End it."""
        if not self.open:
            return
        self.open = False
        with suppress(Exception):  # it may be gone, and the cluster too
            self.ray.kill(self.actor, no_restart=True)

    async def _ask(self, reference: Any) -> bytes:
        return await reply_of(self.ray, reference, f"the worker on {self.name}")

    def _read(self, data: bytes) -> Any:
        try:
            return unpack(data)
        except (ValueError, TypeError, RecursionError):
            raise Lost(f"the worker on {self.name} sent what is no JSON, or JSON nested too deep") from None


class RayFleet:
    """The workers on the cluster that this process is connected to."""

    def __init__(self, ray: Any, spec: WorkerSpec, say: Callable[[str], None]):
        self.ray, self.spec, self.say = ray, spec, say
        self.held: dict[WorkerSlot, RayWorker] = {}
        self.false_starts: Counter[WorkerSlot] = Counter()
        self.problem = ""
        self.gone = False
        """True once the cluster's head is gone: Ray must not be called then, it would wait a minute and exit the process."""
        client = ray.util.client.ray.is_connected()
        self.head = None if client else ray.get_runtime_context().gcs_address

    async def workers(self) -> AsyncGenerator[RayWorker, None]:
        """Workers as they get ready; new ones where one was lost or a machine has joined."""
        starting: dict[asyncio.Task[None], WorkerSlot] = {}
        began, told = time.monotonic(), False
        shares(self.ray.nodes(), self.spec.count, gpus=self.spec.gpus)  # with too many, before anything is started
        try:
            while True:
                await self._expect_head()
                for slot in self._hire():
                    starting[asyncio.create_task(self.held[slot].begin(self.spec))] = slot
                if not self.held:
                    raise ConfigError(f"no worker can begin: {self.problem}")
                if starting:
                    await asyncio.wait(starting, timeout=LOOK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(LOOK_AGAIN_S)
                for task in [task for task in starting if task.done()]:
                    if await self._ready(task, slot := starting.pop(task)):
                        told = True
                        yield self.held[slot]
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

    def _hire(self) -> list[WorkerSlot]:
        """Start a worker in every free slot of the cluster; returns those slots."""
        nodes, count = self.ray.nodes(), self.spec.count
        wanted = shares(nodes, count, gpus=self.spec.gpus, strict=False)
        self.held = {slot: worker for slot, worker in self.held.items() if worker.open}
        hired = []
        for slot, share in wanted.items():
            taken = slot in self.held or self.false_starts[slot] >= MAX_FALSE_STARTS
            if not taken and (count is None or len(self.held) < count):
                self.held[slot] = self._start(slot, share, name_of(nodes, slot.node))
                hired.append(slot)
        return hired

    def _start(self, slot: WorkerSlot, share: Share, name: str) -> RayWorker:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(slot.node, soft=False)
        actor = self.ray.remote(Actor).options(
            num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0, scheduling_strategy=there
        )
        return RayWorker(self.ray, actor.remote(), name)

    async def _ready(self, task: asyncio.Task[None], slot: WorkerSlot) -> bool:
        """True if a started worker can be used. A slot whose worker cannot work is given up; a lost one is retried."""
        try:
            task.result()
        except (Lost, ConfigError) as error:
            await self.held[slot].close()
            self.false_starts[slot] += 1 if isinstance(error, Lost) else MAX_FALSE_STARTS
            self.problem = str(error)
            if self.false_starts[slot] >= MAX_FALSE_STARTS:
                self.say(self.problem)
            return False
        self.false_starts[slot] = 0
        return True


@contextmanager
def on_ray(
    address: str | None, spec: WorkerSpec, *, folder: Path | None, home: Path, say: Callable[[str], None]
) -> Iterator[RayFleet]:
    """A fleet on the cluster at the address, else on this machine's cluster, else on one started for this run.

    `folder`, if given, becomes the workers' working folder; `home` inside it is not sent. `say` is given notices.
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
    fleet = RayFleet(ray, spec, say)
    try:
        with quiet():
            yield fleet
    finally:
        if not fleet.gone:
            ray.shutdown()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Ray from printing the last log lines of a lost machine; the user gets one sentence instead."""
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
    nodes: Sequence[Mapping[str, Any]], count: int | None, *, gpus: bool, strict: bool = True, what: str = "workers"
) -> dict[WorkerSlot, Share]:
    """The slot of each worker, and its share of the machine.

    Without a `count`: one for each GPU if `gpus` can be used and there are any, otherwise one for each machine with a CPU.
    With one: that many, spread over the machines. No machine is a ConfigError, and so is too high a count if `strict`, which
    names `what` is counted.
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
            f"{what} is {count}, and the cluster has room for {sum(most.values())}, one for each {each}: ask for fewer"
        )
    numbers = most if on_gpus else dict.fromkeys(most, 1)
    if count is not None:
        numbers = dict.fromkeys(most, 0)
        while sum(numbers.values()) < min(count, sum(most.values())):
            free = [node for node in most if numbers[node] < most[node]]
            numbers[min(free, key=numbers.__getitem__)] += 1
    return {
        WorkerSlot(node, at): Share(room[node][0] // number, int(on_gpus))
        for node, number in numbers.items()
        for at in range(number)
    }


def name_of(nodes: Sequence[Mapping[str, Any]], node_id: str) -> str:
    """The machine's host name and the beginning of its node id, because several nodes may run on one machine."""
    found = next((node for node in nodes if node["NodeID"] == node_id), {})
    return f"{found.get('NodeManagerHostname', 'an unknown machine')} ({node_id[:6]})"


async def reply_of(ray: Any, reference: Any, who: str) -> bytes:
    """The reply of an actor; Lost, naming `who` it was, if the actor is gone."""
    try:
        answer: bytes = await reference
    except ray.exceptions.RayTaskError:  # a bug of ours over there keeps its traceback
        raise
    except ray.exceptions.RayError as error:
        raise Lost(f"{who} was lost ({reason(error)})") from None
    return answer


def reason(error: BaseException) -> str:
    """The cause of a Ray error in one short line, without Ray's ids and logs."""
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
