"""Data of A2A messages: what a double, UTF-8 or the levels of protobuf would change is sent as JSON text, or refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("a2a", reason="needs the A2A SDK: pip install 'firsthand[a2a]'")

from a2a.types.a2a_pb2 import GetTaskRequest, Message, Part, Role, SendMessageRequest, StreamResponse
from a2a.utils.errors import InvalidParamsError
from google.protobuf.json_format import MessageToDict, MessageToJson, ParseDict
from google.protobuf.struct_pb2 import Value

from a2a_turns import data
from firsthand.loop.form import FormField
from firsthand.serve.a2a.a2a_handler import A2AHandler
from firsthand.serve.a2a.turn_executor import _questions
from firsthand.serve.a2a.wire_parts import MAX_LEVELS, check_data, data_part, text_part
from firsthand.serve.agents.asked_approval import AskedApproval
from firsthand.serve.agents.served_sessions import ServedSessions
from served_agent import Desk, clerk, serving_agent
from test_a2a_handler_calls import ANN, said, state_of, within

EXACT = 9007199254740993


def levels(number: int) -> Any:
    found: Any = 1
    for _ in range(number):
        found = {"a": found}
    return found


def body_of(part: Part) -> Any:
    """The data of a part as a client of each binding reads it: from bytes, and from JSON."""
    sent = StreamResponse()
    sent.task.status.message.parts.append(part)
    read = StreamResponse.FromString(sent.SerializeToString()).task.status.message.parts[0]
    body = MessageToDict(read.data)
    assert json.loads(MessageToJson(sent))["task"]["status"]["message"]["parts"][0]["data"] == body
    return body


def test_a_field_that_a_value_holds_is_data_and_any_other_is_its_json_text() -> None:
    for kept in (
        {"n": (1 << 53) - 1}, {"n": 1 - (1 << 53)}, {"n": 0.1, "t": "Zoë 😀", "l": [1, None, True]}, {}, {"n": 1e20},
        levels(MAX_LEVELS - 1),
    ):  # fmt: skip
        assert body_of(data_part({"arguments": kept}))["arguments"] == kept
    for changed in (
        {"n": 1 << 53}, {"n": EXACT}, {"n": -EXACT}, {"l": [{"n": 10**400}]}, {"t": "a\ud800"}, {"\udfff": 1},
        levels(MAX_LEVELS), [[levels(60)]],
    ):  # fmt: skip
        text = body_of(data_part({"arguments": changed, "tool": "pay"}))
        assert text["tool"] == "pay" and isinstance(text["arguments"], str)
        assert json.loads(text["arguments"]) == changed
    assert body_of(data_part({"n": float("inf")})) == {"n": "Infinity"}
    assert "Zoë" in body_of(data_part({"arguments": {"n": EXACT, "t": "Zoë"}}))["arguments"]
    assert text_part("a\ud800b é", "text/plain") == Part(text="a\\ud800b é", media_type="text/plain")


def test_a_forms_default_is_sent_with_all_its_digits() -> None:
    form = (FormField("account", "integer", default=EXACT),)
    (part,) = _questions([AskedApproval("a", "t", "c", "fill", "read", {}, "?", "pending", "", "", "ann", form)])
    schema = body_of(part)["schema"]
    assert json.loads(schema)["properties"]["account"]["default"] == EXACT


@pytest.mark.parametrize("amount", [EXACT, 10**400])
def test_an_approval_shows_the_very_call_that_is_made(tmp_path: Path, amount: int) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions, handler: A2AHandler) -> None:
        task: Any = await handler.on_message_send(said(f"pay {amount}", context_id="c"), ANN)
        assert (state_of(task), sessions.store.turn(task.id).state) == ("input_required", "input_required")
        text, asked = task.status.message.parts
        assert str(amount) in text.text
        assert json.loads(body_of(asked)["arguments"]) == {"amount": amount}
        found = await handler.tasks.get(task.id, ANN)
        assert found is not None and found.status.message.parts[1] == asked
        paid: Any = await handler.on_message_send(said("yes", task_id=task.id), ANN)
        assert state_of(paid) == "completed" and desk.paid == [amount]

    within(tmp_path, desk, use)


def test_data_of_a_client_that_may_have_lost_digits_or_cannot_be_sent_back_is_refused(tmp_path: Path) -> None:
    def of(body: Any, **metadata: Any) -> SendMessageRequest:
        found = SendMessageRequest(message=Message(message_id="m", role=Role.ROLE_USER))
        found.message.parts.append(Part(data=ParseDict(body, Value())))
        found.message.metadata.update(metadata)
        return found

    for fine in (of({"n": (1 << 53) - 1}), of([0.1, "1e999", None]), of(1, at=1.8e18), of(levels(MAX_LEVELS))):
        check_data(fine)
    lost = "^a number of the data is 2\\^53 or more, where A2A's numbers lose digits: send it as text$"
    deep = f"nests lists and objects more than {MAX_LEVELS} deep: send it as text$"
    wrong = [
        (of({"n": [EXACT]}), lost), (of(-float(1 << 53)), lost), (of({"n": float("inf")}), "of the data is not finite"),
        (of(1, at=float("nan")), "of the metadata is not finite"), (of(levels(MAX_LEVELS + 1)), f"the data {deep}"),
        (of(1, at=levels(MAX_LEVELS)), f"the metadata {deep}"),
    ]  # fmt: skip
    for sent, why in wrong:
        with pytest.raises(InvalidParamsError, match=why):
            check_data(sent)
    nested = of(1)
    nested.message.parts[0].metadata.update({"x": float("inf")})
    whole = of(1)
    whole.metadata.update({"x": float("inf")})
    for sent in (nested, whole):
        with pytest.raises(InvalidParamsError, match="not finite"):
            check_data(sent)

    async def use(sessions: ServedSessions, handler: A2AHandler) -> None:
        with pytest.raises(InvalidParamsError, match=lost):
            await handler.on_message_send(of({"account": EXACT}), ANN)
        assert sessions.store.sessions() == []

    within(tmp_path, Desk(), use)


@pytest.mark.slow
@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON", "GRPC"])
def test_a_number_of_an_approval_keeps_its_digits_on_each_binding(tmp_path: Path, binding: str) -> None:
    from test_a2a import connected, message, sent

    desk = Desk()
    with serving_agent(clerk(desk), tmp_path, grpc_port=0) as running:

        async def main() -> None:
            async with connected(running.url, binding) as client:
                task = (await sent(client, message(f"pay {EXACT}")))[0].task
                found = await client.get_task(GetTaskRequest(id=task.id))
                body: Any = MessageToDict(found.status.message.parts[1].data)
                assert json.loads(body["arguments"]) == {"amount": EXACT}
                with pytest.raises(Exception, match="lose digits"):
                    await sent(client, message(parts=[data(account=EXACT)]))
                await sent(client, message(task_id=task.id, parts=[data(approval=body["approval"], allowed=True)]))

        asyncio.run(main())
    assert desk.paid == [EXACT]
