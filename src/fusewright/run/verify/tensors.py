"""Nested Python values with tensors <-> specs with files. Runs in the workers.

Files hold the raw little-endian bytes in row-major order: no pickle, so reading one cannot run
code. What a spec says beyond that (strides, storage, type) describes the tensor as it was found.
"""

import dataclasses
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fusewright.errors import ProblemError
from fusewright.run.verify import hidden
from fusewright.run.verify.handover import Lender
from fusewright.run.verify.specs import Spec, contiguous_strides

_PLAIN = (bool, int, float, str, type(None))


_SPARSE = (
    torch.sparse_coo,
    torch.sparse_csr,
    torch.sparse_csc,
    torch.sparse_bsr,
    torch.sparse_bsc,
)
# Types that a caller can rely on; a subclass may compute, or lie, when it is looked at.
_EXACT_TYPES = (torch.Tensor, torch.nn.Parameter, list, tuple, dict, OrderedDict)


def type_name(value: Any) -> str:
    """The name of a value's type, told from classes that only bear the name of a known one."""
    name = type(value).__qualname__
    return name if type(value) in _EXACT_TYPES else f"{name} of its own"


def is_record(value: Any) -> bool:
    return (isinstance(value, tuple) and hasattr(value, "_fields")) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type | Mapping)
    )


def record_fields(value: Any) -> list[str]:
    if isinstance(value, tuple):
        return list(value._fields)  # type: ignore[attr-defined]
    return [field.name for field in dataclasses.fields(value)]


