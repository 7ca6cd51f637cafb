import pytest

from firsthand.engine.core.scheduler import Scheduler
from firsthand.engine.core.sequence import Sequence, SequenceState
from firsthand.engine.core.step_plan import StepPlan
from firsthand.engine.memory.blocks import BlockPool


def scheduler(num_blocks: int = 64, *, tokens: int = 16, sequences: int = 4) -> Scheduler:
    return Scheduler(BlockPool(num_blocks, 4), max_batch_tokens=tokens, max_sequences=sequences)


def line(request_id: int, num_prompt: int, **fields: object) -> Sequence:
    prompt = [request_id * 1000 + i for i in range(num_prompt)]
    return Sequence(request_id, 0, prompt, num_prompt, max_tokens=100, **fields)  # type: ignore[arg-type]


def compute(s: Scheduler, plan: StepPlan) -> None:
    """What the engine does with a plan, with a made-up token for each finished row."""
    for chunk in plan.chunks:
        wanted = bool(chunk.logit_positions)
        s.advance(chunk)
        if wanted:
            chunk.sequence.append(7)
    s.pool.check()


def sizes(plan: StepPlan) -> list[tuple[int, int]]:
    return [(chunk.sequence.request_id, chunk.end - chunk.start) for chunk in plan.chunks]


def test_a_long_prompt_is_cut_and_answers_under_way_get_a_token_in_every_step() -> None:
    s = scheduler(tokens=10)
    s.add(line(0, 3))
    compute(s, s.plan())
    s.add(line(1, 25))
    for expected in ([(0, 1), (1, 9)], [(0, 1), (1, 9)], [(0, 1), (1, 7)], [(0, 1), (1, 1)]):
        plan = s.plan()
        assert sizes(plan) == expected
        compute(s, plan)


def test_requests_start_in_the_order_they_came() -> None:
    s = scheduler(sequences=2)
    for request_id in range(4):
        s.add(line(request_id, 4))
    assert sizes(s.plan()) == [(0, 4), (1, 4)]
    s.finish(s.running[0])
    compute(s, s.plan())
    assert [sequence.request_id for sequence in s.running] == [1, 2]


def test_a_prompt_that_does_not_fit_now_waits_and_those_behind_it_do_not_overtake() -> None:
    s = scheduler(8, tokens=40)
    s.add(line(0, 15))
    compute(s, s.plan())
    s.add(line(1, 20))
    s.add(line(2, 1))
    compute(s, s.plan())
    assert [sequence.request_id for sequence in s.waiting] == [1, 2]
    s.finish(s.running[0])
    assert sizes(s.plan()) == [(1, 20), (2, 1)]


def test_when_memory_runs_out_the_youngest_is_computed_again_later() -> None:
    s = scheduler(6, tokens=32)
    for request_id in range(2):
        s.add(line(request_id, 7))
    while s.num_preemptions == 0:
        plan = s.plan()
        compute(s, plan)
    assert [sequence.request_id for sequence in s.running] == [0]
    (young,) = s.waiting
    assert young.request_id == 1 and young.table == [] and young.num_answer > 0
    length = len(young.tokens)
    s.finish(s.running[0])
    plan = s.plan()
    assert plan.chunks[0].end == length and plan.chunks[0].start % 4 == 0
    assert plan.chunks[0].start > 0, "what the tree still holds is not computed again"


def test_the_oldest_always_gets_on_however_small_the_pool() -> None:
    s = scheduler(6, tokens=20, sequences=4)
    for request_id in range(6):
        s.add(line(request_id, 8))
    finished: list[int] = []
    for _ in range(400):
        if not s.has_work:
            break
        plan = s.plan()
        assert plan.chunks, "there is work, so a step computes something"
        compute(s, plan)
        for sequence in list(s.running):
            if sequence.num_answer >= 14:
                s.finish(sequence)
                finished.append(sequence.request_id)
    assert finished == sorted(finished) and len(finished) == 6


def test_followers_start_from_the_memory_of_the_first_and_those_without_room_wait() -> None:
    s = scheduler(sequences=2)
    lead = line(0, 6)
    lead.followers = [Sequence(0, index, list(lead.tokens), 6, max_tokens=9) for index in (1, 2)]
    followers = list(lead.followers)
    s.add(lead)
    compute(s, s.plan())
    s.fork(lead)
    assert [f.state for f in followers] == [SequenceState.RUNNING, SequenceState.WAITING]
    assert followers[0].table == lead.table and followers[0].num_computed == 6
    followers[0].append(8)
    plan = s.plan()
    assert len(plan.copies) == 1, "two write to one half-full block, so one of them gets a copy"


