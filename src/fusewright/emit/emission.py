"""What an emitted file is made of: the record that its printers share."""

from collections.abc import Mapping
from dataclasses import dataclass

from fusewright.ir.graph import Graph, InputSpec
from fusewright.ir.interface import Interface
from fusewright.ir.kernel import Program
from fusewright.options import Options
from fusewright.target.arch import Arch

from .segment import Segment, has_large_results, segments


@dataclass(frozen=True, slots=True)
class Emission:
    """Everything an emitted file is made of.

    `title` is the problem file's stem; `source` its text, or other Python that defines `Model`;
    `buffers` maps names of the graph's inputs to the program's buffers; `kernels` is the
    translation unit of the program's segments; `rewrites` are one line each.
    """

    title: str
    source: str
    graph: Graph
    program: Program
    buffers: Mapping[str, str]
    interface: Interface
    arch: Arch
    kernels: str
    rewrites: tuple[str, ...]
    options: Options
    version: str

    @property
    def cuda(self) -> bool:
        return self.arch.kind == "cuda"

    @property
    def tensors(self) -> tuple[InputSpec, ...]:
        """The inputs that forward reads: arguments first, then what modules hold; no literals."""
        held = dict(self.interface.held)
        live = [s for s in self.graph.inputs if s.literal is None]
        return tuple(sorted(live, key=lambda s: s.name in held))

    @property
    def torch_binding(self) -> bool:
        return self.options.binding == "torch"

    @property
    def segments(self) -> tuple[Segment, ...]:
        return segments(self.program)

    @property
    def allocates_results(self) -> bool:
        """Whether forward allocates the large results of products, in huge pages."""
        return not self.cuda and not self.torch_binding and has_large_results(self.program)

    @property
    def rounds_convolutions(self) -> bool:
        """Whether convolutions are rounded, which torch's flag for them must allow at each call."""
        kernels = (k for s in self.segments for k in s.kernels)
        return self.options.precision == "match" and any(k.scheme == "conv" for k in kernels)

    @property
    def keeps_forward(self) -> bool:
        """Whether the model's own forward makes the same library calls, and there is no kernel."""
        return not self.segments and not self.rewrites

    @property
    def source_name(self) -> str:
        """The name of the string that holds the kernels."""
        return "CUDA_SOURCE" if self.cuda else "CPP_SOURCE"
