"""transformers on the jobs of a spec. Run by ../engine.py: `PYTHON run_transformers.py SPEC.json RESULT.json`.

The spec's `mode` says how. "naive": `generate`, one request at a time, as the simplest server does. One at a time a job of
many gives the same tokens/s as a job of few, so decode jobs of more than one sequence are left out, and of the chats a
quarter is run. "continuous": its continuous batching (the manager behind `generate_batch`), on the jobs of several
sequences. Left to itself that manager takes 60 % of the free memory, and for each step a mask of up to 8,192 rows over all
of its cache. Here it is told what the job needs: as many requests and blocks as there are, and our 512 tokens a batch. Each
in bfloat16 or float32, whichever was faster on the warm-up jobs of the first round; the spec's `dtype` holds it to that.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

PAGE = 256
BATCH_TOKENS = 512


def load(folder: str, dtype: torch.dtype):
    """The model, ready to answer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()
    model.generation_config.pad_token_id = 0
    return model


def generate(model, prompt: list[int], new: int) -> float:
    """Seconds for an answer of exactly that many tokens."""
    ids = torch.tensor([prompt])
    started = time.perf_counter()
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, do_sample=False
    )
    seconds = time.perf_counter() - started
    assert out.shape[1] == len(prompt) + new, "an answer ended early"
    return seconds


def decode_rate(model, prompt: list[int], new: int) -> float:
    """Tokens/s after the first token."""
    first = generate(model, prompt, 1)
    return (new - 1) / (generate(model, prompt, new) - first)


def naive(model, jobs: dict) -> dict[str, float]:
    """Tokens/s by job, one request at a time."""
    figures = {}
    for name, job in jobs.items():
        prompts, most = job["prompts"], job["max_tokens"]
        if name.startswith("prefill"):
            figures[name] = len(prompts[0]) / generate(model, prompts[0], 1)
        elif name.startswith("decode"):
            if len(prompts) == 1:
                figures[name] = decode_rate(model, prompts[0], most[0])
        else:
            few = max(1, len(prompts) // 4)
            seconds = sum(generate(model, prompt, new) for prompt, new in zip(prompts[:few], most[:few], strict=True))
            figures[name] = sum(most[:few]) / seconds
    return figures


def continuous(model, jobs: dict) -> dict[str, float]:
    """Tokens/s by job, batched by transformers' own manager."""
    return {name: batch_rate(model, name, job) for name, job in jobs.items() if len(job["prompts"]) > 1}


def batch_rate(model, name: str, job: dict) -> float:
    """Tokens/s of prompts that arrive at once: for decode jobs, of what came after every answer had its first token."""
    settings = GenerationConfig(do_sample=False, max_new_tokens=max(job["max_tokens"]), eos_token_id=-1, pad_token_id=0)
    lengths = [len(prompt) + new for prompt, new in zip(job["prompts"], job["max_tokens"], strict=True)]
    limits = ContinuousBatchingConfig(
        page_size=PAGE,
        num_blocks=sum(-(-length // PAGE) + 1 for length in lengths),
        max_batch_tokens=BATCH_TOKENS,
        max_requests_per_batch=len(lengths),
    )
    with model.continuous_batching_context_manager(
        generation_config=settings, continuous_batching_config=limits, block=True, timeout=5
    ) as manager:
        wait(
            manager, [manager.add_request(job["prompts"][0][:8], max_new_tokens=2)]
        )  # builds the cache outside the time
        started = time.perf_counter()
        requests = [
            manager.add_request(prompt, max_new_tokens=new, record_timestamps=True)
            for prompt, new in zip(job["prompts"], job["max_tokens"], strict=True)
        ]
        times = wait(manager, requests)
        seconds = time.perf_counter() - started
    assert list(map(len, times)) == job["max_tokens"], "an answer has another length than was asked for"
    if not name.startswith("decode"):
        return sum(job["max_tokens"]) / seconds
    begun, ended = max(each[0] for each in times), max(each[-1] for each in times)
    return sum(moment > begun for each in times for moment in each) / (ended - begun)


def wait(manager, requests: list[str]) -> list[list[float]]:
    """Wait for all answers; returns when each of their tokens came."""
    found: dict[str, list[float]] = {}
    while len(found) < len(requests):
        result = manager.get_result(timeout=1)
        if result is None:
            if not manager.is_running():
                raise SystemExit("transformers' generation thread ended")
        elif result.is_finished():
            if result.error is not None:
                raise SystemExit(f"transformers: {result.error}")
            found[result.request_id] = result.timestamps or []
    return [found[request] for request in requests]


def warm_up(run, spec: dict, dtype: torch.dtype):
    """The model in that type, warmed up, and the geometric mean of its warm-up rates."""
    model = load(spec["folder"], dtype)
    run(model, spec["warmup"])
    rates = run(model, spec["warmup"]).values()
    return model, statistics.geometric_mean(rates)


def main(spec_path: str, result_path: str) -> None:
    """Choose the faster type, warm up, run each job once, write tokens/s by name."""
    spec = json.loads(Path(spec_path).read_text())
    torch.set_num_threads(spec["threads"])
    transformers.utils.logging.set_verbosity_error()
    run = continuous if spec["mode"] == "continuous" else naive
    names = [spec["dtype"]] if spec["dtype"] else ["bfloat16", "float32"]
    with torch.inference_mode():
        warmed = {name: warm_up(run, spec, getattr(torch, name)) for name in names}
        chosen = max(names, key=lambda name: warmed[name][1])
        figures = run(warmed[chosen][0], spec["jobs"])
    about = f"transformers {transformers.__version__}, {chosen}"
    Path(result_path).write_text(json.dumps({"about": about, "dtype": chosen, "figures": figures}))


if __name__ == "__main__":
    main(*sys.argv[1:])
