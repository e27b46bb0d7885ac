"""The reference's side: draws, expectations and judgements, as commands of the referee's worker.

The referee runs the reference file only, in a process that the candidate's never talks to. For most
points it computes what is right after the candidate has answered.
"""

import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from fusewright.run.verify import judge, metrics, oracle, runner, specs, tensors
from fusewright.run.verify.arithmetic import (
    ALL_CONTRACTIONS,
    CONVOLUTIONS,
    Float64,
    Jitter,
    round_bf16,
    round_tf32,
)
from fusewright.run.verify.book import Book, Expectation, Point, Stamps
from fusewright.run.verify.judge import Finding, Part
from fusewright.run.verify.specs import Spec

# A reference that takes longer than this is evaluated with random rounding once, not twice.
_SLOW_S = 0.2
# Of a large problem one row in so many is judged, and all where the batch is smaller than this.
_SAMPLE_SHARE, _FEW_ROWS = 16, 64
# Batch slices at least, when the whole does not fit.
_SLICES_WHEN_FULL = 16


def expect(
    book: Book,
    name: str,
    weights: str,
    inputs: str,
    seed: int,
    train: bool,
    sampled: bool = False,
) -> Spec:
    """Evaluate the reference at a point, in its own arithmetic and in float64; keep the result.

    sampled: evaluate it on a random sample of the batch only (it must be separable along it).
    Reports eager's seconds, whether random numbers were drawn, what was changed besides the output,
    the output's structure, its aliases, and how the oracle was had ("float64", "float64 in n
    slices", or why there is none).
    """
    sample = draw_sample(book, inputs) if sampled else None
    point = Point(weights, inputs, seed, train, sample)
    book.expectations.pop(name, None)
    prepare(book, "reference", point)
    plan = {"slot": "reference", "inputs": "point", "seed": seed, "prefix": None, "effects": True}
    with oracle.PeakMemory(book.session.device) as peak:
        report = runner.call(book.session, keep="eager", **plan)
    book.written.update(dict.fromkeys(report["effects"]["state"]["keys"]))
    if report["seconds"] > _SLOW_S:
        book.jittered_runs = 1
    eager = _eager_effects(book, report)
    # A mapping or a copy that nobody needs any more; the float64 runs need the memory.
    book.session.inputs.pop("point")
    runner.release_memory(book.session.device)
    changed = tuple(path for path in eager if not path.startswith("output"))
    rng, sharp = report["rng"], sample is not None
    expectation = _expectation(book, point, eager, changed, rng, peak.bytes, sharp)
    book.expectations[name] = expectation
    report["oracle"], report["changed"] = expectation.oracle, list(changed)
    report["sampled"] = sample is not None
    report["finite"] = _finite_share(eager)
    report["leaves"] = [
        {"path": e.path, "exact": e.exact, "eager": e.eager.norm, "bound": e.bound.norm}
        for e in expectation.expected.values()
    ]
    return report


def prepare(book: Book, slot: str, point: Point) -> None:
    """Give the module the point's state and mode, and put fresh inputs in place as `point`."""
    module = book.session.slots[slot]
    set_state(book, slot, point.weights)
    module.train(point.train)
    if point.sample is None:
        runner.put(book.session, "point", book.draws[point.inputs], "plain")
    else:
        book.session.inputs["point"] = fresh_inputs(book, point)


def set_state(book: Book, slot: str, weights: str) -> None:
    """Give the module the named weights; parameters that still have them are not copied again."""
    module, stamps = book.session.slots[slot], book.stamps.get(slot)
    wanted = runner.mapped(book.weights[weights], book.session.lender)
    if stamps is None or stamps.weights != weights:
        module.load_state_dict(wanted, strict=True)
    else:
        now = _stamps(module)
        with torch.no_grad():
            for name, tensor in module.state_dict(keep_vars=True).items():
                written = name in book.written or name not in now
                if written or now[name] != stamps.entries[name]:
                    tensor.copy_(wanted[name])
    book.stamps[slot] = Stamps(weights, _stamps(module))


def _stamps(module: torch.nn.Module) -> dict[str, tuple[int, int]]:
    """Identity and version of every parameter: a write, in place or by replacement, shows.

    Buffers are left out: batch normalisation writes its statistics without a new version. So does
    whatever writes through `.data`, which is why entries seen to change are in `Book.written`.
    """
    parameters = module.named_parameters(remove_duplicate=False)
    return {name: (id(tensor), tensor._version) for name, tensor in parameters}


def fresh_inputs(book: Book, point: Point) -> list[Any]:
    """The point's inputs, to be read only: on the CPU they are mappings of their files."""
    return tensors.take_sample(_given(book, point.inputs), point.sample)


