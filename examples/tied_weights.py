"""Tied and unused parameters, and several outputs in a dataclass that holds a dict.

The output layer is the embedding itself, one layer's bias is another's, one layer is never called.
"""

import os
from dataclasses import dataclass

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 8 if SMALL else 1024
VOCABULARY = 300 if SMALL else 32000
WIDTH = 64 if SMALL else 1024


@dataclass
class Output:
    """logits: (batch, vocabulary); hidden: the states by name, each (batch, width)."""

    logits: torch.Tensor
    hidden: dict[str, torch.Tensor]


class Model(nn.Module):
    def __init__(self, vocabulary, width):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.second.bias = self.first.bias
        self.output = nn.Linear(width, vocabulary, bias=False)
        self.output.weight = self.embedding.weight
        self.unused = nn.Linear(width, 3)

    def forward(self, tokens):
        """tokens: (batch,) int64 -> Output"""
        embedded = self.embedding(tokens)
        first = torch.tanh(self.first(embedded))
        second = torch.tanh(self.second(first)) + embedded
        return Output(logits=self.output(second), hidden={"first": first, "second": second})


def get_inputs():
    return [torch.randint(0, VOCABULARY, (BATCH,))]


def get_init_inputs():
    return [VOCABULARY, WIDTH]
