"""Table of what each stage buys a team of agents with an adapter each: SFT, PPO, DPO and GRPO, one on top of the other.

    python bench/agents_stages.py --seeds 0 1 2

Two workers add a pair of digits each, modulo 5, and a lead takes the difference of what they report: a small `orchestrate`,
on one base model of 100,000 parameters that knows the form of an answer and no arithmetic. Lead and worker have a LoRA
adapter each, and each is rewarded by its own part: the worker for its sums, the lead for the difference of what it was told.
SFT sees the answers to some of the 25 pairs; the later stages see rewards alone. Every stage begins with the adapters of
the one before. Accuracies are of sampled answers to tasks that were never trained on, with 95 % intervals; gains are paired
by task. A table for each seed, then one of all: a seed decides the base, the data of SFT, and every random number; the
interval of a gain there is Student's over the seeds. About three CPU minutes a seed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import special

from firsthand import Benchmark, catalog
from firsthand.agent import Agent
from firsthand.config import build
from firsthand.context import Context
from firsthand.model import Sampling
from firsthand.patterns.parts.sub_patterns import attempt, part_of
from firsthand.rollout import Place, rollouts
from firsthand.stats.intervals import mean_interval
from firsthand.task import Task
from firsthand.trace import Score, Trace
from firsthand.train.fit import fit
from firsthand.train.model_folder import save_model
from firsthand.train.objective import Objective
from firsthand.train.optimizers import optimizer_for
from firsthand.train.recipe_settings import OptimizerSettings
from firsthand.train.toy_tasks.answer_streams import answer_stream
from firsthand.train.toy_tasks.toy_models import toy_model
from firsthand.train.training_run import opened

MODULUS = 5
AGENTS = ("lead", "worker")
HELD_OUT = 200
HEAD = "| stage | team, 95 % interval | gain over the stage before | lead | worker | CPU s |\n|---|---|---|---|---|---|"
DIGITS = range(MODULUS)


# -- the task, as any benchmark and pattern --


def answer_to(prompt: str) -> str:
    """The right answer to `34+` or `34-`, modulo 5."""
    a, b = int(prompt[0]), int(prompt[1])
    return str((a + b if prompt[2] == "+" else a - b) % MODULUS)


def right(task: Task, trace: Trace) -> float:
    """1 if the team's answer is right."""
    return float((trace.answer or "") == task.secret["target"])


def parts(task: Task, trace: Trace) -> tuple[Score, ...]:
    """Each agent's own part, as scores at its messages: `worker_right` and `lead_right`."""
    found = []
    for call in trace.calls:
        assert call.at is not None
        asked, said = trace.nodes[call.at].message.text, trace.nodes[call.nodes[0]].message.text
        is_right = len(asked) == 3 and asked[:2].isdigit() and said == answer_to(asked)
        found.append(
            Score("worker_right" if asked.endswith("+") else "lead_right", float(is_right), node=call.nodes[0])
        )
    return tuple(found)


def agents_stages() -> Benchmark:
    """(a + b) - (c + d) modulo 5, for all digits below 5, in a shuffled order."""

    def tasks(seed: int) -> list[Task]:
        rows = [(a, b, c, d) for a in DIGITS for b in DIGITS for c in DIGITS for d in DIGITS]
        Random(7).shuffle(rows)
        return [
            Task(f"{a}{b}{c}{d}", f"{a}{b}{c}{d}", secret={"target": str((a + b - c - d) % MODULUS)})
            for a, b, c, d in rows
        ]

    return Benchmark("sums", tasks, (right, parts))


async def say(task: Task, ctx: Context) -> str:
    """The model's answer to the prompt as it is."""
    return (await ctx.say(task.prompt).generate()).text


async def team(task: Task, ctx: Context) -> str:
    """Two workers beside each other, then the lead on what they report."""
    pairs = (task.prompt[:2], task.prompt[2:])
    work = [(f"worker {i}", part_of(task, f"w{i}", f"{pair}+")) for i, pair in enumerate(pairs, 1)]
    outcomes = await ctx.group(attempt(name, say, part, ctx) for name, part in work)
    return (await ctx.say("".join(each.answer[:1] or "?" for each in outcomes) + "-").generate()).text


# -- the stages --


