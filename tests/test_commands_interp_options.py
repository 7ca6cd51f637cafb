"""`interp sae` and `interp probe` pass on every option, and cells of differences are printed by their rules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from firsthand.cli import main
from firsthand.commands import (
    interp_constitution,
    interp_deliberation,
    interp_induction,
    interp_probe,
    interp_sae,
    interp_sycophancy,
    sides,
)
from firsthand.errors import ConfigError
from firsthand.interp import monitor_fitting, opened_model
from firsthand.interp.circuits import causal_scrubbing, induction_heads, induction_model
from firsthand.interp.circuits.causal_scrubbing import Scrubbed
from firsthand.interp.circuits.induction_heads import HeadScore, RepetitionGain
from firsthand.interp.saes import sae_files, sae_run
from firsthand.interp.saes.sae_evaluation import SaeMeasures
from firsthand.interp.separation import Separation
from firsthand.stats.intervals import Interval
from firsthand.stats.paired import PairedDifference
from printed_tables import widen, words


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What the training of an autoencoder or a monitor was asked for; both take minutes, and are tested elsewhere."""
    told: list[Any] = []
    tokenizer = SimpleNamespace(encode_prompt=lambda text: [len(text)])

    def opened(name: str, **given: Any) -> Any:
        told.append(("open", name, given))
        return "MODEL", tokenizer, None

    measures = SaeMeasures(
        tokens=1234, cross_entropy=2.0, with_sae=2.5, with_zeros=4.0, fvu=0.125,
        difference=Interval(0.5, 0.25, 0.75, 3, "t"),
        l0=7.0, dead=0.25, shrinkage=0.5, density=torch.tensor([0.0, 0.5, 1.0]),
    )  # fmt: skip

    def trained(plan: Any, model: Any, tokenizer: Any, out: Path, *, told: Any) -> Any:
        asked_for.append((plan, model, out))
        return None, measures

    def fitted(model: Any, positive: Any, negative: Any, site: str, **given: Any) -> Any:
        asked_for.append((model, positive, negative, site, given))
        study = SimpleNamespace(
            accuracy=Interval(0.9, 0.8, 0.95, 9, "t"), control=Interval(0.6, 0.5, 0.7, 9, "t"), majority=0.55,
            shuffled=Interval(0.5, 0.4, 0.6, 9, "t"), selectivity=0.3,
        )  # fmt: skip
        return SimpleNamespace(
            study=study, separation=Separation(0.97, 0.9, 0.99, 5, 6), monitor=SimpleNamespace(threshold=1.5),
            caught=Interval(0.75, 0.5, 0.9, 5, "t"), false_alarms=Interval(0.125, 0.0, 0.25, 6, "t"),
            write=lambda file: asked_for.append(("write", file)),
        )  # fmt: skip

    asked_for = told
    for module, name, stub in (
        (opened_model, "open_for_interp", opened),
        (opened_model, "shape_of", lambda name, **given: "SHAPE"),
        (sae_files, "width_of", lambda shape, site: 10),
        (sae_run, "expect_possible", lambda plan, shape, out: None),
        (sae_run, "train_sae", trained),
        (monitor_fitting, "fit_monitor", fitted),
    ):
        monkeypatch.setattr(module, name, stub)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yes.txt").write_text("".join(f"{'y' * n}\n\n" for n in range(1, 21)))
    (tmp_path / "no.txt").write_text("".join(f"{'n' * (n + 30)}\n" for n in range(1, 22)))
    return told


