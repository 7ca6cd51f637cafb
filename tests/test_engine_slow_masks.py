"""Masks of cheap grammars that take long: watched one by one, and the slowest grammar of a step is given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from byte_tokens import made
from firsthand.engine.decoding.constraint import Grammars, Guide, Masks, ids_of
from firsthand.errors import ConfigError
from firsthand.grammar import lark, regex


def clock(*steps: float) -> Callable[[], float]:
    """A clock that goes on by the next of these with each second look at it, and by the last one in the end."""

    def ticks() -> Iterator[float]:
        now, left = 0.0, list(steps)
        while True:
            yield now
            now += left.pop(0) if len(left) > 1 else left[0]
            yield now

    return ticks().__next__


def guides_of(grammars: Grammars, expression: str, count: int) -> list[Guide]:
    found = [grammars.compile(regex(expression)).guide() for _ in range(count)]
    for guide in found:
        guide.advance(int(ids_of(guide.allowed)[0]))
    assert all(guide.needs_mask for guide in found)
    return found


def filled(masks: Masks, guides: list[Guide]) -> None:
    masks.start(guides)
    masks.finish()


def test_quick_masks_are_computed_in_batches_and_nothing_is_watched() -> None:
    grammars, looks = Grammars(made()), list[float]()

    def real() -> float:
        looks.append(0.0)
        return 0.0

    guides = guides_of(grammars, "[ab]{9}", 30)
    filled(Masks(clock=real, own_clock=lambda: 1 / 0), guides)
    assert len(looks) == 8, "2, 4, 8 and 16 at a time"
    assert not any(guide.needs_mask or guide.growth.is_watched for guide in guides)
    assert {tuple(ids_of(guide.allowed)) for guide in guides} == {tuple(ids_of(guides[0].allowed))}


def test_masks_that_could_not_be_computed_together_are_computed_by_each_answer() -> None:
    grammars, masks = Grammars(made()), Masks(clock=lambda: 1 / 0)
    guides = guides_of(grammars, "[ab]{9}", 3)
    filled(masks, guides)
    assert all(guide.needs_mask for guide in guides)
    together = guides_of(grammars, "[ab]{9}", 3)
    filled(Masks(), together)
    assert [ids_of(guide.allowed).tolist() for guide in guides] == [ids_of(each.allowed).tolist() for each in together]
    assert not any(guide.needs_mask or guide.growth.is_watched for guide in guides)


def test_the_grammar_whose_masks_hold_up_a_step_ends_and_others_of_the_step_go_on() -> None:
    grammars = Grammars(made())
    slow, other = guides_of(grammars, "[ab]{9}", 12), guides_of(grammars, "[bc]{9}", 3)
    own = clock(*[0.08] * 4, 0.0001)
    filled(Masks(clock=clock(0.2), own_clock=own), [*slow[:8], *other, *slow[8:]])
    assert slow[0].growth.is_too_slow and not other[0].growth.is_too_slow
    assert not slow[0].needs_mask, "the first batch had it"
    assert slow[-1].needs_mask and not any(guide.needs_mask for guide in other)
    with pytest.raises(ConfigError, match=r"more than 0\.25 s of processor time for one token"):
        _ = slow[-1].allowed
    assert other[-1].allowed.any()
    for _ in range(2):
        with pytest.raises(ConfigError, match="make it less ambiguous"):
            grammars.compile(regex("[ab]{9}"))
    assert grammars.compile(regex("[bc]{9}")).growth is other[0].growth


def test_a_grammar_that_a_busy_machine_made_slow_is_watched_for_a_step_and_goes_on() -> None:
    grammars, masks = Grammars(made()), Masks(clock=clock(0.2, 0.0), own_clock=clock(0.0049))
    guides = guides_of(grammars, "[ab]{9}", 200)
    filled(masks, guides)
    assert not any(guide.needs_mask for guide in guides) and not guides[0].growth.is_watched
    masks = Masks(clock=clock(0.2), own_clock=clock(0.006))
    guides = guides_of(grammars, "[bc]{9}", 40)
    filled(masks, guides)
    assert not any(guide.needs_mask for guide in guides) and guides[0].growth.is_watched, "still"
    assert not guides[0].growth.is_too_slow


def test_an_automaton_with_too_many_items_is_the_grammars_fault() -> None:
    guide = Grammars(made()).compile(lark('start: s\ns: s s | /[ab]/ | ""\n')).guide()

    class Full:
        def get_error(self) -> str:
            return "Current row has 2001 items; max is 2000; consider making your grammar left-recursive"

    guide.matcher = Full()
    assert isinstance(guide._lost("allows no token here"), ConfigError) and guide.growth.is_spoiled
