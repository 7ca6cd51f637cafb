"""Adapters beside a model: do their log-probs equal PEFT's, and what does a step cost with them.

    pip install peft transformers
    python bench/lora.py MODEL.gguf --peft
    python bench/lora.py MODEL.gguf

With `--peft` the model is read as float32, saved as a Hugging Face folder, and given random adapters by PEFT itself; then a
step of our engine with rows of all adapters is held against a forward of PEFT with each. Otherwise steps of one token for
each of several answers are timed, in processor time of this process, turn by turn: nobody with an adapter, all with the same
one, each with its own.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Request
from firsthand.model import Sampling
from firsthand.nn import weights
from firsthand.nn.decoder import Decoder
from firsthand.nn.lora import Adapter, LowRankUpdate

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def random_adapter(model: Decoder, seed: int, rank: int) -> Adapter:
    """One of every projection."""
    generator = torch.Generator().manual_seed(seed)
    deltas = {}
    with torch.device("meta"):
        plain = Decoder(model.architecture)
    for name, module in plain.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            a = torch.randn(rank, module.in_features, generator=generator) * 0.02
            b = torch.randn(module.out_features, rank, generator=generator) * 0.02
            deltas[f"{name}.weight"] = LowRankUpdate(a, b, 2.0)
    return Adapter(Path(f"random-{seed}"), deltas)


def compare(path: Path, *, adapters: int, rank: int, num_tokens: int) -> None:
    """Print the largest difference of a log-prob between PEFT and a step with all adapters."""
    import peft
    from transformers import AutoModelForCausalLM

    names = [f"a{i}" for i in range(adapters)]
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        ours = weights.load(path)
        weights.save(ours, folder)
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=MODULES, task_type="CAUSAL_LM")
        adapted = peft.get_peft_model(theirs, config, adapter_name=names[0]).eval()
        for name in names[1:]:
            adapted.add_adapter(name, config)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
        adapted.save_pretrained(folder, save_embedding_layers=False)
        engine = Engine(ours, EngineConfig(kv_memory_bytes=1 << 28, weights="float32", max_adapters=adapters))
        for name in names:
            engine.load_adapter(name, Path(folder) / name)
        ids = torch.randint(0, ours.architecture.vocab_size, (num_tokens,), generator=generator).tolist()
        jobs = {name: engine.add_score(ids[:1], [ids[1:]], adapter=name) for name in (None, *names)}
        found = {}
        while engine.has_work:
            found |= {output.request_id: output.logprobs for output in engine.step()}
        worst, change = 0.0, 0.0
        for name, job in jobs.items():
            with torch.no_grad():
                if name is None:
                    with adapted.disable_adapter():
                        logits = adapted(torch.tensor([ids])).logits[0]
                else:
                    adapted.set_adapter(name)
                    logits = adapted(torch.tensor([ids])).logits[0]
            expected = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
            worst = max(worst, float((expected - torch.tensor(found[job])).abs().max()))
            change = max(change, float((torch.tensor(found[jobs[None]]) - torch.tensor(found[job])).abs().max()))
    print(
        f"peft {peft.__version__}, {adapters} adapters of rank {rank} and the base, {num_tokens} tokens each, together: "
        f"log-probs differ by {worst:.1e} at most; adapters change them by up to {change:.1f}"
    )


def measure(path: Path, *, adapters: int, rank: int, steps: int, rounds: int) -> None:
    """Print a table of milliseconds a step."""
    engine = Engine(weights.load(path, keep_blocks=True), EngineConfig(kv_memory_bytes=1 << 28, max_adapters=adapters))
    for seed in range(adapters):
        engine.load_adapter(str(seed), random_adapter(engine.runner.model, seed, rank))
    ways = {
        "none": [None] * adapters,
        "one, of all": ["0"] * adapters,
        "each its own": [str(i) for i in range(adapters)],
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):  # the first warms up
        for way, names in ways.items():
            prompt = tuple(range(100, 110))
            for name in names:
                engine.add(Request(prompt, Sampling(max_tokens=steps + 1, ignore_eos=True), adapter=name))
            engine.step()
            begun = time.process_time()
            while engine.has_work:
                engine.step()
            times[way].append(1000 * (time.process_time() - begun) / steps)
    stats = engine.stats()
    print(
        f"{adapters} answers, rank {rank}, {stats.adapter_bytes / 1e6:.1f} MB of adapters, {engine.runner.threads} threads"
    )
    base = statistics.median(times["none"][1:])
    for way, each in times.items():
        middle = statistics.median(each[1:])
        print(f"| {way} | {middle:.2f} ms ({min(each[1:]):.2f}-{max(each[1:]):.2f}) | {middle / base:.2f} |")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--peft", action="store_true")
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.peft:
        compare(asked.model, adapters=asked.adapters, rank=asked.rank, num_tokens=asked.tokens)
    else:
        measure(asked.model, adapters=asked.adapters, rank=asked.rank, steps=asked.steps, rounds=asked.rounds)


if __name__ == "__main__":
    main()
