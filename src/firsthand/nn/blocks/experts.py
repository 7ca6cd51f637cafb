"""A mixture of experts: a router sends each token to a few MLPs and adds what they return, weighted.

Dropless: the tokens of an expert are gathered and computed together, however many they are, so no token is dropped and none
waits. `load_balancing_loss` and `router_z_loss` keep a router from sending all tokens to a few experts; they take the
router's logits, which the site `mlp.router` shows (`sites`).
"""

# N packed tokens, D hidden, E experts, C chosen of each token, G groups of experts

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from firsthand.nn.architecture import Architecture, ExpertSettings
from firsthand.nn.blocks.mlp import mlp_of
from firsthand.nn.sites import TapFunction


class Routes(NamedTuple):
    """The experts of each token."""

    logits: Tensor
    """N E, the router's output."""
    weights: Tensor
    """N C, float32"""
    experts: Tensor
    """N C"""


class ExpertRouter(nn.Module):
    """Scores all experts for each token and chooses the best."""

    correction: nn.Parameter | None

    def __init__(self, hidden_size: int, settings: ExpertSettings):
        super().__init__()
        self.settings = settings
        # A Parameter of its own and no Linear: a rounded router sends tokens to other experts, so it is never packed.
        self.weight = nn.Parameter(torch.empty(settings.num_experts, hidden_size))
        self.bias = nn.Parameter(torch.empty(settings.num_experts)) if settings.has_bias else None
        self.correction = nn.Parameter(torch.empty(settings.num_experts)) if settings.has_correction else None

    def forward(self, x_ND: Tensor) -> Routes:
        """Returns the experts of each token and their weights; scores are computed in float32."""
        s = self.settings
        bias_E = None if self.bias is None else self.bias.float()
        logits_NE = functional.linear(x_ND.float(), self.weight.float(), bias_E)
        if s.score == "softmax_of_chosen":
            best_NC, chosen_NC = logits_NE.topk(s.per_token, dim=-1)
            return Routes(logits_NE, best_NC.softmax(-1) * s.scale, chosen_NC)
        scores_NE = logits_NE.sigmoid() if s.score == "sigmoid" else logits_NE.softmax(-1)
        corrected_NE = scores_NE if self.correction is None else scores_NE + self.correction.float()
        chosen_NC = within_groups(corrected_NE, s).topk(s.per_token, dim=-1).indices
        weights_NC = scores_NE.gather(-1, chosen_NC)
        if s.renormalise:
            weights_NC = weights_NC / (weights_NC.sum(-1, keepdim=True) + 1e-20)
        return Routes(logits_NE, weights_NC * s.scale, chosen_NC)


def within_groups(scores_NE: Tensor, s: ExpertSettings) -> Tensor:
    """The scores, with minus infinity for experts outside a token's best groups (DeepSeek-V2, section 2.1.2)."""
    if s.groups_per_token == s.num_groups:
        return scores_NE
    scores_NGE = scores_NE.reshape(len(scores_NE), s.num_groups, -1)
    kept = 2 if s.group_score == "top2" else 1
    best_NG = scores_NGE.topk(kept, dim=-1).values.sum(-1)
    groups_NG = best_NG.topk(s.groups_per_token, dim=-1).indices
    is_out_NG = torch.ones_like(best_NG, dtype=torch.bool).scatter(-1, groups_NG, False)
    return scores_NGE.masked_fill(is_out_NG[..., None], -torch.inf).flatten(-2)


class MixtureOfExperts(nn.Module):
    """The experts of one layer, and the shared expert that computes every token, if there is one."""

    SITES = ("router",)

    def __init__(self, architecture: Architecture):
        super().__init__()
        settings = architecture.experts
        assert settings is not None, "this architecture has no experts"
        one = replace(architecture, intermediate_size=settings.width, mlp_bias=settings.has_bias, experts=None)
        self.router = ExpertRouter(architecture.hidden_size, settings)
        self.experts = nn.ModuleList(mlp_of(one) for _ in range(settings.num_experts))
        shared = replace(one, intermediate_size=settings.shared_width) if settings.shared_width else None
        self.shared = None if shared is None else mlp_of(shared)
        self.shared_gate = nn.Linear(architecture.hidden_size, 1, bias=False) if settings.has_shared_gate else None

    def forward(self, x_ND: Tensor, tap: TapFunction | None = None) -> Tensor:
        """Transforms each token on its own: N D. Each token's experts are added in their order, whatever is in the batch."""
        routes = self.router(x_ND)
        if tap is not None:
            tap("router", routes.logits)
        out_ND = self._routed(x_ND, routes)
        if self.shared is not None:
            shared_ND = self.shared(x_ND)
            out_ND = out_ND + (shared_ND if self.shared_gate is None else self.shared_gate(x_ND).sigmoid() * shared_ND)
        return out_ND

    def _routed(self, x_ND: Tensor, routes: Routes) -> Tensor:
        """The sum of each token's experts: N D. The pairs of token and expert are sorted by expert."""
        per_token = routes.experts.shape[-1]
        order = routes.experts.flatten().argsort(stable=True)
        tokens, weights = order // per_token, routes.weights.flatten()[order].to(x_ND.dtype)
        counts = torch.bincount(routes.experts.flatten(), minlength=len(self.experts)).tolist()
        out_ND, start = torch.zeros_like(x_ND), 0
        for expert, count in zip(self.experts, counts, strict=True):
            if count:
                rows = tokens[start : start + count]
                out_ND = out_ND.index_add(0, rows, expert(x_ND[rows]) * weights[start : start + count, None])
                start += count
        return out_ND


def load_balancing_loss(logits: Sequence[Tensor], per_token: int) -> Tensor:
    """E * sum over experts of (share of tokens) * (mean probability), of all layers together; 1 * C if all is even.

    `logits` are those of each layer, N E (Fedus et al., 2021, equations 4 to 6, for C experts of each token).
    """
    probabilities_NE = torch.cat([each.float().softmax(-1) for each in logits])
    chosen_NC = probabilities_NE.topk(per_token, dim=-1).indices
    taken_NE = torch.zeros_like(probabilities_NE).scatter(-1, chosen_NC, 1.0)
    return probabilities_NE.shape[-1] * (taken_NE.mean(0) * probabilities_NE.mean(0)).sum()


def router_z_loss(logits: Sequence[Tensor]) -> Tensor:
    """The mean square of log(sum(e ** logit)), which keeps logits small (ST-MoE; Zoph et al., 2022, equation 5)."""
    return torch.cat([each.float().logsumexp(-1) for each in logits]).square().mean()
