"""The threat model of an agent, threat by threat: how it stands, why, and which tools are left open."""

import pytest

from firsthand import Agent, catalog
from firsthand.declaration import Declaration, Undo
from firsthand.loop.approval import Approval
from firsthand.model import ToolSpec
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.safety.policy import DEFAULT, CallPolicy
from firsthand.safety.rules.draft_declaration import drafted
from firsthand.safety.rules.threat_model import _Facts, _tells_unseen, threat_model
from firsthand.tool import tool

STOPPED, LIKELY, OPEN = "stopped by construction", "statistical", "not stopped"
UNKNOWN = "a call of a tool whose powers are not known"
UNPLANNED = "a text that was read has a tool called that the task does not need"
POWER = "a recipient, address, path or id that neither the user nor a trusted field named"
LEAK = "private data goes to somebody whom the user did not name"
ESCAPE = "a path that leads out of the folder"
PERMISSION = "a permission is given to somebody in the middle of a task"
FINAL = "something that cannot be undone, without a yes"
TWICE = "an effect that is had twice, after a crash or by branches that race"
MASS = "changes, mail or spending without end"
MISTAKE = "a wrong act, whoever caused it"
TRUSTED = "an attacker names a thing that a trusted field names too (another mail's id, another contact)"
MODEL = "a question that the model answers with yes although the user would not"

UNDO = Undo(lambda given: 0, lambda given, state: None)


def made(name, effect, declares, **options):
    def run(to: str, text: str = "") -> str:
        """Do it."""
        return ""

    run.__name__ = name
    return tool(effect=effect, declares=declares, **options)(run)


TOOLS = (
    made("bare", "external", None),
    made("look", "read", Declaration(trusts=("id",), readers="user")),
    made("search", "read", Declaration(("to",)), origin="web"),
    made("mail", "external", Declaration(("to",), recipients=("to",), rate=2)),
    made("pay", "external", Declaration(("to",), spends=("text",), undo=UNDO)),
    made("save", "write", Declaration(("to",), paths=("to",), undo=UNDO)),
    made("share", "external", Declaration(grants=True)),
    made("wipe", "irreversible", Declaration(("to",))),
    made("drop", "irreversible", Declaration(("to",), dry_run=lambda given: "")),
)
UNDOABLE = catalog.guards(["undoable"])


def threats(tools=TOOLS, pattern=direct, **options):
    found = threat_model(Agent("a", Scripted([]), pattern, tools=tools, **options))
    never = found[-3:]
    assert [each.standing for each in never] == [OPEN] * 3 and [each.open_tools for each in never] == [()] * 3
    assert [each.attack.split()[:4] for each in never] == [
        ["the", "user's", "own", "call,"], ["a", "text", "that", "changes"], ["the", "user", "is", "the"],
    ]  # fmt: skip
    return [(each.attack, each.standing, each.because, " ".join(each.open_tools)) for each in found[:-3]]


def threat(attack, **options):
    (found,) = [each[1:] for each in threats(**options) if each[0] == attack]
    return found


def named(*names):
    return tuple(each for each in TOOLS if each.name in names)


def test_an_agent_without_a_guard_stops_what_its_approval_asks_about():
    assert threats() == [
        (FINAL, STOPPED, 'asked about', ''),
        (TWICE, LIKELY, 'a resumed attempt repeats nothing; two equal calls both run', ''),
        (UNKNOWN, OPEN, 'no rule `declared`', 'bare'),
        (UNPLANNED, OPEN, 'no rule `plan_lock`', ''),
        (POWER, OPEN, 'no rule `authority_from_trusted`', 'bare search mail pay save share wipe drop'),
        (LEAK, OPEN, 'no rule `readers_cover_recipients`', ''),
        (ESCAPE, OPEN, 'no rule `path_inside`; a tool may check by itself', 'save'),
        (PERMISSION, OPEN, 'no rule `no_new_permissions`', 'share'),
        (MASS, OPEN, 'no rate is declared: policy:writes=N bounds all changes', 'bare pay save share wipe drop'),
        (MISTAKE, OPEN, 'nothing is recorded to take it back: --guard undoable', 'bare mail share wipe drop'),
        (TRUSTED, OPEN, 'such a value has a witness; the rule `untrusted_session` would ask', 'look'),
    ]  # fmt: skip


