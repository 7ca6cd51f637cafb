"""Branches and votes are drawn where they belong, and a large tree is collapsed where least is lost."""

from __future__ import annotations

import asyncio
import io

import pytest

from cpu_time import at_most_cpu_s
from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.message import assistant, user
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.show.html_report import turns
from firsthand.show.trace_shape import SHOWN_BRANCHES, SHOWN_CHAIN, Mark, marks, outline, tally
from firsthand.show.trace_tree import brief_lines, plain_lines, show
from firsthand.task import Task
from firsthand.trace import TRACE_VERSION, Event, Node, Origin, Trace


def shown(trace: Trace, *, full: bool = False) -> list[str]:
    file = io.StringIO()
    show(trace, full=full, file=file)
    return file.getvalue().splitlines()


def thinking(thoughts: int = 4, depth: int = 2) -> Trace:
    """Thoughts about a question, the first kept and followed, the others pruned after a message more."""

    async def pattern(task: Task, ctx: Context) -> str:
        ctx = ctx.say(task.prompt)
        for level in range(depth):
            ends = [ctx.say(f"thought {level}.{i}", "assistant").say("rate it") for i in range(thoughts)]
            for i, end in enumerate(ends):
                ctx.note("branch", name=f"{level}.{i}", at=end.node, status="open")
                status = "kept" if i == 0 else "pruned"
                ctx.note("branch", name=f"{level}.{i}", at=end.node, status=status, score=1 / (i + 1), text="why")
                if i:
                    end.say("never seen unless full", "assistant")
            ctx = ends[0]
        ctx.note("branch", name="helper", at=None, status="failed", text="no such file")
        ctx.note("vote", votes={"12": 5, "14": 2}, unparsed=1)
        ctx.note("vote", **{"a": 1, "b": 3})
        ctx.note("other", x=1)
        return ctx.text

    return asyncio.run(rollout(Agent("a", Scripted(), pattern), Task("1", "Well?")))


def test_kept_and_pruned_thoughts_stand_at_their_branches() -> None:
    lines = shown(thinking())
    text = "\n".join(lines)
    assert "├ branch 1 of 4  ● 0.0 kept 1: why" in text
    assert "├ branch 2 of 4  ✗ 0.1 pruned 0.5: why" in text
    assert text.count("pruned") == 6 and "open" not in text  # the last word counts, and each is said once
    assert "never seen" not in text and text.count("(1 more message below)") == 6
    assert "never seen" in "\n".join(shown(thinking(), full=True))
    assert "branch ! helper failed: no such file" in text


def test_votes_are_bars_and_other_notes_stay_as_they_are() -> None:
    lines = [line.strip() for line in shown(thinking())]
    assert lines[lines.index("5  " + "█" * 24 + "  12") + 1] == "2  " + "█" * 10 + "  14"
    assert "1  █████  unparsed" in lines and "3  " + "█" * 24 + "  b" in lines
    assert any(line.endswith('other  {"x": 1}') for line in lines)
    assert not any("branch  {" in line for line in lines)
    assert any("branch  {" in line for line in shown(thinking(), full=True))


def test_every_message_has_the_number_a_fork_takes() -> None:
    trace = thinking()
    text = "\n".join(shown(trace, full=True))
    for index, node in enumerate(trace.nodes):
        assert f"#{index} {node.message.role}" in text


@pytest.mark.slow
def test_a_fork_with_very_many_branches_shows_the_living_ones() -> None:
    trace = thinking(thoughts=800, depth=2)
    with at_most_cpu_s(3):
        lines = shown(trace)
    assert len(lines) < 150
    assert sum("788 more branches (788 pruned) of 2364 messages" in line for line in lines) == 2
    assert any("branch 1 of 800  ● 1.0 kept" in line for line in lines)
    assert len(shown(trace, full=True)) > 4_800


def test_the_middle_of_a_long_conversation_is_left_out() -> None:
    nodes = tuple(Node(i - 1 if i else None, user(f"turn {i}")) for i in range(5000))
    trace = Trace("0", "b", "t", {"name": "a"}, 0, 0, "", 0.0, nodes)
    lines = shown(trace)
    assert "… 4940 more messages; --full shows them" in lines
    assert any("turn 29" in line for line in lines) and any("turn 4970" in line for line in lines)
    assert not any("turn 31" in line for line in lines) and len(lines) < 200
    assert sum("turn" in line for line in shown(trace, full=True)) == 5000


