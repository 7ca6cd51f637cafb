"""The records of a board and a bus in NATS, read from the bytes under their subjects.

Other clients of the server may put anything there. A record counts where its fields have their kinds and it stands under the
name that it says; what is none is passed over, and a message that is none is delivered as it is.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any

from firsthand.errors import ConfigError
from firsthand.messaging.blackboard import BoardEntry
from firsthand.messaging.message_bus import BusMessage, is_time
from firsthand.messaging.topic_names import topic_pattern
from firsthand.runs.database import plain


def coded(text: str) -> str:
    """A name for a consumer or a key, which may have no dots and no blanks, and not more than some 200 characters."""
    code = urlsafe_b64encode(text.encode()).decode().rstrip("=") or "="  # a key does not end in the dot before it
    return code if len(code) <= 160 else f"{code[:90]}={sha256(text.encode()).hexdigest()}"


def packed(value: dict[str, Any]) -> bytes:
    """A record as bytes."""
    return json.dumps(value, ensure_ascii=False).encode()


def read_record(data: bytes | None, **kinds: type) -> dict[str, Any] | None:
    """A record's fields of these kinds; None if the bytes are something else."""
    found = _decoded(data)
    if not isinstance(found, dict) or any(type(found.get(name)) is not kind for name, kind in kinds.items()):
        return None
    if "at" in kinds and not is_time(found["at"]):
        return None
    return {name: plain(found[name]) if kind is str else found[name] for name, kind in kinds.items()}


def entry_of(subject: str, sequence: int, data: bytes | None) -> tuple[BoardEntry, str | None] | None:
    """The entry under a subject that ends in the code of its key, and the name of its write; None if it is none."""
    found = read_record(data, key=str, value=str, version=int, writer=str, at=float)
    if found is None or coded(found["key"]) != _end(subject) or found["version"] < 1:
        return None
    name = read_record(data, once=str)
    said = _decoded(data).get("readers", "public")
    entry = BoardEntry(**found, sequence=sequence, readers="public" if said == "public" else "user")
    return entry, None if name is None else name["once"]


def named_entry_of(once: str, data: bytes | None) -> BoardEntry | None:
    """The entry that was written under a name."""
    place = read_record(data, key=str, sequence=int, once=str)
    if place is None or place["once"] != once or place["sequence"] < 1:
        return None
    found = entry_of(coded(place["key"]), place["sequence"], data)
    return None if found is None else found[0]


def offsets_of(data: bytes | None) -> list[int] | None:
    """The offsets of a publication that has a name."""
    found = _decoded(data)
    is_ours = isinstance(found, list) and all(type(each) is int and each > 0 for each in found)
    return found if is_ours else None


def group_of(subject: str, data: bytes | None) -> tuple[str, str] | None:
    """The group under a subject that ends in the code of its name, and its pattern."""
    found = read_record(data, group=str, pattern=str)
    if found is None or coded(found["group"]) != _end(subject):
        return None
    try:
        topic_pattern(found["pattern"])
    except ConfigError:
        return None
    return found["group"], found["pattern"]


def letter_of(subject: str, data: bytes | None) -> tuple[int, int, str] | None:
    """Offset, count and reason of the dead letter under a subject that ends in its offset."""
    found = read_record(data, offset=int, count=int, reason=str)
    if found is None or str(found["offset"]) != _end(subject) or min(found["offset"], found["count"]) < 1:
        return None
    return found["offset"], found["count"], found["reason"]


def message_of(topic: str, offset: int, data: bytes) -> BusMessage:
    """A message; where another program sent it, its bytes are the payload."""
    found = read_record(data, payload=str, sender=str, at=float)
    if found is None:
        return BusMessage(offset, topic, data.decode("utf-8", "replace"), "", 0.0)
    return BusMessage(offset, topic, **found)


def _end(subject: str) -> str:
    return subject.rsplit(".", 1)[-1]


def _decoded(data: bytes | None) -> Any:
    try:
        return json.loads(data or b"")
    except (ValueError, RecursionError):
        return None
