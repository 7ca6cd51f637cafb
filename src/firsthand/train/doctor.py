"""The doctor: reads the metrics of a training run and says in words why it does not learn. No torch.

Each check is a function of the curves that returns a finding or None. Limits are written beside it, with their reason. A
finding names what was seen, at which steps, and what to try; it is a suspicion, not a proof.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from firsthand.runs.track import Curve, Track

MIN_STEPS = 5
"""A run of fewer steps shows nothing."""
EQUAL_SHARE = 0.8
"""Groups of equal rewards give no gradient; beyond this share, little is left of a batch."""
CUT_SHARE = 0.2
"""A fifth of the answers ended at the limit of tokens: their reward is about the limit."""
KL_LIMIT = 10.0
"""Nats per answer away from the reference: beyond about 10, gold rewards fall (Gao et al., 2022, arXiv:2210.10760)."""
STEP_KL = 0.1
"""Nats per token between the policy that sampled and the one in training: PPO's usual bound is 0.01 to 0.02."""
ENTROPY_LEFT = 0.1
"""The surprisal of sampled tokens fell to a tenth of its beginning: the policy no longer explores."""
LENGTH_GROWTH = 1.5
"""Answers grew by half, while what is measured beside the reward did not rise."""
LOG_RATIO = -15.0
"""Nats: the chosen answers themselves became this much less likely, as an over-optimised DPO shows (beta too small)."""
NORM_JUMP = 20.0
"""A gradient this many times the median of the run."""


@dataclass(frozen=True)
class Finding:
    """One suspicion."""

    name: str
    """Such as `equal rewards`."""
    evidence: str
    """The observation, with numbers."""
    advice: str
    """A remedy to try."""


Curves = Mapping[str, Curve]
Check = Callable[[Curves], Finding | None]


def diagnose(track: Track) -> list[Finding]:
    """The findings of a run, most telling first; none for a run that looks healthy."""
    return examine({curve.name: curve for curve in track.curves()})


def examine(curves: Curves) -> list[Finding]:
    """The findings of these curves by name."""
    if max((len(curve.steps) for curve in curves.values()), default=0) < MIN_STEPS:
        return [
            Finding("too short", f"fewer than {MIN_STEPS} steps have metrics", "train longer before asking the doctor")
        ]
    return [found for check in CHECKS if (found := check(curves)) is not None]


def not_finite(curves: Curves) -> Finding | None:
    """A loss or gradient that is NaN or infinite."""
    for name in ("loss", "grad_norm", "reward"):
        curve = curves.get(name)
        bad = (
            [] if curve is None else [s for s, v in zip(curve.steps, curve.values, strict=True) if not math.isfinite(v)]
        )
        if bad:
            return Finding(
                "not finite",
                f"{name} is not a finite number at step {bad[0]} ({len(bad)} such steps)",
                "lower the learning rate; look at the streams of that step, which the run saved in `stopped`",
            )
    return None


def constant_reward(curves: Curves) -> Finding | None:
    """All rewards of the whole run are one value."""
    reward, spread = curves.get("reward"), curves.get("reward_std")
    if reward is None or spread is None or not reward.values:
        return None
    if max(spread.values) > 1e-9 or max(reward.values) - min(reward.values) > 1e-9:
        return None
    value = reward.values[-1]
    if value <= 0:
        return None  # `never_solved` says more
    return Finding(
        "constant reward",
        f"every reward of {len(reward.values)} steps is {value:g}",
        "look at what the scorer reads with `firsthand show`; a reward that is always the same teaches nothing",
    )


def never_solved(curves: Curves) -> Finding | None:
    """No rollout was ever rewarded: pass@k is 0."""
    reward, spread = curves.get("reward"), curves.get("reward_std")
    if reward is None or spread is None or max(reward.values) > 0 or max(spread.values) > 1e-9:
        return None
    return Finding(
        "never solved",
        f"no rollout of {len(reward.values)} steps had a reward above 0: pass@k is 0 for the k that were sampled",
        "begin with easier tasks, a reward for parts of the answer, or SFT on some solutions; RL sharpens what the "
        "model sometimes does",
    )


def equal_rewards(curves: Curves) -> Finding | None:
    """Most groups have rewards without variance, so their advantages are 0."""
    groups, equal = curves.get("groups"), curves.get("groups_of_equal_rewards")
    reward = curves.get("reward")
    if groups is None or equal is None or never_solved(curves) or constant_reward(curves):
        return None
    count, flat = _late(groups), _late(equal)
    if not count or flat / count < EQUAL_SHARE:
        return None
    late = _late(reward) if reward is not None else math.nan
    if late > 0.95:
        return None  # it has learned its tasks
    return Finding(
        "equal rewards",
        f"{flat / count:.0%} of the groups of late steps have rewards that do not differ (mean reward {late:.2f}), and such "
        "groups have no gradient",
        "sample more answers for each task, choose tasks that the model solves sometimes, or use `dapo`, which samples "
        "until rewards differ",
    )


