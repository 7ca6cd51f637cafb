"""The features that a dashboard shows, as values and as a JSON file; reads without torch, and checks what it reads."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from firsthand.errors import ConfigError, ModelFileError, reason_of
from firsthand.formats.model_files import read_json
from firsthand.interp.rule_explanations import RuleExplanation
from firsthand.stats.intervals import Interval
from firsthand.system.new_file import write_new

FEATURES = "features.json"
MAX_BYTES = 64 << 20
SHADES = 9


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


@dataclass(frozen=True)
class SteeredText:
    """A continuation that was sampled with a direction added to every token."""

    strength: float
    """In multiples of the feature's maximum."""
    text: str


@dataclass(frozen=True)
class FeatureDashboard:
    """Features of one autoencoder, evenly spaced by density, on held-out texts."""

    latents: int
    tokens: int
    """Held-out tokens."""
    reports: list[FeatureReport]
    prompt: str = ""
    """The text that was continued while features were added."""
    steered: Mapping[int, Sequence[SteeredText]] = field(default_factory=dict)
    """Feature -> its continuations."""


def write_features(dashboard: FeatureDashboard, folder: Path) -> Path:
    """Writes the folder's file, all at once, and returns it."""
    target = folder / FEATURES
    try:
        write_new(target, json.dumps(asdict(dashboard), default=str))
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {reason_of(error)}") from None
    return target


def read_features(folder: Path) -> FeatureDashboard | None:
    """The features in a folder's file, None if it has none; ModelFileError for a file that is damaged."""
    path = folder / FEATURES
    if not path.exists():
        return None
    body = read_json(path, max_bytes=MAX_BYTES)
    try:
        steered = {
            int(index): [SteeredText(float(each["strength"]), _text(each["text"])) for each in texts]
            for index, texts in body["steered"].items()
        }
        reports = [_report(each) for each in body["reports"]]
        return FeatureDashboard(
            _whole(body["latents"]), _whole(body["tokens"]), reports, _text(body["prompt"]), steered
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{path} is damaged ({reason_of(error)}): gather the features again") from None


def _report(body: Any) -> FeatureReport:
    bands = {
        _text(name): [
            [ShadedToken(_text(t["text"]), _shade(t["shade"]), bool(t["is_peak"])) for t in c] for c in contexts
        ]
        for name, contexts in body["bands"].items()
    }
    if "top" not in bands or not bands["top"]:
        raise ValueError("a feature has no top contexts")
    if not any(body["histogram"]):
        raise ValueError("a feature fires nowhere")
    rule = body["rule"]
    return FeatureReport(
        _whole(body["index"]), _number(body["density"]), _number(body["maximum"]),
        tuple(map(_whole, body["histogram"])), bands, [*map(_text, body["promoted"])], [*map(_text, body["suppressed"])],
        [(_whole(index), _number(cosine)) for index, cosine in body["neighbours"]],
        RuleExplanation(_text(rule["rule"]), _number(rule["balanced_accuracy"]), _number(rule["null"])) if rule else None,
        _interval(body["ablation"]), _interval(body["ablation_null"]),
    )  # fmt: skip


def _interval(body: Any) -> Interval | None:
    if body is None:
        return None
    return Interval(
        float(body["value"]), float(body["low"]), float(body["high"]), _whole(body["n"]), _text(body["method"])
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text was expected, and {str(value)[:40]!r} came")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"a count was expected, and {str(value)[:40]!r} came")
    return value


def _shade(value: Any) -> int:
    if _whole(value) > SHADES:
        raise ValueError(f"shade {value} is above {SHADES}")
    return int(value)


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"a number was expected, and {str(value)[:40]!r} came")
    return float(value)
