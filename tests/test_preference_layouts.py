"""Preferences in published layouts: dialogues of hh-rlhf, messages and scores of UltraFeedback; and where values begin."""

from __future__ import annotations

import gzip
import importlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tiny
from firsthand.config import build
from firsthand.errors import ConfigError, DataError
from firsthand.nn import weights
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.train.agent_heads import AgentHeads, choose_head, value_head, value_heads
from firsthand.train.conversations import read_conversations
from firsthand.train.documents import json_lines
from firsthand.train.preference_data import read_comparisons
from firsthand.train.preference_layouts import as_comparison, dialogue, preferred
from firsthand.train.reinforcement import reward_head
from firsthand.train.reward_scores import RewardModel
from firsthand.train.toy_tasks.toy_models import toy_model

torch.set_num_threads(1)
START = "\n\nHuman: one?\n\nAssistant: 1\n\nwith: a colon\n\nHuman: two?\n\nAssistant:"
HH = {"chosen": f"{START} yes", "rejected": f"{START} no"}
SHARED = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data") / "training"


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_a_dialogue_of_hh_is_messages_of_which_the_last_answers_differ() -> None:
    prompt = [said("user", "one?"), said("assistant", "1\n\nwith: a colon"), said("user", "two?")]
    found = as_comparison(HH, "x:1")
    assert found == {"prompt": prompt, "chosen": [said("assistant", "yes")], "rejected": [said("assistant", "no")]}
    assert dialogue("\n\nHuman: a\n\nHuman: b\n\nAssistant:  c ", "x") == [
        said("user", "a\n\nb"),
        said("assistant", "c"),
    ]
    assert dialogue("Human: it said:\nAssistant: no turn\n\nAssistant: c", "x")[0]["content"].endswith("no turn")


@pytest.mark.parametrize("text", ["", "hello", "first\n\nHuman: a", "Robot: a"])
def test_what_is_no_dialogue_is_one_sentence(text: str) -> None:
    with pytest.raises(DataError, match=r"x:1, chosen is no dialogue"):
        as_comparison({"chosen": text, "rejected": "\n\nHuman: a\n\nAssistant: b"}, "x:1")


@pytest.mark.parametrize(
    "rejected",
    [HH["chosen"], START, "\n\nHuman: other?\n\nAssistant: no", f"{START} no\n\nHuman: thanks"],
    ids=["equal", "empty answer", "another question", "no answer last"],
)
def test_lines_without_a_preference_are_left_out(rejected: str) -> None:
    assert as_comparison(HH | {"rejected": rejected}, "x") is None


def test_messages_with_the_prompt_are_parted_from_it() -> None:
    prompt = [said("user", "a")]
    line = {"prompt": "a", "chosen": [*prompt, said("assistant", "x")], "rejected": [*prompt, said("assistant", "y")]}
    assert as_comparison(line, "x") == {
        "prompt": prompt, "chosen": [said("assistant", "x")], "rejected": [said("assistant", "y")],
    }  # fmt: skip
    own = {"prompt": prompt, "chosen": [said("assistant", "x")], "rejected": [said("assistant", "y")]}
    assert (
        as_comparison(own, "x") is own
        and as_comparison({"prompt": "a", "chosen": "b", "rejected": "c"}, "x") is not None
    )


def test_scored_completions_are_ranked_and_equal_scores_are_one() -> None:
    scores = [("c", 2.0), ("a", 9), ("b", "4.5"), ("other c", 2.0), (" ", 10)]
    line = {"instruction": "q", "completions": [{"response": text, "overall_score": score} for text, score in scores]}
    found = as_comparison(line, "x")
    assert found is not None and found["prompt"] == [said("user", "q")]
    assert [answer[0]["content"] for answer in found["answers"]] == ["a", "b", "c"]
    assert as_comparison(line | {"completions": line["completions"][:1] * 2}, "x") is None
    with pytest.raises(DataError, match=r"x:3: a completion has no `response`"):
        as_comparison(line | {"completions": [{"response": "a"}]}, "x:3")


def test_completions_are_scored_answers_only_where_an_instruction_stands_beside_them() -> None:
    scored = [{"response": "a", "overall_score": 1}, {"response": "b", "overall_score": 2}]
    own = {"prompt": "p", "chosen": "b", "rejected": "a"}
    for line in (own | {"completions": scored}, own | {"completions": 3}, own | {"instruction": "q"},
                 {"completions": scored}, {"instruction": "q"}, {}):  # fmt: skip
        assert as_comparison(line, "x:1") is line, "left as it is"
    prompt = [said("user", "one?"), said("assistant", "1\n\nwith: a colon"), said("user", "two?")]
    sides = {"chosen": [said("assistant", "yes")], "rejected": [said("assistant", "no")]}
    assert as_comparison(HH | {"completions": scored}, "x:1") == {"prompt": prompt, **sides}
    assert as_comparison(HH | {"instruction": "q"}, "x:1") == {"prompt": prompt, **sides}
    ranked = {"prompt": [said("user", "q")], "answers": [[said("assistant", "b")], [said("assistant", "a")]]}
    for more in ({}, own, HH):
        assert as_comparison({**more, "instruction": "q", "completions": scored}, "x:1") == ranked
    assert as_comparison({"instruction": "q", "completions": []}, "x:1") is None


def write(path: Path, lines: Sequence[Any]) -> Path:
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        file.writelines(f"{json.dumps(line)}\n" for line in lines)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model") / "tiny", max_position=512)


