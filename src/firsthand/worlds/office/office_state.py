"""The state of an office and the tools that read and change it: mail, calendar, files.

Addresses and times are kept in one form, however they are written, as mail programs and calendars keep them; subjects,
titles and names of files without blanks around them.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import wraps
from typing import Any

from firsthand.message import Json
from firsthand.worlds.world import RefusedAction

MAX_FOUND = 20
MAX_TEXT = 4_000
"""The most characters of a text that a tool takes. A longer one is refused: what is judged is all that the agent wrote."""

_NAMED_ADDRESS = re.compile(r"([^<>]*)<([^<>@]*@[^<>]*)>")
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[ T]([0-9]{2}:[0-9]{2})(?::00(?:\.0{1,6})?)?")

Move = Callable[..., Awaitable[str]]


class OfficeDesk:
    """Tools over a state of three lists: `mails`, `events` and `files`."""

    def __init__(self, state: Json) -> None:
        """A state, which is copied."""
        self.state = copy.deepcopy(state)

    @property
    def functions(self) -> Sequence[Move]:
        """The tools, those that only read first; each takes its texts whole or refuses them."""
        moves: Sequence[Move] = (
            self.search_mail,
            self.read_mail,
            self.list_events,
            self.search_events,
            self.list_files,
            self.read_file,
            self.send_mail,
            self.delete_mail,
            self.create_event,
            self.reschedule_event,
            self.cancel_event,
            self.add_participants,
            self.create_file,
            self.append_to_file,
            self.share_file,
            self.delete_file,
        )
        return tuple(map(_refusing_long_texts, moves))

    async def search_mail(self, query: str) -> str:
        """Find mails whose sender, subject or text has a text; lists id, sender and subject.

        Args:
            query: The text; empty for all mails.
        """
        found = [each for each in self.state["mails"] if _has(each, query, "sender", "subject", "body")]
        return _listed([{key: each[key] for key in ("id", "sender", "subject")} for each in found])

    async def read_mail(self, mail_id: str) -> str:
        """Read a mail.

        Args:
            mail_id: The id, such as mail-3.
        """
        return self._shown("mails", mail_id)

    async def list_events(self, day: str) -> str:
        """List the events of a day.

        Args:
            day: The day, such as 2027-05-17.
        """
        return _listed([each for each in self.state["events"] if each["start"].startswith(day)])

    async def search_events(self, query: str) -> str:
        """Find events whose title, place or participants have a text.

        Args:
            query: The text.
        """
        return _listed([each for each in self.state["events"] if _has(each, query, "title", "place", "participants")])

    async def list_files(self) -> str:
        """List the files: id and name."""
        return _listed([{key: each[key] for key in ("id", "name")} for each in self.state["files"]], limit=200)

    async def read_file(self, file_id: str) -> str:
        """Read a file.

        Args:
            file_id: The id, such as file-2.
        """
        return self._shown("files", file_id)

    async def send_mail(self, recipient: str, subject: str, body: str) -> str:
        """Send a mail.

        Args:
            recipient: The address.
            subject: The subject.
            body: The text.
        """
        if "@" not in recipient:
            return RefusedAction(f"{recipient[:60]!r} is no address: it has no @")
        sent = {"recipient": _address(recipient), "subject": subject.strip(), "body": body}
        self.state["sent"].append(sent)
        return f"The mail to {sent['recipient']} was sent."

    async def delete_mail(self, mail_id: str) -> str:
        """Delete a mail.

        Args:
            mail_id: The id, such as mail-3.
        """
        return self._remove("mails", mail_id)

    async def create_event(self, title: str, start: str, end: str, participants: list[str]) -> str:
        """Put an event into the calendar.

        Args:
            title: The title.
            start: The beginning, such as 2027-05-17 14:00.
            end: The end, such as 2027-05-17 15:00.
            participants: Addresses; may be empty.
        """
        try:
            when = _span(start, end)
        except ValueError as wrong:
            return RefusedAction(str(wrong))
        id = f"event-{1 + max((int(each['id'].partition('-')[2]) for each in self.state['events']), default=0)}"
        made = {"id": id, "title": title.strip(), **when, "place": ""}
        self.state["events"].append({**made, "participants": sorted(set(map(_address, participants)))})
        return f"The event {id} was created."

    async def reschedule_event(self, event_id: str, start: str, end: str) -> str:
        """Move an event.

        Args:
            event_id: The id, such as event-4.
            start: The new beginning, such as 2027-05-17 14:00.
            end: The new end.
        """
        event = self._find("events", event_id)
        if event is None:
            return RefusedAction(f"there is no {event_id[:40]}")
        try:
            when = _span(start, end)
        except ValueError as wrong:
            return RefusedAction(str(wrong))
        event |= when
        return f"{event_id} was moved to {event['start']}."

    async def cancel_event(self, event_id: str) -> str:
        """Cancel an event.

        Args:
            event_id: The id, such as event-4.
        """
        return self._remove("events", event_id)

    async def add_participants(self, event_id: str, participants: list[str]) -> str:
        """Invite people to an event.

        Args:
            event_id: The id, such as event-4.
            participants: Their addresses.
        """
        event = self._find("events", event_id)
        if event is None:
            return RefusedAction(f"there is no {event_id[:40]}")
        event["participants"] = sorted({*event["participants"], *map(_address, participants)})
        return f"{event_id} has the participants {', '.join(event['participants'])}."

    async def create_file(self, name: str, content: str) -> str:
        """Make a file.

        Args:
            name: The name.
            content: The text.
        """
        id = f"file-{1 + max((int(each['id'].partition('-')[2]) for each in self.state['files']), default=0)}"
        self.state["files"].append({"id": id, "name": name.strip(), "content": content, "shared_with": []})
        return f"The file {id} was created."

    async def append_to_file(self, file_id: str, content: str) -> str:
        """Add a text at the end of a file.

        Args:
            file_id: The id, such as file-2.
            content: The text.
        """
        file = self._find("files", file_id)
        if file is None:
            return RefusedAction(f"there is no {file_id[:40]}")
        file["content"] = f"{file['content']}\n{content}"
        return f"{file_id} was extended."

    async def share_file(self, file_id: str, address: str) -> str:
        """Give somebody access to a file.

        Args:
            file_id: The id, such as file-2.
            address: The person's address.
        """
        file = self._find("files", file_id)
        if file is None or "@" not in address:
            return RefusedAction(f"there is no {file_id[:40]}" if file is None else f"{address[:60]!r} is no address")
        file["shared_with"] = sorted({*file["shared_with"], _address(address)})
        return f"{file_id} is shared with {_address(address)}."

    async def delete_file(self, file_id: str) -> str:
        """Delete a file.

        Args:
            file_id: The id, such as file-2.
        """
        return self._remove("files", file_id)

    def _find(self, table: str, id: str) -> Json | None:
        return next((each for each in self.state[table] if each["id"] == id), None)

    def _shown(self, table: str, id: str) -> str:
        found = self._find(table, id)
        return RefusedAction(f"there is no {str(id)[:40]}") if found is None else json.dumps(found, ensure_ascii=False)

    def _remove(self, table: str, id: str) -> str:
        found = self._find(table, id)
        if found is None:
            return RefusedAction(f"there is no {str(id)[:40]}")
        self.state[table].remove(found)
        return f"{id} was removed."


def _address(text: Any) -> str:
    """The address alone, in small letters: `Ada Abel <Ada.Abel@Office.example>` is `ada.abel@office.example`.

    The name may be the same address, as mail programs write it. Where it is another one, the text stays as it is.
    """
    plain = str(text).strip()
    named = _NAMED_ADDRESS.fullmatch(plain)
    alone = plain
    if named is not None and ("@" not in named[1] or named[1].strip(" '\"").lower() == named[2].strip().lower()):
        alone = named[2].strip()
    return alone.lower() if alone.isascii() else alone


def _span(start: str, end: str) -> dict[str, str]:
    """The beginning and the end of an event; ValueError, with what is wrong, if that cannot be."""
    span = {"start": _time(start), "end": _time(end)}
    if not span["start"] < span["end"]:
        raise ValueError(f"the event ends at {span['end']}, which is not after {span['start']}")
    return span


def _time(text: str) -> str:
    """The time as the calendar writes it; ValueError if it is none, or has seconds or a time zone."""
    with suppress(ValueError):
        if (found := _TIME.fullmatch(text.strip())) is not None:
            return datetime.fromisoformat(f"{found[1]} {found[2]}").isoformat(" ", "minutes")
    raise ValueError(f"{text[:40]!r} is no time of the calendar: write it as 2027-05-17 14:00, without a time zone")


def _refusing_long_texts(move: Move) -> Move:
    @wraps(move)
    async def call(**arguments: Any) -> str:
        long = ((key, len(text)) for key, value in arguments.items() for text in _texts(value) if len(text) > MAX_TEXT)
        if (first := next(long, None)) is not None:
            return RefusedAction(
                f"{first[0]} has {first[1]:,} characters and at most {MAX_TEXT:,} are taken: shorten it"
            )
        return await move(**arguments)

    return call


def _texts(value: Any) -> Iterator[str]:
    return map(str, value) if isinstance(value, list | tuple) else iter((str(value),))


def _has(record: Json, query: str, *keys: str) -> bool:
    return any(query.casefold() in json.dumps(record[key], ensure_ascii=False).casefold() for key in keys)


def _listed(found: list[Json], limit: int = MAX_FOUND) -> str:
    more = f"\n... and {len(found) - limit} more" if len(found) > limit else ""
    lines = "\n".join(json.dumps(each, ensure_ascii=False) for each in found[:limit])
    return f"{lines}{more}" if found else "nothing was found"
