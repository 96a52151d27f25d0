"""Facts, the statements that a model reads, and the questions that test it in both directions.

Berglund et al. 2023 (arXiv 2309.12288, experiment 1) train on descriptions of fictitious people in three sets: the name
comes first, the description comes first, or both orders occur. Here every relation has these three sets. A question is
`same` if its direction was trained for its fact, and `reversed` otherwise. All wordings of a direction are trained with
other facts, so a reversed question has a known form, and only its fact was never seen in this direction.
"""

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mdm_jax.spec.validation import require
from mdm_jax.tasks.reverse_curse.invented import Inventor
from mdm_jax.tasks.reverse_curse.relations import FORMS, LEVELS, Relation, Wordings

MOST_FACTS = 10_000
BETWEEN = " / "
"""What stands between the members in the name of a fact."""
TOWNS_OF_A_REGION, STREETS_OF_A_TOWN = 2, 1


class Order(enum.StrEnum):
    """The directions in which a fact's statements are trained."""

    FORWARD = "forward"
    BACKWARD = "backward"
    BOTH = "both"


class Direction(enum.StrEnum):
    """Whether a question has a direction that was trained for its fact."""

    SAME = "same"
    REVERSED = "reversed"


class Wording(enum.StrEnum):
    """Whether the wording of a question occurs in training."""

    TRAINED = "trained"
    HELD_OUT = "held_out"


@dataclass(frozen=True)
class Fact:
    """Two members of a relation, and the order in which they are trained. `levels` names those of a hierarchy."""

    relation: Relation
    order: Order
    a: str
    b: str
    levels: tuple[str, str] = ("", "")

    @property
    def name(self) -> str:
        """The fact's name in tables."""
        return f"{self.a}{BETWEEN}{self.b}"


@dataclass(frozen=True)
class Statement:
    """A training statement, without a line end."""

    relation: str
    order: str
    text: str


@dataclass(frozen=True)
class Question:
    """A prompt and its right answers.

    Attributes:
        relation: what it is about.
        order: the direction or directions in which its fact was trained.
        direction: `same` or `reversed`.
        wording: `trained` or `held_out`.
        fact: its name. Questions about one fact are not independent.
        prompt: what the model reads; no blank follows it.
        answers: right answers, as they follow the prompt in a statement: with a blank before and a full stop behind.
        group: questions of one group have answers of one kind, so the others' answers are its distractors.
    """

    relation: str
    order: str
    direction: Direction
    wording: Wording
    fact: str
    prompt: str
    answers: tuple[str, ...]
    group: str


def invent(relations: Sequence[Relation], facts: int, seed: int) -> list[Fact]:
    """Facts with invented names: `facts` of each relation in each of the three orders.

    A hierarchy is a set of trees: regions with two towns, which have a street each. Every order has its own trees.

    Raises:
        ValueError: a number is out of range, a relation occurs twice, or no more names are left.
    """
    require(bool(relations) and len(set(relations)) == len(relations), "relations", list(relations), "different ones")
    require(2 <= facts <= MOST_FACTS, "facts", facts, f"from 2 to {MOST_FACTS}")
    inventor = Inventor(seed)
    found = list[Fact]()
    for relation in relations:
        for order in Order:
            made = _tree_facts(inventor, order) if relation is Relation.HIERARCHY else _pairs(inventor, relation, order)
            found += [next(made) for _ in range(facts)]
    return found


def _pairs(inventor: Inventor, relation: Relation, order: Order) -> Iterator[Fact]:
    while True:
        second = inventor.description() if relation is Relation.PERSON else inventor.name()
        yield Fact(relation, order, inventor.name(), second)


def _tree_facts(inventor: Inventor, order: Order) -> Iterator[Fact]:
    while True:
        region = inventor.name()
        for town in [inventor.name() for _ in range(TOWNS_OF_A_REGION)]:
            yield Fact(Relation.HIERARCHY, order, region, town, LEVELS[:2])
            for _ in range(STREETS_OF_A_TOWN):
                yield Fact(Relation.HIERARCHY, order, town, inventor.name(), LEVELS[1:])


def statements(facts: Iterable[Fact]) -> list[Statement]:
    """Every fact in each trained wording of the directions in which it is trained."""
    found = []
    for fact in facts:
        for order in (Order.FORWARD, Order.BACKWARD):
            if fact.order in (order, Order.BOTH):
                texts = ("".join(_worded(fact, order, wording)) for wording in _wordings(fact, order).trained)
                found += [Statement(fact.relation, fact.order, text) for text in texts]
    return found


def questions(facts: Sequence[Fact]) -> list[Question]:
    """Every fact asked in both directions, in each trained and each held-out wording."""
    found = []
    for fact in facts:
        for order in (Order.FORWARD, Order.BACKWARD):
            direction = Direction.SAME if fact.order in (order, Order.BOTH) else Direction.REVERSED
            answers = _answers(facts, fact, order)
            wordings = _wordings(fact, order)
            for kind, texts in ((Wording.TRAINED, wordings.trained), (Wording.HELD_OUT, wordings.held_out)):
                for text in texts:
                    prompt, _ = _worded(fact, order, text)
                    about = (fact.relation.value, fact.order.value, direction, kind, fact.name)
                    group = " ".join(filter(None, (*about[:2], order.value, "-".join(fact.levels).strip("-"))))
                    found.append(Question(*about, prompt, answers, group))
    return found


def _wordings(fact: Fact, order: Order) -> Wordings:
    form = FORMS[fact.relation]
    return form.forward if order is Order.FORWARD else form.backward


def _answers(facts: Sequence[Fact], fact: Fact, order: Order) -> tuple[str, ...]:
    """All right answers: a region has several towns."""
    if order is Order.BACKWARD:
        return (f" {fact.a}.",)
    return tuple(f" {other.b}." for other in facts if (other.relation, other.a) == (fact.relation, fact.a))


def _worded(fact: Fact, order: Order, wording: str) -> tuple[str, str]:
    """The prompt, and the answer with a blank before it and a full stop behind it."""
    asked = "{b}" if order is Order.FORWARD else "{a}"
    names = {"a": fact.a, "b": fact.b, "A": fact.levels[0], "B": fact.levels[1]}
    before = wording.removesuffix(f" {asked}").format(**names)
    return before[0].upper() + before[1:], f" {asked.format(**names)}."
