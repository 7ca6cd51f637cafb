"""Which names in the tests are the answer's: those that they use as globals and do not define as such."""

from firsthand.sandbox.programs import checker


def test_a_name_that_a_function_or_class_of_the_tests_binds_for_itself_is_still_the_answers() -> None:
    for tests, names in (
        ("def ref(): total = 0; return total\ntotal(1) == ref()", {"total"}), ("def g(total): total\ntotal", {"total"}),
        ("[total for total in r]\ntotal", {"r", "total"}), ("(lambda total: total)(total)", {"total"}),
        ("class A:\n    total = 1\n    def m(self): return total", {"total"}), ("class A:\n    f = staticmethod(f)", {"f"}),
        ("def g():\n    import total\n    total\ntotal", {"total"}),
        ("def g():\n    total = 1\n    def h(): return total", set()),
        ("def g():\n    def total(): pass\n    total()", set()), ("def g(): return total\ntotal = 1", set()),
        ("def g():\n    global total\n    total = 1\ntotal", set()), ("def g():\n    global total\n    total()", {"total"}),
        ("[(w := q) for q in r]\nw", {"r"}), ("match m:\n    case [*w]: w", {"m"}), ("async def g(): pass\ng", set()),
        ("if f(1): ok = True\nassert ok", {"f"}), ("def g():\n    total = 1\n    class A: total = total", {"total"}),
    ):  # fmt: skip
        assert checker.free_names(tests, {"given": 1}) == names, tests
