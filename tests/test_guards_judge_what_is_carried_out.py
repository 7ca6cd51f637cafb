"""Rewrites come first: what guards judge, a person reads and a dry run rehearses is what the tool then gets."""

import asyncio
from dataclasses import dataclass, replace

from firsthand import Agent, Task
from firsthand.declaration import Declaration
from firsthand.guard import GuardVerdict
from firsthand.loop.approval import Approval, Decision, question
from firsthand.loop.borders import MAX_ROUNDS
from firsthand.loop.journal import MemoryJournal
from firsthand.message import ToolCall
from firsthand.patterns.staged import staged
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.safety.policy import CallPolicy
from firsthand.safety.redact import Redact
from firsthand.safety.rules.policies import Ruling
from firsthand.safety.rules.rewritten_call import MAX_REWRITES
from firsthand.tool import tool
from policy_tools import Asked

got = []


@tool(effect="read", declares=Declaration(paths=("path",)))
def read_note(path: str) -> str:
    """Read a note."""
    got.append(path)
    return "text"


@tool(effect="external", declares=Declaration(authority=("to",), spends=("fee",), rate=2))
def pay(to: str, note: str, fee: int = 0) -> str:
    """Pay somebody."""
    got.append((to, note, fee))
    return "paid"


@tool(
    effect="irreversible", declares=Declaration(dry_run=lambda given: f"{len(got)} done, would run {given['text']!r}")
)
def run(text: str) -> str:
    """Run a text."""
    got.append(text)
    return "run"


class Answers:
    """A person who answers as told, and keeps what was shown."""

    def __init__(self, *answers):
        self.answers, self.shown = list(answers), []

    async def __call__(self, tool, arguments):
        self.shown.append(question(tool, arguments))
        return Decision(self.answers.pop(0) if self.answers else True, "ann", "")


def attempt(calls, *guards, ask=None, rules=None, journal=None, pattern=None):
    """The results of these calls behind the guards."""
    results = []

    async def make(task, ctx):
        for number, (tool_, arguments) in enumerate(calls):
            results.append((await ctx.call(ToolCall(f"c{number}", tool_.name, arguments))).content)
        return ""

    async def in_stages(task, ctx):
        return await staged(task, ctx, pattern=make)

    agent = Agent("a", Scripted([]), in_stages if pattern == "staged" else make, tools=(read_note, pay, run),
                  guard=guards, approval=Approval(rules or {}, ask=ask or Answers()))  # fmt: skip
    trace = asyncio.run(rollout(agent, Task("1", "Pay bob the rent."), journal=journal))
    assert trace.error is None
    return results, trace


def test_a_path_with_unseen_characters_is_judged_as_the_tool_would_get_it():
    got.clear()
    results, _ = attempt(
        [
            (read_note, {"path": path})
            for path in (".\u200b./.\u200b./etc/passwd", "\u200b/etc/passwd", "n\u200bote.txt")
        ],
        CallPolicy(),
    )
    assert [("rule path_inside" in each) for each in results] == [True, True, False]
    assert got == ["note.txt"]


def test_a_call_is_the_same_as_an_earlier_one_whatever_unseen_characters_it_holds():
    got.clear()
    notes = ("rent", "re\u200bnt", "\u2060rent", "other")
    results, _ = attempt([(pay, {"to": "bob", "note": note}) for note in notes], CallPolicy())
    assert [each.startswith("Error") for each in results] == [False, True, True, False]
    assert got == [("bob", "rent", 0), ("bob", "other", 0)]


def test_the_question_and_the_dry_run_are_of_the_arguments_that_are_carried_out():
    got.clear()
    person = Answers()
    attempt([(run, {"text": "a\u202eb"})], CallPolicy(), ask=person)
    assert got == ["ab"] and len(person.shown) == 1
    assert "text: ab\n" in person.shown[0] and "would run 'ab'" in person.shown[0]


def test_rewrites_go_on_until_none_changes_anything_and_those_without_an_end_are_denied():
    def shorter(case):
        text = case.arguments["text"]
        return Ruling("rewrite", reason="shorter", arguments={"text": text[1:]}) if text.startswith("x") else None

    def longer(case):
        return Ruling("rewrite", reason="longer", arguments={"text": case.arguments["text"] + "x"})

    def seen(case):
        judged.append(case.arguments["text"])

    def refused(case):
        return Ruling("rewrite", reason="other", arguments={"name": "x"})

    def verdict_of(text, *policies):
        judged.clear()
        guard = CallPolicy((), policies=(*policies, seen))
        return asyncio.run(guard.call(Asked().view, run, {"text": text}))

    judged = []
    most = verdict_of("x" * MAX_REWRITES + "a", shorter)
    assert (most.action, most.value, judged[-1]) == ("replace", {"text": "a"}, "a")
    assert most.detail["rulings"] == [["shorter", "rewrite"]] and most.reason == "shorter"
    assert verdict_of("x" * (MAX_REWRITES + 1) + "a", shorter).action == "block"
    endless = verdict_of("a", longer)
    assert (endless.action, endless.rule, endless.reason) == ("block", "longer", "its rewrites go on after 8")
    assert verdict_of("a", refused).reason.startswith("the arguments as rewritten are refused: run was called with")


