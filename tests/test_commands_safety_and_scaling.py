"""What `safety` and `scaling` print of given results, and the words they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.bridges.agentdojo import dojo_table
from firsthand.commands import safety, scaling
from firsthand.runs import store
from firsthand.safety import approval_burden
from firsthand.safety.approval_burden import ApprovalBurden
from firsthand.safety.guard_tally import GuardTally
from firsthand.system import terminal
from firsthand.train.scaling import bootstrap_fit, flop_counts
from firsthand.train.scaling.bootstrap_fit import Bootstrapped
from firsthand.train.scaling.laws import Chinchilla
from firsthand.train.scaling.scaling_points import ScalingPoints, write_points
from printed_tables import widen, words

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tables have all their columns side by side, and runs a home of their own."""
    widen(monkeypatch)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


# -- safety --


def test_guards_and_questions_in_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cli: Cli
) -> None:
    asked: list[Any] = []

    async def measured(rules: Any, attack: str, **options: Any) -> GuardTally:
        asked.append((rules, attack, options))
        return (
            GuardTally(8, 6, 1, ("t",), 3, 2, 0.25) if attack == "none" else GuardTally(16, 10, 2, ("t",), 5, 4, 1.26)
        )

    monkeypatch.setattr(dojo_table, "measured", measured)
    line = (
        "safety",
        "table",
        "--suite",
        "slack",
        "--attack",
        "direct",
        "--rules",
        "plan_lock,rule_of_two",
        "--human",
        "--drafts",
    )
    code, out, _ = cli(*line)
    assert code == 0 and words(out) == [
        "AgentDojo slack, direct, gullible agent", "guard benign asks utility under attack attack success CPU s",
        "plan_lock+rule_of_two 6/8 3 in 2 62.5% 2/16 = 12.5% 1.3",
    ]  # fmt: skip
    options = {"suite": "slack", "human": True, "drafts": True}
    assert asked == [(("plan_lock", "rule_of_two"), attack, options) for attack in ("none", "direct")]
    body = json.loads(cli(*line, "--json")[1])
    assert (
        body["plan_lock+rule_of_two"]["attacked"]["reached"] == 2
        and body["plan_lock+rule_of_two"]["benign"]["solved"] == 6
    )
    asked.clear()
    out = cli("safety", "table")[1]
    assert [line.split()[0] for line in words(out)[2:]] == list(dojo_table.ROWS) and asked[0] == (
        None, "none", {"suite": "all", "human": False, "drafts": False},
    )  # fmt: skip
    assert asked[1][1] == "important_instructions"
    burden = ApprovalBurden(9, 4, 7, 5, {"ada": 6, "nobody": 1}, {"plan_lock": 7}, 3)
    monkeypatch.setattr(approval_burden, "approval_burden", lambda traces: burden)
    with store.create(Path(terminal.os.environ["FIRSTHAND_HOME"]), {}, "r") as run:
        id = run.id
    code, out, _ = cli("safety", "burden", id)
    assert code == 0 and words(out) == [
        "questions before calls", "count", "attempts 9", "attempts with a question 4", "questions 7", "answered with yes 5",
        "most in one attempt 3", "answered by ada 6", "answered by nobody 1", "asked by plan_lock 7",
    ]  # fmt: skip
    assert json.loads(cli("safety", "burden", id, "--json")[1])["by"] == {"ada": 6, "nobody": 1}
    for given, told in (
        ("table x.toml", "safety table takes no agent"),
        ("burden", "name the run: firsthand safety burden last"),
        ("explain", "name the agent's file"),
        ("label last", "needs a model that compares"),
        ("office --tasks 0", "tasks is 0"),
        ("office --tasks 10001", "tasks is 10001"),
        ("table --rules nope", "nope"),
        ("office --rules nope --tasks 0", "nope"),
    ):
        code, _, err = cli("safety", *given.split())
        assert code in (1, 2) and told in err, err
    assert safety.Config().action == "explain"


# -- scaling --


