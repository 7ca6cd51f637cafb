"""Embedding workload: documents of mixed length, as texts, so that tokenisation is timed too.

Documents are random common English words, about one token each in any tokenizer. Not included: other embedders
(`bench/embeddings.py`) and the quality of the vectors.
"""

from __future__ import annotations

import time
from random import Random

from firsthand.embed.embedding import TextEmbedder
from firsthand.measure.measurements import EMBEDDED, EMBEDDED_TOKENS
from firsthand.measure.workloads import Metric, Workload, WorkloadSizes

_COMMON = (
    "the of and to in is that for it was on are as with they be at one have this from or had by hot but some what there we "
    "can out other were all your when up use word how said an each she which do their time if will way about many then them "
    "would write like so these her long make thing see him two has look more day could go come did my sound no most number "
    "who over know water than call first people may down side been now find head stand own page should country found answer"
)


def embedding(sizes: WorkloadSizes) -> Workload[TextEmbedder]:
    """Embeds documents of mixed length in one call."""

    def measure(model: TextEmbedder, seed: int) -> list[float]:
        texts = documents(sizes, seed=seed)
        started = time.perf_counter()
        found = model.embed(texts)
        seconds = time.perf_counter() - started
        return [len(texts) / seconds, sum(found.num_tokens) / seconds]

    shortest, longest = sizes.words
    figures = (
        Metric(
            EMBEDDED, "texts/s", f"{sizes.documents} documents of {shortest}-{longest} words, tokenised in the time"
        ),
        Metric(EMBEDDED_TOKENS, "tokens/s", "the same, in tokens"),
    )
    return Workload(figures, 0, 0, measure)


def documents(sizes: WorkloadSizes, *, seed: int) -> list[str]:
    """Returns the texts of a round: words depend on the seed, lengths do not."""
    words = _COMMON.split()
    random, lengths = Random(f"documents {seed}"), Random("lengths of documents")
    return [" ".join(random.choices(words, k=lengths.randint(*sizes.words))) for _ in range(sizes.documents)]