def test_a_bushy_tree_is_cut_and_says_how_much_is_left() -> None:
    nodes = [Node(None, user("root"))]
    nodes += [Node((index - 1) // 3, assistant(f"thought {index}")) for index in range(1, 4000)]
    lines = shown(Trace("0", "b", "t", {"name": "a"}, 0, 0, "", 0.0, tuple(nodes)))
    assert sum("thought" in line for line in lines) == 399
    assert sum(line.strip() == "… 3600 messages are left out; --full shows them" for line in lines) == 1


def test_notes_of_any_shape_do_no_harm() -> None:
    odd = [
        Event("branch", 0.0, {}), Event("branch", 0.0, {"at": 99}), Event("branch", 0.0, {"at": "1", "score": "x"}),
        Event("branch", 0.0, {"name": ["x"], "at": 0, "status": "\x1b[2J"}), Event("vote", 0.0, {}),
        Event("votes", 0.0, {"votes": {}}), Event("vote", 0.0, {"votes": {"a": -3, "b": 0}}),
        Event("vote", 0.0, {"by": "x"}),
    ]  # fmt: skip
    trace = Trace("0", "b", "t", {"name": "a"}, 0, 0, "", 0.0, (Node(None, user("x")),), events=tuple(odd))
    at_node, elsewhere = marks(trace)
    assert list(at_node) == [0] and len(elsewhere) == 3
    assert tally(odd[6]) == {"a": -3, "b": 0} and tally(odd[7]) == {}
    text = "\n".join(shown(trace))
    assert "\x1b" not in text and "\\x1b[2J" in text
    assert str(Mark("n", "kept", 0.5, "t")) == "● n kept 0.5: t" and str(Mark()) == "·"


def test_a_brief_tree_has_a_line_a_message() -> None:
    lines = plain_lines(brief_lines(thinking()))
    assert lines[0] == "#0 user  Well?" and all("\n" not in line for line in lines)


def test_the_report_tells_the_fate_of_branches_too() -> None:
    told, left_out = turns(thinking())
    assert left_out == 0 and sum("✗" in turn.fork for turn in told) == 6
    assert "● 0.0 kept 1: why" in [turn.fork for turn in told]


def test_a_fork_names_its_parent() -> None:
    trace = Trace("0", "b", "t", {"name": "a"}, 0, 0, "", 0.0, origin=Origin("feed", 7, "some-run"))
    assert "forked from some-run feed at step 7" in shown(trace)
    assert Trace.from_json(trace.to_json()) == trace
    old = {key: value for key, value in trace.to_json().items() if key != "origin"} | {"version": 1}
    assert Trace.from_json(old).origin is None and Trace.from_json(old).version == TRACE_VERSION


def tree(parents: list[int | None]) -> Trace:
    nodes = tuple(Node(parent, user(f"message {index}")) for index, parent in enumerate(parents))
    return Trace("i", "b", "t", {"name": "a"}, 0, 0, "2026-11-25T00:00:00", 1.0, nodes)


@pytest.mark.parametrize(("branches", "is_whole"), [(SHOWN_BRANCHES, True), (SHOWN_BRANCHES + 1, False)])
def test_a_fork_is_whole_up_to_its_bound(branches: int, is_whole: bool) -> None:
    found = outline(tree([None, *[0] * branches]), {}, full=False)
    shown, note = found.children(0)
    assert list(shown) == list(range(1, SHOWN_BRANCHES + 1)) and (note == "") == is_whole
    if not is_whole:
        assert note == "… 1 more branches of 1 messages; --full shows them"
    assert len(outline(tree([None, *[0] * branches]), {}, full=True).children(0)[0]) == branches


@pytest.mark.parametrize(("messages", "left"), [(SHOWN_CHAIN, 0), (SHOWN_CHAIN + 1, 1), (SHOWN_CHAIN + 40, 40)])
def test_a_conversation_is_whole_up_to_its_bound_and_then_has_both_its_ends(messages: int, left: int) -> None:
    skips = outline(tree([None, *range(messages - 1)]), {}, full=False).skips
    half = SHOWN_CHAIN // 2
    said = f"… {left} more messages; --full shows them"
    assert skips == ({half - 1: (messages - half, said)} if left else {})


def test_large_living_branches_are_shown_before_small_and_dead_ones() -> None:
    parents: list[int | None] = [
        None,
        *[0] * 14,
        14,
        15,
        13,
    ]  # the last branch has two more messages, the one before it one
    marked = {1: [Mark(status="pruned")], 2: [Mark(status="failed")], 14: [Mark(status="kept")]}
    shown, note = outline(tree(parents), marked, full=False).children(0)
    assert list(shown) == list(range(3, 15)) and note.startswith("… 2 more branches (1 pruned, 1 failed) of 2 messages")
