"""Single calls of what runs code outside of bubblewrap: containers and Monty, each with a stand-in for its program."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import SandboxError
from firsthand.sandbox import container, monty, repository_workspace
from firsthand.sandbox.bubblewrap import SandboxRun
from firsthand.sandbox.container import Container
from firsthand.sandbox.repository_workspace import ContainerPlace, _written, work
from firsthand.sandbox.sandbox import Outcome, _on_monty, offers
from firsthand.sandbox.sandbox_limits import RunLimits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the programs are those of Linux")

DOCKER = """#!/bin/sh
line=$(for word; do printf '%s|' "$word" | head -c 300 | tr '\\n' ' '; done)
printf '%s\\n' "$line" >> {home}/log
case "$1" in
run) case "$*" in *"exec cat"*) {start}; exec cat;; esac; cat > {home}/given; printf out; exit 5;;
exec) shift 5; exec "$@";;
esac
"""


def docker(home: Path, start: str = "echo ready") -> str:
    (home / "docker").write_text(DOCKER.format(home=home, start=start))
    (home / "docker").chmod(0o755)
    return str(home / "docker")


def log(home: Path) -> list[list[str]]:
    """The words of each call of docker."""
    return [line.rstrip("|").split("|") for line in (home / "log").read_text().splitlines()]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def streams(process: subprocess.Popen[bytes]) -> list[bool]:
    """Whether each stream of a process is closed."""
    return [stream is not None and stream.closed for stream in (process.stdin, process.stdout, process.stderr)]


def test_a_container_is_removed_by_its_name_and_leaves_no_descriptor(tmp_path: Path) -> None:
    made = Container(docker=docker(tmp_path), packages=[tmp_path / "x" / ".."])
    assert made.packages == [tmp_path.resolve()]
    before, threads = open_files(), set(threading.enumerate())
    run = SandboxRun("python", "1", RunLimits())
    report = made.run(run)
    assert (report.stdout, report.stderr, report.body["status"], run.socket) == (b"out", b"", 5 << 8, None)
    started, removed = log(tmp_path)
    name = started[started.index("--name") + 1]
    assert removed == ["rm", "--force", name] and name.startswith("firsthand-") and len(name) == 26
    assert open_files() <= before and set(threading.enumerate()) <= threads  # one of another test may have ended
    missing = Container(docker=str(tmp_path / "none"))
    with pytest.raises(SandboxError, match=r"^docker does not start: No such file or directory$"):
        missing.run(run)
    assert run.socket is None and open_files() == before
    run.stop()
    assert made.run(run).body["killed"] == "stopped" and open_files() == before


@pytest.mark.slow
def test_a_workplace_keeps_its_commit_apart_and_runs_each_command_in_the_testbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository_workspace, "_KEEP", "echo kept\n")
    monkeypatch.setattr(repository_workspace, "_CONDA", "in=conda\n")
    limits = RunLimits(wall_s=7.5, output_bytes=100)

    async def main() -> None:
        before = open_files()
        place = ContainerPlace("img", engine=docker(tmp_path), limits=limits)
        await place.open()
        head = ["exec", "--interactive", "--workdir", "/testbed", place.name, "timeout", "--kill-after=5"]
        assert log(tmp_path)[1:] == [[*head, "600", "bash", "-c", "in=conda echo kept "]], "ten minutes for a large one"
        found = await place.shell("echo $in; cat; echo e >&2; exit 3", stdin="é\udcff")
        assert found == Outcome("error", 3, "conda\né\ufffd", "e\n", found.wall_s, None, None, "docker")
        assert log(tmp_path)[2][7:10] == ["7.5", "bash", "-c"]
        await place.shell("true", limits=RunLimits(wall_s=90.0))
        assert log(tmp_path)[3][7] == "90"
        stopping = asyncio.Event()
        ended = place._run(["sh", "-c", "echo a; exit 4"], b"", RunLimits(wall_s=5), stopping)
        assert (ended.ended, ended.exit_status, ended.stdout) == ("error", 4, "a\n") and 0 < ended.wall_s < 5
        answers = "dd bs=8192 count=1 2>/dev/null >&2; head -c 300000 /dev/zero; wc -c"  # between two reads
        whole = place._run(["sh", "-c", answers], b"x" * 200_000, RunLimits(wall_s=5), stopping)
        assert (whole.ended, whole.stdout) == ("done", "\0" * 300_000 + "191808\n")
        stopping.set()
        ended = place._run(["sleep", "5"], b"", RunLimits(wall_s=5), stopping)
        assert (ended.ended, ended.exit_status) == ("killed", None) and ended.wall_s < 4
        process = place._process
        assert process is not None
        process.kill()
        process.wait()
        with pytest.raises(SandboxError, match=r"^the container of img is gone: begin again$"):
            await place.shell("true")
        await place.close()
        removed = ["rm", "--force", place.name]  # a call of docker that was killed may write its line after that
        assert removed in log(tmp_path)[-2:] and place._process is None
        assert open_files() <= before + 3, "the event loop's own"
        assert streams(process) == [True] * 3
        calls = len(log(tmp_path))
        await place.close()
        assert len(log(tmp_path)) == calls, "it is removed once"
        with pytest.raises(SandboxError, match=r"^the container of img is gone: begin again$"):
            await place._exec(["true"], "", limits)

    asyncio.run(main())


def test_what_a_full_pipe_does_not_take_is_left_and_what_nobody_reads_is_gone() -> None:
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        data = memoryview(bytes(range(256)) * 1024)
        assert _written(writing, memoryview(b"")) == 0 and _written(writing, data) == 65536, "at most so much at once"
        while (count := _written(writing, data)) > 0:
            assert count <= 65536
        assert _written(writing, data) == _written(writing, data[:1]) == 0, "it is full"
        assert os.read(reading, 65536) == bytes(data[:65536])
        assert 0 < _written(writing, data[:10]) == 10
        os.close(reading)
        assert _written(writing, data) == len(data) and _written(writing, data[:3]) == 3, "nobody reads any more"
        assert _written(writing, memoryview(b"")) == 0
    finally:
        os.close(writing)


def test_a_workplace_that_says_something_else_than_ready_has_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(start: str) -> str:
        async def main() -> str:
            place = ContainerPlace("img", engine=docker(tmp_path, start))
            with pytest.raises(SandboxError) as error:
                await place.open()
            assert place._process is not None and place._process.wait() == -9
            await place.close()
            return str(error.value)

        return asyncio.run(main())

    assert refused("echo why >&2; echo ready now") == "no container of img starts: why"
    monkeypatch.setattr(repository_workspace, "START_S", 0.1)
    assert refused("sleep 0.2") == "no container of img starts: it said nothing"


def test_a_container_that_cannot_be_removed_is_named_and_its_client_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docker").write_text(
        """#!/bin/sh
