"""Token files: written from a stream of texts, mapped, shuffled by blocks, resumed exactly, and refused where broken."""

from __future__ import annotations

import importlib
import json
import math
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.config import build
from firsthand.errors import ConfigError, DataError
from firsthand.train import bpe
from firsthand.train.data_order import order
from firsthand.train.documents import SourceText, encode_documents, read_documents, stream_documents
from firsthand.train.token_file import (
    META,
    STARTS,
    TOKENS,
    BlockBatches,
    PieceIndex,
    is_held_out,
    is_written,
    open_token_file,
    part_of,
    token_digest,
    write_token_file,
)
from firsthand.train.training_run import opened, read_metrics

TEXTS = [SourceText("abc " * n, f"t{n}") for n in (1, 9, 0, 30, 2, 17)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return bpe.train_tokenizer(["abc def"], tmp_path_factory.mktemp("bpe") / "not" / "there", vocab_size=260)


def batches(folder: Path, tokenizer: Any, **settings: Any) -> BlockBatches:
    given = {"batch_tokens": 11, "context": 8, "seed": 3, "block": 4, **settings}
    return BlockBatches(open_token_file(folder, tokenizer), token_digest(folder), **given)


def test_a_token_file_holds_what_encoding_in_memory_gives(tokenizer: Any, tmp_path: Path) -> None:
    tmp_path = tmp_path / "not" / "there"
    corpus, expected = write_token_file(iter(TEXTS), tokenizer, tmp_path), encode_documents(TEXTS, tokenizer)
    assert isinstance(corpus.ids, np.memmap) and corpus.ids.tolist() == expected.ids.tolist()
    assert corpus.starts.tolist() == expected.starts.tolist() and corpus.num_bytes == expected.num_bytes
    assert open_token_file(tmp_path, tokenizer, check=True).num_targets == expected.num_targets


@pytest.mark.parametrize("context", [2, 3, 8, 64])
def test_the_index_finds_the_pieces_without_a_list(context: int, tokenizer: Any) -> None:
    corpus = encode_documents(TEXTS, tokenizer)
    index = PieceIndex.of(corpus, context)
    assert [index[at] for at in range(len(index))] == corpus.pieces(context)


def test_each_epoch_predicts_every_token_once_in_an_order_of_blocks(tokenizer: Any, tmp_path: Path) -> None:
    place = tmp_path / "not" / "there"
    write_token_file(TEXTS[:1], tokenizer, place)
    corpus = write_token_file(TEXTS, tokenizer, place)
    found = batches(place, tokenizer, batch_tokens=corpus.num_targets)
    first, second = ([stream.ids.tolist() for stream in batch] for batch in islice(found, 2))
    whole = sorted(corpus.ids[start:stop].tolist() for start, stop in corpus.pieces(8))
    assert sorted(first) == sorted(second) == whole and first != second
    assert found.epochs == 2 and {len(batch) for batch in islice(batches(place, tokenizer), 1)} != {0}
    numbers = list(islice(batches(place, tokenizer)._numbers(), len(whole)))
    blocks = [number // 4 for number in numbers]
    assert sorted(numbers) == list(range(len(whole))) and numbers != sorted(numbers)
    assert sum(a != b for a, b in pairwise(blocks)) == len(set(blocks)) - 1  # no block twice
    assert order(3, 0, 9, block=0).tolist() != order(3, 0, 9).tolist() != order(3, 0, 9, block=1).tolist()


def test_batches_have_an_exact_size_and_go_on_exactly_from_any_step(tokenizer: Any, tmp_path: Path) -> None:
    write_token_file(TEXTS, tokenizer, tmp_path)
    whole = [[stream.ids.tolist() for stream in batch] for batch in islice(batches(tmp_path, tokenizer), 60)]
    assert {sum(len(ids) - 1 for ids in batch) for batch in whole} == {11}
    for step in (1, 2, 7, 33):
        before, after = batches(tmp_path, tokenizer), batches(tmp_path, tokenizer)
        list(islice(before, step))
        after.load(json.loads(json.dumps(before.state())))
        assert [[stream.ids.tolist() for stream in batch] for batch in islice(after, 60 - step)] == whole[step:]
    for changed in ({"context": 9}, {"block": 5}):
        with pytest.raises(DataError, match="not what the run began with"):
            batches(tmp_path, tokenizer, **changed).load(before.state())
    for bad in ({"context": 1}, {"batch_tokens": 0}, {"block": 0}):
        with pytest.raises(ConfigError):
            batches(tmp_path, tokenizer, **bad)


@pytest.mark.parametrize("batch_tokens", [1, 3])
def test_a_piece_longer_than_several_batches_is_predicted_once(
    batch_tokens: int, tokenizer: Any, tmp_path: Path
) -> None:
    corpus = write_token_file(TEXTS, tokenizer, tmp_path)
    found = batches(tmp_path, tokenizer, batch_tokens=batch_tokens)
    steps = corpus.num_targets // batch_tokens
    pairs = [pair for batch in islice(found, steps) for each in batch for pair in pairwise(each.ids.tolist())]
    pieces = [pairwise(corpus.ids[start:stop].tolist()) for start, stop in corpus.pieces(8)]
    whole = Counter(pair for piece in pieces for pair in piece)
    assert len(pairs) == steps * batch_tokens and not Counter(pairs) - whole


def test_a_broken_file_is_one_sentence(tokenizer: Any, tmp_path: Path) -> None:
    write_token_file(TEXTS, tokenizer, tmp_path / "a")
    path = tmp_path / "a" / TOKENS
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with pytest.raises(DataError, match="delete"):
        open_token_file(tmp_path / "a", tokenizer)
    path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    open_token_file(tmp_path / "a", tokenizer)
    with pytest.raises(DataError, match="SHA-256 differs"):
        open_token_file(tmp_path / "a", tokenizer, check=True)
    path.write_bytes(good)
    (tmp_path / "a" / STARTS).unlink()
    with pytest.raises(DataError, match="has 0 bytes"):
        open_token_file(tmp_path / "a", tokenizer)
    for _ in range(2):
        other = bpe.train_tokenizer(["xyz " * 9], tmp_path / "not" / "there", vocab_size=262)
    with pytest.raises(DataError, match="another tokenizer"):
        open_token_file(tmp_path / "a", other)
    (tmp_path / "a" / META).write_text("{}")
    with pytest.raises(DataError, match="holds no token file"):
        open_token_file(tmp_path / "a", tokenizer)
    with pytest.raises(DataError, match="there is no text"):
        write_token_file([], tokenizer, tmp_path / "none")
    assert not is_written(tmp_path / "none")


@pytest.mark.parametrize(("name", "more"), [(TOKENS, 4), (STARTS, 8)])
def test_a_file_with_bytes_too_many_is_refused(tokenizer: Any, tmp_path: Path, name: str, more: int) -> None:
    write_token_file(TEXTS, tokenizer, tmp_path)
    path = tmp_path / name
    right = path.read_bytes()
    path.write_bytes(right + right[-more:])
    with pytest.raises(DataError) as refused:
        open_token_file(tmp_path, tokenizer)
    assert str(refused.value) == (
        f"{path} has {len(right) + more} bytes of {len(right)}: delete {tmp_path} to have it written again"
    )


def test_a_writer_that_is_stopped_leaves_no_token_file(tokenizer: Any, tmp_path: Path) -> None:
    write_token_file(TEXTS, tokenizer, tmp_path)

    def stopped() -> Iterator[SourceText]:
        yield TEXTS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_token_file(stopped(), tokenizer, tmp_path)
    assert not is_written(tmp_path)


def test_texts_are_read_one_at_a_time(tmp_path: Path) -> None:
    line = json.dumps({"text": "x" * 20_000}) + "\n"
    (tmp_path / "big.jsonl").write_text(line * 400)  # 8 MB
    (tmp_path / "small.txt").write_text("one\r\ntwo")
    tracemalloc.start()
    count = sum(1 for _ in stream_documents([tmp_path]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 401 and peak < 1_000_000
    assert list(stream_documents([tmp_path])) == read_documents([tmp_path])


def test_held_out_documents_are_those_of_their_texts() -> None:
    held = [number for number in range(4000) if is_held_out(str(number), 0.1, seed=0)]
    assert 300 < len(held) < 500 and held != [number for number in range(4000) if is_held_out(str(number), 0.1, seed=1)]
    texts = [SourceText(str(number), "") for number in range(50)]
    parts = [[each.text for each in part_of(texts, 0.3, seed=0, held_out=side)] for side in (True, False)]
    assert sorted(parts[0] + parts[1], key=int) == [each.text for each in texts] and min(map(len, parts)) > 5
    assert not any(is_held_out(str(number), 0.0, seed=0) for number in range(100))


def pretrain(out: Path, *, resume: bool = False, **settings: Any) -> list[float]:
    recipe = importlib.import_module("firsthand.train.recipes.pretrain")
    given = {
        "vocab_size": 270, "batch_tokens": 64, "eval_every": 2, "checkpoint_every": 1, "holdout": 0.2, "layers": 1,
        "hidden_size": 16, "heads": 2, "context": 16,
    }  # fmt: skip
    config = build(recipe.Config, given | settings)
    with opened(out, "pretrain", config, resume=resume) as run:
        recipe.pretrain(config, run)
    return [row["loss"] for row in read_metrics(out)]


@pytest.mark.slow
def test_pretraining_reads_a_token_file_that_is_written_once(tmp_path: Path) -> None:
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"text": f"number {n} and {n * n}"}) + "\n" for n in range(60)))
    given = {"data": (str(data),), "tokens": tmp_path / "tokens"}
    straight = pretrain(tmp_path / "straight", steps=6, schedule="constant", **given)
    written = (tmp_path / "tokens" / "trained" / META).stat().st_mtime_ns
    data.unlink()  # the second run needs the token file alone
    parts = pretrain(tmp_path / "parts", steps=3, schedule="constant", **given)
    pretrain(tmp_path / "parts", resume=True, steps=6, schedule="constant", **given)
    assert len(straight) == 6 and parts == straight[:3]
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("parts", "straight")]
    assert weights[0] == weights[1]
    assert (tmp_path / "tokens" / "trained" / META).stat().st_mtime_ns == written
    data.write_text('{"text": "one document"}\n')
    with pytest.raises(ConfigError, match="no document falls into"):
        pretrain(tmp_path / "one", steps=1, data=(str(data),), tokens=tmp_path / "other", holdout=1e-9)


