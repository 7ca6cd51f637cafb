"""The tensors of a model file as tables: which of our parameters each holds, and how they lie in it.

Most files hold one parameter a tensor (`weight_names`). A family whose files differ gives a `FileLayout`: GPT-2 lays
queries, keys and values side by side and transposed, GGUF stacks the experts of a layer. A `Fold` turns parameters into
the file's tensor and back. Imports torch only when a fold is applied.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from firsthand.nn.matrices import BLOCK, BLOCK_NORMS

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Fold:
    """Turns parameters of ours into one tensor of a file, and back."""

    join: Callable[[Sequence[Tensor]], Tensor]
    split: Callable[[Tensor, Sequence[Shape]], Sequence[Tensor]]
    """Given the shapes of the parts."""
    keeps_rows: bool = False
    """The rows of each part lie one after another, unchanged, so a quantised tensor can be cut into its parts."""


@dataclass(frozen=True)
class LayoutRow:
    """A tensor of the file. `{e}` in both names is one tensor for each expert, in ours alone it is one tensor of all."""

    file: str
    """Its name, without `.weight`, after the layer's prefix."""
    ours: tuple[str, ...]
    """Our modules, or whole parameters such as `attention.sinks`; for each expert in turn if they contain `{e}`."""
    fold: Fold
    suffixes: tuple[str, str] = (".weight", ".bias")
    """The names of a weight and a bias in the file."""


@dataclass(frozen=True)
class FileLayout:
    """All tensors of a kind of file."""

    outer: tuple[LayoutRow, ...]
    inner: tuple[LayoutRow, ...]
    """Those of a layer."""
    layers: str = "model.layers"
    """Prefix of a layer's tensors, before its number."""
    prefix: str = ""
    """Begins all names but the head's, and older files leave it out."""
    ignored: tuple[str, ...] = ()
    """Patterns of tensors that files may have and that are not loaded."""


class FileTensor(NamedTuple):
    """One tensor of a file, and the parameters in it."""

    name: str
    ours: tuple[str, ...]
    fold: Fold


def row(file: str, *ours: str, fold: Fold | None = None, suffixes: tuple[str, str] = (".weight", ".bias")) -> LayoutRow:
    """Returns a row; without a fold, its parameters are one after another."""
    return LayoutRow(file, ours, fold or ROWS, suffixes)


def file_tensors(layout: FileLayout, parameters: Mapping[str, Shape]) -> list[FileTensor]:
    """Returns the tensors that a file with these parameters holds; KeyError for a parameter without a row."""
    numbers = [int(match[1]) for name in parameters if (match := _LAYER.match(name))]
    num_layers = 1 + max(numbers, default=-1)
    found = [tensor for each in layout.outer for tensor in _of_row(each, "", "", parameters)]
    for layer in range(num_layers):
        ours, theirs = f"layers.{layer}.", f"{layout.layers}.{layer}."
        found += [tensor for each in layout.inner for tensor in _of_row(each, ours, theirs, parameters)]
    left_over = set(parameters).difference(*(tensor.ours for tensor in found))
    if left_over:
        raise KeyError(f"the family's layout has no row for {sorted(left_over)[0]}")
    return found


def shape_in_file(tensor: FileTensor, parameters: Mapping[str, Shape]) -> Shape:
    """The shape that a file's tensor needs to hold these parameters."""
    import torch

    parts = [torch.empty(parameters[name], device="meta") for name in tensor.ours]
    return tuple(tensor.fold.join(parts).shape)


def plain_rows(*, has_sandwich_names: bool = False) -> tuple[LayoutRow, ...]:
    """The rows of a layer as Llama's folders have them: attention, gated MLP and norms."""
    names = [(each.huggingface, each.name) for each in BLOCK]
    names += [
        ((has_sandwich_names and each.huggingface_sandwich) or each.huggingface, each.name) for each in BLOCK_NORMS
    ]
    return tuple(row(theirs, ours) for theirs, ours in names)


def gguf_rows() -> tuple[LayoutRow, ...]:
    """The rows of a block as GGUF files have them."""
    return tuple(row(each.gguf, each.name) for each in (*BLOCK, *BLOCK_NORMS))


_LAYER = re.compile(r"layers\.(\d+)\.")
_EXPERT = re.compile(r"\.experts\.(\d+)\.")


def _of_row(each: LayoutRow, ours: str, theirs: str, parameters: Mapping[str, Shape]) -> Iterator[FileTensor]:
    """The tensors of one row in one layer: a weight, a bias, or one for each expert; none if the model has no such part."""
    for leaf, suffix in zip((".weight", ".bias", ""), (*each.suffixes, ""), strict=True):
        if not any("{e}" in name for name in each.ours):
            names = tuple(f"{ours}{name}{leaf}" for name in each.ours)
            if names[0] in parameters:
                yield FileTensor(f"{theirs}{each.file}{suffix}", names, each.fold)
            continue
        count = 0
        while f"{ours}{each.ours[0]}{leaf}".replace("{e}", str(count)) in parameters:
            count += 1
        groups = [
            tuple(f"{ours}{name}{leaf}".replace("{e}", str(expert)) for name in each.ours) for expert in range(count)
        ]
        if "{e}" in each.file:
            for expert, names in enumerate(groups):
                yield FileTensor(f"{theirs}{each.file}{suffix}".replace("{e}", str(expert)), names, each.fold)
        elif groups:
            yield FileTensor(
                f"{theirs}{each.file}{suffix}", tuple(name for names in groups for name in names), each.fold
            )


