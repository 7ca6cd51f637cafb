"""The owner of the running code's conversations: a Model that keeps state of conversations keeps each owner's apart.

A server enters the client of a request, with the user and cache salt that it names, or the session of a served agent; a run
enters the place of each attempt. A Model that finds what it keeps by a conversation's texts has the owner in its key: two
clients, or two attempts at a task, may send equal texts. Elsewhere there is one owner, the empty one.
"""

from __future__ import annotations

from contextvars import ContextVar

_owner: ContextVar[str] = ContextVar("firsthand_conversation_owner", default="")


def current() -> str:
    """Returns the owner; empty if none was entered."""
    return _owner.get()


def enter(owner: str) -> None:
    """Make `owner` the owner for the running task and the tasks it starts."""
    _owner.set(owner)
