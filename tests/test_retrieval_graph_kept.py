"""A graph's file, its caps and its shares: what is refused and closed again, what still fits, and what stands first."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.retrieval.corpus import Corpus
from firsthand.retrieval.graph.community_reports import CommunityReport, community_data
from firsthand.retrieval.graph.graph_extraction import FailedChunk
from firsthand.retrieval.graph.graph_file import GraphFile, graph_path
from firsthand.retrieval.graph.graph_model import count_tokens
from firsthand.retrieval.graph.graph_state import load_state, verify_graph
from firsthand.retrieval.graph.knowledge_graph import ExtractedEntity, ExtractedRelation, Extraction, merge
from firsthand.retrieval.graph.leiden import Community
from firsthand.retrieval.graph.open_graph import open_graph
from firsthand.retrieval.store.sqlite_index import SqliteIndex
from graph_handmade import REPORTS, handmade

JOURNAL_END = bytes.fromhex("d9d505f920a163d7")
"""The end of a rollback journal that names a super-journal, by SQLite's file format."""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[Path, SqliteIndex]]:
    path, index = handmade(tmp_path)
    yield path, index
    index.close()


def refused(act: Callable[[], Any], kind: type[Exception] = StoreError) -> str:
    with pytest.raises(kind) as raised:
        act()
    return str(raised.value)


# -- the file --


def test_a_forged_journal_is_refused_by_readers_and_by_builds(tmp_path: Path) -> None:
    path, journal = tmp_path / "x.graph", tmp_path / "x.graph-journal"
    told = f"{os.path.realpath(journal)} names a file that SQLite would delete: do not trust what came with it"
    journal.write_bytes(b"x" * 20 + JOURNAL_END)
    assert refused(lambda: GraphFile(path)) == f"no graph at {path}: make one with `firsthand rag graph INDEX`"
    assert refused(lambda: GraphFile(path, create=True)) == told and not path.exists()
    journal.unlink()
    GraphFile(path, create=True).close()
    journal.write_bytes(b"x" * 20 + JOURNAL_END)
    (tmp_path / "link.graph").symlink_to(path)
    for name, create in (("x.graph", False), ("x.graph", True), ("link.graph", False)):
        assert refused(lambda: GraphFile(tmp_path / name, create=create)) == told  # noqa: B023
    assert refused(lambda: GraphFile(tmp_path / "link.graph", create=True)).startswith(
        f"{tmp_path / 'link.graph'} is a link, which would be followed to a file elsewhere"
    )
    assert journal.read_bytes()[-8:] == JOURNAL_END


def test_a_folders_name_may_have_signs_that_addresses_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a?mode=ro&b#c%20d é"
    folder.mkdir()
    path = folder / "x#.graph"
    file = GraphFile(path, create=True)
    file.put_text("key", "kept")
    file.close()
    monkeypatch.chdir(folder)
    for each in (path, Path("x#.graph")):
        again = GraphFile(each)
        assert again.texts(["key"]) == {"key": "kept"}
        again.close()
    assert [*tmp_path.iterdir()] == [folder] and [*folder.iterdir()] == [path]


def test_an_empty_file_becomes_a_graph_only_where_one_is_made(tmp_path: Path) -> None:
    path = tmp_path / "x.graph"
    path.touch()
    assert refused(lambda: GraphFile(path)) == f"{path} is not the file of a graph: delete it and build the graph again"
    assert path.read_bytes() == b"" and [each.name for each in tmp_path.iterdir()] == ["x.graph"]
    file = GraphFile(path, create=True)
    asked = [file._rows(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "application_id", "user_version")]
    settings = [file._rows(f"PRAGMA {name}")[0][0] for name in ("trusted_schema", "synchronous")]
    assert asked == ["wal", int.from_bytes(b"fsgr", "big"), 1] and settings == [0, 2]
    file.put_text("key", "kept")
    file.close()
    again = GraphFile(path, create=True)
    assert again.texts(["key"]) == {"key": "kept"}
    again.close()
    path.write_bytes(b"no database, and longer than its head" * 9)
    for create in (False, True):
        assert refused(lambda: GraphFile(path, create=create)) == (  # noqa: B023
            f"{path} cannot be used: file is not a database. Delete it and build the graph again"
        )
    assert refused(lambda: GraphFile(tmp_path)).startswith("no graph at "), "a folder is none"


