"""A cross-encoder: an encoder over query and text together, and a head that gives one number from the first token.

BertForSequenceClassification (pooler, then classifier) and RobertaForSequenceClassification (dense, then out_proj)
compute the same: out(tanh(dense(h))). Left out: heads of several classes, and training.
"""

# N packed tokens, D hidden, P pairs

from __future__ import annotations

import torch
from torch import Tensor, nn

from firsthand.nn.blocks.attention import Attend
from firsthand.nn.encoder import Encoder
from firsthand.nn.families.bert import BertArchitecture


class PairClassifier(nn.Module):
    """An encoder with a head of one class. `weights.load_pair_classifier` reads its weights."""

    def __init__(self, architecture: BertArchitecture):
        super().__init__()
        self.architecture = architecture
        self.encoder = Encoder(architecture)
        self.dense = nn.Linear(architecture.hidden_size, architecture.hidden_size)
        self.out = nn.Linear(architecture.hidden_size, 1)

    def forward(self, ids_N: Tensor, positions_N: Tensor, attend: Attend, types_N: Tensor, first_P: Tensor) -> Tensor:
        """The logit of each pair, P. `first_P` is where each pair's first token is among all."""
        return self.logits(self.encoder(ids_N, positions_N, attend, types_N)[first_P])

    def logits(self, first_PD: Tensor) -> Tensor:
        """The logit of each pair from the hidden state of its first token: P."""
        out_P: Tensor = self.out(torch.tanh(self.dense(first_PD)))[:, 0]
        return out_P
