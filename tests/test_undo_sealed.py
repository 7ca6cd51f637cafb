"""A rollback puts back what the guard recorded under this home, and nothing that others wrote into the run's folder."""

import asyncio
import json
import os
from dataclasses import replace

import pytest

from firsthand import Agent, Task, catalog
from firsthand.commands.rollback import Config, main
from firsthand.errors import ConfigError, StoreError
from firsthand.experiment.settings import RunSettings
from firsthand.loop.approval import Approval
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs import store
from firsthand.safety.undo.roll_back import points_of
from firsthand.safety.undo.rollback_log import MAX_LOG_BYTES, RollbackLog
from firsthand.system.home_seal import KEY
from firsthand.tools.files import files
from firsthand.trace import Event

ALLOW = Approval(dict.fromkeys(("external", "irreversible"), "allow"))


async def _writes(task, ctx):
    await ctx.call(ToolCall("1", "overwrite_file", {"path": "b.txt", "text": "new"}))
    return (await ctx.call(ToolCall("2", "write_file", {"path": "c.txt", "text": "new"}))).content


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A folder that an agent wrote to, a function that stores the attempt, and the attempt."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "b.txt").write_text("old")
    (folder / "thesis.txt").write_text("mine")
    named = f"files:{folder}:write=true"
    settings = RunSettings(benchmarks=("arithmetic",), tools=(named,))
    agent = Agent(
        "a", Scripted([]), _writes, tools=catalog.tools(named), guard=catalog.guards(["undoable"]), approval=ALLOW
    )
    trace = asyncio.run(rollout(agent, Task("1", "go")))

    def stored(trace=trace):
        with store.create(tmp_path / "home", settings.to_json(), "test") as run:
            run.append(trace)
            return run

    return folder, stored, trace


def changed(trace, **details):
    """The trace with other values in the guard's records: `call_` of the states before, `after_` of those after."""

    def with_details(event):
        detail = event.data.get("detail") or {}
        kind = "call_" if "before" in detail else "after_"
        new = {key.removeprefix(kind): value for key, value in details.items() if key.startswith(kind)}
        kept = {key: value for key, value in (detail | new).items() if value is not ...}
        return Event(event.kind, event.at_s, event.data | {"detail": kept})

    events = tuple(with_details(each) if each.data.get("rule") == "undoable" else each for each in trace.events)
    return replace(trace, events=events)


