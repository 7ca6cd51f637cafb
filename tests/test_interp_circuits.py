"""Lenses, patching, induction heads, probes and steering: identities on random models, and a circuit that is trained."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine_tiny import tiny_model
from firsthand.commands import models_look
from firsthand.errors import ConfigError, DataError
from firsthand.interp.activations import attention_weights, read_activations, run_with_cache, run_with_edits
from firsthand.interp.circuits.causal_scrubbing import scrub_induction
from firsthand.interp.circuits.induction_heads import head_scores, repeated_texts, repetition_gain
from firsthand.interp.circuits.induction_model import BEGIN, VOCABULARY, attention_only, trained_induction_model
from firsthand.interp.circuits.patching import activation_patches, logit_difference, path_patch
from firsthand.interp.lenses.direct_attribution import logit_shares
from firsthand.interp.lenses.logit_lens import logit_lens
from firsthand.interp.lenses.tuned_lens import train_tuned_lens
from firsthand.interp.selective_probes import fit_probe, probe_study
from firsthand.interp.separation import false_alarm_rate, separation
from firsthand.interp.steering import (
    Answered,
    Pair,
    adding,
    choice_effect,
    contrast_vector,
    margin_effect,
    steering_study,
    steering_vector,
)
from firsthand.nn.decoder import Decoder
from firsthand.nn.weights import load
from tiny import write_model

torch.set_num_threads(1)
IDS = [3, 14, 15, 92, 65, 35, 89, 79, 32, 38]
OTHER = [3, 14, 51, 92, 65, 35, 89, 79, 32, 38]


def test_the_last_row_of_the_logit_lens_is_the_model() -> None:
    model = tiny_model()
    reading = logit_lens(model, IDS)
    torch.testing.assert_close(reading.logprobs[-1], run_with_cache(model, IDS, ()).logits.log_softmax(-1))
    assert reading.divergence[-1].abs().max() < 1e-6 < reading.divergence[0].min()
    ids, chances = reading.top(3)
    assert torch.equal(ids[..., 0], reading.logprobs.argmax(-1)) and (chances.diff(dim=-1) <= 0).all()
    assert (reading.rank_of(ids[-1, :, 1].tolist())[-1] == 1).all()
    uniform = torch.full((1, 1, 96), -torch.log(torch.tensor(96.0)).item())
    assert type(reading)(uniform).entropy.item() == pytest.approx(4.5643, abs=1e-3)


@pytest.mark.slow
def test_a_tuned_lens_comes_nearer_to_the_model_than_the_logit_lens() -> None:
    model = tiny_model()
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(0, 96, (24,), generator=generator).tolist() for _ in range(40)]
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    lens = train_tuned_lens(model, texts[:32], steps=60, lr=3e-3)
    plain = sum(float(logit_lens(model, text).divergence[0].mean()) for text in texts[32:])
    tuned = sum(float(logit_lens(model, text, translate=lens).divergence[0].mean()) for text in texts[32:])
    assert tuned < 0.9 * plain
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    with pytest.raises(DataError, match="no text to tune"):
        train_tuned_lens(model, [])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_direct_attributions_add_up_to_the_logit_difference(family: str, tmp_path: Path) -> None:
    if family == "llama":
        model = tiny_model()
    else:  # LayerNorm with biases
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(1)
        config = transformers.GPT2Config(
            vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3
        )
        theirs = transformers.GPT2LMHeadModel(config)
        for name, weight in theirs.named_parameters():
            if "ln_" in name or name.endswith("bias"):
                weight.data += torch.randn(weight.shape) * 0.3
        theirs.save_pretrained(tmp_path)
        model = load(tmp_path)
    shares = logit_shares(model, IDS, 7, 40)
    assert sum(shares.parts.values()) == pytest.approx(shares.difference, abs=2e-3) and abs(shares.difference) > 0.1
    assert {"embed", "blocks.0.head.3", "blocks.1.mlp"} <= set(shares.parts)
    assert ("norm.bias" in shares.parts) == ("blocks.0.attn.bias" in shares.parts) == (family == "gpt2")


def test_patching_everything_restores_all_and_nothing_restores_nothing() -> None:
    model = tiny_model()
    metric = logit_difference(7, 40)
    (whole,) = activation_patches(model, IDS, OTHER, metric, "blocks.0.resid.post")
    assert whole.restored == pytest.approx(1, abs=1e-4)
    by_position = activation_patches(model, IDS, OTHER, metric, "embed", by_position=True)
    assert [each.position for each in by_position] == list(range(10))
    assert by_position[2].restored == pytest.approx(1, abs=1e-4), "the texts differ there alone"
    assert all(abs(each.restored) < 1e-5 for each in by_position if each.position != 2)
    heads = activation_patches(model, IDS, OTHER, metric, "blocks.*.attn.mixed", by_head=True)
    assert [(each.site[7], each.head) for each in heads] == [(layer, head) for layer in "01" for head in range(6)]
    clean, corrupted = (
        read_activations(model, text, "blocks.1.attn.mixed")["blocks.1.attn.mixed"] for text in (IDS, OTHER)
    )

    def head_two(values: Tensor) -> Tensor:
        return torch.cat([corrupted[:, :2], clean[:, 2:3], corrupted[:, 3:]], dim=1)

    low, high = (metric(run_with_cache(model, text, ()).logits) for text in (OTHER, IDS))
    by_hand = metric(run_with_edits(model, OTHER, {"blocks.1.attn.mixed": head_two}))
    assert heads[8].restored == pytest.approx((by_hand - low) / (high - low), abs=1e-5)


def test_patching_refuses_what_it_cannot_compare() -> None:
    model = tiny_model()
    with pytest.raises(DataError, match="10 and 9 tokens"):
        activation_patches(model, IDS, OTHER[:9], logit_difference(7, 40), "embed")
    with pytest.raises(DataError, match=r"the metric is .* on both texts"):
        activation_patches(model, IDS, IDS, logit_difference(7, 40), "embed")
    with pytest.raises(ConfigError, match="embed has no heads"):
        activation_patches(model, IDS, OTHER, logit_difference(7, 40), "embed", by_head=True)
    with pytest.raises(ConfigError, match="the receiver lies later"):
        path_patch(model, IDS, OTHER, logit_difference(7, 40), sender=(1, 0), receiver=(1, 1))


def test_heads_are_scored_where_they_look() -> None:
    model = tiny_model()
    texts = repeated_texts(range(96), texts=3, half=6, seed=2)
    assert all(text[:6] == text[6:] for text in texts)
    for begin in (0, 7):
        begun = repeated_texts(range(96), texts=3, half=6, begin=begin, seed=2)
        assert begun == [[begin, *text] for text in texts] and repeated_texts(range(96), texts=3, half=6) != texts
    assert {token for text in repeated_texts([40, 7, 9], texts=8, half=9) for token in text} == {7, 9, 40}
    for vocabulary, size, half in (([1], 2, 2), ([1, 2], 1, 2), ([1, 2], 2, 1)):
        with pytest.raises(ConfigError) as told:
            repeated_texts(vocabulary, texts=size, half=half)
        assert str(told.value) == (
            f"halves of {half} tokens, {size} texts and {len(vocabulary)} tokens came: expected 2 or more of each; an "
            "interval needs several texts"
        )
    assert [len(text) for text in repeated_texts([1, 2], texts=2, half=2)] == [4, 4]
    score = head_scores(model, range(96), texts=3, half=6, seed=2)[8]
    assert (score.layer, score.head) == (1, 2)
    expected = []
    for text in texts:
        weights = attention_weights(model, run_with_cache(model, text).cache, 1)[2]
        expected.append(sum(float(weights[i, i - 5]) for i in range(7, 12)) / 5)
    assert score.induction.value == pytest.approx(sum(expected) / 3, abs=1e-6)
    with pytest.raises(ConfigError, match="2 or more of each"):
        repeated_texts(range(96), texts=1, half=6)


def test_an_attention_only_models_mlps_write_nothing() -> None:
    model = attention_only()
    cache = run_with_cache(model, list(range(12)), "blocks.*.mlp.out").cache
    assert len(cache) == 2 and all(values.abs().max() == 0 for values in cache.values())
    with pytest.raises(ConfigError, match="the second of two layers"):
        scrub_induction(attention_only(layers=1), [[1, 2]], [0], half=1, vocabulary=8)


@cache
def induction_model(layers: int) -> Decoder:
    return trained_induction_model(steps=450, batch=32, layers=layers)


@pytest.mark.slow
def test_two_layers_learn_induction_and_the_circuit_survives_scrubbing() -> None:
    model = induction_model(2)
    texts = repeated_texts(range(VOCABULARY), texts=8, half=16, begin=BEGIN, seed=5)
    gain = repetition_gain(model, texts, 16)
    assert gain.second.high < 1.0 < gain.first.low
    scores = head_scores(model, range(VOCABULARY), texts=8, half=16, begin=BEGIN, seed=5)
    found = [each for each in scores if each.is_induction]
    assert found and all(each.layer == 1 for each in found)
    assert max(each.previous.value for each in scores if each.layer == 0) > 0.25
    heads = [each.head for each in found]
    scrubbed = scrub_induction(model, texts, heads, half=16, vocabulary=VOCABULARY)
    assert scrubbed.kept(scrubbed.hypothesis) > 0.45 > 0.35 > scrubbed.kept(scrubbed.wrong_key)
    clean, corrupted = texts[0], list(texts[0])
    corrupted[8] = (corrupted[8] + 7) % VOCABULARY  # the token that the first half's answer followed
    target = clean[9]
    metric = logit_difference(target, (target + 11) % VOCABULARY, position=8 + 16)
    through_k = [
        path_patch(model, clean, corrupted, metric, sender=(0, sender), receiver=(1, heads[0]), into="k")
        for sender in range(4)
    ]
    through_q = [
        path_patch(model, clean, corrupted, metric, sender=(0, sender), receiver=(1, heads[0]), into="q")
        for sender in range(4)
    ]
    assert max(through_k) > max(map(abs, through_q)), "the first layer's heads reach the induction head by its keys"


def test_a_probe_finds_what_is_there_and_its_controls_show_what_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 12, generator=generator) * torch.linspace(0.1, 30, 12) + 5
    labels = (x[:, 3] - 5 > 0).tolist()
    types = [index % 37 for index in range(400)]
    study = probe_study(x, labels, types)
    assert study.accuracy.value > 0.9 and study.control.high < 0.8 and study.shuffled.high < 0.75
    assert study.selectivity > 0.3 and study.accuracy.n == 120 and 0.5 <= study.majority < 0.6
    probe = fit_probe(x, labels)
    assert probe.direction.abs().argmax() == 3 or (probe.direction * x.std(0)).abs().argmax() == 3
    one_hot = torch.eye(10)[torch.arange(400) % 10]
    memorised = probe_study(one_hot, [i % 10 < 5 for i in range(400)], [i % 10 for i in range(400)])
    assert memorised.accuracy.value == 1 and memorised.selectivity == pytest.approx(0, abs=0.01)
    with pytest.raises(DataError, match="rows of both classes"):
        fit_probe(x, [True] * 400)
    with pytest.raises(DataError, match="not finite"):
        fit_probe(x * float("nan"), labels)
    with pytest.raises(DataError, match="20 or more"):
        probe_study(x[:10], labels[:10], types[:10])


def test_steering_moves_the_metric_more_than_a_random_push_and_its_cost_is_told() -> None:
    model, site = tiny_model(), "blocks.0.resid.post"
    towards, away = [[5, 9, 40], [7, 9, 40]], [[5, 9, 41], [7, 9, 41]]
    vector = steering_vector(model, site, towards, away)
    cache = read_activations(model, [*towards, *away], site)
    rows = cache[site][cache.last]
    torch.testing.assert_close(vector, rows[:2].mean(0) - rows[2:].mean(0))
    target = int(run_with_cache(model, [5, 9, 40], ()).logits[-1].argmax())
    generator = torch.Generator().manual_seed(3)
    prompts, unrelated = (
        [torch.randint(0, 96, (8,), generator=generator).tolist() for _ in range(6)] for _ in range(2)
    )

    def metric(logits: Tensor) -> float:
        return float(logits[-1].log_softmax(-1)[target])

    rows_found = steering_study(
        model,
        site,
        vector,
        [choice_effect(model, prompt, metric) for prompt in prompts],
        unrelated,
        strengths=(0, 1, 3),
    )
    none, _, strong = rows_found
    assert none.effect.value == none.cost.value == none.random_cost.value == 0
    assert strong.effect.value > strong.random_effect.value + 0.5 and strong.cost.value > 0
    torch.testing.assert_close(
        read_activations(model, [1, 2], site, edits={site: adding(vector, 2.0)})[site],
        read_activations(model, [1, 2], site)[site] + 2 * vector,
    )
    with pytest.raises(DataError, match="the same mean activation"):
        steering_vector(model, site, towards, towards)
    with pytest.raises(DataError, match="2 texts to steer towards and 0 away"):
        steering_vector(model, site, towards, [])


def test_a_contrast_raises_the_margin_of_chosen_answers_that_it_did_not_see() -> None:
    model, site = tiny_model(), "blocks.0.resid.post"
    heads = [[5, 9], [7, 9], [8, 3], [4, 4]]
    pairs = [Pair(Answered([*head, 40, 41], 2), Answered([*head, 50], 2)) for head in heads]
    vector = contrast_vector(model, site, pairs[:2])
    exact = [
        read_activations(model, [*head, 40, 41], site)[site][2:].mean(0)
        - read_activations(model, [*head, 50], site)[site][2]
        for head in heads[:2]
    ]
    torch.testing.assert_close(vector, (exact[0] + exact[1]) / 2)
    margins = [margin_effect(model, pair) for pair in pairs[2:]]
    logits = [run_with_cache(model, ids, ()).logits.log_softmax(-1) for ids in ([8, 3, 40, 41], [8, 3, 50])]
    assert margins[0]({}) == pytest.approx(float(logits[0][1, 40] + logits[0][2, 41] - logits[1][1, 50]), abs=1e-5)
    (row,) = steering_study(model, site, vector, margins, [[1, 2, 3]], strengths=(4,))
    assert row.effect.value > max(0.0, row.random_effect.value)
    with pytest.raises(DataError, match="no pair"):
        contrast_vector(model, site, [])
    with pytest.raises(DataError, match="same mean activation"):
        contrast_vector(model, site, [Pair(pairs[0].chosen, pairs[0].chosen)])


def test_auroc_counts_ties_half_and_has_an_interval_at_its_ends() -> None:
    assert separation([3, 2, 2], [2, 1]).auroc == pytest.approx((1 + 1 + 0.5 + 1 + 0.5 + 1) / 6)
    perfect = separation(range(50, 100), range(50))  # type: ignore[arg-type]
    assert perfect.auroc == perfect.high == 1 and 0.9 < perfect.low < 0.99
    assert separation(range(50), range(50, 100)).low == 0  # type: ignore[arg-type]
    even = separation(range(100), range(100))  # type: ignore[arg-type]
    assert (
        even.auroc == 0.5 and even.low < 0.5 < even.high and even.high - 0.5 == pytest.approx(0.5 - even.low, abs=1e-6)
    )
    # Hanley and McNeil's standard error at .5 with 100 and 100 is about .041
    assert even.high - even.low == pytest.approx(2 * 1.96 * 0.041, rel=0.05)
    assert false_alarm_rate([1, 2, 3, 4], [0, 1, 2, 3], caught=0.75) == 0.5
    for bad in (([], [1]), ([1], []), ([float("nan")], [1])):
        with pytest.raises(DataError):
            separation(*bad)


def test_intervals_of_auroc_hold_the_truth_as_often_as_they_say() -> None:
    generator = torch.Generator().manual_seed(1)
    held = 0
    for _ in range(300):
        positive, negative = torch.randn(40, generator=generator) + 1, torch.randn(60, generator=generator)
        found = separation(positive.tolist(), negative.tolist())
        held += found.low <= 0.7602 <= found.high  # Phi(1 / sqrt 2)
    assert 0.92 <= held / 300 <= 0.985


def test_models_look_writes_a_page_that_needs_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_model(tmp_path / "model")
    out = tmp_path / "look.html"
    models_look.write_look(str(folder), "The answer is <b>42</b>\u202e.\n", str(out), as_json=True)
    body = json.loads(capsys.readouterr().out)
    page = out.read_text(encoding="utf-8")
    assert body["layers"] == 2 and body["heads"] == 12 and page.count("data-weights=") == 12
    assert "default-src 'none'" in page and "http://" not in page and "https://" not in page and " style=" not in page
    assert "<b>42" not in page and "\u202e" not in page
    assert abs(sum(each["probability"] for each in body["next"])) <= 1
    with pytest.raises(ConfigError, match="expected 2 to 128"):
        models_look.write_look(str(folder), "The answer is 42. " * 60, str(out), as_json=True)
    with pytest.raises(ConfigError, match="does not exist: make it"):
        models_look.write_look(str(folder), "hi there", str(tmp_path / "no" / "look.html"), as_json=True)
