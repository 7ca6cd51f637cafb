"""ClientMemories: the memory of each client of a served agent, which no other client writes to or reads."""

from __future__ import annotations

from firsthand.errors import ConfigError
from firsthand.memory import Memory, hook, memory_name
from firsthand.serve.admission.api_keys import ANYONE, OPERATOR


class ClientMemories:
    """An agent's memory by client. A memory that keeps nothing for later turns is the same for all."""

    def __init__(self, memory: Memory | None, *, shared: bool = False):
        """With `shared`, all clients have the agent's own."""
        self._own = memory
        self._is_one = memory is None or shared or memory.lifetime != "agent"
        self._by_client: dict[str, Memory] = {}

    def of(self, client: str) -> Memory | None:
        """The client's memory; the agent's own for the operator, and where there are no keys.

        ConfigError if the memory keeps no owners apart.
        """
        if self._own is None or self._is_one or client in (ANYONE, OPERATOR):
            return self._own
        if client not in self._by_client:
            if (of_owner := hook(self._own, "of_owner")) is None:
                raise ConfigError(
                    f"memory is {memory_name(self._own)}, which cannot be kept apart for clients with keys: take one that "
                    "has owners, such as semantic, or write shared-memory = true to have all clients share it"
                )
            owner = getattr(self._own, "owner", "")
            self._by_client[client] = of_owner(f"{owner}/{client}" if owner else client)
        return self._by_client[client]