def test_the_default_rules_stop_most_and_name_the_tools_that_are_left_open():
    assert threats(guard=CallPolicy()) == [
        (UNKNOWN, STOPPED, 'refused, since it declares nothing: bare', ''),
        (POWER, STOPPED, 'each such argument needs a witness', 'share'),
        (ESCAPE, STOPPED, 'checked for save', ''),
        (PERMISSION, STOPPED, 'share asked about', ''),
        (FINAL, STOPPED, 'refused, since it declares no dry run: wipe; all others are asked about', ''),
        (TWICE, STOPPED, 'equal external calls run once; the journal holds what was done', ''),
        (LEAK, LIKELY, 'copies of four words or a code are found; a paraphrase or an encoding is not',
         'search pay save share wipe drop'),
        (UNPLANNED, OPEN, 'no plan is given: policy:plan=TOOL+TOOL or policy:plan=model, or plan_mode', ''),
        (MASS, OPEN, 'no rate is declared: policy:writes=N bounds all changes', 'pay save share wipe drop'),
        (MISTAKE, OPEN, 'nothing is recorded to take it back: --guard undoable', 'mail share wipe drop'),
        (TRUSTED, OPEN, 'such a value has a witness; the rule `untrusted_session` would ask', 'look'),
    ]  # fmt: skip


def test_a_guard_without_rules_and_an_approval_that_allows_stop_nothing():
    assert threats(guard=(CallPolicy(()), *UNDOABLE), approval=Approval({"irreversible": "allow"})) == [
        (TWICE, LIKELY, 'a resumed attempt repeats nothing; two equal calls both run', ''),
        (MISTAKE, LIKELY, 'what declares an undo can be taken back', 'bare mail share wipe drop'),
        (UNKNOWN, OPEN, 'no rule `declared`', 'bare'),
        (UNPLANNED, OPEN, 'no rule `plan_lock`', ''),
        (POWER, OPEN, 'no rule `authority_from_trusted`', 'bare search mail pay save share wipe drop'),
        (LEAK, OPEN, 'no rule `readers_cover_recipients`', ''),
        (ESCAPE, OPEN, 'no rule `path_inside`; a tool may check by itself', 'save'),
        (PERMISSION, OPEN, 'no rule `no_new_permissions`', 'share'),
        (FINAL, OPEN, 'the approval rules allow them', 'wipe drop'),
        (MASS, OPEN, 'no rate is declared: policy:writes=N bounds all changes', 'bare pay save share wipe drop'),
        (TRUSTED, OPEN, 'such a value has a witness; the rule `untrusted_session` would ask', 'look'),
    ]  # fmt: skip


EVERY = CallPolicy((*DEFAULT, "untrusted_session"), plan=("look", "mail"), approvers=("model",), calls=9)


def test_plan_mode_with_every_rule_leaves_wrong_acts_and_a_model_that_errs():
    assert threats(guard=(EVERY, *UNDOABLE), pattern=catalog.pattern("plan_mode")[0]) == [
        (UNKNOWN, STOPPED, 'refused, since it declares nothing: bare', ''),
        (UNPLANNED, STOPPED, 'plan_mode fixes the calls before anything is read', ''),
        (POWER, STOPPED, 'labels are carried exactly', 'share'),
        (LEAK, STOPPED, 'readers are carried with every value', 'search pay save share wipe drop'),
        (ESCAPE, STOPPED, 'checked for save', ''),
        (PERMISSION, STOPPED, 'share asked about', ''),
        (FINAL, STOPPED, 'refused, since it declares no dry run: wipe; all others are asked about', ''),
        (TWICE, STOPPED, 'equal external calls run once; the journal holds what was done', ''),
        (MASS, STOPPED, 'calls, writes or rates are bounded', ''),
        (TRUSTED, STOPPED, 'every change is asked about once something untrusted was read', ''),
        (MISTAKE, LIKELY, 'what declares an undo can be taken back', 'mail share wipe drop'),
        (MODEL, LIKELY, "it reads the user's words and the call alone, and may err", ''),
    ]  # fmt: skip


