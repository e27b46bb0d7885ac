"""A bag of words: embedding rows gathered, averaged over the sentence, classified."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 16 if SMALL else 4096
LENGTH = 20 if SMALL else 256
VOCABULARY = 500 if SMALL else 50000
WIDTH = 48 if SMALL else 512
CLASSES = 5 if SMALL else 100


class Model(nn.Module):
    def __init__(self, vocabulary, width, classes):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=0)
        self.classifier = nn.Linear(width, classes)

    def forward(self, tokens):
        """tokens: (batch, length) int64 -> (batch, classes)"""
        return self.classifier(self.embedding(tokens).mean(dim=1))


def get_inputs():
    return [torch.randint(0, VOCABULARY, (BATCH, LENGTH))]


def get_init_inputs():
    return [VOCABULARY, WIDTH, CLASSES]
