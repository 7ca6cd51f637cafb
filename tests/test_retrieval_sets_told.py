"""Judged sets and sentence sets from small files: what they say of themselves, their rows, and what is refused."""

from __future__ import annotations

import gzip
import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark_rows import bodies, facts, refused, said, written
from firsthand.benchmarks import (
    beir,
    cranfield,
    scifact,
)
from firsthand.benchmarks.retrieval_sets import beir_folder, set_folder
from firsthand.benchmarks.retrieval_sets.judged_set import JudgedSet, check_judged, judged
from firsthand.errors import ConfigError, DataError
from firsthand.retrieval.document import Document
from firsthand.scorers.ranking import (
    RANKING_SCORERS,
    ndcg,
    precision_at_10,
    recall_at_5,
    recall_at_10,
    recall_at_100,
    relevances,
)
from firsthand.task import Task
from firsthand.trace import Event, Trace

RANKED = " ".join(scorer.__name__ for scorer in RANKING_SCORERS)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def judged_folder(folder: Path, split: str = "test") -> Path:
    """Three documents, three queries, and judgements of two of them in BEIR's layout."""
    written(
        folder / "corpus.jsonl", {"_id": "d1", "title": "T", "text": "x"}, {"_id": "d2", "text": ""},
        {"_id": "d3", "title": None, "text": "y"},
    )  # fmt: skip
    written(folder / "queries.jsonl", *({"_id": f"q{at}", "text": f"Q{at}?"} for at in (3, 1, 2)))
    put(folder / "qrels" / f"{split}.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td3\t0\nq3\td3\t1\n")
    return folder


def test_claims_are_the_queries_that_have_a_relevant_document(tmp_path: Path) -> None:
    folder = judged_folder(tmp_path / "a:b" / "scifact")
    made = scifact.scifact(data=str(folder.parent))
    origin = "folder scifact, split test"
    assert facts(made) == said(
        "scifact", RANKED,
        "Scientific claims, and the abstracts that are evidence for or against them (Wadden et al., 2020).",
        f"{origin}; 2 queries, 3 judgements; queries without a relevant document, left out: 1; "
        f"BEIR's test split; title and abstract are one passage; nDCG@10 with "
        f"linear "
        "gain, as trec_eval", "abstracts ODC-By 1.0, claims CC BY 4.0", options={"data": origin},
    )  # fmt: skip
    corpus = f"scifact:data={str(folder).replace(':', chr(92) + ':')}"
    assert bodies(made.tasks(0)) == [
        {"id": f"query-{id}", "prompt": f"Q{id[1:]}?", "metadata": {"corpus": corpus}, "secret": {"judgements": marks}}
        for id, marks in (("q3", {"d3": 1}), ("q1", {"d1": 2, "d2": 0}))
    ]
    documents = [
        Document("d1", "x", title="T", source="d1"), Document("d2", "", title="", source="d2"),
        Document("d3", "y", title="", source="d3"),
    ]  # fmt: skip
    assert scifact.corpus(data=str(folder)) == documents
    other = judged_folder(tmp_path / "mine", "dev")
    made = beir.beir(folder=str(other), split="dev")
    assert facts(made) == said(
        "beir:mine", RANKED, "Retrieval of judged documents: mine, in BEIR's layout.",
        "folder mine, split dev; 2 queries, 3 judgements; queries without a relevant document, left out: 1; "
        "title and text of a document are one passage; nDCG@10 "
        "with linear gain, as trec_eval; a document with the query's own id is left out of its rankings unless it is "
        "judged, as BEIR does", "that of the data", options={"data": "folder mine, split dev"},
    )  # fmt: skip
    assert made.tasks(0)[0].metadata == {"corpus": f"beir:folder={other.resolve()}:split=dev"}
    assert beir._spec(Path("/a:b"), "test") == "beir:folder=/a\\:b:split=test"
    assert beir.corpus(folder=str(other), split="dev") == documents
    put(other / "qrels" / "dev.tsv", "q1\td9\t0\nq1\td1\t1\nq3\td8\t1\n")
    told = "folder mine, split dev: document 'd8' is judged for query 'q3' and is not there"
    assert refused(DataError, beir.corpus, folder=str(other), split="dev") == told
    told = "beir was given no folder: write beir:folder=PATH, with corpus.jsonl, queries.jsonl and qrels/"
    assert refused(ConfigError, beir.beir) == refused(ConfigError, beir.corpus) == told


