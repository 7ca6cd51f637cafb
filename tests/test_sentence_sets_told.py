"""Sentence sets of MTEB from small files: what they say of themselves, their rows, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random

import pytest

from benchmark_rows import bodies, facts, refused, said, written
from firsthand.benchmarks import (
    mteb_banking77,
    mteb_banking77_clusters,
    mteb_sts,
    mteb_stsb,
    mteb_stsb_pairs,
    mteb_summaries,
)
from firsthand.benchmarks.mteb import labelled_texts, sentence_pairs
from firsthand.benchmarks.mteb.sentence_pairs import PairFile, SentencePair
from firsthand.errors import ConfigError, DataError
from firsthand.scorers.ranking import RANKING_SCORERS

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


PAIRS = "{0}\tOne.\tTwo.\n\n\tNo.\tJudgement.\n{1}\t Three. \tFour.\n"


def test_pairs_of_sentences_keep_their_set_and_line(tmp_path: Path) -> None:
    files = [put(tmp_path / f"2013.{name}.test.tsv", PAIRS.format(*marks)) for name, marks in (
        ("OnWN", ("5", "0.5")), ("FNWN", ("2", "3")),
    )]  # fmt: skip
    made = mteb_sts.mteb_sts(year=2013, data=str(tmp_path))
    origin = "SemEval 2013, 4 pairs, without headlines"
    digest = hashlib.sha256(files[1].read_bytes() + files[0].read_bytes()).hexdigest()
    assert facts(made) == said(
        "mteb_sts:year=2013", "cosine_spearman", "SemEval's similarity of sentence pairs, 2013.",
        f"{origin}; MTEB STS13: Spearman's correlation of cosine and mean judgement",
        "scores CC BY-SA 4.0, each text its source's", figures=True, options={"data": origin, "sha256": digest},
    )  # fmt: skip
    assert [(task.id, task.secret["similarity"]) for task in made.tasks(0)] == [
        ("FNWN-0001", 2.0), ("FNWN-0004", 3.0), ("OnWN-0001", 5.0), ("OnWN-0004", 0.5),
    ]  # fmt: skip
    assert bodies(made.tasks(0))[3] == {
        "id": "OnWN-0004", "prompt": "How similar are these two sentences?\nThree.\nFour.",
        "metadata": {"embedding": {"type": "pair", "texts": ["Three.", "Four."]}}, "secret": {"similarity": 0.5},
    }  # fmt: skip
    assert refused(ConfigError, mteb_sts.mteb_sts, year=2011) == (
        "year is 2011: SemEval's English similarity tasks are those of 2012 to 2016"
    )
    told = "no file 2016.NAME.test.tsv of SemEval's similarity tasks is here: give their folder, as in data=FOLDER"
    assert refused(DataError, mteb_sts.mteb_sts, data=str(tmp_path)) == told
    for value in ("5.1", "-0.1", "x", "nan"):
        told = f"p, line 2: the similarity is {value!r}, and 0 to 5 was expected"
        raw = f"0\ta\tb\n{value}\tc\td".encode()
        assert refused(DataError, sentence_pairs._columns, raw, Path("p"), (0, 1, 2)) == told
    told = "p, line 1: a similarity and two sentences were expected, not 'a\\tb'"
    assert refused(DataError, sentence_pairs._columns, b"a\tb", Path("p"), (0, 1, 2)) == told
    assert refused(DataError, sentence_pairs._columns, b"\xff", Path("p"), (0, 1, 2)) == "p is not UTF-8 text (byte 0)"
    assert sentence_pairs._columns(b"x\tF\t4\tS", Path("p"), (2, 1, 3)) == [SentencePair("0001", "F", "S", 4.0)]


def test_a_pair_of_sentences_ends_at_the_end_of_its_line_and_not_at_other_breaks() -> None:
    raw = "1\tOne\x85 more.\tTwo\u2028 more.\r\n5\tA\x0bB\tC\x1cD".encode()
    assert sentence_pairs._columns(raw, Path("p"), (0, 1, 2)) == [
        SentencePair("0001", "One\x85 more.", "Two\u2028 more.", 1.0),
        SentencePair("0002", "A\x0bB", "C\x1cD", 5.0),
    ]


def test_stsbs_pairs_are_similarities_or_alike_and_unlike(tmp_path: Path) -> None:
    marks = (4, 3.99, 2, 2.01, 0, 5)
    text = "".join(f"g\tf\t2012\t{at}\t{mark}\tA{at}\tB{at}\n" for at, mark in enumerate(marks))
    path = put(tmp_path / "sts-test.csv", text)
    found = sentence_pairs.stsb_pairs(str(tmp_path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    pairs = tuple(SentencePair(f"000{at + 1}", f"A{at}", f"B{at}", float(mark)) for at, mark in enumerate(marks))
    assert found == PairFile(pairs, "the authors' file, 6 of 1,379 pairs", digest)
    options, licence = {"data": found.origin, "sha256": digest}, "scores CC BY-SA 4.0, each text its source's"
    made = mteb_stsb.mteb_stsb(data=str(tmp_path))
    assert facts(made) == said(
        "mteb_stsb", "cosine_spearman", "STS Benchmark: similarity of sentence pairs (Cer et al., 2017).",
        f"{found.origin}; MTEB STSBenchmark: Spearman's correlation of cosine and mean judgement; MiniLM-L6-v2 .8203",
        licence, figures=True, options=options,
    )  # fmt: skip
    assert [task.secret for task in made.tasks(0)] == [{"similarity": float(mark)} for mark in marks]
    alike = mteb_stsb_pairs.mteb_stsb_pairs(data=str(tmp_path))
    metric = "MTEB's metric: the maximum of average precision by cosine, dot product, Euclidean and Manhattan distance"
    assert facts(alike) == said(
        "mteb_stsb_pairs", "max_ap", "STS Benchmark's pairs, alike or not.",
        f"{found.origin}; alike from 4, unlike to 2: 4 pairs; {metric}; no published number", licence, figures=True,
        options=options,
    )  # fmt: skip
    assert [(task.id, task.secret) for task in alike.tasks(0)] == [
        ("0001", {"similar": 1}), ("0003", {"similar": 0}), ("0005", {"similar": 0}), ("0006", {"similar": 1}),
    ]  # fmt: skip
    other = mteb_stsb_pairs.mteb_stsb_pairs(data=str(tmp_path), alike=3.99, unlike=2.01)
    assert [task.secret["similar"] for task in other.tasks(0)] == [1, 1, 0, 0, 0, 1]
    for high, low in ((2.0, 2.0), (1.0, 2.0), (5.1, 2.0), (4.0, -0.1)):
        told = f"alike is {high} and unlike {low}: similarities are 0 to 5, and unlike is the smaller"
        assert refused(ConfigError, mteb_stsb_pairs.mteb_stsb_pairs, alike=high, unlike=low) == told
    path.unlink()
    row = {"first": "a", "second": "b", "similarity": 5}
    path = written(tmp_path / "sts-test.jsonl", row)
    assert sentence_pairs.stsb_pairs(str(tmp_path)).pairs == (SentencePair("pair-0000", "a", "b", 5.0),)
    bad = {"first": "a", "second": None}
    told = f"w: texts 'first' and 'second' were expected, not {str(bad)!r}"
    assert refused(DataError, sentence_pairs._from_row, bad, "i", "w") == told


def test_intents_are_classified_and_clustered(tmp_path: Path) -> None:
    put(tmp_path / "train.csv", 'text,category\n"A, b",one\nC,two\n')
    put(tmp_path / "test.csv", "\ufeffcategory,text\nx,Q1\ny,Q2\nx,Q3\n")
    made = mteb_banking77.mteb_banking77(data=str(tmp_path), per_label=3, draws=2)
    assert facts(made) == said(
        "mteb_banking77", "few_shot_accuracy", "Intents of bank customers' questions (Casanueva et al., 2020).",
        "MTEB Banking77Classification: logistic regression on 3 train examples of each label, 2 draws (seed 42); "
        "the score of "
        "a question is the share of the classifiers that are right; MiniLM-L6-v2 .8004", "CC-BY-4.0",
        options={"per_label": 3, "draws": 2},
    )  # fmt: skip
    spec = f"mteb_banking77:data={tmp_path}:per_label=3:draws=2"
    assert bodies(made.tasks(0))[1] == {
        "id": "test-0001", "prompt": "Q2", "metadata": {"embedding": {"type": "classify", "text": "Q2", "shared": spec}},
        "secret": {"label": "y"},
    }  # fmt: skip
    assert mteb_banking77.shared(data=str(tmp_path), per_label=3, draws=2) == {
        "texts": ["A, b", "C"], "labels": ["one", "two"], "per_label": 3, "draws": 2,
    }  # fmt: skip
    made = mteb_banking77_clusters.mteb_banking77_clusters(data=str(tmp_path), samples=2, size=4)
    assert facts(made) == said(
        "mteb_banking77_clusters", "cluster_v_measure", "Clusters of bank customers' questions, against their intents.",
        "2 samples of 4 texts drawn with replacement (seed 42), mini-batch k-means with k = the number of labels "
        "and batches "
        "of 512, V-measure: MTEB's procedure since version 1.14; no published number", "CC-BY-4.0",
        options={"samples": 2, "size": 4},
    )  # fmt: skip
    draw, labels = Random(42), ["x", "y", "x"]
    places = [draw.choices(range(3), k=4) for _ in range(2)]
    shared = f"mteb_banking77_clusters:data={tmp_path}"
    assert bodies(made.tasks(0)) == [
        {
            "id": f"sample-0{at}", "prompt": "Cluster the questions.",
            "metadata": {"embedding": {"type": "cluster", "places": each, "clusters": 2, "shared": shared}},
            "secret": {"labels": [labels[place] for place in each]},
        }
        for at, each in enumerate(places)
    ]  # fmt: skip
    assert mteb_banking77_clusters.shared(data=str(tmp_path)) == {"texts": ["Q1", "Q2", "Q3"]}
    for samples, size in ((0, 2), (1, 1)):
        told = f"{samples} samples of {size} texts were asked for: give 1 or more of 2 or more"
        assert refused(ConfigError, mteb_banking77_clusters.mteb_banking77_clusters, samples=samples, size=size) == told
    path = put(tmp_path / "bad.csv", "text,category\na,b\nc,\n")
    row = {"text": "c", "category": ""}
    told = f"{path}, line 3: a text and a category were expected, not {str(row)!r}"
    assert refused(DataError, labelled_texts.read_labelled, path) == told
    for text, told in (
        ("text,category\n", "holds no rows: is it truncated?"),
        ('a\n"', "is not a CSV file: unexpected end of data"),
    ):
        assert refused(DataError, labelled_texts.read_labelled, put(path, text)) == f"{path} {told}"
    assert refused(DataError, labelled_texts.banking77, "test") == (
        "Banking77 is not on this machine: fetch banking_data of github.com/PolyAI-LDN/task-specific-datasets, "
        "and give its "
        "folder, as in data=FOLDER, with train.csv and test.csv"
    )
    assert labelled_texts.spec_with("n", a="", b=0, c="x:y", d=None) == "n:b=0:c=x\\:y:d=None"


def test_summaries_rated_alike_are_left_out(tmp_path: Path) -> None:
    def rated(*marks: object, machine: object = None) -> dict[str, object]:
        return {
            "human_summaries": ["h"],
            "machine_summaries": machine or [f"m{at}" for at in range(len(marks))],
            "relevance": list(marks),
        }

    path = written(tmp_path / "summeval.jsonl", rated(2, 2.0), rated(1, "3.5"), rated(4, 4, 5))
    made = mteb_summaries.mteb_summaries(data=str(tmp_path))
    origin = "data folder, 3 of 100 items"
    assert facts(made) == said(
        "mteb_summaries", "summary_spearman", "Machine summaries, by their nearness to human ones and by people's ratings.",
        f"{origin}; MTEB SummEval: the largest cosine with a human summary, Spearman with relevance, mean over "
        f"documents; "
        "MiniLM-L6-v2 .3081 on SummEval", "MIT",
        options={"data": origin, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
    )  # fmt: skip
    about = {"type": "summary", "human": ["h"], "machine": ["m0", "m1"]}
    assert bodies(made.tasks(0))[0] == {
        "id": "document-001", "prompt": "Rate the machine summaries.", "metadata": {"embedding": about},
        "secret": {"ratings": [1.0, 3.5]},
    }  # fmt: skip
    assert made.tasks(0)[1].id == "document-002"
    written(path, rated(2, 2))
    told = f"{path} has no document whose summaries are rated differently"
    assert refused(DataError, mteb_summaries.mteb_summaries, data=str(tmp_path)) == told
    lists = "w: lists 'human_summaries' and 'machine_summaries' of texts were expected"
    marks = "w: 'relevance' must be a list with a number for each of two or more machine summaries"
    for row, told in (
        ({**rated(1, 2), "human_summaries": []}, lists), (rated(1, 2, machine=["a", 3]), lists), (rated(1), marks),
        (rated(1, 2, machine=["a", "b", "c"]), marks), (rated(1, 2, 3, machine=["a", "b"]), marks),
        ({**rated(1, 2), "relevance": 2}, marks),
        (rated(1, "x"), "w: 'relevance' has \"[1, 'x']\", and numbers were expected"),
        (rated(1, None), "w: 'relevance' has '[1, None]', and numbers were expected"),
    ):  # fmt: skip
        assert refused(DataError, mteb_summaries._checked, row, "w") == told
