"""Quantises matrices to ggml's blocks, the inverse of reading them: Q4_0 to Q8_0 and the K types Q2_K to Q6_K.

Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 equal the `gguf` package's, one rounding by the extremes of a block. For the K types, which
leave a choice, scales and minimums are those of least squared error (`block_fits`). A super-block is 256 weights of a
row: 16 blocks of 16 (Q2_K, Q3_K, Q6_K) or 8 of 32 (Q4_K, Q5_K), with scales of 4 to 8 bits in units of one float16.
"""

# O outputs, K inputs, U super-blocks, S blocks of a super-block, B weights of a block, T tiles of 16 blocks

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firsthand.errors import ConfigError
from firsthand.kernels.products.blockwise import SUPER, Bytes, Floats

LANES = 16
FLOATS = ("F32", "F16", "BF16")
PLAIN = {"Q4_0": 18, "Q4_1": 20, "Q5_0": 22, "Q5_1": 24, "Q8_0": 34}
"""Types with blocks of 32, and the bytes of one."""
FLOAT16_MAX = 65504.0
_CHUNK = 1 << 20
"""Weights that are rounded at a time: memory is bounded, and threads share a matrix."""


@dataclass(frozen=True)
class KType:
    """The sizes of one of the K types."""

    block: int
    """Weights that share a scale."""
    least: int
    """Smallest code; 0 where blocks have minimums."""
    most: int
    """Largest code."""
    first_scale: int
    """Smallest scale of a block, in units of its super-block."""
    last_scale: int
    """Largest scale of a block (and minimum), in units of its super-block."""
    tops: tuple[float, ...]
    """Codes tried for the largest weight of a block, as offsets from `most` (with minimums) or as factors of `least`."""

    @property
    def has_minimums(self) -> bool:
        """True for types whose blocks have a minimum."""
        return self.least == 0


K_TYPES = {
    "Q2_K": KType(16, 0, 3, 0, 15, tuple(-0.5 + 0.1 * i for i in range(16))),
    "Q3_K": KType(16, -4, 3, -32, 31, tuple(f * (0.7 + 0.05 * i) for i in range(9) for f in (1.0, -1.0))),
    "Q4_K": KType(32, 0, 15, 0, 63, tuple(-1.6 + 0.2 * i for i in range(14))),
    "Q5_K": KType(32, 0, 31, 0, 63, tuple(-1.6 + 0.2 * i for i in range(14))),
    "Q6_K": KType(16, -32, 31, -128, 127, tuple(f * (0.95 + 0.0125 * i) for i in range(7) for f in (1.0, -1.0))),
}
WRITABLE = (*FLOATS, *PLAIN, *K_TYPES)
"""ggml types that `quantise` writes."""


def block_values(kind: str) -> int:
    """Weights of a block (of a super-block for the K types): a row's length must be a multiple."""
    return SUPER if kind in K_TYPES else 1 if kind in FLOATS else 32


def quantise(values_OK: Floats, kind: str, *, threads: int = 1) -> Bytes:
    """Returns the bytes of a matrix in one of `WRITABLE`: O, bytes of a row.

    ConfigError for another type, rows that do not divide into its blocks, values that are not finite or too large.
    """
    if kind not in WRITABLE:
        raise ConfigError(f"{kind!r} cannot be written; these can: {', '.join(WRITABLE)}")
    if values_OK.shape[-1] % block_values(kind):
        raise ConfigError(f"rows have {values_OK.shape[-1]} values: {kind} needs a multiple of {block_values(kind)}")
    rows_OK = np.ascontiguousarray(values_OK, dtype=np.float32).reshape(-1, values_OK.shape[-1])
    if len(rows_OK) == 0:
        raise ConfigError(f"a matrix of shape {values_OK.shape} has no rows to quantise")
    step = max(1, _CHUNK // rows_OK.shape[1])
    chunks = [rows_OK[start : start + step] for start in range(0, len(rows_OK), step)]
    with ThreadPoolExecutor(max(1, threads)) as pool:
        packed = list(pool.map(lambda chunk: _chunk(chunk, kind), chunks))
    return np.concatenate(packed).reshape(*values_OK.shape[:-1], -1)


def dequantise(raw: Bytes, kind: str) -> Floats:
    """The values of a matrix's bytes, by the `gguf` package: O K, float32."""
    import gguf

    with np.errstate(all="ignore"):
        return np.array(gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind]), dtype=np.float32)


