import pytest
import torch

from engine_tiny import VOCAB, drain, logprobs, plain_logprobs, tiny_engine, tiny_model, tokens
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig, default_kv_bytes
from firsthand.engine.core.outputs import ScoreOutput
from firsthand.engine.core.sequence import Request
from firsthand.errors import ConfigError, FirsthandError, ModelError, PromptTooLong
from firsthand.model import Sampling
from firsthand.nn.blocks.attention import Attend
from firsthand.nn.decoder import Decoder

PROMPTS = [tuple((7 * i + 3 * j) % VOCAB for j in range(1 + 11 * i)) for i in range(5)]


@pytest.mark.parametrize("window", [None, 9])
def test_greedy_tokens_and_logprobs_equal_a_plain_forward_pass(window: int | None) -> None:
    model, engine = tiny_model(window=window), tiny_engine(window=window, weights="float32", max_batch_tokens=65)
    for prompt in PROMPTS:
        engine.add(Request(prompt, Sampling(max_tokens=30)))
    for (request_id, _), outputs in drain(engine).items():
        answer = tokens(outputs)
        assert len(answer) == 30 and outputs[-1].finish_reason == "length"
        plain = plain_logprobs(model, [*PROMPTS[request_id], *answer])[len(PROMPTS[request_id]) - 1 : -1]
        assert tuple(plain.argmax(-1).tolist()) == answer
        assert all(output.is_greedy for output in outputs)
        expected = plain.gather(1, torch.tensor(answer)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(logprobs(outputs)), expected, atol=1e-4)


@pytest.mark.slow
def test_a_bfloat16_model_is_served_by_its_modules_as_on_a_gpu() -> None:
    model = tiny_model().to(torch.bfloat16)
    engine = Engine(model, EngineConfig(kv_memory_bytes=1 << 20))
    assert engine.weights == "float32" and engine.runner.pages[0].keys.dtype == torch.bfloat16
    for prompt in PROMPTS:
        engine.add(Request(prompt, Sampling(max_tokens=10)))
    for (request_id, _), outputs in drain(engine).items():
        answer, size = tokens(outputs), len(PROMPTS[request_id])
        plain = plain_logprobs(model, [*PROMPTS[request_id], *answer])[size - 1 : -1].float()
        expected = plain.gather(1, torch.tensor(answer)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(logprobs(outputs)), expected, atol=0.15)


def test_scores_equal_a_plain_forward_pass_and_the_prefix_is_computed_once() -> None:
    model, engine = tiny_model(), tiny_engine(weights="float32")
    prefix = list(PROMPTS[3])
    continuations = [[1, 2, 3], [4], [], [5, 6], [1, 2, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]]
    scores = engine.score(prefix, continuations)
    engine.pool.check()
    for continuation, scored in zip(continuations, scores, strict=True):
        plain = plain_logprobs(model, prefix + continuation)[len(prefix) - 1 : len(prefix) - 1 + len(continuation)]
        expected = plain.gather(1, torch.tensor(continuation, dtype=torch.long)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(scored.logprobs), expected, atol=1e-4)
        assert scored.is_greedy == (plain.argmax(-1).tolist() == continuation)
    assert engine.stats().prefill_tokens == len(prefix) + sum(max(len(c) - 1, 0) for c in continuations)


def test_a_greedy_continuation_is_known_as_greedy() -> None:
    engine = tiny_engine()
    engine.add(Request(PROMPTS[1], Sampling(max_tokens=5)))
    (outputs,) = drain(engine).values()
    best = list(tokens(outputs))
    wrong = [*best[:-1], (best[-1] + 1) % VOCAB]
    assert engine.score(PROMPTS[1], [best, wrong]) == [
        ScoreOutput(logprobs(outputs), True),
        ScoreOutput(engine.score(PROMPTS[1], [wrong])[0].logprobs, False),
    ]


def test_a_continuation_with_one_token_that_is_not_the_best_is_not_greedy_wherever_it_stands() -> None:
    engine = tiny_engine()

    def greedy(prompt: tuple[int, ...], count: int) -> list[int]:
        engine.add(Request(prompt, Sampling(max_tokens=count)))
        (outputs,) = drain(engine).values()
        return list(tokens(outputs))

    best = greedy(PROMPTS[1], 4)
    for place in range(4):
        start = [*best[:place], (best[place] + 1) % VOCAB]
        strayed = [*start, *greedy((*PROMPTS[1], *start), 3 - place)] if place < 3 else start
        assert [each.is_greedy for each in engine.score(PROMPTS[1], [best, strayed, best[:place]])] == [
            True,
            False,
            True,
        ]


