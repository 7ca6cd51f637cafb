"""Vocabularies of tiktoken and SentencePiece give the ids of those libraries, on hostile texts too."""

from __future__ import annotations

import base64
import io
import json
import struct
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import sentencepiece
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from firsthand.errors import FirsthandError, ModelFileError
from firsthand.tokens.charsmap import read_table, replacer
from firsthand.tokens.pretokenizers import GPT2, GPT4O, LLAMA3
from firsthand.tokens.pretrained import load
from firsthand.tokens.token_bytes import character_of_byte
from firsthand.tokens.tokenizer import Tokenizer

CORPUS = [
    "The cat sat on the mat, the 12 dogs didn't. WE'LL see 1234567 of them, they've said.",
    "def f(x):\n    return x + 1\n\n\n", "naïve café 東京 🙂 привет мир ½ ﬁ Å", "  spaces   and\ttabs\r\n",
    "aaa aaaa ababab abab aaaaaaaaaaaaaaaa bbbbbb", "hello hello world world the the the",
] * 3  # fmt: skip
HOSTILE = [
    "", " ", "\n", "\r\n\r\n \t ", "a" * 5000, " " * 3000, "\u0430pple аррӏе", "don\u2019t DON'T 'ſ 'K\u212a",
    "e\u0301\u0301\u0301" * 50,
    "\u202egnp.exe", "\u200b\u200d\ufeff", "👩‍👩‍👧‍👦🏳️‍🌈", "\U000e0041\U000e0042", "１２３ Ⅷ ½ ²", "ﷺ" * 20, "\x00\x01\x7f",
    "İıſßẞﬁ",
    "Ａ ᴬ 𝐀 𝔸",
    "\u3000\xa0\u2028\u2029\x85", "كيف حالك", "नमस्ते दुनिया", "สวัสดี", "한국어 글자", "<|endoftext|><s></s>[INST]",
]  # fmt: skip
LETTERS = st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("ab the\n 1'é東🙂<|>s\r\t\u0301ſ"))
TEXTS = st.one_of(st.text(LETTERS, max_size=40), st.text("ab ", max_size=60), st.sampled_from(HOSTILE))
EXPRESSIONS = {"gpt2": GPT2, "cl100k_base": LLAMA3, "o200k_base": GPT4O}


@cache
def ranks(expression: str) -> dict[bytes, int]:
    """A vocabulary trained by tiktoken's own teaching code: the most frequent pair, again and again."""
    cutter = pre_tokenizers.Split(tokenizers.Regex(expression), "isolated")
    words = [[bytes([byte]) for byte in word.encode()] for text in CORPUS for word, _ in cutter.pre_tokenize_str(text)]
    found = {bytes([byte]): byte for byte in range(256)}
    while len(found) < 420:
        counts: dict[tuple[bytes, bytes], int] = {}
        for word in words:
            for pair in pairwise(word):
                counts[pair] = counts.get(pair, 0) + 1
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        found[best[0] + best[1]] = len(found)
        words = [_merged(word, best) for word in words]
    return found


def _merged(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    made: list[bytes] = []
    for part in word:
        if made and (made[-1], part) == pair:
            made[-1] += part
        else:
            made.append(part)
    return made


def rank_file(path: Path, expression: str) -> Path:
    lines = [b"%s %d" % (base64.b64encode(token), rank) for token, rank in ranks(expression).items()]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_a_rank_file_encodes_as_tiktoken_does(tmp_path: Path, name: str) -> None:
    expression = EXPRESSIONS[name]
    ours = load(rank_file(tmp_path / f"{name}.tiktoken", expression))
    theirs = tiktoken.Encoding("own", pat_str=expression, mergeable_ranks=ranks(expression), special_tokens={})

    @settings(max_examples=60, deadline=None)
    @given(TEXTS)
    def agree(text: str) -> None:
        ids = ours.encode(text)
        assert ids == theirs.encode_ordinary(text)
        assert ours.decode(ids) == text

    agree()
    for text in HOSTILE:
        assert ours.encode(text) == theirs.encode_ordinary(text)


def test_a_piece_that_is_a_token_is_used_whole_though_no_merge_makes_it(tmp_path: Path) -> None:
    own = {**ranks(LLAMA3), b"zqxj": 9000, b" zqxj": 9001}
    path = tmp_path / "cl100k_base.tiktoken"
    path.write_bytes(b"\n".join(b"%s %d" % (base64.b64encode(token), rank) for token, rank in own.items()))
    theirs = tiktoken.Encoding("own", pat_str=LLAMA3, mergeable_ranks=own, special_tokens={})
    for text in ("zqxj", "a zqxj", "zqxjz", "zqxj zqxj1"):
        assert load(path).encode(text) == theirs.encode_ordinary(text)
    assert load(path).encode("zqxj") == [9000]


@pytest.mark.slow
def test_a_million_letters_are_encoded_as_tiktoken_does(tmp_path: Path) -> None:
    ours = load(rank_file(tmp_path / "cl100k_base.tiktoken", LLAMA3))
    theirs = tiktoken.Encoding("own", pat_str=LLAMA3, mergeable_ranks=ranks(LLAMA3), special_tokens={})
    assert ours.encode("a" * (1 << 20)) == theirs.encode_ordinary("a" * (1 << 20))


def test_a_llama_3_folder_of_ranks_has_its_special_tokens(tmp_path: Path) -> None:
    rank_file(tmp_path / "tokenizer.model", LLAMA3)
    ours = load(tmp_path)
    assert ours.id_of("<|eot_id|>") == 128009 and 128009 in ours.eos_ids and ours.bos_id == 128000 and ours.add_bos
    assert ours.encode("<|eot_id|>", special=True) == [128009]
    assert not set(ours.encode("<|eot_id|>")) & ours.special_ids


@cache
def sentencepiece_model(kind: str, rule: str, collapses: bool) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, vocab_size=340, model_type=kind, byte_fallback=True,
        remove_extra_whitespaces=collapses, normalization_rule_name=rule, minloglevel=2, hard_vocab_limit=False,
        user_defined_symbols=["<tool>"], num_threads=1,
    )  # fmt: skip
    return model.getvalue()