def kl_blow_up(curves: Curves) -> Finding | None:
    """The policy ran away from its reference, or within one step from what was sampled."""
    step_kl = curves.get("approx_kl")
    if step_kl is not None and (high := _highest(step_kl)) and high[1] > STEP_KL:
        return Finding(
            "KL blow-up",
            f"the policy moved {high[1]:.2g} nats per token away from the one that sampled, at step {high[0]}",
            "lower the learning rate, or take fewer updates and minibatches for each batch of rollouts",
        )
    kl, length = curves.get("ref_kl"), curves.get("answer_tokens")  # nats per token
    if kl is not None and length is not None and (late := _late(kl) * _late(length)) > KL_LIMIT:
        return Finding(
            "KL blow-up",
            f"answers are about {late:.1f} nats away from the reference in late steps",
            "raise the weight of the KL, stop earlier, or check the reward for what is easy to please",
        )
    return None


def entropy_collapse(curves: Curves) -> Finding | None:
    """The surprisal of sampled tokens vanished before the reward was reached."""
    curve, reward = curves.get("surprisal"), curves.get("reward")
    if curve is None or len(curve.values) < MIN_STEPS:
        return None
    early, late = _early(curve), _late(curve)
    if not (early > 0 and late < ENTROPY_LEFT * early) or (reward is not None and _late(reward) > 0.9):
        return None
    return Finding(
        "entropy collapse",
        f"the mean surprisal of sampled tokens fell from {early:.3g} to {late:.3g} nats while the reward is "
        f"{'unknown' if reward is None else format(_late(reward), '.2f')}",
        "raise the upper clip (clip-higher, as in DAPO), the KL's weight or the temperature; or lower the learning rate",
    )


def truncation(curves: Curves) -> Finding | None:
    """Many answers ended at the limit of tokens."""
    cut, total = curves.get("rollouts_cut"), curves.get("rollouts")
    if cut is None or total is None or not _late(total):
        return None
    share = _late(cut) / _late(total)
    if share < CUT_SHARE:
        return None
    return Finding(
        "truncation",
        f"{share:.0%} of the answers of late steps ended at the limit of tokens",
        "raise --max-tokens, or shorten what is asked for: an answer that was cut is mostly scored 0 for its length",
    )


def length_hacking(curves: Curves) -> Finding | None:
    """Answers grow and the reward rises, while what it stands for does not."""
    length, reward = curves.get("answer_tokens"), curves.get("reward")
    gold = curves.get("gold_reward") or curves.get("held_out_reward")
    if length is None or reward is None or gold is None or len(gold.values) < 4:
        return None
    grew = _late(length) > LENGTH_GROWTH * _early(length)
    rose, gold_rose = _late(reward) - _early(reward), _late(gold) - _early(gold)
    if not (grew and rose > 0 and gold_rose <= 0):
        return None
    return Finding(
        "length hacking",
        f"answers grew from {_early(length):.1f} to {_late(length):.1f} tokens and the reward by {rose:.2g}, while "
        f"{gold.name} changed by {gold_rose:+.2g}",
        "look at late answers with `firsthand show`; weigh the reward by length, or train the reward model on such answers",
    )


def over_optimised(curves: Curves) -> Finding | None:
    """The reward rises while the gold or held-out reward falls from its best."""
    reward = curves.get("reward")
    gold = curves.get("gold_reward") or curves.get("held_out_reward")
    if reward is None or gold is None or len(gold.values) < 4 or length_hacking(curves):
        return None
    best = max(_smoothed(gold.values))
    fall, spread = best - _late(gold), max(gold.values) - min(gold.values)
    if not (spread > 0 and fall > 0.3 * spread and _late(reward) > _early(reward)):
        return None
    return Finding(
        "over-optimisation",
        f"the reward rose to {_late(reward):.3g} while {gold.name} fell from {best:.3g} to {_late(gold):.3g}",
        "keep the checkpoint of its best, raise the KL's weight, or give the reward model more comparisons",
    )


def chosen_collapse(curves: Curves) -> Finding | None:
    """Preference training pushes the chosen answers down too."""
    chosen, rejected = curves.get("chosen_log_ratio"), curves.get("rejected_log_ratio")
    if chosen is None or rejected is None or (late := _late(chosen)) > LOG_RATIO:
        return None
    plain = curves.get("chosen_logprob")
    if plain is not None and plain.values == chosen.values:
        return None  # `simpo` and `orpo` before 0.27 have no reference, and log-probs under this name
    return Finding(
        "chosen log-prob collapse",
        f"chosen answers became {-late:.1f} nats less likely than in the reference, rejected ones {-_late(rejected):.1f}: "
        "the probability went to answers that are in no pair",
        "raise beta, lower the learning rate, take fewer steps, or add cross-entropy on the chosen answers",
    )


