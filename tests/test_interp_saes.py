"""Sparse autoencoders: their formulas, the recovery of known features, SAELens's files, and runs that go on after a stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine_tiny import tiny_model
from firsthand.commands import interp_toy
from firsthand.errors import ConfigError, DataError, ModelFileError, TrainingError, UnknownName
from firsthand.interp.activations import run_with_cache
from firsthand.interp.saes.activation_stream import ActivationStream, activations_at
from firsthand.interp.saes.sae_evaluation import measure_sae
from firsthand.interp.saes.sae_files import SavedSae, read_sae, save_sae
from firsthand.interp.saes.sae_kinds import KINDS, sae_of
from firsthand.interp.saes.sae_run import SaeRun, train_sae
from firsthand.interp.saes.sae_training import SaeSettings, SaeTrainer, rate_at
from firsthand.interp.saes.sparse_autoencoder import SparseAutoencoder
from firsthand.interp.saes.sparse_products import decoded, encoded, picks_at, products_by_mkl, products_by_parts
from firsthand.interp.saes.toy_superposition import Superposition, dictionary_recovery, toy_study
from firsthand.nn import weights
from firsthand.tokens import pretrained
from firsthand.train.documents import SourceText, encode_documents
from tiny import write_model

torch.set_num_threads(1)
NONE = torch.zeros(24, dtype=torch.bool)
SITE = "blocks.0.resid.post"


def made(kind: str, **more: Any) -> SparseAutoencoder:
    """8 inputs and 24 latents with weights that are no longer each other's transpose."""
    sae = sae_of(kind, 8, 24, seed=3, **({"l1": 0.5} if kind == "relu" else {"k": 3} | more))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in (sae.encoder, sae.encoder_bias, sae.decoder_bias):
            weight += torch.randn(weight.shape, generator=generator) * 0.2
    return sae


def inputs(count: int = 40) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(7))


def test_sparse_products_have_the_values_and_gradients_of_dense_ones() -> None:
    x = inputs(5).double().requires_grad_()
    encoder, decoder = (torch.randn(24, 8, dtype=torch.double, requires_grad=True) for _ in range(2))
    bias = torch.randn(24, dtype=torch.double, requires_grad=True)
    pre = x @ encoder.T + bias
    mask = torch.rand(5, 24) < 0.2
    mask[2] = False  # a token without any
    dense = (pre * mask) @ decoder
    weights_of = torch.linspace(-1, 2, dense.numel(), dtype=torch.double).reshape(dense.shape)
    expected = torch.autograd.grad((dense * weights_of).sum(), (x, encoder, bias, decoder))
    picks = picks_at(mask.flatten().nonzero().flatten().flip(0), 5, 24)
    z = encoded(x, encoder, bias, picks, pre.detach()[picks.token, picks.latent])
    out = decoded(z, decoder, picks)
    torch.testing.assert_close(out, dense)
    found = torch.autograd.grad((out * weights_of).sum(), (x, encoder, bias, decoder))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    rows = torch.randn(5, 8, dtype=torch.double)
    for products in (products_by_mkl, products_by_parts):
        torch.testing.assert_close(products(rows, decoder.detach(), picks), (rows @ decoder.T)[mask].detach())