def test_judgements_without_queries_or_texts_are_refused() -> None:
    found = judged({"b": "B", "a": "A", "c": "C"}, {"a": {"x": 0, "y": 1}, "b": {"x": 0}, "c": {"z": 3}}, "o")
    assert found == JudgedSet({"a": "A", "c": "C"}, {"a": {"x": 0, "y": 1}, "c": {"z": 3}}, "o", left_out=1)
    for queries in ({"a": " "}, {}):
        told = "o: query 'a' has judgements and no text"
        assert refused(DataError, judged, queries, {"a": {"x": 1}}, "o") == told
    assert judged({}, {"a": {"x": 0}}, "o").queries == {}
    told = "o has no judged query: are queries and judgements of the same set?"
    assert refused(DataError, check_judged, JudgedSet({}, {}, "o")) == told
    check_judged(found)
    check_judged(found, [Document(id, "") for id in ("y", "z")])
    told = "o: document 'y' is judged for query 'a' and is not there"
    assert refused(DataError, check_judged, found, [Document("z", "")]) == told


def test_a_query_may_be_empty_and_not_without_its_text(tmp_path: Path) -> None:
    path = written(tmp_path / "q.jsonl", {"_id": "q1", "text": ""}, {"_id": "q2", "text": "Q2?"})
    assert [each[1:] for each in beir_folder._json_queries(path)] == [("q1", ""), ("q2", "Q2?")]
    for row in ({"_id": "q1"}, {"_id": "q1", "text": None}, {"_id": "q1", "Text": "Q1?"}):
        path = written(tmp_path / "q.jsonl", {"_id": "q0", "text": ""}, row)
        told = f"{path}, line 2: the field 'text' holds 'None', and text was expected"
        assert refused(DataError, lambda path=path: list(beir_folder._json_queries(path))) == told


def test_rows_of_a_judged_folder_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "q.tsv"
    for text, found in (
        ("query-id\tcorpus-id\tscore\na\tb\t1\n\na\tc\t-1\n", {"a": {"b": 1, "c": -1}}),
        ("query_id\tx\ty\na b\tc d\t2\n", {"a b": {"c d": 2}}),
        ("q 0 d 3\nq 0 e 0\nr 1 d 1", {"q": {"d": 3, "e": 0}, "r": {"d": 1}}),
        (" a \t b \t 4\r\n", {"a": {"b": 4}}),
    ):  # fmt: skip
        put(path, text)
        assert beir_folder.read_judgements(path) == found
    for text, told in (
        ("", f"{path} holds no judgements: is it truncated?"),
        ("query-id\tx\ty\n", f"{path} holds no judgements: is it truncated?"),
        ("a\tb\t1\na\tb\n", f"{path}, line 2: query, document and a whole number were expected, not 'a\\tb'"),
        ("q 0 d 3 x\n", f"{path}, line 1: query, document and a whole number were expected, not 'q 0 d 3 x'"),
        ("q 0 d 3\nq 0 d 3 1", f"{path}, line 2: query, document and a whole number were expected, not 'q 0 d 3 1'"),
        ("a\tb\t1.5\n", f"{path}, line 1: query, document and a whole number were expected, not 'a\\tb\\t1.5'"),
        ("a\tb\t1\nquery-id\tx\ty", f"{path}, line 2: query, document and a whole number were expected, not "
         "'query-id\\tx\\ty'"),
    ):  # fmt: skip
        put(path, text)
        assert refused(DataError, beir_folder.read_judgements, path) == told
    for relevance in (10**9 + 1, -(10**9) - 1, 10**400):
        put(path, f"a\tb\t1000000000\na\tc\t{relevance}\n")
        told = f"{path}, line 2: a relevance of at most 1,000,000,000 was expected: give grades"
        assert refused(DataError, beir_folder.read_judgements, path) == told
    put(path, "7\tWhat is\tit?\r\n 8 \tno\n")
    assert [each[1:] for each in beir_folder._tsv_queries(path)] == [("7", "What is\tit?"), ("8", "no")]
    put(path, "7\ta\n b\n")
    told = f"{path}, line 2: id, a tab and text were expected, not ' b'"
    assert refused(DataError, lambda: list(beir_folder._tsv_queries(path))) == told
    lines = written(tmp_path / "q.jsonl", {"_id": "a", "text": "A"}, {"_id": "b", "text": 3})
    told = f"{lines}, line 2: the field 'text' holds '3', and text was expected"
    assert refused(DataError, lambda: list(beir_folder._json_queries(lines))) == told
    for id in ("", 7, None):
        told = f"w: the field '_id' holds {str(id)!r}, and text was expected"
        assert refused(DataError, beir_folder.id_of, {"_id": id}, "w") == told
    corpus = tmp_path / "corpus.jsonl"
    for rows, told in (
        ([], f"{corpus} holds no documents: is it truncated?"),
        ([{"_id": "a", "text": "x"}, {"_id": "a", "text": "y"}], f"{corpus}, line 2: document 'a' is there twice"),
        ([{"_id": "a", "text": None}], f"{corpus}, line 1: 'title' and 'text' of document 'a' must be text, not "
         "\"{'_id': 'a', 'text': None}\""),
        ([{"_id": "a", "text": "x", "title": 3}], f"{corpus}, line 1: 'title' and 'text' of document 'a' must be text, not "
         "\"{'_id': 'a', 'text': 'x', 'title': 3}\""),
    ):  # fmt: skip
        written(corpus, *rows)
        assert refused(DataError, beir_folder.read_corpus, tmp_path) == told


