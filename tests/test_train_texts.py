"""Texts as training data: files in their order, pieces and splits at their ends, and exact batches from any position."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.train import documents
from firsthand.train.data_order import split
from firsthand.train.documents import (
    Corpus,
    DocumentBatches,
    SourceText,
    encode_documents,
    json_lines,
    read_documents,
    split_documents,
    stream_documents,
    text_field,
    whole_pieces,
)
from firsthand.train.token_file import BlockBatches, PieceIndex, is_held_out, part_of
from tiny import CHATML, write_tokenizer


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, template=CHATML)
    tokenizer = pretrained.load(folder)
    return tokenizer, ChatTemplate(tokenizer, CHATML)


def refused(act: Callable[[], Any], kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as raised:
        act()
    return str(raised.value)


# -- files --


def test_texts_come_from_files_in_order_without_what_is_excluded(tmp_path: Path) -> None:
    for name, text in (("b/z.txt", "z"), ("b/a.py", "a"), ("test_x/c.txt", "c"), ("a.txt", ""), ("d.txt", "d")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "lines.jsonl").write_text('{"text": "one"}\n\n{"text": "two"}\n')
    (tmp_path / "more.jsonl.gz").write_bytes(gzip.compress(b'{"text": "three"}'))
    found = read_documents([tmp_path], exclude=["test*"])
    root = str(tmp_path)
    assert found == [
        SourceText("a", f"{root}/b/a.py"), SourceText("z", f"{root}/b/z.txt"), SourceText("d", f"{root}/d.txt"),
        SourceText("one", f"{root}/lines.jsonl:1"), SourceText("two", f"{root}/lines.jsonl:3"),
        SourceText("three", f"{root}/more.jsonl.gz:1"),
    ]  # fmt: skip
    assert [each.text for each in read_documents([tmp_path], suffixes=[".txt"], exclude=["b/z.txt"])] == ["d", "c"]
    assert [each.text for each in stream_documents([tmp_path / "d.txt", tmp_path / "b"], suffixes=[".py"])] == [
        "d",
        "a",
    ]
    assert refused(lambda: read_documents([tmp_path / "a.txt"])) == (
        f"there is no text in {tmp_path / 'a.txt'}: give a file, a folder, or other suffixes"
    )
    assert refused(lambda: read_documents([tmp_path / "none"])) == (
        f"there is no file or folder {tmp_path / 'none'}: give a text, a .jsonl file, or a folder of them"
    )


def test_a_bad_line_is_named_with_its_place_and_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.jsonl"

    def said(raw: bytes) -> str:
        file.write_bytes(raw)
        return refused(lambda: list(json_lines(file))).removeprefix(str(file))

    assert (
        said(b'{}\n \n{"a": \n').startswith(":3 is no JSON (")
        and said(b"\n[1]") == ":2 is list: expected a JSON object"
    )
    assert said(b'{"a": 1}\n\xff') == " is not UTF-8 text (byte 9): convert it, or leave it out"
    monkeypatch.setattr(documents, "MAX_LINE_BYTES", 1 << 20)
    assert said(b"{}\n" + b" " * ((1 << 20) + 1)) == " has a line of more than 1 MiB after byte 3"
    file.write_bytes(b"{}\n" + b" " * ((1 << 20) - 1) + b"\n{}")
    assert [where for _, where in json_lines(file)] == [f"{file}:1", f"{file}:3"], "a line of exactly the limit is read"
    packed = tmp_path / "x.jsonl.gz"
    packed.write_bytes(gzip.compress(b"{}")[:-9])
    assert refused(lambda: list(json_lines(packed))).startswith(f"{packed} is no whole gzip file (")
    whole = gzip.compress(b'{"text": "' + bytes(range(97, 123)) * 9 + b'"}\n', mtime=0)
    for content, why in (
        (whole[:-9], "Compressed file ended before the end-of-stream marker was reached"),
        (whole[:10] + b"\xff" + whole[11:], "Error -3 while decompressing data: "),
        (whole[:-8] + bytes(8), "CRC check failed "), (b"{}\n", "Not a gzipped file (b'{}')"),
    ):  # fmt: skip
        packed.write_bytes(content)
        end = "): download it again, or unpack it"
        for read in (lambda: list(json_lines(packed)), lambda: read_documents([packed])):
            told = refused(read)
            assert told.startswith(f"{packed} is no whole gzip file ({why}") and told.endswith(end), told
    packed.write_bytes(whole)
    assert [body["text"][:3] for body, _ in json_lines(packed)] == ["abc"]
    bodies = {
        '{"text": ""}': "is empty",
        '{"text": 3}': "came as int",
        '{"text": null, "a": 1}': "came as NoneType",
        '{"text": ["a"]}': "came as list",
        '{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6, "g": 7}': "is missing of a, b, c, d, e, f",
        '{"b": 1, "a": 2}': "is missing of b, a",
        "{}": "is missing of none",
    }
    for body, told in bodies.items():
        assert (
            refused(lambda b=body: text_field(json.loads(b), "f:1")) == f"f:1: the field `text` {told}: expected a text"
        )  # type: ignore[misc]


def test_documents_are_split_by_number_or_one_after_a_line() -> None:
    one = [SourceText("aaaa\nbbbb\ncccc", "f")]
    assert split_documents(one, 0) == (one, [])
    assert [[each.text for each in side] for side in split_documents(one, 0.2)] == [["aaaa\nbbbb\n"], ["cccc"]]
    assert [[each.text for each in side] for side in split_documents([SourceText("abcdefgh", "f")], 0.25)] == [
        ["abcdef"],
        ["gh"],
    ]
    assert "too short to hold out a part" in refused(lambda: split_documents([SourceText("a", "f")], 0.5), ConfigError)
    for fraction in (-0.1, 1.0):
        assert "expected a fraction from 0 to below 1" in refused(
            lambda f=fraction: split_documents(one, f), ConfigError
        )  # type: ignore[misc]
    assert [len(side) for side in split_documents([SourceText(str(n), "f") for n in range(4)], 0.25)] == [3, 1]
    many = [SourceText(str(n), f"f{n}") for n in range(9)]
    found = [split_documents(many, 0.34, seed=seed) for seed in range(4)]
    assert found == [split(many, 0.34, seed=seed) for seed in range(4)] and split_documents(many, 0.34) == found[0]
    assert len({tuple(each.text for each in held) for _, held in found}) == 4, "each seed holds out others"


@pytest.mark.parametrize(("begin", "end"), [(True, True), (False, True), (True, False)])
def test_documents_begin_with_the_end_token_where_there_is_no_begin_token(
    begin: bool, end: bool, tmp_path: Path
) -> None:
    write_tokenizer(tmp_path, template=None)
    path = tmp_path / "tokenizer_config.json"
    kept = {"bos_token": begin, "eos_token": end}
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if kept.get(k, True)}))
    tokenizer = pretrained.load(tmp_path)
    assert (tokenizer.bos_id is not None, tokenizer.eos_id is not None) == (begin, end)
    texts = [SourceText("hi", "a"), SourceText("", "b"), SourceText("é", "c")]
    if not end:
        assert refused(lambda: encode_documents(texts, tokenizer)) == (
            "the tokenizer has no end token, so a model could not learn where texts end: name an eos_token"
        )
        return
    first, last = (tokenizer.bos_id if begin else tokenizer.eos_id), tokenizer.eos_id
    parts = [[first, *tokenizer.encode(each.text), last] for each in texts]
    corpus = encode_documents(iter(texts), tokenizer)
    assert corpus.ids.tolist() == [token for part in parts for token in part] and corpus.ids.dtype == np.int32
    sizes = [len(part) for part in parts]
    assert corpus.starts.tolist() == [0, sizes[0], sizes[0] + 2, sum(sizes)]
    assert (sizes[1], corpus.num_bytes, corpus.num_targets) == (2, 2 + 0 + 2, sum(sizes) - 3)


def test_documents_are_encoded_between_begin_and_end_and_pieces_overlap_by_a_token(load: Any) -> None:
    tokenizer, _ = load
    corpus = encode_documents([SourceText("hi", "a"), SourceText("é\ud800", "b")], tokenizer)
    begin = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    first = [begin, *tokenizer.encode("hi"), tokenizer.eos_id]
    assert corpus.ids[: len(first)].tolist() == first and corpus.starts.tolist()[:2] == [0, len(first)]
    assert corpus.num_bytes == 2 + 3 and corpus.num_targets == len(corpus.ids) - 2
    empty = encode_documents([], tokenizer)
    assert (len(empty.ids), empty.starts.tolist(), empty.num_targets) == (0, [0], 0)
    made = Corpus(np.arange(12, dtype=np.int32), np.array([0, 1, 3, 8, 12]), 9)
    assert made.pieces(4) == [(1, 3), (3, 7), (6, 8), (8, 12)] and made.pieces(3) == [
        (1, 3),
        (3, 6),
        (5, 8),
        (8, 11),
        (10, 12),
    ]
    for context in (2, 3, 4, 5, 9):
        index = PieceIndex.of(made, context)
        assert [index[n] for n in range(len(index))] == made.pieces(context)
    pieces = whole_pieces(made, 4)
    assert [each.ids.tolist() for each in pieces] == [[1, 2], [3, 4, 5, 6], [6, 7], [8, 9, 10, 11]]
    assert pieces[1].ce is not None and pieces[1].ce.tolist() == [0, 1, 1, 1]
    for size, context in ((0, 4), (4, 1)):
        assert "expected 2 and 1 or more" in refused(
            lambda s=size, c=context: DocumentBatches(made, batch_tokens=s, context=c), ConfigError
        )  # type: ignore[misc]
    for options in ({"batch_tokens": 0}, {"context": 1}, {"block": 0}):
        given = {"batch_tokens": 1, "context": 2, "block": 1} | options
        assert "expected 2, 1 and 1 or more" in refused(lambda g=given: BlockBatches(made, "d", **g), ConfigError)  # type: ignore[misc]
    single = Corpus(np.arange(2, dtype=np.int32), np.array([0, 1, 2]), 2)
    assert "no token to predict" in refused(lambda: BlockBatches(single, "d", batch_tokens=1, context=2), ConfigError)


@pytest.mark.parametrize("make", ["documents", "blocks"])
def test_batches_are_exact_whatever_the_piece_and_go_on_from_any_state(make: str) -> None:
    corpus = Corpus(np.arange(23, dtype=np.int32), np.array([0, 5, 6, 14, 23]), 1)

    def begun() -> Any:
        if make == "documents":
            return DocumentBatches(corpus, batch_tokens=4, context=4, seed=2)
        return BlockBatches(corpus, "hash", batch_tokens=4, context=4, seed=2, block=2)

    batches = begun()
    source = iter(batches)
    states, found = [dict(batches.state())], []
    for _ in range(12):
        found.append([each.ids.tolist() for each in next(source)])
        states.append(dict(batches.state()))
    assert all(sum(len(ids) - 1 for ids in batch) == 4 for batch in found)
    predicted = [token for batch in found for ids in batch for token in ids[1:]]
    epoch = sorted(set(range(23)) - {0, 5, 6, 14})
    assert sorted(predicted[:19]) == epoch and sorted(predicted[19:38]) == epoch and predicted[:19] != predicted[19:38]
    for at in range(12):
        again = begun()
        again.load(states[at])
        assert [each.ids.tolist() for each in next(iter(again))] == found[at]
    assert all(each.ce is not None and each.ce[1:].all() for each in next(source))
    other = begun()
    with pytest.raises(DataError, match="the data is not what the run began with"):
        other.load({**states[0], "data": "x"})
    with pytest.raises(ValueError, match="its position in the data is"):
        other.load({**states[0], "offset": -1})


def test_documents_are_held_out_by_their_text_alone() -> None:
    held = [n for n in range(4000) if is_held_out(str(n), 0.25, seed=1)]
    assert 900 < len(held) < 1100 and held != [n for n in range(4000) if is_held_out(str(n), 0.25, seed=2)]
    assert not any(is_held_out(str(n), 0.0, seed=1) for n in range(99)) and all(
        is_held_out(str(n), 1.0, seed=1) for n in range(99)
    )
    texts = [SourceText(str(n), "f") for n in range(40)]
    out, kept = (list(part_of(texts, 0.25, seed=1, held_out=each)) for each in (True, False))
    assert [int(each.text) for each in out] == [n for n in held if n < 40] and len(out) + len(kept) == 40
    twice = [each for text in texts for each in (text, SourceText(text.text, "copy"))]
    assert [each.text for each in part_of(twice, 0.25, seed=1, held_out=True)] == [t.text for t in out for _ in "12"]
    assert not is_held_out("\ud800", 0.0, seed=1), "any text has a hash"


def test_a_byte_that_is_no_utf_8_is_named_by_its_place_in_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n" + "zw\u00f6lf\n".encode() + b"x\xff\n")
    assert refused(lambda: documents.read_documents([path])) == (
        f"{path} is not UTF-8 text (byte 12): convert it, or leave it out"
    )


def test_a_text_of_blanks_is_a_text_and_an_empty_one_is_none(tmp_path: Path) -> None:
    for name, text in (("a.txt", " \n"), ("b.txt", ""), ("c.txt", "c")):
        (tmp_path / name).write_text(text)
    assert [each.text for each in stream_documents([tmp_path])] == [" \n", "c"]
