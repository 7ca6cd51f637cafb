"""Undo: states before and after each call, and rollbacks that restore the hash, also after kill -9."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from firsthand import Agent, Task, catalog
from firsthand.commands.rollback import Config, main
from firsthand.declaration import Declaration, Undo
from firsthand.errors import ConfigError, StoreError
from firsthand.experiment.settings import RunSettings
from firsthand.guard import GuardVerdict
from firsthand.loop.approval import Approval
from firsthand.loop.journal import MemoryJournal
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs import store
from firsthand.safety.undo.roll_back import RollbackLog, UndoPoint, points_of, roll_back, state_hash
from firsthand.tool import tool
from firsthand.tools.files import files

ALLOW = Approval(dict.fromkeys(("external", "irreversible"), "allow"))


def cells(world):
    """A tool that sets a cell of a world, and one that cannot undo what it says it does."""

    def restore(arguments, state):
        world.pop(arguments["key"], None)
        if state is not None:
            world[arguments["key"]] = state

    undo = Undo(lambda arguments: world.get(arguments["key"]), restore)

    @tool(effect="write", declares=Declaration(undo=undo))
    async def put(key: str, value: int) -> str:
        """Set a cell; 0 removes it."""
        world.pop(key, None) if value == 0 else world.update({key: value})
        return "done"

    return put


def made_points(put, world, sequence):
    """The points of a sequence of (key, value), and the hash of the world before each."""
    points, hashes = [], []
    for number, (key, value) in enumerate(sequence):
        hashes.append(state_hash(world))
        arguments = {"key": key, "value": value}
        before = put.declares.undo.capture(arguments)
        asyncio.run(put(arguments)) if number < 0 else _put(world, key, value)
        points.append(UndoPoint(f"0:{number}", number, "put", arguments, before, state_hash(world.get(key))))
    return points, hashes


def _put(world, key, value):
    world.pop(key, None) if value == 0 else world.update({key: value})


class MemoryLog:
    """A log without a disk."""

    def __init__(self):
        self.states = {}

    def note(self, point, state):
        self.states[point.effect] = state


def test_undo_after_do_restores_the_hash_in_1000_random_sequences():
    draw, world = random.Random(21), {}
    put = cells(world)
    for _ in range(1000):
        world.clear()
        world.update({key: draw.randint(1, 3) for key in "abc" if draw.random() < 0.5})
        sequence = [(draw.choice("abcd"), draw.randint(0, 3)) for _ in range(draw.randint(1, 6))]
        points, hashes = made_points(put, world, sequence)
        to = draw.randrange(len(points))
        steps = roll_back(points[to:], {"put": put}, MemoryLog())
        assert state_hash(world) == hashes[to], (sequence, to)
        assert all(step.outcome != "kept" for step in steps)


def test_a_rollback_that_is_broken_off_anywhere_goes_on_where_it_stood(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)

    class Killed(BaseException):
        pass

    def run(stop_at, sequence, log_name):
        world = {"a": 1}
        put = cells(world)
        points, hashes = made_points(put, world, sequence)
        count = 0
        undo = put.declares.undo

        def tick(function):
            def ticking(*arguments):
                nonlocal count
                count += 1
                if count == stop_at:
                    raise Killed
                done = function(*arguments)
                count += 1
                if count == stop_at:
                    raise Killed
                return done

            return ticking

        object.__setattr__(put.declares, "undo", Undo(tick(undo.capture), tick(undo.restore)))
        log = tmp_path / log_name
        try:
            roll_back(points, {"put": put}, RollbackLog(log))
            return None
        except Killed:
            log.open("a").write('{"call": "0:')  # a line that was being written
        object.__setattr__(put.declares, "undo", undo)
        steps = roll_back(points, {"put": put}, RollbackLog(log))
        assert all(step.outcome != "kept" for step in steps) and state_hash(world) == hashes[0]
        return True

    sequence = [("a", 2), ("b", 1), ("a", 0), ("a", 3), ("b", 0)]
    stops = 0
    while run(stops + 1, sequence, f"{stops}.jsonl"):
        stops += 1
    assert stops > 20


def test_what_somebody_changed_since_is_kept_and_said(tmp_path):
    world = {"a": 1}
    put = cells(world)
    points, _ = made_points(put, world, [("a", 2), ("b", 5)])
    world["b"] = 99
    (step,) = roll_back(points, {"put": put}, RollbackLog(tmp_path / "log"))
    assert (step.outcome, step.reason) == ("kept", "the state was changed since by something else")
    assert world == {"a": 2, "b": 99}


def test_an_undo_that_fails_half_way_is_said_and_goes_on_later(tmp_path):
    world = {"a": 1, "b": 1}
    put = cells(world)
    points, hashes = made_points(put, world, [("a", 2), ("b", 2)])
    undo = put.declares.undo

    def fails(arguments, state):
        world[arguments["key"]] = -1
        raise RuntimeError("the disk is full")

    object.__setattr__(put.declares, "undo", Undo(undo.capture, fails))
    (step,) = roll_back(points, {"put": put}, RollbackLog(tmp_path / "log"))
    assert step.outcome == "kept" and "the disk is full" in step.reason and world["a"] == 2
    object.__setattr__(put.declares, "undo", undo)
    roll_back(points, {"put": put}, RollbackLog(tmp_path / "log"))
    assert state_hash(world) == hashes[0]


def test_an_undo_that_restores_something_else_is_found(tmp_path):
    world = {"a": 1}
    put = cells(world)
    points, _ = made_points(put, world, [("a", 2)])
    object.__setattr__(
        put.declares, "undo", Undo(put.declares.undo.capture, lambda arguments, state: world.update(a=7))
    )
    (step,) = roll_back(points, {"put": put}, RollbackLog(tmp_path / "log"))
    assert "restored another state" in step.reason
    with pytest.raises(ConfigError, match="declares no undo"):
        roll_back(points, {}, RollbackLog(tmp_path / "log"))


CALLS = [
    ("write_file", {"path": "new/a.txt", "text": "one"}),
    ("edit_file", {"path": "b.txt", "old": "old", "new": "new"}),
    ("overwrite_file", {"path": "b.txt", "text": "gone"}),
    ("edit_file", {"path": "new/a.txt", "old": "one", "new": "two"}),
]


def folder_hash(folder):
    found = {
        str(p.relative_to(folder)): [p.read_text(), p.stat().st_mode & 0o777]
        for p in folder.rglob("[!.]*")
        if p.is_file()
    }
    return state_hash(found)


async def _all_calls(task, ctx):
    for number, (name, arguments) in enumerate(CALLS):
        ctx = ctx.say(f"step {number}").say(await ctx.call(ToolCall(str(number), name, arguments)))
    return "done"


def _hash_at_begin(folder, hashes, step):
    if type(step).__name__ == "Began" and "arguments" in step.detail:  # guards have passed it: its state is kept next
        hashes.append(folder_hash(folder))


@pytest.mark.slow
def test_files_are_restored_to_any_step_from_the_trace_alone(tmp_path):
    for to in range(len(CALLS)):
        folder = tmp_path / str(to)
        folder.mkdir()
        (folder / "b.txt").write_text("the old text")
        (folder / "b.txt").chmod(0o640)
        made = files(str(folder), write=True)
        agent = Agent("a", Scripted([]), _all_calls, tools=made, guard=catalog.guards(["undoable"]), approval=ALLOW)
        hashes = []
        trace = asyncio.run(rollout(agent, Task("1", "go"), listener=partial(_hash_at_begin, folder, hashes)))
        assert trace.error is None and (folder / "new/a.txt").read_text() == "two"
        stored = type(trace).from_json(json.loads(json.dumps(trace.to_json())))
        points = points_of(stored)
        assert [each.tool for each in points] == [name for name, _ in CALLS]
        roll_back(points[to:], {each.name: each for each in made}, RollbackLog(tmp_path / f"{to}.jsonl"))
        assert folder_hash(folder) == hashes[to]


def test_a_resumed_attempt_keeps_the_state_from_before_its_first_try(tmp_path):
    (tmp_path / "b.txt").write_text("the old text")
    made, journal = files(str(tmp_path), write=True, scratch=True), MemoryJournal()
    agent = Agent("a", Scripted([]), _edit, tools=made, guard=catalog.guards(["undoable"]), approval=ALLOW)
    asyncio.run(rollout(agent, Task("1", "go"), journal=journal))
    again = asyncio.run(rollout(agent, Task("1", "go"), journal=journal))
    (point,) = points_of(again)
    assert point.before == made[3].declares.undo.capture({"path": "b.txt"}) | {"base64": "dGhlIG9sZCB0ZXh0"}


async def _edit(task, ctx):
    return (await ctx.call(ToolCall("1", "edit_file", {"path": "b.txt", "old": "old", "new": "new"}))).content


def test_a_state_that_cannot_be_kept_blocks_the_call(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"old" + b"x" * 4_000_001)
    agent = Agent(
        "a",
        Scripted([]),
        _over,
        tools=files(str(tmp_path), write=True),
        guard=catalog.guards(["undoable"]),
        approval=ALLOW,
    )
    trace = asyncio.run(rollout(agent, Task("1", "go")))
    assert "could not be kept" in trace.answer and (tmp_path / "b.txt").stat().st_size > 4_000_000


async def _over(task, ctx):
    return (await ctx.call(ToolCall("1", "overwrite_file", {"path": "b.txt", "text": ""}))).content


@pytest.fixture
def stored_attempt(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "b.txt").write_text("the old text")
    named = f"files:{folder}:write=true"
    settings = RunSettings(benchmarks=("arithmetic",), tools=(named,))
    agent = Agent(
        "a", Scripted([]), _all_calls, tools=catalog.tools(named), guard=catalog.guards(["undoable"]), approval=ALLOW
    )
    with store.create(tmp_path / "home", settings.to_json(), "test") as run:
        trace = asyncio.run(rollout(agent, Task("1", "go")))
        run.append(trace)
        return folder, run.id, trace


@pytest.mark.slow
def test_the_command_restores_the_state_at_a_step(stored_attempt, capsys):
    folder, run, trace = stored_attempt
    before = folder_hash(folder)
    step = points_of(trace)[2].step
    assert main(Config((run, trace.id), dry_run=True, to=step)) == 0
    assert folder_hash(folder) == before and capsys.readouterr().out.count("step") == 2
    assert main(Config((run, trace.id), to=step)) == 0
    assert (folder / "b.txt").read_text() == "the new text" and (folder / "new/a.txt").read_text() == "one"
    assert main(Config((run, trace.id))) == 0
    assert (folder / "b.txt").read_text() == "the old text" and not (folder / "new/a.txt").exists()
    with pytest.raises(ConfigError, match="no call of"):
        main(Config((run, trace.id), to=1000))


@pytest.mark.slow
def test_the_command_says_what_it_could_not_take_back(stored_attempt, capsys):
    folder, run, trace = stored_attempt
    (folder / "new/a.txt").write_text("mine")
    assert main(Config((run, trace.id), json=True)) == 3
    assert json.loads(capsys.readouterr().out)[0]["outcome"] == "kept" and (folder / "new/a.txt").read_text() == "mine"


SENT = """
from firsthand.tool import tool


