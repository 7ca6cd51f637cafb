"""Readings of a model by their definitions: caches, lenses, attributions, patches, attention, steering, and looks."""

from __future__ import annotations

import base64
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine_tiny import tiny_model
from firsthand.errors import ConfigError, DataError
from firsthand.interp.activations import (
    attention_weights,
    combined,
    computed_order,
    hook_of,
    packed_ids,
    read_activations,
    run_with_cache,
    run_with_edits,
    site_of,
    sites_matching,
)
from firsthand.interp.circuits.causal_scrubbing import Scrubbed, scrub_induction
from firsthand.interp.circuits.induction_heads import HeadScore, head_scores, repeated_texts, repetition_gain
from firsthand.interp.circuits.induction_model import RepeatedTexts, attention_only
from firsthand.interp.circuits.patching import activation_patches, logit_difference, path_patch, replacing
from firsthand.interp.lenses.direct_attribution import logit_shares
from firsthand.interp.lenses.logit_lens import LensReading, expect_layer, logit_lens
from firsthand.interp.lenses.tuned_lens import TunedLens
from firsthand.interp.model_look import look_at
from firsthand.interp.steering import Answered, Pair, adding, choice_effect, margin_effect, save_vector, steering_study
from firsthand.nn.steering_vector import read_steering
from firsthand.stats.intervals import Interval

torch.set_num_threads(1)
IDS, OTHER = [3, 14, 15, 92, 65, 35], [3, 14, 51, 92, 65, 35]
SITE = "blocks.0.resid.post"


def test_a_cache_gives_texts_and_last_rows_and_names_what_it_holds() -> None:
    model = tiny_model()
    cache = run_with_cache(model, [[1, 2, 3], [4], [5, 6]], ["blocks.0.*.hook_nothing", SITE][1:]).cache
    assert cache.lengths == (3, 1, 2) and cache.last.tolist() == [2, 3, 5] and len(cache) == 1 and list(cache) == [SITE]
    for index, (first, last) in enumerate(((0, 3), (3, 4), (4, 6))):
        assert torch.equal(cache.of_text("blocks.0.hook_resid_post", index), cache[SITE][first:last])
    with pytest.raises(ConfigError, match=r"the cache holds no 'embed', but blocks.0.resid.post: name the site"):
        cache["embed"]
    with pytest.raises(ConfigError, match=r"the cache holds no 'embed', but nothing: name the site"):
        run_with_cache(model, IDS, ()).cache["embed"]


def test_names_of_hooks_and_sites_stand_for_each_other() -> None:
    for hook, site in {
        "hook_embed": "embed", "blocks.3.hook_resid_mid": "blocks.3.resid.mid",
        "blocks.3.hook_resid_post": "blocks.3.resid.post",
        "blocks.3.hook_attn_out": "blocks.3.attn.out", "blocks.3.hook_mlp_out": "blocks.3.mlp.out",
        "blocks.12.attn.hook_q": "blocks.12.attn.q", "blocks.0.attn.hook_k": "blocks.0.attn.k",
        "blocks.0.attn.hook_v": "blocks.0.attn.v", "blocks.0.attn.hook_z": "blocks.0.attn.mixed",
        "blocks.0.mlp.hook_post": "blocks.0.mlp.act",
    }.items():  # fmt: skip
        same = hook not in ("hook_embed", "blocks.3.hook_attn_out", "blocks.3.hook_mlp_out") and "hook_q" not in hook
        same = same and "hook_k" not in hook
        assert site_of(hook) == site == site_of(site) and hook_of(site) == (hook if same else site), (
            "same in all families"
        )
    assert site_of("blocks.2.hook_resid_pre") == "blocks.1.resid.post" and site_of("blocks.0.hook_resid_pre") == "embed"
    for other in ("logits", "blocks.x.hook_mlp_out", "blocks.1.attn.in", "norm"):
        assert site_of(other) == other == hook_of(other)
    assert site_of("blocks.1.hook_none") == "blocks.1.hook_none"


