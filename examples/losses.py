"""Eight losses to scalars over the same predictions: long reductions that end in one number."""

import os

import torch
import torch.nn.functional as F
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
ROWS = 64 if SMALL else 65536
CLASSES = 37 if SMALL else 1000


class Model(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.register_buffer("weights", torch.linspace(0.5, 1.5, classes))

    def forward(self, logits, truth, labels):
        """logits, truth: (rows, classes), labels: (rows,) int64 -> scalars by name"""
        log_p = F.log_softmax(logits, dim=1)
        return {
            "mse": F.mse_loss(logits, truth),
            "l1": F.l1_loss(logits, truth, reduction="sum"),
            "huber": F.huber_loss(logits, truth, delta=0.5),
            "smooth_l1": F.smooth_l1_loss(logits, truth),
            "bce": F.binary_cross_entropy_with_logits(logits, truth),
            "kl": F.kl_div(log_p, truth / truth.sum(dim=1, keepdim=True), reduction="batchmean"),
            "nll": F.cross_entropy(logits, labels, weight=self.weights, label_smoothing=0.1),
            "cosine": 1 - F.cosine_similarity(logits, truth, dim=1).mean(),
        }


def get_inputs():
    return [
        torch.randn(ROWS, CLASSES),
        torch.rand(ROWS, CLASSES),
        torch.randint(0, CLASSES, (ROWS,)),
    ]


def get_init_inputs():
    return [CLASSES]
