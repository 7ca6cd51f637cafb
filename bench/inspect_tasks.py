"""Which tasks of an installed package of Inspect tasks load on the adapter here, and why the others do not.

    HF_HUB_OFFLINE=1 python bench/inspect_tasks.py inspect_evals --to inspect.md

Each task is made in a process of its own, for at most a minute, as `inspect:task=PACKAGE/NAME` makes it. What fails is
sorted by its message. Nothing is asked of a model.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import re
import signal
from collections import Counter
from importlib import import_module
from pathlib import Path

WAIT_S = 60
KINDS = (
    ("its sandbox is refused by name", r"needs what the sandbox|sandbox.*provider|k8s|SandboxEnvironment|proxmox"),
    (
        "an optional package is missing",
        r"No module named|ImportError|dependenc|pip install|ModuleNotFound|Prerequisite",
    ),
    (
        "it needs arguments, keys or a model",
        r"API.?KEY|api key|argument|must be (set|provided)|environment variable|model",
    ),
    (
        "its data is on the hub or the web",
        r"Connect|resolve|offline|download|Hub|huggingface|cached|HTTP|Couldn't|Max retries|URL|gated|fetch|Errno -|https?:",
    ),
    ("its data is not in the package", r"No such file|does not exist|not found|FileNotFound"),
    ("its prompt has images or sound", r"image|audio|video"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package")
    parser.add_argument("--only", default="", help="a regular expression that a task's name must match")
    parser.add_argument("--to", default="", help="a Markdown file to write")
    config = parser.parse_args()
    names = [name for name in tasks_of(config.package) if re.search(config.only, name)]
    rows = []
    for name in names:
        rows.append((name, *tried(f"{config.package}/{name}")))
        print(*rows[-1], sep=" | ", flush=True)
    told = table(config.package, rows)
    print(told)
    if config.to:
        Path(config.to).write_text(told, encoding="utf-8")


def tasks_of(package: str) -> list[str]:
    """The names of the package's tasks."""
    from inspect_ai._util.registry import registry_find

    import_module(f"{package}._registry")
    found = registry_find(lambda info: info.type == "task" and info.name.startswith(f"{package}/"))
    return sorted({each.__registry_info__.name.partition("/")[2] for each in found})


def tried(task: str) -> tuple[str, str]:
    """`runs` and how many samples in which sandbox, or the kind of refusal and its words."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_make, args=(task, theirs))
    process.start()
    theirs.close()
    try:
        found = ours.recv() if ours.poll(WAIT_S) else ("it did not load in time", f"{WAIT_S} s")
    except EOFError:
        found = ("it ended its process", "")
    if process.is_alive() and process.pid is not None:
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    return found


def _make(task: str, pipe: multiprocessing.connection.Connection) -> None:
    from firsthand import catalog

    os.setpgrp()
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            benchmark = catalog.benchmark(f"inspect:task={task}")
            where = re.search(r"in the sandbox (\S+)", benchmark.protocol)
            pipe.send(("loads", f"{len(benchmark.tasks(0))} samples" + (f", sandbox {where[1]}" if where else "")))
    except BaseException as error:
        words = " ".join(f"{error}".split())
        kind = next((name for name, pattern in KINDS if re.search(pattern, words)), "other")
        pipe.send((kind, words[:160]))


def table(package: str, rows: list[tuple[str, str, str]]) -> str:
    """Counts by kind, and every task."""
    counts = Counter(kind for _, kind, _ in rows)
    lines = [f"| {package}, {len(rows)} tasks | tasks |", "|---|---|"]
    lines += [f"| {kind} | {count} |" for kind, count in counts.most_common()]
    lines += ["", "| task | outcome | |", "|---|---|---|"]
    lines += [f"| {name} | {kind} | {words.replace('|', '/')} |" for name, kind, words in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
