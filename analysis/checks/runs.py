"""The doubts about the runs themselves, before any curve: states, mixtures, budgets, errors, training."""

from collections import Counter

import numpy as np
import pandas as pd

from analysis.checks.finding import Finding, Severity
from analysis.checks.loss_units import loss_unit_findings
from analysis.minima.cells import OUTSIDE, REPLICATES
from analysis.runs.budgets import OFF_BUDGET, spending
from analysis.runs.columns import DECISIVE, ROLES, UNREAD, not_a_number
from analysis.runs.consistency import REMEDY as CORRECT_ROW
from analysis.runs.consistency import SELF_CONTRADICTION
from analysis.runs.learning_rates import DROPPED, lr_sweep_of
from analysis.runs.likelihoods import NOT_EVALUATED
from analysis.runs.load import EVALUATED_AGAIN, OVERFLOWED, numbers, usable_runs
from analysis.runs.sweep_folder import REMEDIES
from analysis.wording import CONVENTIONS, family_name, plural, significant, some
from mdm_jax.files.results import TRUNK_SEGMENT

UNDECAYED = 0.2
HEAD_SHARE = 1.2
FLOPS_DISAGREE = 0.02


def check_runs(runs: pd.DataFrame) -> list[Finding]:
    """Findings about a run table, in no order."""
    checks = (_statuses, _unread, _off_budget, _families, _losses, _mixtures, loss_unit_findings, _errors, _repetitions)
    return [finding for check in (*checks, _training, _flops, _lr_sweep) for finding in check(runs)]


def _statuses(runs: pd.DataFrame) -> list[Finding]:
    """Runs that no fit uses, by reason."""
    remedies = {
        "status diverged": "lower the learning rate of these runs, or take the hole in the curve into account",
        "status failed": "read the run's log and start it again",
        "status running": "wait for them, then repeat the report",
        "status missing": "run them: python -m isoflop.run DIR",
        "duplicate of another run": "keep one of each; a repeated row would count twice",
        OUTSIDE: "nothing, the window was asked for",
        NOT_EVALUATED: "evaluate them: python -m mdm_jax.evaluate.likelihood DIR",
        TRUNK_SEGMENT: "nothing, the branches that start from them are in the fits",
        EVALUATED_AGAIN: "keep one evaluation of each run, or give repetitions their own seed",
        **{not_a_number(name): f"write {name} as a plain number" for name in DECISIVE},
        **REMEDIES,
        SELF_CONTRADICTION: CORRECT_ROW,
        OVERFLOWED: "leave FLOPs and budget to be computed from N and D in floating point, or correct them",
    }
    out = []
    left_out = ~runs["excluded_reason"].isin(("", DROPPED, OFF_BUDGET))
    for reason, group in runs[left_out].groupby("excluded_reason", sort=True):
        kind, _, _ = str(reason).partition(":")  # what follows is the run's own
        code = kind.removeprefix("status ").replace(" ", "_").replace(".", "_") + "_runs"
        message = f"{len(group)} of {len(runs)} runs left out ({reason}): {some(group['run_id'])}"
        remedy = remedies.get(kind, "correct the row, or leave it out on purpose")
        weight = Severity.NOTE if reason in (OUTSIDE, TRUNK_SEGMENT) else Severity.WARNING
        out.append(Finding(weight, code, message, float(len(group)), remedy))
    return out


def _lr_sweep(runs: pd.DataFrame) -> list[Finding]:
    """Runs that another learning rate of their cell beats, and cells whose best rate is at an end of those tried."""
    swept = lr_sweep_of(runs)
    if not swept.cells:
        return []
    message = f"{swept.cells} cells were run with several learning rates: the best stands, {swept.dropped} runs do not"
    if not swept.at_edge:
        return [Finding(Severity.NOTE, "lr_sweep", message, float(swept.dropped), "nothing, the sweep asked for it")]
    message += f"; in {swept.at_edge} of them the best is the lowest or the highest tried"
    remedy = "widen sweep.lr_multipliers, or read those cells' losses as upper bounds"
    return [Finding(Severity.WARNING, "lr_sweep_edge", message, float(swept.at_edge), remedy)]


