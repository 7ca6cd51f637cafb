"""Prompts with answers as streams for cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from firsthand.train.streams import Stream

if TYPE_CHECKING:
    from firsthand.tokens.tokenizer import Tokenizer


def answer_stream(prompt: Sequence[int], reply: Sequence[int], tokenizer: Tokenizer) -> Stream:
    """The prompt, the reply and the end token, of which reply and end count."""
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    ce = np.zeros(len(prompt) + len(reply) + len(end), np.float32)
    ce[len(prompt) :] = 1
    return Stream(np.array([*prompt, *reply, *end], np.int32), ce=ce)
