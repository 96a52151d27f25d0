"""The experiment on quality against cost: its models, its real text and its interleaved times."""

import json

import numpy as np
from small_corpus import prepared

from experiments import sampling_quality
from mdm_jax import load
from mdm_jax.data.corpus import open_corpus
from mdm_jax.sample.report.settings import mdm_settings
from mdm_jax.spec import Family


def test_its_models_are_there_and_the_reference_is_none_of_them():
    paths = [sampling_quality.MDM, *sampling_quality.ARMS]
    models = [load(path) for path in paths]
    assert [model.family for model in models] == [Family.MDM, Family.ARM, Family.ARM, Family.ARM]
    reference = load(sampling_quality.REFERENCE)
    assert reference.family is Family.ARM
    assert reference.fingerprint not in {model.fingerprint for model in models}
    assert {model.seq_len for model in [*models, reference]} == {128}
    settings = mdm_settings("m", sampling_quality.SAMPLERS, sampling_quality.STEPS, {}, 128)
    assert len({setting.name for setting in settings}) == len(settings) == 10 * 4 + 5


def test_its_real_text_is_the_validation_text(tmp_path):
    data = prepared(tmp_path)
    written = sampling_quality.write_validation_texts(tmp_path, data)
    texts = [json.loads(line)["text"] for line in written.read_text().splitlines()]
    assert len(texts) > 20
    ids, lengths = open_corpus(data).tokenizer.encode_batch(texts[:-1])  # the last one may be cut
    corpus = open_corpus(data)
    held = corpus.evaluation_rows(corpus.manifest.validation.tokens).reshape(-1)
    np.testing.assert_array_equal(ids, held[: lengths.sum()])


def test_times_are_medians_of_interleaved_rounds():
    """The times are made up: of both settings the second round is slowest, which leaves their ratio as it is."""
    calls = list[tuple[str, int]]()

    def seconds(setting: str, batch: int, number: int) -> float:
        calls.append((setting, number))
        return {"arm": 2.0, "mdm": 1.0}[setting] * batch * (10 if number == 2 else 1)

    found = sampling_quality.interleaved(["arm", "mdm"], "arm", 3, 4, seconds)
    assert calls == [(name, number) for number in range(4) for name in ("arm", "mdm")]  # round 0 compiles
    assert found == {"arm": (2.0, 1.0, 1.0, 1.0), "mdm": (1.0, 2.0, 2.0, 2.0)}
