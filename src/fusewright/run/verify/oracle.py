"""The reference in float64, and near float64: the measure that candidates are held against.

Nothing here judges. A run takes a module, a state and inputs, and gives back what the forward
returned and changed. Where a whole float64 run does not fit in memory, it is run in slices of the
batch, provided that the reference was seen to be separable along it.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fusewright.errors import FusewrightError
from fusewright.run.device import host_memory
from fusewright.run.verify import generators, hidden, metrics, tensors
from fusewright.run.verify.arithmetic import Float64

# Agreement that two batch slices must show with the whole batch, relative to the output's rms.
_SEPARABLE = 1e-5
_MEMORY_SHARE = 0.6
# What inputs and weights of one kind (lent tensors, expectations) may hold beside those in use.
KEPT_BYTES = 2 << 30
Edit = Callable[[str, torch.Tensor], None]


class OracleUnavailable(FusewrightError):
    """The reference cannot be run in float64 here; the message says why."""


class OracleTooLarge(OracleUnavailable):
    """A float64 run needs more memory than the device has free."""


@dataclass(frozen=True, slots=True)
class Effects:
    """What a call returned, and what it left in its inputs and in the module's state."""

    output: Any
    inputs: dict[str, torch.Tensor]
    state: dict[str, torch.Tensor]

    def flat(self) -> dict[str, torch.Tensor]:
        """All tensors by path: `output...`, `input...` and `state ...`."""
        found = {f"output{p}": tensors.dense(t) for p, t in tensors.tensor_leaves(self.output)}
        found |= {f"input{p}": t for p, t in self.inputs.items()}
        return found | {f"state {n}": t for n, t in self.state.items()}


def base_dtype(module: torch.nn.Module, inputs: Any) -> torch.dtype:
    """The floating-point dtype that the module runs in: its parameters', else its inputs'."""
    for tensor in [*module.parameters(), *(t for _, t in tensors.tensor_leaves(inputs))]:
        if tensor.is_floating_point() or tensor.is_complex():
            return metrics.real_dtype(tensor.dtype)
    return torch.float32


def run(module: torch.nn.Module, inputs: list[Any], seed: int) -> Effects:
    """One forward under no_grad, after seeding."""
    generators.seed(seed)
    with torch.no_grad():
        output = module(*inputs)
    return Effects(output, dict(tensors.tensor_leaves(inputs)), hidden.full_state(module))


def widen(module: torch.nn.Module) -> torch.nn.Module:
    """A float64 copy of the module. Raises OracleUnavailable where it cannot be copied."""
    try:
        return copy.deepcopy(module)._apply(widened)
    except Exception as error:
        raise OracleUnavailable(f"the reference cannot be copied: {error}") from error


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """Real and complex tensors in double precision, others as they are."""
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.double() if tensor.is_floating_point() else tensor


def widen_inputs(inputs: list[Any], edit: Edit | None = None) -> list[Any]:
    """Copies of the inputs in float64, each changed in place by `edit(path, tensor)`."""
    paths = iter([path for path, _ in tensors.tensor_leaves(inputs)])

    def change(tensor: torch.Tensor) -> torch.Tensor:
        path = next(paths)
        wide = widened(tensor)
        if wide is tensor or wide.stride() != tensor.stride():
            wide = tensors.relaid(wide, tensor.stride())
        if edit:
            edit(path, tensors.distinct_elements(wide, wide.stride()))
        return wide

    return tensors.map_leaves(inputs, change)