@pytest.mark.parametrize("kind", ["topk", "batch_topk", "matryoshka"])
def test_the_loss_of_kinds_with_a_fixed_l0_is_that_of_the_dense_formula(kind: str) -> None:
    sae, x = made(kind, widths=[6, 24]) if kind == "matryoshka" else made(kind), inputs()
    found = sae.loss(x, is_dead_M=NONE, progress=0.5)
    pre = (x - sae.decoder_bias) @ sae.encoder.T + sae.encoder_bias
    by_token, by_batch = pre.topk(3, dim=1).values[:, -1:], pre.flatten().topk(3 * len(x)).values[-1]
    cut = by_token if kind == "topk" else by_batch
    z = (pre * (pre >= cut)).relu()
    widths = [6, 24] if kind == "matryoshka" else [24]
    errors = [(x - z[:, :width] @ sae.decoder[:width] - sae.decoder_bias).square().sum(1).mean() for width in widths]
    expected = torch.stack(errors).mean()
    torch.testing.assert_close(found.loss, expected)
    assert found.l0 == pytest.approx(float((z > 0).sum(1).float().mean())) and found.fired.sum() == (z > 0).sum()
    for one, other in zip(
        torch.autograd.grad(found.loss, list(sae.parameters())),
        torch.autograd.grad(expected, list(sae.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_relu_pays_for_a_latent_by_its_decoder_norm() -> None:
    sae, x = made("relu"), inputs()
    with torch.no_grad():
        sae.decoder *= 2.5
    z = ((x - sae.decoder_bias) @ sae.encoder.T + sae.encoder_bias).relu()
    error = (x - z @ sae.decoder - sae.decoder_bias).square().sum(1).mean()
    full = sae.loss(x, is_dead_M=NONE, progress=0.05).loss
    torch.testing.assert_close(full, error + 0.5 * 2.5 * z.sum(1).mean())
    torch.testing.assert_close(sae.loss(x, is_dead_M=NONE, progress=0.0).loss, error)
    torch.testing.assert_close(sae.loss(x, is_dead_M=NONE, progress=0.025).loss, error + 0.25 * 2.5 * z.sum(1).mean())


def test_jumprelu_moves_thresholds_by_the_rectangle_alone() -> None:
    sae, x = made("jumprelu", weight=2.0, bandwidth=0.3), inputs(200)
    found = sae.loss(x, is_dead_M=NONE, progress=1.0)
    pre = (x - sae.decoder_bias) @ sae.encoder.T + sae.encoder_bias
    theta = sae.log_threshold.exp()
    z = (pre * (pre > theta)).detach().requires_grad_()
    error = (x - z @ sae.decoder - sae.decoder_bias).square().sum(1).mean()
    l0 = (pre > theta).float().sum(1).mean()
    torch.testing.assert_close(found.loss, error + 2 * (l0 / 3 - 1) ** 2)
    to_z = torch.autograd.grad(error, z)[0]
    near = ((pre - theta).abs() < 0.15).float()
    jump = (to_z * near).sum(0) * (-theta / 0.3)
    step = near.sum(0) / len(x) * (-1 / 0.3) * 2 * 2 * (l0 / 3 - 1) / 3
    got = torch.autograd.grad(found.loss, sae.log_threshold)[0]
    torch.testing.assert_close(got, (jump + step) * theta, atol=1e-5, rtol=1e-4)
    assert near.sum() > 10


def test_the_auxiliary_loss_trains_dead_latents_and_no_others() -> None:
    sae, x = made("topk"), inputs()
    is_dead = torch.zeros(24, dtype=torch.bool)
    is_dead[[4, 9, 11, 13, 17, 20]] = True
    residual = x - sae(x)
    pre = sae.pre_activations(x)
    dead_pre = pre[:, is_dead]
    cut = dead_pre.topk(4, dim=1).values[:, -1:]
    z = (dead_pre * (dead_pre >= cut)).relu()
    expected = (residual.detach() - z @ sae.decoder[is_dead]).square().sum(1).mean()
    for given in (pre, pre.detach()):  # the kinds that compute pre-activations without gradient recompute the dead ones
        found = sae.auxiliary_loss(x, residual, given, is_dead)
        torch.testing.assert_close(found, expected)
        gradient = torch.autograd.grad(found, sae.encoder, retain_graph=True)[0]
        assert (gradient.abs().sum(1) > 0)[is_dead].all() and gradient[~is_dead].abs().max() == 0
    assert float(sae.auxiliary_loss(x, residual, pre, NONE)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_lowers_its_error_and_keeps_what_it_promises(kind: str) -> None:
    truth = Superposition(24, 8, l0=1.5)
    sae = sae_of(kind, 8, 32, **({"l1": 0.1} if kind == "relu" else {"k": 2}))
    trainer = SaeTrainer(sae, SaeSettings(steps=60, lr=1e-2, dead_tokens=640))
    batches = truth.batches(128)
    first = float(trainer.step(next(batches)).error)
    last = float(trainer.train(batches).error)
    assert last < first * 0.7
    norms = sae.decoder.norm(dim=1)
    if kind == "relu":
        assert norms.std() > 1e-3, "free norms"
    else:
        torch.testing.assert_close(norms, torch.ones(32), atol=1e-4, rtol=0)
    scale, x = trainer.scale, truth.sample(64)[0]
    with torch.no_grad():
        before, latents = sae(x * scale) / scale, sae.encode(x * scale)
        torch.testing.assert_close(trainer.finished()(x), before, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(sae.encode(x), latents, atol=1e-5, rtol=1e-4)
    if kind == "topk":
        assert (latents > 0).sum(1).max() == 2


def test_the_null_and_the_truth_score_as_they_must() -> None:
    truth = Superposition(32, 16, l0=2)
    same = dictionary_recovery(truth.features.flip(0) * 3, truth.features)
    assert (same.mmcs, same.above, same.uniqueness) == (pytest.approx(1.0), 1.0, 1.0)
    half = dictionary_recovery(torch.cat([truth.features[:16], torch.zeros(16, 16)]), truth.features)
    assert 0.5 <= half.above < 0.8 and half.uniqueness <= 0.5
    x, strengths = truth.sample(20_000)
    torch.testing.assert_close(x, strengths @ truth.features)
    assert (strengths > 0).sum(1).float().mean() == pytest.approx(2, abs=0.05)
    assert strengths[strengths > 0].min() >= 0.5 and strengths.max() <= 1.5
    rates = (strengths > 0).float().mean(0)
    assert rates[0] / rates[3] == pytest.approx(4, rel=0.15), "Zipf"


@pytest.mark.slow
def test_known_features_are_found_and_a_random_dictionary_finds_none() -> None:
    study = toy_study("batch_topk", num_features=24, dimensions=16, width=48, l0=1.5, steps=300, batch=128, k=2)
    assert study.found.mmcs > 0.95 > 0.7 > study.null.mmcs
    assert study.found.above >= 0.9 and study.null.above == 0 and study.found.f1 > 0.8


@pytest.mark.slow
def test_128_features_in_64_dimensions_are_recovered() -> None:
    study = toy_study("batch_topk", seed=1, steps=1400, k=4)
    assert study.passes, study.found
    assert study.null.mmcs < 0.4 and study.null.above == 0


def test_the_toy_command_prints_each_row_beside_its_null(capsys: pytest.CaptureFixture[str]) -> None:
    small = interp_toy.Config(
        kinds=("topk",), seeds=1, steps=30, features=16, dimensions=8, width=24, l0=1.0, json=True
    )
    assert interp_toy.run(small) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["kind"] == "topk" and 0 < row["null"]["mmcs"] < 1 and row["passes"] is False


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    def fresh() -> SaeTrainer:
        return SaeTrainer(sae_of("batch_topk", 8, 24, k=2), SaeSettings(steps=20, dead_tokens=300))

    data = list(zip(range(20), Superposition(24, 8, l0=1.5).batches(64), strict=False))
    whole, cut = fresh(), fresh()
    for step, batch in data:
        whole.step(batch)
        if step < 9:
            cut.step(batch)
    cut.save(tmp_path)
    again = SaeTrainer.load(tmp_path)
    assert again.step_number == 9 and again.tokens == 9 * 64
    for _, batch in data[9:]:
        again.step(batch)
    for name, value in whole.sae.state_dict().items():
        assert torch.equal(again.sae.state_dict()[name], value), name
    (tmp_path / "training.safetensors").write_bytes(b"not one")
    with pytest.raises(ModelFileError, match="no training state"):
        SaeTrainer.load(tmp_path)


def test_training_refuses_what_would_spoil_it() -> None:
    trainer = SaeTrainer(sae_of("topk", 8, 24, k=2), SaeSettings(steps=5))
    with pytest.raises(ConfigError, match=r"shape \(4, 7\) came: expected rows of width 8"):
        trainer.step(torch.zeros(4, 7))
    with pytest.raises(TrainingError, match="mean norm of nan"):
        trainer.step(torch.full((4, 8), float("nan")))
    with pytest.raises(TrainingError, match="mean norm of 0"):
        trainer.step(torch.zeros(4, 8))
    with pytest.raises(TrainingError, match="mean norm of inf"):
        trainer.step(torch.full((4, 8), float("inf")))
    trainer.step(inputs())
    weight = trainer.sae.encoder.detach().clone()
    with pytest.raises(TrainingError, match="step 2 has the loss nan"):
        trainer.step(torch.full((4, 8), float("nan")))
    assert torch.equal(trainer.sae.encoder, weight), "the weights are those of the step before"
    with pytest.raises(DataError, match="ended at step 2 of 5"):
        trainer.train([inputs()])
    with pytest.raises(UnknownName, match="did you mean 'batch_topk'"):
        sae_of("batchtopk", 8, 24)
    for kind, bad in (
        ("topk", {"k": 25}),
        ("relu", {"l1": -1}),
        ("jumprelu", {"k": 0}),
        ("matryoshka", {"widths": [9, 3]}),
    ):
        with pytest.raises(ConfigError, match="expected"):
            sae_of(kind, 8, 24, **bad)
    assert rate_at(0, 1000) == 0.1 and rate_at(500, 1000) == 1 and rate_at(900, 1000) == 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_files_in_saelens_layout_come_back_equal(kind: str, tmp_path: Path) -> None:
    sae, x = made(kind), inputs()
    if kind in ("batch_topk", "matryoshka"):
        sae.threshold.fill_(0.4)  # type: ignore[operator]
    save_sae(SavedSae(sae, "tiny", "blocks.3.resid.post", {"training_tokens": 5}), tmp_path)
    back = read_sae(tmp_path)
    assert (back.model, back.site, back.facts, back.sae.kind) == (
        "tiny",
        "blocks.3.resid.post",
        {"training_tokens": 5},
        kind,
    )
    with torch.no_grad():
        torch.testing.assert_close(back.sae.encode(x), sae.encode(x))
        torch.testing.assert_close(back.sae(x), sae(x))
    config = json.loads((tmp_path / "cfg.json").read_text())
    theirs = {"relu": "standard", "topk": "topk"}.get(kind, "jumprelu")
    assert config["architecture"] == theirs and config["metadata"]["hook_name"] == "blocks.3.hook_resid_post"
    stored = load_file(tmp_path / "sae_weights.safetensors")
    assert stored["W_enc"].shape == (8, 24) and stored["W_dec"].shape == (24, 8)
    assert ("threshold" in stored) == (theirs == "jumprelu")


def theirs(folder: Path, architecture: str, **config: Any) -> dict[str, Tensor]:
    """A folder as SAELens writes it, by hand."""
    generator = torch.Generator().manual_seed(1)
    shapes = {"W_enc": (8, 24), "W_dec": (24, 8), "b_enc": (24,), "b_dec": (8,)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    if architecture == "jumprelu":
        tensors["threshold"] = torch.rand(24, generator=generator)
    save_file(tensors, folder / "sae_weights.safetensors")
    body = {
        "d_in": 8, "d_sae": 24, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True,
        "normalize_activations": "none", "reshape_activations": "none", "architecture": architecture,
        "metadata": {"sae_lens_version": "6.54.12", "model_name": "gpt2", "hook_name": "blocks.8.hook_resid_pre"},
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(body | config))
    return tensors


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("standard", {}), ("standard", {"apply_b_dec_to_input": False}), ("jumprelu", {}), ("topk", {"k": 5}),
        ("topk", {"k": 5, "rescale_acts_by_decoder_norm": True}),
    ],
)  # fmt: skip
def test_saelens_files_compute_what_saelens_computes(architecture: str, config: dict[str, Any], tmp_path: Path) -> None:
    t, x = theirs(tmp_path, architecture, **config), inputs()
    into = x - t["b_dec"] if config.get("apply_b_dec_to_input", True) else x
    pre = into @ t["W_enc"] + t["b_enc"]
    norm = t["W_dec"].norm(dim=1)
    if config.get("rescale_acts_by_decoder_norm"):
        pre = pre * norm
    if architecture == "topk":
        top = pre.topk(5, dim=1)
        z = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    else:
        z = pre.relu() * (pre > t["threshold"]) if architecture == "jumprelu" else pre.relu()
    out = (z / norm if config.get("rescale_acts_by_decoder_norm") else z) @ t["W_dec"] + t["b_dec"]
    saved = read_sae(tmp_path)
    assert saved.site == "blocks.7.resid.post" and saved.model == "gpt2"
    with torch.no_grad():
        torch.testing.assert_close(saved.sae.encode(x), z, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(saved.sae(x), out, atol=1e-4, rtol=1e-4)


def test_files_that_contradict_themselves_are_refused(tmp_path: Path) -> None:
    def refused(
        match: str, architecture: str = "standard", tensors: dict[str, Tensor] | None = None, **config: Any
    ) -> None:
        stored = theirs(tmp_path, architecture, **config)
        if tensors is not None:
            save_file(stored | tensors, tmp_path / "sae_weights.safetensors")
        with pytest.raises(ModelFileError, match=match):
            read_sae(tmp_path)

    refused("architecture 'gated': expected standard, topk, jumprelu", "gated")
    refused("normalize_activations 'layer_norm'", normalize_activations="layer_norm")
    refused(r"W_dec of shape \(24, 8\): expected \(24, 9\)", d_in=9)
    refused("d_sae -1: expected a whole number", d_sae=-1)
    refused("k is 99|k is 0", "topk", k=99)
    refused("a tensor 'threshold': a standard", tensors={"threshold": torch.zeros(24)})
    refused("values in b_enc that are not finite", tensors={"b_enc": torch.full((24,), float("nan"))})
    refused("a decoder of zeros", tensors={"W_dec": torch.zeros(24, 8)})
    (tmp_path / "cfg.json").write_text("[1]")
    with pytest.raises(ModelFileError, match="holds a JSON list: expected an object"):
        read_sae(tmp_path)
    (tmp_path / "cfg.json").unlink()
    with pytest.raises(ModelFileError, match="cannot be read: No such file"):
        read_sae(tmp_path)


def test_settings_of_any_type_are_a_sentence(tmp_path: Path) -> None:
    theirs(tmp_path, "standard")
    given = json.loads((tmp_path / "cfg.json").read_text())

    def own(kind: object, settings: object) -> dict[str, object]:
        return {"metadata": {"firsthand": {"kind": kind, "settings": settings}}}

    for change in (
        {"architecture": []}, {"architecture": {}}, own("topk", {"k": "x"}), own("topk", [1]), own("topk", {"seed": "x"}),
        own("matryoshka", {"widths": 3}), own("topk", {"k": None}), own("topk", {"k": 1e308}), own("relu", {"no": 1}),
    ):  # fmt: skip
        (tmp_path / "cfg.json").write_text(json.dumps(given | change))
        with pytest.raises(ModelFileError):
            read_sae(tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps(given | own([], {})))
    assert read_sae(tmp_path).sae.d_sae == given["d_sae"], "a kind that is none is another program's"
    (tmp_path / "cfg.json").write_text("[" * 100_000)
    with pytest.raises(ModelFileError, match="does not hold JSON that can be read"):
        read_sae(tmp_path)


def test_an_autoencoder_for_another_model_or_site_is_refused() -> None:
    model, sae = tiny_model(), sae_of("topk", 32, 64, k=4)
    with pytest.raises(ConfigError, match=r"for 'blocks.8.resid.post', which this model does not have"):
        SavedSae(sae, "", "blocks.8.resid.post").expect_fits(model)
    with pytest.raises(ConfigError, match=r"width 32, and blocks.0.mlp.act of this model has 64"):
        SavedSae(sae, "", "blocks.0.mlp.act").expect_fits(model)
    with pytest.raises(ConfigError, match="width 31 came for an autoencoder of width 32"):
        sae.encode(torch.zeros(2, 31))
    with pytest.raises(DataError, match="1 texts, the shortest of 4 tokens"):
        measure_sae(SavedSae(sae, "", SITE), model, [[1, 2, 3, 4]])


class Exact(SparseAutoencoder):
    """Reconstructs exactly: the ideal, to check the measures by."""

    kind = "topk"

    def encode(self, x_ND: Tensor) -> Tensor:
        return torch.cat([x_ND, -x_ND], 1).relu()

    def decode(self, z_NM: Tensor) -> Tensor:
        return z_NM[:, :32] - z_NM[:, 32:]


class Nothing(Exact):
    """Reconstructs zeros."""

    def decode(self, z_NM: Tensor) -> Tensor:
        return torch.zeros(len(z_NM), 32)


def test_a_perfect_reconstruction_recovers_all_the_loss_and_zeros_none() -> None:
    model = tiny_model()
    generator = torch.Generator().manual_seed(2)
    texts = [torch.randint(0, 96, (20,), generator=generator).tolist() for _ in range(3)]
    perfect = measure_sae(SavedSae(Exact(32, 64), "", SITE), model, texts)
    assert perfect.loss_recovered == pytest.approx(1, abs=1e-5) and perfect.fvu == pytest.approx(0, abs=1e-9)
    assert perfect.difference.value == pytest.approx(0, abs=1e-6) and perfect.tokens == 57
    assert perfect.l0 == pytest.approx(32, abs=0.1) and perfect.dead == 0 and perfect.shrinkage == pytest.approx(1)
    nothing = measure_sae(SavedSae(Nothing(32, 64), "", SITE), model, texts)
    assert nothing.loss_recovered == pytest.approx(0, abs=1e-6) and nothing.shrinkage == 0 and nothing.fvu > 0.9
    assert nothing.with_zeros == nothing.with_sae != nothing.cross_entropy


def test_a_stream_repeats_itself_from_any_position_and_leaves_first_tokens_out(tmp_path: Path) -> None:
    model = tiny_model()
    tokenizer = pretrained.load(write_model(tmp_path / "model"))
    corpus = encode_documents([SourceText("12 + 30 = 42. " * 40, str(n)) for n in range(4)], tokenizer)
    corpus.ids[:] = corpus.ids % 96

    def stream(seed: int = 0) -> ActivationStream:
        return ActivationStream(model, corpus, SITE, batch=30, context=16, chunk=5, seed=seed)

    one = stream()
    assert one.batches_per_chunk == 2
    batches = [batch for _, batch in zip(range(7), one, strict=False)]
    again = stream()
    again.position = 5
    for expected, got in zip(batches[5:], again, strict=False):
        assert torch.equal(expected, got)
    assert not torch.equal(next(iter(stream(1))), batches[0])
    rows = activations_at(model, one.chunk_of(0), SITE)
    assert len(rows) == 75
    alone = run_with_cache(model, one.chunk_of(0)[1], SITE).cache[SITE]
    torch.testing.assert_close(rows[15:30], alone[1:])
    for row in torch.cat(batches[:2]):
        assert (rows == row).all(1).any()
    with pytest.raises(DataError, match="no piece of 200 tokens"):
        ActivationStream(model, encode_documents([SourceText("hi", "a")], tokenizer), SITE, context=200, chunk=64)
    with pytest.raises(ConfigError, match="stands for 2 sites"):
        ActivationStream(model, corpus, "blocks.*.resid.post")


@pytest.mark.slow
def test_a_run_on_text_is_measured_written_and_finished_after_a_stop(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    model, tokenizer = weights.load(folder), pretrained.load(folder)
    texts = tmp_path / "texts"
    texts.mkdir()
    for n in range(12):
        (texts / f"{n}.txt").write_text(f"The answer to {n} + {n} is {2 * n}. " * 40)
    run = SaeRun("tiny", SITE, width=64, k=4, tokens=2000, batch=100, context=16, texts=(str(texts),), held_out_texts=4)
    saved, measures = train_sae(run, model, tokenizer, tmp_path / "whole")
    assert measures.tokens == 4 * 15 and saved.facts["training_tokens"] == 2000
    assert 0 < measures.fvu < 1 and 0 < measures.l0 < 20

    class Stopped(Exception):
        pass

    def stop(step: int, steps: int, facts: object) -> None:
        if step == 13:
            raise Stopped

    with pytest.raises(Stopped):
        train_sae(run, model, tokenizer, tmp_path / "cut", save_every=5, told=stop)
    again, _ = train_sae(run, model, tokenizer, tmp_path / "cut", save_every=5)
    assert torch.equal(again.sae.decoder, saved.sae.decoder)
    assert read_sae(tmp_path / "cut").site == SITE
    with pytest.raises(ConfigError, match="holds a run with k 4, and 5 came"):
        train_sae(SaeRun(**{**run.__dict__, "k": 5}), model, tokenizer, tmp_path / "cut")