def open_files(path: Path) -> int:
    """How often this process holds a file, or the log beside it, open."""
    return sum(os.path.realpath(each).startswith(os.path.realpath(path)) for each in Path("/proc/self/fd").iterdir())


def test_a_graph_that_is_refused_is_closed_again(made: tuple[Path, SqliteIndex]) -> None:
    path, index = made
    corpus, graph = Corpus(index), graph_path(path)
    assert open_graph(corpus, str(path)).state.unread == 0 and open_files(graph) == 0
    index.delete(["two"])
    with pytest.raises(ConfigError, match=r"^1 chunks were removed") as removed:
        open_graph(corpus, str(path))
    assert open_files(graph) == 0, str(removed.value)
    file = GraphFile(graph)
    file._execute("DELETE FROM meta WHERE key = 'built'")
    file.close()
    with pytest.raises(ConfigError) as unfinished:
        open_graph(corpus, str(path))
    assert str(unfinished.value) == f"the graph {graph} was not built to its end: run `firsthand rag graph` again"
    assert open_files(graph) == 0
    base = sqlite3.connect(graph)
    base.execute("PRAGMA user_version = 9")
    base.close()
    with pytest.raises(StoreError, match=r"has schema version 9, and this firsthand knows 1$") as newer:
        open_graph(corpus, str(path))
    assert open_files(graph) == 0, str(newer.value)


# -- what is read back --


@pytest.mark.slow
def test_a_damaged_report_names_the_file_and_what_to_do(made: tuple[Path, SqliteIndex]) -> None:
    path, index = made
    file = GraphFile(graph_path(path))
    kept = file.texts(["key 1"])["key 1"]
    schema = "the report is not of the schema: "
    for body, fault in (
        ('{"title": "t"}', f"{schema}KeyError: 'findings'"),
        ("[]", "an object of JSON was expected, and there is list"),
        (kept.replace("7.0", '"high"'), f"{schema}ValueError: could not convert string to float: 'high'"),
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ):  # fmt: skip
        file.put_text("key 1", body)
        assert refused(lambda: load_state(file, index)) == (
            f"{file.path} is damaged ({fault}): delete it and build the graph again"
        )
    file.put_text("key 1", kept)
    built = file.meta("built") or {}
    for change, fault in (
        ({"communities": [[0, 0, None]]}, "not enough values to unpack (expected 4, got 3)"),
        ({"communities": [["x", 0, None, []]]}, "invalid literal for int() with base 10: 'x'"),
        ({"reports": []}, "'list' object has no attribute 'items'"), ({"communities": 3}, "'int' object is not iterable"),
    ):  # fmt: skip
        file.put_meta("built", built | change)
        assert refused(lambda: load_state(file, index)) == (
            f"{file.path} is damaged ({fault}): delete it and build the graph again"
        )
    file.put_meta("built", built)
    assert set(load_state(file, index).reports or {}) == set(REPORTS)
    file.close()


@pytest.mark.slow
def test_a_graph_that_was_broken_off_is_told_with_all_its_other_faults(made: tuple[Path, SqliteIndex]) -> None:
    path, index = made
    ids = {name: index.chunks(name)[0].id for name in ("one", "two", "three", "four")}
    file = GraphFile(graph_path(path))
    built = file.meta("built") or {}
    file.forget([ids["one"]])
    file.put_meta("built", built)
    file.keep(index.chunk(ids["four"]), FailedChunk(ids["four"], "four", "no JSON"))
    file.keep(index.chunk(ids["two"]), FailedChunk(ids["two"], "two", "cut"))
    assert load_state(file, index).unread == 3
    index.delete(["three"])
    faults = [
        f"the chunk {ids['one']} of one is not in the graph",
        f"the graph tells of the chunk {ids['three']}, which the index lacks",
        f"the chunk {ids['four']} of four failed: no JSON",
        f"the chunk {ids['two']} of two failed: cut",
    ]
    assert verify_graph(file, index)[:4] == faults and len(verify_graph(file, index)) > 5
    file._execute("DELETE FROM meta WHERE key = 'built'")
    assert verify_graph(file, index) == [*faults, "the graph was not built to its end"]
    index.delete(["one", "two", "four"])
    file.forget(ids.values())
    assert verify_graph(file, index) == ["the graph was not built to its end"]
    file.close()


