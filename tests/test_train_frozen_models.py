"""Models that a training run reads and leaves as they are: a run that goes on is refused if one of them has changed."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import adapters_tiny
from firsthand.config import build
from firsthand.errors import ConfigError, ModelFileError, StoreError
from firsthand.nn import weights
from firsthand.trace import Trace, new_trace_id
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.frozen_models import files_digest, weight_files
from firsthand.train.recipe_settings import LoopSettings
from firsthand.train.training_run import opened
from tiny import write_model
from train_processes import in_processes
from train_rehearsal import Rehearsal, rehearsed, write_lines

LORA, NONE = AdapterSettings("lora", rank=2), AdapterSettings()
PAIRS = [{"prompt": f"say {at}", "chosen": "sum" + "m" * at, "rejected": "calculator"} for at in range(3)]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return write_model(tmp_path / "base", max_position=96)


def trained_on(folder: Path, name: str = "model.safetensors") -> None:
    """Change the weights in a folder a little, as more steps would."""
    state = load_file(folder / name)
    save_file({key: value + 0.01 for key, value in state.items()}, folder / name)


def run_in(base: Path, **loop: Any) -> Rehearsal:
    return Rehearsal(base.parent / "run", LoopSettings(**{"checkpoint_every": 2, **loop}))


def begun(run: Rehearsal) -> Rehearsal:
    """The run, with a step to go on from."""
    (run.folder / "checkpoints" / "step-000002").mkdir(parents=True, exist_ok=True)
    return run


def kept(run: Rehearsal) -> dict[str, str]:
    return dict(json.loads((run.folder / "sources.json").read_text()))


def refused(act: Callable[[], Any], role: str = "base model") -> None:
    with pytest.raises(
        ConfigError, match=f"^the {role} .* is not what the run in .* began with: put it back as it was, or"
    ):
        act()


# -- files --


def test_weights_are_decided_by_the_configuration_and_all_safetensors_or_by_a_gguf_file(base: Path) -> None:
    (base / "reward_head.safetensors").write_bytes(b"head")
    (base / "folder.safetensors").mkdir()
    expected = ["config.json", "model.safetensors", "reward_head.safetensors"]
    assert [file.name for file in weight_files(base)] == expected
    (base.parent / "m.gguf").write_bytes(b"GGUF")
    assert weight_files(base.parent / "m.gguf") == [base.parent / "m.gguf"] and weight_files(base / "nowhere") == []


def test_a_digest_is_of_each_files_content_and_of_no_name(base: Path) -> None:
    before = files_digest(weight_files(base))
    shutil.copytree(base, base.parent / "moved")
    (base.parent / "moved" / "tokenizer.json").write_text("{}")
    assert files_digest(weight_files(base.parent / "moved")) == before and len(before) == 64
    for name in ("config.json", "model.safetensors"):
        (base / name).write_bytes((base / name).read_bytes() + b" ")
        assert files_digest(weight_files(base)) != before
        before = files_digest(weight_files(base))


# -- a run --


def test_a_run_that_goes_on_refuses_another_model_and_one_without_a_step_takes_it(base: Path) -> None:
    run = run_in(base)
    run.expect_same("teacher", base)
    first = kept(run)
    trained_on(base)
    run.expect_same("teacher", base)  # nothing has come of the old one
    assert first.keys() == {"teacher"} and kept(run)["teacher"] != first["teacher"]
    begun(run).expect_same("teacher", base)
    shutil.copytree(base, base.parent / "moved")
    run.expect_same("teacher", base.parent / "moved")
    trained_on(base)
    with pytest.raises(ConfigError) as raised:
        run.expect_same("teacher", base)
    assert str(raised.value) == (
        f"the teacher {base} is not what the run in {run.folder} began with: put it back as it was, or begin the run anew "
        "in another folder"
    )
    refused(lambda: run.expect_same("teacher", base), "teacher")  # a refusal keeps nothing
    run.expect_same("reward model", base)
    assert kept(run).keys() == {"teacher", "reward model"}


def test_a_run_of_an_older_version_goes_on_and_keeps_what_it_finds(base: Path) -> None:
    run = begun(run_in(base))
    run.expect_same("base model", base)
    trained_on(base)
    refused(lambda: run.expect_same("base model", base))


def test_damaged_checkpoints_alone_that_were_moved_away_are_no_step(base: Path) -> None:
    run = run_in(base)
    run.expect_same("base model", base)
    (run.folder / "checkpoints" / "step-000002.damaged").mkdir(parents=True)
    trained_on(base)
    run.expect_same("base model", base)


def test_without_checkpoints_nothing_is_hashed_but_a_step_that_is_there_is_compared(base: Path) -> None:
    run = run_in(base, checkpoint_every=0)
    run.expect_same("base model", base)
    assert not (run.folder / "sources.json").exists() and not (base.parent / "home" / "hashes").exists()
    run_in(base).expect_same("base model", base)
    trained_on(base)
    refused(lambda: begun(run).expect_same("base model", base))


def test_of_processes_that_train_together_the_first_one_keeps_the_digest(base: Path) -> None:
    def act(number: int) -> bool:
        run = Rehearsal(base.parent / str(number), LoopSettings(checkpoint_every=2))
        run.expect_same("base model", base)
        return (run.folder / "sources.json").exists()

    assert in_processes(2, act) == [True, False]


def test_a_model_that_is_missing_is_left_to_the_one_who_loads_it(base: Path) -> None:
    run = begun(run_in(base))
    run.expect_same("base model", base)
    run.expect_same("base model", base / "nowhere")
    assert len(kept(run)) == 1


@pytest.mark.parametrize("content", ["{", "[1]", '"text"', "7"])
def test_a_list_of_models_that_cannot_be_read_is_told_with_its_name(content: str, base: Path) -> None:
    run = begun(run_in(base))
    (run.folder / "sources.json").write_text(content)
    with pytest.raises(StoreError, match=r"sources\.json cannot be read \(.*\): remove it if the models"):
        run.expect_same("base model", base)


def test_a_list_of_models_is_no_link_and_a_folder_that_cannot_be_written_is_told(base: Path) -> None:
    run = run_in(base)
    (base.parent / "mine").write_text("{}")
    (run.folder / "sources.json").symlink_to(base.parent / "mine")
    with pytest.raises(StoreError, match=r"sources\.json"):
        run.expect_same("base model", base)
    with (
        pytest.raises(StoreError, match="is a link"),
        opened(run.folder, "sft", build(recipe("sft").Config, {"data": "x"})),
    ):
        pass
    assert (base.parent / "mine").read_text() == "{}"
    shutil.rmtree(run.folder)
    with pytest.raises(StoreError, match=r"sources\.json cannot be written \(.*\): make room"):
        run.expect_same("base model", base)


# -- the model to train --


@pytest.mark.parametrize(("adapter", "has_reference"), [(LORA, False), (NONE, True), (LORA, True)])
def test_a_base_beneath_an_adapter_or_of_a_reference_stays(adapter: Any, has_reference: bool, base: Path) -> None:
    run = run_in(base)
    run.prepared(base, adapter, has_reference=has_reference)
    begun(run).prepared(base, adapter, has_reference=has_reference)
    trained_on(base)
    refused(lambda: run.prepared(base, adapter, has_reference=has_reference))


def test_a_base_of_which_all_weights_are_trained_may_change_once_there_is_a_step(base: Path) -> None:
    run = run_in(base)
    run.prepared(base, NONE)
    trained_on(base)
    begun(run).prepared(base, NONE)
    assert not (run.folder / "sources.json").exists()


def adapter_in(folder: Path, base: Path) -> Path:
    model = weights.load(base)
    folder.parent.mkdir(exist_ok=True)
    return adapters_tiny.write(folder, model, adapters_tiny.adapter(model, 3))


@pytest.mark.parametrize("agents", [(), ("lead", "worker")])
def test_an_adapter_to_begin_with_keeps_its_scale_and_beside_a_reference_its_weights(
    agents: tuple[str, ...], base: Path
) -> None:
    places = [adapter_in(base.parent / "first" / agent, base) for agent in agents or ("",)]
    settings, run, role = (
        AdapterSettings("lora", begin_with=base.parent / "first"),
        run_in(base),
        "adapter to begin with",
    )
    run.prepared(base, settings, agents=agents)
    begun(run)
    trained_on(places[-1], "adapter_model.safetensors")
    run.prepared(base, settings, agents=agents)  # its weights are those of the checkpoint
    config = places[-1] / "adapter_config.json"
    before = config.read_text()
    config.write_text(json.dumps({**json.loads(before), "lora_alpha": 99}))
    refused(lambda: run.prepared(base, settings, agents=agents), role)
    config.write_text(before)
    run.prepared(base, settings, agents=agents)
    shutil.rmtree(run.folder)
    compared = run_in(base)
    compared.prepared(base, settings, agents=agents, has_reference=True)
    trained_on(places[-1], "adapter_model.safetensors")
    refused(lambda: begun(compared).prepared(base, settings, agents=agents, has_reference=True), role)


def test_an_adapter_to_begin_with_that_is_missing_is_refused_before_the_model_is_loaded(base: Path) -> None:
    (base / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelFileError, match="is not a folder: an adapter is"):
        run_in(base).prepared(base, AdapterSettings("lora", begin_with=base.parent / "nowhere"))


# -- recipes --


def recipe(name: str) -> Any:
    return importlib.import_module(f"firsthand.train.recipes.{name}")


def roles(name: str, base: Path, **settings: Any) -> set[str]:
    """What a recipe keeps digests of, the data and the model given."""
    data = write_lines(base.parent / "data.jsonl", PAIRS if name != "distill" else
                       [{"prompt": "say", "completion": "sum"}, {"prompt": "b", "completion": "no"}])  # fmt: skip
    _, run, _ = rehearsed(name, base.parent / "run", data=str(data), model=str(base), **settings)
    return set(kept(run)) if (run.folder / "sources.json").exists() else set()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("dpo", {"base model"}), ("ipo", {"base model"}), ("kto", {"base model"}), ("orpo", set()), ("simpo", set())],
)
def test_preferences_that_are_compared_with_a_reference_keep_its_digest(
    name: str, expected: set[str], base: Path
) -> None:
    assert roles(name, base) == expected


def test_a_distillation_keeps_its_teachers_digest_and_not_its_students(base: Path) -> None:
    other = write_model(base.parent / "teacher", max_position=96)
    trained_on(other)
    assert roles("distill", base, teacher=str(other), holdout=0.0) == {"teacher"}
    run = begun(run_in(base))
    assert kept(run)["teacher"] == files_digest(weight_files(other)) != files_digest(weight_files(base))


@pytest.fixture
def benchmark(base: Path) -> str:
    (base.parent / "own.py").write_text(
        "from firsthand.benchmark import Benchmark\nfrom firsthand.task import Task\n\n"
        "def length(task, trace):\n    return 1.0\n\n"
        "def own():\n    return Benchmark('own', lambda seed: [Task('a', 'say'), Task('b', 'go')], (length,))\n"
    )
    return str(base.parent / "own.py")


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("grpo", {"kl": 0.0}, set()),
        ("grpo", {"kl": 0.1}, {"base model"}),
        ("rloo", {"kl": 0.1}, {"base model"}),
        ("rloo", {"kl": 0.0}, set()),
        ("cispo", {"reward_model": True}, {"reward model"}),
        ("cispo", {"adapter": "lora", "rank": 2}, {"base model"}),
        ("ppo", {}, {"base model"}),
    ],
)
def test_reinforcement_keeps_digests_of_its_reference_and_its_reward_model(
    name: str, settings: dict[str, Any], expected: set[str], base: Path, benchmark: str
) -> None:
    if settings.get("reward_model"):
        graded = shutil.copytree(base, base.parent / "graded")
        size = weights.load(base).architecture.hidden_size
        head = {"weight": torch.zeros(1, size), "bias": torch.zeros(1), "mean": torch.zeros(())}
        save_file(head, graded / "reward_head.safetensors")
        settings = {"reward_model": str(graded)}
    _, run, _ = rehearsed(name, base.parent / "run", benchmark=benchmark, model=str(base), **settings)
    assert (set(kept(run)) if (run.folder / "sources.json").exists() else set()) == expected


@pytest.mark.parametrize(("settings", "is_known"), [({"adapter": "lora", "rank": 2}, False), ({}, True)])
def test_rollouts_of_an_adapter_are_kept_under_their_base_too(
    settings: dict[str, Any], is_known: bool, base: Path, benchmark: str
) -> None:
    def kept_by(out: str) -> Any:
        _, run, _ = rehearsed("cispo", base.parent / out, benchmark=benchmark, model=str(base), **settings)
        found = run.told["batches"].kept
        found.folder = base.parent / "rollouts"
        return found

    trace = Trace(new_trace_id(), "own", "a", {"name": "a"}, 0, 0, "", 0.1, answer="b", place="p1")
    first = kept_by("one")
    assert first.begin("round", 1, "weights") == {}
    first.add(trace)
    assert kept_by("two").begin("round", 1, "weights").keys() == {trace.place}
    trained_on(base)  # the digest of the weights is that of a fresh adapter, as before
    assert bool(kept_by("three").begin("round", 1, "weights")) is is_known


# -- from end to end --


@pytest.mark.slow
def test_an_adapter_is_not_gone_on_with_over_a_base_that_was_trained_on(base: Path) -> None:
    data = write_lines(base.parent / "chats.jsonl", [{"prompt": f"say {at}", "completion": "sum"} for at in range(4)])
    values = {"data": str(data), "model": str(base), "steps": 2, "batch_size": 2, "holdout": 0.0, "checkpoint_every": 1}

    def train(adapter: str, *, steps: int = 2, resume: bool = False) -> Path:
        config = build(
            recipe("sft").Config,
            {**values, "steps": steps, "adapter": adapter, **({"rank": 2} if adapter != "none" else {})},
        )
        with opened(base.parent / adapter, "sft", config, resume=resume) as run:
            return Path(recipe("sft").sft(config, run))

    for adapter in ("lora", "none"):
        train(adapter)
        train(adapter, steps=3, resume=True)
    trained_on(base)
    refused(lambda: train("lora", steps=4, resume=True))
    assert train("none", steps=4, resume=True).is_dir()
