"""Digests of scorers and of agents' code that a run keeps, so that two runs can be told to have other ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.message import Json
from firsthand.system.described_code import code_digest, names_of, own_words
from firsthand.tool import Tool

MAX_WORDS = 2_000


def scorer_digests(benchmarks: Iterable[Benchmark]) -> dict[str, list[Json]]:
    """Benchmark -> its scorers: the names that their scores may go by, their words, and the digest of their code."""
    return {
        benchmark.name: [
            {"names": names_of(each), "words": own_words(each)[:MAX_WORDS], "digest": code_digest(each)}
            for each in benchmark.scorers
        ]
        for benchmark in benchmarks
    }


def agent_digests(agents: Iterable[Agent]) -> Mapping[str, str]:
    """Agent -> the digest of the code of its pattern, tools and guards."""
    return {
        agent.name: code_digest(
            [
                agent.pattern,
                dict(agent.options),
                [each.function if isinstance(each, Tool) else each for each in agent.tools],
                list(agent.guards),
            ]
        )
        for agent in agents
    }
