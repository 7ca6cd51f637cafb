"""Batched LoRA: rows of several adapters and of the base model in one step.

An adapter is packed once, as tiles for the compiled step or as matrices on the model's device for modules, both with the
scale in B. An `AdapterSpan` tells which rows of a step belong to an adapter: those rows pay two low-rank products for each
matrix that it changes, all others pay nothing. `lora` reads adapters from files.
"""

# D in, O out, r rank, N packed tokens, L layers, S adapters, P pieces of rows

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from firsthand.errors import ConfigError
from firsthand.kernels.attention.kv_pages import LANES
from firsthand.nn.architecture import Architecture
from firsthand.nn.decoder import Decoder
from firsthand.nn.lora import Adapter, has_magnitudes
from firsthand.nn.matrices import BLOCK
from firsthand.nn.quant import FLOAT16_MAX, Mode

if TYPE_CHECKING:
    from firsthand.kernels.products.float_products import DenseTiles

COLUMNS = tuple(matrix.name for matrix in BLOCK)
"""A block's matrices in the order of the compiled step's."""


@dataclass(frozen=True, eq=False)
class PackedAdapter:
    """An adapter in the form that a step reads, for modules or for the compiled step; the other form is empty."""

    matrices: Mapping[str, tuple[Tensor, Tensor]]
    """For modules: A (r D) and scale times B (O r) by the module's name."""
    entries: NDArray[np.int64]
    """For the compiled step: `DenseTiles.entry` of A and of scale times B, zeros for an unchanged matrix; the last row
    has the head in its first column: L + 1, 7 2 5."""
    tiles: Mapping[str, tuple[DenseTiles, DenseTiles]]
    """The arrays that `entries` points to, by the module's name."""
    rank: int
    """The highest of any matrix."""
    size_bytes: int

    def pair(self, module: str) -> tuple[Tensor, Tensor] | None:
        """Returns A and scale times B of a module, untiled if need be; None if the adapter does not change it."""
        if module not in self.tiles:
            return self.matrices.get(module)
        from firsthand.kernels.products.float_products import untile_floats

        a_rD, b_Or = (torch.from_numpy(untile_floats(each)) for each in self.tiles[module])
        return a_rD, b_Or


class AdapterSpan(NamedTuple):
    """Rows of a step that belong to one adapter."""

    first: int
    last: int
    """The row after the last."""
    adapter: PackedAdapter


def pack_adapter(adapter: Adapter, model: Decoder, *, tiles_of: Mode | None) -> PackedAdapter:
    """Packs an adapter for the model's compiled step, in float16 unless its weights are float32; for its modules if None.

    A matrix that float16 cannot hold stays float32. ConfigError for DoRA, whose change is of full rank.
    """
    if has_magnitudes(adapter):
        raise ConfigError(
            f"{adapter.path} is a DoRA adapter, which rescales the rows of the weights themselves, so it cannot stay beside "
            f"weights that others use: merge it when the model is loaded, as MODEL+lora:{adapter.path}"
        )
    rank = max(delta.a.shape[0] for delta in adapter.deltas.values())
    entries = np.zeros((model.architecture.num_layers + 1, len(COLUMNS), 2, 5), dtype=np.int64)
    matrices: dict[str, tuple[Tensor, Tensor]] = {}
    tiles: dict[str, tuple[DenseTiles, DenseTiles]] = {}
    weight = model.embed.weight
    for name, delta in adapter.deltas.items():
        module = name.removesuffix(".weight")
        a_rD, b_Or = delta.a.float().contiguous(), (delta.scale * delta.b.float()).contiguous()
        if tiles_of is None:
            matrices[module] = (a_rD.to(weight.device, weight.dtype), b_Or.to(weight.device, weight.dtype))
            continue
        from firsthand.kernels.products.float_products import tile_floats

        fits = tiles_of != "float32" and max(float(a_rD.abs().max()), float(b_Or.abs().max())) <= FLOAT16_MAX
        inward, outward = (
            tile_floats(values.cpu().numpy(), np.float16 if fits else np.float32) for values in (a_rD, b_Or)
        )
        entries[_place(module, model.architecture)] = [inward.entry(), outward.entry()]
        tiles[module] = inward, outward
    size_bytes = sum(each.memory.nbytes for pair in tiles.values() for each in pair)
    size_bytes += sum(each.nbytes for pair in matrices.values() for each in pair)
    return PackedAdapter(matrices, entries, tiles, rank, size_bytes)


