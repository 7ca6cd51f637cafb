"""The parts of a remote agent: what it makes of each event, of a fault and of a conversation, and what it will read."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from a2a.types.a2a_pb2 import AgentCard, Part, StreamResponse, Task
from google.protobuf.json_format import ParseDict

from firsthand.errors import ConfigError, ModelError, Unreachable
from firsthand.message import Message, ToolCall, assistant, system, user
from firsthand.model import Completion, Delta, Sampling, Usage
from firsthand.providers import a2a as provider
from firsthand.providers import a2a_answer, a2a_transport
from firsthand.providers.a2a import RemoteAgent, _Thread
from firsthand.providers.a2a_answer import Answer, text_of

HOME = RemoteAgent("http://host:80/", key="")


def event(**body) -> StreamResponse:
    return ParseDict(body, StreamResponse())


def taken(*events: StreamResponse) -> Answer:
    answer = Answer("a2a:http://host")
    for each in events:
        answer.take(each)
    return answer


def chunk(id: str, text: str, *, append: bool = False) -> StreamResponse:
    artifact = {"artifactId": id, "parts": [{"text": text}]}
    return event(artifactUpdate={"taskId": "t", "artifact": artifact, "append": append})


def status(state: str, text: str = "", **fields) -> StreamResponse:
    message = {"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": text}]}} if text else {}
    return event(statusUpdate={"status": {"state": f"TASK_STATE_{state}", **message}, **fields})


def test_an_address_names_the_agent_and_is_all_that_is_known_of_it():
    assert HOME.name == "a2a:http://host:80" == provider.open_model("http://host:80").name
    assert HOME.fingerprint == RemoteAgent("http://host:80").fingerprint != RemoteAgent("http://host:81").fingerprint
    for bad in ("host", "ftp://host", "http://", "http://me@host", "http://:pw@host"):
        with pytest.raises(ConfigError, match="has no address: write a2a:http://HOST:PORT"):
            RemoteAgent(bad)
    HOME.check_request(Sampling(max_tokens=3, temperature=0.5, seed=1))
    for asked in (Sampling(top_k=3), Sampling(stop=("a",))):
        with pytest.raises(ConfigError, match="a2a:http://host:80 has no"):
            HOME.check_request(asked)
    with pytest.raises(ConfigError, match="a2a:http://host:80 gives no log-probs"):
        HOME.check_request(Sampling(), scores=True)


def test_the_key_is_the_one_given_or_the_variables(monkeypatch):
    monkeypatch.setenv(provider.KEY_VARIABLE, "secret")
    assert RemoteAgent("http://h")._key == "secret" and RemoteAgent("http://h", key="")._key == ""
    client = a2a_transport.bounded_client("secret", 3.0, "http://h")
    assert client.headers["authorization"] == "Bearer secret" and client.headers["accept-encoding"] == "identity"
    assert (client.timeout.read, client.timeout.connect, client.follow_redirects) == (3.0, 10.0, False)
    assert "authorization" not in a2a_transport.bounded_client("", 3.0, "http://h").headers


def test_artifacts_are_the_answer_and_what_was_said_where_there_are_none():
    whole = taken(chunk("a", "One"), chunk("b", "Two"), chunk("a", " more", append=True), chunk("c", "x", append=True))
    assert whole.text == "One more\n\nTwo\n\nx" and (whole.task, whole.state, whole.is_settled) == ("", "", False)
    replaced = taken(chunk("a", "One"), chunk("a", "Other"))
    assert replaced.text == "Other"
    said = taken(status("WORKING", "thinking", taskId="t", contextId="c"), status("COMPLETED", "Done"))
    assert (said.text, said.task, said.context, said.state) == ("Done", "t", "c", "TASK_STATE_COMPLETED")
    assert said.is_settled and said.events == 2
    working = taken(status("WORKING", "thinking"))
    assert working.text == "" and not working.is_settled
    file = event(artifactUpdate={"artifact": {"artifactId": "a", "parts": [{"url": "http://x/y", "filename": "y"}]}})
    more = event(artifactUpdate={"artifact": {"artifactId": "a", "parts": []}, "append": True})
    done = status("COMPLETED", "Done")
    assert taken(chunk("a", "Draft"), file, done).text == f"{taken(file).text}\n\nDone", (
        "no words are left in the artifact"
    )
    assert taken(chunk("a", "One"), more, done).text == "One"
    asks = status("INPUT_REQUIRED", "Which?")
    assert taken(chunk("a", "Two. Which?"), asks).text == "Two. Which?", "it is not repeated"
    assert taken(chunk("a", "Which? Two."), asks).text == "Which? Two.\n\nWhich?"
    both = taken(chunk("a", "One"), status("COMPLETED", "Done"))
    assert (both.text, both.said) == ("One", "Done")
    asks = taken(chunk("a", "One"), status("INPUT_REQUIRED", "Which?", taskId="t"))
    assert (asks.text, asks.is_settled) == ("One\n\nWhich?", True)
    file = {"artifactId": "f", "parts": [{"url": "http://h/r.pdf", "filename": "r.pdf"}]}
    for state in ("COMPLETED", "INPUT_REQUIRED"):
        beside = taken(event(artifactUpdate={"artifact": file}), status(state, "In all 7 EUR."))
        assert beside.text == "[file r.pdf]\n\nIn all 7 EUR.", "no word of the answer is lost beside a file"
    blank = {"artifactId": "f", "parts": [{"text": " "}, {"data": {"total": 7}}]}
    assert taken(event(artifactUpdate={"artifact": blank}), status("COMPLETED", "Paid")).text.endswith(
        '{"total":7.0}\n\nPaid'
    )
    for state in ("FAILED", "REJECTED", "CANCELED", "AUTH_REQUIRED"):
        assert taken(chunk("a", "One"), status(state, "Sorry")).is_settled
    kept = taken(status("INPUT_REQUIRED", "Which?"), status("COMPLETED"))
    assert kept.said == "Which?"


def test_chunks_of_an_artifact_read_the_same_as_they_stream_and_once_the_task_is_whole():
    parts = [{"text": "one "}, {"text": "two\n"}, {"text": "three"}, {"data": {"n": 7}},
             {"url": "http://h/r", "filename": "r"}, {}, {"text": "four"}, {"text": " five"}]  # fmt: skip
    said = 'one two\nthree\n{"n":7.0}\n[file r]\nfour five'
    for size in (1, 2, 3, len(parts)):
        events = [
            event(artifactUpdate={"artifact": {"artifactId": "a", "parts": parts[at : at + size]}, "append": at > 0})
            for at in range(0, len(parts), size)
        ]
        streamed = taken(*events)
        assert streamed.text == said and streamed.news() == said, size
        task = {
            "id": "t",
            "artifacts": [{"artifactId": "a", "parts": parts}],
            "status": {"state": "TASK_STATE_WORKING"},
        }
        streamed.take(event(task=task))
        assert streamed.text == said == taken(event(task=task)).text and streamed.news() == "", "it is not revised"
    both = taken(chunk("a", "x"), chunk("b", "y"), chunk("a", "z", append=True))
    assert both.text == "xz\n\ny"
    data = event(artifactUpdate={"artifact": {"artifactId": "a", "parts": [{"data": {"n": 7}}]}})
    assert taken(data, chunk("a", "new")).text == "new", "an artifact that is replaced begins anew"
    assert taken(data, event(artifactUpdate={"artifact": {"artifactId": "a"}, "append": True}),
                 chunk("a", "b", append=True)).text == '{"n":7.0}\nb'  # fmt: skip
    message = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "One"}, {}, {"text": "Two"}]}
    assert taken(event(message=message)).text == "One\nTwo", "a message never comes in chunks"


def test_a_message_is_an_answer_without_a_task():
    message = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "Hi"}]}
    answer = taken(event(message=message | {"contextId": "c"}), event(message=message))
    assert (answer.text, answer.context, answer.task, answer.state) == ("Hi", "c", "", "message")
    assert answer.is_settled


def test_a_whole_task_replaces_what_came_of_it():
    body = {
        "id": "t",
        "contextId": "c",
        "artifacts": [{"artifactId": "a", "parts": [{"text": "New"}]}],
        "status": {"state": "TASK_STATE_WORKING"},
    }
    answer = taken(chunk("a", "Old"), event(task=body))
    assert (answer.text, answer.task, answer.context, answer.state) == ("New", "t", "c", "TASK_STATE_WORKING")
    unknown = Task(id="t")
    unknown.status.state = 99
    answer.take_task(unknown)
    assert answer.state == "state 99" and not answer.is_settled


def test_events_without_end_are_given_up(monkeypatch):
    monkeypatch.setattr(a2a_answer, "MAX_EVENTS", 3)
    working = [status("WORKING", taskId="t1")] * 3
    assert taken(*working).events == 3
    with pytest.raises(ModelError, match=r"sent more than 3 events and no answer: its task is t1"):
        taken(*working, working[0])
    with pytest.raises(ModelError, match="and no answer: it gave no task"):
        taken(*[status("WORKING")] * 4)


def test_parts_are_text_data_and_names_of_files():
    wired = [
        {"text": "a"},
        {"data": {"z": 1, "b": ["é"]}},
        {"url": "http://h/f.txt", "filename": "f.txt"},
        {"url": "http://h/g.txt"},
        {"raw": "AAAA", "mediaType": "image/png"},
        {},
    ]
    parts = [ParseDict(each, Part()) for each in wired]
    assert text_of(parts) == 'a\n{"b":["é"],"z":1.0}\n[file f.txt]\n[file http://h/g.txt]\n[file image/png]'


def test_a_conversation_goes_on_in_the_context_that_knows_it():
    agent = RemoteAgent("http://host", key="")
    assert agent._message("", "Hi", []) == (_Thread(), "Hi")
    assert agent._message("", "", [user("Hi")]) == (_Thread(), "Hi")
    first = [user("Hi ")]
    agent._keep("", [*first, assistant(" Hello")], _Thread("c1", "t1"))
    assert agent._message("", "", [user("Hi"), assistant("Hello\n"), user("More")]) == (_Thread("c1", "t1"), "More")
    other = [system("S"), user("Hi"), assistant("", ToolCall("c", "f", {})), assistant("Yes"), user("More")]
    told = "The conversation so far:\n\nsystem: S\n\nuser: Hi\n\nassistant: Yes\n\nThe message to answer:\n\nMore"
    assert agent._message("", "", other) == (_Thread(), told)
    agent._keep("", [assistant("x")], _Thread("c2"))
    assert agent._message("", "", [assistant("x"), user("More")]) == (_Thread("c2"), "More")


def test_the_oldest_conversation_is_forgotten_first(monkeypatch):
    monkeypatch.setattr(provider, "_MOST_THREADS", 2)
    agent = RemoteAgent("http://host", key="")
    for number in range(3):
        agent._keep("", [user(str(number)), assistant("a")], _Thread(f"c{number}"))
    found = [agent._message("", "", [user(str(number)), assistant("a"), user("b")])[0].context for number in range(3)]
    assert found == ["", "c1", "c2"] and not agent._threads
    equal = [user("q"), assistant("a")]
    for number in range(3):  # branches of equal texts count too
        agent._keep("", equal, _Thread(f"c{number}"))
    assert [agent._message("", "", [*equal, user("b")])[0].context for _ in range(3)] == ["c1", "c2", ""]


def test_branches_of_equal_texts_have_a_remote_context_each_and_one_that_waits_gets_one_answer():
    agent = RemoteAgent("http://host", key="")
    talk = [user("What is 6*7?"), assistant("42")]
    for name in ("1", "2"):
        agent._keep("own", talk, _Thread(f"c{name}", f"t{name}"))
    assert agent._message("else", "", [*talk, user("yes")])[0] == _Thread()
    assert [agent._message("own", "", [*talk, user(said)])[0] for said in ("yes", "no", "yes")] == [
        _Thread("c1", "t1"), _Thread("c2", "t2"), _Thread(),
    ]  # fmt: skip
    told = "The conversation so far:\n\nuser: What is 6*7?\n\nassistant: 42\n\nThe message to answer:\n\nyes"
    assert agent._message("own", "", [*talk, user("yes")])[1] == told


def told(error: BaseException, *, was_sent: bool = False) -> tuple[str, str]:
    fault = HOME._fault(error, was_sent=was_sent)
    return type(fault).__name__, str(fault).removeprefix("a2a:http://host:80 ")


def test_a_fault_can_be_tried_again_only_where_nothing_was_asked():
    class Refused(Exception):
        def __init__(self, status_code: int):
            super().__init__("x")
            self.status_code = status_code

    could_not = "could not be asked (Refused: x)"
    key = f"{could_not}: put its key into FIRSTHAND_A2A_KEY"
    assert told(Refused(401)) == told(Refused(403)) == ("ModelError", key)
    address = f"{could_not}: give the address of an A2A agent"
    assert told(Refused(400)) == told(Refused(404)) == told(Refused(499)) == ("ModelError", address)
    down = f"{could_not}: check that it runs, and its address"
    assert told(Refused(500)) == told(Refused(503)) == ("Unreachable", down)
    no_card = f"{could_not}: its card is not one of A2A 1.0"
    assert told(Refused(302)) == ("ModelError", no_card)
    assert told(OSError("no")) == (
        "Unreachable",
        "could not be asked (OSError: no): check that it runs, and its address",
    )
    outer = ValueError("outer")
    outer.__cause__ = httpx.ReadError("inner")
    assert told(outer)[0] == "Unreachable"
    broke = "broke off or broke the protocol (OSError: no): see on its side what was done"
    assert told(OSError("no"), was_sent=True) == ("ModelError", broke)
    outer.__cause__ = ours = ModelError("it sent too much")
    assert HOME._fault(outer, was_sent=True) is ours
    assert issubclass(Unreachable, ModelError)


def card(*interfaces: tuple[str, str]) -> AgentCard:
    listed = [{"url": url, "protocolBinding": binding, "protocolVersion": "1.0"} for url, binding in interfaces]
    return ParseDict({"name": "peer", "supportedInterfaces": listed}, AgentCard())


def test_a_card_keeps_its_clients_at_its_own_address():
    agent = RemoteAgent("http://host:8000", key="k")
    agent._check(card(("http://host:8000/rpc", "JSONRPC"), ("elsewhere:50051", "GRPC")))
    for url in (
        "https://host:8000/",
        "http://host/",
        "http://host:8001/",
        "http://other:8000/",
        "http://me@host:8000/",
    ):
        for others in ([("http://host:8000/", "JSONRPC")], [("elsewhere:50051", "GRPC")], []):  # each one is looked at
            with pytest.raises(ModelError) as refused:
                agent._check(card(*others, (url, "HTTP+JSON"), ("http://host:8000/rest", "HTTP+JSON")))
            assert str(refused.value) == (
                f"the card of a2a:http://host:8000 sends its clients to '{url}', another address: give that one if you "
                "trust it"
            )
    agent._check(card(("http://HOST:8000/a@b", "JSONRPC"), ("e:1", "GRPC"), ("HTTP://host:8000", "HTTP+JSON")))
    with pytest.raises(ModelError, match="the card of 'peer' is not signed by a key that you trust"):
        RemoteAgent("http://host:8000", trusted={})._check(card(("http://host:8000/", "JSONRPC")))


@contextmanager
def site(pieces: list[bytes], **headers: str) -> Iterator[str]:
    """An address that answers with these pieces, whatever is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("content-length", str(sum(map(len, pieces))))
            self.end_headers()
            for piece in pieces:
                self.wfile.write(piece)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def read(*pieces: bytes, **headers: str) -> bytes:
    async def get() -> bytes:
        async with a2a_transport.bounded_client("", 5.0, "http://peer") as client:
            return (await client.get(url)).content

    with site(list(pieces), **headers) as url:
        return asyncio.run(get())


