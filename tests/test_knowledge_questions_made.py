"""Generated questions over a knowledge graph as tasks: every field, and every answer of a question that has several."""

from __future__ import annotations

import pytest

from benchmark_rows import bodies
from firsthand.benchmarks import agentbench_kg as kg
from firsthand.benchmarks.agentbench_kg import agentbench_kg
from firsthand.task import Task
from firsthand.trace import Trace
from firsthand.worlds.knowledge.graph_generator import make_question


@pytest.mark.parametrize(("level", "about"), [(1, ""), (1, "book.book"), (2, ""), (3, "")])
def test_a_made_question_is_a_task_with_all_its_answers(level: int, about: str) -> None:
    made = agentbench_kg(level=level, tasks=13, about=about)
    tasks = made.tasks(3)
    assert len(tasks) == 13
    several = 0
    for index in (0, 1, 2, 3, 5, 6, 12):
        question = make_question(3, index, level, about)
        several += len(question.answer) > 1
        named = "; ".join(f"{name} is {id}" for name, id in dict(question.entities).items())
        assert bodies([tasks[index]]) == [
            {
                "id": f"seed3-level{level}{'-book.book' if about else ''}-{index:04d}",
                "prompt": f"{kg.INSTRUCTIONS}Question: {question.question}\nEntities: {named}",
                "metadata": {
                    "graph": 3, "question": question.question, "entities": dict(question.entities),
                    "shape": question.shape, "stratum": question.shape,
                },
                "secret": {"actions": list(question.actions), "answer": list(question.answer)},
            }
        ]  # fmt: skip
    assert several or level == 3 or about


def test_an_answer_of_several_entities_is_right_only_whole() -> None:
    index = next(each for each in range(30) if len(make_question(3, each, 1, "").answer) > 2)
    task = agentbench_kg(level=1, tasks=30).tasks(3)[index]
    answer = list(make_question(3, index, 1, "").answer)

    def scores(task: Task, given: list[str]) -> tuple[float, float]:
        state = {"rounds": 1, "invalid_actions": 0, "longest_loop": 0, "ended": "answered", "result": {"answer": given}}
        trace = Trace("t", "b", task.id, {}, 0, 0, "", 0.0, answer="", final_state=state)
        return round(kg.graph_f1(task, trace).value, 9), kg.graph_exact(task, trace).value

    size = len(answer)
    for given, f1, exact in (
        (answer, 1.0, 1.0), (answer[::-1], 1.0, 1.0), (answer[:1], 2 / (size + 1), 0.0), ([], 0.0, 0.0),
        (answer[1:], 2 * (size - 1) / (2 * size - 1), 0.0), ([*answer, "m.x"], 2 * size / (2 * size + 1), 0.0),
        (["m.x"], 0.0, 0.0),
    ):  # fmt: skip
        assert scores(task, given) == (round(f1, 9), exact), given


def test_entities_are_told_one_after_the_other() -> None:
    assert kg.prompt("Who?", {}) == f"{kg.INSTRUCTIONS}Question: Who?\nEntities: "
    assert kg.prompt("Q", {"A": "m.1"}) == f"{kg.INSTRUCTIONS}Question: Q\nEntities: A is m.1"
    assert kg.prompt("Q", {"B": "m.2", "A": "m.1"}) == f"{kg.INSTRUCTIONS}Question: Q\nEntities: B is m.2; A is m.1"
