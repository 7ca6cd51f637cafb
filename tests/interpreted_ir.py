"""Runs the LLVM code that kernels emit, instruction by instruction in Python, with the instructions of processors that are
not there: 8-bit dot products of each kind, matrix tiles. Memory that is handed over is checked at every load and store."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.ir import instructions as kinds

NUMBERS = {"half": np.float16, "float": np.float32, "double": np.float64}


def dtype_of(kind: Any) -> Any:
    """numpy's type of a scalar, or of a vector's elements."""
    if isinstance(kind, (ir.VectorType, ir.ArrayType)):
        return dtype_of(kind.element)
    if isinstance(kind, ir.IntType):
        return np.dtype(bool if kind.width == 1 else f"i{kind.width // 8}")
    return np.dtype(NUMBERS[str(kind)])


def count_of(kind: Any) -> int:
    return int(kind.count) if isinstance(kind, (ir.VectorType, ir.ArrayType)) else 1


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if bits > 1 and value >> (bits - 1) else value


class Pointer:
    """A place in the bytes of an array, or an address where it came as a whole number (no memory)."""

    __slots__ = ("at", "memory")

    def __init__(self, memory: Any, at: int):
        self.memory, self.at = memory, at

    @property
    def address(self) -> int:
        return self.at if self.memory is None else int(self.memory.ctypes.data) + self.at

    def bytes(self, size: int) -> Any:
        """A view of so many bytes; those of another array are refused."""
        if self.memory is None:
            return np.frombuffer((ctypes.c_ubyte * size).from_address(self.at), dtype=np.uint8)
        assert self.at >= 0 and self.at + size <= len(self.memory), (self.at, size, len(self.memory))
        return self.memory[self.at : self.at + size]

    def write(self, dtype: Any, value: Any) -> None:
        raw = np.asarray(value, dtype=dtype).reshape(-1).view(np.uint8)
        self.bytes(len(raw))[:] = raw


class Machine:
    """What an instruction changes beside memory."""

    def __init__(self) -> None:
        self.prefetched: list[tuple[Pointer, int]] = []
        """Place and locality."""
        self.tiles: list[Any] | None = None
        """Eight tiles of 16 rows of 64 bytes once they are switched on."""
        self.tile_products = 0

    def call(self, name: str, args: list[Any]) -> Any:
        """One of LLVM's or the processor's own functions."""
        if name == "llvm.prefetch.p0":
            assert (args[1], args[3]) == (0, 1)
            self.prefetched.append((args[0], args[2]))
            return None
        if name.startswith("llvm.memcpy."):
            args[0].bytes(args[2])[:] = args[1].bytes(args[2])
            return None
        return self.call_tiles(name, args)

    def call_tiles(self, name: str, args: list[Any]) -> Any:
        if name == "llvm.x86.ldtilecfg":
            layout = np.frombuffer(args[0].bytes(64), dtype=np.uint8)
            assert layout.tolist() == [1] + [0] * 15 + [64, 0] * 8 + [0] * 16 + [16] * 8 + [0] * 8
            self.tiles = [np.full((16, 64), 255, dtype=np.uint8) for _ in range(8)]
        elif name == "llvm.x86.tilerelease":
            assert self.tiles is not None
            self.tiles = None
        elif name in ("llvm.x86.tileloadd64", "llvm.x86.tilestored64"):
            assert self.tiles is not None, "tiles are off"
            tile, start, stride = args
            for row in range(16):
                line = Pointer(start.memory, start.at + row * stride).bytes(64)
                if name.endswith("loadd64"):
                    self.tiles[tile][row] = line
                else:
                    line[:] = self.tiles[tile][row]
        elif name == "llvm.x86.tdpbf16ps":
            assert self.tiles is not None, "tiles are off"
            self.tile_products += 1
            sums = self.tiles[args[0]].view(np.float32)
            a, b = (bfloat(self.tiles[each]).astype(np.float64) for each in args[1:])
            for which in (0, 1):
                sums += (a[:, which::2] @ b[:, which::2]).astype(np.float32)
        else:
            raise NotImplementedError(name)
        return None


def bfloat(numbers: Any) -> Any:
    """The values of bfloat16 numbers."""
    return (np.ascontiguousarray(numbers).view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def dot_of_bytes(sums: Any, codes: Any, values: Any) -> Any:
    """AVX-512 VNNI's and AVX-VNNI's: unsigned bytes times signed ones, four to a lane."""
    products = codes.view(np.uint8).astype(np.int32) * values.astype(np.int32)
    return sums + products.reshape(-1, 4).sum(1, dtype=np.int32)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "llvm.fma.v16f32": lambda a, b, c: (a.astype(np.float64) * b + c).astype(np.float32),
    "llvm.fabs.v16f32": np.abs,
    "llvm.rint.v16f32": np.rint,
    "llvm.copysign.v16f32": np.copysign,
    "llvm.fptosi.sat.v16i8.v16f32": lambda x: np.nan_to_num(np.clip(np.trunc(x), -128, 127)).astype(np.int8),
    "llvm.vector.reduce.add.v16i32": lambda x: signed(int(x.sum(dtype=np.int64)), 32),
    "llvm.x86.avx512.vpdpbusd.512": dot_of_bytes,
    "llvm.x86.avx512.vpdpbusd.256": dot_of_bytes,
    "llvm.x86.avx2.pmadd.wd": lambda a, b: (a.astype(np.int32) * b).reshape(-1, 2).sum(1, dtype=np.int32),
    "sched_yield": lambda: 0,
}
"""Functions of LLVM and of processors that change nothing."""
SYMBOLS = {
    "add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "shl": "<<", "ashr": ">>", "udiv": "//", "fadd": "+",
    "fsub": "-", "fmul": "*", "fdiv": "/",
}  # fmt: skip
COMPARED = {
    "slt": "{} < {}", "sgt": "{} > {}", "sge": "{} >= {}", "sle": "{} <= {}", "eq": "{} == {}", "ne": "{} != {}",
    "olt": "{} < {}", "ogt": "{} > {}", "ole": "{} <= {}", "oge": "{} >= {}", "ult": "~({} >= {})", "ugt": "~({} <= {})",
    "ule": "~({} > {})", "uge": "~({} < {})",
}  # fmt: skip


def cast(name: str, source: Any, target: Any, value: Any) -> Any:
    if name == "bitcast":
        return np.ascontiguousarray(value).view(dtype_of(target))
    if isinstance(target, ir.IntType):
        return signed(value & ((1 << source.width) - 1) if name == "zext" else int(value), target.width)
    if name == "zext":
        value = value.view(value.dtype.str.replace("i", "u"))
    assert name in ("sext", "zext", "trunc", "sitofp", "fpext", "fptrunc"), name
    return value.astype(dtype_of(target))


def select(test: Any, a: Any, b: Any) -> Any:
    return np.where(test, a, b) if isinstance(test, np.ndarray) else (a if test else b)


def inserted(vector: Any, value: Any, at: int) -> Any:
    changed = vector.copy()
    changed[at] = value
    return changed


def shifted_right(value: Any, by: Any, bits: int) -> Any:
    if isinstance(value, int):
        return (value & ((1 << bits) - 1)) >> by
    unsigned = value.dtype.str.replace("i", "u")
    return (value.view(unsigned) >> by.view(unsigned)).view(value.dtype)


def one_more(place: Pointer, dtype: Any, more: int) -> int:
    before = int(place.bytes(dtype.itemsize).view(dtype)[0])
    place.write(dtype, before + more)
    return before


class Translation:
    """A function of a module as Python source: a variable for each value, and a number for each block."""

    def __init__(self, function: Any, results: Any = ()):
        self.space: dict[str, Any] = {
            "np": np, "Pointer": Pointer, "cast": cast, "select": select, "inserted": inserted, "signed": signed,
            "shifted_right": shifted_right, "one_more": one_more,
        }  # fmt: skip
        self.names = {id(arg): f"a{i}" for i, arg in enumerate(function.args)}
        self.numbers = {id(block): number for number, block in enumerate(function.blocks)}
        for block in function.blocks:
            for each in block.instructions:
                self.names[id(each)] = f"v{len(self.names)}"
        lines = [
            f"def run({', '.join(['machine', *(f'a{i}' for i in range(len(function.args)))])}):",
            "  at = 0",
            "  while True:",
        ]
        returned = ", ".join(map(self.operand, results)) + ("," if len(results) == 1 else "")
        for block in function.blocks:
            lines.append(f"    {'el' if self.numbers[id(block)] else ''}if at == {self.numbers[id(block)]}:")
            for each in block.instructions:
                lines += [f"      {line}" for line in self.lines(each, block, returned)]
        exec("\n".join(lines), self.space)
        self.run: Callable[..., Any] = self.space["run"]
        self.function = function

    def keep(self, value: Any) -> str:
        self.space[name := f"c{len(self.space)}"] = value
        return name

    def operand(self, value: Any) -> str:
        if isinstance(value, ir.GlobalVariable):
            numbers = [getattr(each, "constant", each) for each in value.initializer.constant]
            return self.keep(Pointer(np.array(numbers, dtype=dtype_of(value.value_type)).view(np.uint8), 0))
        if isinstance(value, ir.Constant):
            found = constant(value)
            return str(found) if isinstance(found, int) else self.keep(found)
        return self.names[id(value)]

    def jump(self, target: Any, before: Any) -> list[str]:
        phis = [each for each in target.instructions if isinstance(each, kinds.PhiInstr)]
        lines = []
        if phis:
            values = [next(self.operand(value) for value, block in each.incomings if block is before) for each in phis]
            lines.append(f"{', '.join(self.names[id(each)] for each in phis)} = {', '.join(values)}")
        return [*lines, f"at = {self.numbers[id(target)]}"]

    def lines(self, each: Any, block: Any, returned: str) -> list[str]:
        if isinstance(each, kinds.PhiInstr):
            return []
        if isinstance(each, kinds.Ret):
            return [f"return ({returned})"]
        if isinstance(each, kinds.SwitchInstr):
            lines = []
            for number, target in each.cases:
                lines.append(f"if {self.operand(each.value)} == {constant(number)}:")
                lines += [f"  {line}" for line in [*self.jump(target, block), "continue"]]
            return [*lines, *self.jump(each.default, block), "continue"]
        if isinstance(each, kinds.ConditionalBranch):
            test, yes, no = each.operands
            lines = [f"if {self.operand(test)}:", *(f"  {line}" for line in self.jump(yes, block)), "else:"]
            return [*lines, *(f"  {line}" for line in self.jump(no, block)), "continue"]
        if isinstance(each, kinds.Branch):
            return [*self.jump(each.operands[0], block), "continue"]
        if isinstance(each, kinds.StoreInstr):
            value, place = map(self.operand, each.operands)
            return [f"{place}.write({self.keep(dtype_of(each.operands[0].type))}, {value})"]
        return [f"{self.names[id(each)]} = {self.expression(each)}"]

    def expression(self, each: Any) -> str:
        kind, name = each.type, each.opname
        if isinstance(each, kinds.CallInstr):
            args = ", ".join(map(self.operand, each.args))
            if each.callee.blocks:
                return f"{self.keep(Translation(each.callee).run)}(machine, {args})"
            if each.callee.name in FUNCTIONS:
                return f"{self.keep(FUNCTIONS[each.callee.name])}({args})"
            return f"machine.call({each.callee.name!r}, [{args}])"
        if isinstance(each, kinds.AllocaInstr):
            size = dtype_of(kind.pointee).itemsize * count_of(kind.pointee)
            return f"Pointer(np.zeros({size}, dtype=np.uint8), 0)"
        ops = [self.operand(value) for value in each.operands]
        if isinstance(each, kinds.GEPInstr):
            pointee = each.pointer.type.pointee
            assert len(each.indices) == 1
            return (
                f"Pointer({ops[0]}.memory, {ops[0]}.at + {ops[1]} * {dtype_of(pointee).itemsize * count_of(pointee)})"
            )
        if isinstance(each, (kinds.LoadInstr, kinds.LoadAtomicInstr)):
            dtype = dtype_of(kind)
            place = f"{ops[0]}.bytes({dtype.itemsize * count_of(kind)}).view({self.keep(dtype)})"
            if isinstance(kind, ir.VectorType):
                return f"{place}.copy()"
            return f"int({place}[0])" if isinstance(kind, ir.IntType) else f"{place}[0]"
        if isinstance(each, kinds.AtomicRMW):
            assert each.operation == "add"
            return f"one_more({ops[0]}, {self.keep(dtype_of(kind))}, {ops[1]})"
        if isinstance(each, kinds.CastInstr):
            if name == "inttoptr":
                return f"Pointer(None, {ops[0]})"
            if isinstance(kind, ir.PointerType):
                return ops[0]
            source = each.operands[0].type
            if isinstance(kind, ir.VectorType) and isinstance(source, ir.VectorType) and name != "zext":
                return f"{ops[0]}.{'view' if name == 'bitcast' else 'astype'}({self.keep(dtype_of(kind))})"
            return f"cast({name!r}, {self.keep(source)}, {self.keep(kind)}, {ops[0]})"
        if isinstance(each, kinds.CompareInstr):
            return COMPARED[each.op].format(*ops)
        if isinstance(each, kinds.SelectInstr):
            return f"select({', '.join(ops)})"
        if isinstance(each, kinds.ShuffleVector):
            first, mask = each.operands[0].type.count, constant(each.operands[2])
            if (mask < first).all():
                return f"{ops[0]}[{ops[2]}]"
            return f"np.concatenate([{ops[0]}, {ops[1]}])[{ops[2]}]"
        if isinstance(each, kinds.InsertElement):
            return f"inserted({', '.join(ops)})"
        if isinstance(each, kinds.ExtractElement):
            return f"{ops[0]}[{ops[1]}]"
        if name == "lshr":
            return f"shifted_right({ops[0]}, {ops[1]}, {getattr(kind, 'width', 0)})"
        result = f"{ops[0]} {SYMBOLS[name]} {ops[1]}"
        return f"signed({result}, {kind.width})" if isinstance(kind, ir.IntType) and kind.width < 64 else result


def constant(value: Any) -> Any:
    kind, given = value.type, value.constant
    if given is None:
        return np.zeros(count_of(kind), dtype=dtype_of(kind))
    if isinstance(kind, ir.VectorType):
        numbers = [getattr(each, "constant", each) for each in given]
        return np.array([0 if each is ir.Undefined else each for each in numbers]).astype(dtype_of(kind))
    return signed(int(given), kind.width) if isinstance(kind, ir.IntType) else dtype_of(kind).type(given)
