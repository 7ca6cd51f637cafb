"""AskedApproval: a question to a person as a row of the store, bound to what was asked.

An answer counts for its tool, effect, arguments, question and form, and for no other ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from firsthand.loop.form import FormField, fields_from_json, fields_to_json
from firsthand.message import Json, canonical

_APPROVAL = (
    "a.id, a.turn, a.call, a.tool, a.effect, a.arguments, a.question, a.state, a.answered_by, a.reason, s.owner,"
    " a.form, a.content, a.opens"
)
APPROVALS = f"SELECT {_APPROVAL} FROM approvals a JOIN turns t ON t.id = a.turn JOIN sessions s ON s.id = t.session"


@dataclass(frozen=True)
class AskedApproval:
    """A tool call that a person is asked about, or was."""

    id: str
    turn: str
    call: str
    """The effect of the call in its attempt; of a question that came up during the call, with its name and number."""
    tool: str
    effect: str
    arguments: Json
    question: str
    state: Literal["pending", "allowed", "denied"]
    answered_by: str
    reason: str
    owner: str
    form: tuple[FormField, ...] | None = None
    """The fields that an answer fills in; None where leave alone is asked for."""
    content: Json | None = None
    """The answers to the fields, once it is allowed."""
    opens: str | None = None
    """The web page that a tool's server asks the user to open, such as to sign in there; None for another question."""

    @property
    def digest(self) -> str:
        """The digest of what is asked."""
        return question_digest(self.tool, self.effect, self.arguments, self.question, self.form, self.opens)


def question_digest(
    tool: str,
    effect: str,
    arguments: Json,
    question: str,
    form: Sequence[FormField] | None = None,
    opens: str | None = None,
) -> str:
    """The digest of all that a person is asked; equal for what is read back from JSON."""
    fields = None if form is None else fields_to_json(form)
    asked = json.loads(json.dumps([tool, effect, arguments, question, fields, *_page(opens)]))
    return hashlib.sha256(canonical(asked).encode("utf-8", "surrogatepass")).hexdigest()


def sealed_text(asked: AskedApproval) -> str:
    """A question and its answer, as they are sealed."""
    form = None if asked.form is None else fields_to_json(asked.form)
    question = [asked.id, asked.turn, asked.call, asked.tool, asked.effect, asked.arguments, asked.question, form]
    told = json.dumps([*question, asked.state, asked.answered_by, asked.reason, asked.content, *_page(asked.opens)])
    return canonical(json.loads(told))


def approval_of(id: str, turn: str, call: str, tool: str, effect: str, arguments: str, *rest: Any) -> AskedApproval:
    """The approval in a row of APPROVALS."""
    *told, form, content, opens = rest
    fields = None if form is None else fields_from_json(json.loads(form))
    filled = None if content is None else json.loads(content)
    asked = AskedApproval(id, turn, call, tool, effect, json.loads(arguments), *told)
    return replace(asked, form=fields, content=filled, opens=opens)


def _page(opens: str | None) -> list[str]:
    """The page, as digests and seals count it: those of questions without one are as in stores of before 0.21.0."""
    return [] if opens is None else [f"opens {opens}"]
