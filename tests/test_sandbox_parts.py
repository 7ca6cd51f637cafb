"""The sandbox from outside: commands that start it, outcomes, files and workplaces, as whole values."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import platform
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, SandboxError, ToolError
from firsthand.sandbox import (
    bwrap_command,
    reader_command,
    repository_workspace,
    seccomp,
)
from firsthand.sandbox.box import exit_status
from firsthand.sandbox.bubblewrap import Report, SandboxRun, _parsed, _readable, _send
from firsthand.sandbox.container import IMAGE, Container
from firsthand.sandbox.repository_workspace import ContainerPlace, _written, work
from firsthand.sandbox.sandbox import (
    Outcome,
    Sandbox,
    _proved,
    checked,
    offers,
    outcome_of,
    shared_packages,
    site_packages,
)
from firsthand.sandbox.sandbox_limits import RunLimits, Workspace
from namespaces import WHY_NOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the program inside is for Linux")
needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


# -- outcomes --


def report(
    status: int | None, killed: str | None = None, err: bytes = b"", *, flooded: bool = False, cpu_s: float | None = 0.5
) -> Report:
    body = {"killed": killed, "status": status, "cpu_s": cpu_s, "peak_bytes": 7, "wall_s": 1.5}
    return Report(b"out\xff", err, flooded, body)


def test_a_report_is_told_by_the_cause_of_its_end() -> None:
    run = SandboxRun("python", "", RunLimits(cpu_s=2))

    def ended(*args: Any, **more: Any) -> tuple[str, int | None]:
        found = outcome_of(report(*args, **more), run, "docker")
        return found.ended, found.exit_status

    assert outcome_of(report(0, err=b"e"), run, "gvisor") == Outcome("done", 0, "out\ufffd", "e", 1.5, 0.5, 7, "gvisor")
    assert [ended(3 << 8), ended(0, flooded=True), ended(None, "timeout"), ended(None, "memory"), ended(9), ended(11)] == [
        ("error", 3), ("output", 0), ("timeout", None), ("memory", None), ("killed", -9), ("killed", -11),
    ]  # fmt: skip
    codes = (9, 2.0), (9, 1.9), (11, 2.0), (int(signal.SIGXCPU), 0.5), (9, None)
    assert [ended(status, cpu_s=used) for status, used in codes] == [
        ("timeout", -9), ("killed", -9), ("killed", -11), ("timeout", -24), ("killed", -9),
    ]  # fmt: skip
    lines = b"Traceback\nMemoryError: no\n"
    assert [ended(1 << 8, err=lines), ended(2 << 8, err=lines), ended(1 << 8, err=lines + b"more")] == [
        ("memory", 1), ("error", 2), ("error", 1),
    ]  # fmt: skip
    with pytest.raises(SandboxError, match="the sandbox was closed while the code ran"):
        ended(None, "stopped")
    done = Outcome("done", 0, "aPROOFb", "", 1, 1, 1, "docker")
    assert _proved(done, "PROOF").stdout == "ab" and _proved(done, "PROOF").ok
    assert _proved(done, "X").ended == "error"
    assert _proved(done, "X").stderr == "the tests did not run to their last line\n"
    slow = Outcome("timeout", None, "", "", 1, 1, 1, "docker")
    assert _proved(slow, "X") is slow
    assert [exit_status(Outcome("error", each, "", "", 1, 1, 1, "docker")) for each in (None, 0, 3, -9, -15)] == [
        137,
        0,
        3,
        137,
        143,
    ]


def test_what_a_worker_says_is_parsed_or_told() -> None:
    run, stopped = SandboxRun("python", "x", RunLimits()), SandboxRun("python", "x", RunLimits())
    stopped.stop()
    none = {"killed": "stopped", "status": None, "cpu_s": 0.0, "wall_s": 0.0, "peak_bytes": 0}
    assert _parsed(b'{"status": 0}', run) == {"status": 0}
    assert _parsed(b"", stopped) == none == _parsed(b'{"broken": "x"}', stopped)
    for raw, said in (
        (b"{", "the sandbox's worker ended in the middle of a run"),
        (b'{"broken": "why"}', "could not be set up: why"),
    ):
        with pytest.raises(SandboxError, match=said):
            _parsed(raw, run)
    size, body = run.packed()[:4], json.loads(run.packed()[4:])
    assert int.from_bytes(size, "big") == len(run.packed()) - 4
    assert (body["kind"], body["code"], body["name"], body["folder"], body["files"]) == (
        "python",
        "x",
        "<python>",
        "",
        {},
    )
    assert body["limits"]["wall_s"] == 10.0 and body["limits"]["memory_bytes"] == 512 * 2**20
    fd = _readable("é")
    try:
        assert os.read(fd, 9) == "é".encode() and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        assert seals == fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    finally:
        os.close(fd)
    one, two = socket.socketpair()
    one.setblocking(False)
    assert _send(one, memoryview(b"abc")) == 3 and two.recv(9) == b"abc"
    two.close()
    assert _send(one, memoryview(b"abcd")) == 4, "what nobody reads counts as sent"
    one.close()
    assert _send(one, memoryview(b"ab")) == 2, "nor does any other fault of the socket"


def test_files_and_folders_of_packages_are_named_within_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"a/b.txt": "x", "c": "y"}
    assert checked(given) == given and checked(given) is not given
    for name in ("", "/a", "../a", "a/../../b", "a\0b", "."):
        with pytest.raises(ConfigError, match=r"give a path inside the folder, such as data/input.txt"):
            checked({name: ""})
    mine = f"python{sys.version_info.major}.{sys.version_info.minor}"
    venv = tmp_path / "venv"
    (venv / "lib" / "python3.1").mkdir(parents=True)
    assert site_packages(venv) == venv
    (venv / "pyvenv.cfg").write_text("")
    with pytest.raises(ConfigError, match=rf"is of python3\.1: make one with {re.escape(mine)}, which runs here"):
        site_packages(venv)
    packages = venv / "lib" / mine / "site-packages"
    packages.mkdir(parents=True)
    assert site_packages(venv) == packages
    monkeypatch.setenv("FIRSTHAND_SANDBOX_PACKAGES", f"{venv}::{tmp_path}")
    assert shared_packages() == (packages, tmp_path)
    for name in ("pack/__init__.py", "single.py", "native.cpython-311.so", "data.txt"):
        (packages / name).parent.mkdir(exist_ok=True)
        (packages / name).touch()
    assert [offers(name, [tmp_path, packages]) for name in ("json", "pack", "single", "native", "data", "none")] == [
        True, True, True, True, False, False,
    ]  # fmt: skip
    with pytest.raises(SandboxError, match="a workspace needs bubblewrap, and the tier is docker"):
        Sandbox(tier="docker", workspace=Workspace())
    with pytest.raises(ConfigError, match=r"packages names '.*none', which is no folder"):
        Sandbox(tier="docker", packages=[tmp_path / "none"])
    if os.geteuid() == 0:
        packages.chmod(0o700)
        with pytest.raises(
            ConfigError, match=r"is closed to other users, and under root code runs as nobody: chmod o\+rx it"
        ):
            Sandbox(tier="docker", packages=[packages])
    with Sandbox(tier="docker", workers=2) as closed:
        pass
    with pytest.raises(SandboxError, match="this sandbox is closed: open another one"):
        asyncio.run(closed.python("1"))


# -- commands --


def test_a_container_is_started_with_each_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIRSTHAND_SANDBOX_IMAGE", raising=False)
    limits = RunLimits(1, 2, 2**26, 5, 6, 7, 8, 9, 10)
    made = Container(gvisor=True, packages=[tmp_path], docker="podman").command(SandboxRun("python", "1", limits), "me")
    assert made[:-9] == [
        "podman", "run", "--rm", "--interactive", "--init", "--name", "me", "--pull", "missing", "--runtime", "runsc",
        "--network",
        "none", "--ipc", "private", "--read-only", "--tmpfs",
        "/tmp:rw,nosuid,nodev,exec,mode=1777,size=8,nr_inodes=13", "--user",
        "65534:65534", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--hostname", "sandbox", "--memory",
        str(2**26),
        "--memory-swap", str(2**26), "--pids-limit", "7", "--ulimit", "nofile=6", "--ulimit", "fsize=7", "--ulimit",
        "core=1", "--env",
        "HOME=/tmp/work", "--env", "PYTHONHASHSEED=0", "--env", "MALLOC_ARENA_MAX=1",
        "--volume", f"{tmp_path}:/packages/0:ro", IMAGE,
    ]  # fmt: skip
    assert made[-9:-2] == ["python3", "-I", "-S", "-B", "-X", "utf8", "-c"] and "def once(" in made[-2]
    assert json.loads(made[-1]) == {"once": True, "path": ["/packages/0"]}
    monkeypatch.setenv("FIRSTHAND_SANDBOX_IMAGE", "own")
    plain = Container().command(SandboxRun("python", "1", limits), "me")
    assert "own" in plain and "--runtime" not in plain and plain[0] == "docker"

    def told(status: int | None, out: bytes = b"", killed: str | None = None) -> tuple[Any, Any]:
        body = Container._report(out, b"e" * 501, False, killed, status, time.monotonic()).body
        return body["killed"], body["status"]

    assert [told(0), told(3), told(128), told(137), told(124), told(127, b"x"), told(None, killed="stopped")] == [
        (None, 0), (None, 3 << 8), (None, 128 << 8), (None, 9), ("timeout", None), (None, 127 << 8), ("stopped", None),
    ]  # fmt: skip
    for status in (125, 126, 127):
        with pytest.raises(SandboxError, match=f"docker could not run the code: {'e' * 500}$"):
            told(status)


def test_a_workplace_is_a_container_of_the_tasks_image() -> None:
    place = ContainerPlace("img", limits=RunLimits(memory_bytes=2**27, processes=9), engine="podman")
    command = [
        "podman", "run", "--rm", "--interactive", "--init", "--name", place.name, "--pull", "missing", "--network",
        "none", "--cap-drop",
        "ALL", "--security-opt", "no-new-privileges", "--hostname", "testbed", "--memory", str(2**27), "--memory-swap",
        str(2**27),
        "--pids-limit", "9", "--ulimit", "core=0", "--workdir", "/testbed", "img", "sh", "-c", "echo ready; exec cat",
    ]  # fmt: skip
    assert place.command() == command and re.fullmatch(r"firsthand-[0-9a-f]{16}", place.name)
    place.network = True
    assert place.command() == command[:9] + command[11:]
    asyncio.run(place.close())
    with pytest.raises(SandboxError, match="the container of img is gone: begin again"):
        asyncio.run(place.shell("true"))

    def ended(status: int, why: str = "") -> tuple[Any, ...]:
        found = place._outcome(bytearray(b"o\xff"), bytearray(b"e"), why, status, 1.5)
        return found.ended, found.exit_status, found.stdout, found.stderr, found.wall_s, found.tier

    rest = ("o\ufffd", "e", 1.5, "docker")
    assert [ended(0), ended(1), ended(124), ended(137), ended(9, "output"), ended(0, "killed")] == [
        ("done", 0, *rest), ("error", 1, *rest), ("timeout", 124, *rest), ("killed", 137, *rest), ("output", None, *rest),
        ("killed", None, *rest),
    ]  # fmt: skip


def test_what_a_pipe_does_not_take_at_once_is_written_later() -> None:
    reading, writing = os.pipe()
    try:
        for end in (reading, writing):
            os.set_blocking(end, False)
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        data = memoryview(bytes(range(256)) * 300)
        sent, received = 0, b""
        assert _written(writing, data[:0]) == 0
        while sent < len(data):
            if not (count := _written(writing, data[sent:])):
                received += os.read(reading, 1_000)
            sent += count
        assert sent == len(data)
        while len(received) < sent:
            received += os.read(reading, 65_536)
        assert received == bytes(data)
    finally:
        os.close(reading)
    assert _written(writing, data) == len(data), "nobody reads any more"
    os.close(writing)


class Place:
    """A workplace that answers as told."""

    base = "/base"

    def __init__(self, stdout: str, stderr: str = "") -> None:
        self.outcome = Outcome("error", 3, stdout, stderr, 1, 1, 1, "docker")
        self.asked: list[Any] = []

    async def shell(
        self, command: str, *, stdin: str = "", files: Mapping[str, str] | None = None, limits: Any = None
    ) -> Outcome:
        self.asked = [command, json.loads(stdin), sorted(files or {}), limits.output_bytes]
        return self.outcome

    async def close(self) -> None: ...


def test_a_function_is_carried_out_in_a_workplace_and_its_mistakes_are_told() -> None:
    place = Place('{"result": [1]}')
    assert asyncio.run(work(place, "view", path="x", root="/other")) == [1]
    request = {"do": "view", "with": {"root": "/other", "path": "x"}}
    assert place.asked == ["exec python3 -I /tmp/work/inside.py", request, ["inside.py"], 8 * 2**20]
    for stdout, stderr, said in (
        ('{"problem": "' + "p" * 2_001 + '"}', "", f"^{'p' * 2_000}$"),
        ("no", "first\nlast words\n", "the working copy could not be read: last words$"),
        ("", "", "the working copy could not be read: it ended with error, status 3$"),
    ):
        with pytest.raises(ToolError, match=said):
            asyncio.run(work(Place(stdout, stderr), "view"))


def test_the_command_of_bubblewrap_shows_the_system_and_nothing_else(tmp_path: Path) -> None:
    given: list[int] = []
    workspace = Workspace(tmp_path, size_bytes=123, files=45, folders=("/root", "/testbed", "/data/x"))
    try:
        command = bwrap_command.bwrap_command([tmp_path], workspace, given)
        at = command.index("--")
        assert given and [str(fd) for fd in given] == [command[n + 1] for n in range(at) if command[n] == "--file"]
        named = [command[n + 2] for n in range(at) if command[n] == "--file"]
        assert set(named) >= {"/etc/passwd", "/etc/group", "/etc/hosts", "/worker.py", "/checker.py", "/box_inside.py"}
        with open(given[named.index("/etc/group")], "rb", closefd=False) as file:
            assert file.read() == b"sandbox:x:1000:\n"
    finally:
        for fd in given:
            os.close(fd)
    text = " ".join(command[:at])
    for part in (
        "--cap-drop ALL --cap-add", "--unshare-pid --unshare-net --unshare-ipc --unshare-uts --unshare-cgroup-try",
        "--hostname sandbox --die-with-parent --new-session --clearenv", "--setenv HOME /tmp/work",
        "--setenv PYTHONHASHSEED 0",
        f"--dir /packages --ro-bind {tmp_path.resolve()} /packages/0", f"--ro-bind {tmp_path.resolve()} /base",
        "--ro-bind /usr /usr",
        "--perms 1777 --size 123 --tmpfs /testbed", "--dir /root", "--dir /data --dir /data/x",
        "--dir /tmp --proc /proc --tmpfs /dev --dev-bind /dev/null /dev/null", "--remount-ro /dev --remount-ro / --chdir /",
    ):  # fmt: skip
        assert part in text, part
    inner = command[at + 1 :]
    settings = json.loads(inner[inner.index("/host_layers.py") + 1])
    user = bwrap_command.own_id()
    assert (settings["path"], settings["seccomp"]) == (
        ["/packages/0"],
        (seccomp.program(platform.machine()) or b"").hex(),
    )
    assert settings["workspace"][:3] == ["/testbed", 45, ["/root", "/testbed", "/data/x"]]
    assert inner[inner.index("/host_layers.py") + 2] == ("user" if user is None else "root")
    assert (settings["become"] is None) == (user is None)
    assert {"/usr", "/packages/0", "/base"} <= set(inner[inner.index("/host_layers.py") + 3 :])
    assert bwrap_command.kept(Workspace(folders=("/a", "/b"))) == ["/a", "/b", "/testbed"]
    assert bwrap_command.kept(Workspace()) == []
    assert bwrap_command.parents_of(Path("/a/b/c")) == ["--dir", "/a", "--dir", "/a/b"]
    assert bwrap_command.parents_of(Path("/a")) == []
    binds = [
        part
        for name in ("null", "zero", "full", "random", "urandom")
        for part in ("--dev-bind", f"/dev/{name}", f"/dev/{name}")
    ]
    links = [("/proc/self/fd", "fd"), ("fd/0", "stdin"), ("fd/1", "stdout"), ("fd/2", "stderr"), ("/tmp/shm", "shm")]
    linked = [part for target, name in links for part in ("--symlink", target, f"/dev/{name}")]
    assert bwrap_command.devices() == ["--tmpfs", "/dev", *binds, *linked, "--remount-ro", "/dev"]


def test_a_reader_is_wrapped_where_it_can_be() -> None:
    given: list[int] = []
    try:
        command = reader_command._wrapped(["prog", "arg"], given)
        text = " ".join(command)
        assert command[1:9] == [
            "--cap-drop", "ALL", "--unshare-user-try", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts",
            "--unshare-cgroup-try",
        ]  # fmt: skip
        assert text.endswith("--remount-ro /dev --remount-ro / --chdir / -- prog arg")
        assert f"--seccomp {given[0]}" in text
        with open(given[0], "rb", closefd=False) as file:
            assert file.read() == seccomp.program(platform.machine())
        shown = reader_command._shown()
        assert Path("/usr") in shown and Path.home() not in shown and Path("/") not in shown
        ours = Path(repository_workspace.__file__).parents[1]
        assert any(ours.is_relative_to(place) for place in shown)
        assert reader_command.import_path().split(":")[0] == str(ours.parent)
    finally:
        for fd in given:
            os.close(fd)
