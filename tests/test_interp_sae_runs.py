"""Runs of sparse autoencoders step by step: their texts, steps, saves and facts; streams and files in whole values."""

from __future__ import annotations

import json
import math
import sysconfig
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine_tiny import tiny_model
from firsthand.errors import ConfigError, DataError, ModelFileError, TrainingError, UnknownName
from firsthand.interp.saes.activation_stream import ActivationStream, activations_at, pieces_of
from firsthand.interp.saes.sae_evaluation import measure_sae
from firsthand.interp.saes.sae_files import SavedSae, read_sae, save_sae
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.interp.saes.sae_run import (
    SaeRun,
    _encoded,
    corpora,
    expect_possible,
    held_out_pieces,
    run_to_show,
    stored_run,
    train_sae,
)
from firsthand.interp.saes.sae_training import SaeSettings, SaeTrainer, rate_at
from firsthand.interp.saes.toy_superposition import Superposition, dictionary_recovery, recovery, toy_study
from firsthand.loop.concurrency import derive_seed
from firsthand.tokens import pretrained
from firsthand.train.documents import Corpus, SourceText, encode_documents, read_documents, split_documents
from tiny import write_model

torch.set_num_threads(1)
SITE = "blocks.0.resid.post"


def texts_in(folder: Path, count: int = 12, times: tuple[int, float] = (10, 3)) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:02}.txt").write_text(
            f"{number} + {number} is {2 * number}. " * (times[0] + int(times[1] * number))
        )
    return folder


def test_a_run_takes_documents_in_its_seeds_order_until_there_are_tokens_enough(tmp_path: Path) -> None:
    tokenizer = pretrained.load(write_model(tmp_path / "m"))
    documents = [SourceText(f"{number} " * 100 + "x" * (number % 3), str(number)) for number in range(12, 24)]
    run = SaeRun("m", SITE, seed=5)
    order = list(documents)
    Random(5).shuffle(order)
    for at_least, count in ((0, 0), (1, 1), (75, 1), (76, 2), (150, 2), (151, 3), (10**6, 12)):
        found = _encoded(documents, tokenizer, run, at_least)
        expected = encode_documents(order[:count], tokenizer)
        assert found.ids.tolist() == expected.ids.tolist() and found.starts.tolist() == expected.starts.tolist()


@pytest.mark.parametrize("seed", [0, 3])
def test_training_texts_and_held_out_ones_are_split_and_cut_by_the_run(tmp_path: Path, seed: int) -> None:
    tokenizer = pretrained.load(write_model(tmp_path / "m"))
    folder = texts_in(tmp_path / "texts", 40, times=(8, 0.1))
    (folder / "tests").mkdir()
    for name in ("tests/a.txt", "b.json"):
        (folder / name).write_text("not taken " * 50)
    (folder / "c.md").write_text("taken where it is named " * 20)
    run = SaeRun("m", SITE, tokens=400, batch=10, context=8, held_out_texts=2, seed=seed, texts=(str(folder),),
                 suffixes=(".txt",))  # fmt: skip
    documents = read_documents([folder / f"{number:02}.txt" for number in range(40)])
    kept, held = split_documents(documents, 0.1, seed=seed)
    assert len(kept) == 36 and len(held) == 4
    training, held_out = corpora(run, tokenizer)
    for found, given, at_least in ((training, kept, 500), (held_out, held, 64)):
        order, size, chosen = list(given), 0, []
        Random(seed).shuffle(order)
        for document in order:
            if size < at_least:
                chosen.append(document)
                size += len(document.text) // 4
        assert 1 < len(chosen) < len(given)
        expected = encode_documents(chosen, tokenizer)
        assert found.ids.tolist() == expected.ids.tolist() and found.starts.tolist() == expected.starts.tolist()
    starts = pieces_of(held_out, 8)
    Random(seed).shuffle(starts)
    assert held_out_pieces(run, held_out) == [held_out.ids[at : at + 8].tolist() for at in starts[:2]]
    both = corpora(replace(run, suffixes=(".txt", ".md"), tokens=10**6), tokenizer)
    assert sum(len(each.starts) - 1 for each in both) > 36


