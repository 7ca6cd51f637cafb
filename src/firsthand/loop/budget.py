"""Limits on what an attempt may spend, and budgets that form a tree.

A budget is reserved before a call, prompt and answer, and charged after it, so that a thousand branches started together
cannot overshoot together. Of money, each open call holds the highest cost so far: those that begin before the first
price is known can overshoot. A call that is replayed from a journal is charged what it cost. A child budget (a branch, a
sub-agent) takes from all of its parents too, and none of them can forget to count.
"""

from __future__ import annotations

from dataclasses import dataclass

from firsthand.errors import ConfigError, LimitExceeded
from firsthand.message import Json
from firsthand.model import Usage
from firsthand.system.plurals import count_of


@dataclass(frozen=True)
class Limits:
    """Upper bounds; None is unlimited. A limit that is reached ends the attempt, and its name is the stop reason."""

    tokens: int | None = None
    """Prompt and completion tokens of all calls together."""
    calls: int | None = None
    """Generations, tool calls and scorings together."""
    seconds: float | None = None
    """Wall-clock time from the start of the attempt."""
    cost_usd: float | None = None
    """Money, where the provider reports or prices it."""
    depth: int | None = 64
    """The deepest nesting of groups: a stop for agents that call agents without end."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise ConfigError(f"the limit {name} is {value!r}: give a number above 0, or leave it out for no limit")

    def to_json(self) -> Json:
        """The limits that are set, as a JSON object."""
        return {name: value for name, value in vars(self).items() if value is not None}


class Budget:
    """The rest of some limits, inside a parent budget. Not thread-safe."""

    def __init__(self, limits: Limits, parent: Budget | None = None, *, shares_parent: bool = False):
        """With `shares_parent` the parents are those of several attempts, of which this is the budget of one."""
        self.limits = limits
        self.parent = parent
        self.num_own: int = 1 if parent is None or shares_parent else parent.num_own + 1
        """The budgets of the attempt, from this one up: those above them are shared with other attempts."""
        self.spent = Usage()
        self.calls = 0
        self.reserved_tokens = 0
        self.open_calls = 0
        """Calls of a model that are reserved and not charged; a tool call, of one token, costs nothing itself."""
        self.highest_usd = 0.0
        """The most that a call has cost so far: what each open one may cost."""
        self.held_tokens = 0
        self.held_calls = 0
        self.hit: str | None = None
        """The first limit, here or in a parent, that refused a call or cut an answer short."""
        self.is_hit_for_good = False
        """True if a call was refused, or an answer cut, that would not have fitted either once all open calls had ended."""
        self.begins_again = False
        """True if the attempt below is made anew: what it has charged is not charged again when it is replayed."""
        self.is_again = False
        self.paid = Usage()
        self.paid_calls = 0
        """Usage that earlier tries of the attempt have charged here and this one has not yet replayed."""

    @property
    def counts_tokens(self) -> bool:
        """True if tokens are limited, here or in a parent."""
        return any(scope.limits.tokens is not None for scope in self._chain())

    @property
    def overspent(self) -> str | None:
        """The limit that was exceeded here, by a call that cost more than was known before it."""
        tokens, cost_usd = self.limits.tokens, self.limits.cost_usd
        if tokens is not None and self.spent.total_tokens > tokens:
            return "tokens"
        return "cost_usd" if cost_usd is not None and self.spent.cost_usd > cost_usd else None

    def reserve(self, tokens: int, depth: int = 0, *, least: int = 1) -> int:
        """Reserve one call of about `tokens` tokens here and in every parent; returns how many it may really use.

        That is less than `tokens` when less is left. LimitExceeded if fewer than `least` are, or `depth` is too deep.
        """
        granted = tokens
        own = self._chain()[self.num_own - 1]
        for height, scope in enumerate(self._chain()):
            if height >= self.num_own and scope.reserved_tokens > own.reserved_tokens:
                least = max(
                    least, min(tokens, granted, scope._tokens_if_all_end())
                )  # no answer is cut for other attempts
            try:
                granted = min(granted, scope._left(depth, least, is_priced=tokens > 1))
            except LimitExceeded as limit:
                is_used_up = limit.limit != "depth"  # how deep an attempt nests is its own doing, whoever forbids it
                height = height if is_used_up else min(height, self.num_own - 1)
                self.mark(limit.limit, height, is_reserved=scope._is_only_reserved(limit.limit, least))
                raise
        for scope in self._chain():
            scope.calls += 1
            scope.open_calls += granted > 1
            scope.reserved_tokens += granted
        return granted

    def tightest(self) -> int:
        """Steps up to the budget with the fewest tokens left: 0 for this one, 1 for its parent."""
        left = [scope._tokens_left() for scope in self._chain()]
        return left.index(min(left))

    def is_shared(self, height: int) -> bool:
        """True if the budget so many steps up is no limit of the attempt, or was none when the attempt was begun."""
        return height >= self.num_own

    def mark(self, limit: str, height: int, *, is_reserved: bool = False) -> None:
        """Note that the budget `height` steps up has refused a call from here, or cut its answer short.

        `is_reserved` if it was only for what open calls have reserved.
        """
        for scope in self._chain()[: height + 1]:
            scope.hit = scope.hit or limit
            scope.is_hit_for_good |= not is_reserved

    def mark_cut(self, height: int, granted: int | None) -> None:
        """Note that an answer was cut short for the tokens left `height` steps up, which `granted` its call no more."""
        is_reserved = granted is not None and self._chain()[height]._is_only_reserved("tokens", granted + 1)
        self.mark("tokens", height, is_reserved=is_reserved)

    def charge(self, granted: int, usage: Usage) -> None:
        """Release what was reserved, and charge what was used."""
        for scope in self._chain():
            scope.open_calls -= granted > 1
            scope.reserved_tokens -= granted
            scope._spend(usage)

    def spend(self, usage: Usage) -> None:
        """Charge, here and in every parent, a failed try of an open call; what was reserved for the call stays reserved."""
        for scope in self._chain():
            scope._spend(usage)

    def check_rest(self, granted: int) -> None:
        """LimitExceeded if an open call, for which `granted` tokens are reserved, could not be reserved now."""
        for height, scope in enumerate(self._chain()):
            scope.reserved_tokens -= granted
            scope.open_calls -= granted > 1
            try:
                scope._check_rest(granted, is_priced=granted > 1)
            except LimitExceeded as limit:
                self.mark(limit.limit, height, is_reserved=scope._is_only_reserved(limit.limit, granted))
                raise
            finally:
                scope.reserved_tokens += granted
                scope.open_calls += granted > 1

    def begin_again(self) -> None:
        """Let what earlier tries have charged stand, here and in every parent, if they `begins_again`.

        What the new try replays of it is not charged once more. It is never taken back: a call that failed, and a judge's,
        was paid for although no reply of the attempt tells of it.
        """
        if not self.begins_again:
            return
        reserved = self.reserved_tokens
        for scope in self._chain():
            scope.reserved_tokens -= reserved
        self.is_again, self.paid, self.paid_calls = True, self.spent, self.calls
        self.held_tokens = self.held_calls = 0
        self.hit, self.is_hit_for_good, self.begins_again = None, False, False

    def resume(self, usage: Usage, calls: int) -> None:
        """Take over what earlier calls of a run have spent together."""
        self.spent += usage
        self.calls = calls

    def take_over(self, usage: Usage, calls: int, highest_usd: float) -> None:
        """Charge, here and in every parent, what an interrupted try of the attempt below has spent in another process.

        What the attempt replays of it is not charged once more. `highest_usd` is the highest cost of a call of it.
        """
        for scope in self._chain():
            scope.spent += usage
            scope.calls += calls
            scope.highest_usd = max(scope.highest_usd, highest_usd)
        self.is_again, self.paid, self.paid_calls = True, usage, calls

    def hold(self, tokens: int, calls: int) -> None:
        """Reserve, here and in every parent, what an interrupted try has spent: its calls are replayed."""
        for scope in self._chain():
            tokens = max(0, tokens - scope.paid.total_tokens)
            calls = max(0, calls - scope.paid_calls)
            if scope is self or scope.is_again:
                scope.held_tokens += tokens
                scope.held_calls += calls
            scope.reserved_tokens += tokens
            scope.calls += calls

    def repay(self, usage: Usage) -> None:
        """Charge a replayed call what it cost when it was made, where that is not charged yet. It is never refused."""
        tokens = calls = 0
        new_calls = 1
        for scope in self._chain():
            if scope.is_again:
                known_calls = min(new_calls, scope.paid_calls)
                scope.paid_calls -= known_calls
                known = usage.at_most(scope.paid)
                scope.paid -= known
                usage -= known
                new_calls -= known_calls
                tokens, calls = min(scope.held_tokens, usage.total_tokens), min(scope.held_calls, new_calls)
                scope.held_tokens -= tokens
                scope.held_calls -= calls
            elif scope.held_calls:
                tokens, calls = min(scope.held_tokens, usage.total_tokens), 1
                scope.held_tokens -= tokens
                scope.held_calls -= calls
            scope._spend(usage)
            scope.reserved_tokens -= tokens
            scope.calls += new_calls - calls

    def pay(self, granted: int | None, usage: Usage) -> None:
        """Charge a call for which `granted` tokens were reserved; None for a replayed one, for which none were."""
        if granted is None:
            self.repay(usage)
        else:
            self.charge(granted, usage)

    def _chain(self) -> list[Budget]:
        return [self, *(self.parent._chain() if self.parent else ())]

    def _spend(self, usage: Usage) -> None:
        self.spent += usage
        self.highest_usd = max(self.highest_usd, usage.cost_usd)

    def _left(self, depth: int, least: int, *, is_priced: bool) -> int:
        """Tokens left here, after checking the other limits."""
        limits = self.limits
        if limits.depth is not None and depth > limits.depth:
            raise LimitExceeded("depth", f"groups are nested {depth} deep, and the limit is {limits.depth}")
        if limits.calls is not None and self.calls >= limits.calls:
            raise LimitExceeded("calls", f"call budget exhausted: {count_of(limits.calls, 'call')} made")
        return self._check_rest(least, is_priced=is_priced)

    def _check_rest(self, least: int, *, is_priced: bool) -> int:
        """Tokens left here, after checking that money and `least` tokens are."""
        limits = self.limits
        held_usd = self.open_calls * self.highest_usd if is_priced else 0.0
        if limits.cost_usd is not None and self.spent.cost_usd + held_usd >= limits.cost_usd:
            more = f", and calls that run may cost {held_usd:.4f}" if held_usd else ""
            raise LimitExceeded("cost_usd", f"{self.spent.cost_usd:.4f} of {limits.cost_usd:.4f} USD are spent{more}")
        left = self._tokens_left()
        if limits.tokens is not None and left < least:
            used, held = self.spent.total_tokens, self.reserved_tokens
            raise LimitExceeded(
                "tokens",
                f"a call needs {least:,} tokens or more, prompt included, and {max(0, left):,} of {limits.tokens:,} are left"
                f" ({used:,} used, {held:,} reserved)",
            )
        return left

    def _is_only_reserved(self, limit: str, least: int) -> bool:
        """True if a call of `least` tokens that was refused here would fit once all open calls cost nothing more."""
        limits, spent = self.limits, self.spent
        if limit == "tokens":
            return limits.tokens is not None and limits.tokens - spent.total_tokens >= least
        return limit == "cost_usd" and limits.cost_usd is not None and spent.cost_usd < limits.cost_usd

    def _tokens_if_all_end(self) -> int:
        """Tokens left here if all open calls cost nothing more."""
        return 1 << 62 if self.limits.tokens is None else self.limits.tokens - self.spent.total_tokens

    def _tokens_left(self) -> int:
        if self.limits.tokens is None:
            return 1 << 62
        return self.limits.tokens - self.spent.total_tokens - self.reserved_tokens
