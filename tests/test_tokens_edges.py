"""Tokenizers at their edges: special tokens of rank files, SentencePiece's parts, growth, templates, and calls in text."""

from __future__ import annotations

import base64
import math
import struct
from pathlib import Path
from typing import Any

import jinja2
import pytest

from firsthand.errors import ModelFileError, TemplateError
from firsthand.tokens import spm, text_growth, tiktoken_ranks
from firsthand.tokens.calls.call_parser import parse
from firsthand.tokens.calls.call_source import LONGEST, MARKS, CallSink, CallSource
from firsthand.tokens.calls.call_value import PartialCall, name_in, read_object
from firsthand.tokens.recommended_sampling import FOLDER, GGUF, recommended
from firsthand.tokens.templates.template_sandbox import SandboxedTemplate


def test_rank_files_have_the_published_special_tokens() -> None:
    known = {name: (dict(each.special), each.bos, each.ends) for name, each in tiktoken_ranks.ENCODINGS.items()}
    end = "<|endoftext|>"
    for name in ("gpt2", "r50k_base", "p50k_base"):
        assert known.pop(name) == ({end: 50256}, None, (end,))
    assert known.pop("cl100k_base") == (
        {end: 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260,
         "<|endofprompt|>": 100276},
        None,
        (end,),
    )  # fmt: skip
    assert known.pop("o200k_base") == ({end: 199999, "<|endofprompt|>": 200018}, None, (end,))
    qwen = {end: 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}
    assert known.pop("qwen") == (qwen, None, ("<|im_end|>", end))
    special, bos, ends = known.pop("tokenizer")
    assert not known and bos == "<|begin_of_text|>" and ends == ("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>")
    assert sorted(special.values()) == list(range(128000, 128256))
    published = {
        "<|begin_of_text|>": 128000, "<|end_of_text|>": 128001, "<|reserved_special_token_0|>": 128002,
        "<|reserved_special_token_1|>": 128003, "<|finetune_right_pad_id|>": 128004, "<|start_header_id|>": 128006,
        "<|end_header_id|>": 128007, "<|eom_id|>": 128008, "<|eot_id|>": 128009, "<|python_tag|>": 128010,
        "<|reserved_special_token_2|>": 128011, "<|reserved_special_token_246|>": 128255,
    }  # fmt: skip
    assert {name: special[name] for name in published} == published


def test_merges_of_ranks_go_by_the_rank_of_their_result_then_of_their_parts() -> None:
    ranks = {bytes([byte]): byte for byte in range(256)}
    ranks |= {b"bc": 256, b"ab": 257, b"abc": 258, b"xyzw": 259}
    made = tiktoken_ranks.description(ranks, tiktoken_ranks.ENCODINGS["gpt2"], "here")
    assert made["model"]["merges"] == [["b", "c"], ["a", "b"], ["a", "bc"], ["ab", "c"]]
    assert made["model"]["vocab"]["abc"] == 258 and made["model"]["vocab"]["<|endoftext|>"] == 50256
    assert [(each["id"], each["content"], each["special"]) for each in made["added_tokens"]] == [
        (50256, "<|endoftext|>", True)
    ]
    taken = tiktoken_ranks.description(ranks | {b"qq": 50256}, tiktoken_ranks.ENCODINGS["gpt2"], "here")
    assert taken["added_tokens"] == [] and "<|endoftext|>" not in taken["model"]["vocab"]
    ordered = tiktoken_ranks.description(ranks, tiktoken_ranks.ENCODINGS["qwen"], "here")["added_tokens"]
    assert [each["id"] for each in ordered] == [151643, 151644, 151645]


