"""The compute gap between MDM and ARM: as a function of loss or of FLOPs, under several laws, and how far they differ.

`python -m analysis.gap RUNS` prints it.
"""

from analysis.gap.curve import EXTRAPOLATED, INTERPOLATED, GapCurve, compute_gap, middle_of_overlap, percentile_interval

__all__ = ["EXTRAPOLATED", "INTERPOLATED", "GapCurve", "compute_gap", "middle_of_overlap", "percentile_interval"]
