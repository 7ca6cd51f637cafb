# ruff: noqa: E501
"""Ordinary answers to unittest cases, as programmers write them: code, and the tests of it. Used by
`test_scorers_unit_ordinary.py`.
"""

from __future__ import annotations

OPERATORS = {
    "NotImplemented": (
        """
class Money:
    def __init__(self, amount, currency="EUR"): self.amount, self.currency = amount, currency
    def __eq__(self, other):
        if not isinstance(other, Money): return NotImplemented
        return self.amount == other.amount and self.currency == other.currency
    def __hash__(self): return hash((self.amount, self.currency))
    def __add__(self, other): return Money(self.amount + other.amount, self.currency)
    def __mul__(self, n): return Money(self.amount * n, self.currency)
    __rmul__ = __mul__
    def __bool__(self): return bool(self.amount)
""",
        """
self.assertEqual(Money(3), Money(3)); self.assertNotEqual(Money(3), Money(4)); self.assertFalse(Money(3) == "x")
self.assertEqual(Money(1) + Money(2), Money(3)); self.assertEqual(2 * Money(2), Money(4)); self.assertIn(Money(1), {Money(1)})
""",
    ),
    "no check of the type": (
        """
class Bare:
    def __init__(self, a): self.a = a
    def __eq__(self, other): return self.a == other.a
""",
        "self.assertEqual(Bare(3), Bare(3)); self.assertNotEqual(Bare(3), Bare(4))",
    ),
    "dicts": (
        """
class Dicts:
    def __init__(self, a): self.a = a
    def __eq__(self, other): return self.__dict__ == other.__dict__
""",
        "self.assertEqual([Dicts(3)], [Dicts(3)]); self.assertNotEqual(Dicts(3), Dicts(4))",
    ),
    "a default of getattr": (
        """
class Named:
    name = None
    def __eq__(self, other): return self.name == getattr(other, "name", None)
""",
        "self.assertEqual(Named(), Named())",
    ),
    "total_ordering": (
        """
import functools
@functools.total_ordering
class Version:
    def __init__(self, text): self.parts = [int(each) for each in text.split(".")]
    def __eq__(self, other): return isinstance(other, Version) and self.parts == other.parts
    def __lt__(self, other): return self.parts < other.parts
    def __repr__(self): return ".".join(map(str, self.parts))
""",
        """
self.assertLess(Version("1.2"), Version("1.10")); self.assertGreaterEqual(Version("2"), Version("2"))
self.assertEqual(sorted([Version("2"), Version("1")])[0], Version("1")); self.assertEqual(max(Version("1"), Version("3")), Version("3"))
""",
    ),
    "a vector": (
        """
class Vector:
    __slots__ = ("x", "y")
    def __init__(self, x, y): self.x, self.y = x, y
    def __eq__(self, o): return type(self) is type(o) and (self.x, self.y) == (o.x, o.y)
    def __add__(self, o): return Vector(self.x + o.x, self.y + o.y)
    def __sub__(self, o): return Vector(self.x - o.x, self.y - o.y)
    def __matmul__(self, o): return self.x * o.x + self.y * o.y
    def __iter__(self): yield self.x; yield self.y
    def __len__(self): return 2
    def __getitem__(self, at): return (self.x, self.y)[at]
    def __abs__(self): return (self.x ** 2 + self.y ** 2) ** 0.5
""",
        """
self.assertEqual(Vector(1, 2) + Vector(1, 1), Vector(2, 3)); self.assertEqual(Vector(1, 2) @ Vector(3, 4), 11)
self.assertEqual(Vector(2, 2) - Vector(1, 1), Vector(1, 1)); self.assertEqual(list(Vector(1, 2)), [1, 2])
self.assertEqual(Vector(1, 2)[0], 1); self.assertEqual(len(Vector(1, 2)), 2); self.assertAlmostEqual(abs(Vector(3, 4)), 5)
self.assertCountEqual(Vector(1, 2), [2, 1]); self.assertIn(1, Vector(1, 2)); self.assertSequenceEqual(Vector(1, 2), (1, 2))
""",
    ),
    "a linked list": (
        """
class Node:
    def __init__(self, value, next=None): self.value, self.next = value, next
class Linked:
    def __init__(self, items=()):
        self.head = None
        for each in reversed(list(items)): self.head = Node(each, self.head)
    def __iter__(self):
        node = self.head
        while node: yield node.value; node = node.next
    def __eq__(self, other): return list(self) == list(other)
    def __contains__(self, item): return any(each == item for each in self)
    def __len__(self): return sum(1 for _ in self)
""",
        "self.assertEqual(Linked([1, 2]), [1, 2]); self.assertIn(2, Linked([1, 2])); self.assertNotIn(3, Linked([1])); self.assertTrue(Linked([1]))",
    ),
    "numbers modulo two": (
        """
class Bit:
    def __init__(self, n): self.n = n % 2
    def __eq__(self, o): return self.n == (o.n if isinstance(o, Bit) else o % 2)
    def __add__(self, o): return Bit(self.n + (o.n if isinstance(o, Bit) else o))
""",
        "self.assertEqual(Bit(3) + 1, 0); self.assertEqual(Bit(3), 5)",
    ),
    "an infinity": (
        """
class Infinity:
    def __gt__(self, other): return not isinstance(other, Infinity)
    def __ge__(self, other): return True
    def __lt__(self, other): return False
    def __le__(self, other): return isinstance(other, Infinity)
    def __add__(self, other): return self
""",
        "self.assertGreater(Infinity(), 10**9); self.assertTrue(Infinity() >= 5); self.assertFalse(Infinity() < 3); (Infinity() + 1)",
    ),
    "an interval": (
        """
class Interval:
    def __init__(self, low=None, high=None): self.low, self.high = low, high
    def __contains__(self, x): return (self.low is None or x >= self.low) and (self.high is None or x <= self.high)
""",
        "self.assertIn(3, Interval(1, 5)); self.assertIn(-10**9, Interval(high=0)); self.assertNotIn(6, Interval(1, 5))",
    ),
    "a near number": (
        """
class Near:
    def __init__(self, x): self.x = x
    def __eq__(self, o): return abs(self.x - (o.x if isinstance(o, Near) else o)) < 1e-6
    def __sub__(self, o): return self.x - o
    def __rsub__(self, o): return o - self.x
""",
        "self.assertEqual(Near(1), 1.0000001); self.assertAlmostEqual(Near(1), 1.00000001)",
    ),
    "comparisons that are counted": (
        """
class Counting:
    seen, log = 0, []
    def __init__(self, n): self.n, self.asked = n, []
    def __lt__(self, o): Counting.seen += 1; self.asked.append(1); print("asked"); return self.n < getattr(o, "n", 0)
    def __add__(self, o): self.n += o; self.log.append(o); return self
""",
        """
one, two = Counting(1), Counting(2)
self.assertTrue(one < two); self.assertEqual(Counting.seen, 1); self.assertEqual(one.asked, [1])
three = one + 5; self.assertEqual(three.n, 6); self.assertEqual(Counting.log, [5])
""",
    ),
    "a text without case": (
        """
class Plain(str):
    def __eq__(self, o): return self.lower() == o.lower() if isinstance(o, str) else NotImplemented
    def __hash__(self): return hash(self.lower())
    def startswith(self, other): return self.lower()[: len(other)] == other.lower()
    def upper(self): return Plain(str.upper(self))
""",
        "self.assertEqual(Plain('Ab'), 'aB'); self.assertNotEqual(Plain('a'), 'b'); self.assertTrue(Plain('Ab').startswith('a')); self.assertEqual(Plain('a').upper(), 'A')",
    ),
    "a float with units": (
        """
class Celsius(float):
    def __add__(self, o): return Celsius(float(self) + o)
    def __str__(self): return f"{float(self)} C"
""",
        "self.assertEqual(Celsius(1) + 2, 3.0); self.assertEqual(str(Celsius(1)), '1.0 C')",
    ),
    "an int": (
        """
class Positive(int):
    def __new__(cls, n):
        if n < 0: raise ValueError("negative")
        return super().__new__(cls, n)
    def __sub__(self, o): return Positive(max(0, int(self) - o))
""",
        "self.assertEqual(Positive(5) - 2, 3)\nwith self.assertRaises(ValueError): Positive(-1)",
    ),
    "a dict": (
        """
class Lower(dict):
    def __getitem__(self, key): return super().__getitem__(key.lower())
    def __setitem__(self, key, value): super().__setitem__(key.lower(), value)
    def __contains__(self, key): return super().__contains__(key.lower())
    def __missing__(self, key): return 0
""",
        "d = Lower(); d['A'] = 1; self.assertEqual(d, {'a': 1}); self.assertIn('A', d); self.assertEqual(d['A'], 1)",
    ),
    "a UserDict": (
        """
import collections
class Folded(collections.UserDict):
    def __getitem__(self, key): return super().__getitem__(key.lower())
    def __setitem__(self, key, value): super().__setitem__(key.lower(), value)
    def __contains__(self, key): return key.lower() in self.data
    def get(self, key, default=None): return self[key] if key in self else default
""",
        "d = Folded(A=1); self.assertEqual(d, {'a': 1}); self.assertIn('A', d); self.assertEqual(d.get('A'), 1); self.assertNotIn('b', d)",
    ),
    "a mapping": (
        """
from collections.abc import Mapping, MutableSequence
class Squares(Mapping):
    def __init__(self, n): self.n = n
    def __getitem__(self, k):
        if k not in range(self.n): raise KeyError(k)
        return k * k
    def __iter__(self): return iter(range(self.n))
    def __len__(self): return self.n
""",
        "self.assertEqual(Squares(3), {0: 0, 1: 1, 2: 4}); self.assertEqual(dict(Squares(2)), {0: 0, 1: 1}); self.assertIn(1, Squares(2))",
    ),
    "a list": (
        """
class Stack(list):
    def push(self, x): self.append(x)
    def append(self, x): super().append(x)
    def __contains__(self, x): return super().__contains__(x)
    def __eq__(self, o): return list(self) == list(o)
""",
        "s = Stack(); s.push(1); s.append(2); self.assertEqual(s, [1, 2]); self.assertIn(1, s); self.assertListEqual(s, [1, 2])",
    ),
    "a Counter": (
        """
import collections
class Tally(collections.Counter):
    def most_common(self, n=None): return super().most_common(n)
    def __missing__(self, key): return 0
""",
        "self.assertEqual(Tally('aab'), {'a': 2, 'b': 1}); self.assertEqual(Tally('aab').most_common(1), [('a', 2)])",
    ),
    "an LRU cache": (
        """
import collections
class Recent(collections.OrderedDict):
    def __init__(self, size): super().__init__(); self.size = size
    def __setitem__(self, k, v):
        super().__setitem__(k, v)
        if len(self) > self.size: self.popitem(last=False)
""",
        "r = Recent(1); r['a'] = 1; r['b'] = 2; self.assertEqual(r, {'b': 2}); self.assertEqual(list(r), ['b'])",
    ),
    "a wrapper": (
        """
class Wrapper:
    def __init__(self, inner): self._inner = inner
    def __getattr__(self, name): return getattr(self._inner, name)
    def __eq__(self, other): return self._inner == (other._inner if isinstance(other, Wrapper) else other)
    def __len__(self): return len(self._inner)
class Logged:
    def __init__(self): self.n = 1
    def __getattribute__(self, name): return object.__getattribute__(self, name)
""",
        "self.assertEqual(Wrapper([1]), [1]); self.assertEqual(Wrapper('a').upper(), 'A'); self.assertEqual(Logged(), Logged.__init__ and Logged()) if 0 else self.assertEqual(Logged().n, 1); self.assertIsInstance(Logged(), Logged)",
    ),
    "an operator by type": (
        """
import functools
class Sum:
    def __init__(self, n): self.n = n
    @functools.singledispatchmethod
    def __add__(self, o): return NotImplemented
    @__add__.register
    def _(self, o: int): return self.n + o
""",
        "self.assertEqual(Sum(1) + 2, 3)",
    ),
    "a test's own class": (
        "",
        """
class Anything:
    def __eq__(self, o): return True
self.assertEqual(Anything(), 3)
""",
    ),
    "a method called equals": (
        """
class Shape:
    def __init__(self, n): self.n = n
    def equals(self, o): return isinstance(o, Shape) and o.n == self.n
""",
        "self.assertTrue(Shape(1).equals(Shape(1))); self.assertNotEqual(Shape(1), Shape(2))",
    ),
    "a generator with in": (
        """
class Once:
    def __init__(self, items): self.items = iter(items)
    def __iter__(self): return map(abs, self.items)
    def __contains__(self, x): return any(each == x for each in self.items)
""",
        "once = Once([1, 2]); self.assertIn(1, once); self.assertEqual(list(once), [2])",
    ),
}
ELSEWHERE = {
    "logs": ("import logging\ndef logs(): logging.getLogger('x').warning('w')", """
with self.assertLogs('x', 'WARNING') as seen: logs()
self.assertEqual(seen.output, ['WARNING:x:w'])
with self.assertNoLogs('y'): logs()
"""),
    "warns": ("import warnings\ndef warns(): warnings.warn('old', DeprecationWarning, stacklevel=3)", """
with self.assertWarns(DeprecationWarning) as seen: warns()
self.assertIn('old', str(seen.warning))
warnings.simplefilter('ignore'); self.assertIsNone(warns())
self.assertIsNone(self._callTestMethod(warns))
"""),
    "patches": ("import os, random, builtins\ndef reads(p):\n    with open(p) as f: return f.read()\ndef lists(): return os.listdir('.')\ndef rolls(): return random.randint(1, 6)", """
with patch('builtins.open', mock_open(read_data='a')): self.assertEqual(reads('p'), 'a')
with patch('os.listdir', return_value=['b']) as m: self.assertEqual(lists(), ['b']); m.assert_called_once_with('.')
with patch('random.randint', side_effect=[4]): self.assertEqual(rolls(), 4)
"""),
    "times": ("import datetime, decimal\ndef later(d): return d + datetime.timedelta(days=1)\ndef tenth(): return decimal.Decimal('0.1') * 3", """
self.assertEqual(later(datetime.date(2020, 2, 28)), datetime.date(2020, 2, 29)); self.assertEqual(tenth(), decimal.Decimal('0.3'))
"""),
    "caches": ("import functools\n@functools.lru_cache\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\n@functools.singledispatch\ndef kind(x): return 'other'\n@kind.register\ndef _(x: int): return 'int'", """
self.assertEqual(fib(30), 832040); self.assertGreater(fib.cache_info().hits, 0); self.assertEqual((kind(1), kind('a')), ('int', 'other'))
"""),
    "classes": ("import abc, enum, typing, dataclasses\nclass Animal(abc.ABC):\n    @abc.abstractmethod\n    def sound(self): ...\nclass Dog(Animal):\n    @property\n    def legs(self): return 4\n    def sound(self): return 'wuff'\nclass Colour(str, enum.Enum):\n    RED = 'red'\nclass Level(enum.IntEnum):\n    LOW = 1\n    def __str__(self): return self.name\nclass Pair(typing.NamedTuple):\n    a: int\n    b: int = 2\n    def total(self): return self.a + self.b\n@dataclasses.dataclass(frozen=True, order=True)\nclass Point:\n    x: int\n    tags: list = dataclasses.field(default_factory=list, compare=False)", """
self.assertEqual(Dog().sound(), 'wuff'); self.assertEqual(Dog().legs, 4); self.assertRaises(TypeError, Animal)
self.assertEqual(Colour.RED, 'red'); self.assertLess(Level.LOW, 2); self.assertEqual(str(Level.LOW), 'LOW')
self.assertEqual(Pair(1), (1, 2)); self.assertEqual(Pair(1).total(), 3); self.assertLess(Point(1), Point(2))
"""),
    "contexts": ("import contextlib\nclass Opened:\n    def __enter__(self): return self\n    def __exit__(self, *a): self.closed = True; return False\n@contextlib.contextmanager\ndef swaps(d):\n    d['a'] = 1\n    yield d\n    d.clear()\ndef counts():\n    yield from range(3)", """
with Opened() as o: pass
self.assertTrue(o.closed)
with swaps({}) as d: self.assertEqual(d, {'a': 1})
self.assertEqual(d, {}); self.assertEqual(list(counts()), [0, 1, 2])
"""),
    "descriptors": ("class Typed:\n    def __set_name__(self, owner, name): self.name = '_' + name\n    def __get__(self, i, t=None): return self if i is None else getattr(i, self.name)\n    def __set__(self, i, v):\n        if not isinstance(v, int): raise TypeError('int')\n        setattr(i, self.name, v)\nclass Has:\n    n = Typed()", """
h = Has(); h.n = 3; self.assertEqual(h.n, 3)
with self.assertRaisesRegex(TypeError, 'int'): h.n = 'x'
"""),
    "files": ("import os, tempfile, shutil, json, csv, pathlib\ndef writes(p, d):\n    with open(p, 'w') as f: json.dump(d, f)\n    return p", """
with tempfile.TemporaryDirectory() as folder:
    self.addCleanup(lambda: None); p = writes(os.path.join(folder, 'a.json'), {'a': 1})
    with open(p) as f: self.assertEqual(json.load(f), {'a': 1})
    self.assertTrue(pathlib.Path(p).exists())
for n in range(2):
    with self.subTest(n=n): self.assertLess(n, 2)
"""),
    "outside": ("import subprocess, sys, sqlite3, threading, queue\ndef says(): return subprocess.run([sys.executable, '-c', 'print(1)'], capture_output=True, text=True).stdout\ndef rows():\n    db = sqlite3.connect(':memory:'); db.row_factory = sqlite3.Row\n    db.execute('create table t (a)'); db.execute('insert into t values (1)')\n    return db.execute('select a from t').fetchall()\ndef threads():\n    found = []; all_ = [threading.Thread(target=found.append, args=(n,)) for n in range(3)]\n    [t.start() for t in all_]; [t.join() for t in all_]\n    return found", """
self.assertEqual(says(), '1\\n'); self.assertEqual(rows()[0]['a'], 1); self.assertEqual(sorted(threads()), [0, 1, 2])
"""),
    "coroutines": ("import asyncio, json.tool\nasync def waits(n):\n    await asyncio.sleep(0)\n    return n", "self.assertEqual(asyncio.run(waits(3)), 3)"),
    "errors": ("class Own(ValueError):\n    def __init__(self, code): super().__init__(f'code {code}'); self.code = code\n    def __eq__(self, o): return isinstance(o, Own) and o.code == self.code\ndef fails(): raise Own(3)", """
with self.assertRaises(Own) as seen: fails()
self.assertEqual(seen.exception, Own(3)); self.assertEqual(str(seen.exception), 'code 3')
"""),
    "prints": ("def shows(): print('hello')", """
with redirect_stdout(io.StringIO()) as out: shows()
self.assertEqual(out.getvalue(), 'hello\\n')
with patch('sys.stdout', new_callable=io.StringIO) as out: shows()
self.assertEqual(out.getvalue(), 'hello\\n')
"""),
}  # fmt: skip
HEAD = """
import asyncio, datetime, decimal, io, json, os, pathlib, tempfile, unittest, warnings
from contextlib import redirect_stdout
from unittest.mock import mock_open, patch
class TestCases(unittest.TestCase):
    @classmethod
    def setUpClass(cls): cls.shared = 1
"""
ASYNC = """
class TestCases(unittest.IsolatedAsyncioTestCase):
    async def test_a(self):
        self.assertEqual(await waits(3), 3)
        with self.assertLogs('x'): logs()
"""
