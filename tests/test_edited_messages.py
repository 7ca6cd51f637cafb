"""An edited message has no sampled ids: what a model is shown is what its text says, on a real Local model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.guard import AttemptView, GuardVerdict
from firsthand.message import Message, Sampled, Text, ToolCall, assistant, user
from firsthand.model import Sampling
from firsthand.providers.local import Local
from firsthand.rollout import rollout
from firsthand.task import Task


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder: Path = tiny.write_model(tmp_path_factory.mktemp("model"))
    local = Local(folder, name="tiny", config=EngineConfig(kv_memory_bytes=8 << 20, threads=1))
    yield local
    local.close()


def ids_of(model: Local, *messages: Message) -> list[int]:
    return asyncio.run(model.tokenize(messages))


def text_of(model: Local, *messages: Message) -> str:
    return asyncio.run(model.detokenize(ids_of(model, *messages)))


def answered(model: Local) -> list[Message]:
    question = user("What is 12 + 30?")
    sampling = Sampling(max_tokens=12, temperature=1.0, seed=7)
    (completion,) = asyncio.run(model.complete([question], sampling))
    assert completion.message.sampled is not None and completion.message.text
    return [question, completion.message, user("And 1 + 1?")]


def edits() -> dict[str, Callable[[Message], Message]]:
    return {
        "edited": lambda message: message.edited(Text("[redacted]")),
        "replace": lambda message: replace(message, parts=(Text("[redacted]"),)),
        "constructor": lambda message: Message(message.role, (Text("[redacted]"),), message.sampled),
    }


@pytest.mark.parametrize("how", list(edits()))
def test_the_ids_of_an_edited_answer_are_not_spliced(model: Local, how: str) -> None:
    first, answer, last = answered(model)
    assert answer.sampled is not None
    shown = edits()[how](answer)
    assert ids_of(model, first, shown, last) == ids_of(model, first, assistant("[redacted]"), last)
    prompt = text_of(model, first, shown, last)
    assert "[redacted]" in prompt and answer.text not in prompt
    assert shown.sampled is None


def test_an_answer_that_is_not_edited_keeps_its_ids(model: Local) -> None:
    first, answer, last = answered(model)
    assert answer.sampled is not None
    ids = answer.sampled.token_ids
    for same in (replace(answer), Message(answer.role, answer.parts, answer.sampled), answer.edited(*answer.parts)):
        assert same.sampled == answer.sampled
        prompt = ids_of(model, first, same, last)
        assert any(tuple(prompt[at : at + len(ids)]) == ids for at in range(len(prompt)))


def test_arguments_that_are_changed_in_place_are_not_bypassed_by_ids(model: Local) -> None:
    text = '<tool_call>\n{"name": "send", "arguments": {"to": "SECRET"}}\n</tool_call>'
    ids = tuple(asyncio.run(model.tokenize(text)))
    call = ToolCall("1", "send", {"to": "SECRET"})
    answer = Message("assistant", (call,), Sampled(ids, (0.0,) * len(ids)))
    assert "SECRET" in text_of(model, user("go"), answer, user("on"))
    call.arguments["to"] = "nobody"
    assert "SECRET" not in text_of(model, user("go"), answer, user("on"))


def test_tokens_may_be_given_to_a_message_anew() -> None:
    message = Message("assistant", (Text("other words"),), Sampled((1, 2), (-0.1, -0.2)))
    assert replace(message, sampled=Sampled((3,), (-0.3,))).sampled == Sampled((3,), (-0.3,))
    assert Message.from_json(message.to_json()) == message


def test_a_guard_that_redacts_an_answer_reaches_the_prompt_of_the_next_turn(model: Local) -> None:
    class Redacts:
        def prompt(self, view: AttemptView, messages: tuple[Message, ...]) -> GuardVerdict:
            shown = tuple(each.edited(Text("[redacted]")) if each.role == "assistant" else each for each in messages)
            return GuardVerdict.replaced("redacts", shown)

    async def two_turns(task: Task, ctx: Context) -> str:
        ctx = await ctx.say("What is 12 + 30?").generate(temperature=1.0)
        return (await ctx.say("And 1 + 1?").generate()).text

    agent = Agent("a", model, two_turns, guard=Redacts(), sampling=Sampling(max_tokens=12))
    trace = asyncio.run(rollout(agent, Task("1", "q"), seed=3))
    first, second = trace.calls
    said = trace.nodes[1].message
    assert said.sampled is not None and said.text and trace.sent(second)[1] == assistant("[redacted]")
    shown = ids_of(model, *[each for each in trace.sent(second) if isinstance(each, Message)])
    spliced = ids_of(model, *trace.messages(second.at))
    assert second.usage.prompt_tokens == len(shown) != len(spliced)
    assert first.usage.prompt_tokens == len(ids_of(model, user("What is 12 + 30?")))
