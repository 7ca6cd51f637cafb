"""GPQA: graduate-level science questions that a web search does not answer (Rein et al., 2023).

The authors ask that no example be revealed in plain text online. So the data comes from your own copy: their `dataset.zip`,
which is decrypted in memory only, one of their CSV files, or the hub with your token, with nothing kept on disk. Printed and
exported attempts leave out the questions, and the canary is in no prompt.
"""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.protocol import Item, Protocol, choose, make_benchmark, make_task
from firsthand.benchmarks.sources.datasets import HUB_ROWS, MAX_BYTES, Rows, Source, contents, fetch_unkept, located
from firsthand.errors import ConfigError, DataError, reason_of, unknown
from firsthand.message import Json
from firsthand.scorers.choice import acc, acc_norm
from firsthand.scorers.written import simple_evals_letter
from firsthand.system.headed_csv import HeadedCsv
from firsthand.system.zip_members import BoundedZipFile, read_member

PROTOCOLS = {
    "simple-evals": Protocol(
        "OpenAI's simple-evals: zero-shot chain of thought, choices permuted by Random(0); its four repeats are repeats=4",
        query=(
            "Answer the following multiple choice question. The last line of your response should be of the following "
            "format: 'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think step by step before answering."
            "\n\n{question}\n{options}"
        ),
        option="\n{letter}) {choice}",
        scorers=(simple_evals_letter,),
        continuation=None,
        chat=True,
        max_tokens=2048,
        temperature=None,
    ),
    "lm-eval-0shot": Protocol(
        "lm-evaluation-harness, gpqa_*_zeroshot: the letters by log-prob, choices shuffled by Random(0) in file order",
        query="What is the correct answer to this question:{question}\nChoices:\n{options}Answer:",
        option="({letter}) {choice}\n",
        continuation=" ({letter})",
        scorers=(acc, acc_norm),
    ),
}
ROWS = {"diamond": 198, "main": 448, "extended": 546}
PASSWORD = b"deserted-untie-orchid"
"""Published by the authors with the file: it keeps crawlers out, not readers."""
AES = 99
"""The method that the directory of a zip states for a file which WinZip or 7-Zip encrypted."""
WHY = "GPQA's authors ask that examples are not revealed in plain text online"
RIGHT = "Correct Answer"
WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
COLUMNS = ("Question", RIGHT, *WRONG)
MAX_REPEATS = 64
Arrange = Callable[[Json, Random], tuple[list[str], int]]


def gpqa(*, protocol: str = "", data: str = "", subset: str = "diamond", repeats: int = 1) -> Benchmark:
    """Return the benchmark over a subset: `diamond`, `main` or `extended`.

    Args:
        protocol: Name of a protocol in `PROTOCOLS`.
        data: A folder with the authors' `dataset.zip` or CSV files, one of those files, or `hub` (with `$HF_TOKEN`).
        subset: `diamond`, `main` or `extended`.
        repeats: Times each question is asked, with its choices in a new order each time, as simple-evals does; the repeats
            of a question are a cluster. `--epochs` repeats the same order.
    """
    chosen = choose("gpqa", PROTOCOLS, protocol)[1]
    if subset not in ROWS:
        raise unknown("set of GPQA", subset, ROWS, see="firsthand list benchmarks")
    if not 1 <= repeats <= MAX_REPEATS:
        raise ConfigError(f"repeats is {repeats}: give 1 to {MAX_REPEATS}; simple-evals has 4")
    rows = read_rows(subset, data)
    draw = _permuted if chosen.chat else _shuffled
    made = make_benchmark(
        "gpqa",
        PROTOCOLS,
        protocol,
        [make_task(item, chosen) for item in _items(rows, subset, repeats, draw)],
        description="Graduate-level questions that a web search does not answer (Rein et al., 2023).",
        origin=f"{subset}, {rows.origin}" + (f", {repeats} repeats" if repeats > 1 else ""),
        licence="CC BY 4.0; not to be shown in plain text online",
        sha256=rows.sha256,
    )
    return made if subset == "diamond" else replace(made, name=f"{made.name}-{subset}")


