"""The tuned lens (Belrose et al., 2023, arXiv:2303.08112): an affine map for each layer, trained to say what the model will.

A logit lens that reads nonsense at an early layer may only have the wrong basis; the tuned one learns the change of basis.
"""

# L layers, N tokens, D hidden

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from firsthand.errors import ConfigError, DataError
from firsthand.interp.activations import read_activations
from firsthand.interp.lenses.logit_lens import unembedded
from firsthand.nn.decoder import Decoder


class TunedLens(nn.Module):
    """h + A_l h + b_l for each layer but the last; zeros at first, which is the logit lens."""

    def __init__(self, num_layers: int, hidden_size: int):
        super().__init__()
        self.matrices = nn.Parameter(torch.zeros(num_layers - 1, hidden_size, hidden_size))
        self.biases = nn.Parameter(torch.zeros(num_layers - 1, hidden_size))

    def forward(self, layer: int, residual_ND: Tensor) -> Tensor:
        """The residual stream of a layer in the basis of the last one, in its own dtype and computed in float32: N D."""
        wide_ND = residual_ND.float()
        return (wide_ND + wide_ND @ self.matrices[layer] + self.biases[layer]).to(residual_ND.dtype)


def train_tuned_lens(
    model: Decoder, texts: Sequence[Sequence[int]], *, steps: int = 200, batch: int = 8, lr: float = 1e-3, seed: int = 0
) -> TunedLens:
    """Minimises KL(model || lens) over all layers, with Adam; the model stays as it is.

    DataError without texts; ConfigError for a model of one layer, whose logit lens is the model itself.
    """
    if not texts:
        raise DataError("there is no text to tune a lens on: give one or more")
    a = model.architecture
    if a.num_layers < 2:
        raise ConfigError("the model has one layer, and the last is never tuned: use the logit lens")
    lens = TunedLens(a.num_layers, a.hidden_size)
    optimizer = torch.optim.Adam(lens.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        chosen = torch.randint(len(texts), (min(batch, len(texts)),), generator=generator).tolist()
        cache = read_activations(model, [texts[i] for i in chosen], "blocks.*.resid.post")
        with torch.no_grad():
            target_NV = unembedded(model, cache[f"blocks.{a.num_layers - 1}.resid.post"]).log_softmax(-1)
        loss = torch.zeros(())
        for layer in range(a.num_layers - 1):
            said_NV = unembedded(model, lens(layer, cache[f"blocks.{layer}.resid.post"])).log_softmax(-1)
            loss = loss + functional.kl_div(said_NV, target_NV, log_target=True, reduction="batchmean")
        gradients = torch.autograd.grad(loss, list(lens.parameters()))
        for weight, gradient in zip(lens.parameters(), gradients, strict=True):
            weight.grad = gradient
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        optimizer.step()
    return lens.eval()
