"""Lists of recipients in one text, parts of addresses, large numbers of plans, and names that file systems take for .git."""

import io
import os

import pytest

from firsthand.declaration import Declaration
from firsthand.errors import ToolError
from firsthand.safety.plans.plan_program import MAX_BITS, PlanError, parse_plan
from firsthand.safety.rules.case import CallCase, PolicyBounds, told_to, uses
from firsthand.safety.rules.witness import WitnessSource, occurs, witnesses
from firsthand.tool import tool
from firsthand.tools import files as file_tools
from firsthand.tools.files import MAX_PATTERN, files
from firsthand.tools.folders import version_control


@tool(effect="external", declares=Declaration(("to",), recipients=("to",)))
def send(to: list[str] | str) -> str:
    """Send."""
    return "sent"


@pytest.mark.parametrize(
    ("to", "people"),
    [
        ("bob@corp.com", 1), ("bob@corp.com, al@corp.com", 2), ("bob@corp.com;al@corp.com\ncy@corp.com", 3),
        (["bob@corp.com, al@corp.com"], 2), (["bob@corp.com", "BOB@corp.com "], 1), ("bob@corp.com,", 1),
        ('"Smith, John" <john@corp.com>', 1), (",".join(f"p{n}@corp.com" for n in range(100)), 100),
    ],
)  # fmt: skip
def test_each_recipient_of_a_list_in_one_text_is_counted(to, people):
    case = CallCase(send, {"to": to}, ("",), bounds=PolicyBounds(recipients=1))
    assert len(told_to(case)) == people
    assert ("1 recipients", people, 1) in uses(case)


@pytest.mark.parametrize(
    ("text", "value", "stands"),
    [
        ("Mail o'brien@corp.com", "brien@corp.com", False), ("Mail o'brien@corp.com", "o'brien@corp.com", True),
        ('Mail "bob"@corp.com', "@corp.com", False), ("Mail a=bob@corp.com", "bob@corp.com", False),
        ("eve!bob@corp.com", "bob@corp.com", False), ("a#bob@corp.com a&bob@corp.com", "bob@corp.com", False),
        ("a*bob@corp.com", "bob@corp.com", False), ("Mail 'bob@corp.com'!", "bob@corp.com", True),
        ('Mail "bob@corp.com"', "bob@corp.com", True), ("**bob@corp.com** and `al@corp.com`", "al@corp.com", True),
        ("**bob@corp.com**", "bob@corp.com", True), ("write --path=notes/a.txt", "notes/a.txt", True),
        ("amount=5", "5", True), ("the user's file", "file", True), ("bob@corp.com's mail", "bob@corp.com", True),
    ],
)  # fmt: skip
def test_a_part_of_an_address_has_no_witness_and_an_address_in_quotes_has(text, value, stands):
    assert occurs(value, text) is stands


@pytest.mark.parametrize(
    ("to", "asked"), [(["bob", ""], True), (["bob", " "], True), ([["bob", ""]], True), (["bob"], False)]
)
def test_an_empty_item_of_a_list_has_no_witness(to, asked):
    found = witnesses({"to": to}, ["to"], [WitnessSource("user", ("mail bob",), whole=False)])
    assert any(not each.source for each in found) is asked


def test_a_number_too_large_to_be_written_is_refused_with_its_line():
    with pytest.raises(PlanError, match=r"line 2: a number has 28000 bits: at most 1024 are read"):
        parse_plan(f"x = 1\nanswer(0x{'f' * 7_000})", [])
    parse_plan(f"answer({2**MAX_BITS - 1})", [])
    with pytest.raises(PlanError):
        parse_plan(f"answer({2**MAX_BITS})", [])


def test_a_pattern_of_names_is_bounded(tmp_path):
    (find,) = (each.function for each in files(str(tmp_path)) if each.name == "find_files")
    (tmp_path / ("a" * 200)).touch()
    assert find("*a" * (MAX_PATTERN // 2)) == "(nothing was found)" and find("a*") == "a" * 200
    with pytest.raises(ToolError, match="names has 1001 characters: give a pattern of at most 1000"):
        find("?" * (MAX_PATTERN + 1))


def test_a_page_of_a_file_of_endless_lines_ends_in_time(monkeypatch):
    assert file_tools._page(io.BytesIO(b"\n" * 9), 8, 5) == "\n\n"
    monkeypatch.setattr(file_tools, "SEARCH_S", -1.0)
    with pytest.raises(ToolError, match="too big to be read so far"):
        file_tools._page(io.BytesIO(b"\n" * 9), 1_000, 5)


@pytest.mark.parametrize(
    "path",
    [".git./hooks/x", ".git /x", ".git../x", "git~1/x", "GIT~2/x", ".git::$INDEX_ALLOCATION/x", ".hg./hgrc", "gitmod~1",
     ".gitmodules.", "gi7eba~1", "HEAD.", "common/config", "common/hooks/post-checkout", "common/info/attributes"],
)  # fmt: skip
def test_a_name_that_a_file_system_takes_for_version_control_is_not_written(tmp_path, path):
    for each in ("common/objects", "common/refs"):
        (tmp_path / each).mkdir(parents=True)
    (tmp_path / "common/config").write_text("[core]\n")
    tools = {each.name: each.function for each in files(str(tmp_path), write=True)}
    with pytest.raises(ToolError, match=r"git|Mercurial"):
        tools["overwrite_file"](path, "x")
    assert (tmp_path / "common/config").read_text() == "[core]\n"


@pytest.mark.parametrize(
    "path", ["git.txt", "git", "github/x", "a: b.txt", "notes~1", "digit~1", "config", "hooks/x", ".gitignore", "info/x",
             "objects/x", "refs/y", "common/notes.txt", "...", "..."],
)  # fmt: skip
def test_ordinary_names_are_written(tmp_path, path):
    for each in ("common/objects", "common/refs"):
        (tmp_path / each).mkdir(parents=True)
    write = next(each.function for each in files(str(tmp_path), write=True) if each.name == "write_file")
    assert "has been written" in write(path, "x") and (tmp_path / path).read_text() == "x"


def test_systems_are_told_by_their_short_names(tmp_path):
    folder = os.open(tmp_path, 0)
    assert version_control.owner(folder, "HG~1", is_last=False) == "Mercurial"
    assert version_control.owner(folder, "gitmod~1", is_last=True) == "git"
    os.close(folder)
