"""Tables that a stranger made: only the columns that are needed, and losses in another unit."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_sweeps as sweeps

from analysis import (
    bootstrap,
    bootstrap_parametric,
    check,
    compute_gap,
    fit_isoflop,
    fit_parametric,
    gap_sensitivity,
    holdout,
    read_runs,
    write_report,
)  # fmt: skip
from analysis.gap.__main__ import main as gap_main
from analysis.report.summary import summarise
from analysis.runs.load import numbers

NEEDED = ["family", "params_non_embedding", "budget", "loss"]
QUICKSTART = Path(__file__).parents[2] / "experiments/results/quickstart/run_table.csv"


def bare() -> pd.DataFrame:
    """A sweep of both families as a table of the needed columns alone."""
    return pd.DataFrame(sweeps.both(sd=0.003), columns=NEEDED)


@pytest.mark.usefixtures("small_pictures")
def test_every_function_takes_a_table_of_the_needed_columns_and_gives_what_read_runs_gives(tmp_path: Path) -> None:
    raw, read = bare(), read_runs(bare())
    fit, known = fit_isoflop(raw), fit_isoflop(read)
    assert numbers(fit.minima, "loss_opt") == pytest.approx(numbers(known.minima, "loss_opt"), rel=1e-12)
    assert set(fit.minima["status"]) == {"ok"}
    gap = compute_gap(fit.frontier("arm"), fit.frontier("mdm"), draws=bootstrap(fit, n=200))
    assert np.isfinite(gap.ratio).all()
    assert {finding.code for finding in check(raw, fit)} == {finding.code for finding in check(read, known)}
    surface = fit_parametric(raw, family="arm")
    assert pytest.approx(fit_parametric(read, family="arm").E, rel=1e-9) == surface.E
    assert bootstrap_parametric(surface, n=20).n == 20
    assert len(gap_sensitivity(fit, draws=0, curves=("quadratic",), laws=("power_law",)))
    assert len(holdout(fit, {"arm": 1e20, "mdm": 1e21}))
    assert summarise(raw, n=200).usable_budgets == 10
    assert list(raw.columns) == NEEDED  # the caller's table is as it was
    with pytest.raises(ValueError, match="out: must name a folder"):
        write_report(raw)
    _, page = write_report(raw, tmp_path / "report", n=200)
    assert "python -m analysis.report run_table.csv" in page.read_text()


@pytest.mark.parametrize("lacking", ["family", "params_non_embedding", "loss", "budget"])
def test_a_column_that_lacks_is_named(lacking: str) -> None:
    raw = bare().drop(columns=lacking)
    named = "tokens" if lacking == "budget" else lacking
    for use in (fit_isoflop, check, summarise, lambda table: fit_parametric(table, family="arm")):
        with pytest.raises(ValueError, match=f"lacks {named}"):
            use(raw)


def test_a_run_table_that_pandas_read_is_the_one_that_read_runs_reads() -> None:
    theirs, ours = pd.read_csv(QUICKSTART), read_runs(QUICKSTART)
    fits = [fit_isoflop(table).minima for table in (theirs, ours)]
    assert numbers(fits[0], "loss_opt") == pytest.approx(numbers(fits[1], "loss_opt"), rel=1e-12, nan_ok=True)


def unit_findings(table: pd.DataFrame, columns: str | None = None) -> list[tuple[str, str]]:
    """Severity and code of what `check` finds about the unit of the losses."""
    codes = ("impossible_loss", "nearly_uniform_loss", "low_loss", "loss_unit")
    return [(f.severity.value, f.code) for f in check(read_runs(table, columns)) if f.code in codes]


def test_losses_that_cannot_be_nats_per_token_are_findings(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    raw = bare()
    assert unit_findings(raw) == []
    perplexities = raw.assign(loss=np.exp(raw["loss"]))
    assert 11 < min(numbers(perplexities, "loss")) < max(numbers(perplexities, "loss")) < 200
    assert unit_findings(perplexities) == [("error", "impossible_loss")] * 2
    bytes_ = raw.assign(vocab_size=257.0, loss=raw["loss"] / 1.3)
    assert unit_findings(bytes_) == []
    assert unit_findings(bytes_.assign(loss=2.0 ** bytes_["loss"] + 2)) == [("error", "impossible_loss")] * 2
    one = bytes_.copy()
    one.loc[5, "loss"] = 5.6  # log 257 is 5.549
    assert unit_findings(one) == [("warning", "impossible_loss")]
    near = raw.assign(vocab_size=50257.0, loss=8.3 + 0.8 * (raw["loss"] - min(raw["loss"])))
    assert unit_findings(near) == [("warning", "nearly_uniform_loss")] * 2
    small = raw.assign(loss=raw["loss"] / math.log(2) / 4.2)  # bits per byte, at 4.2 bytes a token
    assert unit_findings(small) == [("warning", "low_loss")] * 2
    assert unit_findings(small.assign(vocab_size=256.0)) == []
    assert unit_findings(small.assign(vocab_size=256.0, bits_per_byte=small["loss"])) == [("error", "loss_unit")] * 2
    named = raw.rename(columns={"loss": "val_ppl"})
    assert unit_findings(named, "loss=val_ppl") == [("error", "loss_unit")]
    first = read_runs(named, "loss=val_ppl")
    for again in (first, first.drop(columns="git_sha"), first.head(40)):
        assert ("error", "loss_unit") in unit_findings(again)  # a second reading remembers what the first one mapped
        assert "loss_unit" in {finding.code for finding in check(again)}
    assert unit_findings(first.assign(nats=first["loss"]), "loss=nats") == []
    assert unit_findings(raw.rename(columns={"loss": "eval_bpb"}), "loss=eval_bpb") == [("error", "loss_unit")]
    file = tmp_path / "perplexities.csv"
    perplexities.to_csv(file, index=False)
    assert gap_main([str(file), "--bootstrap", "0"]) == 0
    assert "are these perplexities?" in capsys.readouterr().out
