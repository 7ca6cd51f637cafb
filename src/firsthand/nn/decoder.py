"""The decoder-only transformer: embedding, blocks, final norm, head, for every family that `Architecture` can express.

Tokens come packed, without batch dimension or padding, and an `Attend` computes attention, so one definition serves
generation from a paged cache, scoring and training. Projections are plain `nn.Linear` modules that the blocks declare
(`matrices`): quantisation and LoRA swap them by name.
"""

# N packed tokens, M rows that need logits, D hidden, V vocabulary, P pairs

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.blocks.attention import Attend, Attention
from firsthand.nn.blocks.embedding_table import table
from firsthand.nn.blocks.experts import MixtureOfExperts
from firsthand.nn.blocks.latent_attention import LatentAttention
from firsthand.nn.blocks.mlp import mlp_of
from firsthand.nn.blocks.norm import norm_of
from firsthand.nn.blocks.rope import Rotation, frequencies, rotation
from firsthand.nn.matrices import BLOCK, Matrix
from firsthand.nn.sites import BLOCK_SITES, Tap, TapFunction, Taps


class Block(nn.Module):
    """One layer: attention, then the MLP, each added to the residual stream."""

    def __init__(self, architecture: Architecture, layer: int):
        super().__init__()
        a = architecture
        has_in, has_out = a.norm_placement != "post", a.norm_placement != "pre"
        self.attention_norm = norm_of(a) if has_in else nn.Identity()
        self.attention = LatentAttention(a, layer) if a.latent else Attention(a, layer)
        self.mlp_norm = norm_of(a) if has_in else nn.Identity()
        self.mlp = MixtureOfExperts(a) if a.has_experts(layer) else mlp_of(a)
        self.attention_out_norm = norm_of(a) if has_out else nn.Identity()
        self.mlp_out_norm = norm_of(a) if has_out else nn.Identity()

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of this block's activation sites (`sites`)."""
        inner = [("attn", self.attention), ("mlp", self.mlp)]
        return (*BLOCK_SITES, *(f"{part}.{site}" for part, module in inner for site in getattr(module, "SITES", ())))

    def forward(self, x_ND: Tensor, by: Rotation | None, attend: Attend, tap: TapFunction | None = None) -> Tensor:
        """Returns the residual stream after this layer: N D."""
        if tap is not None:
            return self._tapped(x_ND, by, attend, tap)
        in_ND = _for_products(self.attention_norm(x_ND))
        x_ND = x_ND + self.attention_out_norm(self.attention(in_ND, by, attend))
        in_ND = _for_products(self.mlp_norm(x_ND))
        out_ND: Tensor = x_ND + self.mlp_out_norm(self.mlp(in_ND))
        return out_ND

    def _tapped(self, x_ND: Tensor, by: Rotation | None, attend: Attend, tap: TapFunction) -> Tensor:
        """As `forward`, with a call of `tap` at each site; a part without sites of its own is called as ever."""
        in_ND = tap("attn.in", self.attention_norm(x_ND))
        out_ND = self.attention(in_ND, by, attend, *_inside(tap, "attn", self.attention))
        x_ND = tap("resid.mid", x_ND + self.attention_out_norm(tap("attn.out", out_ND)))
        in_ND = tap("mlp.in", self.mlp_norm(x_ND))
        out_ND = self.mlp(in_ND, *_inside(tap, "mlp", self.mlp))
        return tap("resid.post", x_ND + self.mlp_out_norm(tap("mlp.out", out_ND)))


