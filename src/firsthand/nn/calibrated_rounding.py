"""GPTQ and AWQ: rounds a Decoder's matrices to 4 bits with a text that shows what passes through them.

GPTQ (Frantar et al., 2023, arXiv:2210.17323) rounds one input after another and moves each error to the inputs not yet
rounded, by the inverse of H = X^T X. AWQ (Lin et al., 2024, arXiv:2306.00978) rounds once, after it has scaled up the
inputs that matter: s = mean|x|^a, with a from a search; the layer before is divided by s, so the model computes the same.
Blocks go first to last, each with the inputs that the rounded ones before it give.
"""

# N tokens, D hidden, O outputs, K inputs, G groups of inputs

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.blocks.norm import RMSNorm
from firsthand.nn.decoder import Block, Decoder
from firsthand.nn.layout_reader import huggingface_layout, tensors_of
from firsthand.nn.model_config import to_config
from firsthand.nn.packed_format import Method, PackedFormat
from firsthand.nn.packed_linears import RoundedMatrix, group_grid, round_groups, rows_joined
from firsthand.nn.weight_layout import ROWS, FileTensor
from firsthand.nn.weight_names import huggingface_name
from firsthand.system.new_file import replacing, write_new

BITS = 4
_DAMP = 0.01
"""Share of the mean of H's diagonal that is added to it."""
_STEPS = 20
_SITES = {"attn.in": ("q_proj", "k_proj", "v_proj"), "attn.mixed": ("o_proj",), "mlp.in": ("gate_proj", "up_proj"),
          "mlp.act": ("down_proj",)}  # fmt: skip
_LINEARS = tuple(name for names in _SITES.values() for name in names)
Told = Callable[[int, int], None]


def round_model(
    model: Decoder, sequences: Sequence[Sequence[int]], method: Method, *, told: Told | None = None
) -> tuple[dict[str, RoundedMatrix], int]:
    """Rounds the matrices of all blocks in place; returns them by our names, and the size of their groups.

    `sequences` are the ids of calibration texts. ConfigError if there are none, the model has other parts than attention
    and a gated MLP, or numbers that float16 cannot hold, or AWQ's scales would change what it computes.
    """
    texts = [torch.tensor(list(each)) for each in sequences if len(each) > 1]
    if not texts:
        raise ConfigError(
            "the calibration text is empty: give one of some thousand words that is like what the model reads"
        )
    blocks = [block for block in model.layers if isinstance(block, Block)]
    linears = [_linear(block, name) for block in blocks for name in _LINEARS]
    if len(blocks) < len(model.layers) or len(linears) != len(model.matrices()):
        raise ConfigError(f"{method} takes blocks of attention and a gated MLP: quantise this model to GGUF instead")
    _file_tensors(model)
    group = _group_of([linear.in_features for linear in linears])
    if any(linear.out_features % 8 for linear in linears):
        raise ConfigError(f"{method} packs eight weights in an integer: this model has matrices of other sizes")
    _expect_float16(model.named_parameters())
    found: dict[str, RoundedMatrix] = {}
    with torch.no_grad():
        hidden = [model.embed(ids) * model.architecture.embed_scale for ids in texts]
        for index, block in enumerate(blocks):
            hessians = _hessians(model, index, block, hidden, keep=False)[0]
            if method == "awq":  # all scales come before any rounding: one matrix is scaled by its rows and columns
                plain_ND = _hessians(model, index, block, hidden[:1], keep=True)[1][0]
                for site, names in _SITES.items():
                    _scale(block, site, [_linear(block, name) for name in names], hessians[site], group)
                scaled_ND = _hessians(model, index, block, hidden[:1], keep=True)[1][0]
                if not _same(hidden[0], plain_ND, scaled_ND):
                    raise ConfigError(f"AWQ's scales change what layer {index} computes: take GPTQ, or a GGUF type")
            for site, names in _SITES.items():
                for name in names:
                    linear = _linear(block, name)
                    weight = linear.weight.float()
                    rounds = method == "gptq"
                    made = gptq(weight, hessians[site][0], group) if rounds else round_groups(weight, BITS, group)
                    linear.weight.data = made.values().to(linear.weight.dtype)
                    found[_place(index, name)] = made
            hidden = _hessians(model, index, block, hidden, keep=True)[1]
            if told is not None:
                told(index + 1, len(blocks))
    return found, group


