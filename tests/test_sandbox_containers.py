"""Containers of both kinds, each started by a program that takes docker's place and carries out what it is told, truly."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, SandboxError
from firsthand.sandbox import container, repository_workspace
from firsthand.sandbox.bubblewrap import Report, SandboxRun
from firsthand.sandbox.container import Container
from firsthand.sandbox.repository_workspace import ContainerPlace, _last_words
from firsthand.sandbox.sandbox import Outcome, available
from firsthand.sandbox.sandbox_limits import RunLimits
from served import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the programs are those of Linux")

RUN = """#!/bin/sh
echo "$1 $2 $3" >> {home}/log
[ "$1" = rm ] && exit 0
. {home}/does
"""
PLACE = """#!/bin/sh
printf '%s\\n' "$*" >> {home}/log
case "$1" in
run) [ -f {home}/refuses ] && {{ cat {home}/refuses >&2; exit 1; }}; echo ready; exec cat;;
exec)
  [ -f {home}/hangs ] && exec sleep 20
  shift 5
  [ "$1" = sh ] && {{ cat >> {home}/put; echo "no room" >&2; exit $(cat {home}/put_status); }}
  case "$*" in *"keep add"*) cat {home}/keeps >&2; [ ! -s {home}/keeps ]; exit;; esac
  echo $$ > {home}/pid
  exec "$@";;
