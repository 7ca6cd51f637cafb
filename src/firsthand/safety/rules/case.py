"""A tool call as policies see it: checked arguments, the tool's facts, earlier results, and a witness for each power."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from firsthand.declaration import Declaration, fields_at
from firsthand.errors import ToolError
from firsthand.guard import AttemptView
from firsthand.message import Json, canonical
from firsthand.safety.rules.labels import USER, Label, join_all, label_of_result
from firsthand.safety.rules.witness import Witness, WitnessSource, leaves, trusted_texts, witnesses
from firsthand.tool import Tool

RUN = 4
"""Words in a row that count as a copy of a text."""
CODE = 5
"""The least characters of a word with a digit that counts as a copy by itself, such as a code or an account number."""


@dataclass(frozen=True)
class PolicyBounds:
    """The settings of the policies."""

    plan: frozenset[str] | None = None
    """The tools that may be called; None if none was fixed."""
    calls: int | None = None
    """Most tool calls of an attempt."""
    writes: int | None = None
    """Most calls that change something."""


class Earlier(NamedTuple):
    """An earlier tool call that was made, and its result without the marks of its origin."""

    name: str
    effect: str
    declares: Declaration | None
    arguments: Json
    result: str
    failed: bool

    @property
    def label(self) -> Label:
        """The label of the result as a whole."""
        return label_of_result(self.name, self.declares)


@dataclass(frozen=True)
class CallCase:
    """A call to decide on."""

    tool: Tool
    arguments: Mapping[str, Any]
    """As the tool will get them."""
    words: tuple[str, ...]
    """The user's own."""
    earlier: tuple[Earlier, ...] = ()
    bounds: PolicyBounds = field(default_factory=PolicyBounds)
    labels: Mapping[str, Label] | None = None
    """The labels of the arguments where a plan carried them; None where witnesses must do."""

    @property
    def declares(self) -> Declaration:
        """The tool's facts; those of a tool without any."""
        return self.tool.declares or Declaration()

    @property
    def changes(self) -> bool:
        """True if the call has an effect besides its result."""
        return self.tool.effect != "read"

    @cached_property
    def sources(self) -> tuple[WitnessSource, ...]:
        """The user's words, the trusted fields of earlier results and the tool's defaults."""
        given = {(each.name, each.result): each.declares for each in self.earlier if not each.failed}
        trusted = [
            WitnessSource(f"{name}: {path}", texts)
            for (name, result), declares in given.items()
            if declares is not None and declares.trusts
            for path, texts in trusted_texts(result, declares.trusts)
        ]
        defaults = (str(each["default"]) for each in self._properties if each.get("default") not in (None, ""))
        return (WitnessSource("user", self.words, whole=False), *trusted, WitnessSource("default", tuple(defaults)))

    @property
    def _properties(self) -> list[Json]:
        return [self.tool.spec.parameters["properties"].get(name, {}) for name in self.declares.powers]

    @cached_property
    def powers(self) -> tuple[Witness, ...]:
        """Every part of the arguments that decide where power goes, with its witness."""
        found = witnesses(self.arguments, self.declares.powers, self.sources, self.declares.paths)
        return found if self.labels is None else tuple(map(self._carried, found))

    def _carried(self, found: Witness) -> Witness:
        """The witness by the label that a plan carried; what the plan did not give is the tool's default."""
        assert self.labels is not None
        label = self.labels.get(found.argument.partition(".")[0], Label(origins=frozenset({"default"})))
        return (
            found._replace(source=", ".join(sorted(label.origins)) or "user", problem="")
            if label.is_trusted
            else (found._replace(source=""))
        )

    @cached_property
    def content(self) -> Label:
        """The carried label of the arguments that are no powers."""
        given = self.labels or {}
        return join_all(label for name, label in given.items() if name not in self.declares.powers)

    @cached_property
    def recipients(self) -> tuple[Witness, ...]:
        """The parts that name those who will read the call."""
        paths = self.declares.recipients
        return tuple(each for each in self.powers if any(_within(each.argument, path) for path in paths))

    @cached_property
    def told(self) -> frozenset[str]:
        """The word runs and codes of the arguments that are no powers."""
        rest = {name: value for name, value in self.arguments.items() if name not in self.declares.powers}
        return frozenset().union(*(runs(text) for _, text in leaves(rest)))

    def copied(self, text: str) -> bool:
        """True if the arguments copy from the text what the user did not say."""
        own = frozenset().union(*(runs(words) for words in self.words))
        return not (self.told - own).isdisjoint(runs(text))

    @cached_property
    def session(self) -> Label:
        """The label of all that the model has read."""
        return join_all((USER, *(each.label for each in {each.name: each for each in self.earlier}.values())))

    def repeats(self, earlier: Earlier) -> bool:
        """True if an earlier call was made with the same arguments, as the tool reads them."""
        if earlier.name != self.tool.name:
            return False
        try:
            given = as_json_data(self.tool.validate(earlier.arguments))
        except ToolError:
            return False
        return canonical(given) == canonical(self.arguments)

    def found_in(self, value: str) -> str:
        """The earlier result that a value without a witness comes from, in words; empty if there is none."""
        for number, each in enumerate(self.earlier, 1):
            if value in each.result:
                return f"it stands in the result of {each.name} (call {number}), in no field that is trusted"
        return ""


def _within(argument: str, path: str) -> bool:
    return argument == path or argument.startswith(f"{path}.")


@lru_cache(maxsize=512)
def runs(text: str) -> frozenset[str]:
    """The runs of `RUN` words of a text, and its codes: words of at least `CODE` characters that hold a digit."""
    words = re.findall(r"\w+", text.casefold())
    found = {" ".join(words[at : at + RUN]) for at in range(len(words) - RUN + 1)}
    return frozenset(found | {word for word in words if len(word) >= CODE and re.search(r"\d", word)})


def as_json_data(checked: Mapping[str, Any]) -> Json:
    """Checked arguments as JSON data; a type without JSON as its text."""
    if all(isinstance(value, str | int | float | None) for value in checked.values()):
        return dict(checked)
    data: Json = json.loads(json.dumps(checked, default=str))
    return data


def words_of(view: AttemptView) -> tuple[str, ...]:
    """The user's words: the task's prompt and the user's turns before it. What was said later may be anybody's."""
    said = (message.text for message in view.task.conversation if message.role == "user")
    return (view.task.prompt, *said)


def earlier_calls(view: AttemptView) -> tuple[Earlier, ...]:
    """The tool calls that ended before this one."""
    tools = {tool.name: tool for tool in view.tools}
    return tuple(_earlier(call.detail, tools) for call in view.calls if call.kind == "tool" and "result" in call.detail)


def unmarked(text: str, origin: str | None) -> str:
    """A result without the marks of its origin."""
    return (
        text if origin is None else text.removeprefix(f'<untrusted from="{origin}">\n').removesuffix("\n</untrusted>")
    )


def _earlier(detail: Json, tools: Mapping[str, Tool]) -> Earlier:
    tool = tools.get(detail["name"])
    result = unmarked(str(detail["result"]), detail.get("origin"))
    effect, declares = ("read", None) if tool is None else (tool.effect, tool.declares)
    failed = bool(detail.get("is_error"))
    return Earlier(detail["name"], effect, declares, detail["arguments"], result, failed)


def spread(arguments: Mapping[str, Any], paths: Sequence[str]) -> Iterable[str]:
    """The texts at these paths of the arguments."""
    return (text for path in paths for value in fields_at(arguments, path) for _, text in leaves(value, path))
