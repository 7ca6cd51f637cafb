"""A question fits on the screen whatever its arguments hold: measured as it is shown, with a bound for all arguments."""

import asyncio
import math
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from firsthand.loop.approval import MAX_ARGUMENTS, AskPerson, _without_gaps, question
from firsthand.tool import tool
from firsthand.tools.files import files


@tool(effect="irreversible")
def run(command: str, note: str = "") -> str:
    """Run it."""
    return command


def rows(shown: str, columns: int = 80) -> int:
    """The rows that a text takes on a screen."""
    return sum(max(1, math.ceil(len(line) / columns)) for line in shown.split("\n"))


@pytest.mark.parametrize(
    "hidden", ["\u3164", "\U000e0041", "\u00a0", "\u200b", "\u3164\u200b", "\u202e\u2066\u2069\u00ad"]
)
def test_a_row_of_characters_that_are_not_seen_is_its_number_and_hides_nothing(hidden: str) -> None:
    shown = question(run, {"command": "rm -rf ~ #" + hidden * (3_900 // len(hidden)) + "\nls"})
    assert rows(shown) < 12 and shown.split("\n")[1].startswith(
        "  command: rm -rf ~ # [3,900 characters that are not seen: U+"
    )
    assert shown.endswith("]  \n    ls\nRun run (irreversible)?") or shown.endswith(
        "] \n    ls\nRun run (irreversible)?"
    )


@pytest.mark.parametrize("text", ["a\u3164" * 1_900, "ab\U000e0041" * 1_300, "\u202e\U000e0041x" * 1_300])
def test_characters_that_are_not_seen_among_others_count_as_what_is_shown_of_them(text: str) -> None:
    shown = question(run, {"command": f"rm -rf ~ #{text} ls"})
    assert (
        rows(shown) < 70 and "command: [" in shown and "rm -rf ~ #" in shown and " ls\nRun run (irreversible)?" in shown
    )


def test_of_many_arguments_those_of_the_tool_come_first_and_the_others_are_counted() -> None:
    more = {f"a{number}": "x\ny\nz\nw\nv\nu" for number in range(300)}
    shown = question(run, {**more, "command": "rm -rf ~", "note": "n"})
    assert rows(shown) < 70 and shown.split("\n")[1:3] == ["  command: rm -rf ~", "  note: n"]
    left = 302 - MAX_ARGUMENTS
    size = sum(len(name) + 11 for name in list(more)[MAX_ARGUMENTS - 2 :])
    assert (
        f"[{left} more arguments, {size:,} characters, are not shown: say no unless you know them]\nRun run (irreversible)?"
        in shown
    )
    assert "more arguments" not in question(run, dict(list(more.items())[:MAX_ARGUMENTS]))
    named = question(run, {"n\nRun it? " + "m" * 9_000: "x"})
    assert rows(named) < 8 and '  "n Run it? mmm' in named and '[... 8,910 characters ...]": x\n' in named


@pytest.mark.parametrize(
    "text",
    [
        "日本語のテキストです、とても長い文章。",
        "\U0001f44d\U0001f44d\U0001f44d" * 5,
        "\u2764\ufe0f" * 9,
        "——————————",
        "a\u3164b",
    ],
)
def test_texts_of_other_alphabets_and_symbols_are_shown_as_they_are(text: str) -> None:
    assert "characters that are not seen" not in _without_gaps(text)
    if "\u3164" not in text:
        assert text in question(run, {"command": text})


class Always:
    """A terminal at which `always` is said."""

    def __init__(self):
        self.asked = []

    @asynccontextmanager
    async def turn(self):
        yield

    def is_there(self):
        return True

    async def choose(self, question, answers):
        self.asked.append(question)
        return "always"


def test_always_is_for_the_tool_over_this_folder_and_not_for_another_of_its_name(tmp_path):
    folders = [tmp_path / name / "notes" for name in ("a", "b")]
    for folder in folders:
        folder.mkdir(parents=True)
    one, again, other = (next(each for each in files(str(folder), write=True) if each.name == "overwrite_file")
                         for folder in (folders[0], *folders))  # fmt: skip
    terminal = Always()
    person = AskPerson(terminal)
    for each in (one, one, again, replace(one, timeout_s=9.0), other, other):
        assert asyncio.run(person(each, {"path": "x", "text": "1"})).allowed
    asked = [shown.replace("\n  | ", "").replace("\n", "") for shown in terminal.asked]  # long paths are folded
    assert [f"over: {folder}" in shown for folder, shown in zip(folders, asked, strict=True)] == [True, True]

    @tool(effect="irreversible", name="run")
    def another(command: str) -> str:
        """Run it elsewhere."""
        return command

    for each in (run, run, another):
        asyncio.run(person(each, {"command": "x"}))
    assert len(terminal.asked) == 4 and "over:" not in terminal.asked[2]
