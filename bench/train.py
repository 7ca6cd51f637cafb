"""Speed of a training step beside Hugging Face's Trainer and TRL's SFTTrainer and GRPOTrainer, in turn.

One model and the same data for all.

    python bench/train.py --steps 12 --rounds 3                 # 13.8M parameters, float32 and bfloat16
    python bench/train.py --mixed --dtypes bfloat16             # rows of 16 to 256 tokens: we pack, the others pad
    python bench/train.py --steps 4 --rounds 1 --quick          # a small model: does it run?

Each measurement is a process of its own. The model is written once as a folder and read by all. The figure is tokens per
second of the median step after two warm-up steps, by the clock and by processor time, the median over rounds, of which every
second one goes in the opposite order. MFU divides its FLOPs (6 for each weight of a matrix, and 12 L H K T for attention,
without the half that a causal mask saves) by a matrix product of 2048 x 2048 x 2048 in the same dtype and process. TRL is
asked as it comes (it checkpoints activations and logs entropy) and with checkpointing off.

A GRPO step is that of 32 prompts of `recurrence` with 8 answers each: rollouts, rewards and update together, no KL, one
update, float32. The policy is fresh, of 10.6M parameters, and fills its 48 tokens; with --quick it is the model of
`toy_reasoner`, 0.1M parameters, with answers of at most 14 tokens. TRL generates with transformers, for vLLM needs a GPU.

Needs `pip install transformers accelerate datasets trl` in this environment.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from firsthand.nn import weights
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.matrices import num_parameters
from firsthand.train.bpe import train_tokenizer
from firsthand.train.fit import fit
from firsthand.train.objective import Objective
from firsthand.train.optimizers import optimizer_for
from firsthand.train.recipe_settings import ModelSettings, OptimizerSettings
from firsthand.train.streams import Stream

WHO = {
    "firsthand": "firsthand",
    "trainer": "Trainer (transformers)",
    "sft": "SFTTrainer (TRL), as it comes",
    "sft-plain": "SFTTrainer (TRL), checkpointing off",
}
GRPO = {"grpo": "firsthand", "grpo-trl": "GRPOTrainer (TRL)"}
PROMPTS, GROUP = 32, 8
WARM_UP = 2


class Clock:
    """Times of the ends of steps."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def mark(self) -> None:
        """A step has ended."""
        self.marks.append((time.perf_counter(), time.process_time()))

    def log(self, metrics: Any, *, step: int) -> None:
        """A sink of metrics for our loop."""
        self.mark()

    def seconds(self) -> tuple[float, float]:
        """Median seconds of a step by the clock and of the processor, without the first ones."""
        pairs = list(zip(self.marks[WARM_UP - 1 :], self.marks[WARM_UP:], strict=False))
        return tuple(statistics.median(after[i] - before[i] for before, after in pairs) for i in (0, 1))  # type: ignore[return-value]


class Rows:
    """Batches for our loop."""

    def __init__(self, batches: list[list[torch.Tensor]]):
        self.batches = batches

    def __iter__(self) -> Any:
        for batch in self.batches:
            yield [Stream(row.numpy(), ce=torch.ones(len(row)).numpy()) for row in batch]

    def state(self) -> dict[str, Any]:
        """Not resumed."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Not resumed."""


def rows(vocab_size: int, steps: int, batch: int, length: int, mixed: bool) -> list[list[torch.Tensor]]:
    """The token ids of each step, drawn with a fixed seed; `mixed` rows have 16 to `length` tokens, short ones as often as
    long ones in proportion (log-uniform), and every step the same ones."""
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(batch, generator=generator).tolist()
    lengths = [round(16 * (length / 16) ** each) if mixed else length for each in share]
    return [[torch.randint(3, vocab_size, (each,), generator=generator) for each in lengths] for _ in range(steps)]


def ours(folder: Path, batches: list[list[torch.Tensor]], dtype: str, clock: Clock) -> None:
    """Our loop."""
    model = weights.load(folder)
    optimizer = optimizer_for(model, OptimizerSettings(lr=1e-4))
    fit(
        model, Rows(batches), objective=Objective(ce=1.0), optimizer=optimizer, schedule=lambda step: 1.0, track=clock,
        steps=len(batches), micro_tokens=sum(map(len, batches[0])), dtype=getattr(torch, dtype),
    )  # fmt: skip


