"""`firsthand bench` on a tiny real model: its table, its files, its refusals; and what a planner makes of its result."""

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firsthand.cli import main
from firsthand.commands.bench import Config
from firsthand.config import parse
from firsthand.errors import ConfigError, StoreError
from firsthand.measure.machine import describe
from firsthand.measure.machine_speeds import Speeds
from firsthand.measure.measurements import (
    BenchResult,
    Measured,
    markdown_table,
    number,
    save_result,
    saved_results,
    spread,
)
from tiny import write_model

SPEEDS = Speeds(threads=2, read_gb_s=20.0, float32_gflop_s=100.0, bfloat16_gflop_s=200.0, int8_gop_s=400.0)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def result(**changes: Any) -> BenchResult:
    made = BenchResult(
        model="a",
        path="/models/a.gguf",
        date="2026-11-25T00:00:00+00:00",
        command="firsthand bench a",
        machine={"key": "0123456789abcdef", "load": 0.0, "cores": 2},
        machine_line="a machine",
        speeds=SPEEDS,
        weights="int8",
        weight_bytes=100_000_000,
        parameters=130_000_000,
        prefill_gflop=0.25,
        figures=(
            Measured("prefill 512", "tokens/s", "a prompt", (700.0, 800.0, 900.0)),
            Measured("decode 1", "tokens/s", "one | answer", (90.0, 100.0, 120.0)),
        ),
        left_out=("32 chats: too little memory",),
    )
    return replace(made, **changes)


@pytest.mark.slow
def test_a_quick_run_measures_everything_and_writes_both_files(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path / "model", max_position=1024)
    files = ["--out", str(tmp_path / "b.md"), "--json", str(tmp_path / "b.json")]
    words = [str(model), "--quick", "--threads", "1", *files]
    assert main(["bench", *words]) == 0
    printed = capsys.readouterr().out
    found = BenchResult.from_json(json.loads((tmp_path / "b.json").read_text()))
    names = [figure.name for figure in found.figures]
    for name in ("prefill 128", "decode 1", "decode 32", "8 chats", "decode at 512 / at 64", "shared prefix: decode"):
        assert name in names
    assert {"8 chats: KV waste", "5-shot choices", "shared prefix: attention saved"} <= set(names)
    by_name = {figure.name: figure.median for figure in found.figures}
    assert by_name["second turn: old tokens computed again"] == 0 == by_name["memory: blocks not freed"]
    assert by_name["tree of thoughts: saved"] > 3 and by_name["memory: in use at the end"] > 10
    reached = 100 * by_name["decode 1"] * found.weight_bytes / (found.speeds.read_gb_s * 1e9)
    assert by_name["memory's speed reached by decode 1"] == pytest.approx(reached)
    assert found.quick and found.left_out == () and found.machine["key"] == describe().key
    assert parse(Config, shlex.split(found.command)[2:], prog="firsthand bench") == Config(
        str(model), quick=True, threads=1, out=files[1], json=files[3]
    )
    markdown = (tmp_path / "b.md").read_text()
    assert "A quick run" in markdown and all(f"| {name} |" in markdown for name in names)
    assert found.command in markdown and "decode 32" in printed
    assert saved_results(describe().key) == []  # a quick run is nothing to plan with


@pytest.mark.slow
def test_json_alone_is_all_that_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model")
    assert main(["bench", str(model), "--quick", "--threads", "1", "--only", "second turn", "--json"]) == 0
    found = BenchResult.from_json(json.loads(capsys.readouterr().out))
    assert [figure.name for figure in found.figures if not figure.name.startswith("memory")] == [
        "second turn: old tokens computed again",
        "second turn: time to first token",
    ]


@pytest.mark.slow
def test_what_a_model_is_too_short_for_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model", max_position=96)
    assert main(["bench", str(model), "--quick", "--threads", "1", "--only", "prefill,decode 1"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "left out: prefill 128: a sequence of it has 130 tokens, and the model's context is 96" in printed


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--rounds", "0"], 2, "rounds is 0: give 1 or more"),
        (["--threads", "0"], 2, "threads is 0: give 1 to 1024"),
        (["--seconds", "-1"], 2, "seconds is -1.0"),
        (["--seconds", "nan"], 2, "seconds is nan"),
        (["--out", "/nowhere/at/all/b.md"], 2, "the folder of '/nowhere/at/all/b.md' does not exist"),
        (["--weights", "int3"], 2, "weights is 'int3'"),
        (["--quik"], 2, "did you mean --quick"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert main(["bench", str(tmp_path), *words]) == code
    assert said in capsys.readouterr().err


def test_unknown_figures_and_models_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model")
    assert main(["bench", str(model), "--threads", "1", "--only", "frobnicate"]) == 2
    said = capsys.readouterr().err
    assert "no figure has such a word" in said and "tree of thoughts" in said
    assert main(["bench", "smolm2"]) == 2
    assert "did you mean 'smollm2'" in capsys.readouterr().err


def test_words_are_refused_before_anything_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"model_type": "nothing we know"}))
    assert main(["bench", str(model), "--only", "decode"]) != 0
    assert "nothing we know" in capsys.readouterr().err  # loading would say this
    assert main(["bench", str(model), "--only", "frobnicate"]) == 2
    said = capsys.readouterr().err
    assert "no figure has such a word" in said and "5-shot choices" in said and "nothing we know" not in said