def test_an_agent_without_tools_can_do_no_harm_with_them():
    assert threats((), guard=CallPolicy(plan=("model",), approvers=("model", "person"))) == [
        (UNKNOWN, STOPPED, 'every tool declares its facts', ''),
        (POWER, STOPPED, 'each such argument needs a witness', ''),
        (LEAK, STOPPED, 'no tool gives private data', ''),
        (ESCAPE, STOPPED, 'no tool takes a path', ''),
        (PERMISSION, STOPPED, 'no tool gives one', ''),
        (FINAL, STOPPED, 'no tool that may be called is irreversible', ''),
        (TWICE, STOPPED, 'equal external calls run once; the journal holds what was done', ''),
        (MASS, STOPPED, 'calls, writes or rates are bounded', ''),
        (MISTAKE, STOPPED, 'no tool changes anything', ''),
        (TRUSTED, STOPPED, 'no field of a result is trusted', ''),
        (UNPLANNED, LIKELY, "the model says from the user's words which tools are needed, and may err", ''),
        (MODEL, LIKELY,
         "a person is asked only where it is not sure; it reads the user's words and the call alone, and may err", ''),
    ]  # fmt: skip


def test_each_threat_depends_on_its_own_rule_and_declaration():
    def lacking(rule):
        return CallPolicy(tuple(each for each in DEFAULT if each != rule))

    assert threat(UNPLANNED, guard=CallPolicy(plan=("look", "mail"))) == (STOPPED, "only look, mail may be called", "")
    assert threat(UNPLANNED, guard=CallPolicy(("declared",), plan=("look",)))[:2] == (OPEN, "no rule `plan_lock`")
    assert threat(LEAK, tools=named("mail"), guard=None) == (STOPPED, "no tool gives private data", "")
    assert threat(LEAK, tools=named("bare"), guard=lacking("declared"))[::2] == (LIKELY, "bare")
    assert threat(ESCAPE, guard=lacking("path_inside"))[::2] == (OPEN, "save")
    assert threat(ESCAPE, tools=named("mail")) == (STOPPED, "no tool takes a path", "")
    assert threat(PERMISSION, guard=lacking("no_new_permissions")) == (OPEN, "no rule `no_new_permissions`", "share")
    assert threat(PERMISSION, tools=named("mail"))[1] == "no tool gives one"
    free = Approval({"wipe": "allow"})
    assert threat(FINAL, approval=free) == (OPEN, "the approval rules allow them", "wipe")
    assert threat(FINAL, approval=free, guard=CallPolicy())[0] == STOPPED
    assert threat(FINAL, tools=named("drop"), guard=CallPolicy())[1] == "asked about, with a dry run"
    assert threat(FINAL, tools=named("wipe"), guard=CallPolicy())[1] == "refused, since it declares no dry run: wipe"
    assert threat(FINAL, tools=named("wipe"), guard=lacking("dry_run_first"))[1] == "asked about"
    bounded = "calls, writes or rates are bounded"
    assert threat(MASS, guard=CallPolicy(writes=0)) == threat(MASS, guard=CallPolicy(calls=0)) == (STOPPED, bounded, "")
    assert threat(MASS, guard=CallPolicy(("plan_lock",), calls=3))[0] == OPEN
    assert threat(MASS, tools=named("mail"), guard=CallPolicy())[0] == STOPPED
    assert threat(MASS, guard=CallPolicy(spend=0))[2] == "save share wipe drop"
    assert threat(MASS, guard=CallPolicy(recipients=0))[2] == "pay save share wipe drop"
    assert threat(MASS, tools=named("mail", "pay", "look"))[2] == "pay"
    assert threat(MISTAKE, tools=named("pay", "save", "look"), guard=UNDOABLE) == (
        STOPPED, "every act can be taken back: firsthand rollback", "",
    )  # fmt: skip
    assert threat(MISTAKE, tools=named("pay", "save"))[::2] == (OPEN, "")
    assert threat(MISTAKE, tools=named("mail", "bare"), guard=UNDOABLE) == (
        OPEN,
        "no tool declares an undo",
        "bare mail",
    )
    assert threat(TRUSTED, tools=named("mail"), guard=CallPolicy())[:2] == (STOPPED, "no field of a result is trusted")
    assert threat(TRUSTED, tools=named("mail"), guard=lacking("authority_from_trusted"))[0] == OPEN
    agent = Agent("a", Scripted([]), direct, tools=TOOLS)
    assert [each.open_tools for each in threat_model(agent, named("share")) if each.attack == PERMISSION] == [
        ("share",)
    ]


