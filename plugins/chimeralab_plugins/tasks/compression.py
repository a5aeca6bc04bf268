"""Put a whole random sequence into the hidden state of its last token."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from chimeralab import Cost, ops
from chimeralab.contracts import Readout
from chimeralab.contracts.task import Split
from chimeralab_plugins.tasks import draws
from chimeralab_plugins.tasks.mad import LENGTH, VOCAB, MadConfig, MadTask

EPS = 1e-6


class Decoder(Readout):
    """Scores of V ids at each of L places p, from the last token's hidden state h alone:

        x_p = h + [sin ωp, cos ωp],  x = gelu(W₁ norm x + b₁),  x = gelu(W₂ norm x + b₂),  scores = W₃ norm x + b₃

    with RMS norms of their own weights and ω from 1 to 1/10,000. Source: `mad/model/auto_encoder.py`, whose encoding
    is the residual stream as it is; here it has passed the stack's last norm.
    """

    def __init__(self, d_model: int, length: int, vocab_size: int) -> None:
        super().__init__()
        self.norms = nn.ParameterList([torch.ones(d_model) for _ in range(3)])
        self.maps = nn.ModuleList([nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)])
        self.scores = nn.Linear(d_model, vocab_size)
        for linear in (*self.maps, self.scores):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        frequencies = torch.exp(torch.arange(d_model // 2) * (-math.log(10_000.0) / (d_model // 2 - 1)))
        angles = torch.arange(length)[:, None] * frequencies
        self.register_buffer("places", torch.cat((angles.sin(), angles.cos()), -1), persistent=False)  # L D

    def forward(self, h: Tensor) -> Tensor:  # B L V
        x = h[:, -1:] + self.places.to(h.dtype)
        for linear, norm in zip(self.maps, self.norms, strict=False):
            x = nn.functional.gelu(linear(ops.rms_norm(x, norm, EPS)))
        return self.scores(ops.rms_norm(x, self.norms[-1], EPS))

    def cost(self) -> Cost:
        D, V = self.scores.in_features, self.scores.out_features
        return 2 * Cost.linear(D, D, bias=True) + Cost.linear(D, V, bias=True) + Cost.weights(3 * D)


class CompressionConfig(MadConfig):
    vocab_size: int = Field(16, ge=2, le=1_000_000, description=VOCAB)
    sequence_length: int = Field(32, ge=2, le=1_048_576, description=LENGTH)


class Compression(MadTask):
    """Random tokens, then a compression token, from whose hidden state all L tokens must be read off by an MLP.

    With V ids: id V-1 compresses, the others are drawn. The task's readout is MAD's decoder, in place of the head.
    All L places are asked for, the last, which is the compression token itself, too, as in MAD.
    """

    name = "compression"
    title = "Compression"
    summary = "Read a random sequence off the hidden state of its last token (MAD)"
    Config = CompressionConfig
    config: CompressionConfig

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def sequence_length(self) -> int:
        return self.config.sequence_length

    @property
    def causal(self) -> bool:
        """What is asked for is read off the last token, which sees all of it anyway."""
        return False

    @property
    def readout(self) -> Callable[[int], Readout]:
        return partial(Decoder, length=self.sequence_length, vocab_size=self.vocab_size)

    def sequences(self, split: Split, stream: int, numbers: NDArray) -> tuple[NDArray, NDArray]:
        c = self.config
        (random,) = draws.of_rows(stream, numbers, [c.sequence_length - 1])
        inputs = np.full((len(numbers), c.sequence_length), c.vocab_size - 1)
        inputs[:, :-1] = draws.below(random, c.vocab_size - 1)
        return inputs, inputs.copy()

    def chance(self) -> dict[str, float]:
        """A uniform guess at the random places; what the last holds is known."""
        L, drawn = self.sequence_length, self.config.vocab_size - 1
        return {"accuracy": ((L - 1) / drawn + 1) / L, "loss": (L - 1) / L * math.log(drawn)}
