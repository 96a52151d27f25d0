"""Priors: what each family is expected to reach before anything is run.

A prior holds two power laws for each family, under one FLOP convention: N*(C), the optimal size, and L*(C), its loss.
It also holds the range of compute of the points that the laws were fitted to. Sources are `smdm`, the published sweep;
`tiny`, our own sweeps on two CPU cores; or the `fits.json` of an earlier report. That file may come from anybody, so
each field is checked.
"""

import itertools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mdm_jax.files.results import FLOP_COLUMNS
from mdm_jax.files.storage import as_path
from mdm_jax.spec import Family, FlopConvention
from mdm_jax.spec.validation import require

FITS_VERSION = 1
MOST_FITS_BYTES = 64 << 20
MOST_ROWS = 10_000


@dataclass(frozen=True)
class Law:
    """`coefficient * C^exponent`."""

    coefficient: float
    exponent: float

    def __call__(self, flops: float) -> float:
        """The quantity at this compute."""
        return self.coefficient * flops**self.exponent

    def inverse(self, value: float) -> float:
        """The compute at which the law gives `value`."""
        return (value / self.coefficient) ** (1 / self.exponent)


@dataclass(frozen=True)
class FamilyPrior:
    """One family's laws."""

    n_opt: Law
    """Non-embedding parameters of the optimum."""
    loss: Law
    """Nats per token of the optimum."""
    flops: tuple[float, float]
    """The smallest and the largest compute of the points that the laws were fitted to."""


@dataclass(frozen=True)
class Prior:
    """The laws of one source, under one FLOP convention."""

    source: str
    convention: FlopConvention
    families: Mapping[Family, FamilyPrior]
    vocab_size: int | None = None
    """Vocabulary of the tokens that its losses are counted in; None if the source does not say."""


SMDM = Prior(
    "smdm",
    FlopConvention.SMDM_6ND,
    {
        Family.ARM: FamilyPrior(Law(1.3581e-4, 0.64225), Law(45.53, -0.06416), (6e18, 1e20)),
        Family.MDM: FamilyPrior(Law(1.2235e-4, 0.62997), Law(50.21, -0.06248), (6e18, 1e20)),
    },
    vocab_size=32000,
)
"""Nie et al. 2024 (arXiv 2410.18514), both scaling figures. Loss: the laws that the figure gives. N*: least squares in
log-log through the five optima of each family, as we read them from the figure (the MDM's are about half the ARM's)."""

TINY = Prior(
    "tiny",
    FlopConvention.SMDM_6ND,
    {
        Family.ARM: FamilyPrior(Law(2.7322e-3, 0.59852), Law(16.356, -0.08128), (3e9, 1e12)),
        Family.MDM: FamilyPrior(Law(1.8963e-2, 0.50134), Law(10.118, -0.05078), (8e10, 3e12)),
    },
    vocab_size=257,
)
"""Models of thousands of parameters on bytes. N*: least squares in log-log through the optima of the sweeps
`quickstart` and `cpu_overnight` (experiments/results). Loss: those of `cpu_overnight`, in nats per byte."""
BUILT_IN = {prior.source: prior for prior in (SMDM, TINY)}


