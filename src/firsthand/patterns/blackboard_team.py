"""Blackboard team: agents without a leader read and write a shared board until one of them declares the task done.

The board is a blackboard (Erman et al., 1980): whoever can add something to what stands there does so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.pattern_options import checked
from firsthand.messaging.blackboard import MAX_KEY_CHARS, BoardConflict
from firsthand.messaging.memory_board import MemoryBoard
from firsthand.patterns.parts.answers import answer_form, answer_or_text
from firsthand.task import Task

SHOWN_CHARS = 4000
"""Characters of one entry that others read."""
_PART = re.compile(r"^[ \t>*]*(?:WRITE[ \t]+([^:\n \t][^:\n]{0,79})|(DONE))[ \t*]*:(?:\*\*(?=\s))?", re.MULTILINE)
_TURN = (
    "{question}\n\nYou are {name} of {members}, who solve this together through a shared board. "
    "The board now:\n\n{board}\n\n"
    '{told}Add what is missing: a line "WRITE", a short key, a colon and a text puts the text under that key. '
    'If the board has all that is needed, write "DONE:" instead, and then "The answer is" and {form}.'
)


def _check(*, members: int, rounds: int, **_: Any) -> None:
    if members < 1 or rounds < 1:
        raise ConfigError(f"members is {members} and rounds {rounds}: give 1 or more of each")


@checked(_check)
async def blackboard_team(task: Task, ctx: Context, *, members: int = 3, rounds: int = 3) -> str:
    """The answer of the first of `members` who declares the task done; after `rounds` rounds, one made of the board.

    In a round all read the board as it is, and write at once; what they wrote is taken in their order. A write to a key
    that another one changed in the same round is not taken, and its writer is told so. Text without a `WRITE` or `DONE` is
    kept under the writer's name.
    """
    board, told = MemoryBoard(ctx.attempt.elapsed_s), dict[str, str]()
    names = [f"agent {number}" for number in range(1, members + 1)]
    for number in range(1, rounds + 1):
        seen = {entry.key: entry.version for entry in board.entries()}
        turns = await ctx.group(ctx.say(_asked(task, board, name, members, told)).generate() for name in names)
        told = {}
        for name, turn in zip(names, turns, strict=True):
            versions = dict(seen)
            for key, text in _parts(turn.said, name):
                if key is None:
                    ctx.note("done", by=name, round=number)
                    return answer_or_text(text, task)
                try:
                    entry = board.write(key, text, writer=name, expected=versions.get(key, 0))
                except BoardConflict as error:
                    told[name] = f"Your text under {key!r} was not taken: another agent wrote there first.\n\n"
                    ctx.note("board", key=key, writer=name, conflict=str(error))
                else:
                    versions[key] = entry.version  # its own text may be written over
                    ctx.note("board", key=key, writer=name, version=entry.version, text=text[:200])
    ending = f'Now answer the question. End with "The answer is" and {answer_form(task)}.'
    last = await ctx.say(f"{task.question}\n\nNotes of a team:\n\n{_shown(board)}\n\n{ending}").generate()
    return answer_or_text(last.text, task)


def _asked(task: Task, board: MemoryBoard, name: str, members: int, told: dict[str, str]) -> str:
    return _TURN.format(
        question=task.question,
        name=name,
        members=members,
        board=_shown(board),
        told=told.get(name, ""),
        form=answer_form(task),
    )


def _shown(board: MemoryBoard) -> str:
    lines = [f"{entry.key} ({entry.writer}): {entry.value[:SHOWN_CHARS]}" for entry in board.entries()]
    return "\n".join(lines) or "(empty)"


def _parts(text: str, name: str) -> Iterator[tuple[str | None, str]]:
    """The keys and texts that were written, None as the key of the end; a text without either is under the writer's name."""
    found = list(_PART.finditer(text))
    if not found and text.strip():
        yield name, text.strip()
    ends = [*(following.start() for following in found[1:]), len(text)]
    for part, end in zip(found, ends[: len(found)], strict=True):
        body = text[part.end() : end].strip()
        if part[2]:
            yield None, body
        elif key := "".join(filter(str.isprintable, part[1])).rstrip(" *").strip()[:MAX_KEY_CHARS]:
            yield key, body
