"""Value heads: a linear one of a model, or one for each agent where agents have an adapter each."""

# N packed tokens, D hidden

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from firsthand.nn.decoder import Decoder


class AgentHeads(nn.Module):
    """A value head for each agent; `chosen` is the one that counts."""

    def __init__(self, heads: Mapping[str, nn.Linear]):
        super().__init__()
        self.heads = nn.ModuleList(heads.values())
        self.agents = tuple(heads)
        self.chosen = 0

    def forward(self, hidden_ND: Tensor) -> Tensor:
        """The chosen agent's values: N 1."""
        values_N1: Tensor = self.heads[self.chosen](hidden_ND)
        return values_N1


def choose_head(values: nn.Module | None, agent: str) -> None:
    """Turn on an agent's value head, if agents have heads of their own."""
    if isinstance(values, AgentHeads):
        values.chosen = values.agents.index(agent)


def value_head(model: Decoder, begun: nn.Linear | None = None) -> nn.Linear:
    """A linear value head on the model's device, which begins at 0, or as another head."""
    head = nn.Linear(model.architecture.hidden_size, 1, device=model.embed.weight.device)
    with torch.no_grad():
        head.weight.copy_(begun.weight) if begun is not None else nn.init.zeros_(head.weight)
        head.bias.copy_(begun.bias) if begun is not None else nn.init.zeros_(head.bias)
    return head


def value_heads(model: Decoder, agents: Sequence[str], begun: nn.Linear | None = None) -> nn.Module:
    """A value head, or one for each agent."""
    return AgentHeads({agent: value_head(model, begun) for agent in agents}) if agents else value_head(model, begun)
