"""expect: reject import. Needs a package that is not there."""

import a_package_that_does_not_exist
from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        return a_package_that_does_not_exist.run(x)
