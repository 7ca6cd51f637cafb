"""BIG-Bench Hard: 27 tasks that need several steps, with three worked examples each (Suzgun et al., 2022).

The examples are the authors' prompts, kept with their data (suzgunmirac/BIG-Bench-Hard: `bbh` and `cot-prompts`). They are
not on the hub, so `data` must hold them. Each of the 27 tasks is a stratum.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from pathlib import Path

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.protocol import Item, Protocol, choose, make_benchmark, make_task
from firsthand.benchmarks.sources.datasets import contents, text_field
from firsthand.errors import DataError, unknown
from firsthand.message import Json
from firsthand.scorers.written import bbh_exact
from firsthand.system.given_data import held

PROTOCOLS = {
    "lm-eval-cot-3shot": Protocol(
        "lm-evaluation-harness, group bbh_cot_fewshot, with all three of the authors' worked examples for each task",
        query="Q: {question}\nA: Let's think step by step.\n",
        header="{worked}\n\n",
        examples="3-shot, in the header",
        scorers=(bbh_exact,),
        continuation=None,
        stop=("</s>", "Q", "\n\n"),
        max_tokens=1024,
    ),
}
FOLDERS = ("reasoning/bbh", "bbh", ".")


def bbh(*, protocol: str = "", data: str = "", task: str = "") -> Benchmark:
    """Return the benchmark over all 27 tasks, or one, such as `word_sorting`. `data` is a folder with the authors' files."""
    chosen = choose("bbh", PROTOCOLS, protocol)[1]
    folder = _folder(data)
    paths = {path.stem: path for path in sorted((folder / "data").glob("*.json"))}
    if task and task not in paths:
        raise unknown("BBH task", task, paths, see=f"ls {shlex.quote(str(folder / 'data'))}")
    items, digest = [], hashlib.sha256()
    for name, path in paths.items():
        if task in ("", name):
            raw = contents(held(path, folder))
            digest.update(raw)
            items += _items(name, raw, path, _worked(held(folder / "cot-prompts" / f"{name}.txt", folder)))
    return make_benchmark(
        "bbh",
        PROTOCOLS,
        protocol,
        [make_task(item, chosen) for item in items],
        description="27 tasks that need several steps (Suzgun et al., 2022).",
        origin=f"the authors' files, {len(items):,} items" + (f" of {task}" if task else ""),
        licence="MIT",
        sha256=digest.hexdigest(),
    )


def _folder(data: str) -> Path:
    root = Path(data or os.environ.get("FIRSTHAND_DATA") or ".").expanduser()
    for name in FOLDERS:
        if (root / name / "cot-prompts").is_dir():
            return root / name
    raise DataError(
        f"no folder with 'data' and 'cot-prompts' in {str(root)!r}: give data=FOLDER that holds those of "
        "github.com/suzgunmirac/BIG-Bench-Hard (its folder 'bbh' as 'data')"
    )


def _worked(path: Path) -> str:
    """Return the instruction and worked examples: the text after the dashed line below the canary."""
    text = contents(path).decode("utf-8", "replace").replace("\r\n", "\n")
    _, found, body = text.partition("\n-----\n")
    if not found or body.count("\nQ: ") != 3:
        raise DataError(f"{path}: three examples 'Q: ...' below a line '-----' were expected")
    # in sports_understanding a space stands for the line break that the question ends with
    return body.strip().replace("A: Let's think step by step. ", "A: Let's think step by step.\n")


def _items(name: str, raw: bytes, path: Path, worked: str) -> list[Item]:
    try:
        body: Json = json.loads(raw)
        examples = body["examples"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise DataError(f"{path} is not a JSON object with 'examples': fetch it again") from None
    if not isinstance(examples, list) or not examples or not all(isinstance(each, dict) for each in examples):
        raise DataError(f"{path}: 'examples' is not a list of objects")
    return [
        Item(
            f"{name}-{index:03d}",
            {"question": text_field(row, "input", f"{path}, example {index}"), "worked": worked},
            secret={"answer": text_field(row, "target", f"{path}, example {index}")},
            metadata={"task": name, "stratum": name},
        )
        for index, row in enumerate(examples)
    ]