def theirs(who: str, folder: Path, batches: list[list[torch.Tensor]], dtype: str, clock: Clock) -> None:
    """Hugging Face's Trainer, or TRL's SFTTrainer."""
    import datasets
    import transformers

    class Marks(transformers.TrainerCallback):
        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            clock.mark()

    ids = [row.tolist() for batch in batches for row in batch]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    more = {
        "output_dir": tempfile.mkdtemp(), "max_steps": len(batches), "report_to": [], "bf16": dtype == "bfloat16",
        "per_device_train_batch_size": len(batches[0]), "learning_rate": 1e-4, "save_strategy": "no", "use_cpu": True,
        "lr_scheduler_type": "constant", "train_sampling_strategy": "sequential",
        "logging_strategy": "no", "dataloader_num_workers": 0, "disable_tqdm": True,
    }  # fmt: skip
    if who == "trainer":
        data = datasets.Dataset.from_dict({"input_ids": ids})
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        tokenizer.pad_token = tokenizer.eos_token
        trainer = transformers.Trainer(
            model=model, args=transformers.TrainingArguments(**more), train_dataset=data, callbacks=[Marks()],
            data_collator=transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False),
        )  # fmt: skip
    else:
        import trl

        data = datasets.Dataset.from_dict({"input_ids": ids})
        plain = {"gradient_checkpointing": False} if who == "sft-plain" else {}
        trainer = trl.SFTTrainer(
            model=model, args=trl.SFTConfig(**more, **plain, max_length=None), train_dataset=data, callbacks=[Marks()],
            processing_class=transformers.AutoTokenizer.from_pretrained(folder),
        )  # fmt: skip
    trainer.train()


class Watched:
    """A Track that marks the clock at every step."""

    def __init__(self, track: Any, clock: Clock):
        self.track, self.clock = track, clock

    def log(self, metrics: Any, *, step: int) -> None:
        """Log, and mark the end of the step."""
        self.track.log(metrics, step=step)
        self.clock.mark()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.track, name)


def our_grpo(folder: Path, steps: int, max_tokens: int, clock: Clock) -> None:
    """Steps of our recipe, rollouts included."""
    from firsthand.config import build
    from firsthand.train.recipes import grpo
    from firsthand.train.training_run import opened

    config = build(grpo.Config, {
        "benchmark": "recurrence", "model": str(folder), "prompts": PROMPTS, "group_size": GROUP, "kl": 0.0, "steps": steps,
        "max_tokens": max_tokens, "lr": 1e-6, "checkpoint_every": 0,
    })  # fmt: skip
    with opened(Path(tempfile.mkdtemp()) / "run", "grpo", config) as run:
        run.track = Watched(run.track, clock)  # type: ignore[assignment]
        grpo.grpo(config, run)


def their_grpo(folder: Path, steps: int, max_tokens: int, clock: Clock) -> None:
    """Steps of TRL's GRPOTrainer on the same tasks, with the same reward."""
    import datasets
    import transformers
    import trl

    from firsthand.benchmarks.recurrence import recurrence

    class Marks(transformers.TrainerCallback):
        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            clock.mark()

    def last_state(completions: list[str], answer: list[str], **_: Any) -> list[float]:
        return [
            float(text.rpartition(":")[2].strip() == right) for text, right in zip(completions, answer, strict=True)
        ]

    tasks = recurrence().tasks(0)[: PROMPTS * steps]
    data = datasets.Dataset.from_dict(
        {"prompt": [task.prompt for task in tasks], "answer": [task.secret["answer"] for task in tasks]}
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    arguments = trl.GRPOConfig(
        output_dir=tempfile.mkdtemp(), max_steps=steps, report_to=[], use_cpu=True, bf16=False, learning_rate=1e-6,
        per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP, max_completion_length=max_tokens, beta=0.0,
        loss_type="grpo", temperature=1.0, top_k=0, top_p=1.0, gradient_checkpointing=False, save_strategy="no",
        logging_strategy="no", disable_tqdm=True, lr_scheduler_type="constant",
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), reward_funcs=last_state,
        args=arguments, train_dataset=data, processing_class=tokenizer, callbacks=[Marks()],
    )  # fmt: skip
    trainer.train()


def fresh_policy(folder: Path) -> Path:
    """A model of six layers with fresh weights, which fills any limit of tokens."""
    from firsthand.benchmarks.recurrence import MODULUS
    from firsthand.train.model_folder import save_model
    from firsthand.train.toy_tasks.toy_models import toy_model

    _, tokenizer = toy_model([*map(str, range(MODULUS)), "=", "?", ":"], seed=0, context=128)
    shape = ModelSettings(layers=6, hidden_size=384, heads=6, context=128)
    save_model(initialise(Decoder(shape.architecture(tokenizer.vocab_size))), tokenizer, folder)
    return folder


def toy_reasoner(folder: Path) -> Path:
    """The model of the recipe after a few steps: what it answers is of any length up to the limit."""
    from firsthand.config import build
    from firsthand.train.recipes import toy_reasoner as recipe
    from firsthand.train.training_run import opened

    config = build(recipe.Config, {"steps": 60})
    with opened(folder, "toy_reasoner", config) as run:
        return recipe.toy_reasoner(config, run)


