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
# # The published gap of 16
#
# Nie et al. (arXiv 2410.18514) report that a masked diffusion model (MDM) needs about 16 times the compute of an
# autoregressive model (ARM) for the same loss. Their figure shows five compute-optimal losses of each family, and a
# straight line through each five. We read the ten points from the figure (with an error of ±.0006 nats) and fit the
# same lines.

# %%
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

# %% [markdown]
# The next cell draws the paper's two figures again. The grey strip shows the losses that both families reached.

# %%
sizes = {name: published_points("smdm_2024", name.lower(), "params_non_embedding") for name in ("ARM", "MDM")}
size_laws = {name: fit_power_law(*points) for name, points in sizes.items()}
c = np.geomspace(5e18, 1.2e20, 50)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), dpi=100, layout="constrained")
left.axhspan(*shared, color="#d8dee4", label="both measured")
for side, name, colour in ((arm, "ARM", "#0072B2"), (mdm, "MDM", "#D55E00")):
    left.loglog(side.flops, side.loss, "o", color=colour, label=name)
    left.loglog(c, laws[name].predict(c), color=colour, lw=1.2)
    right.loglog(*sizes[name], "o", color=colour, label=name)
    right.loglog(c, size_laws[name].predict(c), color=colour, lw=1.2)
left.set_yticks([2.4, 2.6, 2.8, 3.0, 3.2, 3.4], ["2.4", "2.6", "2.8", "3.0", "3.2", "3.4"])
right.set_yticks([1e8, 2e8, 4e8, 8e8], ["100M", "200M", "400M", "800M"])
for axes in (left, right):
    axes.set_xlabel("training compute, 6ND (FLOPs)")
    axes.yaxis.minorticks_off()
    axes.legend(frameon=False)
left.set_title("Loss of the best size (nats per token)", loc="left")
_ = right.set_title("Best size, parameters without embedding", loc="left")

# %% [markdown]
# The strip goes from 2.830 to 2.846 and has one point of each family. Inside the strip the gap needs no law. Outside it
# at least one line is extrapolated.

# %%
print("both measured from {:.3f} to {:.3f}".format(*shared))
straight = compute_gap(arm, mdm, law="piecewise_linear")
print(f"interpolated there: {straight.ratio.min():.1f} to {straight.ratio.max():.1f}")

# %% [markdown]
# Do the two lines have the same slope? Only then does one number describe the gap at all budgets. And how do the best
# sizes compare?

# %%
test = compare_slopes(laws["ARM"], laws["MDM"])
print(f"slopes differ by {test.difference:.4f} ± {test.se:.4f} (p = {test.p:.2f}, {test.dof:.1f} degrees of freedom)")
ratio = size_laws["ARM"].predict(arm.flops) / size_laws["MDM"].predict(arm.flops)
print(f"the ARM's best size is {ratio.min():.2f} to {ratio.max():.2f} times the MDM's")

# %% [markdown]
# The slopes do not differ by more than their scatter. With five points for each family, the data do not say whether the
# gap grows or shrinks with compute.
#
# The sweep of another group (arXiv 2602.15014), read from their figure in the same way:

# %%
others = [published_frontier("sahoo_2026", family) for family in ("arm", "mdm")]
theirs = compute_gap(others[0], others[1], "flops", "power_law", np.array([1e19, 1e20]))
print(f"power laws: {theirs.ratio[0]:.1f} at 1e19, {theirs.ratio[1]:.1f} at 1e20")
