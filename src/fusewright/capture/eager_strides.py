"""Strides as eager's kernels lay results out, where torch's fake tensors say something else.

Only `written`'s metadata is touched, which outputs take their strides from. What is wrong in fake
tensors (torch 2.13) is in _RULES; everything after such an operator is laid out once more.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._prims_common import suggest_memory_format
from torch.export import ExportedProgram

aten = torch.ops.aten


def lay_out_as_eager(program: ExportedProgram) -> None:
    """Correct `meta["val"]` of a program with operators of _RULES, in place."""
    graph = program.graph
    if not any(node.target in _RULES for node in graph.nodes):
        return
    given = [node.meta["val"] for node in graph.nodes if node.op == "placeholder"]
    modes = (v.fake_mode for v in given if isinstance(v, torch._subclasses.FakeTensor))
    if mode := next(modes, None):
        with mode, torch.no_grad():
            _Eager(program.graph_module).run(*given, enable_io_processing=False)


class _Eager(fx.Interpreter):
    """Computes the fake values anew that depend on one whose strides were wrong."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.changed: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        if n.op != "call_function":
            return super().run_node(n)
        rule, old = _RULES.get(n.target), n.meta.get("val")
        if not rule and not self.changed.intersection(n.all_input_nodes):
            return old
        made = rule(old, *self.fetch_args_kwargs_from_env(n)[0]) if rule else super().run_node(n)
        if isinstance(old, torch.Tensor) and made.stride() != old.stride():
            self.changed.add(n)
            n.meta["val"] = made
        return n.meta.get("val")


def _copysign(made: torch.Tensor, x: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """As any other operation of two tensors."""
    return made.new_empty_strided(made.shape, torch.add(x, sign).stride())


def _batch_norm(made: torch.Tensor, x: torch.Tensor, *_: Any) -> torch.Tensor:
    """Channels last where the argument has them so, else row-major: ATen's kernel for the CPU, and
    what no caller on a GPU can mind."""
    return torch.empty_like(made, memory_format=suggest_memory_format(x))


_RULES: dict[Any, Callable[..., torch.Tensor]] = {
    aten.copysign.Tensor: _copysign,
    aten.batch_norm.default: _batch_norm,
}
