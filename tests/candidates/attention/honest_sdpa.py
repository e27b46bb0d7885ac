"""expect: accept. The library's fused attention."""

import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (t.unsqueeze(1) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).squeeze(1)
