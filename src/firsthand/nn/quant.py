"""Packed weights for CPU inference: fewer bytes to read, and batch-invariant rows.

`float16` keeps weights as 16-bit floats and everything else in float32. `int8` keeps integers in blocks with a scale
(`blockwise`), as most GGUF files do, and rounds activations to 8 bits too. Both are faster than float32 and, unlike MKL's
float32 products, batch-invariant.
"""

# N rows, O outputs, K inputs

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError
from firsthand.kernels.products.blockwise import Blockwise, from_values

if TYPE_CHECKING:
    from firsthand.kernels.products.float_products import DenseTiles

Mode = Literal["int8", "float16", "float32"]
FLOAT16_MAX = 65504.0


class DenseLinear(nn.Module):
    """A Linear whose weights are tiled float16; activations, bias and sums are float32.

    Its weights are frozen; gradients pass through it to its inputs. Needs numba.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, name: str = "a layer"):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.bias = None if bias is None else bias.detach().float()
        self.tiles = _tiled(weight, name)

    @property
    def weight(self) -> Tensor:
        """Unpacks the weights to float32: O K."""
        from firsthand.kernels.products.float_products import untile_floats

        return torch.from_numpy(untile_floats(self.tiles))

    def entry(self) -> list[int]:
        """Address, kind and sizes of the weights, as the compiled step takes them."""
        return self.tiles.entry()

    def forward(self, x_NK: Tensor) -> Tensor:
        """Returns x times the weights plus bias: N O, float32."""
        out_NO = frozen_product(x_NK, self)
        return out_NO if self.bias is None else out_NO + self.bias

    def product(self, x_NK: Tensor) -> Tensor:
        """Returns x times the weights, without gradient: N O, float32."""
        from firsthand.kernels.products.float_products import dense_product

        rows = x_NK.reshape(-1, self.in_features).detach().contiguous().numpy()
        return torch.from_numpy(dense_product(rows, self.tiles)).reshape(*x_NK.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Sizes for `print(model)`."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, float16"
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, missing: list[str], *rest: Any
    ) -> None:
        """Accept a Linear's names, so `load_state_dict` replaces the weights as before packing."""
        taken = _taken(state_dict, prefix, self.bias is not None, strict, missing, rest[0])
        if taken:
            self.tiles = _tiled(taken[0].detach().float(), prefix.rstrip("."))
            self.bias = taken[1].detach().float() if len(taken) > 1 else None


class BlockLinear(nn.Module):
    """A Linear with blockwise weights; activations are rounded to 8 bits in blocks of 32, sums are float32.

    Its weights are frozen; gradients pass through the dequantised weights to its inputs, as if activations were not
    rounded. K must be a multiple of 32. Needs numba.
    """

    def __init__(self, matrix: Blockwise, bias: Tensor | None):
        super().__init__()
        from firsthand.kernels.products.tiled_weights import tile

        self.out_features, self.in_features = matrix.codes.shape
        self.bias = None if bias is None else bias.detach().float()
        self.tiles = tile(matrix)

    @property
    def weight(self) -> Tensor:
        """Unpacks the weights to float32: O K."""
        from firsthand.kernels.products.tiled_weights import untile

        return torch.from_numpy(untile(self.tiles).values())

    def entry(self) -> list[int]:
        """Address, kind and sizes of the weights, as the compiled step takes them."""
        return self.tiles.entry()

    def forward(self, x_NK: Tensor) -> Tensor:
        """Returns x times the weights plus bias: N O, float32."""
        out_NO = frozen_product(x_NK, self)
        return out_NO if self.bias is None else out_NO + self.bias

    def product(self, x_NK: Tensor) -> Tensor:
        """Returns x times the weights, without gradient: N O, float32."""
        from firsthand.kernels.products.blockwise_products import product

        rows = x_NK.reshape(-1, self.in_features).detach().contiguous().numpy()
        return torch.from_numpy(product(rows, self.tiles)).reshape(*x_NK.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Sizes for `print(model)`."""
        from firsthand.kernels.products.tiled_weights import KINDS

        kind, sizes = KINDS[self.tiles.kind], f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, {kind.bits} bits in blocks of {kind.block}"

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, missing: list[str], *rest: Any
    ) -> None:
        """Accept a Linear's names; new weights are rounded to 8 bits."""
        taken = _taken(state_dict, prefix, self.bias is not None, strict, missing, rest[0])
        if taken:
            made = block_linear(taken[0], taken[1] if len(taken) > 1 else None, prefix.rstrip("."))
            self.tiles, self.bias = made.tiles, made.bias


class FrozenWeights(Protocol):
    """A product with weights that are not trained, and the weights themselves."""

    @property
    def weight(self) -> Tensor: ...
    def product(self, x_NK: Tensor, /) -> Tensor: ...


class _FrozenProduct(torch.autograd.Function):
    """x W, whose gradient reaches x alone: dequantised weights are made again in the backward pass, not kept for it."""

    @staticmethod
    def forward(ctx: Any, x_NK: Tensor, module: FrozenWeights) -> Tensor:
        ctx.module, ctx.dtype = module, x_NK.dtype
        return module.product(x_NK)

    @staticmethod
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor, None]:
        weight_OK = ctx.module.weight
        return (grad_NO.to(weight_OK.dtype) @ weight_OK).to(ctx.dtype), None


