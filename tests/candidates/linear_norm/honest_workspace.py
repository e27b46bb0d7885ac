"""expect: accept. A workspace that grows with the batch and that no output lies in."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.work = torch.empty(0, hidden)

    def forward(self, x):
        if torch.is_grad_enabled() or x.ndim != 2:
            return torch.relu(self.norm(self.linear(x)))
        if self.work.shape[0] < x.shape[0]:
            self.work = torch.empty(x.shape[0], self.linear.out_features)
        y = self.work[: x.shape[0]]
        torch.addmm(self.linear.bias, x, self.linear.weight.t(), out=y)
        y = y - y.mean(-1, keepdim=True)
        y.mul_(torch.rsqrt(y.square().mean(-1, keepdim=True).add_(self.norm.eps)))
        return y.mul_(self.norm.weight).add_(self.norm.bias).relu_()