@pytest.mark.slow
def test_values_are_counted_through_a_whole_response_and_for_each_event_of_a_stream(monkeypatch):
    monkeypatch.setattr(a2a_transport, "MAX_VALUES", 4)
    said = "a2a:http://peer sent more than 4 JSON values at once, so they are not read"
    json_type, stream_type = "application/json", "text/event-stream; charset=utf-8"
    four, five = b"[1,\r\n\n2,\n\n3,4\n]", b"[1,\r\n\n2,\n\n3,4\n,5]"
    assert read(four, content_type=json_type) == four
    with pytest.raises(ModelError, match=said):
        read(five, content_type=json_type)  # blank lines end no event where there is no stream
    with pytest.raises(ModelError, match=said):
        read(b"data: [1,", b"2,3", b",4", b",5]", content_type=stream_type)
    with pytest.raises(ModelError, match=said):
        read(b"[1,2," + b" " * 70_000 + b"3,4" + b" " * 70_000 + b",5]", content_type=json_type)  # a line in pieces
    pieces = b"[1," + b" " * 70_000 + b"2]\n", b"[3,4]"  # a line in pieces is counted once
    assert read(*pieces, content_type=json_type) == b"".join(pieces)
    events = b"data: [1,2]\ndata: [3,4]\r\n\r\ndata: [1,2,3,4]\n\n"
    assert read(events, events, content_type=stream_type) == events + events
    with pytest.raises(ModelError, match=said):
        read(b"data: [1,2]\ndata: [3,4]\r\ndata: [5]\n\n", content_type=stream_type)


