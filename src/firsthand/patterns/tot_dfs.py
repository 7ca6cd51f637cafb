"""Tree of Thoughts, depth first: follow the best thought, prune what is judged hopeless, back up (Yao et al., 2023)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from firsthand.context import Context
from firsthand.loop.pattern_options import at_least, check_temperature, checked
from firsthand.patterns.parts.thoughts import Thoughts, thoughts_of
from firsthand.patterns.tot import Search, ThoughtState
from firsthand.task import Task


def _check(*, visits: int, per_state: int, judgements: int, temperature: float, **_: Any) -> None:
    at_least(1, visits=visits, per_state=per_state, judgements=judgements)
    check_temperature(temperature)


@checked(_check)
async def tot_dfs(
    task: Task,
    ctx: Context,
    *,
    visits: int = 100,
    per_state: int = 3,
    prune: bool = True,
    threshold: float | None = None,
    judgements: int = 1,
    temperature: float = 0.7,
    thoughts: Callable[[Task], Thoughts] = thoughts_of,
) -> str:
    """The answer of the deepest state (the first of equals) among at most `visits` that are visited, best thoughts first.

    At most `per_state` thoughts lead on from a state. With `prune`, a state worth less than `threshold` (what the task's
    thoughts call hopeless, if it is not given) is not followed. The defaults are the paper's for mini crosswords.
    """
    search = Search(thoughts(task), ctx.sampled(temperature=temperature), judgements)
    lowest = search.thoughts.hopeless if threshold is None else threshold
    walk = Walk(search, visits, per_state, lowest if prune else None)
    await walk.visit(ThoughtState(""), 0)
    depth, deepest = max(walk.visited, key=lambda visit: visit[0], default=(0, ThoughtState("")))
    answer = search.thoughts.answer(deepest.text)
    search.note(f"answer.{depth}", deepest, "done", answer=answer)
    return answer


@dataclass
class Walk:
    """The search through the tree, with the states it has visited."""

    search: Search
    visits: int
    per_state: int
    threshold: float | None
    """States with a lower value are pruned; None prunes none."""
    visited: list[tuple[int, ThoughtState]] = field(default_factory=list)
    _replies: dict[str, list[Context]] = field(default_factory=dict)

    async def visit(self, state: ThoughtState, depth: int) -> None:
        """Visit the best states that one thought leads to, and what is below each, before the next."""
        thoughts = self.search.thoughts
        if depth >= thoughts.steps or len(self.visited) >= self.visits or thoughts.is_done(state.text):
            return
        for child in (await self._children(state))[: self.per_state]:
            if len(self.visited) >= self.visits:
                return
            self.visited.append((depth + 1, child))
            [value] = await self.search.values([child.text])
            hopeless = self.threshold is not None and value < self.threshold
            name = f"{depth + 1}.{len(self.visited)}"
            status = "pruned" if hopeless else "kept"
            self.search.note(name, child, status, value, answer=thoughts.answer(child.text))
            if not hopeless:
                await self.visit(child, depth + 1)

    async def _children(self, state: ThoughtState) -> list[ThoughtState]:
        """The next states. Equal requests, from two orders of the same thoughts, are made once."""
        ask = self.search.thoughts.propose(state.text)
        if ask.prompt not in self._replies:
            self._replies[ask.prompt] = await self.search.ask(ask)
        replies = self._replies[ask.prompt]
        texts = self.search.thoughts.proposed(state.text, [reply.said for reply in replies])
        return [ThoughtState(text, replies[-1].node) for text in texts]
