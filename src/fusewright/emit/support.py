"""Python text that every emitted file contains: guards, loading of the kernels, small helpers.

The text is plain PyTorch 2.0, without the words that checkers of generated kernels refuse. What
differs between models is in `module` and `forward`.
"""

IMPORTS = (
    "import ctypes",
    "import functools",
    "import inspect",
    "import os",
    "import warnings",
    "",
    "import torch",
    "from torch.utils import cpp_extension",
)

CPU_FLAGS = (
    "-O3",
    "-march=native",
    "-fopenmp",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-std=c++17",
)
# Keeps torch's libraries as dependencies, so that OpenMP is torch's own: one pool of workers.
CPU_LINK_FLAGS = ("-Wl,--no-as-needed",)
CUDA_FLAGS = ("-O3", "-std=c++17", "-lineinfo")

MODULES = '''
def _modules_of(module, found):
    """The module and all in it, once each, in the order of modules(), which takes three times as
    long."""
    found[module] = None
    for child in module._modules.values():
        if child is not None and child not in found:
            if child._modules:
                _modules_of(child, found)
            else:
                found[child] = None
    return found


def _changed_module(modules):
    """How the modules differ from those that were captured, or None."""
    if len(modules) != len(_MODULES):
        return f"the model has {len(modules)} modules, not {len(_MODULES)}"
    for module, (path, name, attributes) in zip(modules, _MODULES):
        if path:
            if type(module).__name__ != name:
                return f"{path} is a {type(module).__name__}, not a {name}"
            if module._forward_hooks or module._forward_pre_hooks:
                return f"{path} has forward hooks"
        if attributes and not attributes.items() <= module.__dict__.items():
            now = {k: module.__dict__.get(k) for k in attributes}
            changed = [k for k in attributes if now[k] != attributes[k]]
            return f"{path or 'the model'}: {changed} differ from the values at capture"
    return None
'''

HELD = '''
def _held(modules):
    """The parameters and buffers of the table, as they are now."""
    return [modules[k].__dict__[registry].get(name) for k, registry, name in _HELD]
'''

TENSORS = '''
_PLAIN = (torch.Tensor, torch.nn.Parameter)
_STRIDED = torch.strided


def _changed_tensor(tensors):
    """How the tensors differ from those the kernels are made for, or None."""
@FIRST@    grad = torch.is_grad_enabled()
    for tensor, (name, dtype, shape, strides) in zip(tensors, _TENSORS):
        if type(tensor) not in _PLAIN:
            return f"{name} is a {type(tensor).__name__}"
        if tensor.dtype is not dtype or tensor.shape != shape:
            return f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not {dtype} {shape}"
@EACH@        if tensor.layout is not _STRIDED or tensor.is_neg():
            return f"{name} is not a plain strided tensor"
        if tensor.stride() != strides and tensor.numel():
            pairs = zip(tensor.stride(), strides, shape)
            if any(have != want and n > 1 for have, want, n in pairs):
                return f"{name} has strides {tensor.stride()}, not {strides}"
        if grad and tensor.requires_grad:
            return f"{name} needs gradients; torch.no_grad() admits the kernels"
@LAST@    return None
'''

# Where the tensors are: what `_changed_tensor` does first, for each and last.
ON_CPU = (
    "",
    '''        if not tensor.is_cpu:
            return f"the tensors are on {tensor.device}; the kernels are for cpu"
''',
    '''    if _autocast():
        return "autocast is on"
''',
)
ON_CUDA = (
    "    device = None\n",
    '''        if device is None:
            device = tensor.device
        elif tensor.device != device:
            return f"{name} is on {tensor.device}, another tensor on {device}"
''',
    '''    if device is not None and device.type != "cuda":
        return f"the tensors are on {device}; the kernels are for cuda"
    if torch.is_autocast_enabled():
        return "autocast is on"
    if not _capable(device):
        return f"the kernels are for compute capability @CAPABLE@, not that of {device}"
''',
)

