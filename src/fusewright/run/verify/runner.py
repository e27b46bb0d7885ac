"""What a worker can be told to do with a user's module: build it, call it, change it, report.

The same commands serve the reference and the candidate, in different processes, so that whatever is
observed of one is observed of the other in the same way. No judgement is made here.
"""

import contextlib
import copy
import ctypes
import io
import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from fusewright.errors import ProblemError
from fusewright.problem import execute_file
from fusewright.run.verify import audit, generators, guard, handover, hidden, layouts, tensors
from fusewright.run.verify.specs import Spec

CONSTRUCTION_SEED = 42
_SETTLE_S = 0.05
_EXERCISE_S, _EXERCISE_CALLS = 0.3, 64
# Inputs of more bytes are not held between a call and its judgement.
LARGE_BYTES = 256 << 20


@dataclass(slots=True)
class Session:
    """Mutable state of one worker: the user's file, modules by slot, kept inputs and outputs."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    source: ModuleType | None = None
    cls: type[torch.nn.Module] | None = None
    before: guard.Snapshot | None = None
    heard: Callable[[], list[str]] = list
    slots: dict[str, torch.nn.Module] = field(default_factory=dict)
    modes: dict[str, bool] = field(default_factory=dict)
    entries: tuple[str, ...] = ()
    unsaved: hidden.Hidden = field(default_factory=dict)
    inputs: dict[str, list[Any]] = field(default_factory=dict)
    sources: dict[str, Callable[[], list[Any]]] = field(default_factory=dict)
    poison: bool = False
    kept: dict[str, Any] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    lender: handover.Lender = field(default_factory=handover.Lender)

    def loaded(self, spec: Spec, copy: bool = True) -> Any:
        """The value of a spec on the device, its records of the user's classes."""
        return tensors.load(spec, self.device, copy, self.lender, vars(self.source))


def load(session: Session, path: str, cls: str, device: str, poison: bool) -> dict[str, Any]:
    """Import the user's file; report which of the convention's names it has."""
    session.device, session.poison = torch.device(device), poison
    session.before = guard.take_snapshot()
    if poison:
        guard.poison_host_memory()
        guard.hide_own_modules()
        session.heard = audit.listen(str(Path(path).absolute()))
    session.source, _ = execute_file(path)
    found = getattr(session.source, cls, None)
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise ProblemError(f"{path} defines no torch.nn.Module named {cls}")
    session.cls = found
    return {"names": sorted(name for name in vars(session.source) if not name.startswith("_"))}


def construct(
    session: Session, slot: str, init: Spec, where: str, beside: list[str] | None = None
) -> dict[str, Any]:
    """Build the module as the convention does: seed 42, then the constructor, then the device.

    where: the default device of the constructor; large weights are drawn much faster on a GPU.
    beside: the buffers beside the state_dict that count as state; None for all.
    """
    assert session.cls is not None
    args, kwargs = tensors.load(init, torch.device("cpu"), names=vars(session.source))
    generators.seed(CONSTRUCTION_SEED)
    with torch.device(where) if where != "cpu" else contextlib.nullcontext():
        session.slots[slot] = session.cls(*args, **kwargs)
    module = session.slots[slot].to(session.device)
    if lazy := [name for name, p in module.named_parameters() if is_lazy(p)]:
        raise ProblemError(
            f"{lazy[0]} of {session.cls.__name__} is lazy: it has no shape before the first call. "
            "Let the constructor give it one"
        )
    session.entries = tuple(module.state_dict())
    session.modes = {path: part.training for path, part in module.named_modules()}
    beside = hidden.names(module) if beside is None else beside
    session.unsaved = hidden.remembered(module, beside)
    return {"training": module.training, "hidden": beside}


def state(session: Session, slot: str, prefix: str) -> Spec:
    """Dump the state_dict; each entry also says whether it is a parameter."""
    module = session.slots[slot]
    spec = tensors.dump(dict(module.state_dict(keep_vars=True)), prefix, session.lender)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for key, item in zip(spec["keys"], spec["items"]):
        item["role"] = "parameter" if key in parameters else "buffer"
    return spec