case "$1" in
rm) exec sleep 9;;
run) case "$*" in *"exec cat"*) echo ready; exec cat;; *) cat >/dev/null; printf out;; esac;;
esac
"""
    )
    (tmp_path / "docker").chmod(0o755)
    engine = str(tmp_path / "docker")
    assert container.REMOVE_S == 60.0
    monkeypatch.setattr(container, "REMOVE_S", 0.1)
    words = r"^docker does not answer, and the container firsthand-[0-9a-f]{16} may still run: remove it when it does$"
    run, before = SandboxRun("python", "1", RunLimits()), open_files()
    with pytest.raises(SandboxError, match=words):
        Container(docker=engine).run(run)
    assert run.socket is None and open_files() == before

    async def main() -> None:
        place = ContainerPlace("img", engine=engine)
        await place.open()
        process = place._process
        assert process is not None
        with pytest.raises(SandboxError, match=words.replace("firsthand-[0-9a-f]{16}", place.name)):
            await place.close()
        assert (process.returncode, streams(process), place._process) == (-9, [True] * 3, None)
        await place.close()

    asyncio.run(main())
    with pytest.raises(SandboxError, match=r"^docker does not answer, and the container named may still run"):
        container.remove("/none/docker", "named")


def test_a_docker_that_has_said_all_and_does_not_end_has_run_out_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docker").write_text('#!/bin/sh\n[ "$1" = rm ] && exit\nprintf out\nexec >&- 2>&-\nexec sleep 9\n')
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setattr(container, "GRACE_S", 0.2)
    report = Container(docker=str(tmp_path / "docker")).run(SandboxRun("python", "1", RunLimits()))
    assert (report.stdout, report.body["killed"], report.body["status"]) == (b"out", "timeout", None)
    assert not report.flooded and 0.2 <= report.body["wall_s"] < 8


def test_a_docker_that_does_not_answer_has_no_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    answers: list[Any] = []

    def run(command: list[str], **given: Any) -> Any:
        asked.append((command, given))
        answer = answers.pop()
        if isinstance(answer, Exception):
            raise answer
        return subprocess.CompletedProcess(command, 0, answer, b"")

    monkeypatch.setattr(container.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(container.subprocess, "run", run)
    command = ["docker", "info", "--format", "{{json .Runtimes}}"]

    def found(answer: Any) -> frozenset[str]:
        answers.append(answer)
        container.runtimes.cache_clear()
        assert container.runtimes() is container.runtimes(), "asked once"
        return container.runtimes()

    try:
        assert found(subprocess.TimeoutExpired(command, 20)) == frozenset()
        assert asked == [(command, {"capture_output": True, "timeout": 20, "check": True})]
        for wrong in (subprocess.CalledProcessError(1, command), OSError(), b"\xff", b"", b"{"):
            assert found(wrong) == frozenset(), wrong
        assert [found(b"{}"), found(b'{"runc": {}, "x": null}')] == [frozenset(), frozenset({"runc", "x"})]
    finally:
        container.runtimes.cache_clear()


def test_a_request_to_a_repository_names_its_function_and_its_root(tmp_path: Path) -> None:
    asked: list[Any] = []

    class Place:
        async def shell(self, command: str, **given: Any) -> Outcome:
            asked.append((command, given))
            return Outcome("done", 0, '{"result": {"a": null}}', "", 1.0, None, None, "docker")

    assert asyncio.run(work(Place(), "diff", base="/b", most=3)) == {"a": None}  # type: ignore[arg-type]
    source = Path(repository_workspace.__file__).parent / "programs" / "inside.py"
    assert asked == [("exec python3 -I /tmp/work/inside.py", {
        "stdin": '{"do": "diff", "with": {"root": "/testbed", "base": "/b", "most": 3}}',
        "files": {"inside.py": source.read_text(encoding="utf-8")},
        "limits": RunLimits(wall_s=120, cpu_s=120, memory_bytes=2**31, output_bytes=8 * 2**20, scratch_bytes=2**29,
                            scratch_files=200_000),
    })]  # fmt: skip


# -- Monty --


class Session:
    """Takes the place of an interpreter: writes what the code says, or raises it."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def checkout(self, **given: Any) -> Session:
        self.asked.append(given)
        return self

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.asked.append("left")

    def feed_run(self, code: str, print_callback: Any) -> None:
        if code.startswith("raise "):
            raise getattr(sys.modules["pydantic_monty"], code[6:], None) or getattr(__builtins__, code[6:], KeyError)  # type: ignore[misc]
        print_callback.output = [tuple(line.split(":")) for line in code.split()]