def test_a_rank_files_lines_are_read_within_their_bounds(tmp_path: Path) -> None:
    path = tmp_path / "gpt2.tiktoken"
    single = [f"{base64.b64encode(bytes([byte])).decode()} {byte}" for byte in range(256)]

    def read(*more: str) -> dict[bytes, int]:
        path.write_text("\n".join([*single, "", *more]))
        return tiktoken_ranks.read_ranks(path)

    longest = base64.b64encode(b"x" * 1024).decode()
    assert read(f"{longest} 999999999")[b"x" * 1024] == 999_999_999
    for wrong in (
        f"{base64.b64encode(b'x' * 1025).decode()} 256",
        "YWI= 1000000000",
        "YWI= -1",
        "YWI= ",
        " 3",
        "YW!= 3",
    ):
        with pytest.raises(ModelFileError, match=r"line 258: .* is no token in base64 and its rank"):
            read(wrong)
    with pytest.raises(ModelFileError, match=r"line 259: the token b'ab' comes twice"):
        read("YWI= 256", "YWI= 257")
    with pytest.raises(ModelFileError, match="two tokens have one rank"):
        read("YWI= 255")
    path.write_text("\n".join(single[:254]))
    with pytest.raises(ModelFileError, match="no token for 2 of the 256 bytes, such as 0xfe"):
        tiktoken_ranks.read_ranks(path)
    assert tiktoken_ranks.is_rank_file(path) and not tiktoken_ranks.is_rank_file(tmp_path / "none")
    path.write_text("YWI= x")
    assert not tiktoken_ranks.is_rank_file(path)