def save_rounded(
    model: Decoder, rounded: Mapping[str, RoundedMatrix], group: int, method: Method, folder: Path
) -> None:
    """Writes a rounded model as a folder of safetensors in the layout of AutoGPTQ or AWQ, the rest in float16.

    ConfigError, before anything is written, for numbers that float16 cannot hold.
    """
    from safetensors.torch import save_file

    of = PackedFormat(method, BITS, group, zero_offset=int(method == "gptq"))
    a, parameters = model.architecture, dict(model.named_parameters())
    state: dict[str, Tensor] = {}
    for name, ours, fold in _file_tensors(model):
        parts = [rounded.get(each.removesuffix(".weight")) if each.endswith(".weight") else None for each in ours]
        if matrices := [each for each in parts if each is not None]:
            stem = name.removesuffix("weight")
            state |= {stem + part: values for part, values in rows_joined(matrices).tensors(of).items()}
        else:
            values = fold.join([parameters[each].detach() for each in ours])
            state[name] = values.half().contiguous()
    _expect_float16(state.items())
    settings: dict[str, Any] = {"quant_method": method, "bits": BITS, "group_size": group}
    settings |= {"desc_act": False, "sym": False, "checkpoint_format": "gptq"} if method == "gptq" else {
        "zero_point": True, "version": "gemm"}  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    config = {**to_config(a), "dtype": "float16", "quantization_config": settings}
    with replacing(folder / "config.json") as config_file, replacing(folder / "model.safetensors") as weights_file:
        save_file(state, weights_file, metadata={"format": "pt"})
        write_new(config_file, json.dumps(config, indent=2) + "\n")


def _file_tensors(model: Decoder) -> Sequence[FileTensor]:
    """The tensors of a folder, and the parameters in each; ConfigError where matrices lie in one otherwise than in rows."""
    a, shapes = model.architecture, {name: tuple(each.shape) for name, each in model.named_parameters()}
    layout = huggingface_layout(a)
    if layout is None:
        return [FileTensor(huggingface_name(name, a), (name,), ROWS) for name in shapes]
    found = tensors_of(layout, shapes)
    matrices = {f"{_place(index, name)}.weight" for index in range(len(model.layers)) for name in _LINEARS}
    if any(tensor.fold is not ROWS and matrices.intersection(tensor.ours) for tensor in found):
        raise ConfigError(
            f"files of {a.family} hold matrices in a layout of their own: quantise this model to GGUF instead"
        )
    return found


def gptq(weight_OK: Tensor, hessian_KK: Tensor, group: int, *, bits: int = BITS) -> RoundedMatrix:
    """Rounds a matrix so that the error of its products with inputs x is small: `hessian_KK` is the sum of x x^T."""
    weight_OK, h_KK = weight_OK.double().clone(), hessian_KK.double().clone()
    diagonal = h_KK.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1
    weight_OK[:, dead] = 0
    diagonal += _DAMP * diagonal.mean()
    upper_KK = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h_KK)), upper=True)
    codes = torch.empty(weight_OK.shape, dtype=torch.uint8)
    scales, zeros = [], []
    for start in range(0, weight_OK.shape[1], group):
        end = start + group
        scale_O1, zero_O1 = group_grid(weight_OK[:, start:end].float(), bits, group)
        scales.append(scale_O1)
        zeros.append(zero_O1)
        errors = torch.zeros(weight_OK.shape[0], group, dtype=torch.float64)
        for column in range(start, end):
            value_O, pivot = weight_OK[:, column], upper_KK[column, column]
            code_O = (value_O / scale_O1[:, 0] + zero_O1[:, 0]).round().clamp(0, 2**bits - 1)
            codes[:, column] = code_O.to(torch.uint8)
            error_O = (value_O - (code_O - zero_O1[:, 0]) * scale_O1[:, 0]) / pivot
            weight_OK[:, column + 1 : end] -= error_O[:, None] * upper_KK[column, column + 1 : end]
            errors[:, column - start] = error_O
        weight_OK[:, end:] -= errors @ upper_KK[start:end, end:]
    return RoundedMatrix(codes, torch.cat(scales, 1), torch.cat(zeros, 1))


def awq_scales(weights_OK: Sequence[Tensor], hessian_KK: Tensor, mean_K: Tensor, group: int) -> Tensor:
    """The scale of each input that makes the rounded matrices' products with x best, of powers of its mean magnitude."""
    best, best_K = torch.inf, torch.ones_like(mean_K)
    for step in range(_STEPS):
        scale_K = mean_K.clamp(min=1e-4) ** (step / _STEPS)
        scale_K = scale_K / (scale_K.max() * scale_K.min()).sqrt()
        error = 0.0
        for weight_OK in weights_OK:
            miss_OK = round_groups(weight_OK * scale_K, BITS, group).values() / scale_K - weight_OK
            error += float(((miss_OK @ hessian_KK) * miss_OK).sum())
        if error < best:
            best, best_K = error, scale_K
    return best_K


