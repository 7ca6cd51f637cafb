"""Logs of Inspect and lm-eval that were made to do harm: each is one sentence, and nothing half-made is left."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from firsthand.bridges.inspect import eval_logs
from firsthand.bridges.inspect.eval_logs import attempt_of, import_eval
from firsthand.bridges.lm_eval import sample_lines
from firsthand.bridges.lm_eval.sample_lines import import_samples
from firsthand.commands.studio_transfer import import_logs
from firsthand.errors import DataError
from firsthand.runs import store

SAMPLE: dict[str, Any] = {"id": "1", "input": "q", "messages": [{"role": "assistant", "content": "a"}]}
ROW: dict[str, Any] = {"doc_id": 1, "doc": {}, "filtered_resps": ["a"], "metrics": ["acc"], "acc": 1.0}


def eval_log(path: Path, *samples: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as log:
        log.writestr("header.json", json.dumps({"eval": {"task": "t", "model": "m"}}))
        for number, sample in enumerate(samples):
            log.writestr(f"samples/{number}.json", sample if isinstance(sample, str) else json.dumps(sample))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["a" * 400_000, ["a" * 400_000], {"a" * 400_000: 1}])
@pytest.mark.parametrize(
    "places",
    [
        {"messages": [{"role": "user", "content": "attachment://h"}] * 1000},
        {"choices": ["attachment://h"] * 1000},
        {"input": [{"content": "attachment://h"}] * 1000},
    ],
)
def test_a_text_kept_apart_that_stands_in_a_thousand_places_is_counted_before_it_is_put_there(
    places: dict[str, Any], kept: Any, tmp_path: Path
) -> None:
    log = eval_log(tmp_path / "x.eval", SAMPLE, {**SAMPLE, **places, "attachments": {"h": kept}})
    with pytest.raises(DataError) as refused:
        import_eval(log, tmp_path / "home")
    assert str(refused.value) == (
        f"{log}: samples/1.json: the attachments of this sample have more than 64 Mi characters in the places where they "
        "stand: import the log without it"
    )
    assert store.list_runs(tmp_path / "home") == []


@pytest.mark.slow
def test_attachments_are_counted_to_the_character_for_a_sample_and_for_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = {**SAMPLE, "input": "attachment://h", "choices": ["attachment://h", "b"], "attachments": {"h": "abcde"},
              "events": ["attachment://h"] * 9}  # fmt: skip
    monkeypatch.setattr(eval_logs, "MAX_ATTACHED_CHARS", 10)
    task, _ = attempt_of(sample, "b", "m")
    assert (task.prompt, task.choices) == ("abcde", ("abcde", "b"))
    monkeypatch.setattr(eval_logs, "MAX_LOG_ATTACHED_CHARS", 20)
    assert import_eval(eval_log(tmp_path / "x.eval", sample, {**sample, "id": "2"}), tmp_path / "home")[1] == 2
    monkeypatch.setattr(eval_logs, "MAX_LOG_ATTACHED_CHARS", 19)
    with pytest.raises(DataError, match=r"samples/1\.json: the attachments of this log's samples up to this one"):
        import_eval(tmp_path / "x.eval", tmp_path / "home")
    monkeypatch.setattr(eval_logs, "MAX_ATTACHED_CHARS", 9)
    with pytest.raises(DataError, match="the attachments of this sample have more than"):
        attempt_of(sample, "b", "m")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"messages": 5}, "its messages is 5, and a list was expected"),
        ({"choices": 5}, "its choices is 5, and a list was expected"),
        ({"metadata": [1]}, r"its metadata is \[1\], and an object was expected"),
        (
            {"messages": [{"role": "assistant", "tool_calls": 5}]},
            "a message's tool_calls is 5, and a list was expected",
        ),
        (
            '{"id":1,"input":' + '[{"content":' * 50_000 + '"x"' + "}]" * 50_000 + "}",
            "is no JSON: it is nested too deep",
        ),
    ],
)
def test_a_sample_of_a_wrong_kind_is_named_and_leaves_no_run(wrong: Any, said: str, tmp_path: Path) -> None:
    log = eval_log(tmp_path / "x.eval", SAMPLE, wrong if isinstance(wrong, str) else {**SAMPLE, **wrong})
    with pytest.raises(DataError, match=rf"x\.eval: samples/1\.json:? {said}"):
        import_eval(log, tmp_path / "home")
    assert store.list_runs(tmp_path / "home") == [] and not list((tmp_path / "home").rglob("run.sqlite*"))


def test_a_number_that_no_database_holds_is_none(tmp_path: Path) -> None:
    huge = {**SAMPLE, "epoch": 1e299, "model_usage": {"m": {"input_tokens": 1e299, "output_tokens": 10**15}}}
    _, trace = attempt_of(huge, "b", "m")
    assert (trace.epoch, trace.usage.prompt_tokens, trace.usage.completion_tokens) == (0, 0, 10**15)
    assert import_eval(eval_log(tmp_path / "x.eval", huge), tmp_path / "home")[1] == 1


@pytest.mark.slow
def test_a_log_that_cannot_be_read_is_left_out_of_a_folder_and_the_others_are_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    bad = eval_log(logs / "a.eval", {**SAMPLE, "messages": 5})
    eval_log(logs / "b.eval", SAMPLE)
    (logs / "samples_c.jsonl").write_text(json.dumps(ROW) + "\n")
    os.mkfifo(logs / "c.eval")  # no ordinary file: passed over, and not waited for
    assert import_logs(logs, tmp_path / "home") == 1
    out, err = capsys.readouterr()
    assert out.count("1 sample in run") == 2 and len(err.splitlines()) == 1 and f"Left out: {bad}: samples/0" in err
    assert len(store.list_runs(tmp_path / "home")) == 2
    with pytest.raises(DataError, match="its messages is 5"):
        import_logs(bad, tmp_path / "home")


def test_a_score_of_four_hundred_digits_is_one_sentence_and_leaves_no_run(tmp_path: Path) -> None:
    path = tmp_path / "samples_t.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, "doc_id": 2, "acc": 10**399}) + "\n")
    with pytest.raises(DataError, match="the acc of sample '2' is a number of 400 digits, and a score was expected"):
        import_samples(path, tmp_path / "home")
    assert store.list_runs(tmp_path / "home") == []


def test_samples_of_lm_eval_are_read_from_ordinary_files_of_a_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, home = tmp_path / "samples_t.jsonl", tmp_path / "home"
    for make in (lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero"), path.mkdir):
        make()
        with pytest.raises(
            DataError, match=r"samples_t\.jsonl cannot be read: (it is no ordinary file|Is a directory)"
        ):
            import_samples(path, home)
        path.rmdir() if path.is_dir() else path.unlink()
    with path.open("wb") as file:
        file.truncate(4 << 30)
    with pytest.raises(DataError, match="has more than 1,024 MiB: import its samples in several files"):
        import_samples(path, home)
    path.write_text(json.dumps(ROW) + "\n")
    monkeypatch.setattr(sample_lines, "MAX_FILE_BYTES", path.stat().st_size)
    os.mkfifo(tmp_path / "results_3.json")
    with (tmp_path / "results_2.json").open("wb") as file:
        file.truncate(4 << 30)
    (tmp_path / "results_1.json").write_text('{"model_name": "org/model"}')
    id, count = import_samples(path, home)
    with store.open_run(id, home) as run:
        assert count == 1 and list(run.agents()) == ["org/model"]
    monkeypatch.setattr(sample_lines, "MAX_FILE_BYTES", path.stat().st_size - 1)
    with pytest.raises(DataError, match="has more than"):
        import_samples(path, home)


def test_no_more_of_a_line_is_read_than_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "samples_t.jsonl"
    path.write_text("\n" + " " * 200 + "\n" + json.dumps(ROW) + "\n")
    monkeypatch.setattr(sample_lines, "MAX_LINE_CHARS", 199)
    with pytest.raises(DataError, match="line 2: a sample"):
        import_samples(path, tmp_path / "home")
    monkeypatch.setattr(sample_lines, "MAX_LINE_CHARS", 201)
    assert import_samples(path, tmp_path / "home")[1] == 1


@pytest.mark.slow
def test_a_sample_is_bounded_by_the_memory_of_its_text_and_not_by_its_bytes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eval_logs, "MAX_SAMPLE_BYTES", 2_000)
    for name, text, is_refused in (
        ("ascii", "a" * 1_800, False), ("emoji", "\U0001f600" + "a" * 600, True), ("few", "\U0001f600" + "a" * 200, False),
        ("wide", "\u4e2d" * 500, False), ("wider", "\u4e2d" + "a" * 1_200, True), ("latin", "\xe9" * 800, False),
    ):  # fmt: skip
        raw = json.dumps({**SAMPLE, "input": text}, ensure_ascii=False)
        log = eval_log(tmp_path / f"{name}.eval", raw)
        if not is_refused:
            assert import_eval(log, tmp_path / "home")[1] == 1, name
            continue
        with pytest.raises(DataError, match=r"samples/0\.json takes \d+ MiB as text.*: one emoji makes"):
            import_eval(log, tmp_path / "home")
    escaped = eval_log(tmp_path / "escaped.eval", json.dumps({**SAMPLE, "input": "\U0001f600" + "a" * 600}))
    with pytest.raises(DataError, match="as text"):
        import_eval(escaped, tmp_path / "home")


def test_a_line_feed_in_the_name_of_a_log_makes_no_line_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "samples_a\n100 samples in run 2026-real.jsonl").write_text("no\n")
    assert import_logs(logs, tmp_path / "home") == 1
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1 and err.startswith("Left out: ") and "100 samples in run" in err