def test_characters_that_httpx_takes_for_line_ends_are_escaped_in_a_stream_and_nowhere_else():
    raw = 'data: {"a": "\u2028 \u2029 \x85"}'.encode()
    stream = "text/event-stream; charset=utf-8"
    for pieces in ((raw + b"\n\n",), (raw[:14], raw[14:], b"\r\n\r\n"), (raw,)):  # in pieces, and without an end
        events = read(*pieces, content_type=stream)
        assert events.rstrip() == rb'data: {"a": "\u2028 \u2029 \u0085"}'
    for whole in (raw, raw + b"\n"):
        assert read(whole, content_type="application/json") == whole


def test_bytes_are_bounded_and_never_unpacked(monkeypatch):
    monkeypatch.setattr(a2a_transport, "MAX_BYTES", 1 << 20)
    assert len(read(b"x" * (1 << 20))) == 1 << 20
    with pytest.raises(ModelError, match="a2a:http://peer sent more than 1 MiB in one response, so it is not read"):
        read(b"x" * (1 << 20), b"y")
    with pytest.raises(ModelError, match="a2a:http://peer sent a compressed response, which was not asked for"):
        read(b"x", content_encoding="gzip")
    assert read(b"x", content_encoding=" Identity ") == read(b"x", content_encoding="") == b"x"


