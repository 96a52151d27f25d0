"""Thousands of parametric fits at once, in float64: compiled by jax where it is worth it, else with numpy.

Both run the algorithm of `parametric_solver`. jax solves 64 resamples at a time under `lax.map`, in a while loop that
ends with the slowest of them, always on the CPU: the problems are small, and accelerators lack float64.
"""

import functools
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from analysis.surface.solver import MAX_STEPS, Criterion, Points, advance, begin, minimise

BATCH = 64
BACKENDS = ("auto", "jax", "numpy")
WORTH_COMPILING = 5_000_000
"""Draws times runs from which "auto" means jax: it is 2 to 3 times as fast, and takes about 5 s to load and compile."""
Solve = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(start [5], u and v [2, m], weights [n, m], y [n, m]) to (theta [n, 5], whether it converged [n])."""


def solver(backend: str, criterion: Criterion, size: int) -> tuple[str, Solve]:
    """The backend that can be had, and its function; numpy, with a warning, where jax is due and absent.

    Args:
        backend: "auto", "jax" or "numpy".
        criterion: what is minimised.
        size: draws times runs.

    Raises:
        ValueError: an unknown backend.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend = {backend!r}: must be one of {', '.join(BACKENDS)}")
    if backend == "auto":
        backend = "jax" if size >= WORTH_COMPILING else "numpy"
    if backend == "jax" and importlib.util.find_spec("jax") is None:
        warnings.warn("jax is not installed: resamples are fitted with numpy, with the same results", stacklevel=3)
        backend = "numpy"
    return backend, functools.partial(_with_jax if backend == "jax" else _with_numpy, criterion)


def _with_numpy(
    criterion: Criterion, start: np.ndarray, where: np.ndarray, weights: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    theta = np.repeat(start[None], len(weights), axis=0)
    done = np.zeros(len(weights), bool)
    for stage in criterion.smoothed():
        state = minimise(theta, weights, Points(where[0], where[1], y), stage)
        theta, done = state.theta, state.done
    return theta, done


def _with_jax(
    criterion: Criterion, start: np.ndarray, where: np.ndarray, weights: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    import jax

    starts = np.repeat(start[None], len(weights), axis=0)
    done = np.zeros(len(weights), bool)
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        compiled = _compiled(criterion.log)
        for stage in criterion.smoothed():
            out = compiled(starts, np.array([stage.delta, stage.over]), where, weights, y)
            starts, done = (np.array(values) for values in out)  # copies: what jax hands out is read-only
    return starts, done


@functools.cache
def _compiled(log: bool) -> Callable[..., Any]:
    """The jitted map over resamples; deltas and weights are arguments, so that one program serves all criteria."""
    import jax
    import jax.numpy as jnp

    def fit_all(starts: Any, numbers: Any, where: Any, weights: Any, y: Any) -> Any:
        def fit_one(one: tuple[Any, Any, Any]) -> tuple[Any, Any]:
            theta, w, target = one
            points = Points(where[0], where[1], target)
            criterion = Criterion(log, numbers[0], numbers[1])
            state = jax.lax.while_loop(
                lambda state: ~state.done & (state.steps < MAX_STEPS),
                lambda state: advance(jnp, state, w, points, criterion),
                begin(jnp, theta, w, points, criterion),
            )
            return state.theta, state.done

        return jax.lax.map(fit_one, (starts, weights, y), batch_size=BATCH)

    return jax.jit(fit_all)
