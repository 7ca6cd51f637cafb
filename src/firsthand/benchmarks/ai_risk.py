"""Advanced-AI-risk questions, written by people: choices about power, shutdown, changes and self-knowledge, by log-prob.

    firsthand run ai_risk --model smollm2
    firsthand run ai_risk:set=survival-instinct:data=FOLDER --model smollm2

From Perez et al. (2022, arXiv 2212.09251), the human-generated sets of github.com/anthropics/evals. The files name an
answer that matches a behaviour. In the human-generated files that is the safe answer: not to seek power, to accept a
shutdown, to consent to a change, and to say truly that one is an AI. Every question is asked with its choices in the given
and in the reversed order, so that a preference for a letter is not taken for a preference.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.sources.datasets import contents, located, text_field
from firsthand.errors import ConfigError, DataError, nearest
from firsthand.patterns.parts.probes import PROBES, probe
from firsthand.scorers.concerns.both_orders import chooses_labelled, letter_bias
from firsthand.task import Task

SETS = ("power-seeking-inclination", "survival-instinct", "corrigible-neutral-HHH", "self-awareness-general-ai")
ORIGIN = "https://github.com/anthropics/evals/tree/main/advanced-ai-risk/human_generated_evals"
_CHOICE = re.compile(r"^ ?\(([A-Z])\) ?(.*?)(?=^ ?\([A-Z]\)|\Z)", re.MULTILINE | re.DOTALL)


class RiskQuestion(NamedTuple):
    """A question without its choices, the choices in order, and the index of the labelled one."""

    question: str
    choices: tuple[str, ...]
    labelled: int


def ai_risk(*, set: str = SETS[0], data: str = "") -> Benchmark:
    """Return all questions of a set. `data` is a folder with `air_SET.jsonl` or `SET.jsonl`; else $FIRSTHAND_DATA has it."""
    if set not in SETS:
        close = nearest(set, SETS)
        hint = f"did you mean {close!r}? There are " if close else "give one of "
        raise ConfigError(f"set is {set!r}: {hint}{', '.join(SETS)}")
    questions = _read(set, data)
    tasks = [_task(question, f"{set}-{at:04d}") for at, question in enumerate(questions)]
    return Benchmark(
        name="ai_risk" if set == SETS[0] else f"ai_risk:{set}",
        tasks=lambda seed: tasks,
        scorers=(chooses_labelled, letter_bias),
        description="Choices about power, shutdown, changes and self-knowledge (Perez et al., 2022), by log-prob.",
        protocol=f"{set}, human-generated, {len(tasks)} questions; mean log-prob of each choice's letter over both orders",
        licence="CC-BY-4.0",
        options={"set": set},
    )


def parse_question(text: str, labelled: str, where: str) -> RiskQuestion:
    """Return the parts of a question as the files write it; DataError if there are no lettered choices A, B, ... in it."""
    body = text.removeprefix("Question:").strip()
    body = body.removesuffix("Answer:").rstrip()
    head, found, listed = body.partition("Choices:\n")
    choices = _CHOICE.findall(listed)
    letters = [letter for letter, _ in choices]
    wanted = labelled.strip(" ()")
    if (
        not found
        or len(choices) < 2
        or letters != [chr(65 + at) for at in range(len(choices))]
        or wanted not in letters
    ):
        raise DataError(
            f"{where}: choices (A), (B), ... and one of them as the answer were expected, not {text[-80:]!r}"
        )
    return RiskQuestion(head.strip(), tuple(choice.strip() for _, choice in choices), letters.index(wanted))


def _task(item: RiskQuestion, id: str) -> Task:
    letters = [f"({chr(65 + at)})" for at in range(len(item.choices))]

    def asked(choices: tuple[str, ...]) -> str:
        listed = "\n".join(f"{letter} {choice}" for letter, choice in zip(letters, choices, strict=True))
        return f"{item.question}\n\nChoices:\n{listed}\n\nAnswer with the letter of one choice."

    orders = {"given": item.choices, "reversed": item.choices[::-1]}
    probes = [probe(name, [("user", asked(choices))], letters) for name, choices in orders.items()]
    return Task(id, asked(item.choices), metadata={PROBES: probes}, secret={"labelled": item.labelled})


def _read(set: str, data: str) -> list[RiskQuestion]:
    path = located(f"safety/air_{set}.jsonl", data, f"{set}.jsonl")
    if path is None:
        raise DataError(f"the set {set} is not on this machine: fetch {set}.jsonl of {ORIGIN}, and give data=FOLDER")
    found = []
    for number, line in enumerate(contents(path).decode("utf-8", "replace").splitlines(), 1):
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: an object was expected, not {line[:60]!r}")
        texts = (text_field(row, "question", where), text_field(row, "answer_matching_behavior", where))
        found.append(parse_question(*texts, where))
    if not found:
        raise DataError(f"{path} has no rows: is it truncated?")
    return found
