"""Each fact of a threat model, from the tools, rules and approval that it looks at, as a whole Threat."""

from __future__ import annotations

from functools import partial
from typing import Any

from firsthand import Agent
from firsthand.declaration import Declaration, Undo
from firsthand.loop.approval import Approval, Decision
from firsthand.model import ToolSpec
from firsthand.providers.scripted import Scripted
from firsthand.safety.policy import CallPolicy
from firsthand.safety.rules.threat_model import Threat, _Facts, _tells_unseen, threat_model
from firsthand.safety.undoable import undoable
from firsthand.tool import Tool

STOPPED, GUESSED, OPEN = "stopped by construction", "statistical", "not stopped"
UNDO = Undo(lambda given: 0, lambda given, state: None)


async def nobody(tool: Tool, arguments: Any) -> Decision:
    return Decision(False, "nobody")


def made(name: str, effect: Any, declares: Declaration | None, *names: str, origin: str | None = None) -> Tool:
    spec = ToolSpec(name, "Do it.", {"properties": {each: {} for each in names or ("to", "text")}})
    return Tool(spec, effect, str, dict, origin=origin, declares=declares)


BARE = made("bare", "external", None)
LOOK = made("look", "read", Declaration(trusts=("id",), readers="user"))
SEARCH = made("search", "read", Declaration(("to",)), origin="web")
MAIL = made("mail", "external", Declaration(("to",), recipients=("to",)))
PUSH = made("push", "write", Declaration())


def facts(*tools: Tool, rules: str | None = None, plans: bool = False, **options: Any) -> _Facts:
    verdicts = options.pop("verdicts", {"irreversible": "allow"})
    guard = None if rules is None else CallPolicy(tuple(rules.split()), **options)
    return _Facts(guard, tools, plans, Approval(verdicts, nobody))


def told(threat: Threat) -> tuple[str, str, tuple[str, ...]]:
    return threat.standing, threat.because, threat.open_tools


def test_a_tool_that_declares_nothing_is_refused_by_its_rule_and_open_without() -> None:
    attack = "a call of a tool whose powers are not known"
    second = made("second", "read", None)
    assert facts(BARE, LOOK, second, rules="declared").undeclared() == Threat(
        attack, STOPPED, "refused, since it declares nothing: bare, second"
    )
    assert facts(LOOK, rules="declared").undeclared() == Threat(attack, STOPPED, "every tool declares its facts")
    for rules in (None, "budget"):
        assert facts(LOOK, BARE, second, rules=rules).undeclared() == Threat(
            attack, OPEN, "no rule `declared`", ("bare", "second")
        )
    assert facts(LOOK, BARE, rules="declared").tools == (LOOK,)
    assert facts(LOOK, BARE, rules="budget").tools == facts(LOOK, BARE).tools == (LOOK, BARE)


def test_an_unplanned_call_is_stopped_by_plan_mode_or_a_plan_and_guessed_by_the_model() -> None:
    attack = "a text that was read has a tool called that the task does not need"
    fixed = "plan_mode fixes the calls before anything is read"
    assert facts(plans=True).unplanned() == Threat(attack, STOPPED, fixed)
    assert facts().unplanned() == facts(rules="budget", plan=("a",)).unplanned() == Threat(
        attack, OPEN, "no rule `plan_lock`"
    )  # fmt: skip
    model = "the model says from the user's words which tools are needed, and may err"
    assert facts(rules="plan_lock", plan=("model",)).unplanned() == Threat(attack, GUESSED, model)
    assert facts(rules="plan_lock", plan=("b", "a")).unplanned() == Threat(attack, STOPPED, "only b, a may be called")
    tools = "only look, model, mail may be called"  # one of several tools may be named `model`
    assert facts(rules="plan_lock", plan=("look", "model", "mail")).unplanned() == Threat(attack, STOPPED, tools)
    assert facts(rules="plan_lock").unplanned() == Threat(
        attack, OPEN, "no plan is given: policy:plan=TOOL+TOOL or policy:plan=model, or plan_mode"
    )


