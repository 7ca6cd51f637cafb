"""Products of rows with float16 and float32 weights: billions of operations a second of ours, of FBGEMM's and of MKL's.

    python bench/products.py [--rows 1 8 256] [--out products.md]

One thread. Shapes are those of SmolLM2-135M (576, 1,536) and Qwen2.5-0.5B (896, 4,864). The three take turns, and each
figure is the median of all turns. Whether a row has the same bits alone and among all others is told as well: `same bits`.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from firsthand.kernels.products.float_products import dense_product, tile_floats

SHAPES = ((576, 576), (1536, 576), (576, 1536), (4864, 896), (896, 4864))
Product = Callable[[torch.Tensor], torch.Tensor]


def contenders(weight_OK: torch.Tensor) -> dict[str, Product]:
    """By name, what multiplies rows with these weights."""
    half, whole = (tile_floats(weight_OK.numpy(), dtype) for dtype in (np.float16, np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = torch.ops.quantized.linear_prepack_fp16(weight_OK, None)
    return {
        "ours, float16": lambda x: torch.from_numpy(dense_product(x.numpy(), half)),
        "FBGEMM, float16": lambda x: torch.ops.quantized.linear_dynamic_fp16(x, packed),
        "ours, float32": lambda x: torch.from_numpy(dense_product(x.numpy(), whole)),
        "MKL, float32": lambda x: x @ weight_OK.T,
    }


def rates(products: dict[str, Product], x_NK: torch.Tensor, operations: float, turns: int) -> dict[str, float]:
    """Operations a second of each, in billions: the median of several turns."""
    seconds: dict[str, list[float]] = {name: [] for name in products}
    calls = max(1, int(2e9 / operations))
    for _ in range(turns):
        for name, product in products.items():
            product(x_NK)
            began = time.perf_counter()
            for _ in range(calls):
                product(x_NK)
            seconds[name].append((time.perf_counter() - began) / calls)
    return {name: operations / statistics.median(each) / 1e9 for name, each in seconds.items()}


def has_same_bits(product: Product, x_NK: torch.Tensor) -> bool:
    """Whether each of the first rows has the same bits alone, in a pair, and among all."""
    whole = product(x_NK)
    return all(torch.equal(product(x_NK[i : i + n])[0], whole[i]) for n in (1, 2) for i in range(min(8, len(x_NK))))


def main() -> None:
    """Print the table, and write it where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 8, 32, 256])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    lines: list[str] = []
    equal: dict[str, bool] = {}
    for outputs, inputs in SHAPES:
        products = contenders(torch.randn(outputs, inputs, generator=random))
        if not lines:
            lines += [f"| outputs x inputs | rows | {' | '.join(products)} |", "|---" * (len(products) + 2) + "|"]
        for rows in args.rows:
            x_NK = torch.randn(rows, inputs, generator=random)
            found = rates(products, x_NK, 2.0 * rows * outputs * inputs, args.turns)
            lines.append(f"| {outputs} x {inputs} | {rows} | {' | '.join(f'{rate:.0f}' for rate in found.values())} |")
            for name, product in products.items():
                equal[name] = equal.get(name, True) and has_same_bits(product, x_NK)
    lines.append(f"| same bits | | {' | '.join('yes' if each else 'no' for each in equal.values())} |")
    text = "\n".join(lines)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