def test_without_texts_a_run_takes_the_standard_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = pretrained.load(write_model(tmp_path / "m"))
    folder = tmp_path / "lib"
    for name in ("ast.py", "test/a.py", "idle_test/b.py", "x/tests/c.py", "site-packages/d.py", "json/e.py", "f.rst"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(f"# {name}\n" * 30)
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(folder), "purelib": str(tmp_path / "m")})
    both = corpora(SaeRun("m", SITE), tokenizer)
    words = "".join(tokenizer.decode(each.ids.tolist(), skip_special=True) for each in both)
    assert {line for line in words.split("\n") if line} == {"# ast.py", "# json/e.py", "# f.rst"}


def test_a_stream_gives_the_shuffled_tokens_of_its_chunks_from_any_position() -> None:
    model = tiny_model()
    corpus = Corpus(np.arange(90, dtype=np.int32), np.array([0, 40, 90], np.int64), 0)
    stream = ActivationStream(model, corpus, SITE, batch=7, context=6, chunk=4, seed=3)
    assert (stream.batches_per_chunk, len(stream.pieces)) == (20 // 7, 6 + 8)
    batches = iter(stream)
    taken = [next(batches) for _ in range(9)]
    assert stream.position == 9
    order: list[int] = []
    for epoch in range(2):
        places = list(range(14))
        Random(derive_seed("pieces", 3, epoch)).shuffle(places)
        order += places
    expected = []
    for number in range(5):
        texts = [
            list(range(stream.pieces[place], stream.pieces[place] + 6)) for place in order[number * 4 : number * 4 + 4]
        ]
        assert stream.chunk_of(number) == texts
        rows = activations_at(model, texts, SITE)
        generator = torch.Generator().manual_seed(derive_seed("activations", 3, number) % 2**63)
        mixed = torch.randperm(20, generator=generator)
        expected += [rows[mixed[:7]], rows[mixed[7:14]]]
    for one, other in zip(taken, expected, strict=False):
        assert torch.equal(one, other)
    stream.position = 3
    again = iter(stream)
    assert torch.equal(next(again), expected[3]) and torch.equal(next(again), expected[4]) and stream.position == 5
    assert stream.chunk_of(0) == ActivationStream(model, corpus, SITE, batch=7, context=6, chunk=4, seed=3).chunk_of(0)
    assert ActivationStream(model, corpus, SITE, batch=20, context=6, chunk=4).batches_per_chunk == 1
    for given, told in (
        (
            {"batch": 21, "context": 6, "chunk": 4},
            "a chunk of 4 pieces of 6 tokens gives no batch of 21: give more pieces, or a smaller batch",
        ),
        (
            {"batch": 5, "context": 51, "chunk": 4},
            "the texts have no piece of 51 tokens: give more text, or a shorter context",
        ),
        (
            {"batch": 5, "context": 257, "chunk": 4},
            "batch is 5, chunk 4 and context 257: expected 1 or more, 1 or more, and 2 to the model's 256",
        ),
    ):
        with pytest.raises((ConfigError, DataError)) as refused:
            ActivationStream(model, corpus, SITE, **given)
        assert str(refused.value) == told
    with pytest.raises(ConfigError) as refused:
        ActivationStream(model, corpus, "blocks.*.resid.mid")
    assert str(refused.value) == "'blocks.*.resid.mid' stands for 2 sites: name one, such as blocks.8.resid.post"


def test_steps_are_adams_on_projected_and_clipped_gradients_with_rows_of_norm_one() -> None:
    settings = SaeSettings(steps=250, lr=0.02, dead_tokens=10**6, clip_norm=0.5)
    trainer, ours = SaeTrainer(sae_of("topk", 4, 6, k=2, seed=1), settings), sae_of("topk", 4, 6, k=2, seed=1)
    generator = torch.Generator().manual_seed(0)
    data = [torch.randn(9, 4, generator=generator) * 3 + 1 for _ in range(4)]
    scale = 2 / float(data[0].norm(dim=1).mean())
    ours.decoder_bias.data.copy_(data[0].mean(0) * scale)
    names = ("decoder", "encoder", "encoder_bias", "decoder_bias")
    first, second = ({name: torch.zeros_like(getattr(ours, name)) for name in names} for _ in range(2))
    for step, x in enumerate(data):
        found = trainer.step(x)
        loss = ours.loss(x * scale, is_dead_M=torch.zeros(6, dtype=torch.bool), progress=step / 250)
        assert float(found.loss.detach()) == pytest.approx(float(loss.loss.detach()), rel=1e-4)
        grads = dict(zip(names, torch.autograd.grad(loss.loss, [getattr(ours, n) for n in names]), strict=True))
        rows = ours.decoder.detach()
        grads["decoder"] = grads["decoder"] - (grads["decoder"] * rows).sum(1, keepdim=True) * rows
        norm = math.sqrt(sum(float(each.square().sum()) for each in grads.values()))
        assert norm > 0.5, "the bound is in use"
        for name in names:
            gradient = grads[name] * 0.5 / norm
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient.square()
            mean, square = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.999 ** (step + 1))
            getattr(ours, name).data.sub_(0.02 * min(1, (step + 1) / 2) * mean / (square.sqrt() + 1e-8))
        ours.decoder.data.div_(ours.decoder.data.norm(dim=1, keepdim=True))
        for name in names:
            torch.testing.assert_close(
                getattr(trainer.sae, name).detach(), getattr(ours, name).detach(), atol=2e-4, rtol=1e-3, msg=name
            )
    assert (trainer.step_number, trainer.tokens, trainer.scale) == (4, 36, pytest.approx(scale))
    assert rate_at(3, 250) == 1 and rate_at(0, 250) == 0.5