def test_a_result_survives_json_and_the_disk(tmp_path: Path) -> None:
    made = result()
    assert BenchResult.from_json(json.loads(json.dumps(made.to_json()))) == made
    key = made.machine["key"]
    save_result(result(date="2026-11-24", model="b"), home=tmp_path)
    path = save_result(made, home=tmp_path)
    assert save_result(result(date="2026-11-26"), home=tmp_path) == path  # the same model's takes its place
    (path.parent / "broken.json").write_text("{")
    (path.parent / "deep.json").write_text("[" * 100_000)
    (path.parent / "other.json").write_text('{"version": 99}')
    assert [each.date for each in saved_results(key, home=tmp_path)] == ["2026-11-26", "2026-11-24"]
    assert saved_results("another machine", home=tmp_path) == []


def test_models_of_one_name_by_two_makers_have_a_result_each(tmp_path: Path) -> None:
    key = result().machine["key"]
    one = save_result(result(model="a/model", date="2026-11-24"), home=tmp_path)
    two = save_result(result(model="b/model", date="2026-11-25"), home=tmp_path)
    bare = save_result(result(model="model", date="2026-11-23"), home=tmp_path)
    assert len({one, two, bare}) == 3
    assert [each.model for each in saved_results(key, home=tmp_path)] == ["b/model", "a/model", "model"]
    assert save_result(result(model="a/model", date="2026-11-26"), home=tmp_path) == one
    found = [(each.model, each.date) for each in saved_results(key, home=tmp_path)]
    assert found == [("a/model", "2026-11-26"), ("b/model", "2026-11-25"), ("model", "2026-11-23")]


def test_a_full_disk_is_an_error_with_a_name(tmp_path: Path) -> None:
    (tmp_path / "bench").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="could not be written"):
        save_result(result(), home=tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("figures", [{"name": "decode 1", "unit": "", "meaning": "", "values": []}]),
        ("figures", [{"name": "decode 1", "unit": "", "meaning": "", "values": ["fast"]}]),
        ("figures", [{"name": "decode 1", "unit": "", "meaning": "", "values": [math.nan]}]),
        ("figures", [7]),
        ("weight_bytes", 0),
        ("parameters", "many"),
        ("speeds", {"threads": 1, "read_gb_s": -1.0, "float32_gflop_s": 1.0}),
        ("speeds", {"threads": 1, "read_gb_s": 1.0, "float32_gflop_s": 1.0, "bfloat16_gflop_s": "fast"}),
        ("speeds", {"threads": 1, "read_gb_s": 1.0, "float32_gflop_s": 1.0, "int8_gop_s": 0}),
        ("speeds", {"threads": 1, "read_gb_s": 1.0, "float32_gflop_s": 1.0, "load": "none"}),
        ("speeds", None),
        ("date", 5),
        ("left_out", 5),
        ("surprise", 5),
    ],
)
def test_a_damaged_result_is_refused(field: str, value: Any) -> None:
    with pytest.raises(StoreError, match="run the command again"):
        BenchResult.from_json({**result().to_json(), field: value})


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["version", "model", "speeds", "figures", "machine", "left_out", "weight_bytes"]),
        st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3)),
    )
)
def test_whatever_is_in_the_file_the_error_is_ours(changes: dict[str, Any]) -> None:
    body = {**result().to_json(), **changes}
    try:
        BenchResult.from_json(body)
    except StoreError:
        return
    assert body["version"] == 1


def test_tables_and_numbers_read_well() -> None:
    assert [number(value) for value in (1204.4, 42.13, 0.853, 3, 0)] == ["1,204", "42.1", "0.85", "3", "0"]
    assert spread([1.0, 3.0, 2.0]) == "2 (1-3)" and spread([5.0]) == "5"
    assert markdown_table(["a"], [["x|y"]]) == "| a |\n| --- |\n| x\\|y |"
    text = result().markdown()
    assert "| decode 1 | 100 (90-120) tokens/s | one \\| answer |" in text
    assert "- left out: 32 chats: too little memory" in text and "`firsthand bench a`" in text
    whole = result(left_out=()).markdown()
    assert "left out" not in whole and "\n\n\n" not in text + whole


def test_the_command_line_of_a_config_gives_that_config() -> None:
    for config in (Config(), Config("m", rounds=5, only=("a b", "c"), quick=True, kv_cache="int8", json="-")):
        words = shlex.split(config.command())[2:]
        assert parse(Config, words, prog="firsthand bench") == config
    with pytest.raises(ConfigError):
        Config(rounds=0)


def test_only_a_whole_run_of_the_engine_as_it_is_used_is_planned_with() -> None:
    assert Config("m", rounds=9, seconds=1, out="a.md", json="-").is_whole
    for part in (Config(quick=True), Config(threads=1), Config(only=("decode",)), Config(weights="float32")):
        assert not part.is_whole


@pytest.mark.slow
def test_inspect_tells_of_what_was_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model")
    measured = result(machine=describe().to_json(), path=str(model.resolve()), weights="float16")
    save_result(measured)
    assert main(["models", "inspect", str(model), "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["plan"]["expected"]
    assert expected["is_same"] and expected["decode"] == 100.0 and expected["prefill"] == 800.0
    assert main(["models", "inspect", str(model)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Measured on 2026-11-25 with weights in float16: 100 tokens/s decoding, 800 in prefill" in said
