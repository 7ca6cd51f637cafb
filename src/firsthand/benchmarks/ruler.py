"""RULER: 13 generated tasks that measure the effective context length (Hsieh et al., 2024, arXiv 2404.06654).

Eight needle tasks, variable tracking, common and frequent words, and question answering on SQuAD and HotpotQA, each at every
length. Templates, answer prefixes, generated tokens and scores are the published ones. The samples are drawn from our seed:
the same kind of text, not the same text. The effective length is the longest that reaches Llama-2-7B's score at 4K:
`firsthand summary last --by length --threshold 85.6%`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from random import Random

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.long_context.haystack import Essays, essays
from firsthand.benchmarks.long_context.lengths import LazyTasks, Meter, largest, meter, parse_lengths
from firsthand.benchmarks.long_context.ruler_counting import common_words, frequent_words, variable_tracking
from firsthand.benchmarks.long_context.ruler_needles import NEEDLES, needle_generator
from firsthand.benchmarks.long_context.ruler_qa import QuestionSet, qa, read_question_set
from firsthand.benchmarks.long_context.ruler_sample import RulerSample, SampleGenerator, SampleKey
from firsthand.benchmarks.protocols.protocol import Item, Protocol, choose, make_task
from firsthand.errors import ConfigError, DataError, unknown
from firsthand.loop.concurrency import derive_seed
from firsthand.scorers.contained import string_match
from firsthand.task import Task

THRESHOLD = 0.856
"""Score of Llama-2-7B (chat) at 4K, from which a length counts as effective."""
PROTOCOLS = {
    "base": Protocol(
        "RULER's table under the template `base`: the text and the answer's prefix are continued",
        query="{task}{prefix}",
        scorers=(string_match,),
        continuation=None,
    ),
    "meta-chat": Protocol(
        "RULER's table for Llama-2 and Mistral: the template `meta-chat`, [INST] written out",
        query="[INST] {task} [/INST]{prefix}",
        scorers=(string_match,),
        continuation=None,
    ),
    "chat": Protocol(
        "RULER's table for API models: text and answer prefix as one message of the chat template",
        query="{task}{prefix}",
        scorers=(string_match,),
        continuation=None,
        chat=True,
    ),
    "base-noise": Protocol(
        "no published number: as base, with niah_single_1's noise in place of essays, so nothing need be fetched",
        query="{task}{prefix}",
        scorers=(string_match,),
        continuation=None,
    ),
    "chat-noise": Protocol(
        "no published number: as chat, with niah_single_1's noise in place of essays, so nothing need be fetched",
        query="{task}{prefix}",
        scorers=(string_match,),
        continuation=None,
        chat=True,
    ),
}
TASKS = (*NEEDLES, "vt", "cwe", "fwe", "qa_1", "qa_2")
GROUPS = {
    "all": TASKS,
    "niah": tuple(NEEDLES),
    "qa": ("qa_1", "qa_2"),
    "generated": TASKS[:-2],
}


def ruler(
    *, protocol: str = "", tasks: str = "all", lengths: str = "4k", samples: int = 500, count: str = "", data: str = ""
) -> Benchmark:
    """Return the benchmark: `samples` of each of `tasks` at each of `lengths`, such as `4k-128k`, generated tokens included.

    `tasks` are names, or `niah`, `qa`, `generated` (all but qa), `all`. `count` names the counter of length: a model, whose
    tokenizer is used, or `words*1.4`. `data` is a folder with the essays and the files of SQuAD and HotpotQA.
    """
    name, chosen = choose("ruler", PROTOCOLS, protocol)
    if not 1 <= samples <= 10_000:
        raise ConfigError(f"samples is {samples}: give 1 to 10,000; RULER has 500")
    names, spans, counted = parse_tasks(tasks), parse_lengths(lengths), meter(count)
    wrap = chosen.query.removesuffix("{prefix}")
    found, question_sets = _required_data(names, data, noise=name.endswith("-noise"))
    generators = {each: _generator(each, wrap, counted, found, question_sets, data) for each in names}
    places = [SampleKey(task, length, index) for length in spans for task in names for index in range(samples)]
    origins = [found.origin if found else "noise", *(each.origin for each in question_sets.values())]
    return Benchmark(
        name=name,
        tasks=lambda seed: LazyTasks(places, partial(_task, SampleSizes(generators, counted, seed), chosen)),
        scorers=chosen.scorers,
        description="Generated tasks that measure the effective context length (Hsieh et al., 2024).",
        protocol=(
            f"{len(names)} tasks, {samples} samples each, lengths {', '.join(map(str, spans))} in {counted.unit}; "
            f"{'; '.join(origins)}; generated from the seed; {chosen.describe()}"
        ),
        licence="generated; needles in essays (c) Paul Graham; SQuAD and HotpotQA CC BY-SA 4.0",
        options={"tasks": tasks, "lengths": lengths, "samples": samples, "count": counted.unit, "protocol": protocol},
    )


def parse_tasks(text: str) -> tuple[str, ...]:
    """Parse task names such as `all`, `niah,vt` or `niah_single_1`; returned in RULER's order."""
    wanted = {each.strip() for each in text.split(",")}
    for each in wanted:
        if each not in GROUPS and each not in TASKS:
            raise unknown("RULER task", each, [*GROUPS, *TASKS], see="firsthand list benchmarks")
    return tuple(each for each in TASKS if each in wanted or any(each in GROUPS[group] for group in wanted & {*GROUPS}))


