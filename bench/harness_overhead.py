"""What a harness itself costs: samples a second with a model that answers at once, beside Inspect, logs written by both.

    python bench/harness_overhead.py --samples 2000 --repeats 5

Needs `pip install 'firsthand[inspect]'`. Each side asks the same questions of a model that takes no time (`mockllm`, and a
scripted one here), judges each answer by a match, and writes its full record: the journal and traces of a run, and
an `.eval` file with every event. A third column is Inspect's own task on our loop, Inspect's scorer included. The sides take
turns in one process, after a warm-up of each; the ratio is of the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from inspect_ai import Task as InspectTask
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.measure import machine
from firsthand.measure.measurements import markdown_table
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs import store
from firsthand.runs.execute import execute
from firsthand.scorers.match import exact
from firsthand.task import Task

ANSWER = "Default output from mockllm/model"
"""What either model always says."""
TASK_FILE = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes

@task
def instant(samples: int):
    return Task([Sample(f"Question {i}?", target=%r) for i in range(samples)], scorer=includes())
"""


def ours(benchmark: Benchmark, folder: Path) -> int:
    """Bytes on disk after all tasks were attempted, scored and kept."""
    agent = Agent("direct", Scripted(lambda messages, sampling, index: ANSWER), direct)
    places = [Place(agent, benchmark, task) for task in benchmark.tasks(0)]
    with store.create(folder, {}, "overhead") as run:
        asyncio.run(execute(run, places))
        right = sum(row.score == 1 for row in run.rows())
        path = run.path
    assert right == len(places), f"{right} of {len(places)} were right"
    return sum(file.stat().st_size for file in path.iterdir())


def instant(*request: object) -> ModelOutput:
    """The mock's answer with its tokens counted: else it loads a tokenizer over the network to count them."""
    output = ModelOutput.from_content("mockllm/model", ANSWER)
    output.usage = ModelUsage(input_tokens=2, output_tokens=5, total_tokens=7)
    return output


def theirs(samples: int, folder: Path) -> int:
    """Bytes on disk after Inspect evaluated as many samples."""
    rows = [Sample(f"Question {index}?", target=ANSWER) for index in range(samples)]
    task = InspectTask(rows, solver=generate(), scorer=includes())
    model = get_model("mockllm/model", custom_outputs=instant, memoize=False)
    (log,) = inspect_eval(task, model=model, display="none", log_dir=str(folder), log_level="error")
    assert log.status == "success", log.error
    assert log.results.scores[0].metrics["accuracy"].value == 1
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def timed(side: Callable[[Path], int]) -> tuple[float, float, int]:
    """Wall seconds, processor seconds and bytes written."""
    with tempfile.TemporaryDirectory() as folder:
        began, computed = time.perf_counter(), time.process_time()
        size = side(Path(folder))
        return time.perf_counter() - began, time.process_time() - computed, size


def main() -> None:
    """Time the sides in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a JSON file for the seconds")
    args = parser.parse_args()
    tasks = [Task(f"{i}", f"Question {i}?", secret={"answer": ANSWER}) for i in range(args.samples)]
    plain = Benchmark("overhead", lambda seed: tasks, (exact,))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "instant.py"
        file.write_text(TASK_FILE % ANSWER)
        adapted = catalog.benchmark(f"inspect:task={file}@instant:args=samples={args.samples}")
    sides: dict[str, Callable[[Path], int]] = {
        "firsthand": lambda folder: ours(plain, folder),
        "Inspect": lambda folder: theirs(args.samples, folder),
        "Inspect's task on firsthand": lambda folder: ours(adapted, folder),
    }
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in sides}
    for turn in range(args.repeats + 1):
        for name, side in sides.items():
            result = timed(side)
            found[name] += [result] if turn else []  # the first turn warms up
            print(f"{name}: {result[0]:.2f} s", file=sys.stderr)
    rates = {name: [args.samples / wall for wall, _, _ in results] for name, results in found.items()}
    busy = {name: statistics.median(cpu for _, cpu, _ in results) for name, results in found.items()}
    rival = statistics.median(rates["Inspect"])
    rows = [
        [
            name,
            f"{statistics.median(rates[name]):,.0f}",
            f"{min(rates[name]):,.0f} to {max(rates[name]):,.0f}",
            f"{statistics.median(rates[name]) / rival:.1f}x",
            f"{busy['Inspect'] / busy[name]:.1f}x",
            f"{busy[name] / args.samples * 1000:.2f} ms",
            f"{found[name][-1][2] / args.samples / 1000:.1f} kB",
        ]
        for name in sides
    ]
    header = ["harness", "samples/s", "spread", "ratio", "ratio by CPU", "CPU a sample", "on disk a sample"]
    print(markdown_table(header, rows))
    print(f"\n- {args.samples} samples, median of {args.repeats}; inspect-ai {version('inspect-ai')}")
    print(f"- command: python {' '.join(sys.argv)}")
    print(f"- machine: {machine.describe().line()}")
    print(f"- date: {datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')}")
    if args.out:
        args.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
