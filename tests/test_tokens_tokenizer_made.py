"""A Tokenizer made of a small description, and the vocabulary that GGUF gets of its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from byte_tokens import (
    ADDED,
    BOS,
    BYTE_LEVEL,
    BYTES,
    CALL,
    END,
    IDS,
    START,
    STRIP,
    TOKENIZER,
    WORD,
    added,
    description,
    ids,
    made,
)
from firsthand.errors import ModelFileError, PromptTooLong
from firsthand.tokens.plain_encoder import can_forge, without_special
from firsthand.tokens.pretokenizers import GPT2
from firsthand.tokens.pretrained import _begins_with, _from_folder, _id, _ids_by_text, _template
from firsthand.tokens.tokenizer import TextRun, Tokenizer, _added_tokens, _any_of, _checked, _prepare
from firsthand.tokens.vocab_export import _expressions, vocabulary_metadata


def test_a_tokenizer_has_the_ids_its_files_give_and_a_fingerprint_of_what_decides_encoding() -> None:
    one = made(add_bos=True, chat_template="T", recommended={"temperature": 0.5})
    assert (one.vocab_size, one.bos_id, one.eos_id, one.eos_ids, one.add_bos) == (264, 262, 263, {263, 258}, True)
    assert one.special_ids == {257, 258, 259, 260, 262, 263}, "a control token is special whatever its entry says"
    assert (one.chat_template, one.recommended) == ("T", {"temperature": 0.5})
    assert (TOKENIZER.chat_template, TOKENIZER.recommended, TOKENIZER.add_bos) == (None, {}, False)
    bare = made(bos_id=None, eos_ids=(), add_bos=True)
    assert (bare.bos_id, bare.eos_id, bare.eos_ids, bare.add_bos) == (None, None, {258}, False)
    assert (one.start_id, made(bos_id=None).start_id, bare.start_id) == (262, 263, None)
    same = made(add_bos=True, chat_template="U", eos_ids=(258, 263))
    assert same.fingerprint == one.fingerprint and same.eos_id == 258
    others = [made(), made(add_bos=True, bos_id=0), made(add_bos=True, eos_ids=(258,)), bare]
    assert len({one.fingerprint, *(each.fingerprint for each in others)}) == 5
    again = Tokenizer(**one.settings())
    assert again.settings() == one.settings() and again.eos_id == 263
    assert [one.settings()[key] for key in ("bos_id", "eos_ids", "add_bos")] == [262, [263, 258], True]
    assert set(one.settings()) == {"description", "bos_id", "eos_ids", "add_bos"} and len(one.fingerprint) == 64
    assert (one.token_id(WORD), one.token_id("a"), one.id_of("a"), one.id_of("zz")) == (261, None, IDS["a"], None)
    assert [one.text_of(each) for each in (None, 256, 258, 999)] == ["", "ab", END, ""]
    assert [one.token_bytes(each) for each in (256, IDS["\n"], 258, -1, 264)] == [b"ab", b"\n", END.encode(), b"", b""]
    controls = {None: False, IDS["a"]: False, 256: False, 261: False, 258: True, 259: True, 264: True, -1: True}
    assert {id: one.has_control([256] if id is None else [256, id]) for id in controls} == controls
    assert not one.has_control([]) and not one.has_control([259], calls=True), "the mark of a call is none among calls"
    assert one.has_control([258], calls=True) and one.has_control([999], calls=True)
    assert one.visible_bytes(258) == b"" and one.visible_bytes(258, False) == END.encode()
    assert one.visible_bytes(259) == CALL.encode(), "the mark of a call is always shown"
    assert (
        one.decode([256, 258, 259, 261, IDS[" "]]) == f"ab{CALL}word " and one.decode([258], skip_special=False) == END
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"bos_id": 264}, "t: the bos token id is 264, outside the vocabulary of 264 tokens"),
        ({"bos_id": -1}, "t: the bos token id is -1, outside the vocabulary of 264 tokens"),
        ({"eos_ids": (258, True)}, "t: the eos token id is True, outside the vocabulary of 264 tokens"),
    ],
)
def test_an_id_outside_of_the_vocabulary_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelFileError) as raised:
        made(**changes, source="t")
    assert str(raised.value) == told
    assert [_checked(each, 5, "x", "s") for each in (None, 0, 4)] == [None, 0, 4]


def test_an_added_token_that_the_vocabulary_contradicts_or_that_is_none_is_refused() -> None:
    wrong = description() | {"added_tokens": [added(3, "ab")]}
    with pytest.raises(ModelFileError) as raised:
        Tokenizer(wrong, source="t")
    assert str(raised.value) == ("t: 'ab' is listed as id 3, but the vocabulary gives 256: the file contradicts itself")
    for entry in ({"id": True, "content": "x"}, {"id": 1}, {"id": 1, "content": 2}, "x"):
        with pytest.raises(ModelFileError, match=r"^t: an added token needs a text and a whole-number id, but is "):
            _added_tokens({"added_tokens": [entry]}, "t")
    with pytest.raises(ModelFileError, match=r"^t: added_tokens should be a list$"):
        _added_tokens({"added_tokens": {"a": 1}}, "t")
    assert _added_tokens({"added_tokens": None}, "t") == []
    found = _added_tokens(
        {"added_tokens": [{"id": 1, "content": "<｜a｜>", "rstrip": True}, {"id": 2, "content": "<|a"}]}, ""
    )
    assert found == [(1, "<｜a｜>", True, False, True), (2, "<|a", False, False, False)]
    prepared = _prepare({"added_tokens": [{"content": "<｜a｜>", "special": False}, {"content": "<|a"}], "x": 1}, found)
    assert prepared == {
        "added_tokens": [{"content": "<｜a｜>", "special": True}, {"content": "<|a", "special": False}],
        "x": 1, "truncation": None, "padding": None, "post_processor": None,
    }  # fmt: skip


def test_only_trusted_runs_name_special_tokens_and_whitespace_beside_some_is_stripped() -> None:
    def run(*runs: tuple[str, bool], **more: Any) -> list[int]:
        return TOKENIZER.encode_runs([TextRun(*each) for each in runs], **more)

    assert run((f"a{END}b", True)) == [IDS["a"], 258, IDS["b"]]
    assert run((f"a{END}b", False)) == ids(f"a{END}b") and TOKENIZER.encode(END) == ids(END)
    assert TOKENIZER.encode(END, special=True) == [258]
    assert run(("a", False), ("b", True)) == [256], "text of two runs is encoded as one"
    assert run(("<|im_", True), ("end|>", True)) == ids(END), "a special token lies within one run"
    assert run((f"x \n{STRIP} \t", True), (" y ", False)) == [*ids("x"), 260, *ids("y ")]
    assert run((f"x {END} y", True)) == [*ids("x "), 258, *ids(" y")]
    assert run((f"{END}!{END}", True)) == [263, 258], "the longest one at a place"
    assert run((f"{END}a", True), (END, False), (f"b{START}", True)) == [258, *ids(f"a{END}b"), 257]
    assert run() == [] and run((WORD, False)) == [261]
    assert TOKENIZER.encode("x\ud800y") == TOKENIZER.encode("x\ufffdy")
    assert [(at, token.id) for at, token in TOKENIZER.find_special(f"{BOS}a{END}!")] == [(0, 262), (4, 263)]


def test_a_text_is_too_long_only_beyond_the_context_and_four_bytes_a_token() -> None:
    told = "the prompt has 41 characters and more than 10 tokens, the model's context: shorten it"
    TOKENIZER.check_length("x" * 40, 10)
    with pytest.raises(PromptTooLong) as raised:
        TOKENIZER.check_length("x" * 41, 10)
    assert str(raised.value) == told
    TOKENIZER.check_length("é" * 20, 10)
    with pytest.raises(PromptTooLong):
        TOKENIZER.check_length("é" * 21, 10)
    TOKENIZER.check_length("x" * 21, 5)  # 21 tokens, less 16 for being cut, are not more than 5
    with pytest.raises(PromptTooLong):
        TOKENIZER.check_length("x" * 22, 5)
    TOKENIZER.check_length("ab" * 21, 10)  # 21 tokens, less 16
    with pytest.raises(PromptTooLong):
        TOKENIZER.check_length("ab" * 27, 10)
    with pytest.raises(PromptTooLong, match=r"^the prompt has more than 2 tokens, the model's context: shorten it$"):
        TOKENIZER.encode(f"{END}{END}{END}x", special=True, most=2)
    assert TOKENIZER.encode(f"{END}{END}x", special=True, most=2) == [258, 258, *ids("x")]


def test_long_texts_are_remembered_up_to_a_size() -> None:
    one = made()
    for size, held in ((256, 0), (257, 1), (16_384, 2), (16_385, 2)):
        assert len(one.encode("x" * size)) == size and one._remembered.cache_info().currsize == held
    assert one.encode("x" * 257) == ids("x" * 257) and one._remembered.cache_info().hits == 1


def test_a_space_is_put_before_the_first_word_of_a_text_alone() -> None:
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    content = description() | {"pre_tokenizer": space, "decoder": space, "added_tokens": [added(3, END)]}
    content["model"] = {"type": "BPE", "vocab": {"▁": 0, "a": 1, "b": 2}, "merges": []}
    one = Tokenizer(content)
    assert one.encode(f"a{END}b", special=True) == [0, 1, 3, 2] and one.encode(f"{END}b", special=True) == [3, 2]
    assert one.encode_runs([TextRun("b", False)], continuing=True) == [2] and one.encode("a b") == [0, 1, 0, 2]
    assert one.strips_leading_space and one.decode([0, 1, 0, 2]) == "a b" and not TOKENIZER.strips_leading_space


def test_the_longest_word_at_a_place_is_found_by_one_expression() -> None:
    assert _any_of([]) == "" and _any_of(["a.b"]) == r"a\.b"
    assert _any_of(["ab", "abc", "abd"]) == "ab(?:c|d)?" and _any_of(["b", "a"]) == "(?:a|b)"


# -- what a model itself could make of plain text --


def test_special_tokens_that_the_model_could_make_get_names_that_no_text_has() -> None:
    plain = {
        "model": {
            "type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "abc": 3, "c": 4}, "unk_token": "ab",
            "merges": ["a b", ["ab", "c"], ["a", "c"]],
        },
        "added_tokens": [{"id": 2, "content": "ab"}, {"id": 4, "content": "q"}], "x": 5,
    }  # fmt: skip
    found = without_special(plain, ["zz", "ab"])
    name = found["model"]["unk_token"]
    assert name.startswith("\U0010fffe") and name.endswith("1") and len(name) == 34
    assert found["model"]["vocab"] == {"a": 0, "b": 1, name: 2, "abc": 3, "c": 4}
    assert found["model"]["merges"] == [["a", "c"]] and found["x"] == 5
    assert found["added_tokens"] == [{"id": 2, "content": name}, {"id": 4, "content": "q"}]
    assert plain["model"]["vocab"]["ab"] == 2, "the description given is left as it was"
    rows = {"model": {"type": "Unigram", "vocab": [["a", -1.0], ["ab", -2.5]]}, "added_tokens": []}
    made = without_special(rows, ["ab"])["model"]
    assert made["vocab"][0] == ["a", -1.0] and made["vocab"][1][1] == -2.5 and made["vocab"][1][0] != "ab"
    assert without_special(plain, ["ab"])["model"]["unk_token"][:-1] != name[:-1], "another name each time"


def test_a_model_can_make_a_special_token_by_a_merge_a_letter_or_a_whole_piece() -> None:
    rust = TOKENIZER._rust

    def forges(special: str, **model: Any) -> bool:
        return can_forge({"model": {"type": "BPE", "vocab": {"ab": 0, "a": 1, "xyz": 2}, **model}}, [special], rust)

    assert not forges("ab") and not forges("q") and forges("a")
    assert forges("ab", merges=["a b"]) and forges("ab", merges=[["a", "b"]]) and not forges("xyz", merges=["a b"])
    assert forges("xyz", ignore_merges=True) and forges("xyz", type="WordPiece")
    assert can_forge({"model": {"type": "Unigram", "vocab": [["ab", 0.0]]}}, ["ab"], rust)
    assert not can_forge({"model": {"type": "Unigram", "vocab": [["ab", 0.0]]}}, ["a"], rust)
    assert not can_forge({"model": None}, ["a"], rust)


# -- the folder --


def folder(path: Path, content: dict[str, Any], **files: Any) -> Path:
    path.mkdir()
    (path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    for name, value in files.items():
        (path / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return path


def test_a_folders_files_are_read_in_their_order(tmp_path: Path) -> None:
    config = {"bos_token": BOS, "eos_token": {"content": END}, "add_bos_token": True, "chat_template": "C"}
    made = _from_folder(
        folder(
            tmp_path / "a", description(), tokenizer_config=config,
            special_tokens_map={"bos_token": "a", "eos_token": "b"},
            generation_config={"eos_token_id": [263, 256], "temperature": 0.25},
        )
    )  # fmt: skip
    assert (made.bos_id, made.eos_id, made.eos_ids, made.add_bos) == (262, 258, {258, 263, 256}, True)
    assert made.chat_template == "C" and made.recommended == {"temperature": 0.25}
    begins = {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": BOS}}, {"Sequence": {"id": "A"}}],
        "special_tokens": {BOS: {"ids": [262]}},
    }  # fmt: skip
    assert _begins_with({"post_processor": begins}, 262) and not _begins_with({"post_processor": begins}, 261)
    steps = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, begins]}
    assert _begins_with({"post_processor": steps}, 262) and not _begins_with({}, 262)
    assert not _begins_with({"post_processor": begins | {"special_tokens": {}}}, 262)
    path = folder(
        tmp_path / "b", description(), special_tokens_map={"bos_token": BOS}, generation_config={"eos_token_id": 256}
    )
    (path / "chat_template.jinja").write_text("é", encoding="utf-8")
    plain = _from_folder(path)
    assert (plain.bos_id, plain.eos_id, plain.add_bos, plain.chat_template) == (262, 256, False, "é")
    assert [_id(each, {"a": 3}) for each in ("a", {"content": "a"}, "b", None, {"content": 3})] == [
        3,
        3,
        None,
        None,
        None,
    ]
    rows = {"model": {"vocab": [["x", 0.5], ["y", 1]]}, "added_tokens": [{"content": "y", "id": 7}, 3]}
    assert _ids_by_text(rows, "") == {"x": 0, "y": 7}
    named = [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}, 3]
    assert [_template(each, "s") for each in (None, "x", named, named[:1], [])] == [None, "x", "d", "t", None]
    assert len(_template("x" * (1 << 20), "s") or "") == 1 << 20
    for wrong in ("x" * ((1 << 20) + 1), 3):
        with pytest.raises(ModelFileError, match=r"^s: the chat template should be a text of at most 1048576 bytes$"):
            _template(wrong, "s")


def test_the_vocabulary_of_a_folder_is_written_with_all_its_ids_and_marks(tmp_path: Path) -> None:
    content = description(merges=[["a", "b"], ["x", "y"]]) | {"pre_tokenizer": BYTE_LEVEL | {"use_regex": True}}
    content["model"]["vocab"] = {letter: id for id, letter in enumerate(BYTES)} | {"ab": 256, "xy": 257}
    content["added_tokens"] = [each | {"id": each["id"] + 1, "lstrip": False, "rstrip": False} for each in ADDED]
    config = {"bos_token": BOS, "eos_token": END, "add_bos_token": True, "chat_template": "C"}
    path = folder(tmp_path / "a", content, tokenizer_config=config, generation_config={"eos_token_id": [264, 259, 5]})
    found = vocabulary_metadata(path)
    assert found == vocabulary_metadata(path / "tokenizer.json")
    assert found == {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*BYTES, "ab", "xy", START, END, CALL, STRIP, WORD, BOS, "<|im_end|>!"],
        "tokenizer.ggml.token_type": [1] * 258 + [4, 4, 3, 4, 4, 4, 3],
        "tokenizer.ggml.merges": ["a b", "x y"],
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.bos_token_id": 263,
        "tokenizer.ggml.eos_token_id": 259,
        "tokenizer.ggml.eot_token_id": 5,
        "tokenizer.ggml.eom_token_id": 264,
        "tokenizer.chat_template": "C",
    }
    content["model"]["merges"] = ["a b", "x y"]
    bare = vocabulary_metadata(folder(tmp_path / "b", content, generation_config={"eos_token_id": 5}))
    assert set(found) - set(bare) == {
        "tokenizer.ggml.bos_token_id", "tokenizer.chat_template", "tokenizer.ggml.eom_token_id"
    }  # fmt: skip
    assert bare["tokenizer.ggml.merges"] == ["a b", "x y"]
    assert (bare["tokenizer.ggml.eos_token_id"], bare["tokenizer.ggml.eot_token_id"]) == (5, 259)
    first = {"bos_token": BYTES[0], "eos_token": BYTES[0]}
    zero = vocabulary_metadata(folder(tmp_path / "c", content, tokenizer_config=first))
    assert {name.removeprefix("tokenizer.ggml."): zero[name] for name in zero if name.endswith(("_id", "_bos_token"))} == {
        "bos_token_id": 0, "eos_token_id": 0, "eot_token_id": 259, "add_bos_token": False,
    }  # fmt: skip
    gaps = content["model"] | {"vocab": content["model"]["vocab"] | {"xy": 258}}
    strips = content["added_tokens"][:3] + [each | {"id": each["id"] + 1} for each in ADDED[3:]]
    cannot = "has a tokenizer that GGUF cannot express ({}): save safetensors beside its files"
    for number, (changed, generation, why) in enumerate((
        (content, [264, 5, 6], "it has 4 end tokens, and GGUF has places for 3"),
        (content | {"model": content["model"] | {"byte_fallback": True}}, 5, "its vocabulary is no byte-level BPE"),
        (content | {"added_tokens": [], "model": gaps}, 5, "its ids have gaps"),
        (content | {"added_tokens": strips}, 5, f"its token {STRIP!r} has lstrip"),
        (content | {"normalizer": {"type": "NFKC"}}, 5, "its normalizer or pre-tokenizer has no name in GGUF"),
        (content | {"normalizer": {"type": "NFC"}}, 5, "its pre-tokenizer has no name in GGUF"),
    )):  # fmt: skip
        path = folder(tmp_path / f"{number}", changed, generation_config={"eos_token_id": generation})
        with pytest.raises(ModelFileError) as raised:
            vocabulary_metadata(path)
        assert str(raised.value) == f"{path} {cannot.format(why)}", why


def test_the_expressions_of_a_pre_tokenizer_are_read_in_order() -> None:
    split = {"type": "Split", "pattern": {"Regex": "x+"}, "behavior": "Isolated", "invert": False}
    digits = {"type": "Digits", "individual_digits": True}

    def steps(*given: Any) -> Any:
        return _expressions({"type": "Sequence", "pretokenizers": list(given)})

    assert steps(split, digits, BYTE_LEVEL) == ("x+", r"\p{N}")
    assert steps(digits, split, {"type": "ByteLevel"}) == (r"\p{N}", "x+", GPT2)
    assert _expressions(BYTE_LEVEL) == () and _expressions(None) is None
    for wrong in (split | {"invert": True}, split | {"behavior": "Removed"}, digits | {"individual_digits": False}):
        assert steps(wrong, BYTE_LEVEL) is None
    assert steps(split) is None and steps(split, BYTE_LEVEL | {"add_prefix_space": True}) is None
