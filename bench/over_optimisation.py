"""Reward against KL on a known gold reward: best-of-n, DPO and PPO from one reward model, on reviews in a tiny language.

    python bench/over_optimisation.py --pairs 800 --steps 60 --seeds 0 --svg over-optimisation.svg

The writer of `toy_reviews` (100,000 parameters) answers each opening twice; which answer is preferred is drawn by
Bradley-Terry from the gold rewards. A reward model and DPO learn from these pairs; PPO and best-of-n follow the reward
model. Gold is the mean gold reward of sampled answers, proxy the reward model's. KL is that of the policy to the writer in
nats per answer: of best-of-n log n - (n - 1) / n (Stiennon et al., 2020), else the mean log-ratio of its own samples.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from firsthand import catalog
from firsthand.config import build
from firsthand.nn import weights
from firsthand.rollout import Place, rollouts
from firsthand.tokens import pretrained
from firsthand.train.episodes import Episode, grade
from firsthand.train.reinforcement import open_agent
from firsthand.train.reward_scores import RewardModel
from firsthand.train.rollout_settings import RolloutSettings
from firsthand.train.stream_logprobs import stream_logprobs
from firsthand.train.training_run import opened

MAX_TOKENS = 20


def trained(recipe: str, out: Path, **settings: Any) -> Path:
    """The model of a recipe's run."""
    module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
    config = build(module.Config, {"checkpoint_every": 0, **settings})
    with opened(out, recipe, config) as run:
        folder: Path = getattr(module, recipe)(config, run)
    return folder


def sampled(model: Path, count: int, each: int, seed: int) -> list[Episode]:
    """`each` answers to each of `count` openings, as episodes with gold rewards."""
    local, agent = open_agent(model, RolloutSettings(model=str(model), max_tokens=MAX_TOKENS))
    benchmark = catalog.benchmark(f"toy_reviews:tasks={count}")

    async def made() -> list[Any]:
        places = [Place(agent, benchmark, task, epoch) for task in benchmark.tasks(seed) for epoch in range(each)]
        return [trace async for trace in rollouts(places, seed=seed, concurrency=256)]

    traces = asyncio.run(made())
    local.close()
    return list(grade(traces).episodes)


def write_pairs(writer: Path, file: Path, count: int, seed: int) -> None:
    """Pairs of the writer's answers, the preferred one drawn by Bradley-Terry from the gold rewards."""
    tokenizer, rng = pretrained.load(writer), Random(seed)
    episodes = sampled(writer, count, 2, seed)
    lines = []
    for first, second in zip(episodes[::2], episodes[1::2], strict=True):
        assert first.group == second.group
        start = int(first.sampled[0])
        if rng.random() > 1 / (1 + math.exp(second.reward - first.reward)):
            first, second = second, first
        texts = [tokenizer.decode(each.ids[each.sampled].tolist()) for each in (first, second)]
        if texts[0] != texts[1] and all(texts):
            prompt = tokenizer.decode(first.ids[:start].tolist())
            lines.append(json.dumps({"prompt": prompt, "chosen": texts[0], "rejected": texts[1]}))
    file.write_text("\n".join(lines) + "\n")


def point(name: str, model: Path, writer: Path, judge: RewardModel, seed: int) -> dict[str, Any]:
    """Gold, proxy and KL of a policy's own samples."""
    episodes = sampled(model, 256, 1, 1000 + seed)
    own, before = (stream_logprobs(weights.load(each), [e.ids for e in episodes]) for each in (model, writer))
    ratios = [float((a.logprobs - b.logprobs)[e.sampled].sum()) for a, b, e in zip(own, before, episodes, strict=True)]
    return {
        "policy": name, "gold": float(np.mean([e.reward for e in episodes])),
        "proxy": float(np.mean(judge.scores([e.ids for e in episodes]))), "kl": float(np.mean(ratios)),
    }  # fmt: skip


