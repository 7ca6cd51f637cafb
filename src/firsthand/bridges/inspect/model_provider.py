"""Model provider for Inspect: `inspect eval task.py --model firsthand/smollm2`.

Inspect finds this module through our package's `inspect_ai` entry point. The text after `firsthand/` names a model as
everywhere here: `smollm2`, a .gguf file, `openai:NAME@URL`, `scripted:FILE.json`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

MAX_CONNECTIONS = 64
"""Concurrent requests; the engine batches them."""

with suppress(ImportError):
    from inspect_ai.model import modelapi

    @modelapi(name="firsthand")  # type: ignore[untyped-decorator]
    def firsthand() -> Any:
        """Return the provider class; Inspect calls this when it first needs it."""
        return model_api()


def model_api() -> Any:
    """Define and return the provider class; imports Inspect."""
    from inspect_ai.model import GenerateConfig, ModelAPI

    from firsthand import catalog
    from firsthand.bridges.inspect.messages import (
        calls_from,
        message_from,
        output_to,
        sampling_from,
        specs_from,
        too_long,
    )
    from firsthand.errors import ConfigError, PromptTooLong, TransientError
    from firsthand.model import Sampling

    class FirsthandAPI(ModelAPI):  # type: ignore[misc]
        """Serves Inspect's generate requests with a firsthand Model."""

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
                raise ConfigError(f"firsthand/{model_name} takes no arguments: leave out {', '.join(model_args)}")
            self.model = catalog.model(model_name)

        async def generate(self, input: list[Any], tools: list[Any], tool_choice: Any, config: Any) -> Any:
            """Complete the conversation; a prompt that is too long gives an output with the stop reason `model_length`."""
            specs = specs_from(tools, tool_choice)
            sampling = Sampling(**sampling_from(config), tool_choice=calls_from(specs, tool_choice))
            messages = tuple(map(message_from, input))
            try:
                answers = await self.model.complete(messages, sampling, tools=specs, n=config.num_choices or 1)
            except PromptTooLong as error:
                return too_long(self.model_name, str(error))
            return output_to(answers, self.model_name)

        def should_retry(self, ex: BaseException) -> bool:
            """True if the error is transient."""
            return isinstance(ex, TransientError)

        def max_connections(self) -> int:
            """Return the number of concurrent requests."""
            return MAX_CONNECTIONS

        def close(self) -> None:
            """Release the model's weights."""
            closing = getattr(self.model, "close", None)
            if closing is not None:
                closing()

    return FirsthandAPI
