"""The order of training samples: batches whose neighbours in memory are neighbours in space."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from nstr3d.types import Samples

BINS = 1 << 14  # of the counting sort along the first axis
# Samples that stay together when the pool is shuffled: copying single samples would miss the cache.
PIECE_SAMPLES = 32


def shuffled_batches(pool: Samples, size: int, seed: int, step: int = 0) -> Iterator[Samples]:
    """Batches of ``size`` samples from batch number ``step`` on, without end.

    The pool, whose points lie in [-1, 1]^d, is cut into slabs across the first axis, and each slab
    into pieces of up to 32 samples. A batch is one piece of every slab, in the slabs' order, so
    that consecutive samples touch nodes that are in the cache. The pool is shuffled once; each
    epoch permutes the pieces of each slab. The seed and the epoch determine the permutation, so
    that a resumed run sees the batches of an uninterrupted one.
    """
    piece = math.gcd(PIECE_SAMPLES, size)
    slabs, per_epoch = size // piece, len(pool) // size
    order = (
        _slabs(pool.points[:, 0], slabs, seed)[:, : per_epoch * piece]
        .reshape(-1)
        .to(pool.points.device)
    )
    pieces = pool.map(lambda tensor: tensor.index_select(0, order).view(slabs * per_epoch, -1))
    firsts = torch.arange(slabs).unsqueeze(1) * per_epoch

    def batch_of(chosen: Tensor) -> Samples:
        return pieces.map(lambda tensor: tensor.index_select(0, chosen).view(size, -1))

    while True:
        epoch, position = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        turns = torch.rand(slabs, per_epoch, generator=generator).argsort(dim=1) + firsts
        for chosen in turns.T.contiguous().to(pool.points.device)[position:]:
            yield batch_of(chosen)
            step += 1


def _slabs(coordinate: Tensor, count: int, seed: int) -> Tensor:
    """Indices ``(count, n // count)`` into ``coordinate (n,)``, values in [-1, 1].

    Each row holds the samples of one of ``count`` quantiles in random order, except for a few
    samples at the quantile's ends that share a bin with the next quantile.
    """
    shuffled = torch.randperm(len(coordinate), generator=torch.Generator().manual_seed(seed))
    bins = ((coordinate.cpu().index_select(0, shuffled) + 1) * (BINS / 2)).clamp_(0, BINS - 1).int()
    counts = bins.bincount(minlength=BINS)
    slabs = ((counts.cumsum(0) - counts) * count // len(bins)).int().index_select(0, bins)
    return shuffled[slabs.argsort(stable=True)][: len(bins) // count * count].view(count, -1)
