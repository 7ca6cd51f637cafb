"""Packed weights for inference on the CPU: fewer bytes to read, and rows that do not depend on the batch.

`float16` keeps weights as 16-bit floats in FBGEMM's layout and everything else in float32. `int8` keeps whole numbers
in blocks with a scale (`blockwise`), as most GGUF files do, and rounds activations to 8 bits too. Both are faster than
float32 and, unlike MKL's float32 products, give a row the same bits whatever rows are beside it.
"""

# N rows, O outputs, K inputs

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError
from firsthand.nn.blockwise import Blockwise, from_values

Mode = Literal["int8", "float16", "float32"]
FLOAT16_MAX = 65504.0


class HalfLinear(nn.Module):
    """A Linear whose weights are packed float16; activations, bias and sums are float32. It cannot be trained."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, name: str = "a layer"):
        super().__init__()
        self.name = name
        self.out_features, self.in_features = weight.shape
        self.has_bias = bias is not None
        self.packed = _prepack(weight, bias, name)

    def forward(self, x_ND: Tensor) -> Tensor:
        """x times the weights, plus bias: N rows, float32."""
        out: Tensor = torch.ops.quantized.linear_dynamic_fp16(x_ND, self.packed)
        return out

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.has_bias}, float16"

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, missing: list[str], *rest: Any
    ) -> None:
        """Take the names a Linear would take, so that weights can be replaced by `load_state_dict` as before."""
        names = [prefix + "weight"] + [prefix + "bias"] * self.has_bias
        absent = [name for name in names if name not in state_dict]
        missing += absent
        if not absent:
            self.packed = _prepack(
                state_dict[names[0]], state_dict[names[1]] if self.has_bias else None, prefix.rstrip(".")
            )
        # what is left is only torch's search for names that nobody takes
        known = dict.fromkeys(names, None)
        unexpected = rest[0]
        unexpected += [key for key in state_dict if strict and key.startswith(prefix) and key not in known]


class BlockLinear(nn.Module):
    """A Linear with blockwise weights; activations are rounded to 8 bits in blocks of 32, sums are float32.

    It cannot be trained. K must be a multiple of 32. Needs numba.
    """

    def __init__(self, matrix: Blockwise, bias: Tensor | None):
        super().__init__()
        from firsthand.nn.kernels.products import tile

        self.out_features, self.in_features = matrix.codes.shape
        self.bias = None if bias is None else bias.detach().float()
        self.tiles = tile(matrix)

    @property
    def weight(self) -> Tensor:
        """The weights as float32, made anew: O K."""
        from firsthand.nn.kernels.products import untile

        return torch.from_numpy(untile(self.tiles).values())

    def entry(self) -> list[int]:
        """What the compiled step needs to know of the weights."""
        return self.tiles.entry()

    def forward(self, x_NK: Tensor) -> Tensor:
        """x times the weights, plus bias: N O, float32."""
        from firsthand.nn.kernels.products import product

        rows = x_NK.reshape(-1, self.in_features).detach().contiguous().numpy()
        out_NO = torch.from_numpy(product(rows, self.tiles)).reshape(*x_NK.shape[:-1], self.out_features)
        return out_NO if self.bias is None else out_NO + self.bias

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        from firsthand.nn.kernels.products import KINDS

        kind, sizes = KINDS[self.tiles.kind], f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, {kind.bits} bits in blocks of {kind.block}"

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, missing: list[str], *rest: Any
    ) -> None:
        """Take the names a Linear would take; new weights are rounded to 8 bits."""
        names = [prefix + "weight"] + [prefix + "bias"] * (self.bias is not None)
        absent = [name for name in names if name not in state_dict]
        missing += absent
        if not absent:
            bias = None if self.bias is None else state_dict[names[1]]
            made = block_linear(state_dict[names[0]], bias, prefix.rstrip("."))
            self.tiles, self.bias = made.tiles, made.bias
        unexpected = rest[0]
        unexpected += [key for key in state_dict if strict and key.startswith(prefix) and key not in names]


def block_linear(weight: Tensor, bias: Tensor | None, name: str) -> BlockLinear:
    """A Linear's weights rounded to 8 bits in blocks of 32; ConfigError where that cannot be."""
    _check(weight, name)
    if weight.shape[1] % 32:
        raise ConfigError(f"{name} has {weight.shape[1]} inputs: int8 takes multiples of 32; use weights='float16'")
    return BlockLinear(from_values(weight.detach().contiguous().numpy()), bias)


def best_mode(device: torch.device | str = "cpu") -> Mode:
    """`float16` where torch has the packed kernels and they work, else `float32` (leave the model as it is)."""
    if torch.device(device).type != "cpu":
        return "float32"
    try:
        x = torch.linspace(-1, 1, 32).reshape(2, 16)
        weight = torch.linspace(1, -1, 64).reshape(4, 16)
        packed = HalfLinear(weight, None)(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return "float32"
    return "float16" if torch.allclose(packed, x @ weight.T, atol=1e-2) else "float32"


def pack(model: nn.Module, mode: Mode) -> nn.Module:
    """The same model with each Linear packed in place; `float32` changes nothing, and what is blockwise already stays so.

    An embedding that shares its matrix with the head keeps its own float32 copy for look-ups. Raises ConfigError,
    before anything changed, if a weight does not fit float16 or the model is not float32 on the CPU.
    """
    if mode == "float32":
        return model
    linears = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for name, module in linears:
        _check(module.weight, name)
    for name, module in linears:
        parent, _, leaf = name.rpartition(".")
        bias = None if module.bias is None else module.bias.detach()
        weight = module.weight.detach()
        packed = block_linear(weight, bias, name) if mode == "int8" else HalfLinear(weight, bias, name=name)
        setattr(model.get_submodule(parent), leaf, packed)
    return model


def fits_float16(weight: Tensor) -> bool:
    """Whether every number is finite and within float16's range."""
    low, high = weight.aminmax()
    return bool(low >= -FLOAT16_MAX) and bool(high <= FLOAT16_MAX)  # false for NaN too


def _check(weight: Tensor, name: str) -> None:
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        raise ConfigError(
            f"{name} is {weight.dtype} on {weight.device}: packing takes float32 on the CPU; load the model that way"
        )
    if not fits_float16(weight):
        raise ConfigError(
            f"{name} holds {weight.abs().max().item():g}, and float16 ends at {FLOAT16_MAX:g}: use weights='float32'"
        )


def _prepack(weight: Tensor, bias: Tensor | None, name: str) -> Any:
    weight = weight.detach().float().contiguous()
    _check(weight, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ops.quantized.linear_prepack_fp16(weight, None if bias is None else bias.detach().float())
