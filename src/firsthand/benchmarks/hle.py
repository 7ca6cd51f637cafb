"""Humanity's Last Exam: expert questions, text-only subset, judged by a model (Phan et al., 2025).

A judge model extracts the final answer, compares it with the reference and reads the stated confidence, so a calibration
error is reported with the accuracy. The set carries a canary and must not be redistributed: it comes from your own copy, or
from the hub with your token, with nothing kept on disk; printed and exported attempts leave out the questions.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from firsthand.benchmark import Benchmark, Scorer
from firsthand.benchmarks.protocols.protocol import Item, Protocol, choose, make_benchmark, make_task
from firsthand.benchmarks.protocols.vote_sets import read_list
from firsthand.benchmarks.sources.datasets import HUB_ROWS, Rows, Source, fetch_unkept, located
from firsthand.errors import ConfigError, DataError
from firsthand.message import Json, system
from firsthand.scorers.model_judge import reference

PROTOCOLS = {
    "text-only": Protocol(
        "centerforaisafety/hle: its system prompt, the questions without an image, judged by its prompt for o3-mini",
        query="{question}",
        scorers=(),
        continuation=None,
        chat=True,
        max_tokens=8192,
        temperature=None,
    ),
}
SYSTEM = (
    "Your response should be in the following format:\n"
    "Explanation: {your explanation for your answer choice}\n"
    "Answer: {your chosen answer}\n"
    "Confidence: {your confidence score between 0% and 100% for your answer}"
)
WHY = "HLE's authors ask that its questions are not redistributed in plain text"
PAGE_ROWS = 20
"""Rows per request to the hub: small, as some rows hold images."""
SOURCE = Source(
    "hle/hle_test.jsonl", 2500, "MIT; not to be redistributed", "cais/hle", "default", "test", lambda row: row
)


def hle(*, protocol: str = "", data: str = "", judge: str = "") -> Benchmark:
    """Return the benchmark over the questions without an image. `data` is a folder with `hle_test.jsonl`, or `hub`.

    `judge` names the judge model, or is `none`: then `firsthand score RUN --with reference:protocol=hle:judge=MODEL` judges
    the run later.
    """
    chosen = choose("hle", PROTOCOLS, protocol)[1]
    if not judge:
        raise ConfigError(
            "hle is judged by a model: name it, as in hle:judge=openai:o3-mini-2025-01-31 (the published one), or give "
            "judge=none and judge the run later with `firsthand score`"
        )
    scorers: tuple[Scorer, ...] = () if judge == "none" else (reference(judge=judge, protocol="hle"),)
    rows = read_rows(data)
    tasks = [
        make_task(_item(row, rows.where(index)), chosen, conversation=(system(SYSTEM),))
        for index, row in enumerate(rows.rows)
        if not row.get("image")
    ]
    if not tasks:
        raise DataError(f"{rows.path} has no question without an image: is it the right file?")
    made = make_benchmark(
        "hle",
        PROTOCOLS,
        protocol,
        tasks,
        description="Questions at the frontier of knowledge (Phan et al., 2025).",
        origin=f"{rows.origin}, {len(tasks)} of them without an image; judge {judge}",
        licence=SOURCE.licence,
        sha256=rows.sha256,
    )
    return replace(made, scorers=scorers)


def read_rows(data: str, *, url: str = HUB_ROWS) -> Rows:
    """Return the rows of the set, images included."""
    if data == "packaged":
        raise DataError("HLE is not packaged, as its authors ask: give data=FOLDER with hle_test.jsonl, or hub")
    if (copy := located(SOURCE.path, data)) is not None:
        found, file, sha256 = read_list(copy)
        return Rows(tuple(found), f"your copy, {len(found):,} of {SOURCE.rows:,} questions", file, sha256)
    rows = fetch_unkept(SOURCE, url=url, page_rows=PAGE_ROWS)
    return Rows(rows, f"Hugging Face hub, not kept, {len(rows):,} questions", Path("cais/hle"), "")


def _item(row: Json, where: str) -> Item:
    id = row.get("id")
    if not isinstance(id, str | int):
        raise DataError(f"{where}: the field 'id' is not an id")
    for name in ("question", "answer"):
        if not isinstance(row.get(name), str) or not row[name].strip():  # the row itself is not quoted
            raise DataError(f"{where}: the field {name!r} is empty, and text was expected")
    about = {key: str(row[key]) for key in ("category", "answer_type", "raw_subject") if row.get(key)}
    return Item(
        str(id), {"question": row["question"]}, secret={"answer": row["answer"]}, metadata={**about, "protected": WHY}
    )
