"""Texts that a model is looked into with begin as its prompts do: with BOS where the tokenizer adds it."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from firsthand.cli import main
from firsthand.errors import ConfigError
from firsthand.interp import monitor_fitting, steered_texts, steering
from firsthand.interp.activations import run_with_cache
from firsthand.interp.circuits import patching
from firsthand.interp.opened_model import choice_of
from firsthand.interp.opened_sae import OpenedSae
from firsthand.interp.saes.sae_files import SavedSae, save_sae
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.nn import weights
from firsthand.providers.local_completions import encode
from firsthand.tokens import pretrained
from tiny import write_model

torch.set_num_threads(1)
SITE = "blocks.0.resid.post"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models that differ in `add_bos_token` alone, and files of texts."""
    folder = tmp_path_factory.mktemp("begin")
    for name, adds in (("begins", True), ("plain", False)):
        config = write_model(folder / name) / "tokenizer_config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "add_bos_token": adds}))
    rng = Random(0)
    for name, words in (("good", "12 30 40"), ("bad", "7 8 9")):
        lines = [" ".join(rng.choices(words.split(), k=5)) for _ in range(30)]
        (folder / f"{name}.txt").write_text("\n".join([*lines, "  ", ""]), encoding="utf-8")
    said = [{"prompt": f"{n}?", "chosen": f"{n} 42", "rejected": f"{n} 7"} for n in range(6)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, said)))
    return folder


def test_a_prompt_begins_as_the_tokenizer_says_and_names_no_special_token(place: Path) -> None:
    begins, plain = (pretrained.load(place / name) for name in ("begins", "plain"))
    text = "<|endoftext|>12"
    assert plain.encode_prompt(text) == plain.encode(text) and begins.bos_id == 0
    assert begins.encode_prompt(text) == [0, *plain.encode(text)] and plain.encode(text)[0] != 0
    for tokenizer in (begins, plain):  # as the engine is asked with it
        assert encode(SimpleNamespace(tokenizer=tokenizer, sources=None, context=64), "12 30") == tuple(  # type: ignore[arg-type]
            tokenizer.encode_prompt("12 30")
        )
    assert begins.encode_prompt("") == [0] and plain.encode_prompt("") == []


