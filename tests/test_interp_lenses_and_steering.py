"""Activations, lenses, patches and steering give the numbers of their definitions, worked out here row by row."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine_tiny import tiny_model
from firsthand.errors import ConfigError, DataError
from firsthand.interp.activations import (
    ActivationCache,
    computed_order,
    hook_of,
    packed_ids,
    read_activations,
    run_with_cache,
    run_with_edits,
    site_of,
)
from firsthand.interp.circuits.patching import logit_difference, path_patch, replacing
from firsthand.interp.lenses.logit_lens import expect_layer, logit_lens, unembedded
from firsthand.interp.lenses.tuned_lens import TunedLens, train_tuned_lens
from firsthand.interp.steering import Answered, Pair, adding, choice_effect, margin_effect, steering_study

torch.set_num_threads(1)


# -- activations --


def test_rows_belong_to_their_text_from_the_first_to_the_last() -> None:
    rows = torch.arange(12.0).reshape(6, 2)
    cache = ActivationCache({"blocks.0.resid.post": rows}, [1, 3, 2])
    for index, (start, end) in {0: (0, 1), 1: (1, 4), 2: (4, 6), -1: (4, 6), -3: (0, 1)}.items():
        assert torch.equal(cache.of_text("blocks.0.hook_resid_post", index), rows[start:end])
    assert cache.last.tolist() == [0, 3, 5] and len(cache) == 1 and list(cache) == ["blocks.0.resid.post"]
    with pytest.raises(ConfigError, match=r"holds no 'embed', but blocks\.0\.resid\.post: name the site"):
        cache["embed"]
    with pytest.raises(ConfigError, match="holds no 'embed', but nothing"):
        ActivationCache({}, [1])["embed"]


def test_hook_names_and_sites_are_translated_both_ways() -> None:
    assert [site_of(each) for each in ("blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre", "hook_embed", "x.hook_q")] == [
        "embed", "blocks.1.resid.post", "embed", "x.hook_q",
    ]  # fmt: skip
    assert site_of("blocks.12.attn.hook_z") == "blocks.12.attn.mixed" and site_of("blocks.1.odd") == "blocks.1.odd"
    assert [hook_of(each) for each in ("embed", "blocks.3.attn.q", "blocks.3.resid.post", "norm", "blocks.1.mlp.in")] == [
        "embed", "blocks.3.attn.q", "blocks.3.hook_resid_post", "norm", "blocks.1.mlp.in",
    ]  # fmt: skip
    order = computed_order(tiny_model())
    assert order[0] == "embed" and order[-1] == "logits"
    block = [site.removeprefix("blocks.1.") for site in order if site.startswith("blocks.1.")]
    assert order.index("blocks.0.resid.post") + 1 == order.index(f"blocks.1.{block[0]}") and block[-2:] == [
        "mlp.out",
        "resid.post",
    ]
    assert block[0] == "attn.in" and block.index("attn.mixed") < block.index("attn.out") < block.index("resid.mid")


def test_ids_are_packed_or_refused_at_their_limits() -> None:
    model = tiny_model(max_position=4)
    ids, lengths = packed_ids(model, [[0, 95], [7]])
    assert ids.tolist() == [0, 95, 7] and lengths == [2, 1]
    assert packed_ids(model, torch.tensor([[1, 2], [3, 4]]))[1] == [2, 2] and packed_ids(model, [5, 6, 7, 8])[1] == [4]
    for texts, told in (
        ([], "a text has no tokens: give one token or more for each text"),
        ([[1], []], "a text has no tokens: give one token or more for each text"),
        ([[1, 96]], "token id 96 came, and the model has 96 tokens: use its own tokenizer"),
        ([[-1]], "token id -1 came, and the model has 96 tokens: use its own tokenizer"),
        ([[1], [1, 2, 3, 4, 5]], "a text has 5 tokens, and the model's context is 4: cut it"),
    ):
        with pytest.raises(DataError) as refused:
            packed_ids(model, texts)
        assert str(refused.value) == told


# -- lenses and patches --


def test_a_tuned_lens_translates_each_layer_by_its_own_map_and_begins_as_the_logit_lens() -> None:
    lens = TunedLens(4, 2)
    row = torch.tensor([[1.0, 2.0]])
    assert torch.equal(lens(2, row), row) and lens.matrices.shape == (3, 2, 2)
    lens.matrices.data[1] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    lens.biases.data[1] = torch.tensor([10.0, 20.0])
    assert lens(1, row).tolist() == [[1 + 7 + 10.0, 2 + 10 + 20.0]] and torch.equal(lens(0, row), row)


def test_the_first_step_of_a_tuned_lens_is_adams_on_the_kl_of_its_drawn_texts() -> None:
    model, texts = tiny_model(), [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
    lens = train_tuned_lens(model, texts, steps=1, batch=2, lr=1e-2, seed=3)
    assert all(weight.grad is None for weight in model.parameters())
    chosen = torch.randint(3, (2,), generator=torch.Generator().manual_seed(3)).tolist()
    cache = read_activations(model, [texts[i] for i in chosen], "blocks.*.resid.post")
    target = unembedded(model, cache["blocks.1.resid.post"]).log_softmax(-1).detach()
    matrix, bias = torch.zeros(32, 32, requires_grad=True), torch.zeros(32, requires_grad=True)
    first = cache["blocks.0.resid.post"]
    said = unembedded(model, first + first @ matrix + bias).log_softmax(-1)
    ((target.exp() * (target - said)).sum() / len(first)).backward()
    for found, wanted in ((lens.matrices[0], matrix.grad), (lens.biases[0], bias.grad)):
        assert wanted is not None
        # Adam's first step is the sign of the gradient times the learning rate
        sure = wanted.abs() > 1e-4
        torch.testing.assert_close(found.detach()[sure], -1e-2 * wanted.sign()[sure], atol=1e-5, rtol=1e-3)
    assert not lens.training
    twice = train_tuned_lens(model, texts, steps=2, batch=2, lr=1e-2, seed=3)
    moved = (twice.biases[0] - lens.biases[0]).detach().abs().max()
    assert 0 < float(moved) < 1e-2 * 0.9, "the rate falls: half of it is left for the second of two steps"


def test_a_lens_translates_every_layer_but_the_last() -> None:
    model, asked = tiny_model(), []

    def translate(layer: int, residual: Tensor) -> Tensor:
        asked.append(layer)
        return residual * 2 + 1

    found = logit_lens(model, [1, 2, 3], translate=translate)
    residual = run_with_cache(model, [1, 2, 3], "blocks.0.resid.post").cache["blocks.0.resid.post"]
    torch.testing.assert_close(found.logprobs[0], unembedded(model, residual * 2 + 1).log_softmax(-1))
    assert (
        asked == [0] and found.rank_of([int(found.logprobs[0, at].argmin()) for at in range(3)])[0].tolist() == [95] * 3
    )
    expect_layer(model, 0), expect_layer(model, 1)
    for layer in (-1, 2):
        with pytest.raises(ConfigError, match=f"layer {layer} came: this model has layers 0 to 1"):
            expect_layer(model, layer)


def test_a_patch_replaces_all_some_heads_or_one_position_and_no_more() -> None:
    old, new = torch.zeros(3, 4, 2), torch.arange(1.0, 25).reshape(3, 4, 2)
    assert torch.equal(replacing(new)(old), new) and old.abs().sum() == 0
    by_head = replacing(new, heads=[1, 3])(old)
    assert torch.equal(by_head[:, [1, 3]], new[:, [1, 3]]) and by_head[:, [0, 2]].abs().sum() == 0
    for position in (0, 1, 2, -1):
        found = replacing(new, position=position)(old)
        others = [at for at in range(3) if at != position % 3]
        assert torch.equal(found[position], new[position]) and found[others].abs().sum() == 0
    half = replacing(new, heads=[0])(old.bfloat16())
    assert (
        half.dtype == torch.bfloat16 and torch.equal(half[:, 0], new[:, 0].bfloat16()) and half[:, 1:].abs().sum() == 0
    )
    both = replacing(new, heads=[2], position=1)(old)
    assert torch.equal(both[1, 2], new[1, 2]) and int((both != 0).sum()) == 2
    with pytest.raises(ConfigError, match=r"a patch of shape \(3, 4, 2\) came for activations of \(2, 4, 2\)"):
        replacing(new)(old[:2])
    for part in (new[:, :, :1], new[:, :1], new[:1], new.reshape(3, 8)):
        with pytest.raises(ConfigError, match=rf"^a patch of shape \({part.shape[0]}, {part.shape[1]}"):
            replacing(part)(old)
    logits = torch.tensor([[1.0, 5.0, 2.0], [4.0, 0.5, 9.0]])
    assert logit_difference(2, 0)(logits) == 5.0 and logit_difference(1, 2, position=0)(logits) == 3.0


def test_paths_that_cannot_be_are_refused_by_their_ends() -> None:
    model, metric = tiny_model(), logit_difference(1, 2)
    for sender, receiver, into in (
        ((1, 0), (1, 0), "k"),
        ((-1, 0), (1, 0), "k"),
        ((0, 0), (2, 0), "k"),
        ((0, 0), (1, 0), "x"),
    ):
        with pytest.raises(ConfigError, match=f"a path from layer {sender[0]} to layer {receiver[0]} by '{into}' came"):
            path_patch(model, [1, 2], [1, 3], metric, sender=sender, receiver=receiver, into=into)
    for one, other in ((6, 0), (0, 6), (-1, 0)):
        with pytest.raises(
            ConfigError, match=f"the heads {one} and {other} came: this model has heads 0 to 5 in each layer"
        ):
            path_patch(model, [1, 2], [1, 3], metric, sender=(0, one), receiver=(1, other))
    path_patch(model, [1, 2], [1, 3], metric, sender=(0, 5), receiver=(1, 5))


# -- steering --


def test_a_study_gives_effect_and_cost_of_the_vector_and_of_a_random_one_of_its_length_and_seed() -> None:
    model, site, prompt, texts = tiny_model(), "blocks.0.resid.post", [1, 2, 3], [[4, 5, 6], [7, 8]]
    vector = torch.linspace(-1, 2, 32)
    metric = logit_difference(5, 9)
    rows = steering_study(
        model, site, vector, [choice_effect(model, prompt, metric)] * 2, texts, strengths=(0.5, -2), seed=7
    )
    noise = torch.randn(32, generator=torch.Generator().manual_seed(7))
    random = noise * vector.norm() / noise.norm()

    def loss(text: list[int], edits: dict[str, object]) -> float:
        logits = run_with_edits(model, text, edits)  # type: ignore[arg-type]
        return float(functional.cross_entropy(logits[:-1], torch.tensor(text[1:])))

    assert [row.strength for row in rows] == [0.5, -2]
    for row in rows:
        for pushed, effect, cost in ((vector, row.effect, row.cost), (random, row.random_effect, row.random_cost)):
            edits = {site: adding(pushed, row.strength)}
            moved = metric(run_with_edits(model, prompt, edits)) - metric(run_with_edits(model, prompt, {}))
            assert effect.value == pytest.approx(moved, abs=1e-4)
            costs = [loss(text, edits) - loss(text, {}) for text in texts]
            assert cost.value == pytest.approx(sum(costs) / 2, abs=1e-4) and cost.value != effect.value


def test_a_margin_is_the_log_prob_of_the_chosen_answer_less_that_of_the_rejected_one() -> None:
    model = tiny_model()
    pair = Pair(Answered([1, 2, 3, 4], 2), Answered([1, 2, 9], 1))
    one, other = (run_with_edits(model, each.ids, {}).log_softmax(-1) for each in pair)
    expected = float(one[1, 3] + one[2, 4]) - float(other[0, 2] + other[1, 9])
    assert margin_effect(model, pair)({}) == pytest.approx(expected, abs=1e-5) and math.isfinite(expected)
    turned = replace_pair(pair)
    assert margin_effect(model, turned)({}) == pytest.approx(-expected, abs=1e-5)


def replace_pair(pair: Pair) -> Pair:
    """The pair with its sides exchanged."""
    return Pair(pair.rejected, pair.chosen)
