"""The life of a parser's process: what ends it, what its end is called, and how much it may answer."""

from __future__ import annotations

import os
import signal
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import DataError
from firsthand.retrieval.documents import bounded_parser
from firsthand.retrieval.documents.bounded_parser import BoundedParser
from firsthand.retrieval.documents.file_content import ReadSettings


def test_a_process_that_ended_between_two_files_is_replaced_and_one_that_served_its_number_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parser = BoundedParser(ReadSettings(text_field="said"))
    try:
        [document] = parser.parse("jsonl", b'{"said": "one", "id": 3}', "a.jsonl").documents
        assert (document.id, document.text, parser._files) == ("a.jsonl:3", "one", 1)
        first = parser._process
        assert first is not None
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        monkeypatch.setattr(bounded_parser, "MAX_FILES", 3)
        with pytest.raises(DataError, match=r"^it is no notebook: it has no list of cells; save it again in Jupyter$"):
            parser.parse("notebook", b"{}", "n.ipynb")
        second = parser._process
        assert second is not None and second.pid != first.pid and parser._files == 1 and second.poll() is None
        assert parser.parse("text", b"x", "x.txt").documents[0].text == "x" and parser._process is second
        assert parser.parse("text", b"y", "y.txt").documents[0].text == "y" and parser._process is None
        assert second.returncode == -signal.SIGKILL and second.stdin is not None and second.stdin.closed
    finally:
        parser.close()
    with pytest.raises(DataError, match=r"^the parser was closed$"):
        parser.parse("text", b"x", "x.txt")


def test_the_end_of_a_process_is_told_by_its_cause_and_a_reply_is_bounded_by_the_larger_file() -> None:
    parser = BoundedParser(ReadSettings(parse_seconds=2.5, max_file_bytes=1000))

    def fault(code: int | None, told: str = "") -> str:
        process: Any = SimpleNamespace(returncode=code)
        return parser._fault(process, told)

    stopped = "its parser did not end within 2.5 s: it was stopped"
    assert fault(-signal.SIGKILL) == "its parser crashed (SIGKILL)" == fault(128 + signal.SIGKILL)
    assert fault(-signal.SIGXCPU) == stopped == fault(128 + signal.SIGXCPU)
    assert fault(128) == "its parser crashed (exit 128)" and fault(0) == "its parser crashed (exit 0)"
    assert fault(3) == "its parser crashed (exit 3)" and fault(None) == "its parser crashed (exit None)"
    assert fault(255) == "its parser crashed (exit -127)", "no signal has that number"
    assert fault(1, "a block of 99 bytes") == "its parser gives more text than is taken from one file: divide it"
    assert fault(-signal.SIGXCPU, "a block of 99 bytes") == stopped
    parser._timed_out = True
    assert fault(-signal.SIGKILL) == stopped == fault(0, "a block of 9 bytes")
    parser._closed = True
    assert fault(-signal.SIGXCPU) == "the parser was closed"
    assert [parser._most(size) for size in (0, 999, 1000, 1001)] == [
        50_012_000, 50_012_000, 50_012_000, 50_012_012
    ]  # fmt: skip
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    parser._timed_out = False
    parser._kill_late(process)  # type: ignore[arg-type]
    assert parser._timed_out and process.wait() == -signal.SIGKILL
    parser._kill_late(process)  # type: ignore[arg-type]
    parser._end()
