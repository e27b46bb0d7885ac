"""The executable meaning of level 2: kernels and library calls run over flat buffers, in torch.

A kernel is evaluated for many rows at once on grids of rows x cols. Contracts are enforced while it
runs: no load or store outside its buffer, no read of an element nobody wrote, no two points of one
store at the same element. Nothing is optimised here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from fusewright.errors import IRError
from fusewright.ir import index as ix
from fusewright.ir import scalar
from fusewright.ir.body import (
    Apply,
    Checked,
    Choose,
    Convert,
    Coord,
    Dot,
    Expr,
    Guarded,
    Lit,
    Load,
    Ref,
)
from fusewright.ir.dtypes import DType, compute_type
from fusewright.ir.graph import Device, Verbatim
from fusewright.ir.index import Conds, Index, Var
from fusewright.ir.kernel import (
    Buffer,
    Fold,
    Kernel,
    LibraryArg,
    LibraryCall,
    Phase,
    Prefix,
    Program,
    Store,
    Strided,
)

from .scalars import apply, arg_fold, fold, scan, torch_dtype

# Points of a grid evaluated at once: bounds the memory of one subexpression to 32 MiB of float64.
CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """Outputs in order, and the new value of each updated input by its name; unpacks as a pair."""

    outputs: list[Tensor]
    updates: dict[str, Tensor]

    def __iter__(self) -> Any:
        return iter((self.outputs, self.updates))


def interpret_program(program: Program, inputs: Mapping[str, Tensor]) -> ProgramResult:
    """The program's outputs and updates for `inputs`, by buffer name.

    Raises IRError where the program breaks a contract (see the module), IndexError where a Checked
    index of the user's data is out of range.
    """
    device = next((x.device for x in inputs.values()), torch.device("cpu"))
    memory = {b.name: _allocate(b, inputs, device) for b in program.buffers}
    for step in program.steps:
        if isinstance(step, Kernel):
            _run_kernel(step, memory, device)
        else:
            _run_call(step, memory, device)
    outputs = [_strided(memory, r).clone() for r in program.returns]
    updates = {name: _strided(memory, source).clone() for name, source in program.updates}
    return ProgramResult(outputs, updates)


# ------------------------------------------------------------------------------------------ memory


@dataclass(frozen=True, slots=True)
class _Memory:
    """The elements of a buffer in address order, and which of them hold a value."""

    buffer: Buffer
    data: Tensor
    written: Tensor


def _allocate(b: Buffer, inputs: Mapping[str, Tensor], device: torch.device) -> _Memory:
    span = 1 + sum((n - 1) * s for n, s in zip(b.shape, b.strides, strict=True)) if b.size else 0
    data = torch.full((span,), _poison(b.dtype), dtype=torch_dtype(b.dtype), device=device)
    written = torch.zeros(span, dtype=torch.bool, device=device)
    memory = _Memory(b, data, written)
    if b.given:
        if b.name not in inputs:
            raise IRError(f"no value was given for the input {b.name!r}")
        _fill(memory, inputs[b.name].detach())
    return memory


def _poison(dtype: DType) -> float | int | bool:
    return float("nan") if dtype.is_float else dtype.kind == "bool" or 85


def _fill(memory: _Memory, value: Tensor) -> None:
    """Copy a tensor of the buffer's shape into its elements; strides may overlap (expanded)."""
    b = memory.buffer
    if tuple(value.shape) != b.shape or value.dtype != memory.data.dtype:
        raise IRError(
            f"buffer {b.name!r}: value is {value.dtype} {tuple(value.shape)}, the program says "
            f"{b.dtype} {b.shape}"
        )
    at = torch.as_strided(torch.arange(len(memory.data), device=value.device), b.shape, b.strides)
    memory.data[at.reshape(-1)] = value.reshape(-1)
    memory.written[at.reshape(-1)] = True


def _strided(memory: Mapping[str, _Memory], s: Strided) -> Tensor:
    m = memory[s.buffer]
    if not prod(s.shape):
        return m.data.new_empty(s.shape)
    if not torch.as_strided(m.written, s.shape, s.strides, s.offset).all():
        raise IRError(f"buffer {s.buffer!r} is read before all of it is written")
    return torch.as_strided(m.data, s.shape, s.strides, s.offset)


