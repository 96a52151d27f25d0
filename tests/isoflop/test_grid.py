import dataclasses
import re
from pathlib import Path

import pytest

from isoflop.grid import check_bounds, make_grid, tokens_for
from isoflop.ladder import find_size
from isoflop.place.expand import expand
from isoflop.sweep import CurveSpec, SweepSpec, curve, product, recast
from mdm_jax.config import load_config
from mdm_jax.spec import (
    DataSpec,
    Family,
    FlopConvention,
    HardwareSpec,
    ModelSpec,
    ObjectiveSpec,
    RunSpec,
    TokenizerKind,
    TokenizerSpec,
    Variant,
    pair,
)
from mdm_jax.spec.counting import count_parameters, train_flops
from mdm_jax.spec.validation import build

ROOT = Path(__file__).parents[2]
SMDM_RUN = RunSpec(
    model=ModelSpec(vocab_size=32000),
    data=DataSpec(tokenizer=TokenizerSpec(TokenizerKind.SENTENCEPIECE, 32000), seq_len=2048),
)
DEFAULT = RunSpec()


def grid(curves: list[tuple[str, float, str]], template: RunSpec = DEFAULT, **sweep) -> tuple[RunSpec, ...]:
    specs = tuple(build(CurveSpec, curve(*c)) for c in curves)
    return make_grid(template, SweepSpec(curves=specs, **sweep), HardwareSpec())


# allocation


