"""Taps that open and close, sites of many layers, and attention weights of scaled, capped, windowed and biased heads."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from engine_tiny import tiny_model
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError
from firsthand.interp.activations import (
    ActivationCache,
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
    tapped,
)
from firsthand.interp.circuits.induction_model import attention_only
from firsthand.nn.decoder import Decoder, initialise

torch.set_num_threads(1)
IDS = [3, 14, 15, 92, 65]


def varied(**changes: Any) -> Decoder:
    """The tiny model with changes of its architecture."""
    model = initialise(Decoder(replace(tiny_model().architecture, **changes)), seed=1, std=0.3)
    for layer in model.layers:
        if layer.attention.sinks is not None:
            layer.attention.sinks.data.copy_(torch.linspace(-1, 2, 6))
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_scale": 0.11}, {"windows": (3, None)}, {"attention_softcap": 0.8}, {"has_sinks": True},
        {"alibi_slopes": (0.5, 0.25, 0.125, 1.0, 0.75, 2.0)},
    ],
)  # fmt: skip
def test_attention_weights_are_the_softmax_of_what_the_model_adds_to_its_scores(changes: dict[str, Any]) -> None:
    model = varied(**changes)
    cache = run_with_cache(model, [[7, 8], IDS], ["blocks.*.attn.q", "blocks.*.attn.k"]).cache
    scale, cap = changes.get("attention_scale", 0.25), changes.get("attention_softcap")
    for layer in (0, 1):
        q, k = (cache[f"blocks.{layer}.attn.{name}"][2:] for name in "qk")
        found = attention_weights(model, cache, layer, 1)
        assert found.shape == (6, 5, 5)
        for head in range(6):
            for row in range(5):
                first = max(0, row - 2) if "windows" in changes and layer == 0 else 0
                scores = [scale * float(q[row, head] @ k[at, head // 3]) for at in range(first, row + 1)]
                if cap:
                    scores = [cap * math.tanh(score / cap) for score in scores]
                if "alibi_slopes" in changes:
                    slope = changes["alibi_slopes"][head]
                    scores = [score - slope * (row - first - at) for at, score in enumerate(scores)]
                shares = [math.exp(score) for score in scores]
                sink = math.exp(-1 + 3 * head / 5) if "has_sinks" in changes else 0.0
                expected = [0.0] * first + [share / (sum(shares) + sink) for share in shares] + [0.0] * (4 - row)
                assert found[head, row].tolist() == pytest.approx(expected, abs=1e-5)


def test_two_contexts_with_the_same_taps_close_one_at_a_time() -> None:
    model, taps = tiny_model(), {"logits": lambda values: values + 1}
    plain = run_with_cache(model, IDS, ()).logits
    with tapped(model, taps):
        with tapped(model, taps):
            torch.testing.assert_close(run_with_cache(model, IDS, ()).logits, plain + 2)
        torch.testing.assert_close(run_with_cache(model, IDS, ()).logits, plain + 1)
        assert len(model.__dict__["_open_taps"]) == 1
        with pytest.raises(ConfigError) as refused:
            model.logits(torch.zeros(1, 32), taps=model.checked({}))
        assert str(refused.value) == ("taps were validated outside of this context: pass the mapping of taps itself")
        hidden = torch.ones(2, 32)
        torch.testing.assert_close(
            model.logits(hidden, taps={"logits": lambda values: values * 3}),
            (type(model).logits(model, hidden) + 1) * 3,  # the context's tap comes before the call's
        )
    assert (
        torch.equal(run_with_cache(model, IDS, ()).logits, plain)
        and not {"forward", "logits", "_open_taps"} & model.__dict__.keys()
    )
    with (
        pytest.raises(ConfigError, match=r"no activation site 'blocks\.2\.resid\.post'"),
        tapped(model, {"blocks.2.hook_resid_post": torch.zeros_like}),
    ):
        pass
    with tapped(model, {"blocks.1.hook_resid_pre": torch.zeros_like}):
        zeroed = run_with_cache(model, IDS, ["blocks.0.resid.post", "blocks.1.attn.in"]).cache
    assert zeroed["blocks.0.resid.post"].abs().max() == zeroed["blocks.1.attn.in"].abs().max() == 0


def test_an_engine_takes_hook_names_and_is_free_again_after_an_error() -> None:
    engine = Engine(tiny_model(), EngineConfig(weights="float32", kv_cache="float32", kv_memory_bytes=1 << 20))
    with pytest.raises(ZeroDivisionError), tapped(engine, {"blocks.1.hook_resid_pre": torch.zeros_like}):
        assert engine.runner.taps is not None
        with pytest.raises(ConfigError) as refused, tapped(engine, {}):
            pass
        assert str(refused.value) == (
            "this engine has taps already: close their context first, or pass all taps to one"
        )
        raise ZeroDivisionError
    assert engine.runner.taps is None
    with pytest.raises(ConfigError, match="no activation site 'norms'"), tapped(engine, {"norms": torch.zeros_like}):
        pass
    assert engine.runner.taps is None


def test_sites_of_more_than_ten_layers_are_in_the_order_of_their_numbers() -> None:
    model = attention_only(layers=12, hidden=8, heads=2)
    order = computed_order(model)
    layers = [int(site.split(".")[1]) for site in order[1:-2]]
    assert layers == sorted(layers) and layers[-1] == 11 and [order[0], *order[-2:]] == ["embed", "norm", "logits"]
    assert order[1:12] == [
        f"blocks.0.{name}"
        for name in (
            "attn.in", "attn.q", "attn.k", "attn.v", "attn.mixed", "attn.out", "resid.mid", "mlp.in", "mlp.act",
            "mlp.out", "resid.post",
        )
    ]  # fmt: skip
    seen: list[int] = []
    for number in (2, 10, 11):
        model.layers[number].register_forward_pre_hook(lambda *_, number=number: seen.append(number))
    ids = [1, 2, 3]
    both = read_activations(model, ids, ["blocks.10.resid.post", "blocks.9.resid.post"])
    assert seen == [2, 10] and list(both) == ["blocks.9.resid.post", "blocks.10.resid.post"]
    whole = run_with_cache(model, ids).cache
    for site in both:
        assert torch.equal(both[site], whole[site])
    assert site_of("blocks.11.hook_resid_pre") == "blocks.10.resid.post"
    assert site_of("blocks.1.hook_resid_pre") == "blocks.0.resid.post"
    assert sites_matching(model, "blocks.1?.resid.post") == (
        "blocks.10.resid.post", "blocks.11.resid.post",
    )  # fmt: skip


def test_a_reading_of_no_site_is_empty_and_edits_reach_those_that_are_read() -> None:
    model, texts = tiny_model(), [[1, 2, 3], [4]]
    for ask in (sites_matching, lambda model, site: read_activations(model, texts, ["embed", site])):
        with pytest.raises(
            ConfigError, match=r"no activation site 'blocks\.2\.resid\.post' in this model; did you mean"
        ):
            ask(model, "blocks.2.hook_resid_post")
    empty = read_activations(model, texts, ())
    assert dict(empty) == {} and empty.lengths == (3, 1) and empty.last.tolist() == [2, 3]
    edits = {"blocks.0.hook_mlp_out": lambda values: values * 2, "blocks.0.resid.mid": lambda values: values + 1}
    sites = ("blocks.0.resid.mid", "blocks.0.mlp.out", "blocks.0.resid.post")
    read, plain = read_activations(model, texts, sites, edits=edits), run_with_cache(model, texts, sites).cache
    torch.testing.assert_close(read["blocks.0.resid.mid"], plain["blocks.0.resid.mid"] + 1)
    torch.testing.assert_close(read["blocks.0.resid.post"], read["blocks.0.resid.mid"] + read["blocks.0.mlp.out"])
    run = run_with_cache(model, texts, sites, edits=edits)
    assert list(run.cache) == list(read) == list(sites) and run.cache.lengths == read.lengths == (3, 1)
    for site in sites:
        assert torch.equal(run.cache[site], read[site]) and not run.cache[site].requires_grad
    assert torch.equal(run.logits, run_with_edits(model, texts, edits)) and not run.logits.requires_grad
    one = read_activations(model, [4], "blocks.0.resid.post", edits=edits)["blocks.0.resid.post"]
    torch.testing.assert_close(read["blocks.0.resid.post"][3:], one)
    many = ActivationCache({f"s{number}": torch.zeros(1) for number in range(6)}, [1])
    with pytest.raises(ConfigError) as refused:
        many["norm"]
    assert str(refused.value) == "the cache holds no 'norm', but s0, s1, s2, s3: name the site when you run the model"


def test_three_taps_of_one_site_are_called_from_the_last_to_the_first() -> None:
    def times(factor: float) -> Any:
        return {"a": lambda values: values * factor}

    def plus(amount: float) -> Any:
        return {"a": lambda values: values + amount}

    def chained(*taps: Any) -> float:
        found: Tensor = combined(*taps)["a"](torch.tensor(1.0))
        return float(found)

    assert chained(times(2), plus(3), times(5)) == (1 * 5 + 3) * 2 and chained(plus(3), times(2)) == 5
    ids, lengths = packed_ids(tiny_model(max_position=3), ((5, 6), [7, 8, 9]))
    assert (ids.tolist(), lengths) == ([5, 6, 7, 8, 9], [2, 3])


def test_what_an_edit_gives_is_copied_without_its_gradient() -> None:
    model = tiny_model()
    shared = torch.nn.Parameter(torch.zeros(3, 32))
    edits = {f"blocks.{layer}.hook_resid_post": lambda values, layer=layer: shared.fill_(layer + 1) for layer in (0, 1)}
    sites = ("blocks.0.resid.post", "blocks.1.attn.in", "blocks.1.resid.post")
    for cache in (
        run_with_cache(model, [1, 2, 3], sites, edits=edits).cache, read_activations(model, [1, 2, 3], sites, edits=edits),
    ):  # fmt: skip
        assert cache[sites[0]].unique().tolist() == [1] and cache[sites[2]].unique().tolist() == [2]
        assert not any(kept.requires_grad or kept.data_ptr() == shared.data_ptr() for kept in cache.values())
        assert [type(kept) for kept in cache.values()] == [Tensor] * 3


def test_names_that_are_none_of_theirs_or_ours_are_returned_as_they_are() -> None:
    for name in (
        "blocks.007.odd", "layers.0.attn.q", "layers.0.hook_mlp_out", "block.0.resid.mid", "blocks", "", "blocks.",
        "blocks.0", "blocks.0.", "blocks.-1.hook_attn_out", "x.blocks.0.hook_attn_out", "blocks.0.hook_attn_out.x", "hook_q",
        "blocks.0.attn.hook_q ", "blocks..hook_attn_out", "0.hook_attn_out", "hook_resid_pre", "blocks.1.attn",
    ):  # fmt: skip
        assert (site_of(name), hook_of(name)) == (name, name), name
    read = {
        "blocks.01.attn.q": "blocks.01.attn.q", "blocks.1.mlp.act": "blocks.1.mlp.act",
        "blocks.01.attn.hook_q": "blocks.1.attn.q", "blocks.00.hook_resid_pre": "embed", "hook_embed": "embed",
        "blocks.10.hook_resid_pre": "blocks.9.resid.post", "blocks.1.hook_resid_pre": "blocks.0.resid.post",
    }  # fmt: skip
    assert {name: site_of(name) for name in read} == read
    assert hook_of("blocks.10.attn.mixed") == "blocks.10.attn.hook_z" and hook_of("embed") == "embed"
