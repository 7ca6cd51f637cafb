"""Checkpoint files hold all of a step, vocabularies are saved whole, and the order of data is a function of its seed."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from safetensors.torch import load_file
from torch import nn

from firsthand.errors import ConfigError, DataError, StoreError, TrainingError
from firsthand.tokens.pretrained import load
from firsthand.train import checkpoints
from firsthand.train.checkpoints import Checkpoints, _merged, _split, trained_weights
from firsthand.train.data_order import StreamBatches, digest, expect_same_data, order, split
from firsthand.train.optimizers import optimizer_for
from firsthand.train.recipe_settings import OptimizerSettings
from firsthand.train.streams import Stream
from firsthand.train.vocabulary import END_OF_TEXT, train_vocabulary
from train_tiny import Lists

SETTINGS = OptimizerSettings(lr=0.01)


def stepped(seed: int = 0) -> tuple[nn.Linear, torch.optim.Optimizer]:
    """A small layer after one step of AdamW."""
    torch.manual_seed(seed)
    layer = nn.Linear(3, 2)
    optimizer = optimizer_for(layer, SETTINGS)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return layer, optimizer


# -- checkpoints --


def test_a_checkpoint_holds_step_position_random_states_and_the_hashes_of_its_files(tmp_path: Path) -> None:
    layer, optimizer = stepped()
    batches = Lists([], [], [])
    batches.position = 2
    (tmp_path / ".part-5").mkdir()
    (tmp_path / ".part-5" / "x").write_text("left by a killed process")
    torch.manual_seed(1), random.seed(2), np.random.seed(3)
    np.random.normal(), random.gauss()  # the second half of a pair of normals is kept for the next one
    path = Checkpoints(tmp_path, every=1).save(12, layer, optimizer, batches)  # type: ignore[arg-type]
    assert path == tmp_path / "step-000012" and [each.name for each in tmp_path.iterdir()] == ["step-000012"]
    assert sorted(each.name for each in path.iterdir()) == [
        "optimizer.safetensors",
        "state.json",
        "weights.safetensors",
    ]
    state = json.loads((path / "state.json").read_text())
    about = {name: state[name] for name in ("format", "step", "batches")}
    assert about == {
        "format": 1,
        "step": 12,
        "batches": {"position": 2},
    }
    assert state["sha256"] == {
        name: hashlib.sha256((path / name).read_bytes()).hexdigest()
        for name in ("weights.safetensors", "optimizer.safetensors")
    }
    weights = load_file(path / "weights.safetensors")
    assert weights.keys() == {"weight", "bias"} and torch.equal(weights["weight"], layer.weight)
    tensors = load_file(path / "optimizer.safetensors")
    assert {name for name in tensors if not name.startswith("random.cuda")} == {
        "random.cpu", *(f"{index}.{name}" for index in (0, 1) for name in ("step", "exp_avg", "exp_avg_sq")),
    }  # fmt: skip
    drawn = torch.rand(2), *(random.gauss() for _ in range(3)), random.random(), np.random.normal(), np.random.random()
    torch.manual_seed(9), random.seed(9), np.random.seed(9)
    other, fresh = stepped(seed=4)
    assert Checkpoints(tmp_path, every=1).restore(other, fresh, batches_at(0)) == 12  # type: ignore[arg-type]
    again = torch.rand(2), *(random.gauss() for _ in range(3)), random.random(), np.random.normal(), np.random.random()
    assert torch.equal(drawn[0], again[0]) and drawn[1:] == again[1:]
    assert torch.equal(other.weight, layer.weight) and torch.equal(other.bias, layer.bias)
    for mine, theirs in zip(optimizer.state.values(), fresh.state.values(), strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in ("step", "exp_avg", "exp_avg_sq"))


def test_each_process_goes_on_with_its_own_random_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draws() -> list[float]:
        return [torch.rand(1).item(), random.random(), float(np.random.random())]

    def seed(number: int) -> None:
        torch.manual_seed(number), random.seed(number), np.random.seed(number)

    states, drawn = [], []
    for number in range(3):
        seed(number)
        states.append((checkpoints._random_tensors(), checkpoints._random_numbers()))
        drawn.append(draws())
    layer, optimizer = stepped()
    monkeypatch.setattr(checkpoints, "from_all", lambda own: states)
    Checkpoints(tmp_path, every=1).save(1, layer, optimizer, Lists([]))  # type: ignore[arg-type]
    for number, of in enumerate([0, 1, 2, 0]):  # a fourth process begins as the first
        seed(9)
        monkeypatch.setattr(checkpoints, "rank", lambda number=number: number)
        assert Checkpoints(tmp_path, every=1).restore(layer, optimizer, Lists([])) == 1  # type: ignore[arg-type]
        assert draws() == drawn[of]


@pytest.mark.parametrize(("saved", "here"), [(2, 1), (1, 2), (12, 11), (2, 0), (0, 2)])
def test_a_checkpoint_is_whole_where_other_numbers_of_gpus_are_seen(
    saved: int, here: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [torch.full((16,), index, dtype=torch.uint8) for index in range(saved)]
    restored: dict[int, int] = {}

    def put(state: torch.Tensor, index: int) -> None:
        assert 0 <= index < here, "torch has no GPU of this number"
        restored[index] = int(state[0])

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: saved > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: saved)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda index: states[index])
    layer, optimizer = stepped()
    Checkpoints(tmp_path, every=1).save(7, layer, optimizer, batches_at(1))  # type: ignore[arg-type]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: here > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: here)
    monkeypatch.setattr(torch.cuda, "set_rng_state", put)
    assert Checkpoints(tmp_path, every=1).restore(layer, optimizer, batches_at(0)) == 7  # type: ignore[arg-type]
    assert restored == {index: index for index in range(min(saved, here))}


def test_a_run_on_the_cpu_leaves_the_gpus_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*given: Any) -> Any:
        raise AssertionError("a GPU was asked for its state, or given one")

    layer, optimizer = stepped()
    saver = Checkpoints(tmp_path, every=1)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda index: torch.zeros(16, dtype=torch.uint8))
    saver.save(1, layer, optimizer, batches_at(1))  # type: ignore[arg-type]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("get_rng_state", "get_rng_state_all", "set_rng_state", "set_rng_state_all"):
        monkeypatch.setattr(torch.cuda, name, touched)
    assert saver.restore(layer, optimizer, batches_at(0)) == 1  # type: ignore[arg-type]
    saver.save(2, layer, optimizer, batches_at(1))  # type: ignore[arg-type]


def test_a_random_state_that_no_gpu_takes_is_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(state: torch.Tensor, index: int) -> None:
        raise RuntimeError("RNG state is wrong size")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda index: torch.zeros(3, dtype=torch.uint8))
    layer, optimizer = stepped()
    Checkpoints(tmp_path, every=1).save(7, layer, optimizer, batches_at(1))  # type: ignore[arg-type]
    monkeypatch.setattr(torch.cuda, "set_rng_state", put)
    with pytest.raises(TrainingError, match="no checkpoint in"):
        Checkpoints(tmp_path, every=1).restore(layer, optimizer, batches_at(0))  # type: ignore[arg-type]


class At(Lists):
    """Batches that can be put to a position."""

    def load(self, state: Mapping[str, int]) -> None:
        self.position = state["position"]


def batches_at(position: int) -> At:
    made = At([], [], [])
    made.position = position
    return made


@pytest.mark.slow
def test_steps_are_read_from_whole_names_and_the_oldest_ones_go(tmp_path: Path) -> None:
    for name in (
        "step-00001",
        "step-1000000",
        "step-000003",
        "step-abcdef",
        "step-0000000000000000001",
        "step-０００００４",
    ):
        (tmp_path / name).mkdir()
    assert Checkpoints(tmp_path, every=1).steps() == [3, 1_000_000]
    layer, optimizer = stepped()
    tmp_path = tmp_path / "more"
    (tmp_path / "step-00001").mkdir(parents=True)
    saver = Checkpoints(tmp_path, every=1, keep=2)
    for step in (19, 20, 21, 21):
        saver.save(step, layer, optimizer, batches_at(step))  # type: ignore[arg-type]
    assert saver.steps() == [20, 21] and (tmp_path / "step-00001").exists()
    one = Checkpoints(tmp_path, every=1, keep=1)
    one.save(22, layer, optimizer, batches_at(1))  # type: ignore[arg-type]
    assert one.steps() == [22]


@pytest.mark.slow
def test_a_checkpoint_is_due_every_so_many_steps_at_the_last_and_by_the_clock_since_the_one_before(
    tmp_path: Path,
) -> None:
    layer, optimizer = stepped()
    saver = Checkpoints(tmp_path, every=3, keep=99, last_step=8, every_s=1000)
    for step in range(1, 9):
        saver.after(step, layer, optimizer, batches_at(step))  # type: ignore[arg-type]
    assert saver.steps() == [3, 6, 8]
    saver._saved_at -= 2000
    for step in (10, 11):
        saver.after(step, layer, optimizer, batches_at(step))  # type: ignore[arg-type]
    assert saver.steps() == [3, 6, 8, 10], "the clock begins anew with each checkpoint"
    never = Checkpoints(tmp_path / "never", every=0, last_step=1, every_s=0)
    never.after(1, layer, optimizer, batches_at(1))  # type: ignore[arg-type]
    assert never.steps() == [] and never.restore(layer, optimizer, batches_at(0)) == 0  # type: ignore[arg-type]


def test_the_newest_whole_checkpoint_is_restored_and_none_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layer, optimizer = stepped()
    tmp_path = tmp_path / "run" / "checkpoints"
    saver = Checkpoints(tmp_path, every=1, keep=9)
    for step in (1, 2, 3):
        layer.weight.data.fill_(step)
        saver.save(step, layer, optimizer, batches_at(step))  # type: ignore[arg-type]
    for step, other in ((3, 2), (2, 0)):  # a later format, and an older one
        state = tmp_path / f"step-{step:06d}" / "state.json"
        state.write_text(json.dumps(json.loads(state.read_text()) | {"format": other}))
    batches = batches_at(0)
    with caplog.at_level(logging.WARNING, logger="firsthand.train.checkpoints"):
        assert saver.restore(layer, optimizer, batches) == 1  # type: ignore[arg-type]
    assert batches.position == 1 and float(layer.weight[0, 0].detach()) == 1.0
    assert caplog.messages == [
        f"{tmp_path / f'step-{step:06d}'} is not whole (ValueError: its format is {found}, and this version reads 1): the "
        "checkpoint before it is used"
        for step, found in ((3, 2), (2, 0))
    ]
    wide = nn.Linear(4, 2)
    with pytest.raises(ConfigError) as refused:
        saver.restore(wide, optimizer_for(wide, SETTINGS), batches)  # type: ignore[arg-type]
    assert str(refused.value) == (
        f"{tmp_path / 'step-000001'} is of another model or optimizer (weight): resume with the settings of the run, or "
        "begin anew in another folder"
    )
    with pytest.raises(ConfigError, match=r"optimizer \(bias\): resume"):
        saver.restore(nn.Linear(3, 2, bias=False), optimizer, batches)  # type: ignore[arg-type]
    several = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    with pytest.raises(ConfigError, match=r"optimizer \(0\.bias, 0\.weight, 1\.bias\): resume"):
        saver.restore(several, optimizer_for(several, SETTINGS), batches)  # type: ignore[arg-type]
    (tmp_path / "step-000001" / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(TrainingError) as none:
        saver.restore(layer, optimizer, batches)  # type: ignore[arg-type]
    assert str(none.value) == f"no checkpoint in {tmp_path} is whole: begin the run anew in another folder"


def spoil(folder: Path, step: int) -> None:
    (folder / f"step-{step:06d}" / "weights.safetensors").write_bytes(b"x")


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_checkpoint_is_moved_away_and_takes_no_place_of_whole_ones(tmp_path: Path, keep: int) -> None:
    layer, optimizer = stepped()
    saver = Checkpoints(tmp_path, every=1, keep=5)
    for step in (10, 20, 30, 40):
        saver.save(step, layer, optimizer, batches_at(step))  # type: ignore[arg-type]
    for step in (30, 40):
        spoil(tmp_path, step)
    saver = Checkpoints(tmp_path, every=1, keep=keep)
    assert saver.restore(layer, optimizer, batches_at(0)) == 20  # type: ignore[arg-type]
    assert saver.steps() == [10, 20]
    aside = [tmp_path / f"step-{step:06d}.damaged" for step in (30, 40)]
    assert all((each / "weights.safetensors").read_bytes() == b"x" for each in aside)
    for step, kept in ((25, [20, 25]), (30, [25, 30])):
        assert saver.save(step, layer, optimizer, batches_at(step)).exists()  # type: ignore[arg-type]
        assert saver.steps() == kept[-keep:]
    spoil(tmp_path, 30)
    (aside[0] / "of before").touch()
    if keep == 2:
        assert saver.restore(layer, optimizer, batches_at(0)) == 25  # type: ignore[arg-type]
        assert not (aside[0] / "of before").exists() and (aside[0] / "weights.safetensors").exists()
    else:  # all are damaged: they stay where they are
        with pytest.raises(TrainingError, match="is whole: begin the run anew"):
            saver.restore(layer, optimizer, batches_at(0))  # type: ignore[arg-type]
        assert saver.steps() == [30]


def test_a_checkpoint_that_was_just_written_is_kept_whatever_lies_beside_it(tmp_path: Path) -> None:
    layer, optimizer = stepped()
    Checkpoints(tmp_path, every=1).save(30, layer, optimizer, batches_at(30))  # type: ignore[arg-type]
    saver = Checkpoints(tmp_path, every=1, keep=1)
    assert saver.save(28, layer, optimizer, batches_at(28)).exists() and saver.steps() == [28]  # type: ignore[arg-type]


def test_a_damaged_checkpoint_that_cannot_be_moved_is_one_sentence(tmp_path: Path) -> None:
    layer, optimizer = stepped()
    saver = Checkpoints(tmp_path, every=1)
    for step in (1, 2):
        saver.save(step, layer, optimizer, batches_at(step))  # type: ignore[arg-type]
    spoil(tmp_path, 2)
    (tmp_path / "step-000002.damaged").write_text("a file")
    with pytest.raises(
        StoreError, match=r"step-000002 cannot be moved away .+: make its folder writable, or remove it"
    ):
        saver.restore(layer, optimizer, batches_at(0))  # type: ignore[arg-type]


def test_an_optimizers_state_is_split_and_merged_back() -> None:
    one, two = torch.ones(2), torch.zeros(3)
    state = {
        "state": {0: {"mean": one, "step": 4}, 11: {"mean": two}},
        "param_groups": [{"lr": 0.5, "betas": (0.9, 0.8), "params": [0]}, {"lr": 0.25, "params": [11]}],
    }
    tensors, numbers = _split(state)
    assert tensors.keys() == {"0.mean", "11.mean"} and numbers["state"] == {"0": {"step": 4}}
    merged = _merged(json.loads(json.dumps(numbers)), tensors | {"random.cpu": one})
    assert merged["param_groups"] == state["param_groups"] and merged["state"].keys() == {0, 11}
    assert merged["state"][0]["step"] == 4 and merged["state"][0]["mean"].tolist() == [1.0, 1.0]
    assert merged["state"][11]["mean"].tolist() == [0.0] * 3 and merged["state"][11].keys() == {"mean"}


def test_buffers_that_are_saved_and_weights_that_are_not_frozen_are_trained() -> None:
    layer = nn.BatchNorm1d(2)
    layer.weight.requires_grad_(False)
    layer.register_buffer("scratch", torch.zeros(1), persistent=False)
    assert trained_weights(layer).keys() == {"bias", "running_mean", "running_var", "num_batches_tracked"}


# -- vocabularies --

TEXTS = ["ﬁne words and finer words 123 ", "Straße café cafe\u0301 "] * 20


@pytest.mark.parametrize(
    ("kind", "least", "unknown", "special"),
    [
        ("bpe", 256, None, ("<s>", "<pad>")),
        ("unigram", 2, "<unk>", ("<s>",)),
        ("wordpiece", 2, "[UNK]", ("<s>", "<x>")),
    ],
)
def test_a_vocabulary_is_saved_with_its_special_tokens_and_has_its_least_size(
    tmp_path: Path, kind: Any, least: int, unknown: str | None, special: tuple[str, ...]
) -> None:
    made = train_vocabulary(iter(TEXTS), tmp_path / "new" / "v", kind=kind, vocab_size=300, special=special)
    config = json.loads((tmp_path / "new" / "v" / "tokenizer_config.json").read_text())
    assert config == {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "<s>", "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
    } | ({"unk_token": unknown} if unknown else {})  # fmt: skip
    first = ([unknown] if unknown else []) + list(special)
    rust = tokenizers.Tokenizer.from_file(str(tmp_path / "new" / "v" / "tokenizer.json"))
    assert [rust.id_to_token(id) for id in range(len(first))] == first and made.bos_id == first.index("<s>")
    assert load(tmp_path / "new" / "v").vocab_size == made.vocab_size <= 300
    room = least + len(special)
    with pytest.raises(ConfigError) as refused:
        train_vocabulary(TEXTS, tmp_path / "x", kind=kind, vocab_size=room - 1, special=special)
    assert str(refused.value) == f"vocab_size is {room - 1}: {kind} needs {room} or more, and a special token"
    with pytest.raises(ConfigError, match="and a special token"):
        train_vocabulary(TEXTS, tmp_path / "x", kind=kind, vocab_size=300, special=())
    assert not (tmp_path / "x").exists()


def test_the_kinds_normalise_and_cut_as_they_say(tmp_path: Path) -> None:
    found = {kind: train_vocabulary(TEXTS, tmp_path / kind, kind=kind, vocab_size=300) for kind in
             ("bpe", "unigram", "wordpiece")}  # type: ignore[arg-type]  # fmt: skip
    assert found["bpe"].decode(found["bpe"].encode("ﬁne  cafe\u0301")) == "ﬁne  cafe\u0301"
    assert found["unigram"].encode("ﬁne") == found["unigram"].encode("fine"), "NFKC"
    assert found["wordpiece"].encode("cafe\u0301") == found["wordpiece"].encode("café"), "NFC"
    assert found["wordpiece"].encode("ﬁne") != found["wordpiece"].encode("fine")
    texts = ["ab"] * 30 + ["ac"] * 30 + ["db"] * 30 + ["mn"] * 12  # `mn` raises the likelihood most: 12 / (12 * 12)
    train_vocabulary(texts, tmp_path / "words", kind="wordpiece", vocab_size=14)
    rust = tokenizers.Tokenizer.from_file(str(tmp_path / "words" / "tokenizer.json"))
    found_words = {word for word in ("ab", "ac", "db", "mn") if rust.token_to_id(word) is not None}
    assert len(found_words) == 3 and "mn" not in found_words, "the most frequent pairs are merged first"
    characters = train_vocabulary(texts, tmp_path / "many", kind="wordpiece", vocab_size=4)
    assert characters.vocab_size == 2 + 6 + 3, "every character is a token: six, and three of them within words"
    assert (
        found["bpe"].token_id(END_OF_TEXT) == 0
        and train_vocabulary(TEXTS, tmp_path / "b", vocab_size=257).vocab_size == 257
    )


def test_the_error_of_a_reader_of_texts_is_told_as_it_is(tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield "some text"
        raise DataError("line 2 is no text")

    with pytest.raises(DataError, match=r"^line 2 is no text$"):
        train_vocabulary(broken(), tmp_path / "x", vocab_size=300)


def test_a_panic_of_the_library_is_an_error_of_ours(tmp_path: Path) -> None:
    class Panic(BaseException):
        """As a panic of Rust, no Exception."""

    def texts() -> Iterator[str]:
        yield "some text"
        raise Panic("it broke")

    with pytest.raises(ConfigError, match=r"^the bpe vocabulary could not be trained: it broke$"):
        train_vocabulary(texts(), tmp_path / "x", vocab_size=300)


# -- order --


def test_an_order_sorts_raw_draws_of_seed_epoch_and_block() -> None:
    for words, given in (([3, 4], {}), ([3, 4, 1], {"block": 0}), ([3, 4, 6], {"block": 5})):
        draws = np.random.PCG64(np.random.SeedSequence(words)).random_raw(20)
        assert order(3, 4, 20, **given).tolist() == sorted(range(20), key=lambda at, draws=draws: int(draws[at]))


def test_a_split_keeps_the_order_of_both_parts_and_a_position_resumes() -> None:
    items = [f"i{n}" for n in range(10)]
    kept, held = split(items, 0.25, seed=1)  # 2.5 rounds to 2
    chosen = set(order(1, 1 << 40, 10)[:2].tolist())
    assert held == [f"i{n}" for n in sorted(chosen)] and kept == [each for each in items if each not in held]
    assert len(split([1, 2], 0.5)[0]) == 1
    with pytest.raises(
        ConfigError, match="the data has 2 items, and 2 would be held out: give more data, or holdout 0"
    ):
        split([1, 2], 0.8)
    examples = [[Stream([n, 0])] for n in range(5)]
    batches = StreamBatches(examples, 2, seed=3)
    drawn = [int(stream.ids[0]) for _, batch in zip(range(5), batches, strict=False) for stream in batch]
    assert drawn == [*order(3, 0, 5).tolist(), *order(3, 1, 5).tolist()]
    again = StreamBatches(examples, 2, seed=3)
    again.load({"drawn": 4, "data": batches.state()["data"]})
    assert [int(stream.ids[0]) for stream in next(iter(again))] == drawn[4:6] and again.state()["drawn"] == 6
    one, two = np.array([1, 2], np.int32), np.array([3], np.int32)
    assert len({digest([one, two]), digest([two, one]), digest([np.array([1, 2, 3], np.int32)])}) == 3
    for state in ({"drawn": -1, "data": "d"}, {"offset": -1, "data": "d"}):
        with pytest.raises(ValueError, match="its position in the data is"):
            expect_same_data("d", state)
    expect_same_data("d", {"drawn": 0, "offset": 0, "data": "d"})


def test_a_vocabulary_needs_texts_that_are_not_all_empty(tmp_path: Path) -> None:
    for texts in ([], ["", ""]):
        for kind in ("bpe", "wordpiece"):
            with pytest.raises(ConfigError) as refused:
                train_vocabulary(texts, tmp_path / kind, kind=kind, vocab_size=300)  # type: ignore[arg-type]
            assert str(refused.value) == "the texts to train a vocabulary on are empty: give a file with text"
            assert not (tmp_path / kind).exists()
