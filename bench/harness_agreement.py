"""Per item: are our prompts those of lm-evaluation-harness, and do we choose the same on the same weights?

    python bench/harness_agreement.py MODEL.gguf --lm-eval-python VENV/bin/python --data FOLDER --limit 48

The rival needs `pip install 'lm-eval[hf]'`. It runs its own YAML tasks over the same documents, written in the columns of
the hub, so that its prompts, metrics and tokens are its own; the weights are a folder of float32 safetensors written from
the GGUF file. Ours are the benchmarks under their `lm-eval` protocols, with float32 weights. `FOLDER` holds what
docs/benchmarks.md names: the requests of OLMES, GSM8K.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from multiple_choice import write_folder

import firsthand
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.measure import machine
from firsthand.measure.measurements import markdown_table
from firsthand.patterns.direct import direct
from firsthand.providers.local import Local
from firsthand.rollout import Place, rollouts
from firsthand.task import Task

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Pair:
    """A benchmark of ours and the harness's task."""

    benchmark: str
    yaml: str
    document: Callable[[Task], dict] | None = None
    """A task as a row in the hub's columns."""
    shots: int = 0
    examples: bool = False
    """Whether its examples are drawn from a split, and not written in the YAML file."""


def labelled(task: Task, question: str) -> dict:
    """Columns of ARC, OpenBookQA and CommonsenseQA."""
    choices = [choice.removeprefix(" ") for choice in task.choices]
    labels = list(task.letters)
    return {
        "question": question, "question_stem": question, "choices": {"text": choices, "label": labels},
        "answerKey": task.secret["answer"],
    }  # fmt: skip


def hellaswag(task: Task) -> dict:
    """Columns of HellaSwag; a mark such as [step] leaves the space that the harness leaves there."""
    label, _, scene = task.prompt.partition(": ")
    ends = "[step]" if scene.endswith(" ") else ""
    endings = [choice[1:] for choice in task.choices]
    endings = [f"[step]{each}" if each.startswith(" ") else each for each in endings]
    return {
        "activity_label": label, "ctx_a": scene.rstrip(), "ctx_b": ends, "endings": endings,
        "label": str(task.secret["gold"]),
    }  # fmt: skip


def piqa(task: Task) -> dict:
    """Columns of PIQA."""
    first, second = (choice[1:] for choice in task.choices)
    return {"goal": task.prompt, "sol1": first, "sol2": second, "label": task.secret["gold"]}


def winogrande(task: Task) -> dict:
    """Columns of WinoGrande."""
    first, second = (choice[1:] for choice in task.choices)
    sentence = task.prompt.removeprefix("Which name fills the gap? ")
    return {"sentence": sentence, "option1": first, "option2": second, "answer": str(task.secret["gold"] + 1)}


def boolq(task: Task) -> dict:
    """Columns of BoolQ."""
    passage, _, question = task.scored[0][0].removesuffix("?\nAnswer:").rpartition("\nQuestion: ")
    return {"passage": passage, "question": question, "label": 1 - task.secret["gold"]}


PAIRS = {
    "hellaswag": Pair("hellaswag", "hellaswag/hellaswag.yaml", hellaswag),
    "arc_easy": Pair("arc_easy", "arc/arc_easy.yaml", lambda task: labelled(task, task.prompt)),
    "arc_challenge": Pair("arc_challenge", "arc/arc_challenge.yaml", lambda task: labelled(task, task.prompt)),
    "piqa": Pair("piqa", "piqa/piqa.yaml", piqa),
    "winogrande": Pair("winogrande", "winogrande/default.yaml", winogrande),
    "openbookqa": Pair("openbookqa", "openbookqa/openbookqa.yaml", lambda task: labelled(task, task.prompt)),
    "commonsense_qa": Pair("commonsense_qa", "commonsense_qa/default.yaml", lambda task: labelled(task, task.prompt)),
    "boolq": Pair("boolq", "super_glue/boolq/default.yaml", boolq),
    "gsm8k": Pair("gsm8k@lm-eval-5shot-strict", "gsm8k/gsm8k.yaml", shots=5, examples=True),
    "gsm8k_cot": Pair("gsm8k@cot-8shot", "gsm8k/gsm8k-cot.yaml", shots=8),
}


def tasks_of(pair: Pair, args: argparse.Namespace) -> list[Task]:
    """The first tasks of ours."""
    return list(catalog.benchmark(f"{pair.benchmark}:data={args.data}").tasks(0))[: args.limit]


