"""A tool call as policies see it: checked arguments, the tool's facts, earlier results, and a witness for each power."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf, isfinite, nan
from types import MappingProxyType
from typing import Any, NamedTuple

from firsthand.declaration import Declaration, fields_at
from firsthand.errors import ToolError
from firsthand.guard import AttemptView
from firsthand.loop.marked_texts import marked_spans
from firsthand.loop.private_texts import READERS, copies_short, plain_result, private_texts, runs, unmarked
from firsthand.message import Json, canonical
from firsthand.safety.rules.labels import USER, Label, join_all, label_of_result
from firsthand.safety.rules.witness import (
    Witness,
    WitnessSource,
    leaves,
    listed,
    texts_at,
    trusted_texts,
    witnesses,
)
from firsthand.tool import Tool
from firsthand.tool_arguments import as_json_data

READING = "reading"
"""The effect of what was read without a call of a tool."""


@dataclass(frozen=True)
class PolicyBounds:
    """The settings of the policies."""

    plan: frozenset[str] | None = None
    """The tools that may be called; None if none was fixed."""
    calls: int | None = None
    """Most tool calls of an attempt."""
    writes: int | None = None
    """Most calls that change something."""
    spend: float | None = None
    """The most that may be spent, over all calls whose tools declare `spends`."""
    recipients: int | None = None
    """Most people that are told something."""


class Earlier(NamedTuple):
    """An earlier tool call that was made, and its result without the marks of its origin; or another text that was read."""

    name: str
    effect: str
    declares: Declaration | None
    arguments: Json
    result: str
    failed: bool
    defaults: Mapping[str, Any] = MappingProxyType({})
    """The tool's, of arguments that are left out."""
    unread: bool = False
    """True if it was carried out all the same, and its result was withheld or never came."""
    shown: str = ""
    """The result with a guard's marks between its words, where the model read it with such."""

    @property
    def made(self) -> bool:
        """True if the call was carried out."""
        return self.unread or not self.failed

    @property
    def whole(self) -> Json:
        """The arguments with defaults."""
        return {**self.defaults, **self.arguments}

    @property
    def label(self) -> Label:
        """The label of the result as a whole."""
        return label_of_result(self.name, self.declares)

    @property
    def is_call(self) -> bool:
        """False for a document beside the task, and for what was recalled from memory."""
        return self.effect != READING


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
    """The labels of the arguments where a plan carried them, by the names that it gave, and of the conditions of the call
    under an empty name; None where witnesses must do."""

    @property
    def declares(self) -> Declaration:
        """The tool's facts; those of a tool without any."""
        return self.tool.declares or Declaration()

    @cached_property
    def whole(self) -> Json:
        """The arguments with the defaults of those that are left out, which decide as if they had been given."""
        return {**defaults_of(self.tool), **self.arguments}

    @property
    def changes(self) -> bool:
        """True if the call has an effect besides its result."""
        return self.tool.effect != "read"

    @property
    def lasts(self) -> bool:
        """True if the effect outlives the attempt."""
        return self.tool.effect in ("external", "irreversible")

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
        known = defaults_of(self.tool)
        defaults = (known.get(name) for name in self.declares.powers)
        default = WitnessSource("default", tuple(str(each) for each in defaults if each not in (None, "")))
        return (WitnessSource("user", self.words, whole=False), *trusted, default)

    @cached_property
    def powers(self) -> tuple[Witness, ...]:
        """Every part of the arguments that decide where power goes, with its witness."""
        found = witnesses(self.whole, self.declares.powers, self.sources, self.declares.paths, self._may_be_empty)
        return found if self.labels is None else tuple(map(self._carried, found))

    def _may_be_empty(self, path: str, value: Any) -> bool:
        """True if an empty value says what leaving the argument out says: its default is empty, or it is null."""
        parameters, known = self.tool.spec.parameters, defaults_of(self.tool)
        if value is None and (path not in parameters["properties"] or path not in parameters.get("required", ())):
            return True
        return path in known and known[path] in (None, "", [], {})

    def _carried(self, found: Witness) -> Witness:
        """The witness by the label that a plan carried."""
        label = self._label_of(found.argument.partition(".")[0])
        if label.is_trusted:
            return found._replace(source=", ".join(sorted(label.origins)) or "user", problem="")
        return found._replace(source="")

    def _label_of(self, name: str) -> Label:
        """The label of an argument. One that the plan did not give by its name may hold a part of any that it gave.

        It is the tool's default only if it equals that.
        """
        assert self.labels is not None
        if name and name in self.labels:
            return self.labels[name]
        default, conditions = Label(origins=frozenset({"default"})), self.labels.get("", Label())
        schema = self.tool.spec.parameters["properties"].get(name, {})
        is_default = "default" in schema and self.arguments.get(name) == schema["default"]
        return default.join(conditions if is_default else join_all(self.labels.values()))

    @cached_property
    def recipients(self) -> tuple[Witness, ...]:
        """The parts that name those who will read the call."""
        paths = tuple(f"{path}." for path in self.declares.recipients)
        return tuple(each for each in self.powers if f"{each.argument}.".startswith(paths))

    @property
    def unnamed_reader(self) -> str:
        """The reader of all arguments, as declared; empty if the user named it, or where the call goes.

        A call goes to its recipients, and one that changes something to all that decides where its power goes.
        """
        reader, places = self.declares.tells, self.powers if self.changes else self.recipients
        named = [each.source in ("user", "default") for each in places]
        is_named = any(f" {_spaced(reader)} " in f" {_spaced(text)} " for text in self.words)
        return "" if is_named or (named and all(named)) else reader

    def tells_of(self, others: Sequence[str], *, reader: str = "") -> str:
        """Texts that the call would tell these people though only the user may read it, by its source; empty for nothing.

        By the carried labels, or else by copies: what the arguments that are no powers share with a private result, and the
        user did not say. What tools that tell all to `reader` gave is known to it.
        """
        every = [each for each in self.earlier if each.label.readers is not None]
        known, private = list[Earlier](), list[Earlier]()
        for each in every:
            is_known = reader and each.declares is not None and each.declares.tells == reader
            (known if is_known else private).append(each)
        if self.labels is not None:
            given = [label for name, label in self.labels.items() if name not in self.declares.powers]
            here, there = ({each.name for each in found} for found in (known, private))
            told = join_all(x for x in given if x.origins.isdisjoint(here) or not x.origins.isdisjoint(there))
            return "" if told.may_be_read_by(others) else ", ".join(sorted(told.origins)) or "a private value"
        rest = {name: value for name, value in self.arguments.items() if name not in self.declares.powers}
        texts = [text for _, text in leaves(rest)]
        copied = frozenset[str]().union(*map(runs, texts)).difference(*map(runs, self.words))
        return next(
            (
                each.name
                for each in private
                for result in (each.result, each.shown)  # a guard's mark is taken out of what it marks
                if not copied.isdisjoint(runs(result)) or copies_short(texts, result, self.words)
            ),
            "",
        )

    @cached_property
    def session(self) -> Label:
        """The label of all that the model has read."""
        return join_all((USER, *{each.label for each in self.earlier}))

    def repeats(self, earlier: Earlier) -> bool:
        """True if an earlier call was made with the same arguments, as the tool reads them."""
        if earlier.name != self.tool.name:
            return False
        try:
            return same_call(self.tool, earlier.arguments) == compared(self.whole, self.declares)
        except ToolError:
            return False

    def found_in(self, value: str) -> str:
        """The earlier result that a value without a witness comes from, in words; empty if there is none."""
        number = 0
        for each in self.earlier:
            number += each.is_call
            if value in each.result:
                where = f"the result of {each.name} (call {number}), in no field that is trusted"
                return f"it stands in {where if each.is_call else each.name}"
        return ""


