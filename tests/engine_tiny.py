"""A tiny random decoder for the engine's tests, and ways to run an engine to its end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import gguf
import torch

from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.outputs import Output
from firsthand.kernels.products.blockwise import from_gguf
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.quant import BlockLinear

torch.set_num_threads(1)
VOCAB = 96


def tiny_model(
    seed: int = 0,
    *,
    window: int | None = None,
    only_windows: bool = False,
    tied: bool = True,
    max_position: int = 256,
    vocab_size: int = VOCAB,
) -> Decoder:
    architecture = Architecture(
        family="llama",
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=6,
        num_kv_heads=2,
        head_dim=16,
        max_position=max_position,
        norm_eps=1e-5,
        windows=(window, window if only_windows else None),
        ropes=(Rope(), Rope()),
        tie_embeddings=tied,
    )
    return initialise(Decoder(architecture), seed=seed, std=0.3)


def tiny_engine(seed: int = 0, *, window: int | None = None, only_windows: bool = False, **settings: object) -> Engine:
    """Keys and values are float32, so that 16 positions of both layers take 8 KiB."""
    defaults = {"kv_memory_bytes": 1 << 21, "kv_cache": "float32"}
    config = EngineConfig(**{**defaults, **settings})  # type: ignore[arg-type]
    return Engine(tiny_model(seed, window=window, only_windows=only_windows), config)


def in_blocks_of_4_bits(model: Decoder) -> Decoder:
    """The model with its projections in GGUF's blocks of 4 bits (Q4_1), as it comes from such a file: a single row stays."""
    for module in list(model.layers.modules()):
        for name, linear in list(module.named_children()):
            if isinstance(linear, torch.nn.Linear) and linear.out_features > 1:
                weight = linear.weight.detach().numpy()
                raw = gguf.quants.quantize(weight, gguf.GGMLQuantizationType.Q4_1)
                setattr(module, name, BlockLinear(from_gguf("Q4_1", raw, weight.shape), linear.bias))
    return model


def drain(engine: Engine) -> dict[tuple[int, int], list[Output]]:
    """Step until there is nothing left; the outputs of each (request, index)."""
    found: dict[tuple[int, int], list[Output]] = defaultdict(list)
    while engine.has_work:
        for output in engine.step():
            found[output.request_id, output.index].append(output)
    engine.pool.check()
    return found


def tokens(outputs: Iterable[Output]) -> tuple[int, ...]:
    return tuple(token for output in outputs for token in output.token_ids)


def logprobs(outputs: Iterable[Output]) -> tuple[float, ...]:
    return tuple(logprob for output in outputs for logprob in output.logprobs)


@torch.no_grad()
def plain_logprobs(model: Decoder, ids: list[int]) -> torch.Tensor:
    """Log-probs of the next token after each position, by one plain forward pass."""
    hidden = model(torch.tensor(ids), torch.arange(len(ids)), Packed([len(ids)]))
    return model.logits(hidden).log_softmax(-1)
