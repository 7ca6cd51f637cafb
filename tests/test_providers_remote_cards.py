"""A remote agent's card: fetched, checked, believed by its signature, and the faults of its address."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from a2a.types.a2a_pb2 import AgentCard, Task
from a2a.utils.signing import create_agent_card_signer
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.json_format import MessageToDict, ParseDict

from firsthand.errors import ConfigError, FirsthandError, ModelError, Unreachable
from firsthand.grammar import Grammar
from firsthand.message import user
from firsthand.model import Sampling
from firsthand.providers import a2a as provider
from firsthand.providers.a2a import RemoteAgent, verify_card
from firsthand.providers.a2a_answer import Answer
from firsthand.providers.supported_settings import check_conversation, check_supported, no_scores


def card(*interfaces: tuple[str, str], name: str = "peer") -> AgentCard:
    listed = [{"url": url, "protocolBinding": binding, "protocolVersion": "1.0"} for url, binding in interfaces]
    body = {"name": name, "description": "Does.", "version": "1", "supportedInterfaces": listed}
    return ParseDict(body, AgentCard())


RPC, REST, GRPC = ("http://host/rpc", "JSONRPC"), ("http://host/rest", "HTTP+JSON"), ("host:5", "GRPC")


class Site:
    """Answers requests, and keeps the addresses and keys that came."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), list[tuple[str, str, Any]]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.method, str(request.url), request.headers.get("authorization")))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, AgentCard):
            return httpx.Response(200, json=MessageToDict(answer))
        return answer  # type: ignore[no-any-return]


def connected(site: Site, url: str = "http://host", **options: Any) -> Any:
    async def main() -> Any:
        async with httpx.AsyncClient(transport=httpx.MockTransport(site)) as http:
            found, streams = await RemoteAgent(url, key="", **options)._connected(http)
            assert streams == found._card.capabilities.streaming
            return found

    return asyncio.run(main())


def test_a_client_is_made_of_the_card_that_the_address_serves() -> None:
    def reached(found: Any) -> tuple[str, str]:
        return type(found._transport).__name__, found._transport.url

    for interfaces, expected in (
        ((RPC, REST), ("JsonRpcTransport", RPC[0])),
        ((GRPC, REST, RPC), ("RestTransport", REST[0])),
        ((REST,), ("RestTransport", REST[0])),
        ((GRPC, RPC), ("JsonRpcTransport", RPC[0])),
    ):
        site = Site(card(*interfaces))
        assert reached(connected(site, "http://host/")) == expected
        assert site.asked == [("GET", "http://host/.well-known/agent-card.json", None)]
    site = Site(card(("http://host:8/a/rpc", "JSONRPC")))
    connected(site, "http://host:8/a")
    assert site.asked[0][1] == "http://host:8/a/.well-known/agent-card.json"


def test_a_card_that_cannot_be_had_or_used_is_told_by_its_reason() -> None:
    def told(answer: Any) -> tuple[type[Exception], str, str]:
        with pytest.raises(FirsthandError) as raised:
            connected(Site(answer))
        said = str(raised.value)
        assert said.startswith("a2a:http://host could not be asked (")
        return type(raised.value), said.split("(", 1)[1].split(":")[0], said.rpartition("): ")[2]

    no_card = "its card is not one of A2A 1.0"
    for answer, kind, reason, advice in (
        (httpx.Response(401), ModelError, "AgentCardResolutionError", "put its key into FIRSTHAND_A2A_KEY"),
        (httpx.Response(403), ModelError, "AgentCardResolutionError", "put its key into FIRSTHAND_A2A_KEY"),
        (httpx.Response(404), ModelError, "AgentCardResolutionError", "give the address of an A2A agent"),
        (httpx.Response(503), Unreachable, "AgentCardResolutionError", "check that it runs, and its address"),
        (httpx.ConnectError("no"), Unreachable, "AgentCardResolutionError", "check that it runs, and its address"),
        (httpx.Response(200, text="hello"), ModelError, "AgentCardResolutionError", no_card),
        (card(GRPC), ModelError, "ValueError", no_card),
    ):
        assert told(answer) == (kind, reason, advice)
    with pytest.raises(ModelError, match=r"^the card of a2a:http://host sends its clients to 'http://evil/', another"):
        connected(Site(card(RPC, ("http://evil/", "HTTP+JSON"))))
    with pytest.raises(ModelError, match=r"^the card of 'peer' is not signed by a key that you trust: "):
        connected(Site(card(RPC)), trusted={})
    with pytest.raises(asyncio.CancelledError):
        connected(Site(asyncio.CancelledError()))


