"""Peak of the bytes that a computation's tensors hold together, counted as they are made and freed."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any


def peak_bytes(call: Callable[[], Any]) -> float:
    """The most bytes that tensors made inside `call` hold at a time; views of one tensor count once.

    Scratch memory inside a single operation is not seen.
    """
    from torch import Tensor, inference_mode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    users: Counter[int] = Counter()
    sizes: dict[int, int] = {}
    known: set[int] = set()
    held = top = 0

    def drop(pointer: int, identity: int) -> None:
        nonlocal held
        known.discard(identity)
        users[pointer] -= 1
        if not users[pointer]:
            held -= sizes.pop(pointer)

    class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal held, top
            given = {each.untyped_storage().data_ptr() for each in tree_leaves(args) if isinstance(each, Tensor)}
            out = func(*args, **(kwargs or {}))
            for each in tree_leaves(out):
                if not isinstance(each, Tensor) or id(each) in known:
                    continue
                pointer = each.untyped_storage().data_ptr()
                if pointer in given and pointer not in sizes:
                    continue
                if not users[pointer]:
                    sizes[pointer] = each.untyped_storage().nbytes()
                    held += sizes[pointer]
                users[pointer] += 1
                known.add(id(each))
                weakref.finalize(each, drop, pointer, id(each))
            top = max(top, held)
            return out

    with inference_mode(False), Counting():  # type: ignore[no-untyped-call]
        call()
    return float(top)
