"""The reading list and the tour by unusual inputs: equal ids of must-reads, odd numbers of steps, damaged progress."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from firsthand.errors import ConfigError, DataError, UnknownName
from firsthand.reading.entry_documents import _pages, check_list_index, docs_folder, page_of, rendered, write_entries
from firsthand.reading.entry_search import search_entries
from firsthand.reading.list_page import _cell, _groups, _row
from firsthand.reading.list_questions import ListQuestion, gold_passages
from firsthand.reading.reading_list import ReadingEntry, _entry, checked_entries, entry_named, reading_list
from firsthand.reading.tour_page import step_text
from firsthand.reading.tour_progress import mark_done, next_step, reset_progress, steps_done, tour_folder
from firsthand.reading.tour_steps import TourStep, tour_step, tour_steps
from firsthand.retrieval.document import Document

BARE = ReadingEntry("bare", "safety", "Bare", "Nothing more.", (), (), "firsthand list")


def test_a_must_read_has_an_id_of_its_own_and_may_stand_before_its_author() -> None:
    author = replace(BARE, id="author")
    part = replace(BARE, id="part", part_of="author")
    assert checked_entries([part, author, BARE]) == (part, author, BARE) and checked_entries([]) == ()
    for twice in (
        [BARE, replace(part, id="bare"), author],
        [author, part, part],
        [part, author, replace(BARE, id="part")],
    ):
        with pytest.raises(DataError, match=r"^two entries of the reading list have the id '(bare|part)': "):
            checked_entries(twice)
    own = replace(part, part_of="part")
    assert checked_entries([own]) == (own,)
    with pytest.raises(DataError, match=r"^the entry 'part' is part of 'author', which is no entry$"):
        checked_entries([BARE, part, replace(part, id="z", part_of="nobody")])
    assert _entry(
        "safety", {"id": "i", "title": "T", "summary": "s", "modules": [], "docs": ["a.md"], "command": "c"}
    ) == (ReadingEntry("i", "safety", "T", "s", (), ("a.md",), "c"))
    with pytest.raises(DataError, match=r"^safety\.toml: None has the unknown field 'section'$"):
        _entry("safety", {"section": "papers", "zz": 1})


def test_an_entry_is_found_by_what_its_text_holds_and_a_wrong_one_is_cut() -> None:
    flash = next(each for each in reading_list() if each.arxiv == "2205.14135")
    for text in ("arXiv:2205.14135v2 (pdf)", f"  {flash.title.upper()} \n", flash.title.replace(" ", "\t "), flash.id):
        assert entry_named(text) is flash, text
    with_doi = next((each for each in reading_list() if each.doi), None)
    if with_doi is not None:
        assert entry_named(f"HTTPS://doi.org/{with_doi.doi.upper()}") is with_doi
    with pytest.raises(UnknownName) as raised:
        entry_named(f"{flash.title}s" if flash.title[-1] != "s" else flash.title[:-1])
    assert f"did you mean {flash.id!r}? `firsthand papers` shows all" in str(raised.value)
    for text in ("9999.99999", "q" * 81, ""):
        with pytest.raises(UnknownName) as raised:
            entry_named(text)
        assert str(raised.value).startswith(f"no paper {text[:80]!r}"), text


def test_words_find_as_many_entries_as_are_asked_for() -> None:
    entries = [
        replace(BARE, id="one", title="Cats", summary="Dogs, mice."), replace(BARE, id="two", title="Dogs", summary="Cats."),
        replace(BARE, id="three", title="Mice", summary="Nothing."),
    ]  # fmt: skip
    assert [each.id for each in search_entries("dogs", entries)] == ["two", "one"]
    assert [each.id for each in search_entries("dogs", entries, 1)] == ["two"]
    assert search_entries("birds", entries) == [] == search_entries("dogs", [])
    assert [each.id for each in search_entries("three", entries)] == ["three"], "its id is a word of it"


def test_pages_below_folders_keep_their_names_and_written_entries_leave_others_alone(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    for name in (
        "b.md",
        "a.md",
        "sub/tour.md",
        "reference/x.md",
        "reference.md",
        "sub/reference/y.md",
        "tour.md",
        "z.txt",
    ):
        (docs / name).parent.mkdir(parents=True, exist_ok=True)
        (docs / name).write_text(f"Ünder {name}", encoding="utf-8")
    assert [(each.id, each.text, each.meta) for each in _pages(docs)] == [
        (f"docs/{name}", f"Ünder {name}", {"kind": "markdown"})
        for name in ("a.md", "b.md", "reference.md", "sub/reference/y.md", "sub/tour.md")
    ]
    (docs / "glossary.md").mkdir()
    with pytest.raises(ConfigError, match=r"^the documentation is not beside this installation: "):
        docs_folder([docs, tmp_path])
    (tmp_path / "glossary.md").write_text("")
    assert docs_folder([docs, tmp_path]) == tmp_path
    folder = tmp_path / "new" / "list"
    write_entries(folder)
    first, second, *_ = reading_list()
    (folder / "gone.md").write_text("x")
    (folder / "note.txt").write_text("kept")
    (folder / f"{first.id}.md").write_text("changed")
    (folder / f"{second.id}.md").unlink()
    others = {path: path.stat().st_mtime_ns for path in folder.glob("*.md")}
    time.sleep(0.002)
    write_entries(folder)
    changed = {path.name for path in folder.glob("*.md") if others.get(path) != path.stat().st_mtime_ns}
    assert changed == {f"{first.id}.md", f"{second.id}.md"} and not (folder / "gone.md").exists()
    assert (folder / "note.txt").read_text() == "kept"
    assert (folder / f"{first.id}.md").read_text(encoding="utf-8") == rendered(first)
    with pytest.raises(ConfigError, match=r"^no index at .*nowhere: `firsthand papers index` makes it"):
        check_list_index(tmp_path / "nowhere")
    assert page_of("docs/a:b.md:12") == "docs/a:b.md"


def test_groups_keep_the_order_in_which_they_begin() -> None:
    rows = [replace(BARE, id=str(n), group=group) for n, group in enumerate(("b", "", "a", "b", "", "a"))]
    found = _groups(rows)
    assert list(found) == ["b", "", "a"] and [each.id for each in found["b"]] == ["0", "3"]
    assert _cell("a|b|") == "a\\|b\\|"
    both = replace(BARE, url="u", gap="G|", docs=("a.md", "sub/b.md#x-y"), modules=("m", "n.o"), claims=("k", "l"))
    assert _row(both) == (
        "| [Bare](u), `bare` | Nothing more. *Missing: G\\|* | `m.py`, `n/o.py` | [a](a.md), [sub/b: x-y](sub/b.md#x-y) "
        "| `firsthand list` | `k`, `l` |\n"
    )
    assert (
        _row(replace(BARE, authors="A|B")) == "| Bare (A\\|B), `bare` | Nothing more. |  |  | `firsthand list` |  |\n"
    )


def test_a_quotation_may_stand_in_two_passages_of_its_page() -> None:
    asked = ListQuestion("q", "?", "docs/a.md", "two\n words", ("x",))
    found = [
        Document("docs/b.md:1", "two words", "", "docs/b.md"), Document("docs/a.md:1", "say two  words.", "", "docs/a.md"),
        Document("docs/a.md:2", "two, words", "", "docs/a.md"), Document("docs/a.md:9", "two\twords", "", "docs/a.md"),
    ]  # fmt: skip
    assert gold_passages(asked, found) == ["docs/a.md:1", "docs/a.md:9"]
    assert gold_passages(replace(asked, document=""), found) == []
    with pytest.raises(DataError, match=rf"^docs/c\.md no longer says '{'w' * 80}', which answers question q: "):
        gold_passages(replace(asked, document="docs/c.md", quote="w" * 81), found)


def test_a_step_is_named_by_a_plain_number_or_its_id() -> None:
    steps = tour_steps()
    assert tour_step("1") is steps[0] and tour_step("0020") is steps[19] and tour_step(str(len(steps))) is steps[-1]
    assert [step.number for step in steps] == list(range(1, 21)) and tour_step(steps[4].id) is steps[4]
    for text in ("0", "21", "00001", "-3", "٣", "-", "--"):
        with pytest.raises(UnknownName) as raised:
            tour_step(text)
        digits = text.lstrip("-").isdigit()
        given = f"no step of the tour {text}: give a number from 1 to 20, an id, or next"
        assert (str(raised.value) == given) == digits, text
    with pytest.raises(UnknownName, match=r"did you mean 'next'"):
        tour_step("nexd")
    with pytest.raises(UnknownName) as raised:
        tour_step("7" * 81)
    assert str(raised.value).startswith(f"no step of the tour {'7' * 80}: ")
    step = TourStep(3, "i", "T", "Idea.", "firsthand x", "Look.", "bare", "p.md#a")
    assert (step.weights, step.after, step.makes) == (False, "", "")
    last = steps[-1]
    source = f" ({last.reading.source})" if last.reading.source else ""
    assert step_text(last).split("\n\n") == [
        f"20. {last.title}", last.idea, f"    {last.command}", last.look,
        f"Next: {last.reading.title}{source}; docs/{last.page}. `firsthand papers show {last.reading.id}` tells more.",
    ]  # fmt: skip


def test_progress_keeps_earlier_steps_and_damage_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    first, second, third, *_ = tour_steps()
    assert steps_done() == {} and next_step([]) is first and tour_folder() == tmp_path / "tour"
    reset_progress()
    mark_done(third)
    file = tmp_path / "tour" / "progress.json"
    file.write_text(json.dumps({"version": 1, "done": {third.id: "then", "gone": "x", first.id: 5}}))
    mark_done(second)
    done = steps_done()
    assert list(done) == [third.id, first.id, second.id] and (done[third.id], done[first.id]) == ("then", "5")
    assert next_step(done) is tour_steps()[3] and next_step([second.id, third.id]) is first
    assert next_step(step.id for step in tour_steps()) is None and [*map(str, tmp_path.glob("tour/*"))] == [str(file)]
    assert json.loads(file.read_text()) == {"version": 1, "done": done} and file.read_text().endswith("\n}\n")
    damaged = (
        b"",
        b"[]",
        b"null",
        b'{"done": []}',
        b'{"done": null}',
        b'{"done": "x"}',
        b'{"d": {}}',
        b'{"done": "\xff"}',
    )
    for text in (*damaged, b'{"done": ' + b"[" * 100_000):
        file.write_bytes(text)
        with pytest.raises(
            DataError, match=r"progress\.json does not hold the tour's progress: `firsthand tour --reset`"
        ):
            steps_done()
    reset_progress()
    reset_progress()
    assert not file.exists() and steps_done() == {}


def test_what_is_written_makes_its_folders_and_is_written_anew_in_them(tmp_path: Path, monkeypatch) -> None:
    home = tmp_path / "not" / "there"
    monkeypatch.setenv("FIRSTHAND_HOME", str(home))
    reset_progress()
    assert steps_done() == {} and not home.exists()
    mark_done(tour_step("4"))
    mark_done(tour_step("1"))
    assert list(steps_done()) == [tour_step("4").id, tour_step("1").id] and next_step(steps_done()) is tour_step("2")
    entries = tmp_path / "a" / "b" / "list"
    write_entries(entries)
    write_entries(entries)
    assert {path.stem for path in entries.iterdir()} == {entry.id for entry in reading_list()}
