"""Means over facts and seeds with their errors: each family's, and the difference between the families.

The questions about one fact are averaged first. `se_seeds` is the standard error over the runs of different seeds, for
these facts. `se_facts` is that over the facts, of each fact's mean over the seeds, for these runs. Facts that share a
member, such as those about one region, are not independent, so their deviations are summed before they are squared.
`se` is the root of the sum of both squares, which is rather too large. A difference between the families is taken for
each seed and fact, before it is averaged.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from mdm_jax.command import aligned
from mdm_jax.evaluate.ratio import ratio
from mdm_jax.files.results import csv_text
from mdm_jax.spec.validation import require
from mdm_jax.tasks.reverse_curse.answers import Answer
from mdm_jax.tasks.reverse_curse.facts import BETWEEN, Direction, Order, Question, Wording

MEASURES = ("exact", "bleu", "preference", "first")
ALL = "all"
DIFFERENCE = "mdm - arm"
ONE_DIRECTION = "one_direction"
"""Facts that are trained in one direction, forward or backward."""


@dataclass(frozen=True)
class Answered:
    """A run and its answers to all questions."""

    model: str
    family: str
    seed: int
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard errors; NaN where there is one value only."""

    mean: float
    se_seeds: float
    se_facts: float

    @property
    def se(self) -> float:
        """Both errors together; that which there is, if there is one only."""
        known = [error for error in (self.se_seeds, self.se_facts) if not math.isnan(error)]
        return math.hypot(*known) if known else math.nan


@dataclass(frozen=True)
class Cell:
    """The facts and questions of a row.

    Attributes:
        relation: one of `Relation`, or `all`.
        order: one of `Order`, or `one_direction`.
        direction: one of `Direction`.
        wording: one of `Wording`, or `all`.
    """

    relation: str
    order: str
    direction: str
    wording: str

    def has(self, question: Question) -> bool:
        """Whether the question belongs to the row."""
        one = question.order != Order.BOTH if self.order == ONE_DIRECTION else question.order == self.order
        fits = self.relation in (ALL, question.relation) and self.wording in (ALL, question.wording)
        return one and fits and question.direction == self.direction


@dataclass(frozen=True)
class Line:
    """A family, or the difference between the families, in one cell. A measure without values is absent."""

    who: str
    cell: Cell
    seeds: int
    facts: int
    chance: float | None
    measures: dict[str, Estimate]


def estimate(values_SF: Float64[np.ndarray, "S F"], unit_F: Int[np.ndarray, "F"]) -> Estimate:
    """The mean over seeds and facts, and its errors.

    Args:
        values_SF: a value of each seed's run and each fact.
        unit_F: facts with the same number are not independent.
    """
    seed_S = np.arange(len(values_SF))
    return Estimate(float(values_SF.mean()), _error(values_SF.mean(1), seed_S), _error(values_SF.mean(0), unit_F))


def _error(values: np.ndarray, units: np.ndarray) -> float:
    """The standard error of the mean of values that are independent only between units; NaN for a single unit."""
    _, place = np.unique(units, return_inverse=True)
    return ratio(np.bincount(place, values)[None], np.bincount(place)).se_data


def units(facts: Sequence[str]) -> Int[np.ndarray, "F"]:
    """A number for each fact, which is equal for facts that share a member, also by way of other facts."""
    unit = dict[str, int]()
    for number, fact in enumerate(facts):
        joined = {unit[member] for member in fact.split(BETWEEN) if member in unit}
        unit |= dict.fromkeys(fact.split(BETWEEN), number)
        unit = {member: number if old in joined else old for member, old in unit.items()}
    return np.array([unit[fact.split(BETWEEN)[0]] for fact in facts])


def lines(questions: Sequence[Question], found: Sequence[Answered]) -> list[Line]:
    """A line for each cell that has questions: for each family, and for the difference if there are common seeds.

    Raises:
        ValueError: two runs of a family have the same seed.
    """
    runs: dict[str, dict[int, Answered]] = {}
    for one in found:
        other = runs.setdefault(one.family, {}).setdefault(one.seed, one)
        bound = f"another seed than that of {other.model}: compare one size and budget at a time"
        require(other is one, f"{one.model}: seed", one.seed, bound)
    common = sorted(set.intersection(*(set(of) for of in runs.values())))
    made = []
    for cell in _cells(questions):
        chosen = [i for i, question in enumerate(questions) if cell.has(question)]
        facts = [questions[i].fact for i in chosen]
        sides = {family: [of[seed].answers for seed in sorted(of)] for family, of in sorted(runs.items())}
        made += [_line(family, cell, chosen, facts, [side]) for family, side in sides.items()]
        if len(runs) == 2 and common:
            pair = [[runs[family][seed].answers for seed in common] for family in ("mdm", "arm")]
            made.append(_line(DIFFERENCE, cell, chosen, facts, pair))
    return made


