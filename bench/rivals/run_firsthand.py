"""Our engine on the jobs of a spec. Run by ../engine.py: `PYTHON run_firsthand.py SPEC.json RESULT.json`.

The engine as `firsthand run` makes it, without the event loop and the thread around it. Prompts of the decode jobs are
computed first, and found in the prefix tree when the time is taken.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.measure.workloads import ServingJob, rate
from firsthand.nn import weights


def jobs(found: dict) -> list[ServingJob]:
    """The jobs of a JSON object."""
    return [
        ServingJob(name, tuple(map(tuple, job["prompts"])), tuple(job["max_tokens"])) for name, job in found.items()
    ]


def main(spec_path: str, result_path: str) -> None:
    """Warm up, run each job once, write tokens/s by name."""
    spec = json.loads(Path(spec_path).read_text())
    engine = Engine(weights.load(spec["model"], keep_blocks=True), EngineConfig(threads=spec["threads"]))
    for job in jobs(spec["warmup"]):
        rate(engine, job)
    figures = {job.name: rate(engine, job) for job in jobs(spec["jobs"])}
    Path(result_path).write_text(json.dumps({"about": f"weights {engine.weights}", "figures": figures}))


if __name__ == "__main__":
    main(*sys.argv[1:])