@pytest.mark.parametrize(
    ("size", "budget", "steps"), [("170", 1e19, 18710), ("1028", 1e20, 30932), ("6", 6e18, 303004)]
)
@pytest.mark.parametrize("family", Family)
def test_steps_of_the_paper(family: Family, size: str, budget: float, steps: int) -> None:
    (run,) = grid([(family.value, budget, size)], SMDM_RUN, recipe="smdm_code")
    assert run.schedule.steps == steps
    assert (run.optim.global_batch, run.optim.lr_peak, run.data.seq_len) == (256, 2e-4, 2048)
    assert run.schedule.warmup_steps == max(steps // 100, 100)
    assert (run.cell.budget, run.cell.size, run.family) == (budget, size, family)


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_a_budget_buys_as_many_tokens_of_short_rows(share: float) -> None:
    """A token costs the same under 6ND in a row of any length."""
    run = dataclasses.replace(SMDM_RUN, objective=ObjectiveSpec(stochastic_length=share))
    expected = 1e19 / (6 * count_parameters(run.model).non_embedding)
    assert tokens_for(run, 1e19, FlopConvention.SMDM_6ND) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("convention", FlopConvention)
def test_budget_is_spent_under_each_convention(convention: FlopConvention) -> None:
    runs = grid([("mdm", 1e12, "2x24 2x64"), ("arm", 1e12, "2x24 2x64")], convention=convention)
    for run in runs:
        assert 0.99 <= train_flops(run, convention) / 1e12 <= 1
    if convention is FlopConvention.SMDM_6ND:
        assert [run.schedule.steps for run in runs[:2]] == [run.schedule.steps for run in runs[2:]]


def test_paired_cells_differ_in_objective_and_attention_alone() -> None:
    mdm, arm = grid([("mdm", 1e12, "2x64"), ("arm", 1e12, "2x64")])
    assert arm == pair(mdm, Family.ARM)


@pytest.mark.parametrize(
    ("budget", "batch", "said"),
    [
        (1e3, 16, r"mdm 2x64 at 1000 FLOPs .*too small for one step .*shorter rows"),
        (1e9, 64, "too small for one step|unspent"),
        (1e10, 64, r"unspent, more than 1%: take a larger budget, a smaller size or shorter rows"),
    ],
)
def test_budgets_that_cannot_be_spent(budget: float, batch: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        grid([("mdm", budget, "2x64")], global_batch=batch)


def test_the_batch_that_the_error_names_fits() -> None:
    with pytest.raises(ValueError) as caught:
        grid([("mdm", 1.17e10, "2x64")], global_batch=64)
    named = re.search(r"batch of at most (\d+)", str(caught.value))
    assert named
    (run,) = grid([("mdm", 1.17e10, "2x64")], global_batch=int(named[1]))
    assert train_flops(run, FlopConvention.SMDM_6ND) >= 0.99 * 1.17e10


def test_tokens_per_parameter_are_bounded() -> None:
    (run,) = grid([("mdm", 1e12, "2x64")])
    ratio = run.train_tokens / count_parameters(run.model).non_embedding
    assert grid([("mdm", 1e12, "2x64")], min_tokens_per_parameter=ratio, max_tokens_per_parameter=ratio) == (run,)
    with pytest.raises(
        ValueError, match=r"mdm 2x64 at 1e\+12 .*9\.65 tokens a parameter, beyond sweep.min_.* = 10: take a"
    ):
        grid([("mdm", 1e12, "2x64")], min_tokens_per_parameter=10.0)
    with pytest.raises(ValueError, match=r"beyond sweep\.max_tokens_per_parameter = 9: take a larger size"):
        grid([("mdm", 1e12, "2x64")], max_tokens_per_parameter=9.0)
    with pytest.raises(ValueError, match=r"min_tokens_per_parameter = 5\.0: must be at most the other bound, 4"):
        SweepSpec(min_tokens_per_parameter=5.0, max_tokens_per_parameter=4.0)


def test_a_corpus_too_small_is_refused_or_said() -> None:
    runs = grid([("mdm", 1e12, "2x24 2x64"), ("arm", 1e11, "2x24")])
    most = max(run.train_tokens for run in runs)
    bounded, free = SweepSpec(max_epochs=4.0), SweepSpec()
    assert check_bounds(runs, most, free) == check_bounds(runs, most // 4 + 1, bounded) == ()
    (said,) = check_bounds(runs, most // 10, free)
    assert re.search(r"2 of 3 runs read the text more than once, up to 10 times \(mdm 2x24 at 1e\+12 FLOPs", said)
    with pytest.raises(ValueError, match=r"1 of 3 runs .* 4 times, up to 5\.56 times .*raise sweep\.max_epochs"):
        check_bounds(runs, int(most / 5.56), bounded)
    (unchecked,) = check_bounds(runs, None, bounded)
    assert "sweep.max_epochs = 4 is not checked" in unchecked
    assert check_bounds(runs, None, free) == ()


# the grid


def test_seeds_and_multiplier_reach_the_runs() -> None:
    runs = grid([("mdm", 1e12, "2x64")], seeds=(0, 5), lr_multipliers=(0.5, 2.0))
    (plain,) = grid([("mdm", 1e12, "2x64")])
    found = [(run.optim.lr_peak / plain.optim.lr_peak, run.seed) for run in runs]
    assert found == [(0.5, 0), (0.5, 5), (2.0, 0), (2.0, 5)]


def test_a_curve_sets_for_itself_what_the_sweep_sets_for_all() -> None:
    clipped = {"variant": "continuous", "levels": "stratified"}
    own = {"convention": "exact", "recipe": "smdm_paper", "lr_multipliers": [0.5, 1], "objective": clipped}
    curves = tuple(
        build(CurveSpec, c)
        for c in (
            curve("mdm", 1e12, "2x64", group="mine", **own),
            curve("mdm", 1e12, "2x64", group="theirs"),
            curve("arm", 1e12, "2x64", convention="with_head"),
        )
    )
    half, whole, theirs, arm = make_grid(RunSpec(), SweepSpec(curves=curves, global_batch=16), HardwareSpec())
    assert (half.optim.lr_peak, whole.optim.lr_peak) == (2e-4, 4e-4)
    assert {half.cell.group, whole.cell.group} == {"mine"}
    assert half.cell.convention is whole.cell.convention is FlopConvention.EXACT
    assert 0.99 <= train_flops(whole, FlopConvention.EXACT) / 1e12 <= 1
    assert whole.objective == build(ObjectiveSpec, clipped)
    (plain,) = grid([("mdm", 1e12, "2x64")], global_batch=16)
    assert theirs.run_id == plain.run_id  # a label is no science
    assert (theirs.cell.group, plain.cell.group) == ("theirs", "")
    assert (arm.cell.convention, arm.objective.variant) == (FlopConvention.WITH_HEAD, Variant.NLL)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"lr_multipliers": [1, 1]}, "lr_multipliers of a curve.*all different"),
        ({"lr_multipliers": [0.0]}, "above 0"),
        ({"objective": {"variant": "nll"}}, "objective of a curve = 'nll': must be a loss of its family, mdm"),
        ({"convention": "6nd"}, "convention = '6nd': must be one of smdm_6nd, with_head, exact, chinchilla"),
        ({"recipe": "smdm"}, "recipe 'smdm': must be one of"),
    ],
)
def test_a_curve_refuses_what_the_sweep_would(own: dict, said: str) -> None:
    def planned() -> None:
        sweep = SweepSpec(curves=(build(CurveSpec, curve("mdm", 1e12, "2x64", **own)),))
        make_grid(RunSpec(), sweep, HardwareSpec())

    with pytest.raises(ValueError, match=said):
        planned()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 3}, "run.seed = 3: must be left out: in a sweep sweep.seeds"),
        ({"model": ModelSpec(d_model=128)}, "run.model.d_model = 128.*sweep.curves decides"),
        ({"schedule": dataclasses.replace(RunSpec().schedule, steps=7, warmup_steps=0)}, "run.schedule.steps = 7"),
        ({"optim": dataclasses.replace(RunSpec().optim, lr_peak=1e-4)}, "run.optim.lr_peak.*sweep.lr_multipliers"),
    ],
)
def test_template_must_not_set_what_the_sweep_decides(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        grid([("mdm", 1e12, "2x64")], dataclasses.replace(RunSpec(), **change))


def test_same_cell_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="are the same run"):
        grid([("mdm", 1e12, "2x64"), ("mdm", 1e12, "2x48 2x64")])


