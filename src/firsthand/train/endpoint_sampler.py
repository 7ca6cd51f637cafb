"""An endpoint that samples rollouts: any server with OpenAI's API that returns token ids and log-probs and takes adapters.

`firsthand serve MODEL --adapter-root FOLDER` is one, on this machine, with replicas, or on Ray; vLLM with
`--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING is another. The policy's adapter is written to the run's folder before
each batch, which the server must see under the same path, and loaded in place by `/v1/load_lora_adapter`.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from firsthand.errors import ConfigError, DataError, ModelError, TrainingError
from firsthand.model import Completion, Delta, Model, Prompt, Sampling, Scored, ToolSpec
from firsthand.nn.decoder import Decoder
from firsthand.nn.lora import has_magnitudes
from firsthand.nn.routed_lora import agents_of
from firsthand.providers.agents import AgentsModel
from firsthand.providers.endpoint_secrets import endpoint_secrets, hide
from firsthand.providers.openai import OpenAIModel
from firsthand.system.bounded_reply import Reply, ask_async
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.adapters.lora_training import adapter_of
from firsthand.train.adapters.save_adapter import write_adapter
from firsthand.train.processes import from_first, is_first

LOAD_TIMEOUT_S, MAX_REPLY_BYTES = 120.0, 1 << 20


class EndpointPolicy:
    """A model behind an endpoint whose answers have all that training needs: ids and log-probs of the distribution sampled.

    At temperature 1 and without cuts that is the model's own distribution, whose log-probs endpoints return.
    """

    def __init__(self, model: OpenAIModel):
        self.inner = model

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.inner.name

    @property
    def fingerprint(self) -> str:
        """The URL and the model's name."""
        return self.inner.fingerprint

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """Returns `n` answers with their tokens. ModelError if the endpoint leaves any out."""
        return [self._whole(each) for each in await self.inner.complete(prompt, sampling, tools=tools, n=n)]

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[Delta]:
        """Yields one answer, piece by piece."""
        async for delta in self.inner.stream(prompt, sampling, tools=tools):
            yield delta if delta.completion is None else replace(delta, completion=self._whole(delta.completion))

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """Returns the likelihood of each continuation."""
        return await self.inner.score(prompt, continuations)

    def _whole(self, completion: Completion) -> Completion:
        sampled = completion.message.sampled
        if sampled is None or completion.prompt_ids is None:
            missing = "log-probs or token ids" if sampled is None else "prompt_token_ids"
            raise ModelError(
                f"{self.name} returned no {missing}: rollouts to train on need an endpoint that answers `return_token_ids`, "
                "such as `firsthand serve` or vLLM"
            )
        known = replace(sampled, behaviour_logprobs=sampled.logprobs)
        return replace(completion, message=replace(completion.message, sampled=known))


class EndpointSampler:
    """An endpoint, with the policy's adapter or those of its agents loaded before each batch."""

    def __init__(self, named: str, policy: Decoder, folder: Path, settings: AdapterSettings):
        """`named` is `openai:NAME@URL`, NAME the base model there. ConfigError without an adapter that an endpoint takes."""
        if settings.adapter not in ("lora", "rslora") or settings.base_weights in ("nf4", "int4"):
            raise ConfigError(
                f"sampler is {named}, and an endpoint takes new weights as LoRA adapters of its own base: give --adapter "
                "lora or rslora, with base_weights kept or blocks"
            )
        base, _, url = named.removeprefix("openai:").rpartition("@")
        self.policy, self.url, self.base = policy, url.rstrip("/"), base
        self.folder = folder.resolve() / "sampler"
        own = re.sub(r"[^A-Za-z0-9._-]", "-", folder.resolve().name)
        self.names = {
            agent: f"{own}.{agent}".replace(" ", "-") if agent else own for agent in agents_of(policy) or ("",)
        }
        views = {agent: self._opened(name) for agent, name in self.names.items()}
        self.model: Model = views[""] if "" in views else AgentsModel(self._opened(base), views)
        self._settings = settings.config(0)

    async def send(self, version: int) -> None:
        """Write the adapters and have the endpoint load them. TrainingError if it refuses."""
        problem = ""
        for agent, name in self.names.items():
            adapter = adapter_of(self.policy, agent=agent)  # gathered by all processes
            assert not has_magnitudes(adapter)
            if is_first():
                place = self.folder / name
                write_adapter(adapter, self.policy, place, base=self.base, config=self._settings)
                problem = problem or await self._load(name, place)
        if problem := from_first(problem):
            raise TrainingError(
                f"{self.url} did not load the adapter of step {version} ({problem}): serve the base with `--adapter-root` "
                "above the run's folder, or vLLM with runtime LoRA updating"
            )

    async def _load(self, name: str, place: Path) -> str:
        """Returns what went wrong, if anything."""
        body = {"lora_name": name, "lora_path": str(place), "load_inplace": True}
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            async with httpx.AsyncClient(timeout=LOAD_TIMEOUT_S, headers=headers) as client:
                request = client.build_request("POST", f"{self.url}/load_lora_adapter", json=body)
                reply = await ask_async(client, request, max_bytes=MAX_REPLY_BYTES, within_s=LOAD_TIMEOUT_S)
        except (DataError, httpx.HTTPError) as error:
            return f"{type(error).__name__}: {error}"
        return (
            "" if reply.status == 200 else f"status {reply.status}: {_message(reply, endpoint_secrets(key, self.url))}"
        )

    def _opened(self, name: str) -> EndpointPolicy:
        return EndpointPolicy(OpenAIModel(name, self.url, return_token_ids=True))


def _message(reply: Reply, secrets: Sequence[str] = ()) -> str:
    try:
        body: Any = reply.json()
        return hide(str(body.get("error", {}).get("message") or body), secrets, 300)
    except (ValueError, AttributeError):
        return hide(reply.text, secrets, 300)
