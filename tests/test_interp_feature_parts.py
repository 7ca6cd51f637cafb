"""Reports of features worked out token by token: contexts, ablation, neighbours, and the sites that reach the logits."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine_tiny import tiny_model
from firsthand.errors import DataError
from firsthand.interp.activations import read_activations, run_with_edits
from firsthand.interp.feature_files import FeatureReport, ShadedToken
from firsthand.interp.feature_reports import (
    FeatureSurvey,
    _ablation,
    _Contexts,
    _directions,
    _extremes,
    _without,
    feature_reports,
    rows_of,
    shaded,
)
from firsthand.interp.lenses.final_norm import centred, norm_weight
from firsthand.interp.rule_explanations import explain
from firsthand.interp.saes.sae_files import SavedSae
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.interp.saes.sparse_autoencoder import SparseAutoencoder
from firsthand.nn.blocks.norm import RMSNorm
from firsthand.stats.intervals import unbounded_mean_interval
from same_values import same

torch.set_num_threads(1)
SITE = "blocks.0.resid.post"


class Numbers:
    """A tokenizer of numbers in angle brackets."""

    def decode(self, ids: list[int], skip_special: bool) -> str:
        assert not skip_special
        return f"<{ids[0]}>"


def positive_parts(size: int = 32, latents: int = 32) -> SparseAutoencoder:
    """Latents are the positive parts of the first values; decoder rows are random, of norms that rise."""
    sae = sae_of("relu", size, latents, seed=1)
    with torch.no_grad():
        sae.encoder.copy_(torch.eye(latents, size))
        sae.decoder.mul_(torch.linspace(0.5, 2, latents)[:, None])
    return sae


def texts_of(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(0, 96, (length,), generator=generator).tolist() for length in lengths]


def later_loss(logits: Tensor, text: list[int], peak: int) -> float:
    each = functional.cross_entropy(logits[:-1], torch.tensor(text[1:]), reduction="none")
    return sum(each[peak : peak + 5].tolist()) / len(each[peak : peak + 5])


def test_a_whole_report_is_that_of_its_definition() -> None:
    model, sae, texts = tiny_model(), positive_parts(), texts_of(2, 60, 90, 51)
    survey = FeatureSurvey(SavedSae(sae, "", SITE), model, Numbers(), texts)  # type: ignore[arg-type]
    feature, seed, contexts = 5, 3, 5
    (found,) = survey.reports([feature], contexts=contexts, ablate=3, seed=seed)
    starts = [0, 2, 62, 152, 203]
    z = torch.cat([read_activations(model, text, SITE)[SITE] for text in texts])[:, feature].clamp_min(0)
    z[starts[:-1]] = 0
    words, top = [f"<{id}>" for text in texts for id in text], float(z.max())
    generator = torch.Generator().manual_seed(seed)
    row = sae.decoder[feature].detach()
    noise = torch.randn(32, generator=generator)
    bests = [(float(z[a:b].max()), a + int(z[a:b].argmax())) for a, b in pairwise(starts)]
    peaks = [at for value, at in sorted(bests, reverse=True) if value > 0]

    def window(at: int) -> list[ShadedToken]:
        start, stop = next((a, b) for a, b in pairwise(starts) if a <= at < b)
        return [
            ShadedToken(words[i], min(9, max(0, -int(-9 * float(z[i]) // top))), i == at)
            for i in range(max(start, at - 12), min(stop, at + 5))
        ]

    changes: tuple[list[float], list[float]] = ([], [])
    assert peaks.index(1) < 3, "nothing follows the peak of the shortest text"
    for at in [at for at in peaks[:3] if at != 1]:
        number = max(n for n in range(4) if starts[n] <= at)
        first, last = max(starts[number], at - 24), min(starts[number + 1], at + 6)
        text = texts[number][first - starts[number] : last - starts[number]]
        plain = later_loss(run_with_edits(model, text, {}), text, at - first)
        for kept, direction in zip(changes, (row, noise / noise.norm() * row.norm()), strict=True):
            taken = {SITE: lambda v, by=direction, at=at - first: at_peak(v, at, v[at, 5].clamp_min(0) * by)}
            kept.append(later_loss(run_with_edits(model, text, taken), text, at - first) - plain)
    firing = [at for at in range(203) if z[at] > 0]
    middle = sorted(z[firing].tolist())[(len(firing) - 1) // 2]
    groups = [[at for at in firing if z[at] > middle], [at for at in firing if z[at] <= middle], list(range(203))]
    drawn = [
        [group[place] for place in torch.randperm(len(group), generator=generator).tolist()[:2]] for group in groups
    ]
    cosines = functional.cosine_similarity(sae.decoder.detach(), row[None], dim=1)
    near = [int(i) for i in cosines.argsort(descending=True) if i != feature][:3]
    logits = ((row * model.norm.weight) @ model.lm_head.weight.T).detach()
    order = logits.argsort().tolist()
    fires = (z > 0).tolist()
    assert explain(words, fires, seed=seed) != explain(words, fires)
    assert found.ablation is not None and found.ablation_null is not None
    for interval, values in zip((found.ablation, found.ablation_null), changes, strict=True):
        expected = unbounded_mean_interval(values)
        assert (interval.value, interval.low, interval.high, interval.n) == pytest.approx(
            (expected.value, expected.low, expected.high, 2), abs=2e-4
        )
    assert [index for index, _ in found.neighbours] == near
    assert [cosine for _, cosine in found.neighbours] == pytest.approx([float(cosines[i]) for i in near], abs=1e-6)
    assert found == FeatureReport(
        feature, pytest.approx(len(firing) / 199), top,
        tuple(sum(min(9, int(float(z[at]) / top * 10)) == part for at in firing) for part in range(10)),
        {
            "top": [window(at) for at in peaks[:contexts]], "upper half": [window(at) for at in drawn[0]],
            "lower half": [window(at) for at in drawn[1]], "random tokens": [window(at) for at in drawn[2]],
        },
        [f"<{id}>" for id in order[:-9:-1]], [f"<{id}>" for id in order[:8]], found.neighbours,
        explain(words, fires, seed=seed), found.ablation, found.ablation_null,
    )  # fmt: skip
    saved = SavedSae(sae, "", SITE)
    (one,) = feature_reports(saved, model, Numbers(), texts, count=1, contexts=1, ablate=1, seed=seed)  # type: ignore[arg-type]
    assert same(one, survey.reports(survey.spaced(1), contexts=1, ablate=1, seed=seed)[0])
    assert [len(one.bands[name]) for name in ("top", "upper half")] == [1, 1]


def test_latents_of_more_tokens_than_one_part_are_all_counted() -> None:
    model, sae, texts = tiny_model(), positive_parts(latents=3), texts_of(*[256] * 17)
    rows = torch.cat([read_activations(model, text, SITE)[SITE] for text in texts])
    strongest = rows[[at for at in range(4352) if at % 256], 0].sort(descending=True).values
    with torch.no_grad():
        sae.encoder_bias.copy_(torch.tensor([-float(strongest[2]), 0.5, -1.0]))
    survey = FeatureSurvey(SavedSae(sae, "", SITE), model, Numbers(), texts)  # type: ignore[arg-type]
    z = sae.encode(rows).detach()
    z[::256] = 0
    counts = (z > 0).sum(0).tolist()
    order = sorted(range(3), key=lambda index: -counts[index])
    assert len(set(counts)) == 3 and survey.spaced(3) == order
    (rare,) = survey.reports([0], ablate=0)
    assert order[2] == 0 and (rare.density, sum(rare.histogram)) == (pytest.approx(2 / (17 * 255)), 2)
    (found,) = survey.reports([order[1]], ablate=0, contexts=20)
    values = z[:, order[1]]
    assert found.density == pytest.approx(counts[order[1]] / (17 * 255)) and sum(found.histogram) == counts[order[1]]
    assert found.maximum == float(values.max()) and len(found.bands["top"]) == int(
        (values.reshape(17, 256) > 0).any(1).sum()
    )


def at_peak(values: Tensor, peak: int, taken: Tensor) -> Tensor:
    """The values less a vector at one token: an ablation is of the peak alone."""
    edited = values.clone()
    edited[peak] -= taken
    return edited


def test_a_peak_is_ablated_if_one_token_follows_it_and_windows_end_with_their_text() -> None:
    model, sae, texts = tiny_model(), positive_parts(), texts_of(40, 9)
    saved = SavedSae(sae, "", SITE)
    reader = _Contexts(texts, ["w"] * 49)
    row = sae.decoder[7].detach()
    for peaks, spans in (
        ([38, 39, 47, 48], [(0, 14, 40), (1, 0, 9)]), ([0, 40], [(0, 0, 6), (1, 0, 6)]),
        ([30, 41], [(0, 6, 36), (1, 0, 7)]),
    ):  # fmt: skip
        generator = torch.Generator().manual_seed(2)
        effect, null = _ablation(saved, model, reader, 7, peaks, generator)
        noise = torch.randn(32, generator=torch.Generator().manual_seed(2))
        expected: tuple[list[float], list[float]] = ([], [])
        for at, (number, first, last) in zip([at for at in peaks if at not in (39, 48)], spans, strict=True):
            text, peak = texts[number][first:last], at - 40 * number - first
            plain = later_loss(run_with_edits(model, text, {}), text, peak)
            for kept, by in zip(expected, (row, noise / noise.norm() * row.norm()), strict=True):
                taken = {SITE: lambda values, by=by, at=peak: at_peak(values, at, values[at, 7].clamp_min(0) * by)}
                kept.append(later_loss(run_with_edits(model, text, taken), text, peak) - plain)
        for interval, values in zip((effect, null), expected, strict=True):
            assert interval.n == 2 and interval.value == pytest.approx(sum(values) / 2, abs=2e-4)
    heads = torch.arange(12.0).reshape(2, 2, 3) - 4
    flat = sae_of("relu", 6, 6, seed=1)
    with torch.no_grad():
        flat.encoder.copy_(torch.eye(6))
    direction = torch.arange(6.0)
    edited = _without(SavedSae(flat, "", "blocks.0.attn.q"), 4, direction, 1)(heads.bfloat16())
    assert isinstance(edited, Tensor) and edited.dtype == torch.bfloat16 and edited.shape == (2, 2, 3)
    assert edited.flatten(1).tolist() == [[-4, -3, -2, -1, 0, 1], [2, 3 - 6, 4 - 12, 5 - 18, 6 - 24, 7 - 30]]


def test_features_that_all_point_apart_are_still_neighbours_and_none_is_its_own() -> None:
    model, sae = tiny_model(), positive_parts(latents=3)
    with torch.no_grad():
        sae.decoder.zero_()
        sae.decoder[0, 0], sae.decoder[1, 0], sae.decoder[2, :2] = 1.0, -2.0, torch.tensor([-3.0, 4.0])
    survey = FeatureSurvey(SavedSae(sae, "", SITE), model, Numbers(), texts_of(120, 120))  # type: ignore[arg-type]
    reports = {each.index: each for each in survey.reports([2, 0, 1], ablate=0)}
    assert [index for index, _ in reports[0].neighbours] == [2, 1]
    assert [cosine for _, cosine in reports[0].neighbours] == pytest.approx([-0.6, -1.0])
    assert reports[2].neighbours == [(1, pytest.approx(0.6)), (0, pytest.approx(-0.6))]
    assert list(reports) == [2, 0, 1]


@pytest.mark.parametrize("site", ["resid.mid", "resid.post", "mlp.out", "attn.out", "mlp.in", "attn.in"])
def test_features_promote_tokens_at_sites_that_are_added_to_the_residual_stream(site: str) -> None:
    model, sae = tiny_model(), positive_parts(latents=4)
    saved = SavedSae(sae, "", f"blocks.1.{site}")
    other, found = feature_reports(saved, model, Numbers(), texts_of(150, 60), count=2, ablate=0)  # type: ignore[arg-type]
    assert other.promoted != found.promoted or site.endswith("in")
    logits = ((sae.decoder[found.index] * model.norm.weight) @ model.lm_head.weight.T).detach()
    best = [f"<{id}>" for id in logits.argsort(descending=True).tolist()[:8]]
    assert found.promoted == ([] if site.endswith("in") else best) and len(found.suppressed) == len(found.promoted)


def test_the_direction_of_a_feature_goes_through_the_final_norms_weight() -> None:
    model, rows = tiny_model(tied=False), torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    weight, head = torch.linspace(-1, 2, 32), model.lm_head.weight.detach()
    for norm, factor in (
        (RMSNorm(32, 1e-5), weight), (RMSNorm(32, 1e-5, unit_offset=True), 1 + weight), (nn.LayerNorm(32), weight),
        (nn.LayerNorm(32, elementwise_affine=False), torch.ones(32)),
    ):  # fmt: skip
        if norm.weight is not None:
            norm.weight.data.copy_(weight)
        model.norm = norm
        given = (
            rows if isinstance(norm, RMSNorm) else rows - rows.mean(1, keepdim=True)
        )  # LayerNorm takes the mean away
        torch.testing.assert_close(_directions(model, rows).detach(), (given * factor) @ head.T)
        residual = torch.linspace(-3, 5, 32)[torch.randperm(32, generator=torch.Generator().manual_seed(2))]
        with (
            torch.no_grad()
        ):  # as the logits change where the norm's scale does not: along no part of the residual stream
            wide = rows[:1] - rows[:1].mean() * (not isinstance(norm, RMSNorm))
            level = residual - residual.mean() * (not isinstance(norm, RMSNorm))
            step = 1e-2 * (rows[:1] - (wide @ level) / (level @ level) * level)
            change = (norm(residual + step) - norm(residual)) @ head.T
            found = _directions(model, step)
        assert torch.corrcoef(torch.cat([change, found]))[0, 1] > 0.9999
    best, worst = _extremes(torch.tensor([0.5, -2.0, 3.0, 0.25]), Numbers())  # type: ignore[arg-type]
    assert (best, worst) == (["<2>", "<0>", "<3>", "<1>"], ["<1>", "<3>", "<0>", "<2>"])
    best, worst = _extremes(torch.arange(10.0), Numbers(), 3)  # type: ignore[arg-type]
    assert (best, worst) == (["<9>", "<8>", "<7>"], ["<0>", "<1>", "<2>"])
    half = tiny_model().to(torch.bfloat16)
    read = rows_of(half, [1, 2, 3], SITE)
    assert read.dtype == torch.float32 and read.shape == (3, 32)
    half.embed.weight.data[2, 0] = torch.inf
    with pytest.raises(DataError) as refused:
        rows_of(half, [1, 2, 3], SITE)
    assert str(refused.value) == (
        "the model's activations at blocks.0.resid.post are not finite: its weights are damaged"
    )


def test_tokens_are_shaded_in_ninths_of_the_maximum_rounded_up() -> None:
    strengths = [0.0, 0.01, 1.0, 1.01, 4.5, 8.99, 9.0, 9.5, -1.0]
    found = shaded([str(i) for i in range(9)], strengths, 9.0, 4)
    assert [each.shade for each in found] == [0, 1, 1, 2, 5, 9, 9, 9, 0]
    assert [each.is_peak for each in found] == [place == 4 for place in range(9)] and found[2].text == "2"
    assert [each.shade for each in shaded(["a", "b"], [0.0, 0.0], 0.0, -1)] == [0, 0]
    reader = _Contexts([[1, 2], [3], [4, 5, 6]], list("abcdef"))
    assert [reader.span_of(at) for at in range(6)] == [(0, 0, 2)] * 2 + [(1, 2, 3)] + [(2, 3, 6)] * 3
    z = torch.tensor([0.0, 2.0, 0.0, 5.0, 7.0, 2.0])
    assert reader.peaks(z, 9) == [4, 1] and reader.peaks(z, 1) == [4] and reader.peaks(z * 0, 3) == []
    assert reader.peaks(torch.tensor([2.0, 0.0, 2.0, 2.0, 2.0, 0.0]), 9) == [3, 2, 0]
    wide = _Contexts([list(range(5)), list(range(30))], [str(i) for i in range(35)])
    strong = torch.ones(35)
    assert [each.text for each in wide.window(strong, 20)] == [str(i) for i in range(8, 25)]
    assert [each.text for each in wide.window(strong, 7)] == [str(i) for i in range(5, 12)]
    assert [each.text for each in wide.window(strong, 34)] == [str(i) for i in range(22, 35)]
    assert [each.is_peak for each in wide.window(strong, 2)] == [False, False, True, False, False]


def test_a_norm_without_a_weight_leaves_directions_on_their_device() -> None:
    norm = torch.nn.LayerNorm(3, elementwise_affine=False)
    rows = torch.tensor([[1.0, 2.0, 6.0]])
    assert (centred(norm, rows) * norm_weight(norm)).tolist() == [[-2.0, -1.0, 3.0]]
    assert (rows.to("meta") * norm_weight(norm)).device.type == "meta"
