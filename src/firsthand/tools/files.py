"""Files under one folder: list, read and find; with `write` also write, edit and overwrite.

Nothing outside the folder is opened, and nothing is written through links (`rooted.py` says how). What is written outlives
the attempt, so writing and editing are `external`, and overwriting, which nothing in the record can undo, is `irreversible`;
in a folder that belongs to one attempt alone (`scratch`) all three are `write`.
Left out: deleting, moving, and regular expressions, for one that explodes would stop the whole process.
"""

from __future__ import annotations

import codecs
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from typing import BinaryIO

from firsthand.declaration import Declaration, Rehearsal
from firsthand.errors import ToolError, nearest
from firsthand.message import Json
from firsthand.system.normalised_text import normalised_text
from firsthand.system.terminal import printable
from firsthand.tool import Tool, tool_from_function
from firsthand.tools.folders.file_change import rehearsed_change, write_over
from firsthand.tools.folders.file_undo import file_undo
from firsthand.tools.folders.rooted import Rooted, enter, kind_of, open_file

MAX_ENTRIES = 500
"""The most folder entries, and matches, that are shown."""
MAX_CHARS = 14_000
"""The most characters of a file that are shown at a time."""
MAX_BYTES = 4_000_000
"""The most bytes of a file that is edited, and of text that is written."""
MAX_SEARCHED_BYTES = 256_000_000
MAX_SEARCHED_FILES = 20_000
MAX_DEPTH = 32
MAX_PATTERN = 1_000
"""The most characters of a pattern of names."""
SEARCH_S = 20.0
MAX_NAMED = 10
"""The most files that are named because they could not be searched."""
_PIECE = 1 << 16


def files(root: str, *, write: bool = False, scratch: bool = False) -> tuple[Tool, ...]:
    """The tools for the files under `root`: list_files, read_file, find_files; with `write` also those that change them."""
    folder = Files(Rooted(root))
    origin = folder.origin
    reads = Declaration(paths=("path",), readers="user")
    made = [
        tool_from_function(folder.list_files, effect="read", origin=origin, declares=reads),
        tool_from_function(folder.read_file, effect="read", origin=origin, declares=reads),
        tool_from_function(folder.find_files, effect="read", origin=origin, declares=reads),
    ]
    if write:
        writes = Declaration(("path",), paths=("path",), readers="user", clean=True, undo=file_undo(folder.rooted))
        over = replace(writes, dry_run=folder.rehearsed)
        for each in (folder.write_file, folder.edit_file):
            made.append(tool_from_function(each, effect="write" if scratch else "external", declares=writes))
        made.append(
            tool_from_function(folder.overwrite_file, effect="write" if scratch else "irreversible", declares=over)
        )
    return tuple(replace(each, over=str(folder.rooted.path)) for each in made)


