"""A task of lm-evaluation-harness on documents of a spec: its own YAML file, prompts, metrics and Hugging Face backend.

Run by ../harness_agreement.py: `PYTHON run_lm_eval_task.py SPEC.json RESULT.json`. For each task of the spec it gives the
requests that the harness makes, their log-probs where a model is named, and its verdict on each document.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def make_task(yaml_file: str, files: dict[str, str], shots: int):
    """The harness's task, reading its documents from our JSON files."""
    import lm_eval
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    config = dict(load_yaml(Path(lm_eval.__file__).parent / "tasks" / yaml_file, resolve_func=True))
    for name in ("tag", "group", "include", "training_split", "validation_split", "test_split"):
        config.pop(name, None)
    config |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    config |= {"test_split": "test", "num_fewshot": shots}
    if "train" in files:
        config |= {"training_split": "train", "fewshot_split": "train"}
    task = ConfigurableTask(config=config)
    task.set_fewshot_seed(1234)
    task.build_all_requests(limit=None, rank=0, world_size=1)
    return task


def open_model(spec: dict):
    """The harness's Hugging Face backend on the folder of float32 weights."""
    import torch
    import transformers
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(spec["threads"])
    model = transformers.AutoModelForCausalLM.from_pretrained(spec["folder"], dtype=torch.float32)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(Path(spec["folder"]) / "tokenizer.json"), eos_token=spec["eos"], pad_token=spec["eos"]
    )
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, max_length=2048)


def main(spec_path: str, result_path: str) -> None:
    """Make each task's requests, answer them if a model is given, and write what came out."""
    spec = json.loads(Path(spec_path).read_text())
    lm = open_model(spec) if spec.get("folder") else None
    found = {}
    for name, entry in spec["tasks"].items():
        task = make_task(entry["yaml"], entry["files"], entry["shots"])
        by_doc: dict[int, list] = {}
        for instance in task.instances:
            by_doc.setdefault(instance.doc_id, []).append(instance)
        answers = {}
        if lm and entry["scored"]:
            replies = lm.loglikelihood(task.instances, disable_tqdm=True)
            answers = {id(instance): reply for instance, reply in zip(task.instances, replies, strict=True)}
        rows = []
        for doc, instances in sorted(by_doc.items()):
            instances.sort(key=lambda instance: instance.idx)
            row = {"requests": [[str(part) for part in instance.args[:2]] for instance in instances]}
            if answers:
                results = [answers[id(instance)] for instance in instances]
                row["logprobs"] = [float(logprob) for logprob, _ in results]
                row["metrics"] = {k: float(v) for k, v in task.process_results(instances[0].doc, results).items()}
            rows.append((doc, row))
        found[name] = [row for _, row in rows]
    Path(result_path).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
