"""Judged sets as benchmarks: BEIR's layout, Cranfield's numbers, PubMedQA, and runs of the pattern `retrieve` on them."""

import asyncio
import gzip
import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from embedder_tiny import write_embedder
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmarks.cranfield import corpus
from firsthand.benchmarks.retrieval_sets.beir_folder import read_corpus
from firsthand.errors import ConfigError, DataError
from firsthand.experiment.experiment import Experiment
from firsthand.providers.scripted import Scripted
from firsthand.retrieval import benchmark_corpus
from firsthand.retrieval.corpus import close_corpora
from firsthand.retrieval.document import Document
from firsthand.retrieval.rag.retrieve import retrieve
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.rollout import rollout
from firsthand.system import lock
from firsthand.task import Task

DATA = os.environ.get("FIRSTHAND_DATA")
CORPUS = [
    {"_id": "cats", "title": "Cats", "text": "the cat sat on the mat"},
    {"_id": "dogs", "title": "Dogs", "text": "the dog ran on the log"},
    {"_id": "birds", "title": "", "text": "a blue bird was red"},
]
QUERIES = [
    {"_id": "1", "text": "cat mat"},
    {"_id": "2", "text": "dog log"},
    {"_id": "3", "text": "not judged"},
    {"_id": "4", "text": "judged, nothing relevant"},
]
QRELS = "query-id\tcorpus-id\tscore\n1\tcats\t1\n1\tdogs\t0\n2\tdogs\t2\n4\tcats\t0\n"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    benchmark_corpus._ready.clear()
    yield
    close_corpora()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "tiny: set"  # a colon in a path is part of it
    (made / "qrels").mkdir(parents=True)
    (made / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CORPUS))
    (made / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUERIES))
    (made / "qrels" / "test.tsv").write_text(QRELS)
    return made


def beir(folder):
    escaped = str(folder).replace(":", "\\:")
    return catalog.benchmark(f"beir:folder={escaped}")


def test_a_folder_in_beirs_layout_is_a_benchmark_of_its_judged_queries(folder):
    made = beir(folder)
    tasks = made.tasks(0)
    assert [task.prompt for task in tasks] == ["cat mat", "dog log"]
    assert tasks[0].secret["judgements"] == {"cats": 1, "dogs": 0}
    assert tasks[0].public().secret == {}, "an agent does not see what is relevant"
    assert "2 queries, 3 judgements" in made.protocol


def test_the_corpus_that_tasks_name_is_found_again(folder):
    spec = beir(folder).tasks(0)[0].metadata["corpus"]
    documents = benchmark_corpus.corpus_documents(spec)
    assert [(each.id, each.title) for each in documents] == [("cats", "Cats"), ("dogs", "Dogs"), ("birds", "")]


def test_trec_judgements_and_packed_corpora_are_read_too(folder, tmp_path):
    plain = beir(folder).tasks(0)
    other = tmp_path / "other"
    other.mkdir()
    with gzip.open(other / "corpus.jsonl.gz", "wt") as file:
        file.write((folder / "corpus.jsonl").read_text())
    (other / "queries.test.tsv").write_text("".join(f"{row['_id']}\t{row['text']}\n" for row in QUERIES))
    (other / "qrels.test.trec").write_text("1 0 cats 1\n1 0 dogs 0\n2 0 dogs 2\n4 0 cats 0\n")
    found = beir(other).tasks(0)
    assert [(each.id, each.secret) for each in found] == [(each.id, each.secret) for each in plain]
    assert len(benchmark_corpus.corpus_documents(found[0].metadata["corpus"])) == 3


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "corpus.jsonl",
            '{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n',
            "line 2: document 'a' is there twice",
        ),
        ("corpus.jsonl", '{"_id": 3, "text": "x"}\n', "'_id' holds '3'"),
        ("corpus.jsonl", "{\n", "line 1 is no JSON"),
        ("corpus.jsonl", "", "no documents"),
        ("corpus.jsonl", '{"_id": "cats", "text": "x"}\n', "'dogs' is judged for query '2' and is not there"),
        ("queries.jsonl", '{"_id": "1", "text": "x"}\n', "query '2' has judgements and no text"),
        ("qrels/test.tsv", "1\tcats\tyes\n", "line 1: query, document and a whole number"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n", "no judgements"),
        ("qrels/test.tsv", "1\tcats\t0\n", "no judged query"),
    ],
)
def test_malformed_files_are_named_with_their_line(folder, file, text, message):
    (folder / file).write_text(text)
    escaped = str(folder).replace(":", "\\:")
    with pytest.raises(DataError, match=message):
        beir(folder)
        benchmark_corpus.corpus_documents(f"beir:folder={escaped}")


