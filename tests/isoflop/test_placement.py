import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from analysis.published import published_points
from analysis.report.fits_json import as_json
from analysis.report.summary import summarise
from analysis.runs.load import read_runs
from isoflop.grid import make_grid
from isoflop.ladder import SMDM as SMDM_SIZES
from isoflop.ladder import Size
from isoflop.place.advice import Advice, advise
from isoflop.place.expand import expand, forecast_of, ladder, parameters
from isoflop.place.prior import SMDM, Law, find_prior, read_fits
from isoflop.place.sizes import choose_sizes
from isoflop.sweep import CurveSpec, PlacementSpec, SweepSpec
from mdm_jax.spec import (
    DataSpec,
    Family,
    FlopConvention,
    HardwareSpec,
    ModelSpec,
    RunSpec,
    TokenizerKind,
    TokenizerSpec,
    pair,
)
from mdm_jax.spec.counting import count_parameters, step_flops

ROOT = Path(__file__).parents[2]
RUN = RunSpec(
    model=ModelSpec(vocab_size=32000),
    data=DataSpec(tokenizer=TokenizerSpec(TokenizerKind.SENTENCEPIECE, 32000), seq_len=2048),
)
PAPER = (6e18, 1e19, 3e19, 6e19, 1e20)
LADDER = {name: count_parameters(size.model(ModelSpec())).non_embedding for name, size in SMDM_SIZES.items()}


def sweep(convention: FlopConvention = FlopConvention.SMDM_6ND, **placement) -> SweepSpec:
    return SweepSpec(placement=PlacementSpec(**placement), recipe="smdm_code", convention=convention)


def placed(convention: FlopConvention = FlopConvention.SMDM_6ND, **placement) -> tuple[SweepSpec, Advice]:
    whole = expand(RUN, sweep(convention, **placement))
    return whole, advise(RUN, whole)


# the prior


@pytest.mark.parametrize("family", Family)
def test_published_prior_is_a_fit_of_the_published_points(family: Family) -> None:
    laws = SMDM.families[family]
    for law, quantity in ((laws.n_opt, "params_non_embedding"), (laws.loss, "loss")):
        flops, values = published_points("smdm_2024", family.value, quantity)
        slope, _ = np.polyfit(np.log(flops), np.log(values), 1)
        assert law.exponent == pytest.approx(slope, abs=5e-4)
        misses = np.log([law(c) for c in flops]) - np.log(values)
        assert abs(misses.mean()) < 1e-3
        assert (flops.min(), flops.max()) == pytest.approx(laws.flops)
    ratio = SMDM.families[Family.MDM].n_opt(2e19) / SMDM.families[Family.ARM].n_opt(2e19)
    assert 0.4 < ratio < 0.6


def test_law_and_its_inverse() -> None:
    law = Law(45.53, -0.06416)
    assert law.inverse(law(3e19)) == pytest.approx(3e19)


