"""Creative writing: four paragraphs that must end with four given sentences (Yao et al., 2023).

The scorer counts exact endings. Coherence needs a judge: the paper asks GPT-4 for a score from 1 to 10, which
`CreativeThoughts.value` does with the same prompt, for searches that rate states one by one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.sources.tot_data import PACKAGE, find, prompts
from firsthand.errors import DataError
from firsthand.patterns.parts.thoughts import ThoughtRequest, count_votes
from firsthand.task import Task
from firsthand.trace import Score, Trace

MAX_CHARS = 40_000
_SCORE = re.compile(r"coherency score is\D{0,20}(\d{1,2})", re.IGNORECASE)
_SENTENCE = re.compile(r"[^.!?]*+(?:[.!?]++[\"'”’]*\s*+|\Z)")


def creative(*, data: str = "") -> Benchmark:
    """Return the benchmark over the paper's 100 inputs; `data` is a folder with `tot_text_100.txt`.

    The paper searches with `tot:generate=sample:evaluate=vote:judgements=5:breadth=1`.
    """
    found = find(("tot_text_100.txt", "data_100_random_text.txt"), "text/data_100_random_text.txt", data)
    if found is None:
        raise DataError(f"the inputs are not here: pip install {PACKAGE}, or give data=FOLDER with tot_text_100.txt")
    lines = found.text.splitlines()
    tasks = [_task(index, line) for index, line in enumerate(lines) if line.strip()]
    return Benchmark(
        name="creative",
        tasks=lambda seed: tasks,
        scorers=(endings,),
        description="Four paragraphs with given endings (Yao et al., 2023).",
        protocol=f"{len(tasks)} inputs ({found.origin}); share of the given sentences that end their paragraph; no judge",
        licence="MIT (the inputs of tree-of-thought-llm)",
        options={"data": found.origin, "sha256": found.sha256},
    )


def thoughts(task: Task) -> CreativeThoughts:
    """Return the prompts and rules by which Tree of Thoughts searches the task."""
    return CreativeThoughts(str(task.metadata["input"]))


def endings(task: Task, trace: Trace) -> Score:
    """Score the share of the four paragraphs that end with their sentence, ignoring case and quotation marks."""
    paragraphs = [each for each in passage(trace.answer or "").split("\n\n") if each.strip()]
    wanted = [_plain(sentence) for sentence in task.secret["endings"]]
    held = sum(_plain(text).endswith(end) for text, end in zip(paragraphs, wanted, strict=False))
    return Score("endings", held / len(wanted), {"paragraphs": len(paragraphs)})


def passage(text: str) -> str:
    """Return the passage in an answer: the text after the plan."""
    return text.rpartition("Passage:\n")[2].strip()


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[\"'“”‘’]", "", text).split()).casefold()


def _task(index: int, line: str) -> Task:
    sentences = [each.strip() for each in _SENTENCE.findall(line[:MAX_CHARS]) if re.search(r"[.!?]", each)]
    if not sentences:
        raise DataError(f"input {index + 1}: sentences were expected, not {line[:60]!r}")
    return Task(
        id=f"text-{index:03d}",
        prompt=prompts("creative")["direct"].replace("{input}", line).strip(),
        verbatim=True,
        thoughts="creative",
        metadata={"input": f"{line}\n"},
        secret={"endings": sentences},
    )


@dataclass(frozen=True)
class CreativeThoughts:
    """The paper's thoughts: a plan, then a passage, each sampled whole and chosen by votes."""

    input: str
    steps: int = 2
    hopeless: float = 0.0

    @property
    def labels(self) -> Mapping[str, float]:
        """Map the labels 1 to 10 to their values."""
        return {str(score): float(score) for score in range(1, 11)}

    def propose(self, state: str) -> ThoughtRequest:
        """Return the request of `sample`."""
        return self.sample(state)

    def proposed(self, state: str, replies: Sequence[str]) -> list[str]:
        """Return one state per reply."""
        return [self.sampled(state, reply) for reply in replies]

    def sample(self, state: str) -> ThoughtRequest:
        """Ask with the instruction, and the plan if there is one."""
        prompt = prompts("creative")["cot"].replace("{input}", self.input) + state
        return ThoughtRequest(prompt) if state else ThoughtRequest(prompt, ("\nPassage:\n",))

    def sampled(self, state: str, reply: str) -> str:
        """Return the state extended by the reply."""
        return state + reply

    def value(self, state: str) -> tuple[ThoughtRequest, ...]:
        """Ask for a coherency score."""
        return (ThoughtRequest(prompts("creative")["score"] + passage(state)),)

    def valued(self, state: str, replies: Sequence[Sequence[str]]) -> float:
        """Return the mean of the scores in the replies."""
        scores = [int(found[-1]) for each in replies for reply in each if (found := _SCORE.findall(reply[-2000:]))]
        return sum(scores) / len(scores) if scores else 0.0

    def vote(self, states: Sequence[str]) -> ThoughtRequest:
        """Ask for the most promising state."""
        choices = "".join(f"Choice {number}:\n{state}\n" for number, state in enumerate(states, 1))
        return ThoughtRequest(prompts("creative")["vote"] + choices)

    def voted(self, states: Sequence[str], replies: Sequence[str]) -> list[float]:
        """Return the number of votes for each state."""
        return count_votes(len(states), replies)

    def is_done(self, state: str) -> bool:
        """Return False: a search ends at its last step."""
        return False

    def answer(self, state: str) -> str:
        """Return the passage."""
        return passage(state)