def package(**more: Any) -> types.ModuleType:
    """Takes the place of the package."""
    made = types.ModuleType("pydantic_monty")

    class CollectStreams:
        def __init__(self, max_bytes: int) -> None:
            self.max_bytes, self.output = max_bytes, list[Any]()
            made.streams = self  # type: ignore[attr-defined]

    class MontyError(Exception):
        pass

    vars(made).update(CollectStreams=CollectStreams, MontyError=MontyError, **more)
    return made


def test_a_run_on_monty_has_its_limits_and_counts_only_if_it_wrote_to_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    module = package(TimeoutError=TimeoutError, ValueError=ValueError, TypeError=TypeError)
    monkeypatch.setitem(sys.modules, "pydantic_monty", module)
    limits = RunLimits(wall_s=0.03, memory_bytes=2**27, output_bytes=77)

    def tried(code: str, kind: str = "python", limits: RunLimits = limits) -> tuple[str | None, list[Any]]:
        pool = Session()
        found = monty._attempt(pool, SandboxRun(kind, code, limits))
        assert found is None or 0 <= found.wall_s < 5
        return found and found.stdout, pool.asked

    given = {"limits": {"max_feed_duration_secs": 0.03, "max_memory": 2**27}, "assert_message_annotations": False}
    assert tried("stdout:a stdout:b") == ("ab", [given, "left"]) and module.streams.max_bytes == 77
    assert tried("", limits=RunLimits(wall_s=9))[1][0]["limits"] == {
        "max_feed_duration_secs": 0.05,
        "max_memory": 2**29,
    }
    assert tried("stdout:a stderr:b")[0] is None and tried("stdout:a", "cell") == (None, [])
    for error in ("MontyError", "TimeoutError", "ValueError", "TypeError"):
        assert tried(f"raise {error}")[0] is None
    with pytest.raises(KeyError):
        tried("raise Other")


