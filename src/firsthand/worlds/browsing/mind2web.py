"""Reads Mind2Web's files (Deng et al., NeurIPS 2023) from a user's folder, each step as a choice among elements.

A file such as `data/test_task/test_task_0.json` is a list of sessions; a step has the page's `cleaned_html`, the
operation, and candidates: the right elements (`pos_candidates`) and others. AgentBench asks about the 50 best candidates
of a trained ranker, five at a time; here one question has the right element and others drawn by the seed, so its figures
are higher than the paper's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from firsthand.errors import DataError, reason_of
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json
from firsthand.system.given_folder import files_below
from firsthand.system.json_values import values_in
from firsthand.system.ordinary_file import read_ordinary
from firsthand.worlds.browsing.page_elements import PageElements

CHOICES = 5
"""Elements to choose among, besides `none of the above`."""
OPERATIONS = ("CLICK", "TYPE", "SELECT")
MAX_FILE_BYTES = 1 << 30
BEFORE = 5
"""Actions before a step that a question tells."""
_BYTES_PER_VALUE, _FEW_VALUES = 16, 100_000
"""A file has fewer JSON values than that; a candidate of Mind2Web has 300 bytes in eight."""
_ANSWER = re.compile(r"answer\s*:\s*\(?([A-Z])\b", re.IGNORECASE)
_OPERATION = re.compile(r"action\s*:\s*(CLICK|TYPE|SELECT)", re.IGNORECASE)
_VALUE = re.compile(r"value\s*:\s*(.*)", re.IGNORECASE)


class ChoiceStep(NamedTuple):
    """One step of a session as a question."""

    id: str
    task: str
    before: tuple[str, ...]
    """The last actions, in Mind2Web's words."""
    choices: tuple[str, ...]
    """The elements; `none of the above` is not among them."""
    right: int
    """The index of the right element."""
    operation: str
    value: str


def read_steps(folder: Path, seed: int) -> list[ChoiceStep]:
    """The steps of all sessions in a folder or file, in order; those without a right element on the page are left out."""
    paths = files_below(folder, "*.json") if folder.is_dir() else [folder]
    found = [step for path in paths for record in _records(path) for step in _steps(record, path, seed)]
    if not found:
        raise DataError(
            f"{folder} has no steps of Mind2Web: files such as data/test_task/test_task_0.json were expected"
        )
    return found


def parse_choice(answer: str) -> tuple[int, str, str]:
    """Index of the chosen element (-1 for none of the above or no answer), operation and value of an answer."""
    letter, operation, value = _ANSWER.search(answer), _OPERATION.search(answer), _VALUE.search(answer)
    index = ord(letter[1].upper()) - ord("B") if letter else -1
    return index, operation[1].upper() if operation else "", value[1].strip() if value else ""


def is_exact(answer: str, wanted: ChoiceStep) -> bool:
    """Return whether an answer gives one element, operation and value, each the right one, in any case and spacing."""
    letters = {each.upper() for each in _ANSWER.findall(answer)}
    operations = {each.upper() for each in _OPERATION.findall(answer)}
    values = {" ".join(each.lower().split()) for each in _VALUE.findall(answer)} or {""}
    value = " ".join(wanted.value.lower().split())
    return letters == {chr(ord("B") + wanted.right)} and operations == {wanted.operation} and values == {value}


def operation_f1(operation: str, value: str, wanted: ChoiceStep) -> float:
    """Mind2Web's F1 over the set of words of operation and value, so order and repeats do not count; see `is_exact`."""
    said, right = (
        set(f"{op} {text}".lower().split()) for op, text in ((operation, value), (wanted.operation, wanted.value))
    )
    same = len(said & right)
    return 2 * same / (len(said) + len(right)) if same else 0.0


def question(step: ChoiceStep) -> str:
    """The text of a step in AgentBench's form."""
    letters = [chr(ord("B") + number) for number in range(len(step.choices))]
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(letters, step.choices, strict=True))
    before = "\n".join(step.before[-BEFORE:]) or "None"
    return (
        f"Task: {step.task}\nPrevious actions:\n{before}\n"
        "What should be the next action? Choose an element of the page:\n\n"
        f"A. None of the above\n{listed}\n\n"
        "Write three lines, such as:\nAnswer: C.\nAction: SELECT\nValue: Pickup\n"
        "The action is CLICK, TYPE or SELECT; a click has no value."
    )


def _records(path: Path) -> Sequence[Json]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} is larger than {MAX_FILE_BYTES >> 30} GiB: it is no file of Mind2Web")
        raw = read_ordinary(path, MAX_FILE_BYTES)
        most = max(_FEW_VALUES, len(raw) // _BYTES_PER_VALUE)
        if values_in(raw, most) > most:
            raise DataError(
                f"{path} holds more than {most:,} JSON values in {len(raw):,} bytes: it is no file of Mind2Web"
            )
        body = json.loads(raw.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {reason_of(error)[:200]}") from None
    if not isinstance(body, list) or not all(isinstance(each, dict) and "confirmed_task" in each for each in body):
        raise DataError(f"{path}: a list of sessions with `confirmed_task` and `actions` was expected")
    return body


def _steps(record: Json, path: Path, seed: int) -> Iterator[ChoiceStep]:
    told = [str(each) for each in record.get("action_reprs", [])]
    for index, action in enumerate(record.get("actions", [])):
        where = f"{path}, {record.get('annotation_id', '?')}, step {index + 1}"
        try:
            right = [str(each["backend_node_id"]) for each in action["pos_candidates"]]
            others = [str(each["backend_node_id"]) for each in action["neg_candidates"]]
            html, operation = str(action["cleaned_html"]), action["operation"]
            verb, value = str(operation["op"]), str(operation.get("value") or "")
        except (KeyError, TypeError) as error:
            raise DataError(f"{where}: {error!s:.80} is missing or of another form") from None
        snippets = PageElements(html)
        right = [each for each in right if each in snippets]
        if not right or verb not in OPERATIONS:
            continue
        rng = Random(derive_seed("mind2web", seed, record.get("annotation_id", ""), index))
        drawn = [each for each in others if each in snippets]
        chosen = [right[0], *rng.sample(drawn, min(CHOICES - 1, len(drawn)))]
        rng.shuffle(chosen)
        choices = tuple(snippets[each] for each in chosen)
        before = tuple(told[max(0, index - BEFORE) : index])
        id = f"{record.get('annotation_id', path.stem)}-{index:02d}"
        yield ChoiceStep(
            id,
            str(record["confirmed_task"]),
            before,
            choices,
            chosen.index(right[0]),
            verb,
            value,
        )