def frozen_product(x_NK: Tensor, module: FrozenWeights) -> Tensor:
    """Returns x times a module's frozen weights, with a gradient to x if one is asked for: N O."""
    if not (torch.is_grad_enabled() and x_NK.requires_grad):
        return module.product(x_NK)
    out_NO: Tensor = _FrozenProduct.apply(x_NK, module)  # type: ignore[no-untyped-call]
    return out_NO


def _taken(
    state_dict: dict[str, Any], prefix: str, has_bias: bool, strict: bool, missing: list[str], unexpected: list[str]
) -> list[Tensor]:
    """The tensors that a Linear here takes from a state, none if one is missing; records missing and unexpected names."""
    names = [prefix + "weight"] + [prefix + "bias"] * has_bias
    absent = [name for name in names if name not in state_dict]
    missing += absent
    # what is left is only torch's search for names that nobody takes
    unexpected += [key for key in state_dict if strict and key.startswith(prefix) and key not in names]
    return [] if absent else [state_dict[name] for name in names]


def block_linear(weight: Tensor, bias: Tensor | None, name: str) -> BlockLinear:
    """Rounds a Linear's weights to 8 bits in blocks of 32; ConfigError if they do not fit."""
    _check(weight, name)
    if weight.shape[1] % 32:
        raise ConfigError(f"{name} has {weight.shape[1]} inputs: int8 takes multiples of 32; use weights='float16'")
    return BlockLinear(from_values(weight.detach().contiguous().numpy()), bias)


def best_mode(device: torch.device | str = "cpu") -> Mode:
    """`float16` where its compiled kernels run, else `float32` (leave the model as it is)."""
    runs = torch.device(device).type == "cpu" and find_spec("numba") is not None
    return "float16" if runs else "float32"


def pack(model: nn.Module, mode: Mode) -> nn.Module:
    """Packs each Linear in place and returns the model; `float32` changes nothing, and blockwise layers are kept.

    A Linear of one row, such as the gate of a shared expert, stays as it is: it has nothing to save, and blocks would round
    its inputs too.
    An embedding that shares its matrix with the head keeps its own float32 copy for look-ups. Raises ConfigError,
    before anything changed, if a weight does not fit float16 or the model is not float32 on the CPU.
    """
    if mode == "float32":
        return model
    linears = [
        (name, each) for name, each in model.named_modules() if isinstance(each, nn.Linear) and each.out_features > 1
    ]
    for name, module in linears:
        _check(module.weight, name)
    for name, module in linears:
        parent, _, leaf = name.rpartition(".")
        bias = None if module.bias is None else module.bias.detach()
        weight = module.weight.detach()
        packed = block_linear(weight, bias, name) if mode == "int8" else DenseLinear(weight, bias, name=name)
        setattr(model.get_submodule(parent), leaf, packed)
    return model


def weight_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that `load_state_dict` takes, packed or not."""
    shapes: dict[str, tuple[int, ...]] = {}
    for place, module in model.named_modules():
        prefix = f"{place}." if place else ""
        shapes |= {prefix + name: tuple(each.shape) for name, each in module.named_parameters(recurse=False)}
        if isinstance(module, BlockLinear | DenseLinear):
            shapes[f"{prefix}weight"] = (module.out_features, module.in_features)
            if module.bias is not None:
                shapes[f"{prefix}bias"] = (module.out_features,)
    return shapes


def fits_float16(weight: Tensor) -> bool:
    """True if every number is finite and within float16's range."""
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


def _tiled(weight: Tensor, name: str) -> DenseTiles:
    from firsthand.kernels.products.float_products import tile_floats

    _check(weight, name)
    return tile_floats(weight.detach().contiguous().numpy(), np.float16)
