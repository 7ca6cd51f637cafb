"""STS Benchmark as MTEB's type pair classification: pairs judged 4 and more are alike, those of 2 and less are not.

No set of MTEB's own: its pair sets (SprintDuplicateQuestions, TwitterSemEval) are not published where this can fetch them.
"""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.mteb.sentence_pairs import pair_benchmark, stsb_pairs
from firsthand.errors import ConfigError
from firsthand.scorers.embedded import max_ap, max_ap_figures


def mteb_stsb_pairs(*, data: str = "", alike: float = 4.0, unlike: float = 2.0) -> Benchmark:
    """Return the test pairs at both ends of the scale; pairs between `unlike` and `alike` are left out."""
    if not 0 <= unlike < alike <= 5:
        raise ConfigError(f"alike is {alike} and unlike {unlike}: similarities are 0 to 5, and unlike is the smaller")
    found = stsb_pairs(data)
    secrets = {
        pair.id: {"similar": int(pair.similarity >= alike)}
        for pair in found.pairs
        if not unlike < pair.similarity < alike
    }
    return pair_benchmark(
        "mteb_stsb_pairs",
        found,
        secrets,
        (max_ap,),
        max_ap_figures,
        description="STS Benchmark's pairs, alike or not.",
        protocol=(
            f"alike from {alike:g}, unlike to {unlike:g}: {len(secrets):,} pairs; MTEB's metric: the maximum of average "
            "precision by cosine, dot product, Euclidean and Manhattan distance; no published number"
        ),
    )
