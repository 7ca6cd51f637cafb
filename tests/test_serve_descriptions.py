"""What a server says of its routes, reasoning kept beside answers, and the span of a request."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from firsthand.message import Sampled, assistant, user
from firsthand.model import Completion, Sampling, Usage
from firsthand.serve.openai import openai_app
from firsthand.serve.openai.openapi import description
from firsthand.serve.openai.reasoning_split import ReasoningSplitter
from firsthand.serve.openai.sampled_turns import SampledTurns
from firsthand.serve.telemetry.request_spans import Operation, RequestSpan, _messages
from spelled_model import SpelledModel, answered, state_of


def test_the_description_tells_of_each_route_its_body_its_answers_and_its_refusals() -> None:
    state = state_of(SpelledModel())
    body = answered(openai_app.openapi, state, {})
    paths = body["paths"]
    assert body["openapi"] == "3.1.0" and "security" not in body and "securitySchemes" not in body["components"]
    assert paths.keys() == {
        "/health", "/health/live", "/version", "/metrics", *openai_app.ROUTES, *openai_app.ROUTES_BY_ID,
    }  # fmt: skip
    chat = paths["/v1/chat/completions"]["post"]
    codes = {"200", "400", "401", "404", "405", "408", "413", "415", "421", "429", "500", "501", "502", "503", "504"}
    assert chat["responses"].keys() == codes and chat["summary"].startswith("The answers to a chat")
    schema = chat["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/ChatRequest"} and chat["requestBody"]["required"] is True
    shown = chat["responses"]["200"]["content"]
    assert shown["application/json"]["schema"]["required"] == ["id", "object", "created", "model", "choices", "usage"]
    assert "text/event-stream" in shown
    assert "text/event-stream" not in paths["/v1/embeddings"]["post"]["responses"]["200"]["content"]

    def shape(path: str, method: str, code: str = "400") -> str:
        answer = paths[path][method]["responses"][code]["content"]["application/json"]["schema"]
        return str(answer["$ref"].rpartition("/")[2])

    assert [shape(path, "post") for path in ("/v1/messages", "/v1/messages/count_tokens", "/tokenize")] == [
        "MessagesError", "MessagesError", "Error",
    ]  # fmt: skip
    assert paths["/version"]["get"]["responses"].keys() == {"200", "400", "401", "405", "421"}
    health = paths["/health"]["get"]["responses"]
    assert (
        health["503"]["description"] == "Not ready: loading, draining or failed."
        and "503" not in paths["/version"]["get"]["responses"]
    )
    assert list(paths["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]
    one = paths["/v1/responses/{id}"]
    required = {
        method: each["responses"]["200"]["content"]["application/json"]["schema"]["required"]
        for method, each in one.items()
    }
    assert required == {"get": ["id", "object", "status", "output", "usage"], "delete": ["id", "object", "deleted"]}
    model = paths["/v1/models/{id}"]["get"]
    assert model["responses"]["200"]["content"]["application/json"]["schema"]["required"] == [
        "id",
        "object",
        "created",
        "owned_by",
    ]
    assert model["parameters"] == [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    assert model["responses"].keys() == {"200", "400", "401", "404", "405", "421"}
    assert body["components"]["schemas"]["Error"]["properties"]["error"]["required"] == [
        "message",
        "type",
        "param",
        "code",
    ]
    lora = {"/v1/load_lora_adapter": ("POST", "Load."), "/health": ("GET", "H."), "/health/live": ("GET", "L.")}
    keyed = description(lora, {}, has_keys=True)
    assert "403" in keyed["paths"]["/v1/load_lora_adapter"]["post"]["responses"] and keyed["security"] == [{"key": []}]
    assert keyed["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    assert keyed["paths"]["/health"]["get"]["security"] == [] == keyed["paths"]["/health/live"]["get"]["security"]
    assert "security" not in keyed["paths"]["/v1/load_lora_adapter"]["post"]


@pytest.mark.parametrize(
    "thinks, starts, text, reasoning, content",
    [
        (True, False, "<think>\n\na\n\n</think>\n\nb\n", "a", "b\n"),
        (True, False, " \n<think>a</think>b", "a", "b"),
        (True, True, "\na</think>\n\nb</think>", "a", "b</think>"),
        (True, False, "plain <think>", "", "plain <think>"),
        (True, False, "<thin", "", "<thin"),
        (True, False, "<think>a </thi", "a </thi", ""),
        (True, True, "a\n", "a\n", ""),
        (False, True, "<think>a</think>b", "", "<think>a</think>b"),
        (True, False, "", "", ""),
        (True, False, "  ", "", "  "),
    ],
)
def test_reasoning_and_content_are_the_same_whole_and_letter_by_letter(
    thinks: bool, starts: bool, text: str, reasoning: str, content: str
) -> None:
    for pieces in ([text], list(text), [text[:3], text[3:]]):
        split = ReasoningSplitter(thinks=thinks, starts_in_thought=starts)
        found = [piece for each in pieces for piece in split.feed(each)] + split.finish()
        said = {kind: "".join(piece.text for piece in found if piece.kind == kind) for kind in ("reasoning", "content")}
        assert said == {"reasoning": reasoning, "content": content}, pieces
        assert all(piece.text for piece in found)


def test_the_least_recent_answers_are_forgotten_by_number_and_by_tokens() -> None:
    def said(text: str, *ids: int) -> Any:
        return replace(assistant(text), sampled=Sampled(ids, (-0.5,) * len(ids)))

    def known(turns: SampledTurns, text: str, who: str = "ann") -> Any:
        found = turns.recall(who, [user("q"), assistant(text)])[1].sampled
        return found and found.token_ids

    turns = SampledTurns(max_answers=2, max_tokens=5)
    turns.remember("ann", [user("q")], said("a", 1, 2))
    turns.remember("ann", [user("q")], said("b", 3))
    turns.remember("ann", [user("q")], said("b", 9, 9, 9, 9))
    assert len(turns) == 2 and known(turns, "b") == (3,) and known(turns, "a") == (1, 2), "the first stays"
    assert known(turns, "a", "bob") is None and turns.recall("ann", [user("r"), assistant("a")])[1].sampled is None
    turns.remember("ann", [user("q")], said("c", 4, 5))
    assert known(turns, "b") is None and known(turns, "a") == (1, 2) and known(turns, "c") == (4, 5)
    turns.remember("ann", [user("q")], said("d", 6, 7, 8))
    assert len(turns) == 2 and known(turns, "a") is None and known(turns, "d") == (6, 7, 8), "5 tokens are taken"
    turns.remember("ann", [user("q")], said("e", *range(6)))
    turns.remember("ann", [user("q")], assistant("f"))
    turns.remember("ann", [user("q")], said("g"))
    assert len(turns) == 0


class Span:
    """Notes what a span is given."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.events: list[Any] = []
        self.attributes: dict[str, Any] = {}
        self.status: Any = None
        self.ended = 0

    def update_name(self, name: str) -> None:
        self.names.append(name)

    def add_event(self, name: str, timestamp: int) -> None:
        self.events.append((name, timestamp))

    def set_attributes(self, attributes: Any) -> None:
        self.attributes |= attributes

    def set_status(self, code: Any, why: Any) -> None:
        self.status = (code.name, why)

    def end(self) -> None:
        self.ended += 1


