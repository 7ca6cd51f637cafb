"""Lenses, direct attribution, patches and paths are those of their definitions, whatever the norm and the layers between."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from engine_tiny import tiny_model
from firsthand.errors import ConfigError, DataError
from firsthand.interp.activations import read_activations, run_with_cache, run_with_edits
from firsthand.interp.circuits.patching import Patch, _ends, activation_patches, path_patch
from firsthand.interp.lenses.direct_attribution import head_outputs, logit_shares
from firsthand.interp.lenses.logit_lens import LensReading, logit_lens, unembedded
from firsthand.interp.lenses.tuned_lens import TunedLens, train_tuned_lens
from firsthand.interp.model_look import look_at
from firsthand.nn.architecture import Architecture, LatentSettings, Rope
from firsthand.nn.decoder import Decoder, initialise

torch.set_num_threads(1)
SITE = "blocks.0.resid.post"


def test_a_tuned_lens_takes_adams_steps_on_the_kl_of_every_layer() -> None:
    architecture = Architecture(
        family="llama", vocab_size=20, hidden_size=8, intermediate_size=16, num_layers=3, num_heads=2, num_kv_heads=2,
        head_dim=4, max_position=16, norm_eps=1e-5, windows=(None,) * 3, ropes=(Rope(),) * 3, tie_embeddings=False,
    )  # fmt: skip
    model = initialise(Decoder(architecture), seed=2, std=0.4)
    texts = [[1, 2, 3], [4, 5], [6, 7, 8, 9], [10, 11]]
    found = train_tuned_lens(model, texts, steps=3, batch=9, lr=0.02, seed=6)
    assert all(weight.grad is None for weight in model.parameters())
    lens, generator = TunedLens(3, 8), torch.Generator().manual_seed(6)
    optimizer = torch.optim.Adam(lens.parameters(), lr=0.02)
    for step in range(3):
        chosen = torch.randint(4, (4,), generator=generator).tolist()
        cache = read_activations(model, [texts[i] for i in chosen], "blocks.*.resid.post")
        target = unembedded(model, cache["blocks.2.resid.post"]).log_softmax(-1).detach()
        loss = torch.zeros(())
        for layer in (0, 1):
            said = unembedded(model, lens(layer, cache[f"blocks.{layer}.resid.post"])).log_softmax(-1)
            loss = loss + (target.exp() * (target - said)).sum() / len(target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 3)
        optimizer.step()
    torch.testing.assert_close(found.matrices, lens.matrices, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(found.biases, lens.biases, atol=1e-5, rtol=1e-3)
    assert not found.training
    with pytest.raises(DataError) as refused:
        train_tuned_lens(model, [])
    assert str(refused.value) == "there is no text to tune a lens on: give one or more"
    translated = logit_lens(model, texts[2], translate=found).logprobs
    assert translated.shape == (3, 4, 20) and not translated.requires_grad
    for layer in (0, 1, 2):
        residual = run_with_cache(model, texts[2]).cache[f"blocks.{layer}.resid.post"]
        moved = residual if layer == 2 else found(layer, residual)
        torch.testing.assert_close(translated[layer], unembedded(model, moved).log_softmax(-1).detach())


def test_a_lens_ranks_and_measures_each_position_of_each_layer() -> None:
    rows = torch.tensor([[[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], [[0.2, 0.2, 0.6], [0.3, 0.3, 0.4]]])
    reading = LensReading(rows.log())
    assert reading.rank_of([1, 2]).tolist() == [[1, 0], [1, 0]] and reading.rank_of([0, 0]).tolist() == [[0, 2], [1, 1]]
    entropies = [[-sum(p * math.log(p) for p in row) for row in layer] for layer in rows.tolist()]
    torch.testing.assert_close(reading.entropy, torch.tensor(entropies))
    last = rows[-1].tolist()
    kl = [
        [sum(q * math.log(q / p) for p, q in zip(row, own, strict=True)) for row, own in zip(layer, last, strict=True)]
        for layer in rows.tolist()
    ]
    torch.testing.assert_close(reading.divergence, torch.tensor(kl), atol=1e-6, rtol=1e-5)
    ids, chances = reading.top(2)
    assert ids[0].tolist() == [[0, 1], [2, 1]] and ids[1, :, 0].tolist() == [2, 2]
    torch.testing.assert_close(chances[0], torch.tensor([[0.5, 0.3], [0.7, 0.2]]))
    sure = LensReading(torch.tensor([[[0.0, -math.inf]]]))
    assert sure.entropy.item() == 0
    even = LensReading(torch.full((1, 1, 100_000), -math.log(100_000)))
    assert even.entropy.item() == pytest.approx(math.log(100_000), rel=1e-3)


def varied(**changes: Any) -> Decoder:
    """The tiny model with changes of its architecture, and weights of norms that are not all alike."""
    model = initialise(Decoder(replace(tiny_model(tied=False).architecture, **changes)), seed=1, std=0.3)
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            weight.data.add_(torch.randn(weight.shape, generator=generator) * 0.3)
    return model


@pytest.mark.parametrize(
    "changes", [{"norm_unit_offset": True}, {"norm": "layer"}, {"norm": "layer_no_bias"}, {"o_bias": True}, {}]
)
def test_the_shares_of_all_parts_add_up_to_the_difference_whatever_the_norm(changes: dict[str, Any]) -> None:
    bias = changes.pop("o_bias", False)
    model = varied(**changes)
    if bias:
        for layer in model.layers:
            old = layer.attention.o_proj
            layer.attention.o_proj = torch.nn.Linear(old.in_features, old.out_features)
            layer.attention.o_proj.weight = old.weight
    text = [3, 14, 15, 92, 65]
    found = logit_shares(model, text, 7, 40)
    logits, cache = run_with_cache(model, text)
    assert found.difference == pytest.approx(float(logits[-1, 7] - logits[-1, 40]), abs=1e-5)
    assert sum(found.parts.values()) == pytest.approx(found.difference, abs=1e-3)
    assert ("norm.bias" in found.parts) == (changes.get("norm") == "layer")
    assert ("blocks.1.attn.bias" in found.parts) == bias
    # a part's share is linear in it: with the scale held, doubling a head adds its share once more
    end = cache["blocks.1.resid.post"][-1]
    layer_norm = changes.get("norm", "rms") != "rms"
    centred = end - end.mean() if layer_norm else end
    scale = (centred.square().mean() + 1e-5).rsqrt()
    weight = model.norm.weight + (1 if changes.get("norm_unit_offset") else 0)
    difference = model.lm_head.weight[7] - model.lm_head.weight[40]

    def share(part: Tensor) -> float:
        return float(((part - part.mean() if layer_norm else part) * scale * weight) @ difference)

    difference, weight = difference.detach(), weight.detach()
    assert found.parts["embed"] == pytest.approx(share(cache["embed"][-1]), abs=1e-4)
    heads, own = head_outputs(model, 1, cache["blocks.1.attn.mixed"][-1])
    assert heads.shape == (6, 32) and (own is not None) == bias
    torch.testing.assert_close(heads.sum(0) + (0 if own is None else own), cache["blocks.1.attn.out"][-1])
    for head in range(6):
        alone = model.layers[1].attention.o_proj.weight[:, 16 * head : 16 * head + 16]
        torch.testing.assert_close(heads[head], alone @ cache["blocks.1.attn.mixed"][-1, head])
        assert found.parts[f"blocks.1.head.{head}"] == pytest.approx(share(heads[head].detach()), abs=1e-4)
    assert found.parts["blocks.0.mlp"] == pytest.approx(share(cache["blocks.0.mlp.out"][-1]), abs=1e-4)
    for wrong in ({"norm_placement": "sandwich"}, {"logit_softcap": 30.0}):
        with pytest.raises(ConfigError) as refused:
            logit_shares(varied(**wrong), text, 7, 40)
        assert str(refused.value) == (
            "llama normalises what its layers add, caps its logits or mixes latents: direct attribution needs a sum of "
            "parts, so use patching"
        )


def test_models_that_keep_keys_in_latents_are_refused_by_name() -> None:
    latent = LatentSettings(rank=8, nope_dim=6, rope_dim=8, value_dim=5)
    architecture = replace(
        tiny_model().architecture, family="deepseek", num_kv_heads=1, head_dim=16, latent=latent, rotary_dim=8,
        windows=(None, None),
    )  # fmt: skip
    model = initialise(Decoder(architecture), seed=1, std=0.1)
    with pytest.raises(ConfigError) as looked:
        look_at(model, Numbers(), [1, 2])  # type: ignore[arg-type]
    assert str(looked.value) == "deepseek mixes keys in latents: its heads have no sites to look at"
    with pytest.raises(ConfigError, match="deepseek normalises what its layers add, caps its logits or mixes latents"):
        logit_shares(model, [1, 2], 3, 4)
    for count, told in ((1, "1 token"), (0, "0 tokens"), (129, "129 tokens")):
        with pytest.raises(ConfigError) as sized:
            look_at(tiny_model(), Numbers(), [1] * count)  # type: ignore[arg-type]
        assert str(sized.value) == f"the text has {told}: expected 2 to 128, which a page can show"


CLEAN, CORRUPTED = [3, 14, 15, 92], [3, 14, 51, 90]


def test_every_patch_is_named_in_order_and_restores_its_share() -> None:
    model = tiny_model()

    def metric(logits: Tensor) -> float:
        return float(logits[-1, 7] - 2 * logits[-1, 40])

    clean = run_with_cache(model, CLEAN)
    low, high = metric(run_with_cache(model, CORRUPTED, ()).logits), metric(clean.logits)

    def share(site: str, head: int | None, position: int | None) -> float:
        def put(values: Tensor) -> Tensor:
            new, values = clean.cache[site], values.clone()
            rows = slice(None) if position is None else slice(position, position + 1)
            if head is None:
                values[rows] = new[rows]
            else:
                values[rows, head] = new[rows, head]
            return values

        return (metric(run_with_edits(model, CORRUPTED, {site: put})) - low) / (high - low)

    whole = activation_patches(model, CLEAN, CORRUPTED, metric, ["norm", SITE, "blocks.0.hook_mlp_out"])
    assert whole == [
        Patch(site, None, None, pytest.approx(share(site, None, None), abs=1e-4))
        for site in ("blocks.0.mlp.out", SITE, "norm")
    ]
    assert [each.restored for each in whole[1:]] == pytest.approx([1, 1], abs=1e-4) and abs(
        whole[0].restored - 1
    ) > 0.01
    places = activation_patches(model, CLEAN, CORRUPTED, metric, "blocks.*.mlp.out", by_position=True)
    assert places == [
        Patch(f"blocks.{layer}.mlp.out", None, place,
              pytest.approx(share(f"blocks.{layer}.mlp.out", None, place), abs=1e-4))
        for layer in (0, 1) for place in range(4)
    ]  # fmt: skip
    by_head = activation_patches(model, CLEAN, CORRUPTED, metric, "blocks.1.attn.mixed", by_head=True)
    assert by_head == [
        Patch("blocks.1.attn.mixed", head, None, pytest.approx(share("blocks.1.attn.mixed", head, None), abs=1e-4))
        for head in range(6)
    ]
    with pytest.raises(ConfigError) as refused:
        activation_patches(model, CLEAN, CORRUPTED, metric, SITE, by_head=True)
    assert str(refused.value) == f"{SITE} has no heads: patch by head at attn.q, attn.k, attn.v or attn.mixed"
    for texts, told in (
        ((CLEAN, CORRUPTED[:3]), "the texts have 4 and 3 tokens: patching needs equal lengths"),
        ((CLEAN, CLEAN), f"the metric is {high:g} on both texts: choose texts on which the model behaves differently"),
    ):
        for patch in (
            lambda *given: activation_patches(model, *given, metric, SITE),
            lambda *given: path_patch(model, *given, metric, sender=(0, 0), receiver=(1, 0)),
        ):
            with pytest.raises(DataError) as wrong:
                patch(*texts)
            assert str(wrong.value) == told
    assert _ends([1], [2], 1.0, 1.0 + 2e-6) == (1.0, 1.0 + 2e-6) and _ends([1], [2], 3.0, 2.0) == (3.0, 2.0)
    with pytest.raises(DataError):
        _ends([1], [2], 1.0 + 9e-7, 1.0)


def test_a_path_skips_the_layers_between_by_keeping_their_heads_clean() -> None:
    architecture = replace(tiny_model().architecture, num_layers=4, windows=(None,) * 4, ropes=(Rope(),) * 4)
    model = initialise(Decoder(architecture), seed=3, std=0.3)

    def metric(logits: Tensor) -> float:
        return float(logits[-1, 7] - logits[-1, 40])

    clean, corrupted = (run_with_cache(model, text) for text in (CLEAN, CORRUPTED))
    high, low = metric(clean.logits), metric(corrupted.logits)
    for through_mlps in (True, False):
        site = "blocks.3.attn.v"
        sent = clean.cache["blocks.1.attn.mixed"].clone()
        sent[:, 2] = corrupted.cache["blocks.1.attn.mixed"][:, 2]
        edits: dict[str, Any] = {
            "blocks.1.attn.mixed": lambda values, sent=sent: sent,
            "blocks.2.attn.mixed": lambda values: clean.cache["blocks.2.attn.mixed"],
        }
        if not through_mlps:
            for layer in (1, 2):
                edits[f"blocks.{layer}.mlp.out"] = lambda v, layer=layer: clean.cache[f"blocks.{layer}.mlp.out"]
        received = clean.cache[site].clone()
        received[:, 1] = run_with_cache(model, CLEAN, site, edits=edits).cache[site][:, 1]
        patched = metric(run_with_edits(model, CLEAN, {site: lambda values, received=received: received}))
        found = path_patch(
            model, CLEAN, CORRUPTED, metric, sender=(1, 2), receiver=(3, 4), into="v", through_mlps=through_mlps
        )
        assert found == pytest.approx((high - patched) / (high - low), abs=1e-5) and abs(found) > 1e-6
    plain = path_patch(model, CLEAN, CORRUPTED, metric, sender=(0, 2), receiver=(3, 4))
    assert plain == path_patch(
        model, CLEAN, CORRUPTED, metric, sender=(0, 2), receiver=(3, 4), into="k", through_mlps=True
    )


class Numbers:
    def decode(self, ids: list[int], skip_special: bool) -> str:
        return f"<{ids[0]}>"


def test_a_look_keeps_layers_and_heads_apart_and_rounds_weights_to_bytes() -> None:
    model = varied(has_sinks=True)
    for layer, block in enumerate(model.layers):
        block.attention.sinks.data.fill_(-2.0 + 3 * layer)
    found = look_at(model, Numbers(), [5, 6, 7])  # type: ignore[arg-type]
    assert [(each.layer, each.head) for each in found.heads] == [(layer, head) for layer in (0, 1) for head in range(6)]
    assert found.model_layers == 2 and [len(each) for each in found.layers] == [6, 6]
    assert [len(each) for each in found.lens] == [3, 3] and [len(cell.top) for cell in found.lens[1]] == [5, 5, 5]
    reading = logit_lens(model, [5, 6, 7])
    for layer in (0, 1):
        for at in range(3):
            best = reading.logprobs[layer, at].topk(5)
            cell = found.lens[layer][at]
            assert [word for word, _ in cell.top] == [f"<{id}>" for id in best.indices.tolist()]
            assert [chance for _, chance in cell.top] == pytest.approx(best.values.exp().tolist())
    assert found.heads[0].to_first != found.heads[6].to_first


def test_a_lens_of_a_model_with_one_layer_is_refused() -> None:
    a = tiny_architecture_of(1)
    with pytest.raises(ConfigError, match="the model has one layer, and the last is never tuned: use the logit lens"):
        train_tuned_lens(initialise(Decoder(a), seed=0, std=0.3), [[1, 2, 3]], steps=2)
    assert len(train_tuned_lens(initialise(Decoder(tiny_architecture_of(2)), seed=0, std=0.3), [[1, 2, 3]]).biases) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lenses_and_shares_of_half_precision_models_are_those_of_float32_within_its_rounding(
    dtype: torch.dtype,
) -> None:
    wide = initialise(Decoder(tiny_architecture_of(3)), seed=2, std=0.4)
    narrow = initialise(Decoder(tiny_architecture_of(3)), seed=2, std=0.4).to(dtype)
    text = [1, 2, 3, 4]
    for model in (wide, narrow):
        layer = model.layers[1].attention
        torch.manual_seed(0)
        bias = torch.nn.Parameter(torch.randn(8).to(layer.o_proj.weight.dtype))
        layer.o_proj.bias = bias
    expected, found = (logit_shares(model, text, 5, 9) for model in (wide, narrow))
    assert set(found.parts) == set(expected.parts) and "blocks.1.attn.bias" in found.parts
    for name, share in expected.parts.items():
        assert found.parts[name] == pytest.approx(share, abs=0.1), name
    assert sum(found.parts.values()) == pytest.approx(found.difference, abs=0.1)
    assert logit_lens(narrow, text, translate=TunedLens(3, 8)).logprobs.equal(logit_lens(narrow, text).logprobs)
    texts = [[1, 2, 3], [4, 5], [6, 7, 8, 9], [10, 11]]
    tuned, tuned_wide = (train_tuned_lens(model, texts, steps=60, lr=0.02) for model in (narrow, wide))
    assert tuned.matrices.dtype == torch.float32

    def loss(lens: TunedLens | None) -> float:
        with torch.no_grad():
            return float(sum(logit_lens(wide, each, translate=lens).divergence.mean() for each in texts))

    assert loss(tuned) < 0.6 * loss(None) and loss(tuned) == pytest.approx(loss(tuned_wide), rel=0.3)


def tiny_architecture_of(layers: int) -> Architecture:
    return Architecture(
        family="llama", vocab_size=20, hidden_size=8, intermediate_size=16, num_layers=layers, num_heads=2,
        num_kv_heads=2, head_dim=4, max_position=16, norm_eps=1e-5, windows=(None,) * layers, ropes=(Rope(),) * layers,
        tie_embeddings=False,
    )  # fmt: skip
