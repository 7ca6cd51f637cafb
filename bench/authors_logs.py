"""The authors' published logs of GPT-4 as cassettes, and what replaying them gives: `python bench/authors_logs.py DATA`.

DATA is a folder that holds `cassettes/tree-of-thought` and `cassettes/reflexion` (MIT; princeton-nlp/tree-of-thought-llm@ab40034,
noahshinn/reflexion@218cf0e), and `reasoning/game24.csv` and `reasoning/crosswords_mini0505.json`. Where a log holds less than the
replies, this file says what stands for them; nothing that decides a result is made up.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.game24 import Game24Thoughts, game24, thoughts
from firsthand.model import Completion, Usage
from firsthand.message import assistant
from firsthand.patterns.tot import tot
from firsthand.providers.cassette import Cassette, CassetteMiss
from firsthand.rollout import rollout
from firsthand.trace import Trace

GAME24 = "game24_gpt-4_0.7_propose1_value3_greedy5_start900_end1000.json"


def load(data: Path, name: str) -> Any:
    """A log."""
    return json.loads((data / "cassettes" / name).read_text(encoding="utf-8"))


# -- game of 24 --


class AsLogged(Game24Thoughts):
    """Two habits of the authors' code that ours leaves out, for replays that are equal in every state and value.

    A blank line of a reply is a thought. And their cache of values is asked before the rule that a last step without an answer
    is worth 0, so that such a state is worth whatever was said of its numbers before.
    """

    def proposed(self, state: str, replies: Sequence[str]) -> list[str]:
        """A state for each line, blank or not."""
        return [f"{state}{line}\n" for reply in replies for line in reply.split("\n")]

    def _is_unanswered(self, state: str) -> bool:
        return False


def game24_recordings(puzzle: Mapping[str, Any]) -> dict[str, list[str]]:
    """A puzzle's replies by request. The log holds states, and the values summed over three verdicts.

    A reply to a proposal is the new lines under its state, in order. Three verdicts follow from their sum, for 20, 1 and .001
    add up in one way only. Of a state that is there twice the log values the second 0.
    """
    recordings: dict[str, list[str]] = defaultdict(list)
    space = AsLogged(puzzle["steps"][0]["x"])
    for step in puzzle["steps"]:
        grown = list(step["new_ys"])
        for index, state in enumerate(step["ys"]):
            lines: list[str] = []
            twin = state in step["ys"][index + 1 :]  # one state was kept twice: its second list begins where lines recur
            while grown and grown[0].startswith(state):
                line = grown[0][len(state) : -1]
                if twin and line in lines:
                    break
                lines.append(line)
                grown.pop(0)
            recordings[space.propose(state).prompt].append("\n".join(lines))
        assert not grown, "a state of the log has no parent"
        for text, value in reversed(list(zip(step["new_ys"], step["values"], strict=True))):
            for ask in space.value(text):  # reversed, for of a repeated state the first has the value
                recordings[ask.prompt] = verdicts(value)
    return recordings


def verdicts(value: float) -> list[str]:
    """The three verdicts whose sum is the value; one that the authors' code did not understand adds nothing."""
    sure, likely, impossible = int(value // 20), int(value % 20), round(value % 1 * 1000)
    said = ["sure"] * sure + ["likely"] * likely + ["impossible"] * impossible
    return said + ["(no verdict)"] * (3 - len(said))


class Lenient:
    """A cassette that answers with nothing where nothing was recorded, and counts how often: for lower bounds."""

    def __init__(self, cassette: Cassette):
        self.name, self.fingerprint = cassette.name, cassette.fingerprint
        self.cassette = cassette
        self.missing = 0

    async def complete(self, prompt, sampling, *, tools=(), n=1):
        """What was recorded, or empty replies."""
        try:
            return await self.cassette.complete(prompt, sampling, tools=tools, n=n)
        except CassetteMiss:
            self.missing += 1
            return [Completion(assistant(""), "stop", Usage())] * n


async def replay_game24(data: Path, breadth: int = 5, space: type[Game24Thoughts] = Game24Thoughts) -> list[Trace]:
    """The 100 puzzles, each from its own cassette. With `breadth` below the log's 5 some states were never expanded by the
    authors: they lead nowhere here, so that what is solved is a lower bound."""
    benchmark = game24(data=str(data))
    tasks = {task.metadata["numbers"]: task for task in benchmark.tasks(0)}
    traces = []
    for puzzle in load(data, f"tree-of-thought/{GAME24}"):
        cassette = Cassette(game24_recordings(puzzle), name="cassette:gpt-4")
        model = cassette if breadth == 5 else Lenient(cassette)
        options = {"breadth": breadth, "thoughts": lambda task: space(task.metadata["numbers"])}
        agent = Agent("tot", model, tot, options)
        traces.append(await rollout(agent, tasks[puzzle["steps"][0]["x"]], benchmark=benchmark))
    return traces