@tool(effect="external")
def send(to: str) -> str:
    \"\"\"Send a mail.\"\"\"
    return "sent"


@tool(effect="external")
def fails(to: str) -> str:
    \"\"\"Send a mail, and fail after it.\"\"\"
    raise OSError("the line broke")


@tool(effect="irreversible")
def refused(to: str) -> str:
    \"\"\"Send a mail that nobody allows.\"\"\"
    return "sent"


@tool(effect="read")
def look() -> str:
    \"\"\"Look.\"\"\"
    return "seen"
"""


class BlocksEve:
    def call(self, view, tool, arguments):
        blocks = arguments.get("to") == "eve"
        return GuardVerdict.blocked("eve", "not to eve") if blocks else GuardVerdict.passed("eve")


async def _writes_and_sends(task, ctx):
    made = [
        ("send", {"to": "ann"}), ("write_file", {"path": "c.txt", "text": "new"}), ("send", {"to": "bob"}),
        ("send", {"to": "eve"}), ("fails", {"to": "cy"}), ("refused", {"to": "dee"}), ("look", {}),
    ]  # fmt: skip
    for number, (name, arguments) in enumerate(made):
        ctx = ctx.say(await ctx.call(ToolCall(str(number), name, arguments)))
    return "done"


@pytest.mark.slow
def test_a_rollback_names_the_calls_that_it_cannot_take_back(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "mails.py").write_text(SENT)
    named = (
        f"files:{tmp_path / 'notes'}:write=true",
        *(f"{tmp_path / 'mails.py'}:{each}" for each in ("send", "fails", "refused", "look")),
    )
    settings = RunSettings(benchmarks=("arithmetic",), tools=named)
    agent = Agent(
        "a",
        Scripted([]),
        _writes_and_sends,
        tools=[one for each in named for one in catalog.tools(each)],
        guard=(BlocksEve(), *catalog.guards(["undoable"])),
        approval=Approval({"external": "allow", "irreversible": "deny"}),
    )
    with store.create(tmp_path / "home", settings.to_json(), "test") as run:
        trace = asyncio.run(rollout(agent, Task("1", "go")))
        run.append(trace)
        name = run.id
    step = points_of(trace)[0].step
    assert main(Config((name, trace.id), to=step, dry_run=True)) == 0
    rehearsed = capsys.readouterr().out
    assert rehearsed.count("no undo") == 2 and (tmp_path / "notes/c.txt").exists()
    assert main(Config((name, trace.id), to=step)) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in shown] == ["restored", "no", "no"] and not (tmp_path / "notes/c.txt").exists()
    assert [line[4] for line in shown[1:]] == ["send", "fails"]
    assert main(Config((name, trace.id), json=True)) == 0
    told = [each["tool"] for each in json.loads(capsys.readouterr().out) if each["outcome"] == "no undo"]
    assert told == ["send", "send", "fails"]


def test_a_log_that_is_a_link_is_not_written(tmp_path):
    victim = tmp_path / "notes.txt"
    victim.write_text("mine")
    (tmp_path / "rollback-1.jsonl").symlink_to(victim)
    with pytest.raises(StoreError, match="is a link"):
        RollbackLog(tmp_path / "rollback-1.jsonl")
    assert victim.read_text() == "mine"


_KILLED = """
import sys, json, os
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[3])
from firsthand.safety.undo.roll_back import RollbackLog, UndoPoint, roll_back
from firsthand.tools.files import files
points = [UndoPoint(**each) for each in json.loads(Path(sys.argv[2]).read_text())]
real, count = os.fsync, 0
def fsync(fd):
    global count
    count += 1
    if count == int(sys.argv[4]): os.kill(os.getpid(), 9)
    real(fd)
    count += 1
    if count == int(sys.argv[4]): os.kill(os.getpid(), 9)
