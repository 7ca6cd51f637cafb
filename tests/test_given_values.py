"""Values in files of somebody else are counted before they are kept: logs of other trackers, lines of a corpus."""

from __future__ import annotations

import gzip
import json
import struct
from contextlib import closing
from pathlib import Path

import pytest

from firsthand.benchmarks.retrieval_sets import beir_folder
from firsthand.benchmarks.retrieval_sets.beir_folder import read_corpus
from firsthand.errors import DataError, ModelFileError
from firsthand.hub.inspection import inspect
from firsthand.runs import logged_values, store, wandb_files
from firsthand.runs.event_files import LoggedValue
from firsthand.runs.track import Track
from firsthand.runs.track_import import import_runs
from firsthand.runs.wandb_files import read_wandb
from tracker_bytes import history, wandb_log


def test_a_line_of_a_corpus_with_too_many_values_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = {"_id": "1", "text": "one, two", "metadata": [{}] * 40}
    for name, write in (("corpus.jsonl", open), ("corpus.jsonl.gz", gzip.open)):
        folder = tmp_path / name
        folder.mkdir()
        with write(folder / name, "wt") as file:
            file.write(json.dumps(line) + "\n")
        assert [each.text for each in read_corpus(folder)] == ["one, two"]
        with monkeypatch.context() as bounded:
            bounded.setattr(beir_folder, "MAX_LINE_VALUES", 20)
            with pytest.raises(DataError, match=f"{name}, line 1 holds more than 20 JSON values"):
                read_corpus(folder)


def test_a_run_of_another_tracker_has_a_bounded_number_of_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "mlruns" / "r"
    (run / "metrics").mkdir(parents=True)
    (run / "meta.yaml").write_text("")
    (run / "metrics" / "loss").write_text("".join(f"1700000000000 0.5 {step}\n" for step in range(5)))
    monkeypatch.setattr(logged_values, "MAX_VALUES", 5)
    assert [count for _, count in import_runs(tmp_path / "mlruns", tmp_path / "home")] == [5]
    monkeypatch.setattr(logged_values, "MAX_VALUES", 4)
    with pytest.raises(DataError, match="'r' has more than 4 values: thin its log out"):
        import_runs(tmp_path / "mlruns", tmp_path / "home")


def test_an_item_of_a_wandb_log_with_too_many_values_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.wandb"
    path.write_bytes(wandb_log(history(0, loss=0.5, k=[{}] * 10)))
    assert [each.name for each in read_wandb(path).values] == ["loss"]
    monkeypatch.setattr(wandb_files, "MAX_VALUES", 9)
    with pytest.raises(DataError, match="with the item 'k' there are more than 9 JSON values"):
        read_wandb(path)


def test_numbers_written_in_one_block_are_each_sealed(tmp_path: Path) -> None:
    with closing(store.create(tmp_path, {"kind": "track", "name": "x"}, "x")) as run:
        track = Track(run)
        for block in range(2):
            for step in range(3):
                track.log({"a": step, "b": float("nan")}, step=3 * block + step, at=1.0)
            track.flush()
        rows = run.database.read(
            "SELECT name, step, digest = checksum(seq, name, step, value, at) FROM metrics ORDER BY seq"
        )
        assert rows == [(name, step, 1) for step in range(6) for name in "ab"]
        run.check()


def test_a_model_without_a_number_is_one_sentence(tmp_path: Path) -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 9,
    }
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 128}))
    for tensors in ({}, {"a": {"dtype": "F32", "shape": [0, 8], "data_offsets": [0, 0]}}):
        header = json.dumps(tensors).encode()
        (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
        with pytest.raises(ModelFileError, match=f"{tmp_path} holds no weights"):
            inspect(tmp_path)


def test_a_logged_value_takes_no_dictionary() -> None:
    assert not hasattr(LoggedValue("a", 1, 2.0, 3.0), "__dict__")
