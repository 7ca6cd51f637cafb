"""PubMedQA as MTEB's type reranking: the passages of a question's own abstract among those of others.

No reranking set of MTEB's own is at hand (AskUbuntu, SciDocs, StackOverflow, MIND). The procedure is MTEB's.
"""

from __future__ import annotations

from random import Random

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.mteb.labelled_texts import spec_with
from firsthand.benchmarks.pubmedqa import contexts, read_rows
from firsthand.benchmarks.sources.datasets import text_field
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.scorers.embedded import reranked_average_precision
from firsthand.task import Task

SEED = 42


def mteb_pubmedqa_reranking(*, data: str = "", others: int = 10) -> Benchmark:
    """Return the 1,000 questions, each with its own passages and those of `others` abstracts drawn at random."""
    if others < 1:
        raise ConfigError(f"others is {others}: give 1 or more abstracts to rank among")
    rows, draw, tasks = read_rows(data), Random(SEED), []
    spec, by_id, count = spec_with("mteb_pubmedqa_reranking", data=data), dict[str, list[int]](), 0
    for id, row in rows.items():
        by_id[id] = list(range(count, count := count + len(contexts(row, f"question {id}"))))
    for id, row in rows.items():
        drawn = draw.sample([each for each in by_id if each != id], min(others, len(by_id) - 1))
        shown = [(str(place), place) for each in (id, *drawn) for place in by_id[each]]
        draw.shuffle(shown)
        question = text_field(row, "QUESTION", f"question {id}")
        tasks.append(
            Task(
                id=id,
                prompt=question,
                metadata={
                    "embedding": {"type": "rerank", "query": question, "candidates": dict(shown), "shared": spec}
                },
                secret={"positive": [str(place) for place in by_id[id]]},
            )
        )
    return Benchmark(
        name="mteb_pubmedqa_reranking",
        tasks=lambda seed: tasks,
        scorers=(reranked_average_precision,),
        description="Passages of a question's own abstract, ranked among others' (PubMedQA).",
        protocol=f"own passages among those of {others} other abstracts (seed {SEED}); mean average precision by cosine, as "
        "MTEB; no published number",
        licence="MIT",
        options={"others": others},
    )


def shared(*, data: str = "") -> Json:
    """Return the passages of all abstracts, of which tasks name some."""
    return {"texts": [text for id, row in read_rows(data).items() for text in contexts(row, f"question {id}")]}
