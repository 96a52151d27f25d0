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
# # The published sixteen
#
# Nie et al. (arXiv 2410.18514) report that a masked diffusion model needs about 16 times the compute of an
# autoregressive one. Their figure shows five compute-optimal losses of each family, and two straight lines. We read the
# ten points from the figure (loss to ±.0006 nats) and do the same.

# %%
# ruff: noqa: D100
import matplotlib.pyplot as plt
import numpy as np

from analysis import compare_slopes, compute_gap, fit_power_law, overlap
from analysis.published import published_frontier, published_points

arm, mdm = published_frontier("smdm_2024", "arm"), published_frontier("smdm_2024", "mdm")
shared = overlap(arm, mdm)
assert shared is not None
laws = {"ARM": fit_power_law(arm.flops, arm.loss), "MDM": fit_power_law(mdm.flops, mdm.loss)}
for name, law in laws.items():
    low, high = law.intervals()["exponent"]
    print(f"{name}: L = {law.coefficient:.2f} C^{law.exponent:.4f}, exponent from {low:.4f} to {high:.4f}")
gap = compute_gap(arm, mdm, "flops", "power_law", np.array([1e19]))
print(f"at the ARM's 1e19 FLOPs: {gap.ratio[0]:.1f}, {gap.support[0]}")

# %%
figure, axes = plt.subplots(figsize=(6, 4.4), layout="constrained")
c = np.geomspace(5e18, 1.3e20, 50)
for side, name, colour in ((arm, "ARM", "#0072B2"), (mdm, "MDM", "#D55E00")):
    axes.loglog(side.flops, side.loss, "o", color=colour, label=name)
    axes.loglog(c, laws[name].predict(c), color=colour, lw=1.2)
axes.axhspan(*shared, color="#d8dee4", label="both measured")
axes.set_yticks([2.4, 2.6, 2.8, 3.0, 3.2, 3.4], ["2.4", "2.6", "2.8", "3.0", "3.2", "3.4"])
axes.yaxis.minorticks_off()
axes.set_xlabel("training compute, 6ND (FLOPs)")
axes.set_ylabel("validation loss (nats per token)")
axes.legend()

# %% [markdown]
# The grey strip is where both families were measured: from 2.830 to 2.846, one point of each. There a ratio needs no
# law. Everywhere else at least one line is extrapolated.

# %%
print("both measured from {:.3f} to {:.3f}".format(*shared))
straight = compute_gap(arm, mdm, law="piecewise_linear")
print(f"interpolated there: {straight.ratio.min():.1f} to {straight.ratio.max():.1f}")

# %% [markdown]
# Do the lines have the same slope, so that one number describes all budgets? And how do the best sizes compare?

# %%
test = compare_slopes(laws["ARM"], laws["MDM"])
print(f"slopes differ by {test.difference:.4f} ± {test.se:.4f} (p = {test.p:.2f}, {test.dof:.1f} degrees of freedom)")
sizes = {f: fit_power_law(*published_points("smdm_2024", f, "params_non_embedding")) for f in ("arm", "mdm")}
ratio = sizes["arm"].predict(arm.flops) / sizes["mdm"].predict(arm.flops)
print(f"the ARM's best size is {ratio.min():.2f} to {ratio.max():.2f} times the MDM's")

# %% [markdown]
# Another group's sweep (arXiv 2602.15014), read the same way:

# %%
others = [published_frontier("sahoo_2026", family) for family in ("arm", "mdm")]
theirs = compute_gap(others[0], others[1], "flops", "power_law", np.array([1e19, 1e20]))
print(f"power laws: {theirs.ratio[0]:.1f} at 1e19, {theirs.ratio[1]:.1f} at 1e20")
