"""`firsthand train`: from text to a model that is served, and runs that are cut short, refused and resumed."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from firsthand import Agent, Task, catalog, run_sync
from firsthand.errors import ConfigError
from firsthand.message import user
from firsthand.nn import weights
from firsthand.nn.blocks.attention import Packed
from firsthand.patterns.direct import direct
from firsthand.rollout import rollout
from firsthand.sampling import Sampling
from firsthand.system.lock import claimed
from firsthand.tokens import pretrained
from firsthand.train.live_line import LiveLine
from firsthand.train.model_folder import save_model
from firsthand.train.training_run import is_made_here, read_metrics
from thorough import repetitions
from tiny import write_model

TEXT = "".join(f"def f{n}(x):\n    return x + {n}\n\n" for n in range(60))
SMALL = ("--vocab-size", "300", "--batch-tokens", "96", "--eval-every", "4", "model.layers=1", "model.hidden_size=32",
         "model.heads=2", "--model.context", "24", "--checkpoint-every", "2", "--warmup-steps=2")  # fmt: skip


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "code.txt"
    path.write_text(TEXT)
    return path


def chats(path: Path, count: int = 12) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": f"What is {n} + 1?"}, {"role": "assistant", "content": f"{n + 1}"}]}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
def test_a_model_is_trained_from_nothing_and_answers(tmp_path, text, cli):
    out = tmp_path / "run"
    code, told, live = cli("train", "pretrain", str(text), "--steps", "6", "--out", str(out), *SMALL)
    assert code == 0 and f"firsthand serve {out}/model" in told
    rows = read_metrics(out)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6] and rows[-1]["loss"] < rows[0]["loss"]
    assert [row["step"] for row in rows if "bits_per_byte" in row] == [4, 6]
    assert "step 6/6" in live and "bits per byte" in live
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-000004", "step-000006"]
    model = catalog.model(str(out / "model"))
    completion = run_sync(model.complete((user("def f1"),), Sampling(max_tokens=4, seed=0)))[0]
    assert completion.message.sampled is not None and len(completion.message.sampled.token_ids) <= 4
    trace = run_sync(rollout(Agent("a", model, direct, sampling=Sampling(max_tokens=4)), Task("t", "x = "), seed=0))
    assert trace.error is None
    model.close()


@pytest.mark.slow
def test_the_saved_model_computes_what_the_trained_one_did(tmp_path, text, cli):
    out = tmp_path / "run"
    cli("train", "pretrain", str(text), "--steps", "4", "--out", str(out), *SMALL)
    from safetensors.torch import load_file

    last = load_file(out / "checkpoints" / "step-000004" / "weights.safetensors")
    saved = weights.load(out / "model")
    assert all(torch.equal(weight, last[name]) for name, weight in saved.named_parameters())
    body = json.loads((out / "model" / "config.json").read_text())
    tokenizer = pretrained.load(out / "model")
    assert body["eos_token_id"] == tokenizer.eos_id and body["max_position_embeddings"] == 24
    assert json.loads((out / "model" / "generation_config.json").read_text())["eos_token_id"][0] == tokenizer.eos_id


@pytest.mark.slow
def test_fine_tuning_shows_its_masks_and_teaches_the_answers(tmp_path, cli):
    base = write_model(tmp_path / "base")
    code, told, _ = cli(
        "train", "sft", str(chats(tmp_path / "chats.jsonl")), "--model", str(base), "--epochs", "20", "--out",
        str(tmp_path / "run"), "--lr", "3e-3", "--show", "1", "--batch-size", "4", "--eval-every", "20", "--holdout", "0.1",
    )  # fmt: skip
    assert code == 0 and "12 conversations" in told and "26 of them trained on" in told
    assert "<|im_start|>user\nWhat is 0 + 1?<|im_end|>\n<|im_start|>assistant\n⟦1<|im_end|>⟧\n" in told
    rows = read_metrics(tmp_path / "run")
    assert len(rows) == 55 and rows[-1]["loss"] < 0.5 * rows[0]["loss"] and "held_out_loss" in rows[-1]
    model = catalog.model(str(tmp_path / "run" / "model"))
    (answer,) = run_sync(model.complete((user("What is 3 + 1?"),), Sampling(max_tokens=8, temperature=0)))
    assert answer.finish_reason == "stop" and answer.message.text.strip().isdigit()
    model.close()


@pytest.mark.slow
def test_equal_seeds_give_equal_models_and_other_seeds_others(tmp_path, text, cli):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        cli("train", "pretrain", str(text), "--steps", "2", "--seed", seed, "--out", str(tmp_path / name), *SMALL)
    a, b, c = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.slow
def test_settings_come_from_toml_and_words_override_them(tmp_path, text, cli):
    (tmp_path / "run.toml").write_text(
        'vocab-size = 280\nbatch_tokens = 50\n[loop]\nsteps = 3\nseed = 4\n[optimizer]\nlr = 0.5\noptimizer = "muon"\n'
        "[model]\nlayers = 1\nhidden_size = 32\nheads = 2\n"
    )
    words = ("train", "pretrain", str(text), "--config", str(tmp_path / "run.toml"), "--warmup-steps", "1")
    assert cli(*words, "--out", str(tmp_path / "a"), "optimizer.lr=0.25", "loop.steps=1")[0] == 0
    found = json.loads((tmp_path / "a" / "recipe.json").read_text())["settings"]
    assert (found["optimizer"]["lr"], found["optimizer"]["optimizer"], found["optimizer"]["beta2"]) == (
        0.25,
        "muon",
        0.95,
    )
    assert (found["loop"]["steps"], found["loop"]["seed"], found["vocab_size"]) == (1, 4, 280)
    assert found["schedule"] == {"schedule": "cosine", "warmup_steps": 1, "decay_steps": 0, "final_lr": 0.1}
    code, _, error = cli(*words, "optimizer.learning_rate=1")
    assert code == 2 and "optimizer has no setting 'learning_rate'" in error


@pytest.mark.slow
def test_a_recipes_own_defaults_stay_where_one_setting_of_a_part_is_given(tmp_path, cli):
    base = write_model(tmp_path / "base")
    data = chats(tmp_path / "chats.jsonl")
    cli(
        "train",
        "sft",
        str(data),
        "--model",
        str(base),
        "--beta1",
        "0.8",
        "--steps",
        "1",
        "--out",
        str(tmp_path / "run"),
    )
    found = json.loads((tmp_path / "run" / "recipe.json").read_text())["settings"]["optimizer"]
    assert (found["lr"], found["weight_decay"], found["beta1"]) == (1e-4, 0.0, 0.8)


@pytest.mark.slow
def test_a_folder_with_a_run_is_resumed_and_never_begun_anew(tmp_path, text, cli):
    out, whole = tmp_path / "run", tmp_path / "whole"
    words = ("train", "pretrain", str(text), "--schedule", "constant", *SMALL)
    cli(*words, "--steps", "7", "--out", str(whole))
    cli(*words, "--steps", "3", "--out", str(out))
    code, _, error = cli(*words, "--steps", "7", "--out", str(out))
    assert code == 2 and f"firsthand train --resume {out}" in error
    code, _, _ = cli("train", "--resume", str(out), "--steps", "7")
    assert code == 0
    names = ("model/model.safetensors", "model/tokenizer.json")
    assert all((out / name).read_bytes() == (whole / name).read_bytes() for name in names)
    losses = [[(row["step"], row["loss"]) for row in read_metrics(each)] for each in (out, whole)]
    assert losses[0] == losses[1]
    code, _, error = cli("train", "--resume", str(out), "--vocab-size", "400")
    assert code == 2 and "does not take '--vocab-size'" in error
    text.write_text(TEXT + "more = 1\n" * 50)
    code, _, error = cli("train", "--resume", str(out), "loop.steps=9")
    assert code == 1 and "the data is not what the run began with" in error


def test_a_run_from_another_home_loads_no_file_and_no_address_that_it_names(tmp_path, monkeypatch, cli):
    recipe, ran, out = tmp_path / "evil.py", tmp_path / "ran", tmp_path / "run"
    recipe.write_text(f"open({str(ran)!r}, 'w')\ndef evil(config, run):\n    return run.folder\n")
    out.mkdir()

    def given(name, **settings):
        (out / "recipe.json").write_text(json.dumps({"recipe": name, "settings": settings, "seal": "0" * 64}))
        return cli("train", "--resume", str(out))

    for kind, body in (
        ("recipe", (f"{recipe}:evil", {})),
        ("benchmark", ("grpo", {"benchmark": f"{recipe}:evil"})),
        ("pattern", ("grpo", {"benchmark": "arithmetic", "rollouts": {"pattern": f"{recipe}:evil"}})),
        ("tool", ("grpo", {"benchmark": "arithmetic", "rollouts": {"tools": ["calculator", "mcp:evil"]}})),
        ("model", ("distill", {"data": "x", "teacher": "openai:x@http://evil"})),
        ("model", ("grpo", {"benchmark": "arithmetic", "rollouts": {"sampler": "http://evil/v1"}})),
    ):
        code, _, error = given(body[0], **body[1])
        assert code == 2 and f"was made elsewhere and names the {kind} " in error and error.endswith("add --trust\n")
    assert not ran.exists()
    code, _, error = cli("train", "--resume", str(out), "--trust")
    assert "elsewhere" not in error
    (out / "recipe.json").write_text(json.dumps({"recipe": f"{recipe}:evil", "settings": {}}))
    assert cli("train", f"--resume={out}", "--trust")[0] == 2 and ran.exists(), "it has no Config, and was loaded"


@pytest.mark.slow
def test_settings_carry_the_seal_of_this_home_until_somebody_edits_them(tmp_path, text, cli, monkeypatch):
    out = tmp_path / "run"
    assert cli("train", "pretrain", str(text), "--steps", "2", "--out", str(out), *SMALL)[0] == 0
    assert is_made_here(out)
    written = (out / "recipe.json").read_text()
    (out / "recipe.json").write_text(written.replace('"steps": 2', '"steps": 3'))
    assert not is_made_here(out) and not is_made_here(tmp_path / "none")
    for body in ("[]", "{", '{"seal": 1}'):
        (out / "recipe.json").write_text(body)
        assert not is_made_here(out)
    (out / "recipe.json").write_text(written)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "another"))
    assert not is_made_here(out)


def test_two_processes_on_one_folder_are_refused(tmp_path, text, cli):
    out = tmp_path / "run"
    out.mkdir()
    with claimed(out / "lock", lambda by: ConfigError(by)):
        code, _, error = cli("train", "pretrain", str(text), "--steps", "2", "--out", str(out), *SMALL)
    assert code == 2 and f"{out.name} is being run by process {os.getpid()}" in error
    assert not (out / "recipe.json").exists()


@pytest.mark.slow
def test_a_run_that_failed_before_its_first_step_is_begun_anew(tmp_path, text, cli):
    out = tmp_path / "run"
    words = ("train", "pretrain", str(text), "--steps", "2", "--out", str(out), *SMALL)
    assert cli(*words, "--warmup-steps", "3")[0] == 2 and not out.exists()
    out.mkdir()  # a folder that was there before is kept
    assert cli(*words, "--warmup-steps", "3")[0] == 2 and (out / "recipe.json").exists()
    assert cli(*words, "--vocab-size", "280")[0] == 0  # with a tokenizer of its own
    assert pretrained.load(out / "model").vocab_size <= 280
    assert json.loads((out / "recipe.json").read_text())["settings"]["vocab_size"] == 280


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pretrian",), "no recipe 'pretrian'; did you mean 'pretrain'?"),
        (("--steps", "3"), "'--steps' came before a recipe"),
        (("pretrain",), "required: DATA"),
        (("pretrain", "nowhere.txt"), "there is no file or folder nowhere.txt"),
        (("pretrain", "x", "--steps", "0"), "steps is 0: expected 1 or more"),
        (("sft", "nowhere.jsonl", "--model", "no-model"), "no model 'no-model'"),
        (("sft", "x.jsonl", "--batch-size", "0"), "batch_size is 0"),
        (("sft", "x.jsonl", "--epochs", "0"), "epochs is 0.0: expected above 0"),
        (("--resume", "nowhere"), "nowhere holds no training run"),
        (("--resume", "nowhere", "--out", "x"), "leave the recipe and --out out"),
        (("pretrain", "x", "--device", "cuda:99"), "no file or folder x"),
    ],
)
def test_words_that_make_no_sense_are_a_sentence(tmp_path, monkeypatch, cli, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    code, _, error = cli("train", *words)
    assert code in (1, 2) and message in error and len(error.strip().splitlines()) == 1, error


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [("sft",), ("dpo",), ("reward",), ("distill", "--teacher", "base"), ("toolformer", "--tools", "calculator")],
)
def test_a_wrong_line_is_told_before_the_weights_are_read(words, tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    file = write_model(tmp_path / "base") / "model.safetensors"
    tensors = load_file(file)
    del tensors[min(tensors)]  # only reading the weights finds it
    save_file(tensors, file)
    chats(Path("chats.jsonl"), 1)
    Path("bad.jsonl").write_text(
        '{"text": "a", "prompt": "a", "chosen": "b", "rejected": "c"}\n{"text": 3, "prompt": 4}\n'
    )
    code, _, said = cli("train", words[0], "bad.jsonl", "--model", "base", *words[1:], "--out", "out")
    assert code == 1 and said.startswith("firsthand: bad.jsonl:") and said.count("\n") == 1
    code, _, said = cli("train", "sft", "chats.jsonl", "--model", "base", "--holdout", "0", "--out", "other")
    assert code == 1 and "1 missing" in said


@pytest.mark.slow
def test_a_device_that_is_missing_is_a_sentence(text, tmp_path, cli):
    code, _, error = cli("train", "pretrain", str(text), "--device", "cuda:99", "--out", str(tmp_path / "run"), *SMALL)
    assert code == 2 and "device is 'cuda:99', which is not there" in error
    code, _, error = cli("train", "pretrain", str(text), "--device", "gpu", "--out", str(tmp_path / "b"), *SMALL)
    assert (
        code == 2 and error == "firsthand: device is 'gpu': give auto, cpu, cuda, or one of several, such as cuda:1\n"
    )


def test_an_interruption_before_the_first_checkpoint_says_that_training_begins_again(tmp_path, cli):
    (tmp_path / "cut.py").write_text(
        "from dataclasses import dataclass, field\n"
        "from firsthand.train.recipe_settings import LoopSettings\n\n"
        "@dataclass(frozen=True)\n"
        "class Config:\n"
        "    loop: LoopSettings = field(default_factory=LoopSettings)\n\n"
        "def cut(config, run):\n"
        "    raise KeyboardInterrupt\n"
    )
    code, _, error = cli("train", str(tmp_path / "cut.py"), "--out", str(tmp_path / "run"))
    assert code == 130 and "begins again: no checkpoint was written yet" in error and "newest" not in error


@pytest.mark.slow
def test_help_lists_the_recipes_and_their_settings_without_torch(tmp_path):
    code = (
        "import sys\n"
        "from firsthand.cli import main\n"
        "for words in (['train', '--help'], ['train', 'sft', '--help'], ['train', 'pretrain', '--help']):\n"
        "    try: main(words)\n"
        "    except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("False"), done.stderr
    assert re.search("pretrain +Pretrain a fresh model", done.stdout) and "--too-long {skip,cut,refuse}" in done.stdout
    told = " ".join(done.stdout.split())
    assert "[default: 0.0001]" in told and "[default: 0.001]" in told  # each recipe's own


@pytest.mark.slow
def test_a_recipe_of_ones_own_is_a_file(tmp_path, text, cli, monkeypatch):
    (tmp_path / "tiny_recipe.py").write_text(
        '"""A recipe of my own."""\n'
        "from dataclasses import dataclass, field\n"
        "from firsthand.train.recipe_settings import LoopSettings\n\n\n"
        "@dataclass(frozen=True)\n"
        "class Config:\n"
        '    word: str = "x"\n'
        '    """A word."""\n'
        "    loop: LoopSettings = field(default_factory=LoopSettings)\n\n\n"
        "def tiny_recipe(config, run):\n"
        "    print(config.word, run.loop.seed)\n"
        "    return run.folder\n"
    )
    monkeypatch.chdir(tmp_path)
    code, told, _ = cli("train", "tiny_recipe.py", "--word", "mine", "--seed", "3", "--out", str(tmp_path / "run"))
    assert code == 0 and told.startswith("mine 3\n")


@pytest.mark.slow
def test_a_tokenizer_without_a_folder_of_files_is_written_as_one(tmp_path):
    """As that of a GGUF file: what is written encodes, ends and renders the same."""
    base = write_model(tmp_path / "base")
    tokenizer, model = pretrained.load(base), weights.load(base)
    saved = pretrained.load(save_model(model, tokenizer, tmp_path / "saved"))
    assert saved.fingerprint == tokenizer.fingerprint and saved.chat_template == tokenizer.chat_template
    assert (saved.eos_id, saved.bos_id, saved.eos_ids) == (tokenizer.eos_id, tokenizer.bos_id, tokenizer.eos_ids)
    copied = save_model(model, tokenizer, tmp_path / "copied", base=base)
    assert (copied / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    ids = torch.tensor([3, 4, 5])
    loaded = weights.load(copied)
    hidden = [each(ids, torch.arange(3), Packed([3])) for each in (model, loaded)]
    assert torch.equal(*hidden)


@pytest.mark.slow
def test_a_model_that_does_not_fit_on_the_disk_leaves_its_checkpoint(tmp_path, text, cli):
    import resource

    out = tmp_path / "run"
    cli("train", "pretrain", str(text), "--steps", "2", "--out", str(out), *SMALL)
    size = (out / "model" / "model.safetensors").stat().st_size
    shutil.rmtree(out / "model")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        code, _, error = cli("train", "--resume", str(out))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1 and "so make room and resume" in error, error
    assert cli("train", "--resume", str(out))[0] == 0 and (out / "model" / "model.safetensors").stat().st_size == size


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_live_line_tells_loss_speed_norm_and_the_time_left():
    now, sink = [0.0], Terminal()
    line = LiveLine(100, sink, clock=lambda: now[0])
    metrics = {"loss": 2.5, "tokens_per_s": 1234.4, "grad_norm": 0.814, "lr": 3e-4}
    for step in (10, 11, 12):
        line.log(metrics, step=step)
        now[0] += 2.0
    assert sink.getvalue().split("\r\x1b[K")[-1] == (
        "step 12/100  loss 2.5000  gradient norm 0.81  lr 3.00e-04  tokens/s 1,234  3 min left"
    )
    quick = Terminal()
    line = LiveLine(100, quick, clock=lambda: 0.0)
    for step in range(1, 101):
        line.log(metrics, step=step)
    assert quick.getvalue().count("step") == 2 and quick.getvalue().endswith("1,234\n")  # the first and the last
    plain = io.StringIO()
    line = LiveLine(100, plain)
    for step in range(1, 101):
        line.log(metrics, step=step)
    assert len(plain.getvalue().splitlines()) == 20 and "\x1b" not in plain.getvalue()


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_bits_of_the_undisturbed_one(tmp_path, text, cli):
    steps = 40
    words = ("pretrain", str(text), "--steps", str(steps), *SMALL, "--checkpoint-every", "3", "--optimizer", "muon")
    cli("train", *words, "--out", str(tmp_path / "whole"))
    out, rng, kills = tmp_path / "killed", random.Random(0), 0
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    while not (out / "model" / "generation_config.json").exists():
        goal = rng.randrange(1, 14)
        ask = ("--resume", str(out)) if (out / "recipe.json").exists() else (*words, "--out", str(out))
        started = subprocess.Popen([sys.executable, "-m", "firsthand", "train", *ask], env=environment,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
        begun = len(read_metrics(out))
        deadline = time.monotonic() + 300
        while started.poll() is None and time.monotonic() < deadline and kills < repetitions(4, 2):
            rows = read_metrics(out)
            if rows and rows[-1]["step"] >= min(begun + goal, steps):
                started.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        _, errors = started.communicate(timeout=300)
        assert started.returncode in (0, -signal.SIGKILL), errors
    assert kills >= 2
    for name in ("model/model.safetensors", f"checkpoints/step-{steps:06d}/optimizer.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    losses = [[row["loss"] for row in read_metrics(tmp_path / each)] for each in ("killed", "whole")]
    assert losses[0] == losses[1] and len(losses[0]) == steps