def make_base(folder: Path, seed: int) -> Path:
    """A model that answers any prompt with one digit, drawn at random."""
    model, tokenizer = toy_model([*map(str, DIGITS), "+", "-", "?"], seed=seed, context=32)
    rng = Random(seed)

    class Rows:
        def __iter__(self) -> Any:
            while True:
                yield [self.row() for _ in range(64)]

        def row(self) -> Any:
            prompt = f"{rng.choice(DIGITS)}{rng.choice(DIGITS)}{rng.choice('+-')}"
            return answer_stream(tokenizer.encode(prompt), tokenizer.encode(str(rng.choice(DIGITS))), tokenizer)

        def state(self) -> dict[str, Any]:
            return {}

        def load(self, state: Any) -> None:
            pass

    optimizer = optimizer_for(model, OptimizerSettings(lr=3e-3, weight_decay=0.0))
    fit(model, Rows(), objective=Objective(ce=1.0), optimizer=optimizer, schedule=lambda step: 1.0, steps=80)
    return save_model(model, tokenizer, folder)


def trained(recipe: str, out: Path, **settings: Any) -> Path:
    """The folder of a run."""
    module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
    config = build(module.Config, {"checkpoint_every": 0, "adapter": "lora", "rank": 8, **settings})
    with opened(out, recipe, config) as run:
        getattr(module, recipe)(config, run)
    return out


def apart(work: Path, stage: str, one: Any) -> Path:
    """The adapters of a stage that trains each agent by itself, in one folder."""
    folder = work / stage
    for agent in AGENTS:
        shutil.copytree(one(agent) / "adapter", folder / agent)
    return folder


def sft(work: Path, base: Path, seed: int, shown: int) -> Path:
    """Fine-tune each agent on the right answers to some of its 25 prompts."""

    def one(agent: str) -> Path:
        prompts = [f"{a}{b}{'+' if agent == 'worker' else '-'}" for a in DIGITS for b in DIGITS]
        Random(f"{seed}{agent}").shuffle(prompts)
        lines = [json.dumps({"prompt": each, "completion": answer_to(each)}) for each in prompts[:shown]]
        data = work / f"sft-{agent}.jsonl"
        data.write_text("\n".join(lines) + "\n")
        return trained(
            "sft", work / f"sft-{agent}", data=str(data), model=str(base), steps=40, batch_size=shown, lr=1e-2, holdout=0.0,
            seed=seed,
        )  # fmt: skip

    return apart(work, "stage-sft", one)


def rewarded(recipe: str, work: Path, base: Path, before: Path, seed: int, **settings: Any) -> Path:
    """Train both agents together by their parts of the reward."""
    own = Path(__file__)
    trained(
        recipe, work / recipe, benchmark=str(own), pattern=f"{own}:team", model=str(base), begin_with=str(before),
        agents="lead=lead_right,worker=worker_right", prompts=32, group_size=8, max_tokens=3, held_out=HELD_OUT,
        eval_every=10_000, kl=0.01, seed=seed, **settings,
    )  # fmt: skip
    return work / recipe / "adapters"


def dpo(work: Path, base: Path, before: Path, seed: int, traces: Sequence[Trace]) -> Path:
    """Train each agent on pairs of right and wrong answers of its own to one prompt."""

    def one(agent: str) -> Path:
        answers: dict[str, dict[bool, str]] = {}
        for trace in traces:
            for score in trace.scores:
                if score.name == f"{agent}_right" and score.node is not None:
                    node = trace.nodes[score.node]
                    assert node.parent is not None
                    asked = trace.nodes[node.parent].message.text
                    answers.setdefault(asked, {})[bool(score.value)] = node.message.text
        pairs = [
            {"prompt": asked, "chosen": each[True], "rejected": each[False]}
            for asked, each in sorted(answers.items())
            if len(each) == 2 and each[False]
        ]
        data = work / f"dpo-{agent}.jsonl"
        data.write_text("".join(json.dumps(each) + "\n" for each in pairs))
        if not pairs:
            shutil.copytree(before / agent, work / f"dpo-{agent}" / "adapter")
            return work / f"dpo-{agent}"
        return trained(
            "dpo", work / f"dpo-{agent}", data=str(data), model=str(base), begin_with=str(before / agent), steps=30,
            batch_size=min(16, len(pairs)), lr=3e-4, beta=0.3, seed=seed,
        )  # fmt: skip

    return apart(work, "stage-dpo", one)


def attempts(base: Path, adapters: Path | None, tasks: Sequence[Task], epochs: int, seed: int) -> list[Trace]:
    """Attempts of the team at tasks, sampled at temperature 1, in the order of tasks and epochs."""
    name = str(base) if adapters is None else f"agents:{base}@{adapters}"
    model = catalog.model(name, weights="float32")
    agent = Agent("team", model, team, sampling=Sampling(max_tokens=3, temperature=1.0))
    places = [Place(agent, agents_stages(), task, epoch) for task in tasks for epoch in range(epochs)]

    async def made() -> list[Trace]:
        return [trace async for trace in rollouts(places, seed=seed, concurrency=256)]

    found = {trace.place: trace for trace in asyncio.run(made())}
    model.close()  # type: ignore[attr-defined]
    return [found[place.id] for place in places]


