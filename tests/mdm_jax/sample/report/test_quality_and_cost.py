"""Settings, nats of texts, windows of long texts, and where an MDM's curve meets an ARM."""

import math

import numpy as np
import pytest

from mdm_jax.files.storage import as_path
from mdm_jax.sample.report.equal_quality import Point, meeting
from mdm_jax.sample.report.nats import read_nats, scored, windows
from mdm_jax.sample.report.settings import arm_settings, mdm_settings
from mdm_jax.sample.report.texts import Text
from mdm_jax.sample.samplers import KINDS, Sampler
from mdm_jax.spec import Family


def test_each_sampler_has_the_steps_that_it_can_take():
    found = mdm_settings("m", ["all"], None, {"temperature": 0.5}, 16)
    assert {setting.options.sampler for setting in found} == set(Sampler)
    for setting in found:
        counted = KINDS[Sampler(setting.options.sampler)].counts_steps
        assert setting.options.steps in ((4, 8, 16) if counted else (None,))
        assert setting.options.temperature == 0.5
    assert len({setting.name for setting in found}) == len(found)
    own = mdm_settings("m", ["margin:block=4,temperature=2"], [8], {"temperature": 0.5}, 16)
    assert [(one.sampler, one.name) for one in own] == [
        ("margin:block=4,temperature=2", "m-margin_block=4_temperature=2-8")
    ]


def test_the_bounds_of_a_sampler_without_steps_are_one_curve():
    found = mdm_settings("m", ["threshold:bound=0.5", "threshold", "remask_cap:bound=0.5"], [4], {}, 16)
    assert [setting.curve for setting in found] == ["threshold", "threshold", "remask_cap:bound=0.5"]


def test_an_arm_has_one_setting_without_what_only_an_mdm_has():
    (found,) = arm_settings("a", {"temperature": 0.5, "block": 4, "guidance": 1.0})
    assert (found.family, found.options.temperature, found.options.block) == (Family.ARM, 0.5, None)


@pytest.mark.parametrize(
    ("prompt", "target", "row"), [(0, 5, 8), (3, 5, 8), (3, 20, 8), (9, 4, 8), (0, 3, 1), (2, 9, 3)]
)
def test_windows_score_each_token_once_with_what_stands_before_it(prompt, target, row):
    whole = list(range(prompt + target))
    place = prompt
    for context, scored_here in windows(whole[:prompt], whole[prompt:], row):
        assert 1 <= len(scored_here) <= len(context) + len(scored_here) <= row
        assert context + scored_here == whole[place - len(context) : place + len(scored_here)]
        assert len(context) >= min(place, row // 2)
        place += len(scored_here)
    assert place == prompt + target


def text(ids, ended=False) -> Text:
    return Text("t", "m", "s", 1, "", (), 0, "", tuple(ids), ended, len(ids) + ended)


def test_the_end_of_a_text_is_scored_too():
    found = scored(
        [text([1, 2, 3]), text([], ended=True)], 2, 9, lambda parts: [10.0 * len(t) + t[-1] for _, t in parts]
    )
    assert [(one.nats, one.tokens) for one in found] == [(20 + 2 + 10 + 3, 3), (19, 1)]


NATS = [
    ('{"id": "a", "nats": [1.5, 2], "other": 1}', (3.5, 2)),
    ('{"id": "a", "nats": 3.5, "tokens": 2}', (3.5, 2)),
]
BAD_NATS = [
    ("[1]", 'must be an object with "id"'),
    ('{"id": "a", "nats": 1}', '"tokens" must be a whole number'),
    ('{"id": "a", "nats": NaN, "tokens": 1}', '"nats" must be a number from 0'),
    ('{"id": "a", "nats": [-1]}', '"nats" must be a number from 0'),
    ('{"id": "a", "nats": [1], "tokens": 2}', '"tokens" is 2 and "nats" has 1 numbers'),
    ('{"id": "a", "nats": [1]}\n{"id": "a", "nats": [1]}', "line 2: id 'a' occurs twice"),
    ('{"id": "a"', "line 1: "),
]


@pytest.mark.parametrize(("line", "expected"), NATS)
def test_nats_are_a_sum_or_a_list(tmp_path, line, expected):
    (tmp_path / "n").write_text(line + "\n")
    found = read_nats(as_path(tmp_path / "n"))["a"]
    assert (found.nats, found.tokens) == expected


@pytest.mark.parametrize(("line", "said"), BAD_NATS)
def test_a_bad_line_of_nats_is_named(tmp_path, line, said):
    (tmp_path / "n").write_text(line)
    with pytest.raises(ValueError, match=str(tmp_path / "n")) as error:
        read_nats(as_path(tmp_path / "n"))
    assert said in str(error.value)


def point(seconds, log_perplexity, entropy=2.0, spread=0.0):
    draws = np.random.default_rng(int(seconds * 1000)).normal(0, 1, 4000)
    return Point(
        float(seconds), float(log_perplexity), log_perplexity + spread * draws, entropy, np.full(4000, entropy)
    )


def test_a_curve_meets_the_arm_on_the_line_between_two_settings():
    """From 1 s to 4 s the log perplexity falls from 3 to 2, so that 2.5 is at 2 s on a log axis."""
    found = meeting([point(1, 3, 1.0), point(4, 2, 2.0)], point(6, 2.5, 1.25))
    assert found.speed_up == pytest.approx(3)
    assert (found.low, found.high) == pytest.approx((3, 3))
    assert (found.reached, found.at_first) == (1.0, False)
    assert found.entropy_difference == pytest.approx(0.25)
    assert found.entropy_difference_se == pytest.approx(0)


def test_the_interval_is_that_of_the_crossing():
    """The place on the line is normal, so that the log of the speed-up is, too."""
    found = meeting([point(1, 13), point(math.e, 3)], point(1, 8, spread=0.5))
    half = 1.96 * 0.05
    assert math.log(found.speed_up) == pytest.approx(-0.5)
    assert [math.log(found.low), math.log(found.high)] == pytest.approx([-0.5 - half, -0.5 + half], abs=0.01)


def test_a_curve_that_stays_above_or_begins_below_has_an_open_interval():
    above = meeting([point(1, 3), point(2, 2.6)], point(6, 2.5))
    assert math.isnan(above.speed_up)
    assert (above.reached, above.low) == (0.0, 0.0)
    assert math.isnan(above.high)
    assert math.isnan(above.entropy_difference)
    below = meeting([point(1, 2), point(2, 3)], point(6, 2.5))
    assert (below.speed_up, below.low, below.high, below.at_first) == (6.0, 6.0, math.inf, True)
    unsure = meeting([point(1, 3), point(4, 2.4, spread=0.2)], point(6, 2.5))
    assert unsure.speed_up > 1.5
    assert unsure.low == 0.0
    assert 0.5 < unsure.reached < 0.9
