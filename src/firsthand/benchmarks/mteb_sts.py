"""SemEval's similarity tasks of one year, MTEB's STS12 to STS16 (Agirre et al., 2012 to 2016).

firsthand run mteb_sts:year=2016 --model embedder:minilm --pattern embed
"""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.mteb.sentence_pairs import pair_benchmark, semeval_pairs
from firsthand.scorers.embedded import cosine_spearman, spearman_figures

PUBLISHED = {2013: {"all-MiniLM-L6-v2": 0.8060}, 2015: {"all-MiniLM-L6-v2": 0.8539}, 2016: {"all-MiniLM-L6-v2": 0.7899}}
"""Spearman of cosines, from MTEB's results."""


def mteb_sts(*, year: int = 2016, data: str = "") -> Benchmark:
    """Return the judged pairs of a year, 2012 to 2016. `data` is a folder with YEAR.SET.test.tsv."""
    found = semeval_pairs(year, data)
    return pair_benchmark(
        f"mteb_sts:year={year}",
        found,
        {pair.id: {"similarity": pair.similarity} for pair in found.pairs},
        (cosine_spearman,),
        spearman_figures,
        description=f"SemEval's similarity of sentence pairs, {year}.",
        protocol=f"MTEB STS{year % 100}: Spearman's correlation of cosine and mean judgement",
    )
