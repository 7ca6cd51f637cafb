"""The process that parses files of strangers: its answers, request by request, and the bounds that it sets itself."""

from __future__ import annotations

import io
import json
import os
import resource
import sys
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import DataError, MissingExtra
from firsthand.retrieval.documents import parser_process
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings
from firsthand.retrieval.documents.formats import FORMATS
from firsthand.retrieval.documents.parser_process import read_block, reply, write_block

BOUNDS = ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_FSIZE", "RLIMIT_CPU")


def asked(*requests: tuple[dict[str, Any], bytes]) -> tuple[list[Any], dict[str, Any]]:
    """The replies of a process to requests and files, and its bounds after the last."""
    given = io.BytesIO()
    for request, data in requests:
        write_block(given, json.dumps(request).encode())
        write_block(given, data)
    given.seek(0)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        taken = io.BytesIO()
        sys.stdin, sys.stdout = SimpleNamespace(buffer=given), SimpleNamespace(buffer=taken)  # type: ignore[assignment]
        try:
            parser_process.main()
            used = resource.getrusage(resource.RUSAGE_SELF)
            told: Any = {name: resource.getrlimit(getattr(resource, name)) for name in BOUNDS}
            told["used"] = used.ru_utime + used.ru_stime
        except BaseException as error:
            told = repr(error)
        os.write(writing, json.dumps([taken.getvalue().hex(), told]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said, bounds = json.loads(pipe.read())
    os.waitpid(pid, 0)
    blocks, replies = io.BytesIO(bytes.fromhex(said)), []
    while block := read_block(blocks):
        replies.append(json.loads(block))
    return replies, bounds


def request(format: str, name: str, **settings: Any) -> dict[str, Any]:
    return {"format": format, "name": name, "settings": asdict(ReadSettings(parse_memory_bytes=1 << 45, **settings))}


@pytest.mark.slow
def test_each_request_has_its_reply_and_the_first_one_sets_the_memory() -> None:
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    second = request("jsonl", "b.jsonl", parse_seconds=90.0, text_field="said")
    second["settings"]["parse_memory_bytes"] = 1 << 46
    replies, bounds = asked(
        (request("text", "a.txt", parse_seconds=500.0), b"one\n"),
        (second, b'{"said": "two", "id": 7}\n{}\n'),
        (request("json", "c.json", parse_seconds=3.0), b"{"),
    )
    assert replies[0] == {
        "documents": [["a.txt", "one\n", "one", {"kind": "text"}, []]], "notes": [], "failed": []
    }  # fmt: skip
    assert [each[:2] for each in replies[1]["documents"]] == [["b.jsonl:7", "two"]]
    assert replies[1]["failed"] == [["b.jsonl:2", "it has no text in a field 'said': name the field by --text-field"]]
    assert [*replies[2]] == ["error"] and replies[2]["error"].startswith("it is no JSON: ") and len(replies) == 3
    assert bounds["RLIMIT_AS"] == [1 << 45, 1 << 45] and bounds["RLIMIT_CORE"] == [0, 0] == bounds["RLIMIT_FSIZE"]
    soft, kept = bounds["RLIMIT_CPU"]  # what is used until now, the last file's 3 s, and 2 s
    assert kept == hard and soft in (int(bounds["used"] + 3) + 2, int(bounds["used"] + 3) + 1)
    assert asked()[0] == []
    assert asked((request("text", "a.txt"), b""))[0][0]["failed"] == []


def test_what_goes_wrong_in_a_parser_is_its_reply() -> None:
    settings = ReadSettings(parse_memory_bytes=300 << 20)

    def replied(error: Exception | None) -> Any:
        def read(data: bytes, name: str, given: ReadSettings) -> FileContent:
            assert (data, name, given) == (b"x", "n", settings)
            if error is None:
                return FileContent((), ("a note",), (("n:1", "why"),))
            raise error

        FORMATS["odd"] = FORMATS["text"]._replace(read=read)
        try:
            return reply("odd", b"x", "n", settings)
        finally:
            del FORMATS["odd"]

    assert replied(None) == {"documents": [], "notes": ["a note"], "failed": [["n:1", "why"]]}
    assert replied(DataError("it is odd")) == {"error": "it is odd"}
    missing = MissingExtra("pypdfium2", "rag", "reading PDF")
    assert replied(missing) == {"error": str(missing)}
    assert replied(MemoryError()) == {"error": "its parser needs more than 300 MiB of memory", "end": True}
    assert replied(ValueError("y" * 300)) == {"error": f"its parser failed: ValueError: {'y' * 200}", "end": True}