def test_a_foreign_power_is_open_for_acting_tools_that_declare_no_power() -> None:
    attack = "a recipient, address, path or id that neither the user nor a trusted field named"
    tools = (BARE, LOOK, SEARCH, MAIL, PUSH)
    assert facts(*tools).foreign_power() == Threat(
        attack, OPEN, "no rule `authority_from_trusted`", ("bare", "search", "mail", "push")
    )
    rule = "authority_from_trusted"
    witness = "each such argument needs a witness"
    assert facts(*tools, rules=rule).foreign_power() == Threat(attack, STOPPED, witness, ("bare", "push"))
    assert facts(*tools, rules=f"declared {rule}", plans=True).foreign_power() == Threat(
        attack, STOPPED, "labels are carried exactly", ("push",)
    )


def test_a_call_tells_somebody_unseen_where_no_recipient_is_declared() -> None:
    told_by = {
        "external, undeclared": _tells_unseen(BARE),
        "read, undeclared": _tells_unseen(made("x", "read", None, origin="web")),
        "its recipients are declared": _tells_unseen(MAIL),
        "a change": _tells_unseen(PUSH),
        "private": _tells_unseen(made("x", "read", Declaration(("to",), readers="user"), origin="web")),
        "at home": _tells_unseen(made("x", "read", Declaration(("to",)))),
        "a question to the public": _tells_unseen(SEARCH),
        "no free argument": _tells_unseen(made("x", "read", Declaration(("to",)), "to", origin="web")),
    }
    assert [name for name, tells in told_by.items() if tells] == [
        "external, undeclared", "a change", "a question to the public",
    ]  # fmt: skip


def test_a_leak_needs_private_data_and_is_guessed_by_copies_unless_readers_are_carried() -> None:
    rule = "readers_cover_recipients"
    assert facts(SEARCH, MAIL, PUSH).leak() == Threat(
        "private data goes to somebody whom the user did not name", STOPPED, "no tool gives private data"
    )
    assert told(facts(LOOK, PUSH, SEARCH).leak()) == (OPEN, "no rule `readers_cover_recipients`", ())
    assert told(facts(PUSH, BARE, plans=True).leak()) == (OPEN, "no rule `readers_cover_recipients`", ())
    copies = "copies of four words or a code are found; a paraphrase or an encoding is not"
    assert told(facts(LOOK, MAIL, PUSH, SEARCH, rules=rule).leak()) == (GUESSED, copies, ("push", "search"))
    carried = "readers are carried with every value"
    assert told(facts(BARE, PUSH, rules=rule, plans=True).leak()) == (STOPPED, carried, ("bare", "push"))
    refused = facts(BARE, PUSH, rules=f"declared {rule}").leak()
    assert told(refused) == (STOPPED, "no tool gives private data", ())


def test_paths_and_permissions_are_stopped_by_their_rule_or_where_no_tool_has_them() -> None:
    save, load = made("save", "write", Declaration(paths=("to",))), made("load", "read", Declaration(paths=("to",)))
    assert facts(PUSH, BARE).escape() == Threat(
        "a path that leads out of the folder", STOPPED, "no tool takes a path"
    )  # fmt: skip
    assert told(facts(save, PUSH, load, rules="path_inside").escape()) == (STOPPED, "checked for save, load", ())
    assert told(facts(PUSH, rules="path_inside").escape()) == (STOPPED, "no tool takes a path", ())
    own = "no rule `path_inside`; a tool may check by itself"
    assert told(facts(save, BARE, load, rules="budget").escape()) == (OPEN, own, ("save", "load"))
    share, give = made("share", "external", Declaration(grants=True)), made("give", "write", Declaration(grants=True))
    assert facts(PUSH, BARE).permission() == Threat(
        "a permission is given to somebody in the middle of a task", STOPPED, "no tool gives one"
    )
    assert told(facts(PUSH, share, give).permission()) == (OPEN, "no rule `no_new_permissions`", ("share", "give"))
    asked = facts(share, BARE, give, rules="no_new_permissions").permission()
    assert told(asked) == (STOPPED, "share, give asked about", ())