def gradient_spike(curves: Curves) -> Finding | None:
    """One gradient far above the others, after which the loss stayed higher."""
    norm, loss = curves.get("grad_norm"), curves.get("loss")
    if norm is None or loss is None or len(norm.values) < 2 * MIN_STEPS:
        return None
    finite = sorted(value for value in norm.values if math.isfinite(value))
    median = finite[len(finite) // 2] if finite else 0.0
    high = _highest(norm)
    if high is None or not median or high[1] < NORM_JUMP * median:
        return None
    before = [v for s, v in zip(loss.steps, loss.values, strict=True) if s < high[0]][-MIN_STEPS:]
    after = [v for s, v in zip(loss.steps, loss.values, strict=True) if s > high[0]][:MIN_STEPS]
    if not before or not after or _mean(after) <= _mean(before):
        return None
    return Finding(
        "gradient spike",
        f"the gradient's norm is {high[1]:.3g} at step {high[0]}, {high[1] / median:.0f} times its median, and the loss "
        f"rose from {_mean(before):.3g} to {_mean(after):.3g}",
        "bound the norm with --clip-norm, warm up longer, or look at the batch of that step",
    )


def overfitting(curves: Curves) -> Finding | None:
    """The held-out loss rises while the loss falls."""
    held_out, loss = curves.get("held_out_loss"), curves.get("loss")
    if held_out is None or loss is None or len(held_out.values) < 4:
        return None
    best = min(held_out.values)
    at = held_out.steps[held_out.values.index(best)]
    last = held_out.values[-1]
    if not (last > best * 1.05 and held_out.steps[-1] > at and _late(loss) < _early(loss)):
        return None
    return Finding(
        "overfitting",
        f"the held-out loss was lowest at step {at} ({best:.3g}) and is {last:.3g} now, while the loss went on falling",
        f"keep the checkpoint near step {at}, train fewer epochs, or give more data",
    )


def no_progress(curves: Curves) -> Finding | None:
    """The loss of a model in supervised training is where it began."""
    loss, rate = curves.get("loss"), curves.get("lr")
    if loss is None or "reward" in curves or len(loss.values) < 4 * MIN_STEPS:
        return None
    early, late = _early(loss), _late(loss)
    spread = max(abs(v - early) for v in _part(loss, first=True)) or 1e-12
    if not (math.isfinite(late) and late > early - 0.5 * spread and late > 0.97 * early):
        return None
    high = max(rate.values) if rate is not None and rate.values else math.nan
    return Finding(
        "no progress",
        f"the loss was {early:.4g} in early steps and is {late:.4g} in late ones (learning rate at most {high:.2g})",
        "raise the learning rate by ten, look whether the masks leave tokens to learn, and overfit one small batch first",
    )


def sampler_mismatch(curves: Curves) -> Finding | None:
    """The distribution that sampled is not the one in training."""
    capped = curves.get("importance_capped")
    if capped is None or (share := _late(capped)) < 0.05:
        return None
    return Finding(
        "sampler mismatch",
        f"{share:.0%} of the importance weights of late steps reached their cap: sampler and trainer disagree",
        "hold the engine's weights in float32 for rollouts, or update it more often",
    )


CHECKS: tuple[Check, ...] = (
    not_finite, never_solved, constant_reward, equal_rewards, kl_blow_up, entropy_collapse, truncation, length_hacking,
    over_optimised, chosen_collapse, sampler_mismatch, gradient_spike, overfitting, no_progress,
)  # fmt: skip


def _part(curve: Curve, *, first: bool) -> Sequence[float]:
    """The first or last fifth of the values, one or more."""
    count = max(1, len(curve.values) // 5)
    return curve.values[:count] if first else curve.values[-count:]


def _early(curve: Curve) -> float:
    return _mean(_part(curve, first=True))


def _late(curve: Curve) -> float:
    return _mean(_part(curve, first=False)) if curve.values else 0.0


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _smoothed(values: Sequence[float]) -> list[float]:
    """Means of three neighbours, so that one lucky value is no peak."""
    return [_mean(values[max(0, at - 1) : at + 2]) for at in range(len(values))]


def _highest(curve: Curve) -> tuple[int, float] | None:
    """Step and value of the highest finite value."""
    finite = [(value, step) for step, value in zip(curve.steps, curve.values, strict=True) if math.isfinite(value)]
    return (max(finite)[1], max(finite)[0]) if finite else None
