"""The sandbox of a parser: what a parser that was taken over can read, write and reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import written_documents as written
from firsthand.retrieval.documents.bounded_parser import BoundedParser
from firsthand.retrieval.documents.file_content import ReadSettings
from firsthand.retrieval.documents.parser_process import content_from_json
from firsthand.sandbox import reader_command as reader
from namespaces import WHY_NOT

needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

TAKEN_OVER = """
import ctypes, json, os, socket, sys
def refused(act):
    try:
        act()
    except OSError as error:
        return error.errno or -1
    return 0
def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(2)
        client.connect(address)
secret, port = sys.argv[1], int(sys.argv[2])
print(json.dumps({
    "secret": refused(lambda: open(secret)),
    "home": refused(lambda: os.listdir(os.path.dirname(secret))),
    "passwords": refused(lambda: open("/etc/passwd")),
    "write": [refused(lambda: open(f"{each}/x", "w")) for each in ("/", "/usr", "/dev", "/proc/self", "/tmp", sys.prefix)],
    "network": refused(lambda: connect(socket.AF_INET, ("127.0.0.1", port))),
    "outside": refused(lambda: connect(socket.AF_INET, ("1.1.1.1", 53))),
    "processes": sorted(int(each) for each in os.listdir("/proc") if each.isdigit()),
    "parent": refused(lambda: os.kill(int(sys.argv[3]), 0)),
    "namespace": ctypes.CDLL(None).unshare(0x10000000) != 0,
    "environment": sorted({*os.environ} & {"HOME", "FIRSTHAND_SECRET"}),
}))
"""


@pytest.fixture
def listening() -> Iterator[int]:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@needs_bwrap
def test_a_parser_that_was_taken_over_reads_no_file_and_reaches_no_service(tmp_path: Path, listening: int) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    given: list[int] = []
    program = [sys.executable, "-I", "-S", "-c", TAKEN_OVER, str(secret), str(listening), str(os.getpid())]
    command = reader.reader_command(program, given)
    done = subprocess.run(command, pass_fds=given, capture_output=True, text=True, timeout=60, check=False, env={})
    for fd in given:
        os.close(fd)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(found[name] for name in ("secret", "home", "passwords", "network", "outside", "parent", "namespace")), (
        found
    )
    assert all(found["write"]), found
    assert found["processes"] == [1, 2] and found["environment"] == []


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@needs_bwrap
def test_documents_are_parsed_in_that_sandbox() -> None:
    parser = BoundedParser(ReadSettings())
    try:
        assert (
            parser.parse("docx", written.docx(written.paragraph("Words")), "d.docx").documents[0].text.strip()
            == "Words"
        )
        assert parser._process is not None
        child = int(Path(f"/proc/{parser._process.pid}/task/{parser._process.pid}/children").read_text().split()[0])
        for namespace in ("net", "pid", "mnt", "ipc"):
            theirs, ours = (Path(f"/proc/{pid}/ns/{namespace}").readlink() for pid in (child, os.getpid()))
            assert theirs != ours, namespace
    finally:
        parser.close()
    deadline = time.monotonic() + 20
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(child)  # what bubblewrap started has ended with it


def test_without_bubblewrap_the_parser_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    reader.can_wrap.cache_clear()
    monkeypatch.setenv("PATH", "/nonexistent")
    given: list[int] = []
    assert reader.reader_command(["python", "x"], given) == ["python", "x"] and given == []
    reader.can_wrap.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is wrapped")
def test_where_the_sandbox_of_a_reader_cannot_be_tried_the_program_runs_alone_and_nothing_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bwrap"
    monkeypatch.setenv("PATH", str(tmp_path))

    def alone(script: str) -> bool:
        """True if a program would run alone, the second time too, and no descriptor is left by the attempt."""
        fake.write_text(script)
        fake.chmod(0o755)
        before = len(list(Path("/proc/self/fd").iterdir()))
        reader.can_wrap.cache_clear()
        assert reader.can_wrap() is reader.can_wrap() and len(list(Path("/proc/self/fd").iterdir())) == before
        given: list[int] = []
        command = reader.reader_command(["prog", "a"], given)
        for fd in given:
            os.close(fd)
        assert (command == ["prog", "a"]) is (given == []) and command[-2:] == ["prog", "a"]
        return not given

    works = "#!/bin/sh\necho >> {0}/tries"
    try:
        assert not alone(works.format(tmp_path))
        assert (tmp_path / "tries").read_text() == "\n", "tried once"
        assert [alone(f"#!/bin/sh\nexit {status}") for status in (0, 1, 127)] == [False, True, True]
        assert alone("#!/nonexistent/interpreter\n"), "OSError"
        assert alone("#!/bin/sh\nkill -9 $$\n")
        monkeypatch.setattr(reader, "_TRIED_S", 0.05)
        assert alone("#!/bin/sh\nexec /bin/sleep 9\n")
        monkeypatch.undo()
        monkeypatch.setenv("PATH", str(tmp_path))
        for place in (Path.home(), Path("/")):  # a Python that cannot be shown
            with monkeypatch.context() as installed:
                installed.setattr(sys, "prefix", str(place))
                assert alone(works.format(tmp_path)), place
        assert (tmp_path / "tries").read_text() == "\n", "bwrap is not asked then"
    finally:
        reader.can_wrap.cache_clear()


def test_a_forged_reply_is_that_files_failure() -> None:
    huge = json.loads('{"documents": [["p.pdf", "text", "", {}, [[1e999, "page", "1"]]]], "notes": [], "failed": []}')
    with pytest.raises(ValueError):
        content_from_json(huge, "p.pdf")
