"""Processes that train together, each a thread of this one: what goes from each to all, and what the first alone does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from firsthand.errors import TrainingError
from firsthand.rollout import Place
from firsthand.train.checkpoints import Checkpoints
from firsthand.train.fit import _join, fit
from firsthand.train.kept_rollouts import KeptRollouts
from firsthand.train.objective import Comparisons, Objective
from firsthand.train.preference_training import WatchedPairLoss
from firsthand.train.pretraining_texts import in_memory
from firsthand.train.processes import from_all, from_first, is_first, joined, rank, ranks, together
from firsthand.train.recipe_settings import LoopSettings
from firsthand.train.recipes.pretrain import Config as Pretrain
from firsthand.train.sharding import passes_of_rank
from firsthand.train.streams import Stream, load_streams
from firsthand.train.training_run import TrainingRun, opened, read_metrics
from test_train_rollouts_by_hand import batches
from train_processes import in_processes
from train_rehearsal import Rehearsal
from train_tiny import Kept, Lists, model

torch.set_num_threads(1)


def test_items_go_from_each_to_all_and_a_value_from_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")

    def act(number: int) -> Any:
        together()
        with joined():  # it has joined already
            inside = ranks()
        return rank(), ranks(), inside, is_first(), from_all(["abc"[number]] * number), from_first(f"of {number}")

    assert in_processes(3, act) == [(number, 3, 3, number == 0, ["b", "c", "c"], "of 0") for number in range(3)]
    assert (rank(), ranks()) == (0, 1)


def test_gradients_and_metrics_are_added_up_over_processes_and_clipped_together() -> None:
    def act(number: int) -> Any:
        weights = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
        if number:
            weights[0].grad, weights[1].grad = torch.tensor([0.0, 4.0]), torch.tensor([12.0, 0.0])
        else:
            weights[0].grad = torch.tensor([3.0, 0.0])
        sums = {"loss": 1.5, "sampler_gap": 0.25} if number else {"loss": 1.0, "sampler_gap": 0.5, "pg": 7.0}
        norm = _join(weights, sums, 6.5, in_parts=False)
        return norm, [None if each.grad is None else each.grad.tolist() for each in weights], sums

    for norm, gradients, sums in in_processes(2, act):
        assert norm == pytest.approx(13.0)
        assert gradients == [pytest.approx([1.5, 2.0], abs=1e-5), pytest.approx([6.0, 0.0], abs=1e-5), None]
        assert sums == {"loss": 2.5, "sampler_gap": 0.5, "pg": 7.0}


STEPS = [
    [Stream([3, 14, 15], ce=[0, 1, 2]), Stream([9, 26], ce=[0, 1]), Stream([5, 35, 8, 9], ce=[0, 1, 0, 1])],
    [Stream([1, 2], ce=[0, 1])],
]


class Saves:
    def __init__(self) -> None:
        self.steps: list[int] = []

    def restore(self, *given: Any) -> int:
        return 0

    def after(self, step: int, *given: Any) -> None:
        self.steps.append(step)


def trained(_number: int = 0) -> tuple[nn.Module, Kept, Saves]:
    decoder, kept, saves = model(), Kept(), Saves()
    optimizer = torch.optim.SGD(decoder.parameters(), lr=0.5)
    fit(decoder, Lists(*STEPS), objective=Objective(ce=1.0), optimizer=optimizer, schedule=lambda step: 1 / step, steps=2,
        track=kept, checkpoint=saves, micro_tokens=4, clip_norm=0.5)  # fmt: skip
    return decoder, kept, saves


def test_processes_take_the_same_steps_as_one_alone_and_the_first_tells_them() -> None:
    decoder, alone, _ = trained()
    for number, (other, kept, saves) in enumerate(in_processes(2, trained)):
        for one, two in zip(decoder.parameters(), other.parameters(), strict=True):
            assert torch.allclose(one, two, atol=1e-6)
        assert saves.steps == [1, 2], "each sends its parts of a checkpoint"
        assert len(kept.rows) == (2 if number == 0 else 0)
        for row, expected in zip(kept.rows, alone.rows, strict=False):
            expected = {name: value for name, value in expected.items() if name != "tokens_per_s"}
            assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_each_process_makes_its_own_passes() -> None:
    def act(number: int) -> Any:
        return passes_of_rank("abcd", in_parts=False), passes_of_rank("abcd", in_parts=True)

    found = in_processes(3, act)
    assert [["".join(each for each, _ in passes) for passes in both] for both in found] == [
        ["ad", "ad"],
        ["b", "ba"],
        ["c", "ca"],
    ]
    assert found[1][1] == [("b", "anchored"), ("a", "idle")]


def test_pairs_that_each_process_saw_are_told_together() -> None:
    def act(number: int) -> dict[str, float]:
        watched = WatchedPairLoss(lambda pairs: pairs.chosen)
        for _ in range(number + 1):
            logprobs = torch.tensor([-1.0 - number, -2.0])
            watched(
                Comparisons(
                    torch.zeros(2), torch.tensor([1, -1]), logprobs, torch.tensor([-1.5, -1.5]), torch.ones(2), None
                )
            )
        return watched.metrics(1)

    expected = {"chosen_log_ratio": (0.5 - 0.5 - 0.5) / 3, "rejected_log_ratio": -0.5, "pair_accuracy": 1 / 3,
                "chosen_logprob": -5 / 3}  # fmt: skip
    assert in_processes(2, act) == [pytest.approx(expected)] * 2


class Config:
    """A recipe's settings as far as a run reads them."""

    loop = LoopSettings(seed=7)


