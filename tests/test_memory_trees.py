"""Trees of summaries, whole: chunks of a history and of a document, what a summary is made of, and the window beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from firsthand import Task
from firsthand.errors import ConfigError, UnknownName
from firsthand.memories.episodic import episodic
from firsthand.memories.hierarchical import DOCUMENT_NOTE, NOTE, hierarchical
from firsthand.memories.keeping.conversation_window import shown_ids, shown_items, text_pieces
from firsthand.memories.keeping.item_vectors import ItemVectors
from firsthand.memories.keeping.opened_file import bounds_of, opened_file, vectors_of
from firsthand.memories.keeping.stored_memory import KeepingPolicy, StoredMemory
from firsthand.memories.memgpt import memgpt
from firsthand.memories.procedural import procedural
from firsthand.memories.semantic import semantic
from firsthand.memories.working import WindowParts, parts_of, pinned_within, working
from firsthand.memory import MemoryItem
from firsthand.message import Message, ToolCall, ToolResult, assistant, system, user
from held_memory import held, items_of, noted, texts, words


def counted(asked: list[str]) -> Any:
    """A model whose answers are s1, s2 and so on."""

    def says(messages: Sequence[Message], sampling: Any, index: int) -> str:
        asked.append(messages[-1].text.partition("\n\n")[2])
        return f"s{len(asked)}"

    return says


def test_a_document_s_tree_is_built_level_by_level_with_what_is_given_to_every_node() -> None:
    memory = hierarchical(window=200, summary=9, fanout=2, chunk=16)
    text = "".join(chr(97 + n % 26) for n in range(64 * 4 + 5))
    asked: list[str] = []
    (root, empty, briefed), trace, _ = held(memory, lambda ctx: build(memory, ctx, text), says=counted(asked))
    chunks = [text[first : first + 64] for first in range(0, 320, 64)]
    assert [len(chunk) for chunk in chunks] == [64, 64, 64, 64, 5]
    assert asked == [f"{said}\n\nSummary:" for said in (
        f"{chunks[0]}\n{chunks[1]}", f"{chunks[2]}\n{chunks[3]}", chunks[4], "s1\ns2", "s3", "s4\ns5", "",
    )]  # fmt: skip
    found = items_of(trace)
    ids = list(found)
    given = {"origin": ["book", "mail"], "n": 7}
    summary = {"store": "summary", **given, "root": False}
    assert list(found.values())[:11] == [
        *((chunk, {**given, "level": 0, "chunk": at}) for at, chunk in enumerate(chunks)),
        ("s1", {**summary, "level": 1, "of": ids[0:2]}), ("s2", {**summary, "level": 1, "of": ids[2:4]}),
        ("s3", {**summary, "level": 1, "of": ids[4:5]}), ("s4", {**summary, "level": 2, "of": ids[5:7]}),
        ("s5", {**summary, "level": 2, "of": ids[7:8]}), ("s6", {**summary, "level": 3, "of": ids[8:10], "root": True}),
    ]  # fmt: skip
    assert list(found.values())[11:] == [
        ("", {"level": 0, "chunk": 0}), ("s7", {"store": "summary", "level": 1, "of": ids[11:12], "root": True}),
    ]  # fmt: skip
    assert (root, empty) == (ids[10], ids[12])
    shown = {each.id: each for each in (MemoryItem(root, *found[root]), MemoryItem(empty, *found[empty]))}
    (first, second) = shown_ids(briefed.messages[-1])
    assert briefed.messages[-1] == shown_items([shown[first], shown[second]], DOCUMENT_NOTE) and {first, second} == set(
        shown
    )
    longest = [len(text_pieces("x" * 13_000, most)[0]) for most in (64, 11_996, 12_000, 12_004)]
    assert longest == [64, 11_996, 12_000, 12_000]


def test_chunks_of_a_document_are_as_long_as_they_were_asked_for_whatever_the_window() -> None:
    text = "".join(chr(97 + n % 26) for n in range(1000))
    for chunk, sizes in ((124, [496, 496, 8]), (125, [500, 500]), (249, [996, 4]), (250, [1000]), (4000, [1000])):
        memory = hierarchical(window=200, summary=9, fanout=32, chunk=chunk)
        assert (memory.window, memory.summary, memory.fanout, memory.chunk) == (200, 9, 32, chunk)

        async def use(ctx: Any, memory: Any = memory) -> str:
            return await memory.build(ctx, text)

        root, trace, _ = held(memory, use)
        found = items_of(trace)
        pieces = [given for given in found.values() if given[1]["level"] == 0]
        assert [len(said) for said, _ in pieces] == sizes and "".join(said for said, _ in pieces) == text
        assert found[root][1]["of"] == [*found][: len(sizes)] and found[root][1]["level"] == 1
        assert len(found) == len(sizes) + 1, "one summary of all"


async def build(memory: Any, ctx: Any, text: str) -> Any:
    assert await memory.brief(ctx, Task("t", "x")) is ctx
    root = await memory.build(ctx, text, origin=["book", "mail"], n=7)
    return root, await memory.build(ctx, ""), await memory.brief(ctx, Task("t", "x"))


def test_what_leaves_a_history_becomes_chunks_under_one_summary_beside_the_older_ones() -> None:
    memory = hierarchical(window=150, summary=9, fanout=3)
    asked: list[str] = []
    web = Message("tool", (ToolResult("1", "f", words(60, "p"), origin="web"),))

    async def use(ctx: Any) -> Any:
        ctx = await ctx.say("Be brief.", "system").say("The task.").generate()
        ctx = ctx.say(assistant("", ToolCall("1", "f", {"a": 1}))).say(web)
        once = await memory.fit(ctx.say(words(30, "x")).say(words(70, "y")), ())
        return once, await memory.fit(once.say(words(40, "z")).say(words(10, "w")), ())

    (once, twice), trace, _ = held(memory, use, says=counted(asked))
    found = items_of(trace)
    ids = list(found)
    recall = {"store": "recall", "level": 0}
    gone = [
        "assistant: s1",
        'assistant: [calls f {"a":1}]',
        f"tool: [result of f] {words(60, 'p')}",
        f"user: {words(30, 'x')}",
    ]
    later = [f"user: {words(70, 'y')}"]
    assert list(found.values()) == [
        (gone[0], {**recall, "role": "assistant"}), (gone[1], {**recall, "role": "assistant"}),
        (gone[2], {**recall, "role": "tool", "origin": ["web"]}), (gone[3], {**recall, "role": "user"}),
        ("s2", {"store": "summary", "level": 1, "of": ids[:4], "origin": ["web"]}),
        (later[0], {**recall, "role": "user"}), ("s3", {"store": "summary", "level": 1, "of": ids[5:6], "origin": ["web"]}),
    ]  # fmt: skip
    assert asked[1:] == [f"{chr(10).join(gone)}\n\nSummary:", f"{later[0]}\n\nSummary:"]
    first, second = (MemoryItem(ids[place], *found[ids[place]]) for place in (4, 6))
    assert shown_ids(once.messages[2]) == [first.id] and shown_ids(twice.messages[2]) == [first.id, second.id]
    assert once.messages[2] == shown_items([first], NOTE) and texts(once)[3:] == [words(70, "y")]
    assert texts(twice)[:2] == ["Be brief.", "The task."] and texts(twice)[3:] == [words(40, "z"), words(10, "w")]
    assert twice.messages[2].text == shown_items([first, second], NOTE).text
    assert noted(trace, "compacted") == [
        {"messages": 4, "kept": 1, "summaries": 1, "window": 150}, {"messages": 1, "kept": 2, "summaries": 2, "window": 150},
    ]  # fmt: skip


def test_at_most_64_documents_open_an_attempt_and_what_is_no_root_does_not() -> None:
    memory = hierarchical()

    async def use(ctx: Any) -> Any:
        one = await ctx.remember("one", root=True)
        await ctx.remember_all([("no", {"root": False}), ("nor this", {"level": 1})])
        few = await memory.brief(ctx.say("q"), Task("t", "x"))
        await ctx.remember_all([(f"text {n}", {"root": True}) for n in range(65)])
        return one, few, await memory.brief(ctx, Task("t", "x"))

    (one, few, many), _, _ = held(memory, use)
    assert few.messages == (user("q"), shown_items([MemoryItem(one, "one")], DOCUMENT_NOTE))
    assert len(shown_ids(many.messages[-1])) == 64


@pytest.mark.parametrize(("make", "share"), [(hierarchical, 3), (working, 2)])
def test_opening_and_newest_messages_stay_up_to_their_share_of_the_window(make: Any, share: int) -> None:
    memory = make(window=150, summary=9)
    most = 150 // share

    async def use(ctx: Any) -> Any:
        async def fitted(opening: int, *sizes: int) -> list[str]:
            opened = await ctx.say("s", "system").say(words(opening - 1, "t")).generate()
            for n, size in enumerate(sizes):
                opened = opened.say(words(size, f"m{n}_"))
            return [text.split()[0] for text in texts(await memory.fit(opened, ()))]

        return [
            await fitted(75, 100, 60), await fitted(76, 100, 60), await fitted(2, 120, most - 25, 25),
            await fitted(2, 120, most - 24, 25), await fitted(2, 120, 4, most, 3), await fitted(2, 90, most + 20),
        ]  # fmt: skip

    found = held(memory, use)[0]
    assert found == [
        ["s", "t0", "From", "m1_0"], ["s", "From", "m1_0"], ["s", "t0", "From", "m1_0", "m2_0"],
        ["s", "t0", "From", "m2_0"], ["s", "t0", "From", "m3_0"], ["s", "t0", "From", "m1_0"],
    ]  # fmt: skip


def test_beside_an_opening_of_half_the_window_older_messages_are_summarised_and_none_is_cut() -> None:
    memory = hierarchical(window=160, summary=20)

    async def use(ctx: Any) -> Any:
        async def fitted(opening: int, *sizes: int) -> list[str]:
            opened = await ctx.say(words(opening, "t")).generate()
            for n, size in enumerate(sizes):
                opened = opened.say(words(size, f"m{n}_"))
            return texts(await memory.fit(opened, ()))

        return await fitted(80, 100, 15, 25), await fitted(80, 100, 16, 25), await fitted(40, 120, 28, 25)

    both, one, ordinary = held(memory, use)[0]
    assert both[2:] == [words(15, "m1_"), words(25, "m2_")] and one[2:] == [words(25, "m2_")]
    assert ordinary[2:] == [words(28, "m1_"), words(25, "m2_")], "a third of the window stays beside a shorter opening"
    assert both[0] == one[0] == words(80, "t")


def test_the_first_summary_parts_a_conversation_and_without_one_the_first_answer() -> None:
    async def use(ctx: Any) -> Any:
        shown = [
            shown_items([MemoryItem(id, id)], note) for id, note in (("a", "Note:"), ("b", "Other:"), ("c", "Note:"))
        ]
        talk = ctx.restarted([system("s"), shown[1], shown[0], user("q"), user("Observation: o"), shown[2]])
        answered = await ctx.restarted([system("s"), user("q")]).generate()
        first = await ctx.restarted([]).generate()
        long = WindowParts((system("a b"), system("c"), user(words(5))), None, [(user("u"), user("Observation: v"))])
        bare = WindowParts((), None, [(user("u"),)])
        return (
            shown, parts_of(talk, "Note:"), parts_of(talk, "Other:"), parts_of(talk, "None:"), parts_of(answered, "Note:"),
            parts_of(first, "Note:"), long, await pinned_within(ctx, long, 8), await pinned_within(ctx, long, 7),
            bare, await pinned_within(ctx, bare, 0),
        )  # fmt: skip

    found = held(working(), use)[0]
    shown, by_note, by_other, by_none, answered, first, long, same, parted, bare, bare_too = found
    last = (shown[2],)
    talk = [(user("q"), user("Observation: o"))]
    assert by_note == WindowParts((system("s"), shown[1]), shown[0], [*talk, last])
    assert by_other == WindowParts((system("s"),), shown[1], [(shown[0],), *talk, last])
    assert by_none == WindowParts((), None, [(system("s"),), (shown[1],), (shown[0],), *talk, last])
    assert [each.text for each in answered.pinned] == ["s", "q"] and [u[0].text for u in answered.units] == ["short"]
    assert first.pinned == () and len(first.units) == 1 and same is long and bare_too is bare
    assert parted == WindowParts((system("a b"), system("c")), None, [(user(words(5)),), *long.units])


class Axes:
    """Texts are their own vectors; what it is asked is kept."""

    fingerprint = "axes"

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked.append(list(texts))
        return [[float(n) for n in text.split()] for text in texts]


def test_a_search_by_meaning_embeds_the_query_only_where_it_has_words(tmp_path: Path) -> None:
    for file in (None, opened_file(str(tmp_path / "m.db"))):
        embedder = Axes()
        memory = StoredMemory(KeepingPolicy("plain"), file, owner="ann", vectors=ItemVectors(embedder))
        for id, text in (("a", "1 0"), ("b", "0 1"), ("c", "3 1")):
            asyncio.run(memory.write(MemoryItem(id, text)))

        def found(query: str, k: int = 9, memory: Any = memory, **how: Any) -> list[str]:
            return [item.id for item in asyncio.run(memory.search(query, k, **how))]

        assert sorted(found("")) == sorted(found(" \n")) == ["a", "b", "c"] and found("8 8", ids=["b"]) == ["b"]
        assert embedder.asked == []
        assert found("8e0 0e0") == ["a", "c"] and embedder.asked == [["8e0 0e0"], ["1 0", "0 1", "3 1"]]
        assert found("0e0 8e0", 1) == ["b"] and embedder.asked[2:] == [["0e0 8e0"]]
        assert found("8e0 0e0", where={"x": 1}) == [] and memory.of_owner("bo").vectors is memory.vectors


def test_files_bounds_and_vectors_are_opened_by_what_a_user_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = opened_file("~/deep/m.db")
    assert made is not None and made.path == tmp_path / "deep" / "m.db" and made.path.is_file()
    assert bounds_of(1, 1) == (1, 1 << 20) and bounds_of(7, 3) == (7, 3 << 20)
    folder = tmp_path / "e"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    vectors = vectors_of(str(folder))
    assert vectors is not None and vectors._embedder.path == folder  # type: ignore[attr-defined]
    for make in (semantic, episodic, procedural):
        assert make(vectors=str(folder)).vectors._embedder.path == folder and make().vectors is None
    with pytest.raises(UnknownName, match="none-such"):
        vectors_of("none-such")


def test_settings_that_cannot_work_are_named_with_what_can() -> None:
    for make, given, said in (
        (working, {"window": 63, "summary": 9},
         "window is 63 and summary 9: give a window of 64 tokens or more, and 8 to a quarter of it for the summary"),
        (hierarchical, {"window": 200, "summary": 26, "fanout": 3, "chunk": 17},
         "window is 200, summary 26, fanout 3 and chunk 17: give a window of 128 tokens or more, 8 to an eighth of it for a "
         "summary, a fanout of 2 to 32, and chunks of 16 tokens or more"),
        (memgpt, {"window": 300, "summary": 9, "block_chars": 15},
         "window is 300, summary 9 and block_chars 15: give a window of 256 tokens or more, 8 to an eighth of it for the "
         "summary, and blocks of 16 to as many characters as the window has tokens"),
        (memgpt, {"warn_percent": 101, "keep": 2},
         "warn_percent is 101 and keep 2: give 1 to 100, and 1 message or more"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as told:
            make(**given)
        assert str(told.value) == said