def test_what_cannot_be_undone_is_open_only_where_approval_allows_it_and_no_dry_run_is_asked_for() -> None:
    wipe = made("wipe", "irreversible", Declaration(("to",)))
    drop = made("drop", "irreversible", Declaration(dry_run=lambda given: ""))
    none = "no tool that may be called is irreversible"
    assert facts(MAIL).irreversible() == Threat("something that cannot be undone, without a yes", STOPPED, none)
    assert told(facts(MAIL, rules="dry_run_first").irreversible()) == (STOPPED, none, ())
    assert told(facts(wipe, drop, MAIL).irreversible()) == (OPEN, "the approval rules allow them", ("wipe", "drop"))
    asks = {"irreversible": "allow", "wipe": "ask"}
    assert told(facts(wipe, drop, verdicts=asks).irreversible()) == (OPEN, "the approval rules allow them", ("drop",))
    assert told(facts(wipe, verdicts=asks).irreversible()) == (STOPPED, "asked about", ())
    rule = "dry_run_first"
    assert told(facts(drop, rules=rule).irreversible()) == (STOPPED, "asked about, with a dry run", ())
    refused = "refused, since it declares no dry run: wipe"
    assert told(facts(wipe, rules=rule).irreversible()) == (STOPPED, refused, ())
    both = facts(drop, wipe, rules=rule).irreversible()
    assert told(both) == (STOPPED, f"{refused}; all others are asked about", ())
    unknown = made("unknown", "irreversible", None)
    every = facts(unknown, wipe, rules=rule).irreversible()
    assert told(every) == (STOPPED, "refused, since it declares no dry run: unknown, wipe", ())


def test_a_repeat_is_stopped_by_once_only_and_rare_without() -> None:
    attack = "an effect that is had twice, after a crash or by branches that race"
    assert facts(rules="budget once_only").repeated() == Threat(
        attack, STOPPED, "equal external calls run once; the journal holds what was done"
    )
    twice = "a resumed attempt repeats nothing; two equal calls both run"
    assert facts(rules="budget").repeated() == facts().repeated() == Threat(attack, GUESSED, twice)


def test_a_tool_is_bounded_by_its_rate_or_by_a_limit_of_the_guard_on_what_it_spends_or_tells() -> None:
    rated, spends = Declaration(rate=1), Declaration(spends=("fee",))
    tells = Declaration(recipients=("to",))

    def bounded(declares: Declaration | None, **options: Any) -> bool:
        return facts(rules="budget", **options)._is_bounded(made("x", "write", declares))

    assert bounded(rated) and not bounded(None) and not bounded(Declaration()) and not bounded(None, spend=1.0)
    assert [bounded(spends, spend=0.0), bounded(spends), bounded(spends, recipients=1)] == [True, False, False]
    assert [bounded(tells, recipients=0), bounded(tells), bounded(tells, spend=1.0)] == [True, False, False]
    alone = [facts()._is_bounded(made("x", "write", each)) for each in (rated, spends, None)]
    assert alone == [True, False, False]


def test_changes_without_end_need_the_budget_and_a_bound_on_each_tool_or_on_all() -> None:
    attack = "changes, mail or spending without end"
    none = "no rate is declared: policy:writes=N bounds all changes"
    rated = made("rated", "write", Declaration(rate=2))
    assert facts(LOOK, PUSH, rated, MAIL, rules="budget").mass() == Threat(attack, OPEN, none, ("push", "mail"))
    bounded = Threat(attack, STOPPED, "calls, writes or rates are bounded")
    assert facts(LOOK, rated, rules="budget").mass() == bounded
    assert facts(PUSH, rules="budget", calls=0).mass() == facts(PUSH, rules="budget", writes=0).mass() == bounded
    assert told(facts(PUSH, rules="budget", spend=1.0).mass()) == (OPEN, none, ("push",))
    assert told(facts(PUSH, rules="declared", calls=1, writes=1).mass()) == (OPEN, none, ("push",))
    assert told(facts(rated).mass()) == (OPEN, none, ())


