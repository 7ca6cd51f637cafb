"""Records an attempt's effects in a run's file; implements `firsthand.loop.journal.Journal`.

Append-only. An effect may be recorded twice, as a tool's intent and then its result, and the last record counts.
"""

from __future__ import annotations

from datetime import UTC, datetime

from firsthand.loop.journal import part_of
from firsthand.message import Json
from firsthand.runs.database import Database, plain, put


def now() -> str:
    """This moment in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class StoredJournal:
    """The journal of one attempt, in the run's file."""

    def __init__(self, database: Database, attempt_id: str):
        self.database = database
        self.attempt_id = plain(attempt_id)
        self._looked_up = False
        self._recorded: set[tuple[str, str]] | None = None
        """The effects recorded here, if there were none when the first was looked up; then no other is looked up."""

    def find(self, effect: str, request: str) -> Json | None:
        """The last reply recorded for this effect, or None. One journal at a time records an attempt."""
        if self._recorded is None and not self._looked_up:
            self._looked_up = True
            known = self.database.read("SELECT 1 FROM effects WHERE attempt = ? LIMIT 1", (self.attempt_id,))
            self._recorded = None if known else set()
        if self._recorded is not None and (effect, request) not in self._recorded:
            return None
        found = self.database.read(
            "SELECT reply FROM effects WHERE attempt = ? AND effect = ? AND request = ? ORDER BY seq DESC LIMIT 1",
            (self.attempt_id, plain(effect), plain(request)),
        )
        if not found:
            return None
        return self._reply(found[0][0])

    def record(self, effect: str, request: str, reply: Json) -> None:
        """Keep the reply. When this returns, it survives `kill -9`."""
        with self.database.write() as connection:
            connection.execute(
                "INSERT INTO effects (attempt, effect, request, reply, at) VALUES (?, ?, ?, ?, ?)",
                (self.attempt_id, plain(effect), plain(request), put(connection, reply), now()),
            )
        if self._recorded is not None:
            self._recorded.add((effect, request))

    async def settled(self) -> None:
        """Nothing to wait for: `record` has written it."""

    def entries(self) -> list[tuple[str, str, Json]]:
        """Every effect, its request and the last reply to it, the oldest first."""
        rows = self.database.read(
            "SELECT effect, request, reply FROM effects WHERE seq IN"
            " (SELECT max(seq) FROM effects WHERE attempt = ? GROUP BY effect, request) ORDER BY seq",
            (self.attempt_id,),
        )
        return [(effect, request, self._reply(digest)) for effect, request, digest in rows]

    def replies(self, part: str = "") -> list[Json]:
        """The last reply to each request that was recorded, of the agent or of a part."""
        return [reply for effect, _, reply in self.entries() if part_of(effect) == part]

    def _reply(self, digest: object) -> Json:
        reply = self.database.get(digest)
        if not isinstance(reply, dict):
            raise self.database.damaged("a reply is not a JSON object")
        return reply