def find_prior(name: str, convention: FlopConvention) -> Prior:
    """A built-in prior, or that of a `fits.json`: under `convention` if the file has it, else under its first one.

    Raises:
        ValueError: there is no such file, or it is not a `fits.json`. The file, the field and the bound are named.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    priors = read_fits(name)
    return priors.get(convention) or next(iter(priors.values()))


def read_fits(path: str | os.PathLike[str]) -> dict[FlopConvention, Prior]:
    """The priors in a report's `fits.json`: one for each FLOP convention under which a family has both laws.

    Raises:
        ValueError: the file is not a `fits.json`; one line says what is wrong.
    """
    file = as_path(path)
    require(
        file.is_file(),
        "prior",
        str(path),
        "smdm, tiny, or the fits.json of an earlier report (python -m analysis.report)",
    )
    try:
        size = file.stat().length
        require(size <= MOST_FITS_BYTES, "size", size, f"at most {MOST_FITS_BYTES} bytes")
        return _parse(file.name, json.loads(file.read_bytes().decode()))
    except (ValueError, RecursionError) as error:  # a JSON or Unicode error is a ValueError
        raise ValueError(f"prior {path}: not the fits.json of a report ({' '.join(str(error).split())})") from None


def _parse(source: str, tree: Any) -> dict[FlopConvention, Prior]:
    require(isinstance(tree, Mapping), "content", type(tree).__name__, "a JSON object")
    version = tree.get("schema_version")
    require(version == FITS_VERSION, "schema_version", version, f"{FITS_VERSION}: made by another version of mdm-jax")
    laws, minima = _laws(_rows(tree, "laws")), _rows(tree, "minima")
    found: dict[FlopConvention, Prior] = {}
    for convention in FlopConvention:
        families = {}
        for family in Family:
            n_opt, loss = (laws.get((convention.value, family.value, name)) for name in ("n_opt", "loss_opt"))
            if n_opt and loss:
                families[family] = FamilyPrior(n_opt, loss, _range(minima, family, FLOP_COLUMNS[convention]))
        if families:
            found[convention] = Prior(source, convention, families)
    require(bool(found), "laws", len(laws), "a law of loss_opt and of n_opt for the mdm or the arm")
    return found


def _rows(tree: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    rows = tree.get(name)
    fine = isinstance(rows, list) and len(rows) <= MOST_ROWS and all(isinstance(row, Mapping) for row in rows)
    require(fine, name, type(rows).__name__, f"a list of at most {MOST_ROWS} objects")
    return rows  # type: ignore[return-value]


BOUNDS: dict[str, tuple[float, float]] = {"n_opt": (0.0, 2.0), "loss_opt": (-1.0, 0.0)}
"""Open bounds of each law's exponent: N* grows with compute, and the loss falls."""


def _laws(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], Law]:
    """The laws of sizes and losses, by (convention, family, quantity). Other quantities are ignored."""
    laws = {}
    for i, row in enumerate(rows):
        key = (str(row.get("convention")), str(row.get("family")), str(row.get("quantity")))
        if key[2] not in BOUNDS:
            continue
        low, high = BOUNDS[key[2]]
        coefficient = _number(row, "coefficient", f"laws[{i}]", "above 0", lambda value: value > 0)
        inside = f"between {low:g} and {high:g} for {key[2]}"
        exponent = _number(row, "exponent", f"laws[{i}]", inside, lambda value, a=low, b=high: a < value < b)
        require(key not in laws, f"laws[{i}]", ", ".join(key), "given only once")
        laws[key] = Law(coefficient, exponent)
    return laws


def _range(minima: Sequence[Mapping[str, Any]], family: Family, column: str) -> tuple[float, float]:
    """The smallest and the largest compute of a family's usable minima."""
    own = [
        _number(row, column, f"minima[{i}]", "above 0", lambda value: value > 0)
        for i, row in enumerate(minima)
        if row.get("family") == family.value and row.get("status") == "ok"
    ]
    require(len(own) >= 2, f"minima of the {family.value}", len(own), "two with status ok, as its laws need")
    return min(own), max(own)


def _number(row: Mapping[str, Any], name: str, where: str, bound: str, good: Callable[[float], bool]) -> float:
    value = row.get(name)
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    require(number and math.isfinite(value) and good(value), f"{where}.{name}", value, bound)  # type: ignore[arg-type]
    return float(value)  # type: ignore[arg-type]


def flops_range(prior: Prior) -> str:
    """The compute of the prior's points as text, under its convention: `ARM 6e+18 to 1e+20, MDM …`."""
    spans = ((f.flops, family.value.upper()) for family, f in prior.families.items())
    grouped = [(span, [n for _, n in same]) for span, same in itertools.groupby(sorted(spans), lambda pair: pair[0])]
    return ", ".join(f"{' and '.join(names)} {a:.3g} to {b:.3g}" for (a, b), names in grouped)