def test_a_model_that_approves_may_err_and_last_of_all_it_is_not_followed_by_a_person() -> None:
    attack = "a question that the model answers with yes although the user would not"
    assert facts().approved_by_model() == facts(rules="budget").approved_by_model() == ()
    alone = "it reads the user's words and the call alone, and may err"
    assert facts(rules="budget", approvers=("model",)).approved_by_model() == (Threat(attack, GUESSED, alone),)
    assert facts(rules="budget", approvers=("person", "model")).approved_by_model() == (Threat(attack, GUESSED, alone),)
    [first] = facts(rules="budget", approvers=("model", "person")).approved_by_model()
    assert first.because == f"a person is asked only where it is not sure; {alone}"


def test_a_wrong_act_is_taken_back_where_the_tool_declares_an_undo_and_the_guard_records() -> None:
    attack = "a wrong act, whoever caused it"
    save, keep = (made(name, "write", Declaration(undo=UNDO)) for name in ("save", "keep"))
    assert facts(LOOK).mistaken(True) == Threat(attack, STOPPED, "no tool changes anything")
    back = "every act can be taken back: firsthand rollback"
    assert told(facts(save, LOOK, keep).mistaken(True)) == (STOPPED, back, ())
    unrecorded = "nothing is recorded to take it back: --guard undoable"
    assert told(facts(save, keep).mistaken(False)) == (OPEN, unrecorded, ())
    assert told(facts(save, PUSH, BARE).mistaken(False)) == (OPEN, unrecorded, ("push", "bare"))
    some = "what declares an undo can be taken back"
    assert told(facts(save, PUSH, BARE).mistaken(True)) == (GUESSED, some, ("push", "bare"))
    assert told(facts(PUSH, LOOK).mistaken(True)) == (OPEN, "no tool declares an undo", ("push",))


def test_a_trusted_field_lets_an_attacker_choose_unless_the_session_is_asked_about() -> None:
    attack = "an attacker names a thing that a trusted field names too (another mail's id, another contact)"
    asked = "every change is asked about once something untrusted was read"
    assert facts(LOOK, rules="untrusted_session").trusted_value() == Threat(attack, STOPPED, asked)
    rule = "authority_from_trusted"
    none = "no field of a result is trusted"
    assert told(facts(MAIL, BARE, rules=rule).trusted_value()) == (STOPPED, none, ())
    witnessed = "such a value has a witness; the rule `untrusted_session` would ask"
    ids = made("ids", "write", Declaration(trusts=(".",)))
    assert told(facts(MAIL, LOOK, BARE, ids, rules=rule).trusted_value()) == (OPEN, witnessed, ("look", "ids"))
    assert told(facts(MAIL).trusted_value()) == (OPEN, witnessed, ())


EFFECTS = ("read", "write", "external", "irreversible")
EACH = (
    "undeclared", "unplanned", "foreign_power", "leak", "escape", "permission", "irreversible", "repeated", "mass",
    "trusted_value",
)  # fmt: skip


def test_what_a_tool_declares_counts_whatever_its_effect_is() -> None:
    def named(declares: Declaration | None, **options: Any) -> dict[str, tuple[str, ...]]:
        """The tools, one of each effect, that each threat leaves open."""
        given = facts(*(made(effect, effect, declares) for effect in EFFECTS), **options)
        found = {name: getattr(given, name)().open_tools for name in EACH}
        return found | {"mistaken": given.mistaken(True).open_tools}

    changes = EFFECTS[1:]
    none: tuple[str, ...] = ()
    bare = {
        "undeclared": none, "unplanned": none, "foreign_power": changes, "leak": none, "escape": none, "permission": none,
        "irreversible": ("irreversible",), "repeated": none, "mass": changes, "trusted_value": none, "mistaken": changes,
    }  # fmt: skip
    assert named(Declaration()) == bare
    assert named(None) == bare | {"undeclared": EFFECTS}
    assert named(Declaration(("to",))) == bare | {"foreign_power": EFFECTS}
    assert named(Declaration(grants=True)) == bare | {"permission": EFFECTS}
    assert named(Declaration(paths=("to",))) == bare | {"escape": EFFECTS}
    assert named(Declaration(trusts=("id",))) == bare | {"trusted_value": EFFECTS}
    assert named(Declaration(rate=1)) == bare | {"mass": none}
    assert named(Declaration(undo=UNDO)) == bare | {"mistaken": none}
    assert named(Declaration(readers="user"), rules="readers_cover_recipients") == bare | {
        "foreign_power": changes, "leak": changes,
    }  # fmt: skip
    asked = facts(*(made(effect, effect, Declaration(grants=True)) for effect in EFFECTS), rules="no_new_permissions")
    assert told(asked.permission()) == (STOPPED, "read, write, external, irreversible asked about", ())
    paths = facts(*(made(effect, effect, Declaration(paths=("to",))) for effect in EFFECTS), rules="path_inside")
    assert told(paths.escape()) == (STOPPED, "checked for read, write, external, irreversible", ())


