"""Turns stored attempts and preferences into training data with lineage: rows for JSONL files.

`sft` has conversations; `pairs` a chosen and a rejected answer to one prompt; `kto` answers with a label; `reward` answers
to one prompt from best to worst. Messages are in OpenAI's format, and an assistant's turn that no model sampled, such as a
worked example, has the weight 0. An attempt that scored given texts after short conversations (probes, as in `sycophancy`)
gives each text as an answer, with the score 1 for the right one and 0 for the others. An answer that was cut before its
end, at `max_tokens`, by a budget or by a filter, is no example to follow: it can be rejected, undesirable or below the best
alone. A turn before the answer that was cut has the weight 0. Of a score of harm (`Score.is_harm`) the lowest is the best.
Texts that a guard replaced are as they passed it, and an answer that one blocked is left out.
What is left out is counted by its reason. Attempts of protected benchmarks never leave.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from firsthand.chat_messages import written
from firsthand.errors import ConfigError, UnknownName
from firsthand.loop.passed_borders import Turn, is_kept_back, passed, replaced_at, replaced_texts, sent_turns
from firsthand.message import Json, Message, Text, canonical
from firsthand.runs.run_folder import Run
from firsthand.trace import Trace

DataKind = Literal["sft", "pairs", "kto", "reward"]
TRAINING_KINDS: tuple[DataKind, ...] = get_args(DataKind)
_CUT = "cut before its end"
_KEPT_BACK = "a guard kept back its answer"
_REPLACED = "a guard replaced what it was asked"
_CUT_REASONS = ("length", "content_filter")


@dataclass(frozen=True)
class DataFilter:
    """The attempts to take."""

    score: str | None = None
    """A score by name; the attempt's first one by default."""
    min_score: float | None = None
    """Least score of an `sft` attempt, of a chosen or best answer, or of a desirable `kto` answer (there 0.5 by default).

    For scores where higher is better; ConfigError for a score of harm, unless `max_score` is given too.
    """
    best_of: int = 0
    """Of `sft` and `kto`: take so many of the best attempts at each task, of whatever agents and prompts; 0 is all.

    Each branch counts as one with `all_branches`, and each probe of a task is a task of its own.
    """
    benchmark: str | None = None
    agent: str | None = None
    all_branches: bool = False
    """Take every branch of attempts that have several; otherwise these are left out."""
    answers: bool = False
    """Take each task's question and the attempt's answer alone, without the messages between."""
    max_score: float | None = None
    """Highest score of harm, as `min_score` is the least of others. By default a desirable `kto` answer has less than 0.5.

    ConfigError for a score where higher is better, unless `min_score` is given too.
    """

    def __post_init__(self) -> None:
        if self.best_of < 0:
            raise ConfigError(f"best_of is {self.best_of}: expected 0 (all) or more")
        if self.answers and self.all_branches:
            raise ConfigError("answers have no branches: leave out all_branches, or answers")


@dataclass
class TrainingRows:
    """The rows, and how many attempts or answers were left out for which reason."""

    rows: list[Json] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Example:
    """One branch of an attempt, cut where the first sampled message begins."""

    prompt: list[Json]
    answer: list[Json]
    tools: list[Json]
    score: float | None
    lineage: Json
    is_cut: bool = False
    """True if the answer was cut before its end."""
    is_harm: bool = False
    """True if a lower score is better."""
    score_name: str = ""

    @property
    def merit(self) -> float:
        """The score, or of harm its negative: higher is better. 0 without a score."""
        value = self.score or 0.0
        return -value if self.is_harm else value

    @property
    def key(self) -> str:
        return canonical([self.lineage["benchmark"], self.lineage["task"], self.prompt, self.tools])

    @property
    def task(self) -> str:
        """The group that `best_of` ranks within: the task, and its probe if there are several."""
        return canonical([self.lineage["benchmark"], self.lineage["task"], self.lineage.get("probe")])

    def reaches(self, chosen: DataFilter) -> bool:
        """True if the score is as good as the filter's bound for its direction, or there is none."""
        if self.is_harm:
            return chosen.max_score is None or (self.score or 0.0) <= chosen.max_score
        return chosen.min_score is None or (self.score or 0.0) >= chosen.min_score

    def row(self, body: Json) -> Json:
        return {**body, **({"tools": self.tools} if self.tools else {})}


