"""TruthfulQA: questions that people often answer wrongly, true and false answers by log-prob (Lin et al., 2022).

One task holds all of a question's answers, so `mc1` (the best answer against the false ones) and `mc2` (the probability of
all true ones) come from one scoring. A pattern that writes its answer sees them in an order drawn by the question's id, so
that no letter is right by its place. The published multiple-choice file, which the hub has, selects some false answers of a
few questions; from the authors' CSV file all are used.
"""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path
from random import Random

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.protocol import Item, Protocol, choose, make_benchmark, make_task, packaged_examples
from firsthand.benchmarks.sources.datasets import Rows, Source, contents, load, located, text_field
from firsthand.errors import DataError, reason_of
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json
from firsthand.scorers.choice import mc1, mc2
from firsthand.system.headed_csv import HeadedCsv

PRIMER = 6
PROTOCOLS = {
    "lm-eval-mc": Protocol(
        "lm-evaluation-harness, tasks truthfulqa_mc1 and truthfulqa_mc2, with the authors' primer of six questions; for "
        "answers by letter the order of the choices is drawn by the question's id",
        query="Q: {question}\nA:",
        header="{primer}",
        examples="six fixed questions in the header",
        scorers=(mc2, mc1),
    ),
}
SOURCE = Source(
    path="mcq/truthfulqa_multiple_choice.jsonl",
    rows=817,
    licence="Apache-2.0",
    dataset="truthfulqa/truthful_qa",
    config="multiple_choice",
    split="validation",
    from_hub=lambda row: from_hub(row),
    also=(
        "mcq/truthfulqa_validation.jsonl",
    ),  # a user's own; that of 0.28.0's hub rows had another answer as the best one
)


def truthfulqa(*, protocol: str = "", data: str = "") -> Benchmark:
    """Return the benchmark over all questions. `data` is a folder with `TruthfulQA.csv`, or `hub`."""
    chosen = choose("truthfulqa", PROTOCOLS, protocol)[1]
    path = located("mcq/TruthfulQA.csv", data, SOURCE.path, *SOURCE.also)
    rows = read_csv_rows(path) if path is not None and path.suffix == ".csv" else load(SOURCE, data)
    tasks = [make_task(_item(row, f"q-{i:04d}", rows.where(i)), chosen) for i, row in enumerate(rows.rows)]
    return make_benchmark(
        "truthfulqa",
        PROTOCOLS,
        protocol,
        tasks,
        description="Questions that people often answer wrongly (Lin et al., 2022).",
        origin=rows.origin,
        licence=SOURCE.licence,
        sha256=rows.sha256,
    )


def read_csv_rows(file: Path) -> Rows:
    """Return the rows of the authors' CSV file."""
    raw = contents(file)
    try:
        reader = HeadedCsv(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
        found = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} is not a CSV file: {reason_of(error)}") from None
    rows, lines = [], []
    for line, row in found:
        where = f"{file}, line {line}"
        best = text_field(row, "Best Answer", where).strip()
        true = [best, *(each for each in _split(row, "Correct Answers", where) if each != best)]
        false = _split(row, "Incorrect Answers", where)
        rows.append({"question": text_field(row, "Question", where), "true": true, "false": false})
        lines.append(line)
    if not rows:
        raise DataError(f"{file} holds no rows: is it truncated?")
    origin = f"the authors' file, {len(rows)} of {SOURCE.rows} items"
    return Rows(tuple(rows), origin, file, hashlib.sha256(raw).hexdigest(), tuple(lines))


def from_hub(row: Json) -> Json:
    """Convert a row of truthfulqa/truthful_qa, multiple_choice, to a row of our file: `true` begins with MC1's answer.

    `mc1_false` is there where MC1's false answers are not those of MC2, `not_in_mc2` where MC1 has answers that MC2 lacks.
    ValueError if MC1 has no single best answer, no false one, or a false one that is true in MC2.
    """
    best, rivals = _by_label(row["mc1_targets"])
    true, false = _by_label(row["mc2_targets"])
    if len(best) != 1 or best[0] in false or not rivals or set(rivals) & {*true, *best}:
        raise ValueError(
            f"mc1_targets are {best} and {rivals}: one true answer and false ones, as in mc2_targets, were expected"
        )
    more = [each for each in dict.fromkeys(rivals) if each not in false]
    lacking = [each for each in best if each not in true] + more
    made = {"question": row["question"], "true": [*best, *(each for each in true if each != best[0])]}
    made["false"] = [*false, *more]
    if sorted(rivals) != sorted(false):
        made["mc1_false"] = rivals
    return {**made, "not_in_mc2": lacking} if lacking else made


def _by_label(target: Json) -> tuple[list[str], list[str]]:
    """Return the true answers, and the false ones, as they stand."""
    pairs = list(zip(target["choices"], target["labels"], strict=True))
    return [text for text, label in pairs if label == 1], [text for text, label in pairs if label == 0]


def _split(row: Json, column: str, where: str) -> list[str]:
    return [each.strip() for each in text_field(row, column, where).split(";") if each.strip()]


def _item(row: Json, id: str, where: str) -> Item:
    true, false = (row.get(name) for name in ("true", "false"))
    for answers in (true, false):
        if not isinstance(answers, list) or not answers or not all(isinstance(each, str) for each in answers):
            raise DataError(f"{where}: lists 'true' and 'false' of answers were expected, not {str(row)[:80]!r}")
    assert isinstance(true, list) and isinstance(false, list)
    primer = "".join(f"Q: {each['question']}\nA: {each['answer']}\n\n" for each in _primer())
    fields = {"question": text_field(row, "question", where), "primer": primer}
    answers, compared, lacking = [*true, *false], row.get("mc1_false", []), row.get("not_in_mc2", [])
    for name, given, known in (("mc1_false", compared, false), ("not_in_mc2", lacking, answers)):
        if not isinstance(given, list) or not set(map(str, given)) <= set(known):
            raise DataError(f"{where}: {name!r} is {str(given)[:80]!r}, and some of the answers were expected")
    order = Random(derive_seed("truthfulqa", id)).sample(range(len(answers)), len(answers))
    places = [order.index(at) for at in range(len(true))]  # the best answer's, then the other true ones'
    rivals = {"rivals": [at for at, place in enumerate(order) if answers[place] in compared]} if compared else {}
    if lacking:
        rivals["not_in_mc2"] = [at for at, place in enumerate(order) if answers[place] in lacking]
    return Item(id, fields, tuple(answers[at] for at in order), places[0], secret={"true": places, **rivals})


def _primer() -> list[Json]:
    return [dict(each.fields) for each in packaged_examples("truthfulqa")[:PRIMER]]
