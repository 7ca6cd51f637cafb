"""Named protocols: how a benchmark is prompted and scored, as data, so that a number can be held against a published one.

`mmlu@cloze` is the benchmark `mmlu` under its protocol `cloze`; the bare name means the first one. A benchmark file keeps
its protocols in `PROTOCOLS`, where each says first whose number it reproduces. Here an Item under a Protocol becomes a Task;
a template is filled with the item's fields, and nothing in a template or a field is ever executed.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from firsthand.benchmark import Benchmark, Scorer
from firsthand.errors import ConfigError, nearest, unknown
from firsthand.scorers.choice import acc, acc_norm
from firsthand.task import Task

_FIELD = re.compile(r"\{\{|\}\}|\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True)
class Protocol:
    """How an item is asked and judged. Templates name the item's fields in braces: `{question}`, `{options}`."""

    reproduces: str
    """Whose number this gives, and what is particular about it."""
    query: str = "Question: {question}\nAnswer:"
    """The item as the model sees it."""
    scorers: tuple[Scorer, ...] = (acc, acc_norm)
    """The first one gives the figure."""
    header: str = ""
    """What stands before everything else."""
    shots: int = 0
    """How many answered examples come before the item."""
    examples: str = ""
    """Where they come from: `olmes`, the set's own packaged ones, a split such as `train`, or in words, if in the header."""
    separator: str = "\n\n"
    """What stands between two examples, and between the last one and the item."""
    option: str = "{letter}. {choice}\n"
    """A choice where the query lists them under `{options}`."""
    continuation: str | None = " {choice}"
    """What the model's log-prob is asked of, for each choice. None: the model writes its answer."""
    answer: str = " {answer}"
    """The answer of an example, where the model is to write one."""
    baseline: str | None = None
    """What stands before a choice that is scored without its question, for mutual information."""
    chat: bool = False
    """Whether a written answer is asked for as a message, in the model's own chat template, or as text to be continued."""
    stop: tuple[str, ...] = ()
    """A written answer ends before any of these."""
    max_tokens: int = 512
    """At most this many tokens are written."""
    temperature: float | None = 0.0
    """For written answers; 0 is greedy, None leaves it to the user."""

    def words(self) -> str:
        """The protocol in a sentence, for the record."""
        shots = f"{self.shots}-shot ({self.examples})" if self.shots else self.examples or "0-shot"
        how = "written in the chat template" if self.chat else "written as a continuation"
        how = (
            f"log-prob of {self.continuation!r}" if self.continuation is not None else f"{how}, stop {list(self.stop)}"
        )
        return f"{self.reproduces}; {shots}; {self.header + self.query!r}; {how}"


@dataclass(frozen=True)
class Item:
    """A row of a benchmark, read and checked: what templates may name, the choices, and what is right."""

    id: str
    fields: Mapping[str, str]
    choices: tuple[str, ...] = ()
    gold: int = 0
    """The index of the right choice."""
    secret: Mapping[str, Any] = field(default_factory=dict)
    """What else the scorers need, such as `answer`."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def choose(benchmark: str, protocols: Mapping[str, Protocol], name: str) -> tuple[str, Protocol]:
    """The benchmark's full name under that protocol, and the protocol; an empty name means the first one."""
    default = next(iter(protocols))
    if (name or default) not in protocols:
        raise unknown(f"protocol of {benchmark}", name, protocols, see="firsthand list benchmarks")
    return (benchmark if name in ("", default) else f"{benchmark}@{name}"), protocols[name or default]


def fill(template: str, fields: Mapping[str, str]) -> str:
    """The template with its `{field}`s replaced, `{{` and `}}` standing for braces; what a field holds stays as it is."""

    def value(found: re.Match[str]) -> str:
        name = found.group(1)
        if name is None:
            return found.group()[0]
        if name not in fields:
            close = nearest(name, fields)
            hint = f" did you mean {{{close}}}?" if close else ""
            raise ConfigError(
                f"the template {template[:60]!r} names {{{name}}};{hint} there are {', '.join(sorted(fields))}; "
                "write {{ and }} for braces"
            )
        return fields[name]

    return _FIELD.sub(value, template)


def letter(index: int) -> str:
    """A, B, C, ... of a choice."""
    return chr(ord("A") + index)


