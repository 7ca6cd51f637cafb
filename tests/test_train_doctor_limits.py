"""The doctor's findings as whole sentences, at their limits and on either side, and which part of a curve each reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from firsthand.runs.track import Curve
from firsthand.train import doctor
from firsthand.train.doctor import Finding, examine


def curve(name: str, values: Sequence[float], first: int = 1) -> Curve:
    steps = tuple(range(first, first + len(values)))
    return Curve(name, steps, tuple(map(float, values)), (0.0,) * len(values))


def curves(**given: Sequence[float]) -> dict[str, Curve]:
    return {name: curve(name, values) for name, values in given.items()}


def told(check: Callable[..., Finding | None], **given: Sequence[float]) -> tuple[str, str] | None:
    found = check(curves(**given))
    return None if found is None else (found.name, found.evidence)


def test_late_is_the_mean_of_the_last_fifth_and_early_of_the_first() -> None:
    ten = curve("x", [*range(10)])
    assert (doctor._early(ten), doctor._late(ten)) == (0.5, 8.5)
    assert (doctor._early(curve("x", [3, 4])), doctor._late(curve("x", [3, 4]))) == (3, 4)
    assert (
        doctor._late(curve("x", [])) == 0.0
        and math.isnan(doctor._mean([math.nan]))
        and doctor._mean([1, math.inf, 3]) == 2
    )
    assert doctor._smoothed([1, 2, 6, 9]) == [1.5, 3, 17 / 3, 7.5]
    assert (
        doctor._highest(curve("x", [1, math.inf, 5, 5, math.nan, 2], first=10)) == (13, 5)
        and doctor._highest(curve("x", [])) is None
    )


def test_a_run_is_long_enough_with_five_steps_of_any_metric() -> None:
    short = Finding("too short", "fewer than 5 steps have metrics", "train longer before asking the doctor")
    assert examine(curves(loss=[1] * 4, lr=[1] * 3)) == [short] and examine(curves(lr=[1] * 5, loss=[1])) == []


def test_numbers_that_are_not_finite_are_counted_from_the_first() -> None:
    assert told(doctor.not_finite, loss=[1, 2], grad_norm=[1, math.inf, math.nan]) == (
        "not finite", "grad_norm is not a finite number at step 2 (2 such steps)"
    )  # fmt: skip
    assert told(doctor.not_finite, reward=[math.nan], loss=[math.nan]) == (
        "not finite", "loss is not a finite number at step 1 (1 such steps)"
    )  # fmt: skip
    assert told(doctor.not_finite, reward=[1, -math.inf, 0, math.nan], grad_norm=[1], loss=[]) == (
        "not finite", "reward is not a finite number at step 2 (2 such steps)"
    )  # fmt: skip
    assert told(doctor.not_finite, reward=[math.nan], grad_norm=[0, math.nan], loss=[1]) == (
        "not finite", "grad_norm is not a finite number at step 2 (1 such steps)"
    )  # fmt: skip
    assert told(doctor.not_finite, other=[math.nan], reward=[1], loss=[0], grad_norm=[-1]) is None
    assert told(doctor.not_finite) is None


def test_rewards_that_are_always_one_value_or_never_above_0() -> None:
    flat = {"reward": [0.5, 0.5], "reward_std": [0, 0]}
    assert told(doctor.constant_reward, **flat) == ("constant reward", "every reward of 2 steps is 0.5")
    assert told(doctor.constant_reward, **flat | {"reward": [0.5, 0.6]}) is None
    assert told(doctor.constant_reward, **flat | {"reward_std": [0, 0.1]}) is None
    assert (
        told(doctor.constant_reward, **flat | {"reward": [0, 0]}) is None
        and told(doctor.constant_reward, reward=[1]) is None
    )
    none = {"reward": [0, -1, 0], "reward_std": [0, 0, 0]}
    assert told(doctor.never_solved, **none) == (
        "never solved", "no rollout of 3 steps had a reward above 0: pass@k is 0 for the k that were sampled"
    )  # fmt: skip
    assert told(doctor.never_solved, **none | {"reward": [0, 0.1, 0]}) is None
    assert (
        told(doctor.never_solved, **none | {"reward_std": [0, 0.1, 0]}) is None
        and told(doctor.never_solved, reward=[0]) is None
    )


def test_groups_of_equal_rewards_count_from_four_fifths_on_until_the_tasks_are_learned() -> None:
    given = {"groups": [10] * 5, "groups_of_equal_rewards": [0, 0, 0, 0, 8], "reward": [0.1, 0.2, 0.3, 0.4, 0.5],
             "reward_std": [0.1] * 5}  # fmt: skip
    assert told(doctor.equal_rewards, **given) == (
        "equal rewards",
        "80% of the groups of late steps have rewards that do not differ (mean reward 0.50), and such groups have no "
        "gradient",
    )
    assert told(doctor.equal_rewards, **given | {"groups_of_equal_rewards": [10, 10, 10, 10, 7.9]}) is None
    assert told(doctor.equal_rewards, **given | {"reward": [0.1, 0.2, 0.3, 0.4, 0.95]}) is not None
    assert told(doctor.equal_rewards, **given | {"reward": [0.1, 0.2, 0.3, 0.4, 0.96]}) is None
    assert told(doctor.equal_rewards, **given | {"groups": [10, 10, 10, 10, 0]}) is None
    assert told(doctor.equal_rewards, **given | {"reward": [0] * 5, "reward_std": [0] * 5}) is None, (
        "never solved says more"
    )
    found = told(doctor.equal_rewards, groups=[4] * 5, groups_of_equal_rewards=[4] * 5)
    assert found is not None and found[1].startswith("100% of the groups of late steps have rewards that do not differ")
    assert "(mean reward nan)" in found[1]
    assert told(doctor.equal_rewards, groups=[4] * 5) is None
    assert told(doctor.equal_rewards, groups_of_equal_rewards=[4] * 5) is None


def test_equal_groups_of_a_run_whose_rewards_are_all_one_value_are_told_once() -> None:
    flat = {"groups": [10] * 5, "groups_of_equal_rewards": [10] * 5, "reward": [0.5] * 5, "reward_std": [0] * 5}
    assert told(doctor.equal_rewards, **flat) is None
    assert [each.name for each in examine(curves(**flat))] == ["constant reward"]
    assert [each.name for each in examine(curves(**flat | {"reward": [0] * 5}))] == ["never solved"]
    equal = (
        "100% of the groups of late steps have rewards that do not differ (mean reward 0.50), and such groups have no "
    )
    for differ in ({"reward_std": [0.1, 0, 0, 0, 0]}, {"reward": [0.4, 0.5, 0.5, 0.5, 0.5]}):
        found = examine(curves(**flat | differ))
        assert [(each.name, each.evidence) for each in found] == [("equal rewards", f"{equal}gradient")], differ
    assert told(doctor.equal_rewards, **{name: flat[name] for name in flat if name != "reward_std"}) is not None


def test_the_policy_runs_away_within_a_step_or_from_its_reference() -> None:
    assert told(doctor.kl_blow_up, approx_kl=[0.01, 0.25, 0.2]) == (
        "KL blow-up", "the policy moved 0.25 nats per token away from the one that sampled, at step 2"
    )  # fmt: skip
    assert told(doctor.kl_blow_up, approx_kl=[0.1]) is None
    assert told(doctor.kl_blow_up, approx_kl=[0.1], ref_kl=[9, 0.6], answer_tokens=[1, 20]) == (
        "KL blow-up", "answers are about 12.0 nats away from the reference in late steps"
    )  # fmt: skip
    assert told(doctor.kl_blow_up, ref_kl=[9, 0.5], answer_tokens=[99, 20]) is None
    assert told(doctor.kl_blow_up, ref_kl=[9]) is None


def test_surprisal_collapses_below_a_tenth_unless_the_reward_was_reached() -> None:
    fell = {"surprisal": [1.0, 1, 1, 1, 0.099]}
    assert told(doctor.entropy_collapse, **fell) == (
        "entropy collapse", "the mean surprisal of sampled tokens fell from 1 to 0.099 nats while the reward is unknown"
    )  # fmt: skip
    assert told(doctor.entropy_collapse, **fell, reward=[0, 0, 0, 0, 0.9]) == (
        "entropy collapse", "the mean surprisal of sampled tokens fell from 1 to 0.099 nats while the reward is 0.90"
    )  # fmt: skip
    assert told(doctor.entropy_collapse, **fell, reward=[0, 0, 0, 0, 0.91]) is None
    assert told(doctor.entropy_collapse, surprisal=[1.0, 1, 1, 1, 0.1]) is None
    assert told(doctor.entropy_collapse, surprisal=[1.0, 1, 1, 0.01]) is None, "four steps"
    assert told(doctor.entropy_collapse, surprisal=[0.0, 1, 1, 1, -1]) is None


def test_a_fifth_of_the_answers_cut_is_truncation() -> None:
    assert told(doctor.truncation, rollouts=[9, 10], rollouts_cut=[0, 2]) == (
        "truncation", "20% of the answers of late steps ended at the limit of tokens"
    )  # fmt: skip
    assert told(doctor.truncation, rollouts=[9, 100], rollouts_cut=[9, 19]) is None
    assert (
        told(doctor.truncation, rollouts=[9, 0], rollouts_cut=[9, 0]) is None
        and told(doctor.truncation, rollouts=[9]) is None
    )


def test_answers_that_grow_while_the_gold_reward_does_not_are_length_hacking() -> None:
    given = {"answer_tokens": [10, 12, 14, 15.1], "reward": [0.1, 0.2, 0.3, 0.35], "gold_reward": [0.5, 0.5, 0.5, 0.25],
             "held_out_reward": [0, 1, 2, 3]}  # fmt: skip
    assert told(doctor.length_hacking, **given) == (
        "length hacking", "answers grew from 10.0 to 15.1 tokens and the reward by 0.25, while gold_reward changed by -0.25"
    )  # fmt: skip
    assert told(doctor.length_hacking, **given | {"gold_reward": [0.5] * 4}) is not None
    for healthy in ({"answer_tokens": [10, 12, 14, 15]}, {"reward": [0.1, 0.2, 0.3, 0.1]},
                    {"gold_reward": [0.5, 0.5, 0.5, 0.6]},
                    {"gold_reward": [0.5, 0.5, 0.4]}):  # fmt: skip
        assert told(doctor.length_hacking, **given | healthy) is None, healthy
    del given["gold_reward"]
    assert told(doctor.length_hacking, **given) is None
    hacked = told(doctor.length_hacking, **given | {"held_out_reward": [1, 1, 1, 0.5]})
    assert hacked is not None and hacked[1].endswith("while held_out_reward changed by -0.5")


def test_a_gold_reward_that_falls_by_a_third_of_its_spread_is_over_optimised() -> None:
    given = {"reward": [0.1, 0.2, 0.3, 0.4], "gold_reward": [0.0, 0.9, 0.9, 0.3]}
    assert told(doctor.over_optimised, **given) == (
        "over-optimisation", "the reward rose to 0.4 while gold_reward fell from 0.7 to 0.3"
    )  # fmt: skip
    assert told(doctor.over_optimised, **given | {"gold_reward": [0.0, 0.9, 0.9, 0.5]}) is None, "by 0.267 of 0.9"
    assert told(doctor.over_optimised, **given | {"gold_reward": [0.0, 0.9, 0.9, 0.49]}) is not None, "by 0.273"
    assert told(doctor.over_optimised, **given | {"reward": [0.4, 0.2, 0.3, 0.4]}) is None
    assert told(doctor.over_optimised, **given | {"gold_reward": [1.0] * 4}) is None
    assert told(doctor.over_optimised, reward=[0.1], gold_reward=[0, 0.9, 0.1]) is None
    assert told(doctor.over_optimised, **given, answer_tokens=[1, 1, 1, 2]) is not None
    assert (
        told(doctor.over_optimised, **given | {"gold_reward": [0.5, 0.9, 0.9, 0.3]}, answer_tokens=[1, 1, 1, 2]) is None
    )


def test_chosen_answers_collapse_at_fifteen_nats() -> None:
    assert told(doctor.chosen_collapse, chosen_log_ratio=[0, -15], rejected_log_ratio=[0, -20]) == (
        "chosen log-prob collapse",
        "chosen answers became 15.0 nats less likely than in the reference, rejected ones 20.0: the probability went to "
        "answers that are in no pair",
    )
    assert told(doctor.chosen_collapse, chosen_log_ratio=[0, -14.9], rejected_log_ratio=[0, -20]) is None
    assert told(doctor.chosen_collapse, chosen_log_ratio=[0, -16]) is None
    # before 0.27 recipes without a reference stored plain log-probs as log-ratios
    for plain, is_found in (([0.0, -16.0], False), ([-9.0, -25.0], True), ([0.0, -25.0], True)):
        found = told(
            doctor.chosen_collapse, chosen_log_ratio=[0.0, -16.0], rejected_log_ratio=[0, -20], chosen_logprob=plain
        )
        assert (found is not None) is is_found


def test_a_gradient_spikes_at_twenty_medians_if_the_loss_stays_higher() -> None:
    norm = [1, 1, 1, 1, 1, 20, 1, 1, 1, 1]
    assert told(doctor.gradient_spike, grad_norm=norm, loss=[9, 1, 1, 1, 1, 5, 2, 2, 2, 2]) is None, (
        "2.6 before, 2 after"
    )
    rose = [1, 1, 1, 1, 1, 5, 2, 2, 2, 4]
    assert told(doctor.gradient_spike, grad_norm=norm, loss=rose) == (
        "gradient spike", "the gradient's norm is 20 at step 6, 20 times its median, and the loss rose from 1 to 2.5"
    )  # fmt: skip
    assert told(doctor.gradient_spike, grad_norm=[1, 1, 1, 1, 1, 19.9, 1, 1, 1, 1], loss=rose) is None
    assert told(doctor.gradient_spike, grad_norm=norm, loss=[1] * 10) is None, "as before"
    assert told(doctor.gradient_spike, grad_norm=norm[1:], loss=rose[1:]) is None, "nine steps"
    assert told(doctor.gradient_spike, grad_norm=[0.0] * 9 + [5], loss=rose) is None
    assert told(doctor.gradient_spike, grad_norm=[20, *[1] * 9], loss=rose) is None, "nothing came before"
    late = [9.0] * 5 + [1] * 5 + [7] + [2] * 5 + [0] * 4
    assert told(doctor.gradient_spike, grad_norm=[1] * 10 + [40] + [1] * 9, loss=late) == (
        "gradient spike", "the gradient's norm is 40 at step 11, 40 times its median, and the loss rose from 1 to 2"
    ), "five steps before and after"  # fmt: skip


def test_a_held_out_loss_that_rises_by_a_twentieth_is_overfitting() -> None:
    given = {"held_out_loss": [3, 2, 2.05, 2.2], "loss": [3, 2, 1, 0.5]}
    found = told(doctor.overfitting, **given)
    assert found is not None and found[0] == "overfitting"
    assert found[1] == "the held-out loss was lowest at step 2 (2) and is 2.2 now, while the loss went on falling"
    for healthy in (
        {"held_out_loss": [3, 2, 2.05, 2.1]},
        {"held_out_loss": [2, 2.05, 2.2]},
        {"loss": [0.5, 2, 1, 0.5]},
    ):
        assert told(doctor.overfitting, **given | healthy) is None, healthy


def test_a_loss_that_stays_within_half_its_early_spread_and_three_percent_is_no_progress() -> None:
    loss = [2.1, 1.9, 2.0, 2.0, *[2.0] * 12, *[1.96] * 4]
    assert told(doctor.no_progress, loss=loss, lr=[1e-4, 3e-4]) == (
        "no progress", "the loss was 2 in early steps and is 1.96 in late ones (learning rate at most 0.0003)"
    )  # fmt: skip
    assert told(doctor.no_progress, loss=loss) is not None
    for healthy in ({"loss": [*loss[:-4], *[1.94] * 4]}, {"loss": [2.0] * 16 + [1.96] * 4}, {"loss": loss[1:]},
                    {"loss": [4.0, 0, 2, 2, *loss[4:-4], *[1.93] * 4]}, {"loss": loss, "reward": [1]}):  # fmt: skip
        assert told(doctor.no_progress, **healthy) is None, healthy


def test_a_twentieth_of_weights_at_their_cap_is_a_sampler_of_another_distribution() -> None:
    assert told(doctor.sampler_mismatch, importance_capped=[0.0, 0.05]) == (
        "sampler mismatch", "5% of the importance weights of late steps reached their cap: sampler and trainer disagree"
    )  # fmt: skip
    assert told(doctor.sampler_mismatch, importance_capped=[1, 0.049]) is None


def test_rewards_are_one_value_up_to_a_billionth() -> None:
    flat = {"reward": [-1e-9, 0.0], "reward_std": [0, 1e-9]}
    assert told(doctor.constant_reward, **flat) is None, "never solved says more"
    assert told(doctor.never_solved, **flat) is not None
    assert told(doctor.constant_reward, reward=[-0.5, -0.5], reward_std=[0, 0]) is None
    same = {"reward": [0.0, 1e-9], "reward_std": [1e-9, 0]}
    assert told(doctor.constant_reward, **same) == ("constant reward", "every reward of 2 steps is 1e-09")
    assert told(doctor.never_solved, **same) is None
    assert told(doctor.constant_reward, **same | {"reward": [0.0, 1.1e-9]}) is None
    assert told(doctor.constant_reward, **same | {"reward": [1.1e-9, 0.0]}) is None
    assert told(doctor.constant_reward, **same | {"reward_std": [1.1e-9, 0]}) is None
    assert told(doctor.never_solved, **flat | {"reward_std": [1.1e-9, 0]}) is None
    assert told(doctor.constant_reward, reward=[], reward_std=[0]) is None
    assert told(doctor.constant_reward, reward_std=[0]) is None and told(doctor.never_solved, reward_std=[0]) is None
