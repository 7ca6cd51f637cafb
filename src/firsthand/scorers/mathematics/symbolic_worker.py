"""Worker process that compares two trees of `latex.py`, read as JSON, and prints `equal`, `different` or `unknown`.

It first limits its own time and memory, and builds sympy expressions node by node from a closed list, so sympy never parses
text. Nothing of firsthand is imported: it runs with `python -I`.
"""

import json
import resource
import sys
from typing import Any

CPU_SECONDS = 6
MEMORY_BYTES = 2 << 30
MAX_EXPONENT = 200


def build(tree: list[Any]) -> Any:
    """Build the sympy expression of a tree. Powers of numbers that could grow without bound are refused."""
    import sympy as library

    sympy: Any = library
    kind = tree[0]
    if kind == "num":
        return sympy.Rational(tree[1])
    if kind == "var":
        return sympy.Symbol("v_" + tree[1], positive=True)
    if kind == "const":
        return {"pi": sympy.pi, "oo": sympy.oo, "i": sympy.I, "e": sympy.E}[tree[1]]
    parts = [build(each) for each in tree[1:]]
    if kind == "^" and parts[1].is_number and abs(parts[1]) > MAX_EXPONENT:
        raise ValueError("exponent")
    if kind == "factorial" and not (parts[0].is_number and 0 <= parts[0] <= MAX_EXPONENT):
        raise ValueError("factorial")
    operations = {
        "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
        "^": lambda a, b: a**b, "sqrt": sympy.sqrt, "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan,
        "arcsin": sympy.asin, "arccos": sympy.acos, "arctan": sympy.atan, "ln": sympy.log, "exp": sympy.exp,
        "abs": sympy.Abs, "factorial": sympy.factorial, "cot": sympy.cot, "sec": sympy.sec, "csc": sympy.csc,
    }  # fmt: skip
    return operations[kind](*parts)


def main() -> None:
    """Set the limits, compare, and print the verdict."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    try:
        left, right = json.load(sys.stdin)
        import sympy

        difference = sympy.simplify(build(left) - build(right))
        print("equal" if difference == 0 else "different" if difference.is_number else "unknown")
    except Exception:
        print("unknown")


if __name__ == "__main__":
    main()
