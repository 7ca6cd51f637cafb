"""Reads and writes parameters by a `FileLayout`: the tensors that a file needs, and the part of one that is a parameter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError, ModelFileError
from firsthand.nn.architecture import Architecture
from firsthand.nn.model_config import family_of
from firsthand.nn.weight_layout import FileLayout, FileTensor, file_tensors, shape_in_file

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Shape = tuple[int, ...]


class LayoutReader:
    """The parameters of one file. `needed` comes first; the tensor that was read last is kept, for its other parts."""

    def __init__(self, layout: FileLayout, names: Mapping[str, object], read: Callable[[str], Tensor]):
        self.layout, self._read = layout, read
        self._has_prefix = any(name.startswith(layout.prefix) for name in names)
        self._shapes: Mapping[str, Shape] = {}
        self._tensors: dict[str, FileTensor] = {}
        self._last: tuple[str, Tensor] | None = None

    def needed(self, parameters: Mapping[str, Shape]) -> dict[str, Shape]:
        """The names and shapes of the tensors that hold these parameters of ours."""
        self._shapes = parameters
        try:
            found = file_tensors(self.layout, parameters)
        except KeyError as error:
            raise ModelFileError(f"files of this family cannot hold this model: {error.args[0]}") from None
        self._tensors = {ours: tensor for tensor in found for ours in tensor.ours}
        return {self.in_file(tensor.name): shape_in_file(tensor, parameters) for tensor in found}

    def is_ignored(self, name: str) -> bool:
        """True for a tensor that a file may have and that is not loaded."""
        return any(re.fullmatch(pattern, name) for pattern in self.layout.ignored)

    def in_file(self, name: str) -> str:
        """The name as this file has it."""
        return name if self._has_prefix else name.removeprefix(self.layout.prefix)

    def name_of(self, ours: str) -> str:
        """The name of the tensor that a parameter is in."""
        if ours in self._tensors:
            return self.in_file(self._tensors[ours].name)
        return next(each.file for each in self.layout.outer if each.ours == (ours.removesuffix(".weight"),)) + ".weight"

    def read(self, ours: str) -> Tensor:
        """The values of one parameter, in our layout."""
        tensor = self._tensors[ours]
        name = self.in_file(tensor.name)
        if self._last is None or self._last[0] != name:
            self._last = (name, self._read(name))
        parts = tensor.fold.split(self._last[1], [self._shapes[each] for each in tensor.ours])
        part = parts[tensor.ours.index(ours)]
        return part if len(parts) == 1 else part.clone()

    def rows(self, ours: str) -> tuple[str, int, int] | None:
        """The tensor of a matrix and the matrix's range of rows in it; None if its rows do not lie one after another."""
        tensor = self._tensors[ours]
        if not tensor.fold.keeps_rows:
            return None
        place = tensor.ours.index(ours)
        first = sum(self._shapes[each][0] for each in tensor.ours[:place])
        return self.in_file(tensor.name), first, first + self._shapes[ours][0]


def huggingface_layout(a: Architecture) -> FileLayout | None:
    """The layout of the family's folders, if it is not one parameter a tensor under the usual names."""
    own = getattr(family_of(a), "huggingface_layout", None)
    found: FileLayout | None = None if own is None else own(a)
    return found


def gguf_layout(a: Architecture) -> FileLayout | None:
    """The layout of the family's GGUF files, if it is not one parameter a tensor under the usual names."""
    own = getattr(family_of(a), "gguf_layout", None)
    found: FileLayout | None = None if own is None else own(a)
    return found


def laid_out(layout: FileLayout, parameters: Mapping[str, torch.nn.Parameter]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file with these parameters: names and values."""
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    for tensor in tensors_of(layout, shapes):
        yield tensor.name, tensor.fold.join([parameters[name].detach() for name in tensor.ours])


def tensors_of(layout: FileLayout, shapes: Mapping[str, Shape]) -> Sequence[FileTensor]:
    """The tensors of a file with parameters of these shapes; ConfigError if the layout has no place for one."""
    try:
        return list(file_tensors(layout, shapes))
    except KeyError as error:
        raise ConfigError(f"files of this family cannot hold this model: {error.args[0]}") from None
