"""Conversations as fine-tuning data: JSONL lines to streams in which the assistant's tokens alone count.

A conversation is encoded turn by turn as the engine would encode it: the prompt up to an assistant turn, then the turn's own
tokens up to and including its end, which are spliced into all later prompts. So the trained ids are the ids of serving, and
the mask is exact. Where the template's prompt opens a thought (DeepSeek-R1 and its distillations), an answer is trained with
its own thought, or with an empty one. Reasoning in a field of its own is trained as the template writes it. Lines have
`messages` (OpenAI's format, tools included), `prompt` and `completion`, or `text`; of a comparison the preferred answer is
trained on, and a line whose `label` is false is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from firsthand.chat_messages import INSTEAD, message_of, names_of
from firsthand.errors import ConfigError, DataError, FirsthandError, TemplateError
from firsthand.message import Json, Message, Reasoning, Sampled
from firsthand.model import ToolSpec
from firsthand.system.plurals import count_of
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.tokens.tokenizer import TextRun, Tokenizer
from firsthand.train.documents import json_lines, text_field
from firsthand.train.preference_layouts import preferred
from firsthand.train.streams import Stream

TooLong = Literal["skip", "cut", "refuse"]
_OPEN, _CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Conversation:
    """One line of a data set."""

    source: str
    """File and line."""
    messages: tuple[Message, ...] = ()
    trained: tuple[bool, ...] = ()
    """True for each message that is trained on; only an assistant's may be."""
    tools: tuple[ToolSpec, ...] = ()
    prompt: str = ""
    """Without messages: text that does not count, and the text after it that does."""
    text: str = ""


class Conversations(list[Conversation]):
    """The conversations of a file, in its order."""

    num_unwanted: int = 0
    """Lines left out because no answer of theirs is preferred, or `label` is false."""


@dataclass
class Encoded:
    """Conversations as streams, and what was done with those that are longer than the context."""

    streams: list[Stream] = field(default_factory=list)
    num_skipped: int = 0
    num_cut: int = 0
    """Conversations of which only the first tokens are kept."""
    num_without: int = 0
    """Conversations left out because no token of theirs counts within the context."""
    num_unwanted: int = 0
    """Lines of the file left out because no answer of theirs is preferred, or `label` is false."""

    def __str__(self) -> str:
        """The counts in words."""
        counted = sum(int((stream.ce > 0).sum()) for stream in self.streams if stream.ce is not None)
        came, tokens = count_of(len(self.streams), "conversation"), count_of(sum(map(len, self.streams)), "token")
        words = f"{came}, {tokens}, {counted} of them trained on"
        for count, what in (
            (self.num_skipped, "longer than the context and left out (`--too-long cut` keeps their beginning)"),
            (self.num_cut, "longer than the context and cut"),
            (self.num_without, "without a token to train on"),
            (self.num_unwanted, "left out: their `label` is false, or no answer is preferred"),
        ):
            words += f"; {count} {what}" if count else ""
        return words


def read_conversations(path: Path) -> Conversations:
    """The conversations of a JSONL file. DataError that names file and line for the first bad one, and counts the others.

    Of comparisons the preferred answers; lines without one are counted. DataError too if no conversation is left.
    """
    found, errors = Conversations(), []
    for given, where in json_lines(path):
        try:
            body = preferred(given, where)
            if body is None:
                found.num_unwanted += 1
            else:
                found.append(conversation_of(body, where))
        except DataError as error:
            errors.append(str(error))
    if errors:
        more = f" ({len(errors) - 1} more lines are bad too)" if len(errors) > 1 else ""
        raise DataError(errors[0] + more)
    if not found and found.num_unwanted:
        left_out = f"{count_of(found.num_unwanted, 'line')} left out: their `label` is false, or no answer is preferred"
        raise DataError(f"{path} has no answer to train on; {left_out}")
    if not found:
        raise DataError(f"{path} has no conversation: give one JSON object a line")
    return found


def conversation_of(body: Json, where: str = "a line") -> Conversation:
    """The conversation of a JSON object. DataError for missing fields, wrong roles, and empty answers."""
    if "messages" in body:
        return _of_messages(body, where)
    if "completion" in body or "prompt" in body:
        prompt, completion = body.get("prompt"), body.get("completion")
        if isinstance(prompt, list) and isinstance(completion, list):
            return _of_messages({**body, "messages": [*prompt, *completion]}, where, first=len(prompt))
        if not isinstance(prompt, str) or not isinstance(completion, str):
            raise DataError(f"{where}: `prompt` and `completion` must both be texts, or both lists of messages")
        if not completion:
            raise DataError(f"{where}: the field `completion` is empty: there is nothing to train on")
        return Conversation(where, prompt=prompt, text=completion)
    if "text" in body:
        return Conversation(where, text=text_field(body, where))
    raise DataError(
        f"{where} has the fields {', '.join(map(str, list(body)[:6])) or '(none)'}: expected `messages`, `prompt` and "
        "`completion`, or `text`"
    )


