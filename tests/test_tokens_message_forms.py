"""Messages as a template reads them, or as text where it lacks a feature; small readers of token files at their bounds."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.gguf_output import packed_pair
from firsthand.message import Message, Sampled, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import ToolSpec
from firsthand.tokens.gguf_vocab import _list, _pair, adds_bos
from firsthand.tokens.gguf_vocab import description as gguf_description
from firsthand.tokens.pretrained import load
from firsthand.tokens.recommended_sampling import FOLDER, GGUF, recommended
from firsthand.tokens.spm import Pieces, added_tokens
from firsthand.tokens.spm import description as spm_description
from firsthand.tokens.templates.template_messages import (
    _tools_section,
    _with_tags,
    digests,
    to_dicts,
    with_system_folded,
    with_tools_in_text,
)
from firsthand.tokens.templates.template_variables import check_variables
from firsthand.tokens.tiktoken_ranks import Encoding, check_ranks
from firsthand.tokens.tiktoken_ranks import description as rank_description
from firsthand.tokens.token_bytes import byte_level_bytes
from firsthand.tokens.vocab_export import vocabulary_metadata

CALL = ToolCall("c1", "f", {"x": "é"})
BROKEN = ToolCall("c2", "g", {}, "{oops")


def test_parts_of_a_message_are_written_in_tags_a_line_for_each() -> None:
    turn = Message("assistant", (Text("a"), CALL, Text("b"), BROKEN))
    assert _with_tags(turn) == assistant(
        'a\n<tool_call>\n{"name": "f", "arguments": {"x": "é"}}\n</tool_call>\nb\n<tool_call>\n{oops\n</tool_call>'
    )
    results = Message("tool", (ToolResult("c1", "f", "one"), ToolResult("c2", "g", "two")))
    shown = "<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>"
    assert _with_tags(results) == user(shown), "a template without tools has no such role"
    assert _with_tags(system("s")) == system("s") and _with_tags(Message("user", ())) == user("")
    tool, other = ToolSpec("f", "Dö.", {"type": "object"}), ToolSpec("g", "", {})
    section = _tools_section([tool, other])
    schemas = "\n".join(json.dumps(each.to_json(), ensure_ascii=False) for each in (tool, other))
    assert f"<tools></tools>:\n<tools>\n{schemas}\n</tools>\n\nTo call a function, reply" in section
    assert section.endswith('<tool_call>\n{"name": "<function name>", "arguments": {<its arguments>}}\n</tool_call>')
    assert with_tools_in_text([system("s"), user("q")], [tool, other]) == [system(f"s\n\n{section}"), user("q")]
    assert with_tools_in_text([user("q"), system("s")], [tool, other]) == [system(section), user("q"), system("s")]
    assert with_tools_in_text([], [tool, other]) == [system(section)] and with_tools_in_text([user("q")], []) == [
        user("q")
    ]


def test_a_message_is_a_dict_and_each_result_one_more() -> None:
    turn = Message("assistant", (Text("a"), CALL, Text("b"), BROKEN))
    assert to_dicts(turn) == [{
        "role": "assistant", "content": "ab", "tool_calls": [
            {"type": "function", "id": "c1", "function": {"name": "f", "arguments": {"x": "é"}}},
            {"type": "function", "id": "c2", "function": {"name": "g", "arguments": {"invalid": "{oops"}}},
        ],
    }]  # fmt: skip
    short = hashlib.sha256(b"c1").hexdigest()[:9]
    assert to_dicts(turn, short_ids=True)[0]["tool_calls"][0]["id"] == short and len(short) == 9
    result = {"role": "tool", "content": "one", "name": "f", "tool_call_id": "c1"}
    both = Message("tool", (Text("t"), ToolResult("c1", "f", "one")))
    assert to_dicts(both) == [{"role": "tool", "content": "t"}, result]
    only = Message("tool", (ToolResult("c1", "f", "one"),))
    assert to_dicts(only) == [result] and to_dicts(only, short_ids=True) == [{**result, "tool_call_id": short}]
    assert to_dicts(Message("user", ())) == [{"role": "user", "content": ""}]
    mixed = Message("assistant", (CALL, ToolResult("c1", "f", "one")))
    assert [each["role"] for each in to_dicts(mixed)] == ["assistant", "tool"] and to_dicts(mixed)[0]["content"] == ""


def test_system_text_goes_into_the_next_user_turn_or_becomes_one() -> None:
    a, b, q, r, said = system("a"), system("b"), user("q"), user("r"), assistant("x")
    for given, folded in (
        ([a, q, r], [None, user("a\n\nq"), r]), ([a, b, q], [None, None, user("a\n\nb\n\nq")]),
        ([q, a, said, r], [q, None, said, user("a\n\nr")]), ([a, said], [user("a"), said]), ([q, a], [q, user("a")]),
        ([a, said, b], [None, said, user("a\n\nb")]), ([a, b], [None, user("a\n\nb")]), ([], []), ([q, said], [q, said]),
        ([said, a, said], [said, user("a"), said]),
    ):  # fmt: skip
        assert with_system_folded(given) == folded


def test_a_prefix_is_hashed_with_all_that_was_before_it() -> None:
    sampled = Sampled((5, 6), (0.0, 0.0))
    plain, kept = assistant("a"), Message("assistant", (Text("a"),), sampled)
    first, second = list(digests([user("q"), plain], b"s")), list(digests([user("q"), kept], b"s"))
    assert first[:2] == second[:2] and first[2] != second[2] and len(first) == 3
    assert first[0] == hashlib.sha256(b"s").digest() and list(digests([], b"t")) == [hashlib.sha256(b"t").digest()]
    body = json.dumps(user("q").to_json(), sort_keys=True).encode()
    assert first[1] == hashlib.sha256(first[0] + body).digest()
    assert list(digests([plain, user("q")], b"s"))[2] != first[2] and list(digests([user("q")], b"t"))[1] != first[1]


def test_a_templates_variables_are_copied_and_counted() -> None:
    given = {"a": [1, (2.5, None)], "b_2": {"k": True, 3: "x"}, "c": 2**53, "d": "y" * 256}
    copied = check_variables(given, lambda text: "!" in text)
    assert copied == {"a": [1, [2.5, None]], "b_2": {"k": True, "3": "x"}, "c": 2**53, "d": "y" * 256}
    assert copied["a"] is not given["a"] and check_variables({}, bool) == {}

    def told(given: dict[Any, Any]) -> str:
        with pytest.raises(ConfigError) as error:
            check_variables(given, lambda text: "!" in text)
        return str(error.value)

    large = "the template variable v is too large: give at most 256 values, nested 4 deep"
    assert len(check_variables({"v": [0] * 255}, lambda text: False)["v"]) == 255 and told({"v": [0] * 256}) == large
    assert check_variables({"v": [[[[0]]]]}, lambda text: False) and told({"v": [[[[[0]]]]]}) == large
    assert told({"u": [0] * 200, "v": [0] * 55}) == large, "of all variables together"
    assert told({f"v{at}": 0 for at in range(17)}) == "the chat template gets 17 variables: give at most 16"
    assert len(check_variables({f"v{at}": 0 for at in range(16)}, lambda text: False)) == 16
    for value in ("y" * 257, "a!", 2**53 + 1, -(2**53) - 1, math.inf, math.nan, b"x", {"k!": 1}, ["ok", "no!"]):
        assert told({"v": value}).startswith("the template variable v is or holds ")
    for name in ("messages", "bos_token", "_a", "1a", "a-b", "", "é", "a" * 65, 3):
        assert told({name: 1}) == (
            f"{name!r:.80} is not a template variable that a request may set: give a name of letters, digits and _"
        )
    assert check_variables({"a" * 64: -(2**53)}, lambda text: False) == {"a" * 64: -(2**53)}


def test_vocabularies_of_each_format_become_the_same_kind_of_description() -> None:
    single = {bytes([byte]): byte for byte in range(256)}
    ranks = {**single, b"ab": 256, b"bc": 257, b"abc": 258}
    made = rank_description(ranks, Encoding("x+", {"<|b|>": 300, "<|a|>": 299, "<|t|>": 258}), "s")
    assert made["model"]["merges"] == [["a", "b"], ["b", "c"], ["a", "bc"], ["ab", "c"]], "by the rank of their parts"
    assert [(each["id"], each["content"]) for each in made["added_tokens"]] == [(299, "<|a|>"), (300, "<|b|>")]
    vocab = made["model"]["vocab"]
    assert (vocab["Ġ"], vocab["abc"], vocab["<|b|>"], len(vocab)) == (32, 258, 300, 261) and "<|t|>" not in vocab
    assert made["pre_tokenizer"]["pretokenizers"][0]["pattern"] == {"Regex": "x+"}
    with pytest.raises(
        ModelFileError, match=r"^s has no token for 2 of the 256 bytes, such as 0x07: it may be cut short$"
    ):
        check_ranks({token: rank for token, rank in single.items() if token not in (b"\x07", b"\xff")}, "s")
    with pytest.raises(ModelFileError, match=r"^s: two tokens have one rank$"):
        check_ranks({**single, b"ab": 255}, "s")
    assert check_ranks({**single, b"ab": 999}, "s") is None  # type: ignore[func-returns-value]
    kinds = [2, 3, 4, 1, 1, 1, 5, 6, 3]
    texts = ["<unk>", "<s>", "▁u", "a", "b", "ab", "q", "<0x41>", ""]
    assert [(each["id"], each["content"], each["special"]) for each in added_tokens(texts, kinds, "s")] == [
        (0, "<unk>", True), (1, "<s>", True), (2, "▁u", False),
    ]  # fmt: skip
    made = spm_description(Pieces(texts, [0.0] * 9, kinds, True), "s")
    assert made["model"] == {
        "type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
        "vocab": {text: id for id, text in enumerate(["<unk>", "<s>", " u", *texts[3:]])}, "merges": [["a", "b"]],
    }  # fmt: skip
    assert made["normalizer"]["normalizers"] == [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]  # fmt: skip
    assert byte_level_bytes("Ġé".replace("é", "Ã©")) == " é".encode() and byte_level_bytes("a b") == b"a b"


def gguf(path: Path, **pairs: Any) -> Path:
    """A file of metadata without tensors."""
    body = struct.pack("<4sIQQ", b"GGUF", 3, 0, len(pairs))
    for key, value in pairs.items():
        body += struct.pack("<Q", len(key)) + key.encode() + packed_pair(value)
    path.write_bytes(body)
    return path


def test_a_gguf_is_known_by_its_ending_in_any_case(tmp_path: Path) -> None:
    held: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a", "b", "ab", "<|end|>", "<|x|>"],
        "tokenizer.ggml.merges": ["a b"], "tokenizer.ggml.token_type": [1, 1, 1, 3, 3], "tokenizer.ggml.eot_token_id": 4,
        "tokenizer.ggml.eos_token_id": 3, "tokenizer.ggml.bos_token_id": 4, "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": "é",
    }  # fmt: skip
    path = gguf(tmp_path / "M.GGUF", **held, **{"general.sampling.temp": 0.5, "general.name": "n"})
    assert vocabulary_metadata(path) == held == vocabulary_metadata(str(path)), "what is no vocabulary is left out"
    made = load(path)
    assert (made.encode("ab"), made.bos_id, made.eos_id, made.eos_ids, made.add_bos) == ([2], 4, 3, {3, 4}, True)
    assert (made.chat_template, made.recommended) == ("é", {"temperature": 0.5})
    bare = gguf(tmp_path / "bare.gguf", **{"general.name": "n"})
    with pytest.raises(ModelFileError) as error:
        vocabulary_metadata(bare)
    assert str(error.value) == f"{bare} holds no vocabulary (tokenizer.* in its metadata)"


def test_metadata_of_a_gguf_is_checked_part_by_part() -> None:
    def told(call: Any, *given: Any) -> str:
        with pytest.raises(ModelFileError) as error:
            call(*given)
        return str(error.value)

    g = "tokenizer.ggml."
    assert told(gguf_description, {}, "s").startswith(
        "s has a vocabulary of kind None; 'gpt2' (byte-level BPE) and 'llama'"
    )
    assert told(gguf_description, {f"{g}model": "llama"}, "s") == f"s has an empty vocabulary ({g}tokens)"
    base = {f"{g}model": "llama", f"{g}tokens": ["a", "b"]}
    assert told(gguf_description, base, "s") == f"s: a SentencePiece vocabulary needs {g}scores, which is missing"
    short = f"s: {g}scores has 1 values for a vocabulary of 2 tokens"
    assert told(gguf_description, {**base, f"{g}scores": [0.5]}, "s") == short
    assert (
        told(gguf_description, {**base, f"{g}scores": [1, 2]}, "s")
        == f"s: {g}scores should be an array of float values"
    )
    level = {**base, f"{g}model": "gpt2"}
    assert told(gguf_description, level, "s") == f"s: a byte-level vocabulary needs {g}merges, which is missing"
    twice = {**level, f"{g}tokens": ["a", "a"], f"{g}merges": []}
    assert told(gguf_description, twice, "s") == "s: a token occurs twice in the vocabulary"
    assert gguf_description({**level, f"{g}merges": []}, "s")["model"]["merges"] == []
    vocab = {"a": 0, " b": 1, "a b": 2, "b": 3, "ab": 4, " ": 5, "  b": 6, "abb": 7}
    assert _pair("a b", vocab, list(vocab), "s") == ["a", "b"] and _pair("a  b", vocab, list(vocab), "s") == ["a", " b"]
    assert _pair("ab b", vocab, list(vocab), "s") == ["ab", "b"]
    assert _pair("   b", vocab, list(vocab), "s") == [" ", " b"], "the first part may be a space"
    for merge in ("ab", "a c", "b a", "a ", " b"):
        assert (
            told(_pair, merge, vocab, list(vocab), "s")
            == f"s: the merge {merge!r} names a token that is not in the vocabulary"
        )
    assert _list({}, "k", str, 3, "s") == [] and _list({"k": ("a",)}, "k", str, 1, "s") == ["a"]
    assert told(_list, {"k": [True]}, "k", int, None, "s") == "s: k should be an array of int values"
    begins = [({f"{g}add_bos_token": False, f"{g}model": "llama"}, False), ({f"{g}model": "llama"}, True), ({}, False),
              ({f"{g}add_bos_token": True}, True), ({f"{g}add_bos_token": 1, f"{g}model": "gpt2"}, False),
              ({f"{g}model": "gpt2", f"{g}pre": "llama-bpe"}, True)]  # fmt: skip
    assert [adds_bos(metadata) for metadata, _ in begins] == [adds for _, adds in begins]
    values = {
        "temperature": 0.5,
        "top_p": 1,
        "top_k": 20.7,
        "min_p": True,
        "repetition_penalty": math.nan,
        "max_new_tokens": 9,
    }
    assert recommended(values, FOLDER) == {"temperature": 0.5, "top_p": 1, "top_k": 20, "max_tokens": 9}
    odd = {"general.sampling.temp": "0.5", "general.sampling.top_p": 7.0, "general.sampling.penalty_repeat": 1.25}
    assert recommended(odd, GGUF) == {"repetition_penalty": 1.25} and recommended({}, GGUF) == {}


def test_a_message_whose_call_was_changed_after_it_was_sampled_is_hashed_as_one_without_ids() -> None:
    def called(value: int, sampled: Sampled | None) -> Message:
        return Message("assistant", (Text("a"), ToolCall("i", "f", {"x": value})), sampled)

    changed, again = (called(1, Sampled((5, 6), (0.0, 0.0))) for _ in range(2))
    for message in (changed, again):
        message.tool_calls[0].arguments["x"] = 2
    assert changed.sampled is not None and not changed.is_as_sampled
    seed = hashlib.sha256(b"s").digest()
    body = called(2, None).to_json()
    assert list(digests([changed], b"s")) == list(digests([called(2, None)], b"s")) == [
        seed, hashlib.sha256(seed + json.dumps(body, sort_keys=True).encode()).digest(),
    ]  # fmt: skip
    again.tool_calls[0].arguments["x"] = 1
    ids = json.dumps({**called(1, None).to_json(), "ids": [5, 6]}, sort_keys=True).encode()
    assert list(digests([again], b"s")) == [seed, hashlib.sha256(seed + ids).digest()], "it says again what was sampled"