def test_sites_are_read_in_the_order_in_which_they_are_computed() -> None:
    model = tiny_model()
    parts = (
        "attn.in",
        "attn.q",
        "attn.k",
        "attn.v",
        "attn.mixed",
        "attn.out",
        "resid.mid",
        "mlp.in",
        "mlp.act",
        "mlp.out",
    )
    order = computed_order(model)
    for layer in (0, 1):
        inside = [site.split(".", 2)[2] for site in order if site.startswith(f"blocks.{layer}.")]
        assert [part for part in inside if part in parts] == [part for part in parts if part in inside]
        assert inside[-1] == "resid.post"
    assert order[0] == "embed" and order[-1] == "logits" and sorted(order) == sorted(model.sites())
    whole = run_with_cache(model, IDS).cache
    for wanted in (
        ["blocks.0.resid.mid", "blocks.0.mlp.out"],
        ["blocks.0.mlp.*", "blocks.0.attn.q"],
        ["embed"],
        "logits",
    ):
        found = read_activations(model, IDS, wanted)
        assert set(found) == set(sites_matching(model, wanted))
        for site in found:
            torch.testing.assert_close(found[site], whole[site])
    zeroed = read_activations(model, IDS, "logits", edits={"hook_embed": torch.zeros_like})["logits"]
    torch.testing.assert_close(zeroed, run_with_edits(model, IDS, {"embed": torch.zeros_like}))
    assert not torch.equal(zeroed, whole["logits"])
    assert sites_matching(model, [SITE, "embed", "blocks.?.resid.post"]) == ("embed", SITE, "blocks.1.resid.post")
    assert sites_matching(model, "blocks.[1].resid.mid") == ("blocks.1.resid.mid",)
    with pytest.raises(ConfigError, match=r"no activation site matches 'blocks\.\*\.none': there are embed, "):
        sites_matching(model, "blocks.*.none")


def test_of_several_edits_of_a_site_the_last_comes_first() -> None:
    taps = combined(
        {"a": lambda values: values * 2}, {"b": lambda values: values - 1}, {"a": lambda values: None},
        {"a": lambda values: values + 1},
    )  # fmt: skip
    assert set(taps) == {"a", "b"}
    one = torch.tensor(3.0)
    assert [float(taps[name](one)) for name in ("a", "b")] == [8.0, 2.0]  # type: ignore[arg-type]
    looked = combined({"a": lambda values: None}, {"a": lambda values: values + 1})
    assert float(looked["a"](one)) == 4 and combined({"a": lambda v: None}, {"a": lambda v: None})["a"](one) is None  # type: ignore[arg-type]


def test_ids_are_packed_and_those_the_model_does_not_take_are_refused() -> None:
    model = tiny_model(max_position=4)
    for texts, ids, lengths in (
        ([1, 2], [1, 2], [2]), ([[1], [2, 3]], [1, 2, 3], [1, 2]), (torch.tensor([[0, 95], [1, 2]]), [0, 95, 1, 2], [2, 2]),
        (torch.tensor([7]), [7], [1]),
    ):  # fmt: skip
        found, sizes = packed_ids(model, texts)
        assert (found.tolist(), sizes) == (ids, lengths)
    for empty in ([], [[]], [[1], []]):
        with pytest.raises(DataError, match="a text has no tokens: give one token or more for each text"):
            packed_ids(model, empty)
    for wrong, id in (([95, 96], 96), ([[5], [-1, 5]], -1)):
        with pytest.raises(DataError, match=f"token id {id} came, and the model has 96 tokens: use its own tokenizer"):
            packed_ids(model, wrong)
    assert packed_ids(model, [[1] * 4])[1] == [4]
    with pytest.raises(DataError, match="a text has 5 tokens, and the model's context is 4: cut it"):
        packed_ids(model, [[1], [1] * 5, [1, 2]])


