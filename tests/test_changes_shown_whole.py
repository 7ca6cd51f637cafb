"""The dry run of an overwrite shows every change, says where it does not, and binds the call to the file that it showed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from firsthand import Agent, Task, catalog, run_sync
from firsthand.loop.approval import Approval, Decision, question
from firsthand.message import Json, ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.tools.files import files
from firsthand.tools.folders.file_change import MAX_COMPARED, _lines, _shown_change, _size, rehearsed_change
from firsthand.tools.folders.rooted import Rooted

BODY = "".join(f"line_{number} = {number}\n" for number in range(400))
LOGIN = "def login(user, sig):\n    # check the signature\n    verify(sig)\n    return session(user)\n"
OLD = f"{BODY}{LOGIN}{BODY}VERSION = 1\n"


def shown(folder: Path, old: bytes | None, new: str, name: str = "a") -> str:
    if old is not None:
        (folder / name).write_bytes(old)
    return str(rehearsed_change(Rooted(folder), name, new.encode()))


def overwritten(folder: Path, old: str | None, new: str, meanwhile: Any = None) -> tuple[str, str]:
    """The result of an overwrite that is approved after `meanwhile`, and the question."""
    asked, results = [], []
    if old is not None:
        (folder / "app.py").write_text(old, newline="")

    async def ask(tool: Any, arguments: Json) -> Decision:
        asked.append(question(tool, arguments))
        if meanwhile is not None:
            meanwhile()
        return Decision(True, "me")

    async def pattern(task: Any, ctx: Any) -> str:
        results.append((await ctx.call(ToolCall("c", "overwrite_file", {"path": "app.py", "text": new}))).content)
        return "done"

    tools, guard = files(str(folder), write=True), catalog.guards(("policy",))
    agent = Agent("x", Scripted(["x"]), pattern, tools=tools, guard=guard, approval=Approval({}, ask))
    run_sync(rollout(agent, Task("1", "set VERSION = 2 in app.py")))
    return results[0], asked[0]


@pytest.mark.parametrize("end", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\r"])
def test_a_line_end_that_becomes_another_one_is_a_changed_line_of_the_question(tmp_path: Path, end: str) -> None:
    new = OLD.replace("signature\n", f"signature{end}").replace("VERSION = 1", "VERSION = 2")
    said, asked = overwritten(tmp_path, OLD, new)
    escape = end.encode("unicode_escape").decode()
    for line in (
        "-    verify(sig)",
        f"+    # check the signature{escape}    verify(sig)",
        "-VERSION = 1",
        "+VERSION = 2",
    ):
        assert f"    {line}\n" in asked
    assert f"[shown as escapes: U+{ord(end):04X}]" in asked and said.startswith("app.py has been overwritten")
    assert (tmp_path / "app.py").read_bytes() == new.encode()


def test_bytes_that_are_no_text_and_a_missing_line_end_are_shown(tmp_path: Path) -> None:
    change = "[shown as escapes: byte FE, byte FF]\n--- a\n+++ a\n@@ -1 +1 @@\n-\\xff\\xfe\n+\ufffd\ufffd"
    assert shown(tmp_path, b"\xff\xfe\n", "\ufffd\ufffd\n") == change
    none = "\\ No newline at end of file"
    assert shown(tmp_path, b"one\n", "one") == f"--- a\n+++ a\n@@ -1 +1 @@\n-one\n+one\n{none}"
    assert shown(tmp_path, b"one", "one\n") == f"--- a\n+++ a\n@@ -1 +1 @@\n-one\n{none}\n+one"
    assert shown(tmp_path, b"one", f"one\n{none}") != shown(tmp_path, b"one", "one\n")


def test_line_ends_of_windows_are_told_once_where_all_change_and_shown_where_one_does(tmp_path: Path) -> None:
    dos = b"one\r\ntwo\r\n"
    to_unix = "[every line end would change from CRLF to LF]"
    assert shown(tmp_path, dos, "one\ntwo\n") == to_unix
    assert shown(tmp_path, dos, "one\n2\n") == f"{to_unix}\n--- a\n+++ a\n@@ -1,2 +1,2 @@\n one\n-two\n+2"
    assert shown(tmp_path, b"one\ntwo\n", "one\r\ntwo\r\n") == "[every line end would change from LF to CRLF]"
    assert "-one\\r\n+one\n two\\r" in shown(tmp_path, dos, "one\ntwo\r\n")
    assert "-a\\rb\\r\n+a\n+b" in shown(tmp_path, b"a\rb\r\n", "a\nb\n")


def test_a_change_that_does_not_fit_says_so_first_and_counts_its_lines(tmp_path: Path) -> None:
    old, new = ("".join(f"{word} {number}\n" for number in range(90)) for word in ("old", "new"))
    told = "[this is not the whole change: 90 lines would go and 90 lines would come, of which 29 are shown]\n--- a\n"
    assert shown(tmp_path, old.encode(), new).startswith(told)
    long = shown(tmp_path, b"x" * 5_000 + b"\n", "x" * 4_999 + "y\n")
    assert long.startswith("[this is not the whole change: 1 line would go and 1 line would come, of which")
    said, asked = overwritten(tmp_path, old, new)
    assert "dry run: [this is not the whole change: 90 lines" in asked and said.startswith(
        "app.py has been overwritten"
    )


def test_a_change_that_fits_is_never_cut_by_a_long_text_beside_it(tmp_path: Path) -> None:
    changed = [f"line_{number} = {number}\n" for number in range(100, 112, 4)]
    new = OLD
    for line in changed:
        new = new.replace(line, f"{line[:-1]}  # {'y' * 60}\n")
    _, asked = overwritten(tmp_path, OLD, new)
    for line in changed:
        assert f"    -{line}" in asked and f"    +{line[:-1]}  # yyy" in asked


def test_a_path_makes_no_lines_of_a_difference(tmp_path: Path) -> None:
    name = "a\n+forged\u202e"
    assert shown(tmp_path, b"one\n", "two\n", name).split("\n")[:2] == ["--- a +forged\\u202e", "+++ a +forged\\u202e"]


def test_a_file_that_changed_while_the_question_was_open_is_left_as_it_is(tmp_path: Path) -> None:
    file, new = tmp_path / "app.py", OLD.replace("= 1", "= 2")
    refused = "nothing was written: 'app.py' is no longer as it was in the dry run that was approved"
    said, _ = overwritten(tmp_path, OLD, new, lambda: file.write_text(f"{OLD}MINE = 1\n"))
    assert refused in said and file.read_text() == f"{OLD}MINE = 1\n"
    said, _ = overwritten(tmp_path, OLD, new, file.unlink)
    assert refused in said and not file.exists()
    said, _ = overwritten(tmp_path, None, new, lambda: file.write_text("mine"))
    assert refused in said and file.read_text() == "mine"


def test_a_file_that_was_only_touched_or_is_new_is_written(tmp_path: Path) -> None:
    file, new = tmp_path / "app.py", OLD.replace("= 1", "= 2")
    said, _ = overwritten(tmp_path, OLD, new, lambda: file.write_text(OLD))
    assert said.startswith("app.py has been overwritten") and file.read_text() == new
    file.unlink()
    said, asked = overwritten(tmp_path, None, "x\n")
    assert said.startswith("app.py has been overwritten") and "+x\n" in asked and file.read_text() == "x\n"


def test_sizes_are_those_of_the_files() -> None:
    for text in ("abc", "abc\n", "é\nb", "\n\n"):
        assert f"({len(text.encode())} bytes)" in _size(_lines(text)), text


def test_a_name_that_is_all_escapes_leaves_room_for_what_changes() -> None:
    old, new = b"a\n" * MAX_COMPARED, b"b\n" * MAX_COMPARED
    shown = _shown_change("\U000e0100" * 190, old, new)
    assert f"{MAX_COMPARED} lines" in shown and " 0 lines" not in shown
