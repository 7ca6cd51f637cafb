"""Activations by name: equal to transformers' hooks on GPT-2, edited where asked, and left alone when the context ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine_tiny import drain, tiny_model, tokens
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Request
from firsthand.errors import ConfigError, DataError
from firsthand.interp.activations import (
    attention_weights,
    computed_order,
    hook_of,
    read_activations,
    run_with_cache,
    run_with_edits,
    site_of,
    tapped,
)
from firsthand.model import Sampling
from firsthand.nn.decoder import Decoder
from firsthand.nn.weights import load

torch.set_num_threads(1)
IDS = [3, 14, 15, 92, 65, 35, 89, 79, 32, 38]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, Decoder]:
    """A tiny random GPT-2: transformers' model, and ours with its weights."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=96, n_embd=32, n_layer=3, n_head=4, n_positions=64, initializer_range=0.3,
        attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    folder: Path = tmp_path_factory.mktemp("gpt2")
    theirs.save_pretrained(folder)
    return theirs, load(folder)


@pytest.mark.slow
def test_the_cache_holds_what_hooks_on_transformers_gpt2_see(gpt2: tuple[object, Decoder]) -> None:
    theirs, ours = gpt2
    expected: dict[str, Tensor] = {}

    def output_of(name: str) -> object:
        return lambda module, inputs, output: expected.update(
            {name: output[0] if isinstance(output, tuple) else output}
        )

    hooks = []
    for i, block in enumerate(theirs.transformer.h):  # type: ignore[attr-defined]
        hooks += [
            block.register_forward_hook(output_of(f"blocks.{i}.hook_resid_post")),
            block.attn.register_forward_hook(output_of(f"blocks.{i}.hook_attn_out")),
            block.mlp.register_forward_hook(output_of(f"blocks.{i}.hook_mlp_out")),
            block.ln_1.register_forward_hook(output_of(f"blocks.{i}.attn.in")),
            block.mlp.act.register_forward_hook(output_of(f"blocks.{i}.mlp.hook_post")),
        ]
    with torch.no_grad():
        out = theirs(torch.tensor([IDS]), output_attentions=True)  # type: ignore[operator]
    for hook in hooks:
        hook.remove()
    logits, cache = run_with_cache(ours, IDS)
    torch.testing.assert_close(logits, out.logits[0], atol=1e-4, rtol=1e-4)
    assert len(expected) == 15
    for name, values in expected.items():
        torch.testing.assert_close(cache[name], values[0], atol=1e-4, rtol=1e-4, msg=name)
    for layer in range(3):
        torch.testing.assert_close(
            attention_weights(ours, cache, layer), out.attentions[layer][0], atol=1e-5, rtol=1e-5
        )