def test_every_option_of_an_autoencoder_reaches_its_run(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "--layer 3 --kind topk --expansion 5 --k 6 --tokens 700 --batch 70 --context 8 --lr 0.25 --held-out 9 --seed 11"
    )
    line = ["interp", "sae", "some", *words.split(), "--threads", "2", "--texts", "yes.txt,no.txt", "--out", "there"]
    assert main([*line, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["folder"], body["site"], body["latents"], body["l0"]) == ("there", "blocks.3.resid.post", 50, 7.0)
    (_, name, given), (plan, model, out) = asked
    assert (name, given) == ("some", {"shown": False, "threads": 2}) and (model, out) == ("MODEL", Path("there"))
    assert plan == sae_run.SaeRun(
        "some", "blocks.3.resid.post", "topk", 50, 6, 700, 70, 8, 0.25, 11, ("yes.txt", "no.txt"), held_out_texts=9
    )
    line = [each for each in line if each not in ("--layer", "3")]  # a site stands in place of a layer
    assert main([*line, "--site", "blocks.1.hook_mlp_out"]) == 0
    printed = [" ".join(each.split()) for each in capsys.readouterr().out.splitlines() if each.strip(" ─")]
    assert printed == [
        "topk of 50 latents on blocks.1.mlp.out, held-out text", "measure value", "loss recovered 0.750",
        "cross-entropy of the model 2.000 nats a token", "with the reconstruction 2.500", "with zeros 4.000",
        "difference, 95% CI +0.500 [+0.250, +0.750]", "variance unexplained (FVU) 0.125", "L0 7.0",
        "dead, over 1,234 tokens 25.0%", printed[10],
        "Written to there: SAELens loads it. `firsthand interp dashboard there` shows it.",
    ]  # fmt: skip
    assert printed[10].startswith("density, 10% / 50% / 90% of latents 10.00% / 50.00% / 90.00%")
    for wrong, told in (
        ("--tokens=69", "tokens is 69: give 70 (a batch) or more"), ("--context=1", "context is 1: give 2 or more"),
        ("--kind=x", "kind is 'x': one of relu, topk"), ("--lr=1", "lr is 1.0"), ("--held-out=1", "held_out is 1"),
        ("--texts=gone", "no file or folder 'gone': give texts to train on"), ("--out=yes.txt", "yes.txt is a file"),
    ):  # fmt: skip
        assert main([*line, wrong]) == 2 and told in capsys.readouterr().err


def test_every_option_of_a_probe_reaches_its_fitting(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    line = ["interp", "probe", "some", "--positive", "yes.txt", "--negative", "no.txt", "--layer", "4", "--seed", "5"]
    line += ["--false-alarms", "0.125", "--held-out", "0.5"]
    assert main([*line, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["site"], body["threshold"], body["file"], body["majority"]) == ("blocks.4.resid.post", 1.5, None, 0.55)
    values = {name: body[name]["value"] for name in ("accuracy", "control", "shuffled", "caught", "false_alarms")}
    assert values == {"accuracy": 0.9, "control": 0.6, "shuffled": 0.5, "caught": 0.75, "false_alarms": 0.125}
    assert body["auroc"]["auroc"] == 0.97 and body["selectivity"] == 0.3
    _, (model, positive, negative, site, given) = asked
    assert (model, site) == ("MODEL", "blocks.4.resid.post")
    assert positive == [[n] for n in range(1, 21)] and negative == [[n + 30] for n in range(1, 22)]
    assert given == {"name": "yes", "false_alarms": 0.125, "held_out": 0.5, "seed": 5}
    assert main([*line, "--out", "m.safetensors"]) == 0
    printed = [" ".join(each.split()) for each in capsys.readouterr().out.splitlines() if each.strip(" ─")]
    assert printed == [
        "probe of blocks.4.resid.post, 95% CI", "measure value", "accuracy 0.900 [0.800, 0.950]",
        "control: a random label for each token before the last 0.600", "control: labels in random order 0.500",
        "the more frequent class 0.550", "AUROC of each text's mean score 0.970 [0.900, 0.990]", "threshold 1.50",
        "caught, held-out texts 0.750 [0.500, 0.900]", "false alarms, held-out texts 0.125 [0.000, 0.250]",
        "Written to m.safetensors: some+monitor:m.safetensors scores each answer's tokens with it.",
    ]  # fmt: skip
    assert asked[-1] == ("write", Path("m.safetensors"))
    for wrong, told in (
        ("--held-out=1", "held_out is 1.0: give a share between 0 and 1"), ("--layer=-1", "layer is -1: give 0 or more"),
        ("--false-alarms=0", "false_alarms is 0.0: give a share"), ("--negative=gone", "no file 'gone'"),
        ("--out=gone/m", "the folder of 'gone/m' does not exist"),
    ):  # fmt: skip
        assert main([*line, wrong]) == 2 and told in capsys.readouterr().err


def test_an_autoencoder_is_checked_by_its_models_shape_and_tells_its_error(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    trained = sae_run.train_sae

    @contextmanager
    def progress(label: str, total: int, *, shown: bool) -> Iterator[Any]:
        told.append((label, total, shown))
        yield lambda completed, note: told.append((completed, note))

    def training(*given: Any, told: Any) -> Any:
        told(7, 99, {"error": 1.26})
        return trained(*given, told=told)

    monkeypatch.setattr(interp_sae, "progress", progress)
    monkeypatch.setattr(sae_run, "train_sae", training)
    monkeypatch.setattr(opened_model, "shape_of", lambda name, **given: told.append((name, given)) or "SHAPE")
    monkeypatch.setattr(sae_run, "expect_possible", lambda plan, shape, out: told.append((plan.tokens, shape, out)))
    config = interp_sae.Config("some", Path("there"), layer=3, tokens=700, batch=70, threads=5)
    assert interp_sae.run(config) == 0
    site = "blocks.3.resid.post"
    assert told == [
        ("some", {"shown": True, "sites": (site,)}), (700, "SHAPE", Path("there")), (f"autoencoder of some {site}", 10,
        True),
        (7, "error 1.3"),
    ]  # fmt: skip
    assert asked[0] == ("open", "some", {"shown": True, "threads": 5})


def test_a_probe_opens_its_model_at_its_site(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    line = [
        "interp",
        "probe",
        "some",
        "--positive",
        "yes.txt",
        "--negative",
        "no.txt",
        "--site",
        "blocks.2.hook_mlp_out",
    ]
    assert main(line) == 0 and main([*line, "--json"]) == 0
    capsys.readouterr()
    assert [each[2] for each in asked[::2]] == [
        {"shown": shown, "sites": ("blocks.2.hook_mlp_out",)} for shown in (True, False)
    ]
    assert asked[1][3] == "blocks.2.mlp.out"
    assert asked[1][4] == {"name": "yes", "false_alarms": 0.05, "held_out": 0.3, "seed": 0}


def test_the_most_telling_heads_are_shown_and_those_of_the_second_layer_scrubbed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interval(value: float) -> Interval:
        return Interval(value, value - 0.05, value + 0.05, 4, "t")

    def head(layer: int, number: int, induction: float, null: float, previous: float) -> HeadScore:
        return HeadScore(layer, number, *map(interval, (induction, null, previous)))

    # none is above its null, whose order is the other one; the fourth that looks back is not among those shown
    scores = [head(0, n, value, 1 - value, previous) for n, (value, previous) in enumerate(
        ((0.1, 0.35), (0.5, 0.3), (0.2, 0.9), (0.4, 0.6), (0.3, 0.25), (0.05, 0.8)))]  # fmt: skip
    scrubbed: list[Any] = []

    def scrub(model: Any, texts: Any, heads: Any, **more: Any) -> Scrubbed:
        scrubbed.append((model, texts, heads, more))
        return Scrubbed(interval(1.0), interval(1.5), interval(3.5), interval(3.0))

    for module, name, stub in (
        (induction_model, "trained_induction_model", lambda **_: "model"),
        (induction_heads, "head_scores", lambda *_, **__: scores), (induction_heads, "repeated_texts", lambda *_,
        **__: "texts"),
        (induction_heads, "repetition_gain", lambda *_: RepetitionGain(interval(4.0), interval(1.0))),
        (causal_scrubbing, "scrub_induction", scrub),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, stub)
    widen(monkeypatch, interp_induction)
    assert interp_induction.run(interp_induction.Config()) == 0
    told = words(capsys.readouterr().out)
    assert told[0] == "0 induction heads of 6" and not scrubbed
    assert [line.split()[0] for line in told[2:-1]] == ["0.1", "0.3", "0.4", "0.2", "0.5"], (
        "four, and three that look back"
    )
    scores[:] = [
        head(0, 4, 0.9, 0.1, 0.0),
        head(1, 2, 0.9, 0.1, 0.0),
        head(1, 3, 0.2, 0.1, 0.0),
        head(1, 0, 0.8, 0.1, 0.1),
        head(2, 5, 0.9, 0.1, 0.1),
    ]
    assert interp_induction.run(interp_induction.Config(half=7, seed=3)) == 0
    more = {"half": 7, "vocabulary": induction_model.VOCABULARY, "seed": 3}
    assert scrubbed == [("model", "texts", [2, 0], more)]


def test_the_smallest_sizes_of_the_studies_are_taken(asked: list[Any]) -> None:
    assert interp_induction.Config(texts=2, half=4, steps=1).seed == 0
    assert interp_sycophancy.Config(seeds=1, steps=1, base_steps=1, facts=20).json is False
    assert interp_constitution.Config(rounds=1, seeds=1, prompts=20).quick is False
    assert interp_deliberation.Config(seeds=1, prompts=20).quick is False
    small = {"expansion": 1, "layer": 0, "k": 1, "batch": 1, "tokens": 1, "context": 2, "held_out": 2, "threads": 0}
    smallest = interp_sae.Config("m", lr=0.999, **small)  # type: ignore[arg-type]
    for name, value in small.items():
        with pytest.raises(ConfigError) as refused:
            replace(smallest, **{name: value - 1})
        least = f"{value} (a batch)" if name == "tokens" else value
        assert str(refused.value) == f"{name} is {value - 1}: give {least} or more"
    for lr in (0.0, 1.0):
        with pytest.raises(ConfigError, match=f"^lr is {lr}: give a number above 0 and below 1$"):
            replace(smallest, lr=lr)
    probe = interp_probe.Config("m", Path("yes.txt"), Path("no.txt"), layer=0, false_alarms=0.001, held_out=0.999)
    for name in ("held_out", "false_alarms"):
        for value in (0.0, 1.0):
            with pytest.raises(ConfigError, match=f"^{name} is {value}: give a share between 0 and 1$"):
                replace(probe, **{name: value})


def test_the_files_of_a_probe_are_files_and_its_output_has_a_folder(tmp_path: Path) -> None:
    yes, no = tmp_path / "yes.txt", tmp_path / "no.txt"
    yes.touch()
    no.touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for wrong in (tmp_path, tmp_path / "gone", tmp_path / "link", yes / "x"):
        for given in ({"positive": wrong, "negative": no}, {"positive": yes, "negative": wrong}):
            with pytest.raises(ConfigError) as refused:
                interp_probe.Config("m", **given)
            assert str(refused.value) == f"no file {str(wrong)!r}: give one with a text on each line"
    probe = interp_probe.Config("m", yes, no)
    for out in (tmp_path / "m.safetensors", Path("m.safetensors"), yes):
        assert replace(probe, out=out).out == out
    for out in (tmp_path / "none" / "m.safetensors", yes / "m.safetensors"):
        with pytest.raises(ConfigError) as refused:
            replace(probe, out=out)
        assert str(refused.value) == f"the folder of {str(out)!r} does not exist: make it, or name another file"
    with pytest.raises(ConfigError, match=r"^layer is -1: give 0 or more$"):
        replace(probe, layer=-1)


def test_agents_are_paired_by_name_and_differences_shown_by_their_counts(tmp_path: Path) -> None:
    def run(*agents: str) -> Any:
        return SimpleNamespace(agents=lambda: dict.fromkeys(agents))

    one, other = run("b", "a", "x"), run("a", "y", "b")
    assert sides.shared_agents(None, None, one, other) == [("b", "b"), ("a", "a")]
    assert sides.shared_agents("x", None, one, other) == [("x", None)]
    assert sides.shared_agents(None, "y", one, other) == [(None, "y")]
    with pytest.raises(ConfigError) as refused:
        sides.shared_agents(None, None, run("a", "b"), run("c"))
    assert str(refused.value) == "the runs have no agent in common (a, b and c): name them with --agent-a and --agent-b"
    found = PairedDifference(-0.5, -0.75, 0.25, 0.001, 9, 0, 2, 0, "worse", 0.1)
    assert sides.difference_cells(found) == ["-0.500 [-0.750, +0.250]", "0.001", "0 / 2 / 0", "worse"]
    bare = replace(found, worse=0, p_value=0.00099)
    assert sides.difference_cells(bare) == ["-0.500 [-0.750, +0.250]", "<0.001", "-", "worse"]
    assert sides.difference_header("90%") == ["difference (90% CI)", "p", "better / worse / same", "verdict"]
    sides.write(tmp_path / "x", "ä\ud800")
    assert (tmp_path / "x").read_bytes() == "ä\\ud800".encode()
    with pytest.raises(ConfigError, match=f"cannot write '{tmp_path}': Is a directory"):
        sides.write(tmp_path, "x")
