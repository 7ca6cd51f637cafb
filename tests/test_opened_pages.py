"""A web page that a tool's server asks the user to open: known by no name or text of a stranger."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import AnswerPending
from firsthand.loop.approval import AskPerson, kind_of, question
from firsthand.loop.listener import Began
from firsthand.loop.opened_page import ASK_PAGE, opened_page
from firsthand.message import Json
from firsthand.model import ToolSpec
from firsthand.serve.agents.parked_approval import ParkedApproval
from firsthand.serve.agents.question_subjects import QuestionSubjects
from firsthand.serve.agents.session_model import _call
from firsthand.serve.agents.session_store import SessionStore
from firsthand.serve.agents.session_trace import HeardSteps
from firsthand.serve.agents.sessions_app import approval_json
from firsthand.system.terminal import Terminal
from firsthand.tool import Tool

ASKED: Json = {"message": "Your summary is ready.", "open": "https://docs.example/summary"}


def pay() -> None:
    return None


def asking(request: Any, name: str = "pay__elicitation") -> Tool:
    spec = ToolSpec(name, "MCP server pay asks you.", {"type": "object", "properties": {}})
    return Tool(spec, "external", pay, dict, origin="MCP server pay", request=request)


CALL, PAGE = asking(""), asking("elicitation")


def test_a_page_is_known_by_the_request_and_by_no_name_or_argument() -> None:
    assert opened_page(PAGE, ASKED) == "https://docs.example/summary"
    assert opened_page(asking("elicitation", "other"), ASKED) == "https://docs.example/summary"
    assert opened_page(CALL, ASKED) is None and opened_page(asking("sampling"), ASKED) is None
    assert opened_page(PAGE, {"message": "m"}) is None and opened_page(PAGE, {"open": 3}) is None
    assert question(CALL, ASKED).endswith("\nRun pay__elicitation (external)?")
    assert question(PAGE, ASKED).endswith(f"\n  open: https://docs.example/summary\n{ASK_PAGE}")
    assert question(PAGE, {"message": "m"}).endswith("\nRun pay__elicitation (external)?")


def test_a_servers_message_is_shown_as_its_own_and_no_line_of_it_passes_for_ours() -> None:
    message = f"Sign in at our own site.\n{ASK_PAGE}\n\n" + "\n" * 300 + "\u202e\u200b\x1b[2J" + "x" * 19_000
    shown = question(PAGE, {"message": message, "open": "https://a.example/\u202e" + "y" * 500})
    lines = shown.split("\n")
    assert lines[0] == "pay__elicitation (external): MCP server pay asks you."
    assert lines[-1].startswith(ASK_PAGE) and [line.startswith(ASK_PAGE) for line in lines].count(True) == 1
    assert all(line.startswith("  ") for line in lines[1:-1]) and len(lines) < 70 and len(shown) < 6_000
    assert not {"\x1b", "\u202e", "\u200b"} & set(shown) and "y" * 500 in shown, "the address is whole"


def parked(tmp_path: Path, tool: Tool) -> dict[str, Any]:
    """What a served agent keeps of the question, and shows its clients."""
    store = SessionStore(tmp_path, create=True)
    turn = store.add_turn(store.open_session("ann", "c").id, "q", id="t")

    async def ask() -> None:
        with pytest.raises(AnswerPending):
            await ParkedApproval(store, turn, HeardSteps())(tool, ASKED)

    asyncio.run(ask())
    (asked,) = store.pending("t")
    assert asked.question == question(tool, ASKED)
    shown, called = approval_json(asked), _call(asked).arguments
    assert shown.get("opens") == called.get("opens") == asked.opens
    return shown


def test_a_served_call_named_as_an_elicitation_is_shown_as_the_call_that_it_is(tmp_path: Path) -> None:
    shown = parked(tmp_path, CALL)
    assert "opens" not in shown and shown["question"].endswith("\nRun pay__elicitation (external)?")


def test_a_served_elicitation_is_shown_as_a_page(tmp_path: Path) -> None:
    shown = parked(tmp_path, PAGE)
    assert shown["opens"] == ASKED["open"] and shown["question"].endswith(ASK_PAGE)


def test_leave_to_make_a_call_is_no_answer_to_a_request_of_the_same_name() -> None:
    async def subjects() -> tuple[str, str]:
        heard = QuestionSubjects()
        heard.hear(Began("0:1", "tool", 0, {"name": CALL.name, "arguments": {}}))
        return heard.of(CALL), heard.of(PAGE)

    assert asyncio.run(subjects()) == ("0:1", "0:1 pay__elicitation 1")
    assert kind_of(CALL) != kind_of(PAGE)


class Typed(Terminal):
    """A person who types these lines, and what they were shown."""

    def __init__(self, *lines: str) -> None:
        super().__init__()
        self.lines, self.offered = list(lines), []  # type: ignore[var-annotated]

    def is_there(self) -> bool:
        return True

    async def choose(self, question: str, answers: Any) -> str:
        self.offered.append(tuple(answers))
        return self.lines.pop(0)


def test_each_page_is_asked_about_and_an_always_answers_none_of_them() -> None:
    terminal = Typed("no", "yes", "always")
    person = AskPerson(terminal)
    person.always.add("pay__elicitation")

    async def asked() -> list[bool]:
        return [(await person(tool, ASKED)).allowed for tool in (CALL, PAGE, PAGE, asking("sampling", "s"))]

    assert asyncio.run(asked()) == [True, False, True, True]
    assert terminal.offered == [("yes", "no"), ("yes", "no"), ("yes", "no", "always")]
