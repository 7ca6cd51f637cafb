"""AgentBench's knowledge graph: questions answered by seven functions over a graph, scored by F1.

Without a graph one is generated, with its questions. The paper's questions (`split=std` or `dev`) are about Freebase, which
is too large to come along: they need `graph=FILE`, N-Triples in Freebase's layout, and are read from `data` or
`$FIRSTHAND_DATA`.
"""

from __future__ import annotations

import os
from functools import cache, partial
from pathlib import Path

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.long_context.lengths import LazyTasks
from firsthand.benchmarks.sources.chat_histories import field_of, read_records
from firsthand.errors import ConfigError, DataError
from firsthand.message import Json
from firsthand.system.given_data import held
from firsthand.system.plurals import count_of
from firsthand.task import Task
from firsthand.trace import Score, Trace
from firsthand.worlds.knowledge.graph_generator import GRAPH_LEVELS, GRAPH_VERSION, SIZES, make_graph, make_question
from firsthand.worlds.knowledge.graph_world import GraphWorld, answer_f1
from firsthand.worlds.knowledge.triples import open_graph
from firsthand.worlds.outcomes import world_result, world_score
from firsthand.worlds.world import Actions, WorldEnvironment

SPLITS = ("generated", "dev", "std")
STARTS = {
    1: ("film.film", "people.person", "location.citytown", "sports.sports_team", "book.book"),
    2: tuple(SIZES),
    3: tuple(SIZES),
}
"""Types of entities at which the generated questions of a level begin."""
FOLDER = "agents/agentbench/knowledgegraph"
INSTRUCTIONS = """Answer the question by functions over a knowledge graph, one call in a turn. The functions are:
get_relations(x): the relations that lead from x, an entity or a variable such as #0, to others
get_neighbors(x, relation): a new variable, all that a relation of x leads to; list the relations of x first
intersection(#a, #b): a new variable, the entities in both of two variables of one type
get_attributes(#a): the numbers and dates that the entities of a variable have
argmax(#a, attribute) and argmin(#a, attribute): a new variable, the entities with the largest or smallest value
count(#a): a new variable, the number of entities
Variables are numbered from #0. When one holds the answer, write Final Answer: and its name, such as Final Answer: #2.

"""


def agentbench_kg(
    *,
    split: str = "generated",
    level: int = 2,
    about: str = "",
    tasks: int = 100,
    rounds: int = 15,
    actions: Actions = "text",
    graph: str = "",
    data: str = "",
) -> Benchmark:
    """Return the benchmark: `tasks` generated questions of a `level` (1 to 3), or the paper's over the `graph`.

    `about` is the type of the entities at which generated questions begin, such as book.book; any if not given.
    """
    if split not in SPLITS or level not in GRAPH_LEVELS or not 1 <= tasks <= 10_000:
        raise ConfigError(
            f"split is {split!r}, level {level} and tasks {tasks}: give one of {', '.join(SPLITS)}, level 1 to 3 and 1 to "
            "10,000 tasks"
        )
    if about and (split != "generated" or about not in STARTS[level]):
        raise ConfigError(
            f"about is {about!r}: give one of {', '.join(STARTS[level])} at level {level}, with generated questions"
        )
    if split == "generated" and (graph or data):
        raise ConfigError("graph and data are for the paper's questions: give split=std or split=dev with them")
    records = [] if split == "generated" else _records(split, graph, data)
    source = (
        f"generated, version {GRAPH_VERSION}, level {level}{about and ', about '}{about}"
        if not records
        else f"AgentBench's {split}.json over {graph}"
    )
    return Benchmark(
        name="agentbench_kg",
        tasks=lambda seed: LazyTasks(range(len(records) or tasks), partial(_task, records, seed, level, about)),
        scorers=(graph_f1, graph_exact),
        description="Questions over a knowledge graph by seven functions (AgentBench).",
        protocol=f"{source}; {count_of(rounds, 'round')}; F1 of the answer's entities; {actions} actions",
        licence="Apache-2.0" if records else "none needed: generated",
        environment=lambda task: WorldEnvironment(
            GraphWorld(_graph(graph) if graph else make_graph(task.metadata["graph"]), task),
            rounds=rounds,
            actions=actions,
        ),
        options={
            "split": split,
            "level": level,
            "about": about,
            "tasks": len(records) or tasks,
            "rounds": rounds,
            "actions": actions,
        },
    )


def graph_f1(task: Task, trace: Trace) -> Score:
    """Score the F1 of the answer's entities."""
    return world_score("f1", answer_f1(*_counted(task, trace)), trace, shape=task.metadata.get("shape"))


def graph_exact(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer has exactly the right entities."""
    hits, given, wanted = _counted(task, trace)
    return Score("exact", float(0 < given == hits == wanted))


def _counted(task: Task, trace: Trace) -> tuple[int, int, int]:
    """Returns the numbers of right, given and wanted entities; of attempts from before 0.22, of the kept ids."""
    result, wanted = world_result(trace), set(task.secret["answer"])
    given = set(result.get("answer", ()))
    return result.get("hits", len(given & wanted)), result.get("size", len(given)), len(wanted)


_graph = cache(lambda path: open_graph(Path(path).expanduser()))
"""The stores of users' graphs, each opened once."""


def _records(split: str, graph: str, data: str) -> list[Json]:
    root = Path(data or os.environ.get("FIRSTHAND_DATA") or ".").expanduser()
    path = next((held(p, root) for p in (root / f"{split}.json", root / FOLDER / f"{split}.json") if p.is_file()), None)
    if path is None:
        raise DataError(
            f"there is no {split}.json in {root} or its {FOLDER}: get it from AgentBench's repository "
            "(data/knowledgegraph), and give data=FOLDER"
        )
    records = read_records(path)
    if not graph:
        raise DataError(
            f"the {len(records)} questions of {path} are about Freebase: give graph=FILE with its triples "
            "(N-Triples, .nt or .nt.gz), or split=generated"
        )
    return records


def _task(records: list[Json], seed: int, level: int, about: str, index: int) -> Task:
    if records:
        return _paper_task(records[index], f"question {index + 1}")
    made = make_question(seed, index, level, about)
    return Task(
        f"seed{seed}-level{level}{about and '-'}{about}-{index:04d}",
        prompt(made.question, dict(made.entities)),
        metadata={
            "graph": seed,
            "question": made.question,
            "entities": dict(made.entities),
            "shape": made.shape,
            "stratum": made.shape,
        },
        secret={"actions": list(made.actions), "answer": list(made.answer)},
    )


def prompt(question: str, entities: dict[str, str]) -> str:
    """The text of a task: the functions, the question, and its entities."""
    named = "; ".join(f"{name} is {id}" for name, id in entities.items())
    return f"{INSTRUCTIONS}Question: {question}\nEntities: {named}"


def _paper_task(record: Json, where: str) -> Task:
    """A question of AgentBench's file."""
    question, entities = field_of(record, "question", str, where), field_of(record, "entities", dict, where)
    actions = [action.replace(",", ", ") for action in field_of(record, "actions", list, where)]
    variables = sum(not action.startswith(("get_relations", "get_attributes")) for action in actions)
    answers = [str(each["answer_argument"]) for each in field_of(record, "answer", list, where)]
    return Task(
        field_of(record, "qid", str, where),
        prompt(question, entities),
        metadata={"question": question, "entities": entities, "source": record.get("source", "")},
        secret={"actions": [*actions, f"Final Answer: #{variables - 1}"], "answer": answers},
    )
