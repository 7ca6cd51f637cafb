"""Any task of Inspect: its samples, its scorers and its metrics, answered by our patterns or by its own solvers.

    firsthand run inspect:task=capitals.py@capitals --pattern direct,cot
    firsthand run inspect:task=inspect_evals/gsm8k --pattern inspect_solver --limit 20

A sample becomes a Task, and Inspect's scorers judge what came back (`inspect_results.py`). With the pattern `inspect_solver`
the task's own solver chain runs instead, on our model. A task file is Python and runs with your rights, as any Python file
that is named on the command line. Samples that need a sandbox get ours, or Docker (`inspect_sandbox.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from firsthand.benchmark import Benchmark
from firsthand.bridges.inspect.messages import message_from, model_of, output_to, sampling_from, specs_from
from firsthand.bridges.inspect.results import STATE, Judge, enter_grader, restored, saved
from firsthand.bridges.inspect.sample_sandbox import Sandboxes, placed
from firsthand.context import Context
from firsthand.errors import ConfigError, DataError, FirsthandError, MissingExtra
from firsthand.message import Message, canonical
from firsthand.model import Completion, FinishReason, ToolSpec
from firsthand.task import Task
from firsthand.tool import Tool
from firsthand.trace import as_json

__all__ = ["inspect", "restored", "solve"]


def inspect(*, task: str = "", args: str = "", grader: str = "", sandbox: str = "") -> Benchmark:
    """The Inspect task of that name, such as `inspect_evals/gsm8k`, or of a file, `FILE.py@NAME`, as a Benchmark.

    `args` are its arguments, `shots=5,subject=maths`. `grader` names the model that its scorers ask, if they ask one, as
    models are named everywhere here; a colon in it is written `\\:`, as in `grader=openai\\:NAME@https\\://HOST/v1`.
    """
    if not task:
        raise ConfigError(
            "inspect was given no task: write inspect:task=FILE.py@NAME, or inspect:task=inspect_evals/gsm8k"
        )
    theirs, samples = load(task, args, grader)
    ours = [_task(sample, task, args, grader) for sample in samples]
    by_id = {each.id: sample for each, sample in zip(ours, samples, strict=True)}
    places = placed(theirs, samples, task, sandbox)
    judge = Judge(theirs, by_id, grader, places)
    return Benchmark(
        name=f"inspect:{Path(task).name if '.py' in task else task}" + (f":{args}" if args else ""),
        tasks=lambda seed: ours,
        scorers=(judge.score,),
        description=f"{task}, as Inspect has it.",
        protocol=_words(theirs, task, args, grader, sorted({spec.type for spec in places.values()})),
        environment=(lambda each: Sandboxes(each, theirs, by_id[each.id], places.get(each.id))) if places else None,
        figures=judge.figures,
        options={"task": task, "args": args},
    )


@lru_cache(maxsize=8)
def load(task: str, args: str, grader: str) -> tuple[Any, list[Any]]:
    """Inspect's Task, and its samples, each with an id. A task that asks for the model while it is made gets the grader."""
    try:
        from inspect_ai._eval.loader import load_tasks
    except ImportError:
        raise MissingExtra("inspect-ai", "inspect", f"the benchmark inspect:task={task}") from None
    path, at, name = task.partition("@")
    file = Path(path)
    if file.suffix == ".py" and not file.is_file():
        raise ConfigError(f"no file {str(file)!r}: give the path of the Python file that defines the Inspect task")
    try:
        enter_grader(grader)
        # Inspect looks for a file by a pattern, and takes none that is absolute.
        found = load_tasks([os.path.relpath(file) + at + name if file.suffix == ".py" else task], _arguments(args))
    except FirsthandError:
        raise
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())[:300]
        raise DataError(f"Inspect could not make the task {task!r} ({type(error).__name__}: {said})") from error
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise ConfigError(f"{task!r} gives {len(found)} tasks ({names}): name one, as in inspect:task=FILE.py@NAME")
    samples = list(found[0].dataset)
    if not samples:
        raise DataError(f"{task!r} has no samples: check its dataset")
    for index, sample in enumerate(samples, 1):
        sample.id = index if sample.id is None else sample.id
    ids = [str(sample.id) for sample in samples]
    twice = next((id for id in ids if ids.count(id) > 1), None) if len(set(ids)) < len(ids) else None
    if twice is not None:
        raise DataError(f"{task!r} has two samples with the id {twice!r}: ids must differ")
    return found[0], samples


