"""The compute gap between MDM and ARM under several laws; `python -m analysis.gap RUNS` prints it."""
