"""expect: accept. A C++ kernel through load_inline, with guards and the reference as fallback."""

import ctypes

import torch
from torch import nn
from torch.utils.cpp_extension import load_inline

CPP_SOURCE = r"""
#include <cmath>
#include <cstdint>
extern "C" void linear_norm_relu(const float* x, const float* w, const float* b, const float* gain,
                                 const float* shift, float* out, int64_t rows, int64_t features,
                                 int64_t hidden, double eps) {
  for (int64_t r = 0; r < rows; ++r) {
    float* y = out + r * hidden;
    double sum = 0, squares = 0;
    for (int64_t h = 0; h < hidden; ++h) {
      double dot = b[h];
      for (int64_t f = 0; f < features; ++f) {
        dot += double(x[r * features + f]) * w[h * features + f];
      }
      y[h] = float(dot);
      sum += dot;
    }
    const double mean = sum / hidden;
    for (int64_t h = 0; h < hidden; ++h) squares += (y[h] - mean) * (y[h] - mean);
    const double scale = 1.0 / std::sqrt(squares / hidden + eps);
    for (int64_t h = 0; h < hidden; ++h) {
      const float v = float((y[h] - mean) * scale * gain[h] + shift[h]);
      y[h] = v < 0.0f ? 0.0f : v;
    }
  }
}
"""
LIBRARY = ctypes.CDLL(
    load_inline(
        "fusewright_test_linear_norm",
        CPP_SOURCE,
        functions=None,
        is_python_module=False,
        no_implicit_headers=True,
        extra_cflags=["-O1"],
    )
)


class Model(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        return torch.relu(self.norm(self.linear(x)))


class ModelNew(Model):
    def forward(self, x):
        operands = (x, *self.parameters())
        if torch.is_grad_enabled() and any(t.requires_grad for t in operands):
            return super().forward(x)
        if any(t.dtype != torch.float32 or not t.is_contiguous() for t in operands) or x.ndim != 2:
            return super().forward(x)
        out = torch.empty(x.shape[0], self.linear.out_features)
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in (*operands, out)]
        sizes = [ctypes.c_int64(n) for n in (*x.shape, self.linear.out_features)]
        LIBRARY.linear_norm_relu(*pointers, *sizes, ctypes.c_double(self.norm.eps))
        return out