def _arguments(args: str) -> dict[str, Any]:
    """`shots=5,subject=maths` as keyword arguments: JSON where it is JSON, else text."""
    found: dict[str, Any] = {}
    for part in filter(None, args.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.strip().isidentifier():
            raise ConfigError(f"args has {part!r}: NAME=VALUE was expected, as in args=shots=5,subject=maths")
        try:
            found[key.strip()] = json.loads(value)
        except (ValueError, RecursionError):
            found[key.strip()] = value
    return found


def _task(sample: Any, task: str, args: str, grader: str) -> Task:
    """The sample as a Task: its last message is the prompt, those before it the conversation."""
    from inspect_ai.model import ChatMessageUser

    messages = [ChatMessageUser(content=sample.input)] if isinstance(sample.input, str) else list(sample.input)
    said = tuple(map(message_from, messages))
    if not said or said[-1].role != "user":
        raise DataError(f"the sample {sample.id!r} does not end with a message of the user: there is nothing to answer")
    return Task(
        id=str(sample.id),
        prompt=said[-1].text,
        choices=tuple(sample.choices or ()),
        conversation=said[:-1],
        hint="a letter" if sample.choices else None,
        verbatim=not sample.choices,
        metadata={"inspect": {"task": task, "args": args, "grader": grader}},
        secret={"target": as_json(sample.target), "metadata": as_json(sample.metadata or {})},
    )


async def solve(task: Task, ctx: Context) -> str:
    """Run the solvers of the sample's own Inspect task; what they leave is noted for the scorers. See `inspect_solver`."""
    from inspect_ai import util
    from inspect_ai.model import GenerateConfig
    from inspect_ai.solver import chain

    about = task.metadata["inspect"]
    theirs, samples = load(about["task"], about["args"], about.get("grader", ""))
    sample = next((each for each in samples if str(each.id) == task.id), None)
    if sample is None:
        raise DataError(f"{task.id!r} is no sample of {about['task']!r}: has its dataset changed?")
    model, api = _bridge(ctx, task)
    state = restored(theirs, sample, ctx.attempt.agent.model.name)
    with contextlib.ExitStack() as stack:
        for limit, value in (("message_limit", theirs.message_limit), ("time_limit", theirs.time_limit)):
            if value is not None:
                stack.enter_context(getattr(util, limit)(value))
        _enter(model, state, theirs.config)

        async def generate(state: Any, tool_calls: Any = "loop", cache: Any = None, **changes: Any) -> Any:
            from inspect_ai._eval.task.generate import task_generate
            from inspect_ai._util.notgiven import NOT_GIVEN

            config = theirs.config.merge(GenerateConfig(**changes))
            return await task_generate(model, state, tool_calls, NOT_GIVEN if cache is None else cache, config)

        setup = [theirs.setup] if theirs.setup is not None else []
        steps = [step for given in (*setup, theirs.solver) for step in (given if isinstance(given, list) else [given])]
        try:
            state = await chain(*steps)(state, generate)
        except util.LimitExceededError as error:
            ctx.note("limit", limit=error.type, message=error.message)
        except Exception:
            if api.error is not None:  # Inspect wraps what a provider raises; the attempt is to fail with the cause
                raise api.error from None
            raise
    ctx.note(STATE, **saved(state))
    return str(state.output.completion)


def _enter(model: Any, state: Any, config: Any) -> None:
    """Set what Inspect's functions look for around them, in this attempt alone: contextvars of its asyncio task."""
    from inspect_ai._eval.task.run import set_sample_state
    from inspect_ai.log._transcript import Transcript, init_transcript
    from inspect_ai.model._model import init_active_model, init_model_usage, init_role_usage
    from inspect_ai.util._store import init_subtask_store

    init_active_model(model, config)
    init_model_usage()
    init_role_usage()
    init_transcript(Transcript())
    init_subtask_store(state.store)
    set_sample_state(state)


def _bridge(ctx: Context, task: Task) -> tuple[Any, Any]:
    """An Inspect Model whose every generation is an effect of our attempt."""
    from inspect_ai.model import GenerateConfig, ModelAPI

    name = ctx.attempt.agent.model.name

    class AttemptAPI(ModelAPI):  # type: ignore[misc]
        error: FirsthandError | None = None

        def __init__(self) -> None:
            super().__init__(name, None, None, [], GenerateConfig())
            self.root = _root(ctx, task)
            self.known: dict[tuple[int | None, str], Context] = {}

        async def generate(self, input: list[Any], tools: list[Any], tool_choice: Any, config: Any) -> Any:
            here = self.root
            for message in map(message_from, input):
                here = self._after(here, message)
            given = tuple(_declared(spec) for spec in specs_from(tools, tool_choice))
            settings = sampling_from(config)
            if config.max_tokens is None:
                del settings["max_tokens"]
            try:
                said = await here.sample(config.num_choices or 1, tools=given, **settings)
            except FirsthandError as error:
                self.error = error
                raise
            call = next(call for call in reversed(ctx.attempt.calls) if said[0].node in call.nodes)
            reasons: list[FinishReason] = call.detail["finish_reasons"]
            completions = [
                Completion(each.last, reason, call.usage if index == 0 else type(call.usage)())
                for index, (each, reason) in enumerate(zip(said, reasons, strict=True))
            ]
            output = output_to(completions, name)
            for each, choice in zip(said, output.choices, strict=True):
                self.known[here.node, _key(message_from(choice.message))] = each
            return output

        def _after(self, here: Context, message: Message) -> Context:
            """The Context after a message: the one there is, so that what was sampled is never encoded again."""
            key = (here.node, _key(message))
            if key not in self.known:
                self.known[key] = here.say(message)
            return self.known[key]

        def max_connections(self) -> int:
            return 64

    api = AttemptAPI()
    return model_of(api), api


def _root(ctx: Context, task: Task) -> Context:
    """Where the conversation begins: Inspect's messages hold what the task's conversation holds, so it is left out."""
    node = ctx.node
    for _ in task.conversation:
        assert node is not None
        node = ctx.attempt.nodes[node].parent
    return replace(ctx, node=node)


def _key(message: Message) -> str:
    return canonical(Message(message.role, message.parts).to_json())


def _declared(spec: ToolSpec) -> Tool:
    """A tool that a model is told of; Inspect runs it."""

    def refused(**arguments: Any) -> str:
        raise ConfigError(f"{spec.name} is run by Inspect")

    return Tool(spec, "external", refused, lambda arguments: arguments)


def _words(theirs: Any, task: str, args: str, grader: str, sandboxes: list[str]) -> str:
    from importlib.metadata import version

    epochs = theirs.epochs or 1
    reducers = [getattr(each, "__name__", "reducer") for each in (theirs.epochs_reducer or ())]
    parts = [
        f"Inspect {version('inspect-ai')}, {task}",
        *([f"with {args}"] if args else []),
        *([f"graded by {grader}"] if grader else []),
        *([f"in the sandbox {' and '.join(sandboxes)}"] if sandboxes else []),
        *([f"it asks for --epochs {epochs}" + (f", reduced by {', '.join(reducers)}" if reducers else "")]
          if epochs > 1 else []),
    ]  # fmt: skip
    return "; ".join(parts)
