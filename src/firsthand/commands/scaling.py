"""Fit scaling laws, plan a training run from one, or make points with a sweep of small models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from firsthand.config import refuse_given, share
from firsthand.errors import ConfigError, FirsthandError
from firsthand.message import Json
from firsthand.system.terminal import console, print_as_json, print_table

if TYPE_CHECKING:
    from firsthand.train.scaling.bootstrap_fit import Bootstrapped, Range
    from firsthand.train.scaling.scaling_points import ScalingPoints

EXAMPLES = """
firsthand scaling fit points.csv                          # columns: parameters, tokens or flops, loss
firsthand scaling plan points.csv --flops 1e18
firsthand scaling plan points.csv --hours 2               # on this machine, whose speed is measured
firsthand scaling plan points.csv --parameters 1e9 --tokens 2e10
firsthand scaling sweep points.csv --widths 8,16,32,64    # trains small models on a source with known entropy
"""
NAMES = {
    "e": "E", "a": "A", "b": "B", "alpha": "alpha", "beta": "beta", "nc": "Nc", "dc": "Dc", "alpha_n": "alpha_N",
    "alpha_d": "alpha_D", "parameters_exponent": "a of N_opt ~ C^a",
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """The action, and the points."""

    action: Literal["fit", "plan", "sweep"] = field(default="fit", metadata={"positional": True})
    """fit, plan or sweep"""
    points: str | None = field(default=None, metadata={"positional": True})
    """A CSV file with a row for each run: parameters, tokens or flops, loss. A sweep writes it."""
    law: Literal["chinchilla", "kaplan", "both"] = "both"
    """With fit: the form of the law."""
    drop: int = 0
    """Leave out this many points with the highest loss."""
    resamples: int = 200
    """Bootstrap draws."""
    confidence: str = "95%"
    """Confidence level of the intervals."""
    seed: int = 0
    """Seed of the bootstrap, or of a sweep."""
    flops: float | None = None
    """With plan: the training compute."""
    hours: float | None = None
    """With plan: hours on this machine, whose float32 matrix products are timed for a second."""
    utilisation: float = 0.6
    """With --hours: the share of that speed that training reaches."""
    parameters: float | None = None
    """With plan: predict the loss of this size, together with --tokens."""
    tokens: float | None = None
    """With plan: predict the loss of this length."""
    widths: tuple[str, ...] = ()
    """With sweep: hidden sizes, multiples of 8."""
    lengths: tuple[str, ...] = ()
    """With sweep: training tokens of each size's points."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.points is None:
            raise ConfigError(
                f"{self.action} needs a file of points, as in: firsthand scaling {self.action} points.csv"
            )
        asked = [self.flops is not None, self.hours is not None, self.parameters is not None]
        if (self.parameters is None) != (self.tokens is None):
            raise ConfigError("parameters and tokens go together: give both, or a compute by --flops or --hours")
        if (self.action == "plan") != (sum(asked) == 1):
            raise ConfigError(
                "plan takes one of --flops, --hours, or --parameters with --tokens; fit and sweep take none"
            )
        for name in ("flops", "hours", "parameters", "tokens"):
            if (value := getattr(self, name)) is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{name} is {value:g}: expected a number above 0")
        if not 0 < self.utilisation <= 1:
            raise ConfigError(f"utilisation is {self.utilisation:g}: expected a share above 0 and at most 1")
        if self.drop < 0 or self.resamples < 1:
            raise ConfigError(f"drop is {self.drop} and resamples {self.resamples}: expected 0 or more, and 1 or more")
        if self.action != "sweep" and (self.widths or self.lengths):
            raise ConfigError(f"widths and lengths are for a sweep, not for {self.action}")
        for name in ("widths", "lengths"):
            if not all(each.replace("_", "").isdecimal() for each in getattr(self, name)):
                raise ConfigError(f"{name} is {','.join(getattr(self, name))}: give whole numbers, such as 16,32,64")
        if not 0.5 <= share(self.confidence, "confidence") < 1:
            raise ConfigError(f"confidence is {self.confidence!r}: give a level from 50% to below 100%")


