"""Lost in the Middle: question answering with the gold document at each position among others (Liu et al., 2023).

The questions are 2,655 of NaturalQuestions-Open. The oracle file (the gold document alone) is enough for `oracle` and
`closedbook`. The authors' files with 10, 20 and 30 documents have tens of megabytes each, and the user fetches them. If the
file of a position is missing, the gold document is moved in another file with as many documents, as theirs differ in its
position only. The curve is `firsthand summary last --by position`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.protocol import Item, Protocol, choose, make_benchmark, make_task, whole
from firsthand.benchmarks.sources.datasets import Rows, Source, find, read, text_field
from firsthand.errors import ConfigError, DataError
from firsthand.message import Json
from firsthand.scorers.contained import best_subspan_em
from firsthand.task import Task

MAX_TOKENS = 100
ASK = (
    "Write a high-quality answer for the given question using only the provided search results (some of which might be "
    "irrelevant)."
)
PROTOCOLS = {
    "qa": Protocol(
        "Liu et al. (2023), multi-document question answering, their prompt continued, 100 tokens, first line scored",
        query=f"{ASK}\n\n{{documents}}\n\nQuestion: {{question}}\nAnswer:",
        scorers=(best_subspan_em,),
        continuation=None,
        max_tokens=MAX_TOKENS,
    ),
    "qa-chat": Protocol(
        "the same prompt as a message in the model's own chat template, as the paper prompts GPT-3.5 and Claude",
        query=f"{ASK}\n\n{{documents}}\n\nQuestion: {{question}}\nAnswer:",
        scorers=(best_subspan_em,),
        continuation=None,
        max_tokens=MAX_TOKENS,
        chat=True,
    ),
    "qa-query-aware": Protocol(
        "the paper's query-aware contextualisation: the question stands before and after the documents",
        query=f"{ASK}\n\nQuestion: {{question}}\n\n{{documents}}\n\nQuestion: {{question}}\nAnswer:",
        scorers=(best_subspan_em,),
        continuation=None,
        max_tokens=MAX_TOKENS,
    ),
    "qa-random-order": Protocol(
        "the paper's prompt that says the search results are ordered randomly; their order here is the same",
        query=f"{ASK} The search results are ordered randomly.\n\n{{documents}}\n\nQuestion: {{question}}\nAnswer:",
        scorers=(best_subspan_em,),
        continuation=None,
        max_tokens=MAX_TOKENS,
    ),
    "oracle": Protocol(
        "the paper's upper bound: the gold document alone",
        query=f"{ASK}\n\n{{documents}}\n\nQuestion: {{question}}\nAnswer:",
        scorers=(best_subspan_em,),
        continuation=None,
        max_tokens=MAX_TOKENS,
    ),
    "oracle-chat": Protocol(
        "the same as a message in the model's own chat template",
        query=f"{ASK}\n\n{{documents}}\n\nQuestion: {{question}}\nAnswer:",
        scorers=(best_subspan_em,),
        continuation=None,
        max_tokens=MAX_TOKENS,
        chat=True,
    ),
    "closedbook": Protocol(
        "the paper's lower bound: the question without any document",
        query="Question: {question}\nAnswer:",
        scorers=(best_subspan_em,),
        continuation=None,
        max_tokens=MAX_TOKENS,
    ),
    "closedbook-chat": Protocol(
        "the same as a message in the model's own chat template",
        query="Question: {question}\nAnswer:",
        scorers=(best_subspan_em,),
        continuation=None,
        max_tokens=MAX_TOKENS,
        chat=True,
    ),
}
POSITIONS: Mapping[int, tuple[int, ...]] = {10: (0, 4, 9), 20: (0, 4, 9, 14, 19), 30: (0, 4, 9, 14, 19, 24, 29)}
"""Number of documents -> the paper's positions of the gold document, from 0."""
QUESTIONS = 2_655
ORACLE = "longctx/nq-open-oracle.jsonl"


class TitledDocument(NamedTuple):
    """A passage with its title."""

    title: str
    text: str


def lost_in_middle(
    *, protocol: str = "", documents: int = 20, positions: str = "", questions: int = 0, data: str = ""
) -> Benchmark:
    """Return the benchmark over each question at each position; `questions` limits it to the first ones.

    `positions` count from 0; the default is the paper's for 10, 20 or 30 `documents`. `oracle` and `closedbook` use neither.
    `data` is a folder with the authors' files.
    """
    chosen = choose("lost_in_middle", PROTOCOLS, protocol)[1]
    name = protocol or next(iter(PROTOCOLS))
    alone = not name.startswith("qa")
    places = (0,) if alone else parse_positions(positions, documents)
    if questions < 0:
        raise ConfigError(f"questions is {questions}: give 1 to {QUESTIONS:,}, or 0 for all")
    files = {0: _oracle(data)} if alone else _files(documents, places, data)
    tasks: list[Task] = []
    available = len(files[places[0]].rows)
    for index in range(min(questions, available) if questions else available):
        for place in reversed(places):  # the last position first, so that the other prompts share prefixes with it
            rows = files[place]
            if index < len(rows.rows):
                item = _item(rows.rows[index], rows.where(index), index, place, 1 if alone else documents)
                tasks.append(whole(make_task(item, chosen)))
    what = (
        "1 document" if name.startswith("oracle") else f"{documents} documents, gold at {', '.join(map(str, places))}"
    )
    what = "no documents" if name.startswith("closedbook") else what
    return make_benchmark(
        "lost_in_middle",
        PROTOCOLS,
        protocol,
        tasks,
        description="Question answering with the gold document at each position (Liu et al., 2023).",
        origin=f"{what}; {files[places[0]].origin}",
        licence="CC BY-SA 3.0 (NaturalQuestions, Wikipedia)",
        sha256=hashlib.sha256("".join(files[place].sha256 for place in places).encode()).hexdigest(),
    )