def test_the_policy_counts_wherever_it_stands_among_the_guards_and_given_tools_in_place_of_the_agents():
    late = threats(guard=(*UNDOABLE, CallPolicy()))
    assert (UNKNOWN, STOPPED, "refused, since it declares nothing: bare", "") in late
    assert (MISTAKE, LIKELY, "what declares an undo can be taken back", "mail share wipe drop") in late
    two = (made("one", "external", None), made("two", "read", None), *named("mail", "share"))
    assert threat(UNKNOWN, tools=two) == (OPEN, "no rule `declared`", "one two")
    assert threat(UNKNOWN, tools=two, guard=CallPolicy())[1] == "refused, since it declares nothing: one, two"
    agent = Agent("a", Scripted([]), direct, tools=TOOLS)
    none = {each.attack: each for each in threat_model(agent, ())}
    assert none[PERMISSION].because == "no tool gives one" and none[ESCAPE].because == "no tool takes a path"
    assert [each.open_tools for each in threat_model(agent, list(two)) if each.attack == UNKNOWN] == [("one", "two")]


def test_several_tools_are_named_in_their_order_and_undeclared_ones_among_them():
    two = (
        made("get", "read", None),
        made("keep", "write", Declaration(paths=("to",))),
        made("lend", "write", Declaration(grants=True, paths=("to",))),
        made("burn", "irreversible", None),
        made("melt", "irreversible", Declaration(grants=True)),
        made("read", "read", Declaration(readers="user")),
        made("boil", "irreversible", Declaration(dry_run=lambda given: "")),
    )
    open_to_all = CallPolicy(tuple(each for each in DEFAULT if each != "declared"))
    found = {each[0]: each[1:] for each in threats(two, guard=open_to_all)}
    assert found[ESCAPE] == (STOPPED, "checked for keep, lend", "")
    assert found[PERMISSION] == (STOPPED, "lend, melt asked about", "")
    assert found[POWER] == (STOPPED, "each such argument needs a witness", "keep lend burn melt boil")
    assert found[FINAL][1] == "refused, since it declares no dry run: burn, melt; all others are asked about"
    assert found[LEAK][::2] == (LIKELY, "keep lend burn melt boil") and found[UNKNOWN][2] == "get burn"
    bare = {each[0]: each[1:] for each in threats(two)}
    assert bare[ESCAPE][::2] == (OPEN, "keep lend") and bare[PERMISSION][::2] == (OPEN, "lend melt")
    assert (
        bare[POWER][::2] == (OPEN, "keep lend burn melt boil") and bare[LEAK][1] == "no rule `readers_cover_recipients`"
    )
    last = threat(LEAK, tools=two[-2:], guard=open_to_all)
    assert last[0] == LIKELY == threat(LEAK, tools=(two[-1], two[-2]), guard=open_to_all)[0]
    free = Approval({"irreversible": "allow"})
    assert threat(FINAL, tools=two[1:3], approval=free)[1] == "no tool that may be called is irreversible"
    assert threat(FINAL, tools=two, approval=free) == (OPEN, "the approval rules allow them", "burn melt boil")