def items_of(value: Any) -> list[tuple[str, Any]] | None:
    """(key, item) of a container, None for a leaf."""
    if is_record(value):
        return [(name, getattr(value, name)) for name in record_fields(value)]
    if isinstance(value, Mapping):
        return [(str(key), item) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [(str(i), item) for i, item in enumerate(value)]
    return None


def tensor_leaves(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """(path, tensor) for every tensor in a nested value; the paths are those of `specs.leaves`."""
    if isinstance(value, torch.Tensor):
        yield path, value
        return
    for key, item in items_of(value) or []:
        yield from tensor_leaves(item, f"{path}[{key}]")


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """The values of a sparse tensor with all the zeros between them; any other as it is."""
    if tensor.layout not in _SPARSE:
        return tensor
    with torch.inference_mode(tensor.is_inference()):
        return tensor.detach().to_dense()


def plain_leaves(value: Any) -> list[tuple[str, torch.Tensor]]:
    """The tensors of `tensor_leaves` that have strides."""
    return [(p, t) for p, t in tensor_leaves(value) if t.layout == torch.strided]


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Equal shape, dtype and values; NaN equals NaN."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if torch.equal(first, second):
        return True
    if first.dtype.is_floating_point or first.dtype.is_complex:
        return bool(((first == second) | (first.isnan() & second.isnan())).all())
    return False


def aliases(output: Any, inputs: list[Any], module: torch.nn.Module) -> list[str]:
    """Outputs that share storage with an input, with the state, or with each other."""
    owners: dict[int, str] = {}
    for label, found in (
        ("input", dict(plain_leaves(inputs))),
        ("state ", hidden.full_state(module)),
    ):
        owners |= {t.untyped_storage().data_ptr(): f"{label}{name}" for name, t in found.items()}
    shared: list[str] = []
    for path, leaf in plain_leaves(output):
        pointer = leaf.untyped_storage().data_ptr()
        if pointer and pointer in owners:
            shared.append(f"output{path} shares memory with {owners[pointer]}")
        owners[pointer] = f"output{path}"
    return shared


def map_leaves(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """The nested value with each tensor replaced by `change(tensor)`; mappings that are no dicts
    become dicts."""
    return map_values(value, lambda v: change(v) if isinstance(v, torch.Tensor) else v)


def map_values(value: Any, change: Callable[[Any], Any]) -> Any:
    """As `map_leaves`, of all that is no container."""
    if is_record(value):
        changed = {k: map_values(v, change) for k, v in items_of(value) or []}
        if isinstance(value, tuple):
            return type(value)(**changed)
        return dataclasses.replace(value, **changed)
    if isinstance(value, Mapping):
        return _same_mapping(value, {k: map_values(v, change) for k, v in value.items()})
    if isinstance(value, list | tuple):
        return type(value)(map_values(item, change) for item in value)
    return change(value)


def _same_mapping(like: Mapping[Any, Any], items: dict[Any, Any]) -> dict[Any, Any]:
    """A dict of the class of `like`, made without its constructor, which may want arguments."""
    if not isinstance(like, dict):
        return items
    made = type(like).__new__(type(like))
    base: Any = OrderedDict if isinstance(like, OrderedDict) else dict
    for key, item in items.items():
        base.__setitem__(made, key, item)
    return made


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Some rows of a batch of `total`: their indices, ascending."""

    total: int
    rows: torch.Tensor

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sampled rows of a tensor of `total` rows; any other tensor as it is."""
        if not tensor.ndim or tensor.shape[0] != self.total:
            return tensor
        return tensor.index_select(0, self.rows.to(tensor.device))


def take_sample(value: Any, sample: Sample | None) -> Any:
    """The nested value with every tensor cut to the sampled rows; None stands for all rows."""
    return value if sample is None else map_leaves(value, sample.of)


def dump(value: Any, prefix: str | None, lender: Lender | None = None) -> Spec:
    """Write every tensor of `value` to `<prefix>-<n>.bin`, or lend it, and describe it all.

    Without a prefix nothing is written and the tensors' specs name no file.
    """
    return _dump(value, prefix, itertools.count(), lender or Lender())


def _dump(value: Any, prefix: str | None, counter: Iterator[int], lender: Lender) -> Spec:
    if isinstance(value, torch.Tensor):
        return _dump_tensor(value, prefix and Path(f"{prefix}-{next(counter)}.bin"), lender)
    if isinstance(value, _PLAIN):
        return {"k": "value", "value": value}
    if isinstance(value, torch.dtype | torch.device):
        kind = "dtype" if isinstance(value, torch.dtype) else "device"
        return {"k": "torch", "type": kind, "value": str(value).removeprefix("torch.")}
    items = items_of(value)
    name = type_name(value)
    if items is None:
        return {"k": "opaque", "type": name}
    kind = (
        "record"
        if is_record(value)
        else "dict"
        if isinstance(value, Mapping)
        else "list"
        if isinstance(value, list)
        else "tuple"
    )
    found = [_dump(item, prefix, counter, lender) for _, item in items]
    spec: Spec = {"k": kind, "type": name, "items": found}
    if kind in ("dict", "record"):
        spec["keys"] = [key for key, _ in items]
    return spec | ({"class": type(value).__name__} if kind == "record" else {})


def _dump_tensor(tensor: torch.Tensor, path: Path | str | None, lender: Lender) -> Spec:
    if tensor.layout in _SPARSE:
        spec = _dump_tensor(dense(tensor), path, lender)
        return spec | {"type": f"{tensor.layout} {type_name(tensor)}"}
    if tensor.layout != torch.strided or tensor.is_quantized:
        return {"k": "opaque", "type": f"{tensor.layout} tensor"}
    spec = describe_tensor(tensor)
    if not path:
        return spec
    if lender.takes(tensor):
        return spec | {"lent": lender.lend(tensor)}
    write(tensor, Path(path))
    return spec | {"file": str(path)}


def describe_tensor(tensor: torch.Tensor) -> Spec:
    """The spec of a strided tensor, without a file."""
    storage = tensor.untyped_storage()
    return {
        "k": "tensor",
        "type": type_name(tensor),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "stride": list(tensor.stride()),
        "device": tensor.device.type,
        "bytes": tensor.numel() * tensor.element_size(),
        "grad": tensor.requires_grad,
        "storage": storage.data_ptr(),
        "storage_bytes": storage.nbytes(),
    }


def write(tensor: torch.Tensor, path: Path) -> None:
    """The elements in row-major order, as raw bytes."""
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    if plain.numel() == 0:
        path.write_bytes(b"")
        return
    plain.reshape(-1).view(torch.uint8).numpy().tofile(path)


def read(spec: Spec, lender: Lender | None = None) -> torch.Tensor:
    """The tensor of a tensor spec: a private mapping of its file on the CPU, or what was lent, both
    row-major.

    Raises ProblemError when the file does not hold what the spec says.
    """
    if "lent" in spec:
        return (lender or Lender()).borrow(spec)
    dtype, shape = getattr(torch, spec["dtype"]), spec["shape"]
    count = torch.Size(shape).numel()
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    size = count * torch.empty(0, dtype=dtype).element_size()
    found = Path(spec["file"]).stat().st_size
    if found != size:
        raise ProblemError(f"{spec['file']}: {found} bytes where the spec says {size}")
    flat = torch.from_file(spec["file"], shared=False, size=size, dtype=torch.uint8)
    return flat.view(dtype).reshape(shape)


def relaid(tensor: torch.Tensor, stride: Sequence[int]) -> torch.Tensor:
    """A copy with the given strides (in elements) in fresh storage, of minimal size.

    Axes of stride 0 repeat their first element. Strides that overlap in any other way cannot be
    filled; the copy is contiguous then.
    """
    if list(stride) == list(tensor.contiguous().stride()):
        return tensor.contiguous().clone()
    core = distinct_elements(tensor, stride)
    if not tensor.numel() or not _is_injective(core.shape, stride):
        return tensor.contiguous().clone()
    extent = 1 + sum((n - 1) * step for n, step in zip(core.shape, stride))
    view = tensor.new_zeros(extent).as_strided(core.shape, tuple(stride))
    return view.copy_(core).expand(tensor.shape)


def distinct_elements(tensor: torch.Tensor, stride: Sequence[int]) -> torch.Tensor:
    """The view without the repetitions that strides of 0 make."""
    for axis, step in enumerate(stride):
        if step == 0 and tensor.shape[axis] > 1:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor


def _is_injective(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether no two indices share an address: each step passes all that the smaller ones reach."""
    reach = 0
    for step, extent in sorted((s, n) for n, s in zip(shape, stride) if n > 1):
        if step <= reach:
            return False
        reach += (extent - 1) * step
    return True


def load(
    spec: Spec,
    device: torch.device,
    copy: bool = True,
    lender: Lender | None = None,
    names: Mapping[str, Any] | None = None,
) -> Any:
    """The nested value of a spec, its tensors on `device` with their strides.

    Records are made by the classes that are so called in `names`, a file's globals. Without `copy`,
    contiguous tensors on the CPU are private mappings of their files: nothing is read before it is
    used, and nothing counts as used memory. What was lent is not copied either.
    """
    match spec["k"]:
        case "tensor":
            tensor = read(spec, lender).to(device)
            borrowed = not copy and spec["stride"] == contiguous_strides(spec["shape"])
            return tensor if borrowed else relaid(tensor, spec["stride"])
        case "value":
            return spec["value"]
        case "torch":
            name = spec["value"]
            return getattr(torch, name) if spec["type"] == "dtype" else torch.device(name)
        case "list":
            return [load(item, device, copy, lender, names) for item in spec["items"]]
        case "tuple":
            return tuple(load(item, device, copy, lender, names) for item in spec["items"])
        case "dict" | "record":
            items = (load(item, device, copy, lender, names) for item in spec["items"])
            found = dict(zip(spec["keys"], items, strict=True))
            if spec["k"] == "dict":
                return OrderedDict(found) if spec["type"] == "OrderedDict" else found
            cls = (names or {}).get(spec["class"])
            if cls is not None:
                return cls(**found)
    raise ProblemError(f"an argument of type {spec['type']} cannot be handed to another process")