def test_the_first_process_opens_the_run_and_the_others_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import dataclass, field

    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))

    @dataclass(frozen=True)
    class Settings:
        loop: LoopSettings = field(default_factory=lambda: Config.loop)

    def act(number: int) -> Any:
        with opened(tmp_path / "run", "sft", Settings(), resume=False) as run:
            assert isinstance(run, TrainingRun)
            there = (tmp_path / "run" / "recipe.json").exists()
            if run.track is not None:
                run.track.log({"loss": 2.0}, step=1)
            together()
            return number, run.track is None, run.is_resumed, run.loop == Config.loop, there

    assert in_processes(2, act) == [(0, False, False, True, True), (1, True, False, True, True)]
    assert [row["loss"] for row in read_metrics(tmp_path / "run")] == [2.0]


def test_a_gradient_that_one_process_alone_has_reaches_the_others_as_it_is() -> None:
    def act(number: int) -> list[list[float] | None]:
        weights: list[Tensor] = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
        if number == 1:
            weights[1].grad = torch.tensor([5.0])
        _join(weights, {}, 0.0, in_parts=False)
        return [None if each.grad is None else each.grad.tolist() for each in weights]

    assert in_processes(2, act) == [[None, [5.0]]] * 2


def test_processes_share_the_rollouts_of_a_round_and_keep_their_own(tmp_path: Path) -> None:
    def act(_: int) -> list[tuple[int, str]]:
        made = batches({"a": [1, 2, 3, 4]}, "a", plan={"prompts": 1, "group_size": 3}, kept=KeptRollouts(tmp_path))
        made._digest = "w"
        places = [Place(made.agent, made.benchmark, made.tasks[0], epoch) for epoch in range(3)]
        return [(trace.epoch, str(trace.answer)) for trace in asyncio.run(made._made(places, "round"))]

    found = in_processes(2, act)
    assert found == [[(0, "1"), (2, "2"), (1, "1")]] * 2
    assert {file.name: len(file.read_text().splitlines()) for file in tmp_path.iterdir()} == {
        "round-000000-0.jsonl": 3, "round-000000-1.jsonl": 2
    }  # fmt: skip
    assert in_processes(2, act) == found, "all of them are read again"


def test_the_first_process_writes_checkpoints_and_trains_the_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one two\nthree four\n" * 3)

    def act(number: int) -> Any:
        layer = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        path = Checkpoints(tmp_path / str(number), every=1).save(3, layer, optimizer, Lists())  # type: ignore[arg-type]
        texts = in_memory(
            Pretrain((str(tmp_path / "text.txt"),), vocab_size=260 + 9 * number),
            Rehearsal(tmp_path / "run", LoopSettings()),
        )
        return path.name, path.exists(), texts.tokenizer.vocab_size

    (one, is_written, own), (two, is_there, other) = in_processes(2, act)  # the second would have 269 tokens
    assert (one, two, is_written, is_there, own) == ("step-000003", "step-000003", True, False, 260)
    assert other == 260


def test_the_first_process_alone_keeps_the_streams_of_a_step_that_stopped_all(tmp_path: Path) -> None:
    objective = Objective(ce=1.0, pair=0.0, soft=1.0, soft_loss=lambda batch, rows, logits: logits[:, 0] * float("inf"))

    def act(number: int) -> str:
        decoder = model()
        optimizer = torch.optim.SGD(decoder.parameters(), lr=0.1)
        with pytest.raises(TrainingError) as raised:
            fit(decoder, Lists(*STEPS), objective=objective, optimizer=optimizer, schedule=lambda step: 1.0, steps=2,
                folder=tmp_path / str(number))  # fmt: skip
        return str(raised.value)

    first, second = in_processes(2, act)
    kept = f", and its streams are in {tmp_path / '0' / 'step-1.npz'}"
    assert kept in first and first.replace(kept, "") == second and "the weights are those of step 0; lower" in second
    assert [each.name for each in tmp_path.iterdir()] == ["0"]
    assert [each.ids.tolist() for each in load_streams(tmp_path / "0" / "step-1.npz")] == [
        each.ids.tolist() for each in STEPS[0]
    ]
