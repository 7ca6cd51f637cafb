"""A stand-in for Triton where it is not installed: its kernels run in numpy, one program after another."""

from __future__ import annotations

import importlib
import itertools
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch


class Block(np.ndarray):
    """A value of a kernel."""

    def to(self, dtype: Any) -> Any:
        return block(self.astype(dtype))


def block(values: Any) -> Block:
    return np.asarray(values).view(Block)


class Pointers:
    """Places in a tensor's memory."""

    def __init__(self, memory: np.ndarray, at: Any = 0):
        self.memory, self.at = memory, at

    def __add__(self, more: Any) -> Pointers:
        return Pointers(self.memory, np.asarray(self.at) + np.asarray(more))


class Language(ModuleType):
    """What of `triton.language` the kernels use."""

    constexpr, float32, int32, int64 = object, np.float32, np.int32, np.int64
    place = (0, 0, 0)

    def program_id(self, axis: int) -> Block:
        return block(self.place[axis])

    def arange(self, first: int, end: int) -> Block:
        return block(np.arange(first, end, dtype=np.int32))

    def zeros(self, shape: list[int], dtype: Any) -> Block:
        return block(np.zeros(shape, dtype))

    def full(self, shape: list[int], value: float, dtype: Any) -> Block:
        return block(np.full(shape, value, dtype))

    def cdiv(self, value: Any, by: int) -> Any:
        return -(-value // by)

    def where(self, test: Any, yes: Any, no: Any) -> Block:
        return block(np.where(test, yes, np.float32(no)))

    def exp(self, value: Any) -> Block:
        return block(np.exp(value))

    def maximum(self, a: Any, b: Any) -> Block:
        return block(np.maximum(a, b))

    def minimum(self, a: Any, b: Any) -> Block:
        return block(np.minimum(a, b))

    def max(self, value: Any, axis: int) -> Block:
        return block(np.max(value, axis))

    def sum(self, value: Any, axis: int) -> Block:
        return block(np.sum(value, axis))

    def dot(self, a: Any, b: Any, input_precision: str) -> Block:
        assert input_precision == "ieee" and a.dtype == b.dtype
        assert min(*a.shape, b.shape[1]) >= 16, "smaller than a GPU's matrix units take"
        return block(a.astype(np.float32) @ b.astype(np.float32))

    def load(self, source: Pointers, mask: Any = True, other: float = 0) -> Block:
        at, kept = np.broadcast_arrays(source.at, mask)
        assert not kept.any() or (at[kept].min() >= 0 and at[kept].max() < len(source.memory)), "outside of the tensor"
        return block(np.where(kept, source.memory[np.where(kept, at, 0)], np.array(other, source.memory.dtype)))

    def store(self, target: Pointers, values: Any, mask: Any) -> None:
        at, kept, values = np.broadcast_arrays(target.at, mask, values)
        target.memory[at[kept]] = values[kept]


class Jitted:
    """A kernel, which is launched on a grid."""

    def __init__(self, function: Any):
        self.function = function

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        language = self.function.__globals__["tl"]

        def launch(*args: Any) -> None:
            given = [Pointers(memory_of(arg)) if isinstance(arg, torch.Tensor) else arg for arg in args]
            for language.place in itertools.product(*map(range, grid)):
                with np.errstate(all="ignore"):
                    self.function(*given)

        return launch


def memory_of(tensor: torch.Tensor) -> np.ndarray:
    count = tensor.untyped_storage().nbytes() // tensor.element_size()
    found: np.ndarray = torch.as_strided(tensor, (count,), (1,), 0).numpy()
    return found


def imported(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """A module of ours that imports Triton, with this one in its place."""
    triton, language = ModuleType("triton"), Language("triton.language")
    vars(triton).update(jit=Jitted, language=language, next_power_of_2=lambda n: 1 << max(n - 1, 0).bit_length())
    monkeypatch.setitem(sys.modules, "triton", triton)
    monkeypatch.setitem(sys.modules, "triton.language", language)
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    monkeypatch.delitem(sys.modules, name)
    return module
