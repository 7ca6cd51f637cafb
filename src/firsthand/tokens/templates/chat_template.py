"""Encodes conversations with a model's chat template; sampled turns are spliced in as token ids.

Guarantees. **Append-only**: sampled ids are never re-encoded, and the ids up to a sampled turn are a prefix of the ids
of every longer conversation, whatever the template does to old turns. **No forged special tokens**: they come only from
the template's own text; `<|im_end|>` in a message, a tool result or a tool's description is encoded as plain
characters. Where a template changes content (Qwen3 drops old thoughts) the change is kept, unless some content names a
special token, or the change makes one of it (deleting `/think` in `<|im_/thinkend|>`): then that content is inserted
unchanged. A template that hides content (escapes it to ASCII) while some names a special token raises TemplateError.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from copy import copy
from datetime import datetime
from typing import Any

from firsthand.errors import TemplateError
from firsthand.message import Json, Message, ToolCall, canonical
from firsthand.model import ToolSpec
from firsthand.tokens.calls import call_parser
from firsthand.tokens.calls.call_grammar import markup_of
from firsthand.tokens.calls.thought_text import ThoughtText
from firsthand.tokens.templates import template_messages
from firsthand.tokens.templates.control_marks import ControlMarks
from firsthand.tokens.templates.template_sandbox import SandboxedTemplate
from firsthand.tokens.templates.template_variables import check_variables
from firsthand.tokens.templates.untrusted_text import TextMasks
from firsthand.tokens.tokenizer import TextRun, Tokenizer

_MAX_REMEMBERED = 256
_MAX_REMEMBERED_IDS = 1 << 22


class ChatTemplate:
    """Encodes conversations with a template (None: ChatML if the model has it, else plain text). `now` sets the
    template's clock. With `max_tokens`, the model's context, longer texts are refused before they are encoded.
    Where the tokenizer has a template for tools beside its own, that one renders conversations with tools."""

    def __init__(
        self, tokenizer: Tokenizer, template: str | None, *, now: datetime | None = None, max_tokens: int | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._for_tools: ChatTemplate | None = None
        if tokenizer.tool_template not in (None, template) and template == tokenizer.chat_template:
            self._for_tools = ChatTemplate(tokenizer, tokenizer.tool_template, now=now, max_tokens=max_tokens)
        if template is None:
            template = (
                template_messages.CHATML if tokenizer.id_of("<|im_start|>") is not None else template_messages.PLAIN
            )
        self._template = SandboxedTemplate(template, now=now)
        self.knows_tools = "tools" in template
        """True if the template renders tools; otherwise they are described in the system prompt."""
        self.has_channels = tokenizer.has_channels and "<|channel|>" in template
        """True if an answer has Harmony's channels, as those of gpt-oss."""
        self.markup = markup_of(template if self._for_tools is None else tokenizer.tool_template or "")
        """The model's tool-call markup; None if unknown."""
        self._marks = ControlMarks(map(tokenizer.text_of, tokenizer.special_ids))
        self._short_ids = "length != 9" in template
        self._remembered: OrderedDict[bytes, array[int]] = OrderedDict()
        self._lock = threading.Lock()
        self._variables: dict[str, Any] = {}
        self._with_reasoning = False
        self.knows_system = self._renders_system()
        """True if the template has a system role; otherwise its text goes into the next user turn."""

    def with_variables(self, variables: Mapping[str, Any]) -> ChatTemplate:
        """Returns a copy with extra template variables, such as `enable_thinking`.

        Raises ConfigError unless they are a few short plain values.
        """
        other = copy(self)
        other._variables = check_variables(
            variables, lambda text: self._marks.may_forge(text) or self._names_control(text)
        )
        other._for_tools = self._for_tools and self._for_tools.with_variables(variables)
        return other

    def with_reasoning(self) -> ChatTemplate:
        """Returns a copy that gives the template the reasoning of messages too, for training."""
        other = copy(self)
        other._with_reasoning, other._remembered = True, OrderedDict()
        other._for_tools = self._for_tools and self._for_tools.with_reasoning()
        return other

    def encode(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), *, reply: bool = True) -> list[int]:
        """Returns the ids of a conversation; with `reply`, they end where the assistant's turn begins.

        `encode(messages[:k])` plus the sampled ids of `messages[k]` is a prefix of the ids of every longer
        conversation. Raises TemplateError if the template refuses the conversation, PromptTooLong if it clearly exceeds
        `max_tokens`.
        """
        if tools and self._for_tools is not None:
            return self._for_tools.encode(messages, tools, reply=reply)
        try:
            return self._encode(messages, tools, reply)
        except RecursionError:
            raise TemplateError(
                "a tool call's arguments or a tool's schema are nested too deeply to be rendered"
            ) from None

    def parse(
        self, text: str, tools: Sequence[ToolSpec] = (), *, thought: ThoughtText | None = None
    ) -> tuple[str, tuple[ToolCall, ...]]:
        """Returns the text and the tool calls of a generated text, which may begin with a `thought`."""
        return call_parser.parse(text, tools, thought=thought)

    def _encode(self, messages: Sequence[Message], tools: Sequence[ToolSpec], reply: bool) -> list[int]:
        specs = [tool.to_json() for tool in tools]
        seed = canonical([specs, self._variables] if self._variables else specs).encode("utf-8", "replace")
        keys = list(template_messages.digests(messages, seed))
        if reply and (again := self._recall(keys[-1])) is not None:  # one prompt is often sampled several times
            return again
        sampled = [index for index, message in enumerate(messages) if message.is_as_sampled]
        # start from the newest remembered prompt of a sampled message
        known = next(
            (at for at in range(len(sampled) - 1, -1, -1) if self._recall(keys[sampled[at]]) is not None), None
        )
        ids: list[int] | None = None if known is None else self._recall(keys[sampled[known]])
        for at in range(0 if known is None else known + 1, len(sampled)):
            previous = sampled[at - 1] if at else None
            ids = self._extend(ids, messages[: sampled[at]], previous, tools, reply=True)
            self._remember(keys[sampled[at]], ids)
        ids = self._extend(ids, messages, sampled[-1] if sampled else None, tools, reply=reply)
        if reply:
            self._remember(keys[-1], ids)
        return ids

    def _extend(self, head: list[int] | None, messages: Sequence[Message], last: int | None, tools: Sequence[ToolSpec],
                *, reply: bool) -> list[int]:  # fmt: skip
        """Returns the ids of a conversation whose sampled message `last` answered the prompt `head`."""
        if last is None or head is None:
            return self._encode_runs(self._runs(messages, None, tools, reply))
        sampled = messages[last].sampled
        assert sampled is not None
        ids = [*head, *sampled.token_ids]
        rest = self._runs(messages, last, tools, reply)
        closing = self._runs(messages[: last + 1], last, tools, False)
        if sampled.token_ids and sampled.token_ids[-1] in self._tokenizer.eos_ids:
            rest, closing = self._without_end(rest), self._without_end(closing)
        # the turn's closing is encoded by itself, so that later text cannot change its ids
        end = "".join(run.text for run in closing)
        if rest and rest[0].trusted and rest[0].text.startswith(end):
            ids += self._encode_runs([TextRun(end, True)], after=ids)
            rest = [TextRun(rest[0].text[len(end) :], True), *rest[1:]]
        return ids + self._encode_runs(rest, after=ids)

    def _encode_runs(self, runs: list[TextRun], *, after: Sequence[int] = ()) -> list[int]:
        return self._tokenizer.encode_runs(runs, after=after, most=self._max_tokens)

    def _without_end(self, runs: list[TextRun]) -> list[TextRun]:
        """Returns the runs without a leading end-of-turn token, which the sampled ids have already."""
        if runs and runs[0].trusted:
            text = runs[0].text
            at, token = next(iter(self._tokenizer.find_special(text)), (0, None))
            if token is not None and token.id in self._tokenizer.closing_ids and not text[:at].strip():
                return [TextRun(text[at + len(token.content) :], True), *runs[1:]]
        return runs

    def _runs(
        self, messages: Sequence[Message], last: int | None, tools: Sequence[ToolSpec], reply: bool
    ) -> list[TextRun]:
        """Returns the rendered conversation as text runs, only the template's own trusted.

        With `last`, returns only what follows that message.
        """
        groups = self._groups(messages, tools)
        specs = [tool.to_json() for tool in tools] if self.knows_tools else []
        strings = _strings([groups, specs])
        masks = TextMasks(strings, lambda text: self._marks.may_forge(text) or self._names_control(text))
        sampled_group = (
            None if last is None else last + len(groups) - len(messages)
        )  # a system message may have been added in front

        def rendered(shown_groups: list[list[Json]], shown: list[Json]) -> str:
            if sampled_group is None:
                return self._render(_flat(shown_groups), shown, reply)
            return self._after_turn(shown_groups, sampled_group, masks.place, shown, reply)

        masked_specs = masks.mask_within(specs, always=False)
        masked = [[masks.mask_message(entry) for entry in group] for group in groups]
        safe, plain = masks.runs(rendered(masked, masked_specs)), rendered(groups, specs)
        if safe is not None and "".join(run.text for run in safe) == plain:
            return safe
        names_control = any(map(self._names_control, strings))
        if safe is None:
            tamed = None if names_control else rendered(self._marks.tamed(groups), self._marks.tamed(specs))
            if tamed is None or self._controls(tamed) != self._controls(plain):
                raise TemplateError(
                    "a message names a control token, and the chat template escapes messages in a way that "
                    "hides which text is whose: remove the control token from the message"
                )
            return [TextRun(plain, True)]
        own = [name for run in safe if run.trusted for name in self._controls(run.text)]
        return safe if names_control or own != self._controls(plain) else [TextRun(plain, True)]

    def _after_turn(
        self, groups: list[list[Json]], sampled_group: int, place: str, specs: list[Json], reply: bool
    ) -> str:
        """Returns the template's text after the sampled group, from its end of turn on."""
        turn = groups[sampled_group][0]
        calls = turn.get("tool_calls", [])
        if calls:  # the template may render them after the content, and may require them
            marked = [call | {"function": call["function"] | {"arguments": {"place": place}}} for call in calls]
            words = {"content": place if turn["content"] else ""}
            text = self._render(
                _flat(_replaced(groups, sampled_group, turn | words | {"tool_calls": marked})), specs, reply
            )
            rest = text.rpartition(place)[2]
            for at, token in self._tokenizer.find_special(rest):
                if token.id in self._tokenizer.closing_ids and len(rest) < len(text) and place[0] not in rest[:at]:
                    return rest[at:]
        text = self._render(
            _flat(_replaced(groups, sampled_group, {"role": "assistant", "content": place})), specs, reply
        )
        if place not in text:
            raise TemplateError(
                "the chat template left out the content of an assistant turn: use a template that renders every turn"
            )
        return text.rpartition(place)[2]

    def _groups(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[list[Json]]:
        """Returns for each message the dicts that represent it."""
        with_tools = list(messages) if self.knows_tools else template_messages.with_tools_in_text(messages, tools)
        folded = list(with_tools) if self.knows_system else template_messages.with_system_folded(with_tools)
        groups = [
            []
            if message is None
            else template_messages.to_dicts(
                message, short_ids=self._short_ids, reasoning=self._with_reasoning, apart=self.has_channels
            )
            for message in folded
        ]
        if not self.has_channels:
            return groups
        sampled = [message is not None and message.is_as_sampled for message in folded]
        return template_messages.with_one_call_each(groups, sampled)

    def _render(self, messages: list[Json], tools: list[Json], reply: bool) -> str:
        token = self._tokenizer
        return self._template.render(self._variables | {
            "messages": messages, "tools": tools or None, "add_generation_prompt": reply, "add_bos": token.add_bos,
            "bos_token": token.text_of(token.bos_id), "eos_token": token.text_of(token.eos_id),
        })  # fmt: skip

    def _controls(self, text: str) -> list[str]:
        """Returns the special tokens in a text, in their order."""
        return [token.content for _, token in self._tokenizer.find_special(text)]

    def _names_control(self, text: str) -> bool:
        return next(iter(self._tokenizer.find_special(text)), None) is not None

    def _renders_system(self) -> bool:
        probe = "6c1f4d0e"
        try:
            return probe in self._render(
                [{"role": "system", "content": probe}, {"role": "user", "content": "x"}], [], True
            )
        except TemplateError:
            return False

    def _recall(self, key: bytes) -> list[int] | None:
        with self._lock:
            found = self._remembered.get(key)
            if found is None:
                return None
            self._remembered.move_to_end(key)
            return found.tolist()

    def _remember(self, key: bytes, ids: list[int]) -> None:
        with self._lock:
            self._remembered[key] = array("i", ids)
            while len(self._remembered) > _MAX_REMEMBERED or (
                len(self._remembered) > 1 and sum(map(len, self._remembered.values())) > _MAX_REMEMBERED_IDS
            ):
                self._remembered.popitem(last=False)


def _flat(groups: list[list[Json]]) -> list[Json]:
    return [entry for group in groups for entry in group]


def _replaced(groups: list[list[Json]], index: int, entry: Json) -> list[list[Json]]:
    return [*groups[:index], [entry], *groups[index + 1 :]]


def _strings(value: object) -> list[str]:
    """Returns every string in plain data, keys included."""
    match value:
        case str():
            return [value]
        case dict():
            return [text for key, inner in value.items() for text in (*_strings(key), *_strings(inner))]
        case list() | tuple():
            return [text for inner in value for text in _strings(inner)]
        case _:
            return []
