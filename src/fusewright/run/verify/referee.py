"""The reference's side: draws, expectations and judgements, as commands of the referee's worker.

The referee runs the reference file only, in a process that the candidate's never talks to. For most
points it computes what is right after the candidate has answered.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fusewright.errors import ProblemError
from fusewright.problem import split_init_args
from fusewright.run.verify import draws, judge, metrics, oracle, runner, specs, tensors
from fusewright.run.verify.arithmetic import (
    ALL_CONTRACTIONS,
    CONVOLUTIONS,
    Float64,
    Jitter,
    round_bf16,
    round_tf32,
)
from fusewright.run.verify.judge import Expected, Finding, Part
from fusewright.run.verify.runner import Session
from fusewright.run.verify.specs import Spec

_INPUT_SEED = 1000
_JITTERED_RUNS = 2


@dataclass(frozen=True, slots=True)
class Point:
    """One set of weights and inputs, a mode and a seed: what the reference is evaluated at."""

    weights: str
    inputs: str
    seed: int
    train: bool


@dataclass(slots=True)
class Expectation:
    """Everything known of one point.

    oracle: how the float64 values were had, or why not. wide: them (None when sliced or not had).
    cut: the number of batch rows that this is about, None for all.
    """

    point: Point
    expected: dict[str, Expected]
    changed: tuple[str, ...]
    random: bool
    oracle: str
    wide: dict[str, torch.Tensor] | None
    cut: int | None = None


@dataclass(slots=True)
class Book:
    """The referee's mutable state, beside its `Session`."""

    session: Session
    precision: str = "match"
    draws: dict[str, Spec] = field(default_factory=dict)
    weights: dict[str, Spec] = field(default_factory=dict)
    expectations: dict[str, Expectation] = field(default_factory=dict)
    stale: dict[str, torch.Tensor] = field(default_factory=dict)
    gradients: dict[str, Expected] = field(default_factory=dict)
    samples: dict[str, Any] = field(default_factory=dict)


def init_arguments(book: Book, prefix: str) -> Spec:
    """The constructor's positional and keyword arguments, from `get_init_inputs` if defined."""
    assert book.session.cls is not None
    get = getattr(book.session.source, "get_init_inputs", list)
    runner.seed_everything(_INPUT_SEED)
    return tensors.dump(list(split_init_args(book.session.cls, get())), prefix)


def set_precision(book: Book, precision: str) -> None:
    book.precision = precision


def draw_inputs(book: Book, name: str, kind: str, seed: int, prefix: str, rows: int | None) -> Spec:
    """Inputs from `get_inputs` after seeding, redrawn by `kind`, with `rows` rows (None: as given).

    kind: "given", "tail" (only the last row or element is new), "special" (NaN, Inf, ... sprinkled
    in) or a rule of draws.REDRAWN.
    """
    get = getattr(book.session.source, "get_inputs", None)
    if get is None:
        raise ProblemError("the reference file defines no get_inputs")
    runner.seed_everything(_INPUT_SEED + seed)
    device = book.session.device
    given = tensors.map_leaves(list(get()), lambda t: t.to(device))
    generator = torch.Generator(device).manual_seed(seed)
    made = given if rows is None else with_rows(given, rows)
    if kind == "tail":
        made = tensors.map_leaves(made, lambda t: draws.with_new_tail(t, generator))
    elif kind == "special":
        made = tensors.map_leaves(made, lambda t: draws.with_special_values(t, generator))
    elif kind != "given":
        made = tensors.map_leaves(made, lambda t: draws.redraw(t, kind, generator))
    book.draws[name] = tensors.dump(made, prefix)
    return book.draws[name]


