"""Invented names and descriptions, which no text has: names from syllables, descriptions from word lists."""

import random
from collections.abc import Callable

PARTS = """
b br d dr f g gr h j k kr l m n p pr r s st t tr v w z
a e i o u ai ei ou
l n r s t k m sh nd rk
keeper painter owner maker builder guardian finder singer teacher pilot gardener thief
silver hollow frozen crooked burning silent golden paper floating buried iron striped
tower bell garden bridge lantern clock harbour mirror violin ladder orchard kite
"""
ONSETS, VOWELS, CODAS, ROLES, QUALITIES, THINGS = map(str.split, PARTS.strip().splitlines())
MOST_TRIES = 1000


class Inventor:
    """Names and descriptions from a seed. None is equal to another one, or the beginning of another one."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._used: set[str] = set()
        self._beginnings: set[str] = set()

    def name(self) -> str:
        """A new name of two syllables, such as `Dromkai`.

        Raises:
            ValueError: all names are used.
        """

        def made() -> str:
            word = "".join(self._draw.choice(part) for part in (ONSETS, VOWELS, CODAS, ONSETS, VOWELS))
            return word.capitalize()

        return self._unused(made, "names")

    def description(self) -> str:
        """A new description, such as `the keeper of the hollow bell`.

        Raises:
            ValueError: all descriptions are used.
        """

        def made() -> str:
            role, quality, thing = (self._draw.choice(words) for words in (ROLES, QUALITIES, THINGS))
            return f"the {role} of the {quality} {thing}"

        return self._unused(made, "descriptions")

    def _unused(self, made: Callable[[], str], what: str) -> str:
        for _ in range(MOST_TRIES):
            word = made()
            beginnings = {word[:length] for length in range(1, len(word) + 1)}
            if word not in self._beginnings and not beginnings & self._used:
                self._used.add(word)
                self._beginnings |= beginnings
                return word
        raise ValueError(f"facts: no more {what} are left to invent: ask for fewer facts")
