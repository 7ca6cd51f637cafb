"""A source of tokens with a known entropy: a hidden Markov model, so that a fitted irreducible loss can be checked.

Its entropy rate has no closed form (Blackwell, 1957), but -log p(x_1..n) / n converges to it (Shannon, McMillan, Breiman),
and the forward recursion computes p exactly. The loss that no model can beat on given texts is computed the same way.
"""

# S states, V tokens, N tokens of a text, B texts

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from firsthand.errors import ConfigError
from firsthand.train.scaling.scaling_points import Floats

Ids = npt.NDArray[np.int64]
MIXED = 0.005
"""Share of each row of a random source that is uniform, so that every state and token can follow any other."""


class EntropyRate(NamedTuple):
    """Nats per token, and the standard error of the estimate."""

    nats: float
    standard_error: float


@dataclass(frozen=True, eq=False)
class HiddenMarkov:
    """A hidden Markov model that has forgotten its beginning."""

    transitions: Floats
    """S S: each row is the next state's distribution."""
    emissions: Floats
    """S V: each row is the distribution of the token of a state."""

    def __post_init__(self) -> None:
        shapes = self.transitions.shape, self.emissions.shape
        if len(shapes[1]) != 2 or shapes[0] != (shapes[1][0],) * 2:
            raise ConfigError(f"transitions {shapes[0]} and emissions {shapes[1]}: expected S x S and S x V")
        for name, rows in (("transitions", self.transitions), ("emissions", self.emissions)):
            if not ((rows >= 0).all() and np.allclose(rows.sum(1), 1, atol=1e-9)):
                raise ConfigError(
                    f"the rows of {name} are no distributions: expected numbers of 0 or more that sum to 1"
                )

    @property
    def vocab_size(self) -> int:
        """V"""
        return int(self.emissions.shape[1])

    def stationary(self) -> Floats:
        """The distribution of states in the long run: S."""
        size = len(self.transitions)
        system = np.vstack([self.transitions.T - np.eye(size), np.ones(size)])
        solution, *_ = np.linalg.lstsq(system, np.append(np.zeros(size), 1.0), rcond=None)
        return np.asarray(np.clip(solution, 0, None) / np.clip(solution, 0, None).sum())

    def sample(self, texts: int, length: int, *, seed: int) -> Ids:
        """Texts that begin in the long run's distribution: B N."""
        rng = np.random.default_rng(seed)
        to_state, to_token = self.transitions.cumsum(1), self.emissions.cumsum(1)
        state_B = _drawn(np.broadcast_to(self.stationary().cumsum(), (texts, len(to_state))), rng)
        found = np.empty((texts, length), dtype=np.int64)
        for place in range(length):
            found[:, place] = _drawn(to_token[state_B], rng)
            state_B = _drawn(to_state[state_B], rng)
        return found

    def logprobs(self, ids_BN: Ids) -> Floats:
        """log p of each token given those before it in its text, exactly: B N."""
        ids_BN = np.asarray(ids_BN)
        if ids_BN.size and not 0 <= ids_BN.min() <= ids_BN.max() < self.vocab_size:
            raise ConfigError(
                f"ids from {ids_BN.min()} to {ids_BN.max()} came: the source has {self.vocab_size} tokens"
            )
        belief_BS = np.broadcast_to(self.stationary(), (len(ids_BN), len(self.transitions)))
        found = np.empty(ids_BN.shape)
        with np.errstate(divide="ignore"):
            for place in range(ids_BN.shape[1]):
                joint_BS = belief_BS * self.emissions[:, ids_BN[:, place]].T
                probability_B = joint_BS.sum(1)
                found[:, place] = np.log(probability_B)
                belief_BS = joint_BS / np.where(probability_B > 0, probability_B, 1)[:, None] @ self.transitions
        return found

    def entropy_rate(
        self, *, tokens: int = 1_000_000, texts: int = 256, burn_in: int = 200, seed: int = 0
    ) -> EntropyRate:
        """Nats per token in the long run, from `tokens` sampled ones in independent texts without their beginnings."""
        length = burn_in + max(1, math.ceil(tokens / texts))
        each_B = -self.logprobs(self.sample(texts, length, seed=seed))[:, burn_in:].mean(1)
        return EntropyRate(float(each_B.mean()), float(each_B.std(ddof=1) / math.sqrt(texts)))


def random_source(
    *, states: int = 24, tokens: int = 32, branching: float = 0.05, ambiguity: float = 0.05, seed: int = 0
) -> HiddenMarkov:
    """A source with Dirichlet-distributed rows, of transitions by `branching` and of emissions by `ambiguity`.

    With the defaults a token has 2.9 nats alone, 2.4 after the one before it, and 2.1 after all.
    """
    rng = np.random.default_rng(seed)
    transitions = rng.dirichlet(np.full(states, branching), size=states)
    emissions = rng.dirichlet(np.full(tokens, ambiguity), size=states)
    return HiddenMarkov((1 - MIXED) * transitions + MIXED / states, (1 - MIXED) * emissions + MIXED / tokens)


def _drawn(cumulative_BK: Floats, rng: np.random.Generator) -> Ids:
    """A category of each row."""
    uniform_B1 = rng.random((len(cumulative_BK), 1)) * cumulative_BK[:, -1:]
    return np.asarray((uniform_B1 >= cumulative_BK).sum(1))
