"""The parts of undo, each called by itself: what is captured around a call, the log, one step back, staged calls."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from dataclasses import make_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.declaration import Declaration, Undo
from firsthand.errors import ConfigError, StoreError, ToolError
from firsthand.guard import GuardVerdict
from firsthand.loop.calling import calling
from firsthand.message import Json, ToolCall, ToolResult
from firsthand.model import ToolSpec
from firsthand.safety.undo.roll_back import (
    RollbackLog,
    RollbackStep,
    UndoPoint,
    _paired,
    _take_back,
    roll_back,
    state_hash,
)
from firsthand.safety.undo.staging import StagedCalls, committing, is_committing
from firsthand.safety.undo.undo_point import point_seal
from firsthand.safety.undoable import _running, undoable
from firsthand.tool import Tool
from policy_tools import Asked

SPEC = ToolSpec("put", "Put.", {"properties": {}})


class Cells:
    """A state by key, whose capture and restore may fail or go wrong."""

    def __init__(self, **cells: Any):
        self.cells, self.captured, self.restored = cells, list[Json](), list[Any]()
        self.on_capture: Any = None
        self.on_restore: Any = None
        self.tool = self.made("put")

    def made(self, name: str, undo: bool = True) -> Tool:
        declares = Declaration(undo=Undo(self.capture, self.restore) if undo else None)
        return Tool(ToolSpec(name, "Put.", {"properties": {}}), "write", str, self.validate, declares=declares)

    def validate(self, given: Json) -> Json:
        if "key" not in given:
            raise ToolError("no key")
        return {"key": given["key"].strip()}

    def capture(self, given: Json) -> Any:
        self.captured.append(given)
        if isinstance(self.on_capture, Exception):
            raise self.on_capture
        return self.cells.get(given["key"])

    def restore(self, given: Json, before: Any) -> None:
        self.restored.append((given, before))
        if isinstance(self.on_restore, Exception):
            raise self.on_restore
        self.cells[given["key"]] = self.on_restore or before


def point(number: int, key: str, before: Any, now: Any = ..., tool: str = "put") -> UndoPoint:
    return UndoPoint(f"0:{number}", number, tool, {"key": key}, before, None if now is ... else state_hash(now))


def test_before_a_call_its_state_is_journalled_for_the_arguments_as_the_tool_reads_them() -> None:
    cells = Cells(a=["é", 1])
    asked = Asked()

    async def around() -> tuple[GuardVerdict, GuardVerdict, Any]:
        with calling(_context(), "0.3:12"):
            before = await undoable.call(asked.view, cells.tool, {"key": " a"})
            running = _running.get()
            cells.cells["a"] = 2
            return before, await undoable.result(asked.view, cells.tool, ToolResult("c", "put", "ok")), running

    digest, after = state_hash(["é", 1]), state_hash(2)
    detail = {"call": "0.3:12", "tool": "put", "arguments": {"key": "a"}, "before": ["é", 1]}
    before, result, running = asyncio.run(around())
    assert before == GuardVerdict("undoable", "pass", None, f"before: {digest[:12]}", detail)
    sealed = UndoPoint("0.3:12", -1, "put", {"key": "a"}, ["é", 1], after)
    seal = point_seal(asked.view.task.id, asked.view.agent, cells.tool, sealed)
    told = {"call": "0.3:12", "after_hash": after, "seal": seal}
    assert result == GuardVerdict("undoable", "pass", None, f"after: {after[:12]}", told)
    assert running == replace(sealed, after_hash=None) and cells.captured == [{"key": "a"}] * 2
    assert asked.journal == [{"undo": "put", "arguments": {"key": " a"}}, {"undone": "put", "arguments": {"key": "a"}}]


def _context() -> Any:
    return make_dataclass("Here", [("node", Any), ("fitted", bool)], frozen=True)(3, True)


def test_what_declares_no_undo_or_has_wrong_arguments_passes_and_forgets_the_call_before() -> None:
    cells = Cells(a=1)
    asked = Asked()
    bare = Tool(SPEC, "write", str, dict)
    passed = GuardVerdict("undoable")

    async def calls(tool: Tool, given: Json) -> tuple[GuardVerdict, GuardVerdict]:
        await undoable.call(asked.view, cells.tool, {"key": "a"})
        assert _running.get() == UndoPoint("", -1, "put", {"key": "a"}, 1, None)
        verdict = await undoable.call(asked.view, tool, given)
        return verdict, await undoable.result(asked.view, cells.tool, ToolResult("c", "put", "ok"))

    for tool, given in ((bare, {"key": "a"}), (cells.made("x", undo=False), {"key": "a"}), (cells.tool, {"no": 1})):
        assert asyncio.run(calls(tool, given)) == (passed, passed)
    assert len(cells.captured) == len(asked.journal) == 3

    async def other_result(tool: Tool) -> GuardVerdict:
        await undoable.call(asked.view, cells.tool, {"key": "a"})
        return await undoable.result(asked.view, tool, ToolResult("c", "x", "ok"))

    assert asyncio.run(other_result(bare)) == asyncio.run(other_result(cells.made("x", undo=False))) == passed


def test_points_pair_the_states_around_each_call_in_the_order_of_the_calls() -> None:
    one = {"at": 4, "call": "0:1", "tool": "put", "arguments": {"key": "a"}, "before": None}
    two = {"at": None, "call": "0:2", "tool": "set", "arguments": {}, "before": 2}
    after = [{"at": 4, "call": "0:2", "after_hash": "h2"}, {"at": 5, "call": "0:9", "after_hash": "h9"}, {"at": 1}]
    assert _paired([one, two, *after]) == [
        UndoPoint("0:1", 4, "put", {"key": "a"}, None, None), UndoPoint("0:2", -1, "set", {}, 2, "h2"),
    ]  # fmt: skip
    assert _paired([one, {**one, "at": 6, "before": 3}])[0].before == 3 and _paired([]) == []


def unsealed_text(log: Path) -> str:
    """The lines of a log without their seals."""
    return re.sub(r', "seal": "[0-9a-f]{64}"', "", log.read_text())


def test_a_log_is_read_again_begins_a_new_line_after_one_that_was_cut_off_and_is_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "undo.log"
    log = RollbackLog(path)
    assert log.states == {} and not path.exists()
    log.note(point(1, "a", 0), "began")
    log.note(point(2, "é", 0), "began")
    log.note(point(1, "a", 0), "done")
    lines = '{"call": "0:1", "state": "began"}\n{"call": "0:2", "state": "began"}\n{"call": "0:1", "state": "done"}\n'
    assert unsealed_text(path) == lines and log.states == {"0:1": "done", "0:2": "began"}
    assert RollbackLog(path).states == log.states
    path.write_bytes(log.line("0:1", "began").encode() + b'\n\xff\n[]\n7\n{"call": "0:5"}\n{"call": "0:6", "st')
    cut = RollbackLog(path)
    assert cut.states == {"0:1": "began"}
    cut.note(point(6, "a", 0), "done")
    assert path.read_bytes().endswith(b'"0:6", "st\n' + log.line("0:6", "done").encode() + b"\n")
    assert RollbackLog(path).states == {"0:1": "began", "0:6": "done"}
    empty = tmp_path / "empty"
    empty.touch()
    written: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: written.append(unsealed_text(empty)))
    RollbackLog(empty).note(point(3, "a", 0), "done")
    assert written == ['{"call": "0:3", "state": "done"}\n'], "whole when it is put on the disk"
    assert unsealed_text(empty) == '{"call": "0:3", "state": "done"}\n'
    link = tmp_path / "link"
    link.symlink_to(path)
    dangling = tmp_path / "dangling-link"
    dangling.symlink_to(tmp_path / "not there yet")
    for each in (link, dangling):
        with pytest.raises(StoreError) as refused:
            RollbackLog(each)
        assert str(refused.value) == f"{each} is a link: remove it"


def step(cells: Cells, made: UndoPoint, log: Any) -> tuple[str, str, list[Any]]:
    done = _take_back(made, cells.tool, log)
    assert done.point is made
    return done.outcome, done.reason, log.noted


class Log:
    def __init__(self, **states: str):
        self.states, self.noted = {key.replace("_", "0:"): state for key, state in states.items()}, list[Any]()

    def note(self, made: UndoPoint, state: str) -> None:
        self.noted.append((made.effect, state))


def test_one_call_is_taken_back_only_from_the_state_that_it_left() -> None:
    cells = Cells(a=2, b=5)
    assert step(cells, point(1, "a", 1, 2), Log(_1="done")) == ("as before", "it was taken back before", [])
    assert cells.captured == []
    assert step(cells, point(1, "a", 2, 3), Log()) == ("as before", "", [("0:1", "done")])
    kept = ("kept", "the state was changed since by something else", [])
    assert step(cells, point(1, "a", 1, 3), Log()) == kept == step(cells, point(1, "a", 1, 3), Log(_2="began"))
    assert cells.restored == []
    both = [("0:1", "began"), ("0:1", "done")]
    assert step(cells, point(1, "a", 1, 3), Log(_1="began")) == ("restored", "", both)
    assert cells.cells == {"a": 1, "b": 5} and cells.restored == [({"key": "a"}, 1)]
    assert step(cells, point(1, "b", 4), Log()) == ("restored", "", both)
    assert step(cells, point(1, "b", 3, 4), Log()) == ("restored", "", both) and cells.cells["b"] == 3
    cells.on_restore = 9
    other = "put restored another state than the one before the call"
    assert step(cells, point(1, "b", 2, 3), Log()) == ("kept", other, both[:1])
    cells.on_restore = KeyError("k" * 400)
    failed = f"undoing put failed: KeyError: '{'k' * 400}"[:300]
    assert step(cells, point(1, "b", 2), Log()) == ("kept", failed, both[:1])
    cells.on_restore = OSError(28, "No space left on device")
    with pytest.raises(StoreError, match=r"^the rollback stopped at put: No space left on device$"):
        step(cells, point(1, "b", 2), Log())
    cells.on_capture = OSError("odd")
    with pytest.raises(StoreError, match=r"^the rollback stopped at put: odd$"):
        step(cells, point(1, "b", 2), Log())


def test_a_rollback_checks_every_tool_first_and_stops_at_what_it_must_keep() -> None:
    cells = Cells(a=1, b=7, c=3)
    tools = {"put": cells.tool, "bare": Tool(SPEC, "write", str, dict), "dry": cells.made("dry", undo=False)}
    points = [point(1, "a", 0, 1), point(2, "b", 1, 2), point(3, "c", 2, 3)]
    for name in ("gone", "bare", "dry"):
        with pytest.raises(
            ConfigError, match=rf"^{name} is not among the tools, or declares no undo: give it with --tools$"
        ):
            roll_back([point(0, "a", 0, 1, name), *points], tools, Log())  # type: ignore[arg-type]
    assert cells.captured == []
    told: list[RollbackStep] = []
    log: Any = Log()
    steps = roll_back(points, tools, log, on_step=told.append)
    assert told == steps == [
        RollbackStep(points[2], "restored"),
        RollbackStep(points[1], "kept", "the state was changed since by something else"),
    ]  # fmt: skip
    assert cells.cells == {"a": 1, "b": 7, "c": 2} and log.noted == [("0:3", "began"), ("0:3", "done")]


def test_external_calls_alone_are_held_each_with_its_number_and_the_mark_of_committing_ends() -> None:
    tools = [
        Tool(ToolSpec(name, name, {}), effect, str, dict, 7.0, 99, origin="web")
        for name, effect in (("look", "read"), ("mail", "external"), ("wipe", "irreversible"), ("post", "external"))
    ]  # type: ignore[misc]
    staged = StagedCalls()
    mail, post = staged.stand_ins(tools)
    assert [(each.name, each.effect, each.origin, each.timeout_s, each.max_chars) for each in (mail, post)] == [
        ("mail", "write", None, 7.0, 99), ("post", "write", None, 7.0, 99),
    ]  # fmt: skip
    said = [asyncio.run(each.function(**given)) for each, given in ((post, {"a": 1}), (mail, {}))]
    assert said == [
        "post is staged as number 1: it is done when the task is over",
        "mail is staged as number 2: it is done when the task is over",
    ]
    assert staged.held == [ToolCall("staged-0", "post", {"a": 1}), ToolCall("staged-1", "mail", {})]
    with pytest.raises(ValueError), committing():
        with committing():
            assert is_committing()
        assert is_committing()
        raise ValueError
    assert not is_committing() and StagedCalls().held == []


def test_a_states_hash_does_not_depend_on_the_order_of_its_keys() -> None:
    assert state_hash({"b": 1, "a": "é"}) == hashlib.sha256('{"a":"é","b":1}'.encode()).hexdigest()
    assert state_hash("\ud800") == hashlib.sha256(b'"\xed\xa0\x80"').hexdigest()
    assert point(1, "a", 5).before_hash == state_hash(5)
