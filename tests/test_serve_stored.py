"""Responses that are kept: by OpenAI's own client, within bounds, and out of reach of every other key."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import random
import tracemalloc
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from firsthand.message import ToolCall, assistant
from firsthand.providers.scripted import Scripted
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client, Keys
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.http.replies import reply
from firsthand.serve.openai.responses_schema import ResponseItem
from firsthand.serve.openai.stored_responses import ENTRY_BYTES, MAX_CONVERSATION_BYTES, MAX_ITEMS, ResponseStore
from served import Running, serving

HTTP = httpx.Client(timeout=60)
KEYS = {name: f"{name}-secret-of-sixteen" for name in ("ann", "bob")}
TOOL: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}}


def answer(messages: Any, sampling: Any, index: int) -> Any:
    last = messages[-1]
    if last.text == "weather?":
        return assistant("", ToolCall("call_0", "weather", {"city": "Oslo"}))
    return f"{len(messages)}: " + " | ".join(f"{each.role[0]} {each.text}" for each in messages)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    clients = tuple(Client(name, ClientLimits(), hashlib.sha256(key.encode()).digest()) for name, key in KEYS.items())
    with serving(Scripted(answer, name="scripted"), name="demo", keys=Keys(clients), stored_responses=4) as found:
        yield found


def client(running: Running, name: str = "ann") -> Any:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key=KEYS[name], max_retries=0).responses


@pytest.fixture(scope="module")
def ann(running: Running) -> Any:
    return client(running)


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_goes_on_from_one_that_was_kept(ann: Any, stream: bool) -> None:
    def ask(**options: Any) -> Any:
        found = ann.create(model="demo", stream=stream, **options)
        return list(found)[-1].response if stream else found

    first = ask(input="one", instructions="Be brief.", metadata={"topic": "counting"})
    assert first.store and first.output_text == "2: s Be brief. | u one"
    second = ask(input="two", previous_response_id=first.id)
    assert second.output_text == f"3: u one | a {first.output_text} | u two"  # instructions do not go along
    assert second.previous_response_id == first.id
    other = ask(input="three", previous_response_id=first.id)
    assert other.output_text == f"3: u one | a {first.output_text} | u three"
    found = ann.retrieve(first.id)
    assert found.output_text == first.output_text and found.metadata == {"topic": "counting"}
    ann.delete(first.id)
    for lost in (lambda: ann.retrieve(first.id), lambda: ann.delete(first.id)):
        with pytest.raises(openai.NotFoundError, match="there is no response"):
            lost()
    with pytest.raises(openai.NotFoundError) as error:
        ask(input="four", previous_response_id=first.id)
    assert error.value.param == "previous_response_id"
    assert second.output_text in ask(input="five", previous_response_id=second.id).output_text  # it needs no other


def test_calls_and_their_outputs_are_kept_too(ann: Any) -> None:
    asked = ann.create(model="demo", input="weather?", tools=[TOOL])
    (call,) = asked.output
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    done = ann.create(model="demo", input=[output], previous_response_id=asked.id, tools=[TOOL])
    assert done.output_text == "3: u weather? | a  | t rain"


def test_what_is_not_to_be_kept_is_not(ann: Any) -> None:
    found = ann.create(model="demo", input="one", store=False)
    assert found.store is False
    with pytest.raises(openai.NotFoundError):
        ann.retrieve(found.id)
    with serving(Scripted(answer, name="scripted"), stored_responses=0) as running:
        body = HTTP.post(f"{running.url}/v1/responses", json={"input": "x", "store": True}).json()
        assert body["store"] is False and HTTP.get(f"{running.url}/v1/responses/{body['id']}").status_code == 404


def test_another_keys_response_is_as_if_it_were_not_there(running: Running, ann: Any) -> None:
    bob = client(running, "bob")
    mine = ann.create(model="demo", input="the secret")
    attempts = (
        lambda id: bob.retrieve(id),
        lambda id: bob.delete(id),
        lambda id: bob.create(model="demo", input="and?", previous_response_id=id),
    )
    for attempt in attempts:
        said = []
        for id in (mine.id, "resp_" + "0" * 24):
            with pytest.raises(openai.NotFoundError) as error:
                attempt(id)
            said.append(str(error.value).replace(id, "ID"))
        assert said[0] == said[1] and "secret" not in said[0]
    same_id = {"x-request-id": mine.id.removeprefix("resp_")}  # a client may choose its request ids
    theirs = bob.create(model="demo", input="mine now", extra_headers=same_id)
    assert theirs.id != mine.id, "and none of what is kept"
    with pytest.raises(openai.NotFoundError):
        bob.delete(mine.id)
    assert "the secret" in ann.retrieve(mine.id).output_text
    without = HTTP.get(f"{running.url}/v1/responses/{mine.id}")
    assert without.status_code == 401 and "secret" not in without.text


def test_requests_with_one_x_request_id_are_kept_apart(ann: Any) -> None:
    one = {"x-request-id": "one-page-view"}
    first, second = (ann.create(model="demo", input=text, extra_headers=one) for text in ("first", "second"))
    third = ann.create(model="demo", input="third", previous_response_id=first.id, extra_headers=one)
    assert len({first.id, second.id, third.id}) == 3 and third.previous_response_id == first.id
    items = {each.id for answer in (first, second, third) for each in answer.output}
    assert len(items) == sum(len(answer.output) for answer in (first, second, third))
    assert ann.retrieve(first.id).output_text == first.output_text and "first" in first.output_text
    assert ann.retrieve(second.id).output_text == second.output_text != first.output_text


def test_the_oldest_is_forgotten_and_no_other_clients(running: Running, ann: Any) -> None:
    bob = client(running, "bob")
    kept = bob.create(model="demo", input="bob's")
    mine = [ann.create(model="demo", input=str(i)) for i in range(6)]
    for lost in mine[:2]:
        with pytest.raises(openai.NotFoundError):
            ann.retrieve(lost.id)
    assert [ann.retrieve(each.id).id for each in mine[2:]] == [each.id for each in mine[2:]]
    assert bob.retrieve(kept.id).id == kept.id


def store_of(**limits: int) -> tuple[ResponseStore, Any]:
    """A store, and a function that keeps a response in it."""
    store = ResponseStore(**limits)
    return store, lambda *args: asyncio.run(store.keep(*args))


def test_a_response_is_kept_up_to_the_last_byte_and_the_last_place() -> None:
    body = {"id": "resp_1", "text": "word " * 400}
    size = len(json.dumps(body).encode()) + ENTRY_BYTES
    for limit, is_kept in ((size, True), (size - 1, False)):
        store, keep = store_of(max_responses=3, max_bytes=limit)
        assert keep("ann", body, ()) == is_kept and (store.size_bytes("ann") > 0) == is_kept
    store, keep = store_of(max_responses=2, max_bytes=10**6)
    for number in (1, 2, 1, 3):  # the first is stored again, so the second is the oldest
        assert keep("ann", {"id": f"resp_{number}", "said": number}, ())
    assert list(store._clients["ann"].by_id) == ["resp_1", "resp_3"]
    assert json.loads(asyncio.run(store.response("ann", "resp_1")))["said"] == 1
    with pytest.raises(Refusal):
        asyncio.run(store.response("bob", "resp_1"))
    none, keep_none = store_of(max_responses=0, max_bytes=10**6)
    assert not keep_none("ann", body, ()) and none.size_bytes("ann") == 0


def test_the_bytes_of_a_client_are_bounded_with_all_conversations() -> None:
    store, keep = store_of(max_responses=100, max_bytes=8000)
    rng = random.Random(2)
    for number in range(50):
        items = tuple(ResponseItem(role="user", content=rng.randbytes(150).hex()) for _ in range(1 + number % 4))
        assert keep("ann", {"id": f"resp_{number}"}, items)
        held = store._clients["ann"].by_id
        assert store.size_bytes("ann") == sum(each.size_bytes for each in held.values()) <= 8000
    assert len(held) < 20
    big = (ResponseItem(role="user", content="x" * 8000),)
    assert not keep("ann", {"id": "big"}, big), "it would be small if packed, and large again when it is found"
    assert "big" not in held
    for id in list(held):
        store.delete("ann", id)
    assert store.size_bytes("ann") == 0
    with pytest.raises(Refusal, match="no response"):
        asyncio.run(store.items("ann", "resp_49"))


@pytest.mark.slow
def test_what_is_kept_costs_no_more_memory_than_is_counted() -> None:
    words = ["the", "model", "answers", "a", "question", "about", "weather", "tokens", "and", "prefixes", "today"]
    rng = random.Random(4)

    def items(size: int) -> tuple[ResponseItem, ...]:
        return tuple(ResponseItem(role="user", content=" ".join(rng.choices(words, k=size))) for _ in range(20))

    for size in (0, 2, 100):
        store, keep = store_of(max_responses=10_000, max_bytes=64 << 20)
        keep("ann", {"id": "first"}, items(size))
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(60):
            keep("ann", {"id": f"resp_{number:024}", "output": []}, items(size))
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert held <= 1.1 * store.size_bytes("ann") + 10_000, (size, held, store.size_bytes("ann"))
    text = sum(len(item.content or "") for item in asyncio.run(store.items("ann", f"resp_{0:024}")))
    assert store.size_bytes("ann") < 60 * text / 2, "and text is kept in less than half its size"


def test_what_is_kept_is_found_as_it_was() -> None:
    store, keep = store_of(max_responses=10, max_bytes=1 << 24)
    conversation = (
        ResponseItem(role="user", content="half \ud800, é, 😀"),
        ResponseItem.model_validate({"type": "reasoning", "id": "rs_1", "summary": [],
                             "content": [{"type": "reasoning_text", "text": "hm"}]}),
        ResponseItem.model_validate({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}),
        ResponseItem.model_validate({"role": "user", "content": [{"type": "input_text", "text": "y" * 100_000}]}),
    )  # fmt: skip
    response = {"id": "r", "metadata": {"a": "\udfff"}, "usage": None, "temperature": 0.7}
    assert keep("ann", response, conversation)
    assert asyncio.run(store.response("ann", "r")) == reply(response).content, "as it was answered"
    *others, last = asyncio.run(store.items("ann", "r"))
    thought = conversation[1].model_copy(update={"content": "hm"})
    assert others == [conversation[0], thought, conversation[2]] and last.content == "y" * 100_000


def test_a_conversation_is_kept_with_one_text_for_each_item_however_many_parts_it_came_in() -> None:
    """4,096 empty parts of each item were kept and built again for every request of a hundred bytes."""
    store, keep = store_of(max_responses=10, max_bytes=64 << 20)
    parts = [{"type": "input_text", "text": ""}] * 4095 + [{"type": "input_text", "text": "Hi"}]
    item = ResponseItem.model_validate({"role": "user", "content": parts})
    assert keep("ann", {"id": "r"}, (item,) * 20) and store.size_bytes("ann") < 2000
    assert asyncio.run(store.items("ann", "r")) == [ResponseItem(role="user", content="Hi")] * 20


def test_a_conversation_that_no_request_could_send_is_not_kept() -> None:
    store, keep = store_of(max_responses=10, max_bytes=64 << 20)
    item = ResponseItem(role="user", content="x")
    assert keep("ann", {"id": "many"}, (item,) * MAX_ITEMS)
    assert not keep("ann", {"id": "more"}, (item,) * (MAX_ITEMS + 1))
    line = len('{"type": "message", "role": "user", "content": ""}\n')
    whole = ResponseItem(role="user", content="y" * (MAX_CONVERSATION_BYTES - line))
    assert keep("ann", {"id": "long"}, (whole,)) and not keep("ann", {"id": "longer"}, (whole, item))
    with pytest.raises(Refusal, match="no response"):
        asyncio.run(store.items("ann", "longer"))
    larger = store.keep("ann", {"id": "larger"}, (whole, item), max_conversation_bytes=2 * MAX_CONVERSATION_BYTES)
    assert asyncio.run(larger), "a client whose request bodies may be as large"


@pytest.mark.parametrize("id", ["..", "%2e%2e%2fetc", "x" * 5000, "é", "%00", "resp_1/input_items", "<script>"])
def test_ids_that_nobody_gave_are_404(running: Running, id: str) -> None:
    for method in ("GET", "DELETE"):
        found = HTTP.request(
            method, f"{running.url}/v1/responses/{id}", headers={"authorization": f"Bearer {KEYS['ann']}"}
        )
        assert found.status_code in (404, 405), found.text
        assert set(found.json()["error"]) == {"message", "type", "param", "code"} and len(found.text) < 500


@pytest.mark.parametrize(
    "body",
    [
        {"previous_response_id": 5}, {"previous_response_id": "x" * 129}, {"store": "yes"}, {"metadata": {"a": 1}},
        {"metadata": {"a" * 65: "b"}}, {"metadata": {"a": "b" * 513}}, {"metadata": {str(i): "" for i in range(17)}},
        {"conversation": "c"}, {"background": True},
    ],
)  # fmt: skip
def test_fields_of_keeping_are_checked(running: Running, body: Any) -> None:
    headers = {"authorization": f"Bearer {KEYS['ann']}"}
    found = HTTP.post(f"{running.url}/v1/responses", json={"input": "x", **body}, headers=headers)
    assert found.status_code == 400 and next(iter(body)) in found.json()["error"]["param"]


def test_half_a_surrogate_pair_is_kept_and_given_back(running: Running) -> None:
    headers = {"authorization": f"Bearer {KEYS['ann']}", "content-type": "application/json"}
    url = f"{running.url}/v1/responses"
    found = HTTP.post(url, content=b'{"input": "\\ud800 half"}', headers=headers).json()
    assert HTTP.get(f"{url}/{found['id']}", headers=headers).json()["id"] == found["id"]
    more = json.dumps({"input": "on", "previous_response_id": found["id"]}).encode()
    assert HTTP.post(url, content=more, headers=headers).status_code == 200
