"""Answers of embedding tasks from stated vectors: similarities, rankings, neighbours, few-shot classes, what is shared."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.retrieval.embedding_tasks import shared_vectors
from firsthand.retrieval.embedding_tasks.linear_probes import cluster, fit_classifiers
from firsthand.retrieval.embedding_tasks.shared_vectors import FewShotClassifiers, few_per_label, once, vectors_of
from firsthand.retrieval.rag import embed
from firsthand.task import Task


class Given:
    """An embedder of stated vectors."""

    def __init__(self, vectors: dict[str, list[float]]):
        self.vectors, self.asked = vectors, []  # type: ignore[var-annotated]

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked.append(list(texts))
        return [self.vectors[text] for text in texts]


def test_pairs_and_summaries_are_compared_by_their_vectors():
    model = Given({"a": [3.0, 4.0], "b": [1.0, -2.0], "zero": [0.0, 0.0], "x": [1.0, 0.0], "y": [0.0, 2.0]})
    ctx: Any = SimpleNamespace(note=lambda kind, **data: None)

    def made(step: Any, **about: Any) -> Any:
        return json.loads(asyncio.run(step(about, model, "f", ctx)))

    assert made(embed._pair, texts=["a", "b"]) == pytest.approx(
        {"cosine": -5 / (5 * math.sqrt(5)), "dot": -5.0, "euclidean": -math.sqrt(4 + 36), "manhattan": -8.0}
    )
    assert made(embed._pair, texts=["zero", "b"]) == pytest.approx(
        {"cosine": 0.0, "dot": 0.0, "euclidean": -math.sqrt(5), "manhattan": -3.0}
    )
    assert made(embed._summary, human=["x", "y"], machine=["a", "b", "zero"]) == pytest.approx(
        [0.8, 1 / math.sqrt(5), 0.0]
    )


def test_candidates_are_ranked_by_cosine_with_ties_in_their_order(monkeypatch: pytest.MonkeyPatch):
    texts = ["p", "q", "r", "s"]
    model = Given({"p": [1.0, 1.0], "q": [2.0, 2.0], "r": [5.0, 0.0], "s": [0.0, 1.0], "ask": [1.0, 3.0]})
    monkeypatch.setattr(embed, "shared_data", lambda spec: {"texts": texts} if spec == "set" else {})
    told: list[Any] = []
    ctx: Any = SimpleNamespace(note=lambda kind, **data: told.append((kind, data)))
    about = {"candidates": {"d3": 2, "d2": 1, "d1": 0, "d4": 3}, "shared": "set", "query": "ask"}
    ranked = json.loads(asyncio.run(embed._rerank(about, model, "f", ctx)))
    assert ranked == ["d4", "d2", "d1", "d3"]
    even, low, high = 4 / math.sqrt(20), 1 / math.sqrt(10), 3 / math.sqrt(10)
    assert told[0][0] == "ranking" and told[0][1]["documents"] == ranked
    assert told[0][1]["scores"] == pytest.approx([high, even, even, low])
    nearest = {"shared": "set", "text": "q"}
    assert asyncio.run(embed._nearest(nearest, model, "f2", ctx)) == "0"  # p is as near, and stands before it
    assert asyncio.run(embed._nearest({"shared": "set", "text": "ask"}, model, "f2", ctx)) == "3"


def test_few_examples_of_each_label_are_drawn_from_an_order_that_goes_on():
    labels = ["b", "a", "b", "b", "a", "c", "b"]
    draws = few_per_label(labels, 2, 3, 7)
    order, wanted = list(range(7)), []
    for _ in range(3):
        np.random.RandomState(7).shuffle(order)
        wanted.append([place for at, place in enumerate(order)
                       if [labels[each] for each in order[:at]].count(labels[place]) < 2])  # fmt: skip
    assert draws == wanted and draws[0] != draws[1] and [len(each) for each in draws] == [5, 5, 5]
    assert few_per_label([], 1, 1, 7) == [[]]
    for per_label, count in ((0, 3), (2, 0)):
        with pytest.raises(ConfigError, match=f"{count} draws of {per_label} examples per label were asked for"):
            few_per_label(labels, per_label, count, 7)


def test_each_classifier_gives_the_label_of_its_own_highest_logit():
    weights = np.array([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [[0.0, 2.0], [1.0, 0.0], [0.0, 0.0]]])
    made = FewShotClassifiers(weights, np.array([[0.0, 0.0, 1.5], [0.0, 0.0, 0.0]]), ("x", "y", "z"))
    assert made.predict(np.array([1.0, 2.0])) == ["y", "x"] and made.predict(np.array([1.0, 0.0])) == ["z", "y"]


@pytest.mark.slow
def test_classifiers_of_two_and_of_three_labels_are_those_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    vectors = np.array([[0.0, 1.0], [2.0, 0.5], [1.0, -1.0], [-1.0, -2.0], [0.5, 3.0], [3.0, 3.0]])
    for labels in (["q", "p", "q", "p", "q", "p"], ["q", "p", "r", "p", "q", "r"]):
        chosen = [5, 0, 3, 2]
        made = fit_classifiers(vectors, labels, [[0, 1, 2], chosen], seed=1)
        names = sorted(set(labels))
        model = LogisticRegression(max_iter=100, random_state=1)
        model.fit(vectors[chosen], [names.index(labels[place]) for place in chosen])
        assert made.labels == tuple(names) and made.weights.shape == (2, len(names), 2)
        for row in vectors:
            assert made.predict(row)[1] == names[int(model.predict(row[None])[0])]
        logits = made.weights[1] @ vectors[4] + made.biases[1]
        wanted = model.decision_function(vectors[4:5])[0]
        assert (logits[1] - logits[0] if len(names) == 2 else logits) == pytest.approx(wanted)
    with pytest.raises(DataError, match="the examples have 1 label: a classification needs two or more"):
        fit_classifiers(vectors, ["q"] * 6, [[0, 1]], seed=1)


def test_clusters_are_as_many_as_asked_and_no_more_than_texts():
    vectors = np.array([[0.0, 0.0], [9.0, 9.0], [0.1, 0.0], [9.0, 9.1]])
    a, b, c, d = cluster(vectors, 2, seed=3)
    assert a == c != b == d and len(cluster(vectors, 4, seed=3)) == 4 and cluster(vectors, 1, seed=3) == [0] * 4
    for asked in (0, 5):
        with pytest.raises(DataError, match=f"{asked} clusters of 4 texts were asked for"):
            cluster(vectors, asked, seed=3)


def test_one_result_is_shared_under_a_key_and_a_failure_is_not():
    made: list[str] = []

    async def use() -> list[Any]:
        async def make(name: str) -> str:
            made.append(name)
            await asyncio.sleep(0)
            if name == "bad":
                raise ConfigError("bad")
            return name

        both = await asyncio.gather(once("k", lambda: make("a")), once("k", lambda: make("b")))
        with pytest.raises(ConfigError, match="bad"):
            await once("other", lambda: make("bad"))
        return [*both, await once("other", lambda: make("c")), await once("other", lambda: make("d"))]

    assert asyncio.run(use()) == ["a", "a", "c", "c"] and made == ["a", "bad", "c"]
    model = Given({"a": [1.0, 2.0], "b": [3.0, 4.0], "ab": [5.0, 6.0], "": [7.0, 8.0]})

    async def shared() -> list[Any]:
        asks = [("f", ["a", "b"]), ("f", ["a", "b"]), ("g", ["a", "b"]), ("f", ["b", "a"]), ("f", ["ab", ""])]
        return [(await shared_vectors.shared_vectors(model, *each)).tolist() for each in asks]  # type: ignore[arg-type]

    found = asyncio.run(shared())
    assert found == [[[1, 2], [3, 4]]] * 3 + [[[3, 4], [1, 2]], [[5, 6], [7, 8]]]
    assert model.asked == [["a", "b"], ["a", "b"], ["b", "a"], ["ab", ""]]
    assert asyncio.run(vectors_of(model, ["ab"])).dtype == np.float64  # type: ignore[arg-type]


def test_a_class_is_given_by_each_draw_of_examples_and_only_those_are_embedded(monkeypatch: pytest.MonkeyPatch):
    texts, labels = ["t0", "t1", "t2", "t3", "t4", "t5"], ["q", "p", "q", "p", "q", "p"]
    rows = {text: [float(n), float(n % 3) - 1] for n, text in enumerate(texts)}
    shared = {"texts": texts, "labels": labels, "per_label": "1", "draws": 2}
    for name in ("one", "two"):
        monkeypatch.setitem(
            shared_vectors._tables, name, shared | {"labels": labels if name == "one" else labels[::-1]}
        )
    model = Given({**rows, "new": [2.6, 0.4]})

    async def asked(*abouts: tuple[str, str]) -> list[Any]:
        return [
            json.loads(await embed._classify({"shared": name, "text": "new"}, model, print, None))  # type: ignore[arg-type]
            for name, print in abouts
        ]

    found = asyncio.run(asked(("one", "f"), ("one", "f"), ("two", "f"), ("one", "g")))

    def expected(labels: list[str]) -> list[str]:
        draws = few_per_label(labels, 1, 2, 42)
        vectors = np.array([rows[text] for text in texts])
        return fit_classifiers(vectors, labels, draws, seed=42).predict(np.array([2.6, 0.4]))

    one, two = expected(labels), expected(labels[::-1])
    assert found == [one, one, two, one] and one != two

    def used(labels: list[str]) -> list[str]:
        places = {place for draw in few_per_label(labels, 1, 2, 42) for place in draw}
        return [texts[place] for place in sorted(places)]

    fits = [each for each in model.asked if each != ["new"]]
    assert fits == [used(labels), used(labels[::-1]), used(labels)] and len(fits[0]) < 6


def test_a_sample_is_clustered_with_its_repeats(monkeypatch: pytest.MonkeyPatch):
    rows = {"a": [0.0, 0.0], "b": [9.0, 9.0], "c": [0.1, 0.0], "d": [9.0, 9.1]}
    monkeypatch.setitem(shared_vectors._tables, "set", {"texts": list(rows)})
    about = {"shared": "set", "places": [1, 0, 0, 3, 2], "clusters": "2"}
    found = json.loads(asyncio.run(embed._cluster(about, Given(rows), "f", None)))  # type: ignore[arg-type]
    assert found == cluster(np.array([rows[name] for name in "baadc"]), 2, seed=42)
    assert found[0] == found[3] != found[1] == found[2] == found[4]


def test_what_tasks_share_is_read_once_for_each_text_of_options(monkeypatch: pytest.MonkeyPatch):
    read: list[Any] = []

    def shared(*, size: int = 3) -> Any:
        read.append(size)
        return {"texts": [str(size)]}

    found = SimpleNamespace(module_attribute=lambda *asked: read.append(asked) or shared)
    monkeypatch.setattr(shared_vectors, "catalog", found)
    monkeypatch.setattr(shared_vectors, "_tables", {})
    made = [shared_vectors.shared_data(spec) for spec in ("set:size=5", "set:size=5", "set")]
    assert made == [{"texts": ["5"]}, {"texts": ["5"]}, {"texts": ["3"]}] and made[0] is made[1]
    asked = ("benchmark", "set", "shared")
    assert read == [asked, 5, asked, 3]


def test_an_embedding_task_is_answered_by_its_type_and_others_are_refused(monkeypatch: pytest.MonkeyPatch):
    model = Given({"a": [3.0, 4.0], "b": [0.0, 2.0], "c": [1.0, 0.0]})
    model.fingerprint = "f"  # type: ignore[attr-defined]
    monkeypatch.setitem(shared_vectors._tables, "set", {"texts": ["c", "b"]})

    def answered(about: Any, given: Any = model) -> str:
        ctx: Any = SimpleNamespace(
            attempt=SimpleNamespace(agent=SimpleNamespace(model=given, name="words")), note=lambda *_, **data: None
        )
        return asyncio.run(embed.embed(Task("t7", "?", metadata={"embedding": about}), ctx))

    assert json.loads(answered({"type": "pair", "texts": ["a", "b"]}))["dot"] == 8.0
    assert answered({"type": "nearest", "shared": "set", "text": "a"}) == "1"
    assert json.loads(answered({"type": "rerank", "shared": "set", "query": "a", "candidates": {"x": 0, "y": 1}})) == [
        "y",
        "x",
    ]
    assert json.loads(answered({"type": "summary", "human": ["b"], "machine": ["a"]})) == [pytest.approx(0.8)]
    assert json.loads(answered({"type": "cluster", "shared": "set", "places": [0], "clusters": 1})) == [0]
    kinds = "pair, rerank, nearest, classify, cluster, summary"
    with pytest.raises(ConfigError, match=f"^task t7 has the embedding type 'x': one of {kinds}$"):
        answered({"type": "x"})
    with pytest.raises(ConfigError, match=r"^task t7 has the embedding type None: one of"):
        answered({})
    with pytest.raises(ConfigError, match=r"^words answers in words: give an embedder, as in --model embedder:minilm$"):
        answered({"type": "pair", "texts": ["a", "b"]}, SimpleNamespace())
    with pytest.raises(
        ConfigError, match=r"^task t8 is no embedding task: give embed a benchmark such as mteb_stsb, and"
    ):
        embed._check_task(Task("t8", "?"))
