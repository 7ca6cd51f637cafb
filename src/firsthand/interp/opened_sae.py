"""An autoencoder with its model loaded: gathers a dashboard, reports single features, and reads which fire on a text."""

# N tokens, A active features

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from firsthand.errors import ConfigError, DataError
from firsthand.interp.feature_files import FeatureDashboard, FeatureReport, ShadedToken
from firsthand.interp.feature_reports import FeatureSurvey, rows_of, shaded
from firsthand.interp.opened_model import open_for_interp
from firsthand.interp.saes.sae_files import read_sae
from firsthand.interp.saes.sae_run import SETTINGS, SaeRun, corpora, held_out_pieces, run_to_show, stored_run
from firsthand.interp.steered_texts import steered_texts

MAX_TOKENS = 256
MOST_FEATURES = 60


@dataclass(frozen=True)
class FiringFeature:
    """A feature that fires on a text."""

    index: int
    maximum: float
    """Its strength at its strongest token, or at the token that was asked for."""
    firing: int
    """Tokens on which it fires."""
    tokens: list[ShadedToken]
    """The text, shaded by this feature."""


@dataclass(frozen=True)
class TextReading:
    """The features that fire on a text."""

    words: list[str]
    counts: list[int]
    """Features that fire on each token; 0 for the first, which autoencoders are not trained on."""
    active: int
    """Features that fire anywhere, or at the token that was asked for."""
    features: list[FiringFeature]
    """The strongest of them, strongest first."""
    explained: float
    """Share of the variance of the later tokens' activations that the reconstruction explains; nan for a single one."""


class OpenedSae:
    """An autoencoder's folder and its model, opened. ModelFileError or ConfigError if they do not fit.

    `model` names the model where the folder names none that is here; `texts` are files and folders to show features on,
    by default those that the folder's run trained on, of which `pieces` held-out ones are taken. A run from elsewhere may
    name any file: its texts are read with `trust` alone, and ConfigError tells them when they are needed.
    """

    def __init__(
        self, folder: Path, model: str = "", *, texts: tuple[str, ...] = (), pieces: int = 64, shown: bool = True,
        trust: bool = False,
    ):  # fmt: skip
        self.folder = folder
        self.saved = read_sae(folder)
        if not (model or self.saved.model):
            raise ConfigError(f"{folder} does not say which model it is for: name it with --model")
        self._model, self._tokenizer, self.path = open_for_interp(model or self.saved.model, shown=shown)
        self.saved.expect_fits(self._model)
        self._texts, self._pieces, self._trust = texts, pieces, trust
        self._survey: FeatureSurvey | None = None
        self._tokens = 0

    def dashboard(
        self, *, count: int = 60, ablate: int = 4, steer: int = 6, prompt: str = "I went to the"
    ) -> FeatureDashboard:
        """The features of a page; `steer` of them, evenly spaced, with continuations of the prompt."""
        survey = self._surveyed()
        reports = survey.reports(survey.spaced(count), ablate=ablate)
        chosen = reports[:: max(1, len(reports) // steer)][:steer] if steer else []
        maxima = [(each.index, each.maximum) for each in chosen]
        written = steered_texts(self.saved, self._model, self._tokenizer, maxima, prompt) if maxima else []
        steered = {each.index: texts for each, texts in zip(chosen, written, strict=True)}
        return FeatureDashboard(self.saved.sae.d_sae, self._tokens, reports, prompt, steered)

    def report(self, index: int) -> FeatureReport:
        """One feature on the held-out texts; DataError if it does not fire on them."""
        return self._surveyed().reports([index])[0]

    @torch.no_grad()
    def read_text(self, text: str, at: int | None = None) -> TextReading:
        """The features that fire on the tokens of a text, or on token `at` of it, which is not the first."""
        ids = self._tokenizer.encode_prompt(text)
        if not 2 <= len(ids) <= MAX_TOKENS:
            raise DataError(f"the text has {len(ids)} tokens: give 2 to {MAX_TOKENS}, of which the first is not shown")
        if at is not None and not 1 <= at < len(ids):
            raise DataError(f"token {at} was asked for: give 1 to {len(ids) - 1}, the first being left out")
        rows_ND = rows_of(self._model, ids, self.saved.site)
        z_NM = self.saved.sae.encode(rows_ND)
        error_ND, later_ND = (rows_ND - self.saved.sae.decode(z_NM))[1:], rows_ND[1:]
        spread = float((later_ND - later_ND.mean(0)).square().sum())
        z_NM[0] = 0
        strength_M = z_NM.amax(0) if at is None else z_NM[at]
        active = int((strength_M > 0).sum())
        words = [self._tokenizer.decode([id], skip_special=False) for id in ids]
        features = []
        for index in strength_M.topk(min(active, MOST_FEATURES)).indices.tolist():
            z_N = z_NM[:, index]
            tokens = shaded(words, z_N.tolist(), float(z_N.max()), int(z_N.argmax()))
            features.append(FiringFeature(index, float(strength_M[index]), int((z_N > 0).sum()), tokens))
        counts = (z_NM > 0).sum(1).tolist()
        explained = 1 - float(error_ND.square().sum()) / spread if spread else math.nan
        return TextReading(words, counts, active, features, explained)

    def _surveyed(self) -> FeatureSurvey:
        if self._survey is None:
            texts = self._held_out()
            self._survey = FeatureSurvey(self.saved, self._model, self._tokenizer, texts)
            self._tokens = sum(map(len, texts))
        return self._survey

    def _held_out(self) -> Sequence[Sequence[int]]:
        has_run = (self.folder / SETTINGS).is_file()
        read = stored_run if self._texts or self._trust else run_to_show
        plan = read(self.folder) if has_run else SaeRun(str(self.path), self.saved.site)
        plan = replace(plan, texts=self._texts or plan.texts, held_out_texts=self._pieces, tokens=plan.batch)
        return held_out_pieces(plan, corpora(plan, self._tokenizer)[1])
