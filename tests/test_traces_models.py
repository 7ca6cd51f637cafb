"""Traces of several models: found, counted and shown by each of them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from firsthand.ingest.dialects.span_facts import SpanFacts
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.trace_store import FILE, FOLDER, SCHEMA, SpanPreparer, TraceStore
from firsthand.ingest.trace_summary import SEVERAL_MODELS, TraceSummary
from firsthand.runs.database import Database, Schema
from firsthand.studio.incoming_query import IncomingQuery
from studio_small_home import entered, said

QUOTED = 'my "model"\\1'


def span(trace: int, number: int, model: str, kind: str = "LLM") -> IncomingSpan:
    attributes: dict[str, Any] = {"openinference.span.kind": kind, "output.value": "out"}
    if model:
        attributes |= {"llm.model_name": model} if kind == "LLM" else {"embedding.model_name": model}
    parent = "" if number == 1 else f"{1:016x}"
    return IncomingSpan(
        f"{trace:032x}",
        f"{number:016x}",
        parent,
        f"t{trace}",
        10**18 + trace * 10**9 + number,
        10**18 + 10**10,
        attributes,
    )


def kept(home: Path) -> TraceStore:
    store = TraceStore(home, create=True)
    spans = [
        span(1, 1, "small"), span(1, 2, "Big"), span(1, 3, "Big"),
        span(2, 1, "Big"),
        span(3, 1, "text-embedding", "EMBEDDING"), span(3, 2, "big-2"), span(3, 3, "Größe"),
        span(4, 1, "", "CHAIN"),
        span(5, 1, QUOTED), span(5, 2, "a|b"),
    ]  # fmt: skip
    for each in spans:  # in several transactions
        store.add(SpanPreparer(Redactor()).prepared([each]))
    return store


def test_a_trace_is_found_and_counted_by_each_of_its_models(tmp_path: Path) -> None:
    store = kept(tmp_path)
    for text, found in {
        "model=big": [1, 2], "model=small": [1], "model:big": [1, 2, 3], "model=text-embedding": [3],
        "-model=big": [3, 4, 5],
        "-model:b": [4], "model=GRÖSSE": [3], "model=GROSSE": [],
        "model=größe": [3], "model:GRÖ": [3], 'model="a|b"': [5], "model=a": [],
        "model:l": [1, 5], 'model="my ""model""\\1"': [5], "big": [1, 2, 3], "model=big model=small": [1], "embedding": [3],
        'model="small|big"': [], 'model:"|"': [5],
    }.items():  # fmt: skip
        rows = IncomingQuery.parse(text).page(store).rows
        assert sorted(int(row.trace, 16) for row in rows) == found, text
    once = ["Größe", "a b", "big-2", QUOTED, "small", "text-embedding"]
    models = IncomingQuery.parse("").facets(store)["model"]
    assert models[0] == ("Big", 2) and sorted(models[1:]) == sorted((name, 1) for name in once)
    assert IncomingQuery.parse("").facets(store, 1)["model"] == [("Big", 2)]
    assert IncomingQuery.parse("model=small").facets(store)["model"] == [("Big", 1), ("small", 1)]
    assert IncomingQuery.parse("model=none").facets(store)["model"] == []
    store.close()


def test_a_list_names_the_models_of_a_trace(tmp_path: Path) -> None:
    store = kept(tmp_path)
    store.add(SpanPreparer(Redactor()).prepared([span(6, number, f"m{number}") for number in range(1, 7)]))
    store.add(SpanPreparer(Redactor()).prepared([span(7, 1, "Big"), span(8, 1, "small"), span(8, 2, "Big")]))
    assert IncomingQuery.parse("").facets(store)["model"][:2] == [("Big", 4), ("small", 2)]
    store.close()
    with entered(tmp_path) as client:
        page = said(client.get("/traces"))
    assert ", small, Big" in page and ", m1, m2, m3, m4 and 2 more models" in page


def test_a_summary_holds_each_model_once_and_not_without_end() -> None:
    summary = TraceSummary("t")
    for number, model in enumerate(["b", "ab", "b", "", "a|b", "a b"]):
        summary.add(IncomingSpan("t", f"{number}", "", "n", 1, 2), SpanFacts("generate", model), "")
    assert (summary.model, summary.models, summary.model_names) == ("b", "|b|ab|a b|", ["b", "ab", "a b"])
    summary.add(IncomingSpan("t", "9", "", "n", 1, 2), SpanFacts("agent", "other"), "")
    assert summary.models == "|b|ab|a b|" and TraceSummary("t").model_names == []
    for number in range(900):
        summary.add(
            IncomingSpan("t", f"x{number}", "", "n", 1, 2), SpanFacts("generate", f"model-{number}" + "y" * 400), ""
        )
    assert 2000 <= len(summary.models) <= 2301


@pytest.mark.parametrize(("model", "models"), [("m|1", "|m 1|"), ("", "")])
def test_traces_of_an_older_store_have_the_model_that_they_had(tmp_path: Path, model: str, models: str) -> None:
    older = Schema(**{**vars(SCHEMA), "migrations": SCHEMA.migrations[: -len(SEVERAL_MODELS)]})
    (tmp_path / FOLDER).mkdir()
    Database(tmp_path / FOLDER / FILE, create=True, schema=older).close()
    columns = [each for each in TraceSummary.__dataclass_fields__ if each != "models"]
    row = [
        {"trace": "t", "model": model, "first_ns": 1}.get(each, getattr(TraceSummary("t"), each)) for each in columns
    ]
    with sqlite3.connect(tmp_path / FOLDER / FILE) as connection:
        marks = ", ".join("?" * len(columns))
        connection.execute(f"INSERT INTO traces ({', '.join(columns)}) VALUES ({marks})", row)
    connection.close()
    store = TraceStore(tmp_path, create=True)
    assert (store.summary("t").model, store.summary("t").models) == (model, models)
    store.close()
