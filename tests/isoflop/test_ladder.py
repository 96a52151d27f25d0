import itertools

import pytest

from isoflop.ladder import Size, find_size, ladder_between, tiny_sizes
from mdm_jax.spec import ModelSpec
from mdm_jax.spec.counting import count_parameters


def non_embedding(size: Size) -> int:
    return count_parameters(size.model(ModelSpec())).non_embedding


def test_tiny_ladder_is_fine_and_monotone() -> None:
    sizes = [non_embedding(size) for size in tiny_sizes()]
    steps = [b / a for a, b in itertools.pairwise(sizes)]
    assert sizes[0] < 1e4
    assert sizes[-1] > 2e6
    assert min(steps) > 1.2
    assert max(steps) < 1.6


def test_tiny_sizes_keep_shape_and_are_found_by_name() -> None:
    for size in tiny_sizes():
        assert find_size(size.name) == size
        assert size.d_ffn == 4 * size.d_model
        assert 2 <= size.n_heads <= size.d_model // 8
        assert abs(size.n_layers - max(2, size.d_model / 32)) <= 0.5


def test_own_sizes_come_first() -> None:
    own = Size("170", 2, 2, 32, 100)
    assert find_size("170", [own]) == own
    assert find_size("170").d_model == 768


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("7", "LAYERSxWIDTH, such as 2x64, or one of 6, 19"),
        ("2x18", "multiple of 4"),
        ("0x16", "LAYERSxWIDTH"),
        ("", "LAY"),
    ],
)
def test_unknown_sizes_are_refused(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        find_size(name)


@pytest.mark.parametrize("ratio", [1.26, 1.5, 2.0, 4.0])
@pytest.mark.parametrize(("low", "high"), [(2e4, 2e6), (6e6, 2e9), (1e9, 1e11)])
def test_a_rule_ladder_spans_any_range(low: float, high: float, ratio: float) -> None:
    sizes = ladder_between(low, high, ratio)
    numbers = [non_embedding(size) for size in sizes]
    steps = [b / a for a, b in itertools.pairwise(numbers)]
    assert abs(numbers[0] / low - 1) < 0.15
    assert abs(numbers[-1] / high - 1) < 0.15
    assert ratio**0.5 < min(steps) <= max(steps) < ratio * 1.4
    for size in sizes:
        assert find_size(size.name) == size
        assert 20 < size.d_model / size.n_layers < 110


def test_a_rule_ladder_of_one_size_and_of_tiny_ones() -> None:
    (size,) = ladder_between(1e8, 1e8)
    assert abs(non_embedding(size) / 1e8 - 1) < 0.05
    tiny = [non_embedding(size) for size in ladder_between(1e3, 1e5, 1.3)]
    assert tiny == sorted(set(tiny))
    assert len(tiny) >= 10


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0.0, 1e6), "0 < n_min <= n_max"),
        ((1e7, 1e6), "0 < n_min <= n_max"),
        ((1e6, 1e14), "0 < n_min <= n_max"),
        ((1e6, 1e7, 1.0), "ratio = 1.0: must be above 1"),
        ((1e6, 1e9, 1.001), "at most 1000 sizes"),
        ((10.0, 1e5), "a size that some LAYERSxWIDTH has"),
    ],
)
def test_rule_ladders_that_cannot_be(arguments: tuple, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ladder_between(*arguments)
