"""Entries of the reading list as pages, documents and rows, by made-up entries; and the steps of the tour."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from firsthand.errors import ConfigError, DataError, UnknownName
from firsthand.reading.entry_documents import (
    check_list_index,
    docs_folder,
    list_folder,
    list_index,
    page_of,
    passages,
    rendered,
    write_entries,
)
from firsthand.reading.entry_search import _indexed, search_entries
from firsthand.reading.list_page import HEAD, _groups, _row, list_page
from firsthand.reading.list_questions import ListQuestion, gold_passages, list_questions
from firsthand.reading.reading_list import (
    SECTIONS,
    ReadingEntry,
    _entry,
    checked_entries,
    entry_named,
    parts_of,
    reading_list,
    section_titles,
)
from firsthand.reading.tour_page import step_text, tour_page
from firsthand.reading.tour_progress import mark_done, next_step, reset_progress, steps_done, tour_folder
from firsthand.reading.tour_steps import tour_step, tour_steps
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.store.sqlite_index import open_index

FULL = ReadingEntry(
    "x", "patterns", "A | B", "Says | so.", ("nn.rope.scaled", "cli"), ("engine.md#paged-cache", "nn.md"),
    "firsthand run a|b", authors="Ada | Co", year=2020, venue="NeurIPS", arxiv="2001.12345", doi="10.1/y",
    url="https://z.org", names=("pattern:react", "board:mteb"), claims=("k", "l"), group="Basics", gap="Rows | cells.",
)  # fmt: skip
BARE = ReadingEntry("bare", "safety", "Bare", "Nothing more.", (), (), "firsthand list")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    return tmp_path


def test_an_entry_is_a_page_of_all_its_facts_and_of_no_others():
    assert rendered(FULL) == (
        "# A | B\n\nSays | so.\n\nSource: Ada | Co, 2020, NeurIPS\nAddress: https://arxiv.org/abs/2001.12345\n"
        "Section: Agent patterns > Basics\nNames: pattern react, board mteb\n"
        "Code: src/firsthand/nn/rope/scaled.py, src/firsthand/cli.py\n"
        "Documentation: docs/engine.md#paged-cache, docs/nn.md\nCommand: firsthand run a|b\nClaims: k, l\n\n"
        "Not implemented: Rows | cells.\n"
    )
    section = "Section: Safety, alignment and interpretability\n"
    assert rendered(BARE) == f"# Bare\n\nNothing more.\n\n{section}Command: firsthand list\n"
    parts = [each.title for each in reading_list() if each.part_of == "weng"]
    assert f"\nMust-reads: {'; '.join(parts)}\n" in rendered(entry_named("weng")) and len(parts) == 4
    assert [each.title for each in parts_of(entry_named("weng"))] == parts


def test_a_source_is_what_is_known_and_the_best_address_is_that_of_arxiv():
    assert FULL.source == "Ada | Co, 2020, NeurIPS" and replace(FULL, year=0).source == "Ada | Co, NeurIPS"
    assert replace(FULL, authors="", venue="").source == "2020" and BARE.source == "" == BARE.link
    assert replace(FULL, arxiv="").link == "https://doi.org/10.1/y"
    assert replace(FULL, arxiv="", doi="").link == "https://z.org"
    assert BARE.to_json() == {
        "id": "bare", "section": "safety", "title": "Bare", "summary": "Nothing more.", "modules": (), "docs": (),
        "command": "firsthand list", "authors": "", "year": 0, "venue": "", "arxiv": "", "doi": "", "url": "",
        "names": (), "claims": (), "group": "", "part_of": "", "gap": "", "link": "",
    }  # fmt: skip
    assert FULL.to_json()["link"] == "https://arxiv.org/abs/2001.12345"


def test_rows_of_a_section_become_entries_and_unknown_fields_are_refused():
    row = {"id": "i", "title": "T", "summary": "S.", "modules": ["a", "b"], "docs": ["d.md"], "command": "c", "year": 7}
    assert _entry("blogs", row) == ReadingEntry("i", "blogs", "T", "S.", ("a", "b"), ("d.md",), "c", year=7)
    for wrong in ({"zeal": 1, "docz": 2}, {"section": "x", "docz": 2}):
        with pytest.raises(DataError) as found:
            _entry("blogs", {**row, **wrong})
        assert str(found.value) == "blogs.toml: 'i' has the unknown field 'docz'"
    with pytest.raises(DataError, match="unknown field 'section'"):
        _entry("blogs", {**row, "section": "blogs"})


def test_entries_have_ids_of_their_own_and_parts_belong_to_an_entry():
    part = replace(BARE, id="part", part_of="x")
    assert checked_entries([part, FULL, BARE]) == (part, FULL, BARE) and checked_entries([]) == ()
    with pytest.raises(DataError) as found:
        checked_entries([FULL, BARE, replace(FULL, title="Another")])
    assert str(found.value) == "two entries of the reading list have the id 'x': give one another id"
    with pytest.raises(DataError) as found:
        checked_entries([FULL, part, replace(part, id="lost", part_of="weng")])
    assert str(found.value) == "the entry 'lost' is part of 'weng', which is no entry"
    assert [each.section for each in reading_list()] == sorted(
        (each.section for each in reading_list()), key=SECTIONS.index
    )
    assert list(section_titles()) == list(SECTIONS) and section_titles()["blogs"] == "Expert blogs"
    assert section_titles()["production"] == "LLMOps and production", "its capitals are those of the file"


def test_an_entry_is_named_in_any_case_and_a_wrong_name_is_told_what_is_near():
    assert entry_named("HTTPS://DOI.ORG/10.1145/857076.857078").id == "publish-subscribe"
    assert entry_named("  attention is  ALL you\nneed ").id == "attention"
    assert entry_named("https://arxiv.org/pdf/1706.03762v7").id == "attention"
    for text, wanted in {
        "1706.03763": "no paper '1706.03763'; `firsthand papers` shows all",
        "atention": "no paper 'atention'; did you mean 'attention'? `firsthand papers` shows all",
        "Attention Is All We Need": "no paper 'Attention Is All We Need'; did you mean 'attention'? "
        "`firsthand papers` shows all",
        "ATENTION IS AL YOU  NEED": "no paper 'ATENTION IS AL YOU  NEED'; did you mean 'attention'? "
        "`firsthand papers` shows all",
        "atention is al you need": "no paper 'atention is al you need'; did you mean 'attention'? "
        "`firsthand papers` shows all",
        "q" * 90: f"no paper {'q' * 80!r}; `firsthand papers` shows all",
        "ATTENTION IS ALL YOU NEED " + "\t" * 70: None,
    }.items():
        if wanted is None:
            assert entry_named(text).id == "attention"
            continue
        with pytest.raises(UnknownName) as found:
            entry_named(text)
        assert str(found.value) == wanted


def test_written_entries_are_touched_only_where_they_changed(tmp_path: Path):
    folder = tmp_path / "deep" / "list"
    write_entries(folder)
    assert {path.name for path in folder.iterdir()} == {f"{entry.id}.md" for entry in reading_list()}
    for name in ("gone.md", "notes.txt"):
        (folder / name).write_text("x")
    (folder / "react.md").write_text("stale", encoding="utf-8")
    for name in ("react.md", "memgpt.md"):
        os.utime(folder / name, (1, 1))
    write_entries(folder)
    assert not (folder / "gone.md").exists() and (folder / "notes.txt").read_text() == "x"
    assert (folder / "memgpt.md").stat().st_mtime == 1 and (folder / "react.md").stat().st_mtime > 1
    assert (folder / "react.md").read_text(encoding="utf-8") == rendered(entry_named("react"))


def test_the_documentation_is_the_first_folder_with_a_glossary(tmp_path: Path):
    bare, full, other = (tmp_path / name for name in ("bare", "full", "other"))
    for folder in (bare, full, other):
        folder.mkdir()
    (full / "glossary.md").touch()
    (other / "glossary.md").touch()
    assert docs_folder((bare, full, other)) == full and docs_folder((other, full)) == other
    packaged, checkout = Path(docs_folder.__code__.co_filename).parent / "docs", Path(__file__).parent.parent / "docs"
    assert docs_folder() == (packaged if packaged.is_dir() else checkout)
    (bare / "glossary.md").mkdir()
    with pytest.raises(ConfigError, match=r"not beside this installation.* with --docs$"):
        docs_folder((tmp_path / "nowhere", bare))


def test_pages_are_cut_into_passages_in_the_order_of_their_names(tmp_path: Path):
    for name in (
        "reading-list.md",
        "reading-questions.md",
        "tour.md",
        "claims-measured.md",
        "reference/api.md",
        "b.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("# Left out\n\nNothing of this.\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "tour.md").write_text("# Tour\n\nKept, ünlike the page.\n", encoding="utf-8")
    (tmp_path / "engine.md").write_text("# Engine\n\nPages.\n\n" + "Long words. " * 60 + "\n\n## Cache\n\nKeys.\n")
    found = [each for each in passages(tmp_path) if not each.id.startswith("list/")]
    assert [each.id for each in found] == ["docs/engine.md:1", "docs/engine.md:7", "docs/more/tour.md:1"]
    assert [each.source for each in found] == ["docs/engine.md"] * 2 + ["docs/more/tour.md"]
    assert found[1].text.endswith("Keys.") and found[1].title == "Engine > Cache" and "ünlike" in found[2].text
    of_list = {each.source for each in passages(tmp_path) if each.id.startswith("list/")}
    assert of_list == {f"list/{entry.id}.md" for entry in reading_list()}
    assert page_of("docs/a:b.md:12") == "docs/a:b.md"
    for name in "qhzcxa":
        (tmp_path / f"{name}.md").write_text(f"# {name}\n")
    sources = list(dict.fromkeys(each.source for each in passages(tmp_path) if each.source.startswith("docs/")))
    assert sources == sorted(sources) and len(sources) == 8


def whole(id: str) -> IndexedDocument:
    return IndexedDocument(Document(id, "text"), [Chunk(id, 0, 4, "text")], None)


def test_an_index_is_the_list_s_if_it_holds_an_entry(home: Path):
    assert list_folder() == home / "reading" / "list" and list_index() == home / "reading" / "papers.index"
    with pytest.raises(ConfigError) as found:
        check_list_index(list_index())
    assert str(found.value) == f"no index at {list_index()}: `firsthand papers index` makes it, in a minute or two"
    list_index().parent.mkdir()
    with open_index(list_index(), IndexHeader("", "", 0, "whole")) as index:
        assert len(index.put(map(whole, ("docs/list/a.md", "listing/b.md"))).added) == 2
    with pytest.raises(ConfigError, match="holds no entry of the list: ask it by `firsthand rag ask`"):
        check_list_index(list_index())
    with open_index(list_index()) as index:
        index.put([whole("list/a.md")])
    check_list_index(list_index())


def test_a_word_of_the_title_counts_as_three_of_the_rest():
    made = _indexed(BARE)
    assert made.document == Document("bare", f"Bare. Bare. bare {rendered(BARE)}")
    (chunk,) = made.chunks
    assert (chunk.document, chunk.start, chunk.end, chunk.text) == ("bare", 0, len(chunk.text), made.document.text)
    titled, told = replace(BARE, id="a", title="Hoopoe"), replace(BARE, id="b", summary="The hoopoe nests here.")
    assert [each.id for each in search_entries("hoopoe", [told, titled])] == ["a", "b"]
    assert search_entries("hoopoe", [told, titled], 1) == [titled] and search_entries("hoopoe", []) == []


def test_a_row_of_the_page_escapes_its_bars_and_leaves_out_what_is_not_known():
    assert _row(FULL) == (
        "| [A \\| B](https://arxiv.org/abs/2001.12345) (Ada \\| Co, 2020, NeurIPS), `x` | Says \\| so. "
        "*Missing: Rows \\| cells.* | `nn/rope/scaled.py`, `cli.py` | [engine: paged-cache](engine.md#paged-cache), "
        "[nn](nn.md) | `firsthand run a\\|b` | `k`, `l` |\n"
    )
    assert _row(BARE) == "| Bare, `bare` | Nothing more. |  |  | `firsthand list` |  |\n"
    late = replace(FULL, id="late")
    assert _groups([FULL, BARE, late]) == {"Basics": [FULL, late], "": [BARE]}
    page = list_page()
    assert page.startswith(HEAD) and page.count("\n| entry |") == len(
        {(each.section, each.group) for each in reading_list()}
    )


def test_a_quotation_is_found_in_passages_of_its_page_whatever_the_spaces():
    asked = ListQuestion("7", "?", "docs/a.md", "two  words\nhere", ("w",))
    made = [
        Document("docs/a.md:1", "of two\n words here.", "", "docs/a.md"),
        Document("docs/b.md:1", "two words here", "", "docs/b.md"),
        Document("docs/a.md:5", "two wordshere", "", "docs/a.md"),
        Document("docs/a.md:9", "two words here", "", "docs/a.md"),
    ]
    assert gold_passages(asked, made) == ["docs/a.md:1", "docs/a.md:9"]
    assert gold_passages(replace(asked, document=""), made) == [] and not replace(asked, document="").is_answerable
    with pytest.raises(DataError) as found:
        gold_passages(replace(asked, quote="q " * 60), made)
    said = ("q " * 40)[:80]
    assert str(found.value) == (
        f"docs/a.md no longer says {said!r}, which answers question 7: change its quote in reading/questions.jsonl"
    )
    kinds = [each.is_answerable for each in list_questions()]
    assert kinds == sorted(kinds, reverse=True) and all(isinstance(each.answers, tuple) for each in list_questions())


def test_a_step_is_printed_with_its_reading_and_the_page_says_the_same():
    for number, source in ((8, " ("), (3, "; docs/")):
        step = tour_step(str(number))
        entry = step.reading
        behind = f" ({entry.source})" if entry.source else ""
        assert (entry.title + behind + "; docs/")[len(entry.title) :].startswith(source)
        assert step_text(step) == (
            f"{number}. {step.title}\n\n{step.idea}\n\n    {step.command}\n\n{step.look}\n\n"
            f"Next: {entry.title}{behind}; docs/{step.page}. `firsthand papers show {entry.id}` tells more."
        )
        title = f"[{entry.title}]({entry.link})" if entry.link else entry.title
        assert f"\nRead next: {title}{behind}, and [the page about it]({step.page}).\n" in tour_page()
    assert bool(tour_step("8").reading.link) and not tour_step("3").reading.link


def test_a_wrong_step_is_told_the_numbers_or_the_nearest_id():
    assert tour_step("0008").number == 8 and tour_step("1") is tour_steps()[0]
    for wrong in ("0", "21", "-3", "00099", "00003", "20" + "0" * 5000):
        with pytest.raises(UnknownName) as found:
            tour_step(wrong)
        assert str(found.value) == f"no step of the tour {wrong[:80]}: give a number from 1 to 20, an id, or next"
    for wrong, near in {"nxt": " did you mean 'next'?", "q" * 90: "", "३": ""}.items():
        with pytest.raises(UnknownName) as found:
            tour_step(wrong)
        if wrong != "३":
            assert str(found.value) == f"no step of the tour {wrong[:80]!r};{near} `firsthand tour` shows all"


def test_progress_is_a_dated_file_that_forgets_unknown_steps(home: Path):
    file = home / "tour" / "progress.json"
    assert tour_folder() == home / "tour" and steps_done() == {}
    reset_progress()
    before = datetime.now(UTC).replace(microsecond=0)
    mark_done(tour_step("2"))
    mark_done(tour_step("react"))
    when = steps_done()
    assert list(when) == [tour_step("2").id, "react"] and [path.name for path in file.parent.iterdir()] == [file.name]
    for each in when.values():
        made = datetime.fromisoformat(each)
        assert made.utcoffset() == timedelta(0) and before <= made <= datetime.now(UTC) and len(each) == 25
    assert json.loads(file.read_text()) == {"version": 1, "done": when}
    file.write_text(json.dumps({"version": 1, "done": {"of-before": "2020", "react": "2021"}}))
    assert steps_done() == {"react": "2021"}
    file.write_text("{")
    with pytest.raises(DataError) as found:
        steps_done()
    assert str(found.value) == f"{file} does not hold the tour's progress: `firsthand tour --reset` begins anew"
    first = [step.id for step in tour_steps()[:3]]
    assert next_step(iter(first[1::-1])) is tour_step("3") and next_step(first[:1] + first[2:]) is tour_step("2")
    reset_progress()
    assert not file.exists() and file.parent.is_dir() and steps_done() == {}
