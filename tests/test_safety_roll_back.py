"""Points of a trace, what has no undo, the log of a rollback, and the tests that declarations give, to the letter."""

import asyncio
import json
import math
import re
from dataclasses import replace

import pytest

from firsthand import Agent, Task
from firsthand.declaration import Declaration, Undo
from firsthand.errors import ConfigError, StoreError, ToolError
from firsthand.loop.approval import Approval, Decision
from firsthand.message import ToolCall
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.safety.declared_tests import generated_tests, policy_of, rules_against, sample
from firsthand.safety.policy import CallPolicy, policy
from firsthand.safety.rules.policies import Ruling
from firsthand.safety.undo.roll_back import (
    RollbackLog,
    RollbackStep,
    UndoPoint,
    calls_without_undo,
    points_of,
    roll_back,
    state_hash,
)
from firsthand.tool import tool
from firsthand.trace import Call, Event, Trace


def trace_of(events=(), calls=()):
    made = tuple(Event(kind, 0.0, data) for kind, data in events)
    return Trace("1", "b", "t", {"name": "a"}, 0, 0, "", 0.0, calls=tuple(calls), events=made)


def captured(call, at, before, key="k"):
    detail = {"call": call, "tool": "put", "arguments": {"key": key}, "before": before}
    return "guard", {"rule": "undoable", "border": "call", "action": "pass", "at": at, "detail": detail}


def after(call, digest):
    return "guard", {"rule": "undoable", "detail": {"call": call, "after_hash": digest}}


def test_the_points_of_a_trace_pair_the_states_before_and_after_each_call():
    trace = trace_of([
        captured("0:1", 4, {"a": 1}), captured("0:2", None, None, "m"), after("0:2", "h2"), after("0:9", "h9"),
        ("guard", {"rule": "undoable"}), ("guard", {"rule": "policy", "detail": {"before": 1, "call": "x"}}),
        ("retry", {"rule": "undoable", "detail": {"before": 1, "call": "y"}}), captured("0:3", 0, 0, "n"),
    ])  # fmt: skip
    assert points_of(trace) == [
        UndoPoint("0:1", 4, "put", {"key": "k"}, {"a": 1}, None),
        UndoPoint("0:2", -1, "put", {"key": "m"}, None, "h2"),
        UndoPoint("0:3", 0, "put", {"key": "n"}, 0, None),
    ]
    assert (
        points_of(trace)[0].before_hash
        == state_hash({"a": 1})
        == ("015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862")
    )


@tool(effect="read")
def look() -> str:
    """Look."""
    return ""


@tool(effect="external")
def mail(to: str = "") -> str:
    """Send."""
    return ""


def test_calls_without_an_undo_are_those_that_were_made_from_a_step_on_and_may_have_changed_something():
    def call(id, name, at, kind="tool", failed=None, **arguments):
        return Call(id, kind, at, 0, 0, "", detail={"name": name, "arguments": arguments}, error=failed)

    calls = [
        call("1", "mail", None, to="a"), call("2", "mail", 0, to="b"), call("3", "put", 1), call("4", "look", 2),
        call("5", "gone", 2), call("6", "mail", 3, to="c"), call("7", "mail", 4, failed="no", to="d"),
        call("8", "mail", 5, "memory", to="e"),
        call("9", "mail", 6, to="f"),
    ]  # fmt: skip
    events = [
        captured("3", 1, 0),
        ("guard", {"border": "call", "action": "block", "effect": "6", "rule": "policy"}),
        ("approval", {"tool": "mail", "arguments": {"to": "d"}, "allowed": False}),
        ("approval", {"tool": "mail", "arguments": {"to": "b"}, "allowed": True}),
        ("guard", {"border": "result", "action": "block", "effect": "9", "rule": "policy"}),
        ("guard", {"border": "call", "action": "replace", "effect": "9", "rule": "policy"}),
        ("note", {"tool": "mail", "arguments": {"to": "f"}}),
    ]
    tools = {"look": look, "mail": mail}

    two = trace_of([captured("1", 0, 0), captured("5", 2, 0), *events], calls)
    assert [each.id for each in calls_without_undo(two, tools)] == ["2", "9"]

    def found(step=None):
        return [each.id for each in calls_without_undo(trace_of(events, calls), tools, step)]

    assert found() == found(-1) == ["1", "2", "5", "9"]
    assert found(0) == ["2", "5", "9"] and found(2) == ["5", "9"] and found(3) == found(6) == ["9"] and found(7) == []


