"""Several LoRA adapters beside one model: a step mixes rows of any of them with rows of the model as it is.

An adapter is packed once, for the compiled step as tiles and for modules as matrices on the model's device, both with the
scale in B. A step is told which of its rows, as `Span`s, belong to which adapter: those rows pay two thin products for each
matrix that their adapter changes, all others pay nothing. Reading adapters from files is `lora`'s.
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

from firsthand.kernels.attention.kv_pages import LANES
from firsthand.nn.architecture import Architecture
from firsthand.nn.decoder import Decoder
from firsthand.nn.lora import Adapter
from firsthand.nn.matrices import BLOCK
from firsthand.nn.quant import FLOAT16_MAX, Mode

if TYPE_CHECKING:
    from firsthand.kernels.products.float_products import DenseTiles

COLUMNS = tuple(matrix.name for matrix in BLOCK)
"""A block's matrices in the order of the compiled step's."""


@dataclass(frozen=True, eq=False)
class PackedAdapter:
    """An adapter as a step reads it; one of the two forms is empty."""

    matrices: Mapping[str, tuple[Tensor, Tensor]]
    """For modules: by the module's name A and scale times B, r D and O r."""
    entries: NDArray[np.int64]
    """For the compiled step: `DenseTiles.entry` of A and of scale times B, zeros for a matrix that is left alone, with the
    head in the first column of a layer more: L + 1, 7 2 5."""
    tiles: Mapping[str, tuple[DenseTiles, DenseTiles]]
    """What `entries` points to, by the module's name."""
    rank: int
    """The highest of any matrix."""
    size_bytes: int

    def pair(self, module: str) -> tuple[Tensor, Tensor] | None:
        """A and scale times B of a module, made anew from tiles where there are only those; None if it is left alone."""
        if module not in self.tiles:
            return self.matrices.get(module)
        from firsthand.kernels.products.float_products import untile_floats

        a_rD, b_Or = (torch.from_numpy(untile_floats(each)) for each in self.tiles[module])
        return a_rD, b_Or


class Span(NamedTuple):
    """Rows of a step that belong to one adapter."""

    first: int
    last: int
    """The row after the last."""
    adapter: PackedAdapter


def pack_adapter(adapter: Adapter, model: Decoder, *, tiles_of: Mode | None) -> PackedAdapter:
    """The adapter for the compiled step of that model, in float16 unless its weights are float32; for its modules if None.

    A matrix that float16 cannot hold stays float32.
    """
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
        inward, outward = (tile_floats(values.numpy(), np.float16 if fits else np.float32) for values in (a_rD, b_Or))
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
    """Of all adapters that were met: L + 1, S 7 2 5."""
    rank: int
    """The highest, as whole tiles."""


@dataclass
class SpanCompiler:
    """Turns spans into what the compiled step wants; the tables of adapters that were met are kept until `forget`."""

    num_layers: int
    _met: tuple[PackedAdapter, ...] = ()
    _entries: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self._entries = np.zeros((self.num_layers + 1, 0, len(COLUMNS), 2, 5), dtype=np.int64)

    def __call__(self, spans: Sequence[Span]) -> CompiledSpans:
        """The spans in pieces."""
        from firsthand.kernels.step.lora_products import PIECE_ROWS

        adapters = dict.fromkeys(span.adapter for span in spans)
        if new := [each for each in adapters if each not in self._met]:
            self._met = (*self._met, *new)
            self._entries = np.stack([each.entries for each in self._met], axis=1)
        pieces = [
            (row, min(row + PIECE_ROWS, span.last), self._met.index(span.adapter))
            for span in spans
            for row in range(span.first, span.last, PIECE_ROWS)
        ]
        rank = max((-(-each.rank // LANES) * LANES for each in adapters), default=LANES)
        return CompiledSpans(np.array(pieces, dtype=np.int64).reshape(-1, 3), self._entries, rank)

    def forget(self) -> None:
        """Let go of the adapters that were met."""
        self._met = ()
        self._entries = self._entries[:, :0]


class ModuleSpans:
    """Adds what adapters add to the outputs of a model's own modules, for the rows that a call is told of.

    A hook stands on each matrix; without spans it returns at once.
    """

    def __init__(self, model: Decoder):
        self._spans: Sequence[Span] = ()
        for name in (*model.matrices(), "lm_head"):
            model.get_submodule(name).register_forward_hook(self._hook(name))

    @contextmanager
    def over(self, spans: Sequence[Span]) -> Iterator[None]:
        """While this lasts, calls of the model are of rows that lie so."""
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


def spans_of(adapters: Sequence[PackedAdapter | None], counts: Sequence[int]) -> list[Span]:
    """The spans of rows that come in runs: so many of an adapter, or of none, after each other."""
    spans: list[Span] = []
    row = 0
    for adapter, count in zip(adapters, counts, strict=True):
        if adapter is not None and count:
            if spans and spans[-1].last == row and spans[-1].adapter is adapter:
                spans[-1] = Span(spans[-1].first, row + count, adapter)
            else:
                spans.append(Span(row, row + count, adapter))
        row += count
    return spans