@contextlib.contextmanager
def float64_arithmetic(mode: Float64) -> Iterator[None]:
    """Inside, new tensors and all operations are float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with mode:
            yield
    finally:
        torch.set_default_dtype(before)


def run_wide(
    module: torch.nn.Module,
    inputs: list[Any],
    seed: int,
    mode: Float64,
    inner: contextlib.AbstractContextManager[Any] | None = None,
) -> Effects:
    """One forward in float64; `module` and `inputs` must be widened. `inner`: a further mode.

    Raises OracleUnavailable when the forward cannot run so, or gives anything but float64.
    """
    try:
        with float64_arithmetic(mode), inner or contextlib.nullcontext():
            effects = run(module, inputs, seed)
    except torch.OutOfMemoryError as error:
        raise OracleTooLarge("a float64 run needs more memory than is free") from error
    except Exception as error:
        first = f"{type(error).__name__}: {error}".splitlines()[0]
        raise OracleUnavailable(f"the reference does not run in float64 ({first})") from error
    for path, tensor in tensors.tensor_leaves(effects.output):
        if tensor.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.complex64):
            raise OracleUnavailable(f"output{path} stays {tensor.dtype} in float64 arithmetic")
    return effects


def edit_state(module: torch.nn.Module, edit: Edit) -> None:
    """Change every state entry in place by `edit(name, value)`; tied entries once."""
    seen: set[int] = set()
    with torch.no_grad():
        for name, tensor in hidden.full_state(module).items():
            if tensor.numel() and tensor.data_ptr() not in seen:
                seen.add(tensor.data_ptr())
                edit(name, tensor)


def available_bytes(device: torch.device) -> int:
    """Free memory of the device, or of the machine for the CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = host_memory()
    return 1 << 62 if free is None else free


class PeakMemory:
    """Context manager: `bytes` is the growth of the process's (or the GPU's) peak memory inside."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.bytes = device, 0

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._start = torch.cuda.memory_allocated(self.device)
        else:
            # Writing 5 resets the high-water mark that VmHWM reports.
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
            self._start = _status_bytes("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        cuda = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) if cuda else _status_bytes("VmHWM")
        self.bytes = max(0, peak - self._start)


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0


def slices_needed(divisible: int, fixed: int, device: torch.device, rows: int) -> int:
    """Into how many batch slices a run must be cut to fit, if `fixed` bytes are needed by each and
    `divisible` ones shared among them; at most `rows`, and one where no cut would do."""
    room = int(_MEMORY_SHARE * available_bytes(device)) - fixed
    if room <= 0:
        return 1
    return max(1, min(rows, -(-divisible // room)))


def batch_rows(inputs: list[Any]) -> int:
    """Extent of axis 0 of the first tensor input; 0 where there is none."""
    for _, tensor in tensors.tensor_leaves(inputs):
        return tensor.shape[0] if tensor.ndim else 0
    return 0


def take_rows(inputs: list[Any], rows: int, start: int, stop: int) -> list[Any]:
    """The inputs with every tensor of `rows` rows cut to [start, stop)."""
    return tensors.map_leaves(
        inputs, lambda t: t[start:stop] if t.ndim and t.shape[0] == rows else t
    )


def is_separable(
    call: Callable[[list[Any]], Any], inputs: list[Any], whole: Any, rows: int, size: int
) -> bool:
    """Whether two slices of `size` rows give the same rows that the whole batch gave."""
    if rows < 2 or any(not t.ndim or t.shape[0] != rows for _, t in tensors.tensor_leaves(whole)):
        return False
    starts = sorted({0, max(0, (rows - size) // 2)})
    return all(_slice_agrees(call, inputs, whole, rows, s, min(rows, s + size)) for s in starts)


def _slice_agrees(
    call: Callable[[list[Any]], Any],
    inputs: list[Any],
    whole: Any,
    rows: int,
    start: int,
    stop: int,
) -> bool:
    try:
        part = [t for _, t in tensors.tensor_leaves(call(take_rows(inputs, rows, start, stop)))]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        # The forward does not take other batch sizes: what matters here is only that it does not.
        return False
    wanted = [t for _, t in tensors.tensor_leaves(whole)]
    return len(part) == len(wanted) and all(
        agree(a, b[start:stop], _SEPARABLE) for a, b in zip(part, wanted)
    )


def agree(part: torch.Tensor, whole: torch.Tensor, share: float) -> bool:
    """Equal shapes and NaN, and finite values no further apart than `share` of the rms."""
    if part.shape != whole.shape:
        return False
    if not part.is_floating_point():
        return torch.equal(part, whole)
    valid = part.isfinite() & whole.isfinite()
    scale = metrics.root_mean_square(whole)
    worst = torch.where(valid, (part - whole).abs(), 0).max() if part.numel() else 0.0
    return float(worst) <= share * max(scale, 1e-30) and torch.equal(part.isnan(), whole.isnan())
