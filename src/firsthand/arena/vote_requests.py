"""Votes over HTTP, without the HTTP: what a page is shown of a battle, and a checked vote from what it sends back.

The page gets a sealed ticket in place of the models' names. A ticket is valid for one vote of one voter within its time;
every refusal is a ConfigError with its sentence, for the route to send on.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from firsthand.arena.blind_battles import BlindBattle
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.preference import Preference, Winner

MAX_TICKET_CHARS = 4096


@dataclass(frozen=True)
class VoteLimits:
    """Limits of what one voter may send."""

    daily: int = 100
    """Votes in 24 hours."""
    least_s: float = 1.0
    """Seconds from showing to voting below which nobody has read two answers."""
    valid_s: float = 3600.0
    """Seconds that a ticket is valid."""


@dataclass(frozen=True)
class TicketVote:
    """A vote that passed all checks."""

    task_id: str
    a: str
    """Id of the trace that was shown first."""
    b: str
    winner: Winner
    voter: str
    dwell_s: float


def shown_battle(battle: BlindBattle, secret: bytes, *, voter: str, now_s: float) -> Json:
    """The battle for a page: prompt, both answers, and the ticket; no model's name is in it."""
    body = {"task": battle.task.id, "a": battle.a.id, "b": battle.b.id, "voter": voter, "at": round(now_s, 3)}
    return {
        "prompt": battle.task.prompt,
        "a": battle.a.answer or "",
        "b": battle.b.answer or "",
        "ticket": _sealed(body, secret),
    }


def vote_of_request(
    body: object,
    secret: bytes,
    *,
    voter: str,
    now_s: float,
    past: Sequence[Preference],
    past_day: int,
    limits: VoteLimits | None = None,
) -> TicketVote:
    """The vote that a request holds.

    Args:
        body: The request's JSON: ticket and winner.
        secret: The key that sealed the tickets.
        voter: The voter, as the session knows them.
        now_s: The time now, seconds.
        past: The votes of the run so far.
        past_day: This voter's votes of the last 24 hours.
        limits: The limits of one voter.

    Raises:
        ConfigError: A request that is no vote: wrong form, another's ticket, a second vote, too late, too early, too many.
    """
    allowed = limits or VoteLimits()
    if not isinstance(body, dict) or set(body) != {"ticket", "winner"}:
        raise ConfigError("a vote is an object with ticket and winner")
    winner = body["winner"]
    if winner not in get_args(Winner):
        raise ConfigError(f"winner is {str(winner)[:40]!r}: give one of {', '.join(get_args(Winner))}")
    ticket = _opened(body["ticket"], secret)
    if ticket["voter"] != voter:
        raise ConfigError("the ticket was given to another voter: ask for a battle of your own")
    dwell = now_s - ticket["at"]
    if dwell > allowed.valid_s:
        raise ConfigError("the ticket is too old: ask for a new battle")
    if dwell < allowed.least_s:
        raise ConfigError(f"the vote came {max(0.0, dwell):.1f} s after the answers: read both first")
    if past_day >= allowed.daily:
        raise ConfigError(f"{allowed.daily} votes in a day are the most that count: come back tomorrow")
    if any(each.by == voter and {each.a, each.b} == {ticket["a"], ticket["b"]} for each in past):
        raise ConfigError("this battle has your vote already: ask for the next one")
    return TicketVote(str(ticket["task"]), str(ticket["a"]), str(ticket["b"]), winner, voter, dwell)


def _sealed(body: Json, secret: bytes) -> str:
    text = json.dumps(body, sort_keys=True).encode()
    seal = hmac.new(secret, text, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(seal + text).decode()


def _opened(ticket: object, secret: bytes) -> Json:
    wrong = ConfigError("the ticket is not one of this arena: ask for a new battle")
    if not isinstance(ticket, str) or len(ticket) > MAX_TICKET_CHARS:
        raise wrong
    try:
        raw = base64.urlsafe_b64decode(ticket.encode("ascii"))
    except ValueError:
        raise wrong from None
    seal, text = raw[:32], raw[32:]
    if not hmac.compare_digest(seal, hmac.new(secret, text, hashlib.sha256).digest()):
        raise wrong
    body: Json = json.loads(text)
    return body
