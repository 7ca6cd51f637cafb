"""Tokenizers pinned: the order of merges, the fingerprint's parts, blanks beside special tokens, bytes, stop strings."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import tokenizers

from firsthand import grammar
from firsthand.errors import ConfigError, ModelFileError
from firsthand.message import Message, Sampled, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import ToolSpec
from firsthand.tokens import gguf_vocab, spm
from firsthand.tokens.calls.call_grammar import bare_argument
from firsthand.tokens.gguf_vocab import adds_bos
from firsthand.tokens.incremental_decoding import IncrementalDetokenizer, StopStrings
from firsthand.tokens.llguidance_grammar import byte_vocabulary, matcher_of
from firsthand.tokens.pretokenizers import IGNORE_MERGES, NFC, pre_tokenizer
from firsthand.tokens.pretrained import from_metadata, load
from firsthand.tokens.recommended_sampling import FOLDER, GGUF, recommended
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.tokens.templates.template_messages import digests, to_dicts, with_system_folded
from firsthand.tokens.templates.template_sandbox import SandboxedTemplate
from firsthand.tokens.templates.template_variables import check_variables
from firsthand.tokens.templates.untrusted_text import TextMasks
from firsthand.tokens.token_bytes import byte_level_bytes, byte_reader, strips_leading_space
from firsthand.tokens.tokenizer import CONTROL, TextRun, Tokenizer

PIECES = [
    "<unk>",
    "<s>",
    "</s>",
    "▁",
    "a",
    "b",
    "c",
    "d",
    "ab",
    "bc",
    "cd",
    "abc",
    "bcd",
    "▁a",
    "aa",
    "aaa",
    "abcd",
    "da",
]


def vocabulary(scores: list[float], *, add_prefix: bool = False) -> Tokenizer:
    kinds = [spm.UNKNOWN, spm.CONTROL, spm.CONTROL] + [spm.NORMAL] * (len(PIECES) - 3)
    pieces = spm.Pieces(PIECES, scores, kinds, add_prefix)
    return Tokenizer(spm.description(pieces, "made here"), bos_id=1, eos_ids=[2])


def merged(text: str, scores: list[float]) -> list[int]:
    """SentencePiece's BPE as its paper has it: the pair whose piece scores highest is merged, the leftmost of equals."""
    parts = list(text.replace(" ", "▁"))
    while True:
        pairs = [(scores[PIECES.index(a + b)], -at) for at, (a, b) in enumerate(pairwise(parts)) if a + b in PIECES]
        if not pairs:
            return [PIECES.index(part) for part in parts]
        at = -max(pairs)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@pytest.mark.parametrize("seed", range(6))
def test_sentencepiece_merges_go_by_score_and_not_by_id(seed: int) -> None:
    random = Random(seed)
    scores = [float(x) for x in random.sample(range(-100, 0), len(PIECES))]  # in no order of the ids
    ours = vocabulary(scores)
    for _ in range(60):
        text = "".join(random.choice("abcd ") for _ in range(random.randint(1, 12)))
        assert ours.encode(text) == merged(text, scores), text


def test_only_normal_pieces_are_merged() -> None:
    kinds = [spm.NORMAL, spm.USER_DEFINED, spm.NORMAL, spm.UNUSED, spm.NORMAL]
    made = spm.description(spm.Pieces(["a", "b", "ab", "c", "ac"], [0.0] * 5, kinds, False), "here")
    assert made["model"]["merges"] == [] and [each["content"] for each in made["added_tokens"]] == ["b"]


def test_a_prefix_is_put_before_a_text_and_taken_off_again() -> None:
    scores = [-float(place) for place in range(len(PIECES))]
    with_space, without = vocabulary(scores, add_prefix=True), vocabulary(scores)
    assert with_space.encode("a") == [PIECES.index("▁a")] and without.encode("a") == [PIECES.index("a")]
    assert with_space.decode([PIECES.index("▁a")]) == "a" and without.decode([PIECES.index("▁a")]) == " a"
    assert with_space.decode([PIECES.index("▁"), PIECES.index("▁a")]) == " a"  # one space, and no more
    assert with_space.strips_leading_space and not without.strips_leading_space


def description(**entry: Any) -> dict[str, Any]:
    added = {"id": 3, "content": "<|end|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0", "added_tokens": [{**added, "special": True, **entry}], "normalizer": None, "pre_tokenizer": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "<|end|>": 3, "ab": 4}, "merges": [["a", "b"]]},
    }  # fmt: skip


