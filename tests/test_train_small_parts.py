"""Heads, added tokens, optimizers, streams and points of scaling laws: the small parts of training, by hand."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from byte_tokens import made
from engine_tiny import tiny_model
from firsthand.errors import ConfigError, DataError
from firsthand.nn.decoder import Decoder
from firsthand.tokens import pretrained
from firsthand.train.added_tokens import with_added_tokens
from firsthand.train.agent_heads import AgentHeads, choose_head, value_head, value_heads
from firsthand.train.model_folder import save_model
from firsthand.train.optimizers import Muon, check_state, newton_schulz, optimizer_for
from firsthand.train.recipe_settings import OptimizerSettings
from firsthand.train.reflected_texts import encode_reflected, read_reflected
from firsthand.train.scaling.scaling_points import ScalingPoints, read_points, write_points
from firsthand.train.scaling.scaling_sweep import _Falling, sweep_architecture
from firsthand.train.scaling.sweep_config import SweepConfig
from firsthand.train.stream_logprobs import _chunks, stream_logprobs
from firsthand.train.streams import Stream, counts, load_streams, micro_batches, save_streams
from tiny import write_model
from train_tiny import model


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return tmp_path


def refused(act: Callable[[], Any], kind: type[Exception] = ConfigError) -> str:
    with pytest.raises(kind) as raised:
        act()
    return str(raised.value)


# -- heads, tokens and folders of models --


def test_value_heads_begin_at_nothing_or_as_another_and_are_chosen_by_agent() -> None:
    decoder = model()
    begun = nn.Linear(decoder.architecture.hidden_size, 1)
    assert not value_head(decoder).weight.any() and not value_head(decoder).bias.any()
    copied = value_head(decoder, begun)
    assert torch.equal(copied.weight, begun.weight) and torch.equal(copied.bias, begun.bias) and copied is not begun
    heads = value_heads(decoder, ("lead", "worker"), begun)
    assert (
        isinstance(heads, AgentHeads)
        and heads.agents == ("lead", "worker")
        and not isinstance(value_heads(decoder, ()), AgentHeads)
    )
    with torch.no_grad():
        heads.heads[1].bias.fill_(7.0)
    hidden = torch.zeros(2, decoder.architecture.hidden_size)
    choose_head(heads, "worker")
    assert heads(hidden).tolist() == [[7.0], [7.0]]
    choose_head(heads, "lead"), choose_head(None, "lead"), choose_head(begun, "lead")
    assert torch.allclose(heads(hidden), begun.bias.expand(2, 1))


def test_added_tokens_follow_the_known_ones_as_the_mean_of_their_rows(home: Path) -> None:
    from firsthand.nn import weights

    folder = write_model(home / "tiny", max_position=32)
    tokenizer, decoder = pretrained.load(folder), weights.load(folder)
    known = tokenizer.vocab_size
    before = decoder.embed.weight.detach().clone()
    room = decoder.architecture.vocab_size - known
    names = [f"<new {n}>" for n in range(room + 2)]
    grown, larger = with_added_tokens(decoder, tokenizer, [names[0], tokenizer.text_of(0), *names[1:]])
    assert [larger.token_id(name) for name in names] == list(range(known, known + len(names)))
    assert grown.architecture.vocab_size == known + len(names)
    mean = before[:known].float().mean(0)
    assert torch.equal(grown.embed.weight[:known], before[:known])
    assert torch.allclose(grown.embed.weight[known:].float(), mean.expand(len(names), -1), atol=1e-3)
    same = with_added_tokens(decoder, tokenizer, [tokenizer.text_of(0)])
    assert same[0] is decoder and same[1] is tokenizer
    half, _ = with_added_tokens(decoder.bfloat16(), tokenizer, names)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}, "in the model's own type"
    rounded = before[:known].bfloat16().float().mean(0).bfloat16()
    assert torch.equal(half.embed.weight[known:], rounded.expand(len(names), -1))
    saved = save_model(grown, larger, home / "saved")
    again = pretrained.load(saved)
    assert [again.token_id(name) for name in names] == list(range(known, known + len(names)))
    config = json.loads((saved / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (larger.bos_id, larger.eos_id)
    special = json.loads((saved / "generation_config.json").read_text())
    assert special["bos_token_id"] == larger.bos_id and special["eos_token_id"][0] == larger.eos_id
    assert sorted(special["eos_token_id"]) == sorted(set(special["eos_token_id"]) | larger.eos_ids)


def test_added_tokens_have_rows_in_an_output_layer_that_is_not_tied(home: Path) -> None:
    tokenizer = pretrained.load(write_model(home / "tiny", max_position=32))
    known = tokenizer.vocab_size
    for room, is_same in ((0, False), (1, False), (2, True), (3, True)):
        decoder = tiny_model(tied=False, vocab_size=known + room)
        embed, head = (layer.weight.detach().clone() for layer in (decoder.embed, decoder.lm_head))
        grown, larger = with_added_tokens(decoder, tokenizer, ["<one>", "<two>"])
        assert (grown is decoder, larger.vocab_size) == (is_same, known + 2)
        assert grown.architecture == replace(decoder.architecture, vocab_size=known + max(2, room))
        for layer, before in ((grown.embed, embed), (grown.lm_head, head)):
            assert torch.equal(layer.weight[:known], before[:known]), room
            assert torch.equal(layer.weight[known : known + 2], before[:known].mean(0).expand(2, -1)), room
            assert torch.equal(layer.weight[known + 2 :], before[known + 2 :]), "rows without a token stay as they are"
        assert not torch.equal(embed[:known].mean(0), head[:known].mean(0))
        assert all(
            torch.equal(weight, decoder.state_dict()[name])
            for name, weight in grown.state_dict().items() if name.startswith("layers")
        )  # fmt: skip


def test_a_tokenizer_with_added_tokens_keeps_all_its_settings() -> None:
    start, stop = "<|im_start|>", "<|im_end|>"
    settings = {"bos_id": 262, "eos_ids": (263, 258), "add_bos": True, "chat_template": "{{ messages }}"}
    tokenizer = made(**settings, recommended={"temperature": 0.7, "top_p": 0.8})
    decoder = tiny_model(tied=True, vocab_size=tokenizer.vocab_size + 2)
    before = json.dumps(tokenizer.settings(), default=sorted)
    grown, larger = with_added_tokens(decoder, tokenizer, [start, "<a>", stop, "<b>"])
    assert grown is decoder and larger is not tokenizer and larger.vocab_size == tokenizer.vocab_size + 2
    assert larger.recommended == {"temperature": 0.7, "top_p": 0.8} and larger.chat_template == "{{ messages }}"
    assert (larger.bos_id, larger.eos_id, larger.eos_ids, larger.add_bos) == (
        tokenizer.bos_id, tokenizer.eos_id, tokenizer.eos_ids, True,
    )  # fmt: skip
    assert json.dumps(tokenizer.settings(), default=sorted) == before, "the given one stays as it is"
    assert [larger.text_of(tokenizer.vocab_size + n) for n in (0, 1)] == ["<a>", "<b>"]
    known = tokenizer.vocab_size
    assert larger.encode(" <a>x<b> ", special=True) == [*larger.encode(" "), known, *larger.encode("x"), known + 1,
                                                        *larger.encode(" ")]  # fmt: skip
    assert known not in larger.encode("<a>"), "text names no token"
    assert with_added_tokens(decoder, larger, []) == (decoder, larger)


# -- optimizers --


def test_groups_of_an_optimizer_decay_matrices_only() -> None:
    decoder = model()
    settings = OptimizerSettings(lr=0.5, beta1=0.7, beta2=0.8, eps=1e-3, weight_decay=0.3, momentum=0.6)
    adam = optimizer_for(decoder, settings)
    assert [group["weight_decay"] for group in adam.param_groups] == [0.3, 0.0]
    assert all(weight.dim() >= 2 for weight in adam.param_groups[0]["params"]) and all(
        w.dim() < 2 for w in adam.param_groups[1]["params"]
    )
    group = adam.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.7, 0.8), 1e-3)
    muon = optimizer_for(decoder, replace(settings, optimizer="muon"))
    assert [(each["weight_decay"], each["orthogonal"]) for each in muon.param_groups] == [
        (0.3, True),
        (0.3, False),
        (0.0, False),
    ]
    assert (muon.param_groups[0]["momentum"], muon.param_groups[0]["lr"], muon.param_groups[1]["betas"]) == (
        0.6,
        0.5,
        (0.7, 0.8),
    )
    count = sum(len(each["params"]) for each in muon.param_groups)
    assert count == len(list(decoder.parameters())) == sum(len(each["params"]) for each in adam.param_groups)
    decoder.embed.weight.requires_grad_(False)
    assert sum(len(each["params"]) for each in optimizer_for(decoder, settings).param_groups) == count - 1


def test_muons_steps_are_those_of_its_formulas() -> None:
    weight, vector = nn.Parameter(torch.eye(2, 3)), nn.Parameter(torch.tensor([1.0, -2.0]))
    muon = Muon([{"params": [weight], "weight_decay": 0.5}, {"params": [vector], "orthogonal": False}], lr=0.1, momentum=0.9,
                betas=(0.5, 0.8), eps=1e-4)  # fmt: skip
    sums = torch.zeros(2, 3)
    expected, mean, square, at = weight.detach().clone(), 0.0, 0.0, vector.detach().clone()
    for step, gradient in enumerate(
        (torch.tensor([[1.0, 2, 0], [0, 1, -1]]), torch.tensor([[0.0, -1, 1], [2, 0, 0]])), 1
    ):
        weight.grad, vector.grad = gradient.clone(), torch.tensor([2.0, -1.0]) * step
        muon.step()
        sums = 0.9 * sums + gradient
        ahead = newton_schulz(gradient + 0.9 * sums) * 0.2 * math.sqrt(3)
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * ahead
        assert torch.allclose(weight, expected, atol=1e-5)
        g = torch.tensor([2.0, -1.0]) * step
        mean, square = 0.5 * mean + 0.5 * g, 0.8 * square + 0.2 * g**2
        at = at - 0.1 * (mean / (1 - 0.5**step)) / ((square / (1 - 0.8**step)).sqrt() + 1e-4)  # type: ignore[union-attr]
        assert torch.allclose(vector, at, atol=1e-5)
    for shape in ((3, 8), (8, 3)):
        values = torch.linalg.svdvals(newton_schulz(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
        assert newton_schulz(torch.ones(shape)).shape == shape and ((values > 0.6) & (values < 1.2)).all()


def test_an_optimizers_state_is_refused_where_a_value_is_of_another_kind() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    adam = torch.optim.AdamW([weight], lr=0.1)
    weight.grad = torch.ones(2, 2)
    adam.step()
    good = adam.state_dict()
    check_state(adam, good)
    entry = good["state"][0]
    groups = good["param_groups"][0]
    for changed, said in (
        ({"param_groups": [{**groups, "params": [1]}]}, "its groups do not list each weight once"),
        ({"param_groups": [{**groups, "lr": "x"}]}, "lr is 'x'"),
        ({"param_groups": [{**groups, "lr": math.inf}]}, "lr is 'inf'"),
        ({"param_groups": [{**groups, "betas": (0.9,)}]}, "betas is"),
        ({"param_groups": [{**groups, "amsgrad": 1}]}, "amsgrad is"),
        ({"state": {1: entry}}, "weight 1 has"), ({"state": {-1: entry}}, "weight -1 has exp_avg, exp_avg_sq, step"),
        ({"state": {0: {"step": 1}}}, "weight 0 has step"),
        ({"state": {0: {**entry, "exp_avg": 3}}}, "exp_avg of weight 0 is '3'"),
        ({"state": {0: {**entry, "exp_avg": torch.ones(2)}}},
        "exp_avg of weight 0 is torch.float32 (2,), not floats (2, 2)"),
        ({"state": {0: {**entry, "exp_avg": torch.ones(2, 3)}}},
        "exp_avg of weight 0 is torch.float32 (2, 3), not floats (2, 2)"),
        ({"state": {0: {**entry, "exp_avg_sq": torch.ones(2, 2, dtype=torch.int64)}}},
        "exp_avg_sq of weight 0 is torch.int64"),
        ({"state": {0: {**entry, "step": True}}}, "step of weight 0 is 'True'"),
    ):  # fmt: skip
        assert said in refused(lambda c=changed: check_state(adam, {**good, **c}), ValueError)  # type: ignore[misc]


# -- streams --


def test_forward_passes_hold_their_tokens_and_comparisons_and_counts_are_of_the_step() -> None:
    def stream(length: int, pair: int | None = None, adapter: str = "") -> Stream:
        return Stream([1] * length, ce=[0.5] * length, pair=pair, label=None if pair is None else 1.0, adapter=adapter)

    def sizes(found: list[list[Stream]]) -> list[list[int]]:
        return [[len(each) for each in group] for group in found]

    assert sizes(micro_batches([stream(3), stream(2), stream(1), stream(9), stream(2)], 5)) == [[3, 2], [1], [9], [2]]
    assert sizes(micro_batches([stream(3, 1), stream(1), stream(2, 1)], 5)) == [[3, 2], [1]]
    assert sizes(micro_batches([stream(1, None, "b"), stream(2, None, "a"), stream(3, None, "b")], 9)) == [[2], [1, 3]]
    assert micro_batches([], 5) == []
    found = counts([stream(3, 1), stream(2, 1), stream(4, 2), stream(2)])
    assert found == {"ce": 0.5 * (2 + 1 + 3 + 1), "pg": 0, "ref_kl": 0, "value": 0, "pair": 2}
    ids = [np.ones(length, np.int32) for length in (4, 1, 3, 2)]
    assert _chunks(ids, 3) == [[1, 3], [2], [0]] and _chunks(ids, 6) == [[1, 3, 2], [0]] and _chunks([], 3) == []


def test_log_probs_come_in_the_order_of_the_streams_whatever_the_pass(tmp_path: Path) -> None:
    decoder = model(3)
    head = nn.Linear(decoder.architecture.hidden_size, 1)
    ids = [np.array(row, np.int32) for row in ([3, 4, 5, 6], [7, 8], [9, 10, 11])]
    alone = [stream_logprobs(decoder, [each], values=head)[0] for each in ids]
    for micro in (3, 100):
        together = stream_logprobs(decoder, ids, values=head, micro_tokens=micro)
        for a, b in zip(alone, together, strict=True):
            assert a.values is not None and b.values is not None
            assert np.allclose(a.logprobs, b.logprobs, atol=1e-5) and np.allclose(a.values, b.values, atol=1e-5)
            assert a.last_value == pytest.approx(b.last_value, abs=1e-5) and a.logprobs[0] == 0.0
    assert stream_logprobs(decoder, ids)[0].values is None
    path = save_streams([Stream([1, 2], ce=[0, 1], group="g", pair=3, label=-1.0)], tmp_path / "not" / "there", 12)
    [loaded] = load_streams(path)
    assert path.name == "step-12.npz" and (loaded.ids.tolist(), loaded.group, loaded.pair, loaded.label) == (
        [1, 2],
        "g",
        3,
        -1.0,
    )
    (tmp_path / "bad.npz").write_bytes(b"x")
    assert "holds no streams" in refused(lambda: load_streams(tmp_path / "bad.npz"), DataError)


def test_reflected_lines_count_all_but_the_prompt_and_the_passages(home: Path) -> None:
    file = home / "r.jsonl"

    def said(output: Any, instruction: Any = "ask") -> str:
        file.write_text(json.dumps({"instruction": instruction, "output": output}) + "\n")
        return refused(lambda: read_reflected(file), DataError).removeprefix(f"{file}:1: ")

    assert said("[Relevant]x", " ") == said(3) == "`instruction` and `output` must both be texts that are not empty"
    assert said("plain") == "the output has no reflection token, such as [Relevant]: label it first"
    assert said("[Relevant]</paragraph>") == "<paragraph> and </paragraph> do not come in pairs"
    assert (
        said("[Relevant]<paragraph><paragraph>x</paragraph></paragraph>")
        == "<paragraph> and </paragraph> do not come in pairs"
    )
    assert said("[Relevant]<paragraph>x") == "a <paragraph> is not closed"
    file.write_text("\n")
    assert refused(lambda: read_reflected(file), DataError) == f"{file} has no line: make it by `firsthand rag label`"
    file.write_text(json.dumps({"instruction": "ask", "output": "ab<paragraph>cd</paragraph>[Relevant]e"}))
    [line] = read_reflected(file)
    _, tokenizer = with_added_tokens(
        model_of(home), pretrained.load(home / "tiny"), ["<paragraph>", "</paragraph>", "[Relevant]"]
    )
    stream = encode_reflected(line, tokenizer)
    assert stream.ce is not None and stream.source == f"{file}:1"
    counted = [tokenizer.token_bytes(int(id)) for id, weight in zip(stream.ids, stream.ce, strict=True) if weight]
    assert (
        b"".join(counted).startswith(b"ab")
        and b"cd" not in b"".join(counted)
        and int(stream.ids[-1]) == tokenizer.eos_id
    )
    assert tokenizer.token_id("[Relevant]") in [
        int(id) for id, weight in zip(stream.ids, stream.ce, strict=True) if weight
    ]
    assert stream.ce[list(stream.ids).index(tokenizer.token_id("</paragraph>"))] == 0


def model_of(home: Path) -> Decoder:
    from firsthand.nn import weights

    return weights.load(write_model(home / "tiny", max_position=64))


# -- points of scaling laws --


@pytest.mark.slow
def test_points_are_read_by_any_heading_and_bad_ones_named_by_line(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"

    def read(text: str) -> ScalingPoints:
        file.write_text(text)
        return read_points(file)

    points = read(" N , FLOPs,Final Loss,other\n10,600,2.5,x\n20,2400,2,\n")
    assert (points.parameters.tolist(), points.tokens.tolist(), points.loss.tolist()) == ([10, 20], [10, 20], [2.5, 2])
    assert points.flops.tolist() == [600, 2400] and read("params,d,c,loss\n2,3,999,1\n").tokens.tolist() == [3]
    write_points(points, tmp_path / "q.csv")
    assert (tmp_path / "q.csv").read_text().splitlines() == [
        "parameters,tokens,flops,loss",
        "10,10,600,2.5",
        "20,20,2400,2",
    ]
    for text, told in (
        ("n,d,loss\n1,2,3\n1,x,3\n", ":3: d is 'x': expected a number above 0"), ("n,d,loss\n0,2,3\n", ":2: n is '0'"),
        ("n,d,loss\n1,2\n", ":2: loss is ''"),
        ("n,loss\n1,2\n", " has the columns n, loss: expected parameters, loss, and tokens or flops"),
        ("n,d,loss\n", " has no points: give a heading and a row for each run"), ("n,d,loss\ninf,1,1\n", ":2: n is 'inf'"),
    ):  # fmt: skip
        assert refused(lambda t=text: read(t), DataError).startswith(f"{file}{told}")  # type: ignore[misc]
    most = csv.field_size_limit()
    long = refused(lambda: read("n,d,loss\n1,2,3\n1,2," + "1" * (most + 1)), DataError)
    assert long == f"{file} is no CSV file: field larger than field limit ({most})"
    at_most = refused(lambda: read("n,d,loss\n1,2," + "x" * most), DataError)
    assert at_most == f"{file}:2: loss is {'x' * 40!r}: expected a number above 0"
    file.write_bytes(b"n,d,loss\n1,2,\xff\n")
    assert refused(lambda: read_points(file), DataError) == f"{file} is no CSV file: it is not UTF-8 text"
    missing = refused(lambda: read_points(file.with_name("none.csv")), DataError)
    assert missing == f"{file.with_name('none.csv')} cannot be read: No such file or directory"
    some = ScalingPoints(*(np.array(each, float) for each in ([1, 2, 3, 4], [5, 6, 7, 8], [3, 9, 9, 1])))
    assert some.without_highest(2).loss.tolist() == [3, 1] and some.without_highest(1).parameters.tolist() == [1, 2, 4]
    assert len(some.without_highest(0)) == 4 and some.take(np.array([1, 1])).tokens.tolist() == [6, 6]
    for count in (-1, 4):
        assert f"drop is {count} and there are 4 points" in refused(lambda c=count: some.without_highest(c), DataError)  # type: ignore[misc]
    assert "not a number above 0" in refused(lambda: ScalingPoints(*(np.array([1.0, 0.0]),) * 3), DataError)
    assert "points of shapes" in refused(lambda: ScalingPoints(np.ones(2), np.ones(3), np.ones(2)), DataError)


def test_a_sweeps_decoder_has_heads_of_16_or_8_and_its_rate_falls_to_nearly_nothing() -> None:
    config = SweepConfig(layers=3, context=32)
    found = [sweep_architecture(width, config, 50) for width in (32, 24)]
    assert [(a.hidden_size, a.num_heads, a.num_kv_heads, a.head_dim, a.intermediate_size) for a in found] == [
        (32, 2, 2, 16, 88), (24, 3, 3, 8, 64)
    ]  # fmt: skip
    assert (found[0].num_layers, found[0].max_position, found[0].vocab_size, found[0].tie_embeddings) == (
        3,
        32,
        50,
        True,
    )
    assert "widths has 12" in refused(lambda: sweep_architecture(12, config, 50))
    falling = _Falling(10, 14)
    assert [falling(step) for step in (11, 12, 14)] == [4 / 5, 3 / 5, 1 / 5]
