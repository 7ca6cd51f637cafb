"""Tests that are written from declarations pass, fail when a fact is taken away, and questions are counted from traces."""

import asyncio
import re
from dataclasses import replace

import pytest

from firsthand import Agent, Task
from firsthand.commands.safety import Config, main
from firsthand.declaration import Declaration
from firsthand.errors import ConfigError, UnknownName
from firsthand.loop.approval import Approval, Decision
from firsthand.message import ToolCall
from firsthand.model import ToolSpec
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.safety.approval_burden import ApprovalBurden, approval_burden
from firsthand.safety.declared_tests import generated_tests, rules_against, sample
from firsthand.safety.policy import policy
from firsthand.safety.rules.draft_declaration import drafted
from firsthand.tool import tool

CALLED = []


@tool(effect="external", declares=Declaration(("to",), (), ("to",), rate=2, grants=True))
def invite(to: list[str], size: int, when: str = "now") -> str:
    """Invite somebody."""
    CALLED.append(to)
    return "invited"


@tool(effect="irreversible", declares=Declaration(("path",), paths=("path",), dry_run=lambda given: "one file"))
def erase(path: str) -> str:
    """Erase a file."""
    CALLED.append(path)
    return "erased"


@tool(effect="read")
def bare(x: str) -> str:
    """Read."""
    return x


@tool(effect="external", declares=Declaration(spends=("cost",)))
def pay(cost: float) -> str:
    """Pay."""
    return "paid"


AGENT = Agent("a", Scripted([]), direct, tools=(invite, erase, bare), guard=policy(plan=("invite+erase",)))


def outcomes(source, agent):
    """Name of each generated test -> True if it passes for this agent."""
    code = re.sub(r"AGENT = .*\n", "", source).replace("from pathlib import Path\n", "")
    scope = {"AGENT": agent}
    exec(compile(code, "generated", "exec"), scope)  # what pytest would import
    found = {}
    for name, function in scope.items():
        if name.startswith("test_"):
            try:
                function()
                found[name] = True
            except (AssertionError, KeyError):
                found[name] = False
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return generated_tests(AGENT, tmp_path_factory.mktemp("agent") / "a.toml")


def test_generated_tests_pass_and_call_nothing(source):
    found = outcomes(source, AGENT)
    assert all(found.values()) and CALLED == []
    assert set(found) == {
        "test_invite_asks_about_a_power_that_nobody_named",
        "test_invite_takes_a_power_from_the_user",
        "test_invite_is_limited_by_its_rate",
        "test_invite_is_not_repeated",
        "test_erase_asks_about_a_power_that_nobody_named",
        "test_erase_takes_a_power_from_the_user",
        "test_erase_keeps_path_inside",
        "test_erase_is_not_repeated",
        "test_erase_cannot_be_undone",
        "test_bare_declares_nothing_and_is_refused",
        "test_bare_is_not_in_the_plan",
    }


@pytest.mark.parametrize(
    ("changed", "fails"),
    [
        ({"authority": (), "recipients": ()}, "test_invite_asks_about_a_power_that_nobody_named"),
        ({"rate": 9}, "test_invite_is_limited_by_its_rate"),
    ],
)
def test_a_fact_that_is_taken_away_fails_its_test(source, changed, fails):
    weaker = replace(invite, declares=replace(invite.declares, **changed))
    found = outcomes(source, replace(AGENT, tools=(weaker, erase, bare)))
    assert [name for name, passed in found.items() if not passed] == [fails]


def test_a_rule_that_is_taken_away_fails_its_tests(source):
    found = outcomes(source, replace(AGENT, guard=policy(plan=("invite+erase",), without=("path_inside",))))
    assert [name for name, passed in found.items() if not passed] == ["test_erase_keeps_path_inside"]


@pytest.mark.parametrize(
    ("name", "arguments", "effect", "authority", "recipients", "grants"),
    [
        ("send_mail", "to cc subject body", "external", ("to", "cc"), ("to", "cc"), False),
        ("share_file", "file_id email permission", "external", ("file_id", "email", "permission"), ("email",), True),
        ("delete_event", "event_id", "write", ("event_id",), (), False),
        ("send_money", "recipient amount date", "external", ("recipient",), ("recipient",), False),
        ("get_webpage", "url", "read", ("url",), ("url",), False),
        ("getaway", "place", "external", ("place",), (), False),
    ],
)
def test_a_draft_takes_every_argument_for_a_power_that_is_not_known_to_be_content(
    name, arguments, effect, authority, recipients, grants
):
    spec = ToolSpec(name, "", {"properties": {each: {} for each in arguments.split()}})
    found, declares = drafted(spec)
    assert (found, declares.authority, declares.recipients, declares.grants) == (effect, authority, recipients, grants)
    assert "." not in declares.trusts and "body" not in declares.trusts and declares.readers == "user"


