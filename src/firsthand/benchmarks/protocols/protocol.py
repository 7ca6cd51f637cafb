"""Named protocols: a benchmark's prompts and scoring as data, so that a score can be compared with a published one.

`mmlu@cloze` is the benchmark `mmlu` under its protocol `cloze`; the bare name means the first protocol. A benchmark file
keeps its protocols in `PROTOCOLS`, each with the published number it reproduces. This module turns an Item under a Protocol
into a Task: a template is filled with the item's fields, and nothing in a template or field is ever executed.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from firsthand.benchmark import Benchmark, Scorer
from firsthand.errors import ConfigError, nearest, unknown
from firsthand.scorers.choice import acc, acc_norm
from firsthand.task import Task

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
MAX_FILLED_CHARS = 1 << 24
"""The most characters that the fields of one template may take: a template can name a long one again and again."""
HARNESS_TOKENS = 256
"""lm-evaluation-harness's limit on a Hugging Face model's generated tokens where a task sets none."""


@dataclass(frozen=True)
class Protocol:
    """Prompt and scoring of an item. Templates name the item's fields in braces: `{question}`, `{options}`."""

    reproduces: str
    """The published number this reproduces, and its particulars."""
    query: str = "Question: {question}\nAnswer:"
    """Template of the item's prompt."""
    scorers: tuple[Scorer, ...] = (acc, acc_norm)
    """Scorers; agents are ranked by the first."""
    header: str = ""
    """Text before everything else."""
    shots: int = 0
    """Number of few-shot examples before the item."""
    examples: str = ""
    """Origin of the examples: `olmes` (packaged), a split such as `train`, or a description if they are in the header."""
    separator: str = "\n\n"
    """Text between two examples, and between the last one and the item."""
    option: str = "{letter}. {choice}\n"
    """Template of one choice in the query's `{options}`."""
    continuation: str | None = " {choice}"
    """Template of the text whose log-prob is scored for each choice. None: the model generates its answer."""
    answer: str = " {answer}"
    """Template of an example's answer, for generated answers."""
    baseline: str | None = None
    """Text before a choice that is scored without its question, for mutual information."""
    chat: bool = False
    """True: a generated answer replies to a message in the model's chat template. False: it continues a text."""
    stop: tuple[str, ...] = ()
    """Stop strings of a generated answer."""
    max_tokens: int = 512
    """Limit on generated tokens."""
    temperature: float | None = 0.0
    """Temperature of generated answers; 0 is greedy, None leaves it to the user."""

    def describe(self) -> str:
        """Return the protocol's description, which a run records."""
        shots = f"{self.shots}-shot ({self.examples})" if self.shots else self.examples or "0-shot"
        how = "generated in the chat template" if self.chat else "generated as a continuation"
        how = (
            f"log-prob of {self.continuation!r}" if self.continuation is not None else f"{how}, stop {list(self.stop)}"
        )
        return f"{self.reproduces}; {shots}; {self.header + self.query!r}; {how}"


@dataclass(frozen=True)
class Item:
    """A checked row of a benchmark: the fields that templates may name, the choices, and the right answer."""

    id: str
    fields: Mapping[str, str]
    choices: tuple[str, ...] = ()
    gold: int = 0
    """Index of the right choice."""
    secret: Mapping[str, Any] = field(default_factory=dict)
    """Further fields for the scorers alone, such as `answer`."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    question: str = ""
    """The question alone, where no field `question` holds it."""
    target: str = ""
    """The right answer, where no field `answer` holds it."""

    @property
    def asked(self) -> str:
        """The question alone, as patterns other than `direct` ask it."""
        return self.question or self.fields["question"]


def choose(benchmark: str, protocols: Mapping[str, Protocol], name: str) -> tuple[str, Protocol]:
    """Return the benchmark's full name under a protocol, and the protocol; an empty name means the first one."""
    default = next(iter(protocols))
    if (name or default) not in protocols:
        raise unknown(f"protocol of {benchmark}", name, protocols, see="firsthand list benchmarks")
    return (benchmark if name in ("", default) else f"{benchmark}@{name}"), protocols[name or default]


def others(examples: Iterable[Item], item: Item) -> list[Item]:
    """Return the examples that ask something else than the item does: its own would give its answer away."""
    asked = (item.fields.get("question"), item.choices)
    return [each for each in examples if (each.fields.get("question"), each.choices) != asked]


