"""Cranfield: 225 questions on aerodynamics, and the abstracts that answer them (Cleverdon, 1967).

The judgements number the queries 1 to 225 in their order; the queries carry other numbers, from 1 to 365. Matched by number,
as is easily done, most judgements would belong to other queries.
"""

from __future__ import annotations

from pathlib import Path

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.retrieval_sets.beir_folder import read_judgements
from firsthand.benchmarks.retrieval_sets.judged_set import JudgedSet, judged, retrieval_benchmark
from firsthand.benchmarks.retrieval_sets.set_folder import corpus_name, file_in, set_folder
from firsthand.benchmarks.sources.datasets import contents
from firsthand.errors import DataError
from firsthand.retrieval.document import Document


def cranfield(*, data: str = "") -> Benchmark:
    """Return the 225 questions. `data` is a folder with cran.all.1400.xml, cran.qry.xml and cranqrel.trec.txt."""
    return retrieval_benchmark(
        "cranfield",
        corpus_name("cranfield", data),
        lambda: _read(data),
        description="Questions on aerodynamics, and the abstracts that answer them (Cleverdon, 1967).",
        protocol="relevance is 1 or 0, as in this edition's judgements; nDCG@10 as trec_eval",
        licence="none stated: a test collection of the 1960s",
    )


def corpus(*, data: str = "") -> list[Document]:
    """Return the 1,400 abstracts, two of which have no text."""
    [path] = corpus_files(data=data)
    text = contents(path).decode("utf-8", "replace")
    found = [
        Document(number, _without_title(_spaced(body), _spaced(title)), title=_spaced(title), source=number)
        for number, title, body in (_fields(each, "docno", "title", "text") for each in _parts(text, "doc"))
        if number.isdecimal()
    ]
    if len(found) != text.count("<docno>") or not found:
        raise DataError(f"{path} has {text.count('<docno>')} documents, of which {len(found)} could be read")
    return found


def corpus_files(*, data: str = "") -> list[Path]:
    """Return the file of the abstracts."""
    return [file_in(set_folder("cranfield", data), "cran.all.1400.xml")]


def _read(data: str) -> JudgedSet:
    folder = set_folder("cranfield", data)
    path = file_in(folder, "cran.qry.xml")
    texts = [_fields(each, "title")[0] for each in _parts(contents(path).decode("utf-8", "replace"), "top")]
    marks = read_judgements(file_in(folder, "cranqrel.trec.txt"))
    if len(texts) != len(marks):
        raise DataError(f"{path} has {len(texts)} queries, and {len(marks)} are judged: one file is truncated")
    queries = {str(place): _spaced(text) for place, text in enumerate(texts, 1)}
    return judged(queries, marks, f"Cranfield 1400, {len(texts)} queries by their place")


def _parts(text: str, tag: str) -> list[str]:
    """Return the contents of each element of that name. It takes time linear in the text, whatever is not closed."""
    return [part.partition(f"<{tag}>")[2] for part in text.split(f"</{tag}>")[:-1]]


def _fields(text: str, *tags: str) -> list[str]:
    """Return the content of the first element of each name, without blanks around it; "" if there is none."""
    return [text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0].strip() for tag in tags]


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _without_title(text: str, title: str) -> str:
    """Return the abstract without its title, which it repeats."""
    return text.removeprefix(title).strip()
