"""Pretraining in rehearsal: its texts in memory and in a token file, the tokenizer it trains, and tokens that are added."""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tiny
from engine_tiny import tiny_model
from firsthand.errors import ConfigError, DataError, StoreError
from firsthand.nn import weights
from firsthand.nn.decoder import Decoder, initialise
from firsthand.system.lock import held
from firsthand.tokens import pretrained
from firsthand.train import documents, token_file
from firsthand.train.added_tokens import _fill, with_added_tokens
from firsthand.train.bits_per_byte import held_out_loss
from firsthand.train.bpe import train_tokenizer
from firsthand.train.data_order import digest, order
from firsthand.train.documents import Corpus, DocumentBatches, SourceText, encode_documents, whole_pieces
from firsthand.train.model_folder import save_model
from firsthand.train.objective import Objective
from firsthand.train.pretraining_texts import in_memory, in_token_file
from firsthand.train.recipe_settings import LoopSettings, ModelSettings
from firsthand.train.recipes.pretrain import Config, pretrain
from firsthand.train.token_file import BlockBatches, PieceIndex, open_token_file, write_token_file
from firsthand.train.toy_tasks.toy_models import toy_model
from train_rehearsal import Rehearsal, write_lines

torch.set_num_threads(1)
SMALL = ModelSettings(layers=1, hidden_size=16, heads=2, context=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    place = tmp_path / "texts"
    (place / "drafts").mkdir(parents=True)
    write_lines(place / "a.jsonl", [{"text": f"line {n}\né" + "12 " * n} for n in range(6)])
    (place / "b.txt").write_text("not of this suffix")
    write_lines(place / "drafts" / "c.jsonl", [{"text": "left out"}])
    return place


def config_of(texts: Path, **settings: Any) -> Config:
    given = {
        "suffixes": (".jsonl",),
        "exclude": ("drafts",),
        "vocab_size": 262,
        "holdout": 0.34,
        "model": SMALL,
        **settings,
    }
    return Config((str(texts),), **given)


def read(texts: Path) -> list[SourceText]:
    return [SourceText(f"line {n}\né" + "12 " * n, f"{texts / 'a.jsonl'}:{n + 1}") for n in range(6)]


def test_texts_in_memory_train_a_tokenizer_on_what_is_not_held_out(texts: Path, tmp_path: Path) -> None:
    config, run = config_of(texts), Rehearsal(tmp_path / "run", LoopSettings(seed=3))
    found = in_memory(config, run)
    trained, held_out = documents.split_documents(read(texts), 0.34, seed=3)
    own = train_tokenizer((each.text for each in trained), tmp_path / "again", vocab_size=262)
    assert (found.tokenizer.fingerprint, found.tokenizer.vocab_size) == (own.fingerprint, 262)
    assert found.source == run.folder / "tokenizer" and found.digest == "" and len(held_out) == 2
    for corpus, rows in ((found.corpus, trained), (found.unseen, held_out)):
        expected = encode_documents(rows, own)
        assert corpus.ids.tolist() == expected.ids.tolist() and corpus.starts.tolist() == expected.starts.tolist()
        assert corpus.num_bytes == sum(len(each.text.encode()) for each in rows)
    assert str(found) == f"4 documents, {len(found.corpus.ids) - 4:,} tokens; 2 documents held out"
    batches = found.batches(7, 8, 5)
    assert isinstance(batches, DocumentBatches) and (batches.batch_tokens, batches.seed) == (7, 5)
    assert batches._pieces == found.corpus.pieces(8)


def test_a_resumed_run_keeps_its_tokenizer_and_a_given_one_is_taken(texts: Path, tmp_path: Path, folder: Path) -> None:
    run = Rehearsal(tmp_path / "run", LoopSettings())
    in_memory(config_of(texts), run)
    marked = run.folder / "tokenizer" / "tokenizer_config.json"
    before = marked.read_text()
    for is_resumed in (True, False):
        marked.write_text(before.replace("{", '{"marked": 1,', 1))
        in_memory(config_of(texts), Rehearsal(run.folder, LoopSettings(), is_resumed=is_resumed))
        assert ("marked" in marked.read_text()) == is_resumed, "only a resumed run reads what is there"
    marked.unlink()  # stopped before it was whole
    in_memory(config_of(texts), Rehearsal(run.folder, LoopSettings(), is_resumed=True))
    assert marked.exists()
    given = in_memory(config_of(texts, tokenizer=str(folder)), Rehearsal(tmp_path / "other", LoopSettings()))
    assert given.source == folder and not (tmp_path / "other" / "tokenizer").exists()
    assert given.tokenizer.fingerprint == pretrained.load(folder).fingerprint


def test_a_token_file_is_written_once_with_its_tokenizer(texts: Path, tmp_path: Path, folder: Path) -> None:
    place = tmp_path / "tokens"
    run = Rehearsal(tmp_path / "run", LoopSettings(seed=1))
    found = in_token_file(config_of(texts, tokens=place), run)
    parts = [list(token_file.part_of(iter(read(texts)), 0.34, seed=1, held_out=each)) for each in (False, True)]
    own = train_tokenizer((each.text for each in parts[0]), tmp_path / "again", vocab_size=262)
    assert parts[0] and parts[1] and found.tokenizer.fingerprint == own.fingerprint
    for corpus, rows in ((found.corpus, parts[0]), (found.unseen, parts[1])):
        expected = encode_documents(rows, own)
        assert corpus.ids.tolist() == expected.ids.tolist() and corpus.num_bytes == expected.num_bytes
    assert found.source == place / "tokenizer" and not (run.folder / "tokenizer").exists()
    assert found.digest == json.loads((place / "trained" / "tokens.json").read_text())["sha256"]["tokens.bin"]
    batches = found.batches(7, 8, 5)
    assert isinstance(batches, BlockBatches) and (batches.batch_tokens, batches.seed) == (7, 5)
    assert batches.state() == {"drawn": 0, "offset": 0, "data": f"{found.digest}:8:4096"}
    again = in_token_file(config_of(tmp_path / "gone", tokens=place), run)
    assert again.corpus.ids.tolist() == found.corpus.ids.tolist(), "what is there is read in place of the texts"
    (place / "held_out" / "tokens.json").unlink()
    mended = in_token_file(config_of(texts, tokens=place), run)
    assert mended.unseen.ids.tolist() == found.unseen.ids.tolist()
    whole = in_token_file(config_of(texts, tokens=tmp_path / "whole", holdout=0.0, tokenizer=str(folder)), run)
    assert len(whole.unseen.ids) == 0 and whole.unseen.starts.tolist() == [0] and len(whole.corpus.starts) == 7
    assert (whole.source, (tmp_path / "whole" / "held_out").exists()) == (folder, False)
    with pytest.raises(ConfigError) as refused:
        in_token_file(config_of(texts, tokens=tmp_path / "none", holdout=1e-9), run)
    assert str(refused.value) == (
        "no document falls into the 1e-09 that are held out: give more documents, a larger --holdout, or --holdout 0"
    )


def files_of(place: Path) -> dict[str, tuple[int, bytes]]:
    """Inode and content of each file of a folder of tokens, the lock left out."""
    return {
        str(each.relative_to(place)): (each.stat().st_ino, each.read_bytes())
        for each in sorted(place.rglob("*"))
        if each.is_file() and each.name != ".lock"
    }


def test_tokens_that_are_whole_are_not_written_again_by_a_run_with_another_holdout(
    texts: Path, tmp_path: Path, folder: Path
) -> None:
    place, run = tmp_path / "tokens", Rehearsal(tmp_path / "run", LoopSettings(seed=1))
    in_token_file(config_of(texts, tokens=place, holdout=0.0), run)
    before = files_of(place)
    with pytest.raises(ConfigError) as refused:
        in_token_file(config_of(texts, tokens=place), run)
    assert str(refused.value) == (
        f"{place} was filled with --holdout 0, and --holdout 0.34 was asked for: give --holdout 0, or another folder"
    )
    (place / "tokenizer" / "tokenizer_config.json").rename(tmp_path / "kept")
    with pytest.raises(ConfigError) as refused:
        in_token_file(config_of(texts, tokens=place, holdout=0.0), run)
    assert str(refused.value) == (
        f"{place} has no tokenizer beside its tokens: give --tokenizer as it was filled, or another folder"
    )
    (tmp_path / "kept").rename(place / "tokenizer" / "tokenizer_config.json")
    meta = json.loads((place / "trained" / "tokens.json").read_text())
    (place / "trained" / "tokens.json").write_text(json.dumps({k: v for k, v in meta.items() if k != "split"}))
    with pytest.raises(ConfigError) as refused:
        in_token_file(config_of(texts, tokens=place), run)
    assert str(refused.value) == (
        f"{place / 'trained'} does not say which documents it holds (a version before 0.23 wrote it), so that nothing can "
        f"be written beside it: give another folder, or delete {place} if no run reads it"
    )
    assert len(in_token_file(config_of(texts, tokens=place, holdout=0.0), run).corpus.starts) == 7, "it is still read"
    (place / "trained" / "tokens.json").write_bytes(before["trained/tokens.json"][1])
    assert files_of(place) == before


def test_a_part_that_is_missing_is_written_by_the_split_and_from_the_texts_of_the_other(
    texts: Path, tmp_path: Path, folder: Path
) -> None:
    place, run = tmp_path / "tokens", Rehearsal(tmp_path / "run", LoopSettings(seed=1))
    others = Rehearsal(tmp_path / "others", LoopSettings(seed=6))  # whose own seed holds none of them out
    made = in_token_file(config_of(texts, tokens=place), run)
    before = files_of(place)
    assert (
        str(made) == f"{len(made.corpus.starts) - 1} documents, {made.corpus.num_targets:,} tokens; 1 document held out"
    )
    for part, holdout in (("held_out", 0.2), ("trained", 0.0), ("trained", 0.34)):
        (place / part / "tokens.json").unlink()
        kept = {name: each for name, each in files_of(place).items() if not name.startswith(part)}
        found = in_token_file(config_of(texts, tokens=place, holdout=holdout), others)
        assert {name: each[1] for name, each in files_of(place).items()} == {n: each[1] for n, each in before.items()}
        assert kept.items() <= files_of(place).items(), "what was whole was not written again"
        told = (
            f" (not --holdout {holdout:g}: {place} was filled with --holdout 0.34)" if holdout != 0.34 else "held out"
        )
        assert str(found).endswith(told)
    given = config_of(texts, tokens=tmp_path / "given", tokenizer=str(folder))
    in_token_file(given, run)
    (tmp_path / "given" / "held_out" / "tokens.json").unlink()
    assert len(in_token_file(given, run).unseen.starts) == 2, (
        "a folder filled with a given tokenizer has none of its own"
    )
    (place / "held_out" / "tokens.json").unlink()
    with pytest.raises(DataError, match="another tokenizer"):
        in_token_file(config_of(texts, tokens=place, tokenizer=str(folder)), run)
    assert not token_file.is_written(place / "held_out")
    with (texts / "a.jsonl").open("a") as file:
        file.write('{"text": "one more"}\n')
    with pytest.raises(DataError) as refused:
        in_token_file(config_of(texts, tokens=place), run)
    assert str(refused.value) == (
        f"the texts are not those that {place} was filled from, and its part held_out is missing: give the same texts in "
        "the same order, or another folder"
    )
    assert not token_file.is_written(place / "held_out")


def test_texts_that_are_divided_elsewhere_are_others_and_any_text_has_a_hash(tmp_path: Path, folder: Path) -> None:
    tokenizer = pretrained.load(folder)

    def write(split: token_file.Split, *said: str) -> token_file.Split | None:
        token_file.write_part([SourceText(each, "a") for each in said], tokenizer, tmp_path, split, held_out=False)
        return token_file.split_of(tmp_path)

    split = write(token_file.Split(0.0, 3), "ab", "c\ud800")
    assert split is not None and (split.fraction, split.seed) == (0.0, 3)
    assert write(split, "ab", "c\ud800") == split
    for others in (("a", "bc\ud800"), ("ab", "c?"), ("ab",), ("c\ud800", "ab")):
        with pytest.raises(DataError, match="the texts are not those"):
            write(split, *others)


@pytest.mark.parametrize("name", ["trained/tokens.bin", "trained/starts.bin", "held_out/tokens.bin"])
def test_tokens_that_changed_at_equal_size_are_refused_when_a_run_begins(
    name: str, texts: Path, tmp_path: Path
) -> None:
    place, run = tmp_path / "tokens", Rehearsal(tmp_path / "run", LoopSettings(seed=1))
    in_token_file(config_of(texts, tokens=place), run)
    changed = place / name
    raw = changed.read_bytes()
    changed.write_bytes(bytes(8) + bytes([raw[8] ^ 1]) + raw[9:])
    os.utime(changed, ns=(1, 1))  # a later change has another time
    with pytest.raises(DataError) as refused:
        in_token_file(config_of(texts, tokens=place), run)
    assert str(refused.value) == (
        f"{changed} is not what was written (its SHA-256 differs): delete {changed.parent} to have it again"
    )
    changed.unlink()
    with pytest.raises(DataError, match="has 0 bytes of"):
        in_token_file(config_of(texts, tokens=place), run)


def test_tokens_are_read_once_for_their_hash(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    place, run = tmp_path / "tokens", Rehearsal(tmp_path / "run", LoopSettings(seed=1))
    in_token_file(config_of(texts, tokens=place), run)
    remembered = sorted((tmp_path / "home").rglob("hashes/*"))
    assert len(remembered) == 4, "two files of each part"
    for each in remembered:
        each.write_text("f" * 64)
    with pytest.raises(DataError, match="SHA-256 differs"):
        in_token_file(config_of(texts, tokens=place), run)


def test_of_two_runs_that_come_at_once_one_fills_the_folder_of_tokens(texts: Path, tmp_path: Path) -> None:
    whole, place, run = tmp_path / "whole", tmp_path / "tokens", Rehearsal(tmp_path / "run", LoopSettings(seed=1))
    made = in_token_file(config_of(texts, tokens=whole), run)
    (whole / ".lock").unlink()
    in_token_file(config_of(texts, tokens=whole), run)
    assert not (whole / ".lock").exists(), "a whole one is read without the lock"
    for unwritten in ("tokenizer/tokenizer_config.json", "trained/tokens.json", "held_out/tokens.json"):
        (whole / unwritten).unlink()  # the maker of the tokenizer was stopped
    assert in_token_file(config_of(texts, tokens=whole), run).digest == made.digest
    place.mkdir()
    with ThreadPoolExecutor(1) as second:
        with held(place / ".lock"):
            waits = second.submit(in_token_file, config_of(texts, tokens=place), run)
            time.sleep(0.3)
            assert not waits.done() and [each.name for each in place.iterdir()] == [".lock"], "it waits for the first"
            shutil.copytree(whole, place, dirs_exist_ok=True)
            files = {each: each.stat().st_ino for each in place.rglob("*.*") if each.is_file()}
        found = waits.result()
    assert found.corpus.ids.tolist() == made.corpus.ids.tolist()
    assert files == {each: each.stat().st_ino for each in files}, "what the first wrote is read, not written again"


def test_the_recipe_begins_with_fresh_weights_and_tells_the_bits_of_held_out_texts(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = LoopSettings(seed=3, steps=5, micro_tokens=20)
    config = config_of(texts, loop=loop, batch_tokens=9, eval_every=2)
    run = Rehearsal(tmp_path / "run", loop)
    assert pretrain(config, run) == tmp_path / "run" / "model"
    found = in_memory(config, Rehearsal(tmp_path / "other", loop))
    assert capsys.readouterr().out == f"{found}\n"
    made, batches, evaluate = (run.told.pop(name) for name in ("model", "batches", "evaluate"))
    assert run.told == {"objective": Objective(ce=1.0), "optimizer": config.optimizer, "schedule": config.schedule}
    assert (batches.batch_tokens, batches.seed, batches._pieces) == (9, 3, found.corpus.pieces(8))
    fresh = initialise(Decoder(SMALL.architecture(262)), seed=3)
    assert all(torch.equal(one, two) for one, two in zip(made.parameters(), fresh.parameters(), strict=True))
    loss = held_out_loss(fresh, whole_pieces(found.unseen, 8), found.unseen.num_bytes)
    told = pytest.approx({"held_out_loss": loss.loss, "bits_per_byte": loss.bits_per_byte})
    assert [evaluate(step) for step in (1, 2, 3, 4, 5)] == [{}, told, {}, told, told]
    assert run.saved.pop("tokenizer").fingerprint == found.tokenizer.fingerprint
    assert run.saved == {"model": made, "base": run.folder / "tokenizer"}
    run = Rehearsal(tmp_path / "plain", loop)
    pretrain(config_of(texts, loop=loop, holdout=0.0, tokens=tmp_path / "tokens"), run)
    assert run.told["evaluate"](5) == {} and isinstance(run.told["batches"], BlockBatches)
    for name, least in (("batch_tokens", 1), ("eval_every", 1), ("vocab_size", 259)):
        config_of(texts, **{name: least})
        with pytest.raises(ConfigError) as refused:
            config_of(texts, **{name: least - 1})
        assert str(refused.value) == f"{name} is {least - 1}: expected {least} or more"
    with pytest.raises(ConfigError, match="steps is 0: expected 1 or more"):
        config_of(texts, loop=LoopSettings(steps=0))


def corpus_of(*sizes: int) -> Corpus:
    return Corpus(np.arange(sum(sizes), dtype=np.int32), np.cumsum([0, *sizes]).astype(np.int64), 99)


def test_pieces_overlap_by_a_token_and_a_full_batch_cuts_the_last() -> None:
    corpus = corpus_of(5, 1, 3, 9)
    pieces = [(0, 4), (3, 5), (6, 9), (9, 13), (12, 16), (15, 18)]
    assert corpus.pieces(4) == pieces and corpus.num_targets == 14
    index = PieceIndex.of(corpus, 4)
    assert len(index) == 6 and [index[number] for number in range(6)] == pieces
    assert [each.ids.tolist() for each in whole_pieces(corpus, 4)] == [list(range(*piece)) for piece in pieces]
    for made, size in (
        (DocumentBatches(corpus, batch_tokens=5, context=4, seed=7), 5),
        (DocumentBatches(corpus, batch_tokens=1, context=4, seed=7), 1),
        (BlockBatches(corpus, "d", batch_tokens=1, context=4, seed=7, block=4), 1),
        (BlockBatches(corpus, "d", batch_tokens=5, context=4, seed=7, block=4), 5),
    ):
        targets: list[int] = []
        states = []
        for batch in islice(made, 6):
            assert sum(len(each) - 1 for each in batch) == size
            assert all(each.ce is not None and each.ce.tolist() == [0.0] + [1.0] * (len(each) - 1) for each in batch)
            assert all(np.diff(each.ids).tolist() == [1] * (len(each) - 1) for each in batch)
            targets += [id for each in batch for id in each.ids[1:].tolist()]
            states.append(made.state())
        ordered = []
        for epoch in range(3):
            if isinstance(made, DocumentBatches):
                numbers = order(7, epoch, 6).tolist()
            else:
                blocks = {0: (0, 4), 1: (4, 2)}
                numbers = [first + each for block in order(7, epoch, 2).tolist() for first, count in [blocks[block]]
                           for each in order(7, epoch, count, block=block).tolist()]  # fmt: skip
            ordered += [id for number in numbers for id in range(pieces[number][0] + 1, pieces[number][1])]
        assert targets == ordered[: 6 * size] and made.epochs == made.drawn / 6
        for at, state in enumerate(states[:-1]):
            made.load(state)
            found = [id for each in next(iter(made)) for id in each.ids[1:].tolist()]
            assert found == ordered[size * (at + 1) : size * (at + 2)]
    assert made.state()["data"] == "d:4:4" and DocumentBatches(
        corpus, batch_tokens=5, context=4
    ).state() == {"drawn": 0, "offset": 0, "data": digest([corpus.ids])}  # fmt: skip


def test_batches_without_a_token_to_predict_are_refused() -> None:
    for context, tokens in ((1, 1), (2, 0)):
        with pytest.raises(ConfigError) as refused:
            DocumentBatches(corpus_of(3), batch_tokens=tokens, context=context)
        assert str(refused.value) == f"context is {context} and batch_tokens {tokens}: expected 2 and 1 or more"
    for context, tokens, block in ((1, 1, 1), (2, 0, 1), (2, 1, 0)):
        with pytest.raises(ConfigError) as refused:
            BlockBatches(corpus_of(3), "d", batch_tokens=tokens, context=context, block=block)
        assert str(refused.value) == (
            f"context is {context}, batch_tokens {tokens} and block {block}: expected 2, 1 and 1 or more"
        )
    for make in (lambda: DocumentBatches(corpus_of(1, 1), batch_tokens=1, context=2),
                 lambda: BlockBatches(corpus_of(1, 1), "d", batch_tokens=1, context=2)):  # fmt: skip
        with pytest.raises(ConfigError, match="the texts have no token to predict: give more text"):
            make()
    DocumentBatches(corpus_of(2), batch_tokens=1, context=2)
    BlockBatches(corpus_of(2), "d", batch_tokens=1, context=2, block=1)


def test_a_token_file_tells_what_is_wrong_with_it(tmp_path: Path, folder: Path) -> None:
    tokenizer = pretrained.load(folder)
    place = tmp_path / "t"
    corpus = write_token_file([SourceText("12 é", "a"), SourceText("x", "b")], tokenizer, place)
    expected = encode_documents([SourceText("12 é", "a"), SourceText("x", "b")], tokenizer)
    assert (corpus.ids.tolist(), corpus.starts.tolist(), corpus.num_bytes) == (
        expected.ids.tolist(), expected.starts.tolist(), 6
    )  # fmt: skip
    meta = json.loads((place / "tokens.json").read_text())
    assert {name: meta[name] for name in ("documents", "tokens", "bytes", "tokenizer")} == {
        "documents": 2, "tokens": len(expected.ids), "bytes": 6, "tokenizer": tokenizer.fingerprint
    }  # fmt: skip
    assert np.fromfile(place / "tokens.bin", "<i4").tolist() == expected.ids.tolist()
    assert np.fromfile(place / "starts.bin", "<i8").tolist() == expected.starts.tolist()
    again = open_token_file(place, tokenizer, check=True)
    assert again.ids.tolist() == expected.ids.tolist() and sorted(each.name for each in place.iterdir()) == [
        "starts.bin", "tokens.bin", "tokens.json"
    ]  # fmt: skip
    raw = np.fromfile(place / "tokens.bin", "<i4")
    raw[1] += 1
    raw.tofile(place / "tokens.bin")
    open_token_file(place, tokenizer)
    with pytest.raises(DataError) as refused:
        open_token_file(place, tokenizer, check=True)
    tokens = place / "tokens.bin"
    assert str(refused.value) == (
        f"{tokens} is not what was written (its SHA-256 differs): delete {place} to have it again"
    )
    np.array([0, 9, len(raw)], "<i8").tofile(place / "starts.bin") if len(raw) < 9 else np.array(
        [0, 99, len(raw)], "<i8"
    ).tofile(place / "starts.bin")
    with pytest.raises(DataError, match="does not divide the tokens into documents"):
        open_token_file(place, tokenizer)
    for size in (3, 4 * len(raw) + 1, 4 * len(raw) + 4):
        tokens.write_bytes(bytes(size))
        with pytest.raises(DataError) as refused:
            open_token_file(place, tokenizer)
        said = f"{tokens} has {size} bytes of {4 * len(raw)}: delete {place} to have it written again"
        assert str(refused.value) == said
    tokens.unlink()
    with pytest.raises(DataError, match=r"tokens\.bin has 0 bytes of"):
        open_token_file(place, tokenizer)
    other = train_tokenizer(["12"], tmp_path / "other", vocab_size=259)
    with pytest.raises(DataError) as refused:
        open_token_file(place, other)
    assert str(refused.value) == (
        f"the token file in {place} was encoded by another tokenizer: give another folder to write one"
    )
    with pytest.raises(DataError) as refused:
        write_token_file([], tokenizer, place)
    assert str(refused.value) == f"there is no text for the token file in {place}: give a file or a folder with texts"
    assert not token_file.is_written(place)
    (place / "tokens.bin").unlink()
    (place / "tokens.bin").mkdir()
    with pytest.raises(StoreError) as full:
        write_token_file([SourceText("x", "b")], tokenizer, place)
    assert str(full.value) == (
        f"the token file in {place} cannot be written (Is a directory): make room, then try again"
    )


def test_a_trained_tokenizer_has_all_bytes_single_digits_and_three_special_tokens(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["the the then 12 12 12"] * 9, tmp_path / "t", vocab_size=400)
    assert train_tokenizer(["the the then"] * 9, tmp_path / "few", vocab_size=261).vocab_size == 261
    assert tokenizer.vocab_size == 263 and [tokenizer.text_of(id) for id in range(3)] == [
        "<|endoftext|>", "<|im_start|>", "<|im_end|>"
    ]  # fmt: skip
    assert len(tokenizer.encode("12")) == 2 and len(tokenizer.encode(" the")) == 1 and tokenizer.encode("") == []
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos) == (0, 0, True)
    assert tokenizer.decode(tokenizer.encode("é\x00 <|endoftext|>")) == "é\x00 <|endoftext|>"
    config = json.loads((tmp_path / "t" / "tokenizer_config.json").read_text())
    assert config.pop("chat_template").startswith("{%") and config == {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
        "add_bos_token": True, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    across = train_tokenizer(["we are here"] * 9, tmp_path / "a", vocab_size=400, across_words=True)
    assert len(across.encode("we are here")) == 1
    within = train_tokenizer(["we are here"] * 9, tmp_path / "w", vocab_size=400)
    assert len(within.encode("we are here")) == 3
    with pytest.raises(ConfigError, match="vocab_size is 258: expected 259 or more, for all bytes"):
        train_tokenizer([], tmp_path / "n", vocab_size=258)
    assert train_tokenizer([], tmp_path / "n", vocab_size=259).vocab_size == 259


@pytest.mark.parametrize("tied", [True, False])
def test_added_tokens_follow_the_known_ones_and_begin_at_their_mean(folder: Path, tied: bool) -> None:
    tokenizer = pretrained.load(folder)
    known = tokenizer.vocab_size
    decoder = tiny_model(4, vocab_size=known, tied=tied)
    before = {name: weight.clone() for name, weight in decoder.state_dict().items()}
    texts = ["<a>", "<|im_end|>", "<b>"]
    grown, larger = with_added_tokens(decoder, tokenizer, texts)
    assert larger.vocab_size == grown.architecture.vocab_size == known + 2 and decoder.architecture.vocab_size == known
    assert [larger.token_id(text) for text in texts] == [known, tokenizer.token_id("<|im_end|>"), known + 1]
    assert larger.chat_template == tokenizer.chat_template and larger.encode("<a>") != [known], (
        "no text becomes a token"
    )
    added = larger.settings()["description"]["added_tokens"][-2:]
    assert added == [{"id": known + at, "content": text, "special": True, "lstrip": False, "rstrip": False,
                      "single_word": False, "normalized": False} for at, text in enumerate(("<a>", "<b>"))]  # fmt: skip
    for name, weight in grown.state_dict().items():
        rows = before[name]
        assert torch.equal(weight[: len(rows)], rows)
        if len(weight) > len(rows):
            assert torch.allclose(weight[len(rows) :], rows.mean(0).expand(2, -1), atol=1e-6)
    assert grown.lm_head is not None and (grown.lm_head.weight is grown.embed.weight) == tied
    roomy = tiny_model(4, vocab_size=known + 2, tied=tied)
    rows = roomy.embed.weight.detach().clone()
    same, _ = with_added_tokens(roomy, tokenizer, texts)
    assert same is roomy and torch.allclose(roomy.embed.weight[known:], rows[:known].mean(0).expand(2, -1), atol=1e-6)
    assert torch.equal(roomy.embed.weight[:known], rows[:known])
    tight = tiny_model(4, vocab_size=known + 1, tied=tied)
    assert with_added_tokens(tight, tokenizer, texts)[0].architecture.vocab_size == known + 2
    assert with_added_tokens(decoder, tokenizer, ["<|im_end|>"]) == (decoder, tokenizer)
    layer = nn.Embedding(4, 2)
    _fill(layer, 1, 3)
    assert layer.weight[1].tolist() == layer.weight[2].tolist() == layer.weight[0].tolist() != layer.weight[3].tolist()


def test_a_toy_model_writes_each_piece_and_its_beginnings_as_one_token() -> None:
    decoder, tokenizer = toy_model(["ab", " cd", "b"], seed=3, context=12, layers=1)
    assert [tokenizer.text_of(id) for id in range(tokenizer.vocab_size)] == [
        "<end>",
        "<start>",
        "a",
        "ab",
        "Ġ",
        "Ġc",
        "Ġcd",
        "b",
        "c",
        "d",
    ]
    assert (tokenizer.eos_id, tokenizer.bos_id) == (0, 1) and tokenizer.encode("ab cdb") == [3, 6, 7]
    assert tokenizer.chat_template == "{{ messages[-1]['content'] }}" and tokenizer.decode([3, 6]) == "ab cd"
    a = decoder.architecture
    assert (a.family, a.vocab_size, a.hidden_size, a.intermediate_size, a.num_layers, a.num_heads, a.num_kv_heads,
            a.head_dim, a.max_position, a.norm_eps, a.tie_embeddings, len(a.windows), len(a.ropes)) == (
        "llama", 10, 64, 192, 1, 4, 4, 16, 12, 1e-5, False, 1, 1)  # fmt: skip
    assert float(decoder.embed.weight.std().detach()) == pytest.approx(0.1, rel=0.1)
    other = toy_model(["ab", " cd", "b"], seed=4, context=12)[0]
    assert not torch.equal(other.embed.weight, decoder.embed.weight) and other.architecture.num_layers == 2


def test_a_saved_model_has_its_bases_files_or_those_of_its_tokenizer(tmp_path: Path, folder: Path) -> None:
    decoder, tokenizer = toy_model(["a", "b"], seed=0, context=8, layers=1)
    base = tmp_path / "base"
    base.mkdir()
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json", "notes.txt"):
        (base / name).write_text(f"{name} é")
    saved = save_model(decoder, tokenizer, tmp_path / "copied", base=base)
    assert {each.name for each in saved.iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "generation_config.json"
    }  # fmt: skip
    assert (saved / "generation_config.json").read_text() == "generation_config.json é"
    config = json.loads((saved / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], config["vocab_size"]) == (1, 0, 4)
    object.__setattr__(tokenizer, "recommended", {"temperature": 0.5, "max_tokens": 9})
    for given in (None, tmp_path / "model.gguf"):
        own = save_model(decoder, tokenizer, tmp_path / f"own-{given is None}", base=given)
        assert json.loads((own / "tokenizer.json").read_text()) == tokenizer.settings()["description"]
        assert json.loads((own / "tokenizer_config.json").read_text()) == {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<start>", "eos_token": "<end>",
            "add_bos_token": tokenizer.add_bos, "chat_template": tokenizer.chat_template,
        }  # fmt: skip
        assert json.loads((own / "generation_config.json").read_text()) == {
            "bos_token_id": 1, "eos_token_id": [0], "temperature": 0.5, "max_new_tokens": 9
        }  # fmt: skip
        again = pretrained.load(own)
        assert again.encode("ab") == tokenizer.encode("ab")
    assert torch.equal(weights.load(own).embed.weight, decoder.embed.weight)
