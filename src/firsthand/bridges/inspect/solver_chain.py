"""Runs an Inspect task's own solvers, with every generation made by our model inside our attempt."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from firsthand.bridges.inspect.messages import calls_from, message_from, model_of, output_to, sampling_from, specs_from
from firsthand.bridges.inspect.sample_scores import STATE, restored, saved
from firsthand.bridges.inspect.task_samples import load
from firsthand.context import Context
from firsthand.errors import ConfigError, DataError, FirsthandError
from firsthand.message import Message, canonical
from firsthand.model import Completion, FinishReason, ToolSpec
from firsthand.task import Task
from firsthand.tool import Tool


async def solve(task: Task, ctx: Context) -> str:
    """Run the solvers of the sample's own Inspect task and record their final state. See `inspect_solver`."""
    from inspect_ai import util
    from inspect_ai.model import GenerateConfig
    from inspect_ai.solver import chain

    about = task.metadata["inspect"]
    theirs, samples = load(about["task"], about["args"], about.get("grader", ""))
    sample = next((each for each in samples if str(each.id) == task.id), None)
    if sample is None:
        raise DataError(f"{task.id!r} is not a sample of {about['task']!r}: check whether its dataset has changed")
    model, api = _bridge(ctx, task)
    state = restored(theirs, sample, ctx.attempt.agent.model.name)

    async def generate(state: Any, tool_calls: Any = "loop", cache: Any = None, **changes: Any) -> Any:
        from inspect_ai._eval.task.generate import task_generate
        from inspect_ai._util.notgiven import NOT_GIVEN

        config = theirs.config.merge(GenerateConfig(**changes))
        return await task_generate(model, state, tool_calls, NOT_GIVEN if cache is None else cache, config)

    setup = [theirs.setup] if theirs.setup is not None else []
    steps = [step for given in (*setup, theirs.solver) for step in (given if isinstance(given, list) else [given])]
    try:
        with contextlib.ExitStack() as stack:
            for limit, value in (("message_limit", theirs.message_limit), ("time_limit", theirs.time_limit)):
                if value is not None:
                    stack.enter_context(getattr(util, limit)(value))
            _enter(model, state, theirs.config)
            state = await chain(*steps)(state, generate)
    except util.LimitExceededError as error:  # that of time is raised at the end of its block
        ctx.note("limit", limit=error.type, message=error.message)
    except Exception:
        if api.error is not None:  # Inspect wraps a provider's errors; the attempt must fail with the cause
            raise api.error from None
        raise
    ctx.note(STATE, **saved(state))
    return str(state.output.completion)


def _enter(model: Any, state: Any, config: Any) -> None:
    """Set the contextvars that Inspect's functions read, for this attempt's asyncio task alone."""
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
    """Return an Inspect Model, and its ModelAPI, whose every generation is an effect of our attempt."""
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
            settings = sampling_from(config) | {"tool_choice": calls_from(given, tool_choice)}
            if config.max_tokens is None:
                del settings["max_tokens"]
            try:
                samples = await here.sample(config.num_choices or 1, tools=given, **settings)
            except FirsthandError as error:
                self.error = error
                raise
            call = next(call for call in reversed(ctx.attempt.calls) if samples[0].node in call.nodes)
            reasons: list[FinishReason] = call.detail["finish_reasons"]
            completions = [
                Completion(each.last, reason, call.usage if index == 0 else type(call.usage)())
                for index, (each, reason) in enumerate(zip(samples, reasons, strict=True))
            ]
            output = output_to(completions, name)
            for each, choice in zip(samples, output.choices, strict=True):
                self.known[here.node, _key(message_from(choice.message))] = each
            return output

        def _after(self, here: Context, message: Message) -> Context:
            """Return the Context after a message, an existing one if possible, so that sampled ids are never re-encoded."""
            key = (here.node, _key(message))
            if key not in self.known:
                self.known[key] = here.say(message)
            return self.known[key]

        def max_connections(self) -> int:
            return 64

    api = AttemptAPI()
    return model_of(api), api


def _root(ctx: Context, task: Task) -> Context:
    """Return the Context before the task's conversation, which Inspect's messages repeat."""
    node = ctx.node
    for _ in task.conversation:
        assert node is not None
        node = ctx.attempt.nodes[node].parent
    return replace(ctx, node=node)


def _key(message: Message) -> str:
    return canonical(Message(message.role, message.parts).to_json())


def _declared(spec: ToolSpec) -> Tool:
    """Return a Tool for the model's prompt only; Inspect runs the calls."""

    def refused(**arguments: Any) -> str:
        raise ConfigError(f"{spec.name} is run by Inspect, not by firsthand")

    return Tool(spec, "external", refused, lambda arguments: arguments)