def test_an_agent_takes_no_tools_and_gives_no_scores():
    from firsthand.model import ToolSpec

    async def asked() -> None:
        tools = [ToolSpec("f", "F.", {})]
        async for _ in HOME.stream("Hi", Sampling(), tools=tools):
            pass

    with pytest.raises(ConfigError, match="is an agent with tools of its own and takes none: leave out tools"):
        asyncio.run(asked())
    with pytest.raises(ConfigError, match="gives no log-probs"):
        asyncio.run(HOME.score("Hi", ["a"]))
    assert provider._digest("", [Message("user", ())]) == provider._digest("", [user(" ")])


def test_requests_carry_the_key_and_ask_for_no_compression_nor_follow_what_leads_elsewhere():
    async def asked(key: str) -> tuple[httpx.Headers, httpx.Timeout, bool]:
        async with a2a_transport.bounded_client(key, 5.5, "http://peer") as client:
            request = client.build_request("GET", "http://peer/x")
            return request.headers, client.timeout, client.follow_redirects

    headers, timeout, follows = asyncio.run(asked("k"))
    assert (headers["authorization"], headers["accept-encoding"], follows) == ("Bearer k", "identity", False)
    assert (timeout.connect, timeout.read, timeout.write, timeout.pool) == (10.0, 5.5, 5.5, 5.5)
    assert "authorization" not in asyncio.run(asked(""))[0]