def main(config: Config) -> int:
    """Carry out the action."""
    assert config.points is not None
    refuse_unused(config)
    path = Path(config.points).expanduser()
    if config.action == "sweep":
        return sweep(config, path)
    from firsthand.train.scaling.scaling_points import read_points

    points = read_points(path)
    if config.drop:
        points = points.without_highest(config.drop)
    body = fits(config, points) if config.action == "fit" else plan(config, points)
    if config.json:
        print_as_json(body)
    return 0


def refuse_unused(config: Config) -> None:
    """ConfigError for flags that have no effect on the action."""
    if config.action != "fit":
        refuse_given(config, {"law"}, f"it is for fit, not for {config.action}")
    if config.action == "sweep":
        refuse_given(config, {"drop", "resamples", "confidence"}, "it is for a fit or plan, not for a sweep")
    if config.hours is None:
        refuse_given(config, {"utilisation"}, "it goes with --hours")


def fits(config: Config, points: ScalingPoints) -> Json:
    """Print each law with intervals, and the exponents of approaches 1 and 2 where the points allow them."""
    from firsthand.train.scaling.bootstrap_fit import bootstrap_chinchilla, bootstrap_kaplan
    from firsthand.train.scaling.compute_frontier import envelope_frontier, isoflop_frontier

    settings: dict[str, Any] = {
        "resamples": config.resamples, "confidence": share(config.confidence, "confidence"), "seed": config.seed
    }  # fmt: skip
    body: Json = {"points": len(points)}
    laws: dict[str, Bootstrapped[Any]] = {}
    if config.law in ("chinchilla", "both"):
        laws["chinchilla"] = bootstrap_chinchilla(points, **settings)
    if config.law in ("kaplan", "both"):
        laws["kaplan"] = bootstrap_kaplan(points, **settings)
    titles = {
        "chinchilla": "Chinchilla, approach 3: L = E + A / N^alpha + B / D^beta",
        "kaplan": "Kaplan: L = [(Nc / N)^(alpha_N / alpha_D) + Dc / D]^alpha_D",
    }
    for name, found in laws.items():
        ranges = found.parameters()
        body[name] = {
            "parameters": {key: _json(each) for key, each in ranges.items()},
            "objective": found.fit.objective,
            "r_squared": found.fit.r_squared,
            "max_error": found.fit.max_error,
        }
        if not config.json:
            rows = [[NAMES[key], _number(each.value), _bounds(each)] for key, each in ranges.items()]
            print_table(titles[name], ["", "estimate", f"{config.confidence} interval"], rows, right=("estimate",))
            console().print(
                f"{len(points)} points; R2 of log-losses {found.fit.r_squared:.4f}, largest error "
                f"{found.fit.max_error:.1%}, sum of Huber losses {found.fit.objective:.4g}",
                markup=False, soft_wrap=True,
            )  # fmt: skip
    for name, title, make in (
        ("envelope", "Approach 1 (envelope)", envelope_frontier),
        ("isoflop", "Approach 2 (IsoFLOP parabolas)", isoflop_frontier),
    ):
        try:
            frontier = make(points)
        except FirsthandError as error:
            body[name] = {"error": str(error)}
            line = f"{title}: {error}"
        else:
            body[name] = {
                "a": frontier.parameters_exponent,
                "b": frontier.tokens_exponent,
                "budgets": len(frontier.flops),
            }
            line = f"{title}: N_opt ~ C^{frontier.parameters_exponent:.3f}, D_opt ~ C^{frontier.tokens_exponent:.3f}"
            if name == "envelope":
                body[name]["missing_rivals"] = frontier.missing_rivals
            if frontier.missing_rivals:
                line += f"; at {frontier.missing_rivals:.0%} of the budgets the size next to the best has no curve"
        if not config.json:
            console().print(line, markup=False, soft_wrap=True)
    return body


