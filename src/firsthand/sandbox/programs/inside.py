"""The program that works on a repository inside a sandbox or container: a request on stdin, one JSON object on stdout.

It is untrusted ground: what it prints is read as data. Standard library only, and Python 3.6 is enough, as some images have.
"""

import json
import os
import subprocess
import sys
from typing import Any, List, Tuple

GIT = ["git", "-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false",
       "-c", "core.attributesFile=/dev/null", "-c", "core.quotePath=false", "-c", "diff.external=",
       "-c", "submodule.recurse=false", "-c", "protocol.allow=never", "-c", "core.fileMode=true"]  # fmt: skip


def main() -> None:
    request = json.load(sys.stdin)
    try:
        answer = {"result": globals()["do_" + request["do"]](**request["with"])}
    except Problem as problem:
        answer = {"problem": str(problem)}
    except (OSError, ValueError) as error:
        answer = {"problem": getattr(error, "strerror", None) or str(error)}
    sys.stdout.write(json.dumps(answer))


class Problem(Exception):
    """A mistake of the model, with a message for it."""


def git(*words: Any, data: bytes = b"", **more: Any) -> bytes:
    done = subprocess.run([*GIT, *words], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
    if done.returncode != 0:
        raise Problem(f"git {words[-1][:40]}: {done.stderr.decode('utf-8', 'replace')[-300:]}")
    return bytes(done.stdout)


def do_diff(base: str, root: str, most_bytes: int, most_files: int) -> Any:
    """The changes of text files since the commit of `base` as a patch, and the names of files that a patch cannot express.

    Index and new objects lie in a place of their own, and the base is apart from the working copy, whose own .git counts
    for nothing.
    """
    scratch = f"/tmp/diff-{os.getpid()}"
    os.makedirs(os.path.join(scratch, "objects"))
    there = dict(os.environ, GIT_INDEX_FILE=os.path.join(scratch, "index"), GIT_CONFIG_NOSYSTEM="1",
                 GIT_CONFIG_GLOBAL="/dev/null", GIT_OBJECT_DIRECTORY=os.path.join(scratch, "objects"),
                 GIT_ALTERNATE_OBJECT_DIRECTORIES=os.path.join(base, "objects"))  # fmt: skip
    here = ["--git-dir=" + base, "--work-tree=" + root]
    git(*here, "read-tree", "HEAD", env=there, cwd=root)
    git(*here, "add", "--all", ".", env=there, cwd=root)
    changed = git(*here, "diff", "--cached", "--raw", "--abbrev=40", "-z", "--no-renames", "HEAD", env=there, cwd=root)
    pieces: List[str] = []
    left_out: List[List[str]] = []
    size = 0
    fields = changed.split(b"\0")[:-1]
    for told, name in zip(fields[::2], fields[1::2]):  # noqa: B905
        modes = told[1:].split()[:2]
        path = name.decode("utf-8", "replace")
        why = None
        if len(pieces) >= most_files:
            why = "too many files"
        elif not set(modes) <= {b"000000", b"100644", b"100755"}:
            why = "no ordinary file"
        if why is None:
            piece = git(*here, "diff", "--cached", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv",
                        "--src-prefix=a/", "--dst-prefix=b/", "HEAD", "--", b":(literal)" + name,
                        env=there, cwd=root)  # fmt: skip
            if b"\nBinary files " in piece or b"\0" in piece:
                why = "binary"
            elif size + len(piece) > most_bytes:
                why = "too long"
        if why is None:
            try:
                pieces.append(piece.decode("utf-8"))
                size += len(piece)
            except UnicodeDecodeError:
                why = "no UTF-8 text"
        if why is not None:
            left_out.append([path[:200], why])
    return {"diff": "".join(pieces), "left_out": left_out[:100], "num_left_out": len(left_out)}


def within(root: str, path: str) -> str:
    """The path in the working copy; a link out of it is none."""
    whole = os.path.realpath(os.path.join(root, path))
    if whole != root and not whole.startswith(root + os.sep):
        raise Problem(f"{path!r} is not inside {root}: give a path relative to it")
    return whole


def read_text(root: str, path: str, most: int) -> Tuple[str, str]:
    whole = within(root, path)
    if not os.path.isfile(whole):
        raise Problem(f"{path!r} is no file: view the folder to see what is there")
    if os.path.getsize(whole) > most:
        raise Problem(f"{path!r} has {os.path.getsize(whole)} bytes: at most {most} can be read")
    with open(whole, "rb") as file:
        raw = file.read(most)
    try:
        return whole, raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(f"{path!r} is no UTF-8 text") from None


def do_view(root: str, path: str, start: int, lines: int, most: int) -> str:
    whole = within(root, path)
    if os.path.isdir(whole):
        names = sorted(os.listdir(whole))
        shown = [name + ("/" if os.path.isdir(os.path.join(whole, name)) else "") for name in names[:500]]
        return "\n".join(shown + [f"[and {len(names) - 500} more]"] * (len(names) > 500)) or "(the folder is empty)"
    _, text = read_text(root, path, most)
    every = text.split("\n")
    taken: List[str] = []
    size = 0
    for number, line in enumerate(every[start - 1 : start - 1 + lines], start):
        size += len(line) + 8
        if taken and size > 14000:
            break
        taken.append(f"{number:6d}\t{line[:2000]}")
    left = len(every) - (start - 1 + len(taken))
    return "\n".join(taken + ([f"[{left} more lines]"] if left > 0 else [])) or f"(there are {len(every)} lines)"


def do_edit(root: str, path: str, old: str, new: str, most: int) -> str:
    whole, text = read_text(root, path, most)
    count = text.count(old) if old else 0
    if count != 1:
        more = "give more of the text around it" if count else "read the file again, and give text from it"
        raise Problem(f"old occurs {count} times in {path!r}: {more}")
    write(whole, text.replace(old, new).encode("utf-8"))
    return f"{path} has been edited"


def do_create(root: str, path: str, text: str) -> str:
    whole = within(root, path)
    if os.path.lexists(whole):
        raise Problem(f"{path!r} is there already: edit it")
    raw = text.encode("utf-8")  # what cannot be encoded leaves everything as it is
    os.makedirs(os.path.dirname(whole), exist_ok=True)
    write(whole, raw)
    return f"{path} has been written: {len(text)} characters"


def write(whole: str, raw: bytes) -> None:
    with open(whole, "wb") as file:
        file.write(raw)


if __name__ == "__main__":
    main()