def training_rows(runs: Sequence[Run], kind: DataKind, chosen: DataFilter) -> TrainingRows:
    """Returns the rows of all attempts of the runs; ConfigError for a kind that is not known."""
    if kind not in TRAINING_KINDS:
        raise ConfigError(f"the kind of data is {kind!r}: expected one of {', '.join(TRAINING_KINDS)}")
    _expect_there(runs, chosen)
    found = TrainingRows()
    examples = list(_examples(runs, chosen, found.left_out))
    if kind == "pairs":
        found.rows += _preferred(runs, examples, found.left_out)
    scored = _of_one_direction([each for each in examples if each.score is not None])
    if len(scored) < len(examples):
        found.left_out["no score"] += len(examples) - len(scored)
    _expect_bounds(scored, chosen)
    ranked = sorted(scored, key=lambda each: -each.merit)
    if kind in ("sft", "kto"):
        ended = [each for each in ranked if not (each.is_cut and (kind == "sft" or _is_desirable(each, chosen)))]
        found.left_out[_CUT] += len(ranked) - len(ended)
        ranked = _best_of_tasks(ended, chosen.best_of) if chosen.best_of else ended
        found.left_out["not among the best of their task"] += len(ended) - len(ranked)
    groups: dict[str, list[_Example]] = {example.key: [] for example in scored}
    for example in ranked:
        groups[example.key].append(example)
    for group in groups.values():
        found.rows += _MAKERS[kind](group, chosen, found.left_out)
    return found


def attempt_rows(run: str, trace: Trace) -> list[Json]:
    """The `sft` rows of one attempt of the run of that id, one for each branch whose answer was not cut.

    None for an attempt that is left out.
    """
    if trace.protected is not None or trace.error is not None or is_kept_back(trace, "answer"):
        return []
    found = _of_trace(run, trace, DataFilter(all_branches=True), Counter())
    whole = [each for each in found if not each.is_cut]
    return [each.row({"messages": each.prompt + each.answer, "lineage": [each.lineage]}) for each in whole]


def _best_of_tasks(ranked: Iterable[_Example], most: int) -> list[_Example]:
    """The first so many of each task."""
    times = Counter[str]()
    kept = []
    for each in ranked:
        times[each.task] += 1
        if times[each.task] <= most:
            kept.append(each)
    return kept


def _expect_there(runs: Sequence[Run], chosen: DataFilter) -> None:
    """UnknownName for a benchmark, an agent or a score that no run has."""
    if (chosen.benchmark, chosen.agent, chosen.score) == (None, None, None):
        return
    agents = {name for run in runs for name in run.agents()}
    benchmarks, scores = set[str](), set[str]()
    for trace in (trace for run in runs for trace in run.traces()):
        agents.add(trace.agent_name)
        benchmarks.add(trace.benchmark)
        scores |= {score.name for score in trace.scores}
    for what, name, known in (
        ("benchmark", chosen.benchmark, benchmarks), ("agent", chosen.agent, agents), ("score", chosen.score, scores),
    ):  # fmt: skip
        if name is not None and name not in known:
            have = ", ".join(sorted(known)) or "none"
            raise UnknownName(f"no run has the {what} {name!r}: expected one of {have}")


def _of_one_direction(scored: list[_Example]) -> list[_Example]:
    """The examples, of harm where any score of that name and benchmark is: runs that were made before have no mark."""
    harms = {(each.lineage["benchmark"], each.score_name) for each in scored if each.is_harm}
    return [
        replace(each, is_harm=True) if (each.lineage["benchmark"], each.score_name) in harms else each
        for each in scored
    ]


