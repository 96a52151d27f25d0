import pytest

from isoflop.recipe import RECIPES, RecipeInput, find_recipe
from mdm_jax.spec import ModelSpec

ANY = RecipeInput(ModelSpec(), 64, 1e6)


def smdm_setting(width: int, tokens: float = 7.41e9) -> RecipeInput:
    return RecipeInput(ModelSpec(d_model=width, n_heads=2), 2048, tokens)


def test_smdm_recipes_are_the_published_numbers() -> None:
    code, paper = RECIPES["smdm_code"](ANY), RECIPES["smdm_paper"](ANY)
    assert (code.lr_peak, paper.lr_peak) == (2e-4, 4e-4)
    assert code.global_batch == paper.global_batch == 256
    assert [code.warmup(n) for n in (50, 5000, 100_000)] == [50, 100, 1000]


@pytest.mark.parametrize("tokens", [1e3, 1e5, 1e7, 1e11])
@pytest.mark.parametrize("name", RECIPES)
def test_recipes_give_valid_runs(name: str, tokens: float) -> None:
    choice = RECIPES[name](RecipeInput(ModelSpec(), 64, tokens))
    assert 1e-5 < choice.lr_peak < 2e-2
    assert choice.global_batch & (choice.global_batch - 1) == 0, "meshes divide powers of two"
    assert 2 <= choice.global_batch <= 1 << 17
    assert all(0 <= choice.warmup(steps) <= steps for steps in (1, 2, 9, 10, 1000, 10**6))


def test_mdlm_is_the_published_setting() -> None:
    choice = RECIPES["mdlm"](ANY)
    assert (choice.lr_peak, choice.global_batch) == (3e-4, 512)
    assert [choice.warmup(n) for n in (100, 2500, 10**6)] == [100, 2500, 2500]


def test_the_width_scaled_rate_is_smdms_at_its_base_and_falls_inversely() -> None:
    rates = {width: RECIPES["smdm_width"](smdm_setting(width)).lr_peak for width in (256, 512, 1024, 2048)}
    assert rates == {256: 8e-4, 512: 4e-4, 1024: 2e-4, 2048: 1e-4}


def test_gidd_grows_batch_and_rate_with_the_tokens() -> None:
    anchor = RECIPES["gidd"](smdm_setting(1024))
    assert (anchor.global_batch, anchor.lr_peak) == (256, 2e-4)
    many = RECIPES["gidd"](smdm_setting(1024, 7.41e9 * 2 ** (3 / 0.8225)))
    assert many.global_batch == 8 * 256
    assert many.lr_peak == pytest.approx(2e-4 * 8**0.34, rel=1e-3)
    assert RECIPES["gidd"](smdm_setting(512)).lr_peak == 2 * anchor.lr_peak
    short = RECIPES["gidd"](RecipeInput(ModelSpec(d_model=1024), 512, 7.41e9))
    assert (short.global_batch, short.lr_peak) == (4 * 256, 2e-4)  # the batch counts in tokens


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="recipe 'best': must be one of smdm_code, smdm_paper, mdlm, smdm_width, gidd"):
        find_recipe("best")


def test_every_recipe_names_its_source() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.__doc__, name
