"""What is made of an endpoint's faults, addresses and keys: the kind of the error, and every word of it."""

import asyncio
from datetime import UTC, datetime

import httpx
import pytest

from firsthand.errors import ConfigError, ModelError, TransientError, Unreachable
from firsthand.grammar import Grammar
from firsthand.model import Sampling, Usage
from firsthand.providers import supported_settings
from firsthand.providers.endpoint_clients import LoopClients, bounded_client, opened_replies, together
from firsthand.providers.openai_errors import Endpoint, checked_key, retry_after_s, shown_address, split_address

HERE = Endpoint("openai:m", "llama", ("se/cret", ""), 2.5)


def told(error):
    return type(error).__name__, str(error)


@pytest.mark.parametrize(
    "status, body, kind, said",
    [
        (401, {"message": "bad se/cret"}, "ModelError", "401 (bad ***): set OPENAI_API_KEY to a key that it takes"),
        (403, None, "ModelError", "403: ask for access to 'llama', or use another key or model"),
        (404, {}, "ModelError", "404: check the model's name and the address (most end in /v1)"),
        (405, "gone", "ModelError", "405 (gone): check the model's name and the address (most end in /v1)"),
        (302, "", "ModelError", "302: check the model's name and the address (most end in /v1)"),
        (400, {"detail": [{"msg": "no seed"}]}, "ModelError",
         "400 (no seed): change what it refuses, such as a sampling setting or a tool that it does not know"),
        (400, {"error": {"message": "no"}}, "ModelError",
         "400 (no): change what it refuses, such as a sampling setting or a tool that it does not know"),
        (408, "", "TransientError", "408: it may pass, try again"),
        (409, "", "TransientError", "409: it may pass, try again"),
        (425, "", "TransientError", "425: it may pass, try again"),
        (429, [], "TransientError", "429: it may pass, try again"),
        (500, "<html>", "TransientError", "500 (an HTML page): it may pass, try again"),
        (429, {"code": "insufficient_quota"}, "ModelError",
         "429: the account has no credit left; top it up or use another key"),
        (400, {"type": "billing_error", "message": "x"}, "ModelError",
         "400 (x): the account has no credit left; top it up or use another key"),
        (400, {"message": "your Credit balance is too low"}, "ModelError",
         "400 (your Credit balance is too low): the account has no credit left; top it up or use another key"),
        (402, {"message": "Insufficient Balance", "code": "invalid_request_error"}, "ModelError",
         "402 (Insufficient Balance): the account has no credit left; top it up or use another key"),
        (402, "", "ModelError", "402: the account has no credit left; top it up or use another key"),
        (429, {"message": "suspended due to insufficient balance"}, "ModelError",
         "429 (suspended due to insufficient balance): the account has no credit left; top it up or use another key"),
        (400, {"message": "filtered", "code": "content_filter"}, "ModelError",
         "400 (filtered): its content filter took the prompt: change the prompt, or the filter's settings on its side"),
        (429, {"code": "content_filter"}, "TransientError", "429: it may pass, try again"),
        (403, {"code": "content_filter"}, "ModelError", "403: ask for access to 'llama', or use another key or model"),
        (400, {"code": "context_length_exceeded"}, "PromptTooLong",
         "400: shorten the conversation, or ask for fewer tokens"),
        (500, {"type": "exceed_context_size_error"}, "PromptTooLong",
         "500: shorten the conversation, or ask for fewer tokens"),
        (413, "The prompt is too long", "PromptTooLong",
         "413 (The prompt is too long): shorten the conversation, or ask for fewer tokens"),
        (422, "MAX_MODEL_LEN", "PromptTooLong",
         "422 (MAX_MODEL_LEN): shorten the conversation, or ask for fewer tokens"),
        (429, "too many input tokens", "TransientError", "429 (too many input tokens): it may pass, try again"),
    ],
)  # fmt: skip
def test_a_status_is_an_error_that_says_what_to_do(status, body, kind, said):
    assert told(HERE.status(status, body, {})) == (kind, f"openai:m answered {status}{said.removeprefix(str(status))}")


