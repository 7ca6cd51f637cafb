"""Graphs whose update is stopped, and graphs of chunks under other headings: nothing that the index lacks is searched."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.message import Message
from firsthand.model import Sampling
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.graph.graph_build import GraphReceipt, GraphSettings, build_graph, estimate
from firsthand.retrieval.graph.graph_extraction import ExtractionSettings, FailedChunk
from firsthand.retrieval.graph.graph_file import GraphFile, chunk_id, extraction_key
from firsthand.retrieval.graph.graph_state import left_over, load_state, verify_graph
from firsthand.retrieval.graph.knowledge_graph import ExtractedEntity, Extraction
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index

PHRASES = GraphSettings(extractor="noun_phrases")
MET = "Ann Ash met Bob Birch in the old mill. "
UNFINISHED = r"was not built to its end: run `firsthand rag graph` again$"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[SqliteIndex]:
    made = open_index(tmp_path / "x.index", IndexHeader("", "", 0, "whole"))
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[GraphFile]:
    made = GraphFile(tmp_path / "x.index.graph", create=True)
    yield made
    made.close()


def put(index: SqliteIndex, text: str, *ids: str, heading: str = "") -> None:
    made = [IndexedDocument(Document(id, text), [Chunk(id, 0, len(text), text, heading)], None) for id in ids]
    assert not index.put(made).failed


def build(index: SqliteIndex, file: GraphFile) -> GraphReceipt:
    return asyncio.run(build_graph(index, file, PHRASES))


def told(file: GraphFile, index: SqliteIndex) -> str:
    """All that a search could tell of the graph."""
    state = load_state(file, index)
    return " ".join([*state.graph.by_name, *(report.text for report in (state.reports or {}).values())])


class StoppedFile(GraphFile):
    """A graph's file whose process ends as soon as a build wants to know what the file tells now."""

    def extractions(self) -> list[Extraction]:
        raise KeyboardInterrupt


def stop_an_update(index: SqliteIndex, file: GraphFile) -> None:
    stopped = StoppedFile(file.path)
    with pytest.raises(KeyboardInterrupt):
        build(index, stopped)
    stopped.close()


# -- updates that are stopped --


def test_a_graph_whose_update_was_stopped_after_a_deletion_is_not_searched(index: SqliteIndex, file: GraphFile) -> None:
    pytest.importorskip("graspologic_native")
    put(index, "Ada Lovelace wrote about the Analytical Engine.", "a")
    put(index, "Charles Babbage designed the Analytical Engine, and Ada Lovelace translated a paper about it.", "b")
    put(index, "Alan Turing met Joan Clarke.", "c")
    put(index, "Joan Clarke told Alan Turing that the code is SECRET-4711.", "d")
    build(index, file)
    assert "SECRET-4711" in told(file, index)
    index.delete(["d"])
    stop_an_update(index, file)
    with pytest.raises(ConfigError, match=UNFINISHED):
        load_state(file, index)
    assert "the graph was not built to its end" in verify_graph(file, index)
    assert (
        build(index, file).removed == 0 and "SECRET-4711" not in told(file, index) and verify_graph(file, index) == []
    )


def test_a_graph_is_searched_on_while_and_after_an_update_that_only_adds(index: SqliteIndex, file: GraphFile) -> None:
    pytest.importorskip("graspologic_native")
    put(index, MET, "a", "b")
    build(index, file)
    before = file.meta("built")
    put(index, "Cid Cole paid Dora Dale.", "c")
    assert load_state(file, index).unread == 1
    stop_an_update(index, file)
    assert load_state(file, index).unread == 0 and file.meta("built") == before