def test_scoring_keeps_the_outputs_of_other_requests() -> None:
    engine = tiny_engine()
    request_id = engine.add(Request(PROMPTS[1], Sampling(max_tokens=3)))
    engine.score(PROMPTS[2], [[1] * 30, [2] * 40])
    assert len(tokens(drain(engine)[request_id, 0])) == 3


def test_several_answers_compute_the_prompt_once_and_differ_by_their_index() -> None:
    engine = tiny_engine()
    engine.add(Request(PROMPTS[4], Sampling(max_tokens=12, temperature=1.0, seed=3), n=5))
    answers = [tokens(outputs) for outputs in drain(engine).values()]
    assert engine.stats().prefill_tokens == len(PROMPTS[4])
    assert len(answers) == 5 == len(set(answers))


def test_stop_tokens_and_stoppers_end_an_answer_with_the_token_that_did_it() -> None:
    engine = tiny_engine()
    engine.add(Request(PROMPTS[1], Sampling(max_tokens=20)))
    (outputs,) = drain(engine).values()
    answer = tokens(outputs)
    ends = answer.index(answer[4])

    class AtFive:
        seen = 0

        def feed(self, token_id: int) -> bool:
            self.seen += 1
            return self.seen == 5

    by_token = engine.add(Request(PROMPTS[1], Sampling(max_tokens=20), stop_ids=frozenset({answer[4]})))
    by_text = engine.add(Request(PROMPTS[1], Sampling(max_tokens=20), n=2, stopper=AtFive))
    found = drain(engine)
    assert tokens(found[by_token, 0]) == answer[: ends + 1]
    assert tokens(found[by_text, 0]) == tokens(found[by_text, 1]) == answer[:5]
    assert {found[key][-1].finish_reason for key in found} == {"stop"}


def test_alternatives_are_the_most_probable_tokens_and_logprobs_ignore_the_temperature() -> None:
    engine = tiny_engine(weights="float32")
    engine.add(Request(PROMPTS[1], Sampling(max_tokens=6, temperature=3.0, top_k=7, seed=1, top_logprobs=4)))
    (outputs,) = drain(engine).values()
    answer = tokens(outputs)
    plain = plain_logprobs(tiny_model(), [*PROMPTS[1], *answer])[len(PROMPTS[1]) - 1 :]
    for output, row in zip(outputs, plain, strict=False):
        ((alternatives),) = output.top_logprobs
        assert [token for token, _ in alternatives] == row.topk(4).indices.tolist()
        assert output.logprobs[0] == pytest.approx(float(row[output.token_ids[0]]), abs=1e-4)
        assert output.token_ids[0] in row.topk(7).indices


def test_max_tokens_is_clipped_to_the_context() -> None:
    engine = tiny_engine()
    engine.add(Request(tuple([1] * 250), Sampling(max_tokens=100)))
    (outputs,) = drain(engine).values()
    assert len(tokens(outputs)) == 6 and outputs[-1].finish_reason == "length"


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (Request(()), ModelError, "empty"),
        (Request((1, VOCAB)), ModelError, f"token 1 of the prompt is {VOCAB}"),
        (Request((-1,)), ModelError, "-1"),
        (Request((1.5,)), ModelError, "1.5"),  # type: ignore[arg-type]
        (Request(("a",)), ModelError, "'a'"),  # type: ignore[arg-type]
        (Request(tuple([1] * 256)), PromptTooLong, "context is 256"),
        (Request((1,), n=0), ConfigError, "n is 0"),
        (Request((1,), n=10**9), ConfigError, "n is 1000000000"),
    ],
)
def test_a_bad_request_is_refused_in_words_and_harms_nobody(request_: Request, error: type, words: str) -> None:
    engine = tiny_engine()
    good = engine.add(Request(PROMPTS[1], Sampling(max_tokens=3)))
    with pytest.raises(error, match=words):
        engine.add(request_)
    assert len(tokens(drain(engine)[good, 0])) == 3


