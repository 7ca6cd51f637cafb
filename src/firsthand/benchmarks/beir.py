"""Any folder in BEIR's layout: retrieval of the documents that are judged relevant to each query (Thakur et al., 2021).

firsthand run beir:folder=nfcorpus --pattern retrieve:variant=lexical,retrieve:variant=hybrid --model scripted:echo
"""

from __future__ import annotations

from pathlib import Path

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.retrieval_sets.beir_folder import corpus_file, read_corpus, read_judged
from firsthand.benchmarks.retrieval_sets.judged_set import check_judged, retrieval_benchmark
from firsthand.errors import ConfigError
from firsthand.retrieval.document import Document


def beir(*, folder: str = "", split: str = "test") -> Benchmark:
    """Return the benchmark over a folder with corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv."""
    path = _folder(folder)
    return retrieval_benchmark(
        f"beir:{path.name}",
        _spec(path, split),
        lambda: read_judged(path, split),
        description=f"Retrieval of judged documents: {path.name}, in BEIR's layout.",
        protocol="title and text of a document are one passage; nDCG@10 with linear gain, as trec_eval; a document "
        "with the query's own id is left out of its rankings unless it is judged, as BEIR does",
        licence="that of the data",
        own_document=False,
    )


def corpus(*, folder: str = "", split: str = "test") -> list[Document]:
    """Return the folder's documents; DataError if a relevant one is missing."""
    path = _folder(folder)
    documents = read_corpus(path)
    check_judged(read_judged(path, split), documents)
    return documents


def corpus_files(*, folder: str = "", split: str = "test") -> list[Path]:
    """Return the file of the documents."""
    return [corpus_file(_folder(folder))]


def _folder(folder: str) -> Path:
    if not folder:
        raise ConfigError(
            "beir was given no folder: write beir:folder=PATH, with corpus.jsonl, queries.jsonl and qrels/"
        )
    return Path(folder).expanduser().resolve()


def _spec(path: Path, split: str) -> str:
    escaped = str(path).replace(":", "\\:")
    return f"beir:folder={escaped}:split={split}"