def gemm_flops(dtype: str) -> float:
    """FLOP/s of a matrix product, by the clock: the best of several."""
    a, b = (torch.randn(2048, 2048).to(getattr(torch, dtype)) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * 2048**3 / best


def worker(spec: dict[str, Any]) -> dict[str, float]:
    """One measurement, in a process of its own."""
    torch.set_num_threads(spec["threads"])
    folder, clock = Path(spec["folder"]), Clock()
    if spec["who"] in GRPO:
        (our_grpo if spec["who"] == "grpo" else their_grpo)(folder, spec["steps"], spec["max_tokens"], clock)
        wall, cpu = clock.seconds()
        return {"wall": wall, "cpu": cpu}
    batches = rows(spec["vocab_size"], spec["steps"], spec["batch"], spec["length"], spec["mixed"])
    if spec["who"] == "firsthand":
        ours(folder, batches, spec["dtype"], clock)
    else:
        theirs(spec["who"], folder, batches, spec["dtype"], clock)
    wall, cpu = clock.seconds()
    tokens = sum(map(len, batches[0]))
    return {"wall": tokens / wall, "cpu": tokens / cpu, "gemm": gemm_flops(spec["dtype"])}


def measure(spec: dict[str, Any]) -> dict[str, float]:
    """Run a worker and read what it found."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(spec["threads"]), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, __file__, "--worker", json.dumps(spec)], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise SystemExit(f"{spec['who']} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Parse, measure in turn, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--mixed", action="store_true", help="rows of 16 to --length tokens; padding is no token")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--who", default=",".join([*WHO, *GRPO]), help=f"of {', '.join([*WHO, *GRPO])}")
    parser.add_argument("--quick", action="store_true", help="a model of 0.9M parameters")
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(worker(json.loads(args.worker))))
        return
    if args.steps < WARM_UP + 2:
        raise SystemExit(f"--steps is {args.steps}: give {WARM_UP + 2} or more, of which {WARM_UP} are warm-up")
    shape = ModelSettings(layers=4, hidden_size=128, heads=4) if args.quick else ModelSettings(
        layers=6, hidden_size=384, heads=6, context=1024, tie_embeddings=False, intermediate_size=1088
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        train_tokenizer(["a short text"], folder, vocab_size=300)
        architecture = shape.architecture(1024 if args.quick else 4096)
        weights.save(initialise(Decoder(architecture)), folder)
        a = architecture
        matrices = num_parameters(a) - (0 if a.tie_embeddings else a.vocab_size * a.hidden_size)
        flops = 6 * matrices + 12 * a.num_layers * a.num_heads * a.head_dim * args.length
        print(f"{num_parameters(a) / 1e6:.1f}M parameters, batch {args.batch} x {args.length}, {args.threads} threads, "
              f"torch {torch.__version__}, {platform.processor() or platform.machine()}")  # fmt: skip
        common = {"steps": args.steps, "threads": args.threads}
        steps_of = [who for who in args.who.split(",") if who in WHO]
        for dtype in args.dtypes.split(",") if steps_of else []:
            more = {
                "batch": args.batch,
                "length": args.length,
                "mixed": args.mixed,
                "vocab_size": a.vocab_size,
                "dtype": dtype,
            }
            found = in_turn(steps_of, args.rounds, {**common, **more, "folder": str(folder)})
            print(f"\n| {dtype} | tokens/s | tokens/s of processor time | ours over it | MFU | GEMM, GFLOP/s |")
            print("|---|---|---|---|---|---|")
            for who, rounds in found.items():
                wall, cpu, gemm = (statistics.median(one[kind] for one in rounds) for kind in ("wall", "cpu", "gemm"))
                mfu = statistics.median(one["wall"] * flops / one["gemm"] for one in rounds)
                ours_over = over(found, who, "firsthand", "cpu")
                print(f"| {WHO[who]} | {wall:,.0f} | {cpu:,.0f} | {ours_over} | {mfu:.2f} | {gemm / 1e9:.0f} |")
        if policies := [who for who in args.who.split(",") if who in GRPO]:
            policy = (toy_reasoner if args.quick else fresh_policy)(Path(temporary) / "policy")
            found = in_turn(
                policies, args.rounds, {**common, "folder": str(policy), "max_tokens": 14 if args.quick else 48}
            )
            print("\n| GRPO step | seconds | seconds of processor time | its time over ours |\n|---|---|---|---|")
            for who, rounds in found.items():
                wall, cpu = (statistics.median(one[kind] for one in rounds) for kind in ("wall", "cpu"))
                print(f"| {GRPO[who]} | {wall:.3f} | {cpu:.3f} | {over(found, 'grpo', who, 'cpu')} |")


def in_turn(who: list[str], rounds: int, spec: dict[str, Any]) -> dict[str, list[dict[str, float]]]:
    """Measurements of each, in turn; every second round in the opposite order, so that none always comes first."""
    found: dict[str, list[dict[str, float]]] = {each: [] for each in who}
    for number in range(rounds):
        for each in who if number % 2 == 0 else reversed(who):
            found[each].append(measure({**spec, "who": each}))
    return found


def over(found: dict[str, list[dict[str, float]]], who: str, base: str, kind: str) -> str:
    """The median of `base` over that of `who`; a dash if one was not measured."""
    if who not in found or base not in found:
        return "-"
    return f"{statistics.median(e[kind] for e in found[base]) / statistics.median(e[kind] for e in found[who]):.2f}"


if __name__ == "__main__":
    main()