class Decoder(nn.Module):
    """A language model with torch's default weights; `initialise` makes fresh ones, `weights.load` reads a file's."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = architecture
        self.embed = table(architecture.vocab_size, architecture.hidden_size)
        self.layers = nn.ModuleList(Block(architecture, layer) for layer in range(architecture.num_layers))
        self.norm = norm_of(architecture)
        self.embed_norm = norm_of(architecture) if architecture.embed_norm else nn.Identity()
        learned = architecture.learned_positions
        self.positions = table(learned, architecture.hidden_size) if learned else None
        self.lm_head = nn.Linear(architecture.hidden_size, architecture.vocab_size, bias=False)
        self.tie()
        self._frequencies: dict[tuple[Rope, torch.device], Tensor] = {}

    def tie(self) -> None:
        """Tie the head to the embedding matrix, if the architecture does; call it after parameters are replaced."""
        if self.architecture.tie_embeddings and isinstance(self.lm_head, nn.Linear):
            self.lm_head.weight = self.embed.weight

    def matrices(self) -> dict[str, Matrix]:
        """Returns the matrices that blocks declare, by place (`layers.3.attention.q_proj`)."""
        return {
            f"layers.{layer}.{matrix.name}": matrix
            for layer, block in enumerate(self.layers)
            for part in block.children()
            for matrix in getattr(part, "MATRICES", ())
        }

    def sites(self) -> tuple[str, ...]:
        """The names of the activation sites (`sites`), in the order in which they are computed but for those in a block."""
        blocks = (
            f"blocks.{layer}.{site}"
            for layer, block in enumerate(self.layers)
            for site in (block.sites if isinstance(block, Block) else ("resid.post",))
        )
        return ("embed", *blocks, "norm", "logits")

    def forward(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        attend: Attend,
        *,
        taps: Mapping[str, Tap] | Taps | None = None,
    ) -> Tensor:
        """Returns the hidden state of each token after the final norm: N D.

        `taps` look at or replace activations by site; ConfigError for a site that is not in `sites()`.
        """
        tap = None if taps is None else self.checked(taps)
        x_ND = self.embed(ids_N)
        if self.architecture.embed_scale != 1.0:  # rounded to the dtype first, as Gemma was trained
            x_ND = x_ND * torch.tensor(self.architecture.embed_scale, dtype=x_ND.dtype).item()
        if self.positions is not None:
            x_ND = x_ND + self.positions(positions_N)
        x_ND = self.embed_norm(x_ND)
        rotations = self.rotations(positions_N, x_ND.dtype)
        if tap is not None:
            return self._tapped(x_ND, rotations, attend, tap)
        for layer, rope in zip(self.layers, self.architecture.ropes, strict=True):
            x_ND = layer(x_ND, rotations[rope], attend)
        hidden_ND: Tensor = self.norm(x_ND)
        return hidden_ND

    def _tapped(self, x_ND: Tensor, rotations: Mapping[Rope, Rotation | None], attend: Attend, tap: Taps) -> Tensor:
        x_ND = tap("embed", x_ND)
        for index, (layer, rope) in enumerate(zip(self.layers, self.architecture.ropes, strict=True)):
            inside = tap.within(f"blocks.{index}.")
            if isinstance(layer, Block):
                x_ND = layer(x_ND, rotations[rope], attend, inside)
            else:
                x_ND = inside("resid.post", layer(x_ND, rotations[rope], attend))
        return tap("norm", self.norm(x_ND))

    def checked(self, taps: Mapping[str, Tap] | Taps) -> Taps:
        """The taps of this model; ConfigError for a site that is not in `sites()`."""
        return taps if isinstance(taps, Taps) else Taps.of(taps, self.sites())

    def logits(self, hidden_MD: Tensor, *, taps: Mapping[str, Tap] | Taps | None = None) -> Tensor:
        """Returns scores of every next token: M V, float32."""
        logits_MV: Tensor = self.lm_head(hidden_MD).float()
        cap = self.architecture.logit_softcap
        if cap is not None:
            logits_MV = cap * torch.tanh(logits_MV / cap)
        return logits_MV if taps is None else self.checked(taps)("logits", logits_MV)

    def rotations(self, positions_N: Tensor, dtype: torch.dtype) -> dict[Rope, Rotation | None]:
        """Returns cosines and sines at these positions for each of the architecture's ropes; None for one without angles."""
        return {
            rope: None
            if rope.kind == "none"
            else rotation(
                self._frequencies_on(rope, positions_N.device), positions_N, scale=rope.attention_factor, dtype=dtype
            )
            for rope in dict.fromkeys(self.architecture.ropes)
        }

    def _frequencies_on(self, rope: Rope, device: torch.device) -> Tensor:
        """A rope's frequencies on a device, in float32: not a buffer, since `model.to(bfloat16)` would round it."""
        if (rope, device) not in self._frequencies:
            a = self.architecture
            self._frequencies[rope, device] = frequencies(rope, a.rotated, length=a.max_position).to(device)
        return self._frequencies[rope, device]


def initialise(model: Decoder, *, seed: int = 0, std: float = 0.02) -> Decoder:
    """Initialises weights: normal, with residual projections scaled by 1 / sqrt(2 layers) (GPT-2)."""
    generator = torch.Generator().manual_seed(seed)
    residual_std = std / (2 * model.architecture.num_layers) ** 0.5
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2:
                is_scale = "norm" in name and not name.endswith(".bias")
                parameter.fill_(1.0 if is_scale and not model.architecture.norm_unit_offset else 0.0)
                continue
            deviation = residual_std if name.removesuffix(".weight").endswith(_RESIDUAL) else std
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)
    return model


_RESIDUAL = tuple(f".{matrix.leaf}" for matrix in BLOCK if matrix.writes_residual)


def _for_products(x_ND: Tensor) -> Tensor:
    """Inputs of several products in the dtype of autocast, which would convert them for each."""
    kind = x_ND.device.type
    is_cast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # not on `meta`
    return x_ND.to(torch.get_autocast_dtype(kind)) if is_cast else x_ND


def _inside(tap: TapFunction, part: str, module: nn.Module) -> list[TapFunction]:
    """The further argument of a part that has sites of its own."""
    return [lambda site, values: tap(f"{part}.{site}", values)] if getattr(module, "SITES", ()) else []
