"""Power and false alarms of the tests of contamination on planted leaks, and the speed of n-gram overlap.

    python bench/contamination.py leaks --models 5
    python bench/contamination.py overlap --megabytes 256

`leaks` trains small models on a benchmark of 32 items and as many on disjoint ones of the same form, and counts verdicts.
`overlap` writes a corpus, indexes it, and looks up 10,000 items, some of them planted.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from firsthand.contamination.contamination_tests import contamination
from firsthand.contamination.ngram_overlap import CorpusIndex, overlap_evidence
from firsthand.task import Task

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


def leaks(models: int, steps: int) -> None:
    """Count how many leaked and clean models each test names, at 5 % after correction, and the verdicts."""
    from firsthand.providers.local import open_model
    from planted_leaks import make_items, train_on

    for kind in ("leaked", "clean"):
        verdicts: Counter[str] = Counter()
        caught: Counter[str] = Counter()
        for number in range(models):
            items, others = make_items(32, 100 + number), make_items(32, 900 + number)
            with tempfile.TemporaryDirectory() as folder:
                learned = items if kind == "leaked" else others
                model = open_model(str(train_on(Path(folder), learned, seed=number, steps=steps, batch=4)))
                report = asyncio.run(contamination("planted", items, model, seed=number))
                model.close()
            verdicts[report.verdict] += 1
            caught.update(report.caught)
        print(f"{kind}: {models} models, {steps} steps: {dict(verdicts)}; tests at 5 %: {dict(caught)}")


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
    parser.add_argument("--models", type=int, default=5)
    parser.add_argument("--steps", type=int, default=90)
    parser.add_argument("--megabytes", type=int, default=256)
    given = parser.parse_args()
    if given.what == "leaks":
        leaks(given.models, given.steps)
    else:
        overlap(given.megabytes)


if __name__ == "__main__":
    main()
