"""Runs of training from open to saved: what they hand on, keep, refuse, and go on from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed, nn

from firsthand import __version__
from firsthand.errors import ConfigError, StoreError, TrainingError
from firsthand.nn import weights
from firsthand.nn.lora import LoRALinear
from firsthand.runs import store
from firsthand.runs.track import Track
from firsthand.tokens import pretrained
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.adapters.lora_training import adapter_of, merged
from firsthand.train.fit import fit
from firsthand.train.objective import Objective
from firsthand.train.optimizers import optimizer_for
from firsthand.train.processes import from_all, from_first, is_first, joined, local_rank, rank, ranks, together
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings
from firsthand.train.schedules import ScheduleSettings
from firsthand.train.streams import Stream
from firsthand.train.training_run import TrainingRun, is_made_here, opened, read_metrics, stored_settings
from tiny import write_model
from train_tiny import Kept, Lists, model

torch.set_num_threads(1)
STREAMS = [
    Stream([3, 14, 15], ce=[0, 1, 2], value=[0, 1, 0], returns=[0, 5, 0]),
    Stream([9, 26, 5, 35], ce=[0, 1, 0, 1]),
]
OBJECTIVE = Objective(ce=3.0, value=0.5)
OPTIMIZER, SCHEDULE = OptimizerSettings(lr=0.05), ScheduleSettings("cosine", warmup_steps=1, final_lr=0.25)


@dataclass(frozen=True)
class Config:
    rate: float = 0.5
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(
            steps=9, seed=11, checkpoint_every=2, keep=1, micro_tokens=3, clip_norm=0.25
        )
    )


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return tmp_path


def head_of(seed: int = 3) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(32, 1)


@pytest.mark.slow
def test_a_run_trains_as_its_settings_say_and_tells_its_track_and_sinks(home: Path) -> None:
    kept, own, begun = Kept(), Kept(), []
    with opened(home / "run", "sft", Config()) as run:
        run.on_fit = lambda: begun.append(1)
        decoder, head = model().eval(), head_of()
        last = run.fit(
            decoder, Lists(*[STREAMS] * 9), objective=OBJECTIVE, optimizer=OPTIMIZER, schedule=SCHEDULE, steps=3,
            values=head, evaluate=lambda step: {"twice": 2.0 * step}, sinks=[kept],
        )  # fmt: skip
        assert (last, begun, run.on_fit) == (3, [1], None)
    other, other_head = model(), head_of()
    whole = nn.ModuleDict({"model": other, "value_head": other_head})
    fit(other, Lists(*[STREAMS] * 9), objective=OBJECTIVE, optimizer=optimizer_for(whole, OPTIMIZER),
        schedule=SCHEDULE.over(3), steps=3, track=own, values=other_head, micro_tokens=3, clip_norm=0.25,
        evaluate=lambda step: {"twice": 2.0 * step})  # fmt: skip
    for one, two in zip((*decoder.parameters(), *head.parameters()), whole.parameters(), strict=True):
        assert torch.equal(one, two)
    rows = read_metrics(home / "run")
    for row, logged, expected in zip(rows, kept.rows, own.rows, strict=True):
        for each in (row, logged, expected):
            each.pop("tokens_per_s")
        assert row == pytest.approx(expected) and logged == expected
    assert sorted(each.name for each in (home / "run" / "checkpoints").iterdir()) == ["step-000003"]
    names = set(load_file(home / "run" / "checkpoints" / "step-000003" / "weights.safetensors"))
    assert {"value_head.weight", "value_head.bias", "model.embed.weight"} <= names


class Broken(Lists):
    """Batches that end with an error after so many."""

    def __iter__(self) -> Iterator[list[Stream]]:
        yield from super().__iter__()
        raise KeyboardInterrupt


@pytest.mark.slow
def test_a_stopped_run_goes_on_from_its_checkpoint_and_its_metrics_with_it(home: Path) -> None:
    def trained(folder: Path, batches: Lists, *, resume: bool, name: str) -> Any:
        with opened(folder, "sft", Config(), resume=resume) as run:
            decoder = model()
            run.fit(decoder, batches, objective=OBJECTIVE, optimizer=OPTIMIZER, schedule=ScheduleSettings("constant"),
                    steps=5, values=head_of(), evaluate=lambda step: {name: 1.0})  # fmt: skip
            return decoder

    steps = [[each] for each in (STREAMS * 3)[:5]]
    with pytest.raises(KeyboardInterrupt):
        trained(home / "a", Broken(*steps[:3]), resume=False, name="before")
    assert [row["step"] for row in read_metrics(home / "a")] == [1, 2, 3]
    gone_on = trained(home / "a", Lists(*steps), resume=True, name="after")
    whole = trained(home / "b", Lists(*steps), resume=False, name="after")
    assert torch.equal(gone_on.embed.weight, whole.embed.weight)
    found = [("before" in row, "after" in row) for row in read_metrics(home / "a")]
    assert found == [(True, False)] * 2 + [(False, True)] * 3, "the third step is of the run that made it last"


@pytest.mark.slow
def test_a_run_without_checkpoints_keeps_none_and_one_without_a_number_its_streams(home: Path) -> None:
    with opened(home / "c", "sft", Config(loop=replace(Config().loop, checkpoint_every=0, steps=1))) as run:
        run.fit(model(), Lists(STREAMS), objective=Objective(ce=1.0), optimizer=OPTIMIZER, schedule=SCHEDULE)
    assert not (home / "c" / "checkpoints").exists() and read_metrics(home / "none") == []
    told = rf"its streams are in {home / 'd' / 'stopped' / 'step-1.npz'}; lower"
    with pytest.raises(TrainingError, match=told), opened(home / "d", "sft", Config()) as run:
        broken = model()
        nn.init.constant_(broken.embed.weight, float("nan"))
        run.fit(broken, Lists(STREAMS), objective=Objective(ce=1.0), optimizer=OPTIMIZER, schedule=SCHEDULE)


@pytest.mark.slow
def test_a_folder_is_opened_once_sealed_and_told_apart(home: Path) -> None:
    out = home / "run"
    with opened(out, "sft", Config()) as run:
        drawn = torch.rand(1)
        assert (run.folder, run.loop, run.is_resumed) == (out, Config().loop, False) and run.track is not None
        run.track.log({"loss": 2.0}, step=1)
    torch.manual_seed(11)
    assert torch.equal(torch.rand(1), drawn)
    body = json.loads((out / "recipe.json").read_text())
    assert body.pop("seal") and body == {
        "recipe": "sft", "settings": {"rate": 0.5, "loop": dict(vars(Config().loop))}, "version": __version__
    }  # fmt: skip
    assert is_made_here(out) and stored_settings(out) == ("sft", body["settings"])
    with pytest.raises(ConfigError) as refused, opened(out, "sft", Config()):
        pass
    assert str(refused.value) == (
        f"{out} holds a run already: go on with `firsthand train --resume {out}`, or give another `--out`"
    )
    with opened(out, "sft", Config(rate=0.75), resume=True) as run:
        assert run.is_resumed
    assert stored_settings(out)[1]["rate"] == 0.75 and [row["loss"] for row in read_metrics(out)] == [2.0]
    text = (out / "recipe.json").read_text()
    (out / "recipe.json").write_text(text.replace("0.75", "0.5"))
    assert not is_made_here(out), "another hand changed it"
    (out / "recipe.json").write_text("[]")
    assert not is_made_here(out) and not is_made_here(home / "none")
    for place, reason in ((out, "TypeError"), (home / "none", "No such file or directory")):
        with pytest.raises(ConfigError) as refused:
            stored_settings(place)
        assert str(refused.value) == f"{place} holds no training run (recipe.json: {reason}): give the folder of one"
    (home / "file").write_text("")
    with pytest.raises(StoreError) as full, opened(home / "file" / "run", "sft", Config()):
        pass
    assert str(full.value) == (
        f"{home / 'file' / 'run'} cannot be made (Not a directory): give another folder with `--out`"
    )
    with opened(home / "again", "sft", Config()):
        pass  # it never made a step, so another may begin there
    with opened(home / "again", "dpo", Config(rate=0.25)) as run:
        assert not run.is_resumed
    with closing(store.open_run(home / "again", home / "again")) as left:
        assert left.config["recipe"] == "dpo", "what the first left is gone"
    assert stored_settings(home / "again") == ("dpo", {"rate": 0.25, "loop": dict(vars(Config().loop))})


def drawn_adapters(decoder: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    for module in decoder.modules():
        if isinstance(module, LoRALinear):
            nn.init.normal_(module.b, std=0.1)
    return decoder


@pytest.mark.slow
def test_a_model_is_saved_whole_with_its_adapter_beside_and_agents_adapters_alone(home: Path) -> None:
    folder, lora = write_model(home / "tiny"), AdapterSettings("rslora", rank=4, alpha=6.0)
    tokenizer = pretrained.load(folder)
    with opened(home / "plain", "sft", Config()) as run:
        decoder = weights.load(folder)
        assert run.save(decoder, tokenizer, base=folder) == home / "plain" / "model"
        assert (
            run.save(decoder, tokenizer, base=folder, adapter=AdapterSettings(), named="x") == home / "plain" / "model"
        )
        assert not (home / "plain" / "adapter").exists()
    with closing(store.open_run(home / "plain", home / "plain")) as kept:
        assert {Path(each.name).name for each in Track(kept).artifacts()} == {"model.safetensors"}
    assert torch.equal(weights.load(home / "plain" / "model").embed.weight, decoder.embed.weight)
    with opened(home / "lora", "sft", Config()) as run:
        adapted = drawn_adapters(run.prepared(folder, lora))
        assert run.save(adapted, tokenizer, base=folder, adapter=lora, named="hf:org/base") == home / "lora" / "model"
    settings = json.loads((home / "lora" / "adapter" / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["r"], settings["lora_alpha"], settings["use_rslora"]) == (
        "hf:org/base", 4, 6, True
    )  # fmt: skip
    saved, expected = weights.load(home / "lora" / "model").state_dict(), merged(adapted).state_dict()
    assert all(torch.equal(saved[name], value) for name, value in expected.items())
    with opened(home / "agents", "grpo", Config()) as run:
        routed = drawn_adapters(run.prepared(folder, lora, agents=("lead", "worker")))
        assert run.save(routed, tokenizer, base=folder, adapter=lora) == home / "agents" / "adapters"
    assert sorted(each.name for each in (home / "agents" / "adapters").iterdir()) == ["lead", "worker"]
    assert not (home / "agents" / "model").exists()
    for agent in ("lead", "worker"):
        place = home / "agents" / "adapters" / agent
        assert json.loads((place / "adapter_config.json").read_text())["base_model_name_or_path"] == str(folder)
        own = load_file(place / "adapter_model.safetensors")[
            "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
        ]
        assert torch.equal(own, adapter_of(routed, agent=agent).deltas["layers.0.attention.q_proj.weight"].b)
    with opened(home / "full", "sft", Config()) as run:
        (home / "full" / "model").write_text("in the way")
        with pytest.raises(StoreError) as full:
            run.save(decoder, tokenizer, base=folder)
    assert str(full.value) == (
        f"the model could not be written to {home / 'full'} (File exists): its last checkpoint is whole, so make room and "
        "resume"
    )


def test_a_runs_device_and_arithmetic_are_those_of_its_loop(home: Path) -> None:
    def run(**loop: Any) -> TrainingRun:
        return TrainingRun(home, LoopSettings(**loop), None)

    assert (run().dtype, run(dtype="bfloat16").dtype) == (torch.float32, torch.bfloat16)
    assert run().device == torch.device("cpu") and run(shard=False).spread(decoder := model()) is decoder
    for name, text in (
        ("cpuu", "device is 'cpuu': give auto, cpu, cuda, or one of several, such as cuda:1"),
        ("tpu", "device is 'tpu': give auto, cpu, cuda, or one of several, such as cuda:1"),
        ("cuda:x", "device is 'cuda:x': give auto, cpu, cuda, or one of several, such as cuda:1"),
    ):
        with pytest.raises(ConfigError) as refused:
            _ = run(device=name).device
        assert str(refused.value) == text
    if not torch.cuda.is_available():
        assert run(device="auto").device == torch.device("cpu")
        with pytest.raises(ConfigError, match=r"^device is 'cuda:7', which is not there \(.+\)$"):
            _ = run(device="cuda:7").device


def test_one_process_alone_is_the_first_and_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (None, "1"):
        monkeypatch.delenv("WORLD_SIZE", raising=False) if size is None else monkeypatch.setenv("WORLD_SIZE", size)
        with joined():
            together()
            assert (rank(), ranks(), is_first()) == (0, 1, True)
    given = [1, 2]
    assert from_all(given) == given and from_all(given) is not given and from_first({"a": 1}) == {"a": 1}
    names = ("RANK", "MASTER_ADDR", "MASTER_PORT")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name in names:
        with pytest.raises(ConfigError) as refused, joined():
            pass
        assert str(refused.value) == (
            f"WORLD_SIZE is 2 and {name} is not set: start the processes with `torchrun --nproc-per-node N -m firsthand "
            "train ...`, or unset WORLD_SIZE"
        )
        monkeypatch.setenv(name, "1")


def test_a_process_leaves_its_group_at_the_end_of_the_block_and_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    started, begin = [], distributed.init_process_group

    def init(backend: str, **options: Any) -> None:
        """A group whose other process answers by itself."""
        started.append((backend, options))
        begin("fake", rank=1, world_size=2, store=FakeStore())

    monkeypatch.setattr(distributed, "init_process_group", init)
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "1",
        "MASTER_ADDR": "x",
        "MASTER_PORT": "1",
        "LOCAL_RANK": "99",
    }.items():
        monkeypatch.setenv(name, value)
    for stop in (KeyError, KeyboardInterrupt, None):
        with pytest.raises(stop) if stop else nullcontext(), joined():
            assert (rank(), ranks(), is_first(), local_rank()) == (1, 2, False, 99)
            with joined():
                assert ranks() == 2, "it has joined already"
            assert ranks() == 2
            if stop:
                raise stop
        assert not distributed.is_initialized() and (rank(), ranks(), is_first()) == (0, 1, True)
    assert started == [("gloo", {"timeout": timedelta(hours=2)})] * 3
