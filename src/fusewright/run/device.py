"""The device of this machine that kernels would run on. Chooses the target of `--target auto`."""

import torch


def detected_target() -> str:
    """The most specific target that this machine's first GPU runs; `cpu` where there is none."""
    if not torch.cuda.is_available():
        return "cpu"
    major, minor = torch.cuda.get_device_capability()
    if (major, minor) == (9, 0):
        return "cuda:sm_90a"
    return "cuda:sm_80" if major == 8 else "cuda"