def rewritten(folder, *, starts=None, **fields):
    """The meta with other fields, and the file of starts with other numbers, whose hash is right."""
    meta = json.loads((folder / "tokens.json").read_text())
    if starts is not None:
        (folder / "starts.bin").write_bytes(np.array(starts, dtype="<i8").tobytes())
        meta["documents"] = len(starts) - 1
    (folder / "tokens.json").write_text(json.dumps({k: v for k, v in {**meta, **fields}.items() if v is not None}))


@pytest.mark.parametrize(
    "starts",
    [
        lambda n: [0, 2**50, n],
        lambda n: [-5, 3, n],
        lambda n: [0, n - 1],
        lambda n: [0, 9, 3, n],
        lambda n: [-(2**62), 2**62, n],
    ],
)
def test_starts_that_do_not_divide_the_tokens_are_refused(tokenizer, tmp_path, starts):
    corpus = write_token_file(TEXTS, tokenizer, tmp_path)
    rewritten(tmp_path, starts=starts(len(corpus.ids)))
    with pytest.raises(DataError, match="does not divide the tokens"):
        open_token_file(tmp_path, tokenizer)


@pytest.mark.parametrize(
    "fields",
    [
        {"tokens": math.inf},
        {"split": [1]},
        {"split": {"fraction": 0.1}},
        {"split": "x"},
        {"split": {}},
        {"bytes": None},
        {"bytes": "x"},
        {"tokenizer": None},
        {"sha256": {}},
        {"documents": [1]},
    ],
)
def test_a_meta_that_is_none_is_refused(tokenizer, tmp_path, fields):
    write_token_file(TEXTS, tokenizer, tmp_path)
    rewritten(tmp_path, **fields)
    with pytest.raises(DataError, match="holds no token file"):
        open_token_file(tmp_path, tokenizer)


def test_a_token_file_of_nothing_is_refused(tokenizer, tmp_path):
    write_token_file(TEXTS, tokenizer, tmp_path)
    (tmp_path / "tokens.bin").write_bytes(b"")
    rewritten(tmp_path, starts=[0, 0], tokens=0)
    with pytest.raises(DataError, match="has no tokens"):
        open_token_file(tmp_path, tokenizer)


def test_documents_without_tokens_are_documents_of_a_token_file(tokenizer: Any, tmp_path: Path) -> None:
    n = len(write_token_file(TEXTS, tokenizer, tmp_path).ids)
    for starts in ([0, n], [0, 0, n], [0, 3, 3, n], [0, 3, n, n], [0, 0, 0, n, n]):
        rewritten(tmp_path, starts=starts)
        found = open_token_file(tmp_path, tokenizer)
        assert (found.starts.tolist(), len(found.ids)) == (starts, n)
    rewritten(tmp_path, starts=[0, 3, 2, n])
    with pytest.raises(DataError) as refused:
        open_token_file(tmp_path, tokenizer)
    told = f"{tmp_path / STARTS} does not divide the tokens into documents: delete {tmp_path} to have it written again"
    assert str(refused.value) == told