def query(item: Item, protocol: Protocol, index: int | None = None) -> str:
    """The item as the model is asked, without examples; with the choice of that index if the query has a place for it."""
    options = "".join(
        fill(protocol.option, {"letter": letter(place), "choice": choice, "stripped": choice.strip()})
        for place, choice in enumerate(item.choices)
    )
    chosen = {} if index is None else {"letter": letter(index), "choice": item.choices[index]}
    return fill(protocol.query, {**item.fields, "options": options, **chosen})


def answered(item: Item, protocol: Protocol) -> str:
    """The item with its answer, as an example is shown."""
    if protocol.continuation is None:
        return query(item, protocol) + fill(protocol.answer, item.fields)
    return query(item, protocol, item.gold) + _continuation(item, protocol, item.gold)


def opening(item: Item, protocol: Protocol, examples: Sequence[Item]) -> str:
    """Header and examples: all that comes before the item."""
    if len(examples) < protocol.shots:
        raise ConfigError(
            f"the protocol shows {protocol.shots} examples ({protocol.examples}), and there are {len(examples)}"
        )
    shown = [answered(example, protocol) + protocol.separator for example in examples[: protocol.shots]]
    return fill(protocol.header, item.fields) + "".join(shown)


def make_task(item: Item, protocol: Protocol, examples: Sequence[Item] = (), **changes: Any) -> Task:
    """The item as a Task under the protocol; `changes` are other fields of the Task, such as a hint."""
    if protocol.continuation is None:
        return _written(item, protocol, examples, changes)
    shown, places = opening(item, protocol, examples), range(len(item.choices))
    befores = [shown + query(item, protocol, index) for index in places]
    texts = tuple(_continuation(item, protocol, index) for index in places)
    whole = "{choice}" in protocol.continuation  # or else letters are scored, or what follows each choice
    return Task(
        id=item.id,
        prompt=item.fields["question"],
        choices=texts if whole else tuple(f" {choice}" for choice in item.choices),
        context=befores[0] if len(set(befores)) == 1 else None,
        requests=() if whole else tuple(zip(befores, texts, strict=True)),
        baseline=protocol.baseline,
        hint="a letter",
        metadata=dict(item.metadata),
        secret={"gold": item.gold, "answer": letter(item.gold), **item.secret},
        **changes,
    )


def whole(task: Task) -> Task:
    """The task with all of its text in its prompt too, for patterns that ask in words: the question alone says nothing."""
    return task if task.context is None else replace(task, prompt=task.context)


def make_benchmark(
    name: str,
    protocols: Mapping[str, Protocol],
    protocol: str,
    tasks: Sequence[Task],
    *,
    description: str,
    origin: str,
    licence: str,
    sha256: str = "",
) -> Benchmark:
    """The benchmark over these tasks, which were made under the protocol of that name."""
    full, chosen = choose(name, protocols, protocol)
    return Benchmark(
        name=full,
        tasks=lambda seed: tasks,
        scorers=chosen.scorers,
        description=description,
        protocol=f"{origin}; {chosen.words()}",
        licence=licence,
        options={"data": origin, "sha256": sha256, "protocol": protocol or next(iter(protocols))},
    )


@cache
def packaged_examples(name: str) -> tuple[Item, ...]:
    """The answered examples that we package for a set, such as the five that OLMES chose for `piqa`."""
    path = Path(__file__).parent.parent / "slices" / "examples.json.gz"
    rows = json.loads(gzip.decompress(path.read_bytes()))[name]
    return tuple(
        Item(f"example-{index}", row["fields"], tuple(row.get("choices", ())), row.get("gold", 0))
        for index, row in enumerate(rows)
    )


def _continuation(item: Item, protocol: Protocol, index: int) -> str:
    assert protocol.continuation is not None
    return fill(protocol.continuation, {**item.fields, "letter": letter(index), "choice": item.choices[index]})


def _written(item: Item, protocol: Protocol, examples: Sequence[Item], changes: Mapping[str, Any]) -> Task:
    text = opening(item, protocol, examples) + query(item, protocol)
    answer = {"gold": item.gold, "answer": letter(item.gold)} if item.choices else {}
    listed = [f"{letter(index)}. {choice}" for index, choice in enumerate(item.choices)]
    sampling = {"stop": protocol.stop, "max_tokens": protocol.max_tokens, "temperature": protocol.temperature}
    return Task(
        id=item.id,
        prompt=text if protocol.chat else "\n".join([item.fields["question"], *listed]),
        context=None if protocol.chat else text,
        sampling={name: value for name, value in sampling.items() if value is not None},
        verbatim=True,
        metadata=dict(item.metadata),
        secret={**answer, **item.secret},
        **changes,
    )
