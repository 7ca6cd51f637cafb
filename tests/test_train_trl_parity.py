"""Losses and advantages against TRL's own code, to 1e-6. TRL is called with given log-probs in place of a model's."""

from __future__ import annotations

import inspect
import textwrap
from collections import defaultdict
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from firsthand.train.advantages import group_advantages, kl_penalised_rewards, leave_one_out_advantages
from firsthand.train.importance import importance_weights
from firsthand.train.losses.kl_estimators import k3
from firsthand.train.losses.pair_losses import (
    bradley_terry_loss,
    dpo_loss,
    ipo_loss,
    kto_baseline,
    kto_loss,
    orpo_loss,
    simpo_loss,
)
from firsthand.train.losses.policy_losses import (
    cispo_loss,
    clipped_policy_loss,
    sequence_ratio_loss,
    whole_sequence_loss,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("trl") is None, reason="trl is not installed"),
]
B, T = 6, 7
MASK = torch.tensor([[1] * n + [0] * (T - n) for n in (7, 3, 1, 5, 6, 2)]).float()


class Accelerator:
    """One process."""

    device = torch.device("cpu")
    num_processes = 1
    sync_gradients = True

    def gather(self, x: Tensor) -> Tensor:
        return x

    gather_for_metrics = gather

    def reduce(self, x: Tensor, reduction: str = "sum") -> Tensor:
        return x

    def unwrap_model(self, model: Any) -> Any:
        return model