def test_a_call_that_was_made_is_listed_though_an_equal_one_was_refused_before_or_after_it():
    def call(id, **detail):
        return Call(id, "tool", 0, 0, 0, "", detail={"name": "mail", "arguments": {"to": "a"}, **detail})

    no, made = {"is_error": True, "result": "no"}, {"is_error": False, "result": "sent"}
    broke = {"is_error": True, "ran": True}
    refused = {"tool": "mail", "arguments": {"to": "a"}, "effect": "irreversible", "allowed": False}
    calls = [call("1", **no), call("2", **made), call("3", **broke), call("4", **no), call("5", **no)]

    def found(*noted):
        events = [("approval", refused | each) for each in noted]
        return [each.id for each in calls_without_undo(trace_of(events, calls), {"mail": mail})]

    assert found() == ["1", "2", "3", "4", "5"] and found({"call": "4"}) == ["1", "2", "3", "5"]
    assert found({"call": "1"}, {"call": "4"}) == ["2", "3", "5"] and found({"call": "5", "allowed": True})[-1] == "5"
    assert found({}) == ["2", "3", "4", "5"] and found({}, {}) == ["2", "3", "5"] and found({}, {}, {}) == ["2", "3"]


def test_a_refusal_names_its_call_so_that_an_equal_one_is_listed():
    answers = iter([False, True])

    async def ask(tool, arguments):
        return Decision(next(answers), "me")

    async def twice(task, ctx):
        return "".join([(await ctx.call(ToolCall("c", "mail", {"to": "a"}))).content for _ in range(2)])

    acts = replace(mail, effect="irreversible")
    agent = Agent("a", Scripted([]), twice, tools=(acts,), approval=Approval({}, ask))
    trace = asyncio.run(rollout(agent, Task("t", "q")))
    assert [each.id for each in calls_without_undo(trace, {"mail": acts})] == [trace.calls[1].id]


def lines_of(log):
    """The lines of a log without their seals."""
    return re.sub(r', "seal": "[0-9a-f]{64}"', "", log.read_text())


class Cells:
    def __init__(self, **cells):
        self.cells, self.fails = cells, None

        def capture(arguments):
            if isinstance(self.fails, OSError):
                raise self.fails
            return self.cells.get(arguments["key"])

        def restore(arguments, before):
            if self.fails:
                raise self.fails
            self.cells[arguments["key"]] = before

        @tool(effect="write", declares=Declaration(undo=Undo(capture, restore)))
        def put(key: str) -> str:
            """Put."""
            return ""

        self.tools = {"put": put, "mail": mail}


def point(number, key, before, now):
    return UndoPoint(f"0:{number}", number, "put", {"key": key}, before, None if now is None else state_hash(now))


def test_a_rollback_goes_backwards_tells_each_step_and_stops_at_what_it_cannot_take_back(tmp_path):
    world, told = Cells(a=2, b=5, c=9), []
    points = [point(1, "a", 1, 2), point(2, "b", 4, 99), point(3, "c", 8, 9)]
    steps = roll_back(points, world.tools, RollbackLog(tmp_path / "log"), on_step=told.append)
    changed = RollbackStep(points[1], "kept", "the state was changed since by something else")
    assert steps == told == [RollbackStep(points[2], "restored"), changed] and world.cells == {"a": 2, "b": 5, "c": 8}
    assert lines_of(tmp_path / "log") == '{"call": "0:3", "state": "began"}\n{"call": "0:3", "state": "done"}\n'
    world.cells["b"] = 4
    again = roll_back(points, world.tools, RollbackLog(tmp_path / "log"))
    assert again == [
        RollbackStep(points[2], "as before", "it was taken back before"), RollbackStep(points[1], "as before"),
        RollbackStep(points[0], "restored"),
    ]  # fmt: skip
    assert world.cells == {"a": 1, "b": 4, "c": 8} and roll_back([], {}, RollbackLog(tmp_path / "log")) == []
    unknown = point(7, "c", 1, None)
    assert roll_back([unknown], world.tools, RollbackLog(tmp_path / "log2"))[0].outcome == "restored"