def test_a_lens_measures_its_distributions() -> None:
    reading = LensReading(torch.tensor([[[0.5, 0.5, 0.0]], [[0.25, 0.75, 0.0]]]).log())
    assert reading.entropy.flatten().tolist() == pytest.approx([math.log(2), 2 * math.log(2) - 0.75 * math.log(3)])
    assert LensReading(
        torch.tensor([[[0.0, 1.0]], [[0.25, 0.75]]]).log()
    ).divergence.flatten().tolist() == pytest.approx([0.25 * 1e4 + 0.75 * math.log(0.75), 0])
    assert reading.rank_of([2]).tolist() == [[2], [2]] and reading.rank_of([0]).tolist() == [[0], [1]]
    ids, chances = reading.top(2)
    assert ids[1].tolist() == [[1, 0]] and chances[1].flatten().tolist() == pytest.approx([0.75, 0.25])
    model = tiny_model()
    asked: list[int] = []

    def translate(layer: int, residual: Tensor) -> Tensor:
        asked.append(layer)
        return residual * 0 + 1

    moved = logit_lens(model, IDS, translate=translate)
    assert asked == [0]
    row = (model.norm(torch.ones(32)) @ model.lm_head.weight.T).log_softmax(-1)
    torch.testing.assert_close(moved.logprobs[0], row.detach().expand(6, 96))
    for layer in (-1, 2):
        with pytest.raises(ConfigError, match=f"layer {layer} came: this model has layers 0 to 1"):
            expect_layer(model, layer)
    expect_layer(model, 1)
    lens = TunedLens(3, 2)
    assert lens(1, torch.ones(1, 2)).tolist() == [[1.0, 1.0]]
    with torch.no_grad():
        lens.matrices[1] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        lens.biases[1] = torch.tensor([10.0, 20.0])
    assert lens(1, torch.tensor([[1.0, 2.0]])).tolist() == [[18.0, 32.0]]


def test_the_share_of_each_part_is_its_product_with_the_direction() -> None:
    model = tiny_model(tied=False)
    with torch.no_grad():
        model.norm.weight.copy_(torch.linspace(0.5, 2, 32))
    logits, cache = run_with_cache(model, IDS)
    found = logit_shares(model, IDS, 7, 40)
    end = cache["blocks.1.resid.post"][-1]
    difference = model.lm_head.weight[7] - model.lm_head.weight[40]
    direction = (difference * model.norm.weight / (end.square().mean() + 1e-5).sqrt()).detach()
    parts = {"embed": cache["embed"][-1]}
    for layer in (0, 1):
        weight = model.layers[layer].attention.o_proj.weight.detach()
        for head in range(6):
            mixed = cache[f"blocks.{layer}.attn.mixed"][-1, head]
            parts[f"blocks.{layer}.head.{head}"] = weight[:, head * 16 : head * 16 + 16] @ mixed
        parts[f"blocks.{layer}.mlp"] = cache[f"blocks.{layer}.mlp.out"][-1]
    assert list(found.parts) == list(parts)
    assert found.parts == pytest.approx({name: float(row @ direction) for name, row in parts.items()}, abs=1e-4)
    assert found.difference == pytest.approx(float(logits[-1, 7] - logits[-1, 40]), abs=1e-5)
    model.architecture = replace(model.architecture, logit_softcap=30.0)
    with pytest.raises(ConfigError, match="llama normalises what its layers add, caps its logits or mixes latents"):
        logit_shares(model, IDS, 7, 40)


