"""AgentBench's database tasks: questions about a table and changes of it, by SQL (Liu et al., 2023)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.sources.datasets import Source, load, text_field
from firsthand.errors import ConfigError, DataError
from firsthand.message import assistant, user
from firsthand.task import Task
from firsthand.trace import Score, Trace
from firsthand.worlds.database.database_world import DatabaseWorld, SqliteEngine, TableEngine
from firsthand.worlds.database.mariadb_engine import MariadbEngine, MariadbServer
from firsthand.worlds.database.table_items import TableItem, is_exact, is_right, read_item
from firsthand.worlds.outcomes import world_score
from firsthand.worlds.world import Actions, WorldEnvironment

SIZES = {"dev": 60, "standard": 300}
ROUNDS = 15
"""Statements at most, as in the paper; the answer is not counted."""
INSTRUCTIONS: dict[Actions, str] = {
    "text": """I will ask you a question, then you should help me operate a {engine} database with SQL to answer the \
question.
You have to explain the problem and your solution to me and write down your thoughts.
After thinking and explaining thoroughly, every round you can choose to operate or to answer.
your operation should be like this:
Action: Operation
```sql
SELECT * FROM table WHERE condition;
```
You MUST put SQL in markdown format without any other comments. Your SQL should be in one line.
Every time you can only execute one SQL statement. I will only execute the statement in the first SQL code block. Every \
time you write a SQL, I will execute it for you and give you the output.
If you are done operating, and you want to commit your final answer, then write down:
Action: Answer
Final Answer: ["ANSWER1", "ANSWER2", ...]
DO NOT write this pattern unless you are sure about your answer. I expect an accurate and correct answer.
Your answer should be accurate. Your answer must be exactly the same as the correct answer.
If the question is about modifying the database, then after done operation, your answer field can be anything.
Your input will be raw {engine} response, you have to deal with it by yourself.""",
    "native": """I will ask you a question, then you should help me operate a {engine} database with SQL to answer it.
Think first. Every round you call one tool: execute_sql runs one statement, in one line, and gives you the database's raw \
response; commit_final_answer gives your final answer. Do not call it before you are sure. Your answer must be exactly the \
same as the correct answer. If the question is about modifying the database, then the answer can be anything.""",
}
"""The paper's instructions (AgentBench 0.2, Apache-2.0) with the engine's name, and the same for tools."""


def agentbench_db(
    *,
    split: Literal["dev", "standard"] = "standard",
    actions: Actions = "text",
    engine: Literal["sqlite", "mariadb"] = "sqlite",
    rounds: int = ROUNDS,
    data: str = "",
) -> Benchmark:
    """Return the benchmark: 300 (standard) or 60 (dev) real items, each with a table of its own.

    `engine` mariadb starts a server of Debian's mariadb-server. `data` is a folder with `dbbench/standard.jsonl`.
    """
    if split not in SIZES or engine not in ("sqlite", "mariadb"):
        raise ConfigError(f"split is {split!r} and engine {engine!r}: give dev or standard, and sqlite or mariadb")
    source = Source(
        f"agents/agentbench/dbbench/{split}.jsonl", SIZES[split], "Apache-2.0", "", "", "", lambda row: row,
        also=(f"dbbench/{split}.jsonl",),
    )  # fmt: skip
    read = load(source, data)
    name = {"sqlite": "SQLite", "mariadb": "MySQL"}[engine]
    opening = (user(INSTRUCTIONS[actions].format(engine=name)), assistant("Ok.")) if actions in INSTRUCTIONS else ()
    tasks = []
    for index, row in enumerate(read.rows):
        item = read_item(row, read.where(index))
        question = text_field(row, "description", read.where(index))
        tasks.append(
            Task(
                f"{split}-{index:03d}",
                f"{question}\n{row.get('add_description', '')}",
                conversation=opening,
                hint="a list of values",
                metadata={"stratum": item.kind if item.is_write else "SELECT", "kind": item.kind},
                secret={"item": item.to_json()},
            )
        )
    server = MariadbServer() if engine == "mariadb" else None

    def environment(task: Task) -> WorldEnvironment:
        item = TableItem.from_json(task.secret["item"])
        made: Callable[[], TableEngine]
        made = partial(SqliteEngine, item) if server is None else partial(MariadbEngine, item, server)
        published: TableEngine | None = made() if item.is_write else None
        return WorldEnvironment(DatabaseWorld(item, made(), published), rounds=rounds + 1, actions=actions)

    return Benchmark(
        name="agentbench_db",
        tasks=lambda seed: tasks,
        scorers=(solved, solved_exact),
        description="AgentBench's database tasks: questions about a table and changes of it, by SQL.",
        protocol=f"AgentBench 0.2, dbbench-{split}, {read.origin}; {actions} actions; at most {rounds} statements; an "
        f"answer is compared by the paper's rule, a change by the MD5 of the table, which drops NULLs and joins cells by "
        f"commas; solved_exact compares values, rows and cells one by one; {name}; an invalid action is answered "
        "and costs a round (the paper ends the attempt)",
        licence="Apache-2.0",
        environment=environment,
        options={"split": split, "actions": actions, "engine": engine, "rounds": rounds},
    )


def solved(task: Task, trace: Trace) -> Score:
    """1 if the answer is right; of a change, if the table is as it should be, whatever was answered."""
    item = TableItem.from_json(task.secret["item"])
    result = trace.final_state["result"]
    if item.is_write:
        right = result["md5"] == item.md5
    else:
        right = result["answer"] is not None and is_right(result["answer"], item.label)
    return world_score("solved", right, trace, kind=item.kind)


def solved_exact(task: Task, trace: Trace) -> Score:
    """1 if it is solved, and each value is right and given once; of a change, if each cell is right, NULLs among them."""
    item = TableItem.from_json(task.secret["item"])
    result = trace.final_state["result"]
    if item.is_write and "exact" not in result:
        raise DataError(
            "the run was made before 0.21.0 and does not say whether each cell is right: run the task again"
        )
    answer = result["answer"]
    right = result["exact"] if item.is_write else answer is not None and is_exact(answer, item.label)
    return world_score("solved_exact", bool(right) and solved(task, trace).value == 1, trace, kind=item.kind)
