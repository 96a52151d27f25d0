import dataclasses
import json
from typing import Any

import pytest

from mdm_jax.config import default_run, load_config, override, to_spec
from mdm_jax.files.sealed_json import seal, unseal
from mdm_jax.spec import (
    EXACT_LIKELIHOODS,
    CellSpec,
    CorpusSource,
    CorpusSpec,
    Cutoff,
    DataSpec,
    EvaluationSpec,
    Family,
    HardwareSpec,
    LevelSampler,
    Likelihood,
    ModelSpec,
    NoiseSchedule,
    ObjectiveSpec,
    Remat,
    RunSpec,
    ScheduleSpec,
    TokenizerKind,
    TokenizerSpec,
    Variant,
    Weighting,
    from_json,
    pair,
    to_json,
)
from mdm_jax.spec.run_spec import HASHED_IF_SET
from mdm_jax.spec.validation import build, to_dict

CONTINUOUS = ObjectiveSpec(Variant.CONTINUOUS, LevelSampler.SHIFTED, NoiseSchedule.COSINE)
TEXT = DataSpec(
    CorpusSpec(CorpusSource.JSONL, "corpus/*.jsonl", "body", 1 << 20),
    TokenizerSpec(TokenizerKind.SENTENCEPIECE, 512),
    seq_len=128,
)
SPECS = {
    "default": RunSpec(),
    "arm": pair(RunSpec(), Family.ARM),
    "continuous": RunSpec(objective=CONTINUOUS, seed=7),
    "weighted": RunSpec(objective=ObjectiveSpec(weighting=Weighting.CLIPPED)),
    "text": RunSpec(model=ModelSpec(vocab_size=512), data=TEXT, cell=CellSpec(budget=3e20, size="170")),
}


