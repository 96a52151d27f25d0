"""The lines that a sweep's runner and a worker exchange: an order for each run, and an answer when the run has ended.

This file loads no jax, because `isoflop.run` reads and writes the same lines.
"""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Order:
    """A run to execute. `arguments` are those of `mdm_jax.main`, and `log` is the file for the run's output."""

    arguments: tuple[str, ...]
    log: str

    def line(self) -> bytes:
        """The order as one line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"


@dataclass(frozen=True)
class Answer:
    """The exit code of an ended run, and whether the worker takes further orders."""

    code: int
    goes_on: bool

    def line(self) -> bytes:
        """The answer as one line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"


def read_order(line: bytes) -> Order:
    """The order of a line that `Order.line` has made."""
    tree = json.loads(line)
    return Order(tuple(tree["arguments"]), tree["log"])


def read_answer(line: bytes) -> Answer:
    """The answer of a line that `Answer.line` has made."""
    return Answer(**json.loads(line))