def test_a_missing_model_is_answered_with_the_models_there_are():
    known = [f"model{i}" for i in range(12)]
    assert str(HERE.status(404, "", {}, ["llama3", "qwen"])) == (
        "openai:m answered 404: did you mean 'llama3'? it has llama3, qwen"
    )
    assert str(HERE.status(404, "", {}, known)) == f"openai:m answered 404: it has {', '.join(known[:10])} and 2 more"
    assert str(HERE.status(404, "", {}, known[:10])).endswith("model9")
    other = Endpoint("anthropic:m", "m", (), 1.0, "THE_KEY", "without /v1")
    assert str(other.status(401, "", {})) == "anthropic:m answered 401: set THE_KEY to a key that it takes"
    assert str(other.status(404, "", {})).endswith("the address (without /v1)")


def test_errors_under_a_status_of_success_have_the_code_they_state():
    for code, kind in ((429, TransientError), (599, TransientError), (600, ModelError), (399, ModelError)):
        error = HERE.reported({"error": {"code": code, "message": "x"}})
        assert type(error) is kind and str(error).startswith(
            f"openai:m answered {code if kind is TransientError else 'with an error'} (x): "
        )
    assert str(HERE.reported({"error": "broken"})).startswith("openai:m answered with an error (broken): change what")
    assert HERE.status(429, "", {"retry-after": "3"}).retry_after_s == 3.0


def test_a_request_without_a_reply_is_told_by_its_cause():
    def caused(error, cause):
        error.__cause__ = cause
        return error

    slow = "openai:m gave no answer within 2.5 s: try again, or raise timeout_s"
    cases = [
        (httpx.ConnectTimeout("x"), Unreachable,
         "openai:m could not be reached in time: check that the server runs and its address"),
        (httpx.ReadTimeout("x"), TransientError, slow),
        (TimeoutError(), TransientError, slow),
        (ConnectionResetError("by se/cret and se%2Fcret"), Unreachable,
         "openai:m lost or refused the connection (by *** and ***): check that the server runs"),
        (caused(RuntimeError("outer"), OSError("inner")), Unreachable,
         "openai:m lost or refused the connection (inner): check that the server runs"),
        (caused(RuntimeError("outer"), OSError()), Unreachable,
         "openai:m lost or refused the connection (outer): check that the server runs"),
        (ValueError("odd"), ModelError, "openai:m could not be asked (ValueError: odd): check its address"),
        (KeyError(), ModelError, "openai:m could not be asked (KeyError: KeyError): check its address"),
        (caused(RuntimeError("outer"), ModelError("it is se/cret")), ModelError,
         "openai:m could not be understood: it is ***"),
    ]  # fmt: skip
    for error, kind, said in cases:
        assert told(HERE.unreachable(error)) == (kind.__name__, said)
    turning = caused(ValueError("a"), ValueError("b"))
    turning.__cause__.__cause__ = turning
    assert str(HERE.unreachable(turning)).startswith("openai:m could not be asked (ValueError: b)")


def test_a_retry_header_is_seconds_or_a_date():
    now = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    for given, expected in (
        ("1.5", 1.5),
        (" 7 ", 7.0),
        ("-3", 0.0),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 12:00:30 -0000", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("", None),
    ):
        assert retry_after_s({"retry-after": given}, now) == expected
    assert retry_after_s({}) is None


def test_an_address_is_shown_without_user_and_password():
    assert shown_address("http://me:pw@host:8000/v1") == "http://host:8000/v1"
    assert shown_address("https://[::1]:8/x") == "https://[::1]:8/x" and shown_address("https://h") == "https://h"
    for bad in ("ftp://h", "http://", "http://h?x=1", "http://h#x", "http://h:99999", "http://a b", "http://h/\n", "h"):
        with pytest.raises(ConfigError, match="is not a base URL: give one such as http://localhost:8000/v1"):
            shown_address(bad)
    with pytest.raises(ConfigError, match=r"^'http://\*\*\*@h' is not a base URL"):
        shown_address("http://me:pw@h?key=pw")