@pytest.fixture(scope="module")
def fits(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "fits.json"
    runs = read_runs(ROOT / "experiments/results/quickstart/run_table.csv")
    path.write_text(json.dumps(as_json(summarise(runs, n=200))))
    return path


def test_prior_of_an_earlier_report(fits: Path) -> None:
    laws = {(r["convention"], r["family"], r["quantity"]): r for r in json.loads(fits.read_text())["laws"]}
    for convention in (FlopConvention.SMDM_6ND, FlopConvention.EXACT):
        prior = find_prior(str(fits), convention)
        assert prior.convention is convention
        for family in Family:
            row = laws[convention.value, family.value, "n_opt"]
            assert prior.families[family].n_opt == Law(row["coefficient"], row["exponent"])
            low, high = prior.families[family].flops
            assert 1e9 < low < high < 1e14
    template = dataclasses.replace(RunSpec(), data=DataSpec(seq_len=64))
    rule = PlacementSpec(budgets=(1e11, 2e11, 4e11), overlap=Family.MDM, prior=str(fits), families=tuple(Family))
    whole = expand(template, SweepSpec(placement=rule))
    said = advise(template, whole)
    assert {curve.family for curve in said.curves} == set(Family)
    assert all(curve.expected and curve.expected.beyond < 10 for curve in said.curves)
    assert len(make_grid(template, whole, HardwareSpec())) == sum(len(curve.sizes) for curve in whole.curves)


def law_row(**changes) -> dict:
    row = {"convention": "smdm_6nd", "family": "arm", "quantity": "n_opt", "coefficient": 1e-4, "exponent": 0.6}
    return row | changes


def tree(**changes) -> dict:
    minima = [{"family": "arm", "status": "ok", "flops_6nd": c} for c in (1e18, 1e19)]
    laws = [law_row(), law_row(quantity="loss_opt", coefficient=45, exponent=-0.06)]
    return {"schema_version": 1, "laws": laws, "minima": minima} | changes


BAD_MINIMUM = {"family": "arm", "status": "ok", "flops_6nd": "many"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not the fits.json"),
        ("{", "not the fits.json"),
        ("[" * 100_000, "not the fits.json"),
        ("\xff", "not the fits.json"),
        ([], "a JSON object"),
        (tree(schema_version=2), "schema_version = 2: must be 1"),
        (tree(laws=None), "laws = 'NoneType': must be a list"),
        (tree(laws=[1]), "laws = 'list'"),
        (tree(laws=[]), "a law of loss_opt and of n_opt"),
        (tree(laws=[law_row()] * 2), "given only once"),
        (tree(laws=[law_row(coefficient=None)]), r"laws[0].coefficient = None: must be above 0"),
        (tree(laws=[law_row(coefficient=True)]), r"laws[0].coefficient = True"),
        (tree(laws=[law_row(coefficient=-1)]), r"laws[0].coefficient = -1"),
        (tree(laws=[law_row(exponent=float("nan"))]), "laws[0].exponent = nan: must be between 0 and 2"),
        (tree(laws=[law_row(exponent=float("inf"))]), "laws[0].exponent = inf"),
        (tree(laws=[law_row(quantity="loss_opt", exponent=0.1)]), "between -1 and 0 for loss_opt"),
        (tree(laws=[law_row(coefficient=10**400)]), "laws[0].coefficient"),
        (tree(minima=[]), "minima of the arm = 0: must be two"),
        (tree(minima=[BAD_MINIMUM, BAD_MINIMUM]), "minima[0].flops_6nd = 'many'"),
    ],
)
def test_a_strangers_prior_is_checked(tmp_path, content, said: str) -> None:
    path = tmp_path / "fits.json"
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError) as error:
        read_fits(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_prior_too_large_is_not_read(tmp_path) -> None:
    path = tmp_path / "fits.json"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(ValueError, match="at most 67108864 bytes"):
        read_fits(path)


def test_prior_that_lacks_a_family_names_what_it_has(tmp_path) -> None:
    path = tmp_path / "fits.json"
    path.write_text(json.dumps(tree()))
    assert set(read_fits(path)[FlopConvention.SMDM_6ND].families) == {Family.ARM}
    with pytest.raises(ValueError, match=r"mdm.*ARM 1e\+18 to 1e\+19"):
        expand(RUN, sweep(budgets=(1e19,), prior=str(path)))
    assert expand(RUN, sweep(budgets=(1e19,), prior=str(path), families=(Family.ARM,))).curves


# the forecast


def test_same_convention_reads_the_laws_as_they_are() -> None:
    forecast = forecast_of(RUN, sweep())
    for family in Family:
        expected, laws = forecast.at(family, 3e19), SMDM.families[family]
        assert expected.n_opt == laws.n_opt(3e19)
        assert expected.loss == laws.loss(3e19)
        assert 6 * expected.n_opt * expected.tokens == pytest.approx(3e19)
        assert forecast.budget_for(family, expected.loss) == pytest.approx(3e19)


@pytest.mark.parametrize("convention", [c for c in FlopConvention if c is not FlopConvention.SMDM_6ND])
@pytest.mark.parametrize("family", Family)
def test_converted_budget_buys_the_optimum_of_both_conventions(convention: FlopConvention, family: Family) -> None:
    forecast = forecast_of(RUN, sweep(convention))
    for size in (SMDM_SIZES["113"], SMDM_SIZES["472"]):
        base = dataclasses.replace(RUN, model=size.model(RUN.model))
        run = base if family is Family.MDM else pair(base, family)
        n = float(count_parameters(run.model).non_embedding)
        law = SMDM.families[family].n_opt
        budget = law.inverse(n) * step_flops(run, convention) / step_flops(run, FlopConvention.SMDM_6ND)
        assert forecast.at(family, budget).n_opt == pytest.approx(n, rel=1e-3)
        loss = SMDM.families[family].loss(law.inverse(n))
        assert forecast.budget_for(family, loss) == pytest.approx(budget, rel=1e-3)


# choosing sizes


@pytest.mark.parametrize("n_opt", [8.3e7, 2.3e8, 4.9e8, 9.5e8])
@pytest.mark.parametrize("count", [3, 5, 7, 9])
def test_chosen_sizes_are_the_best_of_all_choices(n_opt: float, count: int) -> None:
    inside = {name: n for name, n in LADDER.items() if abs(math.log(n / n_opt)) <= math.log(4)}
    assert len(inside) > count
    targets = [math.log(4) * (2 * i / (count - 1) - 1) for i in range(count)]

    def miss(names: tuple[str, ...]) -> float:
        return sum((math.log(LADDER[n] / n_opt) - t) ** 2 for n, t in zip(names, targets, strict=True))

    chosen = choose_sizes(LADDER, n_opt, 4.0, count)
    assert len(set(chosen)) == count
    assert set(chosen) <= set(inside)
    ordered = sorted(inside, key=lambda name: inside[name])
    if math.comb(len(ordered), count) < 20_000:
        assert miss(chosen) == pytest.approx(min(map(miss, itertools.combinations(ordered, count))))


def test_zero_takes_every_size_in_the_window_and_too_few_take_the_nearest() -> None:
    every = choose_sizes(LADDER, 8.3e7, 4.0, 0)
    assert set(every) == {name for name, n in LADDER.items() if 8.3e7 / 4 <= n <= 8.3e7 * 4}
    assert choose_sizes(LADDER, 2e10, 4.0, 3) == ("1476", "1678", "2121")
    assert choose_sizes({"a": 1000, "b": 2000}, 1500.0, 4.0, 7) == ("a", "b")


# the rule


def test_papers_sweep_has_seven_sizes_around_each_optimum_and_says_that_losses_do_not_overlap() -> None:
    whole, said = placed(budgets=PAPER)
    assert [(c.family, c.budget) for c in whole.curves] == [(f, b) for f in (Family.MDM, Family.ARM) for b in PAPER]
    for curve in said.curves:
        assert len(curve.sizes) == curve.below + curve.above == 7
        assert min(curve.below, curve.above) >= 3
    assert [w.split(" budgets")[0] for w in said.warnings] == ["1 of 5 MDM", "1 of 5 ARM"]
    assert all("wanted are 3" in w for w in said.warnings)
    assert "--overlap mdm derives them" in said.warnings[1]
    centre = {f: np.mean([np.log(n) for c in said.curves if c.family is f for n in c.sizes]) for f in Family}
    assert math.exp(centre[Family.MDM] - centre[Family.ARM]) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("overlap", Family)
@pytest.mark.parametrize("convention", [FlopConvention.SMDM_6ND, FlopConvention.EXACT])
def test_overlap_is_reached_from_either_family(overlap: Family, convention: FlopConvention) -> None:
    whole, said = placed(convention, budgets=PAPER, overlap=overlap, holdout_budgets=(2e20,), replicate_seeds=(1, 2))
    assert said.warnings == ()
    grid = [c for c in said.curves if not c.held_out]
    losses = {f: [c.expected.loss for c in grid if c.family is f and c.expected] for f in Family}
    assert losses[Family.MDM] == pytest.approx(losses[Family.ARM], rel=4e-3)  # two digits of a budget
    assert [c.budget for c in said.curves if c.family is overlap and not c.held_out] == list(PAPER)
    held = [c for c in said.curves if c.held_out]
    assert {c.family for c in held} == set(Family)
    assert all(len(c.sizes) == 5 for c in held)
    assert not any("held-out" in note or "one seed" in note for note in said.notes)
    again = [c for c in whole.curves if c.seeds]
    assert [(c.family, len(c.sizes), c.seeds) for c in again] == [(f, 1, (1, 2)) for f in (Family.MDM, Family.ARM)]
    runs = make_grid(RUN, whole, HardwareSpec())
    assert len(runs) == sum(len(c.sizes) * max(len(c.seeds), 1) for c in whole.curves)


def test_each_family_may_have_its_own_budgets() -> None:
    whole, said = placed(mdm_budgets=(1e20, 2e20, 4e20), arm_budgets=(8e18, 1e19, 2e19))
    assert [c.budget for c in whole.curves if c.family is Family.ARM] == [8e18, 1e19, 2e19]
    assert not any("MDM budgets are" in w and "0 of" in w for w in said.warnings)


def test_replicates_go_to_the_cheapest_curves_at_the_size_next_to_the_optimum() -> None:
    whole, _ = placed(budgets=PAPER, replicate_seeds=(7,), replicate_curves=2)
    again = [c for c in whole.curves if c.seeds]
    assert [(c.family, c.budget) for c in again] == [(f, b) for f in (Family.MDM, Family.ARM) for b in PAPER[:2]]
    known = parameters(ladder(whole), RUN)
    for curve in again:
        n_opt = SMDM.families[curve.family].n_opt(curve.budget)
        assert abs(math.log(known[curve.sizes[0]] / n_opt)) == min(abs(math.log(n / n_opt)) for n in known.values())


def test_own_sizes_and_given_sizes_are_the_only_ones_chosen() -> None:
    own = tuple(Size(f"own{d}", 12, d // 64, d, 4 * d) for d in range(256, 2048, 128))
    rule = PlacementSpec(budgets=(1e19,))
    whole = expand(RUN, SweepSpec(placement=rule, own_sizes=own, recipe="smdm_code"))
    assert {name for c in whole.curves for name in c.sizes} <= {size.name for size in own}
    whole, said = placed(budgets=(1e19,), sizes=("34", "48", "336"))
    assert all(c.sizes == ("34", "48", "336") for c in whole.curves)
    assert "2 of 2 curves have few sizes within x4" in said.warnings[0]
    assert "LAYERSxWIDTH" in said.warnings[0]


def test_gaps_of_the_ladders_are_filled_by_rule() -> None:
    for budget in (4e17, 2e21):
        whole, said = placed(budgets=(budget,), families=(Family.ARM,))
        assert not any("sizes within" in w for w in said.warnings)
        names = {name for c in whole.curves for name in c.sizes}
        assert any("x" in name for name in names)
        assert any("x" not in name for name in names)


def test_written_curves_are_judged_too() -> None:
    curves = (CurveSpec(Family.ARM, 1e20, ("170", "2121")), CurveSpec(Family.MDM, 1e19, ("113", "142")))
    said = advise(RUN, SweepSpec(curves=curves, recipe="smdm_code"))
    first = said.warnings[0]
    assert "2 of 2 curves have few sizes within x4 of the expected optimum" in first
    assert "arm at 1e+20 has 0 below and 1 above 950M: add 268, 336, 571, 944, 1476, 1678" in first
    assert len(said.warnings) == 3
    assert said.alarms == ()


def test_groups_are_judged_apart() -> None:
    sizes = placed(budgets=(1e20,))[0].curves
    curves = tuple(dataclasses.replace(c, group=group) for c in sizes for group in ("a", "b"))
    said = advise(RUN, SweepSpec(curves=curves, recipe="smdm_code"))
    assert sum(w.startswith("group a: ") for w in said.warnings) == 2
    assert {c.group for c in said.curves} == {"a", "b"}


def test_far_from_the_prior_only_the_rough_optimum_is_judged_and_placement_is_refused() -> None:
    said = advise(RunSpec(), SweepSpec(curves=(CurveSpec(Family.MDM, 1e11, ("1x12", "2x48")),)))
    assert said.warnings == said.alarms == ()
    (curve,) = said.curves
    assert curve.expected is None
    assert "1 of 1 curves are far from the points of the prior smdm" in said.notes[0]
    with pytest.raises(ValueError, match=r"mdm at 1e\+11 FLOPs: the prior smdm .* give --sizes, or --prior"):
        expand(RUN, sweep(budgets=(1e11,)))


def test_extrapolation_and_other_tokens_are_said() -> None:
    template = dataclasses.replace(
        RUN,
        model=ModelSpec(vocab_size=50257),
        data=dataclasses.replace(RUN.data, tokenizer=TokenizerSpec(TokenizerKind.SENTENCEPIECE, 50257)),
    )
    said = advise(template, expand(template, sweep(FlopConvention.EXACT, budgets=(1e20, 1e21))))
    notes = "\n".join(said.notes)
    assert "converted to exact" in notes
    assert "mdm at 1e+21 (x" in notes
    assert "vocabulary of 32000; this one has 50257" in notes


def test_budget_that_no_size_can_spend_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mdm at 6e\+18 FLOPs: none of the 1 sizes nearest .* such as mdm 2121"):
        expand(RUN, dataclasses.replace(sweep(budgets=(6e18,), sizes=("2121",)), global_batch=1 << 18))


@pytest.mark.parametrize(
    ("placement", "said"),
    [
        ({"budgets": (1e19, -1.0)}, "sweep.placement.budgets"),
        ({"budgets": (1e19,), "holdout_budgets": (0.0,)}, "sweep.placement.holdout_budgets"),
        ({"budgets": (1e19,), "families": ()}, "sweep.placement.families"),
        ({"budgets": (1e19,), "families": (Family.ARM, Family.ARM)}, "each once"),
        ({"budgets": (1e19,), "window": 1.0}, "a factor above 1"),
        ({"budgets": (1e19,), "sizes_per_curve": 2}, "at least 3"),
        ({"budgets": (1e19,), "replicate_curves": -1}, "replicate_curves"),
        ({"budgets": (1e19,), "overlap": Family.MDM, "families": (Family.MDM,)}, "one family"),
        ({"budgets": (1e19,), "overlap": Family.MDM, "arm_budgets": (1e18,)}, "left out where"),
    ],
)
def test_bad_placements_are_refused(placement: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PlacementSpec(**placement)


def test_family_without_budgets_and_unknown_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sweep\.placement\.mdm_budgets"):
        expand(RUN, sweep(arm_budgets=(1e19,)))
    with pytest.raises(ValueError, match="size '7'"):
        expand(RUN, sweep(budgets=(1e19,), sizes=("7",)))
    with pytest.raises(ValueError, match=r"above the mdm's grid, which ends at 1e\+20"):
        expand(RUN, sweep(budgets=(1e19, 1e20), holdout_budgets=(5e19,)))
