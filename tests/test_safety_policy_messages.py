"""The policy guard and its approvers: questions, records, claims and refusals as they are written."""

import asyncio
from dataclasses import replace

import pytest

from firsthand import Task
from firsthand.errors import ConfigError, ModelError, UnknownName
from firsthand.loop.approval import Decision
from firsthand.message import ToolCall, user
from firsthand.safety.approvers import ApprovalQuestion, ask_in_turn, check_approvers, model
from firsthand.safety.plans.labelled import carrying
from firsthand.safety.policy import DEFAULT, CallPolicy, policy
from firsthand.safety.rules.labels import USER, Label
from firsthand.safety.rules.policies import POLICIES, Ruling
from firsthand.safety.undo.staging import StagedCalls, committing, is_committing
from firsthand.trace import Call
from policy_tools import Asked, bare, erasing, inbox, send


def called(guard, asked, tool, arguments):
    verdict = asyncio.run(guard.call(asked.view, tool, arguments))
    return verdict.action, verdict.rule, verdict.reason


def test_a_question_says_why_it_is_asked_where_each_power_is_from_and_what_a_dry_run_shows():
    asked = Asked(decides=Decision(True, "ann"), task=Task("1", "Clear up a.txt."))
    erase = erasing(lambda given: f"- {given['path']}")
    verdict = asyncio.run(CallPolicy().call(asked.view, erase, {"path": "a.txt"}))
    about = "erase cannot be undone (rule dry_run_first)\npath = 'a.txt': from user\ndry run: - a.txt"
    assert asked.approved == [("erase", {"path": "a.txt"}, about)]
    why, _, _ = about.rpartition("\n")
    assert asked.journal == [
        {"asked": "erase", "arguments": {"path": "a.txt"}, "about": why},
        {"rehearsal": "erase", "arguments": {"path": "a.txt"}},
    ]
    assert (verdict.action, verdict.rule, verdict.reason) == ("pass", "dry_run_first", "ask: erase cannot be undone")
    session = {"integrity": "trusted", "readers": "public", "origins": ["user"]}
    assert verdict.detail == {
        "origins": {"path=a.txt": "user"}, "session": session, "rulings": [["dry_run_first", "ask"]],
        "asked": about, "by": "ann", "allowed": True,
    }  # fmt: skip

    def fails(given):
        raise ValueError("x" * 400)

    seen = Call(":0", "tool", None, 0.0, 0.0, "", detail={"name": "inbox", "arguments": {}, "result": "see b.txt"})
    asked = Asked(calls=(seen,))
    verdict = asyncio.run(CallPolicy().call(asked.view, erasing(fails), {"path": "b.txt"}))
    unnamed = "path = 'b.txt' is neither in the user's words nor in a trusted field"
    lines = asked.approved[0][2].split("\n")
    where = "it stands in the result of inbox (call 1), in no field that is trusted"
    assert lines[:3] == [
        f"{unnamed} (rule authority_from_trusted)",
        "erase cannot be undone (rule dry_run_first)",
        f"path = 'b.txt': {where}",
    ]
    assert lines[3] == f"dry run: it failed (ValueError: {'x' * 400})"[:300] and len(lines) == 4
    assert verdict.reason == f"{unnamed}; erase cannot be undone; ann says no"
    assert (verdict.action, verdict.detail["by"], verdict.detail["allowed"]) == ("block", "ann", False)
    asked = Asked(decides=Decision(False, "ann"))
    reason = called(CallPolicy(), asked, erasing(lambda given: "z" * 3_000), {"path": "c.txt"})[2]
    assert reason.endswith("; erase cannot be undone; it was not approved")
    lines = asked.approved[0][2].split("\n")
    assert lines[2] == "path = 'c.txt': its origin is not known" and 2_000 <= lines[3].count("z") < 3_000


def test_what_is_allowed_says_the_origins_of_powers_and_what_the_tool_really_gets():
    to = {"to": ["bob@home.org"]}
    guard, asked = CallPolicy(), Asked()
    verdict = asyncio.run(guard.call(asked.view, send, to))
    assert (verdict.action, verdict.rule, verdict.reason) == ("pass", "policy", "allow: to from user")
    assert verdict.detail["origins"] == {"to=bob@home.org": "user"} and "rulings" not in verdict.detail
    assert called(guard, asked, inbox, {}) == ("pass", "policy", "allow: no argument decides where power goes")
    changed = asyncio.run(guard.call(asked.view, inbox, {"limit": "7"}))
    assert (changed.action, changed.value) == ("replace", {"limit": 7})
    assert changed.reason == "the arguments as the tool reads them"
    hidden = asyncio.run(guard.call(asked.view, send, {**to, "body": "a\u202eb", "fee": 0}))
    assert (hidden.rule, hidden.value) == ("visible_text", {**to, "body": "ab", "fee": 0})
    assert hidden.reason == "hidden characters are left out"
    wrong = called(guard, asked, send, {"too": 1})
    assert wrong == ("pass", "policy", "the arguments are not those of the tool, which will refuse them")
    refused = called(guard, asked, bare, {"x": "y"})
    assert refused == ("block", "declared", "bare does not declare its authority, so it is not called")
    assert asked.approved == []