@pytest.mark.parametrize("lstrip", [False, True])
@pytest.mark.parametrize("rstrip", [False, True])
def test_each_side_of_a_special_token_takes_its_blanks_alone(lstrip: bool, rstrip: bool) -> None:
    body = description(lstrip=lstrip, rstrip=rstrip)
    body["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    ours, library = Tokenizer(body), tokenizers.Tokenizer.from_str(json.dumps(body))
    for text in ("a <|end|> b", " <|end|> ", "<|end|>  <|end|> a", "ab<|end|>ab"):
        assert ours.encode(text, special=True) == library.encode(text).ids
    space = ours.encode("a <|end|> b", special=True).count(2)
    assert space == 2 - lstrip - rstrip
    runs = [TextRun("a ", False), TextRun("<|end|>", True), TextRun(" b", False)]
    assert ours.encode_runs(runs) == ours.encode("a <|end|> b", special=True)
    assert 3 not in ours.encode("a<|end|>")  # text is not trusted unless it is said


def test_pieces_that_are_no_text_are_added_tokens_and_all_but_the_users_are_special() -> None:
    kinds = (spm.UNKNOWN, spm.CONTROL, spm.USER_DEFINED, spm.NORMAL, spm.BYTE, spm.UNUSED, spm.CONTROL)
    texts = ("<unk>", "<s>", "▁x y", "a", "<0x0A>", "z", "")
    made = spm.added_tokens(texts, kinds, "s")
    assert [(each["id"], each["content"], each["special"]) for each in made] == [
        (0, "<unk>", True),
        (1, "<s>", True),
        (2, "▁x y", False),
    ]
    whole = spm.description(spm.Pieces(texts, [0.0] * 7, kinds, False), "here")
    assert whole["model"]["unk_token"] == "<unk>" and whole["model"]["byte_fallback"] is True
    assert whole["added_tokens"][2]["content"] == " x y" and whole["model"]["vocab"][" x y"] == 2


def test_a_space_is_put_before_a_text_and_not_after_another_token() -> None:
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    body = description() | {"pre_tokenizer": space, "decoder": space}
    body["model"] = {"type": "BPE", "vocab": {"▁": 0, "a": 1, "▁a": 2, "<|end|>": 3, "b": 4}, "merges": [["▁", "a"]]}
    ours, library = Tokenizer(body), tokenizers.Tokenizer.from_str(json.dumps(body))
    for size in (1, 300, 20_000):  # short, remembered, and too long to be remembered
        for text in ("a" * size, "<|end|>" + "a" * size, "a" * size + "<|end|>" + "a" * size, "b<|end|> a"):
            for _ in range(2):
                assert ours.encode(text, special=True) == library.encode(text, add_special_tokens=False).ids
        goes_on = ours.encode_runs([TextRun("a" * size, False)], continuing=True)
        assert goes_on == [1] * size != ours.encode("a" * size)
    assert ours.decode([2, 3, 2]) == "a a" and ours.strips_leading_space


def test_a_tokenizer_is_made_again_from_its_settings() -> None:
    ours = Tokenizer(description(lstrip=True), bos_id=0, eos_ids=[4, 1], add_bos=True)
    again = Tokenizer(**json.loads(json.dumps(ours.settings())))
    assert (again.eos_id, again.eos_ids, again.bos_id, again.add_bos) == (4, {1, 3, 4}, 0, True)
    for text in ("ab <|end|> ba", "b"):
        assert again.encode(text, special=True) == ours.encode(text, special=True)
        assert again.encode(text) == ours.encode(text) and again.decode([0, 3, 4]) == ours.decode([0, 3, 4])
    bare = Tokenizer(**Tokenizer(description(content="x", special=False) | {"added_tokens": []}).settings())
    assert (bare.eos_id, bare.eos_ids, bare.bos_id, bare.add_bos) == (None, frozenset(), None, False)


def test_ends_and_beginnings_may_be_any_of_the_added_tokens(tmp_path: Path) -> None:
    body = description()
    for id, content in ((5, "<|bos|>"), (6, "<|fin|>")):
        body["added_tokens"].append({**body["added_tokens"][0], "id": id, "content": content})
        body["model"]["vocab"][content] = id
    del body["model"]["vocab"]["<|fin|>"]  # an added token need not be in the vocabulary
    (tmp_path / "tokenizer.json").write_text(json.dumps(body))
    for bos, eos, ids in (("<|bos|>", "<|fin|>", (5, 6)), ("<|fin|>", "<|end|>", (6, 3)), ("none", "ab", (None, 4))):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": bos, "eos_token": {"content": eos}}))
        assert (load(tmp_path).bos_id, load(tmp_path).eos_id) == ids


def test_the_fingerprint_is_of_all_that_decides_encoding_and_decoding() -> None:
    def made(body: dict[str, Any] | None = None, **options: Any) -> str:
        return Tokenizer(body or description(), **{"bos_id": 0, "eos_ids": [1], **options}).fingerprint

    plain = made()
    merges = description()
    merges["model"]["merges"] = []
    others = [
        made(eos_ids=[]), made(eos_ids=[2]), made(eos_ids=[1, 2]), made(bos_id=1), made(bos_id=None), made(add_bos=True),
        made(merges), made(description(rstrip=True)), made(description(content="<|fin|>") | {"model": {
            "type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "<|fin|>": 3, "ab": 4}, "merges": [["a", "b"]],
        }}),
    ]  # fmt: skip
    assert plain not in others and len(set(others)) == len(others) and plain == made(chat_template="x")


def test_end_tokens_are_those_named_and_those_known() -> None:
    ours = Tokenizer(description(), bos_id=0, eos_ids=[4, 1], add_bos=True)
    assert ours.eos_ids == {1, 3, 4} and ours.eos_id == 4 and ours.add_bos and ours.special_ids == {3, 4}
    assert ours.vocab_size == 5 and not Tokenizer(description(), add_bos=True).add_bos
    with pytest.raises(ModelFileError, match="the eos token id is 5, outside the vocabulary of 5 tokens"):
        Tokenizer(description(), eos_ids=[5])
    with pytest.raises(ModelFileError, match="is listed as id 2, but the vocabulary gives 3"):
        Tokenizer(description(id=2))
    assert ours.decode([0, 3, 4]) == "a" and Tokenizer(description()).decode([0, 3, 4]) == "aab"
    assert ours.decode([0, 4], skip_special=False) == "aab" and ours.decode([0, 3], skip_special=False) == "a<|end|>"
    assert ours.token_bytes(5) == b"" == ours.token_bytes(-1)


def test_bytes_of_byte_level_tokens_are_gpt2s() -> None:
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    library = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in ("a\0b\n", "é", "¡¬\xad®ÿ", "\x7f\x80\x9f\xa0"):
        ((written, _),) = library.pre_tokenize_str(text)
        assert byte_level_bytes(written) == text.encode()
    assert {byte_level_bytes(each) for each in alphabet} == {bytes([byte]) for byte in range(256)}
    pieces = byte_reader({"decoder": {"type": "ByteFallback"}}, "here")
    assert (
        pieces("<0x0A>") == b"\n"
        and pieces("<0xE9>") == pieces("<0xe9>") == b"\xe9"
        and pieces("▁a▁") == b" a "
        and pieces("<0x0>") == b"<0x0>"
    )
    words = byte_reader({"decoder": {"type": "WordPiece"}}, "here")
    assert words("##ing") == b"ing" and words("sing") == b" sing"
    for decoder, strips in (
        ({"type": "Metaspace"}, True), ({"type": "Metaspace", "prepend_scheme": "never"}, False), ({"type": "Fuse"}, False),
        ({"type": "Metaspace", "add_prefix_space": False}, False), ({"type": "Strip", "content": " ", "start": 0}, False),
        ({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1}]}, True),
    ):  # fmt: skip
        assert strips_leading_space(decoder) is strips