def test_a_unigram_vocabulary_never_cuts_into_bytes_or_unused_pieces() -> None:
    kinds = [spm.UNKNOWN, spm.NORMAL, spm.BYTE, spm.UNUSED, spm.NORMAL]
    pieces = spm.Pieces(
        ["<unk>", "▁a", "<0x41>", "b", "c"], [0.0, -2.5, 0.0, 0.0, -7.0], kinds, True, unigram=True, collapses=True
    )
    made = spm.description(pieces, "here")
    never = 10 * -7.0 - 100
    assert made["model"]["vocab"] == [["<unk>", 0.0], ["▁a", -2.5], ["<0x41>", never], ["b", never], ["c", -7.0]]
    assert (made["model"]["unk_id"], made["model"]["byte_fallback"], made["model"]["type"]) == (0, True, "Unigram")
    steps = made["normalizer"]["normalizers"]
    assert [each["type"] for each in steps] == ["Replace", "Replace", "Prepend", "Replace"]
    assert [each["pattern"] for each in steps[:2]] == [{"Regex": r"\A +| +\z"}, {"Regex": " {2,}"}]
    assert made["decoder"]["decoders"][-1] == {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    plain = spm.description(spm.Pieces(["<unk>", "a"], [0.0, -1.0], [spm.UNKNOWN, spm.NORMAL], False), "here")
    assert [each["type"] for each in plain["normalizer"]["normalizers"]] == ["Replace"]
    assert plain["model"]["type"] == "BPE" and plain["model"]["byte_fallback"] is False
    assert plain["decoder"]["decoders"][-1] == {"type": "Fuse"}
    with pytest.raises(ModelFileError, match="needs a piece for unknown text"):
        spm.description(spm.Pieces(["a"], [0.0], [spm.NORMAL], False, unigram=True), "here")
    for score in (math.nan, math.inf):
        with pytest.raises(ModelFileError, match="a token score is not a number"):
            spm.description(
                spm.Pieces(["u", "a"], [0.0, score], [spm.UNKNOWN, spm.NORMAL], False, unigram=True), "here"
            )
    with pytest.raises(ModelFileError, match="a token occurs twice"):
        spm.description(spm.Pieces(["▁", " "], [0.0, 0.0], [spm.USER_DEFINED, spm.NORMAL], False), "here")


def field(number: int, value: int | float | bytes) -> bytes:
    """A field of a protobuf message."""
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def test_a_sentencepiece_file_is_read_field_by_field(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    words = b"".join(
        field(1, field(1, text.encode()) + field(2, score) + field(3, kind))
        for text, score, kind in (("<unk>", 0.0, 2), ("▁é", -1.5, 1), ("x" * 130, -2.25, 4))
    )
    path.write_bytes(words + field(2, field(3, 2)) + field(3, field(2, b"table") + field(3, 0) + field(4, 0)))
    found = spm.read_model(path)
    assert (list(found.texts), list(found.scores), list(found.kinds)) == (
        ["<unk>", "▁é", "x" * 130], [0.0, -1.5, -2.25], [2, 1, 4],
    )  # fmt: skip
    assert (found.add_prefix, found.unigram, found.table, found.collapses) == (False, False, b"table", False)
    path.write_bytes(words + field(2, field(3, 1)))
    found = spm.read_model(path)
    assert (found.add_prefix, found.unigram, found.table, found.collapses) == (True, True, b"", True)
    for wrong in (field(2, field(3, 3)), field(2, field(24, 1)), field(3, field(5, 0)), field(3, field(2, 7))):
        path.write_bytes(words + wrong)
        with pytest.raises(ModelFileError, match="is a SentencePiece model of kind"):
            spm.read_model(path)
    path.write_bytes(words + b"\x0a\x7f")
    with pytest.raises(ModelFileError, match="a field of 127 bytes goes past the end"):
        spm.read_model(path)
    path.write_bytes(words + b"\x80" * 10)
    with pytest.raises(ModelFileError, match=f"its protobuf breaks at byte {len(words) + 10}"):
        spm.read_model(path)
    path.write_bytes(b"\x09" + bytes(8) + words)  # a field of eight bytes that nobody asked for
    assert len(spm.read_model(path).texts) == 3


def test_how_much_longer_steps_may_make_a_text() -> None:
    def grown(*steps: dict[str, Any], where: str = "normalizer", key: str = "normalizers") -> bool:
        try:
            text_growth.check_growth({where: {"type": "Sequence", key: list(steps)}}, "here")
        except ModelFileError:
            return False
        return True

    def swap(old: str, new: str, kind: str = "String") -> dict[str, Any]:
        return {"type": "Replace", "pattern": {kind: old}, "content": new}

    assert text_growth._growth(swap("ab", "xyz"), "s") == (2, 0) and text_growth._growth(swap("ab", ""), "s") == (1, 0)
    assert text_growth._growth(swap("a+", "xyz", "Regex"), "s") == (3, 0)
    for empty in ("a*", "a?", "a|", "(a)", "^a", "a$", r"\bx", r"x\Z", "a{0,2}", "a{,2}"):
        assert text_growth._growth(swap(empty, "xyz", "Regex"), "s") == (4, 3), empty
    assert text_growth._growth(swap("", "xyz"), "s") == (4, 3)
    assert text_growth._growth({"type": "Prepend", "prepend": "abc"}, "s") == (1, 3)
    assert text_growth._growth({"type": "ByteLevel"}, "s") == (2, 1) and text_growth._growth({"type": "NFC"}, "s") == (
        1,
        0,
    )
    table = base64.b64encode(struct.pack("<I", 4) + b"\0" * 4 + b"abc\0defgh\0").decode()
    assert text_growth._growth({"type": "Precompiled", "precompiled_charsmap": table}, "s") == (5, 0)
    assert text_growth._growth({"type": "Precompiled", "precompiled_charsmap": "!"}, "s") == (1, 0)
    assert grown(swap("a", "b" * 256)) and not grown(swap("a", "b" * 257))
    assert grown(swap("a", "b" * 16), swap("b", "c" * 16)) and not grown(swap("a", "b" * 16), swap("b", "c" * 17))
    most = {"type": "Prepend", "prepend": "x" * (1 << 14)}
    assert grown(most) and not grown(most, {"type": "Prepend", "prepend": "y"})
    assert not grown({"type": "Prepend", "prepend": "x" * 8193}, swap("x", "yy"))
    assert not grown(swap("a", "b" * 257), where="pre_tokenizer", key="pretokenizers")


def test_recommended_settings_are_read_by_each_formats_names() -> None:
    folder = {"temperature": 0.6, "top_p": 0.95, "top_k": 20.0, "min_p": 0.1, "repetition_penalty": 1.05,
              "max_new_tokens": 64.0, "typical_p": 0.5}  # fmt: skip
    assert recommended(folder, FOLDER) == {
        "temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.05, "max_tokens": 64,
    }  # fmt: skip
    gguf = {"general.sampling.temp": 1, "general.sampling.top_p": 0.9, "general.sampling.top_k": 40,
            "general.sampling.min_p": 0.05, "general.sampling.penalty_repeat": 1.1, "temperature": 3}  # fmt: skip
    assert recommended(gguf, GGUF) == {
        "temperature": 1, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1,
    }  # fmt: skip
    assert recommended({"temperature": -1, "top_p": True, "top_k": math.nan, "min_p": "x"}, FOLDER) == {}


SOURCES = (
    "{{ rows | join('-', attribute=0) }}", "{{ rows | join('-', attribute='a') }}", "{{ rows | join }}",
    "{{ numbers | sum }} {{ numbers | sum(start=10) }} {{ dicts | sum(attribute='n', start=5) }}",
    "{{ text | indent }}|{{ text | indent(2, true) }}|{{ text | indent(2, false, true) }}|{{ text | indent('> ') }}",
    "{{ text | replace('a', 'XY') }}|{{ text | replace('a', 'XY', 1) }}|{{ text | replace('a', 'XY', 0) }}",
    "{{ '%s-%d%%' | format('x', 3) }}|{{ '{}{name}'.format(1, name=2) }}|{{ '%s' % 'y' }}|{{ '%s%s' % (1, 2) }}",
    "{{ 'a,b,c'.split(',') }}|{{ 'a,b,c'.split(',', 1) }}|{{ 'a,b,c'.rsplit(',', maxsplit=1) }}|{{ ' a b '.split() }}",
    "{{ text[1:4] }}|{{ text[::-1] }}|{{ numbers[-2:] }}", "{{ [1, 2] + [3] }}{{ 'ab' * 3 }}{{ 2 ** 10 }}{{ -7 // 2 }}",
    "{{ numbers | sort(reverse=true) }}{{ dicts | sort(attribute='n') | map(attribute='n') | list }}",
    "{{ dicts | selectattr('n', 'gt', 1) | list | length }}{{ dicts | rejectattr('n', 'equalto', 2) | list | length }}",
    "{{ numbers | max }}{{ numbers | min }}{{ 'b' in text }}{{ 4 is divisibleby 2 }}{{ 3 is odd }}{{ 'A' is upper }}",
    "{{ range(3) | list }}{{ range(5, 1, -2) | list }}{{ 2.567 | round(1) }}{{ 'x' | title }}{{ 'one two' | title }}",
)  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_filters_with_options_give_what_jinja_gives(source: str) -> None:
    given: dict[str, Any] = {
        "text": "abca\n\nbla", "numbers": [3, 1, 2], "rows": ["xy", "ab"], "dicts": [{"n": 3}, {"n": 1}, {"n": 2}],
    }  # fmt: skip
    wanted = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(source).render(given)
    assert SandboxedTemplate(source).render(given) == wanted


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ [1, 'a'] | sum }}", "sums a value that is not a number"),
        ("{{ '%5d' % 3 }}", "only %s, %d and %% may"),
        ("{{ '{:>9}'.format(3) }}", "only {} and {name} may"),
        ("{{ {'a': 1} | tojson(indent=17) }}", "indents JSON by more than 16"),
        ("{{ 2.5 | round(16) }}", "rounds by an unknown method"),
        ("{{ 2.5 | round(1, 'ceil') }}", "rounds by an unknown method"),
        ("{{ raise_exception('no' * 600) }}", "refuses this conversation: " + "no" * 250 + "$"),
    ],
)
def test_what_a_template_may_not_do_is_told(source: str, said: str) -> None:
    with pytest.raises(TemplateError, match=said):
        SandboxedTemplate(source).render({})
    assert SandboxedTemplate("{{ 2.5 | round(15) }}{{ {'a': 1} | tojson(indent=16) }}").render({}).startswith("2.5")


