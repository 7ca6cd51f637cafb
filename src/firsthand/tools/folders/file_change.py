"""Shows what writing a text over a file would change, for a person to approve, and knows the same file again.

Lines end at a line feed alone. Every other line end, control character and byte that is no UTF-8 is an escape, so that
whatever differs stands in a line that differs. A change that does not fit begins with a line that says so.
"""

from __future__ import annotations

import hashlib
import re

from firsthand.declaration import Rehearsal
from firsthand.errors import ToolError
from firsthand.loop.approval import screen_rows
from firsthand.loop.calling import expected_effect
from firsthand.system.bounded_matcher import BoundedMatcher
from firsthand.system.plurals import count_of
from firsthand.system.terminal import one_line, printable
from firsthand.tools.folders.file_undo import whole_file
from firsthand.tools.folders.rooted import Rooted

MAX_COMPARED = 4000
"""The most lines, old and new together, that are compared one by one."""
MAX_LINE_PAIRS = 2_000_000
"""Pairs of equal lines that are looked at; what is not compared yet counts as different."""
MAX_SHOWN_CHARS = 1_800
"""The most characters of a difference: less than `safety.policy` shows of a dry run."""
MAX_SHOWN_ROWS = 32
"""Its most rows on a screen, so that a question has it whole."""
MAX_NAME = 200
"""The most characters of its path."""
_NO_LINE_END = "\n\\ No newline at end of file"
"""Behind a last line without a line feed, which no line holds: as `diff -u` writes it."""
_NOT_TEXT = re.compile("[\udc80-\udcff]")
"""Bytes that are no UTF-8, as `surrogateescape` decodes them."""
_EMOJI_SELECTORS = "\ufe0e\ufe0f"
"""Stay as they are behind a symbol."""


def rehearsed_change(rooted: Rooted, path: str, written: bytes) -> Rehearsal:
    """The difference that writing over a file would make, and the file as it is by then."""
    content, _ = whole_file(rooted, path)
    return Rehearsal(_shown_change(path, content, written), _effect(content))


def write_over(rooted: Rooted, path: str, written: bytes) -> None:
    """Put the content in the place of a file; after an approved dry run only if the file still is as it was then."""
    expected = expected_effect()
    if not expected:
        rooted.replace(path, written)
        return
    content, known = whole_file(rooted, path)
    if _effect(content) != expected:
        raise ToolError(
            f"nothing was written: {path!r} is no longer as it was in the dry run that was approved; read it again and call "
            "this again, so that it is asked about as it is now"
        )
    if known is None:
        rooted.create(path, written)
    else:
        rooted.replace(path, written, unless_changed_from=known)


def _effect(content: bytes | None) -> str:
    return "no file" if content is None else f"sha256 {hashlib.sha256(content).hexdigest()}"


def _shown_change(path: str, content: bytes | None, written: bytes) -> str:
    if content == written:
        return "nothing would change"
    if content is None and not written:
        return "a new file without text"
    old, new = _text(content or b""), _text(written)
    notes = []
    if content and _has_crlf_alone(old) and _has_line_feeds_alone(new):
        notes, old = ["every line end would change from CRLF to LF"], old.replace("\r\n", "\n")
    elif content and _has_line_feeds_alone(old) and _has_crlf_alone(new):
        notes, new = ["every line end would change from LF to CRLF"], new.replace("\r\n", "\n")
    name = one_line(path)[:MAX_NAME]
    difference = _difference(name, _lines(old), _lines(new))
    unseen = sorted(
        char for char in set[str]().union(*difference) if _escaped(char) != char and char not in _EMOJI_SELECTORS
    )
    if unseen:
        named = ", ".join(_named(char) for char in unseen[:8]) + (", ..." if len(unseen) > 8 else "")
        notes.append(f"shown as escapes: {named}")
    return "\n".join([*(f"[{note}]" for note in notes), *_fitted(difference)])


def _text(content: bytes) -> str:
    """The text of a file, with which it could be written again byte for byte."""
    return content.decode("utf-8", "surrogateescape")


def _has_crlf_alone(text: str) -> bool:
    return 0 < text.count("\r\n") == text.count("\n") == text.count("\r")


def _has_line_feeds_alone(text: str) -> bool:
    return "\n" in text and "\r" not in text


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    last = lines.pop()
    return [*lines, f"{last}{_NO_LINE_END}"] if last else lines


def _escaped(text: str) -> str:
    """The text with all that is not seen as escapes: bytes as `\\xff`, characters as Python writes them."""
    return printable(_NOT_TEXT.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text))


def _named(char: str) -> str:
    return f"byte {_escaped(char)[2:].upper()}" if _NOT_TEXT.match(char) else f"U+{ord(char):04X}"


def _fitted(difference: list[str]) -> list[str]:
    """The lines of a difference, escaped; of too many the first, behind a line that says how many there are."""
    shown: list[str] = []
    size = rows = 0
    for line in difference:
        line = _escaped(line) if len(line) <= MAX_SHOWN_CHARS else line
        size, rows = size + len(line) + 1, rows + screen_rows(line)
        if size > MAX_SHOWN_CHARS or rows > MAX_SHOWN_ROWS:
            break
        shown.append(line)
    else:
        return shown
    changed = [sum(line.startswith(sign) for line in difference[2:]) for sign in "-+"]
    told = [sum(line.startswith(sign) for line in shown[2:]) for sign in "-+"]
    return [
        f"[this is not the whole change: {count_of(changed[0], 'line')} would go and {count_of(changed[1], 'line')} would "
        f"come, of which {sum(told):,} are shown]",
        *shown,
    ]


def _difference(path: str, old: list[str], new: list[str]) -> list[str]:
    """Return the lines that differ with one line of context, or counts if they are too many; empty if equal."""
    shorter = min(len(old), len(new))
    begin = next((at for at in range(shorter) if old[at] != new[at]), shorter)
    rest = shorter - begin
    end = next((at for at in range(rest) if old[-1 - at] != new[-1 - at]), rest)
    if begin == len(old) == len(new):
        return []
    cut_old, cut_new = old[begin : len(old) - end], new[begin : len(new) - end]
    if cut_old and cut_new and len(cut_old) + len(cut_new) > MAX_COMPARED:
        return [f"from line {begin + 1} of {path} on, {_size(cut_old)} would be replaced by {_size(cut_new)}"]
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
    return shown


def _place(before: int, count: int) -> str:
    """A range of lines in the head of a hunk, as `diff -u` writes it."""
    return f"{before + 1}" if count == 1 else f"{before + (count > 0)},{count}"


def _size(lines: list[str]) -> str:
    ended = sum(not each.endswith(_NO_LINE_END) for each in lines)
    size = ended + sum(len(each.removesuffix(_NO_LINE_END).encode("utf-8", "replace")) for each in lines)
    return f"{count_of(len(lines), 'line')} ({size:,} bytes)"