@pytest.mark.parametrize(("num_blocks", "state"), [(3, SequenceState.WAITING), (4, SequenceState.RUNNING)])
def test_a_follower_starts_only_if_every_running_answer_keeps_a_block_to_grow(
    num_blocks: int, state: SequenceState
) -> None:
    s = scheduler(num_blocks)
    lead = line(0, 8)  # two full blocks: each answer's next token takes a block of its own
    lead.followers = [follower := Sequence(0, 1, list(lead.tokens), 8, max_tokens=9)]
    s.add(lead)
    compute(s, s.plan())
    assert s.pool.num_available == num_blocks - 2
    s.fork(lead)
    assert follower.state is state
    if state is SequenceState.RUNNING:
        follower.append(8)
    plan = s.plan()
    assert len(plan.chunks) == len(s.running) and s.num_preemptions == 0, "nobody was started to be preempted at once"


def test_a_dropped_first_answer_leaves_its_prompt_to_the_others() -> None:
    s = scheduler(tokens=5)
    lead = line(0, 9)
    heir = Sequence(0, 1, list(lead.tokens), 9, max_tokens=9)
    lead.followers = [heir]
    s.add(lead)
    compute(s, s.plan())
    s.promote_follower(lead)
    s.finish(lead)
    s.pool.check()
    assert s.running == [heir] and heir.num_computed == 5


def alike(request_id: int, shared: int, own: int) -> Sequence:
    prompt = [*range(shared), *(1000 * request_id + i for i in range(1, own + 1))]
    return Sequence(request_id, 0, prompt, len(prompt), max_tokens=100)


def test_requests_that_come_together_compute_what_they_share_once() -> None:
    s = scheduler(200, tokens=500, sequences=8)
    for request_id in range(1, 5):
        s.add(alike(request_id, 60, 5))
    s.add(line(9, 8))
    first = s.plan()
    assert sizes(first) == [(1, 65)]
    compute(s, first)
    assert sizes(s.plan()) == [(1, 1), (2, 5), (3, 5), (4, 5), (9, 8)]


@pytest.mark.parametrize(("shared", "first_step"), [(32, [(1, 32)]), (31, [(1, 31), (2, 36)]), (33, [(1, 33)])])
def test_a_prefix_of_32_tokens_that_a_step_computes_to_its_last_is_waited_for(
    shared: int, first_step: list[tuple[int, int]]
) -> None:
    s = scheduler(200, tokens=500)
    s.add(alike(1, shared, 0))
    s.add(alike(2, shared, 5))
    plan = s.plan()
    assert sizes(plan) == first_step
    compute(s, plan)
    if len(first_step) == 1:
        assert sizes(s.plan()) == [(1, 1), (2, 5)]


def test_a_step_is_not_given_up_for_a_few_tokens_or_for_what_is_computed_later() -> None:
    s = scheduler(200, tokens=500, sequences=8)
    for request_id in range(1, 4):
        s.add(alike(request_id, 20, 5))
    assert sizes(s.plan()) == [(1, 25), (2, 25), (3, 25)]
    s = scheduler(200, tokens=100, sequences=8)
    s.add(alike(1, 300, 5))
    s.add(alike(2, 300, 5))
    computed = 0
    while not all(sequence.num_computed >= sequence.num_prompt for sequence in s.running) or s.waiting:
        plan = s.plan()
        computed += plan.num_tokens
        compute(s, plan)
    assert computed < 305 + 5 + 16 + 10  # once, the rest of the other, what lay in an unfinished block, and answers


def test_a_prompt_that_made_room_and_comes_back_in_the_same_step_is_computed_once() -> None:
    """It was in the step twice, and its answer got two tokens of one row of logits.

    The urgent text goes on from what is known, so behind the window it takes less memory than was kept free for it.
    """
    s = Scheduler(BlockPool(10, 4, window=8), max_batch_tokens=19, max_sequences=3)
    low, first = line(0, 6, owner="b", priority=1), line(1, 16, owner="b", priority=0)
    s.add(low)
    s.add(first)
    plan = s.plan()
    assert sizes(plan) == [(1, 16), (0, 3)]
    compute(s, plan)
    longer = Sequence(2, 0, [*first.tokens, 1, 2, 3, 4], 21, max_tokens=3, owner="a")
    s.add(longer)
    plan = s.plan()
    assert s.num_preemptions == 1, "the low one made room"
    assert sizes(plan) == [(1, 1), (2, 5), (0, 6)]
    compute(s, plan)
    assert low.num_computed == 6 and low.num_answer == 1