# ----------------------------------------------------------------------------------- library calls


def _run_call(call: LibraryCall, memory: Mapping[str, _Memory], device: torch.device) -> None:
    function = eval(call.function, {"torch": torch})
    args = [_argument(a, memory, device) for a in call.args]
    kwargs = {k: _argument(v, memory, device) for k, v in call.kwargs}
    result = function(*args, **kwargs)
    results = [result] if isinstance(result, Tensor) else list(filter(torch.is_tensor, result))
    if len(results) != len(call.outs):
        raise IRError(f"{call.name}: {len(results)} results for {len(call.outs)} buffers")
    for name, value in zip(call.outs, results, strict=True):
        if name:
            own_shape = call.extern or call.is_convolution
            _keep_result(memory[name], value, own_shape=own_shape)


def _keep_result(memory: _Memory, value: Tensor, *, own_shape: bool) -> None:
    """A foreign op's result has the buffer's shape, and a convolution's; a product's is memory that
    is seen with other axes."""
    if own_shape:
        _fill(memory, value)
        return
    dense = value.contiguous().reshape(-1)
    if len(dense) != len(memory.data) or dense.dtype != memory.data.dtype:
        raise IRError(f"buffer {memory.buffer.name!r}: a result of {value.dtype} {value.shape}")
    memory.data.copy_(dense)
    memory.written.fill_(True)


def _argument(arg: LibraryArg, memory: Mapping[str, _Memory], device: torch.device) -> Any:
    match arg:
        case Strided():
            return _strided(memory, arg)
        case DType():
            return torch_dtype(arg)
        case Device():
            return device
        case Verbatim():
            return eval(arg.text, {"torch": torch})
        case tuple():
            return [_argument(a, memory, device) for a in arg]
        case _:
            return arg


# ----------------------------------------------------------------------------------------- kernels


