"""The commands of probes, patches and steering on a tiny model: what they print, write and refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

import pytest
import torch

import tiny
from firsthand.cli import main
from firsthand.nn.activation_monitor import read_monitor


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interp")
    tiny.write_model(folder / "model")
    rng = Random(0)
    for name, words in (("good", "12 30 40"), ("bad", "7 8 9")):
        lines = [" ".join(rng.choices(words.split(), k=5)) for _ in range(30)]
        (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> object:
    assert main(["interp", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_probe_is_printed_with_its_controls_and_written_as_a_monitor(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = place / "probe.safetensors"
    texts = ["--positive", str(place / "good.txt"), "--negative", str(place / "bad.txt")]
    body = printed(capsys, "probe", str(place / "model"), *texts, "--layer", "0", "--out", str(file))
    assert isinstance(body, dict) and {"accuracy", "control", "shuffled", "majority", "auroc"} <= set(body)
    monitor = read_monitor(file)
    assert monitor.site == "blocks.0.resid.post" and monitor.name == "good" and monitor.threshold == body["threshold"]
    assert torch.isfinite(monitor.direction).all()


def test_patches_restore_the_clean_choice_at_the_last_layer(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["--clean", "12 30 40", "--corrupted", "12 40 30", "--answer", "1", "--other", "7"]
    rows = printed(capsys, "patch", str(place / "model"), *texts)
    assert isinstance(rows, list) and rows[-1]["restored"] == pytest.approx(1, abs=1e-3)
    assert main(["interp", "patch", str(place / "model"), *texts, "--sites", "blocks.0.resid.pots"]) == 2
    assert "did you mean 'blocks.0.resid.post'" in capsys.readouterr().err


@pytest.mark.slow
def test_steering_stands_beside_a_random_vector_and_a_cost(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = str(place / "good.txt"), str(place / "bad.txt")
    files = ["--towards", good, "--away", bad, "--prompts", bad, "--unrelated", good]
    rows = printed(capsys, "steer", str(place / "model"), *files, "--answer", "1", "--other", "7", "--layer", "0")
    assert isinstance(rows, list) and [row["strength"] for row in rows] == [0.5, 1.0, 2.0]
    assert all({"effect", "random_effect", "cost", "random_cost"} <= set(row) for row in rows)
    more = [*files, "--answer", "1", "--other", "7", "--layer", "0", "--strengths", "2"]
    (other,) = printed(capsys, "steer", str(place / "model"), *more, "--seed", "1")
    assert isinstance(other, dict) and (other["effect"], other["cost"]) == (rows[2]["effect"], rows[2]["cost"])
    assert other["random_effect"] != rows[2]["random_effect"] and other["random_cost"] != rows[2]["random_cost"]
    missing = [*files[:2], "--away", "missing", *files[4:], "--answer", "1", "--other", "7"]
    assert main(["interp", "steer", "x", *missing]) == 2
    assert "no file 'missing'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--site", "nope"), ("--layer", "99"), ("--site", "blocks.0.resid.pots")])
@pytest.mark.parametrize("command", ["sae", "probe", "steer"])
def test_a_site_that_is_not_there_is_told_before_the_weights_are_read(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, words: tuple[str, str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(place / "model", model)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink(missing_ok=True)  # the weights and then the tokenizer are read: this would be told first
    good, bad = str(place / "good.txt"), str(place / "bad.txt")
    more = {
        "sae": ("--out", str(tmp_path / "sae")),
        "probe": ("--positive", good, "--negative", bad),
        "steer": (
            "--towards",
            good,
            "--away",
            bad,
            "--prompts",
            bad,
            "--unrelated",
            good,
            "--answer",
            "1",
            "--other",
            "7",
        ),
    }
    assert main(["interp", command, str(model), *more[command], *words]) == 2
    assert "no activation site" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--context", "100000"), 2, "context is 100000: the model takes 2 to"),
        (("--k", "9000"), 2, "k is 9000: of"),
        (("--lr", "2"), 2, "lr is 2.0"),
        (("--texts", "{empty}"), 1, "there is no text in"),
        (("--out", "{taken}"), 2, "holds an autoencoder already"),
    ],
)
def test_an_autoencoder_that_cannot_be_trained_is_refused_before_the_weights_are_read(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, str], code: int, told: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(place / "model", model)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink(missing_ok=True)  # as above
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "cfg.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    given = [word.format(empty=tmp_path / "empty", taken=tmp_path / "taken") for word in words]
    out = [] if "--out" in words else ["--out", str(tmp_path / "sae")]
    assert main(["interp", "sae", str(model), "--layer", "0", *out, *given]) == code
    assert told in capsys.readouterr().err and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", ["probe", "steer"])
def test_too_few_texts_are_told_before_the_model_is_fetched(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    empty, good = tmp_path / "empty.txt", str(place / "good.txt")
    empty.write_text("\n")
    steer = ["--away", good, "--prompts", good, "--unrelated", good, "--answer", "1", "--other", "7"]
    more = {"probe": ["--positive", str(empty), "--negative", good], "steer": ["--towards", str(empty), *steer]}
    assert main(["interp", command, "no-such-model", *more[command]]) in (1, 2)
    told = capsys.readouterr().err
    assert "texts" in told and "no-such-model" not in told


def test_blank_lines_are_no_texts_of_a_probe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "few.txt").write_text("".join(f"text {n}\n \n\n" for n in range(19)))
    (tmp_path / "enough.txt").write_text("".join(f"another text {n}\n" for n in range(20)))
    (tmp_path / "equal.txt").write_text((tmp_path / "few.txt").read_text() * 2)
    for positive, negative, told in (
        ("few", "enough", "19 positive and 20"), ("enough", "few", "20 positive and 19"),
        ("equal", "enough", "19 positive and 20"), ("enough", "equal", "20 positive and 19"),
    ):  # fmt: skip
        line = ["--positive", str(tmp_path / f"{positive}.txt"), "--negative", str(tmp_path / f"{negative}.txt")]
        assert main(["interp", "probe", "no-such-model", *line]) == 1
        assert (
            f"{told} negative texts came: a probe needs 20 of each or more, and equal texts count once"
            in capsys.readouterr().err
        )
