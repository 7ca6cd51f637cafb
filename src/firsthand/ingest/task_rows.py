"""Makes tasks of received traces: rows for a benchmark of one's own, with the recorded output as the expected answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from firsthand.chat_messages import written
from firsthand.errors import ConfigError, StoreError
from firsthand.ingest.as_trace import is_whole, question_of, trace_of
from firsthand.ingest.incoming_span import StoredSpan
from firsthand.ingest.translate import facts_of
from firsthand.message import Json, Message
from firsthand.system.new_file import write_new

SUFFIXES = (".toml", ".jsonl")


def task_row(trace_id: str, spans: Sequence[StoredSpan]) -> Json:
    """The row of one trace: question and recorded answer, with the messages that stood before the question.

    `is_cut` is in it, and true, if the recorder cut one of the two.
    """
    trace = trace_of(trace_id, spans)
    question = question_of(spans)
    first = next((call for call in trace.calls if call.kind == "generate"), None)
    before = _before(trace.messages(first.at), question) if first is not None else ()
    root = next((each.span for each in spans if not each.span.parent_id), spans[0].span)
    session = next((found for each in spans if (found := _session(each))), "")
    said = [body for each in before for body in written(each)]
    return {
        "id": trace_id,
        "question": question,
        "answer": trace.answer or "",
        "system": "\n\n".join(each.text for each in before if each.role == "system"),
        "history": "\n".join(f"{each.role}: {each.text}" for each in before if each.role in ("user", "assistant")),
        "cluster": session or trace_id,
        "name": root.name,
        "error": root.error or "",
        **({"conversation": said} if said else {}),
        **({} if is_whole(spans) else {"is_cut": True}),
    }


def _session(stored: StoredSpan) -> str:
    try:
        return facts_of(stored.span).session
    except Exception:  # an attribute of an unexpected type
        return ""


def _before(messages: tuple[Message, ...], question: str) -> tuple[Message, ...]:
    """The messages before the question, or before the last one of a user if the question is worded otherwise there."""
    users = [place for place, each in enumerate(messages) if each.role == "user"]
    asked = [place for place in users if messages[place].text == question] or users
    return messages[: asked[-1]] if asked else tuple(each for each in messages if each.role == "system")


def write_tasks(out: Path, rows: Iterable[Json], scorer: str) -> int:
    """Write rows as JSONL, and for a .toml the benchmark beside them that `firsthand run` reads; returns their number.

    ConfigError for another ending, StoreError if a file is there already or cannot be written.
    """
    if out.suffix not in SUFFIXES:
        raise ConfigError(f"out is {str(out)!r}: give a file .toml (a benchmark with its rows) or .jsonl (the rows)")
    table = out.with_suffix(".jsonl")
    for each in {out, table}:
        if each.exists():
            raise StoreError(f"{each} is there already: give another file, or remove it")
    rows = list(rows)
    lines = [json.dumps(row, ensure_ascii=True) + "\n" for row in rows]
    conversation = 'conversation = "conversation"\n' if any("conversation" in row for row in rows) else ""
    description = (
        f"data = {json.dumps(table.name)}\n"
        'prompt = "{question}"\n'
        'target = "{answer}"\n'
        'id = "{id}"\n'
        'cluster = "{cluster}"\n'
        f"{conversation}"
        f"scorer = [{json.dumps(scorer)}]\n"
        'description = "Tasks of recorded traces; the expected answer is what was recorded."\n'
    )
    try:
        write_new(table, "".join(lines))
        if out.suffix == ".toml":
            write_new(out, description)
    except OSError as error:
        raise StoreError(f"{out} cannot be written: {error.strerror or error}") from None
    return len(lines)
