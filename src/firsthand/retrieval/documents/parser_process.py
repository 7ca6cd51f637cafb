"""Parses files of strangers in a process of its own, whose memory, processor time and files the kernel bounds.

Requests come on standard input: 8 bytes with the length of a JSON object, the object, 8 bytes with the length of the file,
and the file. Each gets one reply, 8 bytes and a JSON object: `documents`, `notes` and `failed`, or `error`. It opens no
file, gets no path, and whoever started it kills it when its time is up.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any, BinaryIO

from firsthand.errors import DataError, MissingExtra
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings
from firsthand.retrieval.documents.formats import FORMATS

LENGTH = 8


def main() -> None:
    """Answer requests until standard input ends."""
    given, taken = sys.stdin.buffer, sys.stdout.buffer
    bound = False
    while head := read_block(given):
        request = json.loads(head)
        data = read_block(given)
        settings = ReadSettings(**request["settings"])
        if not bound:
            memory = settings.parse_memory_bytes
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
            bound = True
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_limit_s(settings), resource.getrlimit(resource.RLIMIT_CPU)[1]))
        write_block(taken, json.dumps(reply(request["format"], data, request["name"], settings)).encode())


def cpu_limit_s(settings: ReadSettings) -> int:
    """The processor time at which the process is stopped: its files until now have their own, and this one its seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return int(used.ru_utime + used.ru_stime + settings.parse_seconds) + 2


def reply(format_name: str, data: bytes, name: str, settings: ReadSettings) -> dict[str, Any]:
    """The content of a file as JSON, or the error."""
    try:
        return content_to_json(FORMATS[format_name].read(data, name, settings))
    except (DataError, MissingExtra) as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": f"its parser needs more than {settings.parse_memory_bytes >> 20} MiB of memory", "end": True}
    except Exception as error:
        return {"error": f"its parser failed: {type(error).__name__}: {str(error)[:200]}", "end": True}


def content_to_json(content: FileContent) -> dict[str, Any]:
    """The content as JSON."""
    documents = [
        [each.id, each.text, each.title, dict(each.meta), [[p.start, p.kind, p.label] for p in each.locations]]
        for each in content.documents
    ]
    return {"documents": documents, "notes": list(content.notes), "failed": [list(each) for each in content.failed]}


def content_from_json(body: Any, name: str) -> FileContent:
    """The content that a reply describes. ValueError if it is none, or holds documents of another file."""
    try:
        documents = tuple(
            Document(
                str(id), str(text), str(title), meta={str(key): value for key, value in meta.items()},
                locations=tuple(Location(int(start), kind, str(label)) for start, kind, label in places),
            )
            for id, text, title, meta, places in body["documents"]
        )  # fmt: skip
        notes = tuple(str(each) for each in body["notes"])
        failed = tuple((str(id), str(reason)) for id, reason in body["failed"])
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(str(error)) from None
    for each in documents:
        if each.id != name and not each.id.startswith(f"{name}:"):
            raise ValueError(f"a document {each.id[:80]!r}")
    return FileContent(documents, notes, failed)


def read_block(stream: BinaryIO, most: int = 1 << 40) -> bytes:
    """A block of bytes, which its length precedes; empty at the end. ValueError if it is longer than `most`."""
    head = stream.read(LENGTH)
    if len(head) < LENGTH:
        return b""
    length = int.from_bytes(head, "little")
    if length > most:
        raise ValueError(f"a block of {length} bytes")
    data = stream.read(length)
    if len(data) < length:
        raise ValueError("a block that ends early")
    return data


def write_block(stream: BinaryIO, data: bytes) -> None:
    """Write a block of bytes after its length."""
    stream.write(len(data).to_bytes(LENGTH, "little"))
    stream.write(data)
    stream.flush()


if __name__ == "__main__":
    main()