def test_a_patch_replaces_what_it_names() -> None:
    new, old = torch.ones(3, 2, 2), torch.zeros(3, 2, 2)
    whole, head, last, one = (
        replacing(new, **more)(old)  # type: ignore[arg-type]
        for more in ({}, {"heads": [1]}, {"position": -1}, {"heads": [0], "position": 0})
    )
    assert (
        isinstance(whole, Tensor) and isinstance(head, Tensor) and isinstance(last, Tensor) and isinstance(one, Tensor)
    )
    assert whole.sum() == 12 and head.sum() == head[:, 1].sum() == 6 and last.sum() == last[2].sum() == 4
    assert one.sum() == one[0, 0].sum() == 2 and old.sum() == 0 and replacing(new, position=1)(old)[1].sum() == 4  # type: ignore[index]
    with pytest.raises(ConfigError, match=r"a patch of shape \(3, 2, 2\) came for activations of \(2, 2, 2\)"):
        replacing(new)(old[:2])
    logits = torch.tensor([[1.0, 5.0], [2.0, 9.0]])
    assert logit_difference(1, 0)(logits) == 7 and logit_difference(0, 1, position=0)(logits) == -4
    model, metric = tiny_model(), logit_difference(7, 40)
    found = activation_patches(model, IDS, OTHER, metric, "blocks.1.attn.v", by_head=True, by_position=True)
    assert [(each.head, each.position) for each in found] == [(head, place) for head in range(2) for place in range(6)]
    clean = run_with_cache(model, IDS, "blocks.1.attn.v").cache["blocks.1.attn.v"]

    def patched(values: Tensor) -> Tensor:
        values = values.clone()
        values[2, 1] = clean[2, 1]
        return values

    low, high = (metric(run_with_cache(model, text, ()).logits) for text in (OTHER, IDS))
    by_hand = metric(run_with_edits(model, OTHER, {"blocks.1.attn.v": patched}))
    assert found[8].restored == pytest.approx((by_hand - low) / (high - low), abs=1e-5)


@pytest.mark.parametrize(("into", "head", "place"), [("k", 4, 1), ("v", 1, 0), ("q", 5, 5)])
@pytest.mark.parametrize("through_mlps", [True, False])
def test_a_path_carries_one_corrupted_head_to_one_later_head(
    into: str, head: int, place: int, through_mlps: bool
) -> None:
    model, metric, site = tiny_model(), logit_difference(7, 40), f"blocks.1.attn.{into}"
    clean, corrupted = (run_with_cache(model, text) for text in (IDS, OTHER))
    mixed = clean.cache["blocks.0.attn.mixed"].clone()
    mixed[:, 3] = corrupted.cache["blocks.0.attn.mixed"][:, 3]
    edits = {"blocks.0.attn.mixed": lambda values: mixed}
    if not through_mlps:
        edits["blocks.0.mlp.out"] = lambda values: clean.cache["blocks.0.mlp.out"]
    received = clean.cache[site].clone()
    received[:, place] = run_with_cache(model, IDS, site, edits=edits).cache[site][:, place]
    patched = metric(run_with_edits(model, IDS, {site: lambda values: received}))
    high, low = metric(clean.logits), metric(corrupted.logits)
    found = path_patch(
        model, IDS, OTHER, metric, sender=(0, 3), receiver=(1, head), into=into, through_mlps=through_mlps
    )
    assert found == pytest.approx((high - patched) / (high - low), abs=1e-5) and abs(found) > 1e-6
    for sender, receiver, by in (
        ((0, 0), (1, 0), "x"),
        ((-1, 0), (1, 0), "k"),
        ((0, 0), (2, 0), "k"),
        ((1, 0), (0, 0), "k"),
        ((1, 0), (1, 1), "k"),
    ):
        with pytest.raises(ConfigError, match="the receiver lies later, and the path ends in q, k or v"):
            path_patch(model, IDS, OTHER, metric, sender=sender, receiver=receiver, into=by)
    for sent, received_by in ((-1, 0), (6, 0), (0, -1), (0, 6)):
        with pytest.raises(ConfigError, match=f"the heads {sent} and {received_by} came: this model has heads 0 to 5"):
            path_patch(model, IDS, OTHER, metric, sender=(0, sent), receiver=(1, received_by), into=into)