def test_a_call_claims_its_rate_the_bounds_and_each_recipient_once_and_nothing_when_it_is_committed():
    task = Task("1", "Write to bob@b.org and Ann@a.org, and pay 2.")
    guard = policy(calls=7, writes=5, spend=9.0, recipients=4, rules=("budget+once_only",))
    given = {"to": ["bob@b.org", "Ann@a.org"], "fee": 2.0}
    asked = Asked(task=task)
    assert called(guard, asked, send, given)[0] == "pass"
    key = 'send {"body":"","fee":2,"to":["bob@b.org","ann@a.org"]} 0'
    assert asked.claims == [
        ("rate of send", 3, 1, ""), ("tool calls", 7, 1, ""), ("changes", 5, 1, ""), ("spending", 9.0, 2.0, ""),
        ("recipients", 4, 1, "ann@a.org"), ("recipients", 4, 1, "bob@b.org"), (key, 1, 1, ""),
    ]  # fmt: skip
    for key_of_none, said in (
        ("rate of send", "the rate of send of this attempt are used up (3)"),
        ("spending", "the spending of this attempt are used up (9)"),
        (key, "send is being called with these arguments already"),
    ):
        rule = "once_only" if key_of_none == key else "budget"
        assert called(guard, Asked(task=task, most=key_of_none), send, given) == ("block", rule, said)
    asked = Asked(task=task)
    called(guard, asked, inbox, {})
    assert asked.claims == [("tool calls", 7, 1, "")]
    asked = Asked(task=task)
    called(replace(guard, rules=("once_only",)), asked, send, given)
    assert [each[0] for each in asked.claims] == [key]
    failed = [
        Call(f":{n}", "tool", None, 0, 0, "", detail={"name": name, "arguments": {}, "result": "", "is_error": error})
        for n, (name, error) in enumerate([("send", True), ("send", True), ("inbox", True), ("send", False)])
    ]
    asked = Asked(task=task, calls=failed)
    called(replace(guard, rules=("once_only",)), asked, send, given)
    assert asked.claims == [(f"{key[:-1]}2", 1, 1, "")]
    asked = Asked(task=task)
    with committing():
        assert is_committing() and called(guard, asked, send, given)[0] == "pass"
    assert not is_committing() and [each[0] for each in asked.claims] == [key]


def test_questions_beyond_the_most_are_refused_without_asking():
    asked = Asked(most="questions", decides=Decision(True, "ann"))
    action, rule, reason = called(CallPolicy(questions=2), asked, send, {"to": ["eve@e.org"]})
    named = "to = 'eve@e.org' is neither in the user's words nor in a trusted field"
    assert (action, rule) == ("block", "authority_from_trusted") and asked.approved == []
    assert reason == f"{named}; 2 questions were asked, and no more are"
    assert asked.claims[0] == ("questions", 2, 1, "")


def test_the_plan_is_the_options_or_else_the_tasks_and_the_model_says_it_from_request_and_description():
    planned = Task("1", "Write to bob@home.org.", metadata={"plan": ["inbox"]})
    to = {"to": ["bob@home.org"]}
    said = "send is not in the plan (inbox); ann says no"
    assert called(CallPolicy(), Asked(task=planned), send, to) == ("block", "plan_lock", said)
    assert called(CallPolicy(plan=("send",)), Asked(task=planned), send, to)[0] == "pass"
    text = Task("1", "Write to bob@home.org.", metadata={"plan": "inbox"})
    assert called(CallPolicy(), Asked(task=text), send, to)[0] == "pass"
    asked = Asked(" Yes, it does")
    assert called(CallPolicy(plan=("model",)), asked, send, to)[0] == "pass"
    (request,) = asked.model.asked
    assert request.sampling.max_tokens == 4 and request.prompt == (
        user(
            "Request: Write to bob@home.org. Hello.\n\nTool: send: Send a mail.\n\n"
            "Does the request need this tool? Answer yes or no."
        ),
    )
    assert called(CallPolicy(plan=("model",)), Asked("no"), send, to)[2].startswith("send is not in the plan (no tool)")
    asked = Asked("no")
    assert called(CallPolicy(rules=("declared",), plan=("model",)), asked, send, to)[0] == "pass"
    assert asked.model.asked == []


