"""Preference recipes from end to end on a tiny model: pairs, ranked and single answers from JSONL, and reward models."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from firsthand.config import build
from firsthand.errors import ConfigError, DataError, ModelFileError
from firsthand.nn import weights
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.train.data_order import StreamBatches
from firsthand.train.episodes import Episode, Graded
from firsthand.train.objective import Comparisons
from firsthand.train.preference_data import mismatched, read_comparisons
from firsthand.train.preference_settings import PreferenceSettings
from firsthand.train.preference_training import KtoBatches, in_pairs, ordered_right, with_references
from firsthand.train.recipes import kto
from firsthand.train.reference_policy import ReferencePolicy
from firsthand.train.reward_scores import RewardModel
from firsthand.train.stream_logprobs import stream_logprobs
from firsthand.train.streams import Stream
from firsthand.train.training_run import opened, read_metrics

torch.set_num_threads(1)
PAIRS = [
    {"prompt": f"say {number}", "chosen": "sum" + "m" * (number % 3), "rejected": "calculator" + "!" * (number % 2)}
    for number in range(8)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    write(place / "pairs.jsonl", PAIRS)
    return tiny.write_model(place / "tiny", max_position=96)


def write(path: Path, lines: Sequence[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def train(recipe: str, folder: Path, out: Path, *, data: Path | None = None, **settings: Any) -> list[dict[str, float]]:
    module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
    values = {
        "data": str(data or folder.parent / "pairs.jsonl"), "model": str(folder), "batch_size": 8, "steps": 6, "lr": 3e-3,
        "checkpoint_every": 0, **settings,
    }  # fmt: skip
    config = build(module.Config, values)
    with opened(out, recipe, config) as run:
        getattr(module, recipe)(config, run)
    return read_metrics(out)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["dpo", "ipo", "orpo", "simpo"])
def test_pairs_make_the_chosen_answer_more_probable_than_the_rejected_one(
    recipe: str, folder: Path, tmp_path: Path
) -> None:
    rows = train(recipe, folder, tmp_path / "run")
    told = "log_ratio" if recipe in ("dpo", "ipo") else "mean_logprob"
    margins = [row[f"chosen_{told}"] - row[f"rejected_{told}"] for row in rows]
    assert rows[-1]["pair_accuracy"] == 1.0
    assert margins[-1] > margins[0] + 1 and rows[-1]["loss"] < rows[0]["loss"]
    if recipe in ("dpo", "ipo"):
        assert margins[0] == pytest.approx(0, abs=1e-5)  # the reference is the model before training
        expected = {"dpo": np.log(2), "ipo": 25.0}[recipe]
        assert rows[0]["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["dpo", "kto"])
def test_a_reference_rounds_as_the_policy_does(recipe: str, folder: Path, tmp_path: Path) -> None:
    (row,) = train(recipe, folder, tmp_path / "run", dtype="bfloat16", steps=1)
    if recipe == "dpo":
        assert abs(row["chosen_log_ratio"]) < 1e-4 and row["loss"] == pytest.approx(np.log(2), abs=1e-4)
    else:
        assert row["kto_baseline"] < 1e-4 and row["loss"] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.slow
def test_results_do_not_depend_on_micro_batches(folder: Path, tmp_path: Path) -> None:
    for recipe in ("dpo", "kto", "reward"):
        whole = train(recipe, folder, tmp_path / f"{recipe}-1", steps=3)
        divided = train(recipe, folder, tmp_path / f"{recipe}-2", steps=3, micro_tokens=40)
        assert [row["loss"] for row in divided] == pytest.approx([row["loss"] for row in whole], abs=1e-5)


@pytest.mark.slow
def test_kto_takes_each_answer_alone_and_its_baseline_is_the_kl_of_mismatched_answers(
    folder: Path, tmp_path: Path
) -> None:
    rows = train("kto", folder, tmp_path / "run")
    assert rows[0]["loss"] == pytest.approx(0.5, abs=1e-5) and rows[-1]["loss"] < 0.5
    assert rows[0]["kto_baseline"] == pytest.approx(0, abs=1e-5) and all(row["kto_baseline"] >= 0 for row in rows)
    model, before = weights.load(tmp_path / "run" / "model"), weights.load(folder)
    answers = [
        {"prompt": "a", "completion": "sum", "label": True},
        {"prompt": "bb", "completion": "no", "label": False},
    ]
    found = comparisons(folder, write(tmp_path / "single.jsonl", answers))
    examples = with_references(before, found, 4096)
    batches = KtoBatches(StreamBatches(examples, 2), model, ReferencePolicy(before), 4096)
    (rows_a, rows_b) = next(iter(batches))
    others = mismatched([rows_a, rows_b], context=96)
    ratios = [
        ((now.logprobs - then.logprobs) * other.ce).sum()
        for now, then, other in zip(
            stream_logprobs(model, others), stream_logprobs(before, others), others, strict=True
        )
    ]
    assert batches.baseline == pytest.approx(max(0.0, float(np.mean(ratios))), abs=1e-5)
    plain = {each.source: each for example in examples for each in example}
    for row in (rows_a, rows_b):
        raised = (row.reference * row.ce).sum() - (plain[row.source].reference * row.ce).sum()
        assert raised == pytest.approx(batches.baseline, abs=1e-4)


def comparisons(folder: Path, path: Path, **settings: Any) -> list[list[Stream]]:
    tokenizer = pretrained.load(folder)
    chat = ChatTemplate(tokenizer, tokenizer.chat_template)
    return read_comparisons(path, tokenizer, chat, **{"context": 96, **settings})[0]


def test_mismatched_answers_follow_the_prompt_of_another_row() -> None:
    rows = [Stream([1, 2, 3, 4], ce=[0, 0, 1, 1]), Stream([5, 6, 7], ce=[0, 1, 1]), Stream([8, 9], ce=[0, 1])]
    assert [each.ids.tolist() for each in mismatched(rows, context=96)] == [[1, 2, 6, 7], [5, 9], [8, 3, 4]]
    assert [each.ce.tolist() for each in mismatched(rows, context=96)] == [[0, 0, 1, 1], [0, 1], [0, 1, 1]]


def test_mismatched_answers_are_of_another_prompt() -> None:
    first, same = Stream([1, 2, 3, 4], ce=[0, 0, 1, 1]), Stream([1, 2, 7], ce=[0, 0, 1])
    other, longer = Stream([5, 6], ce=[0, 1]), Stream([1, 2, 3, 4], ce=[0, 0, 0, 1])
    assert [each.ids.tolist() for each in mismatched([first, same, other], context=96)] == [
        [1, 2, 6],
        [1, 2, 6],
        [5, 3, 4],
    ]
    assert [each.ids.tolist() for each in mismatched([other, first, same], context=96)] == [
        [5, 3, 4],
        [1, 2, 6],
        [1, 2, 6],
    ]
    assert [each.ids.tolist() for each in mismatched([first, longer], context=96)] == [[1, 2, 4], [1, 2, 3, 3, 4]]
    assert mismatched([first], context=96) == mismatched([first, same], context=96) == []


def test_kto_needs_two_answers_in_a_batch_and_two_prompts(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="batch_size is 1: KTO's baseline comes from other answers of a batch, so give 2"
    ):
        kto.Config(comparisons=PreferenceSettings(batch_size=1))
    assert kto.Config(comparisons=PreferenceSettings(batch_size=2)).comparisons.batch_size == 2
    answers = [{"prompt": "a", "completion": text, "label": text == "sum"} for text in ("sum", "no")]
    path = write(tmp_path / "one.jsonl", answers)
    with pytest.raises(
        DataError, match=r"one\.jsonl have one prompt, and KTO's baseline needs answers to others: give two"
    ):
        train("kto", folder, tmp_path / "run", data=path)


@pytest.mark.slow
def test_a_reward_model_learns_the_order_of_ranked_answers_and_is_opened_again(folder: Path, tmp_path: Path) -> None:
    lines = [{"prompt": f"say {n}", "answers": ["sum", "sum!", "no", "no no no"]} for n in range(12)]
    rows = train(
        "reward", folder, tmp_path / "run", data=write(tmp_path / "ranked.jsonl", lines), steps=40, holdout=0.25
    )
    assert rows[0]["loss"] == pytest.approx(np.log(2), rel=1e-4) and rows[-1]["loss"] < 0.3
    trained = RewardModel.load(tmp_path / "run" / "model")
    examples = comparisons(folder, tmp_path / "ranked.jsonl")
    assert ordered_right(trained, examples) > 0.95
    assert [each.label for each in examples[0]] == [4, 3, 2, 1]
    best = trained.scores([example[0].ids for example in examples])
    assert abs(np.mean(best)) < 0.5  # the best answers have mean 0 over the training data
    episodes = tuple(
        Episode(each.ids, np.zeros(0), np.zeros(0), np.zeros(0), 9.0, "t", "s")
        for each in (examples[0][0], examples[0][3])
    )
    graded = trained.rescored(Graded(episodes, {"reward": 9.0}))
    assert graded.episodes[0].reward > graded.episodes[1].reward and graded.metrics["gold_reward"] == 9
    assert graded.metrics["reward"] == pytest.approx(np.mean([each.reward for each in graded.episodes]))
    with pytest.raises(ModelFileError, match="is no reward model"):
        RewardModel.load(folder)


def test_pairs_are_matched_by_their_number_in_any_order() -> None:
    found = in_pairs(
        Comparisons(
            pair=torch.tensor([7, 3, 3, 7]), label=torch.tensor([-1.0, 1.0, -1.0, 1.0]),
            logprob=torch.tensor([-1.0, -2.0, -3.0, -4.0]), reference=torch.zeros(4), length=torch.tensor([1.0, 2, 3, 4]),
            value=None,
        )
    )  # fmt: skip
    assert found.chosen.tolist() == [-2, -4] and found.rejected.tolist() == [-3, -1]
    assert found.chosen_length.tolist() == [2, 4]
    with pytest.raises(DataError, match="one chosen and one rejected"):
        in_pairs(Comparisons(torch.tensor([1, 1]), torch.ones(2), *[torch.zeros(2)] * 3, value=None))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, "an answer is missing"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "are equal: nothing is preferred"),
        ({"prompt": "a", "answers": ["b"]}, "two answers or more"),
        ({"prompt": "a", "completion": "b", "label": 1}, "expected true or false"),
        ({"text": "a"}, "has the fields text: expected `prompt` with"),
        ({"prompt": "a", "chosen": "", "rejected": "b"}, "is empty"),
        ({"prompt": 3, "chosen": "b", "rejected": "c"}, "must both be texts"),
    ],
)
def test_a_bad_line_is_one_sentence_with_file_and_line(line: dict, message: str, folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.jsonl", [PAIRS[0], line])
    with pytest.raises(DataError, match=message) as error:
        comparisons(folder, path)
    assert f"{path}:2" in str(error.value)


def test_long_comparisons_are_counted_cut_or_refused(folder: Path, tmp_path: Path) -> None:
    long = {"prompt": "a", "chosen": "b " * 60, "rejected": "c"}
    path = write(tmp_path / "long.jsonl", [PAIRS[0], long])
    tokenizer = pretrained.load(folder)
    chat = ChatTemplate(tokenizer, tokenizer.chat_template)
    found, num_skipped, num_undecided = read_comparisons(path, tokenizer, chat, context=48)
    assert (len(found), num_skipped, num_undecided) == (1, 1, 0)
    cut = comparisons(folder, path, context=48, too_long="cut")
    assert len(cut) == 2 and len(cut[1][0]) == 48
    with pytest.raises(DataError, match="the context is 48"):
        comparisons(folder, path, context=48, too_long="refuse")
    with pytest.raises(DataError, match="has no comparison within a context of 3 tokens"):
        comparisons(folder, path, context=3)


def test_messages_make_pairs_in_which_the_last_answer_alone_counts(folder: Path, tmp_path: Path) -> None:
    said = [{"role": "user", "content": "hi"}]
    line = {
        "prompt": said,
        "chosen": [{"role": "assistant", "content": "sum"}],
        "rejected": [{"role": "assistant", "content": "no"}],
    }
    ((chosen, rejected),) = comparisons(folder, write(tmp_path / "chat.jsonl", [line]))
    tokenizer = pretrained.load(folder)
    assert tokenizer.decode(chosen.ids[chosen.ce > 0].tolist()) == "sum"
    start = int(chosen.ce.argmax())
    assert chosen.ids[:start].tolist() == rejected.ids[:start].tolist() and chosen.pair == rejected.pair


def test_answers_that_are_alike_within_the_context_are_left_out(folder: Path, tmp_path: Path) -> None:
    long = "sum sum sum sum " * 30
    lines = [
        {"prompt": "a", "chosen": f"{long}yes", "rejected": f"{long}no"}, {"prompt": "a", "chosen": "no", "rejected": long},
        {"prompt": "a", "answers": [f"{long}yes", "b", f"{long}no"]}, {"prompt": "a", "completion": long, "label": True},
    ]  # fmt: skip
    tokenizer = pretrained.load(folder)
    found = read_comparisons(
        write(tmp_path / "cut.jsonl", lines), tokenizer, ChatTemplate(tokenizer, tokenizer.chat_template),
        context=96, too_long="cut",
    )  # fmt: skip
    assert [[row.pair for row in rows] for rows in found.comparisons] == [[0, 0], [1]] and found.num_skipped == 2
