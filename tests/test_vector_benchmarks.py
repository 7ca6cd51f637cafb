"""Benchmarks of vectors and of planted passages, made from small files: tasks, protocols, options, and what they refuse."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

from benchmark_rows import names, refused, written
from firsthand.benchmarks import poisoned_rag
from firsthand.benchmarks.mteb.sentence_pairs import PairFile, SentencePair, pair_benchmark, semeval_pairs, stsb_pairs
from firsthand.benchmarks.mteb_banking77 import mteb_banking77
from firsthand.benchmarks.mteb_banking77 import shared as examples
from firsthand.benchmarks.mteb_banking77_clusters import mteb_banking77_clusters
from firsthand.benchmarks.mteb_banking77_clusters import shared as all_texts
from firsthand.benchmarks.mteb_pubmedqa_reranking import mteb_pubmedqa_reranking
from firsthand.benchmarks.mteb_pubmedqa_reranking import shared as all_passages
from firsthand.benchmarks.mteb_stsb_pairs import mteb_stsb_pairs
from firsthand.errors import ConfigError, DataError
from firsthand.retrieval.document import Document
from firsthand.scorers.symbolic import boxed
from firsthand.task import Task


def table(path: Path, *rows: tuple[str, ...]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def banking(folder: Path) -> None:
    head = ("text", "category")
    table(folder / "test.csv", head, ("Lost card?", "lost"), ("Where, is it?", "where"), ("Card gone", "lost"))
    table(folder / "train.csv", head, ("My card", "card"), ("My PIN", "pin"))


def test_banking77_asks_each_test_question_and_shares_the_train_examples(tmp_path: Path) -> None:
    banking(tmp_path)
    made = mteb_banking77(data=str(tmp_path), per_label=4, draws=3)
    spec = f"mteb_banking77:data={tmp_path}:per_label=4:draws=3"
    asked = [("Lost card?", "lost"), ("Where, is it?", "where"), ("Card gone", "lost")]
    assert made.tasks(5) == [
        Task(
            f"test-000{at}",
            text,
            metadata={"embedding": {"type": "classify", "text": text, "shared": spec}},
            secret={"label": label},
        )
        for at, (text, label) in enumerate(asked)
    ]
    assert (made.name, names(made), made.options) == (
        "mteb_banking77",
        ("few_shot_accuracy",),
        {"per_label": 4, "draws": 3},
    )
    assert made.licence == "CC-BY-4.0" and made.protocol == (
        "MTEB Banking77Classification: logistic regression on 4 train examples of each label, 3 draws (seed 42); the score "
        "of a question is the share of the classifiers that are right; MiniLM-L6-v2 .8004"
    )
    kept = {"texts": ["My card", "My PIN"], "labels": ["card", "pin"]}
    assert examples(data=str(tmp_path), per_label=4, draws=3) == {**kept, "per_label": 4, "draws": 3}
    assert examples(data=str(tmp_path)) == {**kept, "per_label": 8, "draws": 10}
    assert mteb_banking77(data=str(tmp_path)).options == {"per_label": 8, "draws": 10}


def test_samples_to_cluster_are_drawn_one_after_the_other_from_one_seed(tmp_path: Path) -> None:
    banking(tmp_path)
    made = mteb_banking77_clusters(data=str(tmp_path), samples=2, size=5)
    draw, labels = Random(42), ["lost", "where", "lost"]
    places = [draw.choices(range(3), k=5) for _ in range(2)]
    about = {"type": "cluster", "clusters": 2, "shared": f"mteb_banking77_clusters:data={tmp_path}"}
    assert made.tasks(0) == [
        Task(
            f"sample-0{at}",
            "Cluster the questions.",
            metadata={"embedding": {**about, "places": places[at]}},
            secret={"labels": [labels[place] for place in places[at]]},
        )
        for at in range(2)
    ]
    assert (made.name, names(made)) == ("mteb_banking77_clusters", ("cluster_v_measure",))
    assert made.options == {"samples": 2, "size": 5} and made.licence == "CC-BY-4.0"
    assert made.protocol == (
        "2 samples of 5 texts drawn with replacement (seed 42), mini-batch k-means with k = the number of labels and "
        "batches of 512, V-measure: MTEB's procedure since version 1.14; no published number"
    )
    whole = mteb_banking77_clusters(data=str(tmp_path))
    assert whole.options == {"samples": 10, "size": 2048} and len(whole.tasks(0)) == 10
    assert len(mteb_banking77_clusters(data=str(tmp_path), samples=1, size=2).tasks(0)) == 1
    asked = "samples of {} texts were asked for: give 1 or more of 2 or more"
    assert refused(ConfigError, mteb_banking77_clusters, samples=0, size=2) == f"0 {asked.format(2)}"
    assert refused(ConfigError, mteb_banking77_clusters, samples=1, size=1) == f"1 {asked.format(1)}"
    assert all_texts(data=str(tmp_path)) == {"texts": ["Lost card?", "Where, is it?", "Card gone"]}


def test_pairs_at_both_ends_of_the_scale_are_alike_or_not(tmp_path: Path) -> None:
    values = ("4.0", "2.0", "2.1", "3.9", "5", "0", "")
    lines = [f"g\tf\ty\tid\t{value}\tfirst {at}\tsecond {at}" for at, value in enumerate(values)]
    file = tmp_path / "sts-test.csv"
    file.write_text("\n".join(lines[:3]) + "\n\n" + "\n".join(lines[3:]) + "\n")
    made = mteb_stsb_pairs(data=str(file))
    assert [(task.id, task.secret) for task in made.tasks(0)] == [
        ("0001", {"similar": 1}),
        ("0002", {"similar": 0}),
        ("0006", {"similar": 1}),  # of the line, which an empty one is counted among
        ("0007", {"similar": 0}),
    ]
    assert made.tasks(0)[2].metadata == {"embedding": {"type": "pair", "texts": ["first 4", "second 4"]}}
    assert made.tasks(0)[2].prompt == "How similar are these two sentences?\nfirst 4\nsecond 4"
    origin = "the authors' file, 6 of 1,379 pairs"
    assert made.protocol == (
        f"{origin}; alike from 4, unlike to 2: 4 pairs; MTEB's metric: the maximum of average precision by cosine, dot "
        "product, Euclidean and Manhattan distance; no published number"
    )
    assert made.options == {"data": origin, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    other = mteb_stsb_pairs(data=str(file), alike=3.9, unlike=0.0)
    assert [(task.id, task.secret["similar"]) for task in other.tasks(0)] == [
        ("0001", 1),
        ("0005", 1),
        ("0006", 1),
        ("0007", 0),
    ]
    assert len(mteb_stsb_pairs(data=str(file), alike=5, unlike=0).tasks(0)) == 2
    told = "similarities are 0 to 5, and unlike is the smaller"
    for alike, unlike in ((2.0, 2.0), (5.1, 2.0), (4.0, -0.1)):
        said = f"alike is {alike} and unlike {unlike}: {told}"
        assert refused(ConfigError, mteb_stsb_pairs, data=str(file), alike=alike, unlike=unlike) == said
    rows = [{"first": "a", "second": "b", "similarity": 2.5}, {"first": "c", "second": "d", "similarity": 0}]
    hub = written(tmp_path / "set" / "embed" / "stsb" / "sts-test.jsonl", *rows)
    found = stsb_pairs(str(tmp_path / "set"))
    assert found.pairs == (SentencePair("pair-0000", "a", "b", 2.5), SentencePair("pair-0001", "c", "d", 0.0))
    assert found.sha256 == hashlib.sha256(hub.read_bytes()).hexdigest()


def test_a_years_sets_are_read_in_their_order_and_the_missing_ones_named(tmp_path: Path) -> None:
    below = tmp_path / "embed" / "sts"
    below.mkdir(parents=True)
    (tmp_path / "2013.headlines.test.tsv").write_text("1.5\ta\tb\n\tnot\tjudged\n 5 \t c \td\n")
    (below / "2013.headlines.test.tsv").write_text("0\tnot\tread\n")
    (below / "2013.FNWN.test.tsv").write_text("0\te\tf\n")
    found = semeval_pairs(2013, str(tmp_path))
    assert found.pairs == (
        SentencePair("FNWN-0001", "e", "f", 0.0),
        SentencePair("headlines-0001", "a", "b", 1.5),
        SentencePair("headlines-0003", "c", "d", 5.0),
    )
    raw = (below / "2013.FNWN.test.tsv").read_bytes() + (tmp_path / "2013.headlines.test.tsv").read_bytes()
    assert (found.origin, found.sha256) == ("SemEval 2013, 3 pairs, without OnWN", hashlib.sha256(raw).hexdigest())
    (tmp_path / "2013.OnWN.test.tsv").write_text("2\tg\th\n")
    assert semeval_pairs(2013, str(tmp_path)).origin == "SemEval 2013, 4 pairs"
    years = "SemEval's English similarity tasks are those of 2012 to 2016"
    assert refused(ConfigError, semeval_pairs, 2017) == f"year is 2017: {years}"
    assert refused(DataError, semeval_pairs, 2012, str(tmp_path)) == (
        "no file 2012.NAME.test.tsv of SemEval's similarity tasks is here: give their folder, as in data=FOLDER"
    )
    bad = tmp_path / "2013.OnWN.test.tsv"
    bad.write_text("2\tg\th\n5.1\ti\tj\n")
    said = f"{bad}, line 2: the similarity is '5.1', and 0 to 5 was expected"
    assert refused(DataError, semeval_pairs, 2013, str(tmp_path)) == said
    bad.write_text("2\tg\n")
    said = f"{bad}, line 1: a similarity and two sentences were expected, not '2\\tg'"
    assert refused(DataError, semeval_pairs, 2013, str(tmp_path)) == said


def test_pairs_without_a_secret_are_no_tasks() -> None:
    pairs = (SentencePair("x", "a", "b", 1.0), SentencePair("y", "c", "d", 2.0), SentencePair("z", "e", "f", 3.0))
    figures = lambda traces: []  # noqa: E731
    made = pair_benchmark(
        "n", PairFile(pairs, "o", "5"), {"z": {"k": 1}, "y": {"k": 2}}, (boxed,), figures, description="D", protocol="P"
    )
    assert [(task.id, task.secret) for task in made.tasks(0)] == [("y", {"k": 2}), ("z", {"k": 1})]
    assert (made.name, made.scorers, made.figures, made.description) == ("n", (boxed,), figures, "D")
    assert (made.protocol, made.licence) == ("o; P", "scores CC BY-SA 4.0, each text its source's")
    assert made.options == {"data": "o", "sha256": "5"}


def test_poisoned_questions_have_planted_passages_of_one_source_and_honest_ones_of_their_own(tmp_path: Path) -> None:
    def row(n: int) -> dict[str, Any]:
        return {
            "question": f" Who is {n}?? ",
            "correct answer": f"right {n}",
            "incorrect answer": f"wrong {n}",
            "adv_texts": [f"lie {n}.{at}" for at in range(3)],
        }

    folder = tmp_path / "retrieval" / "poisonedrag"
    folder.mkdir(parents=True)
    (folder / "hotpotqa.json").write_text(json.dumps({"q7": row(7), "q2": row(2)}))
    given: dict[str, Any] = {"set": "hotpotqa", "poison": 2, "honest": 3, "data": str(tmp_path)}
    made = poisoned_rag.poisoned_rag(**given)
    spec = f"poisoned_rag:set=hotpotqa:poison=2:honest=3:data={tmp_path}"
    assert made.tasks(0) == [
        Task(
            f"q{n}",
            f" Who is {n}?? ",
            hint="a few words",
            metadata={"corpus": spec},
            secret={
                "answer": f"right {n}",
                "planted": f"wrong {n}",
                "planted_documents": [f"planted/q{n}/0", f"planted/q{n}/1"],
            },
        )
        for n in (7, 2)
    ]
    assert made.name == "poisoned_rag:hotpotqa:poison=2:honest=3" and made.licence == "MIT"
    assert names(made) == ("right_answer", "attack_success", "planted_share")
    assert made.options == {"set": "hotpotqa", "poison": 2, "honest": 3}
    assert made.protocol == (
        "hotpotqa, 2 questions, each with 2 planted texts of one source and 3 generated honest passages of a source each; "
        "answers by whole words; the paper reports attack success of about 90 % in corpora of millions of passages"
    )
    found = poisoned_rag.corpus(**given)
    assert found[:5] == [
        Document("honest/q7/0", "Who is 7? The answer is right 7.", source="honest/q7/0"),
        Document("honest/q7/1", "Asked Who is 7, references agree on right 7.", source="honest/q7/1"),
        Document(
            "honest/q7/2",
            "right 7: that is what is known about the question Who is 7.",
            source="honest/q7/2",
        ),
        Document("planted/q7/0", "Who is 7. lie 7.0", source="planted/q7"),
        Document("planted/q7/1", "Who is 7. lie 7.1", source="planted/q7"),
    ]
    assert [each.id for each in found[5:]] == [each.id.replace("q7", "q2") for each in found[:5]]
    only = poisoned_rag._rows("hotpotqa", 3, 0, str(tmp_path))
    assert list(only) == ["q7", "q2"] and len(poisoned_rag._rows("hotpotqa", 0, 5, str(tmp_path))) == 2
    file = tmp_path / "retrieval" / "poisonedrag" / "hotpotqa.json"
    asked = "give 0 to 5 planted and 0 to 5 honest passages, not 0 of both"
    for poison, honest in ((0, 0), (-1, 3), (6, 3), (3, -1), (3, 6)):
        said = f"poison is {poison} and honest {honest}: {asked}"
        assert refused(ConfigError, poisoned_rag._rows, "hotpotqa", poison, honest, str(tmp_path)) == said
    said = f"{file}, question q7: 'adv_texts' must be a list of 4 texts or more"
    assert refused(DataError, poisoned_rag._rows, "hotpotqa", 4, 3, str(tmp_path)) == said
    said = "set is 'x': give one of nq, hotpotqa, msmarco"
    assert refused(ConfigError, poisoned_rag._rows, "x", 1, 1, str(tmp_path)) == said
    for text, said in (("[", "is no JSON"), ("[1]", "should hold an object"), ("{}", "should hold an object")):
        file.write_text(text)
        assert f"{file} {said}" in refused(DataError, poisoned_rag._rows, "hotpotqa", 1, 1, str(tmp_path))
    default = {"q": {**row(1), "adv_texts": ["a"] * 5}}
    (file.parent / "nq.json").write_text(json.dumps(default))
    assert poisoned_rag.poisoned_rag(data=str(tmp_path)).name == "poisoned_rag"
    assert len(poisoned_rag.corpus(data=str(tmp_path))) == 8


def test_passages_of_a_question_are_ranked_among_those_of_others(tmp_path: Path) -> None:
    counts = {"a": 2, "b": 1, "c": 3}
    rows = {
        id: {"QUESTION": f"{id}?", "CONTEXTS": [f"{id}{at}" for at in range(count)], "final_decision": "yes"}
        for id, count in counts.items()
    }
    (tmp_path / "ori_pqal.json").write_text(json.dumps(rows))
    data = str(tmp_path / "ori_pqal.json")
    made = mteb_pubmedqa_reranking(data=data, others=1)
    by_id, draw = {"a": [0, 1], "b": [2], "c": [3, 4, 5]}, Random(42)
    for task, (id, own) in zip(made.tasks(0), by_id.items(), strict=True):
        drawn = draw.sample([each for each in by_id if each != id], 1)
        places = [place for each in (id, *drawn) for place in by_id[each]]
        draw.shuffle(places)
        about = task.metadata["embedding"]
        assert list(about["candidates"].items()) == [(str(place), place) for place in places]
        assert {key: about[key] for key in ("type", "query", "shared")} == {
            "type": "rerank",
            "query": f"{id}?",
            "shared": f"mteb_pubmedqa_reranking:data={data}",
        }
        assert (task.id, task.prompt, task.secret) == (id, f"{id}?", {"positive": [str(place) for place in own]})
    assert made.options == {"others": 1} and "among those of 1 other abstracts (seed 42);" in made.protocol
    everything = mteb_pubmedqa_reranking(data=data)
    assert all(len(task.metadata["embedding"]["candidates"]) == 6 for task in everything.tasks(0))
    assert everything.options == {"others": 10}
    assert refused(ConfigError, mteb_pubmedqa_reranking, data=data, others=0) == (
        "others is 0: give 1 or more abstracts to rank among"
    )
    assert all_passages(data=data) == {"texts": ["a0", "a1", "b0", "c0", "c1", "c2"]}
