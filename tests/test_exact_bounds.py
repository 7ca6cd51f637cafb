"""Bounds at their exact place: sibling folders, unpacked bytes, redirects, slots, usage of answers, aborted outputs."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import math
import socket
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine_tiny import VOCAB, tiny_engine, tiny_model
from firsthand import catalog
from firsthand.engine.core.request_checks import check_request, check_room, check_score
from firsthand.engine.core.sequence import Request
from firsthand.engine.memory.blocks import BlockPool
from firsthand.errors import FirsthandError, PromptTooLong, ToolError
from firsthand.model import Sampling
from firsthand.providers.scripted import Scripted
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client, Keys
from firsthand.serve.http import request_body
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.openai.adapter_routes import FILES, inside
from firsthand.serve.openai.choices import LEAST, WholeAnswer, chat_logprobs
from firsthand.tools.fetch import MAX_REDIRECTS, read_body
from served import Running, serving, until
from test_tools_fetch import failing, page, served

HTTP = httpx.Client(timeout=60)
CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "Hi"}]}


# -- folders whose names begin alike --


def test_a_sibling_whose_name_begins_alike_holds_no_adapter_of_ours(tmp_path: Path) -> None:
    for folder in ("adapters/mine", "adapters2/x"):
        (tmp_path / folder).mkdir(parents=True)
        for name in FILES:
            (tmp_path / folder / name).write_text("{}")
    root, sibling = tmp_path / "adapters", tmp_path / "adapters2" / "x"
    (root / "link").symlink_to(sibling)
    (root / "half").mkdir()
    for name in FILES:
        (root / "half" / name).symlink_to(sibling / name)
    back = tmp_path / "adapters2" / "back"  # a folder outside whose files are links to ours
    back.mkdir()
    for name in FILES:
        (back / name).symlink_to(root / "mine" / name)
    assert inside(root, "mine") == inside(root, str(root / "mine")) == root / "mine"
    for path in (
        "../adapters2/x",
        str(sibling),
        "link",
        "half",
        "mine/../../adapters2/x",
        "../adapters2/back",
        str(back),
    ):
        with pytest.raises(Refusal, match="within the server's folder"):
            inside(root, path)


def test_a_sibling_whose_name_begins_alike_is_not_inside_a_folder_of_files(tmp_path: Path) -> None:
    for folder in ("notes", "notes2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.txt").write_text(folder)
    tools = {each.name: each for each in catalog.tools(f"files:{tmp_path / 'notes'}:write=true")}
    assert "notes" in asyncio.run(tools["read_file"]({"path": str(tmp_path / "notes" / "x.txt")}))
    for path in ("../notes2/x.txt", str(tmp_path / "notes2" / "x.txt"), "../notes2/new.txt"):
        said = "is not inside the folder" if path.startswith("/") else "leads out of the folder"
        with pytest.raises(ToolError, match=said):
            asyncio.run(tools["read_file"]({"path": path}))
        with pytest.raises(ToolError):
            asyncio.run(tools["write_file"]({"path": path, "text": "mine"}))
    assert [file.name for file in (tmp_path / "notes2").iterdir()] == ["x.txt"]


# -- bodies and redirects --


class Body:
    """A response that gives its body in pieces."""

    def __init__(self, *pieces: bytes):
        self.pieces = pieces

    async def aiter_stream(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate"])
def test_a_packed_body_is_never_unpacked_beyond_its_limit(encoding: str) -> None:
    packer = zlib.compressobj(9, wbits={"gzip": 31, "deflate": 15, "raw deflate": -15}[encoding])
    bomb = packer.compress(bytes(50_000_000)) + packer.flush()
    response: Any = Body(bomb)
    tracemalloc.start()
    try:
        body, cut = asyncio.run(read_body(response, encoding.removeprefix("raw "), 300_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(body), cut) == (300_000, True) and peak < 2_000_000


def test_a_packed_body_that_breaks_after_its_begin_is_told() -> None:
    packed = zlib.compress(b"words " * 100)
    response: Any = Body(packed[:-4], bytes(4))  # with another checksum
    with pytest.raises(ToolError, match="not packed as it says"):
        asyncio.run(read_body(response, "deflate", 10_000))


@pytest.mark.parametrize("size", [999, 1000, 1001])
def test_a_body_of_exactly_the_limit_is_whole(size: int) -> None:
    for body, encoding in ((b"x" * size, ""), (gzip.compress(b"x" * size), "gzip")):
        response: Any = Body(body)
        assert asyncio.run(read_body(response, encoding, 1000)) == (b"x" * min(size, 1000), size > 1000)


def test_exactly_so_many_redirects_are_followed() -> None:
    asked: list[str] = []

    def chain(length: int) -> Any:
        async def answer(path: str, writer: Any) -> None:
            asked.append(path)
            step = int(path[1:] or 0)
            writer.write(page(b"there") if step == length else page(b"", status="302 Found", Location=f"/{step + 1}"))
            await writer.drain()

        return answer

    assert served(chain(MAX_REDIRECTS)).endswith("there") and len(asked) == MAX_REDIRECTS + 1
    asked.clear()
    assert f"more than {MAX_REDIRECTS} redirects" in failing(chain(MAX_REDIRECTS + 1))
    assert len(asked) == MAX_REDIRECTS + 1


# -- bodies of requests and answers --


def test_a_log_prob_of_minus_infinity_is_a_number_in_json() -> None:
    class Spells:
        def token_model(self, what: str) -> Spells:
            return self

        def spell(self, ids: Sequence[int]) -> list[bytes]:
            return [b"a"] * len(ids)

    served: Any = Spells()
    found = chat_logprobs(served, WholeAnswer("", [1, 2], [-math.inf, -0.5], [(("a", -math.inf),), (("b", -1.0),)]))
    assert [each["logprob"] for each in found["content"]] == [LEAST, -0.5]
    assert [each["top_logprobs"][0]["logprob"] for each in found["content"]] == [LEAST, -1.0]
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("sizes", [[10] * 10, [100], [1] * 100])
def test_a_request_body_is_read_to_exactly_its_limit_whatever_its_pieces(sizes: list[int]) -> None:
    def read(sizes: list[int]) -> bytes:
        pieces = [b"x" * size for size in sizes]

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        return asyncio.run(request_body.read_body(receive, 100, 60.0, None))

    assert len(read(sizes)) == 100
    with pytest.raises(Refusal, match="more than 100 bytes"):
        read([*sizes, 1])


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_request_nests_to_exactly_its_limit(opening: str) -> None:
    closing = "]" if opening == "[" else "}"

    def nested(depth: int) -> bytes:
        inner = opening * (depth - 1) + "1" + closing * (depth - 1)
        return f'{{"a": {inner}, "b": [1], "c": "[[[["}}'.encode()

    assert request_body.parse_object(nested(request_body.MAX_DEPTH), "application/json")["b"] == [1]
    with pytest.raises(Refusal, match="more than 64 deep"):
        request_body.parse_object(nested(request_body.MAX_DEPTH + 1), "application/json")


# -- slots --


@contextmanager
def asking(running: Running, key: str) -> Iterator[socket.socket]:
    """A request of this client that is never answered."""
    body = json.dumps(HI).encode()
    lines = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n"
    with running.connect() as connection:
        connection.sendall(lines.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        yield connection


def test_exactly_as_many_requests_as_allowed_are_under_way() -> None:
    alice, bob = "alice-" + "a" * 20, "bob-" + "b" * 20
    limits = {alice: ("alice", ClientLimits(concurrency=2)), bob: ("bob", ClientLimits())}
    keys = Keys(tuple(Client(*own, hashlib.sha256(key.encode()).digest()) for key, own in limits.items()))

    def refused(key: str) -> str:
        answer = HTTP.post(running.url + CHAT, json=HI, headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
        return str(answer.json()["error"]["message"])

    with (
        serving(Scripted([], name="scripted", delay_s=600), keys=keys, max_requests=4) as running,
        ExitStack() as stack,
    ):
        under_way = running.admission

        def ask(key: str, total: int) -> socket.socket:
            connection = stack.enter_context(asking(running, key))
            until(lambda: under_way.in_flight == total)
            return connection

        first = ask(alice, 1)
        ask(alice, 2)
        assert refused(alice).startswith("2 requests of alice are under way")
        ask(bob, 3)
        ask(bob, 4)
        assert refused(bob) == refused(alice) == "4 requests are under way: try again later"
        assert (under_way.in_flight, under_way.by_client) == (4, {"alice": 2, "bob": 2})
        first.close()
        until(lambda: under_way.in_flight == 3)
        ask(alice, 4)
        assert under_way.by_client == {"alice": 2, "bob": 2}
        stack.close()
        until(lambda: under_way.in_flight == 0 and under_way.by_client == {})


# -- usage, and outputs that wait --


@pytest.fixture(scope="module")
def counting() -> Iterator[Running]:
    """Each answer to a prompt is a word longer than the last."""
    model = Scripted(lambda messages, sampling, index: " ".join(["word"] * (index + 1)), name="scripted")
    with serving(model, name="demo") as running:
        yield running


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("path", "body", "asked"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "one two"}]}, (2, 1 + 2 + 3)),
        ("/v1/completions", {"prompt": "one two"}, (2, 1 + 2 + 3)),
        ("/v1/completions", {"prompt": ["one two", "three"]}, (3, 2 * (1 + 2 + 3))),
    ],
)
def test_streamed_usage_of_several_answers_is_that_of_all(
    counting: Running, path: str, body: dict[str, Any], asked: tuple[int, int]
) -> None:
    whole = HTTP.post(counting.url + path, json={**body, "n": 3}).json()["usage"]
    assert (whole["prompt_tokens"], whole["completion_tokens"], whole["total_tokens"]) == (*asked, sum(asked))
    streamed = {**body, "n": 3, "stream": True}
    *others, last = events(HTTP.post(counting.url + path, json={**streamed, "stream_options": {"include_usage": True}}))
    assert last["usage"] == whole and last["choices"] == []
    assert {each["usage"] for each in others} == {None}
    assert not any("usage" in each for each in events(HTTP.post(counting.url + path, json=streamed)))


@pytest.mark.parametrize("index", [None, 0, 1])
def test_outputs_that_wait_for_an_aborted_answer_are_gone_and_others_stay(index: int | None) -> None:
    engine = tiny_engine()
    gone = engine.add(Request((1, 2, 3), Sampling(max_tokens=50), n=2))
    kept = engine.add(Request((4, 5), Sampling(max_tokens=50)))
    engine.score((6, 7), [[8], [9]])  # the others' outputs wait meanwhile
    waiting = {(each.request_id, each.index) for each in engine._pending}
    assert waiting == {(gone, 0), (gone, 1), (kept, 0)}
    engine.abort(gone, index)
    given = {(each.request_id, each.index) for each in engine.step()}
    dropped = {(gone, 0), (gone, 1)} if index is None else {(gone, index)}
    assert given == waiting - dropped


# -- what an engine takes --

SHAPE = tiny_model().architecture  # a context of 256 tokens, a vocabulary of 96
LAST = VOCAB - 1


def asked(prompt: int = 1, **fields: Any) -> Callable[[], None]:
    return lambda: check_request(Request((1,) * prompt, **fields), SHAPE)


def sampled(**fields: Any) -> Callable[[], None]:
    return asked(sampling=Sampling(**fields))


def rated(prefix: int = 1, continuations: Sequence[Sequence[int]] = ((1,),), priority: int = 0, owner: str = "",
          **more: Any) -> Callable[[], None]:  # fmt: skip
    return lambda: check_score((1,) * prefix, continuations, priority, owner, SHAPE, **more)


@pytest.mark.parametrize(
    ("fits", "over", "said"),
    [
        (asked(255), asked(256), "prompt has 256 tokens and at least 1 must follow"),
        (asked(n=1), asked(n=0), "n is 0"), (asked(n=1024), asked(n=1025), "n is 1025"),
        (asked(priority=1000), asked(priority=1001), "priority is 1001"),
        (asked(priority=-1000), asked(priority=-1001), "priority is -1001"),
        (asked(owner="x" * 256), asked(owner="x" * 257), "owner is"),
        (asked(salt="x" * 256), asked(salt="x" * 257), "salt is"),
        (sampled(seed=-(2**63)), sampled(seed=-(2**63) - 1), "seed is -9223372036854775809"),
        (sampled(seed=2**64 - 1), sampled(seed=2**64), "seed is 18446744073709551616"),
        (sampled(logit_bias=((LAST, 1.0),)), sampled(logit_bias=((VOCAB, 1.0),)), "token 0 of logit_bias is 96"),
        (sampled(logit_bias=((0, 1.0), (1, 1.0))), sampled(logit_bias=((1, 1.0), (1, 1.0))), "names a token twice"),
        (sampled(stop_ids=(LAST,)), sampled(stop_ids=(0, VOCAB)), "token 1 of stop_ids is 96"),
        (sampled(allowed_token_ids=(LAST,)), sampled(allowed_token_ids=(VOCAB,)), "token 0 of allowed_token_ids"),
        (asked(stop_ids=frozenset({0, LAST})), asked(stop_ids=frozenset({VOCAB})), "token 0 of stop_ids is 96"),
        (asked(stop_ids=frozenset({0})), asked(stop_ids=frozenset({-1})), "token 0 of stop_ids is -1"),
        (asked(stop_ids=frozenset()), asked(stop_ids=frozenset(range(1025))), "there are 1025 stop_ids"),
        (asked(bad_sequences=((0, LAST),)), asked(bad_sequences=((0,), (0, VOCAB))), "token 1 of bad sequence 1 is 96"),
        (asked(bad_sequences=((1,),) * 8192), asked(bad_sequences=((1,),) * 8193), "there are 8193 bad_sequences"),
        (rated(200, [[1] * 56]), rated(200, [[1], [1] * 57]), "prompt has 200 tokens and at least 57"),
        (rated(256, []), rated(257, []), "prompt has 257 tokens"), (rated(1, [[]]), rated(0), "prefix is empty"),
        (rated(continuations=[[LAST]]), rated(continuations=[[1], [VOCAB]]), "token 0 of continuation 1 is 96"),
        (rated(continuations=[()] * 65536), rated(continuations=[()] * 65537), "there are 65537 continuations"),
        (rated(top=100), rated(top=101), "top is 101"), (rated(top=0), rated(top=-1), "top is -1"),
        (rated(priority=1000), rated(priority=1001), "priority is 1001"),
        (rated(salt="s"), rated(salt="s" * 257), "salt is"),
    ],
)  # fmt: skip
def test_an_engine_takes_what_meets_each_limit_and_refuses_one_beyond(
    fits: Callable[[], None], over: Callable[[], None], said: str
) -> None:
    fits()
    with pytest.raises(FirsthandError, match=said):
        over()


@pytest.mark.parametrize("window", [None, 8])
def test_a_sequence_may_need_every_block_and_no_more(window: int | None) -> None:
    pool = BlockPool(12, 4, window=window)
    most = pool.num_usable * 4
    if window is None:
        check_room(most - 3, 3, pool, 64)
        with pytest.raises(PromptTooLong, match=f"may need {most + 4} tokens of memory and there is room for {most}"):
            check_room(most - 3, 4, pool, 64)
        return
    check_room(10_000, 10_000, pool, 28)  # behind a window blocks are released: 36 tokens in 9 of them, and 2 more
    with pytest.raises(PromptTooLong):
        check_room(10_000, 10_000, pool, 29)