def test_what_is_forgotten_takes_the_record_of_the_build_along_or_stays(file: GraphFile) -> None:
    one, two = Chunk("d", 0, 1, "x"), Chunk("d", 1, 2, "y")
    for chunk in (one, two):
        file.keep(chunk, Extraction(chunk.id))
    file.put_meta("built", {"a": 1})
    file.put_meta("reader", {"b": 2})

    def broken() -> Iterator[str]:
        yield one.id
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        file.forget(broken())
    file.forget(iter([]))
    assert len(file.states()) == 2 and file.meta("built") == {"a": 1}
    file.forget(iter([one.id]))
    assert file.states() == {two.id: "done"} and file.meta("built") is None and file.meta("reader") == {"b": 2}


def test_an_update_between_two_reads_of_a_search_does_not_hide_that_chunks_are_gone(
    index: SqliteIndex, file: GraphFile
) -> None:
    put(index, MET, "a", "b")
    built = {"extractor": "model", "author": "m", "summary_tokens": 9, "communities": [], "reports": {}}
    for document in ("a", "b"):
        (chunk,) = index.chunks(document)
        file.keep(chunk, Extraction(chunk.id))
    file.put_meta("built", built)
    gone = index.chunks("b")[0].id
    index.delete(["b"])

    class UpdatedMeanwhile(GraphFile):
        def meta(self, key: str) -> Any:
            found = super().meta(key)
            file.forget([gone])
            return found

    reader = UpdatedMeanwhile(file.path)
    with pytest.raises(ConfigError, match=r"^1 chunks were removed from the index"):
        load_state(reader, index)
    reader.close()


# -- headings --


def test_an_extraction_is_stored_by_the_chunk_and_its_headings() -> None:
    plain, one, two = (Chunk("d", 0, 1, "x", heading) for heading in ("", "One", "One > Two\udc80"))
    assert plain.id == one.id == two.id and extraction_key(plain) == plain.id
    assert len({extraction_key(each) for each in (plain, one, two)}) == 3
    assert {chunk_id(extraction_key(each)) for each in (plain, one, two)} == {plain.id}
    keys = [extraction_key(each) for each in (plain, one, two)]
    assert (
        left_over(keys, [one]) == {keys[2]}
        and left_over(keys, [plain]) == {*keys[1:]}
        and left_over(keys, []) == {*keys}
    )


def test_a_heading_that_was_blacked_out_is_in_no_graph_after_an_update(index: SqliteIndex, file: GraphFile) -> None:
    pytest.importorskip("graspologic_native")
    put(index, MET, "a", "b", heading="Enron Fraud")
    put(index, MET, "c", heading="Other")
    build(index, file)
    assert "ENRON FRAUD" in told(file, index) and verify_graph(file, index) == []
    put(index, MET, "a", "b", heading="Solar Panel")
    with pytest.raises(ConfigError, match=r"^2 chunks were removed .*, or have other headings there: run `firsthand"):
        load_state(file, index)
    ids = {document: index.chunks(document)[0].id for document in ("a", "b")}
    documents = {id: document for document, id in ids.items()}
    assert verify_graph(file, index)[:4] == [
        *(f"the chunk {id} of {documents[id]} is not in the graph" for id in sorted(documents)),
        *(
            f"the graph tells of the chunk {id} under other headings than it has in {documents[id]}"
            for id in sorted(documents)
        ),
    ]
    assert estimate(file, index, PHRASES).chunks == 2
    receipt = build(index, file)
    assert (receipt.extracted, receipt.reused, receipt.removed) == (2, 1, 2)
    assert "ENRON" not in told(file, index) and "SOLAR PANEL" in told(file, index) and verify_graph(file, index) == []
    assert {chunk for entity in load_state(file, index).graph.entities for chunk in entity.chunks} == {
        index.chunks(document)[0].id for document in ("a", "b", "c")
    }
    again = build(index, file)
    assert (again.extracted, again.reused, again.removed) == (0, 3, 0)
    put(index, MET, "a", "b")
    assert build(index, file).removed == 2 and "SOLAR" not in told(file, index), "a heading that was taken away"


