"""Folders of sparse autoencoders and of their runs: what is written, read, refused, and which texts a run takes."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine_tiny import tiny_model
from firsthand.errors import ConfigError, DataError, ModelFileError
from firsthand.interp.activations import run_with_cache
from firsthand.interp.saes.activation_stream import ActivationStream, activations_at, expect_one, pieces_of
from firsthand.interp.saes.sae_files import SavedSae, read_sae, save_sae, width_of
from firsthand.interp.saes.sae_kinds import KINDS, sae_of
from firsthand.interp.saes.sae_run import SaeRun, expect_possible, held_out_pieces, stored_run
from firsthand.interp.saes.sae_training import SaeSettings, SaeTrainer
from firsthand.train.documents import Corpus

torch.set_num_threads(1)
SITE = "blocks.0.resid.post"


def corpus_of(*lengths: int) -> Corpus:
    """Texts of these lengths, whose ids count up from 0."""
    starts = np.array([0, *np.cumsum(lengths)], np.int64)
    return Corpus(np.arange(starts[-1], dtype=np.int32), starts, 0)


def test_the_width_of_a_site_is_that_of_its_activations() -> None:
    model = tiny_model()
    cache = run_with_cache(model, [1, 2]).cache
    assert {site: width_of(model, site) for site in cache} == {site: cache[site].flatten(1).shape[1] for site in cache}
    assert {width_of(model, f"blocks.1.attn.{name}") for name in ("q", "mixed")} == {96}


@pytest.mark.parametrize("width", [31, 33, 64])
def test_an_autoencoder_of_another_width_is_refused(width: int) -> None:
    model = tiny_model()
    SavedSae(sae_of("topk", 32, 64, k=4), "", SITE).expect_fits(model)
    with pytest.raises(ConfigError, match=f"width {width}, and {SITE} of this model has 32: it is for another model"):
        SavedSae(sae_of("topk", width, 64, k=4), "", SITE).expect_fits(model)
    with pytest.raises(ConfigError, match=r"'blocks.0.resid.pots', .* the nearest is 'blocks.0.resid.post'"):
        SavedSae(sae_of("topk", 32, 64, k=4), "", "blocks.0.resid.pots").expect_fits(model)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_holds_weights_and_facts_in_saelens_words(kind: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"l1": 0.5} if kind == "relu" else {"k": 3}
    sae = sae_of(kind, 8, 24, seed=3, **settings)
    with torch.no_grad():
        sae.encoder_bias += torch.linspace(-1, 1, 24)
        sae.decoder_bias += torch.linspace(-1, 1, 8)
        sae.encoder *= 2
        if kind in ("batch_topk", "matryoshka"):
            sae.threshold.fill_(0.25)
    folder = save_sae(SavedSae(sae, "tiny", SITE, {"context": 5}), tmp_path / "a" / "b")
    assert folder == tmp_path / "a" / "b"
    theirs = {"relu": "standard", "topk": "topk"}.get(kind, "jumprelu")
    more = {"k": 3, "rescale_acts_by_decoder_norm": False} if kind == "topk" else {}
    assert json.loads((folder / "cfg.json").read_text()) == {
        "architecture": theirs, "d_in": 8, "d_sae": 24, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True,
        "normalize_activations": "none", "reshape_activations": "none", **more,
        "metadata": {
            "model_name": "tiny", "hook_name": "blocks.0.hook_resid_post",
            "firsthand": {"kind": kind, "settings": sae.settings(), "site": SITE, "context": 5},
        },
    }  # fmt: skip
    stored = load_file(folder / "sae_weights.safetensors")
    expected = {"W_enc": sae.encoder.T, "W_dec": sae.decoder, "b_enc": sae.encoder_bias, "b_dec": sae.decoder_bias}
    if theirs == "jumprelu":
        expected["threshold"] = torch.full((24,), 0.1 if kind == "jumprelu" else 0.25)
    assert stored.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(stored[name], value.detach(), msg=name)
    back = read_sae(folder)
    assert (back.model, back.site, back.facts, back.sae.kind) == ("tiny", SITE, {"context": 5}, kind)
    assert back.sae.settings() == sae.settings() and not back.sae.training
    for name, value in sae.state_dict().items():
        torch.testing.assert_close(back.sae.state_dict()[name], value, msg=name)


def theirs_of(folder: Path, config: dict[str, Any], **tensors: torch.Tensor) -> None:
    """A folder of 2 inputs and 3 latents."""
    folder.mkdir(exist_ok=True)
    made = {
        "W_enc": torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]),
        "W_dec": torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]]),
        "b_enc": torch.tensor([0.5, 0.0, 1.0]), "b_dec": torch.tensor([1.0, -1.0]),
    }  # fmt: skip
    save_file({**made, **tensors}, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": 2, "d_sae": 3, **config}))


def test_what_theirs_has_and_ours_has_not_is_folded_in(tmp_path: Path) -> None:
    theirs_of(tmp_path, {"model_name": "gpt2", "hook_name": "blocks.1.hook_resid_pre", "reshape_activations": "hook_z"})
    plain = read_sae(tmp_path)
    assert (plain.model, plain.site, plain.facts, plain.sae.kind) == ("gpt2", SITE, {}, "relu")
    assert plain.sae.encoder.tolist() == [[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]
    theirs_of(
        tmp_path, {"apply_b_dec_to_input": False, "rescale_acts_by_decoder_norm": True, "normalize_activations": False}
    )
    folded = read_sae(tmp_path)
    assert (folded.model, folded.site) == ("", "")
    assert folded.sae.encoder.tolist() == [[5.0, 0.0], [0.0, 2.0], [2.0, 0.0]]
    assert folded.sae.encoder_bias.tolist() == [7.5, -2.0, 3.0]
    torch.testing.assert_close(folded.sae.decoder.detach(), torch.tensor([[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]]))
    theirs_of(tmp_path, {"architecture": "jumprelu"}, threshold=torch.tensor([0.0, 0.5, 2.0]))
    jump = read_sae(tmp_path).sae
    torch.testing.assert_close(jump.threshold, torch.tensor([1e-30, 0.5, 2.0]))
    assert jump.kind == "jumprelu" and jump.settings()["k"] == 3
    assert jump.encode(torch.tensor([[1.0, -1.0], [0.75, -0.6]])).tolist() == [[0.5, 0.0, 0.0], [0.25, 0.0, 0.0]]


@pytest.mark.parametrize(
    "config",
    [
        {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2}},
        {"activation_fn": "topk", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2}},
        {"architecture": "topk", "activation_fn": "topk", "activation_fn_kwargs": {"k": 2}},
        {"architecture": "topk", "k": 2, "activation_fn_kwargs": {"k": 2}},
        {"architecture": "topk", "k": 2, "activation_fn_kwargs": {}, "activation_fn": None},
    ],
)
def test_a_topk_autoencoder_is_known_by_its_activation(config: dict[str, Any], tmp_path: Path) -> None:
    theirs_of(tmp_path, config)
    sae = read_sae(tmp_path).sae
    assert sae.kind == "topk" and sae.settings()["k"] == 2
    assert (sae.encode(torch.tensor([[2.0, 0.5]])) > 0).sum() == 2, "of three latents above 0"
    theirs_of(tmp_path, {"activation_fn_str": "relu", "activation_fn": "relu", "activation_fn_kwargs": {"k": 2}})
    assert read_sae(tmp_path).sae.kind == "relu"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"architecture": "jumprelu"}, "has no tensor 'threshold', which a jumprelu autoencoder needs"),
        ({"reshape_activations": "hook_q"}, "has reshape_activations 'hook_q': fold it into the weights first"),
        ({"normalize_activations": "hook_z"}, "has normalize_activations 'hook_z'"),
        ({"d_in": True}, "has d_in True: expected a whole number of 1 or more"),
        ({"d_in": 0}, "has d_in 0: expected"), ({"d_sae": 2**24}, "has d_sae 16777216: expected"),
        ({"d_sae": None}, "has d_sae None: expected"),
        ({"architecture": "topk", "k": 4}, "has settings that no topk autoencoder takes: k is 4: expected 1 to the 3"),
        ({"architecture": "topk"}, "has settings that no topk autoencoder takes: k is 0"),
        ({"activation_fn_str": "topk"}, "has settings that no topk autoencoder takes: k is 0"),
        ({"activation_fn": "tanh-relu"}, "has a standard autoencoder with the activation 'tanh-relu': expected relu"),
        ({"activation_fn": "relu", "activation_fn_str": "topk"}, "with the activation 'topk': expected relu"),
        ({"activation_fn": ["relu"]}, "with the activation .'relu'.: expected relu"),
        ({"architecture": "topk", "k": 2, "activation_fn": "relu"}, "a topk .* activation 'relu': expected topk"),
        ({"architecture": "jumprelu", "activation_fn": "topk"}, "a jumprelu .* activation 'topk': expected relu"),
        ({"architecture": "topk", "k": 2, "activation_fn_kwargs": {"k": 3}}, "has k 2 and, for its activation, k 3"),
    ],
)  # fmt: skip
def test_a_folder_that_says_what_it_does_not_hold_is_refused(config: dict[str, Any], told: str, tmp_path: Path) -> None:
    theirs_of(tmp_path, config)
    with pytest.raises(ModelFileError, match=told) as caught:
        read_sae(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_trainer_comes_back_with_all_it_counts(tmp_path: Path) -> None:
    trainer = SaeTrainer(sae_of("jumprelu", 4, 6, k=2), SaeSettings(steps=9, lr=0.01, dead_tokens=7, clip_norm=2.0))
    for seed in range(3):
        trainer.step(torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)))
    trainer.save(tmp_path / "new")
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["training.safetensors"]
    back = SaeTrainer.load(tmp_path / "new")
    assert back.settings == trainer.settings and back.sae.settings() == trainer.sae.settings()
    assert (back.step_number, back.tokens, back.scale) == (3, 15, trainer.scale)
    assert back.silent_M.tolist() == trainer.silent_M.tolist() and back.sae.kind == "jumprelu"
    ours, theirs = (each.optimizer.state_dict()["state"] for each in (trainer, back))
    assert ours.keys() == theirs.keys() and len(ours) == 5
    for index, moments in ours.items():
        assert {name: torch.equal(value, theirs[index][name]) for name, value in moments.items()} == dict.fromkeys(
            ("step", "exp_avg", "exp_avg_sq"), True
        )
    with pytest.raises(
        ModelFileError, match=r"is no training state .*No such file or directory.*: remove it to begin again"
    ):
        SaeTrainer.load(tmp_path)


RUN = SaeRun("tiny", SITE, width=8, k=8, tokens=100, batch=100, context=4)


def test_a_run_has_limits(tmp_path: Path) -> None:
    model = tiny_model(max_position=16)
    assert replace(RUN, tokens=199).steps == 1 and replace(RUN, tokens=200).steps == 2
    for bad in ({"tokens": 99}, {"batch": 0}, {"held_out_texts": 1}):
        with pytest.raises(ConfigError, match="expected one batch or more, 1 or more, and 2 or more"):
            replace(RUN, **bad)  # type: ignore[arg-type]
    for good in ({"context": 2}, {"context": 16}, {"kind": "relu", "k": 9}, {}):
        expect_possible(replace(RUN, **good), model, tmp_path / "none")  # type: ignore[arg-type]
    for context in (1, 17):
        with pytest.raises(ConfigError, match=f"context is {context}: the model takes 2 to 16 tokens"):
            expect_possible(replace(RUN, context=context), model, tmp_path)
    with pytest.raises(ConfigError, match="k is 9: of 8 latents at most 8 can be active"):
        expect_possible(replace(RUN, k=9), model, tmp_path)
    with pytest.raises(ConfigError, match="expected 1 or more, a rate between 0 and 1"):
        expect_possible(replace(RUN, lr=1.0), model, tmp_path)
    with pytest.raises(ConfigError, match=r"'blocks.\*.resid.post' stands for 2 sites: name one"):
        expect_possible(replace(RUN, site="blocks.*.resid.post"), model, tmp_path)
    (tmp_path / "tests").mkdir()
    for name in ("tests/a.py", "b.json"):
        (tmp_path / name).write_text("text")
    with pytest.raises(DataError, match=r"there is no text in .*: give files, or a folder of files in .py, .md"):
        expect_possible(replace(RUN, texts=(str(tmp_path),), suffixes=(".py", ".md")), model, tmp_path)
    (tmp_path / "c.md").write_text("text")
    expect_possible(replace(RUN, texts=(str(tmp_path),), suffixes=(".py", ".md")), model, tmp_path)
    assert not (tmp_path / "none").exists()


def test_a_folder_goes_on_with_its_own_settings_alone(tmp_path: Path) -> None:
    model, run = tiny_model(), replace(RUN, settings={"widths": [2, 8]}, texts=())
    with pytest.raises(
        ConfigError,
        match=r"holds no run of `firsthand interp sae` \(.*No such file or directory\)",
    ):
        stored_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(asdict(run)))
    assert stored_run(tmp_path) == run
    expect_possible(run, model, tmp_path)
    with pytest.raises(
        ConfigError, match="holds a run with seed 0, and 1 came: give another folder, or the same settings"
    ):
        expect_possible(replace(run, seed=1), model, tmp_path)
    for text in ("[]", "{", "[" * 100_000, json.dumps({**asdict(run), "more": 1}), json.dumps({"model": "m"})):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(ConfigError, match="holds no run of `firsthand interp sae`"):
            stored_run(tmp_path)
    for name, value in (
        ("context", "4"),
        ("model", 3),
        ("lr", None),
        ("width", True),
        ("texts", "a"),
        ("settings", []),
    ):
        (tmp_path / "run.json").write_text(json.dumps({**asdict(run), name: value}))
        with pytest.raises(ConfigError, match=rf"holds no run of .* \(its {name} is '.*'\): name its folder"):
            stored_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({**asdict(run), "lr": 0}))
    assert stored_run(tmp_path).lr == 0
    (tmp_path / "run.json").unlink()
    (tmp_path / "cfg.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds an autoencoder already: give another folder"):
        expect_possible(run, model, tmp_path)


def test_pieces_are_whole_and_those_held_out_are_drawn_by_the_seed() -> None:
    corpus = corpus_of(9, 3, 8, 4)
    assert pieces_of(corpus, 4) == [0, 4, 12, 16, 20] and pieces_of(corpus, 10) == [] and pieces_of(corpus, 9) == [0]
    all_of_them = [[at, at + 1, at + 2, at + 3] for at in (0, 4, 12, 16, 20)]
    found = held_out_pieces(RUN, corpus)
    assert sorted(found) == all_of_them and found == held_out_pieces(RUN, corpus)
    assert len({str(held_out_pieces(replace(RUN, seed=seed), corpus)) for seed in range(8)}) > 4
    assert held_out_pieces(replace(RUN, held_out_texts=2), corpus) == found[:2]
    assert len(held_out_pieces(RUN, corpus_of(4, 4))) == 2
    with pytest.raises(DataError, match="the held-out texts have 1 pieces of 4 tokens: give more text"):
        held_out_pieces(RUN, corpus_of(7))


def test_a_stream_has_limits_and_takes_each_piece_once_an_epoch() -> None:
    model, corpus = tiny_model(max_position=16), corpus_of(20, 16)

    def stream(**more: int) -> ActivationStream:
        return ActivationStream(model, corpus, SITE, **{"batch": 6, "context": 4, "chunk": 2} | more)

    assert stream().batches_per_chunk == 1 and stream(chunk=7).batches_per_chunk == 3
    assert stream(context=16, batch=30).pieces == [0, 20] and len(stream(context=2, chunk=6).pieces) == 18
    for bad in ({"batch": 0}, {"chunk": 0}, {"context": 1}, {"context": 17}):
        with pytest.raises(ConfigError, match="expected 1 or more, 1 or more, and 2 to the model's 16"):
            stream(**bad)
    with pytest.raises(ConfigError, match="a chunk of 2 pieces of 4 tokens gives no batch of 7"):
        stream(batch=7)
    one = stream(chunk=3)
    epochs = [
        [text[0] for number in range(3 * epoch, 3 * epoch + 3) for text in one.chunk_of(number)] for epoch in range(3)
    ]
    assert all(sorted(each) == list(range(0, 36, 4)) for each in epochs) and epochs[0] != epochs[1] != epochs[2]
    assert one.chunk_of(0) == [list(range(at, at + 4)) for at in epochs[0][:3]]
    assert [text[0] for text in stream(chunk=6).chunk_of(1)] == [*epochs[0][6:], *epochs[1][:3]]
    assert expect_one(("a",), "x") == ("a",)
    with pytest.raises(ConfigError, match="'x' stands for 0 sites"):
        expect_one((), "x")


def test_activations_of_many_texts_leave_each_first_token_out_unless_asked() -> None:
    model, texts = tiny_model(), [[number, number + 1, number + 2] for number in range(9)]
    rows = torch.cat([run_with_cache(model, text, SITE).cache[SITE] for text in texts])
    torch.testing.assert_close(activations_at(model, texts, SITE, first=True), rows)
    torch.testing.assert_close(activations_at(model, texts, SITE), rows[[at for at in range(27) if at % 3]])
    assert activations_at(model, texts, "blocks.0.attn.q").shape == (18, 96)


def test_a_training_that_goes_on_knows_for_how_long_each_latent_was_silent(tmp_path: Path) -> None:
    trainer = SaeTrainer(sae_of("topk", 4, 12, k=1), SaeSettings(steps=9))
    rows = torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(1))
    for number in range(3):
        trainer.step(rows[number])
    silent = trainer.silent_M.tolist()
    assert len(set(silent)) > 1 and max(silent) == 9, "some of twelve latents never fired in nine rows"
    trainer.save(tmp_path)
    back = SaeTrainer.load(tmp_path)
    assert back.silent_M.tolist() == silent and back.silent_M.dtype == trainer.silent_M.dtype
    for number in range(3, 6):
        back.step(rows[number]), trainer.step(rows[number])
    assert back.silent_M.tolist() == trainer.silent_M.tolist() != silent
    ours, theirs = trainer.sae.state_dict(), back.sae.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", ["batch_topk", "matryoshka"])
def test_thresholds_that_were_edited_elsewhere_are_those_of_the_file(kind: str, tmp_path: Path) -> None:
    folder = save_sae(SavedSae(sae_of(kind, 8, 24, seed=3, k=3), "tiny", SITE, {"context": 5}), tmp_path)
    tensors = load_file(folder / "sae_weights.safetensors")
    tensors["threshold"] = torch.full((24,), 0.5)
    tensors["threshold"][-1] = 1.5
    save_file(tensors, folder / "sae_weights.safetensors")
    back = read_sae(folder)
    x_ND = 2 * torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    before_NM = (x_ND - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"]
    torch.testing.assert_close(back.sae.encode(x_ND), before_NM.relu() * (before_NM > tensors["threshold"]))
    assert (back.sae.kind, back.site, back.facts) == ("jumprelu", SITE, {"context": 5})


@pytest.mark.parametrize(
    ("kind", "edit", "told"),
    [
        ("topk", {"k": 9}, "has k 9 and a note of k 3: expected one of them"),
        ("topk", {"architecture": "standard", "k": None}, "has the architecture standard and a note of the kind topk"),
        (
            "relu",
            {"architecture": "jumprelu"},
            "a note of the kind relu: expected standard, so correct the one that is",
        ),
    ],
)
def test_a_note_that_contradicts_its_file_is_refused(kind: str, edit: Any, told: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"k": 3} if kind == "topk" else {}
    folder = save_sae(SavedSae(sae_of(kind, 8, 24, seed=3, **settings), "tiny", SITE), tmp_path)
    if edit["architecture" if "architecture" in edit else "k"] == "jumprelu":
        tensors = load_file(folder / "sae_weights.safetensors")
        save_file({**tensors, "threshold": torch.ones(24)}, folder / "sae_weights.safetensors")
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({**config, **edit}))
    with pytest.raises(ModelFileError, match=told):
        read_sae(folder)
