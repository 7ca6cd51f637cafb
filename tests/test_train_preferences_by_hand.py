"""Preference training in rehearsal: comparisons, references, KTO's baseline, reward models, and what is told of them."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import tiny
from firsthand.errors import ConfigError, DataError, ModelFileError
from firsthand.nn import weights
from firsthand.nn.lora import LoRALinear
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.adapters.lora_training import with_adapter
from firsthand.train.adapters.save_adapter import save_adapter
from firsthand.train.bits_per_byte import mean_loss
from firsthand.train.data_order import StreamBatches, split
from firsthand.train.episodes import Episode, Graded
from firsthand.train.objective import Comparisons, Objective
from firsthand.train.preference_data import prompt_of, read_comparisons
from firsthand.train.preference_settings import PreferenceSettings
from firsthand.train.preference_training import (
    KtoBatches,
    PairNumbers,
    WatchedPairLoss,
    _is_evaluated,
    in_pairs,
    opened,
    ordered_right,
    with_references,
)
from firsthand.train.recipes import dpo, reward
from firsthand.train.reference_policy import ReferencePolicy
from firsthand.train.reward_scores import RewardModel
from firsthand.train.stream_logprobs import stream_logprobs
from firsthand.train.streams import Stream
from train_rehearsal import Rehearsal, rehearsed, write_lines
from train_tiny import model

torch.set_num_threads(1)
PAIRS = [{"prompt": f"say {n}", "chosen": "12" + "!" * n, "rejected": "no" * (n + 1)} for n in range(5)]
UNDECIDED = {
    "instruction": "p", "completions": [{"response": "a", "overall_score": 3.0}, {"response": "b", "overall_score": 3.0}]
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    write_lines(place / "pairs.jsonl", PAIRS)
    return tiny.write_model(place / "tiny", max_position=60)


def numbers(logprob: Any, reference: Any, label: Any = (1, -1, -1, 1), pair: Any = (3, 3, 8, 8)) -> Comparisons:
    length = torch.tensor([2.0, 4.0, 5.0, 8.0])
    return Comparisons(
        torch.tensor(pair), torch.tensor(label), torch.tensor(logprob), torch.tensor(reference), length, None
    )


def read(folder: Path, path: Path, **settings: Any) -> Any:
    tokenizer = pretrained.load(folder)
    chat = ChatTemplate(tokenizer, tokenizer.chat_template)
    return read_comparisons(path, tokenizer, chat, **{"context": 60, **settings})


def ids_of(examples: Any) -> list[list[list[int]]]:
    return [[each.ids.tolist() for each in example] for example in examples]


def test_what_a_pair_loss_saw_is_told_since_it_was_last_asked() -> None:
    watched = WatchedPairLoss(lambda pairs: pairs.chosen - 2 * pairs.rejected + pairs.chosen_length)
    loss = watched(numbers([-1.0, -2.0, -7.0, -4.0], [-3.0, -1.0, -9.0, -5.0]))
    assert loss.tolist() == [-1 + 4 + 2, -4 + 14 + 8]
    assert watched.metrics(1) == pytest.approx(
        {
            "chosen_log_ratio": (2 + 1) / 2,
            "rejected_log_ratio": (-1 + 2) / 2,
            "pair_accuracy": 0.5,
            "chosen_logprob": -2.5,
        }
    )
    assert watched.metrics(2) == {}, "nothing came since"
    watched(numbers([-1.0, -2.0, -3.0, -4.0], [-1.0, -2.0, -3.0, -4.0]))
    assert watched.metrics(3)["pair_accuracy"] == 0.0, "equal ratios are in no order"
    watched(numbers([-1.0, -2.0, -3.0, -4.0], [-2.0, -2.0, -3.0, -4.0]))
    watched(numbers([1.0] * 4, [0.0, 2.0, 0.0, 4.0]))
    assert watched.metrics(4) == pytest.approx({
        "chosen_log_ratio": (1 + 0 + 1 - 3) / 4, "rejected_log_ratio": (0 + 0 - 1 + 1) / 4, "pair_accuracy": 0.5,
        "chosen_logprob": (-1 - 4 + 1 + 1) / 4,
    })  # fmt: skip


def test_pairs_of_a_loss_without_reference_are_in_order_by_their_means() -> None:
    found = numbers([-6.0, -3.0, -5.0, -4.0], [0.0] * 4, label=(-1, 1, -1, 1))
    watched = WatchedPairLoss(lambda pairs: pairs.chosen, lambda pairs: pairs.means, has_reference=False)
    assert watched(found).tolist() == [-3.0, -4.0]
    assert watched.metrics(1) == pytest.approx({
        "chosen_mean_logprob": (-3 / 4 - 4 / 8) / 2, "rejected_mean_logprob": (-6 / 2 - 5 / 5) / 2, "pair_accuracy": 1.0,
        "chosen_logprob": -3.5,
    })  # fmt: skip
    long = numbers([-6.0, -3.0, -5.0, -12.0], [0.0] * 4, label=(1, -1, -1, 1))
    by_sums, by_means = (
        WatchedPairLoss(lambda pairs: pairs.chosen, each, has_reference=False)
        for each in (lambda pairs: pairs.ratios, lambda pairs: pairs.means)
    )
    for watched in (by_sums, by_means):
        watched(long)
        watched(numbers([-3.0, -4.0, -5.0, -6.0], [0.0] * 4, label=(-1, 1, -1, 1)))
    assert (by_sums.metrics(1)["pair_accuracy"], by_means.metrics(1)["pair_accuracy"]) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("recipe", "settings", "compared"),
    [("dpo", {}, "ratios"), ("ipo", {}, "ratios"), ("ipo", {"per_token": True}, "mean_ratios"), ("simpo", {}, "means"),
     ("orpo", {}, "means")],
)  # fmt: skip
def test_each_recipe_tells_the_order_of_what_its_loss_compares(
    recipe: str, settings: Any, compared: str, folder: Path, tmp_path: Path
) -> None:
    given = {"data": str(folder.parent / "pairs.jsonl"), "model": str(folder), "batch_size": 3, "holdout": 0.4}
    _, run, _ = rehearsed(recipe, tmp_path, **given, **settings)
    watched, evaluate = run.told["objective"].pair_loss, run.told["evaluate"]
    pairs = PairNumbers(*(torch.tensor(each) for each in (
        [-1.0, -6.0], [-2.0, -3.0], [-1.5, -5.0], [-2.25, -4.5], [2.0, 4.0], [5.0, 3.0])))  # fmt: skip
    assert [each.tolist() for each in watched.rewards(pairs)] == [each.tolist() for each in getattr(pairs, compared)]
    assert watched.has_reference is (recipe in ("dpo", "ipo"))
    assert evaluate(1) == {} and {*evaluate(50)} == {*evaluate(500)} == {"held_out_loss", "held_out_pair_accuracy"}
    seen = WatchedPairLoss(watched.loss, watched.rewards, has_reference=watched.has_reference)
    trained = {each.ids.tobytes() for example in run.told["batches"].examples for each in example}
    _, _, _, held_out = opened(run, rehearsed(recipe, tmp_path, **given, **settings)[0], "pair")
    unseen = [each for example in held_out for each in example]
    assert len(unseen) == 4 and not trained & {each.ids.tobytes() for each in unseen}
    if not watched.has_reference:
        expected = mean_loss(run.told["model"], unseen, Objective(pair=1.0, pair_loss=seen))
        assert evaluate(500)["held_out_loss"] == pytest.approx(expected, rel=1e-5)
        assert evaluate(500)["held_out_pair_accuracy"] == seen.metrics(1)["pair_accuracy"]
    else:  # the model is its own reference
        assert evaluate(500)["held_out_loss"] == pytest.approx({"dpo": math.log(2), "ipo": 25.0}[recipe], rel=1e-3)


def test_kto_tells_the_loss_of_the_answers_that_are_held_out(folder: Path, tmp_path: Path) -> None:
    given = {"data": str(folder.parent / "pairs.jsonl"), "model": str(folder), "batch_size": 4, "holdout": 0.4}
    _, run, _ = rehearsed("kto", tmp_path, **given)
    evaluate, batches = run.told["evaluate"], run.told["batches"]
    assert evaluate(1) == {"kto_baseline": 0.0} and len(batches.batches.examples) == 6
    assert evaluate(500)["held_out_loss"] == pytest.approx(0.5, abs=1e-3), "the model is its own reference"
    with torch.no_grad():
        run.told["model"].embed.weight.mul_(1.5)
    found = evaluate(500)["held_out_loss"]
    assert abs(found - 0.5) > 1e-3 and batches.baseline == 0.0
    as_it_is, asked = batches.raised, list[int]()

    def with_another_baseline(rows: list[Stream]) -> tuple[list[Stream], float]:
        asked.append(len(rows))
        streams, baseline = as_it_is(rows)
        return [replace(each, reference=np.asarray(each.reference) + 1) for each in streams], baseline + 1

    batches.raised = with_another_baseline
    assert abs(evaluate(500)["held_out_loss"] - found) > 1e-3 and asked == [4], "z0 of the held-out answers counts"


def test_held_out_comparisons_are_evaluated_about_ten_times() -> None:
    at = {steps: [step for step in range(1, steps + 1) if _is_evaluated(step, steps)] for steps in (3, 19, 25, 100)}
    assert at == {3: [1, 2, 3], 19: [*range(1, 20)], 25: [*range(2, 25, 2), 25], 100: [*range(10, 101, 10)]}


def test_pairs_have_their_numbers_side_by_side_and_each_its_two_answers() -> None:
    pairs = in_pairs(numbers([-1.0, -2.0, -7.0, -4.0], [-3.0, -1.0, -9.0, -5.0], pair=(8, 8, 3, 3)))
    assert [each.tolist() for each in pairs] == [[-4, -1], [-7, -2], [-5, -3], [-9, -1], [8, 2], [5, 4]]
    assert [each.tolist() for each in pairs.ratios] == [[1, 2], [2, -1]]
    assert [each.tolist() for each in pairs.means] == [[-0.5, -0.5], [pytest.approx(-1.4), -0.5]]
    assert [each.tolist() for each in pairs.mean_ratios] == [[1 / 8, 1.0], [pytest.approx(0.4), -0.25]]
    for label, pair in (((1, -1, -1, 1), (3, 3, 3, 8)), ((1, 1, -1, 1), (3, 8, 3, 8)), ((1, -1, -1, -1), (3, 3, 8, 8))):
        with pytest.raises(DataError) as refused:
            in_pairs(numbers([0.0] * 4, [0.0] * 4, label, pair))
        assert str(refused.value) == (
            "a comparison has not one chosen and one rejected answer: give lines with `chosen` and `rejected`"
        )


@pytest.mark.slow
def test_opened_comparisons_are_counted_and_divided(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_lines(tmp_path / "p.jsonl", [*PAIRS, {**PAIRS[0], "rejected": "x" * 70}, UNDECIDED, UNDECIDED])
    config = dpo.Config(str(data), comparisons=PreferenceSettings(str(folder), holdout=0.4))
    run = Rehearsal(tmp_path / "run", config.loop.__class__(seed=3))
    found = opened(run, config, "pair", "ranking", "single")
    assert capsys.readouterr().out == (
        "5 comparisons; 1 longer than the context, or alike within it, and left out; 2 without a preference and left out; "
        "2 held out\n"
    )
    every = read(folder, data).comparisons
    trained, held_out = split(every, 0.4, seed=3, key=id)
    assert ids_of(found.examples) == ids_of(trained) and ids_of(found.held_out) == ids_of(held_out)
    assert (found.path, len(held_out), found.model.architecture.max_position) == (folder, 2, 60)
    opened(
        run,
        dpo.Config(str(folder.parent / "pairs.jsonl"), comparisons=PreferenceSettings(str(folder))),
        "pair",
        "single",
    )
    assert capsys.readouterr().out == "5 comparisons\n"
    only = write_lines(tmp_path / "only.jsonl", [*PAIRS, UNDECIDED])
    opened(run, dpo.Config(str(only), comparisons=PreferenceSettings(str(folder))), "pair", "single")
    assert capsys.readouterr().out == "5 comparisons; 1 without a preference and left out\n"
    cut = dpo.Config(str(data), comparisons=PreferenceSettings(str(folder), too_long="cut"))
    assert [max(map(len, each)) for each in opened(run, cut, "pair").examples][-1] == 60
    with pytest.raises(ConfigError) as refused:
        opened(run, dpo.Config(), "pair")
    assert str(refused.value) == (
        "give a JSONL file of comparisons, as in `firsthand train dpo pairs.jsonl --model MODEL`"
    )


def test_every_pair_recipe_has_its_loss_and_its_reference_only_if_it_needs_one(folder: Path, tmp_path: Path) -> None:
    from firsthand.train.losses import pair_losses

    given = {"data": str(folder.parent / "pairs.jsonl"), "model": str(folder), "batch_size": 3, "seed": 2}
    pairs = PairNumbers(*(torch.tensor(each) for each in (
        [-1.0, -6.0], [-2.0, -3.0], [-1.5, -5.0], [-2.25, -4.5], [2.0, 4.0], [5.0, 3.0])))  # fmt: skip
    (chosen, rejected), (mean, other) = pairs.ratios, pairs.means
    expected = {
        "dpo": ({"beta": 0.3, "label_smoothing": 0.2},
                pair_losses.dpo_loss(chosen, rejected, beta=0.3, label_smoothing=0.2), True),
        "ipo": ({}, None, True), "orpo": ({}, None, False), "simpo": ({}, None, False),
    }  # fmt: skip
    assert not torch.equal(mean, other)
    for recipe, (settings, loss, has_reference) in expected.items():
        config, run, returned = rehearsed(recipe, tmp_path, **given, **settings)
        batches, objective = run.told.pop("batches"), run.told.pop("objective")
        trained, evaluate = run.told.pop("model"), run.told.pop("evaluate")
        assert run.told == {"optimizer": config.optimizer, "schedule": config.schedule}
        assert isinstance(batches, StreamBatches) and (batches.batch_size, batches.seed) == (3, 2)
        watched = objective.pair_loss
        assert isinstance(watched, WatchedPairLoss) and evaluate(500) == {} and objective.pair == 1.0
        watched(numbers([-1.0, -2.0, -7.0, -4.0], [-3.0, -1.0, -9.0, -5.0]))
        assert "pair_accuracy" in evaluate(1) and watched.metrics(1) == {}
        assert (objective.ce, objective.pg, objective.ref_kl) == (0.0, 0.0, 0.0)
        if loss is not None:
            assert torch.allclose(watched.loss(pairs), loss)
        assert {each.reference is not None for example in batches.examples for each in example} == {has_reference}
        assert run.saved.pop("tokenizer").fingerprint == pretrained.load(folder).fingerprint
        assert run.saved == {"model": trained, "base": folder, "adapter": config.adapter, "named": str(folder)}
        assert returned == tmp_path / "model" and len(batches.examples) == 5


def test_references_are_the_logprobs_of_the_model_as_it_is() -> None:
    decoder = model()
    good, bad = (
        Stream([3, 14, 15], ce=[0, 1, 1], pair=0, label=1.0, source="a"),
        Stream([9, 26], ce=[0, 1], pair=0, label=-1.0),
    )
    examples = [[good, bad], [Stream([5, 35, 8, 9], ce=[0, 0, 0, 2], pair=4, label=1.0)]]
    for micro_tokens in (3, 4096):
        found = with_references(decoder, examples, micro_tokens)
        assert [len(each) for each in found] == [2, 1] and found[0][0].source == "a" and found[1][0].pair == 4
        for example, own in zip(found, examples, strict=True):
            for each, plain in zip(example, own, strict=True):
                logprobs = stream_logprobs(decoder, [plain])[0].logprobs
                assert each.reference.tolist() == pytest.approx(logprobs.tolist(), abs=1e-5)
                assert each.reference.dtype == np.float32 and each.ids.tolist() == plain.ids.tolist()
    half = with_references(decoder, examples, 4096, torch.bfloat16)[0][0].reference
    assert 0 < np.abs(half - found[0][0].reference).max() < 0.5


def test_ktos_baseline_is_the_mean_kl_of_mismatched_answers_and_never_below_0() -> None:
    before, now = model(), model()
    with torch.no_grad():
        for weight in now.layers.parameters():
            weight.mul_(1.3)
    streams = [Stream([3, 14, 15], ce=[0, 1, 1], reference=[0, -1, -2], pair=0, label=1.0),
               Stream([9, 26, 5], ce=[0, 0, 0.5], reference=[0, -3, -4], pair=0, label=-1.0),
               Stream([35, 8], ce=[0, 2], reference=[0, -5], pair=0, label=1.0)]  # fmt: skip

    def mean(policy: Any, reference: Any) -> float:
        rows = [([3, 5], [0, 0.5]), ([9, 26, 8], [0, 0, 2]), ([35, 14, 15], [0, 1, 1])]
        found = []
        for ids, ce in rows:
            both = [stream_logprobs(each, [np.array(ids, np.int32)])[0].logprobs for each in (policy, reference)]
            found.append(float(((both[0] - both[1]) * np.array(ce)).sum()))
        return float(np.mean(found))

    signs = []
    for policy, reference in ((now, before), (before, now)):
        inner = StreamBatches([[each] for each in streams], 3)
        inner.__class__ = type("InOrder", (StreamBatches,), {"__iter__": lambda self: iter([list(streams)])})
        batches = KtoBatches(inner, policy, ReferencePolicy(reference), 4096)
        (rows,) = list(batches)
        expected = mean(policy, reference)
        signs.append(expected > 0)
        assert batches.baseline == pytest.approx(max(0.0, expected), abs=1e-5)
        z = batches.baseline
        assert [each.reference.tolist() for each in rows] == [
            pytest.approx([0, -1, -2 + z]), pytest.approx([0, -3, -4 + 2 * z]), pytest.approx([0, -5 + z / 2])
        ]  # fmt: skip
        assert [each.reference.tolist() for each in streams] == [[0, -1, -2], [0, -3, -4], [0, -5]]
    assert signs[0] != signs[1]
    inner.__class__ = type("InOrder", (StreamBatches,), {"__iter__": lambda self: iter([[streams[0], streams[0]]])})
    ((row, _),) = list(batches)
    assert batches.baseline == 0.0 and row.reference.tolist() == [0, -1, -2], "one prompt alone"
    assert batches.state() == {"drawn": 0, "data": inner._digest, "targets": inner._targets}
    batches.load({"drawn": 2, "data": inner._digest})
    assert inner.drawn == 2


def test_the_comparisons_of_a_prompt_are_held_out_together(folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"say {n // 4}", "chosen": "1" * (n + 1), "rejected": "no"} for n in range(20)]
    config = dpo.Config(
        str(write_lines(tmp_path / "p.jsonl", rows)), comparisons=PreferenceSettings(str(folder), holdout=0.25)
    )
    found = opened(Rehearsal(tmp_path / "run", config.loop), config, "pair", "single")
    kept, held = ({prompt_of(each[0]) for each in part} for part in (found.examples, found.held_out))
    assert len(found.held_out) == 4 and len(held) == 1 and not kept & held


@pytest.mark.slow
def test_kto_takes_pairs_apart_and_tells_its_baseline(folder: Path, tmp_path: Path) -> None:
    given = {"data": str(folder.parent / "pairs.jsonl"), "model": str(folder), "batch_size": 3, "seed": 2, "beta": 0.5,
             "desirable_weight": 2.0, "undesirable_weight": 3.0}  # fmt: skip
    config, run, returned = rehearsed("kto", tmp_path, **given)
    batches, objective, evaluate = (run.told.pop(name) for name in ("batches", "objective", "evaluate"))
    every = [[each] for example in read(folder, folder.parent / "pairs.jsonl").comparisons for each in example]
    assert ids_of(batches.batches.examples) == ids_of(every) and len(every) == 10
    assert [example[0].label for example in batches.batches.examples] == [1.0, -1.0] * 5
    plain = weights.load(folder)
    for (each,) in batches.batches.examples:
        assert each.reference.tolist() == pytest.approx(stream_logprobs(plain, [each])[0].logprobs.tolist(), abs=1e-5)
    assert (batches.batches.batch_size, batches.batches.seed, batches.model) == (3, 2, run.told["model"])
    batches.baseline = 0.75
    assert evaluate(9) == {"kto_baseline": 0.75} and objective.pair == 1.0
    found = objective.pair_loss(numbers([-1.0, -2.0, -7.0, -4.0], [-3.0, -1.0, -9.0, -5.0]))
    ratios, wanted = [2, -1, 2, 1], [1, -1, -1, 1]
    expected = [
        2 * (1 - 1 / (1 + math.exp(-0.5 * ratio))) if label > 0 else 3 * (1 - 1 / (1 + math.exp(0.5 * ratio)))
        for ratio, label in zip(ratios, wanted, strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    assert run.saved["adapter"] is config.adapter and run.saved["base"] == folder and returned == tmp_path / "model"
    single = write_lines(
        tmp_path / "single.jsonl", [{"prompt": "ab"[n % 2], "completion": f"{n}", "label": n > 1} for n in range(3)]
    )
    _, run, _ = rehearsed("kto", tmp_path, **{**given, "data": str(single)})
    assert [example[0].label for example in run.told["batches"].batches.examples] == [-1.0, -1.0, 1.0]
    begun = with_adapter(weights.load(folder), AdapterSettings("lora", rank=2), seed=0, verbose=False)
    for module in begun.modules():
        if isinstance(module, LoRALinear):
            nn.init.normal_(module.b, std=0.1)
    save_adapter(begun, tmp_path / "begun")
    _, run, _ = rehearsed("kto", tmp_path, **given, adapter="lora", begin_with=str(tmp_path / "begun"))
    with torch.no_grad():
        for module in run.told["model"].modules():
            if isinstance(module, LoRALinear):
                module.b.mul_(3)
    ((example,), ids) = run.told["batches"].batches.examples[0], np.array([3, 5, 8], np.int32)
    assert example.reference.tolist() == pytest.approx(stream_logprobs(begun, [example])[0].logprobs.tolist(), abs=1e-4)
    with run.told["batches"].before.there() as reference:
        own = stream_logprobs(reference, [ids])[0].logprobs.tolist()
    assert own == pytest.approx(stream_logprobs(begun, [ids])[0].logprobs.tolist(), abs=1e-4)


class Writes(Rehearsal):
    """Makes the folder of the model, for the head that is written into it."""

    def save(self, *given: Any, **told: Any) -> Path:
        folder = super().save(*given, **told)
        weights.save(self.saved["model"], folder)
        return folder

    def fit(self, model: Any, batches: Any, **told: Any) -> int:  # type: ignore[override]
        torch.manual_seed(4)
        nn.init.normal_(told["values"].weight)
        return super().fit(model, batches, **told)


@pytest.mark.slow
def test_a_reward_model_is_shifted_to_its_best_answers_and_judged_on_held_out_pairs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_lines(
        tmp_path / "ranked.jsonl", [{"prompt": f"{n}", "answers": ["12", "30" * n, "no"]} for n in range(1, 6)]
    )
    settings = PreferenceSettings(str(folder), batch_size=2, holdout=0.4)
    config = reward.Config(str(data), centering=0.5, comparisons=settings)
    run = Writes(tmp_path / "run", config.loop)
    assert reward.reward(config, run) == tmp_path / "run" / "model"
    every = read(folder, data).comparisons
    trained, held_out = split(every, 0.4, seed=0, key=id)
    batches, head = run.told["batches"], run.told["values"]
    assert ids_of(batches.examples) == ids_of(trained) and batches.batch_size == 2 and run.told["objective"].pair == 1.0
    assert [each.label for each in batches.examples[0]] == [3.0, 2.0, 1.0]

    def raw(stream: Stream) -> float:
        return stream_logprobs(run.told["model"], [stream], values=head)[0].last_value

    again = RewardModel.load(tmp_path / "run" / "model")
    mean = float(np.mean([raw(example[0]) for example in trained]))
    assert again.mean == pytest.approx(mean, abs=1e-5) and torch.equal(again.head.weight, head.weight)
    scores = [[raw(each) for each in example] for example in held_out]
    right = np.mean([row[a] > row[b] for row in scores for a, b in ((0, 1), (0, 2), (1, 2))])
    assert capsys.readouterr().out == (f"5 comparisons; 2 held out\nheld-out pairs in the right order: {right:.1%}\n")
    assert ordered_right(again, held_out) == pytest.approx(right)
    found = run.told["objective"].pair_loss(
        Comparisons(
            torch.tensor([4, 4, 9, 9, 9]),
            torch.tensor([1.0, 2.0, 3.0, 1.0, 2.0]),
            *[torch.zeros(5)] * 3,
            value=torch.tensor([0.5, 0.25, 1.0, -1.0, 0.0]),
        )
    )

    def pair(better: float, worse: float) -> float:
        return math.log1p(math.exp(worse - better)) + 0.5 * (better + worse) ** 2

    expected = [pair(0.25, 0.5), (pair(1, 0) + pair(1, -1) + pair(0, -1)) / 3]
    assert found.sum().item() == pytest.approx(sum(expected), rel=1e-5)
    plain = reward.Config(str(data), comparisons=PreferenceSettings(str(folder)))
    reward.reward(plain, Writes(tmp_path / "plain", plain.loop))
    assert capsys.readouterr().out == "5 comparisons\n"


def test_a_reward_model_takes_the_place_of_rewards() -> None:
    head = nn.Linear(32, 1)
    judge = RewardModel(model(), head, mean=0.5)
    ids = [np.array([3, 14, 15], np.int32), np.array([9], np.int32)]
    raw = [stream_logprobs(judge.model, [each], values=head)[0].last_value for each in ids]
    assert judge.scores(ids) == pytest.approx([each - 0.5 for each in raw], abs=1e-5)
    mask = np.array([0.0, 1.0, 1.0])
    episodes = (
        Episode(ids[0], mask, mask, mask, 7.0, "g", "s"),
        Episode(ids[1], mask[:1], mask[:1], mask[:1], 8.0, "h", "t"),
    )
    found = judge.rescored(Graded(episodes, {"reward": 7.5, "reward_std": 0.5, "groups": 2.0}))
    assert [(each.reward, each.group) for each in found.episodes] == [
        (pytest.approx(raw[0] - 0.5, abs=1e-5), "g"),
        (pytest.approx(raw[1] - 0.5, abs=1e-5), "h"),
    ]
    assert found.metrics == pytest.approx({
        "reward": np.mean(raw) - 0.5, "reward_std": np.std(raw), "gold_reward": 7.5, "groups": 2.0
    }, abs=1e-5)  # fmt: skip


def test_a_folder_without_a_whole_head_is_no_reward_model(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "judge"
    shutil.copytree(folder, place)
    head = nn.Linear(32, 1)
    RewardModel(weights.load(place), head, mean=-0.25).save_head(place)
    again = RewardModel.load(place)
    assert (
        torch.equal(again.head.weight, head.weight) and torch.equal(again.head.bias, head.bias) and again.mean == -0.25
    )
    file, whole = (
        place / "reward_head.safetensors",
        {"weight": head.weight, "bias": head.bias, "mean": torch.tensor(1.0)},
    )
    for state in ({**whole, "weight": torch.zeros(1, 31)}, *({name: value for name, value in whole.items() if name != left}
                                                              for left in whole)):  # fmt: skip
        save_file({name: value.detach().contiguous() for name, value in state.items()}, file)
        with pytest.raises(ModelFileError) as refused:
            RewardModel.load(place)
        text = str(refused.value)
        assert text.startswith(f"{place} is no reward model (")
        assert text.endswith("): give a folder that `firsthand train reward` wrote")
    file.unlink()
    with pytest.raises(ModelFileError, match="is no reward model"):
        RewardModel.load(place)
