"""`firsthand rag index`, `status`, `verify`, `delete` and `reindex`, from the command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from embedder_tiny import write_embedder
from firsthand.commands.completion import complete
from firsthand.errors import StoreError
from firsthand.hub import model_lookup
from firsthand.providers.local_embedder import LocalEmbedder
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.system.lock import claimed

Cli = Callable[..., tuple[int, str, str]]
DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FIRSTHAND_OFFLINE", "1")
    root = tmp_path / "notes"
    (root / "sub").mkdir(parents=True)
    (root / "cats.md").write_text("# Cats\n\nThe cat sat on the mat.\n")
    (root / "sub" / "dogs.txt").write_text("The dog ran.\n")
    return root


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedder(tmp_path_factory.mktemp("embedder"))


@pytest.mark.slow
def test_a_folder_is_indexed_again_and_again(folder: Path, cli: Cli) -> None:
    code, out, err = cli("rag", "index", str(folder), "--model", "none")
    assert (code, err) == (0, "") and "documents: 2 added" in out
    assert f"index: {folder}/.firsthand-index (2 chunks, terms alone, auto:size=800:overlap=100)" in out
    (folder / "cats.md").unlink()
    (folder / "new.md").write_text("New.")
    code, out, _ = cli("rag", "index", str(folder))
    assert code == 0 and "documents: 1 added, 1 unchanged, 1 removed" in out
    assert "documents: 2 unchanged" in cli("rag", "index", str(folder))[1]


def test_what_fails_is_named_and_the_exit_code_tells(folder: Path, cli: Cli) -> None:
    (folder / "bad.txt").write_bytes(b"\x7fELF\0")
    (folder / "evil\x1b[31m.txt").symlink_to("/etc/hostname")
    code, out, _ = cli("rag", "index", str(folder), "--model", "none")
    assert code == 3 and "2 added, 2 failed" in out
    assert "failed: bad.txt: it is a program and no text" in out and "\x1b" not in out


@pytest.mark.slow
def test_without_a_model_at_hand_the_index_has_terms_alone_and_says_so(folder: Path, cli: Cli) -> None:
    code, out, err = cli("rag", "index", str(folder))
    assert code == 0 and "terms alone" in out
    assert (
        err.count("\n") == 1 and "no embedder is at hand, so the index has terms alone" in err and "rag reindex" in err
    )
    code, _, err = cli("rag", "index", str(folder), "--model", "minilm", "--index", str(folder / "other"))
    assert code == 1 and "MiniLM" in err and "while offline" in err  # asked for by name, it is not left out


@pytest.mark.slow
def test_vectors_are_those_of_the_embedder(folder: Path, embedder: Path, cli: Cli) -> None:
    code, out, _ = cli("rag", "index", str(folder), "--model", str(embedder))
    assert code == 0 and "vectors: 2 computed, 0 there already" in out and "64 dimensions" in out
    with closing(open_index(folder / ".firsthand-index", read_only=True)) as index:
        (chunk,) = index.chunks("cats.md")
        ((vector),) = index.vectors([chunk.id])
        expected = asyncio.run(LocalEmbedder(embedder).embed([chunk.indexed_text]))[0]
        assert np.dot(vector, np.array(expected, np.float32)) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_chunks_longer_than_the_model_reads_are_counted(folder: Path, embedder: Path, cli: Cli) -> None:
    (folder / "long.txt").write_text("the cat sat on the mat " * 30)  # the tiny model reads 32 tokens
    out = cli("rag", "index", str(folder), "--model", str(embedder))[1]
    assert "notes: vectors: 1 chunk longer than the model reads" in out


@pytest.mark.slow
def test_another_model_or_chunker_is_refused_and_reindex_changes_it(folder: Path, embedder: Path, cli: Cli) -> None:
    cli("rag", "index", str(folder), "--model", "none")
    code, _, err = cli("rag", "index", str(folder), "--chunker", "fixed")
    assert code == 2 and "auto:size=800:overlap=100" in err and "rag reindex" in err
    code, _, err = cli("rag", "index", str(folder), "--model", str(embedder))
    assert code == 2 and "the embedding model of" in err and "is none" in err
    code, out, _ = cli("rag", "reindex", str(folder), "--model", str(embedder))
    assert code == 0 and "vectors: 2 computed, 0 there already" in out
    code, out, _ = cli("rag", "reindex", str(folder), "--chunker", "sentences:size=500")
    assert code == 0 and "2 chunks; vectors: 1 computed, 1 there already" in out
    code, out, _ = cli("rag", "index", str(folder))
    assert code == 0 and "2 unchanged" in out and "sentences:size=500:overlap=100" in out and "64 dimensions" in out
    assert not list(folder.glob("*.new*"))


@pytest.mark.slow
def test_reindex_goes_on_with_what_an_interrupted_one_left(folder: Path, embedder: Path, cli: Cli) -> None:
    cli("rag", "index", str(folder), "--model", "none")
    new = ["--chunker", "recursive", "--model", str(embedder)]
    cli("rag", "index", str(folder), *new, "--index", str(folder / ".firsthand-index.new"))
    with closing(open_index(folder / ".firsthand-index.new")) as index:
        index.delete(["cats.md"])
    code, out, _ = cli("rag", "reindex", str(folder), *new)
    assert code == 0 and "2 documents, 2 chunks; vectors: 1 computed" in out
    assert cli("rag", "verify", str(folder))[0] == 0


@pytest.mark.slow
def test_an_open_index_takes_another_model_and_no_other_chunker(folder: Path, embedder: Path, cli: Cli) -> None:
    cli("rag", "index", str(folder), "--model", "none")
    with closing(open_index(folder / ".firsthand-index", read_only=True)) as reader:
        assert reader.search_terms("cat", 1, {})
        assert cli("rag", "reindex", str(folder), "--model", str(embedder))[0] == 0
        code, _, err = cli("rag", "reindex", str(folder), "--chunker", "recursive")
        assert code == 1 and "open: end it, and run this again" in err
        with pytest.raises(StoreError, match="open it again"):
            reader.search_terms("cat", 1, {})
    assert cli("rag", "reindex", str(folder), "--chunker", "recursive")[0] == 0


@pytest.mark.slow
def test_status_verify_and_delete(folder: Path, cli: Cli) -> None:
    cli("rag", "index", str(folder), "--model", "none")
    code, out, _ = cli("rag", "status", str(folder), "--documents")
    assert code == 0 and "sub/dogs.txt" in out and "2 (1 markdown, 1 text)" in out and "terms alone" in out
    body = json.loads(cli("rag", "status", str(folder), "--json")[1])
    assert body["chunks"] == 2 and body["kinds"] == {"markdown": 1, "text": 1}
    assert cli("rag", "verify", str(folder))[:2] == (0, f"{folder}/.firsthand-index is sound: 2 documents, 2 chunks\n")
    code, _, err = cli("rag", "delete", "cat.md", "--index", str(folder))
    assert code == 2 and "did you mean 'cats.md'" in err
    assert cli("rag", "delete", "cats.md", "--index", str(folder))[:2] == (0, "removed cats.md\n")
    assert "1 added, 1 unchanged" in cli("rag", "index", str(folder))[1]  # its file is still there


@pytest.mark.slow
def test_status_and_an_ingest_without_changes_read_no_text_of_a_document(folder: Path, cli: Cli) -> None:
    cli("rag", "index", str(folder), "--model", "none")
    with closing(sqlite3.connect(folder / ".firsthand-index")) as connection:
        connection.execute("UPDATE documents SET text = x'00'")
        connection.commit()
    code, out, _ = cli("rag", "status", str(folder), "--documents")
    assert code == 0 and "2 (1 markdown, 1 text)" in out and "cats.md" in out
    assert "2 unchanged" in cli("rag", "index", str(folder))[1]
    code, _, err = cli("rag", "verify", str(folder))
    assert code == 1 and "cats.md" in err, "only verify reads texts again"


def test_the_receipt_is_json_on_request(folder: Path, cli: Cli) -> None:
    (folder / "bad.txt").write_bytes(b"\x7fELF\0")
    code, out, _ = cli("rag", "index", str(folder), "--model", "none", "--json")
    body = json.loads(out)
    assert code == 3 and body["added"] == ["cats.md", "sub/dogs.txt"] and body["failed"][0][0] == "bad.txt"
    assert body["header"]["chunker"] == "auto:size=800:overlap=100" and body["chunks"] == 2


def test_only_what_the_globs_choose_is_read(folder: Path, cli: Cli) -> None:
    code, out, _ = cli("rag", "index", str(folder), "--model", "none", "--include", "*.txt", "--json")
    assert code == 0 and json.loads(out)["added"] == ["sub/dogs.txt"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["rag", "index"], "index needs a folder"),
        (["rag", "indx", "."], "did you mean 'index'"),
        (["rag", "index", "missing-folder"], "no folder or file 'missing-folder'"),
        (["rag", "index", ".", "--chunker", "recursiv"], "did you mean 'recursive'"),
        (["rag", "index", "a", "b"], "give --index PATH"),
        (["rag", "status", "missing"], "no index at 'missing'"),
        (["rag", "verify", "missing"], "no index at 'missing'"),
        (["rag", "--model", "x"], "does not take"),
        (["rag", "index", ".", "--modle", "x"], "did you mean --model"),
    ],
)
def test_commands_that_make_no_sense_say_why(folder: Path, cli: Cli, words: list[str], told: str) -> None:
    code, _, err = cli(*words)
    assert code == 2 and told in err and err.count("\n") == 1


@pytest.mark.slow
def test_help_lists_the_subcommands_and_completion_knows_them(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "firsthand", "rag"], capture_output=True, text=True)
    assert done.returncode == 0 and all(
        f"\n  {name}" in done.stdout for name in ("index", "status", "verify", "delete", "reindex")
    )
    assert {"index", "status", "--help"} <= set(complete("firsthand rag "))
    assert "--chunker" in complete("firsthand rag index --ch")
    assert {"auto", "recursive"} <= set(complete("firsthand rag index docs --chunker "))
    assert "--documents" in complete("firsthand rag status --")


def test_chunkers_are_listed(cli: Cli) -> None:
    body = json.loads(cli("list", "chunkers", "--json")[1])
    assert (
        "recursive:size=800:overlap=100" in body["chunkers"] and "semantic:size=1200:percentile=90" in body["chunkers"]
    )


@pytest.mark.slow
def test_an_index_that_another_process_writes_is_busy(folder: Path, cli: Cli) -> None:
    cli("rag", "index", str(folder), "--model", "none")
    (folder / "new.md").write_text("New.")
    with claimed(folder / ".firsthand-index.lock", lambda holder: AssertionError(holder)):  # type: ignore[arg-type, return-value]
        code, _, err = cli("rag", "index", str(folder))
    assert code == 1 and f"process {os.getpid()}" in err
    assert "1 added, 2 unchanged" in cli("rag", "index", str(folder))[1]


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(folder: Path) -> None:
    for number in range(4000):
        (folder / f"{number}.txt").write_text(f"The cat sat on the mat and then it ran {number}.")
    command = [sys.executable, "-m", "firsthand", "rag", "index", str(folder), "--model", "none"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None and _stored(folder) < 1:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "the same command goes on with the rest" in err and "Traceback" not in err
    with closing(open_index(folder / ".firsthand-index")) as index:
        assert 0 < len(index.hashes()) < 4002 and index.verify() == []


def _stored(folder: Path) -> int:
    try:
        with closing(open_index(folder / ".firsthand-index", read_only=True)) as index:
            return len(index.hashes())
    except Exception:  # it is being made
        return 0


@pytest.mark.weights
def test_our_own_docs_are_found_by_meaning(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "docs.index"
    code, out, _ = cli("rag", "index", str(DOCS), "--index", str(path), "--include", "s[ac]*.md")
    assert code == 0 and "384 dimensions" in out
    with closing(open_index(path, read_only=True)) as index:
        model = LocalEmbedder(model_lookup.resolve("minilm"), name="minilm")
        vector = np.array(asyncio.run(model.embed(["How is untrusted code kept from the network?"]))[0], np.float32)
        found = {hit.chunk.document for hit in index.search_vectors(vector, 5, {})}
        assert "sandbox.md" in found and index.verify() == []