def _of_messages(body: Json, where: str, *, first: int = 0) -> Conversation:
    entries = body["messages"]
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{where}: `messages` must be a list of one message or more")
    messages: list[Message] = []
    trained: list[bool] = []
    names: dict[str, str] = {}
    for index, entry in enumerate(entries):
        at = f"{where}, message {index + 1}"
        message = _message(entry, at, names)
        names |= names_of([message])
        weight = entry.get("weight", 1)
        if weight not in (0, 1):
            raise DataError(f"{at}: its weight is {weight!r}: expected 0 or 1")
        messages.append(message)
        trained.append(message.role == "assistant" and index >= first and bool(weight))
    if not any(trained):
        raise DataError(f"{where}: no message of the role `assistant` counts: there is nothing to train on")
    return Conversation(where, tuple(messages), tuple(trained), _tools(body.get("tools"), where))


def _message(entry: Any, at: str, names: dict[str, str]) -> Message:
    message = message_of(entry, at, names, keep_reasoning=True)
    if message.role == "assistant" and not message.text.strip() and not message.tool_calls:
        raise DataError(f"{at} is an empty answer: give it a text or tool calls, or leave the line out")
    return message


def _tools(given: Any, where: str) -> tuple[ToolSpec, ...]:
    if given is None:
        return ()
    try:
        return tuple(
            ToolSpec(entry["name"], str(entry.get("description", "")), entry.get("parameters", {"type": "object"}))
            for entry in (tool.get("function", tool) for tool in given)
        )
    except (KeyError, TypeError, AttributeError, FirsthandError) as error:
        raise DataError(
            f"{where}: `tools` is not a list in OpenAI's format ({type(error).__name__}: {error})"
        ) from None


def encode_conversations(
    conversations: Iterable[Conversation],
    tokenizer: Tokenizer,
    chat: ChatTemplate,
    *,
    context: int,
    too_long: TooLong = "skip",
    last_only: bool = False,
) -> Encoded:
    """The conversations as streams of at most `context` tokens.

    Longer ones are counted and left out, cut to their first tokens, or refused. With `last_only`, only the last assistant
    turn that counts is trained on. DataError if nothing is left, or if a template cannot render a turn.
    """
    encoded = Encoded(num_unwanted=conversations.num_unwanted if isinstance(conversations, Conversations) else 0)
    for each in conversations:
        stream = encode_conversation(each, tokenizer, chat, last_only=last_only)
        if len(stream) > context:
            if too_long == "refuse":
                raise DataError(
                    f"{each.source} has {len(stream)} tokens, and the context is {context}: shorten or cut it"
                )
            if too_long == "skip":
                encoded.num_skipped += 1
                continue
            assert stream.ce is not None
            stream = Stream(stream.ids[:context], ce=stream.ce[:context], group=stream.group, source=stream.source)
            encoded.num_cut += 1
        if stream.ce is None or not stream.ce.any():
            encoded.num_without += 1
            encoded.num_cut -= too_long == "cut"
        else:
            encoded.streams.append(stream)
    if not encoded.streams:
        raise DataError(f"nothing is left to train on within a context of {context} tokens: {encoded}")
    return encoded


def encode_conversation(
    conversation: Conversation, tokenizer: Tokenizer, chat: ChatTemplate, *, last_only: bool = False
) -> Stream:
    """One conversation as a stream with the weight 1 for each token of an assistant's turn, its end token included."""
    ids, spans = (
        _of_text(conversation, tokenizer) if not conversation.messages else _of_turns(conversation, tokenizer, chat)
    )
    ce = np.zeros(len(ids), np.float32)
    for start, stop in spans[-1:] if last_only else spans:
        ce[start:stop] = 1
    return Stream(np.array(ids, dtype=np.int32), ce=ce, source=conversation.source)


def _of_text(conversation: Conversation, tokenizer: Tokenizer) -> tuple[list[int], list[tuple[int, int]]]:
    """Prompt and text encoded apart, as the text would be sampled after the prompt."""
    prompt = tokenizer.encode_prompt(conversation.prompt)
    runs = [TextRun(conversation.text, False)]
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    ids = [*prompt, *tokenizer.encode_runs(runs, after=prompt if conversation.prompt else ()), *end]
    return ids, [(len(prompt), len(ids))]


