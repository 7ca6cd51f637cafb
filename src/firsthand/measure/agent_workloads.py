"""Engine workloads of agents and searches: long context, shared prefix, second turn, tree of thoughts.

Tokens are counted by the engine. The tokens that a server without prefix caching would compute are calculated: each
request computes its whole prompt. Serving jobs that any engine can run are in `workloads.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from random import Random

from firsthand.engine.core.engine import Engine
from firsthand.engine.core.sequence import Request
from firsthand.measure.workloads import Ids, Metric, ServingJob, Workload, WorkloadSizes, raise_errors, random_ids, run
from firsthand.model import Sampling


def agent_workloads(sizes: WorkloadSizes, *, vocab: int, context: int) -> list[Workload[Engine]]:
    """Returns all agent workloads, for a model with this vocabulary size and context."""
    return [
        _long_context(sizes, vocab, context),
        _shared_prefix(sizes, vocab),
        _second_turn(sizes, vocab),
        _tree_of_thoughts(sizes, vocab),
    ]


def answers(engine: Engine, requests: Iterable[Request]) -> list[list[tuple[Ids, float]]]:
    """Returns each request's answers with their summed log-probs. Steps until all are done."""
    places = {engine.add(request): (place, request.n) for place, request in enumerate(requests)}
    found: list[list[tuple[Ids, float]]] = [[((), 0.0)] * n for _, n in places.values()]
    while engine.has_work:
        for output in raise_errors(engine.step()):
            samples = found[places[output.request_id][0]]
            ids, logprob = samples[output.index]
            samples[output.index] = (ids + output.token_ids, logprob + sum(output.logprobs))
    return found


def likelihoods(engine: Engine, prefixes: Iterable[Ids], continuation: Ids) -> list[float]:
    """Returns the log-prob of the same continuation after each prefix. Steps until all are done."""
    places = {engine.add_score(prefix, [continuation]): place for place, prefix in enumerate(prefixes)}
    found = [0.0] * len(places)
    while engine.has_work:
        for output in raise_errors(engine.step()):
            found[places[output.request_id]] = sum(output.logprobs)
    return found


def _long_context(sizes: WorkloadSizes, vocab: int, context: int) -> Workload[Engine]:
    """Decoding one answer after a long context, compared with a short one."""
    new = sizes.new_tokens + 1
    long = min(sizes.long, context - new)
    short = min(sizes.short, long)
    texts = [random_ids(Random(f"context {length}"), length, vocab) for length in (short, long)]

    def measure(engine: Engine, seed: int) -> list[float]:
        # contexts repeat in every round and may be cached: only decoding is timed
        timings = [run(engine, ServingJob("", (text,), (new,))) for text in texts]
        short_ms, long_ms = (1000 * timing.decode_s / timing.decode_tokens for timing in timings)
        return [long_ms / short_ms, short_ms, long_ms]

    figures = (
        Metric(f"decode at {long} / at {short}", "x", "cost of a token after the long context against the short one"),
        Metric(f"decode at {short}", "ms/token", "one answer at a time"),
        Metric(f"decode at {long}", "ms/token", "one answer at a time"),
    )
    return Workload(figures, long + new + short + new, long + new, measure)


def _shared_prefix(sizes: WorkloadSizes, vocab: int) -> Workload[Engine]:
    """Many branches of one prefix: few-shot headers, self-consistency, forked agents."""
    branches, each = sizes.branches, sizes.suffix

    def measure(engine: Engine, seed: int) -> list[float]:
        random = Random(f"prefix {seed}")
        prefix = random_ids(random, sizes.prefix, vocab)
        prompts = tuple(prefix + random_ids(random, each, vocab) for _ in range(branches))
        before = engine.stats().prefill_tokens
        started = time.perf_counter()
        run(engine, ServingJob("", (prefix,), (1,)))
        timing = run(engine, ServingJob("", prompts, (each + 1,) * branches))
        seconds = time.perf_counter() - started
        computed = engine.stats().prefill_tokens - before
        return [timing.decode_tokens / timing.decode_s, timing.output_tokens / seconds, computed]

    alone = sizes.prefix + branches * (sizes.prefix + each)
    figures = (
        Metric(
            "shared prefix: decode",
            "tokens/s",
            f"{branches} answers at a time, each after {sizes.prefix} shared tokens and {each} of its own",
        ),
        Metric("shared prefix: output", "tokens/s", "the same, with the prompts in the time"),
        Metric("shared prefix: prompt tokens computed", "tokens", f"{alone:,} if nothing were shared"),
    )
    positions = sizes.prefix + branches * (2 * each + 1)
    return Workload(figures, positions, sizes.prefix + 2 * each + 1, measure)


