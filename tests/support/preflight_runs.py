"""Runs that the preflight examines: one of SMDM's sizes, and a plan of tiny ones."""

import dataclasses

from tiny_runs import run_spec

from isoflop.ladder import find_size
from isoflop.planfile import write_plan
from mdm_jax.spec import CellSpec, ComputeDtype, Family, HardwareSpec, ModelSpec, OptimSpec

TINY = ModelSpec(n_layers=3, d_model=32, n_heads=4, d_ffn=64)


def run_of(size="1028", batch=256, seq_len=2048, family=Family.MDM, **hardware):
    model = find_size(size).model(ModelSpec(vocab_size=32000, compute_dtype=ComputeDtype.BFLOAT16))
    return run_spec(
        family,
        model,
        seq_len,
        optim=OptimSpec(global_batch=batch),
        hardware=HardwareSpec(mesh_data=16, **hardware),
        cell=CellSpec(budget=1e19, size=size),
    )


def tiny_plan(folder, **changes):
    runs = [
        dataclasses.replace(run_spec(family, TINY, 16, cell=CellSpec(budget=1e9, size="3x32"), **changes), seed=seed)
        for family in Family
        for seed in (0, 1)
    ]
    write_plan(folder, runs)
    return runs