def load_state(session: Session, slot: str, spec: Spec, how: str) -> None:
    """Give the module the spec's values.

    how: "load" (load_state_dict), "copy" (in place, entry by entry), "data" (so, past autograd: no
    version counter shows it), "assign" (new tensors in place of the old ones) or "strided" (such in
    awkward storage). Buffers beside the state_dict get theirs, or their first values, in any case.
    """
    module = session.slots[slot]
    hidden.forget_late(module, session.entries)
    lender = session.lender
    fresh = how in ("assign", "strided")
    values = tensors.load(spec, session.device, lender=lender) if fresh else mapped(spec, lender)
    values, beside = hidden.split(session.unsaved, values)
    if how == "strided":
        values = tensors.map_leaves(values, layouts.strided_copy)
    if how in ("copy", "data"):
        with torch.no_grad():
            for name, target in module.state_dict(keep_vars=True).items():
                (target.data if how == "data" else target).copy_(values[name])
    else:
        module.load_state_dict(values, strict=True, assign=fresh)
    hidden.reset(module, beside)


def mapped(spec: Spec, lender: handover.Lender) -> dict[str, torch.Tensor]:
    """The tensors of a dict spec, without a copy."""
    return {key: tensors.read(item, lender) for key, item in zip(spec["keys"], spec["items"])}


def double(session: Session, slot: str) -> None:
    """The module in double precision from now on."""
    session.slots[slot].double()


def train(session: Session, slot: str, mode: bool) -> None:
    set_mode(session, session.slots[slot], mode)


def set_mode(session: Session, module: torch.nn.Module, mode: bool) -> torch.nn.Module:
    """As module.train(mode); in the mode that it was built in, each part is in its own again."""
    for path, part in module.train(mode).named_modules():
        if session.modes.get("") == mode:
            part.training = session.modes.get(path, part.training)
    return module