class SampleSizes:
    """Finds the size of a seed's texts: once per task and length, when the first sample is made."""

    def __init__(self, generators: dict[str, SampleGenerator], counted: Meter, seed: int):
        self.generators, self.counted, self.seed = generators, counted, seed
        self.find = cache(self._find)

    def sample(self, draw: SampleKey) -> tuple[RulerSample, int]:
        """Return the sample and its length in tokens, generated ones included; never longer than the draw's length."""
        generator, size = self.generators[draw.task], self.find(draw.task, draw.length)
        while True:
            sample = generator.make(size, self._rng(draw), draw)
            tokens = self.counted.measure(sample.text) + generator.tokens
            if tokens <= draw.length:
                return sample, tokens
            if size == generator.least:
                raise self._too_short(draw, tokens)
            shorter = size * (draw.length - generator.tokens) // (tokens - generator.tokens)
            size = max(generator.least, min(size - 1, shorter))  # this sample is longer than the measured one

    def _find(self, task: str, length: int) -> int:
        generator, draw = self.generators[task], SampleKey(task, length, 0)

        def tokens(size: int) -> int:
            return self.counted.measure(generator.make(size, self._rng(draw), draw).text) + generator.tokens

        least = generator.least
        found = largest(lambda size: tokens(size) <= length, least, max(least + 1, length // 8))
        if found is None:
            raise self._too_short(draw, tokens(least))
        return found

    def _rng(self, draw: SampleKey) -> Random:
        return Random(derive_seed("ruler", self.seed, *draw))

    def _too_short(self, draw: SampleKey, tokens: int) -> ConfigError:
        return ConfigError(
            f"{draw.task} does not fit {draw.length} tokens: its shortest text has {tokens}, generated ones included; "
            "give longer lengths, or leave the task out with tasks=..."
        )


def _task(sizes: SampleSizes, protocol: Protocol, draw: SampleKey) -> Task:
    """Return the Task of a draw."""
    sample, tokens = sizes.sample(draw)
    generator = sizes.generators[draw.task]
    cluster = {"cluster": f"{draw.task} {sample.cluster}"} if sample.cluster else {}
    depth = {} if sample.depth is None else {"depth": sample.depth}
    item = Item(
        f"{draw.task}-{draw.length}-{draw.number:03d}",
        {"question": sample.input, "text": sample.text},
        secret={"answers": list(sample.answers), "match": generator.match},
        metadata={
            "group": draw.task,
            "stratum": f"{draw.task} {draw.length}",
            "length": draw.length,
            "tokens": tokens,
            "category": generator.category,
            **depth,
            **cluster,
        },
    )
    return make_task(item, replace(protocol, query="{text}", max_tokens=generator.tokens))


def _generator(
    name: str,
    wrap: str,
    counted: Meter,
    found: Essays | None,
    question_sets: dict[str, QuestionSet],
    data: str,
) -> SampleGenerator:
    if name in NEEDLES:
        source: Callable[[], Essays] | None = None if found is None else lambda: found
        return needle_generator(NEEDLES[name], wrap, source)
    if name in question_sets:
        return qa(question_sets[name], wrap)
    if name == "vt":
        return variable_tracking(wrap, counted.measure)
    return common_words(wrap, data) if name == "cwe" else frequent_words(wrap)


def _required_data(names: tuple[str, ...], data: str, *, noise: bool) -> tuple[Essays | None, dict[str, QuestionSet]]:
    """Return the essays and question sets that these tasks need; one DataError names all that are missing."""
    found: Essays | None = None
    question_sets: dict[str, QuestionSet] = {}
    missing: list[str] = []
    try:
        found = _essays(data) if not noise and any(_has_essays(each) for each in names) else None
    except DataError as error:
        missing.append(str(error))
    for each in (name for name in names if name in GROUPS["qa"]):
        try:
            question_sets[each] = read_question_set(each, data)
        except DataError as error:
            missing.append(str(error))
    if len(missing) > 1:
        raise DataError(f"{'. Also, '.join(missing)}. Nothing need be fetched for ruler@base-noise:tasks=generated")
    if missing:
        raise DataError(missing[0])
    return found, question_sets


def _has_essays(name: str) -> bool:
    return name in NEEDLES and NEEDLES[name].haystack == "essay"


def _essays(data: str) -> Essays:
    return essays("" if data == "hub" else data, "or run ruler@base-noise, which hides needles in noise instead")
