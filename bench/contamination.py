"""Power and false alarms of the tests of contamination on planted leaks, and the speed of n-gram overlap.

    python bench/contamination.py leaks --models 24 --clean 40 --steps 30,45,90 --keep verdicts.jsonl
    python bench/contamination.py overlap --megabytes 256

`leaks` trains small models on a benchmark of 32 items, and others on disjoint ones of the same form, and counts verdicts:
the share of leaked models that each test catches (power) and the share of clean ones that it calls leaked (false alarms).
`overlap` writes a corpus, indexes it, and looks up 10,000 items, some of them planted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from firsthand.contamination.contamination_tests import contamination
from firsthand.contamination.leak_evidence import ALPHA
from firsthand.contamination.ngram_overlap import CorpusIndex, overlap_evidence
from firsthand.contamination.text_twins import task_text
from firsthand.stats.intervals import proportion_interval
from firsthand.task import Task

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
ITEMS, BATCH = 32, 4


@dataclass(frozen=True)
class Verdict:
    """What the report said about one planted model."""

    kind: str
    """leaked or clean."""
    steps: int
    number: int
    passes: float
    """How often the model saw each item of its training text."""
    corrected: dict[str, float]
    verdict: str


def plant(kind: str, number: int, steps: int) -> Verdict:
    """Train a model on a benchmark of 32 items (leaked) or on 32 others of its form (clean), and test it."""
    from firsthand.providers.local import open_model
    from planted_leaks import CONTEXT, make_items, train_on

    items, others = make_items(ITEMS, 100 + number), make_items(ITEMS, 9000 + number)
    learned = items if kind == "leaked" else others
    with tempfile.TemporaryDirectory() as folder:
        model = open_model(str(train_on(Path(folder), learned, seed=number, steps=steps, batch=BATCH)))
        length = sum(len(asyncio.run(model.tokenize(task_text(task) + "\n\n"))) for task in learned)
        report = asyncio.run(contamination("planted", items, model, seed=number))
        model.close()
    return Verdict(kind, steps, number, steps * BATCH * CONTEXT / length, dict(report.corrected), report.verdict)


def leaks(models: int, clean: int, steps: Sequence[int], path: Path | None) -> None:
    """Power on `models` leaked models at each number of steps, and false alarms on `clean` others at the largest.

    With a path each verdict is a line of it, and a run that was cut short goes on after the last one.
    """
    import torch

    torch.set_num_threads(1)
    found = [Verdict(**json.loads(line)) for line in path.read_text().splitlines()] if path and path.exists() else []
    done = {(each.kind, each.steps, each.number) for each in found}
    plan = [("clean", max(steps), number) for number in range(clean)]
    plan += [("leaked", each, number) for each in steps for number in range(models)]
    for kind, size, number in sorted(plan, key=lambda each: each[2]):
        if (kind, size, number) not in done:
            found.append(plant(kind, number, size))
            if path:
                with path.open("a") as file:
                    file.write(json.dumps(vars(found[-1])) + "\n")
    tests = list(dict.fromkeys(name for each in found for name in each.corrected))
    for kind, size in dict.fromkeys((kind, size) for kind, size, _ in plan):
        here = [each for each in found if (each.kind, each.steps) == (kind, size)]
        seen = f"seen {np.mean([each.passes for each in here]):.0f} times" if kind == "leaked" else "never seen"
        print(f"{kind}, {len(here)} models, items {seen}:")
        for name in ("verdict", *tests):
            if name == "verdict":
                hits = sum(each.verdict == "leaked" for each in here)
            else:
                hits = sum(each.corrected.get(name, 1.0) <= ALPHA for each in here)
            low, high = proportion_interval(hits, len(here))
            print(f"  {name:11} {hits:3} of {len(here)}  {hits / len(here):.2f} [{low:.2f}, {high:.2f}]")


def overlap(megabytes: int) -> None:
    """Time the index of a corpus of random words, and the look-up of 10,000 items of which 500 are planted."""
    rng = Random(0)
    words = [f"word{i}" for i in range(20_000)]
    items = [Task(f"t{i}", " ".join(rng.choices(words, k=40))) for i in range(10_000)]
    with tempfile.TemporaryDirectory() as name:
        corpus = Path(name) / "corpus"
        corpus.mkdir()
        block = " ".join(rng.choices(words, k=150_000))
        with (corpus / "text.txt").open("w") as file:
            for _ in range(megabytes * 1_000_000 // (len(block) + 1)):
                file.write(block + "\n")
            file.write("\n".join(task.prompt for task in items[:500]))
        size = (corpus / "text.txt").stat().st_size / 1e6
        times = []
        for run in (
            lambda: CorpusIndex.build(corpus, Path(name) / "index"),
            lambda: overlap_evidence(items, index=Path(name) / "index"),
            lambda: overlap_evidence(items, corpus=corpus),
        ):
            began = time.process_time()
            found = run()
            times.append(time.process_time() - began)
        assert len(found.flagged) == 500  # type: ignore[union-attr]
    build, look, scan = times
    print(
        f"{size:.0f} MB: index {build:.1f} processor seconds ({build / size * 1000:.0f} a GB), look-up of 10,000 items "
        f"{look:.1f}, scan without an index {scan:.1f}; 500 of 500 planted items found"
    )


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("leaks", "overlap"))
    parser.add_argument("--models", type=int, default=24, help="leaked models at each number of steps")
    parser.add_argument("--clean", type=int, default=40, help="models that never saw the items")
    parser.add_argument("--steps", default="30,45,90", help="training steps, several with commas")
    parser.add_argument("--keep", type=Path, help="file of verdicts, a JSON line each; a second run goes on with it")
    parser.add_argument("--megabytes", type=int, default=256)
    given = parser.parse_args()
    if given.what == "leaks":
        leaks(given.models, given.clean, [int(each) for each in given.steps.split(",")], given.keep)
    else:
        overlap(given.megabytes)


if __name__ == "__main__":
    main()
