"""What is said of an endpoint's faults, to the last word: secrets hidden, texts cut, and each kind of error by its sign."""

from datetime import UTC, datetime

import pytest

from firsthand.errors import ConfigError, ModelError, PromptTooLong, TransientError, Unreachable
from firsthand.providers.openai_errors import Endpoint, checked_key, retry_after_s, split_address

HERE = Endpoint("openai:m", "m-4", ("k/e y", "", "p%40w"), 2.5, key_variable="KEY", address_hint="such as h")


def told(error):
    return type(error), str(error)


@pytest.mark.parametrize("kind", ["RequestError", "APIConnectionError", "SSLError", "OSError", "EndOfStream"])
def test_a_lost_connection_is_known_by_the_name_of_any_class_of_its_error(kind):
    above = type(kind, (Exception,), {})
    error = type("Own", (above,), {})("k%2Fe%20y " + "x" * 400)
    shown = "*** " + "x" * 296 + "..."
    expected = f"openai:m lost or refused the connection ({shown}): check that the server runs"
    assert told(HERE.unreachable(error)) == (Unreachable, expected)


def test_an_error_that_is_empty_in_a_test_of_truth_is_read_all_the_same():
    class Falsy(ModelError):
        def __bool__(self):
            return False

    outer = RuntimeError("outer")
    outer.__cause__ = Falsy("it is p@w")
    assert told(HERE.unreachable(outer)) == (ModelError, "openai:m could not be understood: it is ***")


def test_secrets_are_hidden_in_each_form_that_an_endpoint_may_quote():
    said = "k/e y, k%2Fe%20y, p%40w, p@w, p%2540w, pw"
    assert HERE.hide(said) == "***, ***, ***, ***, ***, pw"
    assert HERE.hide("") == "" and Endpoint("n", "m", (), 1).hide(said) == said


def test_a_secret_at_the_end_of_what_is_shown_is_hidden_whole_before_the_text_is_cut():
    for length, shown in ((296, "x" * 296 + "***!"), (297, "x" * 297 + "***..."), (298, "x" * 298 + "**..."),
                          (299, "x" * 299 + "*..."), (300, "x" * 300 + "...")):  # fmt: skip
        for secret in ("k/e y", "k%2Fe%20y", "p%40w", "p@w"):
            text = "x" * length + secret + "!"
            change = "change what it refuses, such as a sampling setting or a tool that it does not know"
            said = f"openai:m answered 400 ({shown}): {change}"
            for body in (text, {"message": text}, {"error": {"message": text}}, [{"msg": text}]):
                assert told(HERE.status(400, body, {})) == (ModelError, said)
            unnamed = f"openai:m answered with an error ({shown}): {change}"
            assert told(HERE.reported({"error": text})) == (ModelError, unnamed)
            lost = f"openai:m lost or refused the connection ({shown}): check that the server runs"
            assert told(HERE.unreachable(OSError(text))) == (Unreachable, lost)
            odd = f"openai:m could not be asked (ValueError: {shown}): check its address"
            assert told(HERE.unreachable(ValueError(text))) == (ModelError, odd)
            garbled = f"openai:m could not be understood: {'x' * length}***!"
            assert (
                told(HERE.garbled(ModelError(text)))
                == told(HERE.unreachable(ModelError(text)))
                == (ModelError, garbled)
            )


