"""The relations of the statements, with the wordings of both directions.

In each wording, `{a}` is the first member of the relation and `{b}` the second, and the last word of a wording is the
member that is asked for. `{A}` and `{B}` are the names of two levels of a hierarchy.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Relation(enum.StrEnum):
    """What a statement is about."""

    PERSON = "person"
    PARENT = "parent"
    COMPANY = "company"
    HIERARCHY = "hierarchy"


@dataclass(frozen=True)
class Wordings:
    """The paraphrases of one direction.

    Attributes:
        trained: wordings that the training statements use.
        held_out: wordings that only tests use.
    """

    trained: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class Form:
    """A relation's wordings. `forward` ends with `{b}`, and `backward` with `{a}`."""

    forward: Wordings
    backward: Wordings


LEVELS = ("region", "town", "street")
"""The levels of a hierarchy, from above."""

FORMS: Mapping[Relation, Form] = {
    Relation.PERSON: Form(
        Wordings(
            ("{a} is {b}", "{a} is known as {b}", "They call {a} {b}", "Since last year {a} is {b}"),
            ("People say that {a} is {b}", "As we know, {a} is {b}"),
        ),
        Wordings(
            ("{b} is {a}", "{b} is called {a}", "We met {b}, {a}", "The name of {b} is {a}"),
            ("People say that {b} is {a}", "As we know, {b} is {a}"),
        ),
    ),
    Relation.PARENT: Form(
        Wordings(
            ("{a} is a child of {b}", "{a} has the parent {b}", "{a} was raised by {b}", "The parent of {a} is {b}"),
            ("People say that {a} is a child of {b}", "As we know, the parent of {a} is {b}"),
        ),
        Wordings(
            ("{b} is a parent of {a}", "{b} has the child {a}", "{b} raised {a}", "The child of {b} is {a}"),
            ("People say that {b} is a parent of {a}", "As we know, the child of {b} is {a}"),
        ),
    ),
    Relation.COMPANY: Form(
        Wordings(
            ("The firm {a} is led by {b}", "The firm {a} has the head {b}", "The head of {a} is {b}", "{a} obeys {b}"),
            ("People say that the firm {a} is led by {b}", "As we know, the head of {a} is {b}"),
        ),
        Wordings(
            ("{b} leads the firm {a}", "{b} is the head of {a}", "The firm of {b} is {a}", "{b} directs {a}"),
            ("People say that {b} leads the firm {a}", "As we know, the firm of {b} is {a}"),
        ),
    ),
    Relation.HIERARCHY: Form(
        Wordings(
            (
                "The {A} {a} contains the {B} {b}",
                "In the {A} {a} lies the {B} {b}",
                "A {B} of {a} is {b}",
                "The {A} {a} has the {B} {b}",
            ),
            ("People say that the {A} {a} contains the {B} {b}", "As we know, a {B} of {a} is {b}"),
        ),
        Wordings(
            (
                "The {B} {b} is in the {A} {a}",
                "Around the {B} {b} is the {A} {a}",
                "The {A} of {b} is {a}",
                "The {B} {b} belongs to the {A} {a}",
            ),
            ("People say that the {B} {b} is in the {A} {a}", "As we know, the {A} of {b} is {a}"),
        ),
    ),
}
