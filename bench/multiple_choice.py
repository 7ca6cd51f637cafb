"""Multiple choice: items/s of our `score` beside lm-evaluation-harness, and whether both choose the same.

    python bench/multiple_choice.py MODEL.gguf --lm-eval-python VENV/bin/python --out choice.md --json choice.json

The rival needs `pip install 'lm-eval[hf]'`. ARC-Easy: 'Question: ...\\nAnswer:' is continued by ' choice', after a
header of `--shots` answered questions (five), made of rows that are not asked. Both get the very same strings, the same
weights (a folder of float32 safetensors that is written from the GGUF file, with its tokenizer) and the same threads,
each in a fresh process, in turn. Loading and a warm-up are not in the time. Ours runs with the weights it takes by
default, with float16 and with float32; the rival in float32 and in bfloat16, each with the fastest of three batch
sizes. Which answers are chosen, and the gaps of log-probs, are compared with the rival's in float32. `--data` is a
folder that holds arc_easy.jsonl; without it the rows that are packaged are used. `--quick` is a smoke run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from firsthand.benchmarks.arc_easy import arc_easy
from firsthand.measure import machine
from firsthand.measure.measurements import markdown_table, number, spread
from firsthand.task import Task

HERE = Path(__file__).parent
SECONDS = 7200


@dataclass(frozen=True)
class Contender:
    """A way to score the requests."""

    name: str
    script: str
    python: str
    settings: dict


def contenders(args: argparse.Namespace) -> list[Contender]:
    """Ours by default and exact, and the rival in both types if its Python was named."""
    found = [
        Contender(f"firsthand, {weights}", "run_firsthand_score.py", sys.executable, {"weights": weights})
        for weights in ("auto", "float16", "float32")
    ]
    if args.lm_eval_python:
        found += [
            Contender(f"lm-eval HF, {dtype}", "run_lm_eval.py", args.lm_eval_python, {"dtype": dtype})
            for dtype in ("float32", "bfloat16")
        ]
    return found


def load_tasks(args: argparse.Namespace) -> tuple[str, list[Task]]:
    """The header of answered questions, and the items that are asked."""
    tasks = list(arc_easy(data=args.data).tasks(0))
    last = len(tasks) - args.shots
    shots, asked = tasks[last:], tasks[:last][: args.limit]
    header = "".join(f"{shot.context}{shot.choices[shot.secret['gold']]}\n\n" for shot in shots)
    return header, asked


def write_folder(model: str, folder: Path) -> str:
    """Write weights in float32 and the tokenizer as transformers reads them; returns the token that ends a text."""
    from firsthand.formats.gguf_file import read_gguf
    from firsthand.tokens import gguf_vocab, pretrained

    code = "import sys; from firsthand.nn import weights; weights.save(weights.load(sys.argv[1]), sys.argv[2])"
    if not (folder / "model.safetensors").exists():
        subprocess.run([sys.executable, "-c", code, model, str(folder)], check=True)
    description = gguf_vocab.description(read_gguf(Path(model)).metadata, model)
    (folder / "tokenizer.json").write_text(json.dumps(description))
    tokenizer = pretrained.load(model)
    return tokenizer.text_of(min(tokenizer.eos_ids))


def take_turn(contender: Contender, spec: dict, work: Path) -> dict:
    """Scores and seconds of a contender; its error if it fails."""
    name = contender.name.replace(" ", "-")  # two benchmarks may share a work folder
    spec_path, result_path = (work / f"{os.getpid()}-{name}-{what}.json" for what in ("spec", "result"))
    spec_path.write_text(json.dumps({**spec, **contender.settings}))
    command = [contender.python, str(HERE / "rivals" / contender.script), str(spec_path), str(result_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(spec["threads"])}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        return {"error": f"was not done after {SECONDS} seconds"}
    finally:
        spec_path.unlink()
    if done.returncode != 0 or not result_path.exists():
        lines = done.stderr.strip().splitlines()
        return {"error": lines[-1][:300] if lines else f"exit code {done.returncode}"}
    found = json.loads(result_path.read_text())
    result_path.unlink()
    return found


def chosen(scores: list[list], asked: list[Task]) -> list[int]:
    """The choice with the highest log-prob of each item."""
    places, start = [], 0
    for task in asked:
        values = [logprob for logprob, _ in scores[start : start + len(task.choices)]]
        places.append(max(range(len(values)), key=values.__getitem__))
        start += len(task.choices)
    return places


def table(found: dict[str, list[dict]], asked: list[Task]) -> str:
    """Speed, accuracy and agreement of each contender."""
    good = {name: [each for each in results if "scores" in each] for name, results in found.items()}
    exact = next(
        (results[0]["scores"] for name, results in good.items() if "lm-eval HF, float32" in name and results), None
    )
    rates = {name: [len(asked) / each["seconds"] for each in results] for name, results in good.items() if results}
    rivals = [statistics.median(values) for name, values in rates.items() if name.startswith("lm-eval")]
    rows = []
    for name, values in rates.items():
        scores = good[name][0]["scores"]
        places = chosen(scores, asked)
        right = sum(place == task.secret["gold"] for place, task in zip(places, asked, strict=True))
        row = [name, spread(values), f"{statistics.median(values) / max(rivals):.2f}x" if rivals else ""]
        row.append(f"{right} of {len(asked)}")
        if exact:
            same = sum(a == b for a, b in zip(places, chosen(exact, asked), strict=True))
            apart = [abs(a[0] - b[0]) for a, b in zip(scores, exact, strict=True)]
            row += [f"{same} of {len(asked)}", f"{max(apart):.2g} (mean {statistics.mean(apart):.2g})"]
        else:
            row += ["", ""]
        rows.append(row)
    header = [
        "engine",
        "items/s",
        "against the fastest rival",
        "right",
        "chosen as by lm-eval float32",
        "largest log-prob gap",
    ]
    return markdown_table(header, rows)


def main() -> None:
    """Measure in turn, print the table, write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--lm-eval-python")
    parser.add_argument("--limit", type=int, default=100, help="items asked")
    parser.add_argument("--shots", type=int, default=5, help="answered questions before each")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--data", default="", help="a folder that holds arc_easy.jsonl; without it, the packaged rows")
    parser.add_argument("--threads", type=int, default=machine.usable_cores())
    parser.add_argument("--quick", action="store_true", help="six items: a smoke test")
    parser.add_argument("--work", type=Path, help="keep the safetensors folder here")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    parser.add_argument("--json", type=Path, help="a JSON file for every value")
    args = parser.parse_args()
    args.limit = 6 if args.quick else args.limit
    header, asked = load_tasks(args)
    requests = [[header + task.context, choice] for task in asked for choice in task.choices]
    spec = {"model": args.model, "threads": args.threads, "requests": requests, "max_length": 2048}
    spec["trial"] = 8 if args.quick else 32
    entered = contenders(args)
    found: dict[str, list[dict]] = {each.name: [] for each in entered}
    about = machine.describe().line()
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        spec["folder"] = str(work / "float32")
        spec["eos"] = write_folder(args.model, work / "float32") if args.lm_eval_python else ""
        for turn in range(args.rounds):
            for each in entered:
                result = take_turn(each, spec, work)
                found[each.name].append(result)
                said = result.get("error") or f"{number(len(asked) / result['seconds'])} items/s"
                print(f"round {turn + 1}, {each.name}: {said}", file=sys.stderr)
    command = shlex.join(["python", *sys.argv])
    lines = [f"# {args.shots}-shot ARC-Easy, {Path(args.model).name}", "", table(found, asked), ""]
    for name, results in found.items():
        lines += [f"- {name}: {text}" for text in dict.fromkeys(each.get("about") or each["error"] for each in results)]
    lines += [
        f"- {len(asked)} items, {len(requests)} requests, {args.threads} threads each, {args.rounds} rounds in turn"
    ]
    lines += [f"- command: {command}", f"- date: {date}", f"- machine: {about}"]
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)
    if args.json:
        body = {"version": 1, "model": args.model, "command": command, "date": date, "machine": about, "found": found}
        args.json.write_text(json.dumps(body, indent=2))


if __name__ == "__main__":
    main()
