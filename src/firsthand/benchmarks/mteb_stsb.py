"""STS Benchmark, MTEB's type STS: correlation of cosines with people's judgements of similarity (Cer et al., 2017).

firsthand run mteb_stsb --model embedder:minilm --pattern embed
"""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.mteb.sentence_pairs import pair_benchmark, stsb_pairs
from firsthand.scorers.embedded import cosine_spearman, spearman_figures

PUBLISHED = {"all-MiniLM-L6-v2": 0.8203}
"""Spearman of cosines, from MTEB's results."""


def mteb_stsb(*, data: str = "") -> Benchmark:
    """Return the 1,379 test pairs. `data` is a folder with sts-test.csv, or `hub`."""
    found = stsb_pairs(data)
    return pair_benchmark(
        "mteb_stsb",
        found,
        {pair.id: {"similarity": pair.similarity} for pair in found.pairs},
        (cosine_spearman,),
        spearman_figures,
        description="STS Benchmark: similarity of sentence pairs (Cer et al., 2017).",
        protocol="MTEB STSBenchmark: Spearman's correlation of cosine and mean judgement; MiniLM-L6-v2 .8203",
    )