def read_rows(subset: str, data: str, *, url: str = HUB_ROWS) -> Rows:
    """Return the rows of the subset, with the columns of the authors' CSV files."""
    csv_name = f"gpqa_{subset}.csv"
    if data == "packaged":
        raise DataError("GPQA is not packaged, as its authors ask: give data=FOLDER with their dataset.zip, or hub")
    file = located("gpqa/dataset.zip", data, "gpqa_dataset.zip", f"gpqa/{csv_name}")
    if file is not None:
        raw = contents(file)
        text = unzipped(raw, csv_name, file) if raw[:2] == b"PK" else raw
        rows, lines = _csv_rows(text, file)
        origin, digest = f"your copy, {len(rows)} of {ROWS[subset]} items", hashlib.sha256(raw).hexdigest()
        return Rows(rows, origin, file, digest, lines)
    source = Source(
        f"gpqa/{csv_name}", ROWS[subset], "CC BY 4.0", "Idavidrein/gpqa", f"gpqa_{subset}", "train",
        lambda row: {name: row[name] for name in COLUMNS},
    )  # fmt: skip
    rows = fetch_unkept(source, url=url)
    return Rows(rows, f"Hugging Face hub, not kept, {len(rows)} items", Path("Idavidrein/gpqa"), "")


def unzipped(raw: bytes, name: str, file: Path) -> bytes:
    """Return the CSV file of that name in the authors' encrypted zip, unpacked in memory; DataError if it is broken."""
    try:
        with BoundedZipFile(io.BytesIO(raw)) as archive:
            found = [each for each in archive.infolist() if Path(each.filename).name == name]
            if not found:
                held = ", ".join(each.filename for each in archive.infolist()[:8])
                raise DataError(f"{file} holds no {name}: it has {held or 'nothing'}")
            if found[0].file_size > MAX_BYTES:
                raise DataError(f"{name} in {file} unpacks to more than {MAX_BYTES >> 20} MiB: is it the right file?")
            if found[0].compress_type == AES:
                raise DataError(
                    f"{file} is encrypted with AES, which is not supported: use the authors' own file, or one made by "
                    "`zip -e`"
                )
            text = read_member(archive, found[0], MAX_BYTES, password=PASSWORD)
    except RuntimeError:
        raise DataError(
            f"{file} does not open with the password that the authors publish: is it their dataset.zip?"
        ) from None
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{file} is not a complete zip file ({reason_of(error)}): fetch it again") from None
    if len(text) > MAX_BYTES:
        raise DataError(f"{name} in {file} unpacks to more than {MAX_BYTES >> 20} MiB: is it the right file?")
    return text


def _csv_rows(raw: bytes, file: Path) -> tuple[tuple[Json, ...], tuple[int, ...]]:
    try:
        reader = HeadedCsv(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
        found = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} is not CSV in UTF-8: {reason_of(error)}") from None
    if not found:
        raise DataError(f"{file} holds no rows: is it truncated?")
    missing = [name for name in COLUMNS if name not in found[0][1]]
    if missing:
        raise DataError(f"{file} has no column {missing[0]!r}: give the authors' gpqa_*.csv, or their dataset.zip")
    return tuple(row for _, row in found), tuple(line for line, _ in found)


def _items(rows: Rows, subset: str, repeats: int, arrange: Arrange) -> Iterator[Item]:
    """Yield the items, shuffled as each harness does: one generator over all questions of all repeats, in file order."""
    rng = Random(0)
    for repeat in range(repeats):
        for index, row in enumerate(rows.rows):
            where = rows.where(index)
            for name in COLUMNS:
                if not isinstance(row.get(name), str) or not row[name].strip():  # the row itself is not quoted
                    raise DataError(f"{where}: the column {name!r} is empty, and text was expected")
            choices, gold = arrange(row, rng)
            id = f"{subset}-{index:04d}" + (f"-r{repeat}" if repeats > 1 else "")
            metadata: Json = {"protected": WHY}
            if repeats > 1:
                metadata["cluster"] = f"{subset}-{index:04d}"
            yield Item(id, {"question": row["Question"]}, tuple(choices), gold, metadata=metadata)


def _permuted(row: Json, rng: Random) -> tuple[list[str], int]:
    """Return the choices as simple-evals permutes them, and the index of the right one."""
    listed = [row[RIGHT], *(row[name] for name in WRONG)]
    choices = [listed[place] for place in rng.sample(range(4), 4)]
    return choices, choices.index(row[RIGHT])


def _shuffled(row: Json, rng: Random) -> tuple[list[str], int]:
    """Return the choices as lm-evaluation-harness cleans and shuffles them, and the index of the right one."""
    choices = [*(_cleaned(row[name]) for name in WRONG), _cleaned(row[RIGHT])]
    rng.shuffle(choices)
    return choices, choices.index(_cleaned(row[RIGHT]))


def _cleaned(text: str) -> str:
    return text.strip().replace(" [title]", ". ").replace("  ", " ")
