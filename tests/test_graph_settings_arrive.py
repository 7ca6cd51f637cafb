"""Each setting of a graph's construction, given with a value of its own, arrives where it is used and is read back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.graph.graph_build import GraphSettings, build_graph
from firsthand.retrieval.graph.graph_extraction import ExtractionSettings
from firsthand.retrieval.graph.graph_file import GraphFile
from firsthand.retrieval.graph.graph_state import load_state
from firsthand.retrieval.graph.leiden import LeidenSettings
from firsthand.retrieval.graph.noun_phrases import NounPhraseSettings
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index
from graph_endpoint import asked, scripted
from graph_handmade import report_of

pytest.importorskip("graspologic_native")


def index_of(*texts: str, heading: str = "") -> SqliteIndex:
    made = open_index(":memory:", IndexHeader("", "", 0, "whole"))
    made.put(
        [
            IndexedDocument(Document(f"d{n}", text), [Chunk(f"d{n}", 0, len(text), text, heading)], None)
            for n, text in enumerate(texts)
        ]
    )
    return made


def test_settings_of_phrases_and_of_the_division_are_those_that_were_given(tmp_path: Path) -> None:
    index = index_of(
        "Ann Ash met Bob Elm and Cid Oak by three red clay pots", "Dora Fir met Emil Yew", "Dora Fir and Gil Ivy"
    )
    file = GraphFile(tmp_path / "x.graph", create=True)
    phrases = NounPhraseSettings(min_frequency=1, min_edge_percentile=0, max_words=2)
    settings = GraphSettings(
        "noun_phrases", phrases=phrases, leiden=LeidenSettings(largest_component=True), summary_tokens=9
    )
    file.put_meta("reader", {"extractor": "model", "model": "m", "types": [], "gleanings": 3})
    receipt = asyncio.run(build_graph(index, file, settings))
    names = ["ANN ASH", "BOB ELM", "CID OAK", "DORA FIR", "EMIL YEW", "GIL IVY"]
    assert [each.name for each in load_state(file, index).graph.entities] == names, "three words are no term here"
    assert receipt.communities == {0: 1} and receipt.entities == 6
    assert file.meta("reader") == {"extractor": "noun_phrases", "model": "", "types": [], "gleanings": 0}
    built: Any = file.meta("built")
    assert (built["largest_component"], built["summary_tokens"], built["author"]) == (True, 9, "noun_phrases")
    assert built["phrases"] == {"min_frequency": 1, "min_edge_percentile": 0, "max_words": 2}
    [[_, level, parent, members]] = built["communities"]
    assert (level, parent) == (0, None) and members == ["DORA FIR", "EMIL YEW", "GIL IVY"], "of equals the last by name"
    both = asyncio.run(build_graph(index, file, replace(settings, leiden=LeidenSettings())))
    assert both.communities == {0: 2} and file.meta("built")["largest_component"] is False  # type: ignore[index]
    file.close()


def test_settings_of_a_model_are_those_that_were_given_and_summaries_stand_in_reports(tmp_path: Path) -> None:
    index = index_of("one", "two", heading="Above")

    def reply(said: str) -> str:
        if said.startswith("These are descriptions"):
            return " short "
        if "entities and relations" in said:
            return json.dumps(report_of("T", 4.0))
        n = "one" if "\none\n" in said else "two"
        entities = [{"name": name, "type": "geo", "description": f"{name} {n}"} for name in ("Ann", "Bob")]
        relation = {"source": "Ann", "target": "Bob", "description": f"met {n}", "strength": 2}
        return json.dumps({"entities": entities, "relations": [relation]})

    file = GraphFile(tmp_path / "x.graph", create=True)
    settings = GraphSettings(
        extraction=ExtractionSettings(("geo",), gleanings=0, max_answer_tokens=70), summary_tokens=77, report_tokens=88
    )
    model = scripted(reply)
    receipt = asyncio.run(build_graph(index, file, settings, model=model))
    assert (receipt.summaries_made, receipt.reports_made, receipt.calls) == (3, 1, 6)
    assert [sampling.max_tokens for _, sampling in model.asked] == [70, 70, 77, 77, 77, 88]
    assert sorted("Above\none\n" in said for said in asked(model)[:2]) == [False, True], "the heading is read too"
    report = asked(model)[-1]
    assert "ANN (geo, 1 relations): short\nBOB (geo, 1 relations): short\nANN -- BOB (weight 4): short" in report
    state = load_state(file, index)
    assert [each.summary for each in state.graph.items] == ["short"] * 3
    assert file.meta("built")["summary_tokens"] == 77  # type: ignore[index]
    assert asyncio.run(build_graph(index, file, settings, model=model)).calls == 0
    file.close()
