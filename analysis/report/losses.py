"""What a report's losses are: a likelihood or a bound on one, of which tokens, and by which FLOPs budgets count."""

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
class LossesSaid:
    """Parts of the page's sentences on losses."""

    families: list[str]
    """What each family's loss is."""
    bound_against_likelihood: bool
    """Whether the MDM's loss is a bound and the ARM's a likelihood."""
    tokens: list[str]
    budgets: str


def loss_kind(runs: pd.DataFrame, family: str) -> str:
    """NLL or NELBO as the family's usable runs say it, with a question mark where they do not; as tables have it."""
    kinds = _told(runs, family)
    if not kinds:
        return f"{KINDS[USUAL[family]]}?" if family in USUAL else "–"
    return " and ".join(KINDS.get(kind, kind) for kind in kinds)


def losses_said(runs: pd.DataFrame) -> LossesSaid:
    """What each family's loss is, what equal losses then mean, of which tokens, and what budgets count."""
    kinds = {role: _told(runs, role) or [USUAL[role]] for role in USUAL if role in set(runs["family"])}
    families = [
        f"the {family_name(role)}'s is {' or '.join(SAID.get(kind, kind) for kind in own)}"
        + ("" if _told(runs, role) else " (the runs do not say)")
        for role, own in kinds.items()
    ]
    return LossesSaid(families, kinds == {role: [kind] for role, kind in USUAL.items()}, _tokens(runs), _budgets(runs))


def _told(runs: pd.DataFrame, family: str) -> list[str]:
    used = usable_runs(runs)
    return sorted(set(used.loc[used["family"] == family, "loss_kind"]) - {""})


def _tokens(runs: pd.DataFrame) -> list[str]:
    used, said = usable_runs(runs), []
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
