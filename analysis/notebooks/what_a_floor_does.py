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
# # What a floor does to the gap
#
# A power law is a straight line in log-log axes, and its loss falls to zero. The loss on text cannot: text has entropy,
# so the loss approaches a floor. Five points over a factor 17 of compute hardly show the floor. But the extrapolated
# gap depends on it strongly.

# %%
import matplotlib.pyplot as plt
import numpy as np

from analysis import compute_gap, fit_saturating_power_law
from analysis.published import published_frontier

arm, mdm = published_frontier("smdm_2024", "arm"), published_frontier("smdm_2024", "mdm")
where = np.array([1e19, 1e20, 1e21])
for floor in (0.0, 0.5, 1.0, 1.5, 1.8):
    gap = compute_gap(arm, mdm, "flops", "given_floor", where, floor=floor)
    print(f"floor {floor:.1f}: " + ", ".join(f"{r:.0f} at {c:.0e}" for r, c in zip(gap.ratio, where, strict=True)))

# %% [markdown]
# With a floor of 1.5 the same ten points give a gap of 17 at 1e19 FLOPs, 31 at 1e20 and 54 at 1e21. Do the points say
# which floor is right? The next cell computes the root-mean-square residual of log loss for each floor.

# %%
floors = np.linspace(0.0, 2.2, 45)
misfit = []
for floor in floors:
    fits = [fit_saturating_power_law(side.flops, side.loss, float(floor)) for side in (arm, mdm)]
    residuals = [np.log(side.loss / law.predict(side.flops)) for side, law in zip((arm, mdm), fits, strict=True)]
    misfit.append(float(np.sqrt(np.mean(np.square(residuals)))))
least = int(np.argmin(misfit))
print(f"least at a floor of {floors[least]:.2f}: {misfit[least]:.4f}; without a floor {misfit[0]:.4f}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), dpi=100, layout="constrained")
left.plot(floors, 1e3 * np.array(misfit), color="#1f2328")
left.set_ylim(0)
left.set_xlabel("shared floor (nats per token)")
left.set_title("Residual of log loss, rms (thousandths)", loc="left")
losses = np.linspace(2.15, 3.4, 200)
for floor, colour in ((0.0, "#CC79A7"), (1.0, "#56B4E9"), (1.5, "#009E73"), (1.8, "#E69F00")):
    gap = compute_gap(arm, mdm, law="given_floor", grid=losses, floor=floor)
    right.semilogy(gap.loss, gap.ratio, color=colour, label=f"floor {floor}")
right.axvspan(2.830, 2.846, color="#d8dee4", label="both measured")
right.invert_xaxis()
right.set_xlabel("validation loss (nats per token), better to the right")
right.set_yticks([10, 20, 50, 100], ["10", "20", "50", "100"])
right.yaxis.minorticks_off()
right.set_title("Compute ratio MDM / ARM", loc="left")
_ = right.legend(frameon=False)

# %% [markdown]
# The points fit best with a floor near 1.5. There the residuals are little larger than our error in reading the figure
# (.0006 nats of 2.8, which is .0002 in log loss). This does not prove the floor: we assumed that both families have the
# same floor, and the floor lies .9 nats below the lowest point.
#
# All curves agree where both families were measured, and they differ everywhere else. A statistical interval says how
# uncertain one curve is. Model error is the difference between the curves. A bootstrap does not show model error. More
# budgets, far apart, do.