def numbers(seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    found = {
        name: -torch.rand(B, T, generator=draw, dtype=torch.float64) * 2 for name in ("logps", "old", "ref", "sampled")
    }
    return found | {"advantages": torch.randn(B, generator=draw, dtype=torch.float64)}


def flat(x: Tensor) -> Tensor:
    return x[MASK.bool()]


ROW = flat(torch.arange(B)[:, None].expand(B, T))


def trl_policy_loss(
    given: dict[str, Tensor], *, loss_type: str, level: str = "token", beta: float = 0.0, **more: Any
) -> Tensor:
    """GRPOTrainer's loss of one batch."""
    from trl import GRPOTrainer

    entropies = torch.ones(B, T)
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (given["logps"], entropies, None),
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=level,
        beta=beta,
        loss_type=loss_type,
        epsilon_low=0.2,
        epsilon_high=0.28,
        args=SimpleNamespace(
            delta=None, use_bias_correction_kl=more.get("bias_correction", False), steps_per_generation=1
        ),
        use_vllm="sampled_ratio" in more,
        vllm_importance_sampling_correction="sampled_ratio" in more,
        aux_loss_enabled=False,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        accelerator=Accelerator(),
        max_completion_length=16,
        _entropy_bonus_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    inputs = {
        "prompt_ids": torch.ones(B, 2).long(), "prompt_mask": torch.ones(B, 2).long(),
        "completion_ids": torch.ones(B, T).long(), "completion_mask": MASK.long(), "advantages": given["advantages"],
        "old_per_token_logps": given["old"], "ref_per_token_logps": given["ref"], "num_items_in_batch": MASK.sum(),
    }  # fmt: skip
    if "sampled_ratio" in more:
        inputs["importance_sampling_ratio"] = more["sampled_ratio"]
    loss: Tensor = GRPOTrainer._compute_loss(trainer, None, inputs)
    return loss


def gradients(loss: Tensor, of: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, of)
    return found


PER_ANSWER = flat((MASK / MASK.sum(1, keepdim=True)).double())
EACH = flat(MASK.double())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "gspo", "cispo", "with_kl", "dr_grpo_kl", "corrected"])
def test_policy_losses_and_their_gradients_are_trls(name: str, seed: int) -> None:
    given = numbers(seed)
    logps = given["logps"].requires_grad_()
    advantage, logprob, old = (flat(x) for x in (given["advantages"][:, None].expand(B, T), logps, given["old"]))
    clip = {"clip_low": 0.2, "clip_high": 0.28}
    clipped = clipped_policy_loss(logprob, old, advantage, **clip)
    if name == "grpo":
        theirs, ours = trl_policy_loss(given, loss_type="grpo"), (PER_ANSWER * clipped).sum() / B
    elif name == "dr_grpo":
        theirs, ours = trl_policy_loss(given, loss_type="dr_grpo"), clipped.sum() / (B * 16)
    elif name == "dapo":
        theirs, ours = trl_policy_loss(given, loss_type="dapo"), clipped.sum() / EACH.sum()
    elif name == "gspo":
        theirs = trl_policy_loss(given, loss_type="grpo", level="sequence")
        ours = (PER_ANSWER * sequence_ratio_loss(logprob, old, advantage, ROW, **clip)).sum() / B
    elif name == "cispo":
        theirs = trl_policy_loss(given, loss_type="cispo")  # epsilon_high 0.28 is the bound itself: 1 + clip_high
        ours = cispo_loss(logprob, old, advantage, clip_low=1.0, clip_high=0.28 - 1).sum() / EACH.sum()
    elif name == "dr_grpo_kl":
        theirs = trl_policy_loss(given, loss_type="dr_grpo", beta=0.04)
        ours = (clipped + 0.04 * k3(logprob, flat(given["ref"]))).sum() / (B * 16)
    elif name == "with_kl":
        theirs = trl_policy_loss(given, loss_type="grpo", beta=0.04)
        ours = (PER_ANSWER * (clipped + 0.04 * k3(logprob, flat(given["ref"])))).sum() / B
    else:
        own, sampled = given["old"].detach().numpy(), given["sampled"].numpy()
        weights = torch.from_numpy(importance_weights(own.ravel(), sampled.ravel(), cap=1.5)).reshape(B, T)
        theirs = trl_policy_loss(given, loss_type="grpo", sampled_ratio=weights)
        weighted = clipped_policy_loss(logprob, old, advantage * flat(weights), **clip)
        ours = (PER_ANSWER * weighted).sum() / B
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert torch.allclose(gradients(ours, logps), gradients(theirs, logps), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_rloo_is_trls(seed: int) -> None:
    from trl import RLOOTrainer

    given = numbers(seed)
    logps = given["logps"].requires_grad_()
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (logps, torch.ones(B, T), None),
        epsilon_low=0.2, epsilon_high=0.2, aux_loss_enabled=False, model=SimpleNamespace(training=True),
        accelerator=Accelerator(), _metrics=defaultdict(lambda: defaultdict(list)),
    )  # fmt: skip
    inputs = {
        "prompt_ids": torch.ones(B, 2).long(), "prompt_mask": torch.ones(B, 2).long(),
        "completion_ids": torch.ones(B, T).long(), "completion_mask": MASK.long(), "advantages": given["advantages"],
        "old_logps": (given["old"] * MASK).sum(1),
    }  # fmt: skip
    theirs = RLOOTrainer._compute_loss(trainer, None, inputs)
    advantage = flat(given["advantages"][:, None].expand(B, T))
    ours = (PER_ANSWER * whole_sequence_loss(flat(logps), flat(given["old"]), advantage, ROW)).sum() / B
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert torch.allclose(gradients(ours, logps), gradients(theirs, logps), atol=1e-6)


def source_lines(function: Any, first: str, last: str) -> str:
    """The statements of a method from the line that begins with `first` through the one with `last`, dedented."""
    lines = inspect.getsource(function).splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip().startswith(first))
    stop = next(i for i, line in enumerate(lines) if i >= start and line.strip().startswith(last))
    return textwrap.dedent("\n".join(lines[start : stop + 1]))