def test_a_plan_from_a_law_names_its_compute_and_how_far_it_reaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    laws = [Chinchilla(e=1.0, a=a, b=900.0, alpha=0.5, beta=0.5) for a in (300.0, 400.0, 500.0)]
    given: list[Any] = []

    def fitted(points: ScalingPoints, **options: Any) -> Any:
        given.append((len(points), options))
        return Bootstrapped(SimpleNamespace(law=laws[1]), tuple(laws), options["confidence"])  # type: ignore[arg-type]

    monkeypatch.setattr(bootstrap_fit, "bootstrap_chinchilla", fitted)
    monkeypatch.setattr(flop_counts, "measured_flops_per_second", lambda: 1e12)
    points = ScalingPoints(np.array([8e6, 2e6, 1e6, 4e6]), np.array([1e8] * 4), np.array([8.0, 2.5, 3.0, 9.0]))
    write_points(points, path := tmp_path / "p.csv")
    most = 6 * 2e6 * 1e8
    line = ("scaling", "plan", str(path), "--drop", "2", "--confidence", "90%", "--resamples", "7", "--seed", "3")
    code, out, _ = cli(*line, "--parameters", "4e6", "--tokens", "1e8")
    low, loss, high = (1 + a / 4e6**0.5 + 900 / 1e8**0.5 for a in np.quantile([300, 400, 500], (0.05, 0.5, 0.95)))
    assert code == 0 and words(out) == [
        "plan",
        "estimate 90% interval",
        f"loss {loss:.4g} {low:.4g} to {high:.4g}",
        "2 times the largest compute that was fitted; the interval is that of the fit, and beyond its points "
        "the law itself may not hold",
    ]
    assert given[0] == (2, {"resamples": 7, "confidence": 0.9, "seed": 3})
    body = json.loads(cli(*line, "--flops", str(most / 2), "--json")[1])
    optimum = laws[1].optimum(most / 2)
    assert (
        body["flops"] == most / 2
        and body["extrapolates"] == pytest.approx(0.5)
        and body["loss"]["value"] == optimum.loss
    )
    assert (
        body["parameters"]["value"] == optimum.parameters
        and body["tokens_per_parameter"] == optimum.tokens / optimum.parameters
    )
    code, out, _ = cli(*line, "--hours", "2", "--utilisation", "0.5")
    assert (
        words(out)[-1]
        == f"3.6e+15 FLOPs, {3.6e15 / most:.3g} times the largest compute that was fitted; the interval is that of the "
        "fit, and beyond its points the law itself may not hold"
    )
    best = laws[1].optimum(3.6e15)
    assert [row.split()[:2] for row in words(out)[2:5]] == [
        [name, f"{getattr(best, name):.4g}"] for name in ("parameters", "tokens", "loss")
    ]
    assert (
        words(cli(*line, "--flops", str(most))[1])[-1]
        == f"{most:.3g} FLOPs, 1 times the largest compute that was fitted"
    )
    for words_, told in (
        ("plan p.csv", "plan takes one of"),
        ("fit p.csv --flops 1", "fit and sweep take none"),
        ("plan p.csv --flops 1 --hours 1", "takes one"),
        ("plan p.csv --parameters 1", "parameters and tokens go together"),
        ("plan p.csv --parameters 0", "parameters and tokens go together"),
        ("plan p.csv --tokens 0 --flops 1", "parameters and tokens go together"),
        ("plan p.csv --flops 0", "flops is 0"),
        ("fit", "fit needs a file"),
        ("plan p.csv --hours 1 --utilisation 0", "utilisation is 0"),
        ("plan p.csv --hours 1 --utilisation 1.1", "utilisation is 1.1"),
        ("fit p.csv --drop=-1", "drop is -1"),
        ("fit p.csv --resamples 0", "resamples 0"),
        ("fit p.csv --widths 8", "are for a sweep"),
        ("sweep p.csv --widths 8,x", "give whole numbers"),
        ("fit p.csv --confidence 49%", "from 50% to below 100%"),
    ):
        code, _, err = cli("scaling", *words_.split())
        assert code == 2 and told in err, (words_, err)
    code, _, err = cli("scaling", "sweep", str(path))
    assert code == 2 and "is there already: give another file" in err
    code, _, err = cli("scaling", "sweep", str(tmp_path))
    assert (code, err) == (2, f"firsthand: {tmp_path} is there already: give another file, or remove it\n"), (
        "a folder too"
    )
    code, _, err = cli("scaling", "sweep", f"{path}/s.csv")
    assert code == 2 and f"the folder of '{path}/s.csv' does not exist: make it, or name another file" in err
    assert scaling._number(12345.678) == "1.235e+04"