def _cleans(text: str) -> bool:
    """False for texts with the marks that SentencePiece itself uses or stops at."""
    return "▁" not in text and "\0" not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "rule", "collapses"),
    [
        ("unigram", "identity", False),
        ("unigram", "nmt_nfkc", True),
        ("bpe", "nfkc", True),
        ("unigram", "nfkc_cf", False),
    ],
)
def test_a_sentencepiece_model_encodes_as_its_library_does(
    tmp_path: Path, kind: str, rule: str, collapses: bool
) -> None:
    model = sentencepiece_model(kind, rule, collapses)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    (tmp_path / "tokenizer.model").write_bytes(model)
    ours = load(tmp_path)

    def score(ids: list[int]) -> float:
        return sum(theirs.get_score(id) for id in ids)

    @settings(max_examples=60, deadline=None)
    @given(TEXTS)
    def agree(text: str) -> None:
        if _cleans(text):
            same(text)

    def same(text: str) -> None:
        ids, expected = ours.encode(text), theirs.encode(text)
        if ids != expected and kind == "unigram":  # of two ways to cut with one score, either is right: float32 decides
            assert len(text) > 20 and ours.decode(ids) == ours.decode(expected), text[:80]
            assert score(ids) == pytest.approx(score(expected), rel=1e-6)
            return
        assert ids == expected, text[:80]

    agree()
    for text in filter(_cleans, HOSTILE):
        same(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"AA== 0\nAA== 1\n", "comes twice"),
        (b"AA== 0\nAQ== x\n", "line 2"),
        (b"AA== 0\n!!!! 1\n", "line 2"),
        (b"AA== 0\n 1\n", "line 2"),
        (b"AA== 0\n", "no token for 255 of the 256 bytes"),
    ],
)
def test_a_broken_rank_file_is_refused_in_a_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "cl100k_base.tiktoken").write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        load(tmp_path / "cl100k_base.tiktoken")


def test_ranks_that_repeat_and_files_of_unknown_names_are_refused(tmp_path: Path) -> None:
    path = rank_file(tmp_path / "cl100k_base.tiktoken", LLAMA3)
    path.write_bytes(path.read_bytes() + base64.b64encode(b"quite new") + b" 7\n")
    with pytest.raises(ModelFileError, match="two tokens have one rank"):
        load(path)
    with pytest.raises(ModelFileError, match="nothing says how its texts are cut"):
        load(rank_file(tmp_path / "mine.tiktoken", LLAMA3))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_to_a_rank_file_ends_in_anything_but_a_clear_error(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = rank_file(Path(folder) / "cl100k_base.tiktoken", LLAMA3)
        whole = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
        try:
            made = load(path)
        except FirsthandError as error:
            assert "\n" not in str(error)
        else:
            assert isinstance(made, Tokenizer) and made.decode(made.encode("the cat")) == "the cat"


def test_no_vocabulary_lets_a_text_forge_a_special_token() -> None:
    unigram = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("<s>", 0.0), ("▁", -2.0), ("a", -3.0)], 0, False))
    unigram.pre_tokenizer, unigram.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    words = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "<s>": 1, "a": 2}, unk_token="[UNK]"))
    words.decoder = decoders.WordPiece()
    whole = {"a": 0, "<s>": 1, "<": 2, "s": 3, ">": 4}
    bytes_ = tokenizers.Tokenizer(models.BPE(whole, [], ignore_merges=True))
    merged = tokenizers.Tokenizer(models.BPE({**whole, "s>": 5}, [("s", ">"), ("<", "s>")]))
    bytes_.decoder = merged.decoder = decoders.ByteLevel()
    for rust in (unigram, words, bytes_, merged):
        rust.add_special_tokens(["<s>"])
        ours = Tokenizer(json.loads(rust.to_str()))
        special = rust.token_to_id("<s>")
        for text in ("<s>", "a<s>a", "a <s>", "＜s＞"):
            assert special not in ours.encode(text), (rust.model, text)
        assert ours.encode("<s>", special=True) == [special]
        again = Tokenizer(**ours.settings())
        assert special not in again.encode("<s>") and again.fingerprint == ours.fingerprint


def test_a_normaliser_s_table_that_loops_or_is_cut_short_is_refused() -> None:
    loop = [0, *(letter << 10 | letter for letter in range(1, 256))]  # every letter leads back to the first node
    units = struct.pack("<256I", *loop)
    with pytest.raises(ModelFileError, match="no end"):
        read_table(struct.pack("<I", len(units)) + units + b"\0", "here")
    for size in (len(units) + 2, len(units) + 4, 2**31):
        with pytest.raises(ModelFileError, match="cut short"):
            read_table(struct.pack("<I", size) + units, "here")


def test_the_longest_replacement_wins_and_replaced_text_is_not_read_again() -> None:
    replace = replacer({"a": "b", "ab": "x", "b": "c", "ne": "aa"})
    assert replace("aab abne nx") == "bx xaa nx" and replace("a") == "b" and replace("") == ""


def test_character_tables_name_every_byte_once() -> None:
    assert character_of_byte()[ord("a")] == "a" and len(set(character_of_byte())) == 256
