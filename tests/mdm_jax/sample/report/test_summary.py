"""What a report says beside its table."""

import dataclasses
import math

import pytest

from mdm_jax.sample.report.equal_quality import Meeting
from mdm_jax.sample.report.nats import Nats
from mdm_jax.sample.report.settings import Setting, arm_settings, mdm_settings
from mdm_jax.sample.report.summary import EqualQuality, Result, as_csv, as_text, equal_quality, notes
from mdm_jax.sample.report.table import row_of, with_error
from mdm_jax.sample.report.texts import Text

MDM = mdm_settings("m", ["threshold:bound=0.5", "threshold:bound=0.9", "margin"], [2, 4], {}, 8)
(ARM,) = arm_settings("a", {})


def texts_of(setting: Setting | None, tokens: int = 6, seconds: float = 1.0, nfe: int = 4) -> list[Text]:
    model, sampler = (setting.model, setting.sampler) if setting else ("real text", "")
    ids = tuple(range(tokens))
    made = [Text(str(i), model, sampler, None, "", (), i, "a b", ids, False, tokens) for i in range(4)]
    return [dataclasses.replace(text, seconds=seconds, nfe=nfe) for text in made]


def result(setting: Setting | None, nats: float | None, **texts) -> Result:
    made = texts_of(setting, **texts)
    known = None if nats is None else [Nats(nats, 6) for _ in made]
    return Result(setting, made, known, row_of(made, setting.family.value if setting else "", known))


def test_a_curve_has_all_steps_or_all_bounds_of_a_sampler_and_meets_each_arm():
    """The bounds go by their forward passes, whatever their order."""
    each = [result(MDM[0], 20.0, seconds=4.0, nfe=8), result(MDM[1], 10.0, seconds=1.0, nfe=2)]
    each += [result(MDM[2], 30.0, nfe=2), result(MDM[3], 18.0, nfe=4, seconds=4.0), result(None, 5.0)]
    found = equal_quality([*each, result(ARM, 24.0, seconds=8.0)])
    assert [(one.arm, one.mdm, one.sampler) for one in found] == [("a", "m", "threshold"), ("a", "m", "margin")]
    assert found[0].meeting.at_first
    assert found[0].meeting.speed_up == pytest.approx(8)
    assert found[1].meeting.speed_up == pytest.approx(4)
    assert equal_quality([result(MDM[0], None), result(ARM, None)]) == []


def test_texts_that_differ_in_entropy_are_marked():
    equal = Meeting(2.0, 1.0, math.inf, 1.0, True, 0.1, 0.06)
    other = dataclasses.replace(equal, entropy_difference=-0.2, at_first=False, high=3.0)
    never = Meeting(math.nan, 0.0, math.nan, 0.0, False, math.nan, math.nan)
    found = [EqualQuality("a", "m", name, one) for name, one in (("x", equal), ("y", other), ("z", never))]
    x, y, z, hint = as_text(found).splitlines()[1:]
    assert "a: at least 2" in x
    assert "[1, inf]" in x
    assert x.endswith("+0.100 ± 0.060")
    assert y.endswith("-0.200 ± 0.060*")
    assert "a: not reached" in z
    assert hint.startswith("*: the entropies differ")
    assert as_text([]) == ""
    assert as_csv(found).splitlines()[1].startswith("a,m,x,2.0,1.0,,1.0,1.0,")
    assert as_csv(found).splitlines()[3] == "a,m,z,,0.0,,0.0,0.0,,"


def test_notes_say_what_is_missing_and_what_cannot_be_compared():
    said = notes([result(MDM[0], None), result(ARM, None, tokens=3)])
    assert [line.split(":")[0] for line in said] == [
        "No reference",
        "No real text to compare with",
        "Fewer than 30 texts",
        "Texts have 3 to 6 tokens in the mean, because EOS ends some",
    ]
    assert notes([]) == ["No real text to compare with: give --texts."]


def test_a_number_has_two_digits_of_its_error():
    row = result(MDM[0], 6.0).row
    for error, shown in ((0.25, "2.72 ± 0.25"), (12.0, "3 ± 12"), (0.0, "2.718"), (math.nan, "2.718")):
        assert with_error(dataclasses.replace(row, perplexity_se=error), "perplexity") == shown
    assert with_error(dataclasses.replace(row, perplexity=math.nan), "perplexity") == "-"