os.fsync = fsync
roll_back(points, {t.name: t for t in files(sys.argv[1], write=True)}, RollbackLog(Path(sys.argv[2] + ".log")))
print("finished")
"""


@pytest.mark.slow
def test_a_rollback_killed_by_kill_9_at_any_write_is_finished_by_the_next(tmp_path):
    stop, finished = 0, False
    while not finished:
        stop += 1
        folder = tmp_path / str(stop)
        folder.mkdir()
        (folder / "b.txt").write_text("the old text")
        before = folder_hash(folder)
        made = files(str(folder), write=True)
        agent = Agent("a", Scripted([]), _all_calls, tools=made, guard=catalog.guards(["undoable"]), approval=ALLOW)
        points = points_of(asyncio.run(rollout(agent, Task("1", "go"))))
        listed = tmp_path / f"{stop}.json"
        listed.write_text(json.dumps([vars(each) for each in points]))
        done = subprocess.run(
            [sys.executable, "-c", _KILLED, str(folder), str(listed), json.dumps(sys.path), str(stop)],
            capture_output=True,
        )
        finished = b"finished" in done.stdout
        assert finished or done.returncode == -signal.SIGKILL, done.stderr
        roll_back(points, {each.name: each for each in made}, RollbackLog(Path(f"{listed}.log")))
        assert folder_hash(folder) == before
    assert stop > 10
