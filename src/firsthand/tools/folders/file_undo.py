"""Takes back what a tool did to a file: captures its content and mode, and puts them back whole or not at all."""

from __future__ import annotations

import base64
import difflib
import os
import stat
from typing import Any

from firsthand.declaration import Undo
from firsthand.errors import ToolError
from firsthand.message import Json
from firsthand.tools.folders.rooted import Rooted

MAX_CAPTURED = 4_000_000
"""The most bytes of a file that are kept to be put back."""


def file_undo(rooted: Rooted) -> Undo:
    """The Undo of tools whose argument `path` is the one file that they change. Folders that were made on the way stay."""

    def capture(arguments: Json) -> Any:
        content, mode = content_of(rooted, arguments["path"])
        return None if content is None else {"base64": base64.b64encode(content).decode("ascii"), "mode": mode}

    def restore(arguments: Json, state: Any) -> None:
        if state is None:
            rooted.remove(arguments["path"])
        else:
            rooted.replace(arguments["path"], base64.b64decode(state["base64"]), mode=state["mode"])

    return Undo(capture, restore)


def content_of(rooted: Rooted, path: str) -> tuple[bytes | None, int]:
    """The bytes of a file and its mode; None and 0 if there is none. ToolError for any other failure."""
    try:
        with rooted.open(path) as file:
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
    lines = difflib.unified_diff(before.splitlines(), text.splitlines(), path, path, lineterm="", n=1)
    if shown := "\n".join(lines):
        return shown
    if content is None:
        return "a new file without text"
    is_same = content == text.encode("utf-8", "replace")
    return "nothing would change" if is_same else "only line ends or what is no text would change"