def _divided(values: Tensor, *sizes: int) -> Tensor:
    """The values with their first dimension divided into these."""
    return values.reshape(*sizes, *values.shape[1:])


def _cat(parts: Sequence[Tensor]) -> Tensor:
    import torch

    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _cut(values: Tensor, shapes: Sequence[Shape]) -> Sequence[Tensor]:
    import torch

    return torch.split(values, [shape[0] for shape in shapes])


def _transposed(fold: Fold) -> Fold:
    return Fold(
        lambda parts: fold.join(parts).transpose(-1, -2) if parts[0].dim() > 1 else fold.join(parts),
        lambda values, shapes: fold.split(values.transpose(-1, -2) if len(shapes[0]) > 1 else values, shapes),
    )


def _stack(parts: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.stack(list(parts))


ROWS = Fold(_cat, _cut, keeps_rows=True)
"""Rows of the parts one after another."""
COLUMNS = _transposed(ROWS)
"""The same, transposed: weights lie as inputs x outputs (GPT-2's Conv1D)."""
STACK = Fold(_stack, lambda values, shapes: values.unbind(), keeps_rows=True)
"""A new first dimension for the parts."""


def stacked(fold: Fold, each: int) -> Fold:
    """A stack of groups of parts, `each` to a group, each group by the fold."""

    def join(parts: Sequence[Tensor]) -> Tensor:
        return _stack([fold.join(parts[at : at + each]) for at in range(0, len(parts), each)])

    def split(values: Tensor, shapes: Sequence[Shape]) -> Sequence[Tensor]:
        return [part for at, one in enumerate(values) for part in fold.split(one, shapes[each * at : each * (at + 1)])]

    return Fold(join, split)


def _alternate(parts: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.stack(list(parts), dim=1).flatten(0, 1)


ALTERNATING = Fold(_alternate, lambda values, shapes: _divided(values, -1, len(shapes)).unbind(1))
"""Rows of the parts by turns."""
EXPERT_PAIRS = stacked(_transposed(ALTERNATING), 2)
"""The gates and ups of all experts, inputs x outputs (gpt-oss)."""
TRANSPOSED_STACK = stacked(COLUMNS, 1)


def _one_by_one(join_one: Callable[[Tensor], Tensor], split_one: Callable[[Tensor], Tensor]) -> Fold:
    return Fold(lambda parts: join_one(parts[0]), lambda values, shapes: [split_one(values)])


def by_head(num_heads: int) -> Fold:
    """Queries, keys and values of one head after another (BLOOM)."""

    def join(parts: Sequence[Tensor]) -> Tensor:
        return _stack([_divided(each, num_heads, -1) for each in parts]).transpose(0, 1).flatten(0, 2)

    def split(values: Tensor, shapes: Sequence[Shape]) -> Sequence[Tensor]:
        return [each.flatten(0, 1) for each in _divided(values, num_heads, len(shapes), -1).unbind(1)]

    return Fold(join, split)


def interleaved(first: int, num_heads: int) -> Fold:
    """Rotated pairs side by side, in ours one half after the other; `first` values of each head are kept.

    GGUF files of Llama have it for whole heads, DeepSeek's folders for the rotated part of queries and keys.
    """

    def join_one(values: Tensor) -> Tensor:
        heads = _divided(values, num_heads, -1)
        kept, turned = heads[:, :first], _turned(heads[:, first:], 2, -1)
        return _beside(kept, turned).flatten(0, 1)

    def split_one(values: Tensor) -> Tensor:
        heads = _divided(values, num_heads, -1)
        kept, turned = heads[:, :first], _turned(heads[:, first:], -1, 2)
        return _beside(kept, turned).flatten(0, 1)

    return _one_by_one(join_one, split_one)


def heads_beside(num_heads: int) -> Fold:
    """Parts that have a dimension of heads already, side by side in each head: the latent's matrices of keys and values."""

    def join(parts: Sequence[Tensor]) -> Tensor:
        import torch

        return torch.cat(list(parts), dim=1).flatten(0, 1)

    def split(values: Tensor, shapes: Sequence[Shape]) -> Sequence[Tensor]:
        import torch

        return torch.split(_divided(values, num_heads, -1), [shape[1] for shape in shapes], dim=1)

    return Fold(join, split)


def _turned(heads: Tensor, outer: int, inner: int) -> Tensor:
    """The values of each head as a table of these sizes, read by columns."""
    table = heads.reshape(len(heads), outer, inner, *heads.shape[2:])
    return table.transpose(1, 2).flatten(1, 2)


def _beside(kept: Tensor, turned: Tensor) -> Tensor:
    import torch

    return torch.cat([kept, turned], dim=1)


PLUS_ONE = _one_by_one(lambda values: values + 1, lambda values: values - 1)
"""GGUF's norms of Gemma."""
AS_ROW = _one_by_one(lambda values: values[0], lambda values: values[None])
"""A matrix of one row that the file has as a vector."""
SWAPPED = _one_by_one(lambda values: values.transpose(-1, -2), lambda values: values.transpose(-1, -2))
"""The last two dimensions are exchanged."""

OUTER = (row("model.embed_tokens", "embed"), row("model.norm", "norm"), row("lm_head", "lm_head"))
GGUF_OUTER = (
    row("token_embd", "embed"),
    row("output_norm", "norm"),
    row("output", "lm_head"),
    row("position_embd", "positions"),
    row("token_embd_norm", "embed_norm"),
)
QKV = ("attention.q_proj", "attention.k_proj", "attention.v_proj")
GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
