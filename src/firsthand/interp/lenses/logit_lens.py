"""The logit lens (nostalgebraist, 2020): the final norm and the head applied to the residual stream after every layer."""

# L layers, N tokens, D hidden, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from firsthand.errors import ConfigError
from firsthand.interp.activations import run_with_cache
from firsthand.nn.decoder import Decoder


@dataclass(frozen=True)
class LensReading:
    """A lens's reading of one text, layer by layer."""

    logprobs: Tensor
    """L N V: log-probs of every next token; the last layer's are the model's own."""

    def top(self, count: int) -> tuple[Tensor, Tensor]:
        """The most probable next tokens and their probabilities: both L N count."""
        best = self.logprobs.topk(count, dim=-1)
        return best.indices, best.values.exp()

    @property
    def entropy(self) -> Tensor:
        """L N: nats."""
        return -(self.logprobs.exp() * self.logprobs.clamp_min(-1e4)).sum(-1)

    @property
    def divergence(self) -> Tensor:
        """L N: KL of the model's own distribution from the lens's, nats; 0 at the last layer."""
        last = self.logprobs[-1]
        return (last.exp() * (last - self.logprobs).clamp_max(1e4)).sum(-1)

    def rank_of(self, ids: Sequence[int]) -> Tensor:
        """L N: the place of a token for each position among all next tokens, 0 the most probable."""
        wanted = self.logprobs.gather(-1, torch.tensor(ids).expand(self.logprobs.shape[:2])[..., None])
        return (self.logprobs > wanted).sum(-1)


@torch.no_grad()
def logit_lens(
    model: Decoder, text: Sequence[int], *, translate: Callable[[int, Tensor], Tensor] | None = None
) -> LensReading:
    """Reads one text; `translate(layer, residual N D)` maps a layer's residual stream first, as the tuned lens does."""
    cache = run_with_cache(model, text, "blocks.*.resid.post").cache
    layers = []
    for layer in range(model.architecture.num_layers):
        residual_ND = cache[f"blocks.{layer}.resid.post"]
        if translate is not None and layer + 1 < model.architecture.num_layers:
            residual_ND = translate(layer, residual_ND)
        layers.append(unembedded(model, residual_ND).log_softmax(-1))
    return LensReading(torch.stack(layers))


def unembedded(model: Decoder, residual_ND: Tensor) -> Tensor:
    """Final norm and head: N V."""
    return model.logits(model.norm(residual_ND))


def expect_layer(model: Decoder, layer: int) -> None:
    """ConfigError for a layer that the model does not have."""
    if not 0 <= layer < model.architecture.num_layers:
        raise ConfigError(f"layer {layer} came: this model has layers 0 to {model.architecture.num_layers - 1}")
