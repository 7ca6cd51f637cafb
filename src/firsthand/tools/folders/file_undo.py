"""Takes back what a tool did to a file: captures its content and mode, and puts them back whole or not at all."""

from __future__ import annotations

import base64
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
    content, status = whole_file(rooted, path)
    return content, 0 if status is None else stat.S_IMODE(status.st_mode) & 0o777


def whole_file(rooted: Rooted, path: str) -> tuple[bytes | None, os.stat_result | None]:
    """The bytes of a file and what it was just before they were read; None twice if there is none."""
    try:
        with rooted.open(path, follow=False) as file:
            status = os.fstat(file.fileno())
            content = file.read(MAX_CAPTURED + 1)
    except ToolError as error:
        if isinstance(error.__context__, FileNotFoundError):  # the file, or a folder on the way
            return None, None
        raise
    if len(content) > MAX_CAPTURED:
        raise ToolError(f"{path!r} has more than {MAX_CAPTURED} bytes: it could not be put back")
    return content, status