def _scale(block: Block, site: str, linears: list[nn.Linear], seen: tuple[Tensor, Tensor], group: int) -> None:
    """Scale the inputs of some matrices, and divide what makes these inputs by the same numbers."""
    before: Any = {"attn.in": block.attention_norm, "mlp.in": block.mlp_norm, "mlp.act": _linear(block, "up_proj"),
                   "attn.mixed": _linear(block, "v_proj")}[site]  # fmt: skip
    width = linears[0].in_features
    if isinstance(before, nn.Identity):
        return  # no norm stands before these matrices, which read the residual stream
    if isinstance(before, nn.Linear) and before.out_features != width:
        return  # a value head that several query heads share has no scale of its own for each
    scale_K = awq_scales([linear.weight.float() for linear in linears], *seen, group)
    for linear in linears:
        linear.weight.data = (linear.weight * scale_K).to(linear.weight.dtype)
    if isinstance(before, RMSNorm) and before.unit_offset:
        before.weight.data = (1 + before.weight) / scale_K - 1
    else:
        before.weight.data = before.weight / (scale_K[:, None] if isinstance(before, nn.Linear) else scale_K)
    if getattr(before, "bias", None) is not None:  # of a Linear or a LayerNorm
        before.bias.data = before.bias / scale_K


def _same(x_ND: Tensor, plain_ND: Tensor, scaled_ND: Tensor) -> bool:
    """True if a block adds the same to x before and after it was scaled, up to the rounding of its numbers."""
    rounding = 4 * torch.finfo(plain_ND.dtype).eps
    x_ND, plain_ND, scaled_ND = x_ND.float(), plain_ND.float(), scaled_ND.float()
    bound = (1e-3 + rounding) * (plain_ND - x_ND).norm() + rounding * plain_ND.norm()
    return bool((scaled_ND - plain_ND).norm() <= bound)


def _expect_float16(tensors: Iterable[tuple[str, Tensor]]) -> None:
    for name, values in tensors:
        if values.is_floating_point() and not values.detach().half().isfinite().all():
            raise ConfigError(
                f"{name} holds a number that is not finite or beyond 65504, where float16 ends: quantise this model to "
                "GGUF, whose norms and biases are F32"
            )


def _hessians(
    model: Decoder, index: int, block: Block, hidden: list[Tensor], *, keep: bool
) -> tuple[dict[str, tuple[Tensor, Tensor]], list[Tensor]]:
    """X^T X and the mean of |X| at each site of a block over all texts; with `keep` the block's outputs."""
    sums: dict[str, Tensor] = {}
    means: dict[str, Tensor] = {}
    count, outputs = 0, []

    def tap(site: str, values: Tensor) -> Tensor:
        if site in _SITES:
            x_NK = values.flatten(1).float()
            sums[site] = sums.get(site, 0) + x_NK.T @ x_NK
            means[site] = means.get(site, 0) + x_NK.abs().sum(0)
        return values

    rope = model.architecture.ropes[index]
    for x_ND in hidden:
        count += len(x_ND)
        by = model.rotations(torch.arange(len(x_ND)), x_ND.dtype)[rope]
        out_ND = block(x_ND, by, Packed([len(x_ND)]), None if keep else tap)
        if keep:
            outputs.append(out_ND)
    return {site: (sums[site], means[site] / count) for site in sums}, outputs


def _linear(block: Block, name: str) -> nn.Linear:
    part = block.attention if name in ("q_proj", "k_proj", "v_proj", "o_proj") else block.mlp
    found = getattr(part, name, None)
    if not isinstance(found, nn.Linear):
        raise ConfigError(f"a block has no plain {name}: quantise this model to GGUF instead")
    return found


def _place(index: int, name: str) -> str:
    part = "attention" if name in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp"
    return f"layers.{index}.{part}.{name}"


def _group_of(widths: Sequence[int]) -> int:
    """The largest usual size of a group that divides all rows."""
    for size in (128, 64, 32):
        if all(width % size == 0 for width in widths):
            return size
    raise ConfigError("the model has rows that groups of 32 do not divide: quantise it to GGUF instead")