def put(session: Session, name: str, spec: Spec, layout: str) -> dict[str, bool]:
    """Make inputs under `name`. Layouts: "plain" (fresh storage), "reuse" (new values into the
    tensors that `name` already has), "strided", "padded", "permuted" and "misaligned" (same values,
    awkward storage), "borrowed" (floats stay where they came from: for a call that gets copies, see
    `gradients`)."""
    if layout != "reuse":
        drop_inputs(session, name)

    session.sources[name] = lambda: session.loaded(spec, copy=False)
    if layout == "plain":
        session.inputs[name] = session.loaded(spec)
    fresh = session.inputs[name] if layout == "plain" else session.sources[name]()
    if layout == "reuse":
        for (_, old), (_, new) in zip(
            tensors.tensor_leaves(session.inputs[name]), tensors.tensor_leaves(fresh)
        ):
            strides = old.stride()
            # As a kernel writes: past autograd, so that no version counter shows it.
            target = tensors.distinct_elements(old.data, strides)
            target.copy_(tensors.distinct_elements(new, strides))
        return {"changed": True}
    change = {
        "plain": _same,
        "borrowed": _borrowed,
        "strided": layouts.strided_copy,
        "padded": layouts.padded_copy,
        "permuted": layouts.permuted_copy,
        "misaligned": layouts.misaligned_copy,
    }[layout]
    session.inputs[name] = tensors.map_leaves(fresh, change)
    made = tensors.tensor_leaves(session.inputs[name])
    return {"changed": any(layouts.awkward(t) for _, t in made)}


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _borrowed(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach() if tensor.is_floating_point() else tensor.clone()


def drop_inputs(session: Session, name: str) -> None:
    """Let go of kept inputs; the memory of large ones goes back to the device."""
    size = _byte_count(session.inputs.pop(name, []))
    session.sources.pop(name, None)
    if size > LARGE_BYTES:
        release_memory(session.device)


def _byte_count(value: Any) -> int:
    return sum(t.nbytes for _, t in tensors.tensor_leaves(value))


@dataclass(frozen=True, slots=True)
class CallPlan:
    """How to call: see `call`."""

    slot: str
    inputs: str
    seed: int
    prefix: str | None
    context: str = "no_grad"
    state: Spec | None = None
    settle: bool = False
    keep: str | None = None
    drop: bool = False
    written: bool = False


def call(session: Session, **arguments: Any) -> dict[str, Any]:
    """Run forward on kept inputs and dump what came out.

    context: "no_grad", "inference", "grad" or "thread" (no_grad, in another thread). state: what
    the module's state is before the call; where it is given, the entries and inputs that the call
    changed are reported too. settle: look again a moment later whether the output still changes.
    keep: name under which the output stays alive. drop: let go of large inputs, which otherwise
    stay for further calls. written: report all that was written in place, too.
    """
    plan = CallPlan(**arguments)
    module, inputs = session.slots[plan.slot], session.inputs[plan.inputs]
    if session.poison:
        guard.poison_device_memory(session.device, session.sizes)
    versions = _versions(session, module, inputs) if plan.written else {}
    generators.seed(plan.seed)
    rng, start = generators.digest(session.device), time.perf_counter()
    output = _called(plan.context, module, inputs)
    first = tensors.map_leaves(output, _copy) if plan.settle else None
    synchronize(session.device)
    seconds = time.perf_counter() - start
    report: dict[str, Any] = {
        "seconds": seconds,
        "rng": rng != (after := generators.digest(session.device)),
        "rng_after": after,
    }
    report["unsettled"] = _unsettled(first, output, session.device) if plan.settle else []
    report["output"] = tensors.dump(output, plan.prefix, session.lender)
    report["aliases"] = tensors.aliases(output, inputs, module)
    if plan.state is not None:
        report["effects"] = _changes(session, plan, module, inputs)
        now = _versions(session, module, inputs) if plan.written else {}
        report["written"] = [path for path, n in now.items() if versions.get(path) != n]
    else:
        report["overwritten"] = _overwritten(session, plan.inputs)
    if plan.keep:
        session.kept[plan.keep] = output
    session.sizes = [leaf.untyped_storage().nbytes() for _, leaf in tensors.plain_leaves(output)]
    del inputs, output, first
    if plan.drop and _byte_count(session.inputs[plan.inputs]) > LARGE_BYTES:
        drop_inputs(session, plan.inputs)
    return report


def _called(context: str, module: torch.nn.Module, inputs: list[Any]) -> Any:
    """The module's answer, in the context of a CallPlan."""

    def answer() -> Any:
        with context_of(context):
            return module(*inputs)

    if context != "thread":
        return answer()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(answer).result()


def context_of(name: str) -> contextlib.AbstractContextManager[Any]:
    contexts = {"inference": torch.inference_mode, "grad": torch.enable_grad}
    return contexts.get(name, torch.no_grad)()


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _overwritten(session: Session, name: str) -> list[str]:
    """Inputs that hold other values than they were made from; of large ones nothing is said."""
    now, then = session.inputs[name], session.sources[name]
    if _byte_count(now) > LARGE_BYTES:
        return []
    pairs = zip(tensors.tensor_leaves(now), tensors.tensor_leaves(then()))
    return [f"input{k}" for (k, a), (_, b) in pairs if not tensors.same_bits(b.to(a.device), a)]


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor).copy_(tensor) if tensor.layout == torch.strided else tensor


def _unsettled(first: Any, output: Any, device: torch.device) -> list[str]:
    """Outputs that differ from the copy made at once, now that everything had time to finish."""
    time.sleep(_SETTLE_S)
    synchronize(device)
    pairs = zip(tensors.plain_leaves(first), tensors.plain_leaves(output), strict=True)
    return [path for (path, early), (_, late) in pairs if not tensors.same_bits(early, late)]


def _versions(session: Session, module: torch.nn.Module, inputs: list[Any]) -> dict[str, int]:
    """How often each input and state entry has been written in place, as torch counts it."""
    found = {f"input{k}": t for k, t in tensors.tensor_leaves(inputs)}
    held = hidden.full_state(module, session.unsaved)
    found |= {f"state {k}": t for k, t in held.items()}
    return {k: -1 if t.is_inference() else t._version for k, t in found.items()}