def test_an_address_that_is_none_is_shown_without_its_password_however_that_is_written():
    for bad, shown in (
        ("http://u:p@w@h:99999/v1", "http://***@h:99999/v1"), ("ftp://u:p?w@h", "ftp://***@h"),
        ("http://u:" + "p" * 200 + "@h#x", "http://***@h#x"), ("http://u:p\nw@h /v1", "http://***@h /v1"),
        ("http://u:p@h?key=k@x?b", "http://***@x"), ("ftp://h/" + "x" * 93, "ftp://h/" + "x" * 92 + "..."),
        ("ftp://h/" + "x" * 92, "ftp://h/" + "x" * 92), ("h:8000", "h:8000"), ("http://h?x=1", "http://h"),
        ("http://h\u200b", "http://h\\u200b"), ("http://" + "a" * 64 + ".é", "http://" + "a" * 64 + ".é"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            shown_address(bad)
        expected = f"'{shown}' is not a base URL: give one such as http://localhost:8000/v1, without ? or #"
        assert str(refused.value) == expected
    for good, shown in (
        ("https://u@h", "https://h"), ("http://H:0/a//", "http://h:0/a//"), ("http://é.org/ü", "http://é.org/ü"),
        ("http://u:p%40@[::1]/v1", "http://[::1]/v1"),
    ):  # fmt: skip
        assert shown_address(good) == shown


def test_names_and_addresses_are_parted_at_the_last_address():
    assert split_address("openai", "m", "X") == ("m", None)
    assert split_address("openai", "m@http://a/@https://b", "X") == ("m@http://a/", "https://b")
    assert split_address("openai", "m@https://b/@http://a", "X") == ("m@https://b/", "http://a")
    with pytest.raises(ConfigError) as refused:
        split_address("openai", "m@host", "http://HOST/v1")
    assert str(refused.value) == (
        "openai:m@host has 'host' after the @, where an address was expected: write openai:m@http://HOST/v1, with "
        "http:// or https://; a name with @ in it needs its address too"
    )
    with pytest.raises(ConfigError, match="write openai:NAME@X"):
        split_address("openai", "@host", "X")
    assert checked_key("k", required=True) == "k" and checked_key("", required=False) == ""
    with pytest.raises(ConfigError, match=r"^KEY is not set: export it, or name an endpoint of your own, x:MODEL@"):
        checked_key("", required=True, variable="KEY", provider="x")
    for bad in ("é", "a\nb"):
        with pytest.raises(ConfigError, match=r"^KEY has invalid characters"):
            checked_key(bad, required=False, variable="KEY")


def test_settings_without_a_field_are_named_with_their_value():
    used = Sampling(max_tokens=3, top_logprobs=2, seed=4, grammar=Grammar("json_schema", "{}"))
    supported_settings.check_supported("m", used, ("max_tokens", "top_logprobs", "seed"))
    with pytest.raises(ConfigError) as two:
        supported_settings.check_supported("m", used, ("max_tokens",))
    assert str(two.value) in (
        "m has no log-probs (2), seed (4): leave them out, or use a local model",
        "m has no seed (4), log-probs (2): leave them out, or use a local model",
    )
    with pytest.raises(ConfigError, match=r"^m has no seed \(4\): leave it out, or use a local model$"):
        supported_settings.check_supported("m", used, ("max_tokens", "top_logprobs"))
    with pytest.raises(ConfigError, match=r"^m takes JSON schemas and no other grammar, but got a regex grammar"):
        supported_settings.check_supported("m", Sampling(grammar=Grammar("regex", "a")), ())
    supported_settings.check_conversation("m", [])
    with pytest.raises(ConfigError, match=r"^m answers conversations and continues no plain text"):
        supported_settings.check_conversation("m", "")


def asked(handler, url="http://host:8000/v1", **settings):
    """The text of a reply by way of a bounded client whose transport is `handler`."""

    async def ask():
        options = {"timeout_s": 5, "max_reply_bytes": 10, "follow_redirects": True, **settings}
        async with bounded_client(httpx, **options) as client:
            client._transport = httpx.MockTransport(handler)
            return (await client.get(url)).text, client

    return asyncio.run(ask())


def test_a_reply_may_have_the_bytes_of_the_limit_and_no_more():
    seen = []

    class Pieces(httpx.AsyncByteStream):
        async def __aiter__(self):
            yield b"12345"
            yield b"67890"

    text, client = asked(lambda request: (seen.append(request), httpx.Response(200, stream=Pieces()))[1])
    assert text == "1234567890" and seen[0].headers["accept-encoding"] == "identity"
    assert (client.timeout.read, client.timeout.connect) == (5, 5)
    with pytest.raises(ModelError, match="it sent more than 9 bytes: ask for less, or raise max_reply_bytes"):
        asked(lambda request: httpx.Response(200, stream=Pieces()), max_reply_bytes=9)
    assert asked(lambda request: httpx.Response(200, stream=Pieces()), timeout_s=30)[1].timeout.connect == 10.0
    packed = httpx.Response(200, stream=Pieces(), headers={"content-encoding": "gzip"})
    with pytest.raises(ModelError, match="it compressed its reply as 'gzip', unrequested: turn compression off"):
        asked(lambda request: packed)


def test_headers_that_are_not_to_be_sent_are_taken_away_and_replies_are_noted():
    seen = []

    def answer(request):
        seen.append(request.headers)
        return httpx.Response(200, text="ok")

    noted: list = []
    token = opened_replies.set(noted)
    try:
        asked(answer, unsent_headers=("User-Agent", "Missing"))
    finally:
        opened_replies.reset(token)
    assert "user-agent" not in seen[0] and "accept" in seen[0] and len(noted) == 1


@pytest.mark.parametrize(
    "target, is_followed",
    [
        ("http://host:8000/other", True),
        ("https://host/v1", True),
        ("https://host:8000/v1", False),
        ("http://host/v1", False),
        ("http://host:8001/v1", False),
        ("http://other:8000/v1", False),
        ("https://other/v1", False),
    ],
)
def test_a_redirect_leaves_its_host_for_https_alone(target, is_followed):
    def answer(request):
        done = str(request.url) == target
        return httpx.Response(200, text="there") if done else httpx.Response(302, headers={"location": target})

    if is_followed:
        assert asked(answer, only_origin="http://host:8000/v1")[0] == "there"
    else:
        with pytest.raises(ModelError, match=f"it redirects to '{target}': give that address, if you trust it"):
            asked(answer, only_origin="http://host:8000/v1")
    assert asked(answer)[0] == "there"  # without an origin every redirect is followed


def test_each_loop_has_a_client_that_is_closed_with_it():
    closed, made = [], []

    def opener():
        client = object()
        made.append(client)

        async def close():
            closed.append(client)

        return client, close

    clients = LoopClients(opener)

    async def twice():
        first = await clients.current()
        assert await clients.current() is first and list(clients.open) == [asyncio.get_running_loop()]
        return first

    one, two = asyncio.run(twice()), asyncio.run(twice())
    assert one is not two and made == closed == [one, two] and clients.open == {}


def test_loops_side_by_side_have_a_client_each_that_stays_while_its_loop_does():
    closed, made = [], []

    def opener():
        if len(made) == 3:
            made.append("none")
            raise ModelError("no client")
        made.append(f"client {len(made)}")

        async def close(own=made[-1]):
            closed.append(own)

        return made[-1], close

    clients = LoopClients(opener)
    one, two, three = loops = [asyncio.new_event_loop() for _ in range(3)]

    async def both():
        return await asyncio.gather(clients.current(), clients.current())

    def current(loop):
        return loop.run_until_complete(clients.current())

    try:
        assert one.run_until_complete(both()) == ["client 0", "client 0"] and current(two) == "client 1"
        assert [current(loop) for loop in (one, two, one)] == ["client 0", "client 1", "client 0"]
        assert list(clients.open) == [one, two] and made == ["client 0", "client 1"] and closed == []
        one.close()  # without an end of its generators: its client is let go at the next new loop
        assert current(two) == "client 1" and list(clients.open) == [one, two]
        assert current(three) == "client 2" and list(clients.open) == [two, three] and closed == []
        two.run_until_complete(two.shutdown_asyncgens())
        assert closed == ["client 1"] and list(clients.open) == [three]
        with pytest.raises(ModelError, match=r"^no client$"):
            current(two)
        assert list(clients.open) == [three]
        assert current(two) == "client 4" and list(clients.open) == [three, two]
    finally:
        for loop in loops:
            if not loop.is_closed():
                loop.run_until_complete(loop.shutdown_asyncgens())
                loop.close()
    assert closed == ["client 1", "client 4", "client 2"] and clients.open == {}


def test_requests_sent_together_give_their_results_in_order_and_the_first_error():
    async def later(asked):
        value, wait_s = asked
        await asyncio.sleep(wait_s)
        if isinstance(value, Exception):
            raise value
        return value

    async def three():
        assert await together(later, [(1, 0.002), (2, 0), (3, 0.001)], lambda _: Usage()) == [1, 2, 3]
        await together(later, [(1, 5), (ModelError("first"), 0)], lambda _: Usage())

    with pytest.raises(ModelError, match="first"):
        asyncio.run(three())


@pytest.mark.parametrize(
    "status, body, refused_as, field",
    [
        (400, {"message": "no", "param": "se/cret.0"}, 400, "***.0"),
        (413, {"message": "big"}, 413, None),
        (415, "", 415, None),
        (422, {"message": "no", "param": 3}, 422, None),
        (400, {"message": "API key not valid", "param": "x"}, 502, None),
        (401, {"param": "x"}, 502, None),
        (402, "", 502, None),
        (403, "", 502, None),
        (404, "", 502, None),
        (302, "", 502, None),
        (429, {"code": "insufficient_quota"}, 502, None),
        (400, {"message": "Your credit balance is too low"}, 502, None),
        (429, "", None, None),
        (500, "", None, None),
        (400, {"code": "context_length_exceeded"}, None, None),
    ],
)
def test_a_lasting_fault_has_the_status_that_a_client_of_ours_is_told(status, body, refused_as, field):
    error = HERE.status(status, body, {})
    assert (error.refused_as, error.refused_field) == (refused_as, field)


def test_a_server_that_says_that_no_try_will_pass_is_believed():
    said = HERE.status(502, "no key", {"x-should-retry": "false"})
    assert told(said) == ("ModelError", "openai:m answered 502 (no key): it says that a try again meets the same fault")
    assert said.refused_as == 502
    for status, headers in ((502, {"x-should-retry": "true"}), (502, {}), (429, {"x-should-retry": "false"})):
        assert isinstance(HERE.status(status, "", headers), TransientError)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("API key not valid. Please pass a valid API key.", 502),
        ("Incorrect API key provided: sk-1", 502),
        ("Invalid schema for function 'login': 'api_key' has no type", 400),
        ("tools[0].function.parameters.properties.api_key: unknown type", 400),
    ],
)
def test_a_field_of_a_tool_that_is_named_as_a_key_is_no_fault_of_the_key(message: str, status: int) -> None:
    error = Endpoint("m", "m", (), 1.0).status(400, {"message": message}, {})
    assert error.refused_as == status
