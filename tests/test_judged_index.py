"""Benchmarks of retrieval over an index of the user's own: whose documents it has, and under which ids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from firsthand import Agent, Benchmark, Experiment, Task
from firsthand.benchmarks.beir import beir
from firsthand.cli import main
from firsthand.errors import ConfigError
from firsthand.patterns.self_consistency import self_consistency
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.corpus import close_corpora
from firsthand.retrieval.rag.naive import naive
from firsthand.retrieval.rag.retrieve import retrieve
from firsthand.scorers.contained import contains_words
from firsthand.scorers.ranking import ndcg, ndcg_at_10, ranked_documents
from firsthand.scorers.rankings.retrieved import record_id
from firsthand.trace import Event, Trace

OWL, CAT = {"_id": "owl", "title": "Owl", "text": "Owls hear mice."}, {"_id": "cat", "title": "", "text": "Cats purr."}


def lines(*rows: Mapping[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder in BEIR's layout whose queries 1 and 2 are about owl and cat; queries may be named as documents are."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "birds/qrels").mkdir(parents=True)
    (tmp_path / "birds/corpus.jsonl").write_text(lines(OWL, CAT))
    (tmp_path / "birds/queries.jsonl").write_text(
        lines({"_id": "1", "text": "who hears mice"}, {"_id": "2", "text": "who purrs"})
    )
    (tmp_path / "birds/qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n1\towl\t1\n1\tbat\t0\n2\tcat\t1\n")
    yield tmp_path
    close_corpora()


def indexed(name: str, *sources: str) -> str:
    assert main(["rag", "index", *sources, "--index", name, "--model", "none"]) == 0
    return name


def agent(index: str, pattern: Any = retrieve, **options: Any) -> Agent:
    return Agent("a", Scripted(["Owls hear mice. [1]"] * 9), pattern, {"index": index, **options})


def scored(index: str, pattern: Any = retrieve, **options: Any) -> tuple[list[float], dict[str, str]]:
    experiment = Experiment([agent(index, pattern, **options)], beir(folder="birds"))
    with experiment.run() as run:
        assert not any(trace.error for trace in run.traces())
        values = {trace.task_id: trace.value("ndcg_at_10") or 0.0 for trace in run.traces()}
        return [values[id] for id in sorted(values)], experiment.protocols


@pytest.mark.parametrize("source", ["birds/corpus.jsonl", "birds"])
def test_an_index_of_the_benchmarks_file_is_scored_by_the_ids_of_its_records(birds: Path, source: str) -> None:
    values, protocols = scored(indexed("bi", source), variant="lexical")
    assert values == [1.0, 1.0] and protocols == Experiment([agent("")], beir(folder="birds")).protocols


def test_passages_that_an_answer_cites_are_ranked_as_they_were_retrieved(birds: Path) -> None:
    assert scored(indexed("bi", "birds/corpus.jsonl"), naive, search="lexical")[0] == [1.0, 1.0]


def test_an_index_of_other_documents_is_refused_with_an_id_of_each(birds: Path) -> None:
    (birds / "notes").mkdir()
    (birds / "notes/owl.md").write_text("Owls hear mice.")
    index = indexed("own", "notes")
    for pattern in (retrieve, partial(retrieve, variant="lexical"), partial(naive, search="lexical")):
        experiment = Experiment([agent(index, pattern)], beir(folder="birds"))
        says = r"^the index own has no document that beir:birds judges relevant, such as 'owl'; its ids are like 'owl\.md': "
        with pytest.raises(ConfigError, match=says):
            experiment.check_ready()
    led = Agent("a", Scripted(), self_consistency, {"pattern": partial(retrieve, index="own")})
    with pytest.raises(ConfigError, match=r"its ids are like 'owl\.md'"):
        Experiment([led], beir(folder="birds")).create()
    assert not (birds / "home/runs").exists()
    assert main(["rag", "delete", "owl.md", "--index", "own"]) == 0
    with pytest.raises(ConfigError, match="such as 'owl'; it is empty: "):
        Experiment([agent("own")], beir(folder="birds")).check_ready()


def test_relevant_documents_that_the_index_lacks_are_counted_in_the_protocol(birds: Path) -> None:
    (birds / "owl.jsonl").write_text(lines(OWL, {"_id": "fly", "text": "Flies buzz."}))
    values, protocols = scored(indexed("some", "owl.jsonl"), variant="lexical")
    assert values == [1.0, 0.0]
    plain = beir(folder="birds").protocol
    assert protocols == {"beir:birds": f"{plain}; 1 of 2 relevant documents are not in some"}
    assert Experiment([agent("missing")], beir(folder="birds")).protocols == {"beir:birds": plain}


def test_records_of_two_files_that_may_both_be_the_judged_one_are_refused(birds: Path) -> None:
    (birds / "birds/other.jsonl").write_text(
        lines({"_id": "fly", "text": "Flies buzz."}, {"_id": "cat", "text": "A dog."})
    )
    index = indexed("two", "birds")
    says = "^the index two has 'corpus.jsonl:cat' and 'other.jsonl:cat', and beir:birds judges one of that name: make"
    with pytest.raises(ConfigError, match=says):
        Experiment([agent(index)], beir(folder="birds")).check_ready()


def test_a_benchmark_that_is_not_ranked_by_rankings_may_be_asked_over_any_index(birds: Path) -> None:
    (birds / "owl.md").write_text("Owls hear mice.")
    index = indexed("own", "owl.md")

    def benchmark(*scorers: Any, **secret: Any) -> Benchmark:
        task = Task("t", "who?", secret={"answer": "owl", **secret})
        return Benchmark("b", lambda seed: [task], scorers, "d", "p", "none")

    Experiment([agent(index)], benchmark(contains_words, ndcg_at_10, judgements={"x": 1})).check_ready()
    Experiment([agent(index)], benchmark(ndcg_at_10)).check_ready()
    Experiment([agent(index)], benchmark(ndcg_at_10, judgements={"x": 0})).check_ready()
    for scorer in (ndcg_at_10, ndcg(k=3)):
        with pytest.raises(ConfigError, match="has no document that b judges relevant, such as 'x'"):
            Experiment([agent(index)], benchmark(scorer, judgements={"x": 1})).check_ready()


def test_the_id_of_a_record_is_what_follows_the_name_of_its_file() -> None:
    for document, id in {
        "birds/corpus.jsonl:owl": "owl", "a.NDJSON:1:2": "1:2", "a:b.json:c": "c", "x.json:y.json:z": "y.json:z",
        "owl": "owl", "owl.md": "owl.md", "a:b": "a:b", "a.jsonl:": "a.jsonl:", "a.jsonl": "a.jsonl", "a.csv:1": "a.csv:1",
    }.items():  # fmt: skip
        assert record_id(document) == id, document


def test_a_ranking_is_of_judged_ids_and_a_document_of_that_very_id_keeps_it() -> None:
    def ranked(*documents: str, left_out: tuple[str, ...] = (), **marks: int) -> list[str]:
        told = Event("ranking", 0.0, {"documents": [*documents]})
        trace = Trace("t", "b", "t", {}, 1, 0, "", 0.0, events=(told,))
        return ranked_documents(Task("t", "q", secret={"judgements": marks, "left_out": left_out}), trace)

    assert ranked("c.jsonl:owl", "c.jsonl:cat", owl=1) == ["owl", "c.jsonl:cat"]
    assert ranked("c.jsonl:owl", "c.jsonl:owl", "d.json:owl", owl=0) == ["owl"]
    assert ranked("c.jsonl:owl", **{"c.jsonl:owl": 1, "owl": 1}) == ["c.jsonl:owl"]
    assert ranked("c.jsonl:q1", "c.jsonl:owl", owl=1, left_out=("q1",)) == ["owl"]