def _expect_bounds(scored: Iterable[_Example], chosen: DataFilter) -> None:
    """ConfigError where the only bound is one of the other direction, which would choose the worst or nothing."""
    given = (chosen.min_score is not None, chosen.max_score is not None)
    if given == (True, False) and any(each.is_harm for each in scored):
        raise ConfigError("min_score is given, and the score is of harm, where lower is better: give max_score")
    if given == (False, True) and not all(each.is_harm for each in scored):
        raise ConfigError("max_score is for scores of harm, where lower is better: give min_score")


def _examples(runs: Sequence[Run], chosen: DataFilter, left_out: Counter[str]) -> Iterator[_Example]:
    for run in runs:
        for trace in run.traces(benchmark=chosen.benchmark, agent=chosen.agent):
            if trace.protected is not None:
                left_out["protected benchmark"] += 1
            elif trace.error is not None:
                left_out["error"] += 1
            elif is_kept_back(trace, "answer"):
                left_out[_KEPT_BACK] += 1
            elif chosen.answers:
                yield from _of_answer(run, trace, chosen, left_out)
            elif any(event.kind == "probe" for event in trace.events):
                yield from _of_probes(run, trace, left_out)
            else:
                yield from _of_trace(run.id, trace, chosen, left_out)


def _of_trace(run: str, trace: Trace, chosen: DataFilter, left_out: Counter[str]) -> Iterator[_Example]:
    sampled, cut = _sampled_nodes(trace), _cut_nodes(trace)
    inner = {node.parent for node in trace.nodes}
    leaves = [index for index in range(len(trace.nodes)) if index not in inner]
    branches = [path for path in dict.fromkeys(_to_last(trace, leaf, sampled) for leaf in leaves) if path]
    if not branches:
        left_out["no sampled message"] += 1
        return
    if len(branches) > 1 and not chosen.all_branches:
        left_out["several branches"] += 1
        return
    trace = passed(trace)
    for path in branches:
        said = _as_sent(trace, path)
        turns = [
            list(_open_ai(message, counts=node in sampled and (node not in cut or node == path[-1])))
            for message, node in said
        ]
        first = next(place for place, (_, node) in enumerate(said) if node in sampled)
        prompt, answer = ([each for turn in part for each in turn] for part in (turns[:first], turns[first:]))
        tools = [
            {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
            for t in trace.tools
        ]
        value = trace.value(chosen.score)
        lineage = _lineage(run, trace, path[-1], value)
        yield _Example(prompt, answer, tools, value, lineage, path[-1] in cut, *_direction(trace, chosen.score))


def _as_sent(trace: Trace, path: Sequence[int]) -> list[Turn]:
    """A branch with its last message behind the prompt that it was sampled from, where a guard replaced parts of that."""
    call = next(each for each in trace.calls if each.kind == "generate" and path[-1] in each.nodes)
    last = [Turn(trace.nodes[node].message, node) for node in path]
    return [*sent_turns(trace, call), last[-1]] if isinstance(call.detail.get("messages"), list) else last


def _sampled_nodes(trace: Trace) -> set[int]:
    return {node for call in trace.calls if call.kind == "generate" for node in call.nodes}


def _cut_nodes(trace: Trace) -> set[int]:
    """The sampled messages that the model did not end."""
    return {
        node
        for call in trace.calls
        if call.kind == "generate"
        for node, reason in zip(call.nodes, call.detail.get("finish_reasons") or (), strict=False)
        if reason in _CUT_REASONS
    }


def _of_answer(run: Run, trace: Trace, chosen: DataFilter, left_out: Counter[str]) -> Iterator[_Example]:
    """The question and the answer: what a model is taught that should answer at once as a pattern does in many steps."""
    task = run.task(trace.benchmark, trace.task_id)
    if task is None or not trace.answer:
        left_out["no answer"] += 1
        return
    asked = _asked(trace, (*task.conversation, Message("user", (Text(task.prompt),))))
    if asked is None:
        left_out[_REPLACED] += 1
        return
    prompt = [each for message in asked for each in _open_ai(message, counts=False)]
    value = trace.value(chosen.score)
    lineage = _lineage(run.id, trace, len(trace.nodes) - 1, value)
    answer: list[Json] = [{"role": "assistant", "content": trace.answer}]
    yield _Example(prompt, answer, [], value, lineage, _is_cut_answer(trace), *_direction(trace, chosen.score))


def _asked(trace: Trace, messages: Sequence[Message]) -> list[Message] | None:
    """The messages of a task as they passed the guards; None where one is a part of a message that a guard replaced."""
    if not replaced_at(trace, "prompt"):
        return list(messages)
    after = [(node.message.text, new.message) for node, new in zip(trace.nodes, passed(trace).nodes, strict=True)]
    texts = {said: new for said, new in after if new.text != said}
    longer = {*texts, *replaced_texts(trace)}
    if any(each.text and each.text in said for each in messages if each.text not in texts for said in longer):
        return None
    return [texts.get(message.text, message) for message in messages]


def _direction(trace: Trace, name: str | None) -> tuple[bool, str]:
    """Returns True for a score of harm, and the score's name: the one asked for, else the attempt's first."""
    found = trace.score(name) if name is not None else next(iter(trace.attempt_scores), None)
    return (False, "") if found is None else (found.is_harm, found.name)


def _is_cut_answer(trace: Trace) -> bool:
    """True if the answer is the end of a message that was cut, and in no message that the model ended."""
    answer, cut = (trace.answer or "").rstrip(), _cut_nodes(trace)
    ended = _sampled_nodes(trace) - cut
    return any(trace.nodes[node].message.text.rstrip().endswith(answer) for node in cut) and not any(
        answer in trace.nodes[node].message.text for node in ended
    )


def _of_probes(run: Run, trace: Trace, left_out: Counter[str]) -> Iterator[_Example]:
    """Each probe's conversation with each of its texts; right is the one that the task's secret counts from 0."""
    task = run.task(trace.benchmark, trace.task_id)
    if replaced_at(trace, "prompt"):
        left_out[_REPLACED] += 1
        return
    right = None if task is None else task.secret.get("right")
    if task is None or not isinstance(right, int):
        left_out["probes without a right text"] += 1
        return
    lead = trace.nodes[:1] if trace.nodes and trace.nodes[0].message.role == "system" else ()
    for probe in task.metadata["probes"]:
        turns = [(node.message.role, node.message.text) for node in lead if probe["turns"][0][0] != "system"]
        prompt = [
            {"role": role, "content": text, **({"weight": 0} if role == "assistant" else {})}
            for role, text in (*turns, *probe["turns"])
        ]
        for place, text in enumerate(probe["continuations"]):
            score = float(place == right)
            lineage = {**_lineage(run.id, trace, len(trace.nodes) - 1, score), "probe": probe["name"]}
            yield _Example(prompt, [{"role": "assistant", "content": text.strip()}], [], score, lineage)


def _lineage(run: str, trace: Trace, leaf: int, score: float | None) -> Json:
    return {
        "run": run, "trace": trace.id, "leaf": leaf, "benchmark": trace.benchmark, "task": trace.task_id,
        "agent": trace.agent_name, "epoch": trace.epoch, "score": score,
    }  # fmt: skip


def _to_last(trace: Trace, leaf: int, sampled: set[int]) -> tuple[int, ...]:
    """The branch up to its last sampled message."""
    path = trace.path(leaf)
    while path and path[-1] not in sampled:
        path = path[:-1]
    return path


def _sft(group: Sequence[_Example], chosen: DataFilter, left_out: Counter[str]) -> Iterator[Json]:
    for each in group:
        if not each.reaches(chosen):
            left_out[_beyond(each)] += 1
        else:
            yield each.row({"messages": each.prompt + each.answer, "lineage": [each.lineage]})


def _kto(group: Sequence[_Example], chosen: DataFilter, left_out: Counter[str]) -> Iterator[Json]:
    for each in group:
        body = {"prompt": each.prompt, "completion": each.answer, "label": _is_desirable(each, chosen)}
        yield each.row({**body, "lineage": [each.lineage]})


def _is_desirable(each: _Example, chosen: DataFilter) -> bool:
    if (chosen.max_score if each.is_harm else chosen.min_score) is not None:
        return each.reaches(chosen)
    return each.score is not None and (each.score < 0.5 if each.is_harm else each.score >= 0.5)


def _beyond(each: _Example) -> str:
    return "above the highest score of harm" if each.is_harm else "below the least score"


def _pairs(group: Sequence[_Example], chosen: DataFilter, left_out: Counter[str]) -> Iterator[Json]:
    """The best answer against the worst."""
    for answers in _ranked(group, chosen, left_out):
        left_out["neither best nor worst"] += len(answers) - 2
        yield _pair(answers[0], answers[-1])


def _reward(group: Sequence[_Example], chosen: DataFilter, left_out: Counter[str]) -> Iterator[Json]:
    """All answers of unequal scores, the best first."""
    for answers in _ranked(group, chosen, left_out):
        body = {"prompt": answers[0].prompt, "answers": [each.answer for each in answers]}
        yield answers[0].row({**body, "lineage": [each.lineage for each in answers]})


def _ranked(group: Sequence[_Example], chosen: DataFilter, left_out: Counter[str]) -> Iterator[list[_Example]]:
    """One answer of each score, the best first, which was not cut; nothing where no two differ."""
    kept: list[_Example] = []
    for each in group:
        if not kept and each.is_cut:
            left_out[_CUT] += 1
        elif kept and each.merit == kept[-1].merit:
            left_out["equal score"] += 1
        elif kept and any(each.answer == other.answer for other in kept):
            left_out["equal answer"] += 1
        else:
            kept.append(each)
    if len(kept) < 2:
        left_out["nothing to compare with"] += len(kept)
    elif not kept[0].reaches(chosen):
        left_out[_beyond(kept[0])] += len(kept)
    else:
        yield kept


def _preferred(runs: Sequence[Run], examples: Iterable[_Example], left_out: Counter[str]) -> Iterator[Json]:
    """A pair for each stored preference whose two attempts are here and answer one prompt."""
    by_trace: dict[str, list[_Example]] = defaultdict(list)
    for example in examples:
        by_trace[example.lineage["trace"]].append(example)
    for run in runs:
        for vote in run.preferences():
            a, b = by_trace.get(vote.a, []), by_trace.get(vote.b, [])
            if vote.winner not in ("a", "b"):
                left_out["vote without a winner"] += 1
            elif len(a) != 1 or len(b) != 1 or a[0].key != b[0].key or a[0].answer == b[0].answer:
                left_out["vote on attempts that are not here, or not at one prompt"] += 1
            else:
                better, worse = (a[0], b[0]) if vote.winner == "a" else (b[0], a[0])
                if better.is_cut:
                    left_out["vote for an answer that was cut"] += 1
                else:
                    yield {**_pair(better, worse), "by": vote.by}


def _pair(better: _Example, worse: _Example) -> Json:
    body = {"prompt": better.prompt, "chosen": better.answer, "rejected": worse.answer}
    return better.row({**body, "lineage": [better.lineage, worse.lineage]})


_MAKERS = {"sft": _sft, "pairs": _pairs, "kto": _kto, "reward": _reward}


def _open_ai(message: Message, *, counts: bool) -> Iterator[Json]:
    """The message in OpenAI's format, or one for each tool result; `weight` is 0 for an assistant's turn not sampled."""
    weight = {} if counts or message.role != "assistant" else {"weight": 0}
    return (body | weight for body in written(message))