def metadata(**changes: Any) -> dict[str, Any]:
    body = {
        "model": "llama", "tokens": PIECES, "scores": [-float(n) for n in range(18)], "token_type": [2, 3, 3, *[1] * 15],
        "bos_token_id": 1, "eos_token_id": 2, "eot_token_id": 17, "eom_token_id": 16,
    }  # fmt: skip
    return {f"tokenizer.ggml.{key}": value for key, value in (body | changes).items()}


def test_a_gguf_names_its_ends_its_prefix_and_its_beginning() -> None:
    ours = from_metadata(metadata())
    assert ours.eos_ids == {2, 16, 17} and ours.eos_id == 2 and ours.bos_id == 1 and ours.add_bos
    assert ours.strips_leading_space and not from_metadata(metadata(add_space_prefix=False)).strips_leading_space
    assert not from_metadata(metadata(add_bos_token=False)).add_bos
    assert not adds_bos({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm"})
    assert adds_bos({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe"})
    with pytest.raises(ModelFileError, match="has 17 values for a vocabulary of 18 tokens"):
        from_metadata(metadata(scores=[0.0] * 17))


def test_a_merge_whose_first_part_is_a_space_is_cut_behind_it() -> None:
    body = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [" ", "a", " a", "b"],
        "tokenizer.ggml.merges": ["  a"],
    }
    made = gguf_vocab.description(body, "here")
    assert made["model"]["merges"] == [[" ", "a"]]
    for merge in ("a", "a ", " a", "a b"):
        with pytest.raises(ModelFileError, match="names a token that is not in the vocabulary"):
            gguf_vocab.description(body | {"tokenizer.ggml.merges": [merge]}, "here")


def test_a_folder_says_whether_a_prompt_begins_with_bos(tmp_path: Path) -> None:
    body = description()
    body["post_processor"] = {
        "type": "TemplateProcessing", "pair": [],
        "single": [{"SpecialToken": {"id": "a", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {"a": {"id": "a", "ids": [0], "tokens": ["a"]}},
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(body))
    for config, bos, adds in (
        ({"bos_token": "a"}, 0, True), ({"bos_token": {"content": "b"}}, 1, False), ({}, None, False),
        ({"bos_token": "a", "add_bos_token": False}, 0, False), ({"bos_token": "b", "add_bos_token": True}, 1, True),
        ({"bos_token": "a", "add_bos_token": None}, 0, True), ({"bos_token": "b", "add_bos_token": 1}, 1, False),
    ):  # fmt: skip
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": "ab"}))
        ours = load(tmp_path)
        assert (ours.bos_id, ours.add_bos, ours.eos_id) == (bos, adds, 4)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    assert load(tmp_path).eos_ids == {1, 2, 3, 4} and load(tmp_path).eos_id == 4


def fed(stop: list[str], ids: list[int], **options: Any) -> tuple[list[str], str | None, bool]:
    """What is shown after each token, the stop string, and whether it was found before the end."""
    stops, shown, found = StopStrings(Tokenizer(description()), stop, **options), [], False
    for token in ids:
        found = stops.feed(token)
        shown.append(stops.take())
        if found:
            break
    if not found:
        stops.finish()
        shown.append(stops.take())
    return shown, stops.stopped, found


A, B, SPACE = 0, 1, 2


def test_stop_strings_hold_back_what_could_become_one_and_no_more() -> None:
    assert fed(["abb"], [A, A, B, A, B, B, A]) == (["", "a", "", "ab", "", ""], "abb", True)
    assert fed(["abb"], [A, B]) == (["", "", "ab"], None, False)
    assert fed(["abb"], [A, B, B], include=True) == (["a", "b", "b"], "abb", True)
    assert fed(["b"], [B, A, B], after=1) == (["b", "a", ""], "b", True)
    assert fed(["b", "ab"], [SPACE, A, B]) == ([" ", "", ""], "ab", True)  # of two that end together the longer
    found = fed(["aabaaa "], [A, A, B, A, A, A, B, A, A, A, SPACE])  # begins anew inside what did not become one
    assert found[1:] == ("aabaaa ", True) and "".join(found[0]) == "aaba"
    assert fed(["", "b"], [A, B])[1] == "b" and fed([], [A, B]) == (["a", "b", ""], None, False)
    assert fed(["aab"], [A, A, A, B]) == (["", "", "a", ""], "aab", True)
    stops = StopStrings(Tokenizer(description()), ["b"])
    assert [stops.feed(token) for token in (A, B, A, A)] == [False, True, True, True] and stops.finish()
    assert stops.take() == "a" and stops.take() == "" and stops.stopped == "b"  # what follows is not shown


def test_a_leading_space_is_taken_off_once_and_not_where_text_goes_on() -> None:
    ours = vocabulary([-float(place) for place in range(len(PIECES))], add_prefix=True)
    space_a, plain = PIECES.index("▁a"), PIECES.index("a")
    for continuing, shown in ((False, ["a", " a", "a"]), (True, [" a", " a", "a"])):
        stream = IncrementalDetokenizer(ours, continuing=continuing)
        assert [stream.feed(token) for token in (space_a, space_a, plain)] == shown and stream.finish() == ""


def test_what_a_sentencepiece_file_leaves_out_has_the_formats_default(tmp_path: Path) -> None:
    def part(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    def whole(number: int, value: int) -> bytes:
        return bytes([number << 3, value])

    unknown = part(1, part(1, b"<unk>") + whole(3, 2))
    pieces = b"".join(part(1, part(1, text.encode())) for text in ("▁", "a", "▁a"))  # no score, no kind: 0 and normal
    for normalizer, prefix in ((b"", True), (whole(3, 1), True), (whole(3, 0), False)):
        model = unknown + pieces + part(2, whole(3, 2)) + part(3, whole(4, 0) + normalizer)
        (tmp_path / "tokenizer.model").write_bytes(model)
        found = spm.read_model(tmp_path / "tokenizer.model")
        assert (found.scores, found.kinds, found.add_prefix) == ([0.0] * 4, [2, 1, 1, 1], prefix)
        assert load(tmp_path).encode("a") == ([3] if prefix else [2])
    (tmp_path / "tokenizer.model").write_bytes(unknown + pieces + part(2, whole(3, 2)) + part(3, b""))
    assert spm.read_model(tmp_path / "tokenizer.model").collapses  # blanks are taken off by default
    (tmp_path / "tokenizer.model").write_bytes(unknown + pieces + part(2, whole(3, 3)))
    with pytest.raises(ModelFileError, match="is a SentencePiece model of kind 3"):
        load(tmp_path)


def test_the_longest_special_token_at_a_place_is_found_as_the_library_does() -> None:
    body = description()
    more = [
        {**body["added_tokens"][0], "id": 5, "content": "<|end|>ab"},
        {**body["added_tokens"][0], "id": 6, "content": "<|e"},
    ]
    body["added_tokens"] += more
    body["model"]["vocab"] |= {"<|end|>ab": 5, "<|e": 6}
    ours, library = Tokenizer(body), tokenizers.Tokenizer.from_str(json.dumps(body))
    for text, ids in (
        ("<|end|>ab", [5]),
        ("<|end|>a", [3, 0]),
        ("<|e<|end|>b", [6, 3, 1]),
        ("a<|end|><|end|>ab", [0, 3, 5]),
    ):
        assert ours.encode(text, special=True) == library.encode(text).ids == ids


def test_the_tokenizers_own_config_goes_before_the_map_of_special_tokens(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(description()))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": "a", "eos_token": "b"}))
    assert (load(tmp_path).bos_id, load(tmp_path).eos_id) == (0, 1)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "ab"}))
    assert (load(tmp_path).bos_id, load(tmp_path).eos_id) == (0, 4)
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    for templates, chosen in ((named, "D"), (named[:1], "T"), ("only", "only"), ([], None)):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
        assert load(tmp_path).chat_template == chosen
    (tmp_path / "chat_template.jinja").write_text("from its own file")
    assert load(tmp_path).chat_template == "from its own file"


SPLIT = "We'LL fooBar 12345 x_y\n\n 漢字 cafe\u0301! `1 <|+ 7890"
"""Told apart by it: contractions in capitals, a capital inside a word, digits, signs before letters, CJK, marks."""
PIECES_OF = {
    "gpt-2": "We|'|LL| fooBar| 12345| x|_|y|\n\n| 漢字| cafe|\u0301!| `|1| <|+| 7890",
    "smollm": "We|'|LL| fooBar| |1|2|3|4|5| x|_|y|\n\n| 漢字| cafe|\u0301!| `|1| <|+| |7|8|9|0",
    "llama-bpe": "We|'LL| fooBar| |123|45| x|_y|\n\n| 漢字| cafe|\u0301!| `|1| <|+| |789|0",
    "qwen2": "We|'LL| fooBar| |1|2|3|4|5| x|_y|\n\n| 漢字| cafe|\u0301!| `|1| <|+| |7|8|9|0",
    "qwen35": "We|'LL| fooBar| |1|2|3|4|5| x|_y|\n\n| 漢字| cafe\u0301|!| `|1| <|+| |7|8|9|0",
    "tekken": "We|'LL| foo|Bar| |1|2|3|4|5| x|_y|\n\n| 漢字| cafe\u0301|!| `|1| <|+| |7|8|9|0",
    "gpt-4o": "We'LL| foo|Bar| |123|45| x|_y|\n\n| 漢字| cafe\u0301|!| `|1| <|+| |789|0",
    "deepseek-v3": "We|'LL| fooBar| |123|45| x|_y|\n\n| |漢字| cafe\u0301|!| `|1| <|+| |789|0",
    "falcon": "We|'|LL| fooBar| |123|45| x|_|y|\n\n| 漢字| cafe|\u0301|!| |`|1| |<|+| |789|0",
    "default": "We|'|LL| fooBar| |123|45| x|_|y|\n\n| 漢字| cafe|\u0301|!| `|1| |<|+| |789|0",
}


@pytest.mark.parametrize("name", PIECES_OF)
def test_each_pre_tokenizer_cuts_a_text_as_its_model_does(name: str) -> None:
    body = description() | {"added_tokens": [], "pre_tokenizer": pre_tokenizer(name)}
    body["model"] = {"type": "BPE", "vocab": {}, "merges": []}
    library = tokenizers.Tokenizer.from_str(json.dumps(body))
    found = [byte_level_bytes(piece).decode() for piece, _ in library.pre_tokenizer.pre_tokenize_str(SPLIT)]
    assert "|".join(found) == PIECES_OF[name]


def test_what_a_gguf_does_before_and_beside_its_merges_follows_its_pre_tokenizer() -> None:
    assert {"qwen2", "qwen35"} <= NFC and not NFC & {"llama-bpe", "gpt-2", "gpt-4o", "smollm", "default"}
    assert {"llama-bpe", "llama3", "tekken"} <= IGNORE_MERGES and not IGNORE_MERGES & {"qwen2", "gpt-2", "gpt-4o"}
    body = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.merges": []}
    for name in ("qwen2", "llama-bpe", "smollm"):
        made = gguf_vocab.description(body | {"tokenizer.ggml.pre": name}, "here")
        assert made["normalizer"] == ({"type": "NFC"} if name == "qwen2" else None)
        assert made["model"]["ignore_merges"] is (name == "llama-bpe")
        assert made["pre_tokenizer"] == pre_tokenizer(name)
        assert adds_bos(body | {"tokenizer.ggml.pre": name}) is (name == "llama-bpe")
    with pytest.raises(ModelFileError, match=r"'qwen3' is not known here|nearest known"):
        pre_tokenizer("qwen3x")


@pytest.mark.parametrize(
    ("content", "special"),
    [
        ("<|x|>", True), ("<｜x｜>", True), ("<|x", False), ("x|>", False), ("<x>", False), ("<|x>", False), ("<x|>", False),
        ("</s>", True), ("[INST]", True), ("[inst]", False),
    ],
)  # fmt: skip
def test_a_token_is_special_by_its_name_only_if_it_is_a_known_one_or_marked_on_both_sides(
    content: str, special: bool
) -> None:
    body = description(content=content, special=False)
    body["model"]["vocab"] = {"a": 0, "b": 1, "Ġ": 2, content: 3, "ab": 4}
    ours = Tokenizer(body)
    assert ours.special_ids == ({3} if special else frozenset())
    assert (3 in ours.encode(f"a{content}b")) is not special and 3 in ours.encode(f"a{content}b", special=True)
    assert all(Tokenizer(description(content=each, special=True) | {"model": {
        "type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, each: 3}, "merges": [],
    }}).special_ids == {3} for each in CONTROL)  # fmt: skip


@pytest.mark.parametrize("keys", [FOLDER, GGUF])
@pytest.mark.parametrize("value", [True, False, None, "1", [1], float("nan"), float("inf"), -1])
def test_what_is_no_number_or_no_setting_is_not_recommended(keys: dict[str, str], value: Any) -> None:
    for key in keys:
        assert recommended({key: value}, keys) == {}, key
        assert recommended({key: 1}, keys) == {keys[key]: 1}


# -- templates --


def words(*messages: Message | None) -> list[tuple[str, str] | None]:
    return [None if each is None else (each.role, each.text) for each in messages]


def test_system_text_goes_into_the_next_user_turn_and_none_is_lost() -> None:
    one, two, hi, yes = system("S1"), system("S2"), user("hi"), assistant("yes")
    for given, folded in (
        ([one, hi, yes], [None, user("S1\n\nhi"), yes]),
        ([one, two, hi], [None, None, user("S1\n\nS2\n\nhi")]),
        ([hi, one, yes, hi], [hi, None, yes, user("S1\n\nhi")]),
        ([one, yes], [user("S1"), yes]),  # no user turn follows: it becomes one where it stood
        ([hi, yes, one], [hi, yes, user("S1")]),
        ([one, hi, yes, two], [None, user("S1\n\nhi"), yes, user("S2")]),
        ([hi, yes], [hi, yes]),
        ([], []),
    ):
        assert words(*with_system_folded(given)) == words(*folded)


@pytest.mark.parametrize("times", range(5))
@pytest.mark.parametrize("text", ['a "q" \\ b', "line\nline", "é\t/", '\\"'])
def test_a_text_that_a_template_writes_as_json_any_number_of_times_comes_back_so(text: str, times: int) -> None:
    masks = TextMasks([text], lambda text: False)
    shown, wanted = masks.mask(f" {text} "), text.strip()
    for _ in range(times):
        shown, wanted = json.dumps(shown, ensure_ascii=False)[1:-1], json.dumps(wanted, ensure_ascii=False)[1:-1]
    found = masks.runs(f"[{shown}]")
    assert found is not None
    assert [run.text for run in found if not run.trusted] == [wanted]
    assert "".join(run.text for run in found) == f"[ {wanted} ]" and found[0] == TextRun("[ ", True)


@pytest.mark.parametrize(
    "source",
    [
        "{{ x | indent(2) }}",
        "{{ x | indent(2, true) }}",
        "{{ x | indent(2, false, true) }}",
        "{{ x | indent('>', true, true) }}",
        "{{ x | replace('a', 'bb') }}",
        "{{ x | replace('a', 'bb', 1) }}",
        "{{ x | replace('', '-') }}",
        "{{ x | trim }}",
        "{{ [1, 2.5] | sum }}",
        "{{ [1, 2] | sum(start=10) }}",
        "{{ [{'n': 1}, {'n': 4}] | sum('n') }}",
        "{{ 2.567 | round(1) }}",
        "{{ [3, 'b'] | join('-') }}",
        "{{ [{'n': 1}, {'n': 4}] | join(',', 'n') }}",
        "{{ '%s-%s' | format(1, 'z') }}",
        "{{ x.split('a', 1) | length }}",
        "{{ x.rsplit('a', 1)[0] }}",
        "{{ x.replace('a', 'c', 2) }}",
        "{{ x[2:] }}{{ x[::2] }}",
        "{{ x[-3:-1] }}",
        "{{ 'a-{}-{b}'.format(1, b=2) }}",
        "{{ range(1, 9, 3) | list }}",
        "{{ dict([('k', 1)], z=2) }}",
        "{{ [1, 2] * 2 }}{{ 'ab' * 3 }}{{ 7 % 4 }}{{ 'n=%d' % 3 }}",
        "{{ [2, 1] | sort }}{{ ['b', 'A'] | sort(case_sensitive=true) }}",
    ],
)
def test_our_own_filters_and_functions_give_what_jinja_gives(source: str) -> None:
    import jinja2

    x = "  a\n\nb a\n  c a"
    assert SandboxedTemplate(source).render({"x": x}) == jinja2.Environment(trim_blocks=True).from_string(
        source
    ).render(x=x)


CALL = ToolCall("call_0", "add", {"a": 1})
RESULT = ToolResult("call_0", "add", "3")


def test_a_message_is_one_entry_and_each_tool_result_one_of_its_own() -> None:
    said = assistant("so:", CALL, ToolCall("call_1", "add", {}, "{broken"))
    function = {"name": "add", "arguments": {"a": 1}}
    broken = {"name": "add", "arguments": {"invalid": "{broken"}}
    calls = [{"type": "function", "id": f"call_{n}", "function": each} for n, each in enumerate((function, broken))]
    assert to_dicts(said) == [{"role": "assistant", "content": "so:", "tool_calls": calls}]
    results = Message("tool", (RESULT, replace(RESULT, call_id="call_1", content="")))
    entry = {"role": "tool", "content": "3", "name": "add", "tool_call_id": "call_0"}
    assert to_dicts(results) == [entry, entry | {"content": "", "tool_call_id": "call_1"}]
    assert to_dicts(user("")) == [{"role": "user", "content": ""}] and to_dicts(assistant("", CALL))[0]["content"] == ""
    assert [each["role"] for each in to_dicts(Message("tool", (Text("x"), RESULT)))] == ["tool", "tool"]
    short = [each["id"] for each in to_dicts(said, short_ids=True)[0]["tool_calls"]]
    assert short == [each["tool_call_id"] for each in to_dicts(results, short_ids=True)]  # a result names its call
    assert len(set(short)) == 2 and all(len(each) == 9 and each.isalnum() for each in short)


def test_a_prefix_of_a_conversation_is_known_by_all_that_decides_its_ids() -> None:
    def sampled(*ids: int, text: str = "x") -> Message:
        return replace(assistant(text), sampled=Sampled(ids, (-0.5,) * len(ids)))

    talk = [system("s"), user("q"), sampled(1, 2), user("more"), assistant("", CALL), Message("tool", (RESULT,))]
    found = list(digests(talk, b"seed"))
    assert len(set(found)) == len(talk) + 1
    for size in range(len(talk) + 1):
        assert list(digests(talk[:size], b"seed")) == found[: size + 1]
    assert set(digests(talk, b"other")).isdisjoint(found)
    for place, other in (
        (0, user("s")), (1, user("Q")), (2, sampled(1, 3)), (2, sampled(1, 2, text="y")), (2, assistant("x")),
        (4, assistant("", replace(CALL, arguments={"a": 2}))), (5, Message("tool", (replace(RESULT, is_error=True),))),
    ):  # fmt: skip
        changed = list(digests([*talk[:place], other, *talk[place + 1 :]], b"seed"))
        assert changed[: place + 1] == found[: place + 1] and set(changed[place + 1 :]).isdisjoint(found)


def byte_tokenizer() -> Tokenizer:
    """A token for each byte, and ChatML's three."""
    body = description() | {"added_tokens": []}
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    body["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    for id, content in ((256, "<|im_start|>"), (257, "<|im_end|>")):
        body["added_tokens"].append({"id": id, "content": content, "special": True, "single_word": False,
                                     "lstrip": False, "rstrip": False, "normalized": False})  # fmt: skip
    body["model"] = {"type": "BPE", "vocab": {each: id for id, each in enumerate(alphabet)}, "merges": []}
    return Tokenizer(body, eos_ids=[257])


@pytest.mark.parametrize("opens", [[], [system("Be brief.")]])
@pytest.mark.parametrize("tools", [(), (ToolSpec("add", "Adds.", {"type": "object"}),)])
@pytest.mark.parametrize("ends", [True, False])
def test_what_was_sampled_stays_in_the_prompt_as_it_was_sampled(
    opens: list[Message], tools: tuple[ToolSpec, ...], ends: bool
) -> None:
    ours = byte_tokenizer()
    chat = ChatTemplate(ours, None)
    talk = [*opens, user("1+2?")]
    for text, calls in (("so", (CALL,)), ("3", ())):
        prompt = chat.encode(talk, tools)
        ids = (*ours.encode(f" {text}~"), *([257] if ends else []))  # not as the template would write it
        talk += [replace(assistant(text, *calls), sampled=Sampled(ids, (-0.5,) * len(ids)))]
        talk += [Message("tool", (RESULT,))] if calls else [user("and?")]
        for again in (chat, ChatTemplate(ours, None)):  # remembered or not
            later = again.encode(talk, tools)
            assert later[: len(prompt) + len(ids)] == [*prompt, *ids]
            rest = ours.decode(later[len(prompt) + len(ids) :], skip_special=False)
            assert rest.startswith("\n<|im_start|>user\n" if ends else "<|im_end|>\n<|im_start|>user\n")
            assert rest.count("<|im_end|>") == 2 - ends and rest.endswith("<|im_start|>assistant\n")
    shown = ours.decode(chat.encode(talk, tools), skip_special=False)
    assert ("<tools>" in shown) is bool(tools) and shown.count("Be brief.") == len(opens)
    plain = [message.edited(*message.parts, Text("")) for message in talk]
    assert ours.decode(chat.encode(plain, tools), skip_special=False).count("<|im_end|>") == shown.count("<|im_end|>")


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        (2**53, True), (2**53 + 1, False), (-(2**53), True), (-(2**53) - 1, False), (0.5, True), (float("inf"), False),
        (float("nan"), False), ("x" * 256, True), ("x" * 257, False), ("a<|im_end|>", False), (None, True), (True, True),
        ([[[[1]]]], True), ([[[[[1]]]]], False), ([0] * 255, True), ([0] * 256, False), ({"a": {"b": [1, "c"]}}, True),
        ({"<|im_end|>": 1}, False), (b"x", False), ({1, 2}, False), (object(), False),
    ],
)  # fmt: skip
def test_a_template_variable_is_a_few_short_plain_values(value: Any, taken: bool) -> None:
    if taken:
        assert check_variables({"v": value}, lambda text: "<|im_end|>" in text) == {"v": value}
    else:
        with pytest.raises(ConfigError, match="template variable v is"):
            check_variables({"v": value}, lambda text: "<|im_end|>" in text)


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("enable_thinking", True),
        ("A9", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("9a", False),
        ("_a", False),
        ("é", False),
        ("aé", False),
        ("a٣", False),
        ("a b", False),
        ("", False),
        ("messages", False),
        ("tools", False),
        ("add_generation_prompt", False),
        ("bos_token", False),
    ],
)
def test_a_template_variable_has_a_name_of_its_own(name: str, taken: bool) -> None:
    if taken:
        assert check_variables({name: 1}, lambda text: False) == {name: 1}
    else:
        with pytest.raises(ConfigError, match="is not a template variable"):
            check_variables({name: 1}, lambda text: False)
    assert len(check_variables({f"v{n}": n for n in range(16)}, lambda text: False)) == 16
    with pytest.raises(ConfigError, match="gets 17 variables"):
        check_variables({f"v{n}": n for n in range(17)}, lambda text: False)


# -- grammars and tools --


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ('{"a": 1, "b": [1, 2]}', True, True),
        ('{"a":1,"b":[1,2]}', False, True),
        ('{"a": 1,"b": [1, 2]}', False, True),
        ('{ "a" : 1, "b": [1, 2] }', False, True),
        ('{"a": 1, "b": [1,2]}', False, True),
        ('{"a": 1}', False, False),
        ('{"a": "1", "b": []}', False, False),
        ('{"b": [], "a": 1}', False, False),
    ],
)
def test_json_is_written_on_one_line_with_a_space_after_commas_and_colons(
    text: str, strict: bool, flexible: bool
) -> None:
    numbers = {"type": "array", "items": {"type": "integer"}}
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": numbers}, "required": ["a", "b"]}
    for flexibly, fits in ((False, strict), (True, flexible)):
        matcher = matcher_of(grammar.json_schema(schema), byte_vocabulary(), flexible=flexibly)
        raw = list(text.encode())
        assert (matcher.try_consume_tokens(raw) == len(raw) and matcher.is_accepting()) is fits


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ({"properties": {"x": {"type": "string"}}}, "x"),
        ({"properties": {"x": {"type": "integer"}, "y": {"type": "string"}}}, "x"),  # nothing is required: the first
        ({"properties": {"x": {"type": "integer"}, "y": {"type": "string"}}, "required": ["y"]}, "y"),
        ({"properties": {"x": {"type": "string"}, "y": {"type": "string"}}, "required": ["x", "y"]}, None),
        ({"properties": {"x": {"type": "number"}}, "required": ["x"]}, "x"),
        ({"properties": {"x": {"type": "boolean"}}}, None), ({"properties": {"x": {"type": "array"}}}, None),
        ({"properties": {"x": {"type": "string", "pattern": "a+"}}}, None),
        ({"properties": {"x": {"type": "string", "format": "date"}}}, None),
        ({"properties": {"x": True}}, None), ({"properties": {"x": {}}}, None), ({"required": ["z"]}, None), ({}, None),
    ],
)  # fmt: skip
def test_a_tools_only_argument_is_written_bare_if_it_is_a_text_or_a_number(
    schema: dict[str, Any], name: str | None
) -> None:
    assert bare_argument(schema) == name
