"""Training runs and token folders of strangers: links to what is yours, paths elsewhere, files without end."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import firsthand.train
from firsthand.errors import ConfigError, DataError, StoreError
from firsthand.experiment.foreign_recipe import expect_beside
from firsthand.train.bpe import train_tokenizer
from firsthand.train.checkpoints import Checkpoints
from firsthand.train.kept_rollouts import KeptRollouts
from firsthand.train.model_folder import save_model
from firsthand.train.streams import Stream, save_streams
from firsthand.train.token_file import open_token_file, write_token_file
from firsthand.train.training_run import PARTS, is_made_here, opened, stored_settings
from test_train_run_folder import Config, fitted
from train_tiny import Lists, model


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with a file of the user."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("my only copy")
    return tmp_path / "mine"


def refused(act: Callable[[], Any], kind: type[Exception]) -> str:
    with pytest.raises(kind) as raised:
        act()
    return str(raised.value)


# -- links in a run's folder --


@pytest.mark.slow
@pytest.mark.parametrize("part", [each for each in PARTS if "." not in each[1:]])
def test_a_run_is_not_opened_with_a_link_in_the_place_of_a_part(part: str, home: Path, mine: Path) -> None:
    with opened(home / "run", "sft", Config()) as run:
        fitted(run)
    place = home / "run" / part
    if place.exists():
        place.rename(home / "moved")
    place.symlink_to(mine)
    for resume in (True, False):
        assert f"{place} is a link" in refused(
            lambda resume=resume: opened(home / "run", "sft", Config(), resume=resume).__enter__(), StoreError
        )
    place.unlink()
    (place / "deep").mkdir(parents=True)
    (place / "deep" / "x").symlink_to(mine / "notes")
    assert f"{place / 'deep' / 'x'} is a link" in refused(
        lambda: opened(home / "run", "sft", Config(), resume=True).__enter__(), StoreError
    )
    assert (mine / "notes").read_text() == "my only copy" and len(list(mine.iterdir())) == 1


@pytest.mark.slow
def test_a_folder_that_is_given_by_a_link_and_links_beside_its_parts_are_no_matter(home: Path, mine: Path) -> None:
    (home / "disk").mkdir()
    (home / "run").symlink_to(home / "disk")
    (home / "disk" / "data").symlink_to(mine)
    with opened(home / "run", "sft", Config()) as run:
        assert fitted(run) == 3
    with opened(home / "run", "sft", Config(), resume=True) as run:
        assert fitted(run) == 3 and (home / "disk" / "checkpoints" / "step-000003").is_dir()


def test_every_part_that_a_recipe_writes_is_looked_at() -> None:
    rooms = Path(firsthand.train.__file__).parent
    texts = [each.read_text() for each in rooms.rglob("*.py")]
    named = {
        name
        for text in texts
        for name in re.findall(r'(?:run|self|folder\.resolve\(\))(?:\.folder)? / "([\w.]+)"', text)
    }
    assert {"checkpoints", "rollouts", "sampler", "tokenizer", "ledgers.jsonl"} <= named <= {*PARTS}


def test_what_training_writes_is_written_through_no_link(home: Path, mine: Path) -> None:
    for name in ("model.safetensors.part", "tokenizer.json", "step-3.npz", "tokens.bin"):
        (home / name).mkdir()
        (home / name / name).symlink_to(mine / "notes")
    tokenizer = train_tokenizer(["a b c d"], home / "tok", vocab_size=260)
    for act in (
        lambda: save_model(model(), tokenizer, home / "model.safetensors.part"),
        lambda: train_tokenizer(["a b"], home / "tokenizer.json", vocab_size=260),
        lambda: save_streams([Stream([1, 2], ce=[0, 1])], home / "step-3.npz", 3),
        lambda: write_token_file([], tokenizer, home / "tokens.bin"),
    ):
        assert " is a link" in refused(act, StoreError)
    assert (mine / "notes").read_text() == "my only copy"


def test_a_token_file_is_new_and_what_was_mapped_stays(home: Path) -> None:
    tokenizer = train_tokenizer(["a b c d"], home / "tok", vocab_size=260)
    from firsthand.train.documents import SourceText

    before = write_token_file([SourceText("x", "a b c")], tokenizer, home / "t").ids
    kept = np.array(before)
    write_token_file([SourceText("x", "d d d d d")], tokenizer, home / "t")
    assert (before == kept).all()


def test_checkpoints_behind_a_link_are_neither_written_removed_nor_read(home: Path, mine: Path) -> None:
    (mine / "step-000001").mkdir()
    (home / "checkpoints").symlink_to(mine)
    found = Checkpoints(home / "checkpoints", every=1, keep=1)
    decoder = model()
    optimizer = torch.optim.SGD(decoder.parameters(), lr=0.1)
    for act in (lambda: found.save(2, decoder, optimizer, Lists()), lambda: found.restore(decoder, optimizer, Lists())):
        assert "is a link" in refused(act, StoreError)
    assert sorted(each.name for each in mine.iterdir()) == ["notes", "step-000001"]


@pytest.mark.slow
def test_rollouts_are_kept_through_no_link_and_a_file_of_others_is_not_cut(home: Path, mine: Path) -> None:
    folder = home / "rollouts"
    folder.mkdir()
    (folder / "train-000000-0.jsonl").symlink_to(mine / "notes")
    kept = KeptRollouts(folder)
    assert "is a link" in refused(lambda: kept.begin("train", 0, "w"), StoreError)
    (folder / "train-000000-0.jsonl").unlink()
    os.mkfifo(folder / "train-000000-1.jsonl")
    assert "is no ordinary file" in refused(lambda: kept.begin("train", 0, "w"), StoreError)
    (folder / "train-000000-1.jsonl").unlink()
    for line in ('{"version": 3, "id": 1}', "[]", "[" * 100_000, '{"a":[' + "[]," * 3_000_000 + "[]]}"):
        (folder / "train-000000-1.jsonl").write_text(f'{{"weights": "w"}}\n{line}\n')
        assert "train-000000-1.jsonl does not hold rollouts of this run; remove it" in refused(
            lambda: kept.begin("train", 0, "w"), StoreError
        )
    (folder / "train-000000-1.jsonl").unlink()
    (folder / "train-x-0.jsonl").touch()
    assert kept.begin("train", 1, "w") == {}
    kept.drop_before("train", 2)
    assert [each.name for each in folder.iterdir()] == ["train-x-0.jsonl"]


# -- files without end --


@pytest.mark.slow
def test_settings_and_counts_are_read_from_ordinary_files_of_bounded_size(home: Path, mine: Path) -> None:
    path, meta = home / "run" / "recipe.json", home / "run" / "tokens.json"
    path.parent.mkdir()
    tokenizer = train_tokenizer(["a b c d"], home / "tok", vocab_size=260)

    def both() -> tuple[str, str]:
        assert not is_made_here(path.parent)
        return (
            refused(lambda: stored_settings(path.parent), ConfigError),
            refused(lambda: open_token_file(path.parent, tokenizer), DataError),
        )

    for make in (
        lambda each: each.symlink_to("/dev/zero"),
        lambda each: each.symlink_to(mine / "notes"),
        lambda each: os.mkfifo(each),
        lambda each: each.write_text("[" * 200_000),
        lambda each: each.write_text('{"recipe":[' + "[]," * 2_000_001 + "1]}"),
        lambda each: os.truncate(each, (1 << 24) + 1) if each.touch() is None else None,
    ):
        for each in (path, meta):
            make(each)
        one, two = both()
        assert "holds no training run (recipe.json: " in one and "holds no token file (" in two
        for each in (path, meta):
            each.unlink()


# -- settings that name paths --


def test_a_run_from_elsewhere_reads_and_writes_nothing_outside_of_its_folder(home: Path, mine: Path) -> None:
    run = home / "run"
    run.mkdir()
    (run / "book.txt").touch()
    (run / "link.txt").symlink_to(mine / "notes")
    (home / "private").touch()
    for fine in (
        {
            "data": ["run/book.txt", "run/later", ""],
            "tokens": str(run / "tok"),
            "tokenizer": "",
            "loop": {"device": "cpu"},
        },
        {"model": "smollm2", "data": "prefs", "adapter": {"begin_with": None}, "suffixes": [".py", ".txt"], "steps": 3},
    ):
        expect_beside(run, "sft", fine)
    for name, text in (
        ("data", str(mine / "notes")), ("data", "private"), ("data", "prefs, private"), ("data", "run/../private"),
        ("data", "run/link.txt"), ("tokens", "new/folder"), ("tokens", "run/../../x"), ("tokenizer", "hf:a/b"),
        ("data", ".."),
        ("reward_model", "mine"), ("ptx", "~/x"), ("begin_with", "mine"), ("data", "x@y"), ("data", "a/" + "b" * 5000),
        ("data", "."),
    ):  # fmt: skip
        for settings in ({name: text}, {name: [text]}, {"adapter": {name: text}}, {f"adapter.{name}": text}):
            said = refused(lambda settings=settings: expect_beside(run, "sft", settings), ConfigError)
            assert said.startswith(
                f"{run} was made elsewhere and names the {name} {text!r}, which may run code or reach"
            )
    told = refused(
        lambda: expect_beside(run, "x.py", {"data": ["/" + "a" * 300, "/b"], "tools": ["mcp:x"]}), ConfigError
    )
    assert f"names the recipe 'x.py', the data '/{'a' * 300}', the data '/b', the tool 'mcp:x', which" in told
    assert told.endswith("look at it, then add --trust")
    assert "characters more" in refused(lambda: expect_beside(run, "sft", {"data": "/" * 30_000}), ConfigError)
    deep: Any = "/x"
    for _ in range(5000):
        deep = {"a": deep}
    assert "the a '/x'" in refused(lambda: expect_beside(run, "sft", deep), ConfigError)


@pytest.mark.slow
def test_a_resumed_run_from_elsewhere_asks_for_trust_before_it_reads_a_text(home: Path, cli: Any) -> None:
    (home / "private.txt").write_text("secret words " * 50)
    words = ("--layers", "1", "--hidden-size", "16", "--heads", "2", "--context", "16", "--vocab-size", "270")
    done = cli(
        "train",
        "pretrain",
        "private.txt",
        "--steps",
        "1",
        "--holdout",
        "0",
        "--batch-tokens",
        "32",
        "--out",
        "r",
        *words,
    )
    assert done[0] == 0 and cli("train", "--resume", "r", "--steps", "2")[0] == 0, "one's own needs no trust"
    body = json.loads(Path("r/recipe.json").read_text())
    Path("r/recipe.json").write_text(json.dumps(body | {"seal": "00"}))
    code, _, error = cli("train", "--resume", "r", "--steps", "3")
    assert code == 2 and "r was made elsewhere and names the data 'private.txt', which may run code or reach" in error
    assert cli("train", "--resume", "r", "--steps", "3", "--trust")[0] == 0
