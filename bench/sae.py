"""SAE training beside SAELens on the same activations, our files read by SAELens, and activations beside hooks.

`python bench/sae.py [--d 576] [--width 2304] [--k 32] [--batch 2048] [--steps 12] [--threads 2] [--repeats 3]
[--model FOLDER]`. SAELens 6 must be importable. It pins transformer-lens below 4, so an environment of its own is best:
`python -m venv venv-sae && venv-sae/bin/pip install sae-lens`, with this package beside it. Both trainers take the same
Gaussian mixture of rows from memory, with one kind (`--kind batch_topk`, `topk` or `jumprelu`), one width and one batch; the
first steps are a warm-up, and turns alternate. Reported: tokens/s of wall time, or with one thread of CPU time, which a busy
machine disturbs less; median and spread over repeats, and the ratio. With `--model`, a Hugging Face folder, activations of
its middle layer are read by us and by transformers with a forward hook, in float32 and the same texts; and transformers' run
is also stopped at that layer, which our reader does by itself.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firsthand.interp.activations import read_activations
from firsthand.interp.saes.sae_files import SavedSae, save_sae
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.interp.saes.sae_training import SaeSettings, SaeTrainer
from firsthand.nn.weights import load

WARM = 3
clock = time.perf_counter


def rows(args: argparse.Namespace) -> list[Tensor]:
    """Batches with features to find: sums of k of 2 d unit vectors, and a little noise."""
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(2 * args.d, args.d, generator=generator), dim=1)
    found = []
    for _ in range(4):
        is_on = torch.rand(args.batch, 2 * args.d, generator=generator) < args.k / (2 * args.d)
        found.append(is_on.float() @ features + 0.02 * torch.randn(args.batch, args.d, generator=generator))
    return found


def ours(args: argparse.Namespace, data: list[Tensor]) -> Callable[[], float]:
    """Seconds of so many of our steps, each time it is called."""
    sae = sae_of(args.kind, args.d, args.width, k=args.k)
    trainer = SaeTrainer(sae, SaeSettings(steps=10**6, dead_tokens=10**9))

    def turn() -> float:
        began = clock()
        for index in range(args.steps):
            trainer.step(data[index % len(data)])
        return clock() - began

    for index in range(WARM):
        trainer.step(data[index])
    return turn


def theirs(args: argparse.Namespace, data: list[Tensor]) -> Callable[[], float]:
    """The same of SAELens's trainer, without logging, evaluation or checkpoints."""
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    kinds: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "batch_topk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, {"k": float(args.k)}),
        "topk": (TopKTrainingSAE, TopKTrainingSAEConfig, {"k": args.k}),
        "jumprelu": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig, {}),
    }
    model_class, config_class, more = kinds[args.kind]

    def batches() -> Iterator[Tensor]:
        while True:
            yield from data

    steps = args.steps

    def trainer_of(count: int) -> Any:
        config = SAETrainerConfig(
            total_training_samples=count * args.batch, train_batch_size_samples=args.batch, device="cpu", lr_end=3e-4,
            logger=LoggingConfig(log_to_wandb=False),
        )  # fmt: skip
        torch.manual_seed(0)
        return SAETrainer(config, model_class(config_class(d_in=args.d, d_sae=args.width, **more)), batches())

    def turn() -> float:
        trainer = trainer_of(steps)
        began = clock()
        trainer.fit()
        return clock() - began

    trainer_of(WARM).fit()
    return turn


def same_outputs(args: argparse.Namespace, x: Tensor) -> float:
    """The largest difference of latents between our autoencoder and SAELens's reading of its files."""
    from sae_lens.saes.sae import SAE

    sae = sae_of(args.kind, args.d, args.width, k=args.k)
    trainer = SaeTrainer(sae, SaeSettings(steps=5))
    for _ in range(5):
        trainer.step(x)
    trainer.finished()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        save_sae(SavedSae(sae, "bench", "blocks.0.resid.post"), Path(folder) / "sae")
        read = SAE.load_from_disk(str(Path(folder) / "sae"))
        return float((read.encode(x) - sae.encode(x)).abs().max())


def activations(folder: Path, repeats: int) -> None:
    """Tokens/s of reading the middle layer's residual stream, three ways."""
    from transformers import AutoModelForCausalLM

    mine, other = load(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    layer = mine.architecture.num_layers // 2
    texts = torch.randint(mine.architecture.vocab_size, (8, 128))
    kept: list[Tensor] = []
    block = other.get_decoder().layers[layer]
    block.register_forward_hook(lambda module, inputs, output: kept.append(output[0]))

    class Stop(Exception):
        pass

    def whole() -> None:
        with torch.no_grad():
            other.get_decoder()(texts)

    def stopped() -> None:
        def stop(module: Any, inputs: Any, output: Any) -> None:
            raise Stop

        handle = block.register_forward_hook(stop)
        try:
            whole()
        except Stop:
            pass
        finally:
            handle.remove()

    ways = {
        "firsthand": lambda: read_activations(mine, texts, f"blocks.{layer}.resid.post"),
        "transformers with a hook": whole,
        "transformers, stopped at the layer": stopped,
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            began = clock()
            way()
            found[name].append(texts.numel() / (clock() - began))
    first = statistics.median(found["firsthand"][1:])
    for name, speeds in found.items():
        middle = statistics.median(speeds[1:])
        print(f"{name:<36} {middle:>10,.0f} tokens/s  {first / middle:.2f}x")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("d", 576), ("width", 2304), ("k", 32), ("batch", 2048), ("steps", 12), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kind", default="batch_topk", choices=("batch_topk", "topk", "jumprelu"))
    parser.add_argument("--model", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.threads == 1:
        global clock
        clock = time.process_time
    data = rows(args)
    turns = {"firsthand": ours(args, data), "SAELens": theirs(args, data)}
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(args.repeats):
        for name, turn in turns.items():
            seconds[name].append(turn())
    for name, each in seconds.items():
        speeds = sorted(args.batch * args.steps / s for s in each)
        middle = statistics.median(speeds)
        print(f"{name:<12} {middle:>10,.0f} tokens/s  ({speeds[0]:,.0f} to {speeds[-1]:,.0f})")
    ratio = statistics.median(seconds["SAELens"]) / statistics.median(seconds["firsthand"])
    print(
        f"ratio        {ratio:.2f}x, {args.kind}, {args.d} -> {args.width}, batch {args.batch}, {args.threads} threads"
    )
    if args.kind != "jumprelu":
        print(f"latents of our files read by SAELens differ by at most {same_outputs(args, data[0]):.2g}")
    if args.model:
        activations(args.model, args.repeats)


if __name__ == "__main__":
    main()
