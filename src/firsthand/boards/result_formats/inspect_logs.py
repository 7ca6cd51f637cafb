"""Reads logs of Inspect: `.json`, and the `.eval` archives that hold the same in parts."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from firsthand.benchmarks.sources.tables import expect_values
from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores, utc_of
from firsthand.errors import DataError, MissingExtra, reason_of
from firsthand.message import Json
from firsthand.scorers.inspect_values import direction_of, inspect_value
from firsthand.stats.metric_names import is_lower_better
from firsthand.system.packed_text import expect_text
from firsthand.system.zip_members import BoundedZipFile, TooMuchUnpacked, read_member

MAX_MEMBER_BYTES = 256 << 20
MAX_MEMBERS = 200_000
MAX_NAMES_BYTES = 64 << 20
"""Ids of the samples of an archive with their scores, as JSON: all that is kept of them."""


def is_inspect(body: Any) -> bool:
    """True for an Inspect log."""
    return isinstance(body, dict) and isinstance(body.get("eval"), dict) and "task" in body["eval"]


def read_archive(raw: bytes, where: str) -> Json:
    """The log of an `.eval` archive, its samples included; DataError if it is broken or too large to be one."""
    try:
        with BoundedZipFile(io.BytesIO(raw)) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS or sum(each.file_size for each in members) > 8 * MAX_MEMBER_BYTES:
                raise DataError(
                    f"{where}: the archive unpacks to more than {8 * MAX_MEMBER_BYTES >> 20} MB, or has more than "
                    f"{MAX_MEMBERS:,} members: not read"
                )
            archive.expect_within(members)
            if any(each.flag_bits & 1 for each in members):
                raise ValueError("it is encrypted")
            header = _member(archive, archive.getinfo("header.json"))
            expect_text(header, f"{where}: header.json")
            number = expect_values(header, where)
            body: Json = json.loads(header)
            if not isinstance(body, dict):
                raise ValueError("header.json holds no JSON object")
            body["samples"] = samples = []
            names = 0
            for each in members:
                if each.filename.startswith("samples/") and each.file_size <= MAX_MEMBER_BYTES:
                    text = _member(archive, each)
                    expect_text(text, f"{where}: {each.filename[:80]}")
                    number += expect_values(text, where, number)
                    sample = _scores_alone(json.loads(text))
                    names += len(json.dumps(sample))
                    if names > MAX_NAMES_BYTES:
                        raise DataError(
                            f"{where}: the samples' ids and the names of their scores have more than "
                            f"{MAX_NAMES_BYTES >> 20} MiB: is it a log of Inspect?"
                        )
                    samples.append(sample)
            return body
    except (DataError, MissingExtra):
        raise
    except TooMuchUnpacked as error:
        raise DataError(f"{where} is not read: {error}") from None
    except Exception as error:  # each way of compression has errors of its own
        why = reason_of(error) or "it ends too early"
        raise DataError(
            f"{where} is no readable Inspect log ({why}): install firsthand[inspect], or convert it to JSON with "
            "`inspect log convert`"
        ) from None


def _member(archive: BoundedZipFile, info: zipfile.ZipInfo) -> bytes:
    data = read_member(archive, info, MAX_MEMBER_BYTES)
    if len(data) > MAX_MEMBER_BYTES:
        raise ValueError(f"{info.filename[:80]} unpacks to more than {MAX_MEMBER_BYTES >> 20} MiB")
    return data


def _scores_alone(sample: Any) -> Any:
    """A sample's id and the values of its scores: its messages and events may be gigabytes in all."""
    if not isinstance(sample, dict):
        return sample
    kept = {key: sample[key] for key in ("id", "scores") if key in sample}
    if isinstance(scores := kept.get("scores"), dict):
        kept["scores"] = {
            name: {"value": score.get("value")} if isinstance(score, dict) else score for name, score in scores.items()
        }
    return kept


def inspect_results(body: Json, where: str, remarks: list[str]) -> Iterator[BoardResult | ItemScores]:
    """Each scorer's item scores where the log holds its samples, or else its metrics.

    `remarks` gets a sentence for each scorer that has no score of some samples, such as those that ended in an error.
    """
    about = body["eval"]
    if (status := body.get("status")) != "success":
        raise DataError(f"{where}: the log ended with the status {status!r}: only finished evaluations count")
    model, task = str(about.get("model") or ""), str(about.get("task") or "").rpartition("/")[2]
    protocol = f"Inspect, task version {about.get('task_version')}"
    if arguments := about.get("task_args"):
        protocol += f", {json.dumps(arguments, sort_keys=True)}"
    base = BoardResult(
        model=model,
        benchmark=task,
        value=0.0,
        protocol=protocol,
        when=utc_of(about.get("created"), where),
        source=where,
        run=str(about.get("run_id") or ""),
        commit=str((about.get("revision") or {}).get("commit") or ""),
        data_hash=str((about.get("dataset") or {}).get("name") or ""),
    )
    scores: dict[str, dict[str, list[float]]] = {}
    lower: set[str] = set()
    for sample in body.get("samples") or ():
        for name, score in (sample.get("scores") or {}).items():
            given = score.get("value") if isinstance(score, dict) else score
            value = inspect_value(given)
            if direction_of(name, given):
                lower.add(name)
            if value is not None:
                scores.setdefault(name, {}).setdefault(str(sample.get("id")), []).append(value)
    results = body.get("results") or {}
    total = max(len(body.get("samples") or ()), int(results.get("total_samples") or 0))
    for name, by_task in scores.items():
        if (lacking := total - sum(map(len, by_task.values()))) > 0:
            remarks.append(
                f"{model} has no score by {name} on {lacking:,} of the {total:,} samples of {task}: its score is that of "
                f"the others ({where})."
            )
        means = {item: sum(each) / len(each) for item, each in by_task.items()}
        yield ItemScores.of(
            ColumnKey(task, protocol, name), {model: means}, [replace(base, lower_is_better=name in lower)]
        )
    if scores:
        return
    epochs = max(1, int((about.get("config") or {}).get("epochs") or 1))
    for each in results.get("scores") or ():
        metrics = each.get("metrics") or {}
        error = (metrics.get("stderr") or {}).get("value")
        for metric, found in metrics.items():
            if metric == "stderr" or not isinstance(found.get("value"), int | float):
                continue
            yield BoardResult(
                **vars(base)
                | {
                    "value": float(found["value"]),
                    "metric": f"{each.get('name')}/{metric}",
                    "lower_is_better": is_lower_better(str(each.get("name"))) or is_lower_better(metric),
                    "error": float(error) if isinstance(error, int | float) else None,
                    "n": int(results.get("completed_samples") or 0) // epochs,  # it counts each epoch of a sample
                }
            )
