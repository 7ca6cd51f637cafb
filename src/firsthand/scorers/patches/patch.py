"""Finds the patch in a model's answer and parses it strictly before it is used.

Only changes to ordinary text files that `git apply` understands pass: paths stay inside the repository and out of `.git`,
and symbolic links, submodules and binary files are refused, each with a sentence that names the line. `rewritten` gives
the same changes in one plain form, for programs that read more into a patch than we do, such as `Index:` lines.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from firsthand.errors import DataError

MAX_BYTES = 2**20
"""Size limit; the longest of the 800 reference patches of SWE-bench Verified and Lite has 17 kB."""
MAX_FILES = 300
_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_MODE = re.compile(r"(?:old mode|new mode|new file mode|deleted file mode|index [^.]*\.\.[^ ]*) \s*([+-]?\d+)")
"""As git reads a mode: white space and a sign may stand before it, anything after it, and the hashes are not checked."""
_PLAIN_MODES = ("100644", "100755")
_FENCE = re.compile(r"^```(?:[ \t]*(?:diff|patch))?[ \t]*$", re.MULTILINE)
_BEGINS = re.compile(r"^(?:diff --git |--- )", re.MULTILINE)
_WITHDRAWS = re.compile(
    r"^(?:</\w{4,5}>)?\W{0,9}(?:(?:instead|rather)\b(?! (?:of|than)\b)|(?:wait|hmm|no|actually)[,.!:—-]"
    r"|(?:alternatively|on second thought|or)\b|(?:ignore|discard|disregard|scrap|scratch|forget) (?:that|this|it)\b"
    r"|(?:that|this)(?: is|'s| was) (?:wrong|incorrect|a mistake|not right)\b)"
    r"|\b(?:ignore|discard|disregard|scrap|forget) (?:the|my) (?:above|first|previous|earlier|last)\b"
    r"|\b(?:above|first|previous|earlier|last|my) (?:patch|diff|attempt|fix|version) (?:is|was) (?:wrong|incorrect)\b"
    r"|(?<!/)\b(?:fix|patch) (?:(?:it|this|that) )?(?:in )?\S{1,60} instead\b(?! of\b)",
    re.IGNORECASE | re.MULTILINE,
)
"""Words between two parts that take the first back."""
_THOUGHT_ENDS = re.compile(r"^(?![-+ ]).*</think>[ \t]*$", re.MULTILINE)
"""The end of a thought, which is on no line of a patch."""
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", '"': '"', "\\": "\\"}
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"(.*)', re.DOTALL)
_UNSEEN = re.compile(
    r"[\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
)  # invisible characters, which some file systems drop from names


@dataclass(frozen=True)
class Change:
    """A patch's change to one file. One path is None if the file is created or deleted."""

    before: str | None
    after: str | None

    @property
    def path(self) -> str:
        """Path in the repository; the new one of a moved file."""
        path = self.after or self.before
        assert path is not None
        return path

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that it names, old and new."""
        return tuple(path for path in (self.before, self.after) if path)


class _Section(NamedTuple):
    """A change as the patch declares it."""

    change: Change
    header: tuple[str, ...] | None = None
    """Modes and moves, if the section begins with `diff --git`."""
    hunks: tuple[str, ...] = ()


def find_patch(answer: str) -> str:
    """Return the patch in an answer: in `<patch>` tags, in diff fences, or from the first header on; "" if none.

    Several parts are one patch. Of parts that change the same lines of a file the last counts, and none counts that is
    withdrawn after it, as by "Instead,". A thought that the answer begins with, up to `</think>`, is read only if there is
    no patch after it.
    """
    answer = answer.replace("\r\n", "\n")
    for text in (_said(answer), answer):
        for spans in (_tagged(text, "patch"), _tagged(text, "diff"), _fenced(text), [(0, len(text))]):
            parts, told = list[str](), 0
            for begin, end in spans:
                body = text[begin:end]
                if begins := _BEGINS.search(body):
                    if _WITHDRAWS.search(text[told:begin]):
                        parts.clear()
                    parts.append(_ended(body[begins.start() :]))
                    told = end
            if parts:
                return _joined(parts)
    return ""


def _said(answer: str) -> str:
    """Return what an answer says after the thought that it begins with; "" if it begins with none."""
    if answer.lstrip().startswith("<think>"):
        return answer.partition("</think>")[2]
    ends = _THOUGHT_ENDS.search(answer)  # a chat template may have opened it
    return answer[ends.end() :] if ends else ""


def _joined(patches: list[str]) -> str:
    """Return the last patch with the changes of those before it to other files, or to other lines of its files."""
    if len(patches) > MAX_FILES or sum(map(len, patches)) > MAX_BYTES:
        return "".join(patches)  # refused for its size
    try:
        chosen = list(reversed(_sections(patches[-1])))
    except DataError:
        return patches[-1]
    last, count, named = patches[-1], len(chosen), dict[str, int]()
    merged: dict[int, _MergedHunks] = {}
    for at, section in enumerate(chosen):
        named.update(dict.fromkeys(section.change.paths, at))
    for patch in reversed(patches[:-1]):
        try:
            sections = _sections(patch)
        except DataError:  # a sketch, or prose between fences
            continue
        others = list[_Section]()
        for section in reversed(sections):
            later = {named[path] for path in section.change.paths if path in named}
            if not later:
                others.append(section)
            elif len(later) == 1 and _is_edit_of(section, chosen[at := later.pop()]):
                hunks = merged[at] if at in merged else _MergedHunks(chosen[at])
                if hunks.add(section):
                    merged[at] = hunks
        for section in others:
            named.update(dict.fromkeys(section.change.paths, len(chosen)))
            chosen.append(section)
    for at, hunks in merged.items():
        chosen[at] = hunks.section()
    if any(at < count for at in merged):
        last = _text(reversed(chosen[:count]))
    # Moves and deletions come at the end: the names of a file after a section without hunks would be read as its own.
    kept = chosen[count:][::-1]
    before, after = (_text(each for each in kept if bool(each.hunks) is with_hunks) for with_hunks in (True, False))
    return before + last + after


def _is_edit_of(first: _Section, second: _Section) -> bool:
    """Return True if both change lines of one file that stays in its place."""
    is_same = first.change == second.change and first.change.before == first.change.after
    return is_same and bool(first.hunks and second.hunks)


class _MergedHunks:
    """The hunks of several parts of a patch for one file, which have no line in common.

    A part costs what it holds, however many came before it.
    """

    def __init__(self, section: _Section) -> None:
        self._change, self._header = section.change, section.header
        self._hunks = sorted(_each_hunk(section.hunks))

    def add(self, section: _Section) -> bool:
        """Add the hunks of another part; False, and none added, if a line is in two of them."""
        new = sorted(_each_hunk(section.hunks))
        beside = list(new)
        for hunk in new:
            at = bisect_left(self._hunks, hunk)
            beside += self._hunks[max(0, at - 1) : at + 1]
        beside = sorted({id(each): each for each in beside}.values())
        if any(one[0] + max(1, one[1]) > two[0] for one, two in pairwise(beside)):
            return False
        for hunk in new:
            insort(self._hunks, hunk)
        self._header = self._header or section.header
        return True

    def section(self) -> _Section:
        """The hunks as one change, with the line numbers of the file that they make."""
        lines, grown = list[str](), 0
        for start, old, new, body in self._hunks:
            lines += [f"@@ -{start},{old} +{start + grown + (not old) - (not new)},{new} @@", *body]
            grown += new - old
        return _Section(self._change, self._header, tuple(lines))


def _each_hunk(lines: tuple[str, ...]) -> Iterator[tuple[int, int, int, tuple[str, ...]]]:
    """Yield each hunk: its first old line, its counts of old and new lines, and its lines."""
    heads = [(at, head) for at, line in enumerate(lines) if (head := _HUNK.match(line))]
    for (at, head), end in zip(heads, [*(at for at, _ in heads[1:]), len(lines)], strict=True):
        old, new = (1 if count is None else int(count) for count in (head[2], head[4]))
        yield int(head[1]), old, new, lines[at + 1 : end]


def _ended(text: str) -> str:
    """Return a patch without the empty lines at its end, but for those that its last hunk counts as context."""
    ended = text.rstrip("\n")
    lines = ended.split("\n")
    last = next((at for at in reversed(range(len(lines))) if lines[at].startswith("@@ ")), len(lines))
    head = _HUNK.match(lines[last]) if last < len(lines) else None
    if head is None:
        return ended + "\n"
    kinds = [line[:1] or " " for line in lines[last + 1 :]]
    old, new = (int(head[count] or 1) - kinds.count(kind) - kinds.count(" ") for count, kind in ((2, "-"), (4, "+")))
    return ended + "\n" * (1 + old if 0 < old == new < len(text) - len(ended) else 1)


def _tagged(answer: str, name: str) -> list[tuple[int, int]]:
    """Return where the texts between two tags are, such as `<patch>` and `</patch>`."""
    found, begin = list[tuple[int, int]](), len(answer)
    while (end := answer.rfind(f"</{name}>", 0, begin)) >= 0 and (begin := answer.rfind(f"<{name}>", 0, end)) >= 0:
        found.append((begin + len(name) + 2, end))
    return found[::-1]


def _fenced(answer: str) -> list[tuple[int, int]]:
    """Return where the contents of fences marked diff, or unmarked, are."""
    marks = [found.span() for found in _FENCE.finditer(answer)]
    return [(end + 1, begin) for (_, end), (begin, _) in pairwise(marks)]


def read_patch(text: str) -> tuple[Change, ...]:
    """Parse a patch into changes, file by file; DataError with the line if it is malformed or forbidden."""
    return tuple(section.change for section in _sections(text))


def rewritten(text: str) -> str:
    """Return the patch written anew from its parsed changes: quoted names, modes, moves and hunks, and no other line."""
    return _text(_sections(text))


def _text(sections: Iterable[_Section]) -> str:
    return "".join(f"{line}\n" for section in sections for line in _written(section))


def _sections(text: str) -> tuple[_Section, ...]:
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise DataError("the patch is not text: it has half of a surrogate pair") from None
    if size > MAX_BYTES:
        raise DataError(f"the patch has {size:,} bytes: at most {MAX_BYTES:,} are allowed")
    if not text.strip():
        raise DataError("the patch is empty")
    if "\0" in text:
        raise DataError("the patch has a zero byte: binary content is refused")
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    sections = tuple(_split(lines))
    if not sections:
        raise DataError("the patch names no file: lines `--- a/FILE` and `+++ b/FILE` were expected")
    if len(sections) > MAX_FILES:
        raise DataError(f"the patch changes {len(sections)} files: at most {MAX_FILES} are allowed")
    return sections


def _written(section: _Section) -> Iterator[str]:
    """Yield the lines of a section."""
    before, after = section.change.before, section.change.after
    old, new = _quoted(f"a/{before or after}"), _quoted(f"b/{after or before}")
    if section.header is not None:
        yield f"diff --git {old} {new}"
        yield from section.header
    if section.hunks:
        yield f"--- {old if before else '/dev/null'}"
        yield f"+++ {new if after else '/dev/null'}"
        yield from section.hunks


def _quoted(path: str) -> str:
    """Return a path between quotes, in ASCII, as git quotes one."""
    plain = path.replace("\\", "\\\\").replace('"', '\\"').encode("utf-8")
    return '"' + "".join(chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in plain) + '"'


def touched(text: str) -> tuple[str, ...]:
    """Return all paths that a patch names, old and new, in order, each once."""
    named = [path for change in read_patch(text) for path in change.paths]
    return tuple(dict.fromkeys(named))


def _split(lines: list[str]) -> Iterator[_Section]:
    at = 0
    while at < len(lines):
        if lines[at].startswith("diff --git "):
            at, section = _git_section(lines, at)
            yield section
        elif lines[at].startswith("--- ") and at + 1 < len(lines) and lines[at + 1].startswith("+++ "):
            at, section = _hunks(lines, at)
            yield section
        else:
            _refuse_line(lines[at], at)
            at += 1


def _git_section(lines: list[str], at: int) -> tuple[int, _Section]:
    """Parse the section of a patch that begins with `diff --git`, up to the next one."""
    first, named, header = at, dict[str, str](), list[str]()
    at += 1
    while at < len(lines) and not lines[at].startswith(("diff --git ", "--- ", "@@ ")):
        line = lines[at]
        _refuse_line(line, at)
        for key in ("rename from ", "rename to ", "copy from ", "copy to "):
            if line.startswith(key):
                path = named[key.split()[1]] = _path(line.removeprefix(key), at, strip=False)
                header.append(f"{key}{_quoted(path)}")
        if line.startswith(("new file mode", "deleted file mode")):
            named[line.split()[0]] = ""
        if (mode := _MODE.match(line)) and not line.startswith("index "):
            header.append(f"{line.partition(' mode')[0]} mode {mode[1]}")
        at += 1
    if at < len(lines) and lines[at].startswith("--- "):
        end, (change, _, hunks) = _hunks(lines, at)
        change = Change(named.get("from", change.before), named.get("to", change.after))
        return end, _Section(change, tuple(header), hunks)
    if at < len(lines) and lines[at].startswith("@@ "):
        raise DataError(f"line {at + 1} of the patch: a hunk without `---` and `+++` before it")
    if "from" in named and "to" in named:
        return at, _Section(Change(named["from"], named["to"]), tuple(header))
    path = _same_path(lines[first], first)
    change = Change(None if "new" in named else path, None if "deleted" in named else path)
    return at, _Section(change, tuple(header))


def _hunks(lines: list[str], at: int) -> tuple[int, _Section]:
    """Parse a pair of `---` and `+++` lines and its hunks, and check the hunks' line counts."""
    if at + 1 >= len(lines) or not lines[at + 1].startswith("+++ "):
        raise DataError(f"line {at + 1} of the patch: `--- FILE` is not followed by `+++ FILE`")
    before, after = _path(lines[at][4:], at), _path(lines[at + 1][4:], at + 1)
    if not before and not after:
        raise DataError(f"line {at + 1} of the patch: both sides are /dev/null")
    first = at = at + 2
    if at >= len(lines) or not lines[at].startswith("@@ "):
        raise DataError(
            f"line {at + 1} of the patch: a hunk `@@ -1,2 +1,3 @@` was expected after the names of the file"
        )
    while at < len(lines) and lines[at].startswith("@@ "):
        at = _hunk(lines, at)
    hunks = (head[0] if (head := _HUNK.match(line)) else line or " " for line in lines[first:at])
    return at, _Section(Change(before or None, after or None), hunks=tuple(hunks))


