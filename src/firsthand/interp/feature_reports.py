"""Gathers what a dashboard shows of each feature: density, contexts, logits, neighbours, a rule, ablation effect."""

# N tokens, M latents, F shown features, D hidden, V vocabulary

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from firsthand.errors import DataError
from firsthand.interp.activations import read_activations, run_with_cache, run_with_edits
from firsthand.interp.feature_files import SHADES, FeatureReport, ShadedToken
from firsthand.interp.lenses.final_norm import centred, norm_weight
from firsthand.interp.rule_explanations import explain
from firsthand.interp.saes.sae_files import SavedSae
from firsthand.nn.decoder import Decoder
from firsthand.nn.sites import Tap
from firsthand.stats.intervals import Interval, unbounded_mean_interval
from firsthand.tokens.tokenizer import Tokenizer

BEFORE, AFTER = 12, 4
"""Tokens of a context on both sides of its peak."""


class FeatureSurvey:
    """Activations of held-out texts and how often each latent fires on them, from which single features are reported.

    DataError if no latent fires on the texts, or the activations are not finite.
    """

    @torch.no_grad()
    def __init__(self, saved: SavedSae, model: Decoder, tokenizer: Tokenizer, texts: Sequence[Sequence[int]]):
        saved.expect_fits(model)
        self._saved, self._model, self._tokenizer = saved, model, tokenizer
        self._rows_ND = torch.cat([rows_of(model, text, saved.site) for text in texts])
        self._is_later_N1 = torch.cat([torch.arange(len(text)) > 0 for text in texts])[:, None]
        density_M = torch.zeros(saved.sae.d_sae)
        for part_ND, later_N1 in zip(
            torch.split(self._rows_ND, 4096), torch.split(self._is_later_N1, 4096), strict=True
        ):
            density_M += ((saved.sae.encode(part_ND) > 0) & later_N1).sum(0)
        self._density_M = density_M / int(self._is_later_N1.sum())
        alive = density_M.nonzero().flatten()
        if not len(alive):
            raise DataError(
                f"no latent fires on {len(self._rows_ND)} tokens: the dictionary is dead here, or for other text"
            )
        self._ordered = alive[density_M[alive].argsort(descending=True)]
        self._unit_MD = functional.normalize(saved.sae.decoder, dim=1)
        self._words = [tokenizer.decode([id], skip_special=False) for text in texts for id in text]
        self._reader = _Contexts(texts, self._words)

    def spaced(self, count: int) -> list[int]:
        """Features that fire, evenly spaced by density, densest first."""
        places = torch.linspace(0, len(self._ordered) - 1, min(count, len(self._ordered))).round().long()
        return [int(index) for index in self._ordered[sorted(set(places.tolist()))]]

    @torch.no_grad()
    def reports(
        self, features: Sequence[int], *, contexts: int = 6, ablate: int = 4, seed: int = 0
    ) -> list[FeatureReport]:
        """Reports on these features; DataError for one that does not fire on the texts, or that there is not."""
        saved, model = self._saved, self._model
        sae = saved.sae
        for feature in features:
            if not 0 <= feature < sae.d_sae:
                raise DataError(f"feature {feature} was asked for, and there are {sae.d_sae}, from 0")
            if not self._density_M[feature]:
                raise DataError(f"feature {feature} does not fire on the {len(self._rows_ND):,} held-out tokens")
        shown = torch.tensor(features, dtype=torch.long)
        z_NF = torch.cat([sae.encode(part)[:, shown] for part in torch.split(self._rows_ND, 4096)]) * self._is_later_N1
        generator = torch.Generator().manual_seed(seed)
        logits_FV = (
            _directions(model, sae.decoder[shown]) if saved.site.endswith(("resid.post", ".out", "resid.mid")) else None
        )
        reports = []
        for place, feature in enumerate(features):
            z_N = z_NF[:, place]
            cosines_M = self._unit_MD @ self._unit_MD[feature]
            cosines_M[feature] = -2.0
            near = cosines_M.topk(min(3, sae.d_sae - 1))
            top = self._reader.peaks(z_N, contexts)
            said = ([], []) if logits_FV is None else _extremes(logits_FV[place], self._tokenizer)
            effect = null = None
            if ablate:
                effect, null = _ablation(saved, model, self._reader, feature, top[:ablate], generator)
            fired_F = z_N[z_N > 0]
            reports.append(
                FeatureReport(
                    feature, float(self._density_M[feature]), float(z_N.max()),
                    tuple(int(c) for c in torch.histc(fired_F, 10, 0, float(z_N.max())).tolist()),
                    self._reader.bands(z_N, top, contexts, generator), *said,
                    list(zip(near.indices.tolist(), near.values.tolist(), strict=True)),
                    explain(self._words, (z_N > 0).tolist(), seed=seed), effect, null,
                )
            )  # fmt: skip
        return reports


def feature_reports(
    saved: SavedSae, model: Decoder, tokenizer: Tokenizer, texts: Sequence[Sequence[int]], *, count: int = 60,
    contexts: int = 6, ablate: int = 4, seed: int = 0,
) -> list[FeatureReport]:  # fmt: skip
    """Reports on `count` features, evenly spaced by density, densest first. DataError if none fires on the texts."""
    survey = FeatureSurvey(saved, model, tokenizer, texts)
    return survey.reports(survey.spaced(count), contexts=contexts, ablate=ablate, seed=seed)