def test_a_restore_that_began_goes_on_from_any_state_and_failures_are_named(tmp_path):
    world, log = Cells(a=7), tmp_path / "log"
    began = RollbackLog(log).line("0:1", "began")
    log.write_text(began + '\nnot json\n[1]\n{"call": "0:2"}\n{"call": "0:')
    opened = RollbackLog(log)
    assert opened.states == {"0:1": "began"}
    (step,) = roll_back([point(1, "a", 1, 2)], world.tools, opened)
    assert step.outcome == "restored" and world.cells == {"a": 1}
    assert lines_of(log).splitlines()[4:] == [
        '{"call": "0:',
        '{"call": "0:1", "state": "began"}',
        '{"call": "0:1", "state": "done"}',
    ]
    assert opened.states == {"0:1": "done"} == RollbackLog(log).states
    world.cells["a"], world.fails = 2, ValueError("x" * 400)
    (step,) = roll_back([point(2, "a", 1, 2)], world.tools, RollbackLog(log))
    assert step.reason == f"undoing put failed: ValueError: {'x' * 400}"[:300] and step.outcome == "kept"
    for error, said in ((OSError(28, "No space left"), "No space left"), (OSError("odd"), "odd")):
        world.fails = error
        with pytest.raises(StoreError, match=f"^the rollback stopped at put: {said}$"):
            roll_back([point(3, "a", 1, 2)], world.tools, RollbackLog(log))
    for tools in ({}, {"put": mail}):
        with pytest.raises(
            ConfigError, match=r"^put is not among the tools, or declares no undo: give it with --tools$"
        ):
            roll_back([point(1, "a", 1, 2)], tools, RollbackLog(log))