def _hunk(lines: list[str], at: int) -> int:
    """Return the index after the hunk, whose line counts must match its header."""
    head, first = _HUNK.match(lines[at]), at
    if head is None:
        raise DataError(
            f"line {at + 1} of the patch: {lines[at][:60]!r} is not a hunk header, such as `@@ -1,2 +1,3 @@`"
        )
    old, new = (int(count) if count is not None else 1 for count in (head[2], head[4]))
    at += 1
    while old > 0 or new > 0:
        line = lines[at] if at < len(lines) else None
        kind = None if line is None else line[:1] or " "  # an empty line is an empty line of context
        if line is None or kind not in ("+", "-", " ", "\\"):
            raise DataError(f"line {first + 1} of the patch: the hunk is shorter than its header says")
        old -= kind in ("-", " ")
        new -= kind in ("+", " ")
        if old < 0 or new < 0:
            raise DataError(f"line {first + 1} of the patch: the hunk's lines do not match its header")
        at += 1
    if at < len(lines) and lines[at].startswith("\\"):
        at += 1
    if at < len(lines) and lines[at][:1] in ("+", " ") and not lines[at].startswith("+++ "):
        raise DataError(f"line {first + 1} of the patch: the hunk is longer than its header says")
    return at


def _refuse_line(line: str, at: int) -> None:
    """Raise DataError if a line outside hunks declares anything but a change to an ordinary text file."""
    if line.startswith(("GIT binary patch", "Binary files ")):
        raise DataError(f"line {at + 1} of the patch: a binary file is changed, and only text is allowed")
    mode = _MODE.match(line)
    if mode and mode[1] not in _PLAIN_MODES:
        kind = {"120000": "a symbolic link", "160000": "a submodule"}.get(mode[1], f"a file of mode {mode[1]}")
        raise DataError(f"line {at + 1} of the patch: {kind} is refused: only ordinary files may be changed")


