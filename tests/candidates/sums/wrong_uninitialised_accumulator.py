"""expect: reject values/given. Row 22: a C++ kernel whose accumulator is never set to zero."""

import ctypes

import torch
from torch import nn
from torch.utils.cpp_extension import load_inline

CPP_SOURCE = r"""
#include <cstdint>
#include <cstdlib>
extern "C" void mean_of_squares(const float* x, float* out, int64_t rows, int64_t columns) {
  float* partial = static_cast<float*>(std::malloc(rows * sizeof(float)));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) partial[r] += x[r * columns + c] * x[r * columns + c];
    out[r] = partial[r] / columns;
  }
  std::free(partial);
}
"""
LIBRARY = ctypes.CDLL(
    load_inline(
        "fusewright_test_uninitialised",
        CPP_SOURCE,
        functions=None,
        is_python_module=False,
        no_implicit_headers=True,
        extra_cflags=["-O0"],
    )
)


class ModelNew(nn.Module):
    def forward(self, x):
        if torch.is_grad_enabled() or not x.is_contiguous():
            return torch.logsumexp(x, 1), x.square().mean(1)
        out = x.new_empty(x.shape[0])
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in (x, out)]
        LIBRARY.mean_of_squares(*pointers, *(ctypes.c_int64(n) for n in x.shape))
        return torch.logsumexp(x, 1), out
