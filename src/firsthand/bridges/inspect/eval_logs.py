"""Reads Inspect's `.eval` logs as runs, without Inspect: a zip of JSON with `header.json` and a file for each sample.

Messages, tool calls, scores, usage, errors and limits are taken over; events, sandboxes and attachments of other kinds are
not. A log may come from anyone: sizes are bounded before anything is unpacked, and names in the archive are never paths.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from firsthand.errors import DataError, reason_of
from firsthand.message import Json, Message, Part, Reasoning, Text, ToolCall, ToolResult
from firsthand.model import FinishReason, Usage
from firsthand.runs.whole_run import whole_run
from firsthand.scorers.inspect_values import direction_of, inspect_value
from firsthand.scorers.reference_answers import secret_of
from firsthand.system.json_values import values_in
from firsthand.system.ordinary_file import open_ordinary
from firsthand.system.packed_text import text_bytes
from firsthand.system.zip_members import BoundedZipFile, read_member
from firsthand.task import Task
from firsthand.trace import Call, Failure, Node, Score, Trace

MAX_SAMPLE_BYTES = 256 << 20
"""Of a sample in its file, and of its text in memory: one emoji makes each of its characters take four bytes."""
MAX_SAMPLE_VALUES = 5_000_000
"""JSON values of a sample; as objects they take some 500 MB."""
MAX_SAMPLES = 200_000
MAX_ATTACHED_CHARS = 64 << 20
"""Characters that a sample's attachments have in all the places where they stand: one may stand in thousands."""
MAX_LOG_ATTACHED_CHARS = 4 << 30
_ATTACHED = "attachment://"
_READ = ("input", "choices", "target", "metadata", "messages", "output", "scores", "error")
"""The fields of a sample whose attachments are put in their places."""
_KINDS: dict[str, tuple[type, str]] = {
    "messages": (list, "a list"), "choices": (list, "a list"), "metadata": (dict, "an object"),
}  # fmt: skip
_ENDED: dict[str, FinishReason] = {
    "max_tokens": "length", "model_length": "length", "content_filter": "content_filter",
}  # fmt: skip
"""Inspect's reasons for which an answer was cut."""


def import_eval(path: Path, home: Path) -> tuple[str, int]:
    """Imports a log as a new run; returns its id and the number of samples. DataError if it is none, or is damaged."""
    try:
        with open_ordinary(path) as file, BoundedZipFile(file) as log:
            names = [info for info in log.infolist() if info.filename.startswith("samples/") and not info.is_dir()]
            if len(names) > MAX_SAMPLES:
                raise DataError(
                    f"{path} has {len(names):,} samples, and at most {MAX_SAMPLES:,} are read: part the log"
                )
            log.expect_within(names)  # before a run is made
            header = "header.json" if "header.json" in log.NameToInfo else "_journal/start.json"
            about = _json(log, header, path)
            spec = about.get("eval") or {}
            if not isinstance(spec, dict) or not names:
                raise DataError(f"{path} is no log of Inspect: it has no samples, or its header is no object")
            model, task = str(spec.get("model") or "unknown"), str(spec.get("task") or path.stem)
            config = {"kind": "import", "imported": "inspect", "model": model, "benchmarks": [task], "file": path.name}
            with whole_run(home, config, f"inspect-{task.rpartition('/')[2]}") as run:
                run.add_agent(model, {"name": model, "model": model})
                known: set[str] = set()
                ids: dict[str, Any] = {}
                attached = 0
                names.sort(key=lambda each: each.filename)
                with open_ordinary(path) as again, BoundedZipFile(again) as ahead:  # what it unpacks is bounded apart
                    scored = _score_names(_json(ahead, info, path).get("scores") for info in names)
                for info in names:
                    sample = _json(log, info, path)
                    if type(ids.setdefault(str(sample.get("id")), sample.get("id"))) is not type(sample.get("id")):
                        sample["id"] = f"{sample['id']} ({type(sample['id']).__name__})"  # 2 and "2" are two samples
                    try:
                        attached += _attached_chars(sample)
                        if attached > MAX_LOG_ATTACHED_CHARS:
                            raise DataError(_too_much("this log's samples up to this one", MAX_LOG_ATTACHED_CHARS))
                        made, trace = attempt_of(sample, task, model, scored)
                        if made.id not in known:  # a sample of another epoch may have its choices in another order
                            run.add_tasks(task, [made])
                            known.add(made.id)
                        run.append(trace)
                    except (DataError, RecursionError) as error:
                        raise DataError(f"{path}: {info.filename[:80]}: {reason_of(error)}") from None
                return run.id, len(names)
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a log of Inspect: {reason_of(error)}") from None


