"""What a memory writes by itself has room in an item: texts of control characters, and any number of origins."""

import asyncio
from dataclasses import replace

import pytest

from firsthand import Agent, Benchmark, Task, catalog
from firsthand.loop.read_origins import MAX_ORIGINS_BYTES, OTHERS, bounded_origins
from firsthand.memories.episodic import episode_of
from firsthand.memories.hierarchical import hierarchical
from firsthand.memories.keeping.conversation_window import PART_BYTES, PART_CHARS, entries_of, text_pieces
from firsthand.memories.keeping.fenced_items import joined_origins
from firsthand.memories.keeping.kept_item import body_of
from firsthand.memories.procedural import skill_of
from firsthand.memories.semantic import semantic
from firsthand.memory import MemoryItem
from firsthand.message import Message, ToolCall, ToolResult, canonical, user
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollouts
from firsthand.trace import Score

WINDOWS = (
    "working:window=400:summary=20",
    "memgpt:window=400:summary=20:block_chars=100",
    "hierarchical:window=800:summary=20",
)


def attempt(pattern, memory):
    agent = Agent("a", Scripted(lambda messages, sampling, index: "a reply"), pattern, memory=memory)

    async def use():
        places = [Place(agent, Benchmark("b", lambda seed: [], scorers=()), Task("1", "q"), 0)]
        return [trace async for trace in rollouts(places)]

    (trace,) = asyncio.run(use())
    assert trace.error is None, trace.error
    return trace


@pytest.mark.parametrize("character", ["\0", "\x1b", "😀", "\ud800", "x"])
def test_every_text_is_kept_whole_in_pieces_that_an_item_holds(character) -> None:
    text = character * 20_000
    pieces = text_pieces(text)
    assert "".join(pieces) == text and len(pieces) == (3 if character < " " else 2)
    assert all(len(canonical(each).encode("utf-8", "surrogatepass")) <= PART_BYTES for each in pieces)
    entries = entries_of([user(text)])
    assert [each["part"] for _, each in entries] == [*range(len(entries))]
    assert all(body_of(MemoryItem.of(*each)) for each in entries)


def test_pieces_are_cut_at_the_bounds_and_no_earlier() -> None:
    room = (PART_BYTES - 2) // 6
    assert len(text_pieces("\0" * room)) == 1 and [*map(len, text_pieces("\0" * (room + 1)))] == [4096] * 2
    assert text_pieces("") == [""] and text_pieces("abc", 2) == ["ab", "c"] and len(text_pieces("x" * PART_CHARS)) == 1
    assert [*map(len, text_pieces("x" * (PART_CHARS + 1), 2 * PART_CHARS))] == [PART_CHARS, 1]
    assert "part" not in entries_of([user("short")])[0][1]


@pytest.mark.parametrize("memory", WINDOWS)
def test_a_turn_of_control_characters_and_many_long_origins_end_no_attempt(memory) -> None:
    async def chats(task, ctx):
        for n in range(60):
            url = f"https://example.org/{n}?q={'x' * 1_500}"
            ctx = ctx.say(Message("assistant", (ToolCall(f"c{n}", "fetch", {"n": n}),)))
            text = " ".join(["\0" * 15] * 900) if n == 2 else f"page {n} {'text ' * 30}"
            ctx = ctx.say(Message("tool", (ToolResult(f"c{n}", "fetch", text, False, url),)))
            if n % 5 == 4:
                ctx = await ctx.say("go on").generate()
        id = await ctx.remember("what was read")
        (kept,) = await ctx.recall("", k=1, ids=[id])
        return str(kept.provenance["origin"][0])

    assert attempt(chats, catalog.memory(memory)).answer.startswith("https://example.org/")


def test_what_an_attempt_remembers_has_room_beside_any_number_of_origins() -> None:
    async def reads(task, ctx):
        ctx = ctx.say("what do they say?")
        for n in range(60):
            url = f"https://example.org/{n}?q={'x' * 1_500}"
            ctx = ctx.say(Message("assistant", (ToolCall(f"c{n}", "fetch", {"n": n}),)))
            ctx = ctx.say(Message("tool", (ToolResult(f"c{n}", "fetch", "a page", False, url),)))
        ctx = await ctx.generate()
        (kept,) = await ctx.recall("", k=1, ids=[await ctx.remember("what was read")])
        return str(len(kept.provenance["origin"]))

    trace = attempt(reads, semantic())
    learnt = [episode_of(trace), skill_of(replace(trace, scores=(Score("exact", 1.0),)))]
    assert trace.answer == "60" and [len(each.provenance["origin"]) for each in learnt if body_of(each)] == [60, 60]
    results = [ToolResult(f"c{n}", "fetch", "a page", False, f"{'x' * 1_500}{n}") for n in range(60)]
    ((text, provenance),) = entries_of([Message("tool", tuple(results))])
    assert body_of(MemoryItem.of(text, provenance)) and len(provenance["origin"]) == 60


def test_a_document_of_control_characters_is_built() -> None:
    memory = hierarchical(chunk=3_000)

    async def builds(task, ctx):
        return str(len(await ctx.recall("", k=9, ids=[await memory.build(ctx, "\0" * 12_000)])))

    assert attempt(builds, memory).answer == "1"


def test_origins_are_as_they_are_while_there_is_room_and_no_more_of_them_after() -> None:
    each = [f"{n:04}" for n in range(3_000)]
    fit = (MAX_ORIGINS_BYTES - 1) // 7
    assert bounded_origins(each[:fit]) == each[:fit] == joined_origins([{"origin": each[:fit]}])
    more = bounded_origins(each[: fit + 1])
    assert more[-1] == OTHERS and more[:-1] == each[: len(more) - 1] and len(canonical(more)) <= MAX_ORIGINS_BYTES
    assert len(canonical([*more, "0000"])) > MAX_ORIGINS_BYTES, "all the room is used"
    assert bounded_origins(["b", "a", "b"]) == ["b", "a"] and bounded_origins([]) == []
    assert bounded_origins([*more, *each]) == more == joined_origins([{"origin": more}, {"origin": each}])


def test_long_origins_are_told_apart_by_a_hash_where_they_do_not_fit() -> None:
    long = [f"https://example.org/{'x' * 9_000}{n}" for n in range(2)]
    assert bounded_origins(long[:1]) == long[:1]
    first, second, third, last = bounded_origins([*long, "y" * 200, OTHERS, "y" * 201][:4])
    assert first != second and first[:180] == second[:180] == long[0][:180] and len(first) == 200
    assert third == "y" * 200 and last == OTHERS
    assert len(bounded_origins([*long, "y" * 201])[2]) == 200
    assert len(canonical(bounded_origins("\0" * 300 + str(n) for n in range(99))).encode()) <= MAX_ORIGINS_BYTES