def _run_kernel(kernel: Kernel, memory: Mapping[str, _Memory], device: torch.device) -> None:
    widest = max((p.extent for p in kernel.phases), default=1)
    step = max(1, CHUNK // max(widest, 1))
    for start in range(0, kernel.row_count, step):
        at = torch.arange(start, min(start + step, kernel.row_count), device=device)
        rows = _Rows(kernel, memory, _unravel(at[:, None], kernel.rows))
        for phase in kernel.phases:
            rows.run(phase)


def _unravel(linear: Tensor, variables: Sequence[Var]) -> dict[Index, Tensor]:
    """Values of nested loop variables at positions of their row-major iteration."""
    out: dict[Index, Tensor] = {}
    for v in reversed(variables):
        out[v] = linear % v.extent
        linear = linear // v.extent
    return out


@dataclass(slots=True)
class _Rows:
    """Some rows of a kernel: `env` values of shape (rows, 1); named values as phases make them."""

    kernel: Kernel
    memory: Mapping[str, _Memory]
    env: dict[Index, Tensor]
    names: dict[str, Tensor] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return next((len(x) for x in self.env.values()), 1)

    def run(self, phase: Phase) -> None:
        device = next(iter(self.memory.values())).data.device
        cols = _unravel(torch.arange(phase.extent, device=device)[None, :], phase.cols)
        env, shape = {**self.env, **cols}, (self.count, phase.extent)
        for keep in phase.keeps:
            point = _Point(self, env, shape)
            self.names[keep.name] = point.value(keep.body).expand(shape)
        for s in phase.scans:
            self.names[s.name] = self._scan(s, _Point(self, env, shape))
        point = _Point(self, env, shape)
        folded = {f.name: self._fold(f, point) for f in phase.folds}
        stored = [(s, *point.stored(s)) for s in phase.stores]
        for store, value, offset in stored:
            self._store(store, value, offset)
        self.names |= folded
        for s in phase.scans:
            del self.names[s.name]

    def _scan(self, s: Prefix, point: "_Point") -> Tensor:
        x = point.value(s.body).expand(point.shape).to(torch_dtype(s.dtype))
        out = scan(s.kind, x, 1, s.reverse, s.exclusive)
        if s.position is None:
            return out
        return point.index(s.position).expand(point.shape).gather(1, out)

    def _fold(self, f: Fold, point: "_Point") -> Tensor:
        rows, cols = point.shape
        x = point.value(f.body).expand(point.shape)
        dtype = torch_dtype(f.dtype)
        if f.kind in ("argmax", "argmin"):
            if f.position is None:
                raise IRError(f"{self.kernel.name}: fold {f.name} has no position")
            position = point.index(f.position).expand(point.shape)
            return position.gather(1, arg_fold(f.kind, x, 1)[:, None])
        if not cols:
            return x.new_full((rows, 1), scalar.identity(f.kind, f.dtype), dtype=dtype)
        return fold(f.kind, x.to(dtype), (1,))[:, None]

    def _store(self, store: Store, value: Tensor, offset: Tensor) -> None:
        m = self.memory[store.buffer]
        if store.buffer not in self.kernel.writes:
            raise IRError(f"{self.kernel.name} stores to {store.buffer!r}, not among its writes")
        if value.dtype != m.data.dtype:
            raise IRError(f"{self.kernel.name} stores {value.dtype} to {store.buffer!r}")
        at = offset.reshape(-1)
        if not len(at):
            return
        if at.min() < 0 or at.max() >= len(m.data):
            raise IRError(f"{self.kernel.name} stores outside {store.buffer!r}: {store.offset}")
        order = torch.arange(len(at), device=at.device)
        owner = torch.zeros(len(m.data), dtype=torch.int64, device=at.device)
        owner[at] = order
        if not torch.equal(owner[at], order):
            raise IRError(f"{self.kernel.name} stores twice to an element of {store.buffer!r}")
        m.data[at] = value.reshape(-1)
        m.written[at] = True


# Which guards enclose an expression: (conditions, whether they hold) from the outside in.
_Guards = tuple[tuple[Conds, bool], ...]
_Task = tuple[Expr, _Guards]


@dataclass(slots=True)
class _Point:
    """Evaluates bodies at all points of one phase; every value broadcasts to `shape`."""

    rows: _Rows
    env: Mapping[Index, Tensor]
    shape: tuple[int, int]
    done: dict[_Task, Tensor] = field(default_factory=dict)
    masks: dict[_Guards, Tensor | None] = field(default_factory=dict)

    def value(self, root: Expr) -> Tensor:
        """The value of a body; operands are computed first from an explicit stack."""
        stack: list[tuple[_Task, bool]] = [((root, ()), False)]
        while stack:
            task, ready = stack.pop()
            if task in self.done:
                continue
            if ready:
                self.done[task] = self._compute(task)
            else:
                stack.append((task, True))
                stack.extend((t, False) for t in reversed(_operands(task)))
        return self.done[root, ()]

    def stored(self, s: Store) -> tuple[Tensor, Tensor]:
        """Values and offsets of the points where it stores."""
        value, offset = self.value(s.body), self.index(s.offset)
        shape = torch.broadcast_shapes(value.shape, offset.shape)
        if s.inside:
            holds = self._conjunction(s.inside)
            shape = torch.broadcast_shapes(shape, holds.shape)
            value, offset = (x.expand(shape)[holds.expand(shape)] for x in (value, offset))
            return value, offset
        return value.expand(shape), offset.expand(shape)

    def index(self, x: Index) -> Tensor:
        value = torch.as_tensor(ix.evaluate(x, self.env), device=self._device)
        return value if value.dim() == 2 else value.reshape(1, 1)

    @property
    def _device(self) -> torch.device:
        return next(iter(self.rows.memory.values())).data.device

    def _compute(self, task: _Task) -> Tensor:
        e, guards = task
        xs = [self.done[t] for t in _operands(task)]
        match e:
            case Lit():
                value = torch.tensor(e.value, dtype=torch_dtype(e.dtype), device=self._device)
                return value.reshape(1, 1)
            case Coord():
                return self.index(e.index).to(torch_dtype(e.dtype))
            case Ref():
                return self._named(e)
            case Apply():
                return self._typed(e, apply(e.op, *xs))
            case Convert():
                return xs[0].to(torch_dtype(e.dtype))
            case Choose():
                return self._typed(e, torch.where(xs[0], xs[1], xs[2]))
            case Guarded():
                holds = self._mask(((e.conds, True),))
                return xs[0] if holds is None else self._typed(e, torch.where(holds, *xs))
            case Checked():
                return self._checked(e, xs[0], guards)
            case Load():
                return self._load(e, xs, guards)
            case Dot():
                return self._dot(e)
            case _:
                raise IRError(f"no meaning is known for {type(e).__name__}")

    def _dot(self, e: Dot) -> Tensor:
        wide = torch_dtype(compute_type(e.dtype))
        total = torch.zeros((1, 1), dtype=wide, device=self._device)
        for k in range(e.k.extent):
            at = torch.tensor([[k]], device=self._device)
            inner = _Point(self.rows, {**self.env, e.k: at}, self.shape)
            total = total + inner.value(e.x).to(wide) * inner.value(e.y).to(wide)
        return total.to(torch_dtype(e.dtype))

    def _typed(self, e: Expr, value: Tensor) -> Tensor:
        if value.dtype != torch_dtype(e.dtype):
            raise IRError(f"{self.rows.kernel.name}: {e} is {value.dtype}, not {e.dtype}")
        return value

    def _named(self, e: Ref) -> Tensor:
        if e.name not in self.rows.names:
            raise IRError(f"{self.rows.kernel.name}: {e.name!r} is used before it has a value")
        value = self._typed(e, self.rows.names[e.name])
        if value.shape[1] not in (1, self.shape[1]):
            raise IRError(f"{self.rows.kernel.name}: {e.name!r} was kept over other cols")
        return value

    def _mask(self, guards: _Guards) -> Tensor | None:
        """Where all guards admit evaluation; None when there are none."""
        if guards not in self.masks:
            mask: Tensor | None = None
            for conds, wanted in guards:
                holds = self._conjunction(conds)
                holds = holds if wanted else ~holds
                mask = holds if mask is None else mask & holds
            self.masks[guards] = mask
        return self.masks[guards]

    def _conjunction(self, conds: Conds) -> Tensor:
        out = torch.ones(1, 1, dtype=torch.bool, device=self._device)
        for c in conds:
            x = self.index(c.x)
            out = out & (x >= 0 if c.kind == "ge" else x == 0)
        return out

    def _violated(self, bad: Tensor, guards: _Guards) -> bool:
        mask = self._mask(guards)
        return bool((bad if mask is None else bad & mask).any()) and 0 not in self.shape

    def _checked(self, e: Checked, x: Tensor, guards: _Guards) -> Tensor:
        if self._violated((x < 0) | (x >= e.extent), guards):
            raise IndexError(f"{self.rows.kernel.name}: an index lies outside [0, {e.extent})")
        return x.clamp(0, max(e.extent - 1, 0))

    def _load(self, e: Load, indirect: Iterable[Tensor], guards: _Guards) -> Tensor:
        kernel, m = self.rows.kernel, self.rows.memory[e.buffer]
        if e.buffer not in (*kernel.reads, *kernel.writes):
            raise IRError(f"{kernel.name} loads from {e.buffer!r}, not among its reads")
        at = self.index(e.offset)
        for x, (_, stride) in zip(indirect, e.indirect, strict=True):
            at = at + x.to(torch.int64) * stride
        if self._violated((at < 0) | (at >= len(m.data)), guards):
            raise IRError(f"{kernel.name} loads outside {e.buffer!r}: {e.offset}")
        if not len(m.data):
            return m.data.new_zeros((1, 1))
        at = at.clamp(0, len(m.data) - 1)
        if self._violated(~m.written[at], guards):
            raise IRError(f"{kernel.name} loads an element of {e.buffer!r} that nobody wrote")
        return self._typed(e, m.data[at])


def _operands(task: _Task) -> tuple[_Task, ...]:
    e, guards = task
    if isinstance(e, Dot):  # evaluated whole: its operands have a variable of their own
        return ()
    if isinstance(e, Guarded):
        inside: _Guards = (*guards, (e.conds, True))
        return ((e.x, inside), (e.otherwise, (*guards, (e.conds, False))))
    return tuple((o, guards) for o in e.operands)