def _second_turn(sizes: WorkloadSizes, vocab: int) -> Workload[Engine]:
    """An agent's second turn: the first prompt, its answer, and new tokens."""

    def measure(engine: Engine, seed: int) -> list[float]:
        random = Random(f"turn {seed}")
        prompt = random_ids(random, sizes.turn, vocab)
        [[(answer, _)]] = answers(engine, [Request(prompt, Sampling(max_tokens=sizes.answer))])
        before = engine.stats().prefill_tokens
        second = ServingJob("", (prompt + answer + random_ids(random, sizes.next_turn, vocab),), (2,))
        timing = run(engine, second)
        # the answer's last token was sampled but never computed, so it counts as new
        beyond = engine.stats().prefill_tokens - before - (sizes.next_turn + 1)
        return [beyond, 1000 * timing.first_s]

    whole = sizes.turn + sizes.answer + sizes.next_turn
    figures = (
        Metric(
            "second turn: old tokens computed again", "tokens", f"of {whole} in its prompt, {sizes.next_turn} are new"
        ),
        Metric("second turn: time to first token", "ms", "nothing else being served"),
    )
    return Workload(figures, whole + 2, whole + 2, measure)


def _tree_of_thoughts(sizes: WorkloadSizes, vocab: int) -> Workload[Engine]:
    """Breadth-first search: proposals for each state, each valued by a question, the best kept (Yao et al., 2023)."""

    def measure(engine: Engine, seed: int) -> list[float]:
        before = engine.stats().prefill_tokens
        started = time.perf_counter()
        alone = tree_of_thoughts(engine, sizes, vocab=vocab, seed=seed)
        seconds = time.perf_counter() - started
        computed = engine.stats().prefill_tokens - before
        return [alone / computed, computed, alone, seconds]

    shape = f"b={sizes.breadth}, {sizes.steps} steps, {sizes.proposals} proposals a state, each valued"
    figures = (
        Metric("tree of thoughts: saved", "x", f"prompt tokens of a server without forks against ours; {shape}"),
        Metric("tree of thoughts: prompt tokens computed", "tokens", "counted by the engine"),
        Metric(
            "tree of thoughts: without forks", "tokens", "if each proposal and each value computed its whole prompt"
        ),
        Metric("tree of thoughts: time", "s", "of the whole search"),
    )
    depth = sizes.problem + sizes.steps * sizes.thought + sizes.question + 1
    widest = sizes.breadth * sizes.proposals
    return Workload(figures, sizes.problem + widest * (depth - sizes.problem), depth, measure)


def tree_of_thoughts(engine: Engine, sizes: WorkloadSizes, *, vocab: int, seed: int) -> int:
    """Run the search; returns the prompt tokens that a server without prefix caching would compute.

    The model samples its thoughts and values each by the log-prob of one token after a question.
    """
    random = Random(f"tree {seed}")
    question, verdict = random_ids(random, sizes.question, vocab), random_ids(random, 1, vocab)
    states = [random_ids(random, sizes.problem, vocab)]
    alone = 0
    for step in range(sizes.steps):
        sampling = Sampling(max_tokens=sizes.thought, temperature=0.8, seed=seed + step)
        proposed = answers(engine, [Request(state, sampling, n=sizes.proposals) for state in states])
        alone += sizes.proposals * sum(map(len, states))
        thoughts = [state + ids for state, group in zip(states, proposed, strict=True) for ids, _ in group]
        values = likelihoods(engine, [thought + question for thought in thoughts], verdict)
        alone += sum(len(thought + question) for thought in thoughts)
        best = sorted(range(len(thoughts)), key=lambda place: (-values[place], place))
        states = [thoughts[place] for place in best[: sizes.breadth]]
    return alone
