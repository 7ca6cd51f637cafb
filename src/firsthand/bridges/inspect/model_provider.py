"""Our models as a provider of Inspect: `inspect eval task.py --model firsthand/smollm2`.

Inspect finds this module by the entry point `inspect_ai` of our package. What follows `firsthand/` names a model as
everywhere here: `smollm2`, a .gguf file, `openai:NAME@URL`, `scripted:FILE.json`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

MAX_CONNECTIONS = 64
"""Requests at a time; the engine batches them."""

with suppress(ImportError):
    from inspect_ai.model import modelapi

    @modelapi(name="firsthand")  # type: ignore[untyped-decorator]
    def firsthand() -> Any:
        """The provider's class, made when Inspect first asks for it."""
        return model_api()


def model_api() -> Any:
    """The class of the provider."""
    from inspect_ai.model import GenerateConfig, ModelAPI

    from firsthand import catalog
    from firsthand.bridges.inspect.messages import message_from, output_to, sampling_from, specs_from, too_long
    from firsthand.errors import ConfigError, PromptTooLong, TransientError
    from firsthand.model import Sampling

    class FirsthandAPI(ModelAPI):  # type: ignore[misc]
        """A model of ours, asked in Inspect's way."""

        def __init__(
            self,
            model_name: str,
            base_url: str | None = None,
            api_key: str | None = None,
            config: Any = None,
            **model_args: Any,
        ) -> None:
            super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
            if model_args:
                raise ConfigError(f"firsthand/{model_name} was given {', '.join(model_args)}: it takes no arguments")
            self.model = catalog.model(model_name)

        async def generate(self, input: list[Any], tools: list[Any], tool_choice: Any, config: Any) -> Any:
            """Our answers to Inspect's request."""
            specs = specs_from(tools, tool_choice)
            sampling = Sampling(**sampling_from(config))
            messages = tuple(map(message_from, input))
            try:
                answers = await self.model.complete(messages, sampling, tools=specs, n=config.num_choices or 1)
            except PromptTooLong as error:
                return too_long(self.model_name, str(error))
            return output_to(answers, self.model_name)

        def should_retry(self, ex: BaseException) -> bool:
            """Whether the fault may pass."""
            return isinstance(ex, TransientError)

        def max_connections(self) -> int:
            """Requests at a time."""
            return MAX_CONNECTIONS

        def close(self) -> None:
            """Let go of the weights."""
            closing = getattr(self.model, "close", None)
            if closing is not None:
                closing()

    return FirsthandAPI