@pytest.mark.parametrize("name", ["begins", "plain"])
def test_models_look_reads_the_probabilities_of_the_models_own_prompt(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    line = ["models", "look", str(place / name), "12 + 30", "--out", str(tmp_path / "look.html"), "--json"]
    assert main(line) == 0
    body = json.loads(capsys.readouterr().out)
    tokenizer = pretrained.load(place / name)
    ids = [*([0] if name == "begins" else []), *tokenizer.encode("12 + 30")]
    assert body["tokens"] == [tokenizer.decode([id], skip_special=False) for id in ids]
    logits_NV = run_with_cache(weights.load(place / name), ids, ()).logits
    assert body["next"][0]["probability"] == pytest.approx(float(logits_NV[-1].softmax(-1).max()), rel=1e-4)


@pytest.mark.parametrize("name", ["begins", "plain"])
def test_every_text_of_a_command_begins_as_a_prompt(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    seen: list[Any] = []

    def ask(*given: Any, **named: Any) -> Any:
        seen.append(given)
        raise ConfigError("asked enough")

    for module, function in (
        (patching, "activation_patches"), (steering, "steering_study"), (monitor_fitting, "fit_monitor"),
    ):  # fmt: skip
        monkeypatch.setattr(module, function, ask)
    effects: list[Any] = []
    monkeypatch.setattr(steering, "choice_effect", lambda model, prompt, metric: effects.append(prompt))
    vectors: list[Any] = []
    made = steering.steering_vector

    def vector(model: Any, site: str, *sets: Any) -> Any:
        vectors.extend(sets)
        return made(model, site, *sets)

    monkeypatch.setattr(steering, "steering_vector", vector)
    good, bad, model = str(place / "good.txt"), str(place / "bad.txt"), str(place / name)
    choice = ["--answer", "1", "--other", "7"]
    for words in (
        ["patch", model, "--clean", "12 30", "--corrupted", "12 40", *choice],
        [
            "steer",
            model,
            "--towards",
            good,
            "--away",
            bad,
            "--prompts",
            bad,
            "--unrelated",
            good,
            *choice,
            "--layer",
            "0",
        ],
        ["probe", model, "--positive", good, "--negative", bad, "--layer", "0"],
        ["contrast", model, str(place / "pairs.jsonl"), "--unrelated", good, "--layer", "0"],
    ):
        assert main(["interp", *words]) == 2
        assert "asked enough" in capsys.readouterr().err
    patched, steered, fitted, contrasted = seen
    texts = [*patched[1:3], *steered[4], *fitted[1], *fitted[2], *contrasted[4], *effects]
    texts += [text for group in vectors for text in group]
    assert [len(each) for each in (steered[4], contrasted[4], effects, vectors[0], vectors[1])] == [30] * 5  # no blanks
    assert min(len(fitted[1]), len(fitted[2])) >= 20
    begin = [0] if name == "begins" else []
    tokenizer = pretrained.load(place / name)
    assert patched[1] == [*begin, *tokenizer.encode("12 30")]
    assert all((text[0] == 0) == bool(begin) and 0 not in text[1:] for text in texts)


@pytest.mark.parametrize("name", ["begins", "plain"])
def test_an_autoencoder_reads_and_steers_texts_that_begin_as_a_prompt(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sae = sae_of("topk", 32, 12, k=3)
    opened = OpenedSae(save_sae(SavedSae(sae, str(place / name), SITE), tmp_path / "sae"), shown=False)
    tokenizer = pretrained.load(place / name)
    ids = [*([0] if name == "begins" else []), *tokenizer.encode("12 + 30")]
    read = opened.read_text("12 + 30")
    assert read.words == [tokenizer.decode([id], skip_special=False) for id in ids]
    rows_ND = run_with_cache(weights.load(place / name), ids, SITE).cache[SITE]
    assert read.counts[0] == 0
    z_NM = sae.encode(rows_ND)[1:]
    strongest = int(z_NM.amax(0).argmax())
    assert read.features[0].index == strongest
    assert read.features[0].maximum == pytest.approx(float(z_NM.detach().max()), rel=1e-4)
    asked: list[tuple[int, ...]] = []
    request = steered_texts.Request

    def remember(given: tuple[int, ...], *more: Any, **named: Any) -> Any:
        asked.append(given)
        return request(given, *more, **named)

    monkeypatch.setattr(steered_texts, "Request", remember)
    model = weights.load(place / name)
    steered_texts.steered_texts(opened.saved, model, tokenizer, [(0, 1.0)], "12 + 30", tokens=1, strengths=(0.0,))
    assert asked == [tuple(ids)]


def test_a_choice_is_of_two_words_that_begin_with_different_tokens(
    place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    good, bad, out = str(place / "good.txt"), str(place / "bad.txt"), tmp_path / "v.safetensors"
    files = ["--towards", good, "--away", bad, "--prompts", bad, "--unrelated", good, "--layer", "0", "--out", str(out)]
    for answer, other, told in (
        ("12", "12", "'12' and '12' begin with the same token: give words that differ there"),
        ("", "1", "'' and '1' came: each needs a token, so give two words"),
        ("1", "", "'1' and '' came: each needs a token, so give two words"),
    ):
        assert main(["interp", "steer", str(place / "plain"), *files, f"--answer={answer}", f"--other={other}"]) == 2
        assert told in " ".join(capsys.readouterr().err.split())
        assert not out.exists()
        with pytest.raises(ConfigError):
            choice_of(pretrained.load(place / "begins"), answer, other)
    tokenizer = pretrained.load(place / "begins")
    assert choice_of(tokenizer, "1", "7") == (tokenizer.encode("1")[0], tokenizer.encode("7")[0])