def _spaced(text: str) -> str:
    """The words of a text in lower case, with a blank between them."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def defaults_of(tool: Tool) -> Json:
    """The arguments that a tool fills in where a call leaves them out."""
    properties: Json = tool.spec.parameters["properties"]
    return {name: schema["default"] for name, schema in properties.items() if "default" in schema} | tool.defaults


def same_call(tool: Tool, arguments: Json) -> str:
    """A text that is the same for all arguments which make the same call of a tool. ToolError if it refuses them."""
    return compared(defaults_of(tool) | as_json_data(tool.validate(arguments)), tool.declares)


CENTS = 4
"""The decimals of an amount that is spent by which two calls differ."""


def compared(arguments: Mapping[str, Any], declares: Declaration | None = None) -> str:
    """Checked arguments as a text that is the same for the same call: 2 and 2.0 are one number, a default may be either.

    What witnesses forgive is forgiven here: the case of ASCII letters and surrounding blanks, in arguments that decide
    where power goes and are no paths. Of a call that spends, amounts are rounded and blanks in texts do not count.
    """
    facts = declares or Declaration()
    folds = {path.partition(".")[0] for path in facts.powers if path not in facts.paths}
    spends = {path.partition(".")[0] for path in facts.spends}
    return canonical(
        {
            name: _whole(value, folds=name in folds, strips=bool(spends) or name in folds, rounds=name in spends)
            for name, value in arguments.items()
        }
    )


def _whole(value: Any, *, folds: bool, strips: bool, rounds: bool) -> Any:
    """JSON data with whole numbers as integers."""
    if isinstance(value, Mapping):
        return {key: _whole(each, folds=folds, strips=strips, rounds=rounds) for key, each in value.items()}
    if isinstance(value, list):
        return [_whole(each, folds=folds, strips=strips, rounds=rounds) for each in value]
    if isinstance(value, str):
        stripped = " ".join(value.split()) if strips else value
        return re.sub("[A-Z]+", lambda found: found[0].lower(), stripped) if folds else stripped
    if rounds and isinstance(value, float) and isfinite(value):
        value = round(value, CENTS)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def words_of(view: AttemptView) -> tuple[str, ...]:
    """The user's words: the task's prompt and the user's turns before it, without documents that are marked as untrusted.

    What was said later may be anybody's.
    """
    return tuple(_parted(text)[0] for text in _said(view))


def _parted(text: str) -> tuple[str, list[str]]:
    """The text with a blank for each marked document, and the documents, in time linear in the text."""
    words, documents, at = [], [], 0
    for begin, _, end in marked_spans(text):
        words += [text[at:begin], " "]
        documents.append(text[begin:end])
        at = end
    return "".join([*words, text[at:]]), documents


def _said(view: AttemptView) -> tuple[str, ...]:
    return (view.task.prompt, *(message.text for message in view.task.conversation if message.role == "user"))


def earlier_calls(view: AttemptView) -> tuple[Earlier, ...]:
    """Texts that were read before this call: documents beside the task, what was recalled, and the results of tools.

    Answers of earlier turns are among them: they were made from what was read then.
    """
    tools = {tool.name: tool for tool in view.tools}
    documents = [found for text in _said(view) for found in _parted(text)[1]]
    answers = [text for message in view.task.conversation if message.role == "assistant" and (text := message.text)]
    read = [Earlier("a document", READING, None, {}, text, False) for text in documents]
    read += [Earlier("an earlier answer", READING, None, {}, text, False) for text in answers]
    for call in view.calls:
        if call.kind == "tool" and ("result" in call.detail or call.detail.get("ran")):
            read.append(_earlier(call.detail, tools))
        elif call.kind == "memory" and call.detail["operation"] == "recall" and call.detail.get("reply"):
            text = "\n".join(str(each["text"]) for each in call.detail["reply"])
            read.append(Earlier("memory", READING, None, {}, text, False))
            private = Declaration(readers="user")
            read += [Earlier("memory", READING, private, {}, each, False) for each in private_texts([call])]
    return tuple(read)


def _earlier(detail: Json, tools: Mapping[str, Tool]) -> Earlier:
    name, arguments = detail["name"], detail["arguments"]
    tool = tools.get(name)
    result = plain_result(detail)
    failed = bool(detail.get("is_error", "result" not in detail))
    unread = failed and bool(detail.get("ran"))
    shown = unmarked(str(detail["result"]), detail.get("origin")) if "plain" in detail else ""
    if tool is None:
        return Earlier(name, "read", None, arguments, result, failed, unread=unread, shown=shown)
    facts = tool.declares and (
        replace(tool.declares, readers="user") if detail.get(READERS) == "user" else tool.declares
    )
    return Earlier(name, tool.effect, facts, arguments, result, failed, defaults_of(tool), unread, shown)


def told_to(call: CallCase | Earlier) -> frozenset[str]:
    """The people who read a call, in lower case."""
    recipients = call.declares.recipients if call.declares else ()
    return frozenset(each.casefold() for text in texts_at(call.whole, recipients) for each in listed(text))


def spending(call: CallCase | Earlier) -> float:
    """The amount that a call spends; NaN if that is no amount, or not known."""
    return nan if unknown_amounts(call) else amount(call.whole, call.declares.spends) if call.declares else 0.0


def unknown_amounts(call: CallCase | Earlier) -> list[str]:
    """The arguments that say what a call spends and are left out, where no default of them is known."""
    heads = (path.partition(".")[0] for path in call.declares.spends) if call.declares else ()
    return [name for name in heads if name not in call.whole]


def uses(case: CallCase) -> list[tuple[str, float, float]]:
    """Each bound that is set, in words, with what the attempt would have used after this call, and the most it may."""
    tool, bounds = case.tool.name, case.bounds
    calls = [each for each in case.earlier if each.is_call]
    made = [each for each in calls if each.made]
    counted = [(f"calls of {tool}", sum(each.name == tool for each in made) + 1, case.declares.rate)]
    counted += [("calls", len(calls) + 1, bounds.calls)]
    if case.changes:
        counted += [("changes", sum(each.effect != "read" for each in made) + 1, bounds.writes)]
    if bounds.recipients is not None:
        counted += [("recipients", len(told_to(case).union(*map(told_to, made))), bounds.recipients)]
    found: list[tuple[str, float, float]] = [
        (f"{most} {what}", used, most) for what, used, most in counted if most is not None
    ]
    if bounds.spend is not None:
        found += [(f"the {bounds.spend:g} that may be spent", sum(map(spending, made)) + spending(case), bounds.spend)]
    return found


def amount(arguments: Mapping[str, Any], paths: Sequence[str]) -> float:
    """The sum of the amounts at these paths; NaN if one is not a finite number of 0 or more."""
    found = 0.0
    for value in (value for path in paths for value in fields_at(arguments, path)):
        try:
            each = float(value) if value is not None else 0.0
        except (TypeError, ValueError, OverflowError):
            return nan
        found += each if 0 <= each < inf else nan
    return found
