"""AgentBench's operating-system tasks: questions and orders to a Linux shell, in a sandbox (Liu et al., 2023)."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Literal

from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError, DataError
from firsthand.message import Message, assistant, user
from firsthand.system.plurals import count_of
from firsthand.task import Task
from firsthand.trace import Score, Trace
from firsthand.worlds.outcomes import world_score
from firsthand.worlds.shell.os_items import OsItem, read_items
from firsthand.worlds.shell.shell_world import ShellWorld, spare_boxes
from firsthand.worlds.world import Actions, WorldEnvironment

ROUNDS = 8
FOLDER = "agents/agentbench/os_interaction"
INSTRUCTIONS: dict[Actions, str] = {
    "text": """You are an assistant that will act like a person, I will play the role of a linux operating system. Your \
goal is to implement the operations required by me or answer to the question proposed by me. For each of your turn, you \
should first think what you should do, and then take exact one of the three actions: "bash", "finish" or "answer".

1. If you think you should execute some bash code, take bash action, and you should print like this:

Think: put your thought here.

Act: bash

```bash
# put your bash code here
```

2. If you think you have finished the task, take finish action, and you should print like this:

Think: put your thought here.

Act: finish

3. If you think you have got the answer to the question, take answer action, and you should print like this:

Think: put your thought here.

Act: answer(Your answer to the question should be put in this pair of parentheses)

If the output is too long, I will truncate it. The truncated output is not complete. You have to deal with the truncating \
problem by yourself. Attention, your bash code should not contain any input operation. Once again, you should take only \
exact one of the three actions in each turn. System folders are read-only; programs of your own go to /opt/bin, which is \
on the PATH.

Now, my problem is:

tell me how many files are in the directory "/etc"?""",
    "native": """You are an assistant that acts in a linux operating system. Implement the operations or answer the \
question that you are given. In each turn call one tool: bash runs code, finish ends a task that is done, answer_question \
ends it with an answer. Long outputs are truncated. Your bash code should not contain any input operation. System folders \
are read-only; programs of your own go to /opt/bin, which is on the PATH.""",
}
"""The paper's instructions (AgentBench 0.2, Apache-2.0) with the sentence on system folders, and the same for tools."""
_EXAMPLE: tuple[Message, ...] = (
    assistant(
        "Think: To count the files in /etc, I need to print all the files in it.\n\nAct: bash\n\n```bash\nls /etc\n```"
    ),
    user(
        "Observation: The output of the OS:\ncpi cron.hourly fuse.conf iproute2 lvm networkd-dispatcher protocols selinux "
        "tmpfiles.d [truncated because the output is too long]"
    ),
    assistant(
        "Think: The output has been truncated because it is too long, so I need to count files by script directly.\n\n"
        "Act: bash\n\n```bash\nls -1 /etc | wc -l\n```"
    ),
    user("Observation: The output of the OS:\n220"),
    assistant("Think: Now I get the answer, it is 220.\n\nAct: answer(220)"),
)


def agentbench_os(
    *, split: Literal["dev", "standard"] = "standard", actions: Actions = "text", rounds: int = ROUNDS, data: str = ""
) -> Benchmark:
    """Return the benchmark: the real items that run in the sandbox; the protocol counts those that do not, by reason.

    `data` is AgentBench's folder `os_interaction`.
    """
    if split not in ("dev", "standard"):
        raise ConfigError(f"split is {split!r}: give dev or standard")
    items = list(read_items(_folder(data), split))
    missing = Counter(reason for item in items if (reason := item.why_not_here()) is not None)
    opening = (
        (user(INSTRUCTIONS[actions]), *_EXAMPLE)
        if actions == "text"
        else (user(INSTRUCTIONS[actions]), assistant("Ok."))
    )
    tasks = [
        Task(
            item.id,
            f"Now, I will start a new problem in a new OS. My problem is:\n\n{item.description}",
            conversation=opening,
            hint="the answer alone",
            secret={"item": item.to_json()},
        )
        for item in items
        if item.why_not_here() is None
    ]
    boxes = spare_boxes()
    left_out = ", ".join(f"{reason} {number}" for reason, number in sorted(missing.items())) or "none"
    return Benchmark(
        name="agentbench_os",
        tasks=lambda seed: tasks,
        scorers=(passed,),
        description="AgentBench's operating-system tasks: questions and orders to a Linux shell, in a sandbox.",
        protocol=f"AgentBench 0.2, os-{split}: {len(tasks)} of {count_of(len(items), 'item')}; not run in the sandbox, by "
        f"what they need: {left_out}; {actions} actions; {rounds} rounds; one-shot; checked by the items' own scripts; an "
        "invalid action is answered and costs a round (the paper ends the attempt)",
        licence="Apache-2.0",
        environment=lambda task: WorldEnvironment(
            ShellWorld(OsItem.from_json(task.secret["item"]), boxes), rounds=rounds, actions=actions
        ),
        options={"split": split, "actions": actions, "rounds": rounds},
    )


def passed(task: Task, trace: Trace) -> Score:
    """1 if the answer and the state passed the item's checks."""
    result = trace.final_state["result"]
    return world_score("passed", float(result["passed"]), trace, why=result["why"])


def _folder(data: str) -> Path:
    """AgentBench's folder `os_interaction`: `data`, or in `$FIRSTHAND_DATA`."""
    places = [Path(data).expanduser()] if data else []
    places += [Path(os.environ["FIRSTHAND_DATA"]).expanduser()] if not data and "FIRSTHAND_DATA" in os.environ else []
    for place in places:
        for folder in (place, place / "os_interaction", place / FOLDER):
            if (folder / "data").is_dir() and (folder / "scripts").is_dir():
                return folder
    raise DataError(
        f"AgentBench's folder os_interaction is not in {str(places[0]) if places else '$FIRSTHAND_DATA, which is not set'}: "
        "get it from github.com/THUDM/AgentBench and give data=FOLDER"
    )
