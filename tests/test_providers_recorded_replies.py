"""Written replies: files of scripts and cassettes and what they lack, and conversations in a store that turn in odd ways."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, ModelError
from firsthand.loop.reply_body import _checksum
from firsthand.message import Json, Message, Sampled, Text, ToolCall, assistant, canonical, system, user
from firsthand.model import Completion, Sampling, ToolSpec, Usage
from firsthand.providers import cassette as cassette_module
from firsthand.providers import scripted as scripted_module
from firsthand.providers.cached import MemoryStore, Replay, Replies, _settings
from firsthand.providers.cassette import Cassette, CassetteMiss, nearest_recorded, open_model, prompt_text


def written(folder: Path, *lines: Any) -> Path:
    path = folder / "é tape.jsonl"
    texts = (each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in lines)
    path.write_text("".join(f"{each}\n" for each in texts), encoding="utf-8")
    return path


def test_a_cassette_is_read_line_by_line_and_equal_prompts_are_joined(tmp_path: Path) -> None:
    odd = "a\u2028b\x85c"
    lines = (
        {"prompt": odd, "replies": ["1", odd]},
        {"prompt": 5, "replies": [7, 0.5]},
        {"prompt": odd, "replies": ["3"]},
    )
    tape = open_model(str(written(tmp_path, *lines)))
    assert tape.name == f"cassette:{tmp_path}/é tape.jsonl" and tape.unplayed == 5
    held = {odd: ["1", odd, "3"], "5": ["7", "0.5"]}
    digest = hashlib.sha256(canonical(held).encode()).hexdigest()[:16]
    assert tape.fingerprint == f"cassette-{digest}" == Cassette({key: tuple(held[key]) for key in held}).fingerprint
    assert Cassette({odd: held[odd]}).fingerprint != tape.fingerprint

    async def played() -> list[str]:
        first = await tape.complete([user(odd)], Sampling(), n=2)
        return [each.message.text for each in (*first, *await tape.complete(odd, Sampling()))]

    assert asyncio.run(played()) == ["1", odd, "3"] and tape.unplayed == 2
    with pytest.raises(ConfigError) as raised:
        Cassette({}, name="tape")
    assert str(raised.value) == "a cassette is named 'tape': its name must begin with 'cassette'"


def test_a_file_that_is_no_cassette_is_told_by_its_line_or_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(ConfigError) as raised:
            open_model(str(path))
        return str(raised.value).replace(repr(str(path)), "FILE").replace(str(path), "FILE")

    good = {"prompt": "a", "replies": []}
    for line in ({"prompt": "x" * 80}, [1], {"replies": [], "prompts": 1}):
        shown = json.dumps(line)[:60]
        assert refused(written(tmp_path, good, line, good)) == (
            f"the cassette FILE has a line without prompt and replies: {shown!r}"
        )
    for broken, error in (
        ("{", "JSONDecodeError"), ("", "JSONDecodeError"),
        ("[" * 100_000, "RecursionError"),
    ):  # fmt: skip
        told = refused(written(tmp_path, good, broken))
        assert told.startswith(f"the cassette FILE is not lines of prompt and replies: {error}("), told
    assert refused(tmp_path / "none") == "the cassette FILE cannot be read: No such file or directory"
    assert refused(tmp_path) == "the cassette FILE cannot be read: Is a directory"
    path = written(tmp_path, good)
    monkeypatch.setattr(cassette_module, "_MAX_BYTES", path.stat().st_size)
    assert open_model(str(path)).unplayed == 0
    monkeypatch.setattr(cassette_module, "_MAX_BYTES", path.stat().st_size - 1)
    assert refused(path) == "FILE is larger than 0 MiB: record fewer attempts in one file"
    monkeypatch.undo()
    with path.open("wb") as huge:
        huge.truncate((256 << 20) + 1)
    assert refused(path) == "FILE is larger than 256 MiB: record fewer attempts in one file"


def test_what_a_cassette_does_not_hold_is_shown_beside_the_nearest_that_it_holds() -> None:
    def missed(tape: Cassette, prompt: Any, n: int = 1) -> str:
        with pytest.raises(CassetteMiss) as raised:
            asyncio.run(tape.complete(prompt, Sampling(), n=n))
        return str(raised.value)

    tape = Cassette({"x" * 400: ["1"], "one\ntwo\nthree": [], "zero\ntwo\nfour\nthree": ["2"]}, name="cassette:t")
    assert missed(tape, "x" * 400, 2) == f"cassette:t holds 1 replies to this, 0 are played and 2 asked:\n{'x' * 300}"
    assert missed(tape, "one\ntwo\nthree") == (
        "cassette:t holds 0 replies to this, 0 are played and 1 asked:\none\ntwo\nthree"
    )
    assert missed(tape, "one\nthree").split("\n") == [
        "cassette:t does not hold this request; the nearest differs so:", "--- nearest recorded", "+++ asked",
        " one", "-two", " three",
    ]  # fmt: skip
    wide = Cassette({"\n".join("abcdefgh"): ["1"]})
    assert missed(wide, "\n".join("abcdxfgh")).split("\n")[3:] == [" d", "-e", "+x", " f"]
    long = Cassette({"\n".join(f"a{at}" for at in range(60)): ["1"]})
    assert len(missed(long, "\n".join(f"b{at}" for at in range(60))).split("\n")) == 41
    assert missed(Cassette({}), "y" * 301) == f"cassette is empty, and was asked:\n{'y' * 300}"
    assert tape.unplayed == 2, "what was missed was not played"
    assert nearest_recorded("q\nabc", ["q\nxyz", "q\nabd", "abc\nz"]) == "q\nabd", "of equal lines the end decides"
    assert nearest_recorded("a\nb", ["a\nb\nc\nd\ne", "a"]) == "a", "lines that are not shared count against it"
    assert nearest_recorded("a\nb\nc\nd", ["a", "a\nb\ne"]) == "a\nb\ne"
    end = "abcdefgh" * 10
    assert nearest_recorded("q" * 200 + end, ["q" * 200 + "z" * 80, "w" * 200 + end]) == "w" * 200 + end
    assert nearest_recorded("a", []) is None and nearest_recorded("a", ["", "b"]) == ""
    assert nearest_recorded("", [""]) == "" == nearest_recorded("", ["a", "", "b"]) and nearest_recorded("", []) is None
    assert nearest_recorded("", iter(["b", "a"])) == "b", "of equally unlike ones the first"
    many = [f"z{number}" for number in range(4000)]
    assert nearest_recorded("wanted", [*many[:3999], "wanted"]) == "wanted"
    assert nearest_recorded("wanted", [*many, "wanted"]) in many, "of very many the first 4000 are looked at"
    talk = [system("s"), user("u"), assistant("a")]
    assert prompt_text(talk) == "[system]\ns\n[user]\nu\n[assistant]\na"
    assert (
        prompt_text([assistant("a")]) == "[assistant]\na" and prompt_text([user("u")]) == "u" and prompt_text([]) == ""
    )


def said(text: str, ids: tuple[int, ...], prompt: tuple[int, ...]) -> Completion:
    message = Message("assistant", (Text(text),), Sampled(ids, tuple(-float(each) for each in ids)))
    return Completion(message, "stop", Usage(len(prompt), 0, len(ids)), prompt_ids=prompt)


class Asked(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def reply(self, request: str) -> Json | None:
        self.asked.append(request)
        return super().reply(request)


def test_a_store_is_asked_for_the_earlier_replies_that_are_not_known_and_for_no_others() -> None:
    store, one, two = Asked(), said("a", (3,), (1, 2)), said("b", (5,), (1, 2, 3, 4))
    replies = Replies(store)
    replies.keep("k1", [user("\ud800")], [one])
    talk = [user("\ud800"), one.message, user("v")]
    replies.keep("k2", talk, [two])
    replies.keep("k3", [*talk, two.message, user("w")], [said("c", (7,), (1, 2, 3, 4, 5, 6))])
    fresh = Replies(store)
    for expected in (["k3", "k2", "k1"], ["k3"]):
        store.asked.clear()
        found = fresh.find("k3", 1)
        assert found is not None and found[0].prompt_ids == (1, 2, 3, 4, 5, 6) and store.asked == expected
    low = Replies(store)
    assert low.find("k1", 1) == [one]
    store.asked.clear()
    found = low.find("k3", 1)
    assert found is not None and found[0].prompt_ids == (1, 2, 3, 4, 5, 6) and store.asked == ["k3", "k2"]
    turned = Asked()
    own = {"ids": [4], "check": _checksum((1, 2, 3, 4)), "after": "k1", "sample": 0, "kept": 3}
    turned.replies = {**store.replies, "k1": store.replies["k1"] | {"prompt": own}}
    found = Replies(turned).find("k3", 1)
    assert found is not None and found[0].prompt_ids is None and turned.asked == ["k3", "k2", "k1", "k1"]


def test_a_conversation_may_begin_with_the_answer_that_it_goes_on_from() -> None:
    replies, first = Replies(MemoryStore()), said("a", (3,), (1,))
    replies.keep("k0", [], [said("x", (9,), (1,)), first])
    later = replies._continued_by([first.message, user("v"), assistant("not sampled")])
    assert later is not None and (later.request, later.sample, later.ids) == ("k0", 1, [1, 3])


def test_a_replay_quotes_the_last_words_and_the_settings_first_of_all_the_limit() -> None:
    assert _settings(Sampling(temperature=0.5, seed=0)) == "max_tokens=512, temperature=0.5, seed=0"
    assert _settings(Sampling(max_tokens=3, stop=("a",))) == "max_tokens=3, stop=['a']"
    replay = Replay(MemoryStore(), name="m", fingerprint="f")
    advice = (
        "it answers only what was recorded, so keep the tasks, the pattern, the sampling and the seed as they were, or run "
        "without replay"
    )
    tools = [ToolSpec("b", "", {}), ToolSpec("a", "", {})]
    for work, told in (
        (replay.complete([user("u"), user("v" * 81)], Sampling(), tools=tools, n=2),
         f"{'v' * 80!r} with max_tokens=512, tools ['b', 'a'], n=2"),
        (replay.complete([], Sampling(top_k=4)), "'' with max_tokens=512, top_k=4, tools [], n=1"),
        (replay.score("p", ["c" * 41, "d"]), f"'p' with the continuations {['c' * 40, 'd']}"),
        (replay.score([user("q")], list("123456789")), f"'q' with the continuations {list('12345678')}"),
    ):  # fmt: skip
        with pytest.raises(ModelError) as raised:
            asyncio.run(work)  # type: ignore[arg-type]
        assert str(raised.value) == f"the replay of m holds no reply to {told}: {advice}"


def test_a_script_is_a_file_of_replies_in_order_or_by_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "é s.json"

    def opened(body: Any) -> Any:
        path.write_bytes(body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode())
        return scripted_module.open_model(str(path))

    def refused(body: Any) -> str:
        with pytest.raises(ConfigError) as raised:
            opened(body)
        return str(raised.value).replace(repr(str(path)), "FILE")

    calls = [{"name": "add", "arguments": {"a": "é"}}, {"name": "sub", "arguments": {}, "more": 1}]
    listed = opened(["é", {"text": "t", "tool_calls": calls}, {"tool_calls": calls[:1]}, {"text": "u"}])
    assert listed.name == f"scripted:{path}"
    add = ToolCall("call_0", "add", {"a": "é"})
    found = asyncio.run(listed.complete("q", Sampling(), n=4))
    assert [each.message for each in found] == [
        assistant("é"), assistant("t", add, ToolCall("call_1", "sub", {})), assistant("", add), assistant("u"),
    ]  # fmt: skip
    keyed = opened({"x[12]": "one", "": {"text": "else"}})
    assert keyed.name == f"scripted:{path}" and keyed.fingerprint != listed.fingerprint
    for asked, said_ in (("a x2", "one"), ("a x3", "else")):
        (answer,) = asyncio.run(keyed.complete([user("x1"), user(asked)], Sampling()))
        assert answer.message.text == said_
    echo = scripted_module.open_model("echo")
    assert echo.name == "scripted:echo"
    assert asyncio.run(echo.complete([user("a"), assistant("b c")], Sampling()))[0].message.text == "b c"
    assert asyncio.run(echo.complete([], Sampling()))[0].message.text == ""
    reply = "a string or an object with text and tool_calls was expected"
    call = "an object with name and arguments was expected"
    for body, told in (
        ([5], f"a reply in FILE is 5: {reply}"), ([{"text": 5}], f"a reply in FILE is {{'text': 5}}: {reply}"),
        ([{"text": "a", "tool_calls": 5}], f"a reply in FILE is {{'text': 'a', 'tool_calls': 5}}: {reply}"),
        ({"k": {"text": 5, "tool_calls": []}}, f"a reply in FILE is {{'text': 5, 'tool_calls': []}}: {reply}"),
        ([["y" * 200]], f"a reply in FILE is {str(['y' * 200])[:120]}: {reply}"),
        (["a", {"tool_calls": [calls[0], {"name": "b"}]}], f"a tool call in FILE is {{'name': 'b'}}: {call}"),
        ([{"tool_calls": [{"name": 3}]}], f"a tool call in FILE is {{'name': 3}}: {call}"),
        (5, "the script FILE should hold a list or an object of at most 16777216 bytes"),
    ):  # fmt: skip
        assert refused(body) == told
    assert refused(b'["\xff"]').startswith("the script FILE is not valid JSON: ") and refused(b"[").startswith(
        "the script FILE is not valid JSON: Expecting value"
    )
    monkeypatch.setattr(scripted_module, "_MAX_SCRIPT_BYTES", 7)
    assert opened(b'["abc"]').name == f"scripted:{path}"
    assert refused(b'["abc"] ') == "the script FILE should hold a list or an object of at most 7 bytes"
    path.unlink()
    for wrong, told in (
        (str(path), f"the script {str(path)!r} cannot be read (No such file or directory): give the path of a JSON file "
         "with a list of replies or an object of pattern and reply"),
        ("x.JSON", "scripted:x.JSON names no script: give scripted:echo, or scripted:FILE.json with a list of replies or an "
         "object of pattern and reply"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as raised:
            scripted_module.open_model(wrong)
        assert str(raised.value) == told
    for given, told in (
        ({"name": "model"}, "a scripted model is named 'model': its name must begin with 'scripted'"),
        ({"replies": "abc"}, "replies is one string: give a list of replies, a mapping or a function"),
    ):
        with pytest.raises(ConfigError) as raised:
            scripted_module.Scripted(**given)  # type: ignore[arg-type]
        assert str(raised.value) == told


def test_a_request_that_a_script_does_not_foresee_is_quoted_in_part() -> None:
    keyed = scripted_module.Scripted({"a" * 150: "x", "b" * 49 + "c": "y"}, failures=-1)
    for model, told in (
        (keyed, f"scripted has no reply to {'q' * 80!r}: its patterns are {'a' * 150}, {'b' * 48}"),
        (scripted_module.Scripted([]), f"scripted has 0 replies and was asked for one more: {'q' * 80!r}"),
    ):
        with pytest.raises(ModelError) as raised:
            asyncio.run(model.complete("q" * 81, Sampling()))
        assert str(raised.value) == told
    one, other = scripted_module.Scripted(["a"]), scripted_module.Scripted(["a"], score=lambda prompt, text: -1.0)
    parts = ('[[0,"a"]]', ".NoneType")
    assert one.fingerprint == f"scripted-{hashlib.sha256(chr(31).join(parts).encode()).hexdigest()[:16]}"
    assert other.fingerprint != one.fingerprint and scripted_module.Scripted(["a"], fingerprint="f").fingerprint == "f"
