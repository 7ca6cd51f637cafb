"""A sweep for a scaling law: small decoders of several sizes, trained for several lengths on a source with known entropy.

Each size is trained once at a constant rate; at each length a copy leaves and finishes with a linear decay over the last
fifth (warm-up, stable, decay), so lengths share most of their compute, and each point stands at the end of a whole schedule
as Chinchilla's approach 3 asks. The held-out loss has a floor that no model can pass, computed from the source.
"""

# B texts, N tokens of a text

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from firsthand.errors import ConfigError
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder, initialise
from firsthand.train.fit import fit
from firsthand.train.objective import Objective, token_logprobs
from firsthand.train.scaling.flop_counts import matrix_parameters
from firsthand.train.scaling.hidden_markov import HiddenMarkov, Ids
from firsthand.train.scaling.scaling_points import ScalingPoints
from firsthand.train.scaling.sweep_config import SweepConfig
from firsthand.train.streams import Stream

DECAY = 0.2
"""The share of a run's steps in which the rate falls to 0."""
WARM_UP = 20
"""Steps."""


@dataclass(frozen=True)
class Sweep:
    """Points of a sweep, and what no model of the source can pass."""

    points: ScalingPoints
    floor: float
    """The exact loss of the source itself on the held-out texts, nats per token."""


@dataclass(frozen=True)
class _Falling:
    """The scale of the rate in the decay: 1 after step `first`, and nearly 0 at `last`."""

    first: int
    last: int

    def __call__(self, step: int) -> float:
        return (self.last - step + 1) / (self.last - self.first + 1)


class SourceTexts:
    """Batches of texts of the source, each drawn once; those of one seed and step are equal for all sizes."""

    def __init__(self, source: HiddenMarkov, config: SweepConfig, seed: int, step: int = 0):
        self.source, self.config, self.seed, self.step = source, config, seed, step

    def __iter__(self) -> Iterator[list[Stream]]:
        while True:
            ids_BN = self.source.sample(self.config.texts, self.config.context, seed=_seed(self.seed, self.step))
            self.step += 1
            yield [Stream(ids, ce=np.ones(len(ids), dtype=np.float32)) for ids in ids_BN]

    def state(self) -> dict[str, int]:
        """The step after the last batch."""
        return {"step": self.step}

    def load(self, state: Mapping[str, int]) -> None:
        """Continue from a step."""
        self.step = state["step"]


def run_sweep(
    source: HiddenMarkov, config: SweepConfig, *, told: Callable[[int, int, float], None] = lambda *row: None
) -> Sweep:
    """Trains all sizes and lengths; `told` gets parameters, tokens and loss of each point as it is found."""
    held_out_BN = source.sample(config.eval_texts, config.context, seed=_seed(config.seed, -1))
    floor = float(-source.logprobs(held_out_BN)[:, 1:].mean())
    rows: list[tuple[int, int, float]] = []
    for width in config.widths:
        architecture = sweep_architecture(width, config, source.vocab_size)
        for tokens, loss in _one_size(architecture, source, config, held_out_BN):
            rows.append((matrix_parameters(architecture), tokens, loss))
            told(*rows[-1])
    return Sweep(ScalingPoints(*np.array(rows, dtype=np.float64).T), floor)


def sweep_architecture(width: int, config: SweepConfig, vocab_size: int) -> Architecture:
    """The decoder of a width: heads of 8 or 16 numbers, an MLP about 8/3 as wide."""
    head_dim = 16 if width % 16 == 0 else 8
    if width % head_dim:
        raise ConfigError(f"widths has {width}: expected multiples of 8")
    return Architecture(
        family="llama", vocab_size=vocab_size, hidden_size=width, intermediate_size=-(-width * 8 // 24) * 8,
        num_layers=config.layers, num_heads=width // head_dim, num_kv_heads=width // head_dim, head_dim=head_dim,
        max_position=config.context, norm_eps=1e-5, windows=(None,) * config.layers, ropes=(Rope(),) * config.layers,
        tie_embeddings=True,
    )  # fmt: skip


def _one_size(
    a: Architecture, source: HiddenMarkov, config: SweepConfig, held_out_BN: Ids
) -> Iterator[tuple[int, float]]:
    """Tokens and held-out loss of each length."""
    trunk = initialise(Decoder(a), seed=config.seed)
    optimizer, done = _optimizer(trunk, config), 0
    for steps in (round(tokens / (config.texts * config.context)) for tokens in sorted(config.tokens)):
        stable = steps - round(DECAY * steps)
        _train(trunk, optimizer, source, config, done, stable, lambda step: 1.0)
        done = stable
        branch = copy.deepcopy(trunk)
        finishing = _optimizer(branch, config)
        finishing.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        falling = _Falling(stable, steps)
        _train(branch, finishing, source, config, done, steps, falling)
        yield steps * config.texts * config.context, _loss(branch, held_out_BN)


def _optimizer(model: Decoder, config: SweepConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)


def _train(
    model: Decoder,
    optimizer: torch.optim.Optimizer,
    source: HiddenMarkov,
    config: SweepConfig,
    first: int,
    last: int,
    scale: Callable[[int], float],
) -> None:
    """Train from after step `first` to step `last`, with the batches of those steps."""
    batches = SourceTexts(source, config, config.seed, first)
    fit(
        model, batches, objective=Objective(ce=1.0), optimizer=optimizer, steps=last - first,
        schedule=lambda step: min(1.0, (first + step) / WARM_UP) * scale(first + step),
        micro_tokens=config.texts * config.context,
    )  # fmt: skip


@torch.no_grad()
def _loss(model: Decoder, ids_BN: Ids) -> float:
    """Mean loss of all tokens but each text's first."""
    texts, length = ids_BN.shape
    ids = torch.from_numpy(ids_BN)
    hidden = model(ids.reshape(-1), torch.arange(length).repeat(texts), Packed([length] * texts)).unflatten(
        0, (texts, -1)
    )
    logits = model.logits(hidden[:, :-1].reshape(texts * (length - 1), -1))
    return float(-token_logprobs(logits, ids[:, 1:].reshape(-1)).double().mean())


def _seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step + 1]).generate_state(1)[0])