def _unread(runs: pd.DataFrame) -> list[Finding]:
    """Cells that hold text where a number belongs."""
    out = []
    for name, (count, known, first) in runs.attrs.get(UNREAD, {}).items():
        message = f"{name}: {count} of {known} cells hold no number, the first is {first!r}"
        remedy = "write plain numbers; until then " + (
            "these runs are left out" if name in DECISIVE else "nothing is known of them there"
        )
        out.append(Finding(Severity.WARNING, "unread_numbers", message, float(count), remedy))
    return out


def _off_budget(runs: pd.DataFrame) -> list[Finding]:
    """Runs whose compute is not their budget, and budgets that no known convention gives."""
    out = []
    for family in spending(runs):
        name, ratio = family_name(family.family), family.ratio
        if not family.convention and len(ratio):
            message = (
                f"{name}: no known convention gives the budgets (6ND is {significant(float(ratio.min()))} to "
                f"{significant(float(ratio.max()))} of them), so nothing tells whether each run spent its own"
            )
            remedy = "add the FLOPs that were counted as flops_exact, or leave budget to be 6ND"
            out.append(Finding(Severity.WARNING, "unknown_convention", message, float(np.median(ratio)), remedy))
        elif len(family.off):
            off = np.isin(family.rows, family.off)
            worst = float(ratio[off][np.abs(np.log(ratio[off])).argmax()])
            message = (
                f"{name}: {off.sum()} of {plural(len(ratio), 'run')} spent other FLOPs than the budget, up to "
                f"{significant(worst)} times it ({CONVENTIONS.get(family.convention, family.convention)}), and "
                f"{'is' if off.sum() == 1 else 'are'} on no curve: {some(runs['run_id'].iloc[family.off])}"
            )
            remedy = "correct tokens or budget, or train them to their end"
            out.append(Finding(Severity.ERROR, "off_budget", message, worst, remedy))
    return out


def _families(runs: pd.DataFrame) -> list[Finding]:
    """Families that a gap needs and that no usable run is of; those there are named."""
    present = sorted(set(runs.loc[runs["excluded_reason"] == "", "family"]))
    listed = some(repr(name) for name in present) or "none"
    out = []
    for role in (role for role in ROLES if role not in present):
        message = f"no usable run of the {family_name(role)}, so there is no gap; families with usable runs: {listed}"
        remedy = f"run it, or name it: --{role} NAME (read_runs(..., families={{{role!r}: NAME}}))"
        out.append(Finding(Severity.ERROR, "family_absent", message, 0.0, remedy))
    return out


def _losses(runs: pd.DataFrame) -> list[Finding]:
    """Bounds and likelihoods in one family, and losses that do not say which they are."""
    out = []
    for family, group in usable_runs(runs).groupby("family"):
        name, kinds = family_name(str(family)), sorted(set(group["loss_kind"]) - {""})
        if len(kinds) > 1:
            message = f"{name}: losses of {len(kinds)} kinds in one family ({some(kinds)}); a bound is no likelihood"
            remedy = "evaluate all runs of a family the same way"
            out.append(Finding(Severity.ERROR, "mixed_loss_kind", message, float(len(kinds)), remedy))
    used = usable_runs(runs)
    unsaid = list(used["loss_kind"]).count("")
    if unsaid:
        message = (
            f"{unsaid} of {plural(len(used), 'run')} do not say what their loss is: an ARM's is taken for a "
            "likelihood, an MDM's for a bound on one"
        )
        remedy = "add a column loss_kind: nll for a likelihood, nelbo for a bound"
        out.append(Finding(Severity.WARNING, "unknown_loss_kind", message, float(unsaid), remedy))
    return out


def _mixtures(runs: pd.DataFrame) -> list[Finding]:
    """Losses that must not be compared: another quantity, other data, another tokenizer, other evaluation tokens."""
    used = usable_runs(runs)
    out = []
    for column in ("tokenizer_hash", "data_hash", "eval_tokens", "vocab_size", "seq_len"):
        known = {value for value in used[column] if value not in ("", None) and value == value}
        if len(known) > 1:
            grave = Severity.WARNING if column == "seq_len" else Severity.ERROR
            message = f"runs differ in {column} ({len(known)} values): their losses are not comparable"
            remedy = f"fit them apart: --where {column}=VALUE"
            out.append(Finding(grave, f"mixed_{column}", message, float(len(known)), remedy))
    return out