def fill(template: str, fields: Mapping[str, str]) -> str:
    """Fill in a template's `{field}`s; `{{` and `}}` are braces, and the values of fields are never expanded.

    A field may have any name without braces. What stands in other braces, and is no identifier, is text.
    """
    left = MAX_FILLED_CHARS

    def value(found: re.Match[str]) -> str:
        nonlocal left
        name = found.group(1)
        if name is None:
            return found.group()[0]
        if name not in fields and not name.isidentifier():
            return found.group()
        if name not in fields:
            close = nearest(name, fields)
            hint = f" did you mean {{{close}}}?" if close else ""
            raise ConfigError(
                f"the template {template[:60]!r} names {{{name}}};{hint} there are {', '.join(sorted(fields))}; "
                "write {{ and }} for braces"
            )
        left -= len(fields[name])
        if left < 0:
            raise ConfigError(
                f"the template {template[:60]!r} becomes longer than {MAX_FILLED_CHARS:,} characters: name fewer fields"
            )
        return fields[name]

    return _FIELD.sub(value, template)


def check_template(template: str, fields: Iterable[str]) -> None:
    """ConfigError if a template has braces around anything but the name of a field."""
    known = set(fields)
    left = _FIELD.sub(
        lambda found: "" if found.group(1) is None or found.group(1) in known else found.group(), template
    )
    if "{" in left or "}" in left:
        at = min(place for place in (left.find("{"), left.find("}")) if place >= 0)
        named = re.match(r"\{([^{}]*)\}", left[at:])
        close = nearest(named[1], known) if named else None
        hint = f" did you mean {{{close}}}?" if close else ""
        what = f"names {named[0]}" if named else f"has a single {left[at]}"
        raise ConfigError(
            f"the template {template[:60]!r} {what};{hint} there are {', '.join(sorted(known))}; "
            "write {{ and }} for braces"
        )


def letter(index: int) -> str:
    """Return the letter of a choice: A, B, C, ..."""
    return chr(ord("A") + index)


def query(item: Item, protocol: Protocol, index: int | None = None) -> str:
    """Return the item's prompt without examples; a query that names `{choice}` gets the choice at `index`."""
    options = "".join(
        fill(protocol.option, {"letter": letter(place), "choice": choice, "stripped": choice.strip()})
        for place, choice in enumerate(item.choices)
    )
    chosen = {} if index is None else {"letter": letter(index), "choice": item.choices[index]}
    return fill(protocol.query, {**item.fields, "options": options, **chosen})


def answered(item: Item, protocol: Protocol) -> str:
    """Return the item with its answer, as a few-shot example."""
    if protocol.continuation is None:
        fields = {**item.fields, "answer": item.target} if item.target else item.fields
        return query(item, protocol) + fill(protocol.answer, fields)
    return query(item, protocol, item.gold) + _continuation(item, protocol, item.gold)


def opening(item: Item, protocol: Protocol, examples: Sequence[Item]) -> str:
    """Return header and examples: the text before the item."""
    if len(examples) < protocol.shots:
        raise ConfigError(
            f"the protocol shows {protocol.shots} examples ({protocol.examples}), and there are {len(examples)}"
        )
    shown = [answered(example, protocol) + protocol.separator for example in examples[: protocol.shots]]
    return fill(protocol.header, item.fields) + "".join(shown)


def make_task(item: Item, protocol: Protocol, examples: Sequence[Item] = (), **changes: Any) -> Task:
    """Return the item as a Task under the protocol; `changes` are other fields of the Task, such as a hint."""
    if protocol.continuation is None:
        return _written(item, protocol, examples, changes)
    shown, places = opening(item, protocol, examples), range(len(item.choices))
    same: dict[str, str] = {}  # with letters the text before each choice is one text
    befores = [same.setdefault(each, each) for each in (shown + query(item, protocol, index) for index in places)]
    texts = tuple(_continuation(item, protocol, index) for index in places)
    whole = "{choice}" in protocol.continuation  # else letters are scored, or the text after each choice
    return Task(
        id=item.id,
        prompt=item.asked,
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
    """Return the task with its whole text as prompt, for patterns that write prompts: the question alone is not enough."""
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
    """Return the benchmark over tasks that were made under the named protocol."""
    full, chosen = choose(name, protocols, protocol)
    return Benchmark(
        name=full,
        tasks=lambda seed: tasks,
        scorers=chosen.scorers,
        description=description,
        protocol=f"{origin}; {chosen.describe()}",
        licence=licence,
        options={"data": origin, "sha256": sha256, "protocol": protocol or next(iter(protocols))},
    )


@cache
def packaged_examples(name: str) -> tuple[Item, ...]:
    """Return the packaged few-shot examples of a set, such as OLMES's five for `piqa`."""
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
        prompt=text if protocol.chat else "\n".join([item.asked, *listed]),
        context=None if protocol.chat else text,
        sampling={name: value for name, value in sampling.items() if value is not None},
        verbatim=True,
        metadata=dict(item.metadata),
        secret={**answer, **item.secret},
        **changes,
    )
