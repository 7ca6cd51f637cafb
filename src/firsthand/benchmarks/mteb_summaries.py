"""A file in SummEval's layout, MTEB's type summarization: are summaries that people rate higher nearer to human ones?

    firsthand run mteb_summaries:data=summeval.jsonl --model embedder:minilm --pattern embed

Each line has `human_summaries`, `machine_summaries` and their `relevance`, a rating each. SummEval (Fabbri et al., 2021)
is fetched from the hub with data=hub.
"""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.sources.datasets import Source, load
from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.scorers.embedded import summary_spearman
from firsthand.task import Task

SOURCE = Source(
    path="embed/summeval.jsonl",
    rows=100,
    licence="MIT",
    dataset="mteb/summeval",
    config="default",
    split="test",
    from_hub=lambda row: {name: row[name] for name in ("human_summaries", "machine_summaries", "relevance")},
)
PUBLISHED = {"all-MiniLM-L6-v2": 0.3081}
"""Mean Spearman on SummEval, from MTEB's results."""


def mteb_summaries(*, data: str = "") -> Benchmark:
    """Return the documents of the file; those whose summaries are all rated alike are left out, as MTEB leaves them out."""
    rows = load(SOURCE, data)
    tasks = []
    for at, row in enumerate(rows.rows):
        human, machine, ratings = _checked(row, rows.where(at))
        about = {"type": "summary", "human": human, "machine": machine}
        if len(set(ratings)) > 1:
            tasks.append(
                Task(
                    f"document-{at:03d}",
                    "Rate the machine summaries.",
                    metadata={"embedding": about},
                    secret={"ratings": ratings},
                )
            )
    if not tasks:
        raise DataError(f"{rows.path} has no document whose summaries are rated differently")
    return Benchmark(
        name="mteb_summaries",
        tasks=lambda seed: tasks,
        scorers=(summary_spearman,),
        description="Machine summaries, by their nearness to human ones and by people's ratings.",
        protocol=f"{rows.origin}; MTEB SummEval: the largest cosine with a human summary, Spearman with relevance, mean "
        "over documents; MiniLM-L6-v2 .3081 on SummEval",
        licence=SOURCE.licence,
        options={"data": rows.origin, "sha256": rows.sha256},
    )


def _checked(row: Json, where: str) -> tuple[list[str], list[str], list[float]]:
    human, machine, ratings = (row.get(name) for name in ("human_summaries", "machine_summaries", "relevance"))
    for texts in (human, machine):
        if not isinstance(texts, list) or not texts or not all(isinstance(each, str) for each in texts):
            raise DataError(f"{where}: lists 'human_summaries' and 'machine_summaries' of texts were expected")
    assert isinstance(human, list) and isinstance(machine, list)
    if not isinstance(ratings, list) or len(ratings) != len(machine) or len(machine) < 2:
        raise DataError(f"{where}: 'relevance' must be a list with a number for each of two or more machine summaries")
    try:
        return human, machine, [float(each) for each in ratings]
    except (TypeError, ValueError):
        raise DataError(f"{where}: 'relevance' has {str(ratings)[:60]!r}, and numbers were expected") from None
