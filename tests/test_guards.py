"""Guards stand at four borders; each verdict is an event, and the record holds what a model or a tool really got."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.config import split_list
from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.guard import BORDERS, AttemptView, GuardVerdict, check_guard
from firsthand.loop.budget import Limits
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Json, Message, Text, ToolCall, ToolResult, user
from firsthand.model import Sampling
from firsthand.patterns.parts import sub_patterns
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.safety.redact import Redact
from firsthand.task import Task
from firsthand.tool import Tool, tool
from firsthand.trace import Event, Trace

TASK = Task("1", "What is 3 * 4?", secret={"answer": "12"})


@tool(effect="external")
def echo(text: str) -> str:
    """Give the text back."""
    got.append(text)
    return f"key: {text}"


got: list[str] = []


def attempt(
    pattern: Any, model: Any = None, journal: MemoryJournal | None = None, task: Task = TASK, **agent: Any
) -> Trace:
    got.clear()
    made = Agent("a", model or Scripted(["fine"] * 9), pattern, **{"tools": (echo,), **agent})
    return asyncio.run(rollout(made, task, journal=journal, seed=3))


def verdicts(trace: Trace) -> list[tuple[str, str, str]]:
    return [(e.data["border"], e.data["rule"], e.data["action"]) for e in trace.events if e.kind == "guard"]


def guard_events(trace: Trace) -> list[Event]:
    return [event for event in trace.events if event.kind.startswith("guard")]


class Censor:
    """Changes what passes each border, sync and async."""

    async def prompt(self, view: AttemptView, messages: tuple[Message, ...]) -> GuardVerdict:
        shown = tuple(
            message.edited(Text(message.text.replace("secret", "***"))) if "secret" in message.text else message
            for message in messages
        )
        return GuardVerdict.passed("words") if shown == messages else GuardVerdict.replaced("words", shown, "a secret")

    def call(self, view: AttemptView, tool: Tool, arguments: Json) -> GuardVerdict:
        if "rm" in arguments["text"]:
            return GuardVerdict.blocked("no_rm", "that may not be done")
        return GuardVerdict.replaced("upper", {"text": arguments["text"].upper()})

    def result(self, view: AttemptView, tool: Tool, result: ToolResult) -> GuardVerdict:
        return GuardVerdict.replaced("keys", replace(result, content=result.content.replace("key", "***")))

    def answer(self, view: AttemptView, answer: str) -> GuardVerdict:
        return GuardVerdict.replaced("polite", answer + ", please")


async def all_borders(task: Task, ctx: Context) -> str:
    ctx = await ctx.say("fine").say("my secret").generate()
    await ctx.score(["a"])
    passed = await ctx.call(ToolCall("1", "echo", {"text": "hello"}))
    blocked = await ctx.call(ToolCall("2", "echo", {"text": "rm"}))
    assert blocked.is_error and not passed.is_error
    return f"{passed.content} / {blocked.content}"


def test_the_record_holds_what_model_and_tool_really_got_and_the_event_the_original() -> None:
    model = Scripted(["answer"])
    trace = attempt(all_borders, model, guard=Censor())
    assert trace.answer == "***: HELLO / Error: echo was not run: that may not be done (rule no_rm), please"
    assert got == ["HELLO"]
    generate, score, ran, refused = trace.calls
    assert trace.sent(generate) == model.asked[0].prompt == (user("fine"), user("my ***"))
    assert [message.text for message in trace.sent(score)] == ["fine", "my ***", "answer"]
    assert generate.detail["messages"] == [0, user("my ***").to_json()]
    assert ran.detail["arguments"] == {"text": "HELLO"} and ran.detail["result"] == "***: HELLO"
    assert refused.detail["is_error"] and refused.detail["arguments"] == {"text": "rm"}
    assert trace.nodes[1].message.text == "my secret"
    assert verdicts(trace) == [
        ("prompt", "words", "replace"), ("prompt", "words", "replace"), ("call", "upper", "replace"),
        ("result", "keys", "replace"), ("call", "no_rm", "block"), ("answer", "polite", "replace"),
    ]  # fmt: skip
    originals = [event.data["original"] for event in guard_events(trace)]
    assert originals[0] == [1]  # the node that holds what was said
    assert originals[2:5] == [{"text": "hello"}, "key: HELLO", {"text": "rm"}]
    assert guard_events(trace)[0].data["reason"] == "a secret" and trace.agent["guard"] == "Censor"
    assert Trace.from_json(json.loads(json.dumps(trace.to_json()))) == trace


def test_a_text_prompt_passes_the_border_too() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        return (await ctx.generate(prompt="Q: my secret\nA:")).text

    model = Scripted(["x"])
    trace = attempt(pattern, model, guard=Censor())
    assert model.asked[0].prompt == trace.calls[0].detail["prompt"] == trace.sent(trace.calls[0]) == "Q: my ***\nA:"


def test_a_guard_with_one_border_lets_the_others_pass_and_its_passes_are_counted() -> None:
    class Reads:
        def result(self, view: AttemptView, tool: Tool, result: ToolResult) -> GuardVerdict:
            return GuardVerdict.passed("reads")

    trace = attempt(all_borders_without_rules, guard=Reads())
    assert trace.answer == "key: hello"
    assert [(event.kind, event.data) for event in guard_events(trace)] == [("guard_passes", {"reads result": 1})]


async def all_borders_without_rules(task: Task, ctx: Context) -> str:
    await ctx.say("my secret").generate()
    return (await ctx.call(ToolCall("1", "echo", {"text": "hello"}))).content


class Wall:
    """Blocks one border."""

    def __init__(self, border: str):
        def block(view: AttemptView, *about: Any) -> GuardVerdict:
            return GuardVerdict.blocked("wall", "nothing leaves this house")

        setattr(self, border, block)


@pytest.mark.parametrize("border", ["prompt", "answer"])
def test_a_blocked_prompt_or_answer_ends_the_attempt_with_the_stop_reason_guard(border: str) -> None:
    model = Scripted(["said"])
    trace = attempt(all_borders_without_rules, model, guard=Wall(border))
    assert trace.stop_reason == "guard" and trace.answer is None and trace.error is None
    assert verdicts(trace) == [(border, "wall", "block")]
    assert len(model.asked) == (0 if border == "prompt" else 1)
    if border == "answer":
        assert guard_events(trace)[-1].data["original"] == "key: hello"


def test_a_blocked_result_is_an_error_the_model_reads() -> None:
    trace = attempt(all_borders_without_rules, guard=Wall("result"))
    assert trace.answer == "Error: the result of echo was withheld: nothing leaves this house (rule wall)"
    assert trace.calls[1].detail["is_error"] and got == ["hello"]


def test_errors_of_tools_pass_the_border_too() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        return (await ctx.call(ToolCall("1", "fails", {}))).content

    @tool(effect="read")
    def fails() -> str:
        """Fail."""
        raise ValueError("the key is 1234")

    class Keys:
        result = Censor.result

    trace = attempt(pattern, tools=(fails,), guard=Keys())
    assert trace.answer is not None and "the *** is 1234" in trace.answer


def test_guards_compose_in_order_and_the_first_block_ends_the_chain() -> None:
    @dataclass(frozen=True)
    class Adds:
        word: str
        stop: bool = False

        def answer(self, view: AttemptView, answer: str) -> GuardVerdict:
            if self.stop:
                return GuardVerdict.blocked("stop", "enough")
            return GuardVerdict.replaced("adds", answer + self.word)

    trace = attempt(all_borders_without_rules, guard=(Adds("1"), Adds("2")))
    assert trace.answer == "key: hello12" and trace.agent["guard"] == "Adds:word=1,Adds:word=2"
    assert [event.data["original"] for event in guard_events(trace)] == ["key: hello", "key: hello1"]
    trace = attempt(all_borders_without_rules, guard=(Adds("1"), Adds("2", stop=True), Adds("3")))
    assert trace.stop_reason == "guard" and verdicts(trace) == [
        ("answer", "adds", "replace"),
        ("answer", "stop", "block"),
    ]


def test_the_event_of_a_protected_task_holds_no_original() -> None:
    task = Task("1", "q", metadata={"protected": "its authors ask for it"})
    trace = attempt(all_borders_without_rules, task=task, guard=Censor())
    assert all("original" not in event.data for event in guard_events(trace)) and len(verdicts(trace)) == 4


def test_a_guard_sees_the_attempt_and_not_the_secret() -> None:
    seen: list[AttemptView] = []

    class Sees:
        def call(self, view: AttemptView, tool: Tool, arguments: Json) -> GuardVerdict:
            seen.append(view)
            arguments["text"] = "changed in place"
            return GuardVerdict.passed("sees")

    async def pattern(task: Task, ctx: Context) -> str:
        ctx = await ctx.say("q").generate()
        await ctx.call(ToolCall("1", "echo", {"text": "one"}))
        await ctx.call(ToolCall("2", "echo", {"text": "two"}))
        return ""

    attempt(pattern, guard=Sees())
    assert [view.task.secret for view in seen] == [{}, {}] and seen[0].task.prompt == TASK.prompt
    assert [[call.id for call in view.calls] for view in seen] == [[":0"], [":0", ":1"]]
    assert [message.text for message in seen[0].messages] == ["q", "fine"] and seen[0].node == 1
    assert [each.name for each in seen[0].tools] == ["echo"] and got == ["one", "two"]


def test_a_view_does_not_depend_on_which_branch_is_faster() -> None:
    def run(waits: list[float]) -> dict[str, list[str]]:
        seen: dict[str, list[str]] = {}

        class Sees:
            def call(self, view: AttemptView, tool: Tool, arguments: Json) -> GuardVerdict:
                seen[arguments["text"]] = [call.id for call in view.calls]
                return GuardVerdict.passed("sees")

        async def branch(ctx: Context, name: str, wait_s: float) -> None:
            for step in range(2):
                await asyncio.sleep(wait_s)
                await ctx.call(ToolCall("1", "echo", {"text": f"{name}{step}"}))

        async def pattern(task: Task, ctx: Context) -> str:
            await ctx.call(ToolCall("1", "echo", {"text": "first"}))
            await ctx.group([branch(ctx, name, wait_s) for name, wait_s in zip("xy", waits, strict=True)])
            calls = [ToolCall(name, "echo", {"text": name}) for name in ("p", "q")]
            await ctx.call_all(calls)
            return ""

        attempt(pattern, guard=Sees())
        return seen

    seen = run([0.0, 0.02])
    assert seen == run([0.02, 0.0])
    assert seen["x1"] == [":0", "0.0:0"] and seen["y1"] == [":0", "0.1:0"]
    assert seen["q"] == [":0", "0.0:0", "0.0:1", "0.1:0", "0.1:1"]


def test_a_prompt_blocked_in_a_branch_ends_the_whole_attempt() -> None:
    async def speaker(task: Task, ctx: Context) -> str:
        return (await ctx.say(task.prompt).generate()).text

    async def leader(task: Task, ctx: Context) -> str:
        outcomes = await ctx.group(sub_patterns.attempt(name, speaker, task, ctx) for name in ("x", "y"))
        return str(outcomes)

    trace = attempt(leader, guard=Wall("prompt"))
    assert trace.stop_reason == "guard" and trace.answer is None


class Asks:
    """Asks a model about each prompt, and something outside about each call."""

    def __init__(self, model: Scripted):
        self.model = model
        self.looked_up = 0

    async def prompt(self, view: AttemptView, messages: tuple[Message, ...]) -> GuardVerdict:
        said = await view.ask([user(f"Is this fine? {messages[-1].text}")], model=self.model)
        return GuardVerdict.passed("asks", said.message.text)

    async def call(self, view: AttemptView, tool: Tool, arguments: Json) -> GuardVerdict:
        async def look_up() -> Json:
            self.looked_up += 1
            return {"count": self.looked_up}

        found = await view.once({"tool": tool.name, **arguments}, look_up)
        return GuardVerdict.passed("looks", str(found["count"]))


def outline(trace: Trace) -> Any:
    return (
        trace.answer,
        [node.message for node in trace.nodes],
        [(call.id, call.kind, call.detail, call.usage) for call in trace.calls],
        [(event.kind, event.data) for event in trace.events],
    )


def test_what_a_guard_asks_is_journalled_charged_and_not_repeated_on_resume() -> None:
    journal, guard, model = MemoryJournal(), Asks(Scripted(["yes", "no"])), Scripted(["one", "two"])

    async def pattern(task: Task, ctx: Context) -> str:
        ctx = await (await ctx.say("q").generate()).say("r").generate()
        return (await ctx.call(ToolCall("1", "echo", {"text": "hi"}))).content

    first = attempt(pattern, model, journal, guard=guard)
    again = attempt(pattern, model, journal, guard=guard)
    assert outline(first) == outline(again) and all(call.replayed for call in again.calls)
    assert len(guard.model.asked) == 2 and guard.looked_up == 1 and got == []
    assert [call.kind for call in first.calls] == ["guard", "generate", "guard", "generate", "tool"]
    assert first.calls[0].detail == {"model": guard.model.name, "answer": "yes"} and first.calls[0].usage.total_tokens
    assert [event.data["reason"] for event in guard_events(first)] == ["yes", "no", "1"]
    limited = attempt(pattern, Scripted(["one", "two"]), guard=Asks(Scripted(["yes", "no"])), limits=Limits(calls=3))
    assert limited.stop_reason == "calls" and [call.kind for call in limited.calls] == ["guard", "generate", "guard"]


def test_replaced_and_blocked_values_are_the_same_on_resume() -> None:
    journal = MemoryJournal()
    first = attempt(all_borders, Scripted(["answer"]), journal, guard=Censor())
    again = attempt(all_borders, model := Scripted(["answer"]), journal, guard=Censor())
    assert outline(first) == outline(again) and model.asked == [] and got == []


def test_a_guard_that_fails_ends_the_attempt_with_an_error() -> None:
    class Broken:
        def call(self, view: AttemptView, tool: Tool, arguments: Json) -> GuardVerdict:
            raise KeyError("rule")

    class Mute:
        def call(self, view: AttemptView, tool: Tool, arguments: Json) -> Any:
            return True

    trace = attempt(all_borders_without_rules, guard=Broken())
    assert trace.error is not None and trace.error.kind == "KeyError" and got == []
    trace = attempt(all_borders_without_rules, guard=Mute())
    assert trace.error is not None and "Mute returned True at call: a GuardVerdict" in trace.error.message and got == []


def test_what_is_no_guard_is_refused_when_the_agent_is_made() -> None:
    class Old:
        async def prompt(self, messages: Any) -> Any:
            return messages

    for guard, message in ((object(), "watches no border"), (Old(), r"Old.prompt must take \(view, messages\)")):
        with pytest.raises(ConfigError, match=message):
            Agent("a", Scripted([]), all_borders, guard=guard)  # type: ignore[arg-type]


def test_a_class_is_no_guard_even_if_its_methods_need_no_instance() -> None:
    class Static:
        @staticmethod
        def answer(view: AttemptView, answer: str) -> GuardVerdict:
            return GuardVerdict.passed("static")

    check_guard(Static())
    with pytest.raises(ConfigError, match="watches no border"):
        check_guard(Static)


def test_what_a_guard_asks_is_short_and_greedy_unless_it_says_otherwise() -> None:
    asked: list[tuple[Any, Any, Any]] = []

    async def ask_model(prompt: Any, model: Any, sampling: Any) -> Any:
        asked.append((prompt, model, sampling))

    async def journalled(request: Json, action: Any) -> Json:
        return {"request": request, "given": await action()}

    async def given() -> Json:
        return {"a": 1}

    view = AttemptView(TASK, "a", None, (), (), (), ask_model, journalled)
    other, longer = Scripted([]), Sampling(max_tokens=7, temperature=0.5)
    asyncio.run(view.ask("safe?"))
    asyncio.run(view.ask("safe?", model=other, sampling=longer))
    assert asked == [("safe?", None, Sampling(max_tokens=64)), ("safe?", other, longer)]
    assert asked[0][2].temperature == 0.0
    assert asyncio.run(view.once({"q": 2}, given)) == {"request": {"q": 2}, "given": {"a": 1}}


# -- by name --


SECRETS: list[tuple[str, Any, Any]] = [
    ("prompt", (user("a KEY"), user("b")), (user("a *"), user("b"))),
    ("prompt", (Message("assistant", (ToolCall("KEY", "KEY", {"KEY": ["KEY", 1, {"x": "my KEY"}]}),)),),
     (Message("assistant", (ToolCall("KEY", "KEY", {"KEY": ["*", 1, {"x": "my *"}]}),)),)),
    ("prompt", (Message("assistant", (ToolCall("1", "f", {}, '{"x": "KEY'),)),),
     (Message("assistant", (ToolCall("1", "f", {}, '{"x": "*'),)),)),
    ("prompt", (Message("tool", (ToolResult("1", "KEY", "KEYKEY", True),)),),
     (Message("tool", (ToolResult("1", "KEY", "**", True),)),)),
    ("call", {"a": "KEY", "b": [["KEY"]], "c": {"KEY": None, "d": 1.5, "e": True}},
     {"a": "*", "b": [["*"]], "c": {"*": None, "d": 1.5, "e": True}}),
    ("call", {"KEY": {"KEY": "KEY", "d": 1}}, {"KEY": {"*": "*", "d": 1}}),
    ("result", ToolResult("1", "KEY", "no KEY", True), ToolResult("1", "KEY", "no *", True)),
    ("answer", "KEY and KEY", "* and *"),
]  # fmt: skip


@pytest.mark.parametrize("put", ["*", "\\1\\g<0>"], ids=["a star", "no reference to a group"])
@pytest.mark.parametrize(("border", "value", "redacted"), SECRETS)
def test_redact_finds_a_secret_wherever_text_is_and_leaves_names(
    border: str, value: Any, redacted: Any, put: str
) -> None:
    before = repr(value)
    for watched in BORDERS:
        guard, view = Redact("KEY", (watched,), put), AttemptView(TASK, "a", None, (), (), (), no_model, no_model)
        between = () if border in ("prompt", "answer") else (echo,)
        verdict = getattr(guard, border)(view, *between, value)
        expected = GuardVerdict.replaced("redact", redacted) if watched == border else GuardVerdict.passed("redact")
        assert repr(verdict) == repr(expected).replace("*", put.replace("\\", "\\\\"))
        assert getattr(Redact("MISSING", (watched,)), border)(view, *between, value) == GuardVerdict.passed("redact")
    assert repr(value) == before


async def no_model(*given: Any) -> Any:
    raise AssertionError("redact asks no model")


def test_redact_is_found_by_name_and_reaches_prompts_and_results() -> None:
    (guard,) = catalog.guards(("redact:pattern=sec\\w+",))
    model = Scripted(["fine"])

    async def pattern(task: Task, ctx: Context) -> str:
        await ctx.say("my secret").generate()
        return (await ctx.call(ToolCall("1", "echo", {"text": "a secret"}))).content

    trace = attempt(pattern, model, guard=guard)
    assert model.asked[0].prompt == (user("my [redacted]"),) and trace.answer == "key: a [redacted]"
    assert got == ["a secret"]  # calls are not among the borders by default
    assert trace.agent["guard"] == "redact:pattern=sec\\w+"


def test_the_borders_of_redact_may_be_named_with_commas_or_plus() -> None:
    for words in (("redact:pattern=hello:borders=call", "answer"), ("redact:pattern=hello:borders=call+answer",)):
        (guard,) = catalog.guards(words)
        trace = attempt(all_borders_without_rules, guard=guard)
        assert got == ["[redacted]"] and trace.agent["guard"] == "redact:pattern=hello:borders=call+answer"
        assert [event.data["rule"] for event in guard_events(trace) if event.kind == "guard"] == ["redact"]


def test_redact_keeps_the_tokens_of_messages_it_does_not_change() -> None:
    (guard,) = catalog.guards(("redact:pattern=secret",))
    kept = Message("assistant", (Text("a"), ToolCall("1", "echo", {"text": "b"})))
    changed = Message(
        "assistant", (Text("secret"), ToolCall("1", "echo", {"text": "my secret", "deep": [{"k": "secret"}]}))
    )

    async def pattern(task: Task, ctx: Context) -> str:
        return (await ctx.say(kept).say(changed).generate()).text

    model = Scripted(["x"])
    attempt(pattern, model, guard=guard)
    first, second = model.asked[0].prompt
    assert first is kept
    assert second.parts == (
        Text("[redacted]"), ToolCall("1", "echo", {"text": "my [redacted]", "deep": [{"k": "[redacted]"}]}),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("redact", "pattern"),
        ("redact:pattern=(", "not a regular expression"),
        ("redact:pattern=x:borders=promt", "prompt, call, result or answer"),
        ("redact:patern=x", "did you mean 'pattern'"),
        ("redakt:pattern=x", "did you mean 'redact'"),
    ],
)
def test_a_mistyped_guard_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(Exception, match=message) as raised:
        catalog.guards((text,))
    assert type(raised.value).__name__ in ("ConfigError", "UnknownName")


def test_a_guard_of_ones_own_is_named_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "quiet.py"
    file.write_text(
        "from firsthand.guard import GuardVerdict\n"
        "class quiet:\n"
        "    def __init__(self, *, word: str = 'hello'):\n"
        "        self.word = word\n"
        "    def answer(self, view, answer):\n"
        "        return GuardVerdict.replaced('quiet', answer.replace(self.word, ''))\n"
    )
    (guard,) = catalog.guards((f"{file}:word=key",))
    assert attempt(all_borders_without_rules, guard=guard).answer == ": hello"


def test_a_guard_that_writes_into_what_it_is_shown_changes_no_call() -> None:
    @tool(effect="external")
    def keep(rows: list[dict[str, int]]) -> str:
        """Keep rows."""
        kept.append(json.dumps(rows))
        return "kept"

    class Scribbler:
        def call(self, view: AttemptView, tool: Tool, arguments: Json) -> GuardVerdict:
            arguments["rows"][0]["a"] = 99
            arguments["rows"].append({})
            arguments["more"] = True
            return GuardVerdict.passed("looks")

    async def pattern(task: Task, ctx: Context) -> str:
        return (await ctx.call(ToolCall("1", "keep", {"rows": [{"a": 1}]}))).content

    kept: list[str] = []
    trace = attempt(pattern, tools=(keep,), guard=(Scribbler(), Scribbler()))
    assert (trace.answer, kept) == ("kept", ['[{"a": 1}]'])
    assert trace.calls[0].detail["arguments"] == {"rows": [{"a": 1}]}


@pytest.mark.parametrize(
    ("typed", "pattern", "more"),
    [
        (r"redact:pattern=\d{3,5},peek", r"\d{3,5}", 1),
        (r"redact:pattern=x{,2}y:borders=prompt,answer", r"x{,2}y", 0),
        (r"redact:pattern=[a,;]b{1,}", r"[a,;]b{1,}", 0),
        (r"redact:pattern=\[x,peek", r"\[x", 1),
        (r"redact:pattern=(?\:sk|pk)-\w+", r"(?:sk|pk)-\w+", 0),
        (r"redact:pattern=https?\://\S+", r"https?://\S+", 0),
    ],
)
def test_a_pattern_on_the_command_line_may_hold_commas_and_colons(typed: str, pattern: str, more: int) -> None:
    words = ["redact:pattern=[x]" if each == "peek" else each for each in split_list(typed)]
    first, *others = catalog.guards(words)
    assert first.pattern == pattern and [each.pattern for each in others] == ["[x]"] * more  # type: ignore[attr-defined]


def test_a_colon_in_a_pattern_without_its_sign_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"write a colon in a value as \\:"):
        catalog.guards([r"redact:pattern=https?://x"])