def _cells(questions: Sequence[Question]) -> list[Cell]:
    """The cells that have questions."""
    relations = [*dict.fromkeys(question.relation for question in questions), ALL]
    orders = [ONE_DIRECTION, *(order.value for order in Order)]
    wordings = [ALL, *(wording.value for wording in Wording)]
    cells = (
        Cell(relation, order, direction.value, wording)
        for relation in relations
        for order in orders
        for direction in Direction
        for wording in wordings
    )
    return [cell for cell in cells if any(map(cell.has, questions))]


def _line(
    who: str, cell: Cell, chosen: Sequence[int], facts: Sequence[str], sides: Sequence[Sequence[Sequence[Answer]]]
) -> Line:
    """A line of one side, or of the first side less the second."""
    names = list(dict.fromkeys(facts))
    measures, unit_F = {}, units(names)
    for measure in MEASURES:
        values = [_by_fact(measure, chosen, facts, side) for side in sides]
        values_SF = values[0] if len(values) == 1 else values[0] - values[1]
        known_F = ~np.isnan(values_SF).any(0)  # a fact without distractors has no rank
        if known_F.any():
            measures[measure] = estimate(values_SF[:, known_F], unit_F[known_F])
    chances = [answer.chance for answer in (sides[0][0][i] for i in chosen) if answer.chance is not None]
    chance = float(np.mean(chances)) if chances and len(sides) == 1 else None
    return Line(who, cell, len(sides[0]), len(names), chance, measures)


def _by_fact(
    measure: str, chosen: Sequence[int], facts: Sequence[str], runs: Sequence[Sequence[Answer]]
) -> Float64[np.ndarray, "S F"]:
    """The mean over each fact's questions that have a value; NaN for a fact without any."""
    groups: dict[str, list[int]] = {}
    for i, fact in zip(chosen, facts, strict=True):
        groups.setdefault(fact, []).append(i)
    found_SF = np.full((len(runs), len(groups)), np.nan)
    for s, answers in enumerate(runs):
        for f, of_fact in enumerate(groups.values()):
            known = [value for i in of_fact if (value := getattr(answers[i], measure)) is not None]
            if known:
                found_SF[s, f] = np.mean(known)
    return found_SF


def to_csv(table: Sequence[Line]) -> str:
    """The lines as CSV. Each measure has four columns: its mean, `_se`, `_se_seeds` and `_se_facts`."""
    errors = ("", "_se", "_se_seeds", "_se_facts")
    about = ["who", "relation", "order", "direction", "wording", "seeds", "facts", "chance_of_first"]
    rows: list[list[object]] = [[*about, *(measure + error for measure in MEASURES for error in errors)]]
    for line in table:
        cell = line.cell
        cells = [line.who, cell.relation, cell.order, cell.direction, cell.wording, line.seeds, line.facts]
        numbers: list[float | None] = [line.chance]
        for measure in MEASURES:
            one = line.measures.get(measure)
            numbers += [None] * 4 if one is None else [one.mean, one.se, one.se_seeds, one.se_facts]
        rows.append([*cells, *(None if n is None or math.isnan(n) else round(n, 5) for n in numbers)])
    return csv_text(rows)


def shown(table: Sequence[Line]) -> list[str]:
    """The lines over all wordings for a terminal: facts trained in one direction, then those in both."""
    rows = [["relation", "asked", "who", "seeds", "facts", "exact", "BLEU", "preference", "first", "chance"]]
    for line in table:
        cell = line.cell
        if cell.wording != ALL or cell.order not in (ONE_DIRECTION, Order.BOTH):
            continue
        asked = "both trained" if cell.order == Order.BOTH else cell.direction
        values = [_shown(line.measures.get(measure)) for measure in MEASURES]
        chance = "" if line.chance is None else f"{line.chance:.2f}"
        rows.append([cell.relation, asked, line.who, f"{line.seeds}", f"{line.facts}", *values, chance])
    return aligned(rows, ["relation", "asked", "who"])


def _shown(one: Estimate | None) -> str:
    if one is None:
        return "-"
    return f"{one.mean:.3f}" if math.isnan(one.se) else f"{one.mean:.3f} ± {one.se:.3f}"
