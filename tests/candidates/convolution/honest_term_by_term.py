"""expect: accept. Nine products, added one after the other."""

import torch
import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        rows, columns = x.shape[2:]
        x = F.pad(x, (1, 1, 1, 1))
        y = self.conv.bias[:, None, None]
        for i in range(3):
            for j in range(3):
                part = x[:, :, i : i + rows, j : j + columns]
                y = y + torch.einsum("nchw,oc->nohw", part, self.conv.weight[:, :, i, j])
        return y.contiguous()
