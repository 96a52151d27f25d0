"""Options with which XLA takes less time to compile a program for a CPU.

They turn off parts of the compiler that make our steps no faster: copies of a loop's body, vectors from scalar
operations, and tiles. XLA reads them from the environment when jax looks for its devices. Compilers for other devices
ignore them, and so does an XLA that does not know them. See docs/performance.md for what was measured.
"""

from collections.abc import Mapping

VARIABLE = "XLA_FLAGS"
FLAG = "--xla_backend_extra_options"
OPTIONS = ("xla_cpu_disable_loop_unrolling", "xla_cpu_disable_slp_vectorizer", "xla_cpu_disable_tiled_emitter")


def with_fast_compiler(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process whose programs are compiled with these options, unless the user gives such options.

    A user may also give XLA a file of flags. Then nothing is added.
    """
    given = environment.get(VARIABLE, "").strip()
    if FLAG in given or (given and not given.startswith("-")):
        return dict(environment)
    return {**environment, VARIABLE: " ".join(filter(None, (given, f"{FLAG}={','.join(OPTIONS)}")))}