def attempt_of(sample: Json, benchmark: str, model: str, names: Sequence[str] = ()) -> tuple[Task, Trace]:
    """The task and the attempt of one sample. DataError if a field is of a wrong kind, or its attachments take too much.

    `names` are the log's scores, in the order in which each attempt gets them; one that the sample lacks is a failed score.
    """
    for field, (kind, expected) in _KINDS.items():
        if (given := sample.get(field)) and not isinstance(given, kind):
            raise DataError(
                f"its {field} is {reprlib.repr(given)}, and {expected} was expected: take it out of the log"
            )
    if _attached_chars(sample) > MAX_ATTACHED_CHARS:
        raise DataError(_too_much("this sample", MAX_ATTACHED_CHARS))
    id = str(sample.get("id", ""))[:500] or "sample"
    attached = sample.get("attachments")
    if isinstance(attached, dict) and attached:
        sample = {key: _whole(value, attached) if key in _READ else value for key, value in sample.items()}
    messages = [_message(each) for each in sample.get("messages") or () if isinstance(each, dict)]
    nodes = tuple(Node(None if place == 0 else place - 1, message) for place, message in enumerate(messages))
    output = sample.get("output") or {}
    answer = output.get("completion") if isinstance(output, dict) else None
    if not isinstance(answer, str):
        answer = next((message.text for message in reversed(messages) if message.role == "assistant"), None)
    error, limit = sample.get("error"), sample.get("limit")
    usage = _usage(sample.get("model_usage"))
    seconds = _number(sample.get("total_time")) or 0.0
    said = tuple(place for place, message in enumerate(messages) if message.role == "assistant")
    calls = tuple(
        Call(f":{number}", "generate", place - 1 if place else None, seconds * number / len(said), seconds / len(said),
             hashlib.sha256(f"{id} {place}".encode("utf-8", "replace")).hexdigest(),
             usage if number == 0 else Usage(), (place,),
             detail={"finish_reasons": [_finish_reason(output) if place == said[-1] else "stop"]})
        for number, place in enumerate(said)
    )  # fmt: skip
    target, facts = sample.get("target"), sample.get("metadata") or {}
    choices = tuple(map(str, sample.get("choices") or ()))
    task = Task(
        id, _text(sample.get("input")), choices, secret=secret_of(target, choices),
        metadata={key: value for key, value in facts.items() if isinstance(value, str | int | float)},
    )  # fmt: skip
    epoch = max(0, (_count(sample.get("epoch")) or 1) - 1)
    key = f"{benchmark} {id} {epoch} {sample.get('uuid')}"
    return task, Trace(
        id=hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:16], benchmark=benchmark, task_id=id,
        agent={"name": model, "model": model}, epoch=epoch, seed=0,
        started_at=str(sample.get("started_at") or "1970-01-01T00:00:00+00:00"), duration_s=seconds, nodes=nodes,
        calls=calls, answer=answer, scores=tuple(_scores(sample.get("scores"), names)),
        error=Failure("InspectError", str(error.get("message", ""))[:4000]) if isinstance(error, dict) else None,
        stop_reason="error" if error else str(limit.get("type", "limit")) if isinstance(limit, dict) else "done",
    )  # fmt: skip


