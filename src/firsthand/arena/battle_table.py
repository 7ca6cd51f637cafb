"""BattleTable: battles between models as arrays, with what they are counted by: voter, category, covariates.

Names become numbers once; everything after works on counts per pair, so two million votes over 200 models take as long as
their strings do.
"""

# N battles, M models, V voters, F covariates

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from firsthand.errors import ConfigError

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]
A_WINS, TIE, B_WINS = 0, 1, 2
MAX_MODELS = 2_000
"""Models whose pairs are counted and rated: a chain of 2,000 takes 3 to 10 s of processor time, which grows by the cube."""
_OUTCOMES = {
    "a": A_WINS, "model_a": A_WINS,
    "b": B_WINS, "model_b": B_WINS,
    "tie": TIE, "both_bad": TIE, "tie (bothbad)": TIE, "bothbad": TIE,
}  # fmt: skip


class Column(Protocol):
    """Texts in order: a sequence of str, a NumPy array, an Arrow array or a pandas Series."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


def question_name(benchmark: str, task_id: str) -> str:
    """The name of a task as a question of votes: tasks of two benchmarks may have one id."""
    return f"{benchmark}/{task_id}"


@dataclass(frozen=True)
class BattleTable:
    """Battles of pairs of models, in the order they were fought."""

    models: tuple[str, ...]
    """The names, in order of first appearance or as they were given."""
    a: Ints
    """Shape (N): the first model of each battle, as a place in `models`."""
    b: Ints
    outcome: Ints
    """Shape (N): A_WINS, TIE or B_WINS. That both answers are bad counts as a tie."""
    voters: Ints | None = None
    """Shape (N): a number for each voter; battles of one voter are not independent."""
    questions: Ints | None = None
    """Shape (N): a number for each question; battles about one question are not independent."""
    covariates: Floats | None = None
    """Shape (N, F): what a battle differs in beside the models, such as the lengths of the answers; a's less b's."""
    covariate_names: tuple[str, ...] = ()
    voter_names: tuple[str, ...] = ()
    """The name behind each number of `voters`; empty where none is known."""

    def __len__(self) -> int:
        return len(self.a)

    @staticmethod
    def from_columns(
        model_a: Column,
        model_b: Column,
        winner: Column,
        *,
        voters: Column | None = None,
        questions: Column | None = None,
        covariates: Mapping[str, Sequence[float]] | None = None,
        models: Iterable[str] = (),
    ) -> BattleTable:
        """Builds a table from columns of equal length.

        An Arrow array or a pandas Series is coded by its own hash table, two to three times as fast as a list of str.

        Args:
            model_a: The first model of each battle.
            model_b: The second.
            winner: "a" or "model_a", "b" or "model_b", "tie", "both_bad" or "tie (bothbad)".
            voters: Who decided each battle.
            questions: The prompt or task of each battle.
            covariates: Name -> a value for each battle.
            models: Names to put first, in this order, whether they have battles or not.

        Raises:
            ConfigError: Columns of unequal length, an unknown winner, a name that is no text, a model against itself, a
                covariate that is no number.
        """
        size = len(model_a)
        columns: dict[str, Column] = {"model_b": model_b, "winner": winner, **(covariates or {})}
        columns.update({} if voters is None else {"voters": voters})
        columns.update({} if questions is None else {"questions": questions})
        for name, column in columns.items():
            if len(column) != size:
                raise ConfigError(
                    f"the column {name} has {len(column)} battles and model_a has {size}: give equal lengths"
                )
        codes: defaultdict[str, int] = defaultdict(
            lambda: len(codes), {name: i for i, name in enumerate(dict.fromkeys(models))}
        )
        a, b = _coded(model_a, codes), _coded(model_b, codes)
        if bad := [name for name in codes if not isinstance(name, str)]:
            place = int(np.flatnonzero((a == codes[bad[0]]) | (b == codes[bad[0]]))[0])
            raise ConfigError(
                f"battle {place + 1} has the model {bad[0]!r:.60}: give the name of each model, as a text"
            )
        if (same := np.flatnonzero(a == b)).size:
            name = tuple(codes)[a[same[0]]]
            raise ConfigError(f"battle {same[0] + 1} is of {name!r} against itself: a battle needs two models")
        verdicts: defaultdict[str, int] = defaultdict(lambda: len(verdicts))
        given = _coded(winner, verdicts)
        if lost := [code for verdict, code in verdicts.items() if verdict not in _OUTCOMES]:
            place = int(np.flatnonzero(given == lost[0])[0])
            raise ConfigError(
                f"the winner of battle {place + 1} is {list(verdicts)[lost[0]]!r:.60}: give "
                f"{', '.join(map(repr, _OUTCOMES))}"
            )
        outcome = np.array([_OUTCOMES[verdict] for verdict in verdicts], np.int32)[given]
        people, voter_names = (None, ()) if voters is None else _numbered(voters)
        asked = None if questions is None else _numbered(questions)[0]
        names = tuple(covariates or ())
        values = np.array([list(column) for column in covariates.values()], np.float64).T if covariates else None
        if values is not None and not np.isfinite(values).all():
            row, place = (int(each[0]) for each in np.nonzero(~np.isfinite(values)))
            raise ConfigError(
                f"the covariate {names[place]!r} of battle {row + 1} is {values[row, place]}: give a number"
            )
        return BattleTable(tuple(codes), a, b, outcome, people, asked, values, names, voter_names)

    @cached_property
    def places(self) -> dict[str, int]:
        """Model -> its place in `models`."""
        return {name: place for place, name in enumerate(self.models)}

    def check_models(self) -> None:
        """Raises ConfigError for more models than have their pairs counted."""
        if len(self.models) > MAX_MODELS:
            raise ConfigError(
                f"the arena has {len(self.models):,} models: ratings with intervals of all pairs are for {MAX_MODELS:,} at "
                "most; leave out models with few battles"
            )

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Shape (3, M, M): battles by outcome, first and second model; ConfigError for more than `MAX_MODELS` models."""
        self.check_models()
        size = len(self.models)
        flat = self.outcome.astype(np.intp)
        flat *= size
        flat += self.a
        flat *= size
        flat += self.b
        return np.bincount(flat, minlength=3 * size * size).reshape(3, size, size)

    @cached_property
    def wins(self) -> Floats:
        """Shape (M, M): how often the row's model beat the column's; a tie is half a win for each."""
        first, tied, second = self.counts.astype(np.float64)
        wins: Floats = first + second.T + (tied + tied.T) / 2
        return wins

    @cached_property
    def ties(self) -> Floats:
        """Shape (M, M), symmetric: how often the two tied."""
        tied = self.counts[TIE].astype(np.float64)
        both: Floats = tied + tied.T
        return both

    @cached_property
    def games(self) -> NDArray[np.int64]:
        """Shape (M): the battles of each model."""
        size = len(self.models)
        games: NDArray[np.int64] = np.bincount(self.a, minlength=size) + np.bincount(self.b, minlength=size)
        return games

    @cached_property
    def games_won(self) -> Floats:
        """Shape (M): the battles that each model won; a tie is half a win for each."""
        size, by_a = len(self.models), 1 - self.outcome / 2
        won = np.zeros(size)
        np.add.at(won, self.a, by_a)
        np.add.at(won, self.b, 1 - by_a)
        return won

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> BattleTable:
        """The battles where `chosen`, of shape (N), is true, or at those places; the models stay."""
        return replace(
            self,
            a=self.a[chosen],
            b=self.b[chosen],
            outcome=self.outcome[chosen],
            voters=None if self.voters is None else self.voters[chosen],
            questions=None if self.questions is None else self.questions[chosen],
            covariates=None if self.covariates is None else self.covariates[chosen],
        )

    def only(self, models: Iterable[str]) -> BattleTable:
        """The battles among some models, and only those models, in the order given."""
        kept = tuple(dict.fromkeys(models))
        if missing := [name for name in kept if name not in self.places]:
            raise ConfigError(
                f"no battle names the model {missing[0]!r}: the models are {', '.join(self.models[:300])[:300]}"
            )
        places = np.full(len(self.models), -1, np.int32)
        places[[self.places[name] for name in kept]] = np.arange(len(kept))
        among = self.where((places[self.a] >= 0) & (places[self.b] >= 0))
        return replace(among, models=kept, a=places[among.a], b=places[among.b])