def _of_turns(
    conversation: Conversation, tokenizer: Tokenizer, chat: ChatTemplate
) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of all turns up to the last that counts, and the places of those that do."""
    said: list[Message] = []
    spans: list[tuple[int, int]] = []
    ids: list[int] = []
    if any(isinstance(part, Reasoning) for message in conversation.messages for part in message.parts):
        chat = chat.with_reasoning()
    try:
        for message, counts in zip(conversation.messages, conversation.trained, strict=True):
            if message.role == "assistant":
                prompt = chat.encode(said, conversation.tools)
                reply = _reply(said, message, prompt, conversation.tools, tokenizer, chat)
                ids = [*prompt, *reply]
                if counts:
                    spans.append((len(prompt), len(ids)))
                sampled = Sampled(tuple(reply), (0.0,) * len(reply))
                message = Message("assistant", message.parts, sampled)
            said.append(message)
    except (TemplateError, DataError) as error:
        raise DataError(f"{conversation.source}: {error}") from None
    return ids[: spans[-1][1]], spans


def _reply(
    said: Sequence[Message],
    message: Message,
    prompt: list[int],
    tools: Sequence[ToolSpec],
    tokenizer: Tokenizer,
    chat: ChatTemplate,
) -> list[int]:
    """The ids that a model would sample for this turn after the prompt, its end token last.

    They are what the template writes after the prompt. Where it writes the prompt of an unfinished turn in another way
    than that of a finished one (an empty thought, a trimmed space), they are the content as plain text, behind an empty
    thought if the prompt opens one that neither the template nor the content closes.
    """
    whole = chat.encode([*said, message], tools, reply=False)
    opened = _opened_thought(prompt, tokenizer)
    reply = whole[len(prompt) :]
    written = tokenizer.decode(reply, skip_special=False)
    is_continued = whole[: len(prompt)] == prompt and (opened is None or _goes_on(written, message.text))
    reasoning = next((part for part in message.parts if isinstance(part, Reasoning)), None)
    if reasoning is not None:
        without = message.edited(*(part for part in message.parts if part is not reasoning))
        is_unread = whole == chat.encode([*said, without], tools, reply=False)
        if is_unread or not is_continued or sum(id in tokenizer.eos_ids for id in reply) > 1:
            raise DataError(
                f"an answer has `{reasoning.state['field']}`, which the model's chat template does not write into the same "
                f"turn: {INSTEAD}"
            )
    if is_continued:
        end = next((at for at, id in enumerate(reply) if id in tokenizer.eos_ids), None)
        if end is not None:
            return reply[: end + 1]
        written = tokenizer.decode(reply, skip_special=False, continuing=True)
        runs = [TextRun(written.rstrip(), False)]  # a template without end tokens
    elif message.tool_calls:
        raise ConfigError(
            "the model's chat template does not write a tool call as a continuation of its own prompt, so its tokens are "
            "not known: give a template that does"
        )
    elif opened is None:
        runs = [TextRun(message.text, False)]
    else:
        runs = _after_opened(message.text, opened)
    return [*tokenizer.encode_runs(runs, after=prompt), *_turn_end(whole, tokenizer)]


def _opened_thought(prompt: Sequence[int], tokenizer: Tokenizer) -> str | None:
    """The blanks behind the tag of a thought with which the prompt ends; None if it ends without one."""
    tail = tokenizer.decode(prompt[-16:], skip_special=False)
    body = tail.rstrip()
    return tail[len(body) :] if body.endswith(_OPEN) else None


def _goes_on(reply: str, content: str) -> bool:
    """True if the reply goes on with an opened thought and closes it, and none stands before the content's own."""
    if _CLOSE not in reply or reply.lstrip().startswith(_OPEN):
        return False
    has_own = _CLOSE in content or content.lstrip().startswith(_OPEN)
    return not has_own or reply.count(_CLOSE) == content.count(_CLOSE)


def _after_opened(text: str, blanks: str) -> list[TextRun]:
    """The answer as it follows the tag of a thought and blanks; one without a thought follows an empty thought.

    DataError if it opens a thought of its own and does not close it.
    """
    if text.lstrip().startswith(_OPEN):
        text = text.lstrip().removeprefix(_OPEN).removeprefix(blanks)
    elif _CLOSE not in text:
        text = f"\n\n{_CLOSE}\n\n".removeprefix(blanks) + text.lstrip("\n")
    thought, tag, answer = text.partition(_CLOSE)
    if not tag:
        raise DataError(
            f"an answer opens a thought and does not close it: write {_CLOSE} behind it, or leave the line out"
        )
    return [TextRun(thought, False), TextRun(tag, True), TextRun(answer, False)]


def _turn_end(whole: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """The end token that the template writes last, else the tokenizer's own."""
    last = next((id for id in reversed(whole) if id in tokenizer.eos_ids), tokenizer.eos_id)
    return [] if last is None else [last]


def with_marks(stream: Stream, tokenizer: Tokenizer) -> str:
    """The text of a stream, special tokens included, with ⟦ and ⟧ around what is trained on."""
    assert stream.ce is not None
    pieces, is_inside = [], False
    for id, weight in zip(stream.ids.tolist(), stream.ce.tolist(), strict=True):
        if (weight > 0) != is_inside:
            is_inside = not is_inside
            pieces.append("⟦".encode() if is_inside else "⟧".encode())
        pieces.append(tokenizer.token_bytes(id))
    return b"".join([*pieces, "⟧".encode() if is_inside else b""]).decode("utf-8", "replace")
