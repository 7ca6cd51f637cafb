"""Any Inspect task: its samples, scorers and metrics, answered by our patterns or by its own solvers.

    firsthand run inspect:task=capitals.py@capitals --pattern direct,cot
    firsthand run inspect:task=inspect_evals/gsm8k --pattern inspect_solver --limit 20

A sample becomes a Task, and Inspect's own scorers judge the attempt. With the pattern `inspect_solver` the task's own solver
chain runs instead, on our model. A task file is Python and runs with your rights, like any Python file named on the command
line. Samples that need a sandbox get ours, or Docker. The work is done in `bridges/inspect/`.
"""

from __future__ import annotations

from pathlib import Path

from firsthand.benchmark import Benchmark
from firsthand.bridges.inspect.sample_sandboxes import Sandboxes, sandbox_specs
from firsthand.bridges.inspect.sample_scores import InspectScorers, restored, sample_id
from firsthand.bridges.inspect.solver_chain import solve
from firsthand.bridges.inspect.task_samples import cluster_key, fixed_sampling, load, protocol_text, task_of
from firsthand.errors import ConfigError

__all__ = ["inspect", "load", "restored", "solve"]


def inspect(*, task: str = "", args: str = "", grader: str = "", sandbox: str = "") -> Benchmark:
    """Return an Inspect task as a Benchmark.

    Args:
        task: An installed task, such as `inspect_evals/gsm8k`, or one in a file, `FILE.py@NAME`.
        args: The task's arguments, `shots=5,subject=maths`.
        grader: The model that the task's scorers call, if they call one, named as models are named everywhere here; a colon
            in it is written `\\:`, as in `grader=openai\\:NAME@https\\://HOST/v1`.
        sandbox: The sandbox provider for all samples: `firsthand`, `docker`, `local` or another that Inspect knows.
    """
    if not task:
        raise ConfigError(
            "inspect was given no task: write inspect:task=FILE.py@NAME, or inspect:task=inspect_evals/gsm8k"
        )
    theirs, samples = load(task, args, grader)
    fixed, key = fixed_sampling(theirs), cluster_key(theirs)
    ours = [task_of(sample, task, args, grader, fixed, key) for sample in samples]
    by_id = {each.id: sample for each, sample in zip(ours, samples, strict=True)}
    places = sandbox_specs(theirs, samples, task, sandbox)
    scorers = InspectScorers(theirs, by_id, grader, places)
    return Benchmark(
        name=f"inspect:{Path(task).name if '.py' in task else task}" + (f":{args}" if args else ""),
        tasks=lambda seed: ours,
        scorers=(scorers.score,),
        description=f"{task}, as Inspect has it.",
        protocol=protocol_text(theirs, task, args, grader, sorted({spec.type for spec in places.values()})),
        environment=(lambda each: Sandboxes(each, theirs, by_id[sample_id(each)], places.get(sample_id(each))))
        if places
        else None,
        figures=scorers.figures,
        options={"task": task, "args": args},
    )
