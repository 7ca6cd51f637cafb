"""Regular expressions of AgentBench's items: none holds the event loop, and one that is none is told."""

import asyncio
from pathlib import Path

import pytest

from firsthand.errors import DataError
from firsthand.scorers import bounded_search
from firsthand.worlds.shell.os_items import OsItem, _item
from firsthand.worlds.shell.shell_world import ShellWorld


def judged(regex: str, answer: str) -> tuple[bool, str, bool]:
    """The verdict, its reason, and whether the event loop went on meanwhile."""

    async def verdict() -> tuple[bool, str, bool]:
        world = ShellWorld(OsItem("i", "?", regex=regex))
        world.answer = answer
        judging, went_on = asyncio.create_task(world._judge()), False
        while not judging.done():
            await asyncio.sleep(0)
            went_on = went_on or not judging.done()
        return *judging.result(), went_on

    return asyncio.run(verdict())


def test_an_expression_that_an_answer_never_ends_is_ended_beside_the_event_loop_and_does_not_fit(monkeypatch):
    monkeypatch.setattr(bounded_search, "LIMIT_S", 0.05)
    passed, why, went_on = judged("^(a+)+$", "a" * 60 + "!")
    assert not passed and went_on and "did not finish" in why and "61 characters" in why


def test_an_expression_is_found_anywhere_in_an_answer():
    why = "compared with a regular expression"
    assert judged("^(a+)+$", "aaa")[:2] == judged(r"1\d", "it is 12")[:2] == judged("", "")[:2] == (True, why)
    assert judged(r"1\d", "it is 2")[:2] == (False, why)


def test_an_expression_of_an_item_that_is_none_is_told_with_its_place():
    row = {"description": "d", "evaluation": {"match": {"regex": "(a"}}}
    with pytest.raises(DataError, match=r"^w: '\(a' is no regular expression of Python .*: correct the item's match$"):
        _item(row, "i", Path("scripts"), "w")