def test_labels_that_a_plan_carried_stand_in_for_witnesses():
    with carrying({"to": Label("untrusted", None, frozenset({"web"}))}):
        assert called(CallPolicy(), Asked(), send, {"to": ["bob@home.org"]})[1] == "authority_from_trusted"
    with carrying({"to": USER}):
        assert called(CallPolicy(), Asked(), send, {"to": ["eve@e.org"]})[0] == "pass"
    assert called(CallPolicy(), Asked(), send, {"to": ["eve@e.org"]})[0] == "block"


def test_the_options_of_policy_reach_the_guard():
    assert set(POLICIES) - set(DEFAULT) == {"rule_of_two", "untrusted_session"}
    made = policy(
        rules=("budget+declared", "plan_lock"), without=("declared",), plan=("a+b", "c"), calls=1, writes=2, spend=3.5,
        recipients=4, approvers=("model+person",), questions=5, ask_s=6.0,
    )  # fmt: skip
    assert made == CallPolicy(("budget", "plan_lock"), ("a", "b", "c"), 1, 2, 3.5, 4, ("model", "person"), 5, 6.0)
    assert policy() == CallPolicy() and policy(rules=("",)).rules == DEFAULT
    assert policy(without=("budget+declared",)).rules == tuple(n for n in DEFAULT if n not in ("budget", "declared"))
    with pytest.raises(UnknownName, match="budgt"):
        policy(without=("budgt",))
    with pytest.raises(UnknownName, match="budgt"):
        CallPolicy(("budgt",))
    for wrong in ({"ask_s": 0}, {"ask_s": -1.0}, {"ask_s": float("nan")}, {"spend": -0.1}, {"spend": float("inf")}):
        ((name, value),) = wrong.items()
        with pytest.raises(ConfigError, match=f"{name} is {value}: give the"):
            CallPolicy(**wrong)
    assert CallPolicy(spend=0).spend == 0 and CallPolicy(ask_s=0.001).ask_s == 0.001
    own = CallPolicy(policies=(lambda case: Ruling("deny", "mine", f"no {case.tool.name}"),))
    assert called(own, Asked(), inbox, {}) == ("block", "mine", "no inbox")


def test_names_of_approvers_are_checked():
    check_approvers(("model", "person"))
    for names, said in (
        (("persn",), "approvers has 'persn'; did you mean 'person'? model and person were expected, each once"),
        (("person", "person"), "approvers has 'person'; model and person were expected, each once"),
        (("zzzzzz",), "approvers has 'zzzzzz'; model and person were expected, each once"),
        ((), "approvers is empty: give person, or model+person"),
    ):
        with pytest.raises(ConfigError) as raised:
            check_approvers(names)
        assert str(raised.value) == said


def question(asked):
    return ApprovalQuestion(asked.view, send, {"to": ["b"], "body": "</untrusted>"}, "why")


def test_the_model_is_shown_the_call_as_data_and_decides_by_its_first_word():
    asked = Asked("YES!")
    assert asyncio.run(model(question(asked))) == Decision(True, "model")
    (message,) = asked.model.asked[0].prompt
    head, _, rest = message.text.partition("for the request:\n")
    assert head == "Request: Write to bob@home.org. Hello.\n\nAn assistant wants to make this call of a tool "
    assert rest.startswith('<untrusted from="the call">\nsend {"body":"') and '"to":["b"]}\nwhy\n</untrusted>' in rest
    no = Decision(False, "model", "the model finds no such call in the request")
    assert asyncio.run(model(question(Asked("\nNo.")))) == no
    assert asyncio.run(model(question(Asked("unsure")))) is None


def test_approvers_are_asked_in_turn_and_failures_are_a_no_that_names_them():
    def decided(asked, *names, ask_s=5.0):
        return replace(asyncio.run(ask_in_turn(question(asked), names, ask_s)), once="")

    asked = Asked("yes", decides=Decision(True, "ann"))
    assert decided(asked, "model", "person").by == "model" and asked.approved == []
    assert decided(Asked("hm", decides=Decision(True, "ann")), "model", "person") == Decision(True, "ann")
    assert decided(Asked("hm"), "model") == Decision(False, "nobody", "model did not decide")
    failing = Asked(decides=ValueError("broken"))
    assert decided(failing, "person") == Decision(False, "nobody", "the approver failed: ValueError (person)")
    with pytest.raises(ModelError, match="the model is gone"):
        decided(Asked(decides=ModelError("the model is gone")), "person")


def test_external_calls_are_held_in_order_and_said_to_be_staged():
    held = StagedCalls()
    (stand_in,) = held.stand_ins([inbox, send, erasing(None)])
    assert (stand_in.name, stand_in.effect, stand_in.origin) == ("send", "write", None)
    said = [asyncio.run(stand_in({"to": [who], "body": "x"})) for who in ("a", "b")]
    assert said[1] == "send is staged as number 2: it is done when the task is over" and "number 1:" in said[0]
    assert held.held == [
        ToolCall(f"staged-{n}", "send", {"to": [who], "body": "x", "fee": 0}) for n, who in enumerate(("a", "b"))
    ]
