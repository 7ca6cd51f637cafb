"""Small Inspect tasks for tests: one for each of the scorers that tasks mostly use, and one with a tool."""

from inspect_ai import Epochs, Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, GenerateConfig
from inspect_ai.scorer import (
    Score,
    accuracy,
    choice,
    includes,
    match,
    mean,
    model_graded_fact,
    pattern,
    scorer,
    stderr,
)
from inspect_ai.solver import chain_of_thought, generate, multiple_choice, solver, system_message, use_tools
from inspect_ai.tool import ToolError, tool

CITIES = {"France": "Paris", "Peru": "Lima", "Kenya": "Nairobi", "Japan": "Tokyo", "Cuba": "Havana", "Mali": "Bamako"}


def samples(**more):
    return MemoryDataset(
        [Sample(input=f"What is the capital of {c}?", target=t, id=c.lower(), **more) for c, t in CITIES.items()]
    )


@task
def matching():
    return Task(dataset=samples(), solver=generate(), scorer=[match(), includes()])


@task
def clustered():
    rows = [Sample(input=f"Is {n} even?", target="yes", id=n, metadata={"passage": n // 2}) for n in range(5)]
    config = GenerateConfig(max_tokens=7, stop_seqs=["\n"])
    return Task(dataset=rows, scorer=includes(), metrics=[accuracy(), stderr(cluster="passage")], config=config)


@task
def patterned(shots: int = 0):
    assert shots in (0, 3)
    return Task(
        dataset=samples(),
        solver=[system_message("Be brief."), chain_of_thought()],
        scorer=pattern(r"([A-Z][a-z]+)\.?$"),
    )


@task
def choosing():
    names = list(CITIES.values())
    rows = [
        Sample(input=f"Capital of {c}?", choices=[names[(i + 1) % 6], t, names[(i + 2) % 6]], target="B")
        for i, (c, t) in enumerate(CITIES.items())
    ]
    return Task(dataset=rows, solver=multiple_choice(), scorer=choice())


@task
def graded():
    return Task(dataset=samples(), scorer=model_graded_fact())


@tool
def atlas():
    async def execute(country: str) -> str:
        """Look up a capital.

        Args:
            country: The country.
        """
        if country == "Mali":
            raise ToolError("no page for Mali")
        return CITIES[country]

    return execute


@solver
def ask_again():
    async def solve(state, generate):
        state = await generate(state)
        state.store.set("first", state.output.completion)
        state.messages.append(ChatMessageUser(content="Are you sure?"))
        return await generate(state, temperature=0.5, stop_seqs=["STOP"])

    return solve


@scorer(metrics={"right": [accuracy(), stderr()], "length": [mean()]})
def both():
    async def score(state, target):
        first = state.store.get("first", "")
        return Score(value={"right": target.text in first, "length": len(state.messages)}, answer=first)

    return score


@task
def tooled():
    return Task(dataset=samples(), solver=[use_tools(atlas()), ask_again()], scorer=[includes(), both()])


@scorer(metrics=[mean()])
def listed():
    async def score(state, target):
        return Score(value=[1.0, 0.0], metadata={"epoch": state.epoch, "said": state.output.completion})

    return score


@scorer(metrics={"*": [mean()]})
def partly():
    async def score(state, target):
        return Score(value={"known": "C", "half": "P", "unknown": None}, answer=state.output.completion)

    return score


@task
def witnessed():
    return Task(dataset=samples()[:3], scorer=[listed(), partly()])


@task
def repeated():
    return Task(
        dataset=samples(),
        scorer=match(location="any"),
        epochs=Epochs(3, ["mean", "at_least_2", "pass_at_2"]),
    )


@task
def spoken():
    talk = [
        ChatMessageSystem(content="Be brief."),
        ChatMessageUser(content="Capital of Chad?"),
        ChatMessageAssistant(content="N'Djamena"),
        ChatMessageUser(content="What is the capital of Peru?"),
    ]
    return Task(dataset=[Sample(input=talk, target="Lima")], scorer=includes())


@task
def limited():
    return Task(dataset=samples(), solver=[use_tools(atlas()), ask_again()], scorer=includes(), message_limit=4)


@task
def sandboxed():
    return Task(dataset=samples(), scorer=match(), sandbox="docker")


@task
def broken(fail: bool = False):
    if fail:
        raise RuntimeError("no data here")
    return matching()
