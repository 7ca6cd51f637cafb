"""What `tokens_per_minute` counts: answers that are left early, embeddings, log-probs, and turns of agents by every door."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from firsthand.agent import Agent
from firsthand.errors import ModelError, PromptTooLong
from firsthand.loop.listener import Added, Began, Piece
from firsthand.message import Message, assistant, user
from firsthand.model import Completion, Delta, Usage
from firsthand.patterns.cot import cot
from firsthand.providers.scripted import Scripted
from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client, Keys
from firsthand.serve.admission.charged_steps import ChargedSteps
from firsthand.serve.admission.metered_answers import charged, metered
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.openai.chat_completions import chat_completions
from firsthand.serve.openai.embeddings import embeddings
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings
from firsthand.trace import Call, Node
from served_agent import serving_agent, within_sessions
from spelled_model import SpelledModel, answered, request_with, state_of

ANN = Client("ann", ClientLimits(tokens_per_minute=100))
END = Completion(assistant("x"), "stop", Usage(50, 0, 7))


def spent(admission: Admission, client: str = "ann") -> int:
    return sum(count for _, count in admission._spent.get(client, ()))


def left(*pieces: Delta | Exception, read: int, prompt: Any = "p" * 400) -> tuple[int, dict[str, Any]]:
    """The tokens that are charged, and the notes of the log, when a client leaves after `read` pieces."""
    telemetry, admission = ServerTelemetry(TelemetrySettings(log="none")), Admission(Keys((ANN,)))
    request = ActiveRequest("r", ANN, "/x")

    async def answers() -> Any:
        for each in pieces:
            if isinstance(each, Exception):
                raise each
            yield each

    async def main() -> None:
        stream = metered(answers(), request, admission, telemetry, prompt)
        try:
            for _ in range(read):
                await anext(stream)
        except (ModelError, StopAsyncIteration):
            pass
        await stream.aclose()

    asyncio.run(main())
    return spent(admission), {key: value for key, value in request.notes.items() if key != "ttft_ms"}


def test_an_answer_that_is_left_before_its_end_is_charged_for_its_prompt_and_what_came() -> None:
    ids = [Delta("a", token_ids=(1, 2)), Delta("b", token_ids=(3,)), Delta("", END)]
    assert left(*ids, read=2) == (103, {"prompt_tokens": 100, "cached_tokens": 0, "completion_tokens": 3})
    assert left(Delta("a", token_ids=(1,), prompt_tokens=9), *ids, read=2)[0] == 12, "the model tells the prompt's"
    assert left(Delta("twelve bytes"), *ids, read=1)[0] == 103, "an endpoint reports no tokens: four bytes each"
    assert left(*ids, read=2, prompt=[5] * 30)[0] == 33 and left(*ids, read=1, prompt=[user("p" * 392)])[0] == 108
    assert left(*ids, read=3)[0] == left(*ids, read=4)[0] == 57, "what is over is charged once"
    two = (Delta("", END), Delta("a", index=1, token_ids=(1,)), Delta("b", index=1, token_ids=(2,)))
    assert left(*two, read=3)[0] == 59, "the prompt with the first answer, and the tokens of the second"


def test_tokens_that_are_held_back_for_a_stop_string_are_charged_and_measured() -> None:
    held = [
        Delta("a", token_ids=(1,), num_held=2),
        Delta("", num_held=3),
        Delta("b"),
        Delta("c", token_ids=(2, 3, 4, 5)),
    ]
    assert [left(*held, read=count)[0] - 100 for count in (1, 2, 3, 4)] == [3, 4, 4, 5]
    assert left(*held, Delta("", END), read=5)[0] == 57
    for delta, is_first in ((Delta("", num_held=1), True), (Delta(""), False)):
        request, telemetry = ActiveRequest("r", ANN, "/x"), ServerTelemetry(TelemetrySettings(log="none"))

        async def answers(piece: Delta = delta) -> Any:
            yield piece

        async def main(stream: Any) -> None:
            assert len([each async for each in stream]) == 1

        asyncio.run(main(metered(answers(), request, None, telemetry)))
        assert ("ttft_ms" in request.notes) == is_first


def test_a_refused_request_costs_nothing_and_one_that_fails_what_came() -> None:
    assert left(ModelError("too long"), read=1) == (0, {})
    assert left(Delta("a", token_ids=(1,)), ModelError("broke"), read=2)[0] == 101


def test_a_request_that_is_cut_off_is_charged_for_what_it_had_computed() -> None:
    for error, tokens in ((None, 5), (asyncio.CancelledError(), 5), (ModelError("no"), 0)):
        admission = Admission(Keys((ANN,)))
        try:
            with charged(admission, ANN, 5):
                if error is not None:
                    raise error
        except (asyncio.CancelledError, ModelError):
            pass
        assert spent(admission) == tokens


class Vectors:
    name = "vectors"

    def __init__(self, *counts: int, stops: bool = False):
        self.counts, self.stops = counts, stops

    async def embed(self, texts: Any) -> Any:
        if self.stops:
            raise asyncio.CancelledError
        return [[1.0]] * len(texts)


class Counted(Vectors):
    async def embed_counted(self, texts: Any, *, whole: bool = False) -> Any:
        assert whole
        return SimpleNamespace(vectors=[[1.0]] * len(texts), num_tokens=self.counts, truncated=[False] * len(texts))


def test_embeddings_are_charged() -> None:
    for embedder, tokens in ((Counted(6, 7), 13), (Vectors(), 6), (Vectors(stops=True), 6)):
        state = state_of(SpelledModel())
        state.models.embedder = embedder  # type: ignore[assignment]
        request = request_with({"input": ["twelve bytes", "twelve more."]}, tokens_per_minute=100)
        with suppress(asyncio.CancelledError):
            answered(embeddings, state, request)
        assert spent(state.admission) == tokens


def test_embeddings_that_are_refused_for_a_long_text_are_not_computed_and_cost_nothing() -> None:
    class Short(Vectors):
        async def embed_counted(self, texts: Any, *, whole: bool = False) -> Any:
            assert whole, "else half a text would be computed"
            raise PromptTooLong("input 1 has more tokens than the model takes (5): split it")

    state = state_of(SpelledModel())
    state.models.embedder = Short()  # type: ignore[assignment]
    with pytest.raises(Refusal, match=r"^input 1 has more tokens than the model takes \(5\): split it$") as caught:
        answered(embeddings, state, {"input": ["twelve bytes", "a" * 99]}, tokens_per_minute=100)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, "input", "context_length_exceeded")
    assert spent(state.admission) == 0 == state.telemetry.metrics.tokens["prompt"]


def test_a_chat_that_is_read_to_its_end_costs_what_its_usage_says() -> None:
    state = state_of(SpelledModel(Delta("x"), Delta("", END)))
    answered(chat_completions, state, {"messages": [{"role": "user", "content": "q"}]}, tokens_per_minute=100)
    assert spent(state.admission) == 57
    with (
        pytest.raises(Exception, match="has had its 50 tokens"),
        state.admission.slot(Client("ann", ClientLimits(tokens_per_minute=50))),
    ):
        pass


def test_the_model_calls_of_an_attempt_are_charged_once_and_those_that_were_cut_off_by_their_bytes() -> None:
    told: list[tuple[str, int]] = []
    steps = ChargedSteps(lambda client, tokens: told.append((client, tokens)), "ann")

    def call(id: str, tokens: int, **more: Any) -> Call:
        return Call(id, "generate", 0, 0.0, 1.0, "r", Usage(tokens), **more)

    steps(Added(0, Node(None, user("p" * 392))))
    steps(Began("1", "generate", 0))
    steps(call("1", 9))
    steps(call("2", 9, replayed=True))
    steps(Call("3", "tool", 0, 0.0, 1.0, "r"))
    steps.cut()
    assert told == [("ann", 9)]
    steps(Began("4", "generate", 0))
    steps(Began("5", "tool", 0))
    steps(Piece("4", "twelve bytes"))
    steps.cut()
    steps.cut()
    assert told[1:] == [("ann", 98 + 8 + 3)]
    steps(Began("6", "generate", 0))
    steps(Piece("6", "\ud83d!!"))
    steps.cut()
    assert told[2:] == [("ann", 98 + 8 + 2)], "five bytes, three of them a half of an emoji, are two tokens"


def talker(answer: Callable[[], Any] = lambda: "well") -> Agent:
    def said(messages: Any, sampling: Any, index: int) -> str | Message:
        return answer()

    return Agent("talker", Scripted(said, name="scripted:talker"), cot, {})


def test_each_turn_of_a_session_is_charged_to_its_owner_whichever_door_it_came_by(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []

    async def use(sessions: Any) -> int:
        sessions.charge = lambda client, tokens: told.append((client, tokens))
        turn = await sessions.settled(sessions.submit("ann", "hello", context="c").id)
        return int(sessions.trace(turn.session).usage.total_tokens)

    total = within_sessions(talker(), tmp_path, use)
    assert total > 0 and told == [("ann", total)]


def test_a_chat_with_a_served_agent_is_charged_once_and_the_next_is_refused(tmp_path: Path) -> None:
    key = "ann-secret-of-sixteen"
    ann = Client("ann", ClientLimits(tokens_per_minute=5), hashlib.sha256(key.encode()).digest())
    headers = {"authorization": f"Bearer {key}"}
    with (
        serving_agent(talker(), tmp_path, keys=Keys((ann,))) as running,
        httpx.Client(base_url=running.url, headers=headers, timeout=30) as http,
    ):
        body = {"messages": [{"role": "user", "content": "hello there, how are you?"}]}
        first = http.post("/v1/chat/completions", json=body)
        assert first.status_code == 200, first.text
        assert spent(running.admission) == first.json()["usage"]["total_tokens"] > 5
        for path in ("/v1/chat/completions", "/a2a", "/mcp"):
            assert http.post(path, json=body).status_code == 429


def test_without_keys_all_clients_share_the_one_allowance() -> None:
    one = Keys(anyone=Client("anyone", ClientLimits(tokens_per_minute=100)))
    many = Keys((ANN,))
    for keys, name, who, tokens in ((one, "", "anyone", 3), (many, "ann", "ann", 3), (many, "bob", "ann", 0)):
        admission = Admission(keys)
        admission.charge_by_name(name, 3)
        assert spent(admission, who) == tokens


def test_what_models_make_for_a_client_of_an_mcp_server_is_charged(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    from firsthand.serve.mcp.agent_offer import CallRecord, offer_agents
    from firsthand.serve.mcp.mcp_server import Offer
    from mcp_contexts import Heard

    told: list[tuple[str, int]] = []
    offer, record = Offer(), CallRecord(folder=tmp_path / "record")
    offer_agents(offer, [talker()], record)
    offer.charge = lambda client, tokens: told.append((client, tokens))
    asyncio.run(offer.tools[0].run({"question": "hello"}, Heard()))  # type: ignore[arg-type]
    record.close()
    assert len(told) == 1 and told[0][1] > 5
