"""Tree of Thoughts, breadth first: propose thoughts, judge the states they lead to, keep the best (Yao et al., 2023).

The depth-first search is in `tot_dfs.py`. What is particular to a task is in its `Thoughts` (`thoughts.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from random import Random
from typing import Any, Literal

from firsthand.context import Context
from firsthand.loop.concurrency import current_branch, derive_seed
from firsthand.loop.pattern_options import at_least, check_temperature, checked
from firsthand.model import Likelihood
from firsthand.patterns.parts.thoughts import ThoughtRequest, Thoughts, thoughts_of
from firsthand.patterns.parts.verdicts import normalised
from firsthand.task import Task

Generate = Literal["propose", "sample"]
Evaluate = Literal["value", "vote", "score"]
Select = Literal["greedy", "sample"]
Valuation = Sequence[str] | float
"""The replies to one request for a valuation, or the expected value of a verdict."""
MAX_THOUGHTS = 100
"""The most items of one list, for a model that does not stop. GPT-4's longest in the authors' log has 46."""


def _check(*, breadth: int, samples: int, judgements: int, temperature: float, **_: Any) -> None:
    at_least(1, breadth=breadth, samples=samples, judgements=judgements)
    check_temperature(temperature)


@checked(_check)
async def tot(
    task: Task,
    ctx: Context,
    *,
    breadth: int = 5,
    generate: Generate = "propose",
    evaluate: Evaluate = "value",
    select: Select = "greedy",
    samples: int = 5,
    judgements: int = 3,
    temperature: float = 0.7,
    thoughts: Callable[[Task], Thoughts] = thoughts_of,
) -> str:
    """The answer of the best state after as many steps as the task's thoughts have; `breadth` states survive each step.

    Thoughts are proposed as a list, or `samples` are drawn one by one. States are judged each alone (`value`, or `score`: by
    the likelihood of each verdict, one scoring and no new text) or against each other (`vote`), `judgements` times.
    """
    search = Search(thoughts(task), ctx.sampled(temperature=temperature), judgements, evaluate)
    frontier = [ThoughtState("")]
    for step in range(1, search.thoughts.steps + 1):
        grown = await ctx.group(search.expand(state, generate, samples) for state in frontier)
        candidates = list(chain.from_iterable(grown))
        if not candidates:
            break
        values = await search.judge(candidates)
        kept = choose(values, breadth, select, Random(derive_seed(ctx.attempt.seed, current_branch().path, step)))
        for index, (state, value) in enumerate(zip(candidates, values, strict=True)):
            search.note(f"{step}.{index}", state, "kept" if index in kept else "pruned", value)
        frontier = [candidates[index] for index in kept]
    for rank, state in enumerate(frontier):
        search.note(f"answer.{rank}", state, "done", answer=search.thoughts.answer(state.text))
    return search.thoughts.answer(frontier[0].text)


@dataclass(frozen=True)
class ThoughtState:
    """A partial solution, and the node of the trace whose message led to it."""

    text: str
    at: int | None = None


@dataclass
class Search:
    """The paper's two functions, thought generator and state evaluator, for one task. No state is judged twice."""

    thoughts: Thoughts
    ctx: Context
    judgements: int
    evaluate: Evaluate = "value"
    _verdicts: dict[str, Valuation] = field(default_factory=dict)

    async def expand(self, state: ThoughtState, generate: Generate, samples: int) -> list[ThoughtState]:
        """The states after one more thought; a finished state stays as it is."""
        if self.thoughts.is_done(state.text):
            return [state]
        if generate == "propose":
            replies = await self.ask(self.thoughts.propose(state.text))
            texts = self.thoughts.proposed(state.text, [reply.said for reply in replies])
            return [ThoughtState(text, replies[-1].node) for text in texts[:MAX_THOUGHTS]]
        replies = await self.ask(self.thoughts.sample(state.text), samples)
        return [ThoughtState(self.thoughts.sampled(state.text, reply.said), reply.node) for reply in replies]

    async def judge(self, states: Sequence[ThoughtState]) -> list[float]:
        """The value of each state. The second of two equal states has the value 0, as in the authors' code."""
        texts = list(dict.fromkeys(state.text for state in states))
        if self.evaluate == "vote":
            replies = await self.ask(self.thoughts.vote(texts), self.judgements)
            worth = dict(zip(texts, self.thoughts.voted(texts, [reply.said for reply in replies]), strict=True))
            self.ctx.note("vote", votes=list(worth.values()))
        else:
            worth = dict(zip(texts, await self.values(texts), strict=True))
        return [worth.pop(state.text, 0.0) for state in states]

    async def values(self, texts: Sequence[str]) -> list[float]:
        """The value of each state, judged alone."""
        asks = {text: self.thoughts.value(text) for text in texts}
        new = {ask.prompt: ask for each in asks.values() for ask in each if ask.prompt not in self._verdicts}
        verdicts = await self.ctx.group(self._judged(ask) for ask in new.values())
        self._verdicts |= dict(zip(new, verdicts, strict=True))
        return [self._worth(text, [self._verdicts[ask.prompt] for ask in asks[text]]) for text in texts]

    def note(self, name: str, state: ThoughtState, status: str, score: float | None = None, **more: str) -> None:
        """Record the status of a state."""
        thought = (state.text.strip().splitlines() or [""])[-1]
        about = {"name": name, "at": state.at, "status": status, "score": score, "text": thought[:200]}
        self.ctx.note("branch", **about, path=current_branch().path, **more)

    async def ask(self, ask: ThoughtRequest, samples: int = 1) -> list[Context]:
        """The replies to a request, each at the end of a Context of its own."""
        stop = (*self.ctx.sampling.stop, *ask.stop)
        return await self.ctx.say(ask.prompt).sample(max(samples, ask.samples), stop=stop)

    async def _judged(self, ask: ThoughtRequest) -> Valuation:
        if self.evaluate != "score":
            return [reply.said for reply in await self.ask(ask, self.judgements)]
        return expected(await self.ctx.say(ask.prompt).score(list(self.thoughts.labels)), self.thoughts.labels)

    def _worth(self, text: str, verdicts: Sequence[Valuation]) -> float:
        replies = [verdict for verdict in verdicts if not isinstance(verdict, float)]
        averages = [verdict for verdict in verdicts if isinstance(verdict, float)]
        return sum(averages) if averages else self.thoughts.valued(text, replies)


def expected(likelihoods: Sequence[Likelihood], labels: Mapping[str, float]) -> float:
    """The expected value of a verdict, with the model's probability of each label.

    ModelError if all labels have probability 0, or one has a log-prob that is no number.
    """
    shares, _ = normalised({label: each.logprob for label, each in zip(labels, likelihoods, strict=True)})
    return sum(shares[label] * worth for label, worth in labels.items())


def choose(values: Sequence[float], count: int, select: Select, rng: Random) -> list[int]:
    """The indices of `count` states: the most valuable, or drawn in proportion to value, with replacement.

    A value of NaN is below all others. Nothing is drawn if the values' sum is not a finite number above 0.
    """
    if select == "sample" and 0 < sum(values) < math.inf:
        return rng.choices(range(len(values)), weights=values, k=count)
    return sorted(range(len(values)), key=lambda index: (math.isnan(values[index]), -values[index]))[:count]
