"""Compiles functions that only kernels call to intermediate code, which each kernel optimises together with its own.

numba optimises each function of a call chain and emits machine code for it, and then again as a part of each caller: code
five calls deep is compiled five times. Functions that Python cannot call need none of that. The kernels of a decoder are
compiled in two thirds of the time, to the same bits, and run at the same speed.

The classes here override private methods of numba; `fits` tells whether this version has them. Importing this file imports
numba.
"""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

OVERRIDDEN = (
    "_optimize_final_module", "_finalize_final_module", "_finalize_specific", "_finalize_dynamic_globals",
    "_verify_declare_only_symbols", "_ensure_finalized", "get_pointer_to_function",
)  # fmt: skip


def fits() -> bool:
    """True if numba has every method that is overridden here; else each function is compiled by itself."""
    return all(hasattr(JITCodeLibrary, name) for name in OVERRIDDEN)


class LinkedLibrary(JITCodeLibrary):
    """The code of a function that kernels link in. numba's execution engine never gets it."""

    def __init__(self, codegen: Any, name: str):
        super().__init__(codegen, name)
        self.outside = _OutsideEngine(codegen)

    @property
    def codegen(self) -> Any:
        """numba's code generator, which keeps the environments for the kernels."""
        return self.outside

    def environments(self) -> dict[str, Any]:
        """By name, the environments (tables of Python objects) of this function and of those that it calls."""
        found = dict(self.outside.environments)
        for library in self._linking_libraries:
            found |= library.environments() if isinstance(library, LinkedLibrary) else {}
        return found

    def _optimize_final_module(self) -> None:
        """Nothing: the kernel does it."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """0, numba's answer for a symbol without machine code."""
        self._ensure_finalized()
        return 0


class _OutsideEngine:
    """A code generator whose functions are not in the engine yet, so that their environments must wait."""

    def __init__(self, codegen: Any):
        self._codegen = codegen
        self.environments: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codegen, name)

    def set_env(self, env_name: str, env: Any) -> None:
        self.environments[env_name] = env


class KernelLibrary(JITCodeLibrary):
    """The code of a kernel with that of the functions it calls."""

    def _finalize_specific(self) -> None:
        super()._finalize_specific()
        codegen: Any = self._codegen
        for library in self._linking_libraries:
            for name, environment in library.environments().items() if isinstance(library, LinkedLibrary) else ():
                if codegen._engine.get_global_value_address(name):  # unused ones are optimised away
                    codegen.set_env(name, environment)


class _CompilerWithLibrary(Compiler):
    library_class: type[JITCodeLibrary]

    def __init__(
        self, typingctx: Any, targetctx: Any, library: Any, args: Any, return_type: Any, flags: Any, locals: Any
    ):
        super().__init__(typingctx, targetctx, library, args, return_type, flags, locals)
        if library is None:
            self.state.library = self.library_class(self.state.targetctx.codegen(), self.library_class.__name__)
            self.state.library.enable_object_caching()


class LinkedCompiler(_CompilerWithLibrary):
    """The compiler of functions that only kernels call, for the option `pipeline_class` of `njit`."""

    library_class = LinkedLibrary


class KernelCompiler(_CompilerWithLibrary):
    """The compiler of kernels, for the option `pipeline_class` of `njit`."""

    library_class = KernelLibrary