def test_a_failed_chunk_under_headings_is_told_by_its_id_and_tried_again(index: SqliteIndex, file: GraphFile) -> None:
    pytest.importorskip("graspologic_native")
    put(index, MET, "a", heading="One")

    def answer(messages: Sequence[Message], sampling: Sampling, number: int) -> str:
        return "no JSON"

    model, settings = Scripted(answer, name="scripted:m"), GraphSettings(extraction=ExtractionSettings(gleanings=0))
    (chunk,) = index.chunks("a")
    for retried in (True, False):
        receipt = asyncio.run(build_graph(index, file, settings, model=model, retry_failed=retried))
        assert [each.chunk for each in receipt.failed] == [chunk.id] and receipt.reused == (not retried)
    put(index, MET, "a", heading="Two")
    receipt = asyncio.run(build_graph(index, file, settings, model=model, retry_failed=False))
    assert (receipt.reused, receipt.removed, len(receipt.failed)) == (0, 1, 1), "another text to read"


def test_a_graph_of_an_older_version_is_searched_until_its_chunks_under_headings_are_read_again(
    index: SqliteIndex, file: GraphFile
) -> None:
    pytest.importorskip("graspologic_native")
    put(index, MET, "a", "b", heading="Solar Panel")
    put(index, MET, "c")
    build(index, file)
    for document in ("a", "b"):
        (chunk,) = index.chunks(document)
        stale = Extraction(chunk.id, (ExtractedEntity("Enron Fraud", "name"), ExtractedEntity("Bob Birch", "name")))
        file._execute("DELETE FROM extractions WHERE chunk = ?", (extraction_key(chunk),))
        file.keep(Chunk(document, 0, len(MET), MET), stale)
    assert "ENRON FRAUD" in told(file, index) and load_state(file, index).unread == 0, "as the older version did"
    faults = verify_graph(file, index)
    assert "2 chunks may have been read under other headings: `firsthand rag graph` reads them again" in faults
    assert not any("is not in the graph" in fault for fault in faults)
    assert estimate(file, index, PHRASES).chunks == 2
    receipt = build(index, file)
    assert (receipt.extracted, receipt.reused, receipt.removed) == (2, 1, 0)
    assert "ENRON" not in told(file, index) and verify_graph(file, index) == [] and len(file.states()) == 3


def test_one_result_of_a_chunk_is_kept_in_place_of_the_one_by_its_id_alone(file: GraphFile) -> None:
    plain, headed, other = Chunk("d", 0, 1, "x"), Chunk("d", 0, 1, "x", "One"), Chunk("d", 1, 2, "y")
    for chunk in (plain, other):
        file.keep(chunk, Extraction(chunk.id))
    file.keep(headed, FailedChunk(headed.id, "d", "cut"))
    assert file.states() == {extraction_key(headed): "failed", other.id: "done"}
    assert file.failed() == [FailedChunk(headed.id, "d", "cut")]
    file.keep(headed, Extraction(headed.id, (ExtractedEntity("Ann", "name"),)))
    assert [each.chunk for each in file.extractions()] == [headed.id, other.id] and file.failed() == []


def test_a_process_that_ends_while_it_stores_or_forgets_a_result_leaves_the_one_before(file: GraphFile) -> None:
    class EndedFile(GraphFile):
        def _execute(self, statement: str, values: Sequence[object] = ()) -> None:
            if statement.startswith(("INSERT", "DELETE FROM meta")):
                raise KeyboardInterrupt
            super()._execute(statement, values)

    chunk = Chunk("d", 0, 1, "x", "One")
    file.keep(Chunk("d", 0, 1, "x"), Extraction(chunk.id))
    ended = EndedFile(file.path)
    with pytest.raises(KeyboardInterrupt):
        ended.keep(chunk, Extraction(chunk.id))
    with pytest.raises(KeyboardInterrupt):
        ended.forget([chunk.id])
    ended.close()
    assert file.states() == {chunk.id: "done"}
