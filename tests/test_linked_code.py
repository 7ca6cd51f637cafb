"""Functions that kernels call are compiled as a part of the kernels, and run as if they had been compiled alone."""

# mypy: disallow-untyped-decorators=False

from typing import Any

import numpy as np
import pytest

pytest.importorskip("firsthand.kernels.jit")

from firsthand.kernels import jit
from firsthand.kernels.linked_code import LinkedLibrary, fits


def _twice(x: Any) -> Any:
    return 2 * x


def _filled(n: Any) -> Any:
    return np.full(n, 7)


def _loud(x: Any) -> Any:
    print("a Python object", x)
    return x


@pytest.mark.slow
def test_a_kernel_runs_from_python_and_from_other_kernels_and_its_callees_have_no_code_of_their_own() -> None:
    twice = jit.called(_twice)

    @jit.named("twice_of_all")
    def twice_of_all(values: Any) -> Any:
        total = 0.0
        for value in values:
            total += twice(value)
        return total

    inner = jit.kernel(twice_of_all)
    many = jit.allocating(_filled)

    @jit.named("with_seven")
    def with_seven(values: Any) -> Any:
        return inner(values) + many(3)[2]

    outer = jit.kernel(with_seven)
    assert outer(np.array([1.0, 2.5])) == 14.0
    assert inner(np.array([1.0, 2.5])) == 7.0 and outer(np.array([1, 2])) == 13
    assert fits(), "numba has changed: each function is compiled alone again, see linked_code.py"
    for part in (twice, many):
        assert all(isinstance(one.library, LinkedLibrary) for one in part.overloads.values()) and part.overloads
    assert not any(
        isinstance(one.library, LinkedLibrary) for one in (*outer.overloads.values(), *inner.overloads.values())
    )


def test_a_function_that_kernels_call_may_refer_to_python_objects(capsys: pytest.CaptureFixture[str]) -> None:
    loud = jit.called(_loud)

    @jit.named("calls_loud")
    def calls_loud(x: Any) -> Any:
        return loud(x)

    @jit.called
    @jit.named("passes_on")
    def passes_on(x: Any) -> Any:
        return loud(x + 1)

    @jit.named("calls_through_another")
    def calls_through_another(x: Any) -> Any:
        return passes_on(x)

    assert jit.kernel(calls_through_another)(2) == 3
    assert jit.kernel(calls_loud)(3) == 3
    assert capsys.readouterr().out == "a Python object 3\na Python object 3\n"


def test_a_numba_without_these_methods_compiles_each_function_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "fits", lambda: False)
    twice = jit.called(_twice)

    @jit.named("twice_alone")
    def twice_alone(x: Any) -> Any:
        return twice(x)

    assert jit.kernel(twice_alone)(4) == 8
    assert not any(isinstance(one.library, LinkedLibrary) for one in twice.overloads.values())