def test_an_agents_address_loses_its_last_strokes_and_its_settings_are_kept():
    trusted = {"a": b"pem"}
    agent = RemoteAgent("https://host/a//", key="k", trusted=trusted, timeout_s=2.5, idle_s=0.5)
    assert (agent._url, agent._key, agent._trusted, agent._timeout_s, agent._idle_s) == (
        "https://host/a", "k", trusted, 2.5, 0.5,
    )  # fmt: skip
    assert (HOME._trusted, HOME._timeout_s, HOME._idle_s) == (None, 600.0, 120.0)
    with pytest.raises(ConfigError) as raised:
        RemoteAgent("x" * 121)
    assert str(raised.value) == f"a2a:{'x' * 120}... has no address: write a2a:http://HOST:PORT"


def test_an_answer_is_settled_by_its_last_states_alone():
    settled = ("COMPLETED", "INPUT_REQUIRED", "FAILED", "REJECTED", "CANCELED", "AUTH_REQUIRED")
    for state in (*settled, "SUBMITTED", "WORKING", "UNSPECIFIED"):
        assert taken(status(state)).is_settled == (state in settled), state
    assert taken(chunk("a", "x")).is_settled is False and Answer("a2a:http://host").text == ""
    both = taken(chunk("b", "two"), chunk("a", "one"), chunk("b", "!", append=True), status("COMPLETED", "said"))
    assert both.text == "two!\n\none" and both.said == "said" and both.events == 4
    assert taken(chunk("a", ""), status("COMPLETED", "said")).text == "said"