def test_a_trainer_that_took_no_step_is_finished_as_it_is_and_one_at_its_end_has_nothing_to_train() -> None:
    sae = sae_of("topk", 4, 6, k=2)
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    trainer = SaeTrainer(sae, SaeSettings(steps=3))
    assert trainer.finished() is sae and (trainer.scale, trainer.step_number) == (1.0, 3)
    assert all(torch.equal(value, before[name]) for name, value in sae.state_dict().items())
    with pytest.raises(TrainingError) as refused:
        trainer.train([torch.ones(2, 4)])
    assert str(refused.value) == "the run has ended at step 3: nothing is left to train"
    scaled = SaeTrainer(sae_of("topk", 4, 6, k=2), SaeSettings(steps=2))
    rows = torch.tensor([[3.0, 0.0, 0.0, 0.0], [0.0, 4.0, 3.0, 0.0]])  # norms 3 and 5: the scale is a half
    with pytest.raises(DataError) as ended:
        scaled.train(iter([rows]))
    assert str(ended.value) == "the activations ended at step 1 of 2: give more text, or fewer tokens"
    encoder, decoder = scaled.sae.encoder.detach().clone(), scaled.sae.decoder.detach().clone()
    scaled.finished()
    torch.testing.assert_close(scaled.sae.encoder.detach(), encoder / 2)
    torch.testing.assert_close(scaled.sae.decoder.detach(), decoder * 2)
    for wrong in (torch.ones(4), torch.ones(2, 3), torch.ones(1, 2, 4)):
        with pytest.raises(ConfigError) as shape:
            SaeTrainer(sae_of("topk", 4, 6, k=2), SaeSettings(steps=2)).step(wrong)
        assert str(shape.value) == f"activations of shape {tuple(wrong.shape)} came: expected rows of width 4"


