"""Show the sessions of a served agent, and approve or deny what waits for an answer; the server may run or not."""

from __future__ import annotations

import getpass
import json
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.system.home import data_home
from firsthand.system.plurals import count_of
from firsthand.system.terminal import console, print_as_json, print_table, printable

if TYPE_CHECKING:
    from firsthand.serve.agents.asked_approval import AskedApproval
    from firsthand.serve.agents.session_store import SessionStore

EXAMPLES = """
firsthand sessions my-sessions
firsthand sessions my-sessions --approve apr_0123456789abcdef
firsthand sessions my-sessions --approve apr_0123456789abcdef --answers '{"city": "Oslo"}'
firsthand sessions last --deny apr_0123456789abcdef --reason "not without an order number"
firsthand show last                                      # the traces, as of any other run
"""


@dataclass(frozen=True)
class Config:
    """The folder, and an answer."""

    folder: str = field(default="last", metadata={"positional": True})
    """The folder that `firsthand serve --agent` printed, a run's id, or last."""
    approve: str | None = None
    """Approve the call that this id asks about."""
    deny: str | None = None
    """Deny the call that this id asks about."""
    answers: str = ""
    """With --approve, the fields of a form as a JSON object, such as '{"city": "Oslo"}'."""
    reason: str = ""
    """Reason for the approval or denial; the model reads it."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.approve is not None and self.deny is not None:
            raise ConfigError("approve and deny do not go together: answer one call at a time")
        if self.reason and self.approve is None and self.deny is None:
            raise ConfigError("reason goes with approve or deny: name the call")
        if self.answers and self.approve is None:
            raise ConfigError("answers fill in a form: name it with approve")


def main(config: Config) -> int:
    """Answer an approval, or list the sessions."""
    from firsthand.runs.run_names import find_run
    from firsthand.serve.agents.session_store import SessionStore

    store = SessionStore(find_run(config.folder, data_home()))
    try:
        asked = config.approve or config.deny
        if asked is not None:
            answer(store, asked, config)
        elif config.json:
            print_as_json(as_json(store))
        else:
            print_sessions(store)
    finally:
        store.close()
    return 0


def answer(store: SessionStore, id: str, config: Config) -> None:
    """Keep the answer to an approval; a server that runs goes on with the turn at once, any other when it starts."""
    allowed, asked = config.approve is not None, store.approval(id)
    who = f"{getpass.getuser()} at a terminal"
    if not store.answer(id, allowed, by=who, reason=config.reason, content=read_answers(config.answers)):
        raise ConfigError(f"{id} was {asked.state}, or its turn is over: it is answered once")
    console().print(f"{asked.tool} is {'approved' if allowed else 'denied'}", markup=False)


def read_answers(text: str) -> Json | None:
    """The fields of a form; None of an empty text. ConfigError if it is no JSON object."""
    try:
        body = json.loads(text) if text else None
    except (ValueError, RecursionError):
        body = text
    if body is not None and not isinstance(body, dict):
        raise ConfigError(f'answers is {text[:100]!r}: give a JSON object, such as \'{{"city": "Oslo"}}\'')
    return body


def as_json(store: SessionStore) -> dict[str, object]:
    """Sessions with their turns, and what waits for an answer."""
    sessions = [
        {
            "id": row.id,
            "owner": row.owner,
            "context": row.context,
            "turns": [asdict(each) for each in store.turns(row.id)],
        }
        for row in store.sessions()
    ]
    return {"sessions": sessions, "approvals": [asdict(each) for each in store.pending()]}


def print_sessions(store: SessionStore) -> None:
    """A line for each turn, then the questions."""
    from firsthand.loop.approval import COLUMNS
    from firsthand.loop.question_screen import columns_of

    rows = [
        [
            _short(row.owner),
            _short(row.context),
            str(turn.number),
            turn.state,
            _short(turn.prompt),
            _short(turn.answer or turn.error or ""),
        ]
        for row in store.sessions()
        for turn in store.turns(row.id)
    ]
    print_table("", ["client", "session", "turn", "state", "question", "answer"], rows)
    pending = store.pending()
    console().print(f"{count_of(len(pending), 'approval')} waiting", markup=False)
    columns = min(COLUMNS, columns_of(sys.stdout))
    for each in pending:
        sys.stdout.write(f"\n{drawn(each, columns)}\n")


def drawn(asked: AskedApproval, columns: int) -> str:
    """A question below its id and client, in rows of `columns` columns.

    Its rows stand further right than the ids, so that no text in it passes for another question.
    """
    from firsthand.loop.question_screen import on_screen

    head = on_screen(f"{_line(asked.id)}  {_line(asked.owner)}", columns)
    return "\n".join([head, *(f"  {row}" for row in on_screen(printable(asked.question), columns - 2).split("\n"))])


def _line(text: str) -> str:
    return " ".join(printable(text).split())


def _short(text: str) -> str:
    line = _line(text)
    return line if len(line) <= 60 else f"{line[:59]}…"
