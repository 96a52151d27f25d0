"""A report's words on its losses: likelihood or bound, the tokens they are measured on, the FLOPs of the budgets."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.runs.budgets import spending
from analysis.runs.load import numbers, usable_runs
from analysis.wording import CONVENTIONS, count, family_name

KINDS = {"nll": "NLL", "nelbo": "NELBO"}
SAID = {"nll": "a negative log-likelihood", "nelbo": "a NELBO, an upper bound on the negative log-likelihood"}
USUAL = {"arm": "nll", "mdm": "nelbo"}
MEASURED = {"vocab_size": "a vocabulary of {}", "seq_len": "{} tokens a sequence", "eval_tokens": "{} evaluated"}


@dataclass(frozen=True)
class Losses:
    """What a page says of the losses of a run table."""

    kinds: dict[str, str]
    """NLL or NELBO by family, as its usable runs say it; with a question mark where they do not."""
    families: list[str]
    """What each family's loss is, in words."""
    bound_against_likelihood: bool
    """Whether the MDM's loss is a bound and the ARM's a likelihood."""
    tokens: list[str]
    """The tokens that the losses are measured on, in words."""
    budgets: str
    """The FLOP convention of the budgets, a sentence."""


def describe_losses(runs: pd.DataFrame) -> Losses:
    """The words for a run table: see the fields of `Losses`."""
    used = usable_runs(runs)
    told: dict[str, list[str]] = {role: [] for role in USUAL}
    for family, rows in used.groupby("family", sort=False):
        told[str(family)] = sorted(set(rows["loss_kind"]) - {""})
    kinds = {family: _short(family, own) for family, own in told.items()}
    known = {role: told[role] or [USUAL[role]] for role in USUAL if role in set(runs["family"])}
    families = []
    for role, own in known.items():
        said = " or ".join(SAID.get(kind, kind) for kind in own)
        families.append(f"the {family_name(role)}'s is {said}{'' if told[role] else ' (the runs do not say)'}")
    bound = known == {role: [kind] for role, kind in USUAL.items()}
    return Losses(kinds, families, bound, _tokens(used), _budgets(runs))


def _short(family: str, kinds: list[str]) -> str:
    if kinds:
        return " and ".join(KINDS.get(kind, kind) for kind in kinds)
    return f"{KINDS[USUAL[family]]}?" if family in USUAL else "–"


def _tokens(used: pd.DataFrame) -> list[str]:
    said = []
    for column, words in MEASURED.items():
        known = np.unique(numbers(used, column))
        known = known[np.isfinite(known)]
        if len(known):
            shown = [count(v) if column == "eval_tokens" else f"{v:,.0f}" for v in (known[0], known[-1])]
            said.append(words.format(" to ".join(dict.fromkeys(shown))))
    return said


def _budgets(runs: pd.DataFrame) -> str:
    names = {family.convention for family in spending(runs)}
    if not names:
        return ""
    if names == {""}:
        return "Budgets follow no FLOP convention that is known here."
    return f"Budgets count {' or '.join(sorted(CONVENTIONS.get(name, 'unknown FLOPs') for name in names))}."