def test_a_request_that_can_never_fit_the_memory_is_refused() -> None:
    engine = tiny_engine(kv_memory_bytes=16 * 512 * 5)
    assert engine.pool.num_blocks == 5
    with pytest.raises(PromptTooLong, match="room for 80"):
        engine.add(Request(PROMPTS[4], Sampling(max_tokens=50)))
    with pytest.raises(PromptTooLong, match="room for 80"):
        engine.score(PROMPTS[4], [[1] * 50])


def test_an_aborted_request_frees_its_memory_and_sends_nothing_more() -> None:
    engine = tiny_engine()
    request_id = engine.add(Request(PROMPTS[4], Sampling(max_tokens=100), n=3))
    engine.step()
    engine.abort(request_id)
    engine.abort(12345)
    assert not engine.has_work and not engine.is_live(request_id)
    engine.pool.check()
    assert engine.stats().free_blocks == engine.pool.num_blocks


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_one_answer_can_be_dropped_at_any_time_and_the_others_are_as_they_would_be(steps: int, index: int) -> None:
    request = Request(PROMPTS[4], Sampling(max_tokens=8, temperature=1.0, seed=4), n=3)
    whole = tiny_engine(max_sequences=2, max_batch_tokens=20)
    whole.add(request)
    expected = {key: tokens(outputs) for key, outputs in drain(whole).items()}
    engine = tiny_engine(max_sequences=2, max_batch_tokens=20)
    request_id = engine.add(request)
    early = [output for _ in range(steps) for output in engine.step()]
    engine.abort(request_id, index)
    found = drain(engine)
    for other in {0, 1, 2} - {index}:
        mine = [output for output in early if output.index == other] + found[request_id, other]
        assert tokens(mine) == expected[request_id, other]
    assert not found[request_id, index]


def test_a_request_whose_logits_are_not_numbers_fails_alone() -> None:
    model = tiny_model(tied=False)
    with torch.no_grad():
        model.embed.weight[5] = float("nan")
    engine = Engine(model, EngineConfig(kv_memory_bytes=1 << 21))
    good = engine.add(Request(PROMPTS[1], Sampling(max_tokens=9)))
    bad = engine.add(Request((1, 5, 2), Sampling(max_tokens=9), n=2))
    scored = engine.add_score((1, 5), [[3], [4]])
    found = drain(engine)
    assert len(tokens(found[good, 0])) == 9
    for key in ((bad, 0), (bad, 1), (scored, 0), (scored, 1)):
        assert isinstance(found[key][-1].error, ModelError) and "not numbers" in str(found[key][-1].error)
    engine.add(Request(PROMPTS[1], Sampling(max_tokens=9)))
    (again,) = drain(engine).values()
    assert logprobs(again) == logprobs(found[good, 0]), "the memory that held NaN does no harm to others"


@pytest.mark.parametrize("method", ["forward", "logits"])
def test_a_model_that_raises_fails_only_those_whom_it_raised_for(method: str) -> None:
    class Fussy(Decoder):
        def forward(self, ids_N: torch.Tensor, positions_N: torch.Tensor, attend: Attend) -> torch.Tensor:
            if method == "forward" and (ids_N == 13).any():
                raise MemoryError("not for a 13")
            return super().forward(ids_N, positions_N, attend)

        def logits(self, hidden_MD: torch.Tensor) -> torch.Tensor:
            if method == "logits" and len(hidden_MD) > 1:
                raise MemoryError("not for many")
            return super().logits(hidden_MD)

    model = Fussy(tiny_model().architecture)
    model.load_state_dict(tiny_model().state_dict())
    engine = Engine(model, EngineConfig(kv_memory_bytes=1 << 21))
    bad = engine.add(Request((13, 2), Sampling(max_tokens=3)))
    good = engine.add(Request((2, 3), Sampling(max_tokens=3)))
    found = drain(engine)
    assert "MemoryError" in str(found[bad, 0][-1].error)
    assert (len(tokens(found[good, 0])) == 3) == (method == "forward")
    engine.add(Request((2, 3), Sampling(max_tokens=3)))
    assert len(tokens(next(iter(drain(engine).values())))) == 3, "and the engine lives"


