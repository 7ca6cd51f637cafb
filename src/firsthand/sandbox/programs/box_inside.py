"""Carries out the commands and file operations of a Box inside it, as their user. Standard library only; imported once.

An answer is one line on stdout: `ok` and more, or `errno` and its number.
"""

import base64
import hashlib
import json
import os
import signal
import stat
import sys
import zlib
from collections.abc import Iterator
from typing import Any

OPEN = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def main(text: str) -> None:
    do, given = json.loads(text)
    if do == "exec":
        run(**given)
    try:
        said = globals()["do_" + do](**given)
    except (OSError, ValueError) as error:  # the second: no path has a null in it
        said = None
        sys.stdout.write(f"errno {getattr(error, 'errno', None) or 22}")
    if said is not None:
        sys.stdout.write("ok " + said)


def run(words: list[str], folder: str, environment: dict[str, str]) -> None:
    """Become the command."""
    # Python ignores the first two, and what it starts would too; nohup, and a shell's &, leave the others ignored.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    place = folder
    try:
        os.chdir(folder)
        place = words[0]
        os.environ.update(environment)
        os.execvp(words[0], words)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{place}: {getattr(error, 'strerror', None) or error}\n")
        sys.stderr.flush()
        missing = isinstance(error, FileNotFoundError) and place == words[0]
        os._exit(127 if missing else 126)


def do_read(path: str, most: int) -> str:
    handle = os.open(path, os.O_RDONLY | OPEN)
    with os.fdopen(handle, "rb") as file:
        ordinary(handle)
        size = os.fstat(handle).st_size
        if size > most:
            return f"long:{size}"
        return "whole:" + packed(file.read(most))


def do_write(path: str) -> str:
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | OPEN, 0o644)
    with os.fdopen(handle, "wb") as file:
        # The kernel refuses this for what is no ordinary file: others have no end, or wait for somebody.
        file.truncate(0)
        while True:
            piece = sys.stdin.buffer.read(1 << 20)
            if not piece:
                return ""
            file.write(piece)


def ordinary(handle: int) -> None:
    """OSError unless it is an ordinary file: others have no end, or wait for somebody."""
    mode = os.fstat(handle).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(21, "")
    if not stat.S_ISREG(mode):
        raise OSError(22, "")


def packed(raw: bytes) -> str:
    return base64.b64encode(zlib.compress(raw, 1)).decode("ascii")


def do_seen(folders: list[str]) -> str:
    return json.dumps({path: marks(path) for path in everything(folders)})


def everything(folders: list[str]) -> Iterator[str]:
    """Every path in the folders, those above before those below; not what is mounted there, as Python may be.

    Without recursion, as `os.walk` has it before Python 3.12: folders may lie deeper in each other than its stack.
    """
    for top in folders:
        device = os.lstat(top).st_dev
        ahead = [top]
        while ahead:
            folder = ahead.pop()
            inner = []
            try:
                names = sorted(os.listdir(folder))
            except PermissionError:
                continue
            for path in (os.path.join(folder, name) for name in names):
                status = os.lstat(path)
                if stat.S_ISDIR(status.st_mode):
                    if status.st_dev != device:
                        continue
                    inner.append(path)
                yield path
            ahead += reversed(inner)


def marks(path: str) -> list[Any]:
    """Kind, permissions and content of what is at a path: links by where they lead, files by a hash."""
    status = os.lstat(path)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return ["link", 0, os.readlink(path)]
    if stat.S_ISDIR(status.st_mode):
        return ["folder", mode, ""]
    if not stat.S_ISREG(status.st_mode):
        return ["other", 0, ""]
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for piece in iter(lambda: file.read(1 << 20), b""):
                digest.update(piece)
    except OSError:  # closed to us, who may open it again
        return ["file", mode, str(status.st_mtime_ns)]
    return ["file", mode, digest.hexdigest()]


def do_snapshot(folders: list[str], most: int) -> str:
    since = json.loads(sys.stdin.buffer.read())
    there = set()
    changed: list[tuple[str, list[Any], str]] = []
    left = 16 * most
    for path in everything(folders):
        there.add(path)
        found = marks(path)
        if since.get(path) == found or found[0] == "other":
            continue
        content = ""
        if found[0] == "file":
            left -= os.lstat(path).st_size
            if left < 0:
                return "long:"
            try:
                with open(path, "rb") as file:
                    content = base64.b64encode(file.read()).decode("ascii")
            except OSError:
                os.chmod(path, 0o600)
                with open(path, "rb") as file:
                    content = base64.b64encode(file.read()).decode("ascii")
                os.chmod(path, found[1])
        changed.append((path, found, content))
    gone = sorted(set(since) - there, reverse=True)
    raw = packed(json.dumps({"gone": gone, "changed": changed}).encode())
    return "long:" if len(raw) > most * 4 // 3 else "whole:" + raw


def do_restore(folders: list[str]) -> str:
    import shutil

    given = json.loads(zlib.decompress(base64.b64decode(sys.stdin.buffer.read())))
    for path in given["gone"] + [path for path, found, _ in given["changed"] if found[0] != "folder"]:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        elif os.path.lexists(path):
            os.unlink(path)
    for path, (kind, _, target), content in given["changed"]:
        if kind == "folder":
            if os.path.islink(path) or (os.path.lexists(path) and not os.path.isdir(path)):
                os.unlink(path)
            os.makedirs(path, exist_ok=True)
        elif kind == "link":
            os.symlink(target, path)
        else:
            with open(path, "wb") as file:
                file.write(base64.b64decode(content))
    for path, (kind, mode, _), _ in reversed(given["changed"]):
        if kind != "link":
            os.chmod(path, mode)
    return ""
