"""TransformerLens's hook names stand for sites where the tensors are equal, and are refused by name where they are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine_tiny import tiny_engine, tiny_model
from firsthand.errors import ConfigError
from firsthand.interp.activations import hook_of, read_activations, run_with_edits, site_of, tapped
from firsthand.interp.monitor_fitting import fit_monitor
from firsthand.interp.saes.sae_evaluation import measure_sae
from firsthand.interp.saes.sae_files import SavedSae, read_sae, save_sae
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.nn.architecture import Rope
from firsthand.nn.decoder import Decoder, initialise

IDS = [3, 14, 15, 9, 26]
NO_ROPES = (Rope(kind="none"),) * 2
GPT2 = {"ropes": NO_ROPES, "learned_positions": 256}
GEMMA = {"norm_placement": "sandwich"}
OLMO = {"norm_placement": "post", "qk_norm": True, "qk_norm_over": "projection"}


def model_of(**changes: Any) -> Decoder:
    return initialise(Decoder(replace(tiny_model().architecture, **changes)), std=0.3)


@pytest.mark.parametrize(
    ("changes", "same", "other"),
    [
        ({}, ("hook_embed", "attn.hook_rot_q", "attn.hook_rot_k", "hook_attn_out", "hook_mlp_out"),
         ("attn.hook_q", "attn.hook_k")),
        (GPT2, ("attn.hook_q", "attn.hook_k", "hook_attn_out", "hook_mlp_out"),
         ("hook_embed", "attn.hook_rot_q", "attn.hook_rot_k")),
        (GEMMA, ("hook_embed", "attn.hook_rot_k"), ("hook_attn_out", "hook_mlp_out", "attn.hook_q")),
        (OLMO, ("hook_embed", "attn.hook_rot_q"), ("hook_attn_out", "hook_mlp_out", "attn.hook_k")),
        ({"ropes": NO_ROPES, "qk_norm": True}, ("attn.hook_v",), ("attn.hook_q", "attn.hook_k")),
        ({"ropes": NO_ROPES, "embed_norm": True}, ("attn.hook_q",), ("hook_embed",)),
    ],
)  # fmt: skip
def test_a_hook_name_is_translated_where_the_tensor_is_the_same(
    changes: dict[str, Any], same: tuple[str, ...], other: tuple[str, ...]
) -> None:
    model = model_of(**changes)

    def name(hook: str) -> str:
        return hook if hook == "hook_embed" else f"blocks.1.{hook}"

    for hook in map(
        name, (*same, "hook_resid_mid", "hook_resid_post", "hook_resid_pre", "attn.hook_z", "mlp.hook_post")
    ):
        cache = read_activations(model, IDS, hook)
        assert list(cache) == [site_of(hook)] and torch.equal(cache[hook], cache[site_of(hook)])
        if not hook.endswith("resid_pre"):
            assert hook_of(site_of(hook), model.architecture) == hook
    for hook in map(name, other):
        site = site_of(hook)
        assert site != hook and hook_of(site, model.architecture) != hook
        cache = read_activations(model, IDS, site)  # our own name is understood as ever
        for refused in (
            lambda hook=hook: read_activations(model, IDS, hook), lambda hook=hook, cache=cache: cache[hook],
            lambda hook=hook: run_with_edits(model, IDS, {hook: lambda values: None}),
            lambda hook=hook: tapped(model, {hook: lambda values: None}).__enter__(),
        ):  # fmt: skip
            with pytest.raises(ConfigError, match="is another tensor in TransformerLens than any site of this model"):
                refused()


def test_layers_without_rotation_have_the_plain_names() -> None:
    model = model_of(ropes=(Rope(), Rope(kind="none")))
    assert list(read_activations(model, IDS, ["blocks.0.attn.hook_rot_q", "blocks.1.attn.hook_q"])) == [
        "blocks.0.attn.q", "blocks.1.attn.q",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"'blocks.0.attn.hook_q' .*: 'blocks.0.attn.q' has head norms or rotation"):
        read_activations(model, IDS, "blocks.0.attn.hook_q")
    with pytest.raises(ConfigError, match=r"'blocks.1.attn.hook_rot_k' .*: 'blocks.1.attn.k' is not rotated"):
        read_activations(model, IDS, "blocks.1.attn.hook_rot_k")
    with pytest.raises(ConfigError, match=r"no activation site 'blocks.9.attn.q'"):
        read_activations(model, IDS, "blocks.9.attn.hook_q")


def test_an_engine_refuses_them_too() -> None:
    engine = tiny_engine()
    with (
        pytest.raises(ConfigError, match="is another tensor"),
        tapped(engine, {"blocks.0.attn.hook_q": lambda v: None}),
    ):
        pass


def test_an_autoencoder_of_another_tensor_is_refused_and_ours_is_written_under_a_true_name(tmp_path: Path) -> None:
    import json

    sae, texts = sae_of("relu", 32, 48, seed=1), [IDS, IDS[::-1]]
    site = "blocks.1.mlp.out"
    folder = save_sae(SavedSae(sae, "m", site), tmp_path / "sae")
    config = json.loads((folder / "cfg.json").read_text())
    assert config["metadata"]["hook_name"] == site, "the hook's name depends on a model that is not known"
    assert read_sae(folder).site == site and measure_sae(read_sae(folder), model_of(**GEMMA), texts).tokens == 8
    config["metadata"] = {"model_name": "m", "hook_name": "blocks.1.hook_mlp_out"}
    (folder / "cfg.json").write_text(json.dumps(config))
    theirs = read_sae(folder)
    assert theirs.site == site and measure_sae(theirs, model_of(), texts).tokens == 8
    with pytest.raises(ConfigError, match=r"'blocks.1.hook_mlp_out' is another tensor in TransformerLens"):
        measure_sae(theirs, model_of(**GEMMA), texts)
    again = json.loads((save_sae(theirs, tmp_path / "again") / "cfg.json").read_text())
    assert again["metadata"]["hook_name"] == "blocks.1.hook_mlp_out"
    for ours, hook in (("resid.post", "hook_resid_post"), ("attn.q", "attn.q"), ("attn.v", "attn.hook_v")):
        assert hook_of(f"blocks.0.{ours}") == f"blocks.0.{hook}"
    assert hook_of("embed") == "embed" and hook_of("norm", model_of().architecture) == "norm"


@pytest.mark.parametrize("site", ["blocks.1.attn.mixed", "blocks.1.attn.q", "logits"])
def test_a_monitor_of_heads_or_logits_is_refused(site: str) -> None:
    texts = [[index, index + 1] for index in range(40)]
    with pytest.raises(ConfigError, match=f"^{site} has no vector of activations for each token: give a site such as"):
        fit_monitor(model_of(), texts[:20], texts[20:], site, name="m")
