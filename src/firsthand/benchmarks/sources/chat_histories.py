"""Reads files of long conversations with questions, as LongMemEval and LoCoMo publish them, from a user's folder."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from firsthand.benchmarks.sources.datasets import contents
from firsthand.errors import DataError
from firsthand.message import Json

_SESSION = re.compile(r"session_(\d{1,4})")
_FORMS = ("%Y/%m/%d (%a) %H:%M", "%I:%M %p on %d %B, %Y", "%I:%M %p on %d %b, %Y", "%Y-%m-%d", "%Y/%m/%d")


def read_records(path: Path) -> list[Json]:
    """Return the objects of a JSON file that holds a list of them; DataError if it does not."""
    try:
        body = json.loads(contents(path).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {str(error)[:200]}") from None
    if not isinstance(body, list) or not body or not all(isinstance(each, dict) for each in body):
        raise DataError(f"{path} was expected to be a JSON list of objects")
    return body


def field_of(record: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """Return a field of the expected type; DataError that names the place if it is another, or the record no object."""
    if not isinstance(record, dict):
        raise DataError(f"{where}: {record!r:.60} is there, and an object with {key!r} was expected")
    value = record.get(key)
    if not isinstance(value, kind):
        names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        raise DataError(f"{where}: {key!r} is {value!r:.60}, and {names} was expected")
    return value


def iso_time(text: str, where: str) -> str:
    """Return a date of these files as ISO 8601; DataError if it is none of their forms."""
    for form in _FORMS:
        try:
            return datetime.strptime(text.strip(), form).isoformat()
        except ValueError:
            continue
    raise DataError(f"{where}: {text!r:.60} is no date such as 2023/05/20 (Sat) 02:21 or 1:56 pm on 8 May, 2023")


def longmemeval_sessions(record: Json, where: str) -> list[Json]:
    """Return the sessions of a LongMemEval record, by time, each with its id."""
    ids = field_of(record, "haystack_session_ids", list, where)
    dates = field_of(record, "haystack_dates", list, where)
    bodies = field_of(record, "haystack_sessions", list, where)
    if not len(ids) == len(dates) == len(bodies):
        raise DataError(
            f"{where}: {len(ids)} ids, {len(dates)} dates and {len(bodies)} sessions are not as many of each"
        )
    found = []
    for id, date, turns in zip(ids, dates, bodies, strict=True):
        if not isinstance(turns, list):
            raise DataError(f"{where}: the session {str(id)[:60]!r} is {turns!r:.60}, and a list of turns was expected")
        messages = [
            {"role": field_of(t, "role", str, where), "content": field_of(t, "content", str, where)} for t in turns
        ]
        found.append({"id": str(id), "time": iso_time(str(date), where), "messages": messages})
    return sorted(found, key=lambda session: str(session["time"]))


def locomo_sessions(conversation: Json, where: str) -> list[Json]:
    """Return the sessions of a LoCoMo conversation, in order; each message has its speaker and its dialog id."""
    numbers = sorted(int(found[1]) for key in conversation if (found := _SESSION.fullmatch(key)))
    sessions = []
    for number in numbers:
        turns = field_of(conversation, f"session_{number}", list, where)
        time = iso_time(field_of(conversation, f"session_{number}_date_time", str, where), where)
        messages = []
        for turn in turns:
            text = field_of(turn, "text", str, where)
            if caption := turn.get("blip_caption"):
                text += f" [shares an image: {caption}]"
            messages.append(
                {
                    "role": field_of(turn, "speaker", str, where),
                    "content": text,
                    "id": field_of(turn, "dia_id", str, where),
                }
            )
        sessions.append({"id": f"session_{number}", "time": time, "messages": messages})
    return sessions