def leaves(tree: dict, where: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat |= leaves(value, f"{where}{key}.") if isinstance(value, dict) else {where + key: value}
    return flat


@pytest.mark.parametrize("name", SPECS)
def test_json_round_trip(name: str) -> None:
    line = to_json(SPECS[name])
    assert "\n" not in line
    assert from_json(line) == SPECS[name]
    assert to_json(from_json(line)) == line


@pytest.mark.parametrize("asked", [["nelbo"], ["any_order"], ["confidence", "confidence"]])
def test_only_exact_likelihoods_are_added_and_each_once(asked: list[str]) -> None:
    with pytest.raises(ValueError, match=r"evaluation\.likelihoods = \['.*must be some of left_to_right, confidence"):
        to_spec(RunSpec, override(default_run(), [f"evaluation.likelihoods={json.dumps(asked)}"]))
    both = to_spec(RunSpec, override(default_run(), ['evaluation.likelihoods=["confidence", "left_to_right"]']))
    assert both.evaluation.likelihoods == (Likelihood.CONFIDENCE, Likelihood.LEFT_TO_RIGHT)


@pytest.mark.parametrize(
    "change",
    [
        {"hardware": HardwareSpec(microbatches=4, log_every=3)},
        {"hardware": HardwareSpec(remat=Remat.FULL, remat_layers=1, remat_rest=Remat.DOTS)},
        {"cell": CellSpec(budget=1e12, size="2x64", parent_run_id="mdm")},
        {"data": dataclasses.replace(DataSpec(), directory="elsewhere", data_hash="0" * 64)},
        {"evaluation": EvaluationSpec(likelihoods=EXACT_LIKELIHOODS)},
    ],
)
def test_run_id_ignores_where_it_runs(change: dict) -> None:
    changed = dataclasses.replace(RunSpec(), **change)
    assert changed != RunSpec()
    assert changed.run_id == RunSpec().run_id


@pytest.mark.parametrize(
    "setting",
    [
        "seed=1",
        "model.d_ffn=260",
        "model.compute_dtype=bfloat16",
        "optim.lr_peak=0.003",
        "optim.ema_decay=0.99",
        "schedule.steps=1001",
        "objective.weighting=bell",
        "data.seq_len=65",
        "data.corpus.max_bytes=1000",
        "data.validation_fraction=0.03",
        "evaluation.mc_samples=17",
        "evaluation.estimator=control_variate",
    ],
)
def test_run_id_changes_with_the_science(setting: str) -> None:
    changed = to_spec(RunSpec, override(default_run(), [setting]))
    assert changed.run_id != RunSpec().run_id
    assert changed.spec_hash != RunSpec().spec_hash


@dataclasses.dataclass(frozen=True)
class _Grown:
    """A spec that has got a field since its first release."""

    old: int = 1
    new: int = dataclasses.field(default=2, metadata=HASHED_IF_SET)


def test_a_later_field_leaves_the_hash_of_older_specs_alone() -> None:
    assert to_dict(_Grown(old=3), hashed_only=True) == {"old": 3}
    assert to_dict(_Grown(new=5), hashed_only=True) == {"old": 1, "new": 5}
    assert to_dict(_Grown()) == {"old": 1, "new": 2}


def test_the_default_run_keeps_its_id() -> None:
    """Results that were published under an id stay theirs."""
    assert RunSpec().run_id == "mdm-2x64-0f5ea23a17c4"


def test_a_spec_without_the_later_fields_of_hardware_is_read() -> None:
    spec = RunSpec(hardware=HardwareSpec(remat=Remat.FULL))
    tree = unseal(to_json(spec), 2)
    for name in ("remat_layers", "remat_rest"):
        del tree["hardware"][name]
    assert from_json(json.dumps(seal(tree))) == spec


def test_layer_policies_cover_every_layer_once() -> None:
    mix = HardwareSpec(remat=Remat.FULL, remat_layers=3, remat_rest=Remat.DOTS)
    assert mix.layer_policies(5) == ((Remat.FULL, 3), (Remat.DOTS, 2))
    assert mix.layer_policies(3) == ((Remat.FULL, 3),)
    assert HardwareSpec(remat=Remat.FULL).layer_policies(5) == ((Remat.FULL, 5),)


def test_run_id_shows_family_and_shape() -> None:
    spec = RunSpec(model=ModelSpec(n_layers=3, d_model=96))
    assert spec.run_id.startswith("mdm-3x96-")
    assert pair(spec, Family.ARM).run_id.startswith("arm-3x96-")


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("name", SPECS)
def test_pair_differs_in_objective_and_attention_alone(name: str, family: Family) -> None:
    spec = SPECS[name]
    twin = pair(spec, family)
    assert twin.family is family
    before, after = leaves(to_dict(spec)), leaves(to_dict(twin))
    differing = {key for key in before if before[key] != after[key]}
    assert all(key.startswith("objective.") or key == "model.attention" for key in differing)
    if family is not spec.family:
        assert "model.attention" in differing


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"seed": 1}, "was the line edited"),
        ({"run_id": "mdm-2x64-000000000000"}, "was the line edited"),
        ({"schema_version": 3}, "schema_version = 3"),
        ({"schema_version": None}, "schema_version"),
        ({"sead": 1}, "did you mean seed"),
        ({"seed": "1"}, "of type int"),
        ({"seed": True}, "of type int"),
        ({"seed": -1}, "from 0 to"),
        ({"model": 3}, "a mapping"),
        ({"objective": {"variant": "counts"}}, "count, continuous, steps, d3pm, nll"),
    ],
)
def test_from_json_refuses(edit: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        from_json(json.dumps(seal(unseal(to_json(RunSpec()), 2) | edit)))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": 1', "[" * 100_000, "\0"])
def test_from_json_refuses_what_is_no_object(text: str) -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        from_json(text)


def test_from_json_refuses_every_truncation() -> None:
    line = to_json(SPECS["text"])
    for length in range(len(line)):
        with pytest.raises(ValueError):
            from_json(line[:length])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_are_finite(number: str) -> None:
    with pytest.raises(ValueError, match="finite"):
        build(RunSpec, json.loads(f'{{"optim": {{"lr_peak": {number}}}}}'))


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown key optim\.lr_peek: did you mean optim\.lr_peak\?"):
        build(RunSpec, {"optim": {"lr_peek": 1.0}})


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        (ModelSpec, {"d_model": 65}, "multiple of 2"),
        (ModelSpec, {"n_layers": 0}, "model.n_layers = 0"),
        (ScheduleSpec, {"steps": 10, "warmup_steps": 11}, "from 0 to steps = 10"),
        (ScheduleSpec, {"cooldown_steps": 5}, "cooldown_steps"),
        (ObjectiveSpec, {"variant": Variant.NLL, "levels": LevelSampler.IID}, "objective.levels = 'iid'"),
        (ObjectiveSpec, {"variant": Variant.CONTINUOUS, "levels": LevelSampler.OPTIMAL}, "unless variant is count"),
        (ObjectiveSpec, {"time_steps": 8}, r"objective.time_steps = 8: must be 0 \(the default\) unless variant is"),
        (ObjectiveSpec, {"variant": Variant.STEPS}, "objective.time_steps = 0: must be from 2"),
        (ObjectiveSpec, {"variant": Variant.D3PM, "time_steps": 1}, "objective.time_steps = 1"),
        (ObjectiveSpec, {"variant": Variant.D3PM, "time_steps": 4, "noise": NoiseSchedule.LINEAR}, "objective.noise"),
        (
            ObjectiveSpec,
            {"variant": Variant.D3PM, "time_steps": 4, "weighting": Weighting.BELL},
            "objective.weighting = 'bell'",
        ),
        (ObjectiveSpec, {"carry_over": False}, "objective.carry_over = False: must be True"),
        (ObjectiveSpec, {"zero_masking": False}, "objective.zero_masking = False"),
        (ObjectiveSpec, {"cutoff": Cutoff.SMDM}, "objective.cutoff = 'smdm'"),
        (ObjectiveSpec, {"cutoff_eps": 0.1}, r"0\.001 \(the default\) without a cutoff"),
        (ObjectiveSpec, {"noise_power": 3.0}, "unless noise is polynomial"),
        (ObjectiveSpec, {"noise": NoiseSchedule.POLYNOMIAL, "noise_power": 9.0}, r"from 0\.25 to 4"),
        (ObjectiveSpec, {"stochastic_length": 1.5}, "objective.stochastic_length = 1.5: must be from 0 to 1"),
        (ObjectiveSpec, {"stochastic_length": 0.1, "weighting": Weighting.BELL}, "objective.weighting = 'bell'"),
        (ObjectiveSpec, {"variant": Variant.NLL, "weighting": Weighting.BELL}, "objective.weighting = 'bell'"),
        (CorpusSpec, {"source": CorpusSource.TEXT}, "corpus.path"),
        (TokenizerSpec, {"vocab_size": 300}, "257 for bytes"),
        (RunSpec, {"model": ModelSpec(vocab_size=300)}, "tokenizer.vocab_size = 257"),
        (RunSpec, {"hardware": HardwareSpec(mesh_data=3)}, "divides global_batch = 16"),
        (RunSpec, {"hardware": HardwareSpec(mesh_model=4)}, "model.n_heads = 2"),
        (RunSpec, {"objective": ObjectiveSpec(Variant.NLL)}, "causal for the ARM"),
        (HardwareSpec, {"microbatches": 0}, "hardware.microbatches = 0: must be at least 1"),
        (HardwareSpec, {"remat": Remat.DOTS, "remat_layers": -1}, "hardware.remat_layers = -1: must be at least 0"),
        (HardwareSpec, {"remat_layers": 1}, "remat_layers = 1: must be 0 with hardware.remat = none"),
        (
            HardwareSpec,
            {"remat": Remat.FULL, "remat_rest": Remat.DOTS},
            "remat_rest = 'dots': .*remat_layers says where",
        ),
        (
            HardwareSpec,
            {"remat": Remat.DOTS, "remat_layers": 1, "remat_rest": Remat.FULL},
            "hardware.remat_rest = 'full': must be none with hardware.remat = dots",
        ),
        (
            HardwareSpec,
            {"remat": Remat.FULL, "remat_layers": 1, "remat_rest": Remat.FULL},
            "remat_rest = 'full': must be one of none, dots, offload with hardware.remat = full",
        ),
        (
            RunSpec,
            {"hardware": HardwareSpec(remat=Remat.DOTS, remat_layers=3)},
            "hardware.remat_layers = 3: must be at most model.n_layers = 2",
        ),
    ],
)
def test_bounds_are_named(section: type, change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        section(**change)


def test_config_is_locked_and_overridable() -> None:
    config: Any = default_run()
    with pytest.raises(AttributeError, match="lr_peak"):
        config.optim.lr_peek = 1.0
    changed = override(config, ["optim.lr_peak=1e-3", "data.corpus.source=text", "data.corpus.path=a=b.txt"])
    spec = to_spec(RunSpec, changed)
    assert (spec.optim.lr_peak, spec.data.corpus.path) == (1e-3, "a=b.txt")
    assert to_spec(RunSpec, config) == RunSpec()
    with pytest.raises(ValueError, match=r"did you mean optim\.lr_peak"):
        override(config, ["optim.lr_peek=1"])
    with pytest.raises(ValueError, match=r"section\.key=value"):
        override(config, ["optim.lr_peak"])


def test_experiment_file_with_a_misspelt_key_or_import_is_one_line(tmp_path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(
        "from mdm_jax.config import default_run\n"
        "def get_config():\n    config = default_run()\n    config.optim.lr_peek = 1.0\n    return config\n"
    )
    with pytest.raises(ValueError, match="lr_peek") as caught:
        load_config(str(file))
    assert "\n" not in str(caught.value)
    file.write_text("from mdm_jax.config import default_rum\n")
    with pytest.raises(ValueError, match=r"wrong\.py.*: cannot import name 'default_rum' from 'mdm_jax\.config'"):
        load_config(str(file))
