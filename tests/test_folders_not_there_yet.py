"""What is written below folders that are not there yet, and again where they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.claims.fact_language import write_documents
from firsthand.formats.gguf_file import read_gguf
from firsthand.formats.gguf_output import PlannedTensor, write_tensors
from firsthand.hub.content_hash import content_hash
from firsthand.hub.model_lookup import _exclusive
from firsthand.ingest.intake import Intake
from firsthand.ingest.span_sender import RunRecorder
from firsthand.ingest.trace_store import TraceStore
from firsthand.measure.machine_speeds import Speeds, save_speeds
from firsthand.memories.keeping.item_file import ItemFile
from firsthand.reading.entry_documents import write_entries
from firsthand.reading.tour_progress import mark_done, steps_done
from firsthand.reading.tour_steps import tour_steps
from firsthand.retrieval.benchmark_corpus import build_index
from firsthand.retrieval.document import Document
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.runs import store
from firsthand.studio.studio_store import SqliteStore
from firsthand.system import home_seal
from firsthand.tools.mcp.approved_definitions import ApprovedDefinitions
from firsthand.tools.mcp.definitions import ToolDefinition
from firsthand.tools.mcp.oauth_sign_in import StoredTokens
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.train.kept_rollouts import KeptRollouts
from firsthand.train.streams import Stream, load_streams, save_streams
from firsthand.train.sweep import Sweep, Trial, _start, save_spec
from firsthand.worlds.knowledge.triples import open_graph
from index_tiny import HEADER


def files_below(folder: Path) -> list[str]:
    return sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())


@pytest.mark.slow
def test_records_are_written_below_folders_that_are_not_there_and_again_where_they_are(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    tensor = PlannedTensor("t", (4,), "F32")
    made: list[tuple[str, Callable[[Path], Any]]] = [
        ("facts", lambda folder: write_documents(folder, {(("ada", "byron"), "city"): "rome"})),
        ("entries", write_entries),
        ("gguf", lambda folder: write_tensors(folder / "m.gguf", {}, [tensor], lambda each: np.ones(4, np.float32))),
        ("speeds", lambda folder: save_speeds(Speeds(2, 20.0, 100.0, None, None, "2026-01-02", 0.5), home=folder)),
        ("key", lambda folder: home_seal._key(folder / "key")),
        ("streams", lambda folder: save_streams([Stream([1, 2], ce=[0, 1])], folder, 3)),
        ("rollouts", lambda folder: KeptRollouts(folder).begin("round", 1, "w")),
        ("memory", lambda folder: ItemFile(folder / "m.db").close()),
        ("index", lambda folder: open_index(folder / "x.index", HEADER).close()),
        ("corpus", lambda folder: asyncio.run(build_index(folder / "c.index", [Document("d", "owl")], embedder=""))),
        ("run", lambda folder: store.create(folder, {}, "r").close()),
        ("studio", lambda folder: SqliteStore(folder).put("k", "a", {"n": 1})),
    ]
    for name, write in made:
        folder = deep / name / "in"
        write(folder)
        first = files_below(folder)
        assert first, name
        write(folder)
        if name != "run":  # which has another id each time
            assert files_below(folder) == first, name
    assert (deep / "facts" / "in" / "ada-byron-city.txt").read_text().startswith("ada byron")
    key = deep / "key" / "in" / "key"
    assert home_seal._key(key) == home_seal._key(key) == key.read_bytes()
    save_speeds(Speeds(2, 30.0, 200.0, None, None, "2026-01-03", 0.5), home=deep / "speeds" / "in")
    (kept,) = (deep / "speeds" / "in" / "machine").iterdir()
    assert json.loads(kept.read_text())["speeds"]["read_gb_s"] == 30.0
    assert list(read_gguf(deep / "gguf" / "in" / "m.gguf").tensors) == ["t"]
    assert load_streams(deep / "streams" / "in" / "step-3.npz")[0].ids.tolist() == [1, 2]
    assert len(list((deep / "run" / "in" / "runs").glob("*/run.sqlite"))) == 2


def test_stores_of_traces_and_servers_are_made_in_a_home_that_is_not_there(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    for _ in range(2):
        TraceStore(deep / "traces", create=True).close()
        Intake(deep / "intake").close()
        recorder = RunRecorder(deep / "recorded" / "run", "shop")
        recorder._opened().close()
        server = ServerDeclaration("s", url="https://x.test/mcp")
        tokens = StoredTokens(server, "http://127.0.0.1:1/callback", deep / "mcp")
        asyncio.run(tokens.set_tokens(_token("t")))
        kept = asyncio.run(tokens.get_tokens())
        assert kept is not None and kept.access_token == "t"
        approved = ApprovedDefinitions(server, deep / "mcp")
        assert approved.changes({"t": ToolDefinition("t", "d", {}, {})}) == {}
        assert approved.path.is_file() and (tokens.path.stat().st_mode & 0o777) == 0o600
    for folder in (tokens.path.parent, approved.path.parent):
        assert folder.stat().st_mode & 0o777 == 0o700


def _token(text: str) -> Any:
    from mcp.shared.auth import OAuthToken

    return OAuthToken(access_token=text)


def test_what_is_kept_in_the_data_home_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "x" / "y"
    monkeypatch.setenv("FIRSTHAND_HOME", str(home))
    graph = tmp_path / "g.nt"
    graph.write_text(
        "<http://rdf.freebase.com/ns/m.a> <http://rdf.freebase.com/ns/b.c.d> <http://rdf.freebase.com/ns/m.e> .\n"
    )
    step = tour_steps()[0]
    for _ in range(2):
        with _exclusive("m"):
            pass
        open_graph(graph).close()
        mark_done(step)
        assert len(content_hash(graph)) == 64
    other = tmp_path / "other"
    other.write_text("x")
    content_hash(other)
    assert len(list((home / "hashes").iterdir())) == 2
    assert list(steps_done()) == [step.id]
    assert [each.split("/")[0] for each in files_below(home)] == ["cache", "hashes", "hashes", "models", "tour"]


def test_the_trials_of_a_sweep_make_their_folders_and_begin_anew_where_one_was(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    save_spec(Sweep(("train",), ({"lr": "1"},), "loss"), folder)
    assert files_below(folder) == ["sweep.json"]
    trial = Trial(1, "", {"lr": "1"}, folder / "trials" / "1", command=("true",))
    for _ in range(2):
        assert _start(trial).wait() == 0
        assert files_below(trial.folder) == ["log.txt"]
        (trial.folder / "left").write_text("of the try before")
