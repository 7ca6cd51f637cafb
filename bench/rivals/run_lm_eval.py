"""lm-evaluation-harness's Hugging Face backend on the requests of a spec.

Run by ../multiple_choice.py: `PYTHON run_lm_eval.py SPEC.json RESULT.json`.

`HFLM.loglikelihood` on all requests at once, as its simple_evaluate gives them: it sorts them by length and batches
them with padding. Batch sizes are tried on a part of the requests, and the fastest is used for all.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

BATCH_SIZES = (1, 4, 16)


def score(lm, requests: list[list[str]]) -> tuple[list[tuple[float, bool]], float]:
    """The log-prob of each continuation with whether it is greedy, and the seconds it took."""
    from lm_eval.api.instance import Instance

    instances = [Instance("loglikelihood", {}, tuple(pair), place) for place, pair in enumerate(requests)]
    started = time.perf_counter()
    found = lm.loglikelihood(instances, disable_tqdm=True)
    return found, time.perf_counter() - started


def main(spec_path: str, result_path: str) -> None:
    """Choose a batch size, score everything, write scores and seconds."""
    spec = json.loads(Path(spec_path).read_text())
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    import lm_eval
    import torch
    import transformers
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(spec["threads"])
    transformers.utils.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(spec["folder"], dtype=getattr(torch, spec["dtype"]))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(Path(spec["folder"]) / "tokenizer.json"), eos_token=spec["eos"], pad_token=spec["eos"]
    )
    trial = spec["requests"][: spec["trial"]]
    rates = {}
    for size in BATCH_SIZES:
        lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size, max_length=spec["max_length"])
        score(lm, trial[:4])
        rates[size] = len(trial) / score(lm, trial)[1]
    best = max(rates, key=rates.get)
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=best, max_length=spec["max_length"])
    found, seconds = score(lm, spec["requests"])
    version = f"lm-eval {lm_eval.__version__}, transformers {transformers.__version__}"
    result = {
        "about": f"{version}, {spec['dtype']}, batches of {best}, the fastest of {BATCH_SIZES}",
        "scores": [[float(logprob), bool(greedy)] for logprob, greedy in found],
        "seconds": seconds,
    }
    Path(result_path).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