EVIL = {"base64": "eA==", "mode": 0o6755}
FORGED = [
    {"call_before": EVIL}, {"call_before": None}, {"call_arguments": {"path": "conftest.py", "text": "x"}},
    {"call_before": None, "call_arguments": {"path": "thesis.txt"}, "after_after_hash": None},
    {"call_before": EVIL, "after_after_hash": "0" * 64}, {"after_seal": "0" * 64}, {"after_seal": ...},
    {"call_tool": "write_file"}, {"after_after_hash": ...},
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("details", FORGED)
@pytest.mark.parametrize("named", [False, True])
def test_a_state_that_somebody_wrote_into_a_run_of_ours_is_not_put_back(made, details, named):
    folder, stored, trace = made
    run = stored(changed(trace, **details))
    tools = (f"files:{folder}:write=true",) if named else None
    with pytest.raises(ConfigError, match=r"is not taken back: .*then add --trust"):
        main(Config((run.id, trace.id), tools=tools))
    assert (folder / "b.txt").read_text() == "new" and (folder / "thesis.txt").read_text() == "mine"
    assert not (folder / "conftest.py").exists()


@pytest.mark.slow
def test_what_the_guard_recorded_here_is_put_back_also_where_the_tools_are_named_again(made):
    folder, stored, trace = made
    assert all(len(each.seal) == 64 for each in points_of(trace))
    assert main(Config((stored().id, trace.id), tools=(f"files:{folder}:write=true",))) == 0
    assert (folder / "b.txt").read_text() == "old" and not (folder / "c.txt").exists()


@pytest.mark.slow
def test_what_was_recorded_elsewhere_of_another_task_or_over_another_folder_needs_trust(made, tmp_path):
    folder, stored, trace = made
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.txt").write_text("new")
    (other / "c.txt").write_text("new")
    for run, tools in (
        (stored(), (f"files:{other}:write=true",)), (stored(replace(trace, task_id="2")), None),
        (stored(replace(trace, agent=trace.agent | {"name": "b"})), None),
    ):  # fmt: skip
        with pytest.raises(
            ConfigError, match=r"step -1, write_file 'c\.txt', is not taken back: the state before it was"
        ):
            main(Config((run.id, trace.id), tools=tools))
    assert (other / "b.txt").read_text() == "new" and (other / "c.txt").exists()
    run = stored()
    (tmp_path / "home" / KEY).write_bytes(bytes(32))
    tools = (f"files:{folder}:write=true",)
    with pytest.raises(ConfigError, match="was not recorded by this version under this data home for these tools"):
        main(Config((run.id, trace.id), tools=tools))
    assert main(Config((run.id, trace.id), tools=tools, trust=True)) == 0 and (folder / "b.txt").read_text() == "old"


@pytest.mark.slow
def test_a_state_put_back_on_trust_sets_no_bit_that_gives_rights(made):
    folder, stored, trace = made
    run = stored(changed(trace, call_before=EVIL, after_after_hash=...))
    assert main(Config((run.id, trace.id), trust=True)) == 3, "the state read back is another one than the record's"
    (undo,) = {each.declares.undo for each in files(str(folder), write=True) if each.name == "overwrite_file"}
    undo.restore({"path": "b.txt"}, EVIL)
    assert (folder / "b.txt").stat().st_mode & 0o7777 == 0o755


@pytest.mark.slow
@pytest.mark.parametrize(
    "detail", [{"call": "0"}, {"call": []}, {"before": 1}, {"call": "0", "before": 1, "tool": 3, "arguments": {}},
               {"call": "0", "before": 1, "tool": "put", "arguments": []}],
)  # fmt: skip
def test_a_record_that_is_none_is_no_point(made, detail):
    _, _, trace = made
    event = Event("guard", 0.0, {"rule": "undoable", "at": 0, "detail": detail})
    odd = Event("guard", 0.0, {"rule": "undoable", "at": 0, "detail": {"call": "0", "after_hash": "x"}})
    assert points_of(replace(trace, events=(event, odd))) == []


def test_a_log_that_is_a_pipe_or_larger_than_any_of_ours_holds_nobody_up(made):
    _, stored, trace = made
    run = stored()
    log = run.path / f"rollback-{trace.id}.jsonl"
    os.mkfifo(log)
    for dry in (True, False):
        with pytest.raises(StoreError, match=r"cannot be read .*: remove it"):
            main(Config((run.id, trace.id), dry_run=dry))
    log.unlink()
    with log.open("wb") as file:
        file.truncate(MAX_LOG_BYTES + 1)
    with pytest.raises(StoreError, match="has more than 16 MiB, so it is no log of ours: remove it"):
        main(Config((run.id, trace.id), dry_run=True))


@pytest.mark.slow
def test_lines_of_a_log_that_somebody_wrote_say_nothing(made):
    folder, stored, trace = made
    run, (first, second) = stored(), points_of(trace)
    log = run.path / f"rollback-{trace.id}.jsonl"
    elsewhere = RollbackLog(run.path / "rollback-x.jsonl").line(first.effect, "began")
    forged = [json.dumps({"call": second.effect, "state": "done"}), elsewhere, "[" * 200_000, "[" * 4_000, "{}", "7"]
    log.write_text("\n".join(forged))
    (folder / "b.txt").write_text("mine since")
    assert main(Config((run.id, trace.id))) == 3 and not (folder / "c.txt").exists()
    assert (folder / "b.txt").read_text() == "mine since"
    assert RollbackLog(log).states == {second.effect: "done"}


def test_a_log_that_became_a_pipe_or_a_link_is_not_written_to(tmp_path, made):
    _, _, trace = made
    point = points_of(trace)[0]
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    logs = [RollbackLog(pipe), RollbackLog(link)]
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "victim")
    for log in logs:
        with pytest.raises(OSError):
            log.note(point, "began")
    assert not (tmp_path / "victim").exists()
