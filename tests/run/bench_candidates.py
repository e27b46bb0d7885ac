"""Texts of small problems and of candidates for them, honest and not: material of test_bench.py."""

HEADER = "import threading, time\nimport torch\nfrom torch import nn\n"

REFERENCE = (
    HEADER
    + """
class Model(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.linear = nn.Linear(size, size)

    def forward(self, x):
        return self.linear(x).sum(dim=1, keepdim=True)

def get_inputs():
    return [torch.randn(256, 512)]

def get_init_inputs():
    return [512]
"""
)


def enlarged(text: str) -> str:
    """The problem in a size where arithmetic outweighs everything that a busy machine adds."""
    return text.replace("[512]", "[1024]").replace("randn(256, 512)", "randn(1024, 1024)")


# The same function by algebra: the column sums of the weight, then a matrix-vector product.
FASTER = (
    REFERENCE
    + """
class ModelNew(Model):
    def forward(self, x):
        return torch.addmv(self.linear.bias.sum(), x, self.linear.weight.sum(dim=0)).unsqueeze(1)
"""
)

SLEEPING = (
    REFERENCE
    + """
class ModelNew(Model):
    def forward(self, x):
        time.sleep(0.05)
        return super().forward(x)
"""
)

CACHED = (
    REFERENCE
    + """
class ModelNew(Model):
    result = None
    def forward(self, x):
        if self.result is None:
            self.result = super().forward(x)
        return self.result
"""
)

CACHED_BY_POINTER = (
    REFERENCE
    + """
class ModelNew(Model):
    def __init__(self, size):
        super().__init__(size)
        self.results = {}
    def forward(self, x):
        if x.data_ptr() not in self.results:
            self.results[x.data_ptr()] = super().forward(x)
        return self.results[x.data_ptr()].clone()
"""
)

ZEROS = (
    REFERENCE
    + """
class ModelNew(Model):
    def forward(self, x):
        return torch.zeros(x.shape[0], 1)
"""
)

UNWRITTEN = (
    REFERENCE
    + """
class ModelNew(Model):
    def forward(self, x):
        return torch.empty(x.shape[0], 1)
"""
)

STALE_FOLD = (
    REFERENCE
    + """
class ModelNew(Model):
    def __init__(self, size):
        super().__init__(size)
        self.folded = self.linear.weight.detach().sum(dim=0)
    def forward(self, x):
        return (x @ self.folded + self.linear.bias.sum() + 1.0).unsqueeze(1)
"""
)

MUTATES_INPUT = (
    REFERENCE
    + """
class ModelNew(Model):
    def forward(self, x):
        result = super().forward(x)
        x.zero_()
        return result
"""
)

REUSES_OUTPUT = (
    REFERENCE
    + """
class ModelNew(Model):
    def __init__(self, size):
        super().__init__(size)
        self.out = torch.empty(256, 1)
    def forward(self, x):
        return self.out.copy_(super().forward(x))
"""
)

THREAD = (
    REFERENCE
    + """
class ModelNew(Model):
    def forward(self, x):
        result = torch.empty(x.shape[0], 1)
        def work():
            time.sleep(0.05)
            with torch.no_grad():
                result.copy_(Model.forward(self, x))
        threading.Thread(target=work).start()
        return result
"""
)

PATCHES_CLOCK = (
    REFERENCE
    + """
time.perf_counter = lambda: 0.0
class ModelNew(Model):
    pass
"""
)

CHANGES_FLAGS = (
    REFERENCE
    + """
torch.set_num_threads(1 + torch.get_num_threads())
class ModelNew(Model):
    pass
"""
)

PATCHES_LATE = (
    REFERENCE
    + """
class ModelNew(Model):
    calls = 0
    def forward(self, x):
        ModelNew.calls += 1
        if ModelNew.calls == 7:
            torch.allclose = lambda *arguments, **options: True
        return super().forward(x)
"""
)

LAZY = (
    REFERENCE
    + """
class Later(torch.Tensor):
    pass
class ModelNew(Model):
    def forward(self, x):
        return super().forward(x).as_subclass(Later)
"""
)

RENAMED_WEIGHTS = (
    REFERENCE
    + """
class ModelNew(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.other = nn.Linear(size, size)
    def forward(self, x):
        return self.other(x).sum(dim=1, keepdim=True)
"""
)

RAISES = (
    REFERENCE
    + """
class ModelNew(Model):
    def forward(self, x):
        raise RuntimeError("no kernel for this device")
"""
)

CRASHES = (
    REFERENCE
    + """
import os
class ModelNew(Model):
    def forward(self, x):
        os.abort()
"""
)

HANGS = (
    REFERENCE
    + """
class ModelNew(Model):
    def forward(self, x):
        time.sleep(1000)
"""
)

WARNS = (
    REFERENCE
    + """
import warnings
class ModelNew(Model):
    def forward(self, x):
        warnings.warn("running the reference instead of the kernels")
        return super().forward(x)
"""
)

NOISY_ON_STDOUT = (
    REFERENCE
    + """
print("{not json} on stdout")
class ModelNew(Model):
    pass
"""
)

# Training state, random masks and inputs written in place: an equal copy must not be suspected.
STATEFUL = (
    HEADER
    + """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(64)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, scale):
        x.mul_(scale)
        self.calls += 1
        return {"y": self.drop(self.norm(x)) * self.calls, "largest": x.argmax(dim=1)}

def get_inputs():
    return [torch.randn(32, 64), 2.0]
"""
)
