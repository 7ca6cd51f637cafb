"""GPTQ and AWQ against rounding to the nearest, all with 4 bits in groups: perplexity of a real model on a held-out text.

    python bench/calibrated.py MODEL --sequences 32
    python bench/calibrated.py MODEL --sequences 128 --calibration abstracts.txt

The calibration text is the Markdown of docs/ or `--calibration FILE`, cut into sequences. Two texts are scored: the first
`--tokens` after the calibration (the same kind of text), and those of tests/data/dickens_1859.ids.json, which has SmolLM2's
ids, or of `--text FILE` (another kind).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from torch.nn import functional

from firsthand.measure.measurements import markdown_table
from firsthand.nn import weights
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.calibrated_rounding import BITS, round_model
from firsthand.nn.decoder import Decoder
from firsthand.nn.packed_linears import round_groups
from firsthand.tokens import pretrained

ROOT = Path(__file__).parent.parent


@torch.inference_mode()
def rows(model: Decoder, ids: list[int]) -> torch.Tensor:
    """Log-probs of every next token: T V."""
    hidden = model(torch.tensor(ids), torch.arange(len(ids)), Packed([len(ids)]))
    return model.logits(hidden).log_softmax(-1)


def scores(model: Decoder, ids: list[int], full: torch.Tensor) -> tuple[float, float]:
    """Perplexity, and KL divergence from the full model."""
    found = rows(model, ids)
    loss = functional.nll_loss(found[:-1], torch.tensor(ids[1:]))
    return math.exp(float(loss)), float((full.exp() * (full - found)).sum(-1).mean())


def main() -> None:
    """Rounds the model in each way and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file or folder; a float one is best")
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--length", type=int, default=256, help="tokens of a calibration sequence")
    parser.add_argument("--tokens", type=int, default=512, help="tokens that are scored")
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--text", type=Path)
    args = parser.parse_args()
    tokenizer = pretrained.load(Path(args.model))
    pages = [args.calibration] if args.calibration else sorted((ROOT / "docs").glob("*.md"))
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    end = args.sequences * args.length
    calibration = tokenizer.encode(text[: 8 * (end + args.tokens)])
    sequences = [calibration[start : start + args.length] for start in range(0, end, args.length)]
    if args.text:
        other = tokenizer.encode(args.text.read_text(encoding="utf-8"))[: args.tokens]
    else:
        other = json.loads((ROOT / "tests" / "data" / "dickens_1859.ids.json").read_text())[: args.tokens]
    scored = [calibration[end : end + args.tokens], other]
    if any(len(ids) < args.tokens for ids in scored):
        parser.error("the texts are too short: give fewer --sequences or --tokens")
    model = weights.load(args.model)
    full = [rows(model, ids) for ids in scored]
    table = [["full", ""]]
    for ids, each in zip(scored, full, strict=True):
        table[0] += [f"{scores(model, ids, each)[0]:.2f}", "0"]
    group = 0
    for method in ("gptq", "awq", "nearest"):
        model, began = weights.load(args.model), time.process_time()
        if method == "nearest":
            with torch.no_grad():
                for name in model.matrices():
                    weight = model.get_submodule(name).weight
                    weight.copy_(round_groups(weight, BITS, group).values())
        else:
            group = round_model(model, sequences, method)[1]  # type: ignore[arg-type]
        table.append([method, f"{time.process_time() - began:.0f}"])
        for ids, each in zip(scored, full, strict=True):
            perplexity, divergence = scores(model, ids, each)
            table[-1] += [f"{perplexity:.2f}", f"{1000 * divergence:.0f}"]
        print(table[-1], flush=True)
    headings = ["4 bits", "CPU seconds", "perplexity, same kind", "KL x 1000", "perplexity, other kind", "KL x 1000"]
    print(markdown_table(headings, table))
    print(f"- groups of {group}; {args.sequences} sequences of {args.length} tokens; {args.tokens} of each kind scored")


if __name__ == "__main__":
    main()
