"""Bounds on work that hold on a machine which is busy with other things too."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_most_cpu_s(most_s: float) -> Iterator[None]:
    """The block must take its thread less than `most_s` seconds of processor time; waiting for a processor does not count.

    A guard against work that grows faster than its input: leave a wide margin, for linear and quadratic are far apart.
    """
    began = time.thread_time()
    yield
    took_s = time.thread_time() - began
    assert took_s < most_s, f"it took {took_s:.2f} s of processor time: less than {most_s} s was expected"