class Outcome(NamedTuple):
    """Accuracies after a stage: of the team by task, and the mean of each agent's part."""

    team: np.ndarray[Any, Any]
    lead: float
    worker: float
    seconds: float


def outcome(traces: Sequence[Trace], seconds: float) -> Outcome:
    """The accuracies of attempts."""

    def mean(name: str) -> float:
        return float(np.mean([score.value for trace in traces for score in trace.scores if score.name == name]))

    values = np.array([trace.value("right") or 0.0 for trace in traces])
    return Outcome(values.reshape(HELD_OUT, -1).mean(1), mean("lead_right"), mean("worker_right"), seconds)


def row(stage: str, now: Outcome, before: Outcome | None) -> str:
    """A line of the table."""

    def shown(values: np.ndarray[Any, Any]) -> str:
        found = mean_interval(values.tolist())
        return f"{found.low:.2f} to {found.high:.2f}"

    gain = ""
    if before is not None:
        change = now.team - before.team
        gain = f"{change.mean():+.2f} ({shown(change)})"
    return (
        f"| {stage} | {now.team.mean():.2f} ({shown(now.team)}) | {gain} | {now.lead:.2f} | {now.worker:.2f} | "
        f"{now.seconds:.0f} |"
    )


def stages(seed: int, shown: int, steps: int) -> dict[str, Outcome]:
    """Run all stages with one seed and print its table; returns the outcomes by stage."""
    found: dict[str, Outcome] = {}
    with TemporaryDirectory() as place:
        work = Path(place)
        base = make_base(work / "base", seed)
        tasks = list(agents_stages().tasks(0))
        trainable, held_out = tasks[:-HELD_OUT], tasks[-HELD_OUT:]
        print(f"seed {seed}\n{HEAD}", flush=True)
        found["base"] = before = outcome(attempts(base, None, held_out, 2, seed), 0.0)
        print(row("base", before, None), flush=True)
        adapters: Path | None = None
        for stage in ("sft", "ppo", "dpo", "grpo"):
            began = time.process_time()
            if stage == "sft":
                adapters = sft(work, base, seed, shown)
            elif stage == "dpo":
                assert adapters is not None
                adapters = dpo(work, base, adapters, seed, attempts(base, adapters, trainable, 2, seed + 1))
            else:
                assert adapters is not None
                adapters = rewarded(stage, work, base, adapters, seed, lr=1e-3, steps=steps)
            seconds = time.process_time() - began
            now = outcome(attempts(base, adapters, held_out, 2, seed), seconds)
            print(row(stage.upper(), now, before), flush=True)
            found[stage.upper()] = before = now
    return found


def over_seeds(by_seed: Sequence[dict[str, Outcome]]) -> list[str]:
    """The lines of the table of all seeds: each stage's accuracy by seed, and the mean of its gains."""
    lines = [
        "| stage | team, by seed | gain over the stage before, mean over seeds | lead | worker |",
        "|---|---|---|---|---|",
    ]
    names = list(by_seed[0])
    for before, name in zip([None, *names[:-1]], names, strict=True):
        teams = ", ".join(f"{each[name].team.mean():.2f}" for each in by_seed)
        gain = ""
        if before is not None:
            gains = [float((each[name].team - each[before].team).mean()) for each in by_seed]
            half = special.stdtrit(len(gains) - 1, 0.975) * np.std(gains, ddof=1) / len(gains) ** 0.5
            gain = f"{np.mean(gains):+.2f} ({np.mean(gains) - half:+.2f} to {np.mean(gains) + half:+.2f})"
        lead, worker = (np.mean([getattr(each[name], part) for each in by_seed]) for part in ("lead", "worker"))
        lines.append(f"| {name} | {teams} | {gain} | {lead:.2f} | {worker:.2f} |")
    return lines


def main() -> None:
    """Run the stages with each seed and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--shown", type=int, default=12, help="pairs of 25 whose answers SFT sees")
    parser.add_argument("--steps", type=int, default=40, help="steps of PPO and of GRPO")
    given = parser.parse_args()
    torch.set_num_threads(1)
    by_seed = [stages(seed, given.shown, given.steps) for seed in given.seeds]
    if len(by_seed) > 1:
        print("\n".join([f"seeds {', '.join(map(str, given.seeds))}", *over_seeds(by_seed)]))


if __name__ == "__main__":
    main()