def test_a_guard_judges_again_what_a_later_guard_changed():
    got.clear()
    calls = [(read_note, {"path": "a/@@b"}), (pay, {"to": "bob", "note": "@@"}), (pay, {"to": "bob", "note": "rent"})]
    results, _ = attempt(calls, CallPolicy(), Redact("@@", ("call",), put="..-"))
    assert "rule path_inside" not in results[0] and got[0] == "a/..-b"
    swaps = Redact("@@", ("call",), put="../..")
    results, _ = attempt([(read_note, {"path": "@@/etc/passwd"})], CallPolicy(), swaps)
    assert "'../../etc/passwd' may lead out of the folder (rule path_inside)" in results[0]
    rent = Redact("@@", ("call",), put="rent")
    results, _ = attempt(calls[1:], CallPolicy(), rent)
    assert results[0] == "paid" and "rule once_only" in results[1]


def test_a_call_that_is_judged_twice_is_counted_and_paid_for_once():
    got.clear()
    calls = [(pay, {"to": "bob", "note": f"@@{number}", "fee": 5}) for number in range(3)]
    guards = (CallPolicy(calls=2, spend=10), Redact("@@", ("call",), put="rent"))
    results, _ = attempt(calls, *guards)
    assert results[:2] == ["paid", "paid"] and "rule budget" in results[2]
    assert got == [("bob", "rent0", 5), ("bob", "rent1", 5)]


def test_guards_that_undo_each_others_changes_end_in_a_refusal():
    @dataclass(frozen=True)
    class Puts:
        name: str
        text: str

        def call(self, view, tool, arguments):
            seen.append(self.name)
            return GuardVerdict.replaced(self.name, {"path": self.text})

    got.clear()
    seen = []
    results, _ = attempt([(read_note, {"path": "c"})], Puts("one", "a"), Puts("two", "b"))
    assert results == [
        "Error: read_note was not run: its guards change the arguments again and again, each the other's"
    ]
    assert len(seen) == 2 * MAX_ROUNDS and got == []
    seen.clear()
    results, _ = attempt([(read_note, {"path": "c"})], Puts("one", "a"), Puts("two", "a"))
    assert results == ["text"] and seen == ["one", "two"]


def test_a_resumed_attempt_asks_nobody_again_though_a_second_rehearsal_tells_another_thing():
    got.clear()
    journal, person = MemoryJournal(), Answers()
    calls = [(run, {"text": "a\u202eb"})]
    _, first = attempt(calls, CallPolicy(), ask=person, journal=journal)
    _, again = attempt(calls, CallPolicy(), ask=person, journal=journal)
    assert got == ["ab"] and len(person.shown) == 1
    asked = [[e.data["detail"]["asked"] for e in trace.events if e.kind == "guard"] for trace in (first, again)]
    assert asked[0] == asked[1] and "0 done" in asked[0][0]


def test_a_staged_call_is_staged_judged_and_made_with_the_same_arguments():
    got.clear()
    person = Answers()
    results, _ = attempt(
        [(pay, {"to": "e\u00advil", "note": "re\u200bnt"})], CallPolicy(), ask=person, pattern="staged"
    )
    assert got == [] and "characters that are not seen" in results[0]
    results, _ = attempt([(pay, {"to": "bob", "note": "re\u200bnt"})], CallPolicy(), ask=person,
                             rules={"external": "ask"}, pattern="staged")  # fmt: skip
    assert got == [("bob", "rent", 0)] and "note: rent\n" in person.shown[0]
    assert "note: rent\n" in person.shown[-1]


def test_each_guards_reason_is_shown_before_its_answer_counts():
    share = replace(pay, declares=Declaration(authority=("to",), grants=True))
    guards = (CallPolicy(("authority_from_trusted",)), CallPolicy(("no_new_permissions",)))

    async def make(task, ctx):
        return (await ctx.call(ToolCall("c", "pay", {"to": "eve", "note": ""}))).content

    def answers(*said):
        person = Answers(*said)
        approval = Approval({"external": "ask"}, ask=person)
        agent = Agent("a", Scripted([]), make, tools=(share,), guard=guards, approval=approval)
        return asyncio.run(rollout(agent, Task("1", "Pay."))).answer, person.shown

    answer, shown = answers(True, True)
    assert answer == "paid" and len(shown) == 2
    assert "neither in the user's words" in shown[0] and "a permission that outlives the task" in shown[1]
    answer, shown = answers(True, False)
    assert answer.startswith("Error") and len(shown) == 2
