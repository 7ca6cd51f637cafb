"""The cost of one call of a model: of its answer, and of tries before it that were paid for and gave none."""

from __future__ import annotations

from firsthand.errors import ModelError
from firsthand.loop.budget import Budget
from firsthand.loop.prompt_size import estimated_usage
from firsthand.model import Usage, lost_usage


class CallCost:
    """The usage of one call, charged to a budget."""

    def __init__(self, budget: Budget, granted: int | None = None, prompt_tokens: int = 0):
        """`granted` is what was reserved for the call, None for a replayed one; `prompt_tokens` is its prompt's size."""
        self.budget = budget
        self.granted = granted
        self.prompt_tokens = prompt_tokens
        self.answer = Usage()
        """The cost of the answer; of a replayed call all that it cost when it was made."""
        self.lost = Usage()
        """The cost of tries that failed, which are charged already."""

    @property
    def usage(self) -> Usage:
        """All that the call has cost so far."""
        return self.lost + self.answer

    def lose(self, error: ModelError) -> None:
        """Charge a try that failed, at once, so that neither another try nor a branch beside it spends the same again.

        Refused answers of an endpoint that states no tokens are charged an estimate where a budget counts tokens.
        """
        usage = lost_usage(error)
        if self.budget.counts_tokens and error.answers and not usage.total_tokens:
            estimated = estimated_usage(error.answers, self.prompt_tokens)
            usage = sum((each.usage for each in estimated), Usage())
        self.waste(usage)

    def waste(self, usage: Usage) -> None:
        """Charge replies that were paid for and that no answer uses."""
        self.lost += usage
        self.budget.spend(usage)

    def check_another_try(self) -> None:
        """LimitExceeded if the tries that failed have left too little for another one."""
        if self.granted is not None and self.lost != Usage():
            self.budget.check_rest(self.granted)

    def settle(self) -> None:
        """Release what was reserved, and charge the answer."""
        self.budget.pay(self.granted, self.answer)
