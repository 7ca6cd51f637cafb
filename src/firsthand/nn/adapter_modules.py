"""The modules of a Hugging Face model that adapters in PEFT's layout change, and which of our matrices each one holds.

Most hold one matrix. Phi-3's `qkv_proj` holds three, one after another, BLOOM's `query_key_value` by heads, and GPT-2's are
transposed, which PEFT undoes: A and B are as elsewhere. An update of several matrices is parted by the rows of B.
"""

# D in, O out, r rank

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from firsthand.nn.decoder import Decoder
from firsthand.nn.layout_reader import huggingface_layout
from firsthand.nn.weight_layout import COLUMNS, ROWS, Fold, Shape, file_tensors
from firsthand.nn.weight_names import huggingface_name

if TYPE_CHECKING:
    from torch import Tensor


class FileModule(NamedTuple):
    """One module of the files."""

    ours: tuple[str, ...]
    """Our names of the weights in it."""
    shapes: tuple[tuple[int, int], ...]
    """Outputs and inputs of each."""
    rows: Fold = ROWS
    """The order of their rows in it."""
    is_transposed: bool = False
    """The file has inputs x outputs."""

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs of the module."""
        return sum(outputs for outputs, _ in self.shapes), self.shapes[0][1]

    def split(self, values: Tensor) -> Sequence[Tensor]:
        """The rows of each matrix, given those of the module."""
        return self.rows.split(values, [(outputs, *values.shape[1:]) for outputs, _ in self.shapes])


def file_modules(model: Decoder) -> dict[str, FileModule]:
    """The modules that an adapter may change, by their names in the model's files."""
    a = model.architecture
    shapes = {f"{place}.weight": matrix.shape(a) for place, matrix in model.matrices().items()}
    if not a.tie_embeddings:  # changing a tied head would change the embedding too
        shapes["lm_head.weight"] = (a.vocab_size, a.hidden_size)
    layout = huggingface_layout(a)
    if layout is None:
        return {_stem(huggingface_name(ours, a)): FileModule((ours,), (shape,)) for ours, shape in shapes.items()}
    sizes: dict[str, Shape] = dict(shapes)
    found = {}
    for tensor in file_tensors(layout, sizes):
        is_transposed = tensor.fold is COLUMNS
        parts = tuple(shapes[ours] for ours in tensor.ours)
        found[_stem(tensor.name)] = FileModule(
            tensor.ours, parts, ROWS if is_transposed else tensor.fold, is_transposed
        )
    return found


def readable_modules(model: Decoder) -> dict[str, FileModule]:
    """Those of the files, and each matrix by Llama's name of it, as adapters had all of them until 0.26.0."""
    modules = file_modules(model)
    plain = {
        _stem(huggingface_name(ours, model.architecture)): FileModule((ours,), (shape,))
        for module in modules.values()
        for ours, shape in zip(module.ours, module.shapes, strict=True)
    }
    return plain | modules


def parted(a_rD: Tensor, b_Or: Tensor, module: FileModule) -> list[tuple[Tensor, Tensor]]:
    """A and B of each matrix of a module, without the ranks that add nothing to it.

    A matrix to which none adds has an equal share of them, in their order: what a fresh adapter was joined of.
    """
    import torch

    if len(module.ours) == 1:
        return [(a_rD, module.split(b_Or)[0])]
    found = []
    shares = torch.arange(len(a_rD)).tensor_split(len(module.ours))
    for b_part, share in zip(module.split(b_Or), shares, strict=True):
        used = b_part.any(dim=0).nonzero().flatten()
        kept = next(each for each in (used, share, torch.zeros(1, dtype=torch.long)) if len(each))
        found.append((a_rD[kept], b_part[:, kept]))
    return found


def _stem(name: str) -> str:
    return name.removesuffix(".weight")