def test_mesh_must_divide_a_cell() -> None:
    sweep = SweepSpec(curves=(CurveSpec(Family.MDM, 1e18, ("48",)),), recipe="smdm_code")
    with pytest.raises(ValueError, match=r"mdm 48 at 1e\+18 .*mesh_model = 2: must be a divisor of model.n_heads = 9"):
        make_grid(SMDM_RUN, sweep, HardwareSpec(mesh_model=2))
    wide = HardwareSpec(mesh_data=32)
    (run,) = make_grid(SMDM_RUN, sweep, wide)  # 2 * 32 divides the recipe's 256, though not the template's 16
    assert run.hardware == wide


def test_product_writes_every_cell() -> None:
    curves = product(("mdm", "arm"), (1e11, 1e12), "2x16 2x20")
    assert [(c["family"], c["budget"]) for c in curves] == [("mdm", 1e11), ("mdm", 1e12), ("arm", 1e11), ("arm", 1e12)]
    assert all(c["sizes"] == ["2x16", "2x20"] for c in curves)


@pytest.mark.parametrize("file", sorted(p.name for p in (ROOT / "experiments").glob("[a-z]*.py")))
def test_experiments_plan(file: str) -> None:
    config = load_config(str(ROOT / "experiments" / file)).to_dict()
    hardware = build(HardwareSpec, config["run"].pop("hardware"))
    template = build(RunSpec, config["run"])
    sweep = expand(template, build(SweepSpec, config["sweep"]))
    runs = make_grid(template, sweep, hardware)
    repeats = [len(c.seeds or sweep.seeds) * len(c.lr_multipliers or sweep.lr_multipliers) for c in sweep.curves]
    assert len(runs) == sum(len(c.sizes) * times for c, times in zip(sweep.curves, repeats, strict=True))
    for c in sweep.curves:
        sizes = [count_parameters(find_size(s, sweep.own_sizes).model(ModelSpec())).non_embedding for s in c.sizes]
        assert sizes == sorted(sizes), f"{c.family} at {c.budget}: write the sizes in order"


def test_recast_curves_keep_what_they_set_for_themselves() -> None:
    own = [{"group": "a", "recipe": "tiny"}, {"group": "b", "convention": "exact"}]
    curves = [curve("mdm", budget, "2x16", **o) for o in own for budget in (1e11, 1e12)] + [curve("arm", 1e11, "2x16")]
    new = recast(curves, ["mdm", "arm"], [1e10, 3e10], ["1x8", "1x12"])
    assert [c["budget"] for c in new] == [1e10, 3e10] * 3
    assert [(c["family"], c.get("group", "")) for c in new] == [("mdm", g) for g in "aabb"] + [("arm", "")] * 2
    assert all(c["sizes"] == ["1x8", "1x12"] for c in new)
    assert recast(curves, ["arm"], [1e10], ["1x8"]) == [curve("arm", 1e10, "1x8")]
    assert recast([], ["mdm"], [1e10], ["1x8"]) == [curve("mdm", 1e10, "1x8")]
