"""Training data: texts to pieces, exact batches, seeded order, tokenizers."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from firsthand.errors import ConfigError, DataError
from firsthand.nn.blocks.attention import Packed
from firsthand.tokens import pretrained
from firsthand.train.bits_per_byte import held_out_loss
from firsthand.train.bpe import train_tokenizer
from firsthand.train.data_order import StreamBatches, order, split
from firsthand.train.documents import (
    Corpus,
    DocumentBatches,
    SourceText,
    encode_documents,
    read_documents,
    split_documents,
    whole_pieces,
)
from firsthand.train.objective import Objective
from firsthand.train.step_loss import step_loss
from firsthand.train.streams import Stream, counts, load_streams, packed, save_streams
from train_tiny import model

TEXTS = ["def add(a, b):\n    return a + b\n" * 6, "naïve café ☕ 12345\n", "for i in range(10):\n    print(i)\n" * 3]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer(TEXTS, tmp_path_factory.mktemp("tokenizer"), vocab_size=300)


def corpus_of(*lengths: int) -> Corpus:
    """Documents of these lengths, whose ids count up, so that a place can be read off."""
    starts = np.cumsum([0, *lengths], dtype=np.int64)
    return Corpus(np.arange(starts[-1], dtype=np.int32), starts, int(starts[-1]))


def targets(batch: list[Stream]) -> list[int]:
    return [int(id) for stream in batch for id in stream.ids[1:]]


@pytest.mark.parametrize("batch_tokens", [1, 7, 16, 100])
def test_every_step_predicts_exactly_its_tokens_and_an_epoch_every_one_once(batch_tokens):
    corpus = corpus_of(2, 31, 9, 1, 10, 17)
    batches = DocumentBatches(corpus, batch_tokens=batch_tokens, context=8, seed=3)
    assert corpus.num_targets == 64
    seen: list[int] = []
    for batch in batches:
        assert sum(stream.ce.sum() for stream in batch) == batch_tokens
        assert all(2 <= len(stream) <= 8 for stream in batch)
        assert all(
            np.array_equal(stream.ids, np.arange(stream.ids[0], stream.ids[0] + len(stream))) for stream in batch
        )
        seen += targets(batch)
        if len(seen) >= 128:
            break
    firsts = set(corpus.starts[:-1].tolist())
    assert sorted(seen[:64]) == sorted(set(range(len(corpus.ids))) - firsts)
    assert sorted(seen[64:128]) == sorted(seen[:64]) and seen[64:128] != seen[:64]  # another order in the next epoch


def test_no_stream_crosses_a_document():
    corpus = corpus_of(5, 6, 7)
    batches = iter(DocumentBatches(corpus, batch_tokens=4, context=4, seed=0))
    for _ in range(8):
        for stream in next(batches):
            document = np.searchsorted(corpus.starts, stream.ids, side="right")
            assert len(set(document.tolist())) == 1


def test_the_position_holds_the_document_under_way():
    def begun():
        return DocumentBatches(corpus_of(40, 3, 25), batch_tokens=11, context=10, seed=2)

    whole = begun()
    steps = [targets(batch) for batch, _ in zip(whole, range(14), strict=False)]
    for cut in range(1, 13):
        first = begun()
        for _, _ in zip(range(cut), first, strict=False):
            pass
        state = json.loads(json.dumps(first.state()))
        second = begun()
        second.load(state)
        rest = [targets(batch) for _, batch in zip(range(14 - cut), second, strict=False)]
        assert rest == steps[cut:], cut
    assert any(begun_at["offset"] for begun_at in [first.state()])


def test_a_position_on_other_data_is_refused():
    batches = DocumentBatches(corpus_of(10, 10), batch_tokens=4, context=4)
    other = DocumentBatches(corpus_of(10, 11), batch_tokens=4, context=4)
    with pytest.raises(DataError, match="the data is not what the run began with"):
        other.load(batches.state())
    streams = StreamBatches([[Stream([1, 2])]], 1)
    with pytest.raises(DataError, match="not what the run began with"):
        StreamBatches([[Stream([1, 3])]], 1).load(streams.state())
    with pytest.raises(DataError, match="not what the run began with"):
        StreamBatches([[Stream([1]), Stream([2])]], 1).load(StreamBatches([[Stream([1, 2])]], 1).state())


def test_the_order_is_a_function_of_seed_and_epoch():
    assert order(0, 0, 6).tolist() == [3, 2, 1, 0, 4, 5] == order(0, 0, 6).tolist()
    assert sorted(order(7, 3, 50)) == list(range(50))
    assert order(0, 1, 6).tolist() != order(0, 0, 6).tolist() != order(1, 0, 6).tolist()


def test_batches_of_streams_go_through_every_example_once_an_epoch():
    examples = [[Stream([index, 0])] for index in range(7)]
    batches = StreamBatches(examples, 3, seed=1)
    drawn = [int(stream.ids[0]) for _, batch in zip(range(7), batches, strict=False) for stream in batch]
    assert len(drawn) == 21
    for epoch in range(3):
        assert sorted(drawn[7 * epoch : 7 * epoch + 7]) == list(range(7))
    assert drawn[:7] != drawn[7:14]


def test_a_comparison_that_comes_twice_in_a_batch_is_two():
    batches = StreamBatches([[Stream([1], pair=5, label=1.0), Stream([2], pair=5, label=-1.0)]], 2)
    batch = next(iter(batches))
    assert counts(batch)["pair"] == 2 and [stream.pair for stream in batch] == [0, 0, 2, 2]


def test_items_are_held_out_once_and_reproducibly():
    kept, held = split(list(range(40)), 0.1, seed=4)
    assert len(held) == 4 and sorted(kept + held) == list(range(40)) and split(list(range(40)), 0.1, seed=4)[1] == held
    assert split([1, 2, 3], 0) == ([1, 2, 3], [])
    assert len(split([1, 2, 3], 0.01)[1]) == 1
    with pytest.raises(ConfigError, match="the data has 1 item, and 1 would be held out"):
        split([1], 0.5)


def test_equal_items_are_held_out_together_and_others_by_their_places():
    lines = [f"q{n // 4}" for n in range(80)]
    kept, held = split(lines, 0.25, seed=3)
    assert len(held) == 20 and not set(kept) & set(held) and len(kept) == 60
    streams = [Stream([1, n // 2], ce=[0, n % 2]) for n in range(20)]
    kept, held = split(streams, 0.2, seed=3)
    assert len(held) == 4 and not {each.ids[1] for each in kept} & {each.ids[1] for each in held}
    kept, held = split(range(20), 0.3, seed=3, key=lambda n: n % 5)
    assert len(held) == 4 and len({n % 5 for n in held}) == 1, "six are wanted, and groups are of four"
    kept, held = split([0] * 90 + list(range(1, 11)), 0.1, seed=0)
    assert sorted(held) == list(range(1, 11)), "a group beyond the fraction is trained on"
    kept, held = split([0, 0, 0, 0, 1, 1, 1], 0.24, seed=0)
    assert (kept, held) == ([0] * 4, [1] * 3), "one group at least, the smallest"
    with pytest.raises(ConfigError, match="the 5 items of the data are equal, or all of one prompt"):
        split([7] * 5, 0.2)
    assert split([7] * 5, 0) == ([7] * 5, [])


def test_a_holdout_is_refused_where_even_the_smallest_group_is_more_than_twice_as_much():
    for sizes in ([20, 20], [21, 40, 20]):
        items = [name for name, size in enumerate(sizes) for _ in range(size)]
        assert len(split(items, 10 / len(items))[1]) == 20, "twice as much"
        with pytest.raises(ConfigError, match=f"the smallest of the {len(sizes)} groups of equal items"):
            split(items, 9 / len(items))
    with pytest.raises(
        ConfigError, match=r"is 33.3% of the data, and holdout is 0.05: give more data, holdout 0.33 to"
    ):
        split(range(300), 0.05, key=lambda n: n % 3)
    assert len(split(range(300), 0.33, key=lambda n: n % 3)[1]) == 100, "what the sentence asks for is taken"
    assert len(split([0, 0, 1, 1], 0.05)[1]) == 2, "one item is the least that is asked for"


def test_equal_documents_are_held_out_together():
    texts = [SourceText(f"text {n // 4}", f"{n}.txt") for n in range(40)]
    kept, held = split_documents(texts, 0.2, seed=1)
    assert len(held) == 8 and not {each.text for each in kept} & {each.text for each in held}


def test_the_end_of_a_single_document_is_held_out():
    text = "".join(f"line {number}\n" for number in range(100))
    (kept,), (held,) = split_documents([SourceText(text, "one.txt")], 0.1)
    assert kept.text + held.text == text and kept.text.endswith("\n") and 0.05 < len(held.text) / len(text) < 0.15
    (kept,), (held,) = split_documents([SourceText("x" * 50, "one.txt")], 0.1)
    assert (len(kept.text), len(held.text)) == (45, 5)
    with pytest.raises(ConfigError, match="too short to hold out"):
        split_documents([SourceText("x", "one.txt")], 0.5)
    with pytest.raises(ConfigError, match="holdout is 1"):
        split_documents([SourceText("x", "one.txt")], 1)


def test_texts_are_read_from_folders_files_and_jsonl(tmp_path):
    (tmp_path / "a" / "tests").mkdir(parents=True)
    (tmp_path / "a" / "one.py").write_text("one")
    (tmp_path / "a" / "tests" / "two.py").write_text("two")
    (tmp_path / "a" / "three.txt").write_text("three")
    (tmp_path / "a" / "empty.py").write_text("")
    (tmp_path / "b.jsonl").write_text('{"text": "four"}\n\n{"text": "five", "id": 1}\n')
    found = read_documents([tmp_path / "a", tmp_path / "b.jsonl"], suffixes=[".py"], exclude=["test*"])
    assert [each.text for each in found] == ["one", "four", "five"]
    assert found[2].source == f"{tmp_path}/b.jsonl:3"
    assert [each.text for each in read_documents([tmp_path / "a"])] == ["one", "two", "three"]


def test_suffixes_are_the_ends_of_names_before_a_gz_or_with_it_and_empty_texts_are_left_out(tmp_path):
    for name in ("a.jsonl", "b.jsonl.gz", "c.txt", "d.txt.gz", "e.gz"):
        body = f'{{"text": ""}}\n{{"text": "{name[0]}"}}\n' if "jsonl" in name else name[0]
        (tmp_path / name).write_bytes(gzip.compress(body.encode()) if name.endswith("gz") else body.encode())

    def found(*suffixes: str) -> str:
        return "".join(each.text for each in read_documents([tmp_path], suffixes=suffixes))

    assert (found(".jsonl"), found(".jsonl.gz"), found(".gz"), found()) == ("ab", "b", "bde", "abcde")
    assert (found(".txt"), found(".txt", ".jsonl.gz"), found(".jsonl", ".txt")) == ("cd", "bcd", "abcd")
    with pytest.raises(DataError, match="there is no text in"):
        found(".md")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"text": "good"}\n{"txet": "x"}\n', r"x\.jsonl:2: the field `text` is missing of txet"),
        (b'{"text": ""}\n', "there is no text in"),
        (b'{"text": 3}\n', r"x\.jsonl:1: the field `text` came as int"),
        (b'{"text": "a"\n', r"x\.jsonl:1 is no JSON"),
        (b"[1]\n", r"x\.jsonl:1 is list: expected a JSON object"),
        (b'{"text": "a"}\n\xff\n', r"x\.jsonl is not UTF-8 text \(byte 14\)"),
        (b"", "there is no text in"),
    ],
)
def test_bad_lines_are_refused_with_file_and_line(tmp_path, body, message):
    (tmp_path / "x.jsonl").write_bytes(body)
    with pytest.raises(DataError, match=message):
        read_documents([tmp_path / "x.jsonl"])


def test_a_missing_path_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no file or folder"):
        read_documents([tmp_path / "nowhere"])


def test_a_trained_tokenizer_gives_every_text_back(tokenizer):
    for text in [*TEXTS, "\x00\x7f 𓀀 \r\n\t", "<|im_end|> is text here"]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert not set(ids) & tokenizer.special_ids
    assert tokenizer.vocab_size <= 300 and len(tokenizer.encode("    return a + b")) < 14
    assert len(tokenizer.encode("12345")) == 5
    assert (
        tokenizer.text_of(tokenizer.bos_id) == tokenizer.text_of(tokenizer.eos_id) == "<|endoftext|>"
        and tokenizer.add_bos
    )


def test_a_tokenizer_is_the_same_for_equal_texts(tokenizer, tmp_path):
    again = train_tokenizer(TEXTS, tmp_path / "new", vocab_size=300)
    assert again.fingerprint == tokenizer.fingerprint == pretrained.load(tmp_path / "new").fingerprint
    with pytest.raises(ConfigError, match="vocab_size is 258: expected 259 or more"):
        train_tokenizer(TEXTS, tmp_path / "small", vocab_size=258)


def test_documents_lie_between_begin_and_end_tokens(tokenizer):
    corpus = encode_documents([SourceText(text, "") for text in TEXTS], tokenizer)
    for start, stop, text in zip(corpus.starts, corpus.starts[1:], TEXTS, strict=False):
        assert corpus.ids[start] == tokenizer.bos_id and corpus.ids[stop - 1] == tokenizer.eos_id
        assert tokenizer.decode(corpus.ids[start + 1 : stop - 1].tolist()) == text
    assert corpus.num_bytes == sum(len(text.encode()) for text in TEXTS)


def test_bits_per_byte_is_the_loss_of_all_tokens_over_the_bytes_of_the_text():
    decoder, corpus = model(), Corpus(np.arange(1, 31, dtype=np.int32), np.array([0, 12, 30]), 77)
    pieces = whole_pieces(corpus, 8)
    found = held_out_loss(decoder, pieces, corpus.num_bytes, micro_tokens=9)
    nats = 0.0
    with torch.no_grad():
        for piece in pieces:
            ids = torch.from_numpy(piece.ids).long()
            logits = decoder.logits(decoder(ids, torch.arange(len(ids)), Packed([len(ids)])))
            nats -= logits[:-1].log_softmax(-1).gather(1, ids[1:, None]).sum().item()
    assert found.loss == pytest.approx(nats / 28, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / 77, rel=1e-5)
    assert decoder.training == model().training


def test_a_packed_document_does_not_see_its_neighbours():
    decoder = model()
    streams = [Stream([5, 6, 7, 8], ce=[1] * 4), Stream([9, 10, 11, 12], ce=[1] * 4), Stream([13, 14], ce=[1] * 2)]
    losses = [step_loss(decoder, packed([stream]), Objective(ce=1.0), {"ce": 1.0})[0] for stream in streams]
    together = step_loss(decoder, packed(streams), Objective(ce=1.0), {"ce": 1.0})[0]
    assert together.item() == pytest.approx(sum(loss.item() for loss in losses), rel=1e-6)


def test_batches_that_cannot_be_made_are_refused():
    with pytest.raises(ConfigError, match="context is 1"):
        DocumentBatches(corpus_of(10), batch_tokens=5, context=1)
    with pytest.raises(ConfigError, match="no token to predict"):
        DocumentBatches(corpus_of(1, 1), batch_tokens=5, context=8)
    with pytest.raises(ConfigError, match="no example"):
        StreamBatches([], 1)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        StreamBatches([[Stream([1])]], 0)


def test_streams_of_a_step_are_saved_under_their_number_and_come_back_in_order(tmp_path: Path) -> None:
    streams = [Stream([number, 2], ce=[0, 1], source=f"f:{number}") for number in range(11)]
    streams[1] = Stream([5, 6, 7], value=[0, 0.5, 1], returns=[1, 2, 3], group="g", pair=0, label=0.0, adapter="lead")
    path = save_streams(streams, tmp_path / "new" / "folder", 0)
    assert path == tmp_path / "new" / "folder" / "step-0.npz" and [*path.parent.iterdir()] == [path]
    with np.load(path) as found:
        assert {name.partition(".")[0] for name in found.files} == set(map(str, range(11)))
        assert found["0.ids"].tolist() == [0, 2] and found["10.ids"].tolist() == [10, 2]
    again = load_streams(path)
    assert [each.ids.tolist() for each in again] == [[0, 2], [5, 6, 7], *([number, 2] for number in range(2, 11))]
    one = again[1]
    assert (one.group, one.pair, one.label, one.adapter, one.ce) == ("g", 0, 0.0, "lead", None)
    assert one.value is not None and one.value.tolist() == [0, 0.5, 1] and again[10].source == "f:10"
    assert load_streams(save_streams([], tmp_path, 3)) == []
    for arrays, why in (
        ({"0.ids": [1], "0.other": [1]}, "its arrays are others"), ({"0.ce": [1.0]}, "its arrays are others"),
        ({"ids": [1]}, "invalid literal for int() with base 10: 'ids'"),
    ):  # fmt: skip
        np.savez(tmp_path / "wrong.npz", **arrays)
        with pytest.raises(DataError) as refused:
            load_streams(tmp_path / "wrong.npz")
        told = f"{tmp_path / 'wrong.npz'} holds no streams ({why}): give a file that `fit` saved"
        assert str(refused.value) == told
    with (tmp_path / "wrong.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(DataError, match=r"wrong\.npz holds no streams \(its arrays are others\): give a file"):
        load_streams(tmp_path / "wrong.npz")


def test_an_objective_tells_each_number_that_it_cannot_use() -> None:
    def told(**given: Any) -> str:
        with pytest.raises(ConfigError) as refused:
            Objective(**given)
        return str(refused.value)

    parts = "ce, pg, ref_kl, value, pair, soft"
    for part in parts.split(", "):
        for weight in (-0.5, math.nan, math.inf):
            assert told(**{part: weight}) == f"the weight {part} of an objective is {weight}: expected 0 or more"
        for divisor in (0.0, -1.0, math.nan, math.inf):
            assert told(ce=1.0, divisors={"pg": 2.0, part: divisor}) == (
                f"divisor {part}={divisor}: expected a number above 0 for one of {parts}"
            )
        assert Objective(ce=1.0, divisors={part: 1e-9}).divisors == {part: 1e-9}
    assert told(ce=1.0, divisors={"gp": 2.0}) == f"divisor gp=2.0: expected a number above 0 for one of {parts}"
    assert told() == f"an objective without any weight trains nothing: give one of {parts}"
    assert told(pair=1.0) == "an objective with a weight for pairs needs a pair_loss"
    assert told(soft=1.0) == "an objective with a weight for soft targets needs a soft_loss"
    for part in ("ce", "pg", "ref_kl", "value"):
        assert getattr(Objective(**{part: 1e-9}), part) == 1e-9


@pytest.mark.parametrize(
    "changed",
    [{"label": -1.0}, {"pair": 1}, {"ce": [0, 1, 0]}, {"ce": None}, {"value": [0, 1, 1], "returns": [0, 1, 1]}],
)
def test_data_with_other_labels_pairs_or_weights_is_not_the_same_data(changed: dict[str, object]) -> None:
    given = {"label": 1.0, "pair": 0, "ce": [0, 1, 1]}
    state = StreamBatches([[Stream([1, 2, 3], **given)]], 1).state()
    same = StreamBatches([[Stream([1, 2, 3], **given, reference=[0, -1, -2])]], 1)
    same.load(state)  # references are computed anew
    other = StreamBatches([[Stream([1, 2, 3], **given | changed)]], 1)
    with pytest.raises(DataError, match="the labels of the data, the weights of its tokens or its pairs are not what"):
        other.load(state)
    del state["targets"]  # as in checkpoints of 0.21
    other.load(state)
    moved = StreamBatches([[Stream([1, 2], ce=[0, 1]), Stream([3], value=[1], returns=[1])]], 1)
    with pytest.raises(DataError, match="the labels"):
        moved.load(StreamBatches([[Stream([1, 2], value=[0, 1], returns=[0, 1]), Stream([3], ce=[1])]], 1).state())
