"""Reward models: a decoder with a linear head on the last token, as a folder, as a scorer of episodes and of traces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from firsthand.errors import ConfigError, ModelFileError, TrainingError, reason_of
from firsthand.nn import weights
from firsthand.nn.decoder import Decoder
from firsthand.nn.tensor_file import read_tensors
from firsthand.system.new_file import replacing
from firsthand.tokens import pretrained
from firsthand.train.episodes import Graded
from firsthand.train.stream_logprobs import stream_logprobs

HEAD_FILE = "reward_head.safetensors"


def expect_reads(reward_model: Path, policy: Path) -> None:
    """ConfigError unless the reward model's tokenizer gives every token of the policy's the same id."""
    if not pretrained.load(reward_model).reads_ids_of(pretrained.load(policy)):
        raise ConfigError(
            f"the reward model in {reward_model} and the policy {policy} have different tokenizers, so it would score other "
            "texts than the policy's: train it from the policy, or from a model with the policy's tokenizer"
        )


@dataclass
class RewardModel:
    """A decoder and its head. The score of a sequence is the head's value at the last token, less `mean`."""

    model: Decoder
    head: nn.Linear
    mean: float = 0.0
    """Subtracted from scores, so that those of the data it was trained on have mean 0 (InstructGPT, section 3.5)."""

    @staticmethod
    def load(folder: Path, *, device: str = "cpu") -> RewardModel:
        """The reward model in a folder, on a device. ModelFileError if it has no head, or one of another size."""
        file = folder / HEAD_FILE
        model = weights.load(folder, device=device)
        try:
            state = read_tensors(file)
            head = nn.Linear(model.architecture.hidden_size, 1)
            head.load_state_dict({"weight": state["weight"], "bias": state["bias"]})
            mean = float(state["mean"])
        except (ModelFileError, KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ModelFileError(
                f"{folder} is no reward model ({reason_of(error)}): give a folder that `firsthand train reward` wrote"
            ) from None
        return RewardModel(model, head.to(device), mean)

    def save_head(self, folder: Path) -> None:
        """Write the head beside the decoder's weights."""
        state = {"weight": self.head.weight, "bias": self.head.bias, "mean": torch.tensor(self.mean)}
        with replacing(folder / HEAD_FILE) as part:
            save_file({name: value.detach().contiguous() for name, value in state.items()}, part)

    def scores(self, sequences: Sequence[NDArray[np.int32]]) -> list[float]:
        """The score of each sequence of token ids. TrainingError for one that is longer than the model's context."""
        longest, context = max(map(len, sequences), default=0), self.model.architecture.max_position
        if longest > context:
            raise TrainingError(
                f"a conversation has {longest} tokens, and the reward model's context is {context}: lower --max-tokens, or "
                "train the reward model from a model of a longer context"
            )
        found = stream_logprobs(self.model, sequences, values=self.head)
        return [each.last_value - self.mean for each in found]

    def rescored(self, graded: Graded) -> Graded:
        """The episodes with this model's scores as rewards; the rewards they had stay in the metrics as `gold_reward`."""
        scores = self.scores([each.ids for each in graded.episodes])
        episodes = tuple(each.with_reward(score) for each, score in zip(graded.episodes, scores, strict=True))
        more = {
            "gold_reward": graded.metrics["reward"],
            "reward": float(np.mean(scores)),
            "reward_std": float(np.std(scores)),
        }
        return Graded(episodes, graded.metrics | more)