def _changes(
    session: Session, plan: CallPlan, module: torch.nn.Module, inputs: list[Any]
) -> dict[str, Spec]:
    """Dump the inputs and state entries whose values are not those that they were made from."""
    assert plan.state is not None
    given = dict(tensors.tensor_leaves(session.sources[plan.inputs]()))
    held = {name: value for name, value in session.unsaved.items() if value is not None}
    before = {"inputs": given, "state": held | mapped(plan.state, session.lender)}
    state = hidden.full_state(module, session.unsaved)
    after = {"inputs": dict(tensors.tensor_leaves(inputs)), "state": state}
    return {
        kind: tensors.dump(
            {
                name: tensor
                for name, tensor in after[kind].items()
                if name not in old or not tensors.same_bits(old[name].to(tensor.device), tensor)
            },
            f"{plan.prefix}-{kind}" if plan.prefix else None,
            session.lender,
        )
        for kind, old in before.items()
    }


def exercise(session: Session, slot: str, inputs: str, seed: int, prefix: str) -> Spec | None:
    """Equal calls, as many as fit into a short time; dumps the output that differs from the first
    one, or that one. None where the inputs are gone, or outputs are large."""
    if inputs not in session.inputs or sum(session.sizes) > LARGE_BYTES:
        return None
    end, first, shown = time.perf_counter() + _EXERCISE_S, None, None
    for _ in range(_EXERCISE_CALLS):
        generators.seed(seed)
        with torch.no_grad():
            output = session.slots[slot](*session.inputs[inputs])
        pairs = zip(tensors.plain_leaves(output), tensors.plain_leaves(first))
        if first is None or not all(tensors.same_bits(now, old) for (_, now), (_, old) in pairs):
            shown = tensors.map_leaves(output, _copy)
            if first is not None:
                break
            first = shown
        if time.perf_counter() > end:
            break
    return tensors.dump(shown, prefix, session.lender)


def redump(session: Session, keep: str, prefix: str) -> Spec:
    """Dump a kept output again, as it is now, and let go of it."""
    return tensors.dump(session.kept.pop(keep), prefix, session.lender)


def duplicate(session: Session, slot: str, into: str, how: str) -> None:
    """Another module equal to `slot`, by "deepcopy" or by "pickle"."""
    module = session.slots[slot]
    if how == "deepcopy":
        session.slots[into] = copy.deepcopy(module)
    else:
        session.slots[into] = pickle.load(io.BytesIO(pickle.dumps(module)))


def offer(session: Session, device: str) -> Spec | None:
    return handover.offer(session.lender, device)


def accept(session: Session, spec: Spec) -> str:
    return handover.accept(session.lender, spec)


def lend(session: Session) -> None:
    """From now on large CUDA tensors are lent: the other process was seen to borrow."""
    session.lender.active = True


def take_back(session: Session, keys: list[int]) -> None:
    session.lender.take_back(keys)
    release_memory(session.device)


def drop(session: Session, slot: str) -> None:
    """Forget a module, so that large weights are not held twice."""
    session.slots.pop(slot, None)
    release_memory(session.device)


def recover(session: Session, slot: str, mode: bool) -> None:
    """After a check that broke off: the module of `slot` stays, in its mode, and nothing else."""
    session.slots = {slot: set_mode(session, session.slots[slot], mode)}
    for held in (session.inputs, session.sources, session.kept):
        held.clear()
    release_memory(session.device)


def findings(session: Session) -> dict[str, Any]:
    """What the user's code did to this process since before its import."""
    assert session.before is not None
    found = [*guard.findings(session.before), *session.heard()]
    return {"findings": found, "children": guard.child_processes()}


def forget(session: Session) -> None:
    """Drop modules, inputs and outputs; return freed memory to the system."""
    session.slots.clear()
    session.inputs.clear()
    session.kept.clear()
    release_memory(session.device)


def release_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


COMMANDS = {
    "load": load,
    "construct": construct,
    "state": state,
    "load_state": load_state,
    "double": double,
    "train": train,
    "put": put,
    "drop_inputs": drop_inputs,
    "call": call,
    "exercise": exercise,
    "redump": redump,
    "duplicate": duplicate,
    "offer": offer,
    "accept": accept,
    "lend": lend,
    "take_back": take_back,
    "drop": drop,
    "recover": recover,
    "findings": findings,
    "forget": forget,
}
