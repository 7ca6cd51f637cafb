"""A table fits its terminal: the first column stays whole, what has no room stands below its row."""

import io
import re

import pytest
from rich.console import Console
from rich.text import Text

from firsthand.system import terminal
from firsthand.system.fitted_table import FittedTable, broken
from firsthand.system.help_formatter import HelpFormatter

HEADER = ["run", "status", "attempts", "command"]
ROWS = [
    ["2026-11-27-1041-quickstart-namr", "done", "24", "firsthand run arithmetic:levels=1-2 arc_easy --limit 3"],
    ["short", "interrupted", "3/40", ""],
]


def lines(
    width: int, rows: list[list[str]] = ROWS, header: list[str] = HEADER, right: tuple[str, ...] = ()
) -> list[str]:
    out = io.StringIO()
    table = FittedTable(header, [[Text(cell) for cell in row] for row in rows], right)
    Console(file=out, width=width, color_system=None).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_wide_terminal_has_a_line_for_each_row() -> None:
    assert lines(120) == [
        "run                              status       attempts  command",
        "─" * 110,
        "2026-11-27-1041-quickstart-namr  done         24        firsthand run arithmetic:levels=1-2 arc_easy --limit 3",
        "short                            interrupted  3/40",
    ]


def test_a_table_as_wide_as_the_terminal_is_not_folded() -> None:
    rows = [["a", "x" * 20]]
    assert lines(23, rows, ["n", "v"])[2:] == [f"a  {'x' * 20}"]
    assert lines(22, rows, ["n", "v"])[2] == "a", "one column less, and the second stands below"


def test_the_widest_column_is_folded_at_words_before_any_column_moves() -> None:
    assert lines(90)[2:] == [
        "2026-11-27-1041-quickstart-namr  done         24        firsthand run",
        "                                                        arithmetic:levels=1-2 arc_easy",
        "                                                        --limit 3",
        "",
        "short                            interrupted  3/40",
    ]


def test_columns_without_room_stand_below_their_row_and_empty_ones_nowhere() -> None:
    assert lines(60) == [
        "run                              status       attempts",
        "─" * 54,
        "2026-11-27-1041-quickstart-namr  done         24",
        "  command firsthand run arithmetic:levels=1-2 arc_easy",
        "  --limit 3",
        "",
        "short                            interrupted  3/40",
        "",
    ]
    assert lines(50)[2:5] == [
        "2026-11-27-1041-quickstart-namr  done",
        "  attempts 24",
        "  command firsthand run arithmetic:levels=1-2",
    ]


@pytest.mark.parametrize("width", range(8, 130))
def test_no_line_is_wider_than_the_terminal_and_nothing_is_lost(width: int) -> None:
    shown = lines(width)
    assert max(map(len, shown)) <= width
    letters = "".join("".join(shown).split())
    for cell in (cell for row in ROWS for cell in row):
        for word in cell.split():
            if len(word) <= width - 10:
                assert word in letters


def test_cells_of_several_lines_join_below_with_intervals_after_their_number() -> None:
    rows = [["direct", "0.67\n[0.21, 0.94]", "43\n41 in\n1.7 cached"]]
    header = ["agent", "score", "tokens"]
    assert lines(40, rows, header, right=("score", "tokens"))[2:] == [
        "direct          0.67          43",
        "        [0.21, 0.94]       41 in",
        "                      1.7 cached",
        "",
    ]
    assert lines(14, rows, header)[2:] == [
        "direct",
        "  score 0.67",
        "  [0.21, 0.94]",
        "  tokens 43,",
        "  41 in, 1.7",
        "  cached",
        "",
    ]


def test_columns_are_aligned_by_their_own_headings_on_the_line_and_below() -> None:
    header, rows = ["name", "n", "of", "words"], [["a", "1", "22", "x" * 30], ["bcd", "333", "4", "y"]]
    assert lines(50, rows, header, ("n", "words")) == [
        "name    n  of  " + " " * 25 + "words",
        "─" * 45,
        "a       1  22  " + "x" * 30,
        "bcd   333  4   " + " " * 29 + "y",
    ]
    narrow = ["a       1  22", "  words", f"  {'x' * 18}", f"  {'x' * 12}", "", "bcd   333  4", "  words y", ""]
    assert lines(20, rows, header, ("n", "words")) == ["name    n  of", "─" * 13, *narrow]
    assert lines(20, rows, header, ("name", "of"))[:3] == ["name  n    of", "─" * 13, "   a  1    22"]
    assert lines(20, rows, header, ("words",))[2] == "a     1    22", "the last of the line is not the last of all"