def test_an_edit_equals_the_same_edit_by_a_hook_on_transformers_gpt2(gpt2: tuple[object, Decoder]) -> None:
    theirs, ours = gpt2
    direction = torch.linspace(-1, 1, 32)
    hook = theirs.transformer.h[
        1
    ].register_forward_hook(  # type: ignore[attr-defined]
        lambda module, inputs, output: (
            (output[0] + direction, *output[1:]) if isinstance(output, tuple) else output + direction
        )
    )
    with torch.no_grad():
        expected = theirs(torch.tensor([IDS])).logits[0]  # type: ignore[operator]
    hook.remove()
    edited = run_with_edits(ours, IDS, {"blocks.1.hook_resid_post": lambda values: values + direction})
    torch.testing.assert_close(edited, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(edited, run_with_cache(ours, IDS, ()).logits, atol=1e-2)


def test_several_texts_are_run_together_and_each_sees_itself_alone() -> None:
    model = tiny_model()
    _, cache = run_with_cache(model, [IDS, IDS[:4], IDS[2:]], "blocks.*.resid.post")
    assert list(cache) == ["blocks.0.resid.post", "blocks.1.resid.post"] and cache.lengths == (10, 4, 8)
    alone = run_with_cache(model, IDS[2:], "blocks.1.resid.post").cache
    torch.testing.assert_close(cache.of_text("blocks.1.resid.post", 2), alone["blocks.1.resid.post"])
    assert cache.last.tolist() == [9, 13, 21]
    assert attention_weights(model, run_with_cache(model, [IDS, IDS[:4]]).cache, 0, 1).shape == (6, 4, 4)


def test_reading_stops_after_the_last_site_and_reads_the_same() -> None:
    model = tiny_model()
    seen: list[int] = []
    model.layers[1].register_forward_pre_hook(lambda *_: seen.append(1))
    for site in ("embed", "blocks.0.mlp.act", "blocks.0.attn.in", "blocks.0.resid.post"):
        torch.testing.assert_close(
            read_activations(model, IDS, site)[site], run_with_cache(model, IDS, site).cache[site], rtol=0, atol=0
        )
    assert len(seen) == 4, "the second layer ran for run_with_cache alone"
    both = read_activations(model, IDS, ["blocks.0.attn.q", "norm"])
    assert set(both) == {"blocks.0.attn.q", "norm"} and len(seen) == 5
    assert computed_order(model)[1] == "blocks.0.attn.in" and computed_order(model)[-1] == "logits"


def test_what_is_cached_is_a_copy_taken_after_the_edits() -> None:
    model = tiny_model()
    _, cache = run_with_cache(model, IDS, "blocks.0.mlp.out", edits={"blocks.0.mlp.out": torch.zeros_like})
    assert cache["blocks.0.mlp.out"].abs().max() == 0
    live: list[Tensor] = []
    _, kept = run_with_cache(model, IDS, "blocks.0.mlp.out", edits={"blocks.0.mlp.out": live.append})
    live[0].zero_()
    assert kept["blocks.0.mlp.out"].abs().max() > 0
    with tapped(model, {"blocks.0.resid.post": lambda values: values.mul_(0)}):
        kept = run_with_cache(model, IDS, ["blocks.0.mlp.out", "blocks.0.resid.mid"]).cache
    torch.testing.assert_close(
        kept["blocks.0.resid.mid"], run_with_cache(model, IDS, "blocks.0.resid.mid").cache["blocks.0.resid.mid"]
    )


def test_a_context_taps_every_call_nests_and_always_resets() -> None:
    model = tiny_model()
    plain = run_with_cache(model, IDS, ()).logits
    order: list[str] = []
    with pytest.raises(ZeroDivisionError), tapped(model, {"blocks.0.mlp.out": lambda v: order.append("outer")}):
        with tapped(model, {"blocks.0.mlp.out": lambda v: order.append("inner") or torch.zeros_like(v)}):
            changed = run_with_edits(model, IDS, {"blocks.0.mlp.out": lambda v: order.append("call")})
        assert order == ["outer", "inner", "call"] and not torch.equal(changed, plain)
        assert torch.equal(run_with_cache(model, IDS, ()).logits, plain)
        raise ZeroDivisionError
    assert torch.equal(run_with_cache(model, IDS, ()).logits, plain) and order[3:] == ["outer"]
    assert not {"forward", "logits", "_open_taps"} & model.__dict__.keys()
    with tapped(model, {"logits": torch.zeros_like}):
        assert run_with_cache(model, IDS, ()).logits.abs().max() == 0


def test_contexts_that_close_in_another_order_leave_nothing_behind() -> None:
    model = tiny_model()
    plain = run_with_cache(model, IDS, ()).logits
    one, two = tapped(model, {"norm": torch.zeros_like}), tapped(model, {"logits": lambda v: v + 1})
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    torch.testing.assert_close(run_with_cache(model, IDS, ()).logits, plain + 1)
    two.__exit__(None, None, None)
    assert torch.equal(run_with_cache(model, IDS, ()).logits, plain)


def test_an_engine_answers_as_before_when_its_context_ends() -> None:
    engine = Engine(tiny_model().to(torch.bfloat16), EngineConfig(kv_memory_bytes=1 << 20))

    def answer() -> tuple[int, ...]:
        engine.add(Request(tuple(IDS), Sampling(max_tokens=6)))
        return tokens(next(iter(drain(engine).values())))

    plain = answer()
    with tapped(engine, {"blocks.0.hook_mlp_out": torch.zeros_like}):
        assert answer() != plain
        with pytest.raises(ConfigError, match="has taps already"), tapped(engine, {}):
            pass
    assert answer() == plain and engine.runner.taps is None


def test_mistakes_are_one_sentence_with_the_nearest_name() -> None:
    model = tiny_model()
    with pytest.raises(ConfigError, match=r"no activation site 'blocks.1.resid.pots'.*mean 'blocks.1.resid.post'"):
        run_with_cache(model, IDS, "blocks.1.resid.pots")
    with pytest.raises(ConfigError, match=r"no activation site matches 'blocks.9\*'"):
        run_with_cache(model, IDS, "blocks.9*")
    with pytest.raises(ConfigError, match="did you mean 'norm'"), tapped(model, {"norms": torch.zeros_like}):
        pass
    assert "_open_taps" not in model.__dict__
    with pytest.raises(ConfigError, match=r"the cache holds no 'norm', but blocks.0.mlp.out"):
        run_with_cache(model, IDS, "blocks.0.mlp.out").cache["norm"]
    with pytest.raises(DataError, match="token id 96 came, and the model has 96 tokens"):
        run_with_cache(model, [95, 96])
    with pytest.raises(DataError, match="a text has no tokens"):
        run_with_cache(model, [[1], []])
    with pytest.raises(DataError, match="257 tokens, and the model's context is 256"):
        run_with_cache(model, [1] * 257)


def test_hook_names_of_transformerlens_and_ours_stand_for_each_other() -> None:
    assert site_of("blocks.3.hook_resid_pre") == "blocks.2.resid.post" and site_of("blocks.0.hook_resid_pre") == "embed"
    assert (
        site_of("blocks.3.attn.hook_z") == "blocks.3.attn.mixed" and site_of("blocks.3.mlp.act") == "blocks.3.mlp.act"
    )
    for site in tiny_model().sites():
        assert site_of(hook_of(site)) == site