def test_lines_of_packed_and_plain_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, packed = put(tmp_path / "a.jsonl", '{"a": 1}\r\n \n[2]\n'), tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for file in (path, packed):
        assert list(beir_folder.text_lines(file, 16)) == ['{"a": 1}', " ", "[2]"]
        told = f"{file} is larger than 0 MiB: is it the right file?"
        assert refused(DataError, lambda file=file: list(beir_folder.text_lines(file, 15))) == told
        rows = beir_folder.json_rows(file, 99)
        assert next(rows) == (f"{file}, line 1", {"a": 1})
        assert refused(DataError, next, rows) == f"{file}, line 3: an object was expected, not '[2]'"
    monkeypatch.setattr(beir_folder, "MAX_LINE_BYTES", 1 << 20)
    put(path, "x" * ((1 << 20) - 1) + "\n")
    assert len(next(beir_folder.text_lines(path, 1 << 21))) == (1 << 20) - 1
    put(path, "x" * (1 << 20) + "\n")
    told = f"{path} has a line of more than 1 MiB: is it cut short?"
    assert refused(DataError, lambda: list(beir_folder.text_lines(path, 1 << 21))) == told
    path.write_bytes(b"ab\ncd\xff")
    told = f"{path} is not UTF-8 text (byte 2 of a line)"
    assert refused(DataError, lambda: list(beir_folder.text_lines(path, 99))) == told
    packed.write_bytes(b"no gzip")
    told = refused(DataError, lambda: list(beir_folder.text_lines(packed, 99)))
    assert told.startswith(f"{packed} cannot be read: ")
    told = refused(DataError, beir_folder.existing, tmp_path / "none", "a")
    assert (
        told
        == f"{tmp_path / 'none'} is no folder: give one in BEIR's layout, with corpus.jsonl, queries.jsonl and qrels/"
    )
    assert beir_folder.existing(tmp_path, "z", "a.jsonl.gz", "a.jsonl") == packed
    told = f"{tmp_path} has no z and no y: a folder in BEIR's layout was expected"
    assert refused(DataError, beir_folder.existing, tmp_path, "z", "y") == told


def test_the_folder_of_a_set_is_looked_for_in_order(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = f"nf is not on this machine: unpack its files into {home / 'data' / 'retrieval' / 'nf'}, or give data=FOLDER"
    assert refused(DataError, set_folder.set_folder, "nf") == told
    assert set_folder.PLACES["scifact"] in refused(DataError, set_folder.set_folder, "scifact", str(tmp_path / "none"))
    places = [
        tmp_path / "env" / "retrieval" / "nf", tmp_path / "env" / "nf", home / "data" / "retrieval" / "nf",
        home / "data" / "nf",
    ]  # fmt: skip
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path / "env"))
    for place in reversed(places):
        place.mkdir(parents=True)
        assert set_folder.set_folder("nf") == place
    given = tmp_path / "given"
    for place in (given, given / "retrieval" / "nf", given / "nf"):
        place.mkdir(parents=True)
        assert set_folder.set_folder("nf", str(given)) == place
    assert (
        set_folder.corpus_name("nf", "") == "nf"
        and set_folder.corpus_name("nf", str(given)) == f"nf:data={given / 'nf'}"
    )
    put(given / "b", "")
    assert set_folder.file_in(given, "a", "b") == given / "b"
    assert refused(DataError, set_folder.file_in, given, "a", "c") == f"{given} has no a and no c"