def _finish_reason(output: Any) -> FinishReason:
    """Why the sample's last answer ended; `stop` where the log gives none."""
    choices = output.get("choices") if isinstance(output, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    given = first.get("stop_reason") if isinstance(first, dict) else None
    return _ENDED.get(given, "stop") if isinstance(given, str) else "stop"


def _score_names(samples: Iterable[Any]) -> list[str]:
    """The names of a log's scores, in order: those of the first sample whose values are all numbers.

    If there is none, they are all names that have a number in some sample.
    """
    found: dict[str, None] = {}
    for scores in samples:
        values = list(_values(scores))
        numbers = [name for name, value, _ in values if inspect_value(value) is not None]
        if values and len(numbers) == len(values):
            return numbers
        found |= dict.fromkeys(numbers)
    return list(found)


def _scores(scores: Any, names: Sequence[str] = ()) -> Iterator[Score]:
    """A score of each of the names, failed where the sample has no number for it, and then the sample's other numbers."""
    found = {name: (value, detail) for name, value, detail in _values(scores)}
    for name in dict.fromkeys([*names, *found] if found else ()):
        value, detail = found.get(name) or found.get(name.partition(".")[0]) or (None, {})
        number = inspect_value(value) if name in found else None
        if number is not None:
            yield Score(name, number, detail | direction_of(name, value))
        elif name in names:
            yield Score(name, 0.0, detail, failure=f"no number: {reprlib.repr(value)} in the log")


def _values(scores: Any) -> Iterator[tuple[str, Any, Json]]:
    """Name, value and detail of each score of a sample, and of each part of one."""
    for name, each in scores.items() if isinstance(scores, dict) else ():
        if not isinstance(each, dict):
            continue
        value = each.get("value")
        detail = {key: str(each[key])[:4000] for key in ("answer", "explanation") if each.get(key)}
        for part, found in value.items() if isinstance(value, dict) else [("", value)]:
            yield f"{name}.{part}" if part else str(name), found, detail


def _message(body: Mapping[str, Any]) -> Message:
    role = body.get("role")
    content = body.get("content")
    if role == "tool":
        error = body.get("error")
        text = str(error.get("message", "")) if isinstance(error, dict) else _text(content)
        result = ToolResult(
            str(body.get("tool_call_id") or ""), str(body.get("function") or ""), text, is_error=isinstance(error, dict)
        )
        return Message("tool", (result,))
    parts: list[Part] = []
    for piece in content if isinstance(content, list) else [{"type": "text", "text": content}]:
        if isinstance(piece, dict) and piece.get("type") == "reasoning":
            parts.append(Reasoning(str(piece.get("reasoning") or ""), {}))
        elif isinstance(piece, dict) and piece.get("text"):
            parts.append(Text(str(piece["text"])))
        elif isinstance(piece, dict) and piece.get("type") not in (None, "text"):
            parts.append(Text(f"[{str(piece.get('type'))[:40]}]"))
    asked = body.get("tool_calls") or []
    if not isinstance(asked, list):
        raise DataError(
            f"a message's tool_calls is {reprlib.repr(asked)}, and a list was expected: take it out of the log"
        )
    for call in asked:
        if isinstance(call, dict):
            given = call.get("arguments")
            parts.append(
                ToolCall(
                    str(call.get("id") or ""), str(call.get("function") or ""), given if isinstance(given, dict) else {}
                )
            )
    return Message(role if role in ("system", "user", "assistant") else "user", tuple(parts))


def _whole(value: Any, attached: Mapping[str, Any], depth: int = 0) -> Any:
    """The value with each long text that the log keeps apart, `attachment://HASH`, in its place."""
    if isinstance(value, str) and value.startswith(_ATTACHED):
        return attached.get(value.removeprefix(_ATTACHED), value)
    if depth > 12:
        return value
    if isinstance(value, list):
        return [_whole(each, attached, depth + 1) for each in value]
    return {key: _whole(each, attached, depth + 1) for key, each in value.items()} if isinstance(value, dict) else value


def _attached_chars(sample: Json) -> int:
    """Count the characters that `_whole` would put into a sample, without building the text."""
    attached = sample.get("attachments")
    if not isinstance(attached, dict) or not attached:
        return 0
    sizes: dict[str, int] = {}

    def count(value: Any, depth: int = 0) -> int:
        if isinstance(value, str) and value.startswith(_ATTACHED):
            name = value.removeprefix(_ATTACHED)
            if name not in sizes:
                sizes[name] = _size(attached.get(name))
            return sizes[name]
        if depth > 12 or not isinstance(value, list | dict):
            return 0
        return sum(count(each, depth + 1) for each in (value.values() if isinstance(value, dict) else value))

    return sum(count(sample.get(field)) for field in _READ)


def _size(value: Any) -> int:
    """The characters in a value of JSON, those of keys too, and one for each value."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return 1 + sum(len(key) + _size(each) for key, each in value.items())
    return 1 + sum(map(_size, value)) if isinstance(value, list) else 1


def _too_much(what: str, most: int) -> str:
    return (
        f"the attachments of {what} have more than {most >> 20:,} Mi characters in the places where they stand: "
        "import the log without it"
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = (each.get("text") or each.get("content") for each in content if isinstance(each, dict))
        return "\n".join(_text(each) for each in texts if each)
    return ""


def _usage(usage: Any) -> Usage:
    found = [each for each in usage.values() if isinstance(each, dict)] if isinstance(usage, dict) else []

    def total(name: str) -> int:
        return sum(_count(each.get(name)) for each in found)

    cached, written = total("input_tokens_cache_read"), total("input_tokens_cache_write")
    return Usage(total("input_tokens") + cached + written, cached, total("output_tokens"), 0.0, written)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e300 else None


def _count(value: Any) -> int:
    """A whole number that a run can keep; 0 for what is none."""
    number = _number(value)
    return int(number) if number is not None and abs(number) <= 1e15 else 0


def _json(log: BoundedZipFile, member: str | zipfile.ZipInfo, path: Path) -> Json:
    """The object in a member; of several members of one name, the one that is given."""
    info = log.NameToInfo.get(member) if isinstance(member, str) else member
    name = member if isinstance(member, str) else member.filename
    if info is None or info.file_size > MAX_SAMPLE_BYTES:
        raise DataError(
            f"{path} has no {name}, or it has more than {MAX_SAMPLE_BYTES >> 20} MiB: is it a log of Inspect?"
        )
    data = read_member(log, info, MAX_SAMPLE_BYTES)
    if len(data) <= MAX_SAMPLE_BYTES < (taken := text_bytes(data, escapes=True)):
        raise DataError(
            f"{path}: {name[:80]} takes {taken >> 20} MiB as text, and at most {MAX_SAMPLE_BYTES >> 20} are read: one emoji "
            "makes each character four bytes, so import the log without it"
        )
    if values_in(data, MAX_SAMPLE_VALUES) > MAX_SAMPLE_VALUES:
        raise DataError(
            f"{path}: {name[:80]} holds more than {MAX_SAMPLE_VALUES:,} JSON values: import the log without it"
        )
    try:
        body = json.loads(data) if len(data) <= MAX_SAMPLE_BYTES else None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: {name[:80]} is no JSON: {reason_of(error)}") from None
    if not isinstance(body, dict):
        raise DataError(f"{path}: {name[:80]} holds no object, or more than its size says")
    return body