# -- signatures --


def key_pair() -> tuple[bytes, bytes]:
    """A private key and its public one, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    return private, key.public_key().public_bytes(serialization.Encoding.PEM, public)


(MINE, OURS), (OTHER, THEIRS) = key_pair(), key_pair()


def signed(made: AgentCard, key: bytes | str, *, alg: str = "ES256", **header: Any) -> AgentCard:
    sign: Callable[[AgentCard], AgentCard] = create_agent_card_signer(key, {"alg": alg, "typ": "JOSE", **header})  # type: ignore[typeddict-item]
    return sign(made)


def with_header(made: AgentCard, header: Any) -> AgentCard:
    """The card with one more signature, of that header and no key."""
    protected = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
    made.signatures.add(protected=protected, signature="AAAA")
    return made


def test_one_signature_of_a_trusted_key_is_enough_and_any_change_breaks_it() -> None:
    verify_card(signed(card(RPC), MINE, kid="a"), {"b": THEIRS, "a": OURS})
    verify_card(signed(card(RPC), MINE, kid="a"), {"a": OURS.decode()})
    verify_card(signed(signed(card(RPC), OTHER, kid="b"), MINE, kid="a"), {"a": OURS})
    verify_card(signed(signed(card(RPC), MINE, kid="a"), OTHER, kid="b"), {"a": OURS, "b": b"no key at all"})

    def refused(made: AgentCard, trusted: dict[str, Any]) -> str:
        with pytest.raises(ModelError) as raised:
            verify_card(made, trusted)
        assert type(raised.value) is ModelError
        said = str(raised.value)
        begin = f"the card of {made.name[:80]!r} is not signed by a key that you trust: "
        assert said.startswith(begin) and raised.value.__suppress_context__
        return said.removeprefix(begin)

    none = "No valid signature found"
    assert refused(card(RPC, name="n" * 81), {"a": OURS}) == "AgentCard has no signatures to verify."
    for made, trusted in (
        (signed(card(RPC), MINE, kid="a"), {}),
        (signed(card(RPC), MINE, kid="a"), {"b": OURS}),
        (signed(card(RPC), MINE, kid="a"), {"a": THEIRS, "b": OURS}),
        (signed(card(RPC), MINE), {"a": OURS}),
        (signed(card(RPC), MINE, jku="https://peer/keys"), {"a": OURS, "https://peer/keys": OURS}),
        (signed(card(RPC), "secret" * 8, alg="HS256", kid="a"), {"a": "secret" * 8}),
    ):
        assert refused(made, trusted) == none
    no_key = refused(signed(card(RPC), MINE, kid="a"), {"a": b"no key at all", "b": OURS})
    assert no_key and no_key != none, "the fault of the key that was given is told"
    forged = signed(card(RPC), MINE, kid="a")
    forged.supported_interfaces[0].url = "http://evil/rpc"
    assert refused(forged, {"a": OURS}) == none
    connected(Site(signed(card(RPC), MINE, kid="a")), trusted={"a": OURS})
    odd = card(RPC)
    for header in ({"kid": ["a"]}, {"kid": {"a": 1}}, {"kid": 7}, {"kid": None}, {}, [], "a"):
        odd = with_header(odd, header)
    assert len(odd.signatures) == 7 and refused(odd, {"a": OURS}) == none
    verify_card(signed(odd, MINE, kid="a"), {"a": OURS})  # a good one counts whatever stands before it


# -- an answer that broke off --


def test_a_task_is_followed_until_it_settles_or_was_away_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "_POLL_S", 0.0625)
    monkeypatch.setattr(provider, "_LOST_S", 0.125)
    slept: list[float] = []
    asleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asleep(0)

    monkeypatch.setattr(provider.asyncio, "sleep", sleep)

    def state(name: str) -> Task:
        return ParseDict({"id": "t1", "contextId": "c2", "status": {"state": f"TASK_STATE_{name}"}}, Task())

    class Client:
        def __init__(self, *replies: Any) -> None:
            self.replies, self.ids = list(replies), list[str]()

        async def get_task(self, request: Any) -> Task:
            self.ids.append(request.id)
            reply = self.replies.pop(0)
            if isinstance(reply, Exception):
                raise reply
            return reply  # type: ignore[no-any-return]

    def followed(*replies: Any, task: str = "t1") -> tuple[int, Answer, Client]:
        answer, client = Answer("a2a:http://host"), Client(*replies)
        answer.task = task
        slept.clear()

        async def main() -> int:
            agent: Any = RemoteAgent("http://host", key="")
            return len([None async for _ in agent._looked_up(client, answer)])

        return asyncio.run(main()), answer, client

    gone, working = OSError("gone"), state("WORKING")
    count, answer, client = followed(working, gone, gone, working, gone, gone, state("COMPLETED"))
    assert (count, answer.state, answer.context, client.ids) == (7, "TASK_STATE_COMPLETED", "c2", ["t1"] * 7)
    assert slept == pytest.approx([0.0625, 0.0625, 0.0625, 0.075, 0.0625, 0.0625, 0.09]), "longer after each reply"
    lost = r"^a2a:http://host broke off and did not come back \(OSError: gone\): its task is t1$"
    with pytest.raises(ModelError, match=lost):
        followed(gone, gone, gone, working)
    assert len(slept) == 2
    with pytest.raises(ModelError, match=r"^a2a:http://host ended its answer without saying anything: ask it again$"):
        followed(working, task="")


# -- settings and prompts that an endpoint has no field for --


def test_settings_that_are_used_and_not_supported_are_named_in_their_order() -> None:
    used = Sampling(max_tokens=9, temperature=0.25, top_logprobs=3, seed=0, stop=("x",), min_tokens=2)
    with pytest.raises(ConfigError) as raised:
        check_supported("m:n", used, ("temperature", "stop", "unheard_of"))
    words = {"max_tokens": "9", "log-probs": "3", "seed": "0", "min_tokens": "2"}
    fields = [*Sampling.__dataclass_fields__]
    order = sorted(words, key=lambda each: fields.index("top_logprobs" if each == "log-probs" else each))
    refused = ", ".join(f"{each} ({words[each]})" for each in order)
    assert str(raised.value) == f"m:n has no {refused}: leave them out, or use a local model"
    check_supported("m", used, [*words, "top_logprobs", "temperature", "stop"])
    default = Sampling()
    same = Sampling(max_tokens=default.max_tokens, temperature=default.temperature, stop=(), seed=None)
    check_supported("m", same, ())
    with pytest.raises(ConfigError, match=r"^m has no stop \(\('a', 'b'\)\): leave it out, or use a local model$"):
        check_supported("m", Sampling(stop=("a", "b"), grammar=Grammar("regex", "a")), ("seed",))
    with pytest.raises(ConfigError, match=r"^m has no top_k \(5\): leave it out, or use a local model$"):
        check_supported("m", Sampling(top_k=5), ("top_p", "top"))
    check_supported("m", Sampling(grammar=Grammar("json_schema", "{}")), ())
    for supported in ((), ("grammar",)):
        with pytest.raises(ConfigError) as raised:
            check_supported("m", Sampling(grammar=Grammar("lark", 'start: "a"')), supported)
        assert str(raised.value) == (
            "m takes JSON schemas and no other grammar, but got a lark grammar: write it as a JSON schema, or use a "
            "local model"
        )


def test_a_plain_text_is_no_conversation_and_there_are_no_scores() -> None:
    for prompt in ([], [user("a")], (user("a"),)):
        check_conversation("m", prompt)
    for text in ("", "Once"):
        with pytest.raises(ConfigError) as raised:
            check_conversation("the model", text)
        assert str(raised.value) == (
            "the model answers conversations and continues no plain text: use a protocol that chats, a local model, or vLLM"
        )
    assert no_scores("the model") == (
        "the model gives no log-probs, which this task is scored by: use a pattern that generates, such as --pattern cot, a "
        "local model, or vLLM"
    )