def test_several_answers_are_asked_together_and_one_that_fails_ends_the_others():
    class Told(RemoteAgent):
        def __init__(self, *waits: float, fails: int = -1):
            super().__init__("http://h", key="")
            self.waits, self.fails, self.asked, self.ended = waits, fails, [], []

        async def stream(self, prompt, sampling, *, tools=()):
            number = len(self.asked)
            self.asked.append((prompt, sampling, tools))
            try:
                yield Delta("piece")
                await asyncio.sleep(self.waits[number])
                if number == self.fails:
                    raise ModelError("it failed")
                yield Delta("", Completion(assistant(str(number)), "stop", Usage()))
            finally:
                self.ended.append(number)

    three = Told(0.002, 0, 0.001)
    sampling = Sampling(max_tokens=3)
    found = asyncio.run(three.complete("p", sampling, tools=["t"], n=3))
    assert [each.message.text for each in found] == ["0", "1", "2"] and three.asked == [("p", sampling, ["t"])] * 3

    async def fails() -> tuple[str, list[int]]:
        model = Told(5, 0.001, 5, fails=1)
        with pytest.raises(ModelError) as raised:
            await model.complete("p", sampling, n=3)
        return str(raised.value), sorted(model.ended)

    assert asyncio.run(fails()) == ("it failed", [0, 1, 2])
    assert asyncio.run(Told().complete("p", sampling, n=0)) == []