class Files:
    """The functions behind the tools."""

    def __init__(self, rooted: Rooted):
        self.rooted = rooted
        self.origin = f"files in {rooted.path.name}"

    def list_files(self, path: str = ".") -> str:
        """What is in a folder: names with sizes; a name that ends with / is a folder.

        Args:
            path: The folder, relative to the root.
        """
        with self.rooted.folder(path) as folder:
            names = sorted(entry.name for entry in _entries(folder))
            shown = [_entry(folder, name) for name in names[:MAX_ENTRIES]]
        more = [f"[and {len(names) - MAX_ENTRIES} more]"] if len(names) > MAX_ENTRIES else []
        return "\n".join([*shown, *more]) or "(the folder is empty)"

    def read_file(self, path: str, start: int = 1, lines: int = 1000) -> str:
        """The lines of a text file, as many as fit.

        Args:
            path: The file, relative to the root.
            start: The number of the first line that is wanted.
            lines: How many lines are wanted.
        """
        if start < 1 or lines < 1:
            raise ToolError(f"start is {start} and lines is {lines}: give 1 or more")
        with self.rooted.open(path) as file:
            _check_text(file, path)
            return _page(file, start, lines)

    def find_files(self, names: str = "*", text: str = "", path: str = ".") -> str:
        """The files whose names match, or the lines of them that hold a text, in a folder and the folders in it.

        Args:
            names: What the file's name looks like, such as *.py, in any of these folders.
            text: The words to look for, upper and lower case alike; empty for the files themselves.
            path: The folder, relative to the root.
        """
        if len(names) > MAX_PATTERN:
            raise ToolError(f"names has {len(names)} characters: give a pattern of at most {MAX_PATTERN}, such as *.py")
        while names.startswith("**/"):  # all folders are searched anyway
            names = names.removeprefix("**/")
        if "/" in names:
            raise ToolError(
                f"names is {names!r:.100}, and a name holds no /: give the folder as path, and names such as *.py"
            )
        search = _Search(_composed(names), _composed(text).casefold())
        with self.rooted.folder(path) as folder:
            start = self.rooted.relative(path)
            search.look_into(folder, f"{start}/" if start else "", 0)
        return search.told()

    def write_file(self, path: str, text: str) -> str:
        """Write a new text file, and the folders on its way. A file that is there already is left as it is.

        Args:
            path: The file, relative to the root.
            text: What it shall hold.
        """
        self.rooted.create(path, _bytes(text))
        return f"{path} has been written: {len(text)} characters"

    def edit_file(self, path: str, old: str, new: str) -> str:
        """Replace a text that occurs once in a file with another.

        Args:
            path: The file, relative to the root.
            old: The text as it is, with enough around it to occur only once.
            new: What shall stand there instead.
        """
        with self.rooted.open(path, follow=False) as file:
            before = os.fstat(file.fileno())
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ToolError(f"{path!r} has {before.st_size} bytes: at most {MAX_BYTES} can be edited")
        try:
            whole = content.decode("utf-8")
        except UnicodeDecodeError:
            raise ToolError(f"{path!r} is not UTF-8 text: editing it would spoil it") from None
        breaks = whole.count("\r\n")
        if breaks and (old not in whole or breaks == whole.count("\n")):
            old, new = (each.replace("\r\n", "\n").replace("\n", "\r\n") for each in (old, new))
        count = whole.count(old) if old else 0
        if count == 1 and whole.find(old, whole.find(old) + 1) >= 0:
            raise ToolError(
                f"old occurs more than once in {path!r}, overlapping itself: give more of the text around it"
            )
        if count != 1:
            close = _nearest_line(whole, old) if count == 0 else None
            advice = "give more of the text around it" if count else "read the file, and give text from it"
            advice = f"the nearest line is {close!r}; read the file again" if close else advice
            raise ToolError(f"old occurs {count} times in {path!r}: {advice}", self.origin if close else None)
        self.rooted.replace(path, _bytes(whole.replace(old, new)), unless_changed_from=before)
        return f"{path} has been edited"

    def overwrite_file(self, path: str, text: str) -> str:
        """Write a text file in the place of the one that is there; what that held is lost.

        Args:
            path: The file, relative to the root.
            text: What it shall hold.
        """
        write_over(self.rooted, path, _bytes(text))
        return f"{path} has been overwritten: {len(text)} characters"

    def rehearsed(self, arguments: Json) -> Rehearsal:
        """The change that `overwrite_file` would make, which is made of that file alone."""
        return rehearsed_change(self.rooted, arguments["path"], _bytes(arguments["text"]))


@dataclass
class _Search:
    """A running search: its query, its matches, and its remaining limits."""

    names: str
    text: str
    found: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    files: int = MAX_SEARCHED_FILES
    size_bytes: int = MAX_SEARCHED_BYTES
    ends_s: float = field(default_factory=lambda: time.monotonic() + SEARCH_S)

    def look_into(self, folder: int, prefix: str, depth: int) -> None:
        """Search an open folder and those in it; links are not followed."""
        for entry in sorted(_entries(folder), key=lambda entry: entry.name):
            if self.is_over():
                return
            try:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != ".git" and depth < MAX_DEPTH:
                        inner = enter(folder, entry.name)
                        try:
                            self.look_into(inner, f"{prefix}{entry.name}/", depth + 1)
                        finally:
                            os.close(inner)
                elif entry.is_file(follow_symlinks=False) and fnmatch(_composed(entry.name), self.names):
                    try:
                        self.look_at(folder, entry.name, prefix + entry.name)
                    finally:
                        self.files -= 1
            except (OSError, ToolError):  # it went away, or may not be read: the others are still there
                continue

    def look_at(self, folder: int, name: str, path: str) -> None:
        """Search one file."""
        if not self.text:
            self.found.append(printable(path))
            return
        with open_file(folder, name, path) as file:
            number, head, before, is_utf8 = 1, True, "", True
            decoder = codecs.getincrementaldecoder("utf-8")()
            while piece := file.readline(_PIECE):
                if head and piece.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    is_utf8 = False
                    break
                if (head and b"\0" in piece) or self.is_over():
                    return
                head = False
                self.size_bytes -= len(piece)
                ends = piece.endswith(b"\n")
                try:
                    line = decoder.decode(piece, final=ends)
                except UnicodeDecodeError:
                    is_utf8 = is_utf8 and self.text.isascii()  # such words are found whatever is around them
                    line = piece.decode("utf-8", "replace")
                    decoder.reset()
                line = _composed(before + line)
                if (place := line.casefold().find(self.text)) >= 0:
                    self.found.append(f"{printable(path)}:{number}: {printable(_around(line, place, len(self.text)))}")
                    before = ""
                else:
                    before = line[-max(80, len(self.text)) :]
                if ends:
                    number, before = number + 1, ""
            if not is_utf8:
                self.unread.append(path)

    def told(self) -> str:
        """The matches, the notes, and the files that could not be searched, a line each."""
        told = [*self.found, *self.notes] or ["(nothing was found)"]
        if self.unread:
            names = ", ".join(printable(each)[:200] for each in self.unread[:MAX_NAMED])
            more = f" and {len(self.unread) - MAX_NAMED} more" if len(self.unread) > MAX_NAMED else ""
            told.append(f"[not searched, for they are not in UTF-8: {names}{more}]")
        return "\n".join(told)

    def is_over(self) -> bool:
        """True if a limit is reached, which is then noted."""
        enough = len(self.found) >= MAX_ENTRIES
        if enough or self.files <= 0 or self.size_bytes <= 0 or time.monotonic() > self.ends_s:
            why = f"{MAX_ENTRIES} were found" if enough else "so much was searched"
            self.notes = [f"[stopped when {why}: look in a smaller folder, or for something rarer]"]
        return bool(self.notes)


