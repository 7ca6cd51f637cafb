"""`rag graph`: its settings reach the build, and an estimate, a receipt, its faults and its failures are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corpus_tiny import write_index
from firsthand import catalog
from firsthand.commands import rag_graph
from firsthand.errors import ConfigError
from firsthand.model import Usage
from firsthand.retrieval.corpus import close_corpora
from firsthand.retrieval.graph import graph_build, graph_state
from firsthand.retrieval.graph.graph_build import GraphEstimate, GraphReceipt
from firsthand.retrieval.graph.graph_extraction import FailedChunk
from firsthand.retrieval.graph.graph_file import GraphFile, graph_path
from firsthand.retrieval.store.sqlite_index import SqliteIndex

Cli = Callable[..., tuple[int, str, str]]
RECEIPT = GraphReceipt(
    extracted=7, reused=6, removed=5, without_entities=0, failed=(), failed_reports=(), entities=4, relations=3, orphans=2,
    communities={0: 9, 1: 8}, summaries_made=11, reports_made=12, reports_reused=13, calls=0, usage=Usage(),
)  # fmt: skip


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    texts = {"a.md": "Ada met Bob in Oslo.\nBob left.\n", "b.md": "Bob slept.\n"}
    yield write_index(tmp_path / "d.index", texts, vectors=False)
    close_corpora()


def test_every_setting_of_a_graph_reaches_its_build(index: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    asked: list[Any] = []

    async def build_graph(opened: Any, file: Any, settings: Any, **more: Any) -> GraphReceipt:
        asked.append((len(opened), settings, more))
        return RECEIPT

    monkeypatch.setattr(graph_build, "build_graph", build_graph)
    monkeypatch.setattr(catalog, "model", lambda name: ("model", name))
    line = ("rag", "graph", str(index), "--model", "m", "--types", " org , ,place", "--gleanings", "3")
    line += ("--max-answer-tokens", "77", "--max-tokens", "99", "--max-cluster-size", "5", "--largest-component")
    code, out, err = cli(*line, "--concurrency", "2", "--json")
    assert code == 0, err
    [(chunks, settings, more)] = asked
    assert chunks == 3 and more == {"model": ("model", "m"), "embedder": None, "max_tokens": 99, "concurrency": 2}
    read = settings.extraction
    assert (settings.extractor, read.types, read.gleanings, read.max_answer_tokens) == (
        "model",
        ("org", "place"),
        3,
        77,
    )
    assert (settings.leiden.max_cluster_size, settings.leiden.largest_component) == (5, True)
    body = json.loads(out)
    assert (body["extracted"], body["orphans"], body["communities"]) == (7, 2, {"0": 9, "1": 8})
    assert cli("rag", "graph", str(index), "--extractor", "noun_phrases", "--model", "m")[0] == 0
    _, settings, more = asked[1]
    assert more == {"model": None, "embedder": None, "max_tokens": 1_000_000, "concurrency": 4}
    read, leiden = settings.extraction, settings.leiden
    assert read.types == ("organization", "person", "geo", "event") and settings.extractor == "noun_phrases"
    assert (read.gleanings, leiden.max_cluster_size, leiden.largest_component) == (1, 10, False)
    with pytest.raises(ConfigError, match="extraction needs a model: give --model, or --extractor noun_phrases, which"):
        rag_graph._opened(rag_graph.Config())


@pytest.mark.slow
def test_a_receipt_is_told_line_by_line_and_failures_are_the_exit_status(
    index: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    receipt = RECEIPT

    async def build_graph(*given: Any, **more: Any) -> GraphReceipt:
        return receipt

    monkeypatch.setattr(graph_build, "build_graph", build_graph)
    line = ("rag", "graph", str(index), "--extractor", "noun_phrases")
    first, graph, levels, reports = (
        "chunks: 7 read, 6 unchanged, 5 removed, 0 failed", "graph: 4 entities, 3 relations (2 left out)",
        "communities: 9 at level 0, 8 at level 1", "reports: 12 made, 13 unchanged, 0 failed",
    )  # fmt: skip
    assert cli(*line) == (0, "\n".join((first, graph, levels, reports)) + "\n", "")
    receipt = replace(RECEIPT, without_entities=1, communities={}, calls=1, usage=Usage(10, 4, 5))
    told = [f"{first}, 1 without entities", graph, "communities: none", reports, "cost: 1 call, 15 tokens"]
    assert cli(*line) == (0, "\n".join(told) + "\n", "")
    receipt = replace(receipt, entities=0, without_entities=2)
    code, _, err = cli(*line)
    assert code == 0 and err == (
        "firsthand: no entity was found in 2 chunks, so graph_rag will find nothing: the model may be too small to extract; "
        "give another with --rebuild, or --extractor noun_phrases\n"
    )
    failed = FailedChunk("0123456789ab", "a.md", "cut off")
    receipt = replace(RECEIPT, failed=(failed,))
    code, out, err = cli(*line)
    assert (code, err) == (3, "firsthand: failed: chunk 01234567 of a.md: cut off\n") and "5 removed, 1 failed" in out
    receipt = replace(RECEIPT, failed_reports=((4, "no list"),))
    code, out, err = cli(*line)
    assert (code, err) == (3, "firsthand: failed: report of community 4: no list\n") and "13 unchanged, 1 failed" in out


def test_an_estimate_counts_what_is_left_and_a_rebuild_everything(
    index: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    asked: list[Any] = []
    cost = GraphEstimate(1, 2, 3)
    monkeypatch.setattr(graph_build, "estimate", lambda known, *given: asked.append(known) or cost)
    path = graph_path(index)
    line = ("rag", "graph", str(index), "--estimate")
    assert cli(*line) == (0, "about 2 calls and 3 tokens for 1 chunk\n", "") and not path.exists()
    cost = GraphEstimate(2, 1, 1)
    GraphFile(path, create=True).close()
    assert cli(*line)[1] == "about 1 call and 1 token for 2 chunks\n"
    assert cli(*line, "--rebuild")[1].startswith("about") and path.exists()
    assert [each is None for each in asked] == [True, False, True]
    assert json.loads(cli(*line, "--json")[1]) == {"chunks": 2, "calls": 1, "tokens": 1}
    with pytest.raises(ConfigError, match=r"^max_tokens is 1 and concurrency 0: give 1 or more of each$"):
        rag_graph.Config(max_tokens=1, concurrency=0)


def test_a_rebuild_deletes_the_graph_with_its_side_files_and_faults_are_told(
    index: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    path = graph_path(index)
    GraphFile(path, create=True).close()
    sides = [path.with_name(path.name + ending) for ending in ("-wal", "-shm")]
    for side in sides:
        side.write_bytes(b"old")
    seen: list[Any] = []

    async def build_graph(opened: Any, file: Any, *given: Any, **more: Any) -> GraphReceipt:
        seen.append([side.is_file() and side.read_bytes() == b"old" for side in sides])
        return RECEIPT

    monkeypatch.setattr(graph_build, "build_graph", build_graph)
    assert cli("rag", "graph", str(index), "--extractor", "noun_phrases", "--rebuild")[0] == 0
    assert seen == [[False, False]] and path.is_file()
    faults: list[str] = []
    monkeypatch.setattr(graph_state, "verify_graph", lambda file, opened: faults)
    assert cli("rag", "graph", str(index), "--verify") == (0, f"{path} is sound\n", "")
    faults += ["one fault", "another"]
    assert cli("rag", "graph", str(index), "--verify") == (1, "", "firsthand: one fault\nfirsthand: another\n")
    code, out, err = cli("rag", "verify", str(index))
    assert (code, err) == (1, "firsthand: one fault\nfirsthand: another\n") and "sound" not in out
    monkeypatch.setattr(SqliteIndex, "verify", lambda self: ["of the index"])
    told = "".join(f"firsthand: {each}\n" for each in ("of the index", "one fault", "another"))
    assert cli("rag", "verify", str(index)) == (1, "", told), "those of the index and of its graph"
    faults.clear()
    assert cli("rag", "verify", str(index)) == (1, "", "firsthand: of the index\n")
