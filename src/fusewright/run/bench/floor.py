"""Speed-of-light arithmetic: what the hardware allows for a program. Pure; no clock, no torch.

The roofline (Williams, Waterman and Patterson, CACM 52(4), 2009): a program takes at least
max(FLOPs / FLOP rate, bytes / byte rate). Two programs are judged, the original and the rewritten.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# A time is called impossible below this share of a floor. Traffic: the measured rate carries some
# error on a busy machine. Arithmetic: the count is a model (an exp counts as ten operations).
TRAFFIC_SLACK = 0.8
ARITHMETIC_SLACK = 0.5
# Below this many caches of traffic, data left in the cache can legitimately beat the memory's rate.
CACHES_OF_TRAFFIC = 4


@dataclass(frozen=True, slots=True)
class Floor:
    """Least times in ms of both programs, and the speed-up's split.

    fraction_of_floor: floor of the rewritten program over the measured time; 1 is the limit.
    algebra: floor of the original, perfectly fused, over the floor of the rewritten program.
    fusion: floor of the original op by op over its floor when perfectly fused.
    implementation: what remains of the speed-up, closeness to the own floor, ours over eager's.
    `algebra` is None, and contained in `fusion`, where the fused floor of the original is unknown.
    """

    reference_ms: float
    optimized_ms: float
    fraction_of_floor: float
    algebra: float | None
    fusion: float
    implementation: float


def program_floor_ms(program: Mapping[str, Any], ceilings: Mapping[str, float]) -> float:
    """Least time of a program in ms: its own `floor_ms`, else the roofline of `flops` and `bytes`.

    `ceilings` holds `flops_per_s` and `bytes_per_s`; a ceiling that is missing does not limit.
    """
    if program.get("floor_ms") is not None:
        return float(program["floor_ms"])
    compute = float(program.get("flops", 0)) / ceilings.get("flops_per_s", float("inf"))
    traffic = float(program.get("bytes", 0)) / ceilings.get("bytes_per_s", float("inf"))
    return 1e3 * max(compute, traffic)


def floor_of(
    programs: Mapping[str, Any], measured: Mapping[str, float], eager_ms: float, ours_ms: float
) -> Floor | None:
    """Floors and split for `explain --json`'s object (`reference`, `optimized`, `ceilings`).

    Ceilings that the object does not name are taken from `measured`. `reference_fused`, where
    given, is the original program's compulsory work. None where a floor is 0 (nothing to do).
    """
    ceilings = {**measured, **programs.get("ceilings", {})}
    reference = program_floor_ms(programs["reference"], ceilings)
    optimized = program_floor_ms(programs["optimized"], ceilings)
    if reference <= 0 or optimized <= 0:
        return None
    fused = programs.get("reference_fused")
    fused_ms = program_floor_ms(fused, ceilings) if fused else None
    return Floor(
        reference_ms=reference,
        optimized_ms=optimized,
        fraction_of_floor=optimized / ours_ms,
        algebra=fused_ms / optimized if fused_ms else None,
        fusion=reference / (fused_ms or optimized),
        implementation=(optimized / ours_ms) / (reference / eager_ms),
    )


def beats_light(
    programs: Mapping[str, Any], measured: Mapping[str, float], ours_ms: float, cache_bytes: float
) -> str | None:
    """Why `ours_ms` is impossible for the rewritten program, or None if it is not.

    Traffic is believed only where it is several times the last-level cache (`cache_bytes`): what
    stays in a cache is not read from memory again.
    """
    ceilings = {**measured, **programs.get("ceilings", {})}
    program = programs["optimized"]
    arithmetic = program_floor_ms({"flops": program.get("flops", 0)}, ceilings)
    traffic = program_floor_ms({"bytes": program.get("bytes", 0)}, ceilings)
    if ours_ms < ARITHMETIC_SLACK * arithmetic:
        return f"its arithmetic alone takes {arithmetic:.4g} ms"
    in_cache = program.get("bytes", 0) < CACHES_OF_TRAFFIC * cache_bytes
    if ours_ms < TRAFFIC_SLACK * traffic and not in_cache:
        return f"its memory traffic alone takes {traffic:.4g} ms"
    return None