def test_repeated_texts_and_what_heads_see_in_them() -> None:
    texts = repeated_texts([5, 6, 7, 8], texts=3, half=4, begin=9, seed=1)
    assert all(text[0] == 9 and text[1:5] == text[5:] and set(text[1:]) <= {5, 6, 7, 8} for text in texts)
    assert repeated_texts([5, 6, 7, 8], texts=3, half=4, seed=1) == [text[1:] for text in texts]
    for bad in ({"half": 1}, {"texts": 1}):
        with pytest.raises(ConfigError, match="expected 2 or more of each"):
            repeated_texts([5, 6], **{"texts": 2, "half": 2} | bad)
    with pytest.raises(ConfigError, match="2 texts and 1 tokens came"):
        repeated_texts([5], texts=2, half=2)
    model = tiny_model()
    other = repeated_texts([5, 6, 7, 8], texts=3, half=4, begin=9, seed=2)
    scores = head_scores(model, [5, 6, 7, 8], texts=3, half=4, begin=9, seed=1)
    assert [(each.layer, each.head) for each in scores] == [(layer, head) for layer in range(2) for head in range(6)]
    ahead, null, before = [], [], []
    for one, two in zip(texts, other, strict=True):
        for kept, text in ((ahead, one), (null, one[:5] + two[1:5])):
            weights = attention_weights(model, run_with_cache(model, text).cache, 1)[3]
            kept.append(sum(float(weights[i, i - 3]) for i in (6, 7, 8)) / 3)
        weights = attention_weights(model, run_with_cache(model, one).cache, 1)[3]
        before.append(sum(float(weights[i, i - 1]) for i in range(2, 9)) / 7)
    found = scores[9]
    for interval, values in ((found.induction, ahead), (found.null, null), (found.previous, before)):
        assert interval.value == pytest.approx(sum(values) / 3, abs=1e-6) and interval.n == 3
    gain = repetition_gain(model, texts, 4)
    first, second = [], []
    for text in texts:
        logprobs = run_with_cache(model, text, ()).logits.log_softmax(-1)
        losses = [-float(logprobs[place - 1, text[place]]) for place in range(1, 9)]
        first.append(sum(losses[:4]) / 4)
        second.append(sum(losses[5:]) / 3)
    assert (gain.first.value, gain.second.value) == pytest.approx((sum(first) / 3, sum(second) / 3), abs=1e-5)

    def interval(low: float, value: float, high: float) -> Interval:
        return Interval(value, low, high, 3, "t")

    for ahead_of, null_of, expected in (
        (interval(0.25, 0.31, 0.4), interval(0, 0.1, 0.24), True), (interval(0.25, 0.3, 0.4), interval(0, 0.1, 0.24), False),
        (interval(0.25, 0.31, 0.4), interval(0, 0.1, 0.25), False),
    ):  # fmt: skip
        assert HeadScore(0, 0, ahead_of, null_of, null_of).is_induction is expected


def test_texts_that_teach_induction_and_the_share_that_scrubbing_keeps() -> None:
    batches = RepeatedTexts(2, 0)
    halves = set()
    for _, streams in zip(range(150), batches, strict=False):
        ids = streams[0].ids.tolist()
        half = len(ids) // 2
        halves.add(half)
        assert ids[0] == 32 and ids[1 : half + 1] == ids[half + 1 :] and max(ids[1:]) < 32 and len(streams) == 2
        assert streams[0].ce is not None and streams[0].ce.tolist() == [0.0] * (half + 2) + [1.0] * (half - 1)
    assert halves == set(range(6, 25)) and batches.state() == {"drawn": 150}
    model = attention_only(hidden=16)
    texts = repeated_texts(range(32), texts=2, half=4, begin=32)
    for heads in ([], [4], [-1, 0]):
        with pytest.raises(ConfigError, match="the hypothesis is about heads 0 to 3 of the second of two layers"):
            scrub_induction(model, texts, heads, half=4, vocabulary=32)
    found = scrub_induction(model, texts, [1], half=4, vocabulary=32)
    assert found.model.value == pytest.approx(repetition_gain(model, texts, 4).second.value, abs=1e-6)
    assert found == scrub_induction(model, texts, [1], half=4, vocabulary=32)
    assert len({found.model.value, found.hypothesis.value, found.wrong_key.value, found.ablated.value}) == 4
    one, three, five = (Interval(value, 0, 9, 2, "t") for value in (1.0, 3.0, 5.0))
    scrubbed = Scrubbed(one, three, three, five)
    assert [scrubbed.kept(each) for each in (one, three, five)] == [1, 0.5, 0]