def test_a_stopper_that_raises_ends_its_own_answer() -> None:
    class Broken:
        def feed(self, token_id: int) -> bool:
            raise ZeroDivisionError("no")

    engine = tiny_engine()
    bad = engine.add(Request(PROMPTS[1], Sampling(max_tokens=4), stopper=Broken))
    good = engine.add(Request(PROMPTS[1], Sampling(max_tokens=4)))
    found = drain(engine)
    assert "ZeroDivisionError" in str(found[bad, 0][-1].error)
    assert len(tokens(found[good, 0])) == 4


def test_new_weights_take_effect_and_nothing_cached_under_the_old_ones_is_used() -> None:
    engine, fresh = tiny_engine(seed=0), tiny_engine(seed=1)
    request = Request(PROMPTS[4], Sampling(max_tokens=5))
    engine.add(request)
    drain(engine)
    engine.load(tiny_model(seed=1).state_dict(), version=7)
    engine.add(request)
    fresh.add(request)
    ((now,), (expected,)) = drain(engine).values(), drain(fresh).values()
    assert logprobs(now) == logprobs(expected)
    assert (now[0].version, now[0].cached_tokens, expected[0].version) == (7, 0, 0)


def test_answers_under_way_go_on_under_new_weights() -> None:
    engine = tiny_engine(seed=0)
    request_id = engine.add(Request(PROMPTS[2], Sampling(max_tokens=10)))
    first = [output for _ in range(4) for output in engine.step()]
    engine.load(tiny_model(seed=1).state_dict(), version=1)
    rest = drain(engine)[request_id, 0]
    assert len(tokens(first + rest)) == 10
    fresh = tiny_engine(seed=1)
    fresh.add(Request((*PROMPTS[2], *tokens(first)), Sampling(max_tokens=6)))
    (expected,) = drain(fresh).values()
    assert logprobs(rest) == logprobs(expected)


def test_weights_that_do_not_fit_are_refused_and_change_nothing() -> None:
    engine = tiny_engine()
    state = tiny_model(seed=1).state_dict()
    state["norm.weight"] = torch.ones(3)
    with pytest.raises(ConfigError, match=r"norm\.weight"):
        engine.load(state, version=1)
    engine.add(Request(PROMPTS[1], Sampling(max_tokens=5)))
    (outputs,) = drain(engine).values()
    other = tiny_engine()
    other.add(Request(PROMPTS[1], Sampling(max_tokens=5)))
    assert logprobs(outputs) == logprobs(next(iter(drain(other).values())))


@pytest.mark.parametrize(
    "settings",
    [
        {"block_size": 0},
        {"max_sequences": 0},
        {"max_batch_tokens": 64},
        {"kv_memory_bytes": -1},
        {"threads": 0},
        {"weights": "int3"},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        EngineConfig(**settings)  # type: ignore[arg-type]


def test_the_default_memory_is_a_share_of_what_is_free() -> None:
    assert 1 << 20 < default_kv_bytes() <= 2 << 30


def test_scores_tell_the_most_probable_tokens_in_each_place() -> None:
    engine = tiny_engine(weights="float32")
    request = engine.add_score([1, 2, 3], [[4, 5], [6]], top=3)
    outputs = drain(engine)
    plain = plain_logprobs(tiny_model(), [1, 2, 3, 4, 5])
    (output,) = outputs[request, 0]
    assert [len(place) for place in output.top_logprobs] == [3, 3]
    for place, told in zip((2, 3), output.top_logprobs, strict=True):
        best = plain[place].topk(3)
        assert [token for token, _ in told] == best.indices.tolist()
        assert [logprob for _, logprob in told] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert len(outputs[request, 1][0].top_logprobs) == 1


@pytest.mark.parametrize("sampling", [Sampling(logit_bias=((999, 1.0),)), Sampling(logit_bias=((1, 1.0), (1, 2.0))),
                                      Sampling(stop_ids=(-1,))])  # fmt: skip
def test_biases_and_stops_of_tokens_that_are_not_there_are_refused(sampling: Sampling) -> None:
    with pytest.raises(FirsthandError, match=r"logit_bias|stop_ids"):
        tiny_engine().add(Request((1, 2), sampling))
