"""Checks that the runs of one fit are of one group, with budgets counted under one convention.

A sweep may hold an ablation: curves in groups, such as one for each FLOP convention. Their budgets and losses answer
different questions, so a fit refuses a mixture and names the groups. A family that has no runs in the chosen group is
taken from the runs without a group, such as one ARM that several MDMs are compared with.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import pandas as pd

from analysis.wording import some


def choose(runs: pd.DataFrame, where: str | Sequence[str]) -> pd.DataFrame:
    """The rows that all conditions `column=value` hold for, such as `group=exact`.

    Raises:
        ValueError: a condition that is none, an unknown column, or a value that no row has; those known are listed.
    """
    for condition in [where] if isinstance(where, str) else where:
        column, equals, value = (part.strip() for part in condition.partition("="))
        if not equals or column not in runs:
            known = f"one of {', '.join(map(str, runs.columns))}"
            raise ValueError(f"where = {condition!r}: must be COLUMN=VALUE, such as group=exact, with COLUMN {known}")
        keep = np.array([_equals(cell, value) for cell in runs[column]], bool)
        if not keep.any():
            raise ValueError(f"where = {condition!r}: no run has it; {column} is {_values_text(runs[column])}")
        if column in ("group", "objective_variant"):
            family, group = np.asarray(runs["family"]), np.asarray(runs["group"])
            keep |= ~np.isin(family, family[keep]) & ((group == "") | (column == "objective_variant"))
        runs = cast(pd.DataFrame, runs[keep]).reset_index(drop=True)
    return runs


def check_one_group(runs: pd.DataFrame) -> None:
    """Refuses runs of several groups.

    Raises:
        ValueError: they hold several, or one beside runs of the same family without a group; all are listed.
    """
    groups = sorted(set(runs["group"]) - {""}) if "group" in runs else []
    if not groups:
        return
    by_family = set(zip(runs["family"], runs["group"], strict=True))
    mixed = any((family, "") in by_family for family, group in by_family if group)
    if len(groups) > 1 or mixed:
        names = _values_text(runs["group"])
        raise ValueError(
            f"the runs are of several groups, which never meet in one fit: {names}."
            f" Choose one: --where group={groups[0]} (in Python read_runs(..., where='group={groups[0]}'))"
        )


def check_one_loss(runs: pd.DataFrame) -> None:
    """Refuses a family whose runs were trained on several losses: their scatter is no noise, and their optima differ.

    Raises:
        ValueError: one was; its losses are listed.
    """
    for family, trained in runs.groupby("family")["objective_variant"]:
        known = sorted(set(trained) - {""})
        if len(known) > 1:
            raise ValueError(
                f"the {family} runs were trained on several losses ({', '.join(known)}), which never meet in one fit."
                f" Choose one: --where objective_variant={known[0]}"
            )


def check_one_convention(runs: pd.DataFrame) -> None:
    """Refuses budgets counted under several FLOP conventions.

    Raises:
        ValueError: they are; the conventions are listed.
    """
    known = sorted(set(runs["budget_convention"]) - {""}) if "budget_convention" in runs else []
    if len(known) > 1:
        raise ValueError(
            f"budgets are counted under several conventions ({', '.join(known)}), so equal numbers are not equal"
            f" compute. Choose one: --where budget_convention={known[0]}"
        )


def _equals(cell: object, value: str) -> bool:
    if isinstance(cell, str):
        return cell == value
    try:
        return float(value) == cell
    except ValueError:
        return False


def _values_text(values: Iterable[object]) -> str:
    """The different values, for people."""
    return some((str(value) or "(none)" for value in dict.fromkeys(values)), most=30)
