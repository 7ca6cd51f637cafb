"""Takes back what a tool did to a file: captures its content and mode, and puts them back whole or not at all."""

from __future__ import annotations

import base64
import os
import stat
from typing import Any

from firsthand.declaration import Undo
from firsthand.errors import ToolError
from firsthand.message import Json
from firsthand.system.bounded_matcher import BoundedMatcher
from firsthand.system.plurals import count_of
from firsthand.tools.folders.rooted import Rooted

MAX_CAPTURED = 4_000_000
"""The most bytes of a file that are kept to be put back."""
MAX_COMPARED = 4000
"""The most lines, old and new together, that are compared one by one."""
MAX_LINE_PAIRS = 2_000_000
"""Pairs of equal lines that are looked at; what is not compared yet counts as different."""


def file_undo(rooted: Rooted) -> Undo:
    """The Undo of tools whose argument `path` is the one file that they change. Folders that were made on the way stay."""

    def capture(arguments: Json) -> Any:
        content, mode = content_of(rooted, arguments["path"])
        if content is None:
            return None
        return {"base64": base64.b64encode(content).decode("ascii"), "mode": mode}

    def restore(arguments: Json, state: Any) -> None:
        if state is None:
            rooted.remove(arguments["path"])
        else:
            rooted.replace(arguments["path"], base64.b64decode(state["base64"]), mode=state["mode"] & 0o777)

    return Undo(capture, restore)


def content_of(rooted: Rooted, path: str) -> tuple[bytes | None, int]:
    """The bytes of a file and its mode; None and 0 if there is none. ToolError for any other failure, and for links."""
    try:
        with rooted.open(path, follow=False) as file:
            content = file.read(MAX_CAPTURED + 1)
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o777
    except ToolError as error:
        if isinstance(error.__context__, FileNotFoundError):  # the file, or a folder on the way
            return None, 0
        raise
    if len(content) > MAX_CAPTURED:
        raise ToolError(f"{path!r} has more than {MAX_CAPTURED} bytes: it could not be put back")
    return content, mode


def shown_change(rooted: Rooted, path: str, text: str) -> str:
    """The difference that writing `text` to a file would make."""
    content, _ = content_of(rooted, path)
    before = "" if content is None else content.decode("utf-8", "replace")
    if shown := _difference(path, before.splitlines(), text.splitlines()):
        return shown
    if content is None:
        return "a new file without text"
    is_same = content == text.encode("utf-8", "replace")
    return "nothing would change" if is_same else "only line ends or what is no text would change"


def _difference(path: str, old: list[str], new: list[str]) -> str:
    """Return the lines that differ with one line of context, or counts if they are too many; empty if equal."""
    shorter = min(len(old), len(new))
    begin = next((at for at in range(shorter) if old[at] != new[at]), shorter)
    rest = shorter - begin
    end = next((at for at in range(rest) if old[-1 - at] != new[-1 - at]), rest)
    if begin == len(old) == len(new):
        return ""
    cut_old, cut_new = old[begin : len(old) - end], new[begin : len(new) - end]
    if cut_old and cut_new and len(cut_old) + len(cut_new) > MAX_COMPARED:
        return f"from line {begin + 1} of {path} on, {_size(cut_old)} would be replaced by {_size(cut_new)}"
    skipped, after = max(0, begin - 1), max(0, end - 1)  # one equal line on each side is shown
    old, new = old[skipped : len(old) - after], new[skipped : len(new) - after]
    shown = [f"--- {path}", f"+++ {path}"]
    for group in BoundedMatcher(old, new, MAX_LINE_PAIRS).get_grouped_opcodes(1):
        (_, from_old, _, from_new, _), (_, _, to_old, _, to_new) = group[0], group[-1]
        places = _place(skipped + from_old, to_old - from_old), _place(skipped + from_new, to_new - from_new)
        shown.append("@@ -{} +{} @@".format(*places))
        for kind, i, j, k, m in group:
            if kind == "equal":
                shown += [f" {line}" for line in old[i:j]]
            else:
                shown += [*(f"-{line}" for line in old[i:j]), *(f"+{line}" for line in new[k:m])]
    return "\n".join(shown)


def _place(before: int, count: int) -> str:
    """A range of lines in the head of a hunk, as `diff -u` writes it."""
    return f"{before + 1}" if count == 1 else f"{before + (count > 0)},{count}"


def _size(lines: list[str]) -> str:
    return f"{count_of(len(lines), 'line')} ({sum(len(x.encode('utf-8', 'replace')) + 1 for x in lines):,} bytes)"