def parse_positions(text: str, documents: int) -> tuple[int, ...]:
    """Parse positions such as `0,9,19`; an empty text means the paper's for that number of documents."""
    if not text and documents in POSITIONS:
        return POSITIONS[documents]
    found = sorted({int(each) for each in text.split(",")}) if re.fullmatch(r"\d{1,6}(,\d{1,6})*", text) else []
    if not found or found[-1] >= documents:
        raise ConfigError(
            f"positions is {text!r} with {documents} documents: give positions from 0 to {documents - 1}, such as 0,4,9"
        )
    return tuple(found)


def _files(documents: int, places: Sequence[int], data: str) -> dict[int, Rows]:
    """Return, by position, the file with the gold document there, or else another with as many documents."""
    root = Path(data or os.environ.get("FIRSTHAND_DATA") or ".").expanduser()
    found: dict[int, Path] = {}
    for place in range(documents):
        name = f"nq-open-{documents}_total_documents_gold_at_{place}.jsonl"
        folders = (f"{documents}_total_documents", f"qa_data/{documents}_total_documents", "longctx")
        path = find(root, *(f"{folder}/{name}" for folder in folders))
        if path is not None:
            found[place] = path
    if not found:
        has = (
            " The oracle file is there, so lost_in_middle@oracle and @closedbook can run." if _has_oracle(root) else ""
        )
        raise DataError(
            f"{str(root)!r} has no nq-open-{documents}_total_documents_gold_at_*.jsonl.gz: give data=FOLDER with the folder "
            f"qa_data of github.com/nelson-liu/lost-in-the-middle (10, 20 or 30 documents).{has}"
        )
    read_once = {path: read(path, _source(path.name), "the authors' files") for path in set(found.values())}
    other = next(iter(found.values()))
    return {place: read_once[found.get(place, other)] for place in places}


def _oracle(data: str) -> Rows:
    root = Path(data or os.environ.get("FIRSTHAND_DATA") or ".").expanduser()
    path = root if root.is_file() else find(root, ORACLE, f"qa_data/{Path(ORACLE).name}")
    if path is None:
        raise DataError(
            f"{str(root)!r} has no {Path(ORACLE).name}.gz: give data=FOLDER with the folder qa_data of "
            "github.com/nelson-liu/lost-in-the-middle"
        )
    return read(path, _source(path.name), "the authors' file")


def _has_oracle(root: Path) -> bool:
    return find(root, ORACLE, f"qa_data/{Path(ORACLE).name}") is not None


def _source(name: str) -> Source:
    return Source(name, QUESTIONS, "CC BY-SA 3.0", "", "", "", lambda row: row)


def _item(row: Json, where: str, index: int, place: int, documents: int) -> Item:
    question, answers = text_field(row, "question", where), row.get("answers")
    if not isinstance(answers, list) or not answers or not all(isinstance(each, str) and each for each in answers):
        raise DataError(f"{where}: 'answers' is {str(answers)[:60]!r}, and a list of texts was expected")
    listed = _documents(row, where, place, documents)
    shown = "\n".join(f"Document [{n}](Title: {each.title}) {each.text}" for n, each in enumerate(listed, 1))
    return Item(
        f"nq-{index:04d}-at-{place:02d}",
        {"question": question, "documents": shown},
        secret={"answers": answers},
        metadata={"position": place, "documents": documents, "cluster": f"nq-{index:04d}"},
    )


def _documents(row: Json, where: str, place: int, documents: int) -> list[TitledDocument]:
    """Return the documents in order, with the gold one at `place`."""
    found = row.get("ctxs")
    if not isinstance(found, list) or len(found) != documents or not all(isinstance(each, dict) for each in found):
        number = len(found) if isinstance(found, list) else "no list of"
        raise DataError(f"{where}: 'ctxs' has {number} documents, and {documents} were expected")
    gold = [at for at, each in enumerate(found) if each.get("isgold") is True] if documents > 1 else [0]
    if len(gold) != 1:
        raise DataError(f"{where}: {len(gold)} documents are marked 'isgold', and one was expected")
    listed = [TitledDocument(text_field(each, "title", where), text_field(each, "text", where)) for each in found]
    listed.insert(place, listed.pop(gold[0]))
    return listed