def _given(book: Book, inputs: str) -> list[Any]:
    session = book.session
    return tensors.load(book.draws[inputs], session.device, copy=False, lender=session.lender)


def draw_sample(book: Book, inputs: str) -> tensors.Sample | None:
    """Rows of a batch to stand for all: the first, the last, any that hold special values, and
    others by chance; None for all.

    Drawn from the system's entropy, so that no candidate can foresee it.
    """
    total = specs.batch_rows(book.draws[inputs])
    if total < _FEW_ROWS:
        return None
    generator = torch.Generator().manual_seed(secrets.randbits(63))
    chance = torch.randperm(total, generator=generator)[: total // _SAMPLE_SHARE]
    fixed = torch.tensor([0, total - 1, *book.marked.get(inputs, [])])
    return tensors.Sample(total, torch.cat([fixed, chance]).unique())


def _eager_effects(book: Book, report: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Eager's outputs, and the inputs and state entries that the call changed, by path."""
    session = book.session
    effects = oracle.Effects(
        session.kept.pop("eager"),
        dict(tensors.tensor_leaves(session.inputs["point"])),
        dict(session.slots["reference"].state_dict()),
    )
    changed = {f"input{k}" for k in report["effects"]["inputs"]["keys"]}
    changed |= {f"state {k}" for k in report["effects"]["state"]["keys"]}
    return {
        # What lives in the module or in the inputs will not stay as it is.
        path: tensor.detach().clone() if path in changed or report["aliases"] else tensor.detach()
        for path, tensor in effects.flat().items()
        if path in changed or path.startswith("output")
    }


def _finite_share(eager: dict[str, torch.Tensor]) -> float:
    shares = [int(t.isfinite().sum()) / t.numel() for t in eager.values() if t.numel()]
    return min(shares, default=1.0)


def _expectation(
    book: Book,
    point: Point,
    eager: dict[str, torch.Tensor],
    changed: tuple[str, ...],
    random: bool,
    peak: int,
    sharp: bool,
) -> Expectation:
    """Bounds for every tensor of `eager`, from float64 runs: whole, sliced, or none.

    sharp: only as far from float64 as eager itself; what else is allowed costs more runs.
    """
    fresh = fresh_inputs(book, point)
    scale = max((metrics.root_mean_square(t) for _, t in _floats(fresh)), default=1.0)
    rows = oracle.batch_rows(fresh)
    size = sum(t.numel() * 8 for t in book.session.slots["reference"].state_dict().values())
    slices = oracle.slices_needed(4 * peak + 2 * size, book.session.device, rows)
    if slices == 1:
        try:
            return whole_expectation(book, point, fresh, eager, changed, random, scale, sharp)
        except oracle.OracleTooLarge:
            runner.release_memory(book.session.device)
    # Smaller slices cost little, and what else the runs hold is not in the estimate.
    slices = max(slices, min(rows, _SLICES_WHEN_FULL))
    try:
        return _sliced(book, point, fresh, eager, changed, random, slices, scale)
    except oracle.OracleUnavailable as reason:
        return _without_oracle(point, eager, changed, random, scale, str(reason))


def whole_expectation(
    book: Book,
    point: Point,
    inputs: list[Any],
    eager: dict[str, torch.Tensor],
    changed: tuple[str, ...],
    random: bool,
    scale: float,
    sharp: bool = False,
) -> Expectation:
    """Expectation from float64 runs of the whole batch, or without an oracle where they fail.

    Raises OracleTooLarge where they fail for want of memory.
    """
    try:
        wide, *rest = wide_runs(book, point, inputs, allowed=not sharp)
    except oracle.OracleTooLarge:
        raise
    except oracle.OracleUnavailable as reason:
        return _without_oracle(point, eager, changed, random, scale, str(reason))
    expected = {
        p: judge.expect(p, t, _whole(p, t, wide, rest), True, scale) for p, t in eager.items()
    }
    kept = {p: wide[p] for p in eager}
    return Expectation(point, expected, changed, random, "float64", kept, sharp=sharp)


def _without_oracle(
    point: Point,
    eager: dict[str, torch.Tensor],
    changed: tuple[str, ...],
    random: bool,
    scale: float,
    reason: str,
) -> Expectation:
    """Eager's own result in place of the oracle; what is far from it in float32 stays undecided."""
    as_double = {p: t.double() if t.is_floating_point() else t for p, t in eager.items()}
    expected = {
        p: judge.expect(p, t, _whole(p, t, as_double, []), False, scale) for p, t in eager.items()
    }
    return Expectation(point, expected, changed, random, reason, None)


def _floats(value: Any) -> list[tuple[str, torch.Tensor]]:
    return [(p, t) for p, t in tensors.tensor_leaves(value) if t.is_floating_point() and t.numel()]


def _whole(
    path: str,
    eager: torch.Tensor,
    wide: dict[str, torch.Tensor],
    rest: list[dict[str, torch.Tensor]],
) -> judge.Parts:
    """The single part of a tensor that fits in memory."""
    part = Part.of(0, eager, wide[path], [other[path] for other in rest])
    return lambda _: iter([part])


def wide_module(book: Book, weights: str) -> torch.nn.Module:
    """The reference in float64 with the named weights."""
    session = book.session
    if "wide" not in session.slots:
        session.slots["wide"] = oracle.widen(session.slots["reference"])
    set_state(book, "wide", weights)
    return session.slots["wide"]


def wide_runs(
    book: Book, point: Point, inputs: list[Any], allowed: bool = True
) -> list[dict[str, torch.Tensor]]:
    """The float64 result and, if asked for, other results that are as right as the computation
    determines: with every value randomly rounded, and in tensor-core arithmetic that is allowed."""
    base = base_dtype(book, inputs)
    runs = [wide_run(book, point, inputs, Float64(base))]
    if not allowed:
        return runs
    for seed in range(book.jittered_runs):
        jitter = Jitter(metrics.UNIT_ROUNDOFF[base], seed, book.session.device)
        mode = Float64(base, jitter=jitter)
        runs.append(wide_run(book, point, inputs, mode, lambda _, t, j=jitter: j.move(t.clone())))
    for rounding, ops in allowed_roundings(book.precision, book.session.device):
        runs.append(wide_run(book, point, inputs, Float64(base, rounding, ops)))
    return runs


def base_dtype(book: Book, inputs: list[Any]) -> torch.dtype:
    return oracle.base_dtype(book.session.slots["reference"], inputs)


def allowed_roundings(precision: str, device: torch.device) -> list[tuple[Any, frozenset[str]]]:
    """(rounding of operands, the ops it may be applied to) that `--precision` lets a kernel use.

    "match" allows what eager may use under torch's current flags on this device.
    """
    if precision == "bf16":
        return [(round_tf32, ALL_CONTRACTIONS), (round_bf16, ALL_CONTRACTIONS)]
    if precision == "tf32":
        return [(round_tf32, ALL_CONTRACTIONS)]
    if precision == "match" and device.type == "cuda":
        matmul = torch.backends.cuda.matmul.allow_tf32
        convolution = torch.backends.cudnn.allow_tf32
        ops = frozenset(
            name for name in ALL_CONTRACTIONS if (convolution if name in CONVOLUTIONS else matmul)
        )
        return [(round_tf32, ops)] if ops else []
    return []


def wide_run(
    book: Book,
    point: Point,
    inputs: list[Any],
    mode: Float64,
    edit: oracle.Edit | None = None,
    inner: Any = None,
) -> dict[str, torch.Tensor]:
    """One float64 run at a point: outputs, inputs after and state after, by path.

    edit: applied to every state entry (by its name) and every input (by its path, such as `[0]`).
    inner: a further dispatch mode.
    """
    module = wide_module(book, point.weights).train(point.train)
    if edit is not None:
        oracle.edit_state(module, edit)
    wide = oracle.widen_inputs(inputs, edit)
    effects = oracle.run_wide(module, wide, point.seed, mode, inner)
    owned = {t.untyped_storage().data_ptr() for t in effects.state.values()}
    return {
        path: t.detach().clone() if t.untyped_storage().data_ptr() in owned else t.detach()
        for path, t in effects.flat().items()
    }


def _sliced(
    book: Book,
    point: Point,
    inputs: list[Any],
    eager: dict[str, torch.Tensor],
    changed: tuple[str, ...],
    random: bool,
    slices: int,
    scale: float,
) -> Expectation:
    """Expectation whose float64 parts are computed slice by slice, each time they are needed.

    Raises OracleUnavailable where the reference is not separable along the batch.
    """
    rows = oracle.batch_rows(inputs)
    size = -(-rows // slices)
    outputs = {path: t for path, t in eager.items() if path.startswith("output")}
    module = book.session.slots["reference"]
    if (
        changed
        or random
        or not oracle.is_separable(
            lambda part: oracle.run(module, part, point.seed).output, inputs, outputs, rows, size
        )
    ):
        raise oracle.OracleUnavailable(
            f"a float64 run needs more memory than is free, and the reference cannot be cut along "
            f"its batch into {slices} slices"
        )

    def parts_of(path: str):
        def parts(allowed: bool) -> Iterator[Part]:
            for start in range(0, rows, size):
                stop = min(rows, start + size)
                piece = oracle.take_rows(inputs, rows, start, stop)
                runs = [run[path] for run in wide_runs(book, point, piece, allowed)]
                yield Part.of(start, eager[path][start:stop], runs[0], runs[1:])

        return parts

    expected = {p: judge.expect(p, t, parts_of(p), True, scale) for p, t in outputs.items()}
    return Expectation(point, expected, changed, random, f"float64 in {slices} slices", None)


def judge_call(book: Book, name: str, output: Spec, effects: Spec | None) -> list[dict[str, Any]]:
    """Findings for a candidate's call at the point `name`, tensor by tensor."""
    expectation = book.expectations[name]
    got = {f"output{path}": leaf for path, leaf in specs.tensors(output)}
    if effects is not None:
        for kind, label in (("inputs", "input"), ("state", "state ")):
            group = effects[kind]
            got |= {f"{label}{k}": leaf for k, leaf in zip(group["keys"], group["items"])}
    found = [_judge_leaf(book, leaf, path, expectation) for path, leaf in got.items()]
    if expectation.sharp and any(f.ok is not True for f in found):
        expectation = book.expectations[name] = _unsharpened(book, expectation)
        found = [_judge_leaf(book, leaf, path, expectation) for path, leaf in got.items()]
    if effects is not None:
        found += [
            Finding(path, False, "was not changed, but the reference changes it")
            for path in expectation.changed
            if path not in got
        ]
    return [finding.to_json() for finding in found]


def _unsharpened(book: Book, sharp: Expectation) -> Expectation:
    """The expectation with all that the reference allows, where its own error alone was allowed."""
    eager = {path: next(e.parts(False)).eager for path, e in sharp.expected.items()}
    whole = (sharp.changed, sharp.random)
    return _expectation(book, sharp.point, eager, *whole, 0, sharp=False)


def read(book: Book, leaf: Spec) -> torch.Tensor:
    """A tensor that the candidate's process handed over."""
    return tensors.read(leaf, book.session.lender)


def same(book: Book, first: Spec, second: Spec) -> bool:
    """Whether two outputs of the candidate are equal."""
    pairs = zip(specs.tensors(first), specs.tensors(second), strict=True)
    return all(runner.same_bits(read(book, a), read(book, b)) for (_, a), (_, b) in pairs)


def _judge_leaf(book: Book, leaf: Spec, path: str, expectation: Expectation) -> Finding:
    if path not in expectation.expected:
        return Finding(path, False, "was changed, but the reference leaves it as it is")
    tensor, sample = read(book, leaf), expectation.point.sample
    if sample is not None:
        tensor = sample.of(tensor)
    return judge.judge(tensor.to(book.session.device), expectation.expected[path])


def release(book: Book, name: str) -> None:
    """Forget a point; its float64 outputs stay as an example of an answer to other inputs."""
    expectation = book.expectations.pop(name, None)
    if expectation is not None and expectation.wide is not None:
        book.stale = expectation.wide
    runner.release_memory(book.session.device)


def classify(book: Book, name: str, norm: float) -> str:
    """The accuracy class of an output error `norm` at a point."""
    point = book.expectations[name].point
    inputs = fresh_inputs(book, point)
    worst = metrics.ZERO
    for path, expected in book.expectations[name].expected.items():
        if path.startswith("output") and not expected.exact:
            worst = replace(worst, norm=max(worst.norm, expected.bound.norm))
    mode = Float64(base_dtype(book, inputs), round_tf32)
    rounded = wide_run(book, point, inputs, mode, lambda _, t: round_tf32(t))
    tf32 = max((_error(book, name, p, t) for p, t in rounded.items()), default=0.0)
    eager = max((e.eager.norm for e in book.expectations[name].expected.values()), default=0.0)
    return metrics.accuracy_class(norm, eager, worst.norm, max(2.0 * tf32, 2.0**-11))


def _error(book: Book, name: str, path: str, tensor: torch.Tensor) -> float:
    expected = book.expectations[name].expected.get(path)
    if expected is None or expected.exact or not path.startswith("output"):
        return 0.0
    sums = metrics.Accumulator(expected.shape, expected.rms, tensor.device)
    for part in expected.parts(False):
        sums.add(metrics.as_real(tensor), part.oracle, part.valid, part.first)
    return sums.result().norm


def set_precision(book: Book, precision: str) -> None:
    book.precision = precision


def default_device(_: Book) -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def device(book: Book) -> str:
    return book.session.device.type


COMMANDS = {
    "default_device": default_device,
    "device": device,
    "set_precision": set_precision,
    "expect": expect,
    "judge_call": judge_call,
    "same": same,
    "release": release,
    "classify": classify,
}