def _chunk(rows_OK: Floats, kind: str) -> Bytes:
    import gguf

    largest = float(np.abs(rows_OK).max())
    if not np.isfinite(largest):
        raise ConfigError("the weights hold values that are no finite numbers: they cannot be quantised")
    if kind not in ("F32", "BF16") and largest > FLOAT16_MAX:
        raise ConfigError(
            f"the weights hold {largest:g}, and scales are float16, which ends at {FLOAT16_MAX:g}: keep F32"
        )
    if kind in FLOATS:
        with np.errstate(all="ignore"):
            raw: Bytes = gguf.quants.quantize(rows_OK, gguf.GGMLQuantizationType[kind]).view(np.uint8)
        return raw.reshape(len(rows_OK), -1)
    if kind in PLAIN:
        return _pack_plain(rows_OK, kind).reshape(len(rows_OK), -1)
    of = K_TYPES[kind]
    x = _tiled(rows_OK.reshape(-1, of.block))
    pack = _pack_affine if of.has_minimums else _pack_symmetric
    return pack(x, of, kind, rows_OK.size // SUPER).reshape(len(rows_OK), -1)


def _pack_plain(rows_OK: Floats, kind: str) -> Bytes:
    from firsthand.kernels.products.plain_rounding import round_between, round_bytes, round_centred

    flat, count = rows_OK.reshape(-1), rows_OK.size // 32
    out = np.empty((count, PLAIN[kind]), dtype=np.uint8)
    scales = np.empty(count, dtype=np.float32)
    if kind in ("Q4_1", "Q5_1"):
        minimums = np.empty(count, dtype=np.float32)
        round_between(flat, 15 if kind == "Q4_1" else 31, scales, minimums, 4, out.reshape(-1))
        out[:, 2:4] = _bytes_of(minimums.astype(np.float16))
    elif kind == "Q8_0":
        round_bytes(flat, scales, 2, out.reshape(-1))
    else:
        round_centred(flat, 8 if kind == "Q4_0" else 16, scales, 2, out.reshape(-1))
    out[:, :2] = _bytes_of(scales.astype(np.float16))
    return out


def _tiled(blocks_SB: Floats) -> Floats:
    """Blocks as tiles of 16, blocks of zeros up to a whole tile: T B 16."""
    short = -len(blocks_SB) % LANES
    padded = np.pad(blocks_SB, ((0, short), (0, 0))) if short else blocks_SB
    return np.ascontiguousarray(padded.reshape(-1, LANES, blocks_SB.shape[1]).transpose(0, 2, 1))


def _untiled(codes: NDArray[np.int8], supers: int) -> NDArray[np.int8]:
    """Codes of the tiles as U S B."""
    size = codes.shape[1]
    return codes.transpose(0, 2, 1).reshape(-1, size)[: supers * SUPER // size].reshape(supers, -1, size)


def _per_super(values: Floats, supers: int, size: int) -> Floats:
    """One number for each block as U S."""
    return values[: supers * SUPER // size].reshape(supers, -1)


def _units(scales_US: Floats, last: float) -> tuple[NDArray[np.float16], Floats]:
    """The float16 unit of each super-block in which its largest scale is `last`, and the scales in that unit."""
    index = np.abs(scales_US).argmax(1)
    largest_U = scales_US[np.arange(len(scales_US)), index]
    units_U = (largest_U / np.float32(last)).astype(np.float16)
    wide_U = units_U.astype(np.float32)
    inverse_U = np.divide(1, wide_U, out=np.zeros_like(wide_U), where=np.abs(wide_U) > 0)
    return units_U, scales_US * inverse_U[:, None]


def _spread(per_super_U: NDArray[Any], blocks: int, total: int) -> Floats:
    """A number of each super-block for each of its blocks, zeros up to a whole tile."""
    spread = np.zeros(total, dtype=np.float32)
    spread[: len(per_super_U) * blocks] = np.repeat(per_super_U.astype(np.float32), blocks)
    return spread


def _padded(values: Floats, total: int) -> Floats:
    flat = np.zeros(total, dtype=np.float32)
    flat[: values.size] = values.reshape(-1)
    return flat


def _pack_affine(x: Floats, of: KType, kind: str, supers: int) -> Bytes:
    from firsthand.kernels.products.block_fits import fit_affine, round_affine

    total, blocks = len(x) * LANES, SUPER // of.block
    scales, minimums = np.zeros(total, dtype=np.float32), np.zeros(total, dtype=np.float32)
    flat = x.reshape(-1)
    tops = (of.most + np.array(of.tops)).astype(np.float32)
    fit_affine(flat, of.block, of.most, tops, scales, minimums)
    units_U, scales_US = _units(_per_super(scales, supers, of.block), of.last_scale)
    minimum_units_U, minimums_US = _units(_per_super(minimums, supers, of.block), of.last_scale)
    scales = _padded(np.clip(np.rint(scales_US), 0, of.last_scale), total)
    minimums = _padded(np.clip(np.rint(minimums_US), 0, of.last_scale), total)
    codes = np.zeros(x.shape, dtype=np.int8)
    units, minimum_units = _spread(units_U, blocks, total), _spread(minimum_units_U, blocks, total)
    round_affine(
        flat, of.block, of.most, units, minimum_units, of.last_scale, scales, minimums, codes.reshape(-1)
    )  # fmt: skip
    ls = _per_super(scales, supers, of.block).astype(np.uint8)
    lm = _per_super(minimums, supers, of.block).astype(np.uint8)
    q = _untiled(codes, supers).astype(np.uint8)
    halves = (_bytes_of(units_U), _bytes_of(minimum_units_U))
    if kind == "Q2_K":
        return np.concatenate([ls | (lm << 4), _two_bits(q), *halves], axis=1)
    head = [*halves, _six_bits(ls, lm)]
    if kind == "Q5_K":
        fifth = (q >> 4) << np.arange(8, dtype=np.uint8)[None, :, None]
        head.append(np.bitwise_or.reduce(fifth, axis=1))
    pairs = (q & 15).reshape(supers, 4, 2, 32)
    return np.concatenate([*head, (pairs[:, :, 0] | (pairs[:, :, 1] << 4)).reshape(supers, -1)], axis=1)


def _pack_symmetric(x: Floats, of: KType, kind: str, supers: int) -> Bytes:
    from firsthand.kernels.products.block_fits import fit_symmetric, round_symmetric

    total = len(x) * LANES
    scales = np.zeros(total, dtype=np.float32)
    flat = x.reshape(-1)
    tops = (of.least * np.array(of.tops)).astype(np.float32)
    fit_symmetric(flat, of.block, of.least, of.most, tops, scales)
    units_U, scales_US = _units(_per_super(scales, supers, of.block), of.first_scale)
    scales = _padded(np.clip(np.rint(scales_US), of.first_scale, of.last_scale), total)
    codes = np.zeros(x.shape, dtype=np.int8)
    units = _spread(units_U, SUPER // of.block, total)
    round_symmetric(
        flat, of.block, of.least, of.most, units, of.first_scale, of.last_scale, scales, codes.reshape(-1)
    )  # fmt: skip
    ls = _per_super(scales, supers, of.block).astype(np.int8)
    q = (_untiled(codes, supers) - of.least).astype(np.uint8)
    if kind == "Q6_K":
        return np.concatenate([*_six_bit_codes(q), ls.view(np.uint8), _bytes_of(units_U)], axis=1)
    lines = (q >> 2).reshape(supers, 8, 32) << np.arange(8, dtype=np.uint8)[None, :, None]
    high = np.bitwise_or.reduce(lines, axis=1)
    return np.concatenate([high, _two_bits(q & np.uint8(3)), _signed_six_bits(ls), _bytes_of(units_U)], axis=1)


def _bytes_of(halves_U: NDArray[np.float16]) -> Bytes:
    return np.ascontiguousarray(halves_U).view(np.uint8).reshape(-1, 2)


def _two_bits(q: Bytes) -> Bytes:
    """Codes of two bits: four lines of 32 weights share 32 bytes."""
    lines = q.reshape(len(q), 2, 4, 32) << np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    packed: Bytes = np.bitwise_or.reduce(lines, axis=2).reshape(len(q), 64)
    return packed


def _six_bit_codes(q: Bytes) -> list[Bytes]:
    """Codes of six bits: the low halves of 64 weights in the low and of 64 in the high half of 64 bytes, then the rest."""
    lines = q.reshape(len(q), 2, 4, 32)
    low = (lines[:, :, :2] & 15) | ((lines[:, :, 2:] & 15) << 4)
    high = (lines >> 4) << np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    return [low.reshape(len(q), 128), np.bitwise_or.reduce(high, axis=2).reshape(len(q), 64)]


def _six_bits(ls: Bytes, lm: Bytes) -> Bytes:
    """Eight scales and eight minimums of six bits in 12 bytes."""
    low = (ls[:, :4] & 63) | ((ls[:, 4:] >> 4) << 6)
    high = (lm[:, :4] & 63) | ((lm[:, 4:] >> 4) << 6)
    return np.concatenate([low, high, (ls[:, 4:] & 15) | ((lm[:, 4:] & 15) << 4)], axis=1)


def _signed_six_bits(ls: NDArray[np.int8]) -> Bytes:
    """Sixteen scales from -32 to 31 in 12 bytes."""
    codes = (ls.astype(np.int16) + 32).astype(np.uint8)
    low = (codes[:, :8] & 15) | ((codes[:, 8:] & 15) << 4)
    high = (codes >> 4).reshape(-1, 4, 4) << np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    return np.concatenate([low, np.bitwise_or.reduce(high, axis=1)], axis=1)
