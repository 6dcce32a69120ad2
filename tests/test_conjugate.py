"""Conjugate gradients against direct solves, for arrays and tensors, real and complex."""

from itertools import islice

import numpy as np
import pytest
import torch

from nstr3d.fields.conjugate import conjugate_gradients, real_product


def system(size: int, complex_: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A Hermitian positive definite matrix with a diagonal that spans four decades, and a
    right-hand side."""
    generator = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        real = generator.standard_normal(shape)
        return real + 1j * generator.standard_normal(shape) if complex_ else real

    root, units = draw(size, size), np.geomspace(0.1, 10, size)
    matrix = units[:, None] * (root @ root.conj().T + size * np.eye(size)) * units
    return matrix, draw(size)


def after(iterations: int, solutions):
    return next(islice(solutions, iterations - 1, None))


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("started", [False, True])
def test_the_limit_is_that_of_a_direct_solve(complex_: bool, started: bool) -> None:
    matrix, right = system(12, complex_)
    start = np.random.default_rng(1).standard_normal(12) if started else None
    scale = 1 / np.abs(np.diagonal(matrix))
    solution, residual = after(
        40, conjugate_gradients(lambda x: matrix @ x, right, start, scale, tolerance=1e-28)
    )
    np.testing.assert_allclose(solution, np.linalg.solve(matrix, right), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(residual, right - matrix @ solution, atol=1e-9)


def test_each_iterate_is_the_best_of_its_krylov_space() -> None:
    matrix, right = system(8, complex_=False)
    scale = 1 / np.diagonal(matrix)
    basis = [scale * right]
    for count in range(1, 5):
        solution, _ = after(count, conjugate_gradients(lambda x: matrix @ x, right, None, scale))
        space = np.linalg.qr(np.stack(basis, axis=1))[0]
        best = space @ np.linalg.solve(space.T @ matrix @ space, space.T @ right)
        np.testing.assert_allclose(solution, best, rtol=1e-7, atol=1e-10)
        basis.append(scale * (matrix @ basis[-1]))


def test_tensors_are_solved_alike() -> None:
    matrix, right = system(10, complex_=False)
    of_arrays = after(6, conjugate_gradients(lambda x: matrix @ x, right))
    table, column = torch.from_numpy(matrix), torch.from_numpy(right)[:, None]
    of_tensors = after(
        6, conjugate_gradients(lambda x: table @ x, column, product=lambda a, b: (a * b).sum())
    )
    for array, tensor in zip(of_arrays, of_tensors):
        torch.testing.assert_close(tensor[:, 0], torch.from_numpy(array))


@pytest.mark.parametrize("right", [np.zeros(5), np.eye(5)[2]])
def test_a_solution_that_is_reached_is_repeated(right: np.ndarray) -> None:
    calls = []

    def doubled(vector: np.ndarray) -> np.ndarray:
        calls.append(vector)
        return 2 * vector

    solution, residual = after(20, conjugate_gradients(doubled, right))
    np.testing.assert_array_equal(solution, right / 2)
    np.testing.assert_array_equal(residual, np.zeros(5))
    assert len(calls) <= 1


def test_the_tolerance_ends_the_iterations() -> None:
    matrix, right = system(30, complex_=False)
    iterates = list(islice(conjugate_gradients(lambda x: matrix @ x, right, tolerance=1e-2), 200))
    sizes = [
        real_product(residual, residual) / real_product(right, right) for _, residual in iterates
    ]
    assert sizes[-1] <= 1e-2 < min(size for size in sizes if size != sizes[-1])
