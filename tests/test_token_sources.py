"""Tokenizers from odd folders, errors of descriptions in full, grammars of calls as text, and slots for compilers."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, ModelFileError, PromptTooLong, TransientError
from firsthand.model import ToolSpec
from firsthand.tokens import pretrained
from firsthand.tokens.calls.call_grammar import action_grammar, bare_argument, markup_of, tool_grammar
from firsthand.tokens.compile_slots import MAX_WAITING, CompileSlots, HeldSlot
from firsthand.tokens.fertility import ARTICLE_1, Fertility, fertility
from firsthand.tokens.llguidance_grammar import lark_json, lark_text
from firsthand.tokens.plain_encoder import can_forge, without_special
from firsthand.tokens.pretrained import (
    _begins_with,
    _folder_template,
    _id,
    _ids_by_text,
    _rank_file,
    _template,
    load,
    read_description,
)
from firsthand.tokens.tiktoken_ranks import ENCODINGS
from firsthand.tokens.token_bytes import byte_reader, character_of_byte, steps
from firsthand.tokens.tokenizer import TextRun, Tokenizer, _any_of


def refused(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(ModelFileError) as found:
        call(*arguments, **named)
    return str(found.value)


def body(**changes: Any) -> dict[str, Any]:
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0", "normalizer": None, "pre_tokenizer": None,
        "added_tokens": [{"id": 3, "content": "<|end|>", "special": False, **added},
                         {"id": 4, "content": "<tool_call>", "special": True, **added}],
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "<|end|>": 3, "<tool_call>": 4}, "merges": [["a", "b"]]},
        **changes,
    }  # fmt: skip


def test_a_tokenizer_knows_its_added_tokens_lengths_and_texts():
    made = Tokenizer(body(), bos_id=0, eos_ids=[1, 1])
    assert (made.eos_id, made.eos_ids, made.special_ids, made.vocab_size) == (1, {1, 3}, {3, 4}, 5)
    assert (made.token_id("<|end|>"), made.token_id("a"), made.id_of("ab"), made.id_of("c")) == (3, None, 2, None)
    assert [made.text_of(id) for id in (None, 0, 3, 9)] == ["", "a", "<|end|>", ""]
    assert (
        made.decode([2, 3, 4, 9]) == "ab<tool_call>" and made.decode([3, 4], skip_special=False) == "<|end|><tool_call>"
    )
    assert made.encode("ab<|end|>a", special=True) == [2, 3, 0] and 3 not in made.encode("ab<|end|>a")
    assert [(at, token.id) for at, token in made.find_special("a<|end|><tool_call>")] == [(1, 3), (8, 4)]
    assert made.encode_runs([TextRun("a", True), TextRun("b<|end|>", True), TextRun("b", False)]) == [2, 3, 1]
    assert made.encode_runs([TextRun("<|e", True), TextRun("nd|>", True)]) == made.encode("<|end|>")
    assert made.encode("ab" * 30, most=30) == [2] * 30
    for text in ("ab" * 200, "a" * 4001):
        made.check_length(text[:120], 30)
        with pytest.raises(PromptTooLong) as found:
            made.check_length(text, 30)
        assert (
            str(found.value)
            == f"the prompt has {len(text)} characters and more than 30 tokens, the model's context: shorten it"
        )
    made.check_length("a" * 44, 11)  # four a token cost no more than a full context
    made.check_length("a" * 21, 5)  # 16 may be due to the cuts
    with pytest.raises(PromptTooLong):
        made.check_length("a" * 22, 5)
    with pytest.raises(PromptTooLong, match=r"^the prompt has more than 2 tokens, the model's context: shorten it$"):
        made.encode_runs([TextRun("a<|end|>b<|end|>a", True)], most=2)
    assert made.settings() | {"description": 0} == {"description": 0, "bos_id": 0, "eos_ids": [1, 3], "add_bos": False}
    assert Tokenizer(body(), bos_id=0, add_bos=True).add_bos and made.strips_leading_space is False


def test_what_a_description_may_not_say_is_told():
    for changes, said in (
        ({"added_tokens": 3}, "S: added_tokens should be a list"),
        ({"added_tokens": [{"id": "3", "content": "x"}]},
         "S: an added token needs a text and a whole-number id, but is {'id': '3', 'content': 'x'}"),
        ({"added_tokens": [{"id": True, "content": "x"}]},
         "S: an added token needs a text and a whole-number id, but is {'id': True, 'content': 'x'}"),
        ({"model": {"type": "WordLevel"}},
         "S: the tokenizer's model is of type 'WordLevel'; BPE, Unigram and WordPiece are supported"),
        ({"model": None}, "S: the tokenizer's model is of type None; BPE, Unigram and WordPiece are supported"),
        ({"decoder": {"type": "Odd"}}, None), ({"decoder": {"type": 3}}, None),
    ):  # fmt: skip
        told = refused(Tokenizer, body(**changes), source="S")
        assert told == said or (said is None and told.startswith("S: "))
    for given, said in (
        ({"bos_id": 5}, "S: the bos token id is 5, outside the vocabulary of 5 tokens"),
        ({"bos_id": -1}, "S: the bos token id is -1, outside the vocabulary of 5 tokens"),
        ({"eos_ids": [4, 5]}, "S: the eos token id is 5, outside the vocabulary of 5 tokens"),
        ({"eos_ids": [True]}, "S: the eos token id is True, outside the vocabulary of 5 tokens"),
    ):
        assert refused(Tokenizer, body(), source="S", **given) == said
    assert refused(byte_reader, {"decoder": {"type": "Fuse"}}, "S") == (
        "S: the decoder ['Fuse'] is not supported; byte-level, SentencePiece and WordPiece vocabularies are read"
    )
    assert (
        refused(byte_reader, {"decoder": {"type": 3}}, "S")
        == "S: a step of the decoders is of the type 3: a name was expected"
    )
    assert byte_reader({"pre_tokenizer": {"type": "ByteLevel"}}, "S")("Ġé") != b""
    nested = {"type": "Sequence", "x": [{"type": "A"}, {"type": "Sequence", "x": [{"type": "B"}]}, 3]}
    assert steps(nested, "x") == [{"type": "A"}, {"type": "B"}] and steps(None, "x") == [] == steps(
        {"type": "Sequence"}, "x"
    )
    letters = character_of_byte()
    assert (letters[33], letters[126], letters[0], letters[32], letters[127], letters[173]) == (
        "!",
        "~",
        "Ā",
        "Ġ",
        "ġ",
        "Ń",
    )
    assert _any_of(["ab", "abc", "b."]) == r"(?:ab(?:c)?|b\.)" and _any_of([]) == "" and _any_of(["a"]) == "a"


def test_special_tokens_get_names_that_no_text_holds():
    made = Tokenizer(body())
    rust = made._rust
    model = body()["model"]
    assert not can_forge({"model": model}, ["<|end|>"], rust) and not can_forge({"model": model}, ["<none>"], rust)
    assert can_forge({"model": {**model, "type": "Unigram", "vocab": [["<|end|>", 0.0]]}}, ["<|end|>"], rust)
    assert can_forge({"model": model}, ["ab"], rust) and can_forge(
        {"model": {**model, "merges": ["a b"]}}, ["ab"], rust
    )
    assert can_forge({"model": model}, ["a"], rust) and not can_forge({"model": None}, ["a"], rust)
    assert can_forge({"model": {**model, "ignore_merges": True, "merges": []}}, ["<|end|>"], rust)
    hidden = without_special(
        body(model={**model, "merges": [["a", "b"], ["<|end|>", "a"]], "unk_token": "<|end|>"}), ["<|end|>"]
    )
    (name,) = [text for text, id in hidden["model"]["vocab"].items() if id == 3]
    assert name.startswith("\U0010fffe") and len(name) == 34 and hidden["model"]["unk_token"] == name
    assert hidden["model"]["merges"] == [["a", "b"]]
    assert [each["content"] for each in hidden["added_tokens"]] == [name, "<tool_call>"]
    listed = without_special({"model": {"vocab": [["x", 1.0], ["y", 2.0]]}, "added_tokens": []}, ["x"])["model"][
        "vocab"
    ]
    assert listed[1] == ["y", 2.0] and listed[0][0] != "x" and listed[0][1] == 1.0


def ranks(path: Path) -> Path:
    lines = [base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256)]
    path.write_bytes(b"".join(lines))
    return path


def test_a_folder_s_tokenizer_is_the_first_kind_of_file_that_is_there(tmp_path: Path):
    empty = refused(load, tmp_path)
    assert empty.startswith(
        f"{tmp_path} holds no tokenizer.json and no tokenizer.model: copy the model's tokenizer files there"
    )
    assert refused(load, tmp_path / "x.bin") == (
        f"{tmp_path / 'x.bin'} holds no tokenizer: give a folder with tokenizer.json, a .gguf file, or a "
        ".tiktoken file of ranks"
    )
    gpt2 = ranks(tmp_path / "gpt2.tiktoken")
    ranks(tmp_path / "cl100k_base.tiktoken")
    assert _rank_file(tmp_path) == tmp_path / "cl100k_base.tiktoken"
    assert load(gpt2).token_id("<|endoftext|>") == 50256 and load(gpt2).eos_id == 50256 and load(gpt2).bos_id is None
    assert load(tmp_path).token_id("<|endofprompt|>") == 100276
    ranks(tmp_path / "tokenizer.model")
    assert _rank_file(tmp_path) == tmp_path / "tokenizer.model"
    llama = load(tmp_path)
    assert (llama.bos_id, llama.add_bos, llama.eos_id) == (128000, True, 128009) and llama.eos_ids >= {
        128009,
        128001,
        128008,
    }
    assert load(tmp_path / "tokenizer.model").bos_id == 128000 and len(ENCODINGS["tokenizer"].ends) == 3
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end_of_text|>"}))
    configured = load(tmp_path)
    assert (configured.eos_id, configured.bos_id, configured.add_bos) == (128001, None, False)
    (tmp_path / "tokenizer.json").write_text(json.dumps(body()))
    assert _rank_file(tmp_path) is None and read_description(tmp_path) == body()
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "ab", "bos_token": {"content": "b"}, "chat_template": "T"})
    )
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": "a", "bos_token": "a"}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, "top_k": 7}))
    found = load(tmp_path / "tokenizer.json")
    assert (found.eos_id, found.eos_ids, found.bos_id, found.add_bos) == (2, {1, 2, 3}, 1, False)
    assert (found.chat_template, found.recommended) == ("T", {"top_k": 7})


def test_names_ids_and_templates_are_read_in_each_of_their_forms(tmp_path: Path):
    vocab = {"a": 0, "<s>": 1}
    assert [_id(each, vocab) for each in ("a", {"content": "<s>"}, "x", None, 3, {"content": 1})] == [
        0,
        1,
        None,
        None,
        None,
        None,
    ]
    listed = {"model": {"vocab": [["x", 0.0], ["y", 1.0]]}, "added_tokens": [{"content": "<e>", "id": 5}, 3]}
    assert _ids_by_text(listed, "S") == {
        "x": 0, "y": 1, "<e>": 5,
    }  # fmt: skip
    assert _ids_by_text({"model": {"vocab": {"x": 4}}, "added_tokens": 3}, "S") == {"x": 4}
    assert (
        refused(_ids_by_text, {"model": {"vocab": [3]}}, "S")
        == "S: the vocabulary's entries should be pairs of token and score"
    )
    assert refused(_ids_by_text, {"model": {}}, "S") == "S: tokenizer.json has no vocabulary (model.vocab)"
    step = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "s"}}, 0],
        "special_tokens": {"s": {"ids": [1]}},
    }
    assert _begins_with({"post_processor": step}, 1) and not _begins_with({"post_processor": step}, 2)
    assert _begins_with({"post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel"}, step]}}, 1)
    assert not _begins_with({"post_processor": {**step, "special_tokens": {"s": {"ids": [1, 1]}}}}, 1)
    assert not _begins_with({}, 1) and not _begins_with({"post_processor": {**step, "special_tokens": {}}}, 1)
    assert _template("t", "S") == "t" and _template(None, "S") is None and _template([], "S") is None
    named = [{"name": "tool", "template": "u"}, {"name": "default", "template": "d"}, 3]
    assert _template(named, "S") == "d" and _template(named[:1], "S") == "u"
    too_long = "S: the chat template should be a text of at most 1048576 bytes"
    assert refused(_template, 3, "S") == too_long == refused(_template, "x" * ((1 << 20) + 1), "S")
    assert len(_template("x" * (1 << 20), "S") or "") == 1 << 20
    assert _folder_template(tmp_path, {"chat_template": "c"}) == "c"
    (tmp_path / "chat_template.jinja").write_text("é", encoding="utf-8")
    assert _folder_template(tmp_path, {"chat_template": "c"}) == "é"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    assert refused(_folder_template, tmp_path, {}).startswith(
        f"{tmp_path / 'chat_template.jinja'} cannot be read as UTF-8 text: "
    )
    template = tmp_path / "chat_template.jinja"
    for most in ("x" * (1 << 20), "é" * (1 << 19)):  # bytes are counted, not letters
        template.write_text(most, encoding="utf-8")
        assert _folder_template(tmp_path, {}) == most
        for more in ("a", "ab"):  # what is read ends behind a letter, and within one
            template.write_text(more + most, encoding="utf-8")
            told = f"{template}: the chat template should be a text of at most 1048576 bytes"
            assert refused(_folder_template, tmp_path, {}) == told
    template.write_text("")
    assert _folder_template(tmp_path, {"chat_template": "c"}) == "", "its own file counts, if it is empty too"
    assert pretrained._MAX_TEMPLATE_BYTES == 1 << 20


def test_fertility_counts_tokens_by_words_and_against_english():
    made = {each.language: each for each in fertility(Tokenizer(body(model={"type": "BPE", "vocab": {
        "e": 0, "n": 1, "<|end|>": 3, "<tool_call>": 4}, "merges": []})))}  # fmt: skip
    counts = {name: text.count("e") + text.count("n") for name, text in ARTICLE_1.items()}
    assert next(iter(made)) == "English" and {name: each.tokens for name, each in made.items()} == counts
    german = made["German"]
    words = len(ARTICLE_1["German"].split())
    assert german == Fertility("German", counts["German"], words, counts["German"] / counts["English"])
    assert german.tokens_per_word == counts["German"] / words
    assert {name for name, each in made.items() if each.tokens_per_word is None} == {"Japanese", "Chinese"}


# -- grammars of calls --

ADD = ToolSpec("add", "", {"properties": {"a": {"type": "number"}}, "required": ["a"]})
GO = ToolSpec(
    "go",
    "",
    {"properties": {"to": {"type": "string", "enum": ["n", "s"]}, "far": {"type": "boolean"}}, "required": ["to"]},
)
NOW = ToolSpec("now", "", {})


def test_a_grammar_of_calls_has_a_rule_for_each_tool_and_its_markup():
    whole = tool_grammar([ADD, NOW]).source.splitlines()
    first, second = (lark_text(f'{{"name": "{name}", "arguments": ') for name in ("add", "now"))
    assert whole == [
        'start: (begun "\\n" call "\\n</tool_call>")* WORDS', r"begun[lazy]: /(.|\n)*<tool_call>/", r"WORDS: /(.|\n)*/",
        "call: call_0 | call_1", f'call_0: {first} {lark_json({"type": "object", **ADD.parameters})} "}}"',
        f'call_1: {second} {lark_json({"type": "object"})} "}}"',
    ]  # fmt: skip

    def start(**given: Any) -> str:
        return tool_grammar([ADD, NOW], **given).source.splitlines()[0]

    hermes, mistral, llama = (lark_text(mark) for mark in ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>"))
    one = '"\\n" call "\\n</tool_call>"'
    assert start(parallel=False) == f"start: begun {one} | WORDS"
    assert start(choice="required") == f'start: {hermes} {one} ("\\n" {hermes} {one})*'
    assert start(choice="required", parallel=False) == f"start: {hermes} {one}"
    assert start(markup="mistral") == 'start: WORDS | begun " "? "[" call (", " call)* "]"'
    assert start(markup="mistral", choice="required", parallel=False) == f'start: {mistral} " "? "[" call "]"'
    assert start(markup="llama3") == "start: bare | WORDS | begun call"
    assert start(markup="llama3", choice="add") == f'start: {llama}? call ("; " call)*'
    named = tool_grammar([ADD, NOW], choice="now", markup="llama3").source.splitlines()
    assert named[1] == "call: call_0" and '\\"now\\"' in named[2] and '\\"parameters\\"' in named[2]
    for given, said in (
        (([ADD, NOW], "sub"), "choice is 'sub': give auto, required, or the name of a tool (add, now)"),
        (([], "sub"), "choice is 'sub': give auto, required, or the name of a tool (none)"),
        (([], "auto"), "a grammar of tool calls needs a tool: give one or more"),
    ):
        with pytest.raises(ConfigError) as found:
            tool_grammar(given[0], choice=given[1])
        assert str(found.value) == said
    for template, markup in {
        "x": "hermes", "tools [TOOL_CALLS]": "mistral", "tools <tool_call> [TOOL_CALLS]": "hermes", "tools": None,
        "tools python_tag": "llama3", 'tools "parameters": ': "llama3",
    }.items():  # fmt: skip
        assert markup_of(template) == markup


def test_an_action_is_a_line_with_a_bare_argument_or_an_object():
    assert action_grammar([ADD, GO, NOW]).source == "\n".join([
        "start: thought (action_0 | action_1 | action_2 | final)",
        'thought: "Thought: " LINE "\\n"\nLINE: /[^\\n]{1,400}/', 'final: "Final Answer: " ANSWER\nANSWER: /[^\\n]{1,400}/',
        f'action_0: {lark_text("Action: add[")} {lark_json({"type": "number"})} "]"',
        f'action_1: {lark_text("Action: go[")} ({lark_text("n")} | {lark_text("s")}) "]"',
        f'action_2: {lark_text("Action: now[")} "" "]"',
    ])  # fmt: skip
    assert action_grammar([NOW], final=False, thought=False).source.splitlines()[0] == "start: (action_0)"
    with pytest.raises(ConfigError, match=r"^there is no tool and no final answer to choose from: give one of them$"):
        action_grammar([], final=False)
    text = {"properties": {"q": {"type": "string"}}}
    assert (
        bare_argument(text) == "q" and '/[^\\n\\[\\]{}]{1,400}/ "]"' in action_grammar([ToolSpec("s", "", text)]).source
    )
    for parameters in ({"properties": {"a": {"type": "object"}}}, {"properties": {"a": {"type": "string", "pattern": "x"}}},
                       {"properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["a", "b"]},
                       {"properties": {"a": True}}, {}, {"properties": {}, "required": ["z"]}):  # fmt: skip
        assert bare_argument(parameters) is None


# -- slots --


def test_slots_go_to_who_has_fewest_and_no_owner_takes_all():
    slots = CompileSlots(3)
    with slots.taken("a", "g", 1), slots.taken("a", "g", 1):
        with (
            pytest.raises(TransientError, match=r"^g waited 0 s for others that are being compiled: try again$"),
            slots.taken("a", "g", 0),
        ):
            pass
        with slots.taken("b", "g", 0) as held:
            assert held.owner == "b" and held.began > 0 and len(slots._running) == 3
            with pytest.raises(TransientError, match="waited 0 s"), slots.taken("c", "g", 0):
                pass
        slots._waiting[:] = [HeldSlot("a"), HeldSlot("c"), HeldSlot("b")]
        assert slots._next() is slots._waiting[1]
        slots._waiting[:] = [HeldSlot("a")]
        assert slots._next() is None
        slots._waiting.clear()
    assert not slots._running and not slots._waiting
    with CompileSlots(1).taken("a", "g", 0):
        pass
    slots._waiting[:] = [HeldSlot("x")] * 16
    with (
        pytest.raises(TransientError, match=r"^g was not compiled, because 16 others wait: try again$"),
        slots.taken("x", "g", 0),
    ):
        pass
    slots._waiting[:] = [HeldSlot(str(place)) for place in range(MAX_WAITING)]
    with pytest.raises(TransientError, match="because 32 others wait"), slots.taken("y", "g", 0):
        pass


def test_a_slow_holder_is_ended_once_if_that_helps():
    slots, ended = CompileSlots(2, quick_s=-1), list[str]()
    slow = HeldSlot("a", began=-1e9)
    slow.end = lambda: ended.append("a")
    slots._running[:] = [HeldSlot("z", began=1e18), HeldSlot("y", began=-1e9), slow]
    slots._end_slow("b")
    slots._end_slow("b")
    assert ended == ["a"] and slow.is_ended
    other = HeldSlot("c", began=-1e9, end=lambda: ended.append("c"))
    slots._running[:] = [other, HeldSlot("b", began=1e18)]
    slots._end_slow("b")  # the owner has its share: another's end would not help
    assert ended == ["a"] and not other.is_ended
    slots._running[:] = [other]
    slots._end_slow("b")
    assert ended == ["a", "c"] and threading.active_count() >= 1