def test_group_advantages_and_leaving_one_out_are_trls() -> None:
    """Their formulas are lines of a method that also samples: those lines are run."""
    from trl import RLOOTrainer
    from trl.trainer import grpo_trainer, rloo_trainer

    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.3, -2.0, 5.0, 0.25], dtype=torch.float64)
    groups = [0, 0, 0, 0, 1, 1, 1, 1]
    text = source_lines(
        grpo_trainer.GRPOTrainer._generate_and_score_completions, "mean_grouped_rewards = torch.nanmean", "is_std_zero"
    )
    for scale in ("group", "none"):
        scope: dict[str, Any] = {
            "rewards": rewards, "num_generations": 4, "torch": torch, "nanstd": grpo_trainer.nanstd,
            "self": SimpleNamespace(scale_rewards=scale),
        }  # fmt: skip
        exec(text, scope)
        ours = group_advantages(rewards.numpy(), groups, divide_by_std=scale == "group")
        assert ours == pytest.approx(scope["advantages"].numpy(), abs=1e-6)

    given = numbers(0)
    old, ref = given["old"][:4], given["ref"][:4]
    mask = MASK[:4]
    scope = {
        "rewards": rewards[:4], "num_generations": 4, "torch": torch, "nanstd": rloo_trainer.nanstd, "gather": lambda x: x,
        "old_per_token_logps": old, "ref_per_token_logps": ref, "completion_mask": mask,
        "self": SimpleNamespace(beta=0.05),
    }  # fmt: skip
    text = source_lines(
        RLOOTrainer._generate_and_score_completions, "per_token_kl = old", "advantages = rewards - baselines"
    )
    head, _, tail = text.partition("grouped_rewards = rewards.view")
    tail = "grouped_rewards = rewards.view" + tail
    exec(textwrap.dedent(head), scope)
    exec(textwrap.dedent(tail), scope)
    paid = [
        kl_penalised_rewards(float(r), o[m.bool()].numpy(), f[m.bool()].numpy(), kl_weight=0.05).sum()
        for r, o, f, m in zip(rewards[:4], old, ref, mask, strict=True)
    ]
    assert leave_one_out_advantages(paid, [0] * 4) == pytest.approx(scope["advantages"].numpy(), abs=1e-6)


def trl_pair_loss(
    kind: str, chosen: Tensor, rejected: Tensor, ref: tuple[Tensor, Tensor], smoothing: float = 0.0
) -> Tensor:
    """DPOTrainer's loss, on per-token log-probs of 3 chosen and 3 rejected answers; a column before them is the prompt."""
    from trl import DPOTrainer

    completion_mask = torch.cat([torch.zeros(B, 1), MASK], 1).long()
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=Accelerator(), aux_loss_enabled=False, ld_alpha=None,
        precompute_ref_logps=True, f_divergence_type="reverse_kl", loss_types=[kind], loss_weights=[1.0], beta=0.3,
        label_smoothing=smoothing, use_weighting=False, _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    per_token = torch.cat([chosen, rejected]) * MASK
    outputs = SimpleNamespace(
        log_probs=per_token, entropy=torch.ones(B, T), mean_logits=torch.ones(B, T), is_top1=torch.ones(B, T).bool()
    )
    inputs = {
        "completion_mask": completion_mask, "input_ids": torch.ones(B, T + 1).long(),
        "attention_mask": torch.ones(B, T + 1).long(), "ref_chosen_logps": ref[0], "ref_rejected_logps": ref[1],
    }  # fmt: skip
    loss: Tensor = DPOTrainer._compute_loss(trainer, lambda **kwargs: outputs, inputs, False)
    return loss


@pytest.mark.parametrize("kind", ["sigmoid", "ipo", "robust"])
def test_dpo_and_ipo_are_trls(kind: str) -> None:
    given = numbers(4)
    logps = given["logps"].requires_grad_()
    sums, refs = (logps * MASK).sum(1), (given["ref"] * MASK).sum(1)
    theirs = trl_pair_loss(kind, logps[:3], logps[3:], (refs[:3], refs[3:]), smoothing=0.1)
    ratio = sums - refs
    if kind == "ipo":  # TRL takes the mean over tokens; the paper has the sum
        ratio = ratio / MASK.sum(1)
        ours = ipo_loss(ratio[:3], ratio[3:], beta=0.3).mean()
    elif kind == "sigmoid":
        ours = dpo_loss(ratio[:3], ratio[3:], beta=0.3).mean()
    else:  # robust DPO is the smoothed loss with a negative weight, rescaled
        plain, turned = dpo_loss(ratio[:3], ratio[3:], beta=0.3), dpo_loss(ratio[3:], ratio[:3], beta=0.3)
        ours = ((0.9 * plain - 0.1 * turned) / 0.8).mean()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert torch.allclose(gradients(ours, logps), gradients(theirs, logps), atol=1e-6)


