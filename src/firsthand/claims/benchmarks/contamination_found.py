"""Leaked test items."""

from __future__ import annotations

from dataclasses import replace

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.stats.intervals import proportion_interval

CLAIM = Claim(
    quote=(
        "Benchmark contamination is real. Many models are trained on data that includes benchmark test sets, "
        "inflating scores."
    ),
    source="Brown et al. 2020, arXiv:2005.14165, appendix C",
    kind="sim",
    cost_s=1,
)
ITEMS = 40


def measure(lab: Lab) -> Measurement:
    """Half of the items are planted in a corpus, and the n-gram test looks for all."""
    import tempfile
    from pathlib import Path

    from firsthand import catalog
    from firsthand.contamination.ngram_overlap import scan_corpus

    tasks = list(catalog.benchmark("arithmetic").tasks(lab.seed))
    tasks = [
        replace(
            task,
            prompt=(
                f"{task.prompt} Question {n} asks for the sum that the merchant of town {n * 37} wrote into book "
                f"{n * 91} "
                f"on day {n}."
            ),
        )
        for n, task in enumerate(tasks[:ITEMS])
    ]
    leaked = {task.id for task in tasks[::2]}
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        corpus.write_text(
            "\n".join(
                f"Filler line {n}. {task.prompt if task.id in leaked else 'Nothing.'}" for n, task in enumerate(tasks)
            )
        )
        found, *_ = scan_corpus(tasks, corpus)
    named = {each.task_id for each in found}
    rows = (
        ("leaked and found", float(len(named & leaked))),
        ("leaked", float(len(leaked))),
        ("clean and found", float(len(named - leaked))),
    )
    low, high = proportion_interval(len(named & leaked), len(leaked))
    return Measurement(
        len(named & leaked) / len(leaked),
        "planted test items that the overlap test finds",
        low,
        high,
        len(leaked),
        columns=("items", "count"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """Detection holds or not; how many models leak cannot be said here."""
    if m.value >= 0.9:
        return ruling(
            "holds in part",
            f"where the corpus is known, {m.value:.0%} of planted items are found (`firsthand contamination`); "
            "`many models` needs corpora that are not published",
        )
    return ruling("does not hold here", f"only {m.value:.0%} of planted items are found")