def test_a_source_of_calls_knows_its_place_after_text_was_put_back() -> None:
    source = CallSource()
    source.add("abcdef")
    source.at = 4
    assert source.place == 4
    source.add("gh")
    assert (source.text, source.at, source.place) == ("efgh", 0, 4)
    source.at = 3
    source.backtrack("fg")
    assert (source.text, source.at, source.place) == ("fgh", 0, 5)
    source = CallSource()
    source.add("x<tool_ca")
    assert not source.might_be(MARKS)
    source.at = 1
    assert source.might_be(MARKS) and not source.might_be(("[TOOL_CALLS]",))
    source.add("ll>" + "y" * LONGEST)
    assert not source.might_be(MARKS) and max(map(len, MARKS)) == LONGEST == len("<|python_start|>")


def test_text_around_calls_keeps_its_blanks_only_where_text_follows() -> None:
    sink = CallSink()
    sink.add_text(" a ")
    sink.add_text("\n b\n")
    assert sink.take() == [" a \n b"] and sink.blanks == ["\n"]
    sink = CallSink()
    sink.begin_call("f")
    sink.add_arguments("{}")
    sink.end_call("f", {}, None)
    sink.add_text("  x ")
    sink.add_text(" y")
    told = sink.take()
    assert [(each.index, each.id, each.name, each.arguments) for each in told[:2]] == [
        (0, "call_0", "f", ""), (0, "", None, "{}"),
    ]  # fmt: skip
    assert told[2:] == ["x  y"] and sink.calls[0].id == "call_0"


