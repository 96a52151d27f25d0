"""The figure of quality against cost."""

import math

import numpy as np
import pytest

from analysis.figures.generation import curves_of, plot_quality
from analysis.figures.style import rendered


def row(model, family, sampler, steps, nfe, perplexity=5.0, entropy=2.0):
    cost = {"nfe": nfe, "seconds": nfe / 10, "seconds_least": nfe / 11, "seconds_most": nfe / 9}
    quality = {"perplexity": perplexity, "perplexity_se": 0.3, "sequence_entropy": entropy, "sequence_entropy_se": 0.1}
    return {"model": model, "family": family, "sampler": sampler, "steps": steps, **cost, **quality}


ROWS = [
    row("real text", "", "", None, math.nan, 3.0),
    row("m", "mdm", "confidence:bound=1", 8, 8.0),
    row("m", "mdm", "confidence:bound=1", 4, 4.0),
    row("m", "mdm", "threshold:bound=0.5,top_k=3", None, 9.0),
    row("m", "mdm", "threshold:bound=0.9,top_k=3", None, 7.0),
    row("a", "arm", "ancestral", None, 16.0),
]


def test_a_curve_goes_from_few_passes_to_many():
    found = curves_of(ROWS)
    assert list(found) == [
        ("mdm", "m", "confidence:bound=1"),
        ("mdm", "m", "threshold,top_k=3"),
        ("arm", "a", "ancestral"),
    ]
    assert [[one["nfe"] for one in curve] for curve in found.values()] == [[4.0, 8.0], [7.0, 9.0], [16.0]]


def test_perplexity_always_stands_over_entropy():
    figure = plot_quality(ROWS)
    axes = np.array(figure.axes).reshape(2, 2)
    assert [panel.get_ylabel() for panel in axes[:, 0]] == ["generative perplexity", "sequence entropy (nats)"]
    assert [panel.get_xlabel() for panel in axes[1]] == ["forward passes a text", "seconds a text"]
    for panel in axes.ravel():
        labels = {line.get_label() for line in panel.get_lines()}
        assert {"confidence:bound=1", "threshold,top_k=3", "a", "real text"} <= labels
    (legend,) = figure.legends
    assert [entry.get_text() for entry in legend.get_texts()][-1] == "real text"


@pytest.mark.parametrize("rows", [[], ROWS[:1], [{**ROWS[1], "perplexity": math.nan, "perplexity_se": math.nan}]])
def test_a_report_without_models_or_without_a_reference_is_drawn(rows):
    assert rendered(plot_quality(rows))["svg"].startswith(b"<?xml")


def test_two_models_of_a_family_are_told_apart():
    rows = [*ROWS, row("m2", "mdm", "confidence:bound=1", 4, 4.0), row("a2", "arm", "ancestral", None, 16.0)]
    labels = {line.get_label() for line in plot_quality(rows).axes[0].get_lines()}
    assert {"m, confidence:bound=1", "m2, confidence:bound=1", "a", "a2"} <= labels
