"""SIGKILL in reinforcement learning with rollouts under way: real processes, an environment, and `--resume`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

import tiny
from firsthand.cli import main
from firsthand.nn import weights
from firsthand.train.training_run import read_metrics
from thorough import part

OWN = '''
import asyncio, os
from random import Random
from pathlib import Path
from firsthand import Benchmark
from firsthand.loop.concurrency import derive_seed
from firsthand.message import ToolCall
from firsthand.task import Task
from firsthand.tool import tool

HOLD = Path(os.environ["HOLD"])
MADE = Path(os.environ["MADE"])
ROUND = int(os.environ["ROUND"])

class Dice:
    """An environment with a random state of its own, which a tool changes."""

    def __init__(self, task):
        self.random, self.total = Random(derive_seed("dice", task.id)), 0

    @property
    def tools(self):
        @tool(effect="write")
        def throw(times: int) -> str:
            """Throw a die."""
            self.total += sum(self.random.randrange(6) for _ in range(times))
            return str(self.total)
        return (throw,)

    async def open(self): ...
    async def close(self): ...
    async def final_state(self):
        return {"total": self.total}

def reward(task, trace):
    text = trace.answer or ""
    return sum(each in "aeiou" for each in text) / max(1, len(text)) + trace.final_state["total"] / 100

def own():
    return Benchmark("own", lambda seed: [Task(str(i), f"say {i}") for i in range(4)], (reward,), environment=Dice)

async def dicing(task, ctx):
    """An answer, a throw, and an answer; in one round half of the rollouts are held while a file is there."""
    first = await ctx.say(task.question).generate()
    with MADE.open("a") as file:
        file.write(f"{task.id}\\n")
    count = len(MADE.read_text().split())
    if HOLD.exists() and count > 8 * (ROUND - 1) and count % 2:
        await asyncio.sleep(3600)
    result = await first.call(ToolCall("1", "throw", {"times": 1 + len(first.text) % 3}))
    return (await first.say(result).generate()).text
'''


def process(words: list[str], folder: Path, more: Mapping[str, str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FIRSTHAND_HOME": str(folder / "home"), **more}
    return subprocess.Popen(
        [sys.executable, "-m", "firsthand", "train", *words], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finished(run: Path, number: int) -> int:
    """The finished rollouts that are kept of a round."""
    files = (run / "rollouts").glob(f"round-{number:06d}-*.jsonl")
    return sum(file.read_bytes().count(b"\n") - 1 for file in files)


ADAPTER, UPDATES = ["--adapter", "lora", "--rank", "4"], ["--updates", "2", "--kl", "0.1"]


@pytest.mark.slow
@pytest.mark.parametrize("settings", part([[*ADAPTER, *UPDATES], ADAPTER, UPDATES], 3))
def test_a_killed_run_with_rollouts_under_way_ends_with_the_bits_of_the_undisturbed_one(
    settings: list[str], tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    tiny.write_model(tmp_path / "tiny", max_position=1024)
    words = [
        "grpo", "own.py", "--model", "tiny", "--pattern", "own.py:dicing", "--prompts", "2", "--group-size", "4",
        "--max-tokens", "6", "--lr", "1e-2", "--steps", "6", "--checkpoint-every", "2", *settings,
    ]  # fmt: skip
    hold, updates = tmp_path / "hold", 2 if "--updates" in settings else 1
    own = {"HOLD": str(hold), "MADE": str(tmp_path / "made"), "ROUND": "4" if updates == 1 else "3"}
    number = int(own["ROUND"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for name, value in (
            own | {"MADE": str(tmp_path / "made-whole"), "FIRSTHAND_HOME": str(tmp_path / "home")}
        ).items():
            patch.setenv(name, value)
        assert main(["train", *words, "--out", "whole"]) == 0
    hold.touch()
    killed = process([*words, "--out", "cut"], tmp_path, own)
    end = time.monotonic() + 200
    while finished(tmp_path / "cut", number) < 4:  # the other four are held
        assert time.monotonic() < end and killed.poll() is None, killed.stderr and killed.stderr.read()
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait(timeout=60)
    assert finished(tmp_path / "cut", number) == 4
    hold.unlink()
    made = len((tmp_path / "made").read_text().split())
    resumed = process(["--resume", "cut"], tmp_path, own)
    assert resumed.wait(timeout=200) == 0, resumed.stderr and resumed.stderr.read()
    again = len((tmp_path / "made").read_text().split()) - made
    assert again == 8 * (6 // updates - number) + 4  # nothing that was finished is made again
    one, other = (weights.load(tmp_path / each / "model").state_dict() for each in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    names = ("loss", "grad_norm", "sampler_gap", "reward", "answer_tokens", "ratio")
    rows = [read_metrics(tmp_path / each) for each in ("whole", "cut")]
    for a, b in zip(*rows, strict=True):
        assert [a[name] for name in names[:3]] == [b[name] for name in names[:3]]
    assert updates > 1 or [[row[name] for name in names] for row in rows[0]] == [
        [row[name] for name in names] for row in rows[1]
    ]
