"""The reading list by its defaults: ten hits, the pages of this package, and the steps of the tour as in their file."""

from __future__ import annotations

import json
import tomllib
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest

from firsthand.errors import ConfigError
from firsthand.reading import tour_steps as module
from firsthand.reading.entry_documents import _facts, _pages, check_list_index, docs_folder, passages, rendered
from firsthand.reading.entry_search import search_entries
from firsthand.reading.list_questions import list_questions
from firsthand.reading.reading_list import SECTIONS, ReadingEntry, entry_named, reading_list, section_titles
from firsthand.reading.tour_steps import TourStep, tour_steps
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.store.sqlite_index import open_index

BARE = ReadingEntry("bare", "safety", "Bare", "Nothing more.", (), (), "firsthand list")


def test_ten_entries_are_found_unless_another_number_is_asked_for() -> None:
    made = [
        ReadingEntry(f"e{number}", "safety", "Bird " + "x " * number, "One.", (), (), "firsthand list")
        for number in range(11, -1, -1)
    ]
    ids = [each.id for each in search_entries("bird", made)]
    assert ids == [f"e{number}" for number in range(10)], "the shorter a title, the more a word of it says"
    assert len(search_entries("bird", made, 12)) == 12 and search_entries("bird", made, 1)[0] is made[-1]
    assert search_entries("fish", made) == [] and search_entries("firsthand bird", made, 2)[1].id == "e1"


def test_pages_are_documents_in_the_order_of_their_paths_without_those_made_from_others(tmp_path: Path) -> None:
    for name in ("z.md", "a/b.md", "a.md", "reference/x.md", "a/reference/x.md", "tour.md", "a.txt", "reading-list.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# Ünlike {name}\n", encoding="utf-8")
    paths = sorted(["z.md", "a/b.md", "a.md", "a/reference/x.md"], key=lambda name: Path(name).parts)
    assert _pages(tmp_path) == [
        Document(f"docs/{name}", f"# Ünlike {name}\n", meta={"kind": "markdown"}) for name in paths
    ]


def test_the_list_is_the_rows_of_its_files_section_by_section() -> None:
    folder = Path(module.__file__).parent / "entries"
    bodies = {name: tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8")) for name in SECTIONS}
    assert list(section_titles().items()) == [
        ("papers", "Seminal papers"), ("internals", "Architecture internals"), ("patterns", "Agent patterns"),
        ("benchmarks", "Benchmarks"), ("leaderboards", "Live leaderboards"), ("blogs", "Expert blogs"),
        ("safety", "Safety, alignment and interpretability"), ("production", "LLMOps and production"),
    ]  # fmt: skip
    assert {path.stem for path in folder.glob("*.toml")} == set(SECTIONS)
    wanted = [{"section": name, **row} for name, body in bodies.items() for row in body["entry"]]
    told = [{key: each.to_json()[key] for key in row} for each, row in zip(reading_list(), wanted, strict=True)]
    assert told == [{key: tuple(at) if isinstance(at, list) else at for key, at in row.items()} for row in wanted]
    assert reading_list() is reading_list() and section_titles() is section_titles()


def test_the_questions_are_the_rows_of_their_file() -> None:
    text = (Path(module.__file__).parent / "questions.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert [{**asdict(each), "answers": list(each.answers)} for each in list_questions()] == rows and len(rows) == 100
    assert max(len(each.answers) for each in list_questions()) > 1 and list_questions() is list_questions()


def test_the_passages_of_an_entry_are_titled_by_its_heading(tmp_path: Path) -> None:
    for entry in (entry_named("attention"), entry_named("weng")):
        id = f"list/{entry.id}.md"
        found = [each for each in passages(tmp_path) if each.source == id]
        assert found[0].id == f"{id}:1" and {each.title for each in found} == {entry.title}
        assert "\n".join(each.text.strip() for each in found).split() == rendered(entry).split()


@pytest.mark.slow
def test_without_a_folder_the_passages_are_those_of_this_package() -> None:
    try:
        own = docs_folder()
    except ConfigError:  # a package without its pages
        with pytest.raises(ConfigError, match="the documentation is not beside this installation"):
            passages()
        return
    found, given = passages(), passages(own)
    assert [each.id for each in found] == [each.id for each in given] and found == given
    assert found[0].id.startswith(f"list/{reading_list()[0].id}.md:1") and found[-1].id.startswith("docs/")


def test_facts_of_an_entry_are_told_in_order_and_empty_where_they_are_not_known() -> None:
    assert _facts(BARE) == [
        ("Source", ""), ("Address", ""), ("Section", "Safety, alignment and interpretability"), ("Must-reads", ""),
        ("Names", ""), ("Code", ""), ("Documentation", ""), ("Command", "firsthand list"), ("Claims", ""),
    ]  # fmt: skip


def test_an_index_of_other_documents_is_told_from_the_list_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "other.index"
    with closing(open_index(path, IndexHeader("", "", 0, "whole"))) as index:
        index.put([IndexedDocument(Document("listed.md", "text"), [Chunk("listed.md", 0, 4, "text")], None)])
    before = path.read_bytes()
    with pytest.raises(ConfigError) as refused:
        check_list_index(path)
    assert str(refused.value) == (
        f"{path} is an index of other documents and holds no entry of the list: ask it by `firsthand rag ask`, or leave "
        "--index out"
    )
    assert path.read_bytes() == before


def test_the_steps_of_the_tour_are_those_of_its_file_numbered_from_1() -> None:
    rows = tomllib.loads((Path(module.__file__).parent / "tour.toml").read_text(encoding="utf-8"))["step"]
    assert list(tour_steps()) == [TourStep(number=at + 1, **row) for at, row in enumerate(rows)]
    assert tour_steps() is tour_steps() and {step.weights for step in tour_steps()} == {True, False}
    plain = TourStep(3, "i", "t", "idea", "c", "look", "attention", "p.md")
    assert (plain.weights, plain.after, plain.makes) == (False, "", "") and plain.reading is entry_named("attention")


def test_the_list_begins_with_papers_and_its_sections_follow_in_their_order() -> None:
    listed = [entry.section for entry in reading_list()]
    assert list(dict.fromkeys(listed)) == list(SECTIONS) == [
        "papers", "internals", "patterns", "benchmarks", "leaderboards", "blogs", "safety", "production",
    ]  # fmt: skip
    assert listed == sorted(listed, key=SECTIONS.index) and list(section_titles()) == list(SECTIONS)
    assert reading_list()[0].id == "attention" and listed[-1] == "production"
