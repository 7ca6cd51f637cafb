"""What a sandbox asks of its runners, and when it keeps, replaces and closes them, with runners that record."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import SandboxError
from firsthand.sandbox.bubblewrap import Report, SandboxRun
from firsthand.sandbox.memory_share import machine_share
from firsthand.sandbox.sandbox import Sandbox, _Pool
from firsthand.sandbox.sandbox_limits import RunLimits, Workspace

DONE = {"killed": None, "status": 0, "cpu_s": 0.0, "peak_bytes": 0, "wall_s": 0.0}


class Runner:
    """Answers each run with the proof of a check, or as the code says."""

    def __init__(self) -> None:
        self.runs: list[SandboxRun] = []
        self.alive, self.closed = True, 0
        self.entered, self.go_on = threading.Event(), threading.Event()

    def run(self, run: SandboxRun) -> Report:
        self.runs.append(run)
        if run.code == "fail":
            raise SandboxError("it failed")
        if run.code == "interrupt":
            raise KeyboardInterrupt
        if run.code == "wait":
            self.entered.set()
            assert self.go_on.wait(10)
        proof = json.loads(run.stdin)["proof"] if run.kind == "check" else ""
        return Report(f"{run.code}{proof}".encode(), b"", False, dict(DONE))

    def close(self) -> None:
        self.closed += 1


class Pool(_Pool):
    """A pool of these runners."""

    def __init__(self, size: int = 1) -> None:
        super().__init__("docker", [], size)
        self.made: list[Runner] = []

    def open(self) -> Any:
        self.made.append(Runner())
        return self.made[-1]


def run(code: str) -> SandboxRun:
    return SandboxRun("python", code, RunLimits())


def test_a_runner_is_kept_while_it_lives_and_closed_when_it_fails() -> None:
    pool = Pool()
    assert [pool.carry_out(run(code)).stdout for code in ("a", "b")] == [b"a", b"b"] and len(pool.made) == 1
    pool.made[0].alive = False
    assert pool.carry_out(run("c")).stdout == b"c"
    assert (len(pool.made), pool.made[0].closed, pool.made[1].closed, pool.idle) == (2, 1, 0, pool.made[1:])
    with pytest.raises(SandboxError, match="it failed"):
        pool.carry_out(run("fail"))
    assert (pool.made[1].closed, pool.idle, pool.running) == (1, [], set())
    held = run("wait")
    future = pool.submit(held)
    while len(pool.made) < 3:
        time.sleep(0.001)
    last = pool.made[2]
    assert last.entered.wait(10) and pool.running == {held} and pool.idle == []
    queued = pool.submit(run("never"))
    closing = threading.Thread(target=pool.close)
    closing.start()
    assert pool.closing.wait(10)
    last.go_on.set()
    closing.join()
    assert future.result().stdout == b"wait" and held.stopped and (last.closed, pool.idle) == (1, [])
    assert queued.cancelled() and [each.code for each in last.runs] == ["wait"]
    with pytest.raises(SandboxError, match="this sandbox is closed: open another one"):
        pool.submit(run("d"))
    with pytest.raises(SandboxError, match="this sandbox was closed before the code was run"):
        pool.carry_out(run("d"))


def test_idle_runners_are_closed_with_their_pool() -> None:
    pool = Pool(2)
    for _ in range(2):
        pool.carry_out(run("a"))
    pool.close()
    assert [each.closed for each in pool.made] == [1] and pool.idle == []


def test_a_worker_that_held_a_workspace_is_not_replaced() -> None:
    pool = _Pool("bubblewrap", [], 1, Workspace())
    pool.opened = True
    with pytest.raises(SandboxError, match="the worker that held this workspace is gone, and the workspace with it"):
        pool.carry_out(run("a"))
    pool.close()


def test_each_way_to_run_code_asks_for_its_own_kind() -> None:
    limits, own = RunLimits(wall_s=3), RunLimits(wall_s=4)

    async def main() -> tuple[list[Any], Pool]:
        with Sandbox(limits, tier="docker", workers=1) as sandbox:
            sandbox._pool.close()
            pool = Pool()
            sandbox._pool = pool
            files = {"a": "b"}
            outcomes = [
                await sandbox.python("p"),
                await sandbox.python("p", stdin="in", files=files, limits=own, cell=True, name="n"),
                await sandbox.python("p", cell=True, ours=True),
                await sandbox.python("p", pure=True, stdin="in"),
                await sandbox.shell("s", stdin="in", files=files, limits=own),
                await sandbox.check("answer", "tests", setup="setup", names=("x", "y"), load_s=2, limits=own),
                await sandbox.check("answer", "tests"),
            ]
            pool.close()
            return outcomes, pool

    outcomes, pool = asyncio.run(main())
    assert [(each.ended, each.stdout, each.tier) for each in outcomes] == [
        *[("done", "p", "docker")] * 4, ("done", "s", "docker"), *[("done", "", "docker")] * 2,
    ]  # fmt: skip
    runs = pool.made[0].runs
    assert [(each.kind, each.code, each.name, each.limits.wall_s, each.files, each.folder) for each in runs] == [
        ("python", "p", "<python>", 3, {}, ""), ("cell", "p", "n", 4, {"a": "b"}, ""),
        ("program", "p", "<python>", 3, {}, ""),
        ("python", "p", "<python>", 3, {}, ""), ("shell", "s", "<python>", 4, {"a": "b"}, ""),
        ("check", "", "<tests>", 4, {"answer.py": "answer"}, ""), ("check", "", "<tests>", 3, {"answer.py": "answer"}, ""),
    ]  # fmt: skip
    assert [each.stdin for each in runs[:5]] == ["", "in", "", "in", "in"]
    one, two = (json.loads(each.stdin) for each in runs[5:])
    assert one == {"tests": "tests", "setup": "setup", "names": ["x", "y"], "load_s": 2, "proof": one["proof"]}
    assert (two["setup"], two["names"]) == ("", []) and one["proof"] != two["proof"] and len(one["proof"]) == 64


def test_a_runner_whose_run_was_interrupted_is_closed_and_not_used_again() -> None:
    pool = Pool()
    with pytest.raises(KeyboardInterrupt):
        pool.carry_out(run("interrupt"))
    assert (pool.made[0].closed, pool.idle, pool.running) == (1, [], set())
    assert pool.carry_out(run("a")).stdout == b"a" and len(pool.made) == 2
    pool.close()


def test_a_cancelled_run_that_waits_for_another_is_never_begun() -> None:
    async def main() -> list[str]:
        with Sandbox(tier="docker", workers=1) as sandbox:
            sandbox._pool.close()
            pool = Pool()
            sandbox._pool = pool
            first = asyncio.create_task(sandbox.python("wait"))
            while not pool.made or not pool.made[0].entered.is_set():
                await asyncio.sleep(0.001)
            second = asyncio.create_task(sandbox.python("never"))
            await asyncio.sleep(0.001)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(second, 5)
            pool.made[0].go_on.set()
            await first
            pool.close()
            return [each.code for each in pool.made[0].runs]

    assert asyncio.run(main()) == ["wait"]


def test_a_cancelled_run_is_stopped_before_its_caller_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        with Sandbox(tier="docker", workers=1) as sandbox:
            sandbox._pool.close()
            pool = Pool()
            sandbox._pool = pool
            running = asyncio.create_task(sandbox.python("wait"))
            while not pool.made or not pool.made[0].entered.is_set():
                await asyncio.sleep(0.001)
            running.cancel()
            await asyncio.sleep(0.01)
            assert pool.made[0].runs[0].stopped and not running.done(), "it waits for the run to end"
            pool.made[0].go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await running
            pool.close()

    asyncio.run(main())


def test_checks_take_their_memory_from_the_machines_share_and_other_runs_do_not() -> None:
    pool, share = Pool(), machine_share()
    for kind, taken in (("python", 0), ("check", RunLimits().memory_bytes)):
        held = SandboxRun(kind, "wait", RunLimits(), stdin='{"proof": ""}')
        before, future = share.taken_bytes, pool.submit(held)
        while not pool.made:
            pass
        assert pool.made[0].entered.wait(10)
        assert share.taken_bytes - before == taken
        pool.made[0].go_on.set()
        future.result(10)
        assert share.taken_bytes == before
        pool.made[0].entered.clear(), pool.made[0].go_on.clear()
    pool.close()
