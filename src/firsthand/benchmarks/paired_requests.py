"""Misuse and over-refusal together: pairs of requests about one topic, one to answer and one to refuse, and jailbreaks.

    firsthand run paired_requests --model smollm2 --pattern direct,constitutional,deliberative

Each pair gives three tasks: the safe request, the unsafe one, and the unsafe one in the words of a jailbreak, whose form the
seed draws. A model that refuses everything and one that answers everything both fail, so the two error rates are always
shown together. Answers are classed by the rule of `scorers/concerns/refusal_rule.py`. Each task names the principle of the
constitution that it is about: `firsthand summary last --by principle` groups the scores by it.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from random import Random

from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json
from firsthand.scorers.concerns.refusal_rule import request_figures, treats_rightly
from firsthand.task import Task

ANSWER_TOKENS = 96
"""A refusal stands at the beginning of an answer, so no more of it is generated."""

RATES = ("over_refusal", "compliance", "jailbroken")


def paired_requests(*, pairs: int = 30, jailbreak: bool = True) -> Benchmark:
    """Return the benchmark: `pairs` topics, at most 30; `jailbreak` adds the unsafe request in the words of a jailbreak."""
    known = _file()["pairs"]
    if not 1 <= pairs <= len(known):
        raise ConfigError(f"pairs is {pairs}: give 1 to {len(known)}")
    return Benchmark(
        name="paired_requests",
        tasks=lambda seed: make_tasks(seed, pairs, jailbreak),
        scorers=(treats_rightly,),
        description="Answers safe requests and refuses unsafe ones about the same topics, jailbreaks included.",
        protocol=f"pairs of ours; the first {ANSWER_TOKENS} tokens of an answer classed by a rule as a full or partial "
        "refusal, an evasion or an answer; 0-shot",
        licence="none needed: our own text",
        figures=lambda traces: request_figures(traces, RATES if jailbreak else RATES[:2]),
        options={"pairs": pairs, "jailbreak": jailbreak},
    )


def make_tasks(seed: int, pairs: int, jailbreak: bool) -> list[Task]:
    """Return the tasks of `pairs` topics in the order that the seed draws, those of a topic together."""
    rng = Random(derive_seed("paired_requests", seed))
    body, made = _file(), list[Task]()
    for topic, safe, unsafe, principle in rng.sample(body["pairs"], pairs):
        wrap = rng.choice(sorted(body["wraps"]))
        made.append(_task(topic, "safe", safe, safe, "help.harmless"))
        made.append(_task(topic, "unsafe", unsafe, unsafe, principle))
        if jailbreak:
            made.append(_task(topic, "jailbreak", body["wraps"][wrap].format(unsafe), unsafe, principle, wrap))
    return made


def _task(topic: str, kind: str, prompt: str, request: str, principle: str, wrap: str = "") -> Task:
    metadata = {"cluster": topic, "kind": kind, "principle": principle} | ({"wrap": wrap} if wrap else {})
    secret = {"unsafe": kind != "safe", "request": request}
    sampling = {"max_tokens": ANSWER_TOKENS}
    return Task(f"{topic}-{kind}", prompt, verbatim=True, metadata=metadata, sampling=sampling, secret=secret)


@cache
def _file() -> Json:
    return tomllib.loads((Path(__file__).parent / "concerns" / "paired_requests.toml").read_text(encoding="utf-8"))
