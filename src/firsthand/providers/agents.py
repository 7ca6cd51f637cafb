"""A local model whose agents have an adapter each: `agents:MODEL@FOLDER`, as `firsthand train ... --agents` leaves them.

Which adapter answers depends on the branch of the attempt that asks: in `orchestrate` the branch `worker 2` belongs to the
agent `worker`, and what is outside of any branch to `lead`. An agent without an adapter answers with the base model. All
share one engine, so their requests run in the same batches. FOLDER is a training run, or holds a folder for each agent.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from firsthand.errors import ConfigError, ModelFileError
from firsthand.loop.concurrency import current_branch
from firsthand.model import Completion, Delta, Model, Prompt, Sampling, Scored, ToolSpec, close

LEAD = "lead"
"""The agent outside of any named branch."""
CONFIG_FILE = "adapter_config.json"


def open_model(rest: str) -> AgentsModel:
    """Returns the model named `agents:MODEL@FOLDER`; nothing is loaded yet."""
    from firsthand.providers.local import open_model as open_local

    model, at, folder = rest.rpartition("@")
    if not at:
        raise ConfigError(f"agents:{rest!r:.80} has no folder of adapters: write agents:MODEL@FOLDER")
    base = open_local(model)
    folders = adapter_folders(Path(folder))
    for name, each in folders.items():
        base.put_adapter(name, each)
    views = {agent: base.with_adapter(agent) for agent in folders}
    return AgentsModel(base, views, name=f"agents:{rest}")


def adapter_folders(folder: Path) -> Mapping[str, Path]:
    """The folder of each agent's adapter in a training run, or in a folder of them. ModelFileError if there is none."""
    whole = folder / "adapters" if (folder / "adapters").is_dir() else folder
    found = {each.parent.name: each.parent for each in sorted(whole.glob(f"*/{CONFIG_FILE}"))}
    if not found:
        raise ModelFileError(
            f"{folder} holds no adapters of agents: give a run of `firsthand train ... --agents lead,worker`"
        )
    return found


def agent_of(branch: str, agents: Sequence[str]) -> str | None:
    """The agent that a branch belongs to: the one it is called after, with or without a number; None if there is none.

    `worker 2.1` belongs to `worker 2.1`, else to `worker`; what has no name belongs to `lead`.
    """
    name = branch or LEAD
    while name:
        if name in agents:
            return name
        name = name.rpartition(" ")[0]
    return None


class AgentsModel:
    """A Model that answers each branch of an attempt with the adapter of its agent, and says so in the sampled message."""

    def __init__(self, base: Model, views: Mapping[str, Model], *, name: str = ""):
        """`views` are the model with the adapter of each agent."""
        self.base = base
        self.views = dict(views)
        self._name = name or base.name

    @property
    def name(self) -> str:
        """The name it was opened by."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Hash of the model and of all adapters."""
        found = "|".join([*self.views, *(view.fingerprint for view in (self.base, *self.views.values()))])
        return f"agents:{hashlib.sha256(found.encode()).hexdigest()[:16]}"

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """Returns `n` answers of the agent whose branch asks."""
        agent = self._agent()
        return [_marked(each, agent) for each in await self._view(agent).complete(prompt, sampling, tools=tools, n=n)]

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[Delta]:
        """Yields one answer of the agent whose branch asks, piece by piece."""
        agent = self._agent()
        async for delta in self._view(agent).stream(prompt, sampling, tools=tools):
            yield delta if delta.completion is None else replace(delta, completion=_marked(delta.completion, agent))

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """Returns the likelihood of each continuation for the agent whose branch asks."""
        return await self._view(self._agent()).score(prompt, continuations)

    def put_on(self, device: str) -> None:
        """As `Local.put_on`."""
        for model in (self.base, *self.views.values()):
            model.put_on(device)  # type: ignore[attr-defined]

    def hold_weights_in(self, format: str) -> None:
        """As `Local.hold_weights_in`."""
        for model in (self.base, *self.views.values()):
            model.hold_weights_in(format)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Unload the model."""
        close(self.base)

    def _agent(self) -> str | None:
        return agent_of(current_branch().name, tuple(self.views))

    def _view(self, agent: str | None) -> Model:
        return self.base if agent is None else self.views[agent]


def _marked(completion: Completion, agent: str | None) -> Completion:
    """The completion whose sampled tokens name the agent's adapter."""
    sampled = completion.message.sampled
    if agent is None or sampled is None:
        return completion
    return replace(completion, message=replace(completion.message, sampled=replace(sampled, adapter=agent)))
