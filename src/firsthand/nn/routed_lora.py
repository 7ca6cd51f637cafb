"""Several LoRA adapters beside one set of frozen weights, one of them on at a time: an adapter for each agent.

`attach_agents` puts them there, `choose` turns one on, and `adapters_off` leaves all of them out for a while, which gives
the model as it was before training without a second copy.
"""

# N packed tokens, D in, O out

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from firsthand.errors import ConfigError
from firsthand.nn.decoder import Decoder
from firsthand.nn.lora import Adapter, Base, LoRALinear


class RoutedLinear(nn.Module):
    """A Linear with an adapter for each agent; `chosen` is the one that counts, None leaves all out."""

    def __init__(self, agents: Mapping[str, LoRALinear]):
        """The adapters share one base. Their names are kept in order; a name may hold no dot."""
        super().__init__()
        try:
            self.agents = nn.ModuleDict(agents)
        except KeyError as error:
            raise ConfigError(f"an agent's name cannot be used ({error.args[0]}): give it another one") from None
        self.chosen: str | None = next(iter(agents))

    @property
    def base(self) -> Base:
        """The frozen weights beneath."""
        base: Base = next(iter(self.agents.values())).base  # type: ignore[assignment]
        return base

    def adapter(self, agent: str) -> LoRALinear:
        """The adapter of an agent."""
        adapter: LoRALinear = self.agents[agent]  # type: ignore[assignment]
        return adapter

    def forward(self, x_ND: Tensor) -> Tensor:
        """Each token on its own, with the chosen adapter: N O."""
        product: Tensor = self.base(x_ND) if self.chosen is None else self.agents[self.chosen](x_ND)
        return product


def attach_agents(model: Decoder, adapters: Mapping[str, Adapter]) -> Decoder:
    """Returns the model with an adapter for each agent beside its weights, the first one on.

    ConfigError unless the model has none yet and all of them change the same matrices.
    """
    changed = {name: set(adapter.deltas) for name, adapter in adapters.items()}
    first = next(iter(changed.values()))
    if any(each != first for each in changed.values()):
        raise ConfigError(f"the adapters of {', '.join(adapters)} change different matrices: give them equal targets")
    for place in sorted(first):
        parent, _, leaf = place.removesuffix(".weight").rpartition(".")
        module = getattr(model.get_submodule(parent), leaf)
        if not isinstance(module, Base):
            raise ConfigError(f"{place} is a {type(module).__name__}: attach adapters to a model that has none")
        agents = {name: LoRALinear(module, adapter.deltas[place]) for name, adapter in adapters.items()}
        setattr(model.get_submodule(parent), leaf, RoutedLinear(agents))
    return model


def agents_of(model: nn.Module) -> tuple[str, ...]:
    """The agents that have an adapter each; none if the model has one adapter or no adapter."""
    routed = next((each for each in model.modules() if isinstance(each, RoutedLinear)), None)
    return () if routed is None else tuple(routed.agents)


def choose(model: nn.Module, agent: str) -> None:
    """Turn on the adapter of an agent; ConfigError if there is none of that name."""
    for module in model.modules():
        if isinstance(module, RoutedLinear):
            if agent not in module.agents:
                raise ConfigError(f"no agent {agent!r} has an adapter: there are {', '.join(module.agents)}")
            module.chosen = agent


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Leave every adapter of the model out within the block; what was on is on again after it."""
    routed = [(each, each.chosen) for each in model.modules() if isinstance(each, RoutedLinear)]
    single = [(each, each.is_on) for each in model.modules() if isinstance(each, LoRALinear)]
    try:
        for module, _ in routed:
            module.chosen = None
        for adapter, _ in single:
            adapter.is_on = False
        yield
    finally:
        for module, chosen in routed:
            module.chosen = chosen
        for adapter, was_on in single:
            adapter.is_on = was_on