def entry_of(name: str, pair: Pair, tasks: list[Task], args: argparse.Namespace, work: Path) -> dict:
    """What the rival is told of a task: its YAML file, and files with the documents."""
    lines = [json.dumps(pair.document(task)) for task in tasks] if pair.document else []
    files = {"test": work / f"{name}.jsonl"}
    if not lines:
        source = Path(args.data) / "math"
        lines = (source / "gsm8k_test.jsonl").read_text().splitlines()[: args.limit]
        if pair.examples:
            files["train"] = source / "gsm8k_train.jsonl"
    files["test"].write_text("\n".join(lines) + "\n")
    named = {split: str(path) for split, path in files.items()}
    return {"yaml": pair.yaml, "files": named, "shots": pair.shots, "scored": pair.document is not None}


async def ours(benchmark: str, tasks: list[Task], model: Local, data: str) -> list[dict[str, float]]:
    """Our score of each task under each metric: 1 or 0."""
    made, agent = catalog.benchmark(f"{benchmark}:data={data}"), Agent("direct", model, direct)
    found = {}
    async for trace in rollouts([Place(agent, made, task) for task in tasks]):
        if trace.error:
            raise SystemExit(f"{benchmark} {trace.task_id}: {trace.error.message}")
        found[trace.task_id] = {score.name: score.value for score in trace.scores}
    return [found[task.id] for task in tasks]


def row_of(name: str, tasks: list[Task], theirs: list[dict], scores: list[dict[str, float]]) -> list[str]:
    """A line of the table: equal prompts, equal verdicts, both accuracies."""
    asked = [[list(pair) for pair in task.scored] or [[task.context]] for task in tasks]
    got = [
        each["requests"] if task.scored else [[each["requests"][0][0]]]
        for task, each in zip(tasks, theirs, strict=True)
    ]
    same = sum(sorted(a) == sorted(b) for a, b in zip(asked, got, strict=True))
    row = [name, f"{same} of {len(tasks)}"]
    for metric in ("acc", "acc_norm"):
        if not scores or metric not in theirs[0]["metrics"] or metric not in scores[0]:
            row += ["", ""]
            continue
        pairs = [(mine[metric], each["metrics"][metric]) for mine, each in zip(scores, theirs, strict=True)]
        row += [
            f"{sum(a == b for a, b in pairs)} of {len(pairs)}",
            f"{sum(a for a, _ in pairs):g} / {sum(b for _, b in pairs):g}",
        ]
    return row


def main() -> None:
    """Ask both, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--lm-eval-python", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--only", default=",".join(PAIRS), help="names of benchmarks")
    parser.add_argument("--limit", type=int, default=48, help="items of each")
    parser.add_argument("--prompts-only", action="store_true", help="compare the requests, without the model")
    parser.add_argument("--threads", type=int, default=machine.usable_cores())
    parser.add_argument("--work", type=Path, help="keep the safetensors folder here")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    args = parser.parse_args()
    pairs = {name: PAIRS[name] for name in args.only.split(",")}
    tasks = {name: tasks_of(pair, args) for name, pair in pairs.items()}
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        spec: dict = {"threads": args.threads}
        spec["tasks"] = {name: entry_of(name, pair, tasks[name], args, Path(temporary)) for name, pair in pairs.items()}
        if not args.prompts_only:
            spec["folder"], spec["eos"] = str(work / "float32"), write_folder(args.model, work / "float32")
        (Path(temporary) / "spec.json").write_text(json.dumps(spec))
        script, result = HERE / "rivals" / "run_lm_eval_task.py", Path(temporary) / "result.json"
        subprocess.run([args.lm_eval_python, str(script), str(Path(temporary) / "spec.json"), str(result)], check=True)
        theirs = json.loads(result.read_text())
    model = Local(args.model, config=EngineConfig(threads=args.threads, weights="float32"))
    rows = []
    for name, pair in pairs.items():
        scored = pair.document is not None and not args.prompts_only
        scores = firsthand.run_sync(ours(pair.benchmark, tasks[name], model, args.data)) if scored else []
        rows.append(row_of(name, tasks[name], theirs[name], scores))
        print(rows[-1], file=sys.stderr)
    model.close()
    header = [
        "benchmark",
        "same requests",
        "same acc per item",
        "right: ours / theirs",
        "same acc_norm",
        "right: ours / theirs",
    ]
    lines = [f"# Beside lm-evaluation-harness, {Path(args.model).name}, float32", "", markdown_table(header, rows), ""]
    lines += [f"- command: {shlex.join(['python', *sys.argv])}", f"- machine: {machine.describe().line()}"]
    lines += [f"- date: {datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')}"]
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