def test_monty_is_asked_for_once_and_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    class Monty:
        def __init__(self, request_timeout: float) -> None:
            started.append(request_timeout)

        def __enter__(self) -> Session:
            if len(started) > 1:
                raise OSError("no program")
            return Session()

    whole = monty._pool.__wrapped__
    monkeypatch.setitem(sys.modules, "pydantic_monty", None)
    assert whole(1) is None
    monkeypatch.setitem(sys.modules, "pydantic_monty", package(Monty=Monty))
    assert isinstance(whole(1), Session) and started == [60.0] and whole(1) is None
    monkeypatch.setattr(monty, "_is_alike", lambda code: code == "stdout:x")
    run, pids = SandboxRun("python", "stdout:x", RunLimits()), list[int]()
    for pool, outcome in ((None, None), (Session(), "x")):
        monkeypatch.setattr(monty, "_pool", lambda pid, pool=pool: pids.append(pid) or pool)
        found = asyncio.run(monty.attempt(run))
        told = asyncio.run(_on_monty(run))
        assert (found and found.stdout, told and told.stdout) == (outcome, outcome)
    assert told == Outcome("done", 0, "x", "", told.wall_s, None, None, "monty") and set(pids) == {os.getpid()}


def test_monty_that_cannot_start_for_whatever_reason_is_none_and_an_interrupt_is_no_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors: list[BaseException] = [OSError(), RuntimeError(), ValueError(), TimeoutError(), Exception("its own")]

    class Monty:
        def __init__(self, request_timeout: float) -> None:
            if at_once:
                raise errors[0]

        def __enter__(self) -> Session:
            raise errors[0]

    whole = monty._pool.__wrapped__
    monkeypatch.setitem(sys.modules, "pydantic_monty", package(Monty=Monty))
    for at_once in (True, False) * 5:
        assert whole(1) is None
        if not at_once:
            del errors[0]
    at_once = False
    errors.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        whole(1)
    monkeypatch.setitem(sys.modules, "pydantic_monty", package())
    assert whole(1) is None, "an older package, without the class"


def test_a_module_is_offered_by_its_files(tmp_path: Path) -> None:
    for name in ("one/__init__.py", "two.py", "three.abi3.so", "four.txt", "five.pyi", "sixth.py"):
        (tmp_path / "b" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "b" / name).touch()
    (tmp_path / "a").mkdir()
    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "none"]
    names = ("json", "one", "two", "three", "four", "five", "six", "seven")
    assert [offers(name, folders) for name in names] == [True, True, True, True, False, False, False, False]
    assert offers("math", []) and not offers("two", folders[:1]) and not offers("two", [])
