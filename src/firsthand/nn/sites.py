"""Named activation sites of a Decoder, and taps that look at or replace what passes there.

| site | tensor |
|---|---|
| `embed` | the scaled embeddings: N D |
| `blocks.3.attn.in` | the input of the projections, after the norm: N D |
| `blocks.3.attn.q`, `.k`, `.v` | what attention gets, after head norms and rotation: N H K, N G K, N G K |
| `blocks.3.attn.mixed` | the heads' results, before the output projection: N H K |
| `blocks.3.attn.out` | after the output projection: N D |
| `blocks.3.resid.mid` | the residual stream between attention and MLP: N D |
| `blocks.3.mlp.in` | the input of the MLP, after the norm: N D |
| `blocks.3.mlp.act` | the input of the down projection: N F |
| `blocks.3.mlp.out` | after the down projection: N D |
| `blocks.3.resid.post` | the residual stream after the block: N D |
| `norm` | the hidden states after the final norm: N D |
| `logits` | scores of every next token: M V |

Attention weights are no site: fused attention never makes them. Importing this needs no torch.
"""

# N packed tokens, M rows that need logits, D hidden, F intermediate, H query heads, G kv heads, K head_dim, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError, nearest

if TYPE_CHECKING:
    from torch import Tensor

Tap = Callable[["Tensor"], "Tensor | None"]
"""Gets the tensor at a site; returns None to leave it, or a tensor of the same shape, dtype and device to replace it."""
TapFunction = Callable[[str, "Tensor"], "Tensor"]
"""Called by a block at each of its sites; returns the tensor to go on with."""
BLOCK_SITES = ("attn.in", "attn.out", "resid.mid", "mlp.in", "mlp.out", "resid.post")
"""Sites of every block; what attention and MLP have besides is in their `SITES`."""


class Taps:
    """Validated taps of one model. `prefix` is put before the names that a call gives."""

    def __init__(self, taps: Mapping[str, Tap], prefix: str = ""):
        self._taps = taps
        self._prefix = prefix

    @staticmethod
    def of(taps: Mapping[str, Tap], sites: Sequence[str]) -> Taps:
        """The taps, if all of their sites are there; ConfigError names the first that is not, and the nearest that is."""
        unknown = next((site for site in taps if site not in sites), None)
        if unknown is not None:
            closest = nearest(str(unknown), sites)
            hint = f"did you mean {closest!r}?" if closest else f"there are {', '.join(sites[:3])} ... {sites[-1]}"
            raise ConfigError(f"no activation site {unknown!r} in this model; {hint}")
        return Taps(dict(taps))

    def __call__(self, site: str, values: Tensor) -> Tensor:
        """Returns the tensor to go on with; ConfigError if a tap replaces it by one of another shape, dtype or device."""
        tap = self._taps.get(self._prefix + site)
        new = None if tap is None else tap(values)
        if new is None:
            return values
        if (new.shape, new.dtype, new.device) != (values.shape, values.dtype, values.device):
            raise ConfigError(
                f"the tap on {self._prefix + site} returned {tuple(new.shape)} {new.dtype} on {new.device}: expected "
                f"{tuple(values.shape)} {values.dtype} on {values.device}, or None to leave it as it is"
            )
        return new

    def within(self, prefix: str) -> Taps:
        """The same taps for a part of the model, whose sites begin with a prefix more."""
        return Taps(self._taps, self._prefix + prefix)
