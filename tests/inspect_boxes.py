"""Inspect tasks whose samples have sandboxes, for tests."""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, accuracy, includes, scorer
from inspect_ai.solver import generate, solver, use_tools
from inspect_ai.tool import bash, python
from inspect_ai.util import sandbox

HERE = Path(__file__).parent / "data" / "inspect_two"


@scorer(metrics=[accuracy()])
def left_behind():
    """Whether the answer stands in a file, beside what was given; it looks with a command and by reading."""

    async def score(state, target):
        box = sandbox()
        listed = await box.exec(["sh", "-c", "cat answer.txt; cat /data/given.bin | wc -c; cat made"])
        try:
            answer = await box.read_file("answer.txt")
        except FileNotFoundError:
            answer = ""
        return Score(value=answer.strip() == target.text, answer=answer, explanation=listed.stdout + listed.stderr)

    return score


def sample(id: str, **more):
    return Sample(
        "Add the numbers of numbers.txt and write the sum to answer.txt.",
        target="42",
        id=id,
        files={"numbers.txt": "40\n2\n", "/data/given.bin": "data:application/octet-stream;base64,w3goAP8="},
        setup="echo ready > made; test -s numbers.txt",
        **more,
    )


@task
def adding(kind: str = "local"):
    return Task(
        [sample("add")],
        solver=[use_tools(bash(), python()), generate()],
        scorer=[left_behind(), includes()],
        sandbox=kind,
    )


@task
def mixed():
    return Task([sample("with", sandbox="local"), Sample("Say 42.", target="42", id="without")], scorer=includes())


@solver
def visiting():
    async def solve(state, generate):
        there = await sandbox("alice").exec(["sh", "-c", "pwd; cat made key; echo $SIDE"])
        here = await sandbox().exec(["sh", "-c", "pwd; cat letter; echo $SIDE"])
        state.output.completion = there.stdout + here.stdout
        return state

    return solve


@task
def two():
    row = Sample("Visit both.", target="bob", files={"letter": "dear bob\n", "alice:own": "mine"})
    return Task([row], solver=visiting(), scorer=includes(), sandbox=("docker", str(HERE / "compose.yaml")))


@task
def wanting(config: str):
    return Task([sample("wants")], scorer=includes(), sandbox=("docker", config))


@task
def failing():
    return Task([Sample("x", setup="echo no such luck >&2; exit 3")], scorer=includes(), sandbox="local")
