"""Runs of a sweep with a clock. `benchmarks/sweep.py` starts this program in place of `mdm_jax.main` or of a worker.

    python -m benchmarks.timed_run FILE main --plan PLAN --run-id RUN
    python -m benchmarks.timed_run FILE worker ANSWERS

Each run adds a line of JSON to FILE: seconds of the clock by part of the run. The parts do not overlap.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

PARTS: tuple[str, ...] = (
    "imports",
    "first state",
    "first step",
    "steps",
    "evaluation compiles",
    "evaluation",
    "checkpoints",
    "rest",
)
"""`first step` and `evaluation compiles` are tracing, and compilation or loading. The first execution of a step is in
`first step`, and that of the evaluation in `evaluation`."""


class Parts:
    """Seconds by part. A part that begins inside another one interrupts it."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._since, self._open = now, now(), ["rest"]
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)

    def resume(self) -> None:
        """Leaves out the time until now."""
        self._since = self._now()

    def end(self) -> dict[str, float]:
        """The seconds of the run that ends now. The next run begins at 0."""
        self.switch()
        found, self.seconds = self.seconds, dict.fromkeys(PARTS, 0.0)
        return found

    def switch(self) -> None:
        """Counts the time until now for the present part."""
        now = self._now()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the time inside for this part."""
        self.switch()
        self._open.append(name)
        try:
            yield
        finally:
            self.switch()
            self._open.pop()

    def move(self, seconds: float, source: str, target: str) -> None:
        """Counts seconds that the source has, or will have, for the target."""
        self.seconds[source] -= seconds
        self.seconds[target] += seconds

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose calls count for this part."""

        def call(*given: Any, **named: Any) -> Any:
            with self.part(name):
                return function(*given, **named)

        return call


def seconds_since_start() -> float:
    """Seconds since the start of this process (Linux)."""
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(after_name[19]) / os.sysconf("SC_CLK_TCK")


def watch(parts: Parts) -> None:
    """Puts the clock around the parts of a run."""
    import jax

    from mdm_jax.evaluate import nelbo
    from mdm_jax.run import execute
    from mdm_jax.run.final_evaluation import FinalEvaluation
    from mdm_jax.train import loop
    from mdm_jax.train.checkpoint import Checkpoints
    from mdm_jax.train.step import Step

    compile_step = loop.compile_step

    def compiled(spec: Any) -> Any:
        step = compile_step(spec)
        return dataclasses.replace(step, several_program=first_call(step.several_program))

    def first_call(program: Callable[..., Any]) -> Callable[..., Any]:
        """The program, whose first call is timed. It makes one step."""
        known = False

        def call(*given: Any) -> Any:
            nonlocal known
            if known:
                return program(*given)
            known = True
            with parts.part("first step"):
                return jax.block_until_ready(program(*given))

        return call

    def evaluated(program: Any) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            before, begun = program._cache_size(), time.monotonic()
            found = program(*given)
            if program._cache_size() > before:
                parts.move(time.monotonic() - begun, "evaluation", "evaluation compiles")
            return found

        return call

    replaced: list[tuple[Any, str, Callable[..., Any]]] = [
        (loop, "compile_step", compiled),
        (nelbo, "_draws", evaluated(cast(Any, nelbo._draws))),
        (nelbo, "_losses", evaluated(cast(Any, nelbo._losses))),
        (Step, "compile", parts.timed("first step", Step.compile)),
        (execute, "init_state", parts.timed("first state", execute.init_state)),
        (execute, "train", parts.timed("steps", execute.train)),
        (FinalEvaluation, "loss", parts.timed("evaluation", FinalEvaluation.loss)),
        (Checkpoints, "save", parts.timed("checkpoints", Checkpoints.save)),
        (Checkpoints, "restore", parts.timed("checkpoints", Checkpoints.restore)),
    ]
    for owner, name, function in replaced:
        setattr(owner, name, function)


def reporting(parts: Parts, execute: Callable[..., int], file: Path) -> Callable[..., int]:
    """The function that executes a run, with a line in the file afterwards."""

    def call(*given: Any) -> int:
        parts.resume()
        code = execute(*given)
        with file.open("a") as out:
            out.write(json.dumps(parts.end()) + "\n")
        return code

    return call


def main() -> int:
    file, kind, *arguments = sys.argv[1:]
    import mdm_jax.main
    import mdm_jax.run.worker

    parts = Parts()
    watch(parts)
    parts.seconds["imports"] = seconds_since_start()
    if kind == "main":
        return reporting(parts, mdm_jax.main.main, Path(file))(arguments)
    mdm_jax.run.worker.execute = reporting(parts, mdm_jax.main.main, Path(file))
    return mdm_jax.run.worker.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