def test_a_gzipped_file_is_read_for_comparisons_and_for_fine_tuning(folder: Path, tmp_path: Path) -> None:
    undecided = HH | {"rejected": "\n\nHuman: other?\n\nAssistant: no"}
    path = write(tmp_path / "hh.jsonl.gz", [HH, undecided, HH])
    tokenizer = pretrained.load(folder)
    found, num_skipped, num_undecided = read_comparisons(
        path, tokenizer, ChatTemplate(tokenizer, tokenizer.chat_template), context=512
    )
    assert (len(found), num_skipped, num_undecided) == (2, 0, 1)
    assert [tokenizer.decode(each.ids[each.ce > 0].tolist()) for each in found[0]] == ["yes", "no"]
    conversations = read_conversations(path)
    assert len(conversations) == 3 and conversations[0].messages[-1].text == "yes"
    assert conversations[0].trained == (False, False, False, True)
    assert preferred({"chosen": START, "rejected": "x"}, "x") is None and preferred({"text": "a"}, "x") == {"text": "a"}
    (tmp_path / "cut.jsonl.gz").write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="no whole gzip file"):
        list(json_lines(tmp_path / "cut.jsonl.gz"))


@pytest.mark.slow
def test_the_published_file_of_hh_is_read_whole() -> None:
    file = SHARED / "hh_harmless_base_test.jsonl.gz"
    if not file.exists():
        pytest.skip("hh-rlhf is not here")
    found = [as_comparison(body, where) for body, where in json_lines(file)]
    assert len(found) == 2312
    decided = [each for each in found if each is not None]
    assert len(decided) > 2200
    assert all(each["prompt"][-1]["role"] == "user" and each["chosen"] != each["rejected"] for each in decided)
    assert len(read_conversations(file)) > 2300


def run_recipe(recipe: str, out: Path, **settings: Any) -> None:
    from firsthand.train.training_run import opened

    module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
    config = build(module.Config, {"checkpoint_every": 0, **settings})
    with opened(out, recipe, config) as run:
        getattr(module, recipe)(config, run)


@pytest.mark.slow
def test_values_begin_as_the_reward_model(folder: Path, tmp_path: Path) -> None:
    lines = [{"prompt": f"say {n}", "chosen": "sum", "rejected": "no no"} for n in range(8)]
    data = str(write(tmp_path / "pairs.jsonl", lines))
    run_recipe("reward", tmp_path / "judge", data=data, model=str(folder), batch_size=8, steps=3, lr=3e-3)
    judge = tmp_path / "judge" / "model"
    trained, head = RewardModel.load(judge), value_head(weights.load(folder), reward_head(weights.load(folder), judge))
    hidden = torch.randn(3, head.in_features)
    assert torch.allclose(head(hidden), trained.head(hidden) - trained.mean, atol=1e-6) and head.weight.any()
    assert not value_head(weights.load(folder)).weight.any()
    with pytest.raises(ConfigError, match="hidden size"):
        reward_head(toy_model(["a"], seed=0, context=8)[0], judge)
    given = {"benchmark": "toy_reviews", "model": str(folder), "value_init": "reward"}
    with pytest.raises(ConfigError, match="there is no reward model"):
        run_recipe("ppo", tmp_path / "none", **given)
    run_recipe(
        "ppo", tmp_path / "ppo", **given, reward_model=str(judge), steps=1, prompts=2, group_size=2, max_tokens=4
    )
    assert (tmp_path / "ppo" / "model" / "config.json").exists()


def test_the_heads_of_agents_are_chosen_by_name_in_the_order_in_which_they_came() -> None:
    model = tiny.tiny_model(0)
    size = model.architecture.hidden_size
    heads = AgentHeads({"writer": nn.Linear(size, 1), "critic": nn.Linear(size, 1), "b": nn.Linear(size, 1)})
    for number, head in enumerate(heads.heads):
        nn.init.constant_(head.weight, 0.0)
        nn.init.constant_(head.bias, float(number))
    hidden = torch.zeros(3, size)
    assert (heads.agents, heads.chosen, heads(hidden).tolist()) == (("writer", "critic", "b"), 0, [[0.0]] * 3)
    for number, agent in ((1, "critic"), (0, "writer"), (2, "b"), (1, "critic")):
        choose_head(heads, agent)
        assert heads.chosen == number and heads(hidden).tolist() == [[float(number)]] * 3
    with pytest.raises(ValueError, match="tuple"):
        choose_head(heads, "nobody")
    choose_head(None, "nobody")
    choose_head(heads.heads[0], "nobody")
    begun = heads.heads[2]
    made = value_heads(model, ("writer", "critic"), begun)
    assert isinstance(made, AgentHeads) and made.agents == ("writer", "critic")
    for head in made.heads:
        assert head is not begun and head.bias.tolist() == [2.0] and torch.equal(head.weight, begun.weight)
    alone = value_heads(model, ())
    assert isinstance(alone, nn.Linear) and not alone.weight.any() and alone.bias.tolist() == [0.0]


def test_completions_of_one_text_are_one_answer_of_its_best_score() -> None:
    def ranked(*scored: tuple[float, str]) -> object:
        completions = [{"overall_score": score, "response": text} for score, text in scored]
        found = as_comparison({"instruction": "q", "completions": completions}, "x:1")
        return found and [each[0]["content"] for each in found["answers"]]

    assert ranked((1, "yes"), (3, "no"), (5, "yes")) == ["yes", "no"] and ranked((1, "yes"), (2, "yes")) is None
