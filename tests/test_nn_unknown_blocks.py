"""A model with parts that the compiled step does not know is served by its modules, and the engine says why."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from adapters_tiny import adapter as random_adapter
from engine_tiny import drain, logprobs, plain_logprobs, tiny_model, tokens
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Request
from firsthand.errors import ConfigError
from firsthand.model import Sampling
from firsthand.nn.architecture import Architecture
from firsthand.nn.blocks.attention import Attention
from firsthand.nn.blocks.mlp import MLP
from firsthand.nn.compiled_decoder import why_not_compiled
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.quant import pack

PROMPT = (3, 14, 15, 92, 65, 35, 89, 79)
CONFIG = EngineConfig(kv_memory_bytes=1 << 20, kv_cache="float32", max_sequences=4, max_batch_tokens=5)


class Experts(nn.Module):
    """A mixture of experts (Shazeer et al., 2017): each token goes to the two of four MLPs that its router prefers."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.router = nn.Linear(architecture.hidden_size, 4, bias=False)
        self.experts = nn.ModuleList(MLP(architecture) for _ in range(4))

    def forward(self, x_ND: Tensor) -> Tensor:
        weights_N2, chosen_N2 = self.router(x_ND).softmax(-1).topk(2)
        out_ND = torch.zeros_like(x_ND)
        for expert, mlp in enumerate(self.experts):
            rows, places = (chosen_N2 == expert).nonzero(as_tuple=True)
            out_ND[rows] += mlp(x_ND[rows]) * weights_N2[rows, places, None]
        return out_ND


def with_experts() -> Decoder:
    model = tiny_model()
    for layer in model.layers:
        layer.mlp = Experts(model.architecture)
    return initialise(model, seed=1, std=0.3)


def answer(engine: Engine, **more: object) -> tuple[list[int], tuple[float, ...]]:
    engine.add(Request(PROMPT, Sampling(max_tokens=6), **more))  # type: ignore[arg-type]
    [outputs] = drain(engine).values()
    return list(tokens(outputs)), logprobs(outputs)


@pytest.mark.parametrize("weights", ["float32", "float16"])
def test_a_mixture_of_experts_is_served_with_the_log_probs_of_its_modules(weights: str) -> None:
    model = with_experts()
    assert why_not_compiled(model) == "its layer 0 has an unsupported part: Experts"
    engine = Engine(model, replace(CONFIG, weights=weights))
    assert engine.stats().not_compiled == "its layer 0 has an unsupported part: Experts"
    ids, found = answer(engine)
    expected_TV = plain_logprobs(model, [*PROMPT, *ids])
    expected = [float(expected_TV[len(PROMPT) - 1 + i, token]) for i, token in enumerate(ids)]
    assert found == pytest.approx(expected, abs=1e-4)
    assert ids == [int(row.argmax()) for row in expected_TV[len(PROMPT) - 1 : -1]]


@pytest.mark.parametrize("weights", ["float32", "float16"])
def test_weights_of_unknown_blocks_are_replaced_and_checked(weights: str) -> None:
    engine = Engine(with_experts(), replace(CONFIG, weights=weights))
    other = initialise(with_experts(), seed=5, std=0.3)
    state = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(ConfigError, match=r"the first is 'layers.0.mlp.experts.3.up_proj.weight'"):
        engine.load({name: each for name, each in state.items() if "0.mlp.experts.3.up_proj" not in name}, version=1)
    engine.load(state, version=1)
    assert answer(engine)[0] == answer(Engine(other, replace(CONFIG, weights=weights)))[0]


def test_an_adapter_changes_the_matrices_that_such_a_model_declares() -> None:
    model = with_experts()
    assert [place for place in model.matrices() if place.startswith("layers.0")] == [
        f"layers.0.attention.{name}_proj" for name in "qkvo"
    ]
    engine = Engine(model, replace(CONFIG, weights="float32"))
    adapter = random_adapter(tiny_model(), 1, only="attention")
    engine.load_adapter("a", adapter)
    plain, adapted = answer(engine), answer(engine, adapter="a")
    assert plain[1] != adapted[1]
    merged = with_experts()
    with torch.no_grad():
        for name in adapter.deltas:
            weight = merged.get_parameter(name)
            weight.copy_(adapter.merged(name, weight))
    expected_TV = plain_logprobs(merged, [*PROMPT, *adapted[0]])
    expected = [float(expected_TV[len(PROMPT) - 1 + i, token]) for i, token in enumerate(adapted[0])]
    assert adapted[1] == pytest.approx(expected, abs=1e-4)


def test_each_part_of_another_kind_is_named() -> None:
    class OtherAttention(Attention):
        pass

    model = tiny_model()
    model.layers[1].attention = OtherAttention(model.architecture, 1)
    assert why_not_compiled(model) == "its layer 1 has an unsupported part: OtherAttention"
    model = tiny_model()
    model.layers[1].mlp_norm = nn.LayerNorm(32)
    assert why_not_compiled(model) == "its layer 1 has an unsupported part: LayerNorm"
    model = tiny_model()
    model.layers[1] = nn.Identity()
    assert why_not_compiled(model) == "its layer 1 is a Identity"
    model = tiny_model()
    model.norm = nn.LayerNorm(32)
    assert why_not_compiled(model) == "its embedding or final norm is unsupported"


def test_a_setting_that_the_compiled_step_does_not_know_is_not_ignored() -> None:
    @dataclass(frozen=True)
    class Newer(Architecture):
        newest: float | None = None

    a = tiny_model().architecture
    assert why_not_compiled(Decoder(Newer(**vars(a)))) is None
    assert why_not_compiled(Decoder(Newer(**vars(a), newest=6.0))) == "its newest is 6.0"
    other = replace(a, activation="relu")  # type: ignore[arg-type]
    assert why_not_compiled(Decoder(other)) == "its activation is relu and its norm_placement pre"


@pytest.mark.parametrize("kv_cache", ["float32", "int8"])
def test_capped_attention_scores_are_served_by_the_modules(kv_cache: str) -> None:
    a = replace(tiny_model().architecture, attention_softcap=0.7)
    model = initialise(Decoder(a), seed=0, std=0.3)
    engine = Engine(pack(model, "float32"), replace(CONFIG, weights="float32", kv_cache=kv_cache))
    assert engine.stats().not_compiled == "its attention_softcap is 0.7"
    ids, found = answer(engine)
    expected_TV = plain_logprobs(model, [*PROMPT, *ids])
    expected = [float(expected_TV[len(PROMPT) - 1 + i, token]) for i, token in enumerate(ids)]
    assert found == pytest.approx(expected, abs=1e-4 if kv_cache == "float32" else 0.2)
    uncapped = answer(Engine(tiny_model(), replace(CONFIG, weights="float32")))
    assert uncapped[1] != pytest.approx(found, abs=1e-2)
