"""Specs: JSON descriptions of nested values whose tensors lie in files. No torch.

A spec is a dict with a kind `k`: "tensor" (dtype, shape, stride, file, ...), "list", "tuple",
"dict" and "record" (named tuple, dataclass) with `items`, "value" (None, bool, int, float, str),
"torch" (a torch.dtype or torch.device by name) or "opaque" (anything else: only its type name).
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

Spec = dict[str, Any]
CONTAINERS = ("list", "tuple", "dict", "record")


def leaves(spec: Spec, path: str = "") -> Iterator[tuple[str, Spec]]:
    """(path, leaf) for every leaf in order; paths look like `[0].key[2]`, the root's is empty."""
    if spec["k"] not in CONTAINERS:
        yield path, spec
        return
    for key, item in zip(item_keys(spec), spec["items"], strict=True):
        yield from leaves(item, f"{path}[{key}]")


def item_keys(spec: Spec) -> list[str]:
    """The names of a container's items: keys of a dict or record, positions else."""
    return spec.get("keys") or [str(i) for i in range(len(spec["items"]))]


def tensors(spec: Spec) -> list[tuple[str, Spec]]:
    """The tensor leaves of a spec, with their paths."""
    return [(path, leaf) for path, leaf in leaves(spec) if leaf["k"] == "tensor"]


def map_tensors(spec: Spec, change: Callable[[str, Spec], Spec], path: str = "") -> Spec:
    """The spec with every tensor leaf replaced by `change(path, leaf)`."""
    if spec["k"] == "tensor":
        return change(path, spec)
    if spec["k"] not in CONTAINERS:
        return spec
    items = [
        map_tensors(item, change, f"{path}[{key}]")
        for key, item in zip(item_keys(spec), spec["items"], strict=True)
    ]
    return spec | {"items": items}


# Python floats are compared as elements of a float32 tensor are.
_FLOAT_TOLERANCE = 5e-6


def structure_differences(
    expected: Spec, got: Spec, path: str = "output", sampled: bool = False
) -> list[str]:
    """How `got` differs from `expected` in nesting, types, dtypes, shapes and plain values.

    sampled: `expected` holds some rows of a batch only, so shapes are not compared.
    """
    if expected["k"] != got["k"]:
        return [f"{path} is {describe(got)}, not {describe(expected)}"]
    if expected["k"] in CONTAINERS:
        return _container_differences(expected, got, path, sampled)
    if expected["k"] == "tensor":
        return _tensor_differences(expected, got, path, sampled)
    if not _same_value(expected.get("value"), got.get("value")):
        return [f"{path} is {got.get('value')!r}, not {expected.get('value')!r}"]
    return []


def _same_value(expected: Any, got: Any) -> bool:
    if type(expected) is float and type(got) is float:
        return math.isclose(expected, got, rel_tol=_FLOAT_TOLERANCE) or expected != expected != got
    return type(expected) is type(got) and expected == got


def _container_differences(expected: Spec, got: Spec, path: str, sampled: bool) -> list[str]:
    if expected["type"] != got["type"]:
        return [f"{path} is a {got['type']}, not a {expected['type']}"]
    if item_keys(expected) != item_keys(got):
        return [f"{path} has the items {item_keys(got)}, not {item_keys(expected)}"]
    return [
        difference
        for key, mine, theirs in zip(
            item_keys(expected), expected["items"], got["items"], strict=True
        )
        for difference in structure_differences(mine, theirs, f"{path}[{key}]", sampled)
    ]


def _tensor_differences(expected: Spec, got: Spec, path: str, sampled: bool) -> list[str]:
    return [
        f"{path} has the {what} {got[what]}, not {expected[what]}"
        for what in ("type", "dtype", "shape", "device")
        if expected[what] != got[what] and not (sampled and what == "shape")
    ]


def describe(spec: Spec) -> str:
    if spec["k"] == "tensor":
        return f"a {spec['dtype']} tensor of shape {spec['shape']}"
    if spec["k"] == "value":
        return repr(spec["value"])
    return f"a {spec.get('type', spec['k'])}"


def contiguous_strides(shape: list[int]) -> list[int]:
    """Row-major strides, in elements."""
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1)
    return strides[::-1]


def same_layout(first: Spec, second: Spec) -> bool:
    """Equal strides along every axis that has more than one element."""
    return 0 in first["shape"] or all(
        a == b for n, a, b in zip(first["shape"], first["stride"], second["stride"]) if n > 1
    )


def is_contiguous(spec: Spec) -> bool:
    return same_layout(spec, spec | {"stride": contiguous_strides(spec["shape"])})


def batch_rows(spec: Spec) -> int:
    """Extent of axis 0 of the first tensor; 0 where there is none."""
    shapes = [leaf["shape"] for _, leaf in tensors(spec)]
    return shapes[0][0] if shapes and shapes[0] else 0


def loans(spec: Spec) -> list[int]:
    """Keys of the tensors that were lent."""
    return [leaf["lent"]["key"] for _, leaf in tensors(spec) if "lent" in leaf]


def lent_bytes(spec: Spec) -> int:
    """Bytes of the tensors that were lent."""
    return sum(leaf["bytes"] for _, leaf in tensors(spec) if "lent" in leaf)


def byte_count(spec: Spec) -> int:
    """Bytes of all tensors of the spec."""
    return sum(leaf["bytes"] for _, leaf in tensors(spec))