def _place(module: str, a: Architecture) -> tuple[int, int]:
    """The layer and the column of a matrix."""
    if module == "lm_head":
        return a.num_layers, 0
    _, layer, name = module.split(".", 2)
    return int(layer), COLUMNS.index(name)


class CompiledSpans(NamedTuple):
    """The rows of a step with adapters, as the compiled step and its head take them."""

    pieces: NDArray[np.int64]
    """First row, the one after the last, and which adapter: P 3."""
    entries: NDArray[np.int64]
    """Of all adapters seen so far: L + 1, S 7 2 5."""
    rank: int
    """The highest rank, rounded up to whole tiles."""


@dataclass
class SpanCompiler:
    """Converts spans to the compiled step's tables; those of adapters seen so far are kept until `forget`."""

    num_layers: int
    _seen: tuple[PackedAdapter, ...] = ()
    _entries: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self._entries = np.zeros((self.num_layers + 1, 0, len(COLUMNS), 2, 5), dtype=np.int64)

    def __call__(self, spans: Sequence[AdapterSpan]) -> CompiledSpans:
        """Cuts the spans into pieces."""
        from firsthand.kernels.step.lora_products import PIECE_ROWS

        adapters = dict.fromkeys(span.adapter for span in spans)
        if new := [each for each in adapters if each not in self._seen]:
            self._seen = (*self._seen, *new)
            self._entries = np.stack([each.entries for each in self._seen], axis=1)
        pieces = [
            (row, min(row + PIECE_ROWS, span.last), self._seen.index(span.adapter))
            for span in spans
            for row in range(span.first, span.last, PIECE_ROWS)
        ]
        rank = max((-(-each.rank // LANES) * LANES for each in adapters), default=LANES)
        return CompiledSpans(np.array(pieces, dtype=np.int64).reshape(-1, 3), self._entries, rank)

    def forget(self) -> None:
        """Drop the tables of adapters seen so far."""
        self._seen = ()
        self._entries = self._entries[:, :0]


class ModuleSpans:
    """Adds adapters' updates to the outputs of a model's modules, for the rows of the given spans.

    Each matrix has a forward hook, which returns at once without spans.
    """

    def __init__(self, model: Decoder):
        self._spans: Sequence[AdapterSpan] = ()
        for name in (*model.matrices(), "lm_head"):
            model.get_submodule(name).register_forward_hook(self._hook(name))

    @contextmanager
    def over(self, spans: Sequence[AdapterSpan]) -> Iterator[None]:
        """A context in which the model's calls have these spans."""
        self._spans = spans
        try:
            yield
        finally:
            self._spans = ()

    def _hook(self, name: str) -> Any:
        def add(module: nn.Module, inputs: tuple[Tensor], out_NO: Tensor) -> None:
            for first, last, adapter in self._spans:
                pair = adapter.pair(name)
                if pair is not None:
                    low = nn.functional.linear(inputs[0][first:last], pair[0])
                    out_NO[first:last] += nn.functional.linear(low, pair[1])

        return add


def spans_of(adapters: Sequence[PackedAdapter | None], counts: Sequence[int]) -> list[AdapterSpan]:
    """Returns the spans of consecutive runs of rows, `counts` of each adapter or of None."""
    spans: list[AdapterSpan] = []
    row = 0
    for adapter, count in zip(adapters, counts, strict=True):
        if adapter is not None and count:
            if spans and spans[-1].last == row and spans[-1].adapter is adapter:
                spans[-1] = AdapterSpan(spans[-1].first, row + count, adapter)
            else:
                spans.append(AdapterSpan(row, row + count, adapter))
        row += count
    return spans
