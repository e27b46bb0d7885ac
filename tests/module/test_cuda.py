"""Emitted CUDA files: their text everywhere, their behaviour where there is a GPU (`-m gpu`)."""

import pytest
import torch

from fusewright.run.device import detected_target, is_dense
from module.problems import compiled, emitted, quiet, write_problem

BODY = """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(64)
        self.register_buffer("mean", torch.zeros(64))
    def forward(self, x):
        y = self.norm(x).exp()
        self.mean.mul_(0.5).add_(y.mean(0), alpha=0.5)
        return y - self.mean, x
def get_inputs(): return [torch.rand(128, 64)]
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    return emitted(tmp_path_factory.mktemp("cuda"), BODY, target=detected_target())


def models(module):
    new, old = module.ModelNew().cuda(), module.Model().cuda()
    old.load_state_dict(new.state_dict())
    return new, old


def assert_equal_runs(new, old, x):
    got, same = quiet(new, x)
    with torch.no_grad():
        want, _ = old(x)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(new.mean, old.mean)
    assert same is x


@pytest.mark.gpu
def test_results_and_buffers(module):
    new, old = models(module)
    for _ in range(2):
        assert_equal_runs(new, old, torch.rand(128, 64, device="cuda"))


@pytest.mark.gpu
def test_unaligned_inputs(module):
    new, old = models(module)
    x = torch.rand(128 * 64 + 1, device="cuda")[1:].view(128, 64)
    assert x.data_ptr() % 16
    assert_equal_runs(new, old, x)


@pytest.mark.gpu
def test_the_current_stream_is_used(module):
    new, old = models(module)
    x = torch.rand(128, 64, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        x.add_(1)
        got, _ = quiet(new, x)
    stream.synchronize()
    with torch.no_grad():
        torch.testing.assert_close(got, old(x)[0])


@pytest.mark.gpu
def test_calls_can_be_captured_in_a_graph(module):
    new, old = models(module)
    x = torch.rand(128, 64, device="cuda")
    quiet(new, x)
    old.load_state_dict(new.state_dict())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got, _ = quiet(new, x)
    x.uniform_()
    graph.replay()
    with torch.no_grad():
        torch.testing.assert_close(got, old(x)[0])
    torch.testing.assert_close(new.mean, old.mean)


@pytest.mark.gpu
def test_tensors_on_the_cpu_run_the_reference(module):
    module._warned.clear()
    with torch.no_grad(), pytest.warns(UserWarning, match="on cpu; the kernels are for cuda"):
        module.ModelNew()(torch.rand(128, 64))


def test_inputs_have_the_strides_that_a_copy_to_the_gpu_gives_them(tmp_path):
    body = """
        class Model(nn.Module):
            def forward(self, a, b, c): return a + 1, b + 1, c + 1
        def get_inputs():
            return [torch.rand(8, 9)[:, ::3], torch.rand(4, 3).t(), torch.rand(3).expand(2, 3)]
    """
    path = write_problem(tmp_path, body)
    strides = [s.strides for s in compiled(path, target="cuda").graph.inputs]
    assert strides == [(3, 1), (1, 3), (3, 1)]
    strides = [s.strides for s in compiled(path, target="cpu").graph.inputs]
    assert strides == [(9, 3), (1, 3), (0, 1)]


@pytest.mark.parametrize(
    ("shape", "strides", "dense"),
    [
        ((3, 4), (4, 1), True),
        ((3, 4), (1, 3), True),
        ((3, 4), (5, 1), False),
        ((3, 4), (0, 1), False),
        ((1, 4), (77, 1), True),
        ((0, 4), (9, 2), True),
        ((), (), True),
    ],
)
def test_density_is_what_torch_takes_it_for(shape, strides, dense):
    assert is_dense(shape, strides) == dense
    moved = torch.empty_strided(shape, strides).to(torch.float64)  # preserve_format, as in .cuda()
    if 0 not in shape and 1 not in shape:
        assert (moved.stride() == strides) == dense
