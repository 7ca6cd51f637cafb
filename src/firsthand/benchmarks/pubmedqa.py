"""PubMedQA, the 1,000 labelled questions: yes, no or maybe, from an abstract without its conclusion (Jin et al., 2019).

    firsthand run pubmedqa --model smollm2                                        # reading: the question's own abstract
    firsthand run pubmedqa@closed --model smollm2                                 # the question alone
    firsthand run pubmedqa@closed --model smollm2 --pattern naive_rag:index=pubmedqa   # retrieved abstracts

The published reasoning-required setting gives the question's own abstract (`gold`). Questions of the 500 test ids are not
marked in the file, so all 1,000 are asked.
"""

from __future__ import annotations

import json
from pathlib import Path

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.protocol import Item, Protocol, choose, make_benchmark, make_task
from firsthand.benchmarks.sources.datasets import contents, located, text_field
from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.retrieval.document import Document
from firsthand.scorers.choice import acc

LABELS = ("yes", "no", "maybe")
PROTOCOLS = {
    "gold": Protocol(
        "Jin et al. (2019), reasoning-required: the abstract without its conclusion, then the question; human 78.0 %, "
        "always yes 55.2 % of all 1,000",
        query="{context}\n\nQuestion: {question}\nAnswer:",
        scorers=(acc,),
    ),
    "closed": Protocol(
        "no published number: the question alone, for patterns that retrieve, or for knowledge without documents",
        query="Question: {question}\nAnswer:",
        scorers=(acc,),
    ),
}
FILE = "retrieval/pubmedqa/ori_pqal.json"


def pubmedqa(*, protocol: str = "", data: str = "") -> Benchmark:
    """Return all 1,000 questions. `data` is a folder with ori_pqal.json."""
    chosen = choose("pubmedqa", PROTOCOLS, protocol)[1]
    documents = f"pubmedqa:data={data.replace(':', chr(92) + ':')}" if data else "pubmedqa"
    tasks = []
    for id, row in read_rows(data).items():
        where = f"question {id}"
        label = row.get("final_decision")
        if label not in LABELS:
            raise DataError(f"{where}: 'final_decision' is {str(label)[:40]!r}, and yes, no or maybe was expected")
        fields = {"question": text_field(row, "QUESTION", where), "context": "\n".join(contexts(row, where))}
        item = Item(
            id,
            fields,
            LABELS,
            LABELS.index(label),
            secret={"judgements": {id: 1}, "reference": row.get("LONG_ANSWER", "")},
            metadata={"corpus": documents},
        )
        tasks.append(make_task(item, chosen))
    return make_benchmark(
        "pubmedqa",
        PROTOCOLS,
        protocol,
        tasks,
        description="Yes, no or maybe questions on biomedical abstracts (Jin et al., 2019).",
        origin=f"PQA-L, {len(tasks):,} questions",
        licence="MIT",
    )


def corpus(*, protocol: str = "", data: str = "") -> list[Document]:
    """Return the abstracts of all questions, without their conclusions."""
    return [
        Document(id, "\n".join(contexts(row, f"question {id}")), source=f"PubMed {id}")
        for id, row in read_rows(data).items()
    ]


def corpus_files(*, protocol: str = "", data: str = "") -> list[Path]:
    """Return the file of the questions with their abstracts; DataError if it is missing."""
    path = located(FILE, data)
    if path is None:
        raise DataError(
            "pubmedqa is not on this machine: fetch data/ori_pqal.json of github.com/pubmedqa/pubmedqa and give its folder, "
            "as in pubmedqa:data=FOLDER"
        )
    return [path]


def read_rows(data: str) -> dict[str, Json]:
    """Return the rows by PubMed id; DataError if the file is missing or malformed."""
    [path] = corpus_files(data=data)
    try:
        rows = json.loads(contents(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}") from None
    if not isinstance(rows, dict) or not rows or not all(isinstance(each, dict) for each in rows.values()):
        raise DataError(f"{path} should hold an object of questions by PubMed id")
    return rows


def contexts(row: Json, where: str) -> list[str]:
    """Return the passages of the question's abstract."""
    found = row.get("CONTEXTS")
    if not isinstance(found, list) or not found or not all(isinstance(each, str) for each in found):
        raise DataError(f"{where}: a list 'CONTEXTS' of texts was expected, not {str(found)[:60]!r}")
    return list(found)
