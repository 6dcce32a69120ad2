"""The local wave: the plane wave that explains most of a signal around a point.

About each point x the samples are fitted, by least squares under a Gaussian window of standard
deviation sigma, by

    p(u) + Re((A + B . u) exp(i k . u)),   u = y - x,

where the polynomial p of degree two represents slower variation. Then k is moved by Im(conj(A) B) /
|A|^2, the slope of the complex amplitude's phase, until it converges: the window then holds no
phase that k does not explain. This is the reassignment of the windowed Fourier transform (Auger and
Flandrin, 1995) for scattered samples. It needs a first guess within about 1 / sigma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nstr3d.spectrum.sites import Sites

NEIGHBOURS = 192  # samples under a window
REACH = 2.0  # radius of a window in standard deviations
CHUNK = 1024
# A later iterate replaces an earlier one if its share is lower by less than this, because the later
# is better where both explain nearly all.
WORSE = 0.003
TINY = 1e-30


@dataclass(frozen=True)
class LocalWaves:
    """The local waves at n points.

    ``frequency (n, d)`` is a line field in radians per unit length. ``amplitude (n,)`` is in the
    values' unit. ``share (n,)``, from 0 to 1, is the fraction that the wave explains of the
    signal's energy under the window after the polynomial is subtracted; it is 1 if the wave is
    alone.
    """

    frequency: Tensor
    amplitude: Tensor
    share: Tensor


def local_waves(
    places: Tensor | Sites,
    values: Tensor,
    at: Tensor,
    first: Tensor,
    normals: Tensor | None = None,
    periods: float = 0.65,
    rounds: int = 5,
    slowest: float = 6.0,
) -> LocalWaves:
    """Fit the waves of ``values (m, 1)``, sampled at ``places (m, d)``, about ``at (n, d)``.

    ``first (n, d)`` are first guesses of the frequencies. A window has a standard deviation of
    ``periods`` wavelengths of the guess, whose frequency counts as at least ``slowest``. With
    ``normals (n, d)``, the places lie on a surface and the frequencies in its tangent planes. There
    are ``rounds`` iterations, which stay within one inverse standard deviation of the guess. The
    guess stays where no iteration explains as much, to within WORSE. Raises ValueError if there are
    fewer than NEIGHBOURS places.
    """
    sites = Sites.of(places)
    places = sites.places
    if len(places) < NEIGHBOURS:
        raise ValueError(f"Local waves need at least {NEIGHBOURS} samples, not {len(places)}.")
    flat = places.shape[1] - (normals is not None)
    basis = (
        _basis(normals)
        if normals is not None
        else torch.eye(flat, dtype=torch.float64).expand(len(at), flat, flat)
    )
    guess = torch.einsum("nd,ndm->nm", first.double(), basis)
    sigma = 2 * math.pi * periods / guess.norm(dim=1).clamp_min(slowest)
    # Wide windows use every second, fourth, ... sample in the given order, so that all windows have
    # equally many samples.
    away, _ = sites.tree.query(at.numpy(), k=[NEIGHBOURS])
    room = torch.from_numpy(away[:, 0])
    thin = (
        torch.log2((REACH * sigma / room.clamp_min(1e-12)).pow(flat))
        .floor()
        .clamp(0, math.log2(len(places) / NEIGHBOURS) // 1)
    )
    waves = LocalWaves(
        torch.zeros(len(at), places.shape[1]), torch.zeros(len(at)), torch.zeros(len(at))
    )
    for level in thin.unique().long().tolist():
        chosen = (thin == level).nonzero()[:, 0]
        step = 2**level
        own = (sites if level == 0 else Sites(places[::step])).tree
        for rows in chosen.split(CHUNK):
            index = own.query(at[rows].numpy(), k=NEIGHBOURS)[1] * step
            near = torch.from_numpy(index)
            offset = torch.einsum(
                "nqd,ndm->nqm", (places[near] - at[rows, None]).double(), basis[rows]
            )
            distance = (places[near] - at[rows, None]).double().norm(dim=2)
            k, amplitude, share = _refined(
                offset, distance, values[near, 0].double(), guess[rows], sigma[rows], rounds
            )
            waves.frequency[rows] = torch.einsum("nm,ndm->nd", k, basis[rows]).float()
            waves.amplitude[rows], waves.share[rows] = amplitude.float(), share.float()
    return waves


def _refined(offset, distance, values, k, sigma, rounds: int) -> tuple[Tensor, Tensor, Tensor]:
    """Iterate n windows of q samples; return k ``(n, m)``, amplitude and share ``(n,)``."""
    weight = torch.exp(-0.5 * (distance / sigma[:, None]).square()).sqrt()
    scaled = offset / sigma[:, None, None]
    size = offset.shape[2]
    upper = torch.triu_indices(size, size)
    slow = torch.cat(
        [torch.ones_like(scaled[..., :1]), scaled, scaled[..., upper[0]] * scaled[..., upper[1]]],
        dim=2,
    )
    detail = _residual(weight[..., None] * slow, weight * values)
    limit, start = 1 / sigma, k
    best = k, torch.zeros_like(sigma), torch.full_like(sigma, -1.0)
    for _ in range(rounds + 1):
        turn = torch.einsum("nqm,nm->nq", offset, k)
        carried = torch.cat([torch.ones_like(scaled[..., :1]), scaled], dim=2)
        columns = torch.cat(
            [slow, carried * turn.cos()[..., None], -carried * turn.sin()[..., None]], dim=2
        )
        solution, unexplained = _solved(weight[..., None] * columns, weight * values)
        share = (1 - unexplained / detail.clamp_min(TINY)).clamp(0, 1)
        real, imaginary = solution[:, slow.shape[2] :].split(size + 1, dim=1)
        power = real[:, 0].square() + imaginary[:, 0].square()
        better = share > best[2] - WORSE
        best = (
            torch.where(better[:, None], k, best[0]),
            torch.where(better, power.sqrt(), best[1]),
            torch.where(better, share, best[2]),
        )
        move = (real[:, :1] * imaginary[:, 1:] - imaginary[:, :1] * real[:, 1:]) / power.clamp_min(
            TINY
        )[:, None]
        move = move / sigma[:, None]
        move = move * (0.5 * limit / move.norm(dim=1).clamp_min(TINY)).clamp(max=1)[:, None]
        k = k + move
        away = k - start
        k = start + away * (limit / away.norm(dim=1).clamp_min(TINY)).clamp(max=1)[:, None]
    return best


def _solved(columns: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Least-squares solutions ``(n, p)`` and squared residuals ``(n,)``.

    A small ridge keeps the system regular.
    """
    normal = columns.transpose(1, 2) @ columns
    ridge = 1e-6 * normal.diagonal(dim1=1, dim2=2).mean(dim=1) + TINY
    normal = normal + ridge[:, None, None] * torch.eye(normal.shape[1], dtype=normal.dtype)
    solution = torch.linalg.solve(normal, (columns.transpose(1, 2) @ values[..., None]))[..., 0]
    return solution, (values - (columns @ solution[..., None])[..., 0]).square().sum(dim=1)


def _residual(columns: Tensor, values: Tensor) -> Tensor:
    """Squared residuals ``(n,)`` of the least squares."""
    return _solved(columns, values)[1]


def _basis(normals: Tensor) -> Tensor:
    """Two unit vectors perpendicular to each normal, ``(n, 3, 2)``."""
    normals = torch.nn.functional.normalize(normals.double(), dim=1)
    least = torch.nn.functional.one_hot(normals.abs().argmin(dim=1), 3).double()
    one = torch.nn.functional.normalize(torch.linalg.cross(normals, least), dim=1)
    return torch.stack([one, torch.linalg.cross(normals, one)], dim=2)