def _numbered(column: Column) -> tuple[Ints, tuple[str, ...]]:
    """Shape (N): a number for each text, in order of first appearance; and the texts."""
    codes: defaultdict[str, int] = defaultdict(lambda: len(codes))
    numbers = _coded(column, codes)
    return numbers, tuple(map(str, codes))


def _coded(column: Any, codes: defaultdict[str, int]) -> Ints:
    """Shape (N): the code of each text; new texts get the next codes, in order of first appearance."""
    if hasattr(column, "dictionary_encode"):  # an Arrow array
        whole = column.combine_chunks() if hasattr(column, "combine_chunks") else column
        encoded = whole if hasattr(whole, "dictionary") else whole.dictionary_encode(null_encoding="encode")
        return _recoded(encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist(), codes)
    if hasattr(column, "factorize"):  # a pandas Series
        places, texts = column.factorize(use_na_sentinel=False)
        return _recoded(places, texts.tolist(), codes)
    if isinstance(column, np.ndarray):
        column = column.tolist()
    return np.fromiter(map(codes.__getitem__, column), np.int32, len(column))


def _recoded(places: NDArray[Any], texts: list[str], codes: defaultdict[str, int]) -> Ints:
    """Shape (N): the codes of the texts at `places`."""
    table = np.array([codes[text] for text in texts], np.int32)
    if not len(table) or (table == np.arange(len(table))).all():
        return places.astype(np.int32, copy=False)
    recoded: Ints = table[places]
    return recoded