def test_a_missing_folder_and_a_missing_file_say_what_was_expected(folder):
    with pytest.raises(ConfigError, match="beir:folder=PATH"):
        catalog.benchmark("beir")
    (folder / "queries.jsonl").unlink()
    with pytest.raises(DataError, match=r"no queries.jsonl and no queries.jsonl.gz"):
        beir(folder)


def test_lexical_retrieval_of_a_benchmark_is_scored_resumed_and_compared(folder):
    made = beir(folder)
    agents = [Agent(name, Scripted(), retrieve, {"variant": "lexical", "k": k}) for name, k in (("one", 1), ("two", 2))]
    with Experiment(agents, made).run() as run:
        values = {trace.agent_name: trace.value("ndcg_at_10") for trace in run.traces()}
        kept = [call for trace in run.traces(agent="two") for call in trace.calls]
    assert values == {"one": 1.0, "two": 1.0}
    assert [call.detail["name"] for call in kept] == ["retrieve"] * 2
    assert all(not item["text"] for call in kept for item in call.detail["items"]), "the journal holds no texts"


def titled(folder, *titles):
    rows = [
        {"_id": id, "title": title, "text": "they hunt"} for id, title in zip(("cats", "dogs"), titles, strict=True)
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_index_follows_the_titles_of_the_corpus_in_one_process_and_in_the_next(folder):
    def first():
        agent = Agent("r", Scripted(), retrieve, {"variant": "lexical", "k": 1})
        trace = asyncio.run(rollout(agent, beir(folder).tasks(0)[0]))
        assert trace.error is None
        return trace.answer

    titled(folder, "cat mat", "owl log")
    assert first() == "cats"
    titled(folder, "owl log", "cat mat")
    assert first() == "dogs"
    benchmark_corpus._ready.clear()
    titled(folder, "cat mat", "owl log")
    assert first() == "cats"


def test_an_index_is_brought_to_what_documents_hold_besides_their_text(tmp_path):
    path, first = tmp_path / "made.sqlite", Document("a", "the cat", "A", "x", {"n": 1})
    for document in (first, replace(first, title="B"), replace(first, source="y"), replace(first, meta={"n": 2})):
        asyncio.run(benchmark_corpus.build_index(path, [document], embedder=""))
        with closing(open_index(path, read_only=True)) as index:
            assert index.document("a") == document


def test_the_corpus_is_read_again_when_its_file_is_another(folder, monkeypatch):
    reads, path = [], folder / "corpus.jsonl"
    spec = beir(folder).tasks(0)[0].metadata["corpus"]
    documents = benchmark_corpus.corpus_documents
    monkeypatch.setattr(benchmark_corpus, "corpus_documents", lambda given: reads.append(given) or documents(given))
    for _ in range(2):
        asyncio.run(benchmark_corpus.corpus_index(spec, embedder=""))
    assert len(reads) == 1
    os.utime(path, ns=(1, 1))
    asyncio.run(benchmark_corpus.corpus_index(spec, embedder=""))
    other = folder / "other"
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(1, 1))
    other.replace(path)
    asyncio.run(benchmark_corpus.corpus_index(spec, embedder=""))
    assert len(reads) == 3


def test_the_files_of_a_corpus_are_those_that_it_is_read_from(folder, tmp_path):
    for name in ("cran.all.1400.xml", "ori_pqal.json", "nq.json", "page.md"):
        (tmp_path / name).write_text("")
    for spec, name in (
        ("cranfield:data=", "cran.all.1400.xml"), ("pubmedqa@closed:data=", "ori_pqal.json"),
        ("poisoned_rag:poison=1:data=", "nq.json"), ("reading_questions:docs=", "page.md"),
    ):  # fmt: skip
        stamp = benchmark_corpus.corpus_stamp(spec + str(tmp_path))
        assert str(tmp_path / name) in [path for path, *_ in stamp], spec
        if not spec.startswith("reading"):
            assert len(stamp) == 1
    assert benchmark_corpus.corpus_stamp(f"scifact:data={folder}".replace("tiny: ", "tiny\\: "))[0][0].endswith(
        "corpus.jsonl"
    )
    assert benchmark_corpus.corpus_stamp("gsm8k") == (), "it has no corpus"