def test_training_states_that_do_not_fit_are_refused_with_their_reason(tmp_path: Path) -> None:
    trainer = SaeTrainer(sae_of("batch_topk", 4, 6, k=2), SaeSettings(steps=9))
    trainer.step(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    tmp_path = tmp_path / "not" / "there"
    trainer.save(tmp_path)
    file = tmp_path / "training.safetensors"
    tensors = load_file(file)
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        facts = json.loads(opened.metadata()["state"])
    assert facts == {
        "kind": "batch_topk", "d_in": 4, "d_sae": 6, "sae": {"k": 2}, "settings": asdict(trainer.settings), "step": 1,
        "tokens": 5, "scale": trainer.scale, "made_from": {},
    }  # fmt: skip
    assert SaeTrainer.load(tmp_path).step_number == 1
    missing = {name: value for name, value in tensors.items() if name != "silent"}
    less = {name: value for name, value in tensors.items() if name != "sae.encoder"}
    for given, changes in (
        (tensors, {"kind": "nokind"}), (tensors, {"d_sae": 7}), (tensors, {"sae": {"widths": 3}}), (missing, {}),
        (less, {}), (tensors, {"settings": {"steps": 0}}),
    ):  # fmt: skip
        save_file(given, file, {"state": json.dumps({**facts, **changes})})
        with pytest.raises((ModelFileError, ConfigError)) as refused:
            SaeTrainer.load(tmp_path)
        if changes != {"settings": {"steps": 0}}:
            assert str(refused.value).startswith(f"{file} is no training state of a sparse autoencoder (")
            assert str(refused.value).endswith("): remove it to begin again")
    save_file(tensors, file)
    with pytest.raises(ModelFileError):
        SaeTrainer.load(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "relu", "settings": {"l1": 0.25}},
        {"kind": "batch_topk", "settings": {"k": 3}},
        {"batch": 700, "tokens": 2100},
    ],
)
def test_a_run_is_its_steps_its_saves_and_its_facts(changes: dict[str, Any], tmp_path: Path) -> None:
    model, tokenizer = tiny_model(vocab_size=320), pretrained.load(write_model(tmp_path / "m"))
    texts = texts_in(tmp_path / "texts")
    run = replace(
        SaeRun("tiny", "blocks.1.attn.v", width=20, k=5, tokens=530, batch=100, context=8, lr=0.02, seed=7,
               texts=(str(texts),), held_out_texts=3), **changes
    )  # fmt: skip
    steps, folder, told = run.steps, tmp_path / "out" / "deep", []

    def hear(step: int, total: int, facts: dict[str, Any]) -> None:
        there = SaeTrainer.load(folder).step_number if (folder / "training.safetensors").is_file() else 0
        assert there == (step - 1) // 2 * 2, "saved after each second step"
        told.append((step, total, facts))

    saved, measures = train_sae(run, model, tokenizer, folder, save_every=2, told=hear)
    written = json.loads((folder / "run.json").read_text())
    assert len(written.pop("seal")) == 64 and written == json.loads(json.dumps(asdict(run)))
    assert stored_run(folder) == run_to_show(folder) == run
    training, held_out = corpora(run, tokenizer)
    chunk = 100 if run.batch == 700 else 64
    stream = iter(ActivationStream(model, training, "blocks.1.attn.v", batch=run.batch, context=8, chunk=chunk, seed=7))
    more = {"l1": 0.25} if run.kind == "relu" else {"k": run.settings.get("k", 5)}
    trainer = SaeTrainer(sae_of(run.kind, 32, 20, seed=7, **more), SaeSettings(steps=steps, lr=0.02))
    expected = []
    for number in range(1, steps + 1):
        found = trainer.step(next(stream))
        expected.append((number, steps, {"error": float(found.error), "l0": found.l0, "tokens": number * run.batch}))
    assert told == expected and steps == (3 if run.batch == 700 else 5)
    assert SaeTrainer.load(folder).step_number == steps
    sae = trainer.finished()
    for name, value in sae.state_dict().items():
        assert torch.equal(saved.sae.state_dict()[name], value), name
    facts = {"training_tokens": steps * run.batch, "context": 8, "seed": 7, "measures": measures.to_json()}
    assert (saved.model, saved.site, saved.facts) == ("tiny", "blocks.1.attn.v", facts)
    own = measure_sae(SavedSae(sae, "", "blocks.1.attn.v"), model, held_out_pieces(run, held_out))
    assert own.to_json() == measures.to_json() and measures.tokens == 21
    back = read_sae(folder)
    assert (back.model, back.site, back.sae.kind) == ("tiny", "blocks.1.attn.v", run.kind)
    assert back.facts == json.loads(json.dumps(facts)) and back.sae.settings() == sae.settings()
    with pytest.raises(ConfigError) as refused:
        train_sae(replace(run, lr=0.01), model, tokenizer, folder)
    assert str(refused.value) == (
        f"{folder} holds a run with lr 0.02, and 0.01 came: give another folder, or the same settings"
    )