def _same_path(line: str, at: int) -> str:
    """Return the path in `diff --git a/PATH b/PATH`, which must be the same on both sides if nothing else names it."""
    rest = line.removeprefix("diff --git ")
    half = (len(rest) - 1) // 2
    before, after = rest[:half], rest[half + 1 :]
    if rest[half : half + 1] != " " or _path(before, at) != _path(after, at):
        raise DataError(f"line {at + 1} of the patch: {line[:80]!r} does not name the same file on both sides")
    return _path(before, at)


def _path(text: str, at: int, *, strip: bool = True) -> str:
    """Return the path in the repository, "" for /dev/null; DataError if it leads elsewhere."""
    named = _unquoted(text, at) if text.startswith('"') else text.split("\t")[0].rstrip(" \r")
    if named == "/dev/null":
        return ""
    where = f"line {at + 1} of the patch: the path {named[:80]!r}"
    if any(ord(char) < 32 or ord(char) == 127 for char in named):
        raise DataError(f"{where} has control characters")
    if named.startswith("/"):
        raise DataError(f"{where} is absolute: give one inside the repository")
    parts = named.split("/")
    if strip:
        if len(parts) < 2:
            raise DataError(f"{where} has no prefix: write it as a/FILE and b/FILE")
        parts = parts[1:]
    for part in parts:
        plain = _UNSEEN.sub("", part).casefold().rstrip(" .")
        if part in ("", ".", ".."):
            raise DataError(f"{where} leads out of the repository, or is not normalised")
        if plain == ".git" or plain.startswith("git~") or ":" in part or "\\" in part:
            raise DataError(f"{where} is, or could be read as, one inside .git, which is refused")
    if parts == [".gitmodules"]:
        raise DataError(f"{where} declares submodules, which are refused")
    return "/".join(parts)


def _unquoted(text: str, at: int) -> str:
    """Return a path without git's quoting, which ends at the first closing quote; DataError if git would not read it."""
    found = _QUOTED.match(text)
    if found is None or found[2].partition("\t")[0].strip():
        raise DataError(f"line {at + 1} of the patch: {text[:80]!r} is not a path between quotes, and nothing after it")

    def plain(escape: re.Match[str]) -> str:
        code, char = escape.groups()
        if code is None and char not in _ESCAPES:
            raise DataError(
                f"line {at + 1} of the patch: the path {text[:80]!r} has the escape \\{char}, which git does not know"
            )
        return _ESCAPES[char] if code is None else chr(int(code, 8))

    raw = re.sub(r"\\(?:([0-3][0-7]{2})|(.))", plain, found[1])
    return raw.encode("latin-1", "replace").decode("utf-8", "replace") if raw.isascii() is False else raw