def _errors(runs: pd.DataFrame) -> list[Finding]:
    """Monte Carlo errors that only some runs of a family name."""
    out = []
    for family, group in usable_runs(runs).groupby("family"):
        errors = numbers(group, "loss_se_mc")
        unsaid = int(np.isnan(errors).sum())
        if unsaid and bool((errors > 0).any()):
            message = (
                f"{family_name(str(family))}: {unsaid} of {len(errors)} runs have no loss_se_mc and pass for exact"
            )
            remedy = "give loss_se_mc of all runs, or of none: --weights equal weighs all alike"
            out.append(Finding(Severity.WARNING, "partial_loss_se_mc", message, float(unsaid), remedy))
    return out


def _repetitions(runs: pd.DataFrame) -> list[Finding]:
    """Runs that count as repetitions though no seed tells them apart."""
    out = []
    for family, group in usable_runs(runs).groupby("family"):
        unseeded = group[group["seed"].isna()]
        alike = Counter(unseeded.groupby(["budget", *REPLICATES], dropna=False).ngroup())
        repeated = sum(number - 1 for number in alike.values())
        if repeated:
            message = f"{family_name(str(family))}: {plural(repeated, 'repetition')} without a seed"
            remedy = "give each run its seed: a run that stands twice would make the noise look small"
            out.append(Finding(Severity.NOTE, "unseeded_repetitions", message, float(repeated), remedy))
    return out


def _training(runs: pd.DataFrame) -> list[Finding]:
    """Repeated data, schedules that end high, and heads that weigh as much as the trunk."""
    used, out = usable_runs(runs), []
    for family, group in used.groupby("family"):
        name = family_name(str(family))
        epochs, ends = numbers(group, "epochs"), numbers(group, "lr_final_fraction")
        if (epochs > 1).any():
            most = float(np.nanmax(epochs))
            message = f"{name}: {(epochs > 1).sum()} of {len(group)} runs repeat their data, up to {most:.3g} epochs"
            remedy = "use a larger corpus: repeated tokens are worth less, and not the same to both families"
            out.append(Finding(Severity.WARNING, "epochs", message, most, remedy))
        if (ends > UNDECAYED).any():
            worst = float(np.nanmax(ends))
            message = f"{name}: {(ends > UNDECAYED).sum()} runs end at up to {worst:.0%} of their peak LR"
            remedy = "decay to 10% or less: undecayed losses lie above the frontier"
            out.append(Finding(Severity.WARNING, "undecayed", message, worst, remedy))
    ratio = numbers(used, "flops_with_head") / numbers(used, "flops_6nd")
    if np.isfinite(ratio).any() and float(np.nanmedian(ratio)) > HEAD_SHARE:
        value = float(np.nanmedian(ratio))
        message = f"the vocabulary head weighs: with it the median run spends {value:.2f} times 6ND"
        remedy = "quote the gap under exact beside smdm_6nd; they differ by what the families spend on the head"
        out.append(Finding(Severity.NOTE, "head_share", message, value, remedy))
    return out


def _flops(runs: pd.DataFrame) -> list[Finding]:
    """FLOPs that are not 6 N D, as when the product overflowed 64-bit integers on its way here."""
    used = usable_runs(runs)
    off = np.abs(numbers(used, "flops_6nd") / (6 * numbers(used, "params_non_embedding") * numbers(used, "tokens")) - 1)
    bad = off > FLOPS_DISAGREE
    if not bad.any():
        return []
    worst = float(off[bad].max())
    message = f"{bad.sum()} of {len(used)} runs have flops_6nd that differ from 6 N D by up to {worst:.3g} of it"
    remedy = "leave flops_6nd out, it follows from N and D; 6 N D above 9.2e18 overflows 64-bit integers"
    return [Finding(Severity.ERROR, "flops_not_6nd", message, worst, remedy)]