@pytest.mark.parametrize("stopped", [True, False])
def test_a_run_goes_on_only_with_the_model_and_the_texts_that_it_began_with(tmp_path: Path, stopped: bool) -> None:
    model, tokenizer = tiny_model(vocab_size=320), pretrained.load(write_model(tmp_path / "m"))
    texts, folder = texts_in(tmp_path / "texts"), tmp_path / "out"
    run = SaeRun("tiny", "blocks.1.attn.v", width=8, k=2, tokens=300, batch=100, context=8, texts=(str(texts),),
                 held_out_texts=3)  # fmt: skip

    def stop(step: int, steps: int, facts: object) -> None:
        if stopped and step == 2:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        train_sae(run, model, tokenizer, folder, save_every=1, told=stop)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    asked = "give another folder, or remove its training.safetensors to begin again"
    turned = replace(model.architecture, norm_eps=2 * model.architecture.norm_eps)
    other = tiny_model(vocab_size=320)
    other.architecture = turned
    for changed in (tiny_model(1, vocab_size=320), other):
        with pytest.raises(ConfigError) as refused:
            train_sae(run, changed, tokenizer, folder)
        assert str(refused.value) == f"the model of {folder} changed since its run began: {asked}"
    own, parts = corpora(run, tokenizer), set()
    for file in sorted(texts.iterdir()):
        text = file.read_text()
        file.write_text(f"{text} again")
        now = corpora(run, tokenizer)
        differ = [part for part in (0, 1) if now[part].ids.tolist() != own[part].ids.tolist()]
        parts |= set(differ)
        if not differ:  # a text beyond the run's tokens
            file.write_text(text)
            continue
        with pytest.raises(ConfigError) as refused:
            train_sae(run, model, tokenizer, folder)
        assert str(refused.value) == f"the texts of {folder} changed since its run began: {asked}"
        file.write_text(text)
    assert parts == {0, 1}
    with pytest.raises(ConfigError, match=r"^the model and the texts of "):
        train_sae(
            run, tiny_model(1, vocab_size=320), pretrained.load(write_model(tmp_path / "n", specials=["an"])), folder
        )
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    saved, _ = train_sae(run, model, tokenizer, folder)
    whole, _ = train_sae(run, model, tokenizer, tmp_path / "whole")
    assert torch.equal(saved.sae.decoder, whole.sae.decoder)
    trainer = SaeTrainer.load(folder)
    trainer.made_from = {}
    trainer.save(folder)
    with pytest.raises(ConfigError, match=f"begun by a version that did not record its model and texts: {asked}"):
        train_sae(run, model, tokenizer, folder)
    (folder / "training.safetensors").unlink()
    train_sae(run, tiny_model(1, vocab_size=320), tokenizer, folder)


def test_what_cannot_be_trained_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    model, run = tiny_model(max_position=16), SaeRun("m", SITE, width=8, k=8, tokens=9, batch=9, context=4)
    for changes, told in (
        ({"context": 17}, "context is 17: the model takes 2 to 16 tokens"),
        ({"k": 9}, "k is 9: of 8 latents at most 8 can be active, so give fewer"),
        ({"site": "blocks.*.attn.q"}, "'blocks.*.attn.q' stands for 2 sites: name one, such as blocks.8.resid.post"),
        (
            {"texts": (str(tmp_path / "a"), str(tmp_path / "b")), "suffixes": (".rst", ".md")},
            f"there is no text in {tmp_path / 'a'}, {tmp_path / 'b'}: give files, or a folder of files in .rst, .md",
        ),
    ):
        for name in "ab":
            (tmp_path / name).mkdir(exist_ok=True)
        with pytest.raises((ConfigError, DataError)) as refused:
            expect_possible(replace(run, **changes), model, tmp_path / "new")
        assert str(refused.value) == told
    with pytest.raises(ConfigError) as sizes:
        replace(run, tokens=8)
    assert str(sizes.value) == (
        "tokens are 8, batch 9 and held-out texts 32: expected one batch or more, 1 or more, and 2 or more"
    )
    assert not (tmp_path / "new").exists()
    saved = SavedSae(sae_of("topk", 31, 8, k=2), "", SITE)
    with pytest.raises(ConfigError) as other:
        measure_sae(saved, model, [[1, 2], [3, 4]])
    assert str(other.value) == (
        f"the autoencoder takes activations of width 31, and {SITE} of this model has 32: it is for another model"
    )
    with pytest.raises(ConfigError) as nowhere:
        SavedSae(sae_of("topk", 31, 8, k=2), "", "qqqqqqqqqqqqqqqq").expect_fits(model)
    assert str(nowhere.value) == "the autoencoder is for 'qqqqqqqqqqqqqqqq', which this model does not have"
    for texts, count, shortest in (([[1, 2]], 1, 2), ([[1, 2], [3]], 2, 1), ([], 0, 0)):
        with pytest.raises(DataError) as few:
            measure_sae(SavedSae(sae_of("topk", 32, 8, k=2), "", SITE), model, texts)
        assert str(few.value) == (
            f"{count} texts, the shortest of {shortest} tokens, came: expected 2 or more of 2 tokens or more"
        )


