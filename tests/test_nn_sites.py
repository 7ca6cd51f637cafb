"""Taps see what transformers' own modules pass on, replace it where they say so, and the engine goes on with that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adapters_tiny import adapter as random_adapter
from engine_tiny import drain, logprobs, tiny_model, tokens
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Request
from firsthand.errors import ConfigError
from firsthand.model import Sampling
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder
from firsthand.nn.weights import load

torch.set_num_threads(1)
IDS = [3, 14, 15, 92, 65, 35, 89, 79, 32, 38]
TOLERANCE = 1e-4
"""Between log-probs of the compiled step and of modules, with float32 weights, keys and values."""


def run(model: Decoder, taps: dict[str, object]) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        hidden = model(torch.tensor(IDS), torch.arange(len(IDS)), Packed([len(IDS)]), taps=taps)
        return hidden, model.logits(hidden, taps=taps)


def test_taps_see_what_transformers_computes(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    expected: dict[str, Tensor] = {}

    def keep(site: str) -> object:
        return lambda module, inputs, output: expected.update(
            {site: output[0] if isinstance(output, tuple) else output}
        )

    def keep_input(site: str) -> object:
        return lambda module, inputs: expected.update({site: inputs[0]})

    inner = theirs.model
    inner.embed_tokens.register_forward_hook(keep("embed"))
    inner.norm.register_forward_hook(keep("norm"))
    theirs.lm_head.register_forward_hook(keep("logits"))
    for i, layer in enumerate(inner.layers):
        layer.register_forward_hook(keep(f"blocks.{i}.resid.post"))
        layer.mlp.register_forward_hook(keep(f"blocks.{i}.mlp.out"))
        layer.mlp.down_proj.register_forward_pre_hook(keep_input(f"blocks.{i}.mlp.act"))
        layer.self_attn.register_forward_hook(keep(f"blocks.{i}.attn.out"))
        layer.self_attn.o_proj.register_forward_pre_hook(keep_input(f"blocks.{i}.attn.mixed"))
        layer.input_layernorm.register_forward_hook(keep(f"blocks.{i}.attn.in"))
        layer.post_attention_layernorm.register_forward_hook(keep(f"blocks.{i}.mlp.in"))
        layer.post_attention_layernorm.register_forward_pre_hook(keep_input(f"blocks.{i}.resid.mid"))
    with torch.no_grad():
        theirs(torch.tensor([IDS]))
    ours = load(tmp_path)
    seen: dict[str, Tensor] = {}
    run(ours, {site: lambda values, site=site: seen.update({site: values}) for site in ours.sites()})
    assert expected.keys() == {site for site in seen if not site.endswith((".q", ".k", ".v"))}
    for site, values in expected.items():
        torch.testing.assert_close(seen[site].flatten(1), values[0].flatten(1), atol=1e-5, rtol=1e-5, msg=site)
    assert seen["blocks.2.attn.q"].shape == (10, 4, 8) and seen["blocks.2.attn.k"].shape == (10, 2, 8)


def test_what_a_tap_returns_takes_the_place_of_what_it_saw() -> None:
    model = tiny_model()
    plain, _ = run(model, {})
    for site in model.sites()[:-2]:
        changed, _ = run(model, {site: lambda values: values * 1.5 + 0.1})
        assert not torch.allclose(changed, plain, atol=1e-4), site
    _, zeros = run(model, {"logits": torch.zeros_like})
    assert zeros.abs().max() == 0
    patched, _ = run(model, {"blocks.1.attn.out": torch.zeros_like, "blocks.1.mlp.out": torch.zeros_like})
    before: list[Tensor] = []
    run(model, {"blocks.0.resid.post": before.append})
    torch.testing.assert_close(patched, model.norm(before[0]))


def test_looking_changes_no_bit() -> None:
    model = tiny_model()
    hidden, logits = run(model, {})
    looked, scores = run(model, {site: lambda values: None for site in model.sites()})
    assert torch.equal(hidden, looked) and torch.equal(logits, scores)


def test_unknown_sites_and_misfits_are_refused() -> None:
    model = tiny_model()
    with pytest.raises(ConfigError, match=r"site 'blocks.1.atn.out' in this model; did you mean 'blocks.1.attn.out'"):
        run(model, {"blocks.1.atn.out": lambda values: None})
    with pytest.raises(ConfigError, match=r"no activation site 'blocks.2.mlp.out'"):
        run(model, {"blocks.2.mlp.out": lambda values: None})
    with pytest.raises(ConfigError, match=r"the tap on blocks.0.mlp.out returned \(1, 32\) .*expected \(10, 32\)"):
        run(model, {"blocks.0.mlp.out": lambda values: values[:1]})
    engine = Engine(tiny_model(), EngineConfig(kv_memory_bytes=1 << 20))
    with pytest.raises(ConfigError, match="did you mean 'norm'"):
        engine.tap({"norms": lambda values: None})
    assert engine.stats().not_compiled is None


CONFIG = EngineConfig(
    kv_memory_bytes=1 << 20, weights="float32", kv_cache="float32", max_sequences=4, max_batch_tokens=7
)


def answers(engine: Engine, **more: object) -> tuple[list[tuple[int, ...]], list[tuple[float, ...]]]:
    for cut in (10, 6):
        engine.add(Request(tuple(IDS[:cut]), Sampling(max_tokens=8), **more))  # type: ignore[arg-type]
    outputs = drain(engine)
    return [tokens(each) for _, each in sorted(outputs.items())], [
        logprobs(each) for _, each in sorted(outputs.items())
    ]


@pytest.mark.parametrize("adapter", [None, "a"])
def test_an_engines_answers_stay_while_taps_look_and_change_when_they_replace(adapter: str | None) -> None:
    pytest.importorskip("numba")
    engine = Engine(tiny_model(), CONFIG)
    engine.load_adapter("a", random_adapter(tiny_model(), 1))
    assert engine.runner.is_compiled
    plain_ids, plain = answers(engine, adapter=adapter)
    rows: list[int] = []
    engine.tap({"blocks.1.resid.post": lambda values: rows.append(len(values))})
    assert not engine.runner.is_compiled and engine.stats().not_compiled == "taps are set"
    looked_ids, looked = answers(engine, adapter=adapter)
    assert looked_ids == plain_ids
    for one, other in zip(looked, plain, strict=True):
        assert one == pytest.approx(other, abs=TOLERANCE)
    assert sum(rows) >= 16 + 2 * 7 and max(rows) > 2, "prompts are computed anew, and packed"
    engine.tap({"blocks.0.mlp.out": torch.zeros_like})
    replaced_ids, _ = answers(engine, adapter=adapter)
    assert replaced_ids != plain_ids
    engine.tap(None)
    assert answers(engine, adapter=adapter) == (plain_ids, plain), "nothing that a tap replaced stays in the cache"


def test_a_model_that_is_not_compiled_has_taps_too() -> None:
    engine = Engine(tiny_model().to(torch.bfloat16), replace(CONFIG, kv_cache="auto", graphs="on"))
    plain_ids, _ = answers(engine)
    seen: list[Tensor] = []
    engine.tap({"logits": lambda values: seen.append(values)})
    assert answers(engine)[0] == plain_ids and seen[0].dtype == torch.float32
    engine.tap({"logits": lambda values: values.roll(1, -1)})
    assert answers(engine)[0] != plain_ids