def test_one_object_is_read_and_anything_else_is_not() -> None:
    assert read_object(' {"a": [1, "x"]} \n') is not None and read_object('{"a": 1} x') is None
    assert read_object("[1]") is None and read_object('{"a": 1') is None and read_object('"x"') is None
    draft = PartialCall()
    draft.is_object = True
    assert not draft.is_call
    draft.end()
    assert draft.complete and draft.pieces == ["{}"] and draft.is_object
    assert name_in("x 'name' = \"look\" y") == "look" and name_in('"name": "' + "x" * 129 + '"') == ""


@pytest.mark.parametrize(
    ("text", "name", "arguments", "invalid"),
    [
        ('{"name": "f", "arguments": {"x": 1}', "f", {"x": 1}, None),  # only the last bracket is missing
        ('{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}', "f", {"x": 1}, None),
        ('{"function": "f", "parameters": {"x": 1}, "id": "7"}', "f", {"x": 1}, None),
        ('{"name": "f", "args": "{\\"x\\": 1} "}', "f", {"x": 1}, None),
        ('{"name": "f", "arguments": null}', "f", {}, None),
        ('{"name": "f", "arguments": " "}', "f", {}, None),
        ('{"name": "f"}', "f", {}, None),
        ('{"name": "f", "arguments": "no object"}', "f", {}, "no object"),
        ('{"name": "f", "arguments": [1, 2]}', "f", {}, "[1, 2]"),
    ],
)
def test_forms_of_a_call_between_marks(text: str, name: str, arguments: dict[str, Any], invalid: str | None) -> None:
    rest, (call,) = parse(f"<tool_call>\n{text}\n</tool_call>")
    shown = None if call.invalid is None else call.invalid.replace(", ", ",").replace(",", ", ")
    assert (rest, call.name, call.arguments, shown) == ("", name, arguments, invalid)


def test_a_fenced_call_that_lacks_its_last_bracket_is_a_call_and_other_values_are_text() -> None:
    rest, (call,) = parse('```json\n{"name": "f", "arguments": {"x": 1}\n```')
    assert (rest, call.name, call.arguments, call.invalid) == ("", "f", {"x": 1}, None)
    for text in ('```json\n{"x": 1}\n```', '[{"name": "f", "arguments": {}}, 3]', '{"name": "f", "colour": 1}', "[]"):
        assert parse(text) == (text, ())
    rest, calls = parse('[TOOL_CALLS][{"name": "f", "arguments": {}}, {"name": "g", "arguments": {"y": 2}}]')
    assert (rest, [(each.id, each.name, each.arguments) for each in calls]) == (
        "", [("call_0", "f", {}), ("call_1", "g", {"y": 2})],
    )  # fmt: skip
