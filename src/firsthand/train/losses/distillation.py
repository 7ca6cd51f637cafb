"""Divergences between a teacher's and a student's distribution over the next token, for distillation on logits.

Inputs are logits; each loss is one number per token, in nats, times the square of the temperature, which keeps the size of
the gradient (Hinton et al., 2015, arXiv:1503.02531, section 2).
"""

# M tokens, V vocabulary

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import log_softmax


def forward_kl(student_MV: Tensor, teacher_MV: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student), M: Hinton et al.'s soft targets less the teacher's entropy, which has no gradient."""
    student, teacher = _log_probs(student_MV, teacher_MV, temperature)
    return temperature**2 * _kl(teacher, student)


def reverse_kl(student_MV: Tensor, teacher_MV: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL(student || teacher), M: seeks one mode of the teacher (Gu et al., 2023, arXiv:2306.08543, equation 1)."""
    student, teacher = _log_probs(student_MV, teacher_MV, temperature)
    return temperature**2 * _kl(student, teacher)


def generalised_jsd(student_MV: Tensor, teacher_MV: Tensor, *, beta: float = 0.5, temperature: float = 1.0) -> Tensor:
    """beta KL(teacher || mix) + (1 - beta) KL(student || mix), mix = beta teacher + (1 - beta) student, M.

    Agarwal et al. (2023), arXiv:2306.13649, equation 1: between forward and reverse KL; beta is above 0 and below 1.
    """
    student, teacher = _log_probs(student_MV, teacher_MV, temperature)
    mix = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return temperature**2 * (beta * _kl(teacher, mix) + (1 - beta) * _kl(student, mix))


def _log_probs(student_MV: Tensor, teacher_MV: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return log_softmax(student_MV / temperature, -1), log_softmax(teacher_MV / temperature, -1).detach()


def _kl(log_p_MV: Tensor, log_q_MV: Tensor) -> Tensor:
    return (log_p_MV.exp() * (log_p_MV - log_q_MV)).sum(-1)