def test_a_folder_is_read_by_its_metadata_first_and_foreign_marks_are_ignored(tmp_path: Path) -> None:
    sae = sae_of("topk", 3, 5, k=2, seed=4)
    save_sae(SavedSae(sae, "mine", SITE, {"context": 9}), tmp_path)
    body = json.loads((tmp_path / "cfg.json").read_text())
    outer = {"model_name": "outer", "hook_name": "blocks.5.hook_mlp_out"}

    def read(metadata: Any, **more: Any) -> SavedSae:
        (tmp_path / "cfg.json").write_text(json.dumps({**body, **more, "metadata": metadata}))
        return read_sae(tmp_path)

    inner = body["metadata"]
    found = read(inner, **outer)
    assert (found.model, found.site, found.facts, found.sae.kind) == ("mine", SITE, {"context": 9}, "topk")
    found = read({"hook_name": "blocks.2.hook_resid_pre", "model_name": "m2"}, **outer)
    assert (found.model, found.site, found.facts) == ("m2", "blocks.1.resid.post", {})
    found = read(["no object"], **outer)
    assert (found.model, found.site) == ("outer", "blocks.5.mlp.out")
    found = read({**inner, "firsthand": {**inner["firsthand"], "kind": "newer", "site": "x"}}, k=3)
    assert (found.site, found.facts, found.sae.settings()) == (SITE, {}, {"k": 3})
    for name in ("W_enc", "W_dec", "b_enc", "b_dec"):
        tensors = load_file(tmp_path / "sae_weights.safetensors")
        file, shape = tmp_path / "sae_weights.safetensors", tuple(tensors[name].shape)
        for changed in (tensors[name][:-1].clone(), torch.cat([tensors[name], tensors[name][:1]])):
            save_file({**tensors, name: changed}, file)
            with pytest.raises(ModelFileError) as refused:
                read_sae(tmp_path)
            told = f"{file} has {name} of shape {tuple(changed.shape)}: expected {shape} by cfg.json"
            assert str(refused.value) == told
        save_file(tensors, tmp_path / "sae_weights.safetensors")
    tensors["W_dec"][1:] = 0
    save_file(tensors, tmp_path / "sae_weights.safetensors")
    assert read_sae(tmp_path).sae.decoder[1:].abs().sum() == 0, "one row that does something is enough"
    tensors["W_dec"][0] = 0
    save_file(tensors, tmp_path / "sae_weights.safetensors")
    with pytest.raises(ModelFileError) as dead:
        read_sae(tmp_path)
    assert str(dead.value).endswith("has a decoder of zeros: no latent of this dictionary does anything")
    for changes, told in (
        ({"architecture": "gated"}, "has the architecture 'gated': expected standard, topk, jumprelu"),
        ({"architecture": ["x"]}, "has the architecture ['x']: expected standard, topk, jumprelu"),
    ):
        (tmp_path / "cfg.json").write_text(json.dumps({**body, **changes}))
        with pytest.raises(ModelFileError) as unknown:
            read_sae(tmp_path)
        assert str(unknown.value) == f"{tmp_path} {told}"
    (tmp_path / "cfg.json").unlink()
    with pytest.raises(ModelFileError, match=r"cannot be read.*: give the folder of an autoencoder"):
        read_sae(tmp_path)
    with pytest.raises(UnknownName):
        sae_of("nosuch", 3, 5)


def test_a_toy_study_has_its_seeds_settings_and_null() -> None:
    study = toy_study(
        "relu", seed=3, steps=4, batch=20, num_features=12, dimensions=6, width=9, l0=1.2, lr=0.01, l1=0.5
    )
    truth = Superposition(12, 6, l0=1.2, seed=3)
    sae = sae_of("relu", 6, 9, seed=4, l1=0.5)
    trainer = SaeTrainer(sae, SaeSettings(steps=4, lr=0.01, dead_tokens=1000))
    batches = truth.batches(20)
    for _ in range(4):
        trainer.step(next(batches))
    trainer.finished()
    null = dictionary_recovery(torch.randn(9, 6, generator=torch.Generator().manual_seed(5)), truth.features)
    assert (study.kind, study.seed, study.trainer.settings) == ("relu", 3, trainer.settings)
    assert (study.null.mmcs, study.null.above, study.null.uniqueness) == (null.mmcs, null.above, null.uniqueness)
    assert study.found == recovery(sae, truth)
