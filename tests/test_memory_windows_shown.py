"""What a window shows after it was shortened: the summary with its sources, all that is left, nothing new for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from firsthand import Task
from firsthand.errors import ConfigError
from firsthand.memories import hierarchical as hierarchical_module
from firsthand.memories import memgpt as memgpt_module
from firsthand.memories import working as working_module
from firsthand.memories.episodic import episodic
from firsthand.memories.hierarchical import hierarchical
from firsthand.memories.keeping.conversation_window import fitted_tail, shown_ids, shown_items
from firsthand.memories.keeping.core_blocks import core_tools
from firsthand.memories.memgpt import memgpt
from firsthand.memories.procedural import procedural
from firsthand.memories.semantic import extracted, semantic
from firsthand.memories.working import working
from firsthand.memory import MemoryItem
from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult, assistant, system, user
from held_memory import Weighed, held, items_of, look, noted, texts, words


def counted(start: int = 0) -> Any:
    """A model whose answers are s1, s2 and so on."""
    count = [start]

    def says(messages: Sequence[Message], sampling: Any, index: int) -> str:
        count[0] += 1
        return f"s{count[0]}"

    return says


def page(origin: str, text: str) -> Message:
    return Message("tool", (ToolResult("1", "f", text, origin=origin),))


@pytest.mark.parametrize(
    ("module", "memory"),
    [
        (working_module, working(window=140, summary=8)),
        (hierarchical_module, hierarchical(window=140, summary=8)),
        (memgpt_module, memgpt(window=256, summary=8, block_chars=16, keep=1, warn_percent=100)),
    ],
)
def test_a_summary_is_shown_with_its_sources_and_the_next_one_reads_it(module: Any, memory: Any) -> None:
    size = memory.window

    async def use(ctx: Any) -> Any:
        ctx = (await ctx.say("t").generate()).say(assistant("", ToolCall("1", "f", {})))
        once = await memory.fit(ctx.say(page("web", words(60, "p"))).say(words(size - 60, "x")), ())
        more = once.say(page("mail", words(20, "q"))).say(words(size - 60, "y"))
        twice = await memory.fit(more, ())
        return once, twice, [await each.tokens(()) for each in (once, twice)]

    (once, twice, sizes), trace, model = held(memory, use, says=counted())
    found = items_of(trace)
    for made in (once, twice):
        (shown,) = [message for message in made.messages if module.NOTE in message.text]
        listed = [MemoryItem(id, *found[id]) for id in shown_ids(shown)]
        assert shown == shown_items(listed, module.NOTE)
    last = [found[id] for message in twice.messages for id in shown_ids(message)]
    assert sizes[0] <= size and sizes[1] <= size
    assert list(dict.fromkeys(name for _, given in last for name in given["origin"])) == ["web", "mail"]
    assert "origin: web" in twice.messages[-2].text or any("origin: web" in text for text in texts(twice))
    said = [asked.prompt[0].text.split("\n\n")[1] for asked in model.asked[1:]]
    opening = "user: t\n" if module is memgpt_module else ""
    assert said[0].startswith(f"{opening}assistant: s1\nassistant: [calls f {{}}]\ntool: [result of f] p0 ")
    assert said[1].startswith("s2\n" if module is not hierarchical_module else "user: x0 ")


def test_a_message_that_was_said_twice_is_one_source_of_its_summary() -> None:
    for memory in (
        working(window=140, summary=8),
        hierarchical(window=140, summary=8),
        memgpt(window=256, summary=8, block_chars=16, keep=1, warn_percent=100),
    ):
        size = memory.window

        async def use(ctx: Any, memory: Any = memory, size: int = size) -> Any:
            ctx = (await ctx.say("t").generate()).say(words(30, "p")).say("other").say(words(30, "p"))
            return await memory.fit(ctx.say(words(size - 50, "x")), ())

        _, trace, _ = held(memory, use, says=counted())
        found = items_of(trace)
        (summary,) = [given for _, given in found.values() if given["store"] == "summary"]
        said = [found[id][0] for id in summary["of"]]
        assert len({*summary["of"]}) == len(said) and said[-2:] == [f"user: {words(30, 'p')}", "user: other"], size


def test_where_only_the_newest_message_is_too_long_it_is_cut_and_nothing_is_summarised_again() -> None:
    memory = working(window=100, summary=8)

    async def use(ctx: Any) -> Any:
        opened = await ctx.say("t").generate()
        once = await memory.fit(opened.say(words(40, "a")).say(words(60, "b")), ())
        more = once.restarted([*once.messages[:2], user(words(150, "c"))])
        twice = await memory.fit(more, ())
        first = await memory.fit(opened.restarted([user(words(150, "d"))]), ())
        return once, twice, first, [await each.tokens(()) for each in (twice, first)]

    (once, twice, first, sizes), trace, model = held(memory, use, says=counted())
    assert twice.messages[:2] == once.messages[:2] and len(twice.messages) == 3 and len(model.asked) == 2
    assert "characters cut]" in twice.messages[2].text and max(sizes) <= 100
    assert len(first.messages) == 1 and first.messages[0].text.startswith("d0 ")
    assert noted(trace, "compacted") == [
        {"messages": 2, "kept": 1, "window": 100}, {"messages": 0, "kept": 1, "window": 100},
        {"messages": 0, "kept": 1, "window": 100},
    ]  # fmt: skip
    whole = [text for text, given in items_of(trace).values() if given["store"] == "recall"]
    assert whole == [
        f"assistant: {'s1'}",
        f"user: {words(40, 'a')}",
        f"user: {words(150, 'c')}",
        f"user: {words(150, 'd')}",
    ]


def test_of_summaries_that_take_too_much_the_two_oldest_become_one_and_the_others_stay() -> None:
    memory = hierarchical(window=134, summary=16, fanout=8)

    async def use(ctx: Any) -> Any:
        ctx = await ctx.say("t").generate()
        shown = []
        for n in range(5):
            ctx = await memory.fit(ctx.say(words(134, f"d{n}_")), ())
            shown.append([id for message in ctx.messages for id in shown_ids(message)])
        return shown

    def says(messages: Sequence[Message], sampling: Any, index: int) -> str:
        return words(16, f"s{index}x{len(messages[-1].text)}_")

    shown, trace, _ = held(memory, use, says=says)
    found = items_of(trace)
    assert [len(ids) for ids in shown] == [1, 2, 3, 3, 3]
    assert shown[1][0] == shown[0][0] and shown[2][:2] == shown[1]
    for before, after in pairwise(shown[2:]):
        assert found[after[0]][1]["of"] == before[:2] and after[1] == before[2] and after[2] not in before
        assert found[after[0]][1]["level"] == found[before[0]][1]["level"] + 1
    compacted = noted(trace, "compacted")
    assert [each["summaries"] for each in compacted] == [1, 2, 3, 3, 3] and {each["kept"] for each in compacted} == {1}
    with pytest.raises(
        ConfigError, match="window is 127, summary 8, fanout 4 and chunk 1000: give a window of 128 tokens"
    ):
        hierarchical(window=127, summary=8)


def test_of_two_levels_that_are_full_the_lower_is_merged_first() -> None:
    memory = hierarchical(window=200, summary=8, fanout=2)

    async def use(ctx: Any) -> Any:
        made = [
            MemoryItem(await ctx.remember(name, level=level), name, {"level": level})
            for name, level in (("a", 2), ("b", 2), ("c", 1), ("d", 1), ("e", 5))
        ]
        return made, await memory._within(ctx, made), await memory._within(ctx, [])

    (made, merged, none), _, model = held(memory, use, says=counted())
    said = [asked.prompt[0].text.split("\n\n")[1] for asked in model.asked]
    assert said == ["c\nd", "a\nb"] and none == []
    assert [(item.text, item.provenance["level"]) for item in merged] == [("s2", 3), ("s1", 2), ("e", 5)]
    assert [merged[0].provenance["of"], merged[1].provenance["of"]] == [
        [one.id for one in made[:2]],
        [one.id for one in made[2:4]],
    ]


def test_a_queue_of_one_long_message_is_cut_to_what_the_blocks_and_the_summary_leave() -> None:
    memory = memgpt(window=256, summary=8, block_chars=16, keep=2, warn_percent=100)

    async def use(ctx: Any) -> Any:
        opened = ctx.say("The question?")
        alone = await memory.fit(ctx.say(words(300, "a")), ())
        late = await memory.fit(opened.say(assistant(words(100, "b"))).say(assistant(words(300, "c"))), ())
        again = await memory.fit(late.say(assistant(words(200, "d"))), ())
        made = (alone, late, again)
        return made, [await each.tokens(()) for each in made]

    (made, sizes), trace, _ = held(memory, use, says=counted())
    alone, late, again = made
    assert all(200 < size <= 256 for size in sizes)
    assert [message.text.split()[0] for message in alone.messages] == ["From", "a0"], "nothing is gone, so no summary"
    assert [message.text.split()[0] for message in late.messages] == ["From", "From", "The", "c0"]
    assert [message.text.split()[0] for message in again.messages] == ["From", "From", "The", "d0"]
    assert noted(trace, "evicted") == [
        {"messages": 0, "kept": 1, "window": 256}, {"messages": 2, "kept": 2, "window": 256},
        {"messages": 2, "kept": 2, "window": 256},
    ]  # fmt: skip
    found = items_of(trace)
    (first,), (second,) = shown_ids(late.messages[1]), shown_ids(again.messages[1])
    assert [found[id][0].split()[1] for id in found[first][1]["of"]] == ["The", "b0"] and found[second][1]["of"][
        0
    ] == first
    assert late.messages[1] == shown_items([MemoryItem(first, *found[first])], memgpt_module.NOTE)


def test_one_summary_is_left_as_it_is_though_the_tools_beside_it_take_more_than_two_thirds() -> None:
    memory = hierarchical(window=128, summary=8)
    tools = [look] * 9

    async def use(ctx: Any) -> Any:
        opened = await ctx.say("t").generate()
        made = await memory.fit(opened.say(words(60, "a")).say(words(10, "b")), tools)
        return made, await made.tokens(tools)

    (made, size), trace, model = held(memory, use, says=counted(), kind=Weighed)
    assert [message.text.split()[0] for message in made.messages] == ["t", "From", "b0"] and 85 < size <= 128
    assert len(model.asked) == 2 and noted(trace, "compacted") == [
        {"messages": 2, "kept": 1, "summaries": 1, "window": 128},
    ]  # fmt: skip


def test_a_message_of_several_parts_is_summarised_as_one_text() -> None:
    memory = hierarchical(window=6_000, summary=8)
    long, later = words(2_000, "part"), words(4_200, "z")

    async def use(ctx: Any) -> Any:
        return await memory.fit((await ctx.say("t").generate()).say(long).say(later), ())

    made, trace, model = held(memory, use, says=counted())
    found = items_of(trace)
    (id,) = shown_ids(made.messages[1])
    parts = [found[each] for each in found[id][1]["of"]]
    assert [given.get("part") for _, given in parts] == [None, 0, 1] and "".join(
        text for text, _ in parts[1:]
    ) == f"user: {long}"
    assert {given["level"] for _, given in parts} == {0} and len(parts[1][0]) == 12_000
    assert (
        model.asked[-1].prompt[0].text.endswith(f"\n\nassistant: s1\nuser: {long}\n\nSummary:")
        and len(model.asked) == 2
    )
    assert texts(made)[2:] == [later]


def test_a_tail_with_calls_and_reasoning_is_cut_in_its_longest_result_alone() -> None:
    call = Message("assistant", (Reasoning("r" * 900, {}), Text("so"), ToolCall("1", "f", {"a": "b" * 900})))
    result = Message("tool", (ToolResult("1", "f", "x " * 300, True, "web"), ToolResult("2", "g", "y")))

    async def use(ctx: Any) -> Any:
        return [await fitted_tail(ctx, [call, user("q"), result], most) for most in (700, 120)]

    (whole, made), trace, _ = held(working(), use)
    assert whole == [call, user("q"), result] and made[:2] == whole[:2]
    first, second = made[2].parts
    assert second == result.parts[1] and (first.call_id, first.name, first.is_error, first.origin) == (
        "1",
        "f",
        True,
        "web",
    )
    assert first.content.startswith("x x ") and "characters cut]" in first.content and len(first.content) < 300
    assert list(items_of(trace).values()) == [
        (f"tool: [result of f] {'x ' * 300} [result of g] y", {"store": "recall", "role": "tool", "origin": ["web"]}),
    ]  # fmt: skip


def test_facts_are_found_in_the_whole_text_whatever_the_window() -> None:
    async def use(ctx: Any) -> Any:
        return await extracted(ctx, words(200, "f"), constrained=False)

    said, trace, model = held(working(window=64, summary=8), use, says="[]")
    assert said == [] and len(model.asked) == 1 and words(200, "f") in model.asked[0].prompt[0].text
    assert noted(trace, "compacted") == []


def test_each_kind_keeps_what_it_learns_in_the_file_that_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "m.db"
    for make in (episodic, procedural, semantic, working, hierarchical, memgpt):
        memory = make(str(path), owner="ann", lifetime="run")  # type: ignore[operator]
        assert memory.file is not None and (memory.file.path, memory.owner) == (path, "ann"), make
        assert memory.lifetime == "run" and make().file is None and make().owner == ""  # type: ignore[operator]


def test_a_block_that_was_edited_as_the_window_filled_is_shown_new_beside_the_summary() -> None:
    memory = memgpt(window=256, summary=8, block_chars=16, keep=1, warn_percent=50)

    async def use(ctx: Any) -> Any:
        append, _ = core_tools(ctx, 16)
        await append({"name": "persona", "content": "calm"})
        opened = await memory.brief(ctx.restarted([system("Be kind.")]), Task("t", "x"))
        await append({"name": "human", "content": "likes tea"})
        edit = Message("tool", (ToolResult("1", "core_memory_append", "done"),))
        talk = opened.say("q").say(assistant(words(120, "a"))).say(user(words(100, "b"))).say(edit)
        return opened, await memory.fit(talk, ()), await memory.fit(opened.say("q"), ())

    (opened, made, calm), trace, _ = held(memory, use, says=counted())
    found = items_of(trace)
    persona, human, *_ = (MemoryItem(id, *found[id]) for id in found)
    note = "Core memory: the blocks persona and human, at most 16 characters each."
    assert opened.messages == (system("Be kind."), shown_items([persona], note))
    assert calm.messages == (*opened.messages, user("q")), "without an edit it stands as it was read"
    assert made.messages[1] == shown_items([persona, human], note) and made.messages[0] == system("Be kind.")
    assert [message.text.split()[0] for message in made.messages[2:]] == ["From", "b0", "done", "System"]
    (summary,) = shown_ids(made.messages[2])
    assert [found[id][0].split()[1] for id in found[summary][1]["of"]] == ["q", "a0"]
    assert [event["messages"] for event in noted(trace, "evicted")] == [2] and len(noted(trace, "memory_pressure")) == 1
    assert memgpt().acts is True and not any(
        getattr(each(), "acts", False) for each in (working, semantic, hierarchical)
    )
    assert working(tools=False).tools(opened) == () and len(working().tools(opened)) == 2 == len(
        hierarchical().tools(opened)
    )
    assert len(memgpt().tools(opened)) == 5


def test_a_task_that_names_a_day_is_opened_by_what_held_then() -> None:
    memory = semantic(shown=3)
    about = {"subject": "Ann", "attribute": "home"}

    async def use(ctx: Any) -> Any:
        ids = [
            await ctx.remember(f"Ann home {value}", **about, value=value, time=time)
            for value, time in (("Oslo", "2026-01-05"), ("Bergen", "2026-03-01"), ("Rome", "2026-03-02"))
        ]
        ids.append(await ctx.remember("Ann home none", **about, value="", time="2026-05-01", withdrawn=True))
        asked = ("Ann home on 2026-01-04?", "Ann home on 2026-01-05, not 2026-03-02?", "Ann home 2026-03-01",
                 "Ann home 2026-04-30", "Ann home 2026-05-01", "Ann home")  # fmt: skip
        return ids, [await memory.brief(ctx, Task("t", prompt)) for prompt in asked]

    (ids, opened), _, _ = held(memory, use)
    shown = [[id for message in each.messages for id in shown_ids(message)] for each in opened]
    assert shown == [[], [ids[0]], [ids[1]], [ids[2]], [], []]