esac
"""


def program(home: Path, text: str) -> str:
    path = home / "docker"
    path.write_text(text.format(home=home))
    path.chmod(0o755)
    return str(path)


# -- the container tier --


def test_a_run_in_a_container_is_followed_to_its_end(tmp_path: Path) -> None:
    made = Container(docker=program(tmp_path, RUN))
    limits = RunLimits(output_bytes=5, wall_s=7)

    def ran(does: str, run: SandboxRun | None = None) -> tuple[bytes, bytes, bool, Any, Any]:
        (tmp_path / "does").write_text(does)
        run = run or SandboxRun("python", "1", limits)
        report = made.run(run)
        assert run.socket is None and report.body["wall_s"] >= 0
        assert (report.body["cpu_s"], report.body["peak_bytes"]) == (None, None)
        return report.stdout, report.stderr, report.flooded, report.body["killed"], report.body["status"]

    assert ran("cat >/dev/null; printf 12345; printf abcd >&2; exit 3") == (b"12345", b"abcd", False, None, 3 << 8)
    assert ran("cat >/dev/null; printf 1; printf abcde >&2") == (b"1", b"abcde", False, None, 0)
    assert ran("cat >/dev/null; printf 123456; exec sleep 9") == (b"12345", b"", True, None, None)
    assert ran("cat >/dev/null; printf abcdef >&2; exec sleep 9") == (b"", b"abcde", True, None, None)
    assert ran("printf x; exit 137") == (b"x", b"", False, None, 9)
    assert ran("exit 124") == (b"", b"", False, "timeout", None)
    long = SandboxRun("python", "1", limits, stdin="x" * 300_000)
    assert ran("exec <&-; printf gone; exit 1", long) == (b"gone", b"", False, None, 1 << 8), "it has not read"
    stopped = SandboxRun("python", "1", limits)
    stopped.stop()
    assert ran("cat >/dev/null; exec sleep 9", stopped) == (b"", b"", False, "stopped", None)
    later = SandboxRun("python", "1", limits)
    began = tmp_path / "began"
    threading.Thread(target=lambda: (until(began.exists), later.stop())).start()
    assert ran(f"cat >/dev/null; printf a; : > {began}; exec sleep 9", later) == (b"a", b"", False, "stopped", None)
    with pytest.raises(SandboxError, match=r"docker could not run the code: none$"):
        ran("echo none >&2; exit 125")
    with pytest.raises(SandboxError, match=r"docker does not start: No such file or directory$"):
        Container(docker=str(tmp_path / "none")).run(SandboxRun("python", "1", limits))
    names = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    removed = [words[2] for words in names if words[:2] == ["rm", "--force"]]
    started = [place for place, words in enumerate(names) if words[:2] == ["run", "--rm"]]
    assert len(removed) == len(set(removed)) == 10, "each is removed"
    assert [names[place + 1][0] for place in started] == ["rm"] * len(started)
    assert len(started) + len(removed) == len(names) and len(started) >= 9, "one is stopped before it may begin"


def test_a_docker_that_fails_by_itself_is_quoted_by_the_end_of_what_it_said(tmp_path: Path) -> None:
    made = Container(docker=program(tmp_path, RUN))

    def ran(status: int, said: str, out: str = "") -> Any:
        (tmp_path / "said").write_text(said)
        (tmp_path / "does").write_text(f"cat >/dev/null; printf '{out}'; cat {tmp_path}/said >&2; exit {status}")
        return made.run(SandboxRun("python", "1", RunLimits()))

    pulling = "Pulling from library\n" * 100
    for status, said, quoted in (
        (125, f"{pulling} no space left \n", f"{pulling} no space left \n"[-500:].strip()),
        (126, "a" + "x" * 500, "x" * 500), (127, "a" + "x" * 499, "a" + "x" * 499),
        (125, "é" + "x" * 499, "\ufffd" + "x" * 499), (125, "", ""),
    ):  # fmt: skip
        with pytest.raises(SandboxError) as refused:
            ran(status, said)
        assert str(refused.value) == f"docker could not run the code: {quoted}"
    found = {
        (status, out): ran(status, "why", out)
        for status, out in ((125, "o"), (126, "o"), (127, "o"), (123, ""), (124, ""), (128, ""), (129, ""))
    }
    assert {
        asked: (each.stdout, each.stderr, each.body["killed"], each.body["status"]) for asked, each in found.items()
    } == {
        (125, "o"): (b"o", b"why", None, 125 << 8), (126, "o"): (b"o", b"why", None, 126 << 8),
        (127, "o"): (b"o", b"why", None, 127 << 8), (123, ""): (b"", b"why", None, 123 << 8),
        (124, ""): (b"", b"why", "timeout", None), (128, ""): (b"", b"why", None, 128 << 8),
        (129, ""): (b"", b"why", None, 1),
    }  # fmt: skip


def test_a_container_is_told_what_to_run_and_how(tmp_path: Path) -> None:
    made = Container(docker=program(tmp_path, RUN))
    (tmp_path / "does").write_text(f"cat > {tmp_path}/request")
    limits = RunLimits(wall_s=3, processes=7)

    def asked(kind: str) -> Any:
        made.run(SandboxRun(kind, "code", limits, "in", {"a": "é"}, "<named>"))
        sent = (tmp_path / "request").read_bytes()
        end = 4 + int.from_bytes(sent[:4], "big")
        return json.loads(sent[4:end]) | {"stdin": sent[end:].decode()}, b"stdin" in sent[:end]

    rest = {"stdin": "in", "files": {"a": "é"}, "name": "<named>", "limits": asdict(limits)}
    assert asked("cell") == ({"kind": "cell", "code": "code", **rest}, False), "what the run reads is no part of it"
    programs = Path(container.__file__).parent / "programs"
    texts = {
        name: (programs / f"{name}.py").read_text(encoding="utf-8")
        for name in ("passed_values", "told_errors", "checker")
    }
    (given,) = asked("check")[:1]
    assert list(json.loads(given["code"]).items()) == list(texts.items()) and given == {"kind": "check"} | rest | {
        "code": given["code"]
    }
    assert made.alive and made.packages == [] and not made.gvisor


def test_a_container_that_does_not_answer_has_run_out_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (container.START_S, container.GRACE_S) == (60.0, 5.0)
    monkeypatch.setattr(container, "START_S", -4.9)
    (tmp_path / "does").write_text("cat >/dev/null; printf a; exec sleep 9")
    began = time.monotonic()
    report: Report = Container(docker=program(tmp_path, RUN)).run(SandboxRun("python", "1", RunLimits(wall_s=0.2)))
    assert (report.stdout, report.body["killed"], report.body["status"]) == (b"a", "timeout", None)
    assert 0.3 <= time.monotonic() - began < 3 and report.body["wall_s"] >= 0.3


def test_the_strongest_tier_that_is_there_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    says = tmp_path / "docker"

    def found(text: str | None) -> tuple[frozenset[str], str]:
        says.unlink(missing_ok=True)
        if text is not None:
            says.write_text(f'#!/bin/sh\n[ "$*" = "info --format {{{{json .Runtimes}}}}" ] || exit 9\n{text}\n')
            says.chmod(0o755)
        container.runtimes.cache_clear()
        try:
            return container.runtimes(), available()
        except SandboxError as error:
            return container.runtimes(), str(error)

    none = "untrusted code is not run without a sandbox, and neither bwrap nor a running Docker was found: install it"
    try:
        assert found("""echo '{"runc": {}, "runsc": {}}'""") == (frozenset({"runc", "runsc"}), "gvisor")
        assert found("""echo '{"runc": {}}'""") == (frozenset({"runc"}), "docker")
        assert found("""echo '{"runsc": {}}'""") == (frozenset({"runsc"}), "gvisor")
        for name in ("crun", "io.containerd.runc.v2", "nvidia", "runsc-kvm"):
            assert found(f"""echo '{{"{name}": {{}}}}'""") == (frozenset({name}), "docker"), name
        for text in (
            """echo '{"runc": {}}'; exit 1""",
            "echo no",
            "echo null",
            "echo '{}'",
            """echo '["runc"]'""",
            "echo 5",
            "echo",
            None,
        ):
            assert found(text)[0] == frozenset() and found(text)[1].startswith(none), text
        bwrap = tmp_path / "bwrap"
        bwrap.write_text("")
        bwrap.chmod(0o755)
        assert available() == "bubblewrap"
    finally:
        container.runtimes.cache_clear()
    with pytest.raises(SandboxError, match="neither docker nor podman was found: install one of them"):
        repository_workspace.container_engine()
    for name in ("podman", "docker"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
        assert repository_workspace.container_engine() == str(tmp_path / name), "docker first"


# -- workplaces --


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "keeps").touch()
    (tmp_path / "put_status").write_text("0")
    return tmp_path


def log(home: Path) -> str:
    return (home / "log").read_text()


def test_a_command_in_a_workplace_is_followed_to_its_end(home: Path) -> None:
    async def main() -> None:
        place = ContainerPlace("img", engine=program(home, PLACE), limits=RunLimits(wall_s=9, output_bytes=5))
        await place.open()
        (home / "log").unlink()

        async def ran(command: str, **more: Any) -> tuple[Any, ...]:
            found = await place.shell(command, **more)
            assert (found.cpu_s, found.peak_bytes, found.tier) == (None, None, "docker") and found.wall_s > 0
            return found.ended, found.exit_status, found.stdout, found.stderr

        try:
            assert await ran("printf 12345; printf abcde >&2; exit 3") == ("error", 3, "12345", "abcde")
            assert await ran("printf 123456; sleep 0.2") == ("output", None, "12345", "")
            assert await ran("printf abcdef >&2; sleep 0.2") == ("output", None, "", "abcde")
            wide = RunLimits(wall_s=2.5, output_bytes=6)
            assert await ran("printf 123456", limits=wide) == ("done", 0, "123456", "")
            assert await ran("wc -c", stdin="x" * 99_999, limits=wide) == ("done", 0, "99999\n", "")
            assert await ran("od -An -tx1 | tr -d ' \\n'", stdin="\udcff", limits=wide) == ("done", 0, "ff", "")
            assert await ran("true", stdin="x" * 999_999) == ("done", 0, "", ""), "it need not read"
            said = log(home)
            begins = f"exec --interactive --workdir /testbed {place.name} timeout --kill-after=5"
            assert said.startswith(f"{begins} 9 bash -c if [ -f /opt/miniconda3/bin/activate ]")
            assert said.count(f"{begins} 9 bash") == 4 and said.count(f"{begins} 2.5 bash") == 3
            assert await ran("true", files={"a/b": "é", "c": "2"}) == ("done", 0, "", "")
            assert (home / "put").read_text() == "é2"
            written = 'sh -c mkdir -p "$(dirname "/tmp/work/a/b")" && cat > "/tmp/work/a/b"\n'
            assert f"{place.name} {written}" in log(home)
            (home / "put_status").write_text("1")
            with pytest.raises(SandboxError, match=r"a file could not be put into the container: no room$"):
                await place.shell("true", files={"c": ""})
            with pytest.raises(ConfigError, match="a file is named '/c'"):
                await place.shell("true", files={"/c": ""})
        finally:
            await place.close()
            await place.close()
        assert log(home).count(f"rm --force {place.name}\n") == 1 and place._process is None

    asyncio.run(main())


def test_a_cancelled_command_is_stopped_in_its_workplace(home: Path) -> None:
    async def main() -> None:
        place = ContainerPlace("img", engine=program(home, PLACE))
        await place.open()
        try:
            running = asyncio.create_task(place.shell("exec sleep 3"))
            while not (home / "pid").exists() or not (home / "pid").read_text():
                await asyncio.sleep(0.01)
            pid = int((home / "pid").read_text())
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            until = time.monotonic() + 2
            while time.monotonic() < until and Path("/proc", str(pid)).exists():
                await asyncio.sleep(0.01)
            assert not Path("/proc", str(pid)).exists()
        finally:
            await place.close()

    asyncio.run(main())


def test_a_workplace_that_does_not_answer_has_run_out_of_time(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (repository_workspace.ENDING_S, repository_workspace.START_S) == (30.0, 3600.0)
    monkeypatch.setattr(repository_workspace, "ENDING_S", 0.1)

    async def main() -> None:
        place = ContainerPlace("img", engine=program(home, PLACE))
        await place.open()
        try:
            (home / "hangs").touch()
            found = await place.shell("true", limits=RunLimits(wall_s=0.2))
            assert (found.ended, found.exit_status) == ("timeout", None) and 0.3 < found.wall_s < 3
        finally:
            await place.close()

    asyncio.run(main())


def test_a_workplace_that_does_not_start_says_why(home: Path) -> None:
    async def refused(place: ContainerPlace) -> str:
        with pytest.raises(SandboxError) as error:
            await place.open()
        await place.close()
        return str(error.value)

    engine = program(home, PLACE)
    (home / "keeps").write_text("first\ncp: cannot stat .git\n")
    assert asyncio.run(refused(ContainerPlace("img", engine=engine))) == (
        "the image img holds no repository in /testbed: cp: cannot stat .git"
    )
    (home / "refuses").touch()
    silent = asyncio.run(refused(ContainerPlace("img", engine=engine)))
    assert silent == "no container of img starts: it said nothing"
    (home / "refuses").write_text("a" + "b" * 499 + "\n")
    assert asyncio.run(refused(ContainerPlace("img", engine=engine))) == f"no container of img starts: {'b' * 499}"
    missing = asyncio.run(refused(ContainerPlace("img", engine="/none/docker")))
    assert missing == "/none/docker does not start: No such file or directory"


def test_the_last_words_of_a_command_are_its_last_line_or_its_end() -> None:
    def words(stderr: str, status: int | None = 4) -> str:
        return _last_words(Outcome("error", status, "out", stderr, 1, 1, 1, "docker"))

    assert [words("a\n" + "b" * 299 + "cd\n\n"), words(" \n"), words("", None)] == [
        "b" * 299 + "c", "it ended with error, status 4", "it ended with error, status None",
    ]  # fmt: skip
    assert repository_workspace._INSIDE.name == "inside.py"
