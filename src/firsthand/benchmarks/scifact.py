"""SciFact as BEIR has it: 300 scientific claims, and the abstracts that support or refute them (Wadden et al., 2020)."""

from __future__ import annotations

from pathlib import Path

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.retrieval_sets.beir_folder import corpus_file, read_corpus, read_judged
from firsthand.benchmarks.retrieval_sets.judged_set import retrieval_benchmark
from firsthand.benchmarks.retrieval_sets.set_folder import corpus_name, set_folder
from firsthand.retrieval.document import Document

PUBLISHED = {"BM25 (Anserini, flat)": 0.6789, "all-MiniLM-L6-v2 (MTEB)": 0.6451, "SPLADE-v3": 0.7140}
"""nDCG@10 of other systems on the same queries, documents and judgements."""


def scifact(*, data: str = "") -> Benchmark:
    """Return the 300 test claims. `data` is a folder in BEIR's layout; see `retrieval_sets/set_folder.py`."""
    folder = set_folder("scifact", data)
    return retrieval_benchmark(
        "scifact",
        corpus_name("scifact", data),
        lambda: read_judged(folder),
        description="Scientific claims, and the abstracts that are evidence for or against them (Wadden et al., 2020).",
        protocol="BEIR's test split; title and abstract are one passage; nDCG@10 with linear gain, as trec_eval",
        licence="abstracts ODC-By 1.0, claims CC BY 4.0",
    )


def corpus(*, data: str = "") -> list[Document]:
    """Return the 5,183 abstracts."""
    return read_corpus(set_folder("scifact", data))


def corpus_files(*, data: str = "") -> list[Path]:
    """Return the file of the abstracts."""
    return [corpus_file(set_folder("scifact", data))]