def test_a_plan_fixes_calls_and_carries_labels_and_readers_and_changes_nothing_else() -> None:
    tools = (
        BARE, LOOK, SEARCH, MAIL, PUSH, made("share", "read", Declaration(grants=True, paths=("to",))),
        made("wipe", "irreversible", Declaration(("to",))), made("save", "write", Declaration(undo=UNDO, rate=1)),
    )  # fmt: skip
    every = "readers_cover_recipients authority_from_trusted"
    for rules in (None, "budget", "once_only no_new_permissions path_inside budget", "dry_run_first declared", every):
        planned, free = (facts(*tools, rules=rules, plans=plans) for plans in (True, False))
        changed = {name for name in EACH if getattr(planned, name)() != getattr(free, name)()}
        assert changed == {"unplanned", *(("foreign_power", "leak") if rules == every else ())}, rules
        assert planned.approved_by_model() == free.approved_by_model() == ()
        assert [planned.mistaken(undoes) for undoes in (True, False)] == [free.mistaken(u) for u in (True, False)]
    attack = "an effect that is had twice, after a crash or by branches that race"
    twice = "a resumed attempt repeats nothing; two equal calls both run"
    for given in (facts(plans=True), facts(*tools, plans=True, rules="budget plan_lock"), facts(*tools)):
        assert given.repeated() == Threat(attack, GUESSED, twice)


async def plan_mode(task: Any, ctx: Any) -> str:
    return ""


async def direct(task: Any, ctx: Any) -> str:
    return ""


async def best_of(task: Any, ctx: Any, *, pattern: Any = None, patterns: Any = ()) -> str:
    return ""


def test_the_model_of_an_agent_takes_its_guards_its_tools_and_its_pattern_and_sorts_the_stopped_first() -> None:
    guards = (undoable, CallPolicy(("declared", "plan_lock"), plan=("model",), approvers=("model",)))
    agent = Agent("a", Scripted([]), direct, tools=(PUSH,), guard=guards)
    found = threat_model(agent)
    assert [each.standing for each in found] == [STOPPED] * 5 + [GUESSED] * 3 + [OPEN] * 7
    assert [told(each) for each in found if each.attack == "a wrong act, whoever caused it"] == [
        (OPEN, "no tool declares an undo", ("push",)),
    ]  # fmt: skip
    save = made("save", "write", Declaration(undo=UNDO))
    given = threat_model(agent, (save, BARE))
    by_attack = {each.attack: told(each) for each in given}
    assert by_attack["a wrong act, whoever caused it"][1] == "every act can be taken back: firsthand rollback"
    assert by_attack["a call of a tool whose powers are not known"][1] == "refused, since it declares nothing: bare"
    settings = partial(plan_mode, rounds=2)
    for pattern in (
        plan_mode,
        settings,
        partial(best_of, pattern=settings),
        partial(best_of, patterns=[direct, plan_mode]),
    ):
        planned = threat_model(Agent("a", Scripted([]), pattern), ())
        assert planned[0].because == "plan_mode fixes the calls before anything is read", pattern
    unplanned = threat_model(Agent("a", Scripted([]), partial(best_of, pattern=direct)), ())
    assert "no rule `plan_lock`" in [each.because for each in unplanned]
    none = {each.attack: each.because for each in threat_model(agent, ())}
    assert len(none) == 15 and none["a wrong act, whoever caused it"] == "no tool changes anything"
