"""Monitors, probes and steering vectors are fitted to the texts, splits and seeds that they are given."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine_tiny import tiny_model
from firsthand.errors import ConfigError, DataError
from firsthand.interp import opened_model
from firsthand.interp.activations import read_activations, run_with_edits
from firsthand.interp.answer_pairs import read_pairs
from firsthand.interp.circuits.causal_scrubbing import scrub_induction
from firsthand.interp.circuits.induction_heads import repetition_gain
from firsthand.interp.monitor_fitting import fit_monitor, mean_activation, text_scores, threshold_at
from firsthand.interp.opened_model import open_for_interp, shape_of
from firsthand.interp.saes.sae_evaluation import measure_sae
from firsthand.interp.saes.sae_files import SavedSae
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.interp.selective_probes import LinearProbe, ProbeStudy, fit_probe, probe_study
from firsthand.interp.separation import separation
from firsthand.interp.steering import (
    Answered,
    Pair,
    adding,
    contrast_vector,
    steering_study,
    steering_vector,
)
from firsthand.loop.concurrency import derive_seed
from firsthand.nn.activation_monitor import ActivationMonitor
from firsthand.stats.intervals import mean_interval, unbounded_mean_interval
from firsthand.tokens import pretrained
from tiny import write_model

torch.set_num_threads(1)
SITE = "blocks.0.resid.post"


def texts_of(count: int, seed: int, *, least: int = 1, most: int = 7) -> list[list[int]]:
    rng = Random(seed)
    return [[rng.randrange(96) for _ in range(rng.randint(least, most))] for _ in range(count)]


# -- monitors and probes --


@pytest.mark.slow
def test_a_monitor_is_fitted_to_some_texts_set_by_others_and_judged_by_the_rest() -> None:
    held_out, cuts = 0.12, (4, 6)  # of 21 texts a share of .12 would be 3
    model, seed = tiny_model(), 6
    drawn = (list(dict.fromkeys(map(tuple, texts_of(200, seed)))) for seed in (1, 2))
    positive, negative = ([list(text) for text in texts][:most] for texts, most in zip(drawn, (21, 50), strict=True))
    found = fit_monitor(
        model, positive, negative, "blocks.1.hook_resid_pre", name="a", false_alarms=0.4, held_out=held_out, seed=seed
    )
    rows: list[Tensor] = []
    labels: list[bool] = []
    last: list[int] = []
    tests: list[list[list[int]]] = []
    for kind, texts, cut in (("positive", positive, cuts[0]), ("negative", negative, cuts[1])):
        order = list(range(len(texts)))
        Random(derive_seed("monitor split", seed, kind)).shuffle(order)
        tests.append([texts[place] for place in order[:cut]])
        for place in order[cut:]:
            text = texts[place]
            values = read_activations(model, text, SITE)[SITE]
            rows.append(values[1:].mean(0) if len(text) > 1 else values[0])
            labels.append(kind == "positive")
            last.append(text[-2] if len(text) > 1 else text[0])
    x = torch.stack(rows)
    probe, study = fit_probe(x, labels), probe_study(x, labels, last, seed=seed)
    torch.testing.assert_close(found.monitor.direction, probe.direction)
    assert (found.monitor.site, found.monitor.name, found.monitor.bias) == (SITE, "a", pytest.approx(probe.bias))
    assert (found.study.accuracy, found.study.control, found.study.shuffled, found.study.majority) == (
        study.accuracy, study.control, study.shuffled, study.majority,
    )  # fmt: skip
    above, below = (text_scores(model, found.monitor, texts) for texts in tests)
    half = cuts[1] // 2
    threshold = threshold_at(below[:half], 0.4)
    assert threshold == math.nextafter(sorted(below[:half], reverse=True)[1], math.inf)
    alarms = [float(score >= threshold) for score in below[half:]]
    assert (found.monitor.threshold, found.monitor.false_alarms) == (threshold, sum(alarms) / len(alarms))
    assert (found.separation, found.caught, found.false_alarms) == (
        separation(above, below), mean_interval([float(score >= threshold) for score in above]), mean_interval(alarms),
    )  # fmt: skip
    assert len(alarms) == cuts[1] - half and sum(alarms) > 0
    torch.testing.assert_close(mean_activation(model, [3, 9], SITE), read_activations(model, [3, 9], SITE)[SITE][1])
    half_model = tiny_model().to(torch.bfloat16)
    assert mean_activation(half_model, [3, 9, 4], SITE).dtype == torch.float32
    monitor = ActivationMonitor(SITE, torch.linspace(0, 1, 32), 2.0)
    both = text_scores(model, monitor, [[3, 9], [4]])
    assert both == pytest.approx(
        [float(mean_activation(model, text, SITE) @ monitor.direction) + 2 for text in ([3, 9], [4])], abs=1e-5
    )


def test_probes_of_a_study_share_one_split_and_each_has_the_labels_of_its_task() -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(26, 3, generator=generator)
    x[:, 0] += torch.tensor([2.0 if place % 3 == 0 else 0.0 for place in range(26)])
    labels, types = [place % 3 == 0 for place in range(26)], [f"t{place % 7}" for place in range(26)]
    for held_out, cuts in ((0.3, (3, 5)), (0.01, (1, 1))):  # of 9 rows of one class and 17 of the other
        study = probe_study(x, labels, types, held_out=held_out, seed=11)
        rng = Random(11)
        test: list[int] = []
        training: list[int] = []
        for kind, cut in zip((True, False), cuts, strict=True):
            rows = [place for place in range(26) if labels[place] is kind]
            rng.shuffle(rows)
            test, training = test + rows[:cut], training + rows[cut:]
        drawn = {f"t{number}": rng.random() < 0.5 for number in range(7)}
        assert len(set(drawn.values())) == 2
        mixed = list(labels)
        for part in (test, training):  # each part keeps its own labels, in another order
            for place, label in zip(part, rng.sample([labels[place] for place in part], len(part)), strict=True):
                mixed[place] = label
        for found, wanted in (
            (study.accuracy, labels), (study.control, [drawn[each] for each in types]), (study.shuffled, mixed),
        ):  # fmt: skip
            probe = fit_probe(x[training], [wanted[place] for place in training])
            said = (probe.scores(x[test]) > 0).tolist()
            right = [float(one == wanted[place]) for one, place in zip(said, test, strict=True)]
            assert found == mean_interval(right)
            if wanted is labels:
                assert torch.equal(study.probe.direction, probe.direction) and study.probe.bias == probe.bias
        assert study.majority == pytest.approx(17 / 26)
    few = probe_study(x, [not label for label in labels], types, seed=11)
    assert few.majority == pytest.approx(17 / 26) and few.selectivity == few.accuracy.value - few.control.value
    with pytest.raises(DataError) as refused:
        probe_study(x[:19], labels[:19], types[:19])
    assert str(refused.value) == "19 rows, 19 labels and 19 types came: expected as many of each, 20 or more"
    assert isinstance(probe_study(x[:20], labels[:20], types[:20]), ProbeStudy)


def test_a_probe_is_the_optimum_of_its_ridge_regression_with_a_free_bias() -> None:
    x = torch.tensor([[0.001, 500.0], [0.002, 100.0], [0.004, 300.0], [0.008, 200.0], [0.003, 250.0], [0.005, 50.0]])
    y = torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    for ridge in (1e-2, 0.3):
        probe = fit_probe(x, y.bool(), ridge=ridge)
        deviation = x.std(0)
        weights = (probe.direction * deviation).double()
        z = ((x - x.mean(0)) / deviation).double()
        bias = probe.bias + float(x.mean(0) @ probe.direction)
        slope = torch.sigmoid(z @ weights + bias) - y
        torch.testing.assert_close(slope @ z / 6 + 2 * ridge * weights, torch.zeros(2).double(), atol=2e-4, rtol=0)
        assert float(slope.mean()) == pytest.approx(0, abs=2e-4)
        assert probe.scores(x).tolist() == pytest.approx((z @ weights + bias).tolist(), abs=1e-3)
    flat = fit_probe(torch.tensor([[1.0, 1e-9], [2.0, 2e-9], [1.5, 0.0]]), [True, False, True])
    assert abs(float(flat.direction[1])) < 1e4
    assert LinearProbe(torch.tensor([2.0, -1.0]), 3.0).scores(torch.tensor([[1, 1]], dtype=torch.bfloat16)).item() == 4
    for rows, labels, told in (
        (x, [True] * 5, "6 rows with 5 positives of 5 labels came: a probe needs rows of both classes"),
        (x, [False] * 6, "6 rows with 0 positives of 6 labels came: a probe needs rows of both classes"),
        (
            x / 0,
            [True, False] * 3,
            "the activations hold values that are not finite: a probe on them would mean nothing",
        ),
    ):
        with pytest.raises(DataError) as refused:
            fit_probe(rows, labels)
        assert str(refused.value) == told


# -- vectors --


def test_a_steering_vector_is_the_difference_of_the_means_of_last_tokens() -> None:
    model, towards, away = tiny_model(), [[1, 2, 3], [4, 5], [6]], [[7, 8], [9, 3, 2, 1]]
    for site in (SITE, "blocks.1.mlp.out"):
        ends = [
            torch.stack([read_activations(model, text, site)[site][-1] for text in texts]) for texts in (towards, away)
        ]
        torch.testing.assert_close(steering_vector(model, site, towards, away), ends[0].mean(0) - ends[1].mean(0))
    for sides, told in (
        (([], away), "0 texts to steer towards and 2 away from came: give one or more of each"),
        ((towards, []), "3 texts to steer towards and 0 away from came: give one or more of each"),
        ((away, away), "both sets of texts have the same mean activation: they differ in nothing that the site shows"),
    ):
        with pytest.raises(DataError) as refused:
            steering_vector(model, SITE, *sides)
        assert str(refused.value) == told
    small = steering_vector(model, "blocks.0.mlp.out", [[1, 2]], [[1, 2], [1, 2], [1, 2], [1, 3]])
    assert float(small.norm()) > 0


def test_a_contrast_vector_is_the_mean_over_pairs_of_the_differences_of_answers() -> None:
    model = tiny_model()
    pairs = [
        Pair(Answered([1, 2, 3, 4, 5], 2), Answered([1, 2, 9], 2)), Pair(Answered([7, 8], 1), Answered([7, 6, 5, 4], 1)),
        Pair(Answered([3, 1, 2], 1), Answered([3, 2, 2], 1)),
    ]  # fmt: skip
    differences = []
    for pair in pairs:
        one, other = (read_activations(model, each.ids, SITE)[SITE] for each in pair)
        differences.append(one[pair.chosen.start :].mean(0) - other[pair.rejected.start :].mean(0))
    expected = (differences[0] + differences[1] + differences[2]) / 3
    torch.testing.assert_close(contrast_vector(model, SITE, pairs), expected)
    for given, told in (
        ([], "no pair came: give one or more, each with a chosen and a rejected answer"),
        (
            [Pair(pairs[1].chosen, pairs[1].chosen)],
            "chosen and rejected answers have the same mean activation: they differ in nothing that the site shows",
        ),
    ):
        with pytest.raises(DataError) as refused:
            contrast_vector(model, SITE, given)
        assert str(refused.value) == told


def test_each_row_of_a_steering_study_holds_the_intervals_of_both_vectors() -> None:
    model, vector, texts = tiny_model(), torch.linspace(-1, 2, 32), [[4, 5, 6], [7, 8], [9, 1, 2, 3]]
    effects = [lambda edits, at=at: float(run_with_edits(model, [1, 2, 3], edits)[-1, at]) for at in (5, 6)]
    (row, _) = steering_study(model, SITE, vector, effects, texts, strengths=(0.5, 3.0), seed=9)  # type: ignore[arg-type]
    (default, *others) = steering_study(model, SITE, vector, effects, texts)  # type: ignore[arg-type]
    assert [default.strength, *(each.strength for each in others)] == [0.5, 1.0, 2.0]
    assert default.effect == row.effect and default.random_effect != row.random_effect

    def loss(text: list[int], edits: dict[str, Any]) -> float:
        logits = run_with_edits(model, text, edits)
        return float(functional.cross_entropy(logits[:-1], torch.tensor(text[1:])))

    for found, seed in ((row, 9), (default, 0)):
        noise = torch.randn(32, generator=torch.Generator().manual_seed(seed))
        for push, effect, cost in (
            (vector, found.effect, found.cost),
            (noise * vector.norm() / noise.norm(), found.random_effect, found.random_cost),
        ):
            edits = {SITE: adding(push, 0.5)}
            for interval, values in (
                (effect, [each(edits) - each({}) for each in effects]),  # type: ignore[arg-type]
                (cost, [loss(text, edits) - loss(text, {}) for text in texts]),
            ):
                expected = unbounded_mean_interval(values)
                assert (interval.value, interval.low, interval.high, interval.n) == pytest.approx(
                    (expected.value, expected.low, expected.high, len(values)), abs=1e-3
                )


# -- models and pairs --


def test_a_model_is_opened_with_its_tokenizer_after_its_sites_are_checked(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m", seed=4)
    threads = torch.get_num_threads()
    try:
        opened = open_for_interp(str(path), shown=False, threads=2, sites=["blocks.*.resid.post"])
        assert torch.get_num_threads() == 2
        assert open_for_interp(str(path), shown=False).path == opened.path == path and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert opened.tokenizer.encode("42") == pretrained.load(path).encode("42")
    assert not opened.model.embed.weight.is_meta
    shape = shape_of(str(path), shown=False, sites=[SITE])
    assert all(weight.is_meta for weight in shape.parameters()) and shape.architecture == opened.model.architecture
    (path / "model.safetensors").write_bytes(b"")
    for ask in (open_for_interp, shape_of):
        with pytest.raises(Exception, match=r"resid\.pots|safetensors"):
            ask(str(path), shown=False, sites=[SITE, "blocks.0.resid.pots"])


def test_pairs_are_the_best_and_the_worst_answer_of_each_line_in_their_order(tmp_path: Path) -> None:
    tokenizer = pretrained.load(write_model(tmp_path / "m"))
    file = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": "What is 1 + 1?", "chosen": "2", "rejected": "eleven, I think"},
        {"prompt": "And 3?", "chosen": "a longer answer", "rejected": "5"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_pairs(file, tokenizer, 200)
    assert len(found) == 2
    for pair, row in zip(found, rows, strict=True):
        prompts = []
        for answered, said in ((pair.chosen, row["chosen"]), (pair.rejected, row["rejected"])):
            assert tokenizer.decode(list(answered.ids[answered.start :]), skip_special=True).strip() == said
            prompts.append(list(answered.ids[: answered.start]))
            assert isinstance(answered.ids, list) and answered.start >= 1
        assert prompts[0] == prompts[1] and row["prompt"] in tokenizer.decode(prompts[0], skip_special=False)
    with pytest.raises(DataError, match=r"pairs\.jsonl"):
        read_pairs(file, tokenizer, 5)


def test_of_three_answers_the_best_and_the_worst_are_a_pair_and_an_answer_alone_is_none(tmp_path: Path) -> None:
    tokenizer = pretrained.load(write_model(tmp_path / "m"))
    file = tmp_path / "pairs.jsonl"
    rows: list[dict[str, Any]] = [
        {"prompt": "1 + 1?", "answers": ["2", "three", "a cow"]}, {"prompt": "2 + 2?", "answers": ["4", "5"]},
        {"prompt": "3 + 3?", "chosen": "6", "rejected": "7"},
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [
        [tokenizer.decode(list(each.ids[each.start :]), skip_special=True).strip() for each in (pair.chosen, pair.rejected)]
        for pair in read_pairs(file, tokenizer, 200)
    ] == [["2", "a cow"], ["4", "5"], ["6", "7"]]  # fmt: skip
    with file.open("a") as more:
        more.write(json.dumps({"prompt": "4?", "completion": "5", "label": False}))
    with pytest.raises(DataError) as refused:
        read_pairs(file, tokenizer, 200)
    assert str(refused.value) == (
        f"{file} has answers that are judged alone: expected lines with `chosen` and `rejected`"
    )


def test_a_model_is_fetched_with_or_without_a_shown_progress_and_each_site_is_checked_before_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(tmp_path / "m", seed=4)
    fetched: list[tuple[str, bool]] = []

    def fetch(name: str, *, shown: bool = True) -> Path:
        fetched.append((name, shown))
        return path

    monkeypatch.setattr(opened_model, "fetch_model", fetch)
    for shown in (True, False):
        for ask in (open_for_interp, shape_of):
            for sites in ((), (SITE,), [SITE, "blocks.*.attn.q"]):
                fetched.clear()
                ask("some", shown=shown, sites=sites)
                assert fetched == [("some", shown)] * (2 if sites and ask is open_for_interp else 1)
    fetched.clear()
    assert (
        open_for_interp("some").path == path
        and shape_of("some").embed.weight.is_meta
        and fetched == [("some", True)] * 2
    )

    def read(path: Path) -> None:
        raise AssertionError("the weights are read")

    monkeypatch.setattr(opened_model, "load", read)
    for ask in (open_for_interp, shape_of):
        for wrong in ([SITE, "blocks.0.resid.pots"], ["blocks.0.resid.pots"], [SITE, SITE, "blocks.0.resid.pots"]):
            with pytest.raises(ConfigError, match=r"no activation site 'blocks\.0\.resid\.pots' in this model"):
                ask("some", sites=wrong)
        with pytest.raises(ConfigError, match=r"no activation site matches 'x\.\*'"):
            ask("some", sites=[SITE, "x.*"])


def test_equal_losses_within_0_to_1_are_no_scores_and_their_interval_is_unbounded() -> None:
    model = tiny_model(vocab_size=2)
    with torch.no_grad():
        model.embed.weight.zero_()  # the head too: each loss is ln 2
    texts = [[0, 1, 1, 0, 1, 1], [1, 0, 0, 1, 0, 0]]
    gain = repetition_gain(model, texts, 3)
    scrubbed = scrub_induction(model, texts, [0], half=3, vocabulary=2)
    measures = measure_sae(SavedSae(sae_of("relu", 32, 48), "", "blocks.0.resid.post"), model, texts)
    for found in (gain.first, gain.second, scrubbed.model, scrubbed.hypothesis, scrubbed.wrong_key, scrubbed.ablated):
        assert found.value == pytest.approx(0.6931, abs=1e-3) and (found.low, found.high) == (-math.inf, math.inf)
    assert (measures.difference.low, measures.difference.high) == (-math.inf, math.inf)
    assert measures.to_json()["ce_difference_interval"] == [None, None], "JSON has no infinity"
