"""LoRA beside full fine-tuning: a new operator token for a new function, after a base that was trained on six others.

`python bench/lora_training.py [--seeds 3] [--base-steps 1000] [--steps 250] [--keep 0.3]`. The model (1.1M parameters in
matrices) reads an operator and six digits and writes six digits. The base learns copy, reverse, sort up and down, rotate
and add one; each method then learns `reverse, then add one` under an unseen token, from the same base and in as many
steps. Reported: greedy whole-answer accuracy on held-out rows of the new task and of the base's, parameters and bytes that
are trained, and CPU seconds of one thread. With `--keep` that share of the rows is of the base's tasks, which are to be
kept.
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder, initialise
from firsthand.train.adapters.adapter_memory import training_memory
from firsthand.train.adapters.lora_config import LoRAConfig
from firsthand.train.adapters.lora_training import add_lora
from firsthand.train.fit import fit
from firsthand.train.objective import Objective
from firsthand.train.streams import Stream

DIGITS, LENGTH, BATCH = 10, 6, 48
Digits = list[int]
BASE: dict[str, Callable[[Digits], Digits]] = {
    "copy": lambda d: d,
    "reverse": lambda d: d[::-1],
    "sort up": sorted,
    "sort down": lambda d: sorted(d, reverse=True),
    "rotate": lambda d: d[1:] + d[:1],
    "add one": lambda d: [(each + 1) % DIGITS for each in d],
}
NEW = "reverse, add one"
TASKS = {**BASE, NEW: lambda d: [(each + 1) % DIGITS for each in d[::-1]]}
OPERATORS = {name: DIGITS + index for index, name in enumerate(TASKS)}
VOCAB = DIGITS + len(TASKS) + 1
ANSWER = VOCAB - 1
METHODS: dict[str, tuple[LoRAConfig | None, float]] = {
    "full fine-tuning": (None, 3e-4),
    "LoRA r8": (LoRAConfig(rank=8, alpha=16), 3e-3),
    "rsLoRA r8": (LoRAConfig(rank=8, alpha=5.65685424949238, rank_stabilised=True), 3e-3),
    "LoRA r1": (LoRAConfig(rank=1, alpha=2), 3e-3),
    "DoRA r8": (LoRAConfig(kind="dora", rank=8, alpha=16), 3e-3),
    "QLoRA r8 (NF4)": (LoRAConfig(rank=8, alpha=16, base="nf4"), 3e-3),
}


class Batches:
    """Rows of random tasks, drawn from a seed."""

    def __init__(self, tasks: list[str], size: int, seed: int, keep: float = 0.0):
        self.tasks, self.size, self.rng, self.keep = tasks, size, random.Random(seed), keep

    def __iter__(self) -> Iterator[list[Stream]]:
        while True:
            kept = round(self.keep * self.size)
            rows = [draw(self.tasks, self.rng) for _ in range(self.size - kept)]
            yield [stream(*each) for each in (*rows, *(draw(list(BASE), self.rng) for _ in range(kept)))]

    def state(self) -> dict[str, int]:
        return {}

    def load(self, state: object) -> None:
        raise NotImplementedError


def draw(tasks: list[str], rng: random.Random) -> tuple[list[int], list[int]]:
    """A prompt and its answer; rows whose digits sum to a multiple of 7 are never drawn here, and are the test's."""
    task = rng.choice(tasks)
    while True:
        digits = [rng.randrange(DIGITS) for _ in range(LENGTH)]
        if sum(digits) % 7:
            return [OPERATORS[task], *digits, ANSWER], TASKS[task](digits)


def held_out(task: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng, prompts, answers = random.Random(0), [], []
    while len(prompts) < count:
        digits = [rng.randrange(DIGITS) for _ in range(LENGTH)]
        if sum(digits) % 7 == 0:
            prompts.append([OPERATORS[task], *digits, ANSWER])
            answers.append(TASKS[task](digits))
    return torch.tensor(prompts), torch.tensor(answers)


def stream(prompt: list[int], answer: list[int]) -> Stream:
    return Stream(np.array(prompt + answer), ce=np.array([0.0] * len(prompt) + [1.0] * len(answer)))


@torch.no_grad()
def accuracy(model: Decoder, task: str, count: int = 300) -> float:
    """The share of held-out rows whose greedy answer is right in every digit."""
    model.eval()
    rows, answers = held_out(task, count)
    for _ in range(LENGTH):
        positions = torch.arange(rows.shape[1]).repeat(count)
        hidden = model(rows.flatten(), positions, Packed([rows.shape[1]] * count))
        last = model.logits(hidden.unflatten(0, (count, -1))[:, -1]).argmax(-1)
        rows = torch.cat((rows, last[:, None]), dim=1)
    return float((rows[:, -LENGTH:] == answers).all(1).float().mean())


def train(model: Decoder, tasks: list[str], steps: int, rate: float, seed: int, keep: float = 0.0) -> float:
    """Trains all parameters that ask for gradients; returns CPU seconds."""
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    began = time.process_time()
    fit(
        model, Batches(tasks, BATCH, seed, keep), objective=Objective(ce=1.0), optimizer=optimizer, steps=steps,
        schedule=lambda step: min(step / 30, 1.0) * (1 - 0.9 * step / steps),
    )  # fmt: skip
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--base-steps", type=int, default=1000)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument(
        "--keep", type=float, default=0.0, help="share of rows of the base's tasks while the new is learned"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    a = Architecture(
        family="llama", vocab_size=VOCAB, hidden_size=128, intermediate_size=384, num_layers=5, num_heads=4,
        num_kv_heads=4, head_dim=32, max_position=64, norm_eps=1e-5, windows=(None,) * 5, ropes=(Rope(),) * 5,
        tie_embeddings=True,
    )  # fmt: skip
    for seed in range(given.seeds):
        base = initialise(Decoder(a), seed=seed)
        seconds = train(base, list(BASE), given.base_steps, 1e-3, seed)
        kept = np.mean([accuracy(base, task) for task in BASE])
        print(f"seed {seed}: base {training_memory(base).trainable:,} parameters, base tasks {kept:.3f}, "
              f"new task {accuracy(base, NEW):.3f}, {seconds:.0f} CPU s", flush=True)  # fmt: skip
        for name in given.methods.split(","):
            config, rate = METHODS[name]
            torch.manual_seed(seed)
            model = copy.deepcopy(base) if config is None else add_lora(copy.deepcopy(base), config)
            seconds = train(model, [NEW], given.steps, rate, seed + 100, given.keep)
            memory = training_memory(model)
            kept = np.mean([accuracy(model, task) for task in BASE])
            print(f"  {name:18} new {accuracy(model, NEW):.3f}  base tasks {kept:.3f}  trained {memory.trainable:9,} "
                  f"({memory.trained_bytes / 1e6:5.2f} MB)  weights {memory.weight_bytes / 1e6:4.2f} MB  {seconds:4.0f} s",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