# -- reports --


def related(*pairs: str) -> Any:
    """A graph of persons by letters, related as the pairs say."""
    names = sorted({name for pair in pairs for name in pair})
    entities = tuple(ExtractedEntity(name, "person", f"is {name}") for name in names)
    return merge([Extraction("c", entities, tuple(ExtractedRelation(*pair, "met", 2.0) for pair in pairs))])


def child(id: int, *members: str) -> tuple[Community, CommunityReport]:
    return Community(id, 1, 0, members), CommunityReport(id, 1, f"Report {id}", "x" * 100, 5.0)


def size(lines: Sequence[str]) -> int:
    return sum(count_tokens(line + "\n") for line in lines)


def test_members_of_a_child_whose_report_does_not_fit_are_told_themselves() -> None:
    graph = related("AB", "AC", "AX", "AY", "AZ", "DE", "FG", "GX", "FX", "FY", "DZ")
    root = Community(0, 0, None, tuple("ABCDEFG"))
    children = [child(4, "F", "G"), child(2, "D", "E"), child(3, "A", "B", "C")]
    texts = {each.id: report.text for each, report in children}
    degrees = {"A": 5, "B": 1, "C": 1, "D": 2, "E": 1, "F": 3, "G": 2}
    lines = {name: f"{name} (person, {count} relations): is {name}" for name, count in degrees.items()}
    met = {pair: f"{pair[0]} -- {pair[1]} (weight 2): met" for pair in ("AB", "AC", "DE", "FG")}

    def told(budget: int) -> list[str]:
        return community_data(graph, root, children, budget).split("\n")

    first = texts[3].split("\n")  # the child with the most members
    rest = [lines["F"], lines["G"], met["FG"], lines["D"], lines["E"], met["DE"]]  # by the degrees of both ends
    room = size([texts[3]]) + size(rest)
    second = texts[2].split("\n")  # of two children of equal size, the one with the lower id
    needed = size([texts[3], texts[2]])
    assert needed < room, "both reports fit, and with them FG's lines"
    assert told(room) == [*first, *second, *rest[: sum(needed + size(rest[:n]) <= room for n in range(1, 4))]]
    assert told(needed + size(rest[:3])) == [*first, *second, *rest[:3]]
    assert told(needed) == [*first, *second] and told(needed - 1) == [
        *first,
        *_fitting(rest, needed - 1 - size([texts[3]])),
    ]
    assert told(size([texts[3]]) + size(rest[:2])) == [*first, *rest[:2]]
    assert told(size([texts[3]]) - 1) == _fitting(
        [lines["A"], lines["B"], met["AB"], lines["C"], met["AC"], *rest],
        size([texts[3]]) - 1,
    )


def _fitting(lines: list[str], budget: int) -> list[str]:
    return [line for at, line in enumerate(lines) if size(lines[: at + 1]) <= budget]


def test_members_without_a_relation_inside_come_by_the_number_of_their_relations() -> None:
    graph = related("AX", "CX", "CY", "CZ", "BX", "BY", "DE", "DD", "GX")
    members = ("A", "B", "C", "D", "E", "G", "none")
    made = community_data(graph, Community(1, 0, None, members), [], 1000).split("\n")
    assert made == [
        "D (person, 3 relations): is D", "D -- D (weight 2): met", "E (person, 1 relations): is E", "D -- E (weight 2): met",
        "C (person, 3 relations): is C", "B (person, 2 relations): is B", "A (person, 1 relations): is A",
        "G (person, 1 relations): is G",
    ]  # fmt: skip
    cut = community_data(graph, Community(1, 0, None, ("A", "B", "C")), [], size(made[4:6]))
    assert cut == "\n".join(made[4:6]), "the connected ones are kept"
    kinds = (ExtractedEntity("A", "person", "one"), ExtractedEntity("A", "geo", "two"), ExtractedEntity("B", "person"))
    twice = merge([Extraction("c", kinds, (ExtractedRelation("B", "A", "near", 1.5),))])
    assert community_data(twice, Community(1, 0, None, ("A", "B")), [], 1000).split("\n") == [
        "B (person, 1 relations): ", "A (geo, 1 relations): two", "A (person, 1 relations): one", "B -- A (weight 1.5): near"
    ]  # fmt: skip