def test_a_row_of_steering_has_the_changes_of_the_vector_and_of_noise_as_long(tmp_path: Path) -> None:
    model, texts = tiny_model(), [[1, 2, 3], [4, 5, 6, 7]]
    vector = torch.linspace(-1, 1, 32)
    effects = [choice_effect(model, IDS, lambda logits: float(logits[-1, 7])), margin_effect(
        model, Pair(Answered([5, 9, 40], 1), Answered([5, 8], 1))
    )]  # fmt: skip
    noise = torch.randn(32, generator=torch.Generator().manual_seed(4))
    rows = steering_study(model, SITE, vector, effects, texts, strengths=(0.5, -2.0), seed=4)

    def loss(text: list[int], tap: dict[str, object]) -> float:
        logits = run_with_edits(model, text, tap)  # type: ignore[arg-type]
        return float(functional.cross_entropy(logits[:-1], torch.tensor(text[1:])))

    def values(tap: dict[str, object]) -> tuple[float, float]:
        first = float(run_with_edits(model, IDS, tap)[-1, 7])  # type: ignore[arg-type]
        one, other = (run_with_edits(model, ids, tap).log_softmax(-1) for ids in ([5, 9, 40], [5, 8]))  # type: ignore[arg-type]
        margin = float(one[0, 9] + one[1, 40] - other[0, 8])
        return (first + margin) / 2, (loss(texts[0], tap) + loss(texts[1], tap)) / 2

    plain = values({})
    for row, strength in zip(rows, (0.5, -2.0), strict=True):
        assert row.strength == strength
        for push, effect, cost in (
            (vector, row.effect, row.cost), (noise / noise.norm() * vector.norm(), row.random_effect, row.random_cost),
        ):  # fmt: skip
            moved = values({SITE: lambda rows, push=push, strength=strength: rows + strength * push})
            assert (effect.value, cost.value) == pytest.approx((moved[0] - plain[0], moved[1] - plain[1]), abs=1e-4)
    assert adding(vector)(torch.zeros(1, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16  # type: ignore[union-attr]
    save_vector(vector, SITE, tmp_path / "kind.safetensors")
    back = read_steering(str(tmp_path / "kind.safetensors"))
    assert (back.site, back.name) == (SITE, "kind") and torch.equal(back.direction, vector)


class Numbers:
    def decode(self, ids: list[int], skip_special: bool) -> str:
        assert not skip_special
        return f"<{ids[0]}>"


def test_a_look_has_the_weights_of_each_head_and_the_lens_of_each_token() -> None:
    model = tiny_model()
    found = look_at(model, Numbers(), IDS, top=2)  # type: ignore[arg-type]
    assert found.tokens == [f"<{id}>" for id in IDS] and [len(each) for each in found.layers] == [6, 6]
    weights = attention_weights(model, run_with_cache(model, IDS).cache, 1)[4]
    head = found.layers[1][4]
    assert (head.layer, head.head) == (1, 4)
    kept = weights[weights > 0]
    assert head.entropy == pytest.approx(float(-(kept * kept.log()).sum() / 6), abs=1e-5)
    assert head.to_first == pytest.approx(float(weights[1:, 0].sum() / 5), abs=1e-6)
    assert head.to_previous == pytest.approx(sum(float(weights[i, i - 1]) for i in range(1, 6)) / 5, abs=1e-6)
    assert list(base64.b64decode(head.weights)) == (weights * 255).round().int().flatten().tolist()
    reading = logit_lens(model, IDS)
    ids, chances = reading.top(2)
    for layer in (0, 1):
        cell = found.lens[layer][2]
        assert [word for word, _ in cell.top] == [f"<{id}>" for id in ids[layer, 2].tolist()]
        assert [chance for _, chance in cell.top] == chances[layer, 2].tolist()
        assert cell.entropy == float(reading.entropy[layer, 2])
    assert len(look_at(model, Numbers(), [1, 2], top=500).lens[0][0].top) == 96  # type: ignore[arg-type]
    assert len(look_at(model, Numbers(), [1] * 128, top=1).tokens) == 128  # type: ignore[arg-type]
    for count, said in ((1, "1 token:"), (129, "129 tokens:")):
        with pytest.raises(ConfigError, match=f"the text has {said} expected 2 to 128, which a page can show"):
            look_at(model, Numbers(), [1] * count)  # type: ignore[arg-type]
