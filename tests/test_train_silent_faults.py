"""Trainings that would end in a wrong model without a word: each is refused in a sentence, or does what its data say."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tiny
from firsthand.errors import ConfigError, DataError, FirsthandError, TrainingError
from firsthand.nn import weights
from firsthand.nn.decoder import Decoder, initialise
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.train.added_tokens import with_added_tokens
from firsthand.train.checkpoints import Checkpoints
from firsthand.train.fit import fit
from firsthand.train.model_folder import save_model
from firsthand.train.objective import Objective
from firsthand.train.optimizers import Muon, expect_every_weight, optimizer_for, with_own_settings
from firsthand.train.preference_data import Kind, mismatched, read_comparisons
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings
from firsthand.train.reward_scores import RewardModel, expect_reads
from firsthand.train.schedules import ScheduleSettings
from firsthand.train.streams import Stream
from firsthand.train.training_run import TrainingRun, opened, stored_settings
from test_engine_families import FAMILIES, architecture
from test_train_run_folder import Config
from train_rehearsal import rehearsed, write_lines
from train_tiny import Lists, model

torch.set_num_threads(1)
PAIR = {"prompt": "say a", "chosen": "sum", "rejected": "no"}
RANKED = {"prompt": "say b", "answers": ["sum", "so", "no"]}
ULTRA = {
    "instruction": "say c",
    "completions": [{"response": "sum", "overall_score": 9}, {"response": "no", "overall_score": 1}],
}
SINGLE = {"prompt": "say d", "completion": "sum", "label": True}
ROWS = [[Stream([1, 2, 3, 4, 5, 6], ce=[0, 1, 1, 1, 1, 1])]]


def refused(action: Callable[[], Any], kind: type[FirsthandError] = ConfigError) -> str:
    with pytest.raises(kind) as error:
        action()
    return str(error.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model") / "tiny", max_position=64)


def tokenizer_of(folder: Path) -> tuple[Tokenizer, ChatTemplate]:
    tokenizer = pretrained.load(folder)
    return tokenizer, ChatTemplate(tokenizer, tokenizer.chat_template)


# -- kinds of comparisons --


@pytest.mark.parametrize(
    ("kinds", "line", "said"),
    [
        (("pair",), RANKED, "ranked answers, which this recipe does not take: give lines with `chosen` and `rejected`"),
        (("pair",), ULTRA, "ranked answers, which this recipe does not take"),
        (("pair",), SINGLE, "an answer that is judged alone, which this recipe does not take"),
        (("pair", "single"), RANKED, "give lines with `chosen` and `rejected` or with `completion` and `label`"),
        (("pair", "ranking"), SINGLE, "give lines with `chosen` and `rejected` or with `answers`"),
        (
            ("ranking",),
            PAIR,
            "a chosen and a rejected answer, which this recipe does not take: give lines with `answers`",
        ),
    ],
)
def test_a_line_of_another_kind_is_refused_with_its_place(
    kinds: tuple[Kind, ...], line: Any, said: str, folder: Path, tmp_path: Path
) -> None:
    own = {"pair": PAIR, "ranking": RANKED, "single": SINGLE}
    file = write_lines(tmp_path / "d.jsonl", [own[kinds[0]], line])
    told = refused(lambda: read_comparisons(file, *tokenizer_of(folder), context=64, kinds=kinds), DataError)
    assert f"{file}:2 has " in told and said in told


def test_every_kind_is_read_where_none_is_asked_for(folder: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "d.jsonl", [PAIR, RANKED, ULTRA, SINGLE])
    found = read_comparisons(file, *tokenizer_of(folder), context=64).comparisons
    assert [[each.label for each in rows] for rows in found] == [[1, -1], [3, 2, 1], [2, 1], [1]]


@pytest.mark.parametrize("recipe", ["kto", "dpo", "ipo", "orpo", "simpo"])
@pytest.mark.parametrize("line", [RANKED, ULTRA])
def test_ranks_are_taken_by_reward_models_alone(recipe: str, line: Any, folder: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "d.jsonl", [line, PAIR])
    told = refused(lambda: rehearsed(recipe, tmp_path / "run", data=str(file), model=str(folder)), DataError)
    assert f"{file}:1 has ranked answers" in told


@pytest.mark.parametrize("recipe", ["dpo", "ipo", "orpo", "simpo", "reward"])
def test_answers_that_are_judged_alone_are_ktos(recipe: str, folder: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "d.jsonl", [PAIR, SINGLE])
    told = refused(lambda: rehearsed(recipe, tmp_path / "run", data=str(file), model=str(folder)), DataError)
    assert f"{file}:2 has an answer that is judged alone" in told


def test_kto_takes_pairs_and_single_answers(folder: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "d.jsonl", [PAIR, SINGLE])
    _, run, _ = rehearsed("kto", tmp_path / "run", data=str(file), model=str(folder))
    rows = [row for example in run.told["batches"].batches.examples for row in example]
    assert sorted(row.label for row in rows) == [-1, 1, 1]


def test_a_reward_model_takes_pairs_and_ranks(folder: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "d.jsonl", [PAIR, RANKED])
    (tmp_path / "run" / "model").mkdir(parents=True)
    _, run, _ = rehearsed("reward", tmp_path / "run", data=str(file), model=str(folder))
    assert sorted(len(example) for example in run.told["batches"].examples) == [2, 3]


# -- optimizers --


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_an_optimizer_has_each_weight_of_every_family_once(family: str, kind: Any) -> None:
    decoder = Decoder(architecture(family))
    optimizer = optimizer_for(decoder, OptimizerSettings(optimizer=kind, weight_decay=0.3))
    grouped = [id(weight) for group in optimizer.param_groups for weight in group["params"]]
    assert sorted(grouped) == sorted(map(id, decoder.parameters()))
    expect_every_weight(decoder, optimizer)
    decayed = {id(w) for group in optimizer.param_groups for w in group["params"] if group["weight_decay"]}
    assert decayed == {id(weight) for weight in decoder.parameters() if weight.dim() >= 2}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_the_matrices_of_latent_attention_are_trained(kind: Any) -> None:
    decoder = initialise(Decoder(architecture("deepseek_v3")), seed=0, std=0.3)
    before = {name: weight.detach().clone() for name, weight in decoder.named_parameters() if "_up" in name}
    fit(decoder, Lists(ROWS[0], ROWS[0]), objective=Objective(ce=1.0), schedule=lambda step: 1.0, steps=2,
        optimizer=optimizer_for(decoder, OptimizerSettings(optimizer=kind, lr=0.01, weight_decay=0.0)))  # fmt: skip
    now = dict(decoder.named_parameters())
    stacks = [name for name in before if name.endswith((".k_up", ".v_up"))]
    assert len(stacks) == 4 and all((now[name] - before[name]).abs().max() > 1e-3 for name in stacks)
    if kind == "muon":
        optimizer = optimizer_for(decoder, OptimizerSettings(optimizer="muon"))
        assert isinstance(optimizer, Muon) and all(w.dim() == 2 for w in optimizer.param_groups[0]["params"])


def test_training_without_a_weight_in_the_optimizer_is_refused() -> None:
    decoder = model()
    named = dict(decoder.named_parameters())
    left = named.pop("layers.0.mlp.up_proj.weight")
    optimizer = torch.optim.SGD(named.values(), lr=0.1)
    train = lambda: fit(  # noqa: E731
        decoder, Lists(ROWS[0]), objective=Objective(ce=1.0), optimizer=optimizer, schedule=lambda step: 1.0, steps=1
    )
    told = refused(train, TrainingError)
    assert "in no group of the optimizer (layers.0.mlp.up_proj.weight; 1 in all)" in told
    left.requires_grad_(False)
    assert train() == 1
    head = nn.Linear(32, 1)
    told = refused(
        lambda: fit(decoder, Lists(ROWS[0]), objective=Objective(ce=1.0), optimizer=optimizer, schedule=lambda step: 1.0,
                    steps=1, values=head), TrainingError,
    )  # fmt: skip
    assert "(value_head.weight, value_head.bias; 2 in all)" in told


# -- checkpoints --


@pytest.mark.parametrize("value", ["abc", None, math.nan, 1e6])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_checkpoint_changes_no_rate(value: Any, kind: Any, tmp_path: Path) -> None:
    def run(steps: int) -> tuple[Decoder, torch.optim.Optimizer]:
        decoder = model()
        optimizer = optimizer_for(decoder, OptimizerSettings(optimizer=kind, lr=0.01))
        fit(decoder, Lists(*ROWS * 4), objective=Objective(ce=1.0), optimizer=optimizer, steps=steps,
            schedule=lambda step: 1 / step, checkpoint=Checkpoints(tmp_path, every=2))  # fmt: skip
        return decoder, optimizer

    run(2)
    file = tmp_path / "step-000002" / "state.json"
    state = json.loads(file.read_text())
    for group in state["optimizer"]["param_groups"]:
        group |= {"initial_lr": value, "lr": 7.0, "weight_decay": 9.0, "betas": [0.1, 0.1]}
    file.write_text(json.dumps(state))
    resumed, optimizer = run(4)
    for group in optimizer.param_groups:
        assert (group["initial_lr"], group["lr"], group["betas"]) == (0.01, 0.01 / 4, (0.9, 0.95))
    (tmp_path / "step-000002").rename(tmp_path / "aside"), (tmp_path / "step-000004").rename(tmp_path / "four")
    expected, _ = run(4)
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), expected.parameters(), strict=True))


def test_a_state_keeps_its_moments_under_the_optimizers_settings() -> None:
    layer = nn.Linear(2, 2)
    optimizer = optimizer_for(layer, OptimizerSettings(lr=0.25))
    kept = [{**group, "lr": 9.0, "maximize": True, "params": [at]} for at, group in enumerate(optimizer.param_groups)]
    found = with_own_settings(optimizer, {"state": {0: "moments"}, "param_groups": kept})
    assert found["state"] == {0: "moments"} and [group["params"] for group in found["param_groups"]] == [[0], [1]]
    assert all((group["lr"], group["maximize"]) == (0.25, False) for group in found["param_groups"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_not_saved(value: float, tmp_path: Path) -> None:
    layer = nn.Linear(2, 2)
    layer.register_buffer("mask", torch.tensor([-math.inf]))  # a buffer may hold infinities
    optimizer, saver = optimizer_for(layer, OptimizerSettings()), Checkpoints(tmp_path, every=1)
    saver.save(1, layer, optimizer, Lists())
    with torch.no_grad():
        layer.bias[1] = value
    told = refused(lambda: saver.save(2, layer, optimizer, Lists()), TrainingError)
    assert "the update of step 2 made weights that are not finite (bias; 1 in all)" in told and saver.steps() == [1]
    layer.bias.requires_grad_(False)
    saver.save(2, layer, optimizer, Lists())
    assert saver.steps() == [1, 2], "a frozen weight is the base model's"


@pytest.mark.parametrize("every", [0, 1])
def test_a_last_update_that_is_not_finite_ends_a_run_without_a_model(every: int, tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, LoopSettings(steps=1, checkpoint_every=every), None)
    decoder = model()
    with torch.no_grad():
        decoder.embed.weight[90] = 1e35  # of a token that no row has: its decay alone goes beyond float32
    settings = OptimizerSettings(lr=900.0, weight_decay=900.0)
    with pytest.raises(
        TrainingError, match=r"the update of step 1 made weights that are not finite \(embed.weight; 1 in"
    ):
        run.fit(decoder, Lists(*ROWS), objective=Objective(ce=1.0), optimizer=settings, schedule=ScheduleSettings())
    assert not list(tmp_path.glob("checkpoints/step-*"))


# -- reward models --


def test_a_reward_model_reads_the_ids_of_its_own_tokenizer_alone(folder: Path, tmp_path: Path) -> None:
    same = tiny.write_model(tmp_path / "same", seed=3, max_position=64)
    expect_reads(same, folder)
    decoder, tokenizer = with_added_tokens(weights.load(folder), pretrained.load(folder), ["<call>"])
    save_model(decoder, tokenizer, tmp_path / "larger")
    expect_reads(tmp_path / "larger", folder)
    told = refused(lambda: expect_reads(folder, tmp_path / "larger"))
    assert f"the reward model in {folder} and the policy {tmp_path / 'larger'} have different tokenizers" in told


def test_tokenizers_that_differ_in_their_ends_read_each_others_ids(folder: Path) -> None:
    own = pretrained.load(folder)
    description = json.loads((folder / "tokenizer.json").read_text())
    other = Tokenizer(description, eos_ids=[min(own.eos_ids, default=0) + 1])
    assert own.fingerprint != other.fingerprint and own.reads_ids_of(other) and other.reads_ids_of(own)
    vocabulary = description["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    swapped = Tokenizer(description, eos_ids=own.eos_ids)
    assert not own.reads_ids_of(swapped) and not swapped.reads_ids_of(own), "the same tokens under other ids"


@pytest.mark.parametrize("recipe", ["grpo", "ppo"])
def test_a_policy_is_not_trained_with_a_reward_model_of_another_tokenizer(
    recipe: str, folder: Path, tmp_path: Path
) -> None:
    decoder, tokenizer = with_added_tokens(weights.load(folder), pretrained.load(folder), ["<call>"])
    save_model(decoder, tokenizer, tmp_path / "larger")
    RewardModel(weights.load(folder), nn.Linear(32, 1)).save_head(tiny.write_model(tmp_path / "judge", max_position=64))
    given = {"benchmark": "arithmetic", "model": str(tmp_path / "larger"), "reward_model": str(tmp_path / "judge")}
    assert "different tokenizers" in refused(lambda: rehearsed(recipe, tmp_path / "run", **given))


def test_a_reward_model_scores_nothing_beyond_its_context() -> None:
    judge = RewardModel(model(), nn.Linear(32, 1))
    context = judge.model.architecture.max_position
    assert len(judge.scores([np.ones(context, np.int32)])) == 1 and judge.scores([]) == []
    told = refused(lambda: judge.scores([np.ones(2, np.int32), np.ones(context + 1, np.int32)]), TrainingError)
    assert f"a conversation has {context + 1} tokens, and the reward model's context is {context}" in told


# -- KTO's baseline --


def test_mismatched_answers_stay_within_the_context() -> None:
    long_prompt = Stream([1, 2, 3, 4, 5, 6], ce=[0, 0, 0, 0, 0, 1])
    long_answer, short = Stream([7, 8, 9, 10], ce=[0, 1, 1, 1]), Stream([11, 12], ce=[0, 1])
    rows = [long_prompt, long_answer, short]
    assert [each.ids.tolist() for each in mismatched(rows, context=8)] == [[1, 2, 3, 4, 5, 8, 9, 10], [7, 12], [11, 6]]
    assert [each.ids.tolist() for each in mismatched(rows, context=7)] == [[1, 2, 3, 4, 5, 12], [7, 12], [11, 6]]
    assert [each.ids.tolist() for each in mismatched(rows[:2], context=7)] == [[7, 6]], "a prompt that none fits"
    assert mismatched(rows[:2], context=1) == []


def test_ktos_baseline_of_long_rows_is_within_the_context(folder: Path, tmp_path: Path) -> None:
    lines = [
        {"prompt": "ab" * 22, "completion": "c", "label": True},
        {"prompt": "d", "completion": "ef" * 22, "label": False},
    ]
    file = write_lines(tmp_path / "d.jsonl", lines)
    _, run, _ = rehearsed("kto", tmp_path / "run", data=str(file), model=str(folder), batch_size=2)
    batches = run.told["batches"]
    (rows,) = [rows for rows, _ in zip(batches.batches, range(1), strict=False)]
    context = batches.model.architecture.max_position
    assert max(map(len, mismatched(rows, context=10**6))) > context, "the rows are chosen so that it matters"
    seen: list[int] = []
    batches._mean_ratio = lambda others: seen.extend(map(len, others)) or 0.0
    next(iter(batches))
    assert seen and max(seen) <= context


# -- steps --


@pytest.mark.parametrize("recipe", ["dpo", "kto", "reward", "grpo", "ppo"])
def test_a_recipe_without_epochs_needs_steps(recipe: str, folder: Path, tmp_path: Path) -> None:
    given = {"benchmark": "arithmetic"} if recipe in ("grpo", "ppo") else {"data": str(tmp_path / "none.jsonl")}
    told = refused(lambda: rehearsed(recipe, tmp_path / "run", model=str(folder), steps=0, **given))
    assert told == "steps is 0: expected 1 or more"


def test_steps_are_counted_by_the_recipe_or_by_the_loop(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, LoopSettings(steps=0, checkpoint_every=0), None)
    given = {"objective": Objective(ce=1.0), "optimizer": OptimizerSettings(), "schedule": ScheduleSettings()}
    assert refused(lambda: run.fit(model(), Lists(*ROWS), **given)) == "steps is 0: expected 1 or more"
    assert run.fit(model(), Lists(*ROWS), steps=1, **given) == 1
    TrainingRun(tmp_path, LoopSettings(steps=1), None).expect_steps()


def test_fewer_epochs_than_a_run_has_made_are_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-000004").mkdir(parents=True)
    run = TrainingRun(tmp_path, LoopSettings(steps=0), None)
    given = {"objective": Objective(ce=1.0), "optimizer": OptimizerSettings(), "schedule": ScheduleSettings()}
    assert refused(lambda: run.fit(model(), Lists(*ROWS), steps=3, **given)) == (
        f"the epochs make 3 steps, and {tmp_path} has a checkpoint of step 4: give more epochs, or begin a run in another "
        "folder"
    )
    assert "is whole" in refused(lambda: run.fit(model(), Lists(*ROWS), steps=4, **given), TrainingError)


def test_a_run_is_not_resumed_for_fewer_steps_than_it_has_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    out = tmp_path / "run"

    def again(steps: int) -> int:
        with opened(out, "sft", Config(loop=LoopSettings(steps=steps, seed=11)), resume=True) as run:
            return run.loop.steps

    with opened(out, "sft", Config()):
        for step in (2, 4):
            (out / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
    before = stored_settings(out)
    assert refused(lambda: again(3)) == (
        f"steps is 3, and {out} has a checkpoint of step 4: give 4 or more, or begin a run in another folder"
    )
    assert stored_settings(out) == before, "a refusal leaves the run's settings as they are"
    assert [again(steps) for steps in (4, 5, 0)] == [4, 5, 0]
