"""Runs `firsthand` commands of the documentation in forks of one process that has imported what most of them import.

A command that loads a model imports torch and numba first, which takes most of its time. What a command does is not changed:
each has its own process, arguments, environment, folder and streams.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import io
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

IMPORTS = (
    "firsthand.cli",
    "firsthand.commands.run",
    "firsthand.providers.local",
    "firsthand.train.training_run",
    "torch._dynamo",
)
FDS = array.array("i").itemsize * 3
CLIENT = '''#!{python} -IS
"""Has the server run this command: forwards signals to it, and ends with its exit code."""
import array, json, os, signal, socket, sys

link = socket.socket(socket.AF_UNIX)
link.connect({path!r})
asked = json.dumps({{"words": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}).encode()
link.sendmsg([len(asked).to_bytes(8, "little")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
link.sendall(asked)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda given, frame: link.sendall(bytes([given])))
told = link.recv(4)
sys.exit(int.from_bytes(told, "little") if told else 255)
'''


@contextlib.contextmanager
def commands(folder: Path) -> Iterator[Path]:
    """A folder for the path, whose `firsthand` is carried out by a server that ends with the block."""
    place = folder / "bin" / "firsthand"
    place.parent.mkdir()
    place.write_text(CLIENT.format(python=sys.executable, path=str(folder / "socket")))
    place.chmod(0o755)
    words = [sys.executable, __file__, str(folder / "socket")]
    with subprocess.Popen(words) as server:
        while not (folder / "socket").exists():
            assert server.poll() is None, "the server of commands has ended"
            time.sleep(0.05)
        try:
            yield place.parent
        finally:
            server.kill()


def serve(path: str) -> None:
    """Fork for each connection until the parent of this process has ended."""
    for name in IMPORTS:
        __import__(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    watched = selectors.DefaultSelector()
    watched.register(listener, selectors.EVENT_READ)
    parent, children = os.getppid(), dict[int, tuple[socket.socket, int]]()
    while os.getppid() == parent:
        for key, _ in watched.select(1.0):
            if key.fileobj is listener:
                link, _ = listener.accept()
                pid = begin(link, [listener, *(other for other, _ in children.values())])
                ended = os.pidfd_open(pid)
                children[ended] = children[link.fileno()] = (link, pid)
                watched.register(ended, selectors.EVENT_READ)
                watched.register(link, selectors.EVENT_READ)
                continue
            if key.fileobj is not (link := children[key.fd][0]):  # it has ended
                pid = children[key.fd][1]
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(OSError):
                    link.sendall((code if code >= 0 else 128 - code).to_bytes(4, "little"))
                watched.unregister(key.fileobj)
                os.close(key.fd)
                del children[key.fd]
                if link.fileno() in children:
                    watched.unregister(link)
                    del children[link.fileno()]
                link.close()
                continue
            pid, given = children[key.fd][1], link.recv(1)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, given[0] if given else signal.SIGKILL)
            if not given:
                watched.unregister(link)
                del children[key.fd]


def begin(link: socket.socket, others: list[socket.socket]) -> int:
    """Read what is asked on a connection, and fork a process that does it."""
    head, ancillary, _, _ = link.recvmsg(8, socket.CMSG_SPACE(FDS), socket.MSG_WAITALL)
    streams = array.array("i", ancillary[0][2][:FDS])
    size = int.from_bytes(head, "little")
    body = b""
    while len(body) < size:
        body += link.recv(size - len(body))
    pid = os.fork()
    if pid:
        for stream in streams:
            os.close(stream)
        return pid
    for other in (link, *others):
        other.close()
    carry_out(json.loads(body), list(streams))
    raise AssertionError("it has ended")


def carry_out(asked: dict[str, Any], streams: list[int]) -> None:
    """Be the command: its streams, folder, environment and arguments; then end as an interpreter ends."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            io.BufferedReader(raw) if number == 0 else io.BufferedWriter(raw),
            encoding="utf-8",
            errors="backslashreplace" if number == 2 else "strict",
            line_buffering=number == 2 or raw.isatty(),
        )
        for number, raw in enumerate(io.FileIO(number, "wb" if number else "rb", closefd=False) for number in range(3))
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = ["firsthand", *asked["words"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code: object = 1
    try:
        from firsthand.__main__ import main

        code = main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    threading._shutdown()
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    serve(sys.argv[1])
