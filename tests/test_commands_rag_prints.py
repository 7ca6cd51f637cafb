"""What `rag status`, `rag graph` and `rag decide` read, print and refuse on small corpora."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from os import truncate
from pathlib import Path

import pytest

from corpus_tiny import write_index
from firsthand.commands import rag_decide
from firsthand.errors import ConfigError, DataError
from firsthand.experiment.rag_decision import ArmResult, FactChange, FactQuestion
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.stats.intervals import Interval
from firsthand.stats.paired import PairedDifference
from printed_tables import widen, words

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    widen(monkeypatch)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


# -- rag --


def test_an_index_says_what_it_holds(tmp_path: Path, cli: Cli) -> None:
    path = write_index(
        tmp_path / "d.index", {"mill.md": "The mill was built in 1871.\n", "b.txt": "River.\n"}, vectors=False
    )
    told = words(cli("rag", "status", str(path), "--documents")[1])
    size = path.stat().st_size
    assert (
        told[0] == f"documents in {path}"
        and told[1] == "id title source"
        and {line.split()[0] for line in told[2:4]} == {"mill.md", "b.txt"}
    )
    assert told[4].startswith("documents 2 (") and told[5:8] == [
        "chunks 2",
        f"size {size / 1e6:.1f} MB",
        "model none: terms alone",
    ]
    body = json.loads(cli("rag", "status", str(path), "--json")[1])
    assert (body["index"], body["bytes"], body["chunks"]) == (str(path), size, 2) and sum(body["kinds"].values()) == 2
    assert sorted(each["id"] for each in body["documents"]) == ["b.txt", "mill.md"] and body["header"]["embedder"] == ""
    assert "id title source" not in words(cli("rag", "status", str(path))[1])
    vectors = write_index(tmp_path / "v.index", {"a.md": "One text.\n"}, vectors=True)
    assert "model words, 64 dimensions (words)" in words(cli("rag", "status", str(vectors))[1])


def test_kinds_are_counted_the_most_frequent_first_and_sizes_are_in_millions_of_bytes(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "k.index"
    index = open_index(path, IndexHeader("", "", 0, "whole", query_prefix="find: ", document_prefix=""))
    for id, kind, text in (("a.csv", "csv", "one"), ("b.md", "md", "two"), ("c.md", "md", "three")):
        document = Document(id, text, f"Title {id}", f"/data/{id}", meta={"kind": kind})
        index.put([IndexedDocument(document, [Chunk(id, 0, len(text), text[:9], meta={"kind": kind})], None)])
    index.close()
    truncate(path, 1_350_000)  # what is behind its pages SQLite leaves alone
    assert words(cli("rag", "status", str(path))[1]) == [
        "documents 3 (2 md, 1 csv)", "chunks 3", "size 1.4 MB", "model none: terms alone", "chunker whole",
        "query prefix 'find: '",
    ]  # fmt: skip
    body = json.loads(cli("rag", "status", str(path), "--json")[1])
    assert body["kinds"] == {"csv": 1, "md": 2} and body["header"]["query_prefix"] == "find: "
    assert {"id": "b.md", "title": "Title b.md", "source": "/data/b.md"} in body["documents"] and len(body) == 7
    assert body["unfinished"] is None


def test_a_graph_of_noun_phrases_is_built_counted_and_checked(tmp_path: Path, cli: Cli) -> None:
    texts = {
        "a.md": "Ada Lovelace met Charles Babbage in London.\n",
        "b.md": "Charles Babbage left London for Turin.\n",
    }
    path = str(write_index(tmp_path / "d.index", texts, vectors=False))
    estimate = json.loads(cli("rag", "graph", path, "--extractor", "noun_phrases", "--estimate", "--json")[1])
    assert estimate["chunks"] == 2
    code, out, _ = cli("rag", "graph", path, "--extractor", "noun_phrases", "--json")
    built = json.loads(out)
    assert code == 0 and (built["extracted"], built["reused"], built["removed"], built["failed"]) == (2, 0, 0, [])
    assert built["entities"] == 2
    told = words(cli("rag", "graph", path, "--extractor", "noun_phrases")[1])
    assert told[0].startswith("chunks: 0 read, 2 unchanged, 0 removed, 0 failed")
    assert (
        told[1] == f"graph: {built['entities']} entities, {built['relations']} relations ({built['orphans']} left out)"
    )
    assert told[2].startswith("communities: ") and told[3].startswith("reports: 0 made, ") and len(told) == 4
    code, out, _ = cli("rag", "graph", path, "--verify")
    assert code == 0 and words(out)[0].endswith("is sound")
    assert words(cli("rag", "graph", path, "--extractor", "noun_phrases", "--rebuild")[1])[0].startswith(
        "chunks: 2 read, 0 unchanged"
    )
    for line, said in (
        ("--max-tokens 0", "max_tokens is 0"),
        ("--concurrency 0", "concurrency 0"),
        ("--rebuild", "extraction needs a model"),
    ):
        code, _, err = cli("rag", "graph", path, *line.split())
        assert code == 2 and said in err


def question(number: int, *documents: str) -> FactQuestion:
    return FactQuestion(f"line-{number:04d}", f"Q{number}?", f"A{number}", documents)


def test_questions_of_a_decision_are_read_with_their_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "Q1?", "answer": "A1", "document": "a.md"}\n\n{"question": "Q3?", "answer": "A3"}\n'
                    '{"question": "Q4?", "answer": "A4", "document": ["a.md", "b.md"]}\n')  # fmt: skip
    assert rag_decide.read_questions(path) == [question(1, "a.md"), question(3), question(4, "a.md", "b.md")]
    path.write_text(
        '{"question": "a\u2028b?", "answer": "c"}\r\n{"question": "Q2?", "answer": "A2"}\r\n', encoding="utf-8"
    )
    assert rag_decide.read_questions(path) == [FactQuestion("line-0001", "a\u2028b?", "c", ()), question(2)]
    good = '{"question": "q", "answer": "a"}\n'
    for text, told in (
        (good, "has 1 question: intervals need two or more"),
        (good + "[]\n", "line 2: a JSON object was expected"),
        (good + '{"question": " ", "answer": "a"}', "line 2: the field 'question' holds ' '"),
        (good + '{"question": "q"}', "'answer' is missing"),
        (good + '{"question": "q", "answer": "a", "document": 3}', "'document' is '3'"),
        (good + '{"question": "q", "answer": "a", "document": null}', "'document' is 'None'"),
        (good + "{", "line 2: a JSON object"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=told):
            rag_decide.read_questions(path)
    path.write_text(good * 2)
    monkeypatch.setattr(rag_decide, "MAX_QUESTIONS_BYTES", len(good) * 2)
    assert [each.id for each in rag_decide.read_questions(path)] == ["line-0001", "line-0002"]
    path.write_text(good * 2 + " ")
    with pytest.raises(DataError, match="is larger than 0 MiB: is it the right file"):
        rag_decide.read_questions(path)
    path.write_bytes(b"abc\xff")
    with pytest.raises(DataError, match=r"is not UTF-8 text \(byte 3\)"):
        rag_decide.read_questions(path)
    with pytest.raises(DataError, match="cannot be read"):
        rag_decide.read_questions(tmp_path / "no")


def test_arms_of_a_decision_and_what_their_updates_cost(capsys: pytest.CaptureFixture[str]) -> None:
    config = rag_decide.Config(Path("d"), Path("q"))
    named, bare = [question(1, "a.md"), question(2, "b.md")], [question(1), question(2)]
    assert rag_decide._arms(config, named) == ["closed book", "RAG", "long context", "oracle context"]
    assert (
        rag_decide._arms(config, bare) == ["closed book", "RAG", "long context"]
        and "there is no oracle" in capsys.readouterr().err
    )
    assert rag_decide._arms(replace(config, arms=("RAG",), lora=True), bare) == [
        "closed book",
        "RAG",
        "LoRA",
        "LoRA + RAG",
    ]
    with pytest.raises(ConfigError, match="some questions name their document and others do not"):
        rag_decide._arms(config, [named[0], bare[1]])
    rag_decide._check_documents(named, {"a.md": "", "b.md": ""})
    with pytest.raises(DataError, match=r"question 'Q2\?' names the document 'b\.md'"):
        rag_decide._check_documents(named, {"a.md": ""})
    assert [
        rag_decide._update(arm, 2.0, 9.0)
        for arm in ("closed book", "RAG", "long context", "oracle context", "LoRA", "LoRA + RAG")
    ] == [
        None,
        2.0,
        0.0,
        0.0,
        9.0,
        2.0,
    ]
    assert rag_decide._with_answer(FactChange(named[0], "a.md", "new")) == FactQuestion(
        "line-0001", "Q1?", "new", ("a.md",)
    )
    assert [replace(config, change=text).changed_share() for text in ("20%", " 0.25 ", "0", "100%")] == [
        0.2,
        0.25,
        0.0,
        1.0,
    ]
    for given, told in (
        ({"change": "x"}, "change is 'x'"),
        ({"change": "101%"}, "change"),
        ({"change": "-1"}, "change"),
        ({"k": 0}, "k is 0"),
        ({"max_chars": 0}, "max_chars"),
        ({"concurrency": 0}, "concurrency"),
        ({"limit": 0}, "limit is 0"),
        ({"train_questions": Path("x")}, "give --lora too"),
    ):
        with pytest.raises(ConfigError, match=told):
            replace(config, **given)


def test_a_decision_is_printed_arm_by_arm(capsys: pytest.CaptureFixture[str]) -> None:
    def interval(value: float) -> Interval:
        return Interval(value, value - 0.125, value + 0.125, 8)

    versus = PairedDifference(0.25, 0.0, 0.5, 0.04, 8, 3, 1, 4, "better", 0.3)
    arms = [
        ArmResult("closed book", interval(0.25), None, 0.5, 0.0, None, interval(0.125), 0.75, None, 12345.6, 99.5, 0.0, 0),
        ArmResult("RAG", interval(0.5), versus, 0.625, 0.25, 0.875, None, None, 1.25, 100.0, 2.0, 3.456, 1),
        ArmResult("none", interval(0.5), None, 0.5, 0.0, 0.0, interval(0.5), 0.0, 0.0, 1.0, 0.0, 0.001, 1),
    ]  # fmt: skip
    rag_decide._print(arms, ["It is so."], {"run": "r1", "changed": 3, "changed_run": "r2"}, 8)
    out = words(capsys.readouterr().out)
    assert out[0] == "arm quality vs. closed book freshness stale update per 1k answers style cited found"
    assert out[1] == "closed book 0.25 [0.12, 0.38] 0.12 [0.00, 0.25] 0.75 train again 12,346 tokens, 100 s 0.50 0.00"
    assert out[2] == "RAG 0.50 [0.38, 0.62] +0.25 [+0.00, +0.50] better 1.2 s 100 tokens, 2 s, $3.46 0.62 0.25 0.88"
    measured = "none 0.50 [0.38, 0.62] 0.50 [0.38, 0.62] 0.00 0.0 s 1 tokens, 0 s, $0.00 0.50 0.00 0.00"
    assert out.pop(3) == measured, "0 is not unmeasured"
    assert (
        out[3] == "It is so." and out[4].startswith("8 questions, 3 facts changed.") and out[-2:] == ["runs r1", "r2"]
    )