def rows_of(model: Decoder, text: Sequence[int], site: str) -> Tensor:
    """The activations of a text at a site, a row a token; DataError if a value is not finite."""
    rows_ND = read_activations(model, text, site)[site].flatten(1).float()
    if not rows_ND.isfinite().all():
        raise DataError(f"the model's activations at {site} are not finite: its weights are damaged")
    return rows_ND


def shaded(words: Sequence[str], strengths: Sequence[float], top: float, peak: int) -> list[ShadedToken]:
    """Tokens with shades by strength, `top` being the darkest; `peak` is the place that is marked."""
    top = max(top, 1e-30)
    return [
        ShadedToken(word, max(0, min(SHADES, -int(-SHADES * strength // top))), place == peak)
        for place, (word, strength) in enumerate(zip(words, strengths, strict=True))
    ]


class _Contexts:
    """Cuts shaded windows out of the texts."""

    def __init__(self, texts: Sequence[Sequence[int]], words: Sequence[str]):
        self.texts, self.words = texts, words
        self.spans = [(start, start + len(text)) for start, text in zip(_starts(texts), texts, strict=True)]

    def span_of(self, at: int) -> tuple[int, int, int]:
        """The text of a token, and where the text begins and ends."""
        number = next(n for n, (start, stop) in enumerate(self.spans) if start <= at < stop)
        return number, *self.spans[number]

    def peaks(self, z_N: Tensor, count: int) -> list[int]:
        """The strongest tokens, at most one of a text."""
        best = [(float(z_N[start:stop].max()), start + int(z_N[start:stop].argmax())) for start, stop in self.spans]
        return [at for value, at in sorted(best, reverse=True) if value > 0][:count]

    def window(self, z_N: Tensor, at: int) -> list[ShadedToken]:
        """The tokens around a place."""
        _, start, stop = self.span_of(at)
        first, last = max(start, at - BEFORE), min(stop, at + AFTER + 1)
        return shaded(self.words[first:last], z_N[first:last].tolist(), float(z_N.max()), at - first)

    def bands(
        self, z_N: Tensor, top: Sequence[int], count: int, generator: torch.Generator
    ) -> dict[str, list[list[ShadedToken]]]:
        """Top contexts, some of the upper and lower half of firing tokens, and of random tokens."""
        firing = (z_N > 0).nonzero().flatten()
        middle = z_N[firing].median()
        groups = {
            "upper half": firing[z_N[firing] > middle], "lower half": firing[z_N[firing] <= middle],
            "random tokens": torch.arange(len(z_N)),
        }  # fmt: skip
        found = {"top": [self.window(z_N, at) for at in top]}
        for name, places in groups.items():
            drawn = places[torch.randperm(len(places), generator=generator)[: max(1, count // 2)]]
            found[name] = [self.window(z_N, at) for at in drawn.tolist()]
        return found


def _starts(texts: Sequence[Sequence[int]]) -> list[int]:
    starts = [0]
    for text in texts[:-1]:
        starts.append(starts[-1] + len(text))
    return starts


def _directions(model: Decoder, rows_FD: Tensor) -> Tensor:
    """The contribution of each direction to the logits, up to the scale of the final norm: F V."""
    weighted_FD = centred(model.norm, rows_FD) * norm_weight(model.norm)
    return weighted_FD @ model.lm_head.weight.float().T


def _extremes(logits_V: Tensor, tokenizer: Tokenizer, count: int = 8) -> tuple[list[str], list[str]]:
    count = min(count, len(logits_V))
    return tuple(  # type: ignore[return-value]
        [tokenizer.decode([id], skip_special=False) for id in (sign * logits_V).topk(count).indices.tolist()]
        for sign in (1, -1)
    )


def _ablation(
    saved: SavedSae, model: Decoder, reader: _Contexts, feature: int, peaks: Sequence[int], generator: torch.Generator
) -> tuple[Interval, Interval]:
    """The loss of up to five tokens from each peak on, with and without the feature at the peak, and its null."""
    sae, effects, nulls = saved.sae, [], []
    row_D = sae.decoder[feature]
    noise_D = torch.randn(row_D.shape, generator=generator)
    for at in peaks:
        number, start, stop = reader.span_of(at)
        first, last = max(start, at - 2 * BEFORE), min(stop, at + AFTER + 2)
        if last - at < 2:
            continue  # nothing follows the peak
        text = list(reader.texts[number][first - start : last - start])
        peak = at - first
        losses = [_later_loss(run_with_cache(model, text, ()).logits, text, peak)]
        for direction_D in (row_D, noise_D / noise_D.norm() * row_D.norm()):
            edit = _without(saved, feature, direction_D, peak)
            losses.append(_later_loss(run_with_edits(model, text, {saved.site: edit}), text, peak))
        effects.append(losses[1] - losses[0])
        nulls.append(losses[2] - losses[0])
    return unbounded_mean_interval(effects), unbounded_mean_interval(nulls)


def _without(saved: SavedSae, feature: int, direction_D: Tensor, peak: int) -> Tap:
    def edit(values: Tensor) -> Tensor:
        rows_ND = values.flatten(1).clone()
        strength = saved.sae.encode(rows_ND[peak : peak + 1].float())[0, feature]
        rows_ND[peak] -= (strength * direction_D).to(values.dtype)
        return rows_ND.reshape(values.shape)

    return edit


def _later_loss(logits_NV: Tensor, text: Sequence[int], peak: int) -> float:
    losses_N = functional.cross_entropy(logits_NV[:-1], torch.tensor(text[1:]), reduction="none")
    return float(losses_N[peak : peak + AFTER + 1].mean())