def test_the_span_of_a_request_has_its_model_its_counts_and_its_end() -> None:
    pytest.importorskip("opentelemetry.trace")
    notes: dict[str, Any] = {
        "stream": True,
        "prompt_tokens": 3,
        "cached_tokens": 1,
        "completion_tokens": 2,
        "ttft_ms": 250.0,
    }
    span = Span()
    made = RequestSpan(span, "r1", notes, Operation("chat", "chatcmpl-"), content=True)
    made.called("demo", [user("q")], Sampling(temperature=0.5), 2)
    began = made._called_ns
    made.called("other", "raw", Sampling(), 1)
    made.answered(Completion(assistant("a"), "stop", Usage()), 0.25)
    made.answered(Completion(assistant("b"), "length", Usage()), 0.75)
    made.close(200, "ann")
    found = span.attributes
    assert span.names == ["chat demo"] and span.ended == 1 and span.status is None and made._called_ns == began
    assert span.events == [("firsthand.first_token", began + 250_000_000)]
    assert {key: found[key] for key in (
        "http.response.status_code", "firsthand.client", "gen_ai.response.id", "gen_ai.response.model",
        "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "firsthand.time_in_queue",
        "gen_ai.response.time_to_first_chunk", "gen_ai.request.temperature",
    )} == {
        "http.response.status_code": 200, "firsthand.client": "ann", "gen_ai.response.id": "chatcmpl-r1",
        "gen_ai.response.model": "demo", "gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 2,
        "firsthand.time_in_queue": 0.25, "gen_ai.response.time_to_first_chunk": 0.25, "gen_ai.request.temperature": 0.5,
    }  # fmt: skip
    assert list(found["gen_ai.response.finish_reasons"]) == ["stop", "length"] and "error.type" not in found
    assert "raw" in json.dumps(list(map(str, found.values())))
    for status, more, kind, failed in (
        (399, {}, None, None), (400, {}, "400", None), (499, {}, "499", None),
        (500, {"error": "why"}, "500", ("ERROR", "why")),
        (200, {"code": 502, "error": ""}, "502", ("ERROR", None)),
    ):  # fmt: skip
        bare = Span()
        plain = RequestSpan(bare, "r", more, None, content=False)
        plain.close(status, "ann")
        assert (bare.attributes.get("error.type"), bare.status, bare.ended) == (kind, failed, 1)
        assert "gen_ai.response.id" not in bare.attributes and bare.events == []
    assert [each.text for each in _messages([1, 2, 3])] == ["[3 token ids]"] and _messages("q") == [user("q")]
    many = RequestSpan(Span(), "r", {}, None, content=False)
    for _ in range(70):
        many.answered(Completion(assistant("a"), "stop", Usage()), None)
    assert len(many._reasons) == 64 and many._answers == [] and "firsthand.time_in_queue" not in many._attributes
