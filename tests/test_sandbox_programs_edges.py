"""Programs of the sandbox where input comes in pieces, is no text, or goes to what is no file; and a full workspace."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the programs are those of Linux", allow_module_level=True)

from firsthand.sandbox import seccomp
from firsthand.sandbox.bubblewrap import _send
from firsthand.sandbox.programs import box_inside, checker, inside, worker, write_rules
from firsthand.sandbox.sandbox import Sandbox
from firsthand.sandbox.sandbox_limits import RunLimits, Workspace
from forked_process import forked
from namespaces import WHY_NOT

# -- messages in pieces --


class Pieces:
    """A socket on which bytes arrive in pieces, none of which waits for more."""

    def __init__(self, *pieces: bytes) -> None:
        self.left, self.asked = list(pieces), list[int]()

    def recv(self, count: int) -> bytes:
        self.asked.append(count)
        if not self.left:
            return b""
        piece, self.left[0] = self.left[0][:count], self.left[0][count:]
        if not self.left[0]:
            del self.left[0]
        return piece


Exactly = Callable[[Any, int], bytes | None]


@pytest.mark.parametrize("exactly", [worker.exactly, checker.exactly])
def test_a_message_in_pieces_is_read_to_its_end_and_no_further(exactly: Exactly) -> None:
    link = Pieces(b"ab", b"c", b"defg", b"h")
    assert [exactly(link, 5), link.asked] == [b"abcde", [5, 3, 2]]
    assert [exactly(link, 0), link.asked] == [b"", [5, 3, 2]], "nothing is asked for"
    assert [exactly(link, 1), exactly(link, 2), link.asked] == [b"f", b"gh", [5, 3, 2, 1, 2, 1]]
    assert type(exactly(Pieces(b"x"), 1)) is bytes


def test_requests_in_pieces_are_told_apart_and_one_that_breaks_off_is_none() -> None:
    def raw(text: str) -> bytes:
        return len(text.encode()).to_bytes(4, "big") + text.encode()

    whole = raw('{"a": "é"}') + raw("{}") + raw('{"b": []}')
    for size in (1, 3, 4, 5, 7, len(whole)):
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        link: Any = Pieces(*pieces)
        assert [checker.receive(link) for _ in range(4)] == [{"a": "é"}, {}, {"b": []}, None], size
        link = Pieces(*pieces)
        assert [worker.receive(link) for _ in range(3)] == ['{"a": "é"}'.encode(), b"{}", b'{"b": []}'], size
        with pytest.raises(EOFError, match=r"^the caller went away$"):
            worker.receive(link)
    for cut in (1, 3, 4, 5, 8):
        broken: Any = Pieces(raw("{    }")[:cut])
        assert checker.receive(broken) is None, cut
        with pytest.raises(EOFError, match=r"^the caller went away$"):
            worker.receive(Pieces(raw("{    }")[:cut]))  # type: ignore[arg-type]
    empty: Any = Pieces(b"\0\0\0\0")
    assert worker.receive(empty) == b"" and empty.asked == [4]


def test_what_a_socket_does_not_take_at_once_is_sent_later_and_nothing_is_sent_to_one_that_is_gone() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        data = memoryview(bytes(range(256)) * 8_192)  # 2 MiB, more than the kernel holds
        sent = _send(ours, data)
        assert 0 < sent < len(data)
        while count := _send(ours, data[sent:]):
            sent += count
        assert sent < len(data) and _send(ours, data[sent:]) == 0, "it is full"
        received = bytearray()
        while sent < len(data):
            received += theirs.recv(1 << 16)
            sent += _send(ours, data[sent:])
        while len(received) < sent:
            received += theirs.recv(1 << 16)
        assert received == data
        assert _send(ours, memoryview(b"abc")) == 3 and theirs.recv(9) == b"abc"
        assert _send(ours, memoryview(b"")) == 0
        theirs.close()
        assert _send(ours, memoryview(b"abcd")) == 4, "the rest is not tried again"


# -- text that no file or name can have --


def test_a_request_with_text_that_cannot_be_written_changes_nothing_and_says_why(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = os.path.realpath(tmp_path)
    (tmp_path / "a").write_text("keep this\n")

    def asked(do: str, path: str, **given: Any) -> str:
        request = json.dumps({"do": do, "with": {"root": root, "path": path, **given}})
        monkeypatch.setattr(sys, "stdin", io.StringIO(request))
        inside.main()
        answer: dict[str, str] = json.loads(capsys.readouterr().out)
        assert list(answer) == ["problem"]
        return answer["problem"]

    surrogate = "'utf-8' codec can't encode character '\\ud800' in position {}: surrogates not allowed"
    edit = {"old": "this", "most": 99}
    assert asked("edit", "a", new="that \ud800", **edit) == surrogate.format(10)
    assert asked("create", "new/b", text="\ud800") == surrogate.format(0)
    for do, given in (
        ("view", {"start": 1, "lines": 1, "most": 9}), ("edit", {"new": "x", **edit}), ("create", {"text": "x"}),
    ):  # fmt: skip
        assert "null" in asked(do, "a\0b", **given), do
        assert "surrogates not allowed" in asked(do, "\udcff\ud800", **given), do
        assert asked(do, f"{'n' * 256}/x", **given) in (
            "File name too long", f"'{'n' * 256}/x' is no file: view the folder to see what is there",
        )  # fmt: skip
    assert [each.name for each in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "keep this\n"
    with pytest.raises(TypeError):  # a mistake of ours, and none of the model's
        asked("view", "a")


# -- a file of a box --


def test_a_shorter_text_replaces_a_longer_one_whole_and_what_is_no_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def written(path: Path | str, raw: bytes) -> str:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw)))
        box_inside.main(json.dumps(["write", {"path": str(path)}]))
        return str(capsys.readouterr().out)

    file = tmp_path / "one" / "f"
    for raw in (b"the longer text", b"short", b"", b"x" * (1 << 20), b"y" * ((1 << 20) + 1), b"\0\xff\r\n"):
        assert written(file, raw) == "ok " and file.read_bytes() == raw
    (tmp_path / "link").symlink_to(file)
    assert written(tmp_path / "link", b"by a link") == "ok " and file.read_bytes() == b"by a link"
    os.mkfifo(tmp_path / "pipe")
    assert written(tmp_path / "pipe", b"x") == "errno 6", "nobody reads it"
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        for path, number in (
            (tmp_path / "pipe", 22), ("/dev/null", 22), ("/dev/zero", 22), (tmp_path, 21), (file / "below", 17),
            ("/a\0b", 22), ("/a\0/b", 22),
        ):  # fmt: skip
            assert written(path, b"x") == f"errno {number}", path
        assert os.read(reading, 9) == b"", "nothing was written to it"
    finally:
        os.close(reading)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert [written(file, b"z"), written("/dev/null", b"z")] == ["ok ", "errno 22"]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# -- rules on what may be written --


@pytest.mark.skipif(not write_rules.supported(), reason="this kernel has no such rules")
def test_files_move_between_all_folders_that_are_allowed_and_into_no_other(tmp_path: Path) -> None:
    for name in ("in/sub", "also", "out"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("in/a", "in/sub/b", "also/c", "out/d"):
        (tmp_path / name).write_text(name)

    def tried(act: Callable[[], object]) -> int:
        try:
            act()
        except OSError as error:
            return error.errno or -1
        return 0

    def confined() -> None:
        worker.prctl(worker._SET_NO_NEW_PRIVS, 1)
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(FileNotFoundError):
            write_rules.allow_only([str(tmp_path / "none")])
        opened = len(list(Path("/proc/self/fd").iterdir())) - before
        write_rules.allow_only(str(tmp_path / name) for name in ("in", "also"))
        moves = [("in/a", "in/sub/a"), ("in/sub/b", "in/b"), ("in/b", "also/b"), ("also/c", "in/sub/c")]
        moves += [("in/sub/a", "out/a"), ("out/d", "in/d"), ("out/d", "out/e")]
        found = [tried(lambda one=one, two=two: (tmp_path / one).rename(tmp_path / two)) for one, two in moves]  # type: ignore[misc]
        writes = [
            tried(lambda name=name: (tmp_path / name).write_text("x")) for name in ("also/b", "in/sub/c", "out/e")
        ]  # type: ignore[misc]
        child = os.fork()
        if child == 0:
            os._exit(tried(lambda: (tmp_path / "out" / "e").write_text("x")))
        print(found, writes, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), opened <= 1)

    said = "[0, 0, 0, 0, 18, 18, 0] [0, 0, 13] 13 True\n"  # 18: as between two disks, so that `mv` copies
    assert forked(confined) == (0, said, "")
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["also/b", "in/sub/a", "in/sub/c", "out/e"] and (tmp_path / "out/e").read_text() == "out/d"


@pytest.mark.skipif(not write_rules.supported(), reason="this kernel has no such rules")
def test_a_process_with_rules_on_what_it_may_write_takes_the_filter_too(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()

    def tried(act: Callable[[], object]) -> int:
        try:
            act()
        except OSError as error:
            return error.errno or -1
        return 0

    def confined(filter_code: bytes) -> None:
        sys.modules["write_rules"] = write_rules  # as `preload` does
        worker.prctl(worker._SET_NO_NEW_PRIVS, 1)
        worker.confine(filter_code, [str(tmp_path / "in")])
        writes = [tried(lambda name=name: (tmp_path / name).write_text("x")) for name in ("in/a", "in/../b")]  # type: ignore[misc]
        print(writes, tried(lambda: os.memfd_create("x")))

    (tmp_path / "b").write_text("")
    code = seccomp.program(os.uname().machine) or b""
    assert forked(lambda: confined(code)) == (0, f"[0, {errno.EACCES}] {errno.ENOSYS if code else 0}\n", "")
    assert forked(lambda: confined(b"")) == (0, f"[0, {errno.EACCES}] 0\n", "")


# -- the files of a workspace --


@pytest.mark.slow
def test_a_run_ends_when_its_workspace_has_more_files_than_allowed_or_than_there_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "memory_of", lambda ours, enough: 0)
    asked: list[str] = []

    def watched(most: int, *counts: int) -> tuple[str | None, int]:
        """The cause of the end, and how many of the counts were looked at."""
        job, theirs = socket.socketpair()
        told, tell = os.pipe()
        left = list(counts)

        def files_in(folder: str) -> int:
            asked.append(folder)
            if len(left) == 1:
                theirs.close()  # the caller leaves with the last count
            return left.pop(0)

        monkeypatch.setattr(worker, "files_in", files_in)
        init = os.fork()
        if init == 0:
            job.close()
            theirs.close()
            time.sleep(20)
            os._exit(0)
        os.close(tell)
        limits = {"wall_s": 20.0, "memory_bytes": 1}
        try:
            report = worker.watch(job, told, init, limits, time.monotonic(), ["/place", most, [], []])
        finally:
            job.close()
            theirs.close()
            os.close(told)
        assert report["status"] is None and "broken" not in report
        return report["killed"], len(counts) - len(left)

    assert watched(60, 3, 60, 61, 99) == ("memory", 3), "one more than allowed"
    assert watched(60, 60, 60, 59) == ("stopped", 3), "as many as allowed"
    assert watched(60, 70, 70, 69, 61, 71, 99) == ("memory", 5), "what is too full already may be emptied"
    assert set(asked) == {"/place"}


@pytest.mark.slow
@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_a_workspace_with_too_many_files_ends_the_run_and_can_be_emptied_by_the_next() -> None:
    async def main() -> list[Any]:
        async with Sandbox(RunLimits(wall_s=9), workspace=Workspace(files=60)) as box:
            outcomes = [
                await box.shell("for n in $(seq 40); do : > $n; done; sleep 0.06; ls | wc -l"),
                await box.shell("for n in $(seq 90); do : > $n; done; exec sleep 8"),
                await box.shell("sleep 0.06; ls | wc -l; rm *; ls | wc -l"),
                await box.shell("sleep 0.06; ls | wc -l"),
            ]
            return [(each.ended, each.exit_status, each.stdout.split(), each.wall_s < 5) for each in outcomes]

    assert asyncio.run(main()) == [
        ("done", 0, ["40"], True), ("memory", None, [], True), ("done", 0, ["90", "0"], True), ("done", 0, ["0"], True),
    ]  # fmt: skip
