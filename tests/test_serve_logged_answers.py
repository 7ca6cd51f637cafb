"""`--log-texts` notes the answers of every route, whole and streamed, in the order of the reply."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from firsthand.message import assistant, user
from firsthand.model import Completion, Delta, Usage
from firsthand.serve.anthropic.anthropic_messages import messages
from firsthand.serve.openai.chat_completions import chat_completions
from firsthand.serve.openai.completions import completions
from firsthand.serve.openai.responses import responses
from served import serving
from spelled_model import SpelledModel, answered, request_with, state_of

HI = [{"role": "user", "content": "Hi"}]
ROUTES = {
    chat_completions: {"messages": HI},
    completions: {"prompt": "Hi"},
    messages: {"model": "demo", "max_tokens": 9, "messages": HI},
    responses: {"input": "Hi"},
}


def ended(text: str, index: int = 0) -> Delta:
    return Delta("", Completion(assistant(text), "stop", Usage(1, 0, 1)), index=index)


def texts_of(notes: dict[str, Any]) -> list[str | None]:
    return [each and each["parts"][0]["text"] for each in notes["answers"]]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("handler", ROUTES, ids=lambda handler: handler.__name__)
def test_the_answer_is_noted_on_every_route(handler: Any, stream: bool) -> None:
    request = request_with({**ROUTES[handler], "stream": stream})
    model = SpelledModel(Delta("A"), Delta("b"), ended("Ab"))
    answered(handler, state_of(model, log_texts=True), request)
    assert request.notes["answers"] == [assistant("Ab").to_json()]
    unsaid = request_with({**ROUTES[handler], "stream": stream})
    answered(handler, state_of(model), unsaid)
    assert "answers" not in unsaid.notes


@pytest.mark.parametrize("stream", [False, True])
def test_answers_to_several_prompts_are_noted_by_their_places(stream: bool) -> None:
    class Slow(SpelledModel):
        async def stream_many(self, prompt: Any, sampling: Any, **options: Any) -> Any:
            for index in (1, 0):
                yield Delta(f"{prompt}{index}", index=index)
            await asyncio.sleep(0.05 if prompt == "a" else 0)
            for index in (1, 0):
                yield ended(f"{prompt}{index}", index)

    request = request_with({"prompt": ["a", "b"], "n": 2, "stream": stream})
    answered(completions, state_of(Slow(), log_texts=True), request)
    assert texts_of(request.notes) == ["a0", "a1", "b0", "b1"]


def test_of_an_answer_that_is_left_early_the_text_until_then_is_noted() -> None:
    async def leave() -> dict[str, Any]:
        state, request = state_of(SpelledModel(Delta("A"), Delta("b"), ended("Ab")), log_texts=True), request_with({})
        served = state.models.find(None)
        answers = state.answers(request, served, [user("Hi")], None, n=2)  # type: ignore[arg-type]
        assert (await anext(answers)).text == "A" and (await anext(answers)).text == "b"
        await answers.aclose()
        return request.notes

    assert texts_of(asyncio.run(leave())) == ["Ab", None]


def test_the_line_of_a_stream_in_the_log_has_its_answer(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with serving(SpelledModel(Delta("A"), ended("A")), name="demo", log=log, log_texts=True) as running:
        asked = {"messages": HI, "stream": True}
        assert "[DONE]" in httpx.post(f"{running.url}/v1/chat/completions", json=asked, timeout=20).text
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (line,) = [each for each in lines if each["event"] == "request"]
    assert line["stream"] and texts_of(line) == ["A"]