def test_an_index_that_another_process_makes_is_waited_for(folder, monkeypatch):
    monkeypatch.setattr(benchmark_corpus, "WAIT_S", 0.01)
    spec = beir(folder).tasks(0)[0].metadata["corpus"]
    path = benchmark_corpus.corpus_path(spec, "")
    path.parent.mkdir(parents=True)

    async def both():
        with lock.taken(path.with_name(f"{path.name}.making"), AssertionError):
            waiting = asyncio.create_task(benchmark_corpus.corpus_index(spec, embedder=""))
            await asyncio.sleep(0.1)
            assert not waiting.done() and not path.exists()
        return await asyncio.wait_for(waiting, 20)

    assert asyncio.run(both()) == path and path.is_file()


def test_the_index_is_made_once_and_follows_the_corpus(tmp_path):
    path = tmp_path / "made.sqlite"
    first = [Document("a", "the cat"), Document("b", "the dog")]
    asyncio.run(benchmark_corpus.build_index(path, first, embedder=""))
    asyncio.run(benchmark_corpus.build_index(path, [Document("b", "the dog"), Document("c", "a log")], embedder=""))
    index = open_index(path)
    assert sorted(index.hashes()) == ["b", "c"]
    assert index.verify() == []
    index.close()


@pytest.mark.slow
def test_dense_and_hybrid_retrieval_use_the_embedder_that_is_named(folder, tmp_path):
    model = write_embedder(tmp_path / "model")
    task = beir(folder).tasks(0)[0]
    for variant in ("dense", "hybrid"):
        agent = Agent(variant, Scripted(), retrieve, {"variant": variant, "embedder": str(model), "k": 2})
        made = asyncio.run(rollout(agent, task))
        assert made.error is None
        assert len(made.answer.splitlines()) == 2


def test_retrieve_refuses_what_it_cannot_do():
    with pytest.raises(ConfigError, match="variant is 'best'"):
        Agent("a", Scripted(), retrieve, {"variant": "best"})
    with pytest.raises(ConfigError, match="k is 0"):
        Agent("a", Scripted(), retrieve, {"k": 0})
    made = asyncio.run(rollout(Agent("a", Scripted(), retrieve), Task("t", "q")))
    assert "names no corpus" in made.error.message


CRANFIELD = {
    "cran.all.1400.xml": "".join(
        f"<doc>\n<docno>{n}</docno>\n<title>{title}</title>\n<author></author>\n<text>{title}\n{text}</text>\n</doc>\n"
        for n, title, text in ((1, "wings", "a wing in\na slipstream"), (2, "heat", ""))
    ),
    "cran.qry.xml": "<xml>\n<top>\n<num> 1</num>\n<title>\nwhat of\nwings .\n</title>\n</top>\n"
    "<top>\n<num> 4</num>\n<title>\nwhat of heat .\n</title>\n</top>\n</xml>",
    "cranqrel.trec.txt": "1 0 1 1\n2 0 2 1\n2 0 1 0\n",
}


def test_cranfields_judgements_count_queries_by_their_place(tmp_path):
    for name, text in CRANFIELD.items():
        (tmp_path / name).write_text(text)
    tasks = catalog.benchmark(f"cranfield:data={tmp_path}").tasks(0)
    assert [(task.prompt, task.secret["judgements"]) for task in tasks] == [
        ("what of wings .", {"1": 1}),
        ("what of heat .", {"2": 1, "1": 0}),
    ]
    documents = benchmark_corpus.corpus_documents(tasks[0].metadata["corpus"])
    assert [(each.id, each.title, each.text) for each in documents] == [
        ("1", "wings", "a wing in a slipstream"),
        ("2", "heat", ""),
    ]
    (tmp_path / "cranqrel.trec.txt").write_text("1 0 1 1\n")
    with pytest.raises(DataError, match="2 queries, and 1 are judged"):
        catalog.benchmark(f"cranfield:data={tmp_path}")


