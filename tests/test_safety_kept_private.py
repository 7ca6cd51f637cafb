"""What only the user may read stays private in a memory: an item that copies it says so, and the guard `peer` blocks it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from firsthand import Agent, Task
from firsthand.declaration import Declaration
from firsthand.loop.attempt_memory import learn
from firsthand.loop.private_texts import copies, private_texts
from firsthand.memories.episodic import episodic
from firsthand.memories.memgpt import memgpt
from firsthand.memories.notes import notes
from firsthand.message import ToolCall, assistant, user
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.safety.peer import peer
from firsthand.tool import Tool, tool
from firsthand.trace import Call, Trace

PIN = "my pin is 4711-8822-9931 and the door code of the house is seven four two"


@tool(effect="read", origin="the inbox", declares=Declaration(readers="user"))
def inbox() -> str:
    """Mails."""
    return PIN


@tool(effect="read", declares=Declaration())
def weather() -> str:
    """The forecast."""
    return "It will rain in Turin today"


async def nothing(task: Task, ctx: Any) -> str:
    return "ok"


def attempt(
    pattern: Any, memory: Any, model: Any = None, *, tools: tuple[Tool, ...] = (), prompt: str = "q", **rest: Any
) -> Trace:
    agent = Agent("a", model or Scripted(["hello"] * 9), pattern, memory=memory, tools=tools)
    return asyncio.run(rollout(replace(agent, **rest), Task("1", prompt)))


def keeping(text: str, *before: str, appends: bool = True) -> Any:
    """A pattern that calls these tools and keeps a text: in a core block, or as an item."""

    async def pattern(task: Task, ctx: Any) -> str:
        for name in before:
            await ctx.call(ToolCall("1", name, {}))
        if appends:
            await ctx.call(ToolCall("2", "core_memory_append", {"name": "human", "content": text}))
        else:
            await ctx.remember(text)
        return "ok"

    return pattern


async def ask(task: Task, ctx: Any) -> str:
    return str((await ctx.say("hello").generate()).text)


def kept_readers(trace: Trace) -> list[Any]:
    written = [each.detail for each in trace.calls if each.kind == "memory" and each.detail["operation"] == "remember"]
    return [each["item"]["provenance"].get("readers") for each in written]


def test_a_private_result_that_an_earlier_attempt_kept_is_not_sent_to_a_peer() -> None:
    memory, model = memgpt(lifetime="agent"), Scripted(["hello"])
    first = attempt(keeping("pin is 4711-8822-9931", "inbox"), memory, tools=(inbox,), guard=peer)
    assert first.answer == "ok" and kept_readers(first) == ["user"]
    second = attempt(ask, memory, model, guard=peer)
    assert second.stop_reason == "guard" and model.asked == []
    assert attempt(ask, memory, Scripted(["hello"])).answer == "hello", (
        "without the guard, the user's own model reads it"
    )
    said = attempt(ask, memory, Scripted(["hello"]), guard=peer, prompt="Keep human: pin is 4711-8822-9931")
    assert said.answer == "hello", "the user's own words are the user's to send"
    third = attempt(keeping("Likes tea.", appends=True), memory)
    assert kept_readers(third) == ["user"], "a new version of the block copies what was private in the one before"


@pytest.mark.parametrize("text", ["Ann lives in Oslo", "It will rain in Turin today", "my pin is secret"])
def test_what_copies_no_private_result_is_kept_and_sent_as_before(text: str) -> None:
    memory, model = memgpt(lifetime="agent"), Scripted(["hello"])
    first = attempt(keeping(text, "weather", "inbox"), memory, tools=(inbox, weather), guard=peer)
    assert kept_readers(first) == [None]
    assert attempt(ask, memory, model, guard=peer).answer == "hello" and text in str(model.asked[0].prompt)


def test_an_item_is_private_by_what_was_read_before_it_and_not_said_by_the_user() -> None:
    def readers(*before: str, prompt: str = "q") -> list[Any]:
        return kept_readers(
            attempt(keeping(PIN, *before, appends=False), notes(), tools=(inbox, weather), prompt=prompt)
        )

    assert readers("inbox") == readers("weather", "inbox") == ["user"]
    assert readers() == readers("weather") == readers("inbox", prompt=PIN) == [None]

    async def keeps(task: Task, ctx: Any) -> str:
        return str(await keeping(PIN, "inbox", appends=False)(task, ctx))

    for said, marks in ((user(PIN), [None]), (assistant(PIN), ["user"]), (user("hello"), ["user"])):
        asked = Task("1", "q", conversation=(said, assistant("yes")))
        made = asyncio.run(rollout(Agent("a", Scripted([]), keeps, memory=notes(), tools=(inbox,)), asked))
        assert kept_readers(made) == marks, "what a model said in an earlier turn is not the user's words"

    async def before_it_was_read(task: Task, ctx: Any) -> str:
        await ctx.remember(PIN)
        await ctx.call(ToolCall("1", "inbox", {}))
        return "ok"

    assert kept_readers(attempt(before_it_was_read, notes(), tools=(inbox,))) == [None]


def test_the_mark_of_an_item_depends_on_no_branch_beside_its_own() -> None:
    async def pattern(task: Task, ctx: Any) -> str:
        read = asyncio.Event()

        async def first() -> None:
            await ctx.call(ToolCall("1", "inbox", {}))
            read.set()

        async def second() -> None:
            await read.wait()
            await ctx.remember(PIN)

        await ctx.group([first(), second()])
        await ctx.remember(PIN, again=True)
        return "ok"

    assert kept_readers(attempt(pattern, notes(), tools=(inbox,))) == [None, "user"]


def test_what_the_user_told_the_memory_is_not_private_when_it_is_found_and_kept_again() -> None:
    memory = episodic(tools=True)

    async def tell(task: Task, ctx: Any) -> str:
        await ctx.remember(PIN)
        return "ok"

    async def find(task: Task, ctx: Any) -> str:
        found = await ctx.call(ToolCall("1", "memory_search", {"query": "pin"}))
        assert PIN in found.content
        await ctx.remember(f"again: {PIN}")
        return "ok"

    attempt(tell, memory)
    assert kept_readers(attempt(find, memory)) == [None]


def test_an_episode_that_copies_a_private_result_is_private() -> None:
    async def pattern(task: Task, ctx: Any) -> str:
        await ctx.say(task.prompt).generate()
        return str((await ctx.call(ToolCall("1", task.prompt, {}))).content)

    def learnt(name: str) -> list[Any]:
        memory = episodic()
        trace = attempt(pattern, notes(), tools=(inbox, weather), prompt=name)
        asyncio.run(learn(memory, trace, memory))
        return [each.provenance.get("readers") for each in asyncio.run(memory.list())]

    assert learnt("inbox") == ["user"] and learnt("weather") == [None]


def test_private_texts_are_results_and_items_that_say_so() -> None:
    def made(kind: Any, **detail: Any) -> Call:
        return Call(":0", kind, None, 0.0, 0.0, "r", detail=detail)

    marked = '<untrusted from="mail">\nthe text\n</untrusted>'
    calls = [
        made("tool", name="a", result=marked, origin="mail", readers="user"), made("tool", name="b", result="open"),
        made("tool", name="c", result="Error: x", is_error=True, readers="user"), made("tool", name="d", readers="user"),
        made("memory", operation="recall", reply=[{"text": "x", "provenance": {"readers": "user"}}, {"text": "y"}]),
        made("memory", operation="recall"), made("memory", operation="remember", item={}), made("generate"),
    ]  # fmt: skip
    assert private_texts(calls) == ["the text", "x"]


def test_a_copy_is_a_run_of_four_words_a_code_or_a_short_text_whole() -> None:
    assert copies("say: One two  three FOUR", ["zero one two three four five"]) == "zero one two three four five"
    assert copies("one two three", ["zero one two three four five"]) is None
    assert (
        copies("it is 46382", ["the pin 46382 opens the door"])
        and copies("it is 4638", ["the pin 4638 opens it"]) is None
    )
    assert copies("so teal is fine here", ["teal is fine"]) == "teal is fine"
    assert copies("a teal b", ["teal"]) == "teal" and copies("a", ["", "b b"]) is None
    assert copies("one two three four", ["one two three four"], ["well, one two three four"]) is None
    assert copies("", [PIN]) is None


ACCOUNT = "我的账号是6222021234567890密码是天王盖地虎,请不要告诉任何人"


def test_a_copy_in_a_script_without_blanks_is_eight_characters_or_a_code_beside_them() -> None:
    assert copies("他说:天王盖地虎,请不要好", [ACCOUNT]) == ACCOUNT, (
        "eight characters in a row, whatever stands between"
    )
    assert copies("他说:天王盖地虎,请不好", [ACCOUNT]) is None, "seven are no copy"
    assert (
        copies("账号 6222021234567890", [ACCOUNT]) == ACCOUNT == copies("６２２２０２１２３４５６７８９０", [ACCOUNT])
    )
    assert copies("天王盖地虎请不要", [ACCOUNT], ["天王盖地虎请不要"]) is None
    assert copies("口座番号: 1234567890", ["口座番号は1234567890です"]) and copies(
        "パスワードはひらけ", ["私のパスワードはひらけゴマ"]
    )
    assert copies("รหัส 12345", ["รหัสคือ12345นะ"]), "a code beside Thai letters"
    letters = "กขคงจฉชซฌญฎฏฐฑฒณดต"
    assert copies(f"ฮ{letters[1:17]}ฮ", [letters]) and copies(f"ฮ{letters[1:16]}ฮ", [letters]) is None
    assert copies("ฉันกินข้าวกับแม่ ok", ["วันนี้ ฉันกินข้าวกับแม่ แล้ว x y"]), "rows of Thai letters between marks are words"


def test_a_date_or_an_hour_in_chinese_is_no_copy_by_itself() -> None:
    private = "会议在2026年12月02日下午3点举行"
    assert copies("我们2026年12月02日见", [private]) is None
    assert copies("用Python写", ["他用Python写的"]) is None, "three words' worth"


def test_a_line_between_words_parts_them_and_a_code_with_lines_is_one_as_before() -> None:
    assert copies("my bank password is open", ["My_bank_password_is_open_sesame"])
    assert copies("a_4711", ["key a_4711 opens the door"]) and copies("a_471", ["key b_471 opens"]) is None


def test_what_is_kept_of_a_private_result_in_chinese_is_private() -> None:
    @tool(effect="read", declares=Declaration(readers="user"))
    def diary() -> str:
        """Notes."""
        return ACCOUNT

    memory, model = memgpt(lifetime="agent"), Scripted(["hello"])
    first = attempt(keeping("密码是天王盖地虎,请", "diary"), memory, tools=(diary,), guard=peer)
    assert kept_readers(first) == ["user"]
    second = attempt(ask, memory, model, guard=peer)
    assert second.stop_reason == "guard" and model.asked == []