CAPABLE = '''
@functools.lru_cache(maxsize=None)
def _capable(device):
    """Whether the device runs the architecture that the kernels are compiled for."""
    capability = torch.cuda.get_device_capability(device)
    return @TEST@
'''

AUTOCAST = '''
# Whether autocast is on for the CPU; since 2.4 the general function takes a device.
_autocast = (
    functools.partial(torch.is_autocast_enabled, "cpu")
    if hasattr(torch, "get_autocast_dtype")
    else torch.is_autocast_cpu_enabled
)
'''

WARN = '''
_warned = set()


def _warn_once(refusal):
    """Say once why the reference forward runs."""
    if refusal not in _warned:
        _warned.add(refusal)
        warnings.warn(f"the reference forward runs, not the kernels: {refusal}", stacklevel=6)
'''

OVERLAP = '''
def _overlap(tensors, written):
    """Why writing to the tensors at the positions `written` would change others, or None."""
    memory = [tensor.untyped_storage().data_ptr() for tensor in tensors]
    for position in written:
        if memory.count(memory[position]) > 1:
            return f"{_TENSORS[position][0]} is written and shares memory with another tensor"
    return None
'''

ALIGNED = '''
def _aligned(tensors):
    """The tensors, copies of those whose address does not suit 16-byte accesses."""
    return [tensor if tensor.data_ptr() % 16 == 0 else tensor.clone() for tensor in tensors]
'''

RESULTS = '''
def _results(result, strides):
    """The tensors that an operator returned, laid out with the strides they had at capture."""
    found = [result] if isinstance(result, torch.Tensor) else result
    tensors = [tensor for tensor in found if isinstance(tensor, torch.Tensor)]
    return [tensor if s is None else _laid_out(tensor, s) for tensor, s in zip(tensors, strides)]


def _laid_out(tensor, strides):
    """The tensor with these strides: itself, or a copy."""
    if tensor.stride() == strides:
        return tensor
    return torch.empty_strided(
        tensor.shape, strides, dtype=tensor.dtype, device=tensor.device
    ).copy_(tensor)
'''

RAISE_CPU = '''
def _raise(library, status):
    """Raise what a kernel reported."""
    raise IndexError("an index tensor holds a value that is out of range")
'''

RAISE_CUDA = '''
def _raise(library, status):
    """Raise what a launch reported."""
    library.cudaGetErrorName.restype = ctypes.c_char_p
    name = library.cudaGetErrorName(status).decode()
    raise RuntimeError(f"a kernel could not be launched: {name}")
'''

LIBRARY = '''
@functools.lru_cache(maxsize=None)
def _library():
    """The kernels, compiled on first use; the compiled file is kept under a name of its content."""
    name = "@NAME@"
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root()
    folder = os.path.join(root, name)
    os.makedirs(folder, exist_ok=True)
    options = {}
    if "no_implicit_headers" in inspect.signature(cpp_extension.load_inline).parameters:
        options["no_implicit_headers"] = True
    else:  # older versions include torch's large headers: empty ones in front of them are found
        options["extra_include_paths"] = [os.path.join(folder, "empty")]
        os.makedirs(os.path.join(folder, "empty", "torch"), exist_ok=True)
        for header in ("extension.h", "types.h"):
            open(os.path.join(folder, "empty", "torch", header), "a").close()
    cpp_extension.load_inline(
        name=name,
@SOURCES@
        functions=None,
@FLAGS@
        build_directory=folder,
        is_python_module=False,
        **options,
    )
    library = ctypes.CDLL(os.path.join(folder, f"{name}.so"))
@ENTRIES@
    return library
'''

TORCH_LIBRARY = '''
@functools.lru_cache(maxsize=None)
def _library():
    """The kernels, compiled on first use."""
    return cpp_extension.load_inline(
        name="@NAME@",
@SOURCES@
        functions=@FUNCTIONS@,
@FLAGS@
    )
'''
