"""Gathers what a dashboard shows of each feature: density, contexts, logits, neighbours, a rule, ablation effect."""

# N tokens, M latents, F shown features, D hidden, V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from firsthand.errors import DataError
from firsthand.interp.activations import read_activations, run_with_cache, run_with_edits
from firsthand.interp.rule_explanations import RuleExplanation, explain
from firsthand.interp.saes.sae_files import SavedSae
from firsthand.nn.blocks.norm import RMSNorm
from firsthand.nn.decoder import Decoder
from firsthand.nn.sites import Tap
from firsthand.stats.intervals import Interval, mean_interval
from firsthand.tokens.tokenizer import Tokenizer

SHADES = 9
BEFORE, AFTER = 12, 4
"""Tokens of a context on both sides of its peak."""


@dataclass(frozen=True)
class ShadedToken:
    """A token of a context and its shade, 0 (silent) to 9 (the feature's maximum)."""

    text: str
    shade: int
    is_peak: bool


@dataclass(frozen=True)
class FeatureReport:
    """One feature."""

    index: int
    density: float
    """Share of tokens on which it fires."""
    maximum: float
    histogram: tuple[int, ...]
    """Firing tokens in ten equal parts of 0 to the maximum."""
    bands: dict[str, list[list[ShadedToken]]]
    """Contexts by strength: top, the two halves of the other firing tokens, and random tokens."""
    promoted: list[str]
    suppressed: list[str]
    """Tokens whose logits its direction raises and lowers most."""
    neighbours: list[tuple[int, float]]
    """Other features by the cosine of decoder rows."""
    rule: RuleExplanation | None
    ablation: Interval | None
    """Change of the loss of the tokens from its peaks on if its contribution is taken away, nats; one value a context."""
    ablation_null: Interval | None
    """The same if a random direction of equal length is taken away."""


@torch.no_grad()
def feature_reports(
    saved: SavedSae, model: Decoder, tokenizer: Tokenizer, texts: Sequence[Sequence[int]], *, count: int = 60,
    contexts: int = 6, ablate: int = 4, seed: int = 0,
) -> list[FeatureReport]:  # fmt: skip
    """Reports on `count` features, evenly spaced by density, densest first. DataError if none fires on the texts."""
    saved.expect_fits(model)
    sae = saved.sae
    rows_ND = torch.cat([_rows(model, text, saved.site) for text in texts])
    is_first_N = torch.cat([torch.arange(len(text)) == 0 for text in texts])
    density_M = torch.zeros(sae.d_sae)
    for part_ND, first_N in zip(torch.split(rows_ND, 4096), torch.split(is_first_N, 4096), strict=True):
        density_M += ((sae.encode(part_ND) > 0) & ~first_N[:, None]).sum(0)
    density_M /= int((~is_first_N).sum())
    alive = density_M.nonzero().flatten()
    if not len(alive):
        raise DataError(f"no latent fires on {len(rows_ND)} tokens: the dictionary is dead here, or for other text")
    ordered = alive[density_M[alive].argsort(descending=True)]
    places = torch.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().long()
    shown = ordered[sorted(set(places.tolist()))]
    z_NF = torch.cat([sae.encode(part)[:, shown] for part in torch.split(rows_ND, 4096)]) * ~is_first_N[:, None]
    unit_MD = functional.normalize(sae.decoder, dim=1)
    words = [tokenizer.decode([id], skip_special=False) for text in texts for id in text]
    reader = _Contexts(texts, words)
    generator = torch.Generator().manual_seed(seed)
    logits_FV = (
        _directions(model, sae.decoder[shown]) if saved.site.endswith(("resid.post", ".out", "resid.mid")) else None
    )
    reports = []
    for place, feature in enumerate(shown.tolist()):
        z_N = z_NF[:, place]
        cosines_M = unit_MD @ unit_MD[feature]
        cosines_M[feature] = -2.0
        near = cosines_M.topk(min(3, sae.d_sae - 1))
        top = reader.peaks(z_N, contexts)
        said = ([], []) if logits_FV is None else _extremes(logits_FV[place], tokenizer)
        effect = null = None
        if ablate:
            effect, null = _ablation(saved, model, reader, feature, top[:ablate], generator)
        fired_F = z_N[z_N > 0]
        reports.append(
            FeatureReport(
                feature, float(density_M[feature]), float(z_N.max()),
                tuple(int(c) for c in torch.histc(fired_F, 10, 0, float(z_N.max())).tolist()),
                reader.bands(z_N, top, contexts, generator), *said,
                list(zip(near.indices.tolist(), near.values.tolist(), strict=True)),
                explain(words, (z_N > 0).tolist(), seed=seed), effect, null,
            )
        )  # fmt: skip
    return reports


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
        top = max(float(z_N.max()), 1e-30)
        return [
            ShadedToken(self.words[i], min(SHADES, -int(-SHADES * float(z_N[i]) // top)), i == at)
            for i in range(max(start, at - BEFORE), min(stop, at + AFTER + 1))
        ]

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


def _rows(model: Decoder, text: Sequence[int], site: str) -> Tensor:
    return read_activations(model, text, site)[site].flatten(1).float()


def _starts(texts: Sequence[Sequence[int]]) -> list[int]:
    starts = [0]
    for text in texts[:-1]:
        starts.append(starts[-1] + len(text))
    return starts


def _directions(model: Decoder, rows_FD: Tensor) -> Tensor:
    """The contribution of each direction to the logits, up to the scale of the final norm: F V."""
    norm = model.norm
    weight_D = norm.weight.float() if norm.weight is not None else torch.ones(rows_FD.shape[1])
    if isinstance(norm, RMSNorm) and norm.unit_offset:
        weight_D = 1 + weight_D
    return (rows_FD * weight_D) @ model.lm_head.weight.float().T


def _extremes(logits_V: Tensor, tokenizer: Tokenizer, count: int = 8) -> tuple[list[str], list[str]]:
    count = min(count, len(logits_V))
    return tuple(  # type: ignore[return-value]
        [tokenizer.decode([id], skip_special=False) for id in (sign * logits_V).topk(count).indices.tolist()]
        for sign in (1, -1)
    )


def _ablation(
    saved: SavedSae, model: Decoder, reader: _Contexts, feature: int, peaks: Sequence[int], generator: torch.Generator
) -> tuple[Interval, Interval]:
    """The loss of up to five tokens from each peak on, with the feature taken away less without, and its null."""
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
            edit = _without(saved, feature, direction_D)
            losses.append(_later_loss(run_with_edits(model, text, {saved.site: edit}), text, peak))
        effects.append(losses[1] - losses[0])
        nulls.append(losses[2] - losses[0])
    return mean_interval(effects), mean_interval(nulls)


def _without(saved: SavedSae, feature: int, direction_D: Tensor) -> Tap:
    def edit(values: Tensor) -> Tensor:
        rows_ND = values.flatten(1)
        strength_N = saved.sae.encode(rows_ND.float())[:, feature]
        return (rows_ND - strength_N[:, None] * direction_D).reshape(values.shape).to(values.dtype)

    return edit


def _later_loss(logits_NV: Tensor, text: Sequence[int], peak: int) -> float:
    losses_N = functional.cross_entropy(logits_NV[:-1], torch.tensor(text[1:]), reduction="none")
    return float(losses_N[peak : peak + AFTER + 1].mean())
