"""Small values of the system room: words, cells, names of models, typed fields, options, the data home, trace headers."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from firsthand.errors import ConfigError
from firsthand.system import interruption, request_owner, trace_context
from firsthand.system.field_types import MANY, check_kinds, shown
from firsthand.system.home import data_home
from firsthand.system.hosted_models import ADDRESSES, elsewhere, name_hint, provider_hint
from firsthand.system.json_values import values_in, values_in_text
from firsthand.system.option_spec import Spec, bind_options, keywords_of, parse_spec
from firsthand.system.plurals import count_of
from firsthand.system.spreadsheet_cells import plain_cell, text_of_cell
from firsthand.system.trace_context import TraceParent


def test_a_number_takes_its_format_and_its_noun_an_s() -> None:
    words = [count_of(number, "task", form) for number, form in ((0, ""), (1, ","), (1, "3d"), (2, ""), (1234, ","))]
    assert words == ["0 tasks", "1 task", "  1 task", "2 tasks", "1,234 tasks"]


def test_a_text_that_begins_as_a_formula_is_written_after_an_apostrophe() -> None:
    for begin in ("=", "+", "-", "@", "\t", "\r"):
        assert plain_cell(f"{begin}1") == f"'{begin}1"
    for value in ("", " ", "1=1", " 1", "'=1", "a-b", "\u2212 1", "\uff21", -1, 1.5, None, True):
        assert plain_cell(value) is value
    for text in (
        " =1",
        "\u3000 =1",
        "\n@a",
        "\u200b=1",
        "\ufeff+1",
        "\uff1d1",
        "\uff20a",
        " \uff0b1",
        "\uff0d1",
        "\x00=1",
    ):
        assert plain_cell(text) == f"'{text}", "a formula behind blanks, or with full-width signs"


def test_only_an_apostrophe_that_was_written_before_a_formula_is_taken_off_again() -> None:
    for text in ("=1", "@a", " +1", "\t", "", "a", "'a", "'", "''=1"):
        assert text_of_cell(str(plain_cell(text))) == text
    assert text_of_cell("'tis") == "'tis" and text_of_cell("'-1") == "-1"


def test_the_values_of_a_json_text_are_counted_and_those_in_strings_only_up_to_the_most() -> None:
    raw = b'[1,2,{"a,b":3}]'
    assert [values_in(raw, most) for most in (6, 5, 4, 0)] == [5, 5, 4, 4]
    assert values_in(b'["a\\",[,{",[]]', 0) == 3, "an escaped quote does not end a string"
    assert values_in(b'"open,[\n,[', 0) == 2, "a string ends with its line"
    assert values_in(b'"a\\\n,{"b,\\', 0) == 2 and values_in(b"", 0) == 0


def test_results_that_are_added_up_count_each_value_of_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firsthand.system.json_values._AT_ONCE", 8)
    raw = b'["a,,,",' + b"1," * 50 + b"1]"
    assert values_in(raw, 1000, few=0) == values_in_text(raw.decode(), 1000, few=0) == 52
    assert values_in(raw, 1000, few=54) == values_in_text(raw.decode(), 1000, few=54) == 52
    assert values_in(raw, 1000, few=55) == values_in_text(raw.decode(), 1000, few=55) == 55
    assert values_in(raw, 1000) == values_in_text(raw.decode(), 1000) == 55
    assert 10 < values_in(raw, 10, few=100) < 52, "counting stops above the most"
    assert 10 < values_in_text(raw.decode(), 10, few=100) < 52


def test_a_provider_is_reached_by_its_own_prefix_or_by_openais_protocol() -> None:
    assert provider_hint("Claude", "opus") == "write anthropic:opus"
    assert [provider_hint(each, "") for each in ("gemini", "Google-AI", "vertex")] == ["write google:NAME"] * 3
    local = "it is reached by OpenAI's protocol: write openai:NAME@http://localhost:1234/v1"
    assert provider_hint("LM_Studio", "") == local and provider_hint("lm.studio", "") == local
    assert provider_hint("Groq", "llama") == (
        f"it is reached by OpenAI's protocol: write openai:llama@{ADDRESSES['groq']}, with Groq's key in OPENAI_API_KEY"
    )
    assert provider_hint("nobody", "x") == ""


def test_a_model_that_has_no_files_here_is_told_by_its_provider() -> None:
    assert elsewhere("ollama:llama3:8b") == "'ollama:llama3:8b' is Ollama's to fetch: `ollama pull llama3:8b`"
    for name in ("openai:x", "anthropic:x", "google:x", "scripted:a.json", "cassette:c", "sim:x", "agents:a"):
        said = f"{name!r} has no files here: give a known name, a .gguf file, a folder, or hf:ORG/NAME"
        assert elsewhere(name) == said
    assert [elsewhere(name) for name in ("ollama:", "ollama", "openai:", "openai", "hf:a/b", "qwen")] == [""] * 6


def test_a_name_tells_whose_model_it_is() -> None:
    assert name_hint("GPT-4o") == "if it is OpenAI's, write openai:GPT-4o, with the key in OPENAI_API_KEY"
    for name in ("o3", "o1-mini", "chatgpt-4o"):
        assert name_hint(name) == f"if it is OpenAI's, write openai:{name}, with the key in OPENAI_API_KEY"
    for owner, name in (("anthropic", "claude-3"), ("google", "gemini-2")):
        key = f"{owner.upper()}_API_KEY"
        assert name_hint(name) == f"if it is {owner.capitalize()}'s, write {owner}:{name}, with the key in {key}"
    assert name_hint("Qwen2.5:7b") == "if Ollama serves it here, write ollama:Qwen2.5:7b"
    for name in ("o33", "gpts", "claude", "my-llama", "llama3/x", "llama:a:b", ""):
        assert name_hint(name) == ""


@dataclass
class Typed:
    count: int = 1
    rate: float = 1.5
    name: str = "n"
    flag: bool = True
    mode: Literal["a", "b"] = "a"
    pair: tuple[int, str] = (1, "x")
    many: tuple[float, ...] = (1.0, 2.0)
    whole: tuple[int, ...] = (1, 2)
    maybe: int | None = None
    path: Path = Path()


def typed(**values: Any) -> Typed:
    return Typed(**values)


def test_a_value_that_does_not_fit_its_annotation_is_refused_with_what_to_give() -> None:
    check_kinds(typed())
    check_kinds(
        typed(count=np.int64(3), rate=2, pair=[1, "x"], many=[1, np.float32(2.0)], whole=(), maybe=-1, mode="b")
    )
    number, pair = "a whole number", "(a whole number, a text)"
    for name, value, wanted in (
        ("count", True, number),
        ("count", 1.0, number),
        ("count", None, number),
        ("rate", "1", "a number"),
        ("rate", False, "a number"),
        ("name", 1, "a text"),
        ("flag", 1, "True or False"),
        ("mode", "c", "one of a, b"),
        ("mode", ["a"], "one of a, b"),
        ("pair", (1,), pair),
        ("pair", (1, "x", 2), pair),
        ("pair", ("x", 1), pair),
        ("pair", "1x", pair),
        ("many", (1.0, "x"), "a tuple, each a number"),
        ("many", (1.0, True), "a tuple, each a number"),
        ("many", {1.0}, "a tuple, each a number"),
        ("whole", (1, 1.5), "a tuple, each a whole number"),
        ("maybe", 1.5, "a whole number or None"),
        ("path", "x", "a Path"),
    ):
        with pytest.raises(ConfigError) as refused:
            check_kinds(typed(**{name: value}))
        assert str(refused.value) == f"{name} is {value!r}: give {wanted}"


def test_where_fractions_are_taken_a_field_for_a_whole_number_takes_any_number() -> None:
    check_kinds(typed(count=1.5, pair=(0.5, "x"), whole=(1, 1.5), maybe=2.5), whole=False)
    for name, value, wanted in (
        ("count", "1", "a number"),
        ("maybe", "1", "a number or None"),
        ("count", True, "a number"),
    ):
        with pytest.raises(ConfigError, match=rf"^{name} is {value!r}: give {wanted}$"):
            check_kinds(typed(**{name: value}), whole=False)


def test_a_value_is_shown_short() -> None:
    assert MANY == 64 and shown((0,) * 64) == "64 values" and shown([0] * 65) == "65 values"
    assert shown([0] * 30) == repr([0] * 30) and shown((0,) * 63).startswith("(0, 0,") and shown({1}) == "{1}"
    assert shown(10**100) == shown(-(10**100)) == "a number of 333 bits"
    assert shown(10**100 - 1) == "9" * 100 and shown(1 - 10**99) == "-" + "9" * 99
    assert shown("x" * 98) == repr("x" * 98) and shown("x" * 99) == f"'{'x' * 99}..."


def test_a_spec_has_a_name_options_and_inner_patterns() -> None:
    inner = (Spec("react", {"max_steps": "4"}), Spec("vote", {"n": "2"}, (Spec("cot"), Spec("direct"))))
    text = "self_consistency(react:max_steps=4, vote(cot,direct):n=2 ):samples= 16 :top-p =0.5"
    assert parse_spec(text) == Spec("self_consistency", {"samples": "16", "top_p": "0.5"}, inner)
    assert parse_spec("file.py:function:a=1=2") == Spec("file.py:function", {"a": "1=2"})
    assert parse_spec("a:b=") == Spec("a", {"b": ""}) and parse_spec("a") == Spec("a")
    assert parse_spec("work (old)/my.py:f") == Spec("work (old)/my.py:f")
    assert parse_spec("x:a=(1)") == Spec("x", {"a": "(1)"}) and parse_spec("x:a=(") == Spec("x", {"a": "("})
    assert parse_spec("x:a=1\\:2\\:3") == Spec("x", {"a": "1:2:3"})
    assert parse_spec("x: a-b-c = -1-2 :ab= 3") == Spec("x", {"a_b_c": "-1-2", "ab": "3"})


def test_the_colons_of_a_models_name_are_its_own() -> None:
    spec = parse_spec("x:n=1:judge=openai:llama3@http://localhost:11434/v1:k=2")
    assert spec == Spec("x", {"n": "1", "judge": "openai:llama3@http://localhost:11434/v1", "k": "2"})
    assert parse_spec("x:rerank=cross_encoder:a/b").options == {"rerank": "cross_encoder:a/b"}
    assert parse_spec("x:n=1:judge=openai: m :k=2").options == {"n": "1", "judge": "openai:m", "k": "2"}
    assert parse_spec("x:model=hf:a/b").options == {"model": "hf:a/b"}


def test_a_spec_that_is_none_says_what_is_wrong() -> None:
    closes = "closes a parenthesis that it does not open: write it as name(pattern):key=value"
    opens = "opens a parenthesis and does not close it: write it as name(pattern):key=value"
    deepest = "a(" * 16 + ")" * 16
    assert parse_spec(deepest).parts[0].name == "a"
    for text, said in (
        ("x:a=1:b", "'x:a=1:b' has 'b' among its options: key=value was expected (write a colon in a value as \\:)"),
        ("x:a=1:top-p=1:top_p=2", "'x:a=1:top-p=1:top_p=2' gives top_p twice: give it once"),
        ("x:top_p=1:top-p=1", "'x:top_p=1:top-p=1' gives top_p twice: give it once"),
        ("x:a-b=1:c=2:a-b=1", "'x:a-b=1:c=2:a-b=1' gives a_b twice: give it once"),
        ("x: a=1:a =", "'x: a=1:a =' gives a twice: give it once"),
        ("a)", f"'a)' {closes}"),
        ("x:a=1)", f"'x:a=1)' {closes}"),
        ("x:a=)(", f"'x:a=)(' {closes}"),
        ("a(b))", f"'a)' {closes}"),
        ("a(b", f"'a(b' {opens}"),
        (f"a({deepest})", f"{f'a({deepest})'[:60]!r}... nests more than 16 patterns: name fewer"),
    ):
        with pytest.raises(ConfigError) as refused:
            parse_spec(text)
        assert str(refused.value) == said


def _leading(task: str, /, plain: int = 0, *, pattern: str, samples: int = 1, on: bool = False, note=None) -> None: ...


def _typed(
    *, patterns: str, text: str = "", maybe: str | None = None, on: bool | None = None, share: float = 0
) -> None: ...


def test_options_become_keywords_of_their_types() -> None:
    assert keywords_of(_leading) == ["pattern", "samples", "on", "note"]
    given = Spec("lead", {"samples": "16", "on": "TRUE", "note": "1"})
    assert bind_options(given, _leading) == {"samples": 16, "on": True, "note": "1"}
    assert bind_options(given, functools.partial(_leading, plain=1)) == {"samples": 16, "on": True, "note": "1"}
    assert bind_options(Spec("lead", {"on": "false"}), _leading) == {"on": False}
    words = {"note": "True", "samples": "0"}
    assert bind_options(Spec("lead", words), _leading) == {"note": "True", "samples": 0}, "no annotation: a text"
    words = {"text": "true", "maybe": "false", "share": "1"}
    assert bind_options(Spec("t", words), _typed) == {"text": "true", "maybe": "false", "share": 1.0}
    assert bind_options(Spec("t"), _typed) == {}
    assert bind_options(Spec("lead", {"pattern": "cot"}), _leading, led=()) == {"pattern": "cot"}
    for options, said in (
        ({"pattern": "cot"}, "lead takes its pattern in parentheses: write lead(cot)"),
        ({"sample": "1"}, "lead has no option 'sample'; did you mean 'samples'? it takes samples, on, note"),
        ({"plain": "1"}, "lead has no option 'plain'; it takes samples, on, note"),
    ):
        with pytest.raises(ConfigError) as refused:
            bind_options(Spec("lead", options), _leading)
        assert str(refused.value) == said
    for options, said in (
        ({"text": "a", "pattern": "cot"}, "t takes its pattern in parentheses: write t(cot)"),
        ({"patterns": "cot,direct"}, "t takes its patterns in parentheses: write t(cot,direct)"),
        ({"pattrns": "1"}, "t has no option 'pattrns'; it takes text, maybe, on, share"),
        ({"shar": "1"}, "t has no option 'shar'; did you mean 'share'? it takes text, maybe, on, share"),
    ):
        with pytest.raises(ConfigError) as refused:
            bind_options(Spec("t", options), _typed)
        assert str(refused.value) == said
    with pytest.raises(ConfigError) as refused:
        bind_options(Spec("t", {"text": "x"}), _typed, led=("text", "on"))
    assert str(refused.value) == "t takes its text in parentheses: write t(x)"
    with pytest.raises(ConfigError, match=r"^none has no option 'a'; it takes none$"):
        bind_options(Spec("none", {"a": "1"}), lambda: None)
    with pytest.raises(ConfigError, match="lead:on"):
        bind_options(Spec("lead", {"on": "yes"}), _leading)


def test_the_data_home_is_the_variables_or_the_platforms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FIRSTHAND_HOME", "~/mine")
    assert data_home() == tmp_path / "mine"
    monkeypatch.setenv("FIRSTHAND_HOME", "~nobody-of-that-name/x")
    with pytest.raises(ConfigError, match=r"^the data home is unknown \(.*\): set FIRSTHAND_HOME to a folder$"):
        data_home()
    monkeypatch.setenv("FIRSTHAND_HOME", "")
    monkeypatch.setenv("XDG_DATA_HOME", "")
    monkeypatch.setattr(sys, "platform", "linux")
    assert data_home() == tmp_path / ".local" / "share" / "firsthand"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert data_home() == Path("/data/firsthand")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert data_home() == tmp_path / "Library" / "Application Support" / "firsthand"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    assert data_home() == tmp_path / "AppData" / "Local" / "firsthand"
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    assert data_home() == Path("/local/firsthand")


def test_a_trace_parent_is_written_as_w3c_says_and_is_current_where_it_was_entered() -> None:
    parent = TraceParent(0xAB, 0x1C, sampled=False)
    assert parent.header == f"00-{'0' * 30}ab-{'0' * 14}1c-00"
    assert TraceParent(1 << 127, 1 << 63).header == f"00-8{'0' * 31}-8{'0' * 15}-01"

    def inside() -> None:
        trace_context.enter(parent)
        assert trace_context.current() is parent
        trace_context.enter(None)
        assert trace_context.current() is None

    before = trace_context.current()
    contextvars.copy_context().run(inside)
    assert trace_context.current() is before


def test_an_owner_stands_below_the_one_around_it_and_goes_even_after_an_error() -> None:
    def inside() -> list[str]:
        seen = [request_owner.current()]
        with pytest.raises(ValueError, match="x"), request_owner.set_owner("run"):
            with request_owner.set_owner("é" * 252):
                seen.append(request_owner.current())
            with request_owner.set_owner("\ud800" + "b" * 252):
                seen.append(request_owner.current())
            seen.append(request_owner.current())
            raise ValueError("x")
        return [*seen, request_owner.current()]

    none, longest, cut, run, after = contextvars.Context().run(inside)
    assert (none, run, after) == ("", "run", "")
    assert longest == "run/" + "é" * 252
    assert cut[:239] == "run/\ud800" + "b" * 234 and cut[239] == "~" and len(cut) == 256 and cut != longest


def test_calls_in_threads_of_a_command_wait_for_each_other() -> None:
    meeting = threading.Barrier(3, timeout=5)

    def met(number: int) -> tuple[int, bool]:
        meeting.wait()
        return number, threading.current_thread().name.startswith("firsthand-asyncio")

    async def calls() -> list[tuple[int, bool]]:
        return await asyncio.gather(*(asyncio.to_thread(met, number) for number in range(3)))

    assert interruption.run(calls()) == [(0, True), (1, True), (2, True)]
    with interruption.Runner() as runner:
        assert runner.run(calls()) == runner.run(calls()) == [(0, True), (1, True), (2, True)]


def test_threads_that_nobody_waits_for_drop_what_has_not_begun() -> None:
    for awaited, ran in ((True, ["first", "second"]), (False, ["first"])):
        go, done = threading.Event(), list[str]()
        threads = interruption._Threads(1)
        assert threads.awaited
        first = threads.submit(lambda go=go, done=done: (go.wait(20), done.append("first")))
        second = threads.submit(done.append, "second")
        threads.awaited = awaited
        if awaited:
            threading.Timer(0.01, go.set).start()
        threads.shutdown()
        assert done == (ran if awaited else []) and second.cancelled() is not awaited
        go.set()
        first.result(20)
        assert done == ran
    kept = interruption._Threads(1)
    kept.submit(threading.Event().wait, 0.05)
    dropped = kept.submit(done.append, "third")
    kept.shutdown(wait=True, cancel_futures=True)
    assert dropped.cancelled() and done == ["first"]
    free = interruption._Threads(1)
    hold = threading.Event()
    held = free.submit(hold.wait, 20)
    free.shutdown(wait=False)
    assert not held.done(), "and it was not waited for"
    hold.set()
