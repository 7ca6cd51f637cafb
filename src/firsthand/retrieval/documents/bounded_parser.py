"""BoundedParser: parses files in a process that is killed when it takes too long, needs too much, or answers too much.

The process serves many files and is replaced after a fault, so one file's fault is its own. What it sends is JSON and is
checked. It runs in bubblewrap where that is there, without network, home or anything to write; elsewhere as the same user,
within its bounds alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from firsthand.errors import DataError
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings
from firsthand.retrieval.documents.parser_process import content_from_json, read_block, write_block
from firsthand.sandbox.reader_command import import_path, reader_command

MAX_FILES = 500
"""A process is replaced after so many files, so that what a parser leaks does not add up."""
START_S = 60.0
"""Added to the time of the first file, for the start of the process."""
ENDING_S = 2.0
"""The time that a process whose pipes have closed may take to end, before it is killed and its exit status is lost."""


class BoundedParser:
    """Parses one file at a time. Thread-safe; `close` kills the process, and a call that waits for it fails."""

    def __init__(self, settings: ReadSettings):
        self.settings = settings
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._files = 0
        self._closed = False
        self._timed_out = False

    def parse(self, format_name: str, data: bytes, name: str) -> FileContent:
        """The content of a file. DataError if its parser fails, hangs, or exceeds a bound."""
        with self._lock:
            if self._closed:
                raise DataError("the parser was closed")
            process = self._ready()
            self._timed_out = False
            patience = self.settings.parse_seconds + (START_S if self._files == 0 else 0)
            watch = threading.Timer(patience, self._kill_late, [process])
            watch.start()
            self._files += 1
            try:
                request = {"format": format_name, "name": name, "settings": asdict(self.settings)}
                assert process.stdin is not None and process.stdout is not None
                write_block(cast(Any, process.stdin), json.dumps(request).encode())
                write_block(cast(Any, process.stdin), data)
                body = json.loads(read_block(cast(Any, process.stdout), self._most(len(data))) or b"null")
            except (OSError, ValueError, RecursionError, MemoryError) as error:
                self._end(ENDING_S if isinstance(error, OSError) else 0)
                raise DataError(self._fault(process, str(error))) from None
            finally:
                watch.cancel()
            if not isinstance(body, dict):
                self._end(ENDING_S)
                raise DataError(self._fault(process, ""))
            if body.get("end") or self._files >= MAX_FILES:
                self._end()
        if "error" in body:
            raise DataError(str(body["error"])[:500])
        try:
            return content_from_json(body, name)
        except ValueError as error:
            raise DataError(f"its parser gave something else than documents: {str(error)[:100]}") from None

    def close(self) -> None:
        """Kill the process."""
        self._closed = True
        if (process := self._process) is not None:
            _kill(process)
        with self._lock:
            self._end()

    def _most(self, size: int) -> int:
        """The most bytes of a reply: text, twice over for JSON's escapes."""
        return 50_000_000 + 12 * max(size, self.settings.max_file_bytes)

    def _ready(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            given: list[int] = []
            try:
                program = [sys.executable, "-P", "-X", "utf8", str(Path(__file__).with_name("parser_process.py"))]
                self._process = subprocess.Popen(
                    reader_command(program, given),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    pass_fds=given,
                    env={"PYTHONPATH": import_path(), "PATH": os.defpath, "OMP_NUM_THREADS": "1"},
                    start_new_session=True,  # Ctrl-C is for whoever started the ingest, and its group is killed whole
                )
            finally:
                for fd in given:
                    os.close(fd)
            self._files = 0
        return self._process

    def _kill_late(self, process: subprocess.Popen[bytes]) -> None:
        self._timed_out = True
        _kill(process)

    def _end(self, patience_s: float = 0) -> None:
        """Kill the process; one whose pipes have closed is given a moment to tell its exit status."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
            _kill(process)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()
            process.wait()

    def _fault(self, process: subprocess.Popen[bytes], told: str) -> str:
        """The reason why there is no reply; the process has ended."""
        if self._closed:
            return "the parser was closed"
        seconds = f"{self.settings.parse_seconds:g} s"
        code = process.returncode
        if code is not None and code > 128:  # bubblewrap's status for a program that a signal ended
            code = 128 - code
        if self._timed_out or code == -signal.SIGXCPU:
            return f"its parser did not end within {seconds}: it was stopped"
        if "block of" in told:
            return "its parser gives more text than is taken from one file: divide it"
        name = signal.Signals(-code).name if code and code < 0 and -code in signal.valid_signals() else f"exit {code}"
        return f"its parser crashed ({name})"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with its whole group, in which bubblewrap and what it runs are."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