def _composed(text: str) -> str:
    """The text with composed accents (NFC): names and texts from macOS often have them apart."""
    return text if text.isascii() else normalised_text("NFC", text)


def _around(line: str, place: int, length: int) -> str:
    """The line's first 200 characters, or 200 around a match that they do not show; `place` is in the folded line."""
    if len(line) != len(line.casefold()):  # as ß, which becomes ss
        folded = 0
        for index, char in enumerate(line):
            folded += len(char.casefold())
            if folded > place:
                place = index
                break
    shown = line.strip()
    place -= len(line) - len(line.lstrip())
    first = 0 if place + min(length, 200) <= 200 else max(0, place - 80)
    return f"{'... ' if first else ''}{shown[first : first + 200]}"


def _entries(folder: int) -> Iterator[os.DirEntry[str]]:
    """The entries of an open folder, as many as can be shown to be more than enough."""
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            if number >= 100_000:
                return
            yield entry


def _entry(folder: int, name: str) -> str:
    shown = printable(name).replace("\n", "\\n")
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return f"{shown}  (gone)"
    if stat.S_ISDIR(status.st_mode):
        return f"{shown}/"
    return f"{shown}  {status.st_size} bytes" if stat.S_ISREG(status.st_mode) else f"{shown}  ({kind_of(status)})"


def _check_text(file: BinaryIO, path: str) -> None:
    head = file.read(8192)
    file.seek(0)
    if b"\0" in head:
        size = os.fstat(file.fileno()).st_size
        raise ToolError(f"{path!r} is no UTF-8 text ({size} bytes of something else): it is not shown")


def _page(file: BinaryIO, start: int, lines: int) -> str:
    """Lines from `start` on, as many as are wanted and fit, and a note where there is more."""
    taken: list[str] = []
    size = number = 0
    for number, line in enumerate(_lines(file), 1):
        if number < start:
            continue
        if len(taken) == lines or size + len(line) > MAX_CHARS:
            return f"{''.join(taken)}[there is more: go on with start={number}]"
        taken.append(line)
        size += len(line)
    return "".join(taken) or (f"(the file has {number} lines)" if number else "(the file is empty)")


def _lines(file: BinaryIO) -> Iterator[str]:
    """The lines of a file; of one that does not fit a page only its beginning."""
    ends_s = time.monotonic() + SEARCH_S
    while piece := file.readline(_PIECE):
        if time.monotonic() > ends_s:
            raise ToolError("the file is too big to be read so far")
        text, more = piece.decode("utf-8", "replace"), 0
        while not piece.endswith(b"\n") and (piece := file.readline(_PIECE)):
            more += len(piece)
            if time.monotonic() > ends_s:
                raise ToolError("the file is too big to be read so far")
        if more or len(text) > MAX_CHARS:
            text = f"{text[: MAX_CHARS - 100]} [the line goes on]\n"
        yield text


def _bytes(text: str) -> bytes:
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ToolError(
            f"the text has {text[error.start]!r} at character {error.start + 1}, which is half of a character: "
            "write the whole one"
        ) from None
    if len(content) > MAX_BYTES:
        raise ToolError(f"the text has {len(content)} bytes: at most {MAX_BYTES} can be written")
    return content


def _nearest_line(whole: str, old: str) -> str | None:
    first = next((line for line in old.splitlines() if line.strip()), "")
    return nearest(first[:200], [line[:200] for line in whole[:100_000].splitlines()]) if first else None
