"""Collectives of a compiled step, read from its optimised HLO text: their kinds, how often a step runs each, and bytes.

The text has a loop's body once, but the body runs once a layer (or microbatch, or chunk). The trip count is read from
the loop's condition, so that every collective counts as often as a step runs it. A collective that the TPU compiler
splits over several fused computations has one channel and counts once.

Bytes sent are those that a ring algorithm moves out of each device. A gather or scatter over n devices sends
(n - 1) / n of the whole array, an all-reduce twice that, and a permutation the whole array.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {"pred": 8, "token": 0} | {f"{sign}{n}": n for sign in "su" for n in (2, 4, 8, 16, 32, 64)}
BITS |= {"bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128}

COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|branch_computations)=\{?((?:%?[\w.\-]+(?:, )?)+)\}?")
CHANNEL = re.compile(r"\bchannel_id=(\d+)")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
NAME = re.compile(r"%([\w.\-]+)")


@dataclass(frozen=True)
class Collective:
    """One collective of the program."""

    kind: str
    whole_bytes: float
    """Bytes of the whole array that is gathered, reduced or permuted."""
    group: int
    """The number of devices that take part together."""
    times: int
    """Executions in one step."""

    @property
    def sent_bytes(self) -> float:
        """Bytes that each device sends in one step."""
        share = 1.0 if self.kind == "collective-permute" else (self.group - 1) / self.group
        return self.times * self.whole_bytes * share * (2 if self.kind == "all-reduce" else 1)


@dataclass
class _Computation:
    """The instructions of one computation. Each name maps to (type, opcode, rest of the line)."""

    instructions: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    root: str = ""


def read_collectives(hlo: str, devices: int) -> list[Collective]:
    """Every collective between devices that a step runs.

    Args:
        hlo: the text of the optimised module.
        devices: number of devices of the whole mesh, which a collective without a group uses.
    """
    computations, entry = _parse(hlo)
    found: dict[tuple[str, str], Collective] = {}
    for name, times in _executions(computations, entry).items():
        for instruction, (shape, opcode, rest) in computations[name].instructions.items():
            kind = opcode.removesuffix("-start")
            group = _group_size(rest, devices) if kind in KINDS else 1
            if group == 1:
                continue
            channel = CHANNEL.search(rest)
            key = (kind, channel[1] if channel else f"{name} {instruction}")
            whole = _whole_bytes(kind, shape, group, opcode.endswith("-start"))
            if key not in found or found[key].times < times:
                found[key] = Collective(kind, whole, group, times)
    return list(found.values())


def by_kind(collectives: list[Collective]) -> dict[str, dict[str, float | int]]:
    """Executions of each kind that occurs in one step, and the bytes that each device sends with it."""
    total: dict[str, dict[str, float | int]] = defaultdict(lambda: {"times": 0, "sent_bytes": 0.0})
    for one in collectives:
        total[one.kind]["times"] += one.times
        total[one.kind]["sent_bytes"] += one.sent_bytes
    return {kind: total[kind] for kind in KINDS if kind in total}


def _parse(hlo: str) -> tuple[dict[str, _Computation], str]:
    computations: dict[str, _Computation] = {}
    entry, current = "", _Computation()
    for line in hlo.splitlines():
        if opened := COMPUTATION.match(line):
            current = computations[opened[2]] = _Computation()
            entry = opened[2] if opened[1] else entry
        elif found := INSTRUCTION.match(line):
            current.instructions[found[2]] = (found[3], found[4], found[5])
            current.root = found[2] if found[1] else current.root
    return computations, entry


def _executions(computations: dict[str, _Computation], entry: str) -> dict[str, int]:
    """Executions in one step of each computation that is reached: one for each call, and for each trip of a loop."""
    times: dict[str, int] = defaultdict(int)
    waiting = [(entry, 1)] if entry in computations else []
    while waiting:
        name, count = waiting.pop()
        times[name] += count
        for _, opcode, rest in computations[name].instructions.values():
            if opcode == "while" or " while(" in rest:
                waiting += [(part, count * n) for part, n in _loop(computations, rest)]
            else:
                waiting += [(part, count) for part in _called(rest) if part in computations]
    return times


def _called(rest: str) -> Iterator[str]:
    for names in CALLED.findall(rest):
        yield from (name.strip().lstrip("%") for name in names.split(","))


def _loop(computations: dict[str, _Computation], rest: str) -> list[tuple[str, int]]:
    """[(name of the loop's body, trip count)]; empty if the text has no such computations."""
    body, condition = (re.search(rf"\b{part}=%?([\w.\-]+)", rest) for part in ("body", "condition"))
    if not body or not condition or body[1] not in computations or condition[1] not in computations:
        return []
    known = TRIPS.search(rest)
    trips = int(known[1]) if known else _trips(computations[condition[1]], computations[body[1]])
    return [(body[1], trips)]


def _trips(condition: _Computation, body: _Computation) -> int:
    """Trips of a loop that counts from 0 to a constant; 1 if the condition has another form."""
    _, opcode, rest = condition.instructions.get(condition.root, ("", "", ""))
    if opcode != "compare" or "direction=LT" not in rest:
        return 1
    counter, limit = [*NAME.findall(rest.split(")")[0]), "", ""][:2]
    most = _constant(condition, limit)
    index = re.search(r"\bindex=(\d+)", condition.instructions.get(counter, ("", "", ""))[2])
    if most is None or index is None:
        return 1
    return max(1, math.ceil(most / _stride(body, int(index[1]))))


def _stride(body: _Computation, index: int) -> int:
    """The amount that a trip adds to the loop's counter. It is above 1 if the compiler has unrolled the body."""
    operands = NAME.findall(body.instructions.get(body.root, ("", "", ""))[2].split(")")[0])
    if index >= len(operands):
        return 1
    _, opcode, rest = body.instructions.get(operands[index], ("", "", ""))
    values = [_constant(body, name) for name in NAME.findall(rest.split(")")[0])] if opcode == "add" else []
    return max([value for value in values if value] or [1])


def _constant(computation: _Computation, name: str) -> int | None:
    _, opcode, rest = computation.instructions.get(name, ("", "", ""))
    value = re.match(r"(\d+)\)", rest)
    return int(value[1]) if opcode == "constant" and value else None


def _group_size(rest: str, devices: int) -> int:
    """Devices of one group, written as a list of groups, as an iota `[groups,size]`, or as named axes of a mesh."""
    if axes := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", rest):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", axes[1]))
        return math.prod(int(sizes[name]) for name in re.findall(r"'([^']+)'", axes[2]) if name in sizes)
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(iota[1])
    if groups := re.search(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}", rest):
        return len(groups[1].split(","))
    return devices


def _whole_bytes(kind: str, shape: str, group: int, start: bool) -> float:
    """Bytes of the whole array, or of several combined arrays, from the type of the result.

    An asynchronous start also returns its input, and scalars that do not count.
    """
    sizes = [_bytes(dtype, dims) for dtype, dims in ARRAY.findall(shape) if dims or not start]
    total = sum(sizes)
    if kind == "reduce-scatter" and not start:
        return total * group
    if start and kind in ("all-gather", "reduce-scatter"):
        return total * group / (group + 1)
    return total / 2 if start and kind in ("collective-permute", "all-to-all") else total


def _bytes(dtype: str, dims: str) -> float:
    bits = BITS.get(dtype, 8 if dtype.startswith("f8") else 32)
    return math.prod(int(dim) for dim in dims.split(",") if dim) * bits / 8
