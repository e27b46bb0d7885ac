"""expect: reject stale-inputs. Row 6: the numbers of the first call."""

from torch import nn


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.numbers = None

    def forward(self, x):
        if self.numbers is None:
            self.numbers = x.square().mean().item(), int((x > 0).sum())
        return x.sum(1), *self.numbers
