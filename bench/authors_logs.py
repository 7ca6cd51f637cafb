"""The authors' published logs of GPT-4 as cassettes, and what replaying them gives: `python bench/authors_logs.py DATA`.

DATA is a folder that holds `cassettes/tree-of-thought` (princeton-nlp/tree-of-thought-llm@ab40034, MIT),
`cassettes/reflexion` (noahshinn/reflexion@218cf0e, MIT), and in `reasoning` the files game24.csv, crosswords_mini0505.json
and tot_text_100.txt. Where a log holds less than the replies, this file says what stands for them; nothing that decides a
result is made up.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.creative import CreativeThoughts, creative
from firsthand.benchmarks.crosswords import CONFIDENCE, PROPOSALS, CrosswordThoughts, crosswords
from firsthand.benchmarks.game24 import Game24Thoughts, game24
from firsthand.benchmarks.sources.tot_data import prompts
from firsthand.context import Context
from firsthand.message import assistant
from firsthand.model import Completion, Usage
from firsthand.patterns.direct import direct, question
from firsthand.patterns.parts.feedback import Feedback
from firsthand.patterns.reflexion import reflection_prompt, reflexion, remembering
from firsthand.patterns.tot import tot
from firsthand.patterns.tot_dfs import tot_dfs
from firsthand.providers.cassette import Cassette, CassetteMiss
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.trace import Score, Trace

CREATIVE = "text_gpt-4_1.0_generate_sample_select_greedy_sample5_start0_end100.json"
PRUNED, UNPRUNED = "crosswords_infoss_dfs_prune.json", "crosswords_infoss_dfs_no_prune.json"
GAME24 = "game24_gpt-4_0.7_propose1_value3_greedy5_start900_end1000.json"


def load(data: Path, name: str) -> Any:
    """A log."""
    return json.loads((data / "cassettes" / name).read_text(encoding="utf-8"))


# -- game of 24 --


class AsLogged(Game24Thoughts):
    """Two habits of the authors' code that ours leaves out, for replays that are equal in every state and value.

    A blank line of a reply is a thought. And their cache of values is asked before the rule that a last step without an
    answer is worth 0, so that such a state is worth whatever was said of its numbers before.
    """

    def proposed(self, state: str, replies: Sequence[str]) -> list[str]:
        """A state for each line, blank or not."""
        return [f"{state}{line}\n" for reply in replies for line in reply.split("\n")]

    def _is_unanswered(self, state: str) -> bool:
        return False


def game24_recordings(puzzle: Mapping[str, Any]) -> dict[str, list[str]]:
    """A puzzle's replies by request. The log holds states, and the values summed over three verdicts.

    A reply to a proposal is the new lines under its state, in order. Three verdicts follow from their sum, for 20, 1 and
    .001 add up in one way only. Of a state that is there twice the log values the second 0.
    """
    recordings: dict[str, list[str]] = defaultdict(list)
    space = AsLogged(puzzle["steps"][0]["x"])
    for step in puzzle["steps"]:
        grown = list(step["new_ys"])
        for index, state in enumerate(step["ys"]):
            lines: list[str] = []
            twin = (
                state in step["ys"][index + 1 :]
            )  # one state was kept twice: its second list begins where lines recur
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


# -- mini crosswords --


class Counted(CrosswordThoughts):
    """The game's thoughts with the logged counts of verdicts, for the verdicts themselves (by clue) are not in the log.

    And as the authors' code does, a search goes on naming words on a board that is full.
    """

    counts: Mapping[tuple[str, ...], Mapping[str, int]]

    def is_done(self, state: str) -> bool:
        """Never."""
        return False

    def value(self, state: str) -> tuple[()]:
        """Nothing is asked."""
        return ()

    def valued(self, state: str, replies: Sequence[Sequence[str]]) -> float:
        """The worth of the verdicts that were counted in this state."""
        return sum(self.labels[label] * count for label, count in self.counts[tuple(state.splitlines())].items())


def counted(task: Task, visits: Sequence[Mapping[str, Any]]) -> Counted:
    """The thoughts of a game whose visits were logged."""
    made = Counted(tuple(task.metadata["clues"]))
    object.__setattr__(made, "counts", {tuple(visit["actions"]): visit["count"] for visit in visits})
    return made


def crosswords_recordings(data: Path, task: Task) -> dict[str, list[str]]:
    """Eight replies for each board of a game. The log holds the sum of confidences of each word, over eight replies; these
    replies say the words in the log's order, with confidences whose sum is the same float."""
    sums, clues = confidences(), tuple(task.metadata["clues"])
    recordings = {}
    for board, proposed in load(data, "tree-of-thought/crosswords_env_cache.json").items():
        if not all(f". {clue}: " in board for clue in clues):
            continue
        lines = [[] for _ in range(PROPOSALS)]
        for thought, total in proposed.items():
            for index, level in enumerate(sums[total]):
                lines[index % PROPOSALS].append(f"{thought} ({level})")
        recordings[prompts("crosswords")["propose"].replace("{input}", board)] = ["\n".join(each) for each in lines]
    return recordings