def test_a_status_is_told_with_the_endpoints_words_and_what_to_do():
    change = "change what it refuses, such as a sampling setting or a tool that it does not know"
    check = "check the model's name and the address (such as h)"
    for status, body, expected in (
        (400, "x" * 301, f" ({'x' * 300}...): {change}"), (399, {}, f": {check}"), (400, None, f": {change}"),
        (405, {"message": "p@w"}, f" (***): {check}"), (422, [3], f": {change}"), (422, [], f": {change}"),
        (422, [{"msg": {"message": "deep"}}, {"msg": "no"}], f" (deep): {change}"),
        (422, {"detail": [{"msg": "field required"}]}, f" (field required): {change}"),
        (400, {"message": "", "detail": "d", "error": {"message": "e"}}, f" (d): {change}"),
        (400, {"code": ["context_length_exceeded"], "error": {"detail": "e"}}, f" (e): {change}"),
        (404, " \n<HTML>", f" (an HTML page): {check}"), (401, {"error": "bad"}, " (bad): set KEY to a key that it takes"),
        (403, "", ": ask for access to 'm-4', or use another key or model"),
    ):  # fmt: skip
        assert told(HERE.status(status, body, {})) == (ModelError, f"openai:m answered {status}{expected}")
    known = [f"n-{at}" for at in range(12)]
    for names, expected in (
        (["m-5"], "did you mean 'm-5'? it has m-5"), (known[:10], f"it has {', '.join(known[:10])}"), (["z"], "it has z"),
        (["zz", *known[:10]], f"it has zz, {', '.join(known[:9])} and 1 more"),
    ):  # fmt: skip
        found = str(HERE.status(404, {}, {}, names))
        assert found.partition(": ")[2].endswith(expected) and (names != ["m-5"] or found.endswith(f"404: {expected}"))
    assert str(HERE.status(405, {}, {}, ["m-5"])) == f"openai:m answered 405: {check}"
    for status, kind in (
        (408, 1),
        (409, 1),
        (410, 0),
        (424, 0),
        (425, 1),
        (429, 1),
        (430, 0),
        (499, 0),
        (500, 1),
        (599, 1),
    ):
        found = HERE.status(status, {"message": "m"}, {"retry-after": "4"})
        assert type(found) is (TransientError if kind else ModelError), status
        if kind:
            assert str(found) == f"openai:m answered {status} (m): it may pass, try again" and found.retry_after_s == 4
    long = {"type": "exceed_context_size_error", "message": "m"}
    for status, kind in ((400, 1), (413, 1), (422, 1), (500, 1), (401, 0), (429, 0), (503, 0)):
        found = HERE.status(status, long, {})
        assert isinstance(found, PromptTooLong) == bool(kind), status
    expected = "openai:m answered 413 (m): shorten the conversation, or ask for fewer tokens"
    assert told(HERE.status(413, long, {})) == (PromptTooLong, expected)
    poor = "openai:m answered 429 (m): the account has no credit left; top it up or use another key"
    for mark in ({"code": "insufficient_quota"}, {"type": "billing_error"}, {"code": "billing_hard_limit_reached"}):
        assert told(HERE.status(429, {"message": "m"} | mark, {})) == (ModelError, poor)


def test_a_conversation_that_is_too_long_is_known_by_the_words_of_each_server():
    for words in (
        "context_length", "contextwindow", "CONTEXT size", "maximum context", "Maximum input", "maximum sequence",
        "prompt is too long", "your input is too long", "request is too long", "too many tokens", "too many input tokens",
        "too many prompt tokens", "max_model_len", "longer than the model", "longer than the maximum",
        "exceed context limit", "it exceeds the maximum number of tokens",
    ):  # fmt: skip
        assert isinstance(HERE.status(400, {"message": words}, {}), PromptTooLong), words
    for words in (
        "context",
        "maximum tokens",
        "too long",
        "too many requests",
        "longer than usual",
        "exceeds the limit",
    ):
        assert type(HERE.status(400, {"message": words}, {})) is ModelError, words
    credit = HERE.status(400, {"message": "Your Credit balance is too low, top up"}, {})
    assert str(credit).endswith("): the account has no credit left; top it up or use another key")
    assert type(HERE.status(500, {"type": "billing_not_active"}, {})) is ModelError


def test_a_wait_is_read_from_the_first_100_characters_of_its_header():
    for given, expected in (
        (" " * 100 + "7", 7.0), ("1" * 101, float("1" * 100)), ("-0.5", 0.0), ("1e400", None),
        ("Thu, 01 Jan 99999999999999999999 12:00:00 GMT", None), ("Thu, 01 Jan 2026 12:00:00 +0100", 0.0),
        ("Thu, 01 Jan 2026 12:00:00 -0100", 3600.0),
    ):  # fmt: skip
        assert retry_after_s({"retry-after": given}, datetime(2026, 1, 1, 12, tzinfo=UTC)) == expected, given
    wait = retry_after_s({"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"})
    assert wait == pytest.approx((datetime(2100, 1, 1, tzinfo=UTC) - datetime.now(UTC)).total_seconds(), abs=5)


def test_a_name_is_parted_at_its_last_address_and_refused_in_a_short_sentence():
    for rest, expected in (
        ("m@http://a@http://b", ("m@http://a", "http://b")), ("m@https://a@https://b", ("m@https://a", "https://b")),
        ("@http://h", ("", "http://h")), ("a@b@https://h", ("a@b", "https://h")), ("m:4", ("m:4", None)),
    ):  # fmt: skip
        assert split_address("p", rest, "X") == expected
    name, address = "n" * 50 + "@" + "m" * 50, "a" * 81
    with pytest.raises(ConfigError) as refused:
        split_address("p", f"{name}@{address}", "http://X")
    assert str(refused.value) == (
        f"p:{name}@{'a' * 18}... has {'a' * 80 + '...'!r} after the @, where an address was expected: write "
        f"p:{name[:80]}...@http://X, with http:// or https://; a name with @ in it needs its address too"
    )
    for key, said in (
        ("", "OPENAI_API_KEY is not set: export it, or name an endpoint of your own, openai:MODEL@BASE_URL"),
        ("é", "OPENAI_API_KEY has invalid characters: copy it again, without line breaks"),
    ):
        with pytest.raises(ConfigError) as refused:
            checked_key(key, required=True)
        assert str(refused.value) == said
    assert checked_key("k e~", required=True) == "k e~"
