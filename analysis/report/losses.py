"""What a report's losses are: a likelihood or a bound on one, of which tokens, and by which FLOPs budgets count."""

import numpy as np
import pandas as pd

from analysis.runs.budgets import spending
from analysis.runs.load import numbers, usable_runs
from analysis.wording import CONVENTIONS, count, family_name

KINDS = {"nll": "NLL", "nelbo": "NELBO"}
SAID = {"nll": "a negative log-likelihood", "nelbo": "a NELBO, an upper bound on the negative log-likelihood"}
USUAL = {"arm": "nll", "mdm": "nelbo"}


def loss_kind(runs: pd.DataFrame, family: str) -> str:
    """NLL or NELBO as the family's usable runs say it, with a question mark where they do not; as tables have it."""
    kinds = _kinds(runs, family)
    if not kinds:
        return f"{KINDS[USUAL[family]]}?" if family in USUAL else "–"
    return " and ".join(KINDS.get(kind, kind) for kind in kinds)


def _kinds(runs: pd.DataFrame, family: str) -> list[str]:
    used = usable_runs(runs)
    return sorted(set(used.loc[used["family"] == family, "loss_kind"]) - {""})


def losses_text(runs: pd.DataFrame) -> str:
    """Plain text: what each family's loss is, what equal losses then mean, of which tokens, and what budgets count."""
    said = []
    for family in (role for role in USUAL if role in set(runs["family"])):
        kinds = _kinds(runs, family) or [USUAL[family]]
        guess = "" if _kinds(runs, family) else " (the runs do not say)"
        said.append(f"the {family_name(family)}'s is {' or '.join(SAID.get(kind, kind) for kind in kinds)}{guess}")
    text = f"Losses are nats per token: {', '.join(said)}. " if said else ""
    if (
        (_kinds(runs, "mdm") or ["nelbo"]) == ["nelbo"]
        and (_kinds(runs, "arm") or ["nll"]) == ["nll"]
        and len(said) == 2
    ):
        text += (
            "The gap is the compute at which the MDM's bound, not its likelihood, equals the ARM's likelihood: in "
            "likelihoods it may be smaller, and no interval holds by how much. "
        )
    return (text + _tokens(runs) + _budgets(runs)).strip()


def _tokens(runs: pd.DataFrame) -> str:
    used = usable_runs(runs)
    parts = []
    for column, before, after in (
        ("vocab_size", "a vocabulary of ", ""),
        ("seq_len", "", " tokens a sequence"),
        ("eval_tokens", "", " evaluated"),
    ):
        known = np.unique(numbers(used, column))
        known = known[np.isfinite(known)]
        if len(known):
            shown = [count(v) if column == "eval_tokens" else f"{v:,.0f}" for v in (known[0], known[-1])]
            parts.append(before + " to ".join(dict.fromkeys(shown)) + after)
    return f"They are of {', '.join(parts)}. " if parts else ""


def _budgets(runs: pd.DataFrame) -> str:
    names = {family.convention for family in spending(runs)}
    if not names:
        return ""
    if names == {""}:
        return "Budgets follow no FLOP convention that is known here. "
    return f"Budgets count {' or '.join(sorted(CONVENTIONS.get(name, 'unknown FLOPs') for name in names))}. "