def best_of(writer: Path, judge: RewardModel, sizes: list[int], seed: int) -> list[dict[str, Any]]:
    """Gold, proxy and KL of the answer that the reward model likes best of n."""
    episodes = sampled(writer, 48, max(sizes), 2000 + seed)
    scores = np.array(judge.scores([each.ids for each in episodes])).reshape(48, -1)
    gold = np.array([each.reward for each in episodes]).reshape(48, -1)
    rows = []
    for size in sizes:
        parts = scores[:, : scores.shape[1] // size * size].reshape(-1, size)
        best, golds = parts.argmax(1), gold[:, : gold.shape[1] // size * size].reshape(-1, size)
        rows.append(
            {
                "policy": f"best of {size}",
                "gold": float(golds[np.arange(len(best)), best].mean()),
                "proxy": float(parts.max(1).mean()),
                "kl": math.log(size) - (size - 1) / size,
            }
        )
    return rows


Point = tuple[str, float, float, float]
"""Policy, gold, proxy, KL."""
COLOURS = {"best": "#4477aa", "DPO": "#cc6677", "PPO": "#228833", "writer": "#555555"}


def picture(points: Sequence[Point]) -> str:
    """Gold (discs) and proxy (circles) over the square root of the KL, the axis of Gao et al. (2022), as an SVG."""
    width, height, left, top = 640, 380, 56, 24
    right, bottom = width - 24, height - 48
    most = max(math.sqrt(kl) for *_, kl in points) * 1.05
    values = [value for _, gold, proxy, _ in points for value in (gold, proxy)]
    low, high = math.floor(min(values)), math.ceil(max(values))

    def at(kl: float, value: float) -> tuple[float, float]:
        share = (value - low) / (high - low)
        return left + (right - left) * math.sqrt(max(kl, 0.0)) / most, bottom - (bottom - top) * share

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
    ]
    parts.append(f'<rect width="{width}" height="{height}" fill="white"/>')
    for tick in range(low, high + 1):
        _, y = at(0, tick)
        parts.append(
            f'<path d="M{left} {y:.1f}H{right}" stroke="#ddd"/><text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">'
        )
        parts.append(f"{tick}</text>")
    for tick in (0, 1, 4, 9, 25, 49, 100):
        if math.sqrt(tick) <= most:
            parts.append(f'<text x="{at(tick, low)[0]:.1f}" y="{bottom + 18}" text-anchor="middle">{tick}</text>')
    parts.append(
        f'<text x="{(left + right) / 2}" y="{height - 8}" text-anchor="middle">KL to the writer, nats (root scale)</text>'
    )
    parts.append(f'<text x="{left}" y="14">reward: discs gold, circles proxy</text>')
    for name, gold, proxy, kl in points:
        colour = COLOURS[name.split(" ")[0].strip(",")]
        (x, y), (_, other) = at(kl, gold), at(kl, proxy)
        parts.append(f'<circle cx="{x:.1f}" cy="{other:.1f}" r="4" fill="none" stroke="{colour}"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{name}</title></circle>')
        place = f'x="{x + 6:.1f}"' if x < right - 60 else f'x="{x - 6:.1f}" text-anchor="end"'
        below = 14 if name.startswith("PPO") else -6
        parts.append(f'<text {place} y="{y + below:.1f}" fill="{colour}" font-size="10">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Print a table for each seed, and draw the means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=800)
    parser.add_argument("--steps", type=int, default=60, help="of PPO")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--svg", type=Path, help="draw gold and proxy over the KL, the means of the seeds, into this file"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    every: dict[str, list[tuple[float, float, float]]] = {}
    for seed in args.seeds:
        began = time.process_time()
        with TemporaryDirectory() as name:
            place = Path(name)
            writer = trained("toy_writer", place / "writer", seed=seed)
            write_pairs(writer, place / "pairs.jsonl", args.pairs, seed)
            data = {"data": str(place / "pairs.jsonl"), "model": str(writer), "lr": 1e-3, "seed": seed}
            judge_folder = trained("reward", place / "judge", steps=100, batch_size=32, holdout=0.1, **data)
            judge = RewardModel.load(judge_folder)
            rows = [point("writer", writer, writer, judge, seed), *best_of(writer, judge, [4, 16, 64], seed)]
            for beta in (0.5, 0.1):
                dpo = trained("dpo", place / f"dpo{beta}", steps=120, batch_size=32, beta=beta, **data)
                rows.append(point(f"DPO, beta {beta}", dpo, writer, judge, seed))
            for kl in (0.3, 0.1, 0.0):
                ppo = trained(
                    "ppo", place / f"ppo{kl}", benchmark="toy_reviews", model=str(writer), reward_model=judge_folder,
                    kl=kl, lr=1e-3, steps=args.steps, prompts=32, group_size=4, max_tokens=MAX_TOKENS, seed=seed,
                )  # fmt: skip
                rows.append(point(f"PPO, kl {kl}", ppo, writer, judge, seed))
        print(f"seed {seed}, {args.pairs} pairs, {time.process_time() - began:.0f} CPU s")
        print("| policy | gold | proxy | KL to the writer |\n|---|---|---|---|")
        for row in rows:
            print(f"| {row['policy']} | {row['gold']:.2f} | {row['proxy']:.2f} | {row['kl']:.2f} |", flush=True)
            every.setdefault(row["policy"], []).append((row["gold"], row["proxy"], row["kl"]))
    if args.svg is not None:
        args.svg.write_text(picture([(name, *map(float, np.mean(rows, axis=0))) for name, rows in every.items()]))


if __name__ == "__main__":
    main()
