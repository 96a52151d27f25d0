"""The three evaluations that the benchmark compares estimate the same loss, and its table has honest ratios."""

from types import SimpleNamespace
from typing import Any

import enumerated
import jax
import pytest
from tiny_runs import on_mesh, quick_compilation, run_spec, sharp_model, tokens

from benchmarks import validation
from mdm_jax.devices.sharding import place
from mdm_jax.evaluate import nelbo
from mdm_jax.spec import Family, ModelSpec

V, L = 3, 4
TRUNK = ModelSpec(n_layers=1, d_model=8, n_heads=2, d_ffn=16, vocab_size=V)


def test_all_evaluations_estimate_one_loss() -> None:
    rows, before = tokens((validation.BATCH, L), V, seed=3), (nelbo.DRAW_SEED, nelbo.evaluated_loss)
    with on_mesh(), quick_compilation():
        params: Any = jax.jit(place)(sharp_model(TRUNK))
        mesh = jax.sharding.get_mesh()
        run = run_spec(Family.MDM, TRUNK, L)
        model: Any = SimpleNamespace(run=run, _params=params, _mesh=mesh)
        found = validation.forward_passes(model, rows, 4)
        exact = float(enumerated.nats_by_count(enumerated.predictions_of(params, TRUNK), rows, V).mean())
    assert (nelbo.DRAW_SEED, nelbo.evaluated_loss) == before
    for row in found.values():
        error = (row["variance"] / (4 * rows.size // L * validation.DRAWS)) ** 0.5
        assert abs(row["loss"] - exact) < 4 * error + validation.SMDM_LOSS.cutoff_eps * exact
        assert row["forward_passes"] == pytest.approx(row["variance"] / validation.MAX_SE**2)
        assert row["fewer"] == pytest.approx(found["smdm"]["variance"] / row["variance"])
    assert found["control_variate"]["fewer"] > found["counts"]["fewer"] > found["smdm"]["fewer"]


@pytest.mark.parametrize("flags", [["--rounds", "1"], ["--lengths", "7"]])
def test_what_cannot_be_measured_is_refused(flags: list[str], monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["validation", *flags])
    with pytest.raises(SystemExit, match="2"):
        validation.main()
    assert flags[0] in capsys.readouterr().err
