"""Approvals that are asked over the wire: a question is a row in the store, and may be answered days later.

An attempt whose call needs an answer is ended, once nothing else of it runs, with the stop reason `input_required`. When the
answer is there the turn is attempted again: its journal holds all it had done, so it goes on where it stood.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from firsthand.errors import AnswerPending
from firsthand.loop.approval import Decision, form_question, question
from firsthand.loop.form import FormField
from firsthand.loop.listener import Step
from firsthand.loop.opened_page import opened_page
from firsthand.message import Json
from firsthand.serve.agents.asked_approval import AskedApproval
from firsthand.serve.agents.question_subjects import QuestionSubjects
from firsthand.serve.agents.session_store import SessionStore, SessionTurn
from firsthand.serve.agents.session_trace import HeardSteps
from firsthand.tool import Tool

PARKED = "approval"
"""The limit that ends an attempt which waits for an answer."""
_STILL_S = 0.02
"""Seconds in which a branch that was started together with the question may begin."""
_YES = frozenset(("yes", "y", "approve", "approved", "allow", "allowed", "ok", "true"))
_NO = frozenset(("no", "n", "deny", "denied", "reject", "rejected", "refuse", "false"))


class ParkedApproval:
    """Answers from the store; without an answer it ends the attempt as soon as the rest of it stands still."""

    def __init__(self, store: SessionStore, turn: SessionTurn, heard: HeardSteps):
        self._store, self._turn, self._heard = store, turn, heard
        self.waiting: dict[str, AskedApproval] = {}
        """The questions without an answer, by what they are about."""
        self._subjects = QuestionSubjects()
        self._moved = asyncio.Event()

    def hear(self, step: Step) -> None:
        """Follow the attempt's steps."""
        self._subjects.hear(step)
        self._moved.set()

    async def __call__(self, tool: Tool, arguments: Json) -> Decision:
        """The answer to this question. AnswerPending, when nothing else runs, where there is none yet."""
        asked = await self._answered(tool, arguments, question(tool, arguments))
        return Decision(asked.state == "allowed", asked.answered_by, asked.reason or _reason(asked), once=asked.id)

    async def fill(self, tool: Tool, message: str, fields: Sequence[FormField]) -> Json | None:
        """The answers to the fields of a form; None if they were refused. AnswerPending as above."""
        asked = await self._answered(tool, {"message": message}, form_question(tool, message, fields), fields)
        return asked.content if asked.state == "allowed" else None

    async def _answered(
        self, tool: Tool, arguments: Json, asking: str, form: Sequence[FormField] | None = None
    ) -> AskedApproval:
        """The question with its answer."""
        call, page = self._subjects.of(tool), opened_page(tool, arguments)

        def in_the_store() -> AskedApproval:
            return self._store.asked(self._turn.id, call, tool.name, tool.effect, arguments, asking, form, page)

        asked = in_the_store()
        if asked.state == "pending":
            self.waiting[call] = asked
            self._moved.set()
            await self._stand_still()
            asked = in_the_store()
            if asked.state == "pending":
                raise AnswerPending(PARKED, f"{tool.name} waits for an answer to {asked.id}")
            del self.waiting[call]
        return asked

    async def _stand_still(self) -> None:
        """Wait until every effect under way waits for an answer too, and none begins for a moment: none is cut off."""
        while True:
            while len(self._heard.open) > len(self.waiting):
                self._moved.clear()
                await self._moved.wait()
            self._moved.clear()
            try:
                await asyncio.wait_for(self._moved.wait(), _STILL_S)
            except TimeoutError:
                return


def _reason(asked: AskedApproval) -> str:
    return "" if asked.state == "allowed" else f"{asked.answered_by} did not approve this call of {asked.tool}"


def read_decision(text: str) -> bool | None:
    """True for a text that says yes, False for one that says no, None for any other."""
    word = text.strip().strip(".!").lower()
    return True if word in _YES else False if word in _NO else None