def test_a_log_is_a_file_of_whole_lines_and_no_link(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    made = RollbackLog(real)
    real.write_bytes(b"\xff\xfe\n" + f"{made.line('0:é', 'done')}\n{made.line('0:4', 'began')}\n".encode())
    assert RollbackLog(real).states == {"0:é": "done", "0:4": "began"}
    link.symlink_to(real)
    with pytest.raises(StoreError) as refused:
        RollbackLog(link)
    assert str(refused.value) == f"{link} is a link: remove it"
    empty = tmp_path / "empty"
    empty.touch()
    log = RollbackLog(empty)
    log.note(point(1, "a", 1, 2), "began")
    log.note(point(2, "a", 1, 2), "done")
    assert lines_of(empty) == '{"call": "0:1", "state": "began"}\n{"call": "0:2", "state": "done"}\n'
    assert log.states == RollbackLog(empty).states == {"0:1": "began", "0:2": "done"}
    assert state_hash({"a": "\ud800"}) != state_hash({"a": "\ud801"})


def test_nothing_is_taken_back_unless_every_tool_can(tmp_path):
    @tool(effect="write", declares=Declaration())
    def final(key: str) -> str:
        """Declare no undo."""
        return ""

    for name, other in (("final", final), ("mail", mail), ("gone", None)):
        world = Cells(a=2)
        tools = world.tools | ({name: other} if other else {})
        first = UndoPoint("0:1", 1, name, {"key": "a"}, 1, None)
        with pytest.raises(
            ConfigError, match=f"^{name} is not among the tools, or declares no undo: give it with --tools$"
        ):
            roll_back([first, point(2, "a", 1, 2)], tools, RollbackLog(tmp_path / "log"))
        with pytest.raises(ConfigError, match=f"^{name} is not among"):
            roll_back([point(2, "a", 1, 2), first], tools, RollbackLog(tmp_path / "log"))
        assert world.cells == {"a": 2} and not (tmp_path / "log").exists()


def test_a_state_that_is_the_earlier_one_already_is_noted_as_done_and_a_wrong_restore_is_told(tmp_path):
    log = RollbackLog(tmp_path / "log")
    world, there = Cells(a=1), point(1, "a", 1, 2)
    assert roll_back([there], world.tools, log) == [RollbackStep(there, "as before")]
    assert lines_of(tmp_path / "log") == '{"call": "0:1", "state": "done"}\n'
    world.cells["a"] = 2
    done = RollbackStep(there, "as before", "it was taken back before")
    assert roll_back([there], world.tools, log) == [done] and world.cells == {"a": 2}

    @tool(effect="write", declares=Declaration(undo=Undo(lambda given: world.cells["a"], lambda given, before: None)))
    def put(key: str) -> str:
        """Restore nothing."""
        return ""

    wrong = point(5, "a", 1, 2)
    told = RollbackStep(wrong, "kept", "put restored another state than the one before the call")
    assert roll_back([wrong, there], {"put": put}, log) == [done, told]
    assert log.states == {"0:1": "done", "0:5": "began"}


def dry(given):
    return ""


FACTS = Declaration(("to",), paths=("to",), rate=2, grants=True, dry_run=dry)


@tool(effect="irreversible", declares=FACTS)
def give(to: str, size: int, note: str = "", force: bool = False) -> str:
    """Give."""
    return ""


@tool(effect="write")
def bare(x: list[str]) -> str:
    """Do."""
    return ""


def agent_of(*tools, guard=None):
    return Agent("clerk", Scripted([]), direct, tools=tools, guard=guard or policy())


CALL = "rules_against(AGENT, 'give', {'to': 'stranger-7431', 'size': 7431}"
OUTSIDE = "rules_against(AGENT, 'give', {'to': '../outside-7431', 'size': 7431}"
MADE = "ToolCall('1', 'give', {'to': 'stranger-7431', 'size': 7431})"


def test_the_generated_file_has_a_test_for_each_fact_that_a_rule_acts_on():
    head, _, body = generated_tests(agent_of(give, bare), "x/y.toml").partition("\n\n\n")
    assert head.startswith(
        '"""The guard of clerk, by what its tools declare. Written by: firsthand safety tests x/y.toml"""'
    )
    assert "AGENT = open_agent(read_agent_file(Path('x/y.toml')))" in head
    assert body == "\n\n\n".join([
        f"def test_give_asks_about_a_power_that_nobody_named():\n    assert {CALL})['authority_from_trusted'] == 'ask'",
        "def test_give_takes_a_power_from_the_user():\n"
        f"    assert 'authority_from_trusted' not in {CALL}, user='to stranger-7431 size 7431')",
        f"def test_give_keeps_to_inside():\n    assert {OUTSIDE})['path_inside'] == 'deny'",
        f"def test_give_is_limited_by_its_rate():\n    assert {CALL}, made=[{MADE}] * 2)['budget'] == 'deny'",
        f"def test_give_asks_before_it_gives_a_permission():\n    assert {CALL})['no_new_permissions'] == 'ask'",
        f"def test_give_is_not_repeated():\n    assert {CALL}, made=[{MADE}])['once_only'] == 'deny'",
        f"def test_give_cannot_be_undone():\n    assert {CALL})['dry_run_first'] == 'ask'",
        "def test_bare_declares_nothing_and_is_refused():\n"
        "    assert rules_against(AGENT, 'bare', {'x': ['stranger-7431']})['declared'] == 'deny'",
    ]) + "\n"  # fmt: skip
    planned = generated_tests(agent_of(give, bare, guard=policy(plan=("give",))), "a")
    assert (
        "test_bare_is_not_in_the_plan():\n    assert rules_against(AGENT, 'bare', {'x': ['stranger-7431']})"
        "['plan_lock'] == 'ask'" in planned
    )
    assert "gives_a_permission" not in planned and "test_give_is_not_in" not in planned
    modelled = generated_tests(agent_of(bare, guard=policy(plan=("model",))), "a")
    assert "plan" not in modelled.partition("\n\n\n")[2]
    only = generated_tests(agent_of(give, guard=policy(rules=("once_only",))), "a").partition("\n\n\n")[2]
    assert only.count("def ") == 1 and "test_give_is_not_repeated" in only


def test_a_tool_whose_sample_is_refused_has_a_comment_for_a_test():
    @tool(effect="read")
    def picky(day: str) -> str:
        """Pick."""
        return ""

    def validate(arguments):
        raise ToolError("no \n  " + "x" * 200)

    object.__setattr__(picky, "validate", validate)
    body = generated_tests(agent_of(picky), "a").partition("\n\n\n")[2]
    reason = f"ToolError: no {'x' * 200}"[:90]
    assert body == f"# picky has no test: a sample of its arguments was refused ({reason})\n"


def test_rules_against_a_call_are_those_that_ask_or_deny_within_the_guards_bounds():
    def seen(case):
        bounds = case.bounds
        said = (
            f"{bounds.plan and sorted(bounds.plan)} {bounds.calls} {bounds.writes} {bounds.spend} {bounds.recipients}"
        )
        return Ruling("ask", "seen", said) if said == case.words[0] else Ruling("rewrite", "seen")

    def against(words, made=(), **options):
        agent = agent_of(give, bare, guard=CallPolicy(("budget",), policies=(seen,), **options))
        return rules_against(agent, "give", {"to": "a", "size": "1"}, user=words, made=made)

    assert against("['a', 'give'] 1 2 3.0 4", plan=("give", "a"), calls=1, writes=2, spend=3.0, recipients=4) == {
        "seen": "ask"
    }
    assert against("None 1 2 3.0 4", plan=("model",), calls=1, writes=2, spend=3.0, recipients=4) == {"seen": "ask"}
    assert against("x") == {} and against("None None None None None") == {"seen": "ask"}
    assert against("x", [ToolCall("1", "give", {})] * 2) == {"budget": "deny"}
    assert against("x", [ToolCall("1", "bare", {})], writes=1) == {"budget": "deny"}
    with pytest.raises(
        ConfigError, match='the agent clerk has no policy guard: write guard = \\["policy"\\] in its file'
    ):
        policy_of(Agent("clerk", Scripted([]), direct))


def test_a_sample_is_the_least_that_fits_its_schema():
    whole = {"$defs": {"A": {"type": "boolean"}}}
    for schema, value in (
        ({"type": "integer"}, 7431), ({"type": "number", "minimum": 8000}, 8000), ({"type": "integer", "minimum": 0}, 7431),
        ({"type": "integer", "exclusiveMinimum": 8000}, 8001), ({"type": "integer", "maximum": 5}, 5),
        ({"type": "integer", "minimum": 3, "maximum": 9000}, 7431), ({"const": 0}, 0), ({"enum": ["b", "a"]}, "b"),
        ({"oneOf": [{"type": "null"}, {"const": 2}, {"const": 3}]}, 2), ({"allOf": [{"$ref": "#/$defs/A"}]}, True),
        ({"anyOf": [{"type": "null"}]}, "stranger-7431"), ({"$ref": "#/$defs/B"}, "stranger-7431"),
        ({"type": "array"}, ["stranger-7431"]),
        ({"type": "object"}, {}),
        ({"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}, "required": ["b", "c"]}, {"b": 2}),
        ({"type": "string"}, "stranger-7431"), ({}, "stranger-7431"), ({"enum": [], "type": "boolean"}, True),
    ):  # fmt: skip
        assert sample(schema, whole) == value, schema
    assert (
        math.isfinite(sample({"type": "number"}, {}))
        and json.dumps(sample({"type": "array", "items": {"const": None}}, {})) == "[null]"
    )