def test_pubmedqa_asks_with_the_gold_context_or_without(tmp_path):
    rows = {
        "7": {
            "QUESTION": "Is it so?",
            "CONTEXTS": ["One.", "Two."],
            "LONG_ANSWER": "Yes, it is.",
            "final_decision": "yes",
        }
    }
    (tmp_path / "ori_pqal.json").write_text(json.dumps(rows))
    (gold,) = catalog.benchmark(f"pubmedqa:data={tmp_path}").tasks(0)
    (closed,) = catalog.benchmark(f"pubmedqa@closed:data={tmp_path}").tasks(0)
    assert gold.context == "One.\nTwo.\n\nQuestion: Is it so?\nAnswer:"
    assert "One." not in closed.context
    assert gold.secret["gold"] == 0 and gold.secret["reference"] == "Yes, it is."
    assert benchmark_corpus.corpus_documents(closed.metadata["corpus"])[0].text == "One.\nTwo."
    rows["7"]["final_decision"] = "perhaps"
    (tmp_path / "ori_pqal.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match="'perhaps'"):
        catalog.benchmark(f"pubmedqa:data={tmp_path}")


@pytest.mark.slow
@pytest.mark.skipif(not DATA or not (Path(DATA) / "retrieval/scifact").is_dir(), reason="needs FIRSTHAND_DATA")
def test_bm25_on_scifact_reaches_anserinis_figure(monkeypatch):
    made = catalog.benchmark("scifact")
    assert (len(made.tasks(0)), sum(len(task.secret["judgements"]) for task in made.tasks(0))) == (300, 339)
    agent = Agent("bm25", Scripted(), retrieve, {"variant": "lexical"})
    with Experiment([agent], made).run() as run:
        values = [trace.value("ndcg_at_10") for trace in run.traces()]
    assert sum(values) / 300 == pytest.approx(0.6789, abs=0.01)


@pytest.mark.slow
def test_a_packed_line_without_end_is_refused(tmp_path):
    with gzip.open(tmp_path / "corpus.jsonl.gz", "wb", compresslevel=1) as file:
        for _ in range(65):
            file.write(b" " * 2**20)
    with pytest.raises(DataError, match="has a line of more than 64 MiB"):
        read_corpus(tmp_path)


def test_parts_of_cranfield_are_read_in_their_order_and_open_ones_are_told(tmp_path):
    document = (
        "<doc><docno>\n{}\n</docno><title>wing  {}</title><author>x</author><text>wing {} at speed</text></doc>\n"
    )
    file = tmp_path / "cran.all.1400.xml"
    file.write_text(document.format(1, 1, 1) + document.format(2, 2, 2))
    first, second = corpus(data=str(tmp_path))
    assert (first.id, first.title, first.text, second.id) == ("1", "wing 1", "at speed", "2")
    for open_end in ("<doc><docno>3</docno><title>", "<doc><docno>3</docno><title>" * 20_000):
        file.write_text(document.format(1, 1, 1) + open_end)
        with pytest.raises(DataError, match="documents, of which 1 could be read"):
            corpus(data=str(tmp_path))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("qrels/test.tsv", "1\tcats\t1\n1\tdogs\t1\n1\tcats\t0\n", "line 3: document 'cats' is judged twice for query '1'"),
        ("qrels/test.tsv", "1\t\t1\n", "line 1: query, document and a whole number were expected"),
        ("qrels/test.tsv", "\tcats\t1\n", "line 1: query, document and a whole number were expected"),
        ("qrels/test.tsv", "1\tcats\t1\t2\t3\n", "line 1: query, document and a whole number were expected"),
        ("qrels/test.tsv", "1\tcats\n", "line 1: query, document and a whole number were expected"),
        ("queries.jsonl", json.dumps(QUERIES[0]) + "\n" + json.dumps(QUERIES[0]) + "\n", "line 2: query '1' is there twice"),
    ],
)  # fmt: skip
def test_what_is_judged_or_asked_twice_is_named_with_its_line(folder, file, text, message):
    (folder / file).write_text(text)
    with pytest.raises(DataError, match=message):
        beir(folder)


def test_queries_that_are_judged_and_have_no_relevant_document_are_counted_in_the_protocol(folder):
    assert "2 queries, 3 judgements; queries without a relevant document, left out: 1; " in beir(folder).protocol
    (folder / "qrels" / "test.tsv").write_text("1\tcats\t1\n")
    assert "; left out: " not in beir(folder).protocol
