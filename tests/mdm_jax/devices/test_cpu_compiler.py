"""Processes that train compile with options that shorten compilation, and keep what the user asks for."""

import os
import subprocess
import sys

import pytest

from mdm_jax.devices.cpu_compiler import FLAG, OPTIONS, VARIABLE, with_fast_compiler

ADDED = f"{FLAG}={','.join(OPTIONS)}"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ADDED),
        ({VARIABLE: ""}, ADDED),
        ({VARIABLE: " --xla_dump_to=there"}, f"--xla_dump_to=there {ADDED}"),
        ({VARIABLE: f"{FLAG}=xla_cpu_own"}, f"{FLAG}=xla_cpu_own"),
        ({VARIABLE: "flags.txt"}, "flags.txt"),
    ],
)
def test_what_the_user_asks_for_stays(given, expected):
    assert with_fast_compiler({"A": "b", **given}) == {"A": "b", VARIABLE: expected}


def test_a_command_that_trains_has_the_options_before_jax_looks_for_its_devices():
    code = f"""
import os, sys
from mdm_jax.main import main
code = main()
assert code == 1, code  # there is no such file
import jax
print(float(jax.jit(lambda x: (x * 2).sum())(jax.numpy.arange(4.0))), os.environ["{VARIABLE}"])
"""
    env = {name: value for name, value in os.environ.items() if name != VARIABLE}
    command = [sys.executable, "-c", code, "--config", "absent.py"]
    said = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert said == f"12.0 {ADDED}\n"