def test_a_tool_tells_unseen_people_by_a_change_or_by_a_free_word_to_the_public():
    for effect, declares, options, tells in (
        ("read", None, {}, False),
        ("write", None, {}, True),
        ("external", Declaration(("to",), recipients=("to",)), {}, False),
        ("external", Declaration(("to", "text")), {}, True),
        ("write", Declaration(readers="user"), {}, True),
        ("read", Declaration(("to",)), {}, False),
        ("read", Declaration(("to",)), {"origin": "web"}, True),
        ("read", Declaration(("to", "text")), {"origin": "web"}, False),
        ("read", Declaration(("to",), readers="user"), {"origin": "web"}, False),
        ("read", Declaration(("to",)), {"origin": ""}, True),
    ):
        assert _tells_unseen(made("x", effect, declares, **options)) is tells, (effect, declares, options)


def test_a_tool_is_bounded_by_its_rate_or_by_a_bound_on_what_it_spends_or_tells():
    rated, paid = Declaration(rate=1), Declaration(("to",), spends=("text",))
    told = Declaration(("to",), recipients=("to",))
    for declares, guard, bounded in (
        (None, None, False), (None, CallPolicy(spend=1.0, recipients=1), False), (rated, None, True), (paid, None, False),
        (rated, CallPolicy(), True), (paid, CallPolicy(), False), (paid, CallPolicy(spend=0), True),
        (paid, CallPolicy(recipients=3), False), (told, CallPolicy(recipients=0), True), (told, CallPolicy(spend=3), False),
    ):  # fmt: skip
        found = _Facts(guard, (), False, Approval())._is_bounded(made("x", "external", declares))
        assert found is bounded, (declares, guard)


TRUSTS = (
    "id",
    "id_",
    "name",
    "filename",
    "email",
    "sender",
    "recipient",
    "recipients",
    "participants",
    "owner",
    "cc",
    "bcc",
)


@pytest.mark.parametrize(
    ("name", "arguments", "effect", "powers", "people", "grants"),
    [
        ("get", "path", "read", "", "", False),
        ("read_page", "url depth", "read", "url", "url", False),
        ("getter", "path", "external", "path", "", False),
        (
            "remove_user",
            "user user_name new_title titles e_mail",
            "write",
            "user user_name titles e_mail",
            "user e_mail",
            False,
        ),
        (
            "invite",
            "first_name name my_bcc to_do channel",
            "external",
            "name my_bcc to_do channel",
            "my_bcc channel",
            True,
        ),
        ("inviter", "email", "external", "email", "email", False),
        ("purge", "", "write", "", "", False),
        ("share_list", "day_of emails", "external", "emails", "emails", True),
    ],
)
def test_a_drafted_declaration_is_strict(name, arguments, effect, powers, people, grants):
    spec = ToolSpec(name, "", {"properties": {each: {} for each in arguments.split()}})
    trusts = TRUSTS if effect == "read" else ("id", "id_")
    expected = Declaration(tuple(powers.split()), trusts, tuple(people.split()), "user", grants=grants)
    assert drafted(spec) == (effect, expected)
    listed = expected.trusts if effect != "read" else (".", *TRUSTS)
    assert drafted(spec, lists_names=True)[1].trusts == listed
    assert drafted(ToolSpec("get_x", "", {})) == ("read", Declaration((), TRUSTS, (), "user"))