def with_rows(inputs: list[Any], rows: int) -> list[Any]:
    """The inputs at another batch size: axis 0 cut, or extended by repeating rows in reverse."""
    have = oracle.batch_rows(inputs)

    def change(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.ndim or tensor.shape[0] != have:
            return tensor
        index = torch.arange(rows, device=tensor.device).remainder(max(have, 1))
        return tensor[index if rows <= have else index.flip(0)].clone()

    return tensors.map_leaves(inputs, change)


def draw_weights(book: Book, name: str, kind: str, seed: int, prefix: str) -> Spec:
    """A state for both modules: as constructed ("given") or redrawn; tied entries stay tied."""
    module = book.session.slots["reference"]
    generator = torch.Generator(book.session.device).manual_seed(seed)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    made: dict[str, torch.Tensor] = {}
    by_storage: dict[tuple[int, int, tuple[int, ...]], torch.Tensor] = {}
    given = tensors.load(book.weights["given"], book.session.device) if book.weights else {}
    for entry, current in module.state_dict().items():
        key = (current.untyped_storage().data_ptr(), current.storage_offset(), current.shape)
        if key not in by_storage:
            value = given.get(entry, current)
            role = entry in parameters
            by_storage[key] = _redraw_entry(value, kind, role, generator)
        made[entry] = by_storage[key]
    book.weights[name] = tensors.dump(made, prefix)
    return book.weights[name]


def _redraw_entry(
    value: torch.Tensor, kind: str, is_parameter: bool, generator: torch.Generator
) -> torch.Tensor:
    if kind == "given":
        return value.detach()
    if not is_parameter and value.is_floating_point() and value.numel() and value.min() >= 0:
        return draws.redraw_positive(value, generator)
    return draws.redraw_weight(value.detach(), kind, generator)


def compare_state(book: Book, spec: Spec) -> list[str]:
    """Differences of a candidate's freshly constructed state_dict from the reference's."""
    ours = book.session.slots["reference"]
    wanted = ours.state_dict(keep_vars=True)
    got = dict(zip(spec["keys"], spec["items"]))
    parameters = dict(ours.named_parameters(remove_duplicate=False))
    found = [f"{name} is missing" for name in wanted if name not in got]
    found += [f"{name} is not an entry of the reference" for name in got if name not in wanted]
    for name, entry in got.items():
        if name in wanted:
            found += _entry_differences(name, wanted[name], entry, name in parameters)
    found += _tie_differences(wanted, got)
    if not found and list(wanted) != list(got):
        found.append("the entries are in another order")
    return found


def _tie_differences(wanted: dict[str, torch.Tensor], got: dict[str, Spec]) -> list[str]:
    """Entries that share memory in one of the two modules only."""
    ours = {name: tensor.untyped_storage().data_ptr() for name, tensor in wanted.items()}
    theirs = {name: entry["storage"] for name, entry in got.items()}
    common = [name for name in ours if name in theirs and wanted[name].numel()]
    return [
        f"{first} and {second} {'share' if ours[first] == ours[second] else 'do not share'} memory "
        "in the reference only"
        for first, second in itertools.combinations(common, 2)
        if (ours[first] == ours[second]) != (theirs[first] == theirs[second])
    ]


def _entry_differences(
    name: str, wanted: torch.Tensor, entry: Spec, is_parameter: bool
) -> list[str]:
    dtype, shape = str(wanted.dtype).removeprefix("torch."), list(wanted.shape)
    if (entry["dtype"], entry["shape"]) != (dtype, shape):
        return [f"{name} is {entry['dtype']}{entry['shape']}, not {dtype}{shape}"]
    role = "parameter" if is_parameter else "buffer"
    if entry["role"] != role:
        return [f"{name} is a {entry['role']}, not a {role}"]
    if entry["grad"] != wanted.requires_grad:
        return [f"{name} has requires_grad={entry['grad']}, not {wanted.requires_grad}"]
    if not runner.same_bits(tensors.read(entry), wanted.detach().cpu()):
        return [f"{name} has other values after the same seed"]
    return []


def expect(book: Book, name: str, weights: str, inputs: str, seed: int, train: bool) -> Spec:
    """Evaluate the reference at a point, in its own arithmetic and in float64; keep the result.

    Reports eager's seconds, whether random numbers were drawn, what was changed besides the output,
    the output's structure, its aliases, and how the oracle was had ("float64", "float64 in n
    slices", or why there is none).
    """
    point = Point(weights, inputs, seed, train)
    book.expectations.pop(name, None)
    prepare(book, "reference", point)
    plan = {"slot": "reference", "inputs": "point", "seed": seed, "prefix": None, "effects": True}
    with oracle.PeakMemory(book.session.device) as peak:
        report = runner.call(book.session, keep="eager", **plan)
    eager = _eager_effects(book, report)
    changed = tuple(path for path in eager if not path.startswith("output"))
    expectation = _expectation(book, point, eager, changed, report["rng"], peak.bytes)
    book.expectations[name] = expectation
    report["oracle"], report["changed"] = expectation.oracle, list(changed)
    report["finite"] = _finite_share(eager)
    report["leaves"] = [
        {"path": e.path, "exact": e.exact, "eager": e.eager.norm, "bound": e.bound.norm}
        for e in expectation.expected.values()
    ]
    return report


def prepare(book: Book, slot: str, point: Point) -> None:
    """Give the module the point's state and mode, and put fresh inputs in place as `point`."""
    module = book.session.slots[slot]
    module.load_state_dict(runner.mapped(book.weights[point.weights]), strict=True)
    module.train(point.train)
    runner.put(book.session, "point", book.draws[point.inputs], "plain")


def fresh_inputs(book: Book, point: Point) -> list[Any]:
    return tensors.load(book.draws[point.inputs], book.session.device)


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
    shares = [float(t.isfinite().double().mean()) for t in eager.values() if t.numel()]
    return min(shares, default=1.0)


def _expectation(
    book: Book,
    point: Point,
    eager: dict[str, torch.Tensor],
    changed: tuple[str, ...],
    random: bool,
    peak: int,
) -> Expectation:
    """Bounds for every tensor of `eager`, from float64 runs: whole, sliced, or none."""
    fresh = fresh_inputs(book, point)
    scale = max((metrics.root_mean_square(t, t.isfinite()) for _, t in _floats(fresh)), default=1.0)
    rows = oracle.batch_rows(fresh)
    size = sum(t.numel() * 8 for t in book.session.slots["reference"].state_dict().values())
    slices = oracle.slices_needed(4 * peak + 2 * size, book.session.device, rows)
    if slices > 1:
        try:
            return _sliced(book, point, fresh, eager, changed, random, slices, scale)
        except oracle.OracleUnavailable as reason:
            return _without_oracle(point, eager, changed, random, scale, str(reason))
    return whole_expectation(book, point, fresh, eager, changed, random, scale)


def whole_expectation(
    book: Book,
    point: Point,
    inputs: list[Any],
    eager: dict[str, torch.Tensor],
    changed: tuple[str, ...],
    random: bool,
    scale: float,
) -> Expectation:
    """Expectation from float64 runs of the whole batch, or without an oracle where they fail."""
    try:
        wide, *rest = wide_runs(book, point, inputs)
    except oracle.OracleUnavailable as reason:
        return _without_oracle(point, eager, changed, random, scale, str(reason))
    expected = {
        p: judge.expect(p, t, _whole(p, t, wide, rest), True, scale) for p, t in eager.items()
    }
    return Expectation(point, expected, changed, random, "float64", {p: wide[p] for p in eager})


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
) -> Callable[[], Iterator[Part]]:
    """The single part of a tensor that fits in memory."""
    others = tuple(metrics.as_real(other[path]) for other in rest)
    part = Part(0, metrics.as_real(eager), metrics.as_real(wide[path]), others)
    return lambda: iter([part])