def plan(config: Config, points: ScalingPoints) -> Json:
    """Print the compute-optimal run, or the loss of a given one."""
    from firsthand.train.scaling.bootstrap_fit import bootstrap_chinchilla
    from firsthand.train.scaling.compute_planner import compute_of, plan_training, predict_loss
    from firsthand.train.scaling.flop_counts import measured_flops_per_second

    level = share(config.confidence, "confidence")
    fitted = bootstrap_chinchilla(points, resamples=config.resamples, confidence=level, seed=config.seed)
    if config.parameters is not None and config.tokens is not None:
        loss = predict_loss(fitted, config.parameters, config.tokens)
        reach = 6 * config.parameters * config.tokens / float(points.flops.max())
        rows = [["loss", _number(loss.value), _bounds(loss)]]
        body: Json = {"loss": _json(loss), "extrapolates": reach}
    else:
        flops = config.flops
        if config.hours is not None:
            flops = compute_of(config.hours, measured_flops_per_second(), utilisation=config.utilisation)
        assert flops is not None
        made = plan_training(fitted, points, flops)
        reach = made.extrapolates
        ranges = {"parameters": made.parameters, "tokens": made.tokens, "loss": made.loss}
        rows = [[name, _number(each.value), _bounds(each)] for name, each in ranges.items()]
        body = {
            "flops": flops, **{name: _json(each) for name, each in ranges.items()},
            "tokens_per_parameter": made.tokens_per_parameter, "extrapolates": reach,
        }  # fmt: skip
    if not config.json:
        print_table("plan", ["", "estimate", f"{config.confidence} interval"], rows, right=("estimate",))
        compute = f"{body['flops']:.3g} FLOPs, " if "flops" in body else ""
        console().print(
            f"{compute}{reach:.3g} times the largest compute that was fitted"
            + ("; the interval is that of the fit, and beyond its points the law itself may not hold" if reach > 1 else ""),
            markup=False, soft_wrap=True,
        )  # fmt: skip
    return body


def sweep(config: Config, path: Path) -> int:
    """Train the sweep, write its points, and print the source's floor."""
    if path.exists():
        raise ConfigError(f"{path} is there already: give another file, or remove it")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {str(path)!r} does not exist: make it, or name another file")
    from firsthand.train.scaling.hidden_markov import random_source
    from firsthand.train.scaling.scaling_points import write_points
    from firsthand.train.scaling.scaling_sweep import run_sweep
    from firsthand.train.scaling.sweep_config import SweepConfig

    chosen = {
        name: tuple(map(int, each)) for name, each in (("widths", config.widths), ("tokens", config.lengths)) if each
    }
    settings = SweepConfig(**chosen, seed=config.seed)  # type: ignore[arg-type]

    def told(parameters: int, tokens: int, loss: float) -> None:
        if not config.json:
            console().print(f"{parameters:>10,} parameters  {tokens:>10,} tokens  loss {loss:.4f}", markup=False)

    source = random_source()
    found = run_sweep(source, settings, told=told)
    rate = source.entropy_rate(tokens=100_000, texts=128)
    write_points(found.points, path)
    if config.json:
        print_as_json({"points": len(found.points), "path": str(path), "floor": found.floor, "entropy_rate": rate.nats})
    else:
        console().print(
            f"{len(found.points)} points in {path}. No model can pass {found.floor:.4f} on these texts; the source's "
            f"entropy rate is {rate.nats:.3f} (standard error {rate.standard_error:.3f}).",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    return 0


def _json(each: Range) -> Json:
    return {"value": each.value, "low": each.low, "high": each.high}


def _number(value: float) -> str:
    return f"{value:.4g}"


def _bounds(each: Range) -> str:
    return f"{_number(each.low)} to {_number(each.high)}"
