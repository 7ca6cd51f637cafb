"""`rag index`, `status`, `verify`, `delete` and `reindex` on small folders: what they keep, print and refuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corpus_tiny import TEXTS, wide_home, write_index
from firsthand.commands import rag_index, rag_reindex, rag_verify
from firsthand.errors import MissingExtra
from firsthand.retrieval import index_settings
from firsthand.retrieval import reindex as reindexing
from firsthand.retrieval.chunk_index import IndexHeader, IngestReceipt
from firsthand.retrieval.corpus import close_corpora
from firsthand.retrieval.store.ann_file import AnnReport
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.system import interruption

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with wide_home(tmp_path, monkeypatch):
        yield tmp_path


@pytest.fixture
def docs(home: Path) -> Path:
    (home / "docs" / "drafts").mkdir(parents=True)
    for name, text in {**TEXTS, "drafts/d.md": "A draft.\n"}.items():
        (home / "docs" / name).write_text(text)
    return home / "docs"


# -- rag index --


@pytest.mark.slow
def test_a_folder_is_indexed_brought_up_to_date_and_told_line_by_line(docs: Path, cli: Cli) -> None:
    line = (
        "rag",
        "index",
        str(docs),
        "--model",
        "none",
        "--chunker",
        "sentences:size=40:overlap=0",
        "--exclude",
        "drafts/*",
    )
    index = docs / ".firsthand-index"
    code, out, err = cli(*line)
    with open_index(index, read_only=True) as opened:
        chunks, chunker = len(opened), opened.header.chunker
        assert sorted(opened.hashes()) == ["b.txt", "c.md", "mill.md"] and chunker.startswith("sentences:")
    last = f"index: {index} ({chunks} chunks, terms alone, {chunker})"
    assert (code, out.splitlines()) == (0, ["documents: 3 added", last]) and chunks == 4, err
    (docs / "b.txt").write_text("A lake.\n")
    (docs / "c.md").unlink()
    (docs / "e.md").write_bytes(b"bad \xff\xfe bytes \x00\x01\x02" * 20)
    (docs / "big.md").write_text("x" * 400)
    code, out, _ = cli(*line, "--max-file-bytes", "300", "--json")
    body = json.loads(out)
    assert code == 3 and list(body)[-4:] == ["index", "chunks", "header", "note"], list(body)
    assert (body["updated"], body["unchanged"], body["removed"]) == (["b.txt"], ["mill.md"], ["c.md"])
    assert body["index"] == str(index) and body["note"] == "" and body["header"]["chunker"] == chunker
    assert {name for name, _ in body["failed"]} >= {"big.md"} and all(len(each) == 2 for each in body["failed"])
    assert body["chunks"] == 3 and (body["embedded"], body["reused"]) == (0, 0)
    (docs / "big.md").unlink()
    (docs / "e.md").unlink()
    (docs / "b.txt").unlink()
    code, out, _ = cli(*line, "--keep-removed")
    assert code == 0 and out.startswith("documents: 1 unchanged\n"), out
    code, out, _ = cli(*line)
    assert out.startswith("documents: 1 unchanged, 1 removed\n")
    whole = ("rag", "index", str(docs), "--model", "none", "--index")
    code, out, _ = cli(*whole, str(docs.parent / "all.index"), "--include", "*.md")
    assert code == 0 and out.startswith("documents: 2 added\n") and (docs.parent / "all.index").is_file()
    code, _, err = cli(*whole, "n.index", "--include", "*.pdf")
    assert code != 0 and not Path("n.index").exists() and "Traceback" not in err
    assert cli("rag", "index")[0] == 2


def test_fields_of_json_documents_and_prefixes_of_an_index_are_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    rows = [{"key": "one", "abstract": "Alder in Oslo.", "head": "Of alder", "text": "wrong"}]
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bars: list[Any] = []
    for module in (rag_index, rag_reindex):
        whole = module.progress
        monkeypatch.setattr(
            module, "progress", lambda *given, whole=whole, **more: bars.append((*given, more)) or whole(*given, **more)
        )
    line = ("rag", "index", "rows.jsonl", "--index", "r.index", "--model", "none", "--text-field", "abstract")
    code, out, err = cli(*line, "--title-field", "head", "--id-field", "key")
    assert code == 0 and out.startswith("documents: 1 added\n"), err
    with open_index(home / "r.index", read_only=True) as opened:
        [id] = opened.hashes()
        document = opened.document(id)
        assert id.endswith("one") and "Alder in Oslo." in document.text and "wrong" not in document.text
        assert document.title == "Of alder"
    told = {"unit": "bytes", "shown": True}
    assert bars == [("the embedder", None, told), ("indexing rows.jsonl", None, told)]
    cli("rag", "reindex", "r.index", "--chunker", "sentences")
    assert bars[2:] == [("the embedder", None, {"unit": "bytes"}), ("making r.index anew", None, {})]
    cli("rag", "reindex", "r.index", "--chunker", "auto")
    code, _, err = cli(*line, "--query-prefix", "q: ")
    assert code == 2 and "the query prefix of r.index is none, and q: was given" in err
    code, _, err = cli(*line, "--document-prefix", "d: ")
    assert code == 2 and "the document prefix of r.index is none, and d: was given" in err


def test_receipts_are_printed_by_what_became_of_files_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    names = tuple(f"f{number}.pdf" for number in range(7))
    receipt = IngestReceipt(
        added=("a", "b"), updated=("c",), unchanged=(), removed=("d", "e", "f"), embedded=5, reused=0,
        failed=(*((name, "no parser") for name in names[:6]), ("x", "empty"), (names[6], "no parser")),
        notes=(("a", "cut"), ("b", "cut"), ("c", "cut"), ("g", "cut"), ("h", "cut")),
    )  # fmt: skip
    rag_index._print(receipt, IndexHeader("mini", "fp", 384, "auto"), 1, Path("i"))
    assert capsys.readouterr().out.splitlines() == [
        "documents: 2 added, 1 updated, 3 removed, 8 failed", "vectors: 5 computed, 0 there already",
        "notes: a, b, c, g, h: cut", "failed: f0.pdf, f1.pdf, f2.pdf, f3.pdf, f4.pdf and 2 more: no parser",
        "failed: x: empty", "index: i (1 chunk, mini, 384 dimensions, auto)",
    ]  # fmt: skip
    bare = IngestReceipt(added=(), updated=(), unchanged=(), removed=(), failed=(), embedded=0, reused=3)
    rag_index._print(bare, IndexHeader("mini", "fp", 4, "auto"), 2, Path("i"))
    rag_index._print(bare, IndexHeader("", "", 0, "lines"), 0, Path("j"))
    assert capsys.readouterr().out.splitlines() == [
        "documents: nothing to index", "vectors: 0 computed, 3 there already",
        "index: i (2 chunks, mini, 4 dimensions, auto)", "documents: nothing to index",
        "index: j (0 chunks, terms alone, lines)",
    ]  # fmt: skip


def test_an_index_that_was_interrupted_or_has_no_vectors_says_how_to_go_on(
    docs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    receipt = IngestReceipt(added=("a",), updated=(), unchanged=(), removed=(), failed=(), embedded=0, reused=0)
    at, header, stops = docs / ".firsthand-index", IndexHeader("", "", 0, "auto"), [True]

    async def indexed(config: Any, sources: list[Path], path: Path, done: list[str]) -> Any:
        assert (sources, path) == ([docs], at)
        if stops[0]:
            done += [" with 1 document", " with 2 documents"][: stops.pop(0) + 1]
            raise KeyboardInterrupt
        return header, receipt, 1, "why"

    monkeypatch.setattr(rag_index, "_index", indexed)
    monkeypatch.setattr(interruption, "run", asyncio.run)
    assert rag_index.run(rag_index.Config((str(docs),))) == 130
    told = "firsthand: interrupted with 2 documents: the same command goes on with the rest\n"
    assert capsys.readouterr() == ("", told)
    stops[:] = [False]
    assert rag_index.run(rag_index.Config((str(docs),))) == 0
    out, err = capsys.readouterr()
    assert err == f"firsthand: why; `firsthand rag reindex {at} --model minilm` adds vectors later\n"
    assert out.startswith("documents: 1 added\nindex: ")
    header = IndexHeader("mini", "fp", 4, "auto")
    assert rag_index.run(rag_index.Config((str(docs),))) == 0
    assert capsys.readouterr().err == "firsthand: why\n"
    assert rag_index.run(rag_index.Config((str(docs),), json=True)) == 0
    out, err = capsys.readouterr()
    body = json.loads(out)
    assert err == "" and body["note"] == "why" and body["header"] == asdict(header) and body["added"] == ["a"]


def test_the_side_file_is_built_where_it_is_wanted_or_needed() -> None:
    built: list[str] = []

    def build() -> None:
        built.append("built")
        if len(built) == 4:
            raise MissingExtra("faiss", "ann", "searches")

    index: Any = SimpleNamespace(build_ann=build, needs_ann=lambda: needed)
    needed = False
    assert [rag_index._build_ann(index, each) for each in ("no", "auto", "yes")] == ["", "", ""] and len(built) == 1
    needed = True
    assert [rag_index._build_ann(index, each) for each in ("no", "auto")] == ["", ""] and len(built) == 2
    built.append("again")
    said = rag_index._build_ann(index, "auto")
    assert said.startswith("searches are exact and take time with so many chunks: ") and "faiss" in said
    built[:] = ["", "", ""]
    with pytest.raises(MissingExtra):
        rag_index._build_ann(index, "yes")


# -- rag verify, delete, reindex --


def test_an_index_is_verified_and_its_documents_are_removed_by_id(home: Path, cli: Cli) -> None:
    path = write_index(home / "d.index", TEXTS, vectors=False)
    close_corpora()
    assert cli("rag", "verify", str(path)) == (0, f"{path} is sound: 3 documents, 4 chunks\n", "")
    code, _, err = cli("rag", "delete", "b.txt", "mil.md", "--index", str(path))
    assert code == 2 and err == "firsthand: no document 'mil.md' in the index; did you mean 'mill.md'?\n"
    code, _, err = cli("rag", "delete", "z" * 300, "--index", str(path))
    listed = "`firsthand rag status --documents` lists them"
    assert code == 2 and err == f"firsthand: no document '{'z' * 200}' in the index; {listed}\n"
    assert "is sound: 3 documents" in cli("rag", "verify", str(path))[1], "one wrong id: none is removed"
    assert cli("rag", "delete", "b.txt", "c.md", "--index", str(path)) == (0, "removed b.txt\nremoved c.md\n", "")
    assert cli("rag", "verify", str(path)) == (0, f"{path} is sound: 1 document, 2 chunks\n", "")
    code, _, err = cli("rag", "delete", "--index", str(path))
    assert code == 2 and "delete needs a document's id" in err


@pytest.mark.slow
def test_a_folder_without_an_index_is_refused_by_every_command_in_one_sentence(home: Path, cli: Cli) -> None:
    (home / "bare").mkdir()
    told = "firsthand: no index at 'bare': make one with `firsthand rag index DIR`, and give its path\n"
    for line in (
        ("delete", "a.md", "--index", "bare"), ("verify", "bare"), ("reindex", "bare"), ("status", "bare"),
        ("graph", "bare"), ("ask", "q", "--index", "bare"), ("chat", "--index", "bare"),
    ):  # fmt: skip
        assert cli("rag", *line) == (2, "", told), line
    assert not list((home / "bare").iterdir())


def test_the_side_file_of_an_index_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rag_verify, "find_spec", lambda name: None)
    told = rag_verify._told(AnnReport(1, 2, 0.5, 3, 10))
    assert told == "approximate side file: not used, as faiss is not installed; pip install 'firsthand[ann]' adds it"
    asked: list[str] = []
    monkeypatch.setattr(rag_verify, "find_spec", lambda name: asked.append(name) or "here")
    assert rag_verify._told(AnnReport(0, 2, None, 3, 10)) == (
        "approximate side file: not used, as it is of other chunks; `firsthand rag index DIR --ann yes` renews it"
    )
    rows = rag_verify.ANN_ROWS
    assert rag_verify._told(AnnReport(rows - 1000, rows, 0.98765, 256, 10)) == (
        f"approximate side file: {rows - 1000:,} of {rows} chunks, recall@10 0.988 (nearest others of 256 stored vectors)"
    )
    assert rag_verify._told(AnnReport(1, 1, 0.0, 1, 5)) == (
        "approximate side file: 1 of 1 chunk, recall@5 0.000 (nearest others of 1 stored vector); searches are exact below "
        f"{rows:,} chunks and do not use it"
    )
    assert set(asked) == {"faiss"}


def test_faults_of_an_index_are_sentences_and_the_exit_status(
    home: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    from firsthand.retrieval.store.sqlite_index import SqliteIndex

    path = write_index(home / "d.index", TEXTS, vectors=False)
    close_corpora()
    monkeypatch.setattr(SqliteIndex, "verify", lambda self: ["one fault", "another"])
    monkeypatch.setattr(SqliteIndex, "ann_report", lambda self: AnnReport(1, 2, None, 3, 10))
    monkeypatch.setattr(rag_verify, "find_spec", lambda name: None)
    told = "approximate side file: not used, as faiss is not installed; pip install 'firsthand[ann]' adds it\n"
    assert cli("rag", "verify", str(path)) == (1, told, "firsthand: one fault\nfirsthand: another\n")


def test_an_index_is_made_anew_with_what_is_given_and_keeps_the_rest(
    home: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_index(home / "d.index", TEXTS, vectors=False)
    close_corpora()
    with open_index(path) as index:
        assert index.header.chunker == "lines"
    code, out, err = cli("rag", "reindex", str(path), "--chunker", "sentences:size=40:overlap=0")
    assert (code, out) == (0, f"{path} was made anew: 3 documents, 4 chunks\n"), err
    with open_index(path, read_only=True) as index:
        assert index.header.embedder == "" and index.header.chunker.startswith("sentences:")
    asked: list[Any] = []

    async def fresh(wanted: Any, progress: Any) -> Any:
        asked.append((wanted.model, wanted.chunker, wanted.query_prefix, wanted.document_prefix))
        return SimpleNamespace(close=lambda: asked.append("closed"))

    async def reindex(at: Path, prepared: Any, told: Any) -> Any:
        told(1, 2)
        return made

    monkeypatch.setattr(index_settings, "fresh", fresh)
    monkeypatch.setattr(reindexing, "reindex", reindex)
    stored = IndexHeader("mini", "fp", 4, "lines", query_prefix="q: ", document_prefix="d: ")
    other = home / "e.index"
    open_index(other, stored).close()
    made = reindexing.Reindexed(1, 2, 0, 7)
    capsys.readouterr()
    assert rag_reindex.run(rag_reindex.Config(other)) == 0
    assert (
        capsys.readouterr().out
        == f"{other} was made anew: 1 document, 2 chunks; vectors: 0 computed, 7 there already\n"
    )
    made, seen = reindexing.Reindexed(2, 1, 3, 0), []
    bar = nullcontext(lambda completed, total=None, note="": seen.append((completed, total)))
    monkeypatch.setattr(rag_reindex, "progress", lambda *given, **more: bar)
    for config in (
        rag_reindex.Config(other, model="mini", chunker="auto"),
        rag_reindex.Config(other, model="none", query_prefix=""),
        rag_reindex.Config(other, model="e5", document_prefix="p"),
        rag_reindex.Config(other, query_prefix="x", document_prefix="y"),
        rag_reindex.Config(other, query_prefix="", document_prefix=""),
    ):
        rag_reindex.run(config)
    assert "2 documents, 1 chunk; vectors: 3 computed, 0 there already" in capsys.readouterr().out
    assert seen == [(1, 2)] * 5
    assert asked[::2] == [
        ("mini", "lines", "q: ", "d: "), ("mini", "auto", "q: ", "d: "), ("none", "lines", "", None),
        ("e5", "lines", None, "p"), ("mini", "lines", "x", "y"), ("mini", "lines", "", ""),
    ] and asked[1::2] == ["closed"] * 6  # fmt: skip
    asked.clear()
    terms = home / "t.index"
    open_index(terms, IndexHeader("", "", 0, "lines")).close()
    rag_reindex.run(rag_reindex.Config(terms))
    rag_reindex.run(rag_reindex.Config(terms, model="none"))
    assert asked[::2] == [("none", "lines", "", "")] * 2

    def interrupted(work: Any) -> Any:
        work.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(rag_reindex.interruption, "run", interrupted)
    capsys.readouterr()
    assert rag_reindex.run(rag_reindex.Config(other)) == 130
    told = "firsthand: interrupted: the index is as it was, and the same command goes on with the new one\n"
    assert capsys.readouterr() == ("", told)


# -- rag status --


def test_kinds_prefixes_and_embedder_of_an_index_are_listed(home: Path, cli: Cli) -> None:
    path = write_index(home / "k.index", {"a.md": "One.\n", "b.md": "Two.\nThree.\n"}, vectors=False, kind="markdown")
    close_corpora()
    size = path.stat().st_size / 1e6
    assert cli("rag", "status", str(path))[1].splitlines() == [
        "documents  2 (2 markdown)", "chunks     3", f"size       {size:.1f} MB", "model      none: terms alone",
        "chunker    lines",
    ]  # fmt: skip
    header = IndexHeader("mini", "fp9", 384, "auto", query_prefix="query: ", document_prefix="a 'b' ")
    other = home / "p.index"
    open_index(other, header).close()
    assert cli("rag", "status", str(other))[1].splitlines()[3:] == [
        "model      mini, 384 dimensions (fp9)", "chunker    auto", "query prefix 'query: '", "document prefix \"a 'b' \"",
    ]  # fmt: skip
    body = json.loads(cli("rag", "status", str(other), "--json")[1])
    assert (body["documents"], body["chunks"], body["kinds"], body["header"]) == ([], 0, {}, asdict(header))


def test_an_index_is_verified_as_it_lies_and_left_so(docs: Path, cli: Cli) -> None:
    made = write_index(docs.parent / "made.index", TEXTS, vectors=False)
    close_corpora()
    folder = docs.parent / "copied"
    folder.mkdir()
    with open_index(made) as index:  # a writer that was killed leaves its log behind
        index.delete(["c.md"])
        for ending in ("", "-wal"):
            (folder / f"d.index{ending}").write_bytes(Path(f"{made}{ending}").read_bytes())
    before = {name: (folder / name).read_bytes() for name in ("d.index", "d.index-wal")}
    assert before["d.index-wal"]
    for _ in range(2):
        told = f"{folder / 'd.index'} is sound: 2 documents, 3 chunks\n"
        assert cli("rag", "verify", str(folder / "d.index")) == (0, told, "")
        assert {name: (folder / name).read_bytes() for name in before} == before, "neither file is changed"
