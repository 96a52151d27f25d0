# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Fit your own sweep
#
# `read_runs("path/of/the/sweep")` reads the folder of a sweep. `read_runs("table.csv", columns=...)` reads your own
# table; `columns` maps our column names to yours. The table below is simulated from a known loss surface, so that every
# answer can be checked. One run has diverged, and the two largest sizes of the MDM's largest budget are missing.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from analysis import (
    bootstrap,
    check,
    compute_gap,
    fit_isoflop,
    fit_parametric,
    gap_sensitivity,
    holdout,
    plot_isoflop,
    plot_loss,
    read_runs,
)

rng = np.random.default_rng(0)
tables = []
for family, scale, first in (("arm", 1.0, 1e18), ("mdm", 2.4, 1e19)):
    budget = np.repeat(first * 4.0 ** np.arange(5), 7)
    N = 0.09 * budget**0.5 * np.tile(4.0 ** np.linspace(-1, 1, 7), 5) * 0.7
    D = budget / 6 / N
    val = 1.8 + scale * (478 / N**0.348 + 2143 / D**0.366) + 0.004 * rng.standard_normal(35)
    kind = {"arm": "nll", "mdm": "nelbo"}[family]
    tables.append(pd.DataFrame({"model": family, "N": N, "C": budget, "val": val, "loss_kind": kind}))
theirs = pd.concat(tables, ignore_index=True)
theirs.loc[3, "val"] = np.nan
theirs = theirs.drop(index=[68, 69])

runs = read_runs(theirs, columns="family=model,params_non_embedding=N,budget=C,loss=val")
print(len(runs), "runs,", (runs["excluded_reason"] == "").sum(), "usable")

# %% [markdown]
# Without a mapping, the error names the missing columns and says what to write.

# %%
try:
    read_runs(theirs)
except ValueError as error:
    print(error)

# %% [markdown]
# `fit_isoflop` fits one curve for each budget. The table shows the minimum of each curve. Only minima with the status
# `ok` are used for the laws and the gap.

# %%
fit = fit_isoflop(runs, curve="cubic")
fit

# %%
plot_isoflop(fit)

# %% [markdown]
# `bootstrap` refits everything 4000 times with random errors of the runs. The table shows each minimum with its 95%
# interval.

# %%
draws = bootstrap(fit)
draws

# %% [markdown]
# `check` lists what a referee would ask. Each finding has a number and a remedy.

# %%
for finding in check(fit.runs, fit, draws):
    print(f"{finding.severity}: {finding.message}. Remedy: {finding.remedy}.")

# %% [markdown]
# The gap, with its interval, at losses that both families reached. `gap.at` reads it at one loss.

# %%
gap = compute_gap(fit.frontier("arm"), fit.frontier("mdm"), draws=draws)
print(gap.at(3.0))
gap

# %%
plot_loss(fit, draws=draws, gap=gap)

# %%
figure, axes = plt.subplots(figsize=(6, 3.6), dpi=100, layout="constrained")
axes.fill_between(gap.loss, gap.lower, gap.upper, alpha=0.2, lw=0, label="95% interval")
axes.plot(gap.loss, gap.ratio, label="interpolated")
axes.invert_xaxis()
axes.set_xlabel("validation loss (nats per token), better to the right")
axes.set_title("Compute ratio MDM / ARM", loc="left")
_ = axes.legend(frameon=False)

# %% [markdown]
# The gap at the same loss under other curves and laws. The spread of these rows is model error. No interval includes
# it.

# %%
table = gap_sensitivity(fit, conventions=("smdm_6nd",), draws=draws)
print(table[["curve", "law", "ratio", "lower", "upper", "not_in_interval"]].round(1).to_string(index=False))

# %% [markdown]
# Would the laws have predicted the largest budgets? `holdout` fits the smaller budgets and predicts the largest one.
# The power laws are wrong by a tenth of a nat. Their intervals have only two degrees of freedom and are so wide that
# they include even this error. So read the error first.

# %%
largest = {"arm": 1e20, "mdm": 1e21}
told = holdout(fit, budget_max=largest).query("quantity == 'loss_opt'")
told[["family", "law", "predicted", "observed", "error_nats", "inside"]].round(4)

# %%
for family in ("arm", "mdm"):
    runs_above = holdout(fit_parametric(runs, family=family), budget_max=largest)
    rms = float(np.sqrt((runs_above["error_nats"] ** 2).mean()))
    print(f"{family}: the surface of the smaller budgets predicts {len(runs_above)} runs to {rms:.4f} nats (rms)")

# %% [markdown]
# `python -m analysis.report TABLE.csv --columns …` writes all of this, with figures, on one page.
