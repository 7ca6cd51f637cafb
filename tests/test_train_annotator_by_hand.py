"""Toolformer's annotator with a scripted engine: places, samples, results, verdicts, and the texts that are trained on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from firsthand.benchmarks.toy_ledgers import LIMIT, NAMES
from firsthand.errors import ConfigError, DataError, StoreError, TrainingError
from firsthand.loop.concurrency import derive_seed
from firsthand.message import assistant
from firsthand.model import Completion, Delta, Usage
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder
from firsthand.sampling import Sampling
from firsthand.system import interruption
from firsthand.tokens.calls.inline_call import InlineCall
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.tool import tool
from firsthand.tools.calculator import calculator
from firsthand.train.data_order import StreamBatches, digest, split
from firsthand.train.model_folder import save_model
from firsthand.train.objective import Objective
from firsthand.train.recipe_settings import LoopSettings
from firsthand.train.recipes.toolformer import Config, toolformer
from firsthand.train.recipes.toy_bookkeeper import text_stream
from firsthand.train.stream_logprobs import stream_logprobs
from firsthand.train.toolformer import annotated_texts
from firsthand.train.toolformer.annotated_texts import OpenedTexts, _judged, _read, _write, annotated, opened_texts
from firsthand.train.toolformer.call_evaluation import held_out_calls
from firsthand.train.toolformer.call_filter import JudgedCall, ProposedCall, shuffled_results, weighted_loss, with_calls
from firsthand.train.toolformer.call_proposals import Annotator, executed
from firsthand.train.toy_tasks.toy_models import toy_model
from train_rehearsal import Rehearsal, write_lines
from train_tiny import Kept

torch.set_num_threads(1)
PIECES = [*(f" {n}" for n in range(LIMIT)), *NAMES, " has", " gets", " left", " +", " -", " [", " ->", "]", "calculator(",
          "note(", ")"]  # fmt: skip
LEDGERS = ("tom has 12 gets 9 left 21", "ann has 2 gets 3 left 5", "bob has 1 gets 0 left 1")


@tool(effect="read")
def note(text: str) -> str:
    """Returns the text, or a line that cannot be written."""
    return "1\n2" if text == "bad" else f" {text}! "


class Engine:
    """Answers prompts by their number of tokens, the last first, and keeps what it was asked and given."""

    def __init__(self, replies: Mapping[int, Sequence[str]]):
        self.replies, self.asked, self.updates = replies, [], []

    async def stream_many(self, prompt: list[int], settings: Sampling, *, n: int) -> AsyncIterator[Delta]:
        self.asked.append((prompt, settings, n))
        for index in reversed(range(n)):
            text = self.replies[len(prompt)][index]
            yield Delta(text, index=index)
            yield Delta("", Completion(assistant(text), "stop", Usage()), index=index)

    async def update(self, state: Mapping[str, torch.Tensor], version: int) -> None:
        self.updates.append((version, sorted(state)))


@pytest.fixture(scope="module")
def parts() -> tuple[Decoder, Tokenizer]:
    return toy_model(PIECES, seed=2, context=40)


def ids_of(tokenizer: Tokenizer) -> list[np.ndarray]:
    return [text_stream(each, tokenizer).ids for each in LEDGERS]


def logits_of(decoder: Decoder, ids: np.ndarray) -> torch.Tensor:
    tokens = torch.from_numpy(ids).long()
    return decoder.logits(decoder(tokens, torch.arange(len(tokens)), Packed([len(tokens)]))).detach()


GOOD, MADE, WRONG = "calculator( 2 + 3) ->", "note(ab)]", "note(bad) ->"
FIVE, NOTED = InlineCall("calculator", " 2 + 3"), InlineCall("note", "ab")


def annotator_of(parts: tuple[Decoder, Tokenizer], replies: Mapping[int, Sequence[str]], **more: Any) -> Annotator:
    return Annotator(parts[0], Engine(replies), parts[1], {"calculator": calculator, "note": note}, **more)  # type: ignore[arg-type]


@pytest.mark.slow
def test_places_are_read_from_the_probability_that_a_call_begins(parts: tuple[Decoder, Tokenizer]) -> None:
    decoder, tokenizer = parts
    annotator, texts = annotator_of(parts, {}), ids_of(tokenizer)
    (start,) = tokenizer.encode(" [")
    logprobs = [logits_of(decoder, ids).log_softmax(-1)[:-1, start].tolist() for ids in texts]
    found = annotator.start_logprobs(texts)
    for each, own in zip(found, logprobs, strict=True):
        assert each.tolist() == pytest.approx([0.0, *own], abs=1e-5)
    chances = [np.exp([-np.inf, *own]) for own in logprobs]
    above = float(sorted(chances[0])[-3])
    expected = [sorted(np.argsort(-each, kind="stable")[:2].tolist()) for each in chances]
    assert annotator.places(texts, most=2, above=0.0) == expected
    assert annotator.places(texts[:1], most=9, above=above * 1.0001)[0] == sorted(np.argsort(-chances[0])[:2].tolist())
    assert (annotator.lead, annotator.encoded(" [")) == (0, [start])


def test_a_call_begins_first_where_it_is_the_most_probable_token(parts: tuple[Decoder, Tokenizer]) -> None:
    decoder, tokenizer = toy_model(PIECES, seed=2, context=40)
    (start,), texts = tokenizer.encode(" ["), ids_of(tokenizer)
    tokens = torch.from_numpy(texts[0]).long()
    with torch.no_grad():
        hidden = decoder(tokens, torch.arange(len(tokens)), Packed([len(tokens)]))
        wanted = torch.full((len(tokens),), -50.0)
        wanted[[2, 4]] = 50.0
        decoder.lm_head.weight[start] = torch.linalg.pinv(hidden) @ wanted
    expected = []
    for ids in texts:
        best = logits_of(decoder, ids)[:-1].argmax(-1)
        expected.append([int(place) + 1 for place in torch.nonzero(best == start)[:1, 0]])
    assert expected[0] == [3]
    assert annotator_of((decoder, tokenizer), {}).first_calls(texts) == expected


def test_samples_continue_the_text_before_a_place_and_count_only_with_an_end(parts: tuple[Decoder, Tokenizer]) -> None:
    tokenizer = parts[1]
    before = ids_of(tokenizer)[0][:3]
    (start,) = tokenizer.encode(" [")
    annotator = annotator_of(parts, {4: [GOOD, "calculator( 2 + 3)", "nothing]", MADE, "] ->"]}, max_input_tokens=11)
    found = asyncio.run(annotator._sampled(before, 5, 0.5, 77))
    assert found == [FIVE, None, None, NOTED, None]
    settings = Sampling(max_tokens=11, temperature=0.5, seed=77, stop=(" ->", "]"), include_stop_str_in_output=True)
    assert annotator.local.asked == [([*before.tolist(), start], settings, 5)]  # type: ignore[attr-defined]


def test_proposals_are_the_different_calls_of_each_place_with_their_results(parts: tuple[Decoder, Tokenizer]) -> None:
    texts = ids_of(parts[1])
    engine = {3: [GOOD, MADE, GOOD], 5: [WRONG, "?]", "gone(1)]"], 4: ["x", MADE, "calculator(1/0)]"]}
    annotator = annotator_of(parts, engine)
    proposed, counts = asyncio.run(annotator.proposals(texts, [[2, 4], [], [3]], count=3, temperature=0.75, seed=9))
    assert [(each.text, each.place, each.call, each.result, each.num_sampled) for each in proposed] == [
        (0, 2, FIVE, "5", 2), (0, 2, NOTED, "ab!", 1), (2, 3, NOTED, "ab!", 1)
    ]  # fmt: skip
    assert counts == {"places": 3.0, "sampled": 9.0, "well_formed": 7.0, "different": 6.0, "executed": 3.0}
    seeds = {(len(prompt), settings.seed, settings.temperature) for prompt, settings, _ in annotator.local.asked}  # type: ignore[attr-defined]
    assert seeds == {
        (place + 1, derive_seed("toolformer", 9, text, place), 0.75) for text, place in ((0, 2), (0, 4), (2, 3))
    }
    assert asyncio.run(annotator.proposals(texts, [[], [], []], count=3)) == ([], dict.fromkeys(counts, 0.0))


@tool(effect="read")
def long(text: str) -> str:
    """Returns so many letters."""
    return "y" * int(text)


def test_results_of_up_to_200_characters_without_brackets_or_lines_are_written() -> None:
    tools = {"long": long, "note": note, "calculator": calculator}
    calls = [
        ("long", "200"),
        ("long", "201"),
        ("long", "0"),
        ("note", "a]"),
        ("note", "[a"),
        ("note", " b "),
        ("none", "1"),
    ]
    found = [asyncio.run(executed(InlineCall(*each), tools)) for each in calls]
    assert found == ["y" * 200, None, None, None, None, "b!", None]


def test_a_call_is_judged_as_a_prefix_by_the_weighted_loss_after_its_place(parts: tuple[Decoder, Tokenizer]) -> None:
    decoder, tokenizer = parts
    texts, annotator = ids_of(tokenizer), annotator_of(parts, {})
    proposed = [ProposedCall(2, 5, FIVE, "5"), ProposedCall(0, 3, NOTED, "ab!"), ProposedCall(2, 1, NOTED, "1")]
    for each, judged in zip(proposed, annotator.judged(texts, proposed), strict=True):
        asked, answered = (tokenizer.encode(each.call.written(result)) for result in (None, each.result))
        losses = []
        for prefix in ([], asked, answered):
            whole = np.concatenate([np.array(prefix, np.int32), texts[each.text]])
            logprobs = stream_logprobs(decoder, [whole])[0].logprobs
            losses.append(weighted_loss(logprobs, each.place + len(prefix)))
        assert judged.proposed is each
        assert (judged.without, judged.unanswered, judged.answered) == pytest.approx(tuple(losses), abs=1e-5)
    assert annotator.judged(texts, []) == []
    verdict = JudgedCall(proposed[1], 3.0, 2.5, 1.0).to_json(kept=True)
    assert verdict == {
        "text": 0, "place": 3, "tool": "note", "input": "ab", "result": "ab!",
        "losses": {"without": 3.0, "unanswered": 2.5, "answered": 1.0}, "gain": 1.5, "kept": True,
    }  # fmt: skip


def test_a_prefix_stands_after_the_token_that_begins_every_text(parts: tuple[Decoder, Tokenizer]) -> None:
    decoder, plain = parts
    settings = {**plain.settings(), "add_bos": True}
    begun = Tokenizer(**settings, chat_template=plain.chat_template)
    annotator = annotator_of((decoder, begun), {})
    assert annotator.lead == 1
    assert annotator._prefixed(np.array([1, 7, 8], np.int32), [4, 5]).tolist() == [1, 4, 5, 7, 8]
    split_up = toy_model(["a", " ", "["], seed=0, context=8)
    split_up = split_up if len(split_up[1].encode(" [")) == 2 else None
    assert split_up is not None
    with pytest.raises(ConfigError) as refused:
        annotator_of(split_up, {})
    assert str(refused.value) == "the tokenizer writes ' [', the beginning of a call, as 2 tokens: expected 1"


def test_held_out_loss_with_calls_counts_the_texts_own_tokens_alone(parts: tuple[Decoder, Tokenizer]) -> None:
    decoder, tokenizer = parts
    texts = ids_of(tokenizer)
    annotator = annotator_of(parts, {3: [GOOD], 5: ["calculator(1/0)]"]})
    annotator.first_calls = lambda given: [[2], [], [4]]  # type: ignore[method-assign]
    found = asyncio.run(held_out_calls(annotator, texts))
    assert [(len(prompt), settings.temperature, n) for prompt, settings, n in annotator.local.asked] == [
        (3, 0, 1),
        (5, 0, 1),
    ]  # type: ignore[attr-defined]
    call = tokenizer.encode(" [calculator( 2 + 3) -> 5]")
    longer = np.concatenate([texts[0][:2], np.array(call, np.int32), texts[0][2:]])
    plain = [stream_logprobs(decoder, [each])[0].logprobs[1:] for each in texts]
    called = stream_logprobs(decoder, [longer])[0].logprobs
    own = [np.concatenate([called[1:2], called[2 + len(call) :]]), plain[1], plain[2]]
    assert found == pytest.approx({
        "held_out_loss": -np.concatenate(plain).mean(), "held_out_loss_with_calls": -np.concatenate(own).mean(),
        "held_out_call_rate": 1 / 3,
    })  # fmt: skip
    assert found["held_out_loss"] != found["held_out_loss_with_calls"]


def texts_of(parts: tuple[Decoder, Tokenizer], replies: Mapping[int, Sequence[str]], runner: Any) -> OpenedTexts:
    streams = [text_stream(each, parts[1]) for each in LEDGERS]
    return OpenedTexts(Path("m"), *parts, annotator_of(parts, replies), runner, streams[:2], streams[2:])


def kept_row(text: int, place: int, result: str, *, kept: bool = True) -> dict[str, Any]:
    return {"text": text, "place": place, "tool": "note", "input": "ab", "result": result, "kept": kept}


def test_every_judged_call_is_told_with_the_counts_of_each_step(parts: tuple[Decoder, Tokenizer]) -> None:
    config = Config(places=1, start_probability=0.0, samples=2, threshold=1e-9)
    with interruption.Runner() as runner:
        opened = texts_of(parts, {size: [GOOD, MADE] for size in range(2, 12)}, runner)
        rows, counts = _judged(opened, config, 4)
        texts = [each.ids for each in opened.texts]
        places = opened.annotator.places(texts, most=1, above=0.0)
        proposed, made = runner.run(opened.annotator.proposals(texts, places, count=2, seed=4))
        for corrupt, given in ((False, proposed), (True, shuffled_results(proposed, seed=4))):
            judged = opened.annotator.judged(texts, given)
            best = {each.place: max(e.gain for e in judged if e.proposed.text == text and e.proposed.place == each.place)
                    for text in range(2) for each in given if each.text == text}  # fmt: skip
            kept = [each.gain >= 1e-9 and each.gain == best[each.proposed.place] for each in judged]
            rows, counts = _judged(
                opened, Config(places=1, start_probability=0.0, samples=2, threshold=1e-9, corrupt=corrupt), 4
            )
            assert rows == [each.to_json(kept=is_kept) for each, is_kept in zip(judged, kept, strict=True)]
            assert counts == {**made, "kept": float(sum(kept)), "texts_with_calls": float(
                len({each.proposed.text for each, is_kept in zip(judged, kept, strict=True) if is_kept}))}  # fmt: skip
    assert made["places"] == 2 and len(rows) == 4 and len({row["result"] for row in rows}) == 2


def test_texts_get_the_calls_that_were_kept_and_a_resumed_run_reads_them(
    parts: tuple[Decoder, Tokenizer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer, file = parts[1], tmp_path / "calls.jsonl"
    opened = texts_of(parts, {}, SimpleNamespace())
    texts = [each.ids for each in opened.texts]
    rows = [kept_row(1, 4, "7"), kept_row(0, 3, "8"), kept_row(1, 2, "6"), kept_row(0, 5, "9", kept=False)]
    _write([{"data": digest(texts)}, *rows], file)
    assert [json.loads(line) for line in file.read_text().splitlines()] == [{"data": digest(texts)}, *rows]
    run = Rehearsal(tmp_path, LoopSettings(), is_resumed=True)
    written = {result: tokenizer.encode(NOTED.written(result)) for result in "678"}
    expected = [with_calls(texts[0], {3: written["8"]}), with_calls(texts[1], {2: written["6"], 4: written["7"]})]
    streams = annotated(opened, Config(), run)
    assert [each.ids.tolist() for each in streams] == [each.tolist() for each in expected]
    assert all(each.ce.tolist() == [0.0] + [1.0] * (len(each) - 1) for each in streams if each.ce is not None)
    assert [each.ids.tolist() for each in annotated(opened, Config(most=1), run)] == [expected[0].tolist()]
    sizes = [len(texts[0]) + len(tokenizer.encode(NOTED.written("8" * count))) for count in range(40)]
    full = sizes.index(40)
    _write([{"data": digest(texts)}, kept_row(0, 3, "8" * full), kept_row(1, 2, "6")], file)
    assert max(len(each) for each in annotated(opened, Config(), run)) == 40, "as long as the context"
    _write([{"data": digest(texts)}, kept_row(0, 3, "8" * (full + 1)), kept_row(1, 2, "6")], file)
    (only,) = annotated(opened, Config(), run)
    assert only.ids.tolist() == with_calls(texts[1], {2: written["6"]}).tolist(), "the other is longer than the context"
    (again,) = annotated(opened, Config(most=1), run)
    assert again.ids.tolist() == only.ids.tolist(), "of those that fit"
    _write([{"data": digest(texts)}, kept_row(0, 3, "8", kept=False), kept_row(1, 3, "8", kept=False)], file)
    with pytest.raises(TrainingError) as refused:
        annotated(opened, Config(threshold=0.25), run)
    assert str(refused.value) == (
        "none of 2 calls lowers the loss by 0.25, so there is nothing to train on: look at the gains in "
        f"{file}, lower --threshold, or sample more calls"
    )
    assert capsys.readouterr().out == ""


def test_a_fresh_run_judges_writes_and_tells_its_calls_before_the_first_step(
    parts: tuple[Decoder, Tokenizer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config(places=1, start_probability=0.0, samples=2, threshold=1e-9)
    with interruption.Runner() as runner:
        opened = texts_of(parts, {size: [GOOD, MADE] for size in range(2, 12)}, runner)
        run, kept = Rehearsal(tmp_path, LoopSettings(seed=4)), Kept()
        run.track = kept  # type: ignore[assignment]
        rows, counts = _judged(opened, config, 4)
        (tmp_path / "calls.jsonl").write_text("of another run")
        if counts["kept"]:
            annotated(opened, config, run)
        else:
            with pytest.raises(TrainingError):
                annotated(opened, config, run)
        assert opened.updates == 1 and opened.annotator.local.updates == [(1, sorted(parts[0].state_dict()))]  # type: ignore[attr-defined]
        held_out = runner.run(held_out_calls(opened.annotator, [each.ids for each in opened.held_out]))
        assert kept.rows == [{"step": 0, **held_out, **counts}]
        assert opened.evaluated() == held_out and opened.updates == 2
    assert _read(tmp_path / "calls.jsonl", digest([each.ids for each in opened.texts])) == rows
    assert capsys.readouterr().out == (
        f"places 2; sampled 4; well formed 4; different 4; executed 4; kept {counts['kept']:.0f}; texts with calls "
        f"{counts['texts_with_calls']:.0f}\n"
    )


def test_calls_of_other_texts_are_refused_and_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    assert _read(file, "x") is None
    _write([{"data": "other"}], file)
    assert _read(file, "other") == []
    with pytest.raises(DataError) as refused:
        _read(file, "x")
    assert str(refused.value) == (
        f"the texts are not those of which {file} has the calls: give the same texts, or begin anew"
    )
    with pytest.raises(StoreError) as full:
        _write([], tmp_path / "none" / "calls.jsonl")
    assert str(full.value) == (
        f"{tmp_path / 'none' / 'calls.jsonl'} cannot be written (No such file or directory): make room, then try again"
    )


class Evaluates(Rehearsal):
    """Asks for the evaluations while the texts are open."""

    def fit(self, model: Decoder, batches: Any, **told: Any) -> int:  # type: ignore[override]
        self.found = [told["evaluate"](step) for step in (1, 2, 3)]
        return super().fit(model, batches, **told)


@pytest.mark.slow
def test_the_recipe_opens_its_texts_trains_on_those_with_calls_and_evaluates_when_due(
    parts: tuple[Decoder, Tokenizer],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = save_model(*parts, tmp_path / "model")
    data = write_lines(tmp_path / "texts.jsonl", [{"text": each} for each in (*LEDGERS, "eve has" + " 1" * 60)])
    config = Config(data=str(data), model=str(folder), holdout=0.4, batch_size=5, eval_every=2,
                    loop=LoopSettings(steps=3, seed=6, micro_tokens=99))  # fmt: skip
    run = Evaluates(tmp_path / "run", config.loop, is_resumed=True)
    texts, held_out = split([text_stream(each, parts[1]) for each in LEDGERS], 0.4, seed=6)
    closed, close = [], annotated_texts.Local.close

    class Told(annotated_texts.Local):
        def close(self) -> None:
            closed.append(self)
            close(self)

    monkeypatch.setattr(annotated_texts, "Local", Told)
    with pytest.raises(KeyError), opened_texts(config, run) as opened:
        raise KeyError
    assert closed == [opened.annotator.local]
    capsys.readouterr()
    with opened_texts(config, run) as opened:
        assert closed[1:] == []
        assert [each.ids.tolist() for each in opened.texts] == [each.ids.tolist() for each in texts]
        assert [each.ids.tolist() for each in opened.held_out] == [each.ids.tolist() for each in held_out]
        annotator, engine = opened.annotator, opened.annotator.local.config
        assert (opened.path, opened.updates, list(annotator.tools)) == (folder, 0, ["calculator"])
        assert (annotator.model is opened.model, annotator.micro_tokens) == (True, 99)
        assert (engine.weights, engine.kv_cache, engine.max_batch_tokens) == ("float32", "float32", 2048)
    assert closed[1:] == [opened.annotator.local], "at a good end too"
    printed = (
        f"3 conversations, 24 tokens, 21 of them trained on; 1 longer than the context and left out (`--too-long cut` keeps "
        f"their beginning); {len(held_out)} of them held out\n"
    )
    assert capsys.readouterr().out == printed
    _write([{"data": digest([each.ids for each in texts])}, kept_row(0, 3, "8")], run.folder / "calls.jsonl")
    assert toolformer(config, run) == tmp_path / "run" / "model"
    batches, evaluate = run.told.pop("batches"), run.told.pop("evaluate")
    assert isinstance(batches, StreamBatches) and (batches.batch_size, batches.seed) == (5, 6) and callable(evaluate)
    longer = with_calls(texts[0].ids, {3: parts[1].encode(NOTED.written("8"))})
    assert [each.ids.tolist() for (each,) in batches.examples] == [longer.tolist()]
    trained = run.told.pop("model")
    assert run.told == {"objective": Objective(ce=1.0), "optimizer": config.optimizer, "schedule": config.schedule}
    assert run.saved.pop("tokenizer").fingerprint == parts[1].fingerprint and run.saved == {
        "model": trained,
        "base": folder,
    }
    plain = -np.concatenate([stream_logprobs(parts[0], [each.ids])[0].logprobs[1:] for each in held_out]).mean()
    assert run.found[0] == {} and run.found[1] == run.found[2] and run.found[1]["held_out_loss"] == pytest.approx(plain)
    with pytest.raises(ConfigError) as refused, opened_texts(Config(), run):
        pass
    assert str(refused.value) == (
        "give a JSONL file of texts, as in `firsthand train toolformer texts.jsonl --tools calculator`"
    )
