"""Tasks of inspect_evals over data that lies here, and whether their scorers pass the data's own solutions in our sandbox.

    FIRSTHAND_DATA=DATA python bench/inspect_references.py humaneval

Samples and scorers are the package's own; only where the rows come from differs, since it fetches them from the hub. The
same file serves a model: `firsthand run inspect:task=bench/inspect_references.py@humaneval --model MODEL`.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import sys
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset
from inspect_ai.scorer import match
from inspect_ai.solver import generate, prompt_template
from inspect_evals.gsm8k.gsm8k import MATH_PROMPT_TEMPLATE
from inspect_evals.gsm8k.gsm8k import record_to_sample as gsm8k_sample
from inspect_evals.humaneval.humaneval import record_to_sample as humaneval_sample
from inspect_evals.humaneval.humaneval import verify as humaneval_verify
from inspect_evals.mbpp.mbpp import record_to_sample as mbpp_sample
from inspect_evals.mbpp.mbpp import verify as mbpp_verify


def rows(name: str) -> list[dict]:
    """The rows of a file of the data folder."""
    raw = Path(os.environ.get("FIRSTHAND_DATA", "."), name).read_bytes()
    return [json.loads(line) for line in (gzip.decompress(raw) if name.endswith(".gz") else raw).splitlines()]


@task
def humaneval() -> Task:
    """HumanEval; a reference is the body of the function."""
    samples = [humaneval_sample()(row) for row in rows("code/HumanEval.jsonl.gz")]
    return Task(MemoryDataset(samples), solver=generate(), scorer=humaneval_verify(), sandbox="docker")


@task
def mbpp() -> Task:
    """MBPP's test problems, task ids 11 to 510."""
    more = {"source_file": "", "test_imports": []}
    found = [{**more, "prompt": row["text"], **row} for row in rows("code/mbpp.jsonl") if 11 <= row["task_id"] <= 510]
    return Task(MemoryDataset(list(map(mbpp_sample, found))), solver=generate(), scorer=mbpp_verify(), sandbox="docker")


@task
def gsm8k() -> Task:
    """GSM8K without examples."""
    samples = [gsm8k_sample(row) for row in rows("math/gsm8k_test.jsonl")]
    steps = [prompt_template(MATH_PROMPT_TEMPLATE), generate()]
    return Task(MemoryDataset(samples), solver=steps, scorer=match(numeric=True))


def main(name: str) -> None:
    from firsthand import catalog
    from firsthand.agent import Agent
    from firsthand.patterns.inspect_solver import inspect_solver
    from firsthand.providers.scripted import Scripted
    from firsthand.rollout import Place, rollouts

    samples = {"humaneval": humaneval, "mbpp": mbpp}[name]().dataset
    known = {
        sample.input: sample.target if name == "humaneval" else f"```python\n{sample.metadata['code']}\n```"
        for sample in samples
    }
    benchmark = catalog.benchmark(f"inspect:task={__file__}@{name}")
    for said, model in (
        ("references", Scripted(lambda messages, *_: known[messages[-1].text])),
        ("an empty answer", Scripted(lambda *_: "    pass\n")),
    ):
        places = [Place(Agent("references", model, inspect_solver), benchmark, task) for task in benchmark.tasks(0)]

        async def all_of(places: list[Place] = places) -> list:
            return [trace async for trace in rollouts(places, concurrency=4)]

        traces = asyncio.run(all_of())
        failed = [trace for trace in traces if trace.error or any(score.failed for score in trace.scores)]
        passed = sum(trace.scores[0].value for trace in traces if trace.scores)
        print(f"{name}, {said}: {passed:g} of {len(traces)} pass, {len(failed)} could not be judged")


if __name__ == "__main__":
    main(sys.argv[1])