def test_kto_is_trls() -> None:
    from trl import KTOTrainer

    given, mismatched = numbers(5), numbers(6)
    logps = given["logps"].requires_grad_()
    labels = [True, False, True, True, False, False]
    kl, ref_kl = ((mismatched[name] * MASK).sum(1) for name in ("logps", "ref"))
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=Accelerator(), aux_loss_enabled=False, precompute_ref_logps=True,
        calculate_KL=True, loss_type="kto", beta=0.2, desirable_weight=1.3, undesirable_weight=0.7,
        _compute_kl_logps=lambda model, batch: kl, _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    outputs = SimpleNamespace(log_probs=logps * MASK, entropy=torch.ones(B, T), mean_logits=torch.ones(B, T))
    batch = {
        "label": torch.tensor(labels), "input_ids": torch.ones(B, T + 1).long(),
        "attention_mask": torch.ones(B, T + 1).long(),
        "completion_mask": torch.cat([torch.zeros(B, 1), MASK], 1).long(), "ref_logps": (given["ref"] * MASK).sum(1),
        "ref_KL_logps": ref_kl,
    }  # fmt: skip
    theirs = KTOTrainer._compute_loss(trainer, lambda **kwargs: outputs, batch, False)
    ours = kto_loss(
        ((logps - given["ref"]) * MASK).sum(1), torch.tensor([1.0 if label else -1.0 for label in labels]),
        baseline=kto_baseline(kl - ref_kl), beta=0.2, desirable_weight=1.3, undesirable_weight=0.7,
    ).mean()  # fmt: skip
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert torch.allclose(gradients(ours, logps), gradients(theirs, logps), atol=1e-6)


def test_orpo_and_simpo_are_trls() -> None:
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    given = numbers(7)
    means = (given["logps"] * MASK).sum(1) / MASK.sum(1)
    trainer = SimpleNamespace(beta=0.1, accelerator=Accelerator())
    theirs = ORPOTrainer.odds_ratio_loss(trainer, means[:3].float(), means[3:].float())[0]
    assert orpo_loss(means[:3], means[3:], weight=0.1).numpy() == pytest.approx(-theirs.numpy(), abs=1e-6)
    trainer = SimpleNamespace(
        alpha=0.0, accelerator=Accelerator(), loss_type="simpo", simpo_gamma=0.5, beta=2.0, label_smoothing=0.0
    )
    theirs = CPOTrainer.cpo_loss(trainer, means[:3], means[3:])[0]
    assert simpo_loss(means[:3], means[3:], beta=2.0, margin=0.5).numpy() == pytest.approx(theirs.numpy(), abs=1e-6)


def test_the_reward_models_loss_is_trls() -> None:
    from trl import RewardTrainer

    rewards = torch.tensor([1.0, -0.5, 2.0, 0.5, 0.7, -1.0], dtype=torch.float64)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False), accelerator=Accelerator(), aux_loss_enabled=False,
        args=SimpleNamespace(center_rewards_coefficient=0.05), _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
    )  # fmt: skip
    outputs = SimpleNamespace(logits=rewards[:, None])
    theirs = RewardTrainer.compute_loss(trainer, lambda **kwargs: outputs, {"attention_mask": MASK})
    pairs = torch.tensor([0, 1, 2, 0, 1, 2])
    ours = bradley_terry_loss(rewards, torch.tensor([1.0] * 3 + [-1.0] * 3), pairs, centering=0.05).mean()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
