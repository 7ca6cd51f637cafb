"""Records an attempt's effects in a run's file; implements `firsthand.loop.journal.Journal`.

Append-only. An effect may be recorded twice, as a tool's intent and then its result, and the last record counts.

A run's folder may have been in anybody's hands. What decides on a call (an approval, what a guard asked, found or claimed)
is recorded with a seal of this data home, and an entry of that kind without it is none: it is asked or judged again. A yes
to a call that is not repeated is none either once the call was begun and the entries that say so are gone.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from firsthand.errors import StoreError
from firsthand.loop.journal import part_of
from firsthand.message import Json, canonical
from firsthand.runs.database import Database, digest_of, plain, put
from firsthand.system.home_seal import is_ours, seal_of
from firsthand.system.open_approvals import close_approval, is_open, open_approval

_DECISIONS = frozenset({"allowed", "guarded", "claim"})
"""The keys of replies that decide, whatever effect they stand under."""
_SEAL = "seal"
_STARTED: Json = {"started": True}
"""The reply recorded before a lasting call runs."""


def now(later_s: float = 0.0) -> str:
    """This moment in UTC, or one so many seconds later: ISO 8601, to the millisecond."""
    return (datetime.now(UTC) + timedelta(seconds=later_s)).isoformat(timespec="milliseconds")


class StoredJournal:
    """The journal of one attempt, in the run's file."""

    def __init__(self, database: Database, attempt_id: str):
        self.database = database
        self.attempt_id = plain(attempt_id)
        self._approvals: dict[str, set[str]] = {}
        """Ids of the approvals that were found or recorded here and are used up by a call, by its effect."""
        self._looked_up = False
        self._recorded: set[tuple[str, str]] | None = None
        """The effects recorded here, if there were none when the first was looked up; then no other is looked up."""

    def where(self, effect: str) -> tuple[str, str]:
        """The attempt's place, and the effect."""
        return self.attempt_id, effect

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
        return self._reply(effect, request, found[0][0])

    def record(self, effect: str, request: str, reply: Json) -> None:
        """Keep the reply. When this returns, it survives `kill -9`.

        StoreError for a call that begins with a yes which an earlier one has used up: its entries were changed.
        """
        if "started" in reply and not all(map(is_open, self._approvals.get(effect, ()))):
            raise self._used(effect)
        if (once := _once(reply)) is not None:
            open_approval(once)
            if is_open(once):  # else it is asked for again when the attempt is resumed
                self._approvals.setdefault(_call_of(effect), set()).add(once)
        kept = self._with_seal(effect, request, reply) if _decides(effect, reply) else reply
        with self.database.write() as connection:
            connection.execute(
                "INSERT INTO effects (attempt, effect, request, reply, at) VALUES (?, ?, ?, ?, ?)",
                (self.attempt_id, plain(effect), plain(request), put(connection, kept), now()),
            )
        if self._recorded is not None:
            self._recorded.add((effect, request))
        if "started" in reply:
            for each in self._approvals.get(effect, ()):
                if not close_approval(each):  # a copy of this run has used it since
                    raise self._used(effect)
        elif "waiting" in reply:  # it has not acted: it is called again with the same approval
            for each in self._approvals.get(effect, ()):
                open_approval(each)

    def _used(self, effect: str) -> StoreError:
        return StoreError(
            f"the approval of {effect} in {self.database.path} was used by a call before: entries were put back or "
            "changed, so the call is not made; start a new run"
        )

    async def settled(self) -> None:
        """Nothing to wait for: `record` has written it."""

    def entries(self) -> list[tuple[str, str, Json]]:
        """Every effect, its request and the last reply to it, the oldest first."""
        rows = self.database.read(
            "SELECT effect, request, reply FROM effects WHERE seq IN"
            " (SELECT max(seq) FROM effects WHERE attempt = ? GROUP BY effect, request) ORDER BY seq",
            (self.attempt_id,),
        )
        read = ((effect, request, self._reply(effect, request, digest)) for effect, request, digest in rows)
        return [(effect, request, reply) for effect, request, reply in read if reply is not None]

    def replies(self, part: str = "") -> list[Json]:
        """The last reply to each request that was recorded, of the agent or of a part."""
        return [reply for effect, _, reply in self.entries() if part_of(effect) == part]

    def has_acted(self) -> bool:
        """True if a call of an `external` or `irreversible` tool was begun, other than one that says it has done nothing."""
        begun = self.database.read(
            "SELECT DISTINCT effect, request FROM effects WHERE attempt = ? AND reply = ?",
            (self.attempt_id, digest_of(_STARTED)),
        )
        return any(_may_have_acted(self.find(effect, request) or {}) for effect, request in begun)

    def _reply(self, effect: str, request: str, digest: object) -> Json | None:
        """The reply in a body; None for a decision that was not recorded here."""
        reply = self.database.get(digest)
        if not isinstance(reply, dict):
            raise self.database.damaged("a reply is not a JSON object")
        if reply.keys() == {"decision", _SEAL}:
            decision = reply["decision"]
            if isinstance(decision, dict) and is_ours(
                self._sealed(effect, request, decision), reply[_SEAL], "decision"
            ):
                return self._unused(effect, decision)
            return None
        return None if _decides(effect, reply) else reply

    def _unused(self, effect: str, decision: Json) -> Json | None:
        """The decision, unless a call has used it up that no entry tells of. Guards judge a call that is replayed by it."""
        if (once := _once(decision)) is None:
            return decision
        call = _call_of(effect)
        if not is_open(once) and not self.database.read(
            "SELECT 1 FROM effects WHERE attempt = ? AND effect = ? LIMIT 1", (self.attempt_id, plain(call))
        ):
            return None
        self._approvals.setdefault(call, set()).add(once)
        return decision

    def _with_seal(self, effect: str, request: str, decision: Json) -> Json:
        """The decision as it is stored; one that is not JSON as it is, which is then refused."""
        try:
            as_read = json.loads(json.dumps(decision))
        except (TypeError, ValueError, RecursionError):
            return decision
        return {"decision": as_read, _SEAL: seal_of(self._sealed(effect, request, as_read), "decision")}

    def _sealed(self, effect: str, request: str, decision: Json) -> str:
        return canonical([self.attempt_id, plain(effect), plain(request), decision])


def _may_have_acted(reply: Json) -> bool:
    """True unless the last reply to a call that was begun says that nothing was done."""
    if "waiting" in reply:
        return False
    return bool(reply.get("ran", not reply.get("is_error")))


def _once(reply: Json) -> str | None:
    """The id of an approval that one call uses up, also within what a guard recorded; None in any other reply."""
    decision = reply.get("guarded", reply)
    once = decision.get("once") if isinstance(decision, dict) and decision.get("allowed") is True else None
    return once if isinstance(once, str) and once else None


def _call_of(effect: str) -> str:
    """The effect of the call that a decision is about."""
    return effect.removesuffix(" approval").partition(" guard ")[0]


def _decides(effect: str, reply: Json) -> bool:
    """True for the decision of a person or a guard on a call, and for what a guard decided by."""
    return effect.endswith(" approval") or " guard " in effect or not _DECISIONS.isdisjoint(reply)