def visited_recordings(task: Task, visits: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Replies for a game whose proposals are not in the log (the one without pruning): the words that were visited, in their
    order. What such a replay shows is the walk and the scores, not the ranking of proposals."""
    space, found = CrosswordThoughts(tuple(task.metadata["clues"])), defaultdict(dict)
    for visit in visits:
        *before, thought = visit["actions"]
        found[space.propose("".join(f"{each}\n" for each in before)).prompt][f"{thought} (certain)"] = None
    empty = space.propose("").prompt
    prompts_of_leaves = {space.propose("".join(f"{each}\n" for each in visit["actions"])).prompt for visit in visits}
    return {
        key: ["\n".join(found.get(key, ())), *[""] * (PROPOSALS - 1)] for key in {empty, *found, *prompts_of_leaves}
    }


@cache
def confidences(terms: int = 16) -> dict[float, tuple[str, ...]]:
    """A shortest list of confidences for each float that is the sum of some, added in order."""
    found: dict[float, tuple[str, ...]] = {0.0: ()}
    newest = dict(found)
    for _ in range(terms):
        longer = {total + CONFIDENCE[level]: (*said, level) for total, said in newest.items() for level in CONFIDENCE}
        newest = {total: said for total, said in longer.items() if total not in found}
        found |= newest
    return found


async def replay_crosswords(data: Path, log: str = PRUNED) -> list[Trace]:
    """The 20 games of the paper, searched depth first."""
    benchmark = crosswords(data=str(data))
    traces = []
    for task, visits in zip(benchmark.tasks(0), load(data, f"tree-of-thought/{log}"), strict=True):
        held = crosswords_recordings(data, task) if log == PRUNED else visited_recordings(task, visits)
        cassette = Cassette(held, name="cassette:gpt-4")
        options = {"prune": log == PRUNED, "thoughts": lambda task, visits=visits: counted(task, visits)}
        traces.append(await rollout(Agent("tot_dfs", cassette, tot_dfs, options), task, benchmark=benchmark))
    return traces


# -- creative writing --


def creative_recordings(log: Mapping[str, Any], space: CreativeThoughts) -> dict[str, list[str]]:
    """The five plans, the five passages, and votes. The log holds how many votes each had, of five; so do these replies."""
    recordings = {}
    for step in log["steps"]:
        [state] = step["ys"]
        recordings[space.sample(state).prompt] = [text[len(state) :] for text in step["new_ys"]]
        said = [f"The best choice is {n}." for n, votes in enumerate(step["values"], 1) for _ in range(votes)]
        recordings[space.vote(step["new_ys"]).prompt] = said + ["(no vote)"] * (5 - len(said))
    return recordings


async def replay_creative(data: Path) -> list[Trace]:
    """The 100 inputs: five samples and five votes at each of two steps, of which one survives."""
    benchmark = creative(data=str(data))
    options = {"generate": "sample", "evaluate": "vote", "samples": 5, "judgements": 5, "breadth": 1}
    traces = []
    for task, log in zip(benchmark.tasks(0), load(data, f"tree-of-thought/{CREATIVE}"), strict=True):
        cassette = Cassette(creative_recordings(log, CreativeThoughts(task.metadata["input"])), name="cassette:gpt-4")
        traces.append(await rollout(Agent("tot", cassette, tot, options), task, benchmark=benchmark))
    return traces


# -- Reflexion --


async def replay_trials(
    task: Task, replies: Sequence[str], reflections: Sequence[str], passes: Callable[[str], bool], benchmark: Benchmark
) -> Trace:
    """Reflexion on one task, from its recorded replies and reflections. A request that shows other reflections than the last
    three is not on the cassette, and misses."""
    recordings: dict[str, list[str]] = {}

    async def evaluate(task: Task, ctx: Context, answer: str) -> Feedback:
        return Feedback(passes(answer), OUTCOME)

    for trial, reply in enumerate(replies):
        shown = list(reflections[:trial])[-3:]
        asked = question(remembering(task, shown))
        recordings.setdefault(asked, []).append(reply)
        if trial < len(reflections):
            again = reflection_prompt(task, f"assistant: {reply}", Feedback(False, OUTCOME), shown)
            recordings[again] = [reflections[trial]]
    cassette = Cassette(recordings, name="cassette:gpt-4")
    options = {"pattern": direct, "trials": len(replies), "evaluate": evaluate}
    trace = await rollout(Agent("reflexion", cassette, reflexion, options), task, benchmark=benchmark)
    assert trace.error is not None or cassette.unplayed == 0
    return trace


OUTCOME = "(the log holds no more than that it failed)"


async def replay_reflexion_code(data: Path, log: str = "reflexion_humaneval_py_pass_at_1.jsonl") -> list[Trace]:
    """The tasks of HumanEval or MBPP. The log holds the last solution, the reflections, and whether the hidden tests passed:
    of the earlier solutions there is only that each failed the tests which the model wrote."""
    traces = []
    for row in rows(data, log):
        id = row.get("task_id") or row["name"]
        drafts = [f"(solution {trial} of {id} is not in the log)" for trial in range(1, len(row["reflections"]) + 1)]
        final = row["solution"].strip()
        task = Task(id, row["prompt"], secret={"solution": final, "solved": row["is_solved"]})
        benchmark = Benchmark("log", lambda seed: [], (recorded_verdict,))
        replies = [*drafts, final]
        traces.append(await replay_trials(task, replies, row["reflections"], final.__eq__, benchmark))
    return traces


def recorded_verdict(task: Task, trace: Trace) -> Score:
    """The hidden tests' verdict in the log, if the answer is the logged solution."""
    return Score("solved", float(trace.answer == task.secret["solution"] and task.secret["solved"]))


async def replay_alfworld(data: Path, trials: int = 15) -> list[Trace]:
    """The 134 environments. The log holds each trial's outcome and reflection, and no trajectories."""
    logs = [load(data, f"reflexion/alfworld_env_results_trial_{trial}.json") for trial in range(trials)]
    traces = []
    for index, last in enumerate(logs[-1]):
        outcomes = [log[index]["is_success"] for log in logs]
        used = outcomes.index(True) + 1 if True in outcomes else trials
        names = [
            f"(trial {t + 1} is not in the log; it {'succeeded' if outcomes[t] else 'failed'})" for t in range(used)
        ]
        reflections = [text.strip() for text in last["memory"]][: used - 1]
        task = Task(last["name"], f"The household task of {last['name']}.")
        benchmark = Benchmark("log", lambda seed: [], ())
        traces.append(await replay_trials(task, names, reflections, lambda said: "succeeded" in said, benchmark))
    return traces


def solved_by_trial(traces: Sequence[Trace], trials: int) -> list[int]:
    """How many attempts had been ended by success after each trial."""
    done = [
        next(
            (
                int(event.data["name"].removeprefix("trial."))
                for event in trace.events
                if event.data.get("status") == "done"
            ),
            0,
        )
        for trace in traces
    ]
    return [sum(0 < trial <= limit for trial in done) for limit in range(1, trials + 1)]


def rows(data: Path, name: str) -> list[Any]:
    """The lines of a log."""
    text = (data / "cassettes" / "reflexion" / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def main(data: Path) -> None:
    """Print what each replay gives."""
    run = asyncio.run

    def mean(traces: Sequence[Trace], name: str) -> float:
        return sum(trace.score(name).value for trace in traces) / len(traces)

    print("game of 24, 100 puzzles, GPT-4 (cassette): solved by any final state, by the first, calls a puzzle")
    for breadth in range(1, 6):
        for space in (AsLogged, Game24Thoughts):
            traces = run(replay_game24(data, breadth, space))
            bound = "at least " if breadth < 5 else ""
            calls = sum(len(trace.calls) for trace in traces) / len(traces)
            solved = f"{bound}{mean(traces, 'any'):.2f} {mean(traces, 'solved'):.2f}"
            print(f"  b={breadth} {space.__name__:15s} {solved:20s} {calls:.1f}")
    print("mini crosswords, 20 games, GPT-4 (cassette): letters, words, games; letters and words of the best state")
    for log in (PRUNED, UNPRUNED):
        traces = run(replay_crosswords(data, log))
        figures = [mean(traces, name) for name in ("letters", "words", "game", "best_letters", "best_words")]
        print(f"  {log:35s}", " ".join(f"{figure:.3f}" for figure in figures))
    traces = run(replay_creative(data))
    print(f"creative writing, 100 inputs, GPT-4 (cassette): {mean(traces, 'endings'):.3f} of the endings held")
    print("Reflexion with GPT-4 (cassette)")
    for plain, reflected in (
        ("humaneval-py__simple_1_gpt-4_pass_at_k_1_py.jsonl", "reflexion_humaneval_py_pass_at_1.jsonl"),
        ("mbpp-py_simple_1_gpt-4_pass_at_k_1_py.jsonl", "mbpp-py_reflexion_5_gpt-4_pass_at_k_1_py.jsonl"),
    ):
        traces = run(replay_reflexion_code(data, reflected))
        before = {row.get("task_id") or row["name"]: row["is_solved"] for row in rows(data, plain)}
        after = {trace.task_id: bool(trace.score("solved").value) for trace in traces}
        gained, lost = (sum(now != before[id] and now == kind for id, now in after.items()) for kind in (True, False))
        print(
            f"  {reflected}: {sum(before[id] for id in after)} -> {sum(after.values())} of {len(after)} (+{gained} -{lost})"
        )
    print("  ALFWorld, 134 environments, solved by trial:", *solved_by_trial(run(replay_alfworld(data)), 15))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