def test_what_cannot_be_asked_is_named():
    with pytest.raises(ConfigError, match="has no policy guard"):
        generated_tests(replace(AGENT, guard=None), "a.toml")
    with pytest.raises(UnknownName, match="invit"):
        rules_against(AGENT, "invit", {})
    assert rules_against(AGENT, "invite", {"to": ["x"], "size": 1}, user="x", made=[ToolCall("1", "bare", {})]) == {}


def test_a_call_made_before_counts_as_what_its_own_tool_does():
    agent = replace(AGENT, guard=policy(writes=2, spend=9.0, recipients=2), tools=(invite, erase, bare, pay))

    def against(tool, arguments, *made):
        return rules_against(agent, tool, arguments, user="ann bob cid x", made=made)

    ask, read, erased = (
        {"to": ["ann"], "size": 1},
        ToolCall("1", "bare", {"x": "x"}),
        ToolCall("2", "erase", {"path": "x"}),
    )
    assert against("invite", ask, read, read) == against("invite", ask, read, erased) == {"no_new_permissions": "ask"}
    assert against("invite", ask, erased, read, erased) == {"budget": "deny", "no_new_permissions": "ask"}
    paid = ToolCall("3", "pay", {"cost": 5})
    assert against("pay", {"cost": 4}, paid, read) == {} and against("pay", {"cost": 4.5}, paid) == {"budget": "deny"}
    told = ToolCall("4", "invite", {"to": ["Ann", "bob"], "size": 1})
    assert against("invite", {"to": ["bob", "ann"], "size": 2}, told) == {"no_new_permissions": "ask"}
    assert against("invite", {"to": ["cid"], "size": 1}, told) == {"budget": "deny", "no_new_permissions": "ask"}
    assert against("bare", {"x": "x"}, erased, erased, told) == {"declared": "deny"}


def test_samples_fit_their_schemas():
    whole = {"$defs": {"Kind": {"enum": ["a", "b"]}}}
    assert sample({"$ref": "#/$defs/Kind"}, whole) == "a"
    assert sample({"anyOf": [{"type": "null"}, {"type": "integer", "maximum": 9}]}, whole) == 9
    assert sample({"type": "object", "properties": {"n": {"type": "boolean"}}, "required": ["n"]}, whole) == {"n": True}
    assert sample({"type": "array", "items": {"type": "number", "minimum": 9000}}, whole) == [9000]


def test_items_of_a_sample_are_looked_up_among_the_definitions_of_the_whole_schema():
    person = {"type": "object", "properties": {"n": {"type": "boolean"}, "m": {}}, "required": ["n"]}
    whole = {"$defs": {"P": person}}
    items = {"type": "array", "items": {"$ref": "#/$defs/P"}}
    assert sample(items, whole) == [{"n": True}]
    assert sample({"type": "array", "items": items}, whole) == [[{"n": True}]]
    stranger = sample({"type": "string"}, whole)
    assert isinstance(stranger, str) and sample({"type": "array"}, whole) == [stranger] == sample(items, {})


def test_the_command_writes_a_file_for_pytest(tmp_path, capsys):
    path = tmp_path / "clerk.toml"
    path.write_text('name = "clerk"\nmodel = "scripted:echo"\ntools = ["fetch"]\nguard = ["policy"]\n')
    assert main(Config("tests", path)) == 0
    written = capsys.readouterr().out
    assert f"Path({str(path)!r})" in written and "def test_fetch_asks_about_a_power" in written
    with pytest.raises(ConfigError, match="name the run: firsthand safety burden last"):
        main(Config("burden"))


class AlwaysYes:
    async def __call__(self, tool, arguments):
        return Decision(True, "ann")


def test_questions_are_counted_once_by_who_answered_and_by_rule():
    answers = iter([True, False, True])

    async def ann(tool, arguments):
        return Decision(next(answers), "ann")

    async def calls(task, ctx):
        for number, name in enumerate(["erase", "erase", "bare"]):
            await ctx.call(ToolCall(str(number), name, {"path": f"p{number}"} if name == "erase" else {"x": "y"}))
        return "done"

    agent = Agent("a", Scripted([]), calls, tools=(erase, bare), guard=policy(without=("declared",)),
                  approval=Approval({"bare": "ask"}, ann))  # fmt: skip
    asked = asyncio.run(rollout(agent, Task("1", "Erase p0 and p1.")))
    quiet = asyncio.run(
        rollout(replace(agent, guard=None, approval=Approval({"irreversible": "allow"})), Task("2", "go"))
    )
    assert approval_burden([asked, quiet]) == ApprovalBurden(
        attempts=2, asked_in=1, questions=3, allowed=2, by={"ann": 3}, rules={"dry_run_first": 2, "approval": 1}, most=3
    )
    both = replace(agent, guard=policy(without=("dry_run_first", "declared")), approval=Approval({}, AlwaysYes()))
    named = asyncio.run(rollout(both, Task("3", "Erase p1.")))
    found = approval_burden([named])
    assert found.questions == 2 and found.rules == {"authority_from_trusted": 1, "approval": 1}
    assert approval_burden([]) == ApprovalBurden(0, 0, 0, 0, {}, {}, 0)