def test_wide_characters_take_two_columns() -> None:
    assert lines(80, [["漢字", "x"]], ["name", "b"])[2:] == ["漢字  x"]


def test_words_of_help_that_are_wider_than_the_terminal_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", Screen())

    def shown(text: str, indent: str = "") -> list[str]:
        return HelpFormatter("prog", width=20)._fill_text(text, 20, indent).split("\n")

    address = "https://host.example/a-path/with_parts.html"
    assert shown(address) == [address] and shown(address, "  ") == [f"  {address}"]
    assert shown(f"see {address} for the rest of it") == ["see", address, "for the rest of it"]
    assert shown(f"  name  {address} and then") == ["  name", f"{' ' * 8}{address}", f"{' ' * 8}and then"]
    assert shown("a-much-longer-name-of-it  says") == ["a-much-longer-name-of-it", f"{' ' * 10}says"]
    assert shown("x" * 20) == ["x" * 20] and shown("x" * 21) == ["x" * 21] and shown("") == [""]


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_a_sentence_is_folded_at_words_and_what_is_copied_stays_whole(width: int) -> None:
    command = "`firsthand show 2026-11-27-1041-quickstart-namr`"
    text = f"The run is done; {command}, prints its board. /a/path/that/is/longer/than/the/terminal/here has its rows."
    made = terminal.folded(text, width)
    assert made.replace("\n", " ") == text
    for line in made.split("\n"):
        assert len(line) <= width or " " not in line.replace(command, "command")
    assert f"{command}," in made and "/a/path/that/is/longer/than/the/terminal/here" in made


def test_columns_and_commands_are_not_folded_and_an_indent_is_kept() -> None:
    whole = ["report    " + "word " * 20, "reproduce firsthand run " + "word " * 20, "short"]
    for text in whole:
        assert terminal.folded(text, 40) == text
    made = terminal.folded("  - " + "word " * 20, 40).split("\n")
    assert len(made) == 3 and all(line.startswith("  ") and len(line) <= 40 for line in made)


class Screen(io.StringIO):
    """A terminal of 40 columns."""

    def isatty(self) -> bool:
        return True


def test_titles_and_sentences_of_commands_fit_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout", screen := Screen())
    sentence = "Too few results to judge: a special skill or a mistake is not told apart by so few of them."
    terminal.print_table(sentence, ["a"], [["1"]])
    terminal.console().print(sentence, soft_wrap=True, markup=False)
    terminal.print_prose(sentence)
    found = re.sub(r"\x1b\[[\d;]*m", "", screen.getvalue())
    assert all(len(line.rstrip()) <= 40 for line in found.split("\n"))
    assert " ".join(found.split()).count("is not told apart by so few of them.") == 3


@pytest.mark.parametrize("width", [16, 24, 40, 60])
def test_a_path_is_broken_after_separators(width: int) -> None:
    name = "direct@scripted:models/my-experiments/checkpoint-1200/replies.json"
    folded = broken(Text(f"by {name}: fine"), width).plain.split("\n")
    assert "".join(folded) == f"by {name}: fine" and len(folded) > 1
    assert all(re.search(r"[/:@.-]$", line) for line in folded[:-1])
    assert all(len(word) <= width for line in folded for word in line.split())
    shown = [line for line in lines(width, [[name, "1"]], ["agent", "score"]) if line.strip()][2:]
    assert all(re.search(r"[/:@.-]$|json$", line) for line in shown if not line.startswith("  "))


def test_words_that_fit_and_words_without_separators_keep_their_places() -> None:
    assert broken(Text("a/b c/d"), 3).plain == "a/b c/d"
    assert broken(Text("x" * 7), 3).plain == "xxx\nxxx\nx"
    assert broken(Text("a/" + "x" * 20), 10).plain == "a/xxxxxxxx\nxxxxxxxxxx\nxx"
    assert broken(Text("模型/模型"), 6).plain == "模型/\n模型"
    assert broken(Text("ab/cd", "red"), 3).spans == broken(Text("ab/cd", "red"), 3).spans
