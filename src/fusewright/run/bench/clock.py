"""Clocks of the benchmark worker: one timed call on a CPU or on a CUDA device, and cache flushing.

Everything that a timing rests on is bound here when the clock is made, which is before the
candidate is imported: one that patches `torch.cuda.synchronize` or `time` changes nothing here.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import torch

# Twice the largest L2 of a Hopper card and more: 256 MB, as Triton's and KernelBench's flushes.
CUDA_FLUSH_BYTES = 256 << 20
# Writes of the flush before a queued call: about 0.3 ms on a Hopper card, so that the device is
# still busy when the host, which may be slow, has launched the call.
FLUSHES = 4
# Where the size of the last-level cache cannot be read.
ASSUMED_CACHE_BYTES = 64 << 20
# Idle OpenMP workers spin for up to about a millisecond and would steal a core from the next call
# when two OpenMP runtimes are loaded (torch's and the candidate's): let them fall asleep.
SETTLE_S = 0.002
# Bytes of the buffers that rates are measured with; the H100 reads 128 MB at 70 % of its full rate.
CEILING_BYTES = {"cuda": 1 << 30, "cpu": 128 << 20}
CEILING_ROUNDS = 4
# Size and dtype of the product: on CUDA the tensor cores, which no float32 emulation outruns.
CEILING_MATMUL = {"cuda": (8192, torch.bfloat16), "cpu": (1024, torch.float32)}

Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Timing:
    """One timed call: its time, the host clock's opinion (CUDA only) in ms, and its result."""

    ms: float
    host_ms: float | None
    result: Any


class Clock(Protocol):
    """Times one call in one of its `modes`; the first mode is the primary one."""

    @property
    def modes(self) -> tuple[str, ...]: ...

    @property
    def cache_bytes(self) -> int: ...

    def time(self, mode: str, call: Call, rehearse: Call) -> Timing:
        """Times `call`; `rehearse` does the same work on other data where a mode is warm."""
        ...

    def wait(self) -> None:
        """Waits until the device is idle."""
        ...


class CpuClock:
    """Host clock. warm: the same program has just run on other inputs; cold: caches overwritten."""

    modes = ("warm", "cold")

    def __init__(self) -> None:
        self._now = time.perf_counter_ns
        self._sleep = time.sleep
        self.cache_bytes = last_level_cache_bytes()
        self._flush = torch.empty(2 * self.cache_bytes, dtype=torch.uint8)

    def time(self, mode: str, call: Call, rehearse: Call) -> Timing:
        if mode == "cold":
            self._flush.fill_(1)
            self._sleep(SETTLE_S)
        else:
            self._sleep(SETTLE_S)
            rehearse()
        start = self._now()
        result = call()
        return Timing((self._now() - start) / 1e6, None, result)

    def wait(self) -> None:
        return None


class CudaClock:
    """CUDA events, and the host clock beside them.

    cold: the L2 is overwritten, then the call is queued behind the flush, so the host's launch
    time hides as it does in a busy stream. latency: an idle device, warm caches, host clock from
    the call to the device's idleness: what a lone caller waits for.
    """

    modes = ("cold", "latency")

    def __init__(self, device: torch.device) -> None:
        self._now = time.perf_counter_ns
        self._synchronize = torch.cuda.synchronize
        self._device = device
        properties = torch.cuda.get_device_properties(device)
        self.cache_bytes = int(getattr(properties, "L2_cache_size", ASSUMED_CACHE_BYTES))
        flush_bytes = max(CUDA_FLUSH_BYTES, 2 * self.cache_bytes)
        self._flush = torch.empty(flush_bytes, dtype=torch.uint8, device=device)
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
        self._elapsed = torch.cuda.Event.elapsed_time
        self._record = torch.cuda.Event.record
        self._overhead = 0.0
        unexplained = [self._queued(lambda: None)[1] for _ in range(20)]
        self._overhead = median(unexplained)

    def time(self, mode: str, call: Call, rehearse: Call) -> Timing:
        if mode == "latency":
            return self._alone(call)
        event, unexplained, result = self._queued(call)
        return Timing(event, event + max(0.0, unexplained), result)

    def _queued(self, call: Call) -> tuple[float, float, Any]:
        """Event time of the call, host time that no event explains (both ms), and the result."""
        before, start, end = self._events
        self._synchronize(self._device)
        host = self._now()
        self._record(before)
        for _ in range(FLUSHES):
            self._flush.fill_(1)
        self._record(start)
        result = call()
        self._record(end)
        self._synchronize(self._device)
        waited = (self._now() - host) / 1e6
        return (
            self._elapsed(start, end),
            waited - self._elapsed(before, end) - self._overhead,
            result,
        )

    def _alone(self, call: Call) -> Timing:
        self._synchronize(self._device)
        start = self._now()
        result = call()
        self._synchronize(self._device)
        return Timing((self._now() - start) / 1e6, None, result)

    def wait(self) -> None:
        self._synchronize(self._device)


def clock_for(device: torch.device) -> Clock:
    """The clock of a device."""
    return CudaClock(device) if device.type == "cuda" else CpuClock()


def last_level_cache_bytes() -> int:
    """Size of the processor's last-level cache as Linux tells it, else an assumed 64 MB."""
    caches = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    sizes = [_parse_size(path.read_text().strip()) for path in caches]
    return max(sizes, default=ASSUMED_CACHE_BYTES)


def _parse_size(text: str) -> int:
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)


def measure_ceilings(device: torch.device, clock: Clock) -> dict[str, float]:
    """Rates of large copies, reads, writes (bytes/s; `bytes_per_s` is the best) and FLOP/s."""
    size = CEILING_BYTES[device.type]
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    calls = {
        "copy_bytes_per_s": (lambda: target.copy_(source), 2 * size),
        "read_bytes_per_s": (lambda: torch.sum(source), size),
        "write_bytes_per_s": (lambda: target.fill_(2.0), size),
    }
    rates = {name: _rate(clock, call, moved) for name, (call, moved) in calls.items()}
    return rates | {"bytes_per_s": max(rates.values()), "flops_per_s": _matmul_rate(device, clock)}


def _matmul_rate(device: torch.device, clock: Clock) -> float:
    """FLOP/s of a large product in the fastest arithmetic that a float program may use."""
    size, dtype = CEILING_MATMUL[device.type]
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return _rate(clock, lambda: torch.mm(a, b), 2 * size**3)


def _rate(clock: Clock, call: Call, size: int) -> float:
    mode = clock.modes[0]
    times = [clock.time(mode, call, call).ms for _ in range(CEILING_ROUNDS)]
    return size / (min(times) / 1e3)