def wide_module(book: Book, weights: str) -> torch.nn.Module:
    """The reference in float64 with the named weights."""
    session = book.session
    if "wide" not in session.slots:
        session.slots["wide"] = oracle.widen(session.slots["reference"])
    session.slots["wide"].load_state_dict(runner.mapped(book.weights[weights]), strict=True)
    return session.slots["wide"]


def wide_runs(book: Book, point: Point, inputs: list[Any]) -> list[dict[str, torch.Tensor]]:
    """The float64 result and the other results that are as right as the computation determines:
    with every value randomly rounded, and in the tensor-core arithmetic that is allowed."""
    base = base_dtype(book, inputs)
    runs = [wide_run(book, point, inputs, Float64(base))]
    for seed in range(_JITTERED_RUNS):
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
        def parts() -> Iterator[Part]:
            for start in range(0, rows, size):
                stop = min(rows, start + size)
                piece = oracle.take_rows(inputs, rows, start, stop)
                runs = [run[path] for run in wide_runs(book, point, piece)]
                reals = [metrics.as_real(t) for t in (eager[path][start:stop], *runs)]
                yield Part(start, reals[0], reals[1], tuple(reals[2:]))

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
    if effects is not None:
        found += [
            Finding(path, False, "was not changed, but the reference changes it")
            for path in expectation.changed
            if path not in got
        ]
    return [finding.to_json() for finding in found]


def _judge_leaf(book: Book, leaf: Spec, path: str, expectation: Expectation) -> Finding:
    if path not in expectation.expected:
        return Finding(path, False, "was changed, but the reference leaves it as it is")
    tensor = tensors.read(leaf).to(book.session.device)
    return judge.judge(tensor, expectation.expected[path])


def release(book: Book, name: str) -> None:
    """Forget a point; its float64 outputs stay as an example of an answer to other inputs."""
    expectation = book.expectations.pop(name, None)
    if expectation is not None and expectation.wide is not None:
        book.stale = expectation.wide
    runner.release_memory(book.session.device)


def classify(book: Book, name: str, norm: float) -> str:
    """The accuracy class of an output error `norm` at a point."""
    point = book.expectations[name].point
    inputs = tensors.load(book.draws[point.inputs], book.session.device)
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
    for part in expected.parts():
        sums.add(metrics.as_real(tensor), part.oracle, part.valid, part.first)
    return sums.result().norm


def default_device(_: Book) -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def device(book: Book) -> str:
    return book.session.device.type


COMMANDS = {
    "default_device": default_device,
    "device": device,
    "init_arguments": init_arguments,
    "set_precision": set_precision,
    "draw_inputs": draw_inputs,
    "draw_weights": draw_weights,
    "compare_state": compare_state,
    "expect": expect,
    "judge_call": judge_call,
    "release": release,
    "classify": classify,
}