def test_cranfields_queries_are_numbered_by_their_place(tmp_path: Path) -> None:
    put(
        tmp_path / "cran.qry.xml",
        "<top><num>7</num><title>\nwhat  is\nlift</title></top><top><title>drag</title></top>",
    )
    put(tmp_path / "cranqrel.trec.txt", "1 0 2 1\n1 0 1 0\n2 0 1 1\n")
    put(
        tmp_path / "cran.all.1400.xml",
        "<doc><docno>1</docno><title>On\nlift .</title><text>On lift .  It is\nup.</text></doc><doc><docno> 2 </docno>"
        "<title></title><text></text></doc>",
    )
    made = cranfield.cranfield(data=str(tmp_path))
    origin = "Cranfield 1400, 2 queries by their place"
    assert facts(made) == said(
        "cranfield", RANKED, "Questions on aerodynamics, and the abstracts that answer them (Cleverdon, 1967).",
        f"{origin}; 2 queries, 3 judgements; relevance is 1 or 0, as in this edition's judgements; nDCG@10 as "
        f"trec_eval",
        "none stated: a test collection of the 1960s", options={"data": origin},
    )  # fmt: skip
    assert [(task.id, task.prompt, task.secret) for task in made.tasks(0)] == [
        ("query-1", "what is lift", {"judgements": {"2": 1, "1": 0}}), ("query-2", "drag", {"judgements": {"1": 1}}),
    ]  # fmt: skip
    assert made.tasks(0)[0].metadata == {"corpus": f"cranfield:data={tmp_path}"}
    assert cranfield.corpus(data=str(tmp_path)) == [
        Document("1", "It is up.", title="On lift .", source="1"), Document("2", "", title="", source="2"),
    ]  # fmt: skip
    path = put(tmp_path / "cran.qry.xml", "<top><title>drag</title></top>")
    told = f"{path} has 1 queries, and 2 are judged: one file is truncated"
    assert refused(DataError, cranfield.cranfield, data=str(tmp_path)) == told
    for text, counts in (
        ("<doc><docno>x</docno></doc>", (1, 0)),
        ("", (0, 0)),
        ("<doc><docno>1</docno></doc><docno>2", (2, 1)),
    ):
        path = put(tmp_path / "cran.all.1400.xml", text)
        told = f"{path} has {counts[0]} documents, of which {counts[1]} could be read"
        assert refused(DataError, cranfield.corpus, data=str(tmp_path)) == told


def test_a_query_does_not_rank_its_own_document_unless_it_is_judged(tmp_path: Path) -> None:
    texts = ({"_id": id, "text": id} for id in ("q1", "q2", "d1"))
    written(tmp_path / "corpus.jsonl", *texts)
    written(tmp_path / "queries.jsonl", {"_id": "q1", "text": "a"}, {"_id": "q2", "text": "b"})
    put(tmp_path / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\tq2\t1\n")
    first, second = beir.beir(folder=str(tmp_path)).tasks(0)
    assert first.secret == {"judgements": {"d1": 1}, "left_out": ["q1"]} and second.secret == {"judgements": {"q2": 1}}

    def scores(task: Task, *documents: str) -> list[float]:
        event = Event("ranking", 0.0, {"documents": list(documents)})
        made = Trace("1", "b", task.id, {"name": "a"}, 0, 0, "", 0.0, events=(event,))
        return [scorer(task, made).value for scorer in (*RANKING_SCORERS[:4], recall_at_5, ndcg(k=1))]

    assert scores(first, "q1", "d1") == [1.0] * 6 == scores(second, "q2", "d1")
    assert scores(first, "q2", "d1")[0] < 1 and scores(second, "d1", "q2")[0] < 1
    assert scores(first, *(f"x{at}" for at in range(4)), "q1", "d1")[4] == 1.0  # the fifth document of recall_at_5
    crowd = [f"x{at}" for at in range(9)]
    made = Trace("1", "b", "t", {"name": "a"}, 0, 0, "", 0.0, events=(Event("ranking", 0.0, {"documents": [
        *crowd, "q1", "d1"]}),))  # fmt: skip
    assert precision_at_10(first, made).value == 0.1 and recall_at_10(first, made).value == 1.0
    hundred = [f"x{at}" for at in range(99)]
    made = replace(made, events=(Event("ranking", 0.0, {"documents": [*hundred, "q1", "d1"]}),))
    assert recall_at_100(first, made).value == 1.0
    assert scifact.scifact(data=str(judged_folder(tmp_path / "x" / "scifact").parent)).tasks(0)[0].secret == {
        "judgements": {"d3": 1}
    }


def test_relevances_are_grades_and_each_document_has_one() -> None:
    most = 10**9
    assert relevances({"a": most, "b": -most, 3: 2.0}) == {"a": most, "b": -most, "3": 2}
    for beyond in (most + 1, -most - 1, 10**400, 1e300):
        with pytest.raises(ValueError, match="the relevance of 'a' is beyond 1,000,000,000, and judgements are grades"):
            relevances({"a": beyond})
    for twice in ({1: 1, "1": 0}, {"1": 0, 1: 0}):
        with pytest.raises(ValueError, match="document '1' is judged twice, by a number and by text: keep one of them"):
            relevances(twice)
    for odd in (math.inf, math.nan, 0.5, "x", None):
        with pytest.raises(ValueError, match="take whole numbers"):
            relevances({"a": odd})
