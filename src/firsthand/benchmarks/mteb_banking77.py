"""Banking77, MTEB's type classification: 77 intents, by logistic regression on few examples (Casanueva et al., 2020).

firsthand run mteb_banking77 --model embedder:minilm --pattern embed
"""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.mteb.labelled_texts import banking77, spec_with
from firsthand.message import Json
from firsthand.scorers.embedded import few_shot_accuracy
from firsthand.task import Task

PUBLISHED = {"all-MiniLM-L6-v2": 0.8004}
"""Accuracy, from MTEB's results."""


def mteb_banking77(*, data: str = "", per_label: int = 8, draws: int = 10) -> Benchmark:
    """Return the 3,080 test questions. `data` is a folder with train.csv and test.csv."""
    texts, labels = banking77("test", data)
    spec = spec_with("mteb_banking77", data=data, per_label=per_label, draws=draws)
    tasks = [
        Task(
            id=f"test-{at:04d}",
            prompt=text,
            metadata={"embedding": {"type": "classify", "text": text, "shared": spec}},
            secret={"label": label},
        )
        for at, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    return Benchmark(
        name="mteb_banking77",
        tasks=lambda seed: tasks,
        scorers=(few_shot_accuracy,),
        description="Intents of bank customers' questions (Casanueva et al., 2020).",
        protocol=(
            f"MTEB Banking77Classification: logistic regression on {per_label} train examples of each label, {draws} draws "
            "(seed 42); the score of a question is the share of the classifiers that are right; MiniLM-L6-v2 .8004"
        ),
        licence="CC-BY-4.0",
        options={"per_label": per_label, "draws": draws},
    )


def shared(*, data: str = "", per_label: int = 8, draws: int = 10) -> Json:
    """Return the train examples that classifiers are fitted to."""
    texts, labels = banking77("train", data)
    return {"texts": texts, "labels": labels, "per_label": per_label, "draws": draws}
