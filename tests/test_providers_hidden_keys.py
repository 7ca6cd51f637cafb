"""Keys and passwords of an endpoint, wherever it repeats them: no error shows them, nor what is left of one that is cut."""

from __future__ import annotations

import time
from base64 import b64encode

import pytest

from firsthand.errors import ModelError
from firsthand.providers import anthropic_wire, google_wire, openai_wire
from firsthand.providers.endpoint_secrets import endpoint_secrets, hide
from firsthand.providers.openai_errors import Endpoint

KEY = "sk-SECRETSECRETSECRET1234567890"
HERE = Endpoint("openai:m@http://h/v1", "m", (KEY,), 2.5)


def shows_key(said: object) -> bool:
    return "SECRETS" in str(said) or "SECRET" in str(said).replace("\\u200b", "")


@pytest.mark.parametrize("at", range(0, 420, 7))
def test_a_key_that_stands_where_a_reply_is_cut_is_hidden_whole(at: int) -> None:
    text = "z" * at + KEY + "z" * 2000
    readers = [
        lambda: openai_wire.parse(text), lambda: openai_wire.parse(text.encode()),
        lambda: openai_wire.read_completions({text: 1}), lambda: anthropic_wire.read_completion({text: 1}),
        lambda: google_wire.read_completion({text: 1}),
    ]  # fmt: skip
    for reader in readers:
        with pytest.raises(ModelError) as raised:
            reader()
        assert not shows_key(HERE.garbled(raised.value)) and not shows_key(HERE.unreachable(raised.value))
    assert not shows_key(HERE.no_stream(text, "ask"))
    assert not shows_key(HERE.status(404, {"message": text}, {}, [text, KEY]))


def test_a_content_type_and_the_names_of_models_hide_the_key() -> None:
    assert str(HERE.no_stream(f"text/{KEY}", "ask without streaming")) == (
        "openai:m@http://h/v1 sent 'text/***' where a stream was expected: ask without streaming"
    )
    said = str(
        HERE.status(404, {"message": "no"}, {}, openai_wire.read_model_names({"data": [{"id": KEY}, {"id": "q"}]}))
    )
    assert said == "openai:m@http://h/v1 answered 404 (no): it has ***, q"


def test_a_key_is_found_in_escapes_and_between_unseen_characters() -> None:
    spelled = [
        "\u200b".join(KEY), "\\u200b".join(KEY), KEY[:9] + " \u200b\u00ad" + KEY[9:], "".join(f"%{ord(c):02X}" for c in KEY),
        "".join(f"\\u{ord(c):04x}" for c in KEY), "".join(f"&#{ord(c)};" for c in KEY),
        "".join(f"&#x{ord(c):X};" for c in KEY), KEY.replace("S", "\\u0053"),
    ]  # fmt: skip
    for text in spelled:
        assert hide(f"a {text} b", (KEY,)) == "a *** b", text


def test_what_is_sent_as_headers_is_hidden_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Proxy: Bearer proxy-key-0123\nX-Mode: fast")
    secrets = endpoint_secrets("k" * 20, "http://me:p%40ssword@h/v1", "OPENAI_CUSTOM_HEADERS")
    sent = b64encode(b"me:p@ssword").decode()
    assert hide(f"{sent} p@ssword proxy-key-0123 fast", secrets) == "*** *** *** fast"


def test_honest_words_stay_as_they_are() -> None:
    words = "the model mixtral does not exist, try x-large\u200b or 'sk-SECRET...7890' (code 100%, &#38;)"
    assert hide(words, (KEY, "")) == words and hide(words, ()) == words
    assert hide("mixtral x max", ("x",)) == "mixtral *** max", "a key of one letter is no part of a word"
    with pytest.raises(ModelError, match=r"^it sent '<oops> it's' where JSON was expected"):
        openai_wire.parse("<oops> it's")


def test_hiding_takes_time_by_what_is_shown() -> None:
    began = time.process_time()
    for text in ("s\u200b" * 5_000_000, "s" * 10_000_000, "\\u0073" * 1_000_000):
        HERE.quote(text)
        Endpoint("n", "m", ("s" * 60,), 1).quote(text + "t")
        Endpoint("n", "m", ("s" * 59 + "t",), 1).quote(text)
    assert time.process_time() - began < 5
