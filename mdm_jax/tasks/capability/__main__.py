"""What models can do: copying, recall, a needle at a distance, few examples, and the continuation of real text.

    python -m mdm_jax.tasks.capability runs/my_sweep --out capability
    python -m mdm_jax.tasks.capability model.safetensors --text book.txt --out capability

MODEL is a sweep's folder with all its runs, a run's folder, a safetensors file with its tokenizer beside it, or a
Hugging Face folder. It may also be the table.csv of an earlier measurement, which is then compared again. Every model
gets the same multiple-choice questions, in groups that give a model 1/m right answers if it does not read the prompts:

    copy          a random string again after DISTANCE tokens of text: how does it go on?
    recall        keys with values, then one of the PAIRS keys: which value belongs to it?
    needle        a name with its value, DISTANCE tokens of text, and the name again: which value?
    few_shot      EXAMPLES of words and their images under a map, then a word: which image?
    continuation  CONTEXT tokens of real text: which of four passages goes on here?

The text is the validation text of each run, or that of --text. Both families are scored by the exact likelihood from
left to right. `corrected` accuracy subtracts from each answer's log-likelihood its mean over the group's prompts
(compare Holtzman et al. 2021, arXiv 2104.08315), so an answer that is likely after any prompt has no advantage.

In DIR: models/NAME.json, the answers of each model; table.csv; and, if both families have runs whose losses overlap,
comparison.csv and capability.svg. The comparison says how much better the MDM is than the ARM at equal loss, with 95%
intervals over runs and questions. After an interruption the same command goes on.

Exit codes: 0 done; 1 a model could not be measured (the others are); 130 interrupted; 143 asked to stop.
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import Sequence

from mdm_jax.command import BAD, DONE, PREEMPTED, cores_of, describe_exit, exit_code, new_parser, on_cores, say
from mdm_jax.files.layout import RESULT_FILE
from mdm_jax.files.storage import Path, as_path, check_writable, is_file, make_folder, write_atomic
from mdm_jax.spec.validation import require

TABLE, COMPARISON, FIGURE = "table.csv", "comparison.csv", "capability.svg"
FEW_MODELS = 4
"""The most models whose answers are printed for each task and size."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("mdm_jax.tasks.capability", __doc__)
    add = flags.add_argument
    add("models", nargs="+", metavar="MODEL", help="a sweep's or a run's folder, weights, or an earlier table.csv")
    add("--out", required=True, metavar="DIR", help="folder of the results")
    add("--text", nargs="+", default=[], metavar="FILE", help="UTF-8 files (default: each run's validation text)")
    add("--questions", type=int, default=128, metavar="N", help="of each task and size (%(default)s)")
    add("--seed", type=int, default=0, help="chooses the questions (%(default)s)")
    add("--jobs", type=int, default=1, help="processes that share the models and the cores (%(default)s)")
    add("--only-measure", action="store_true", help="write the models' answers, and neither table nor comparison")
    add("--score", choices=("corrected", "plain"), default="corrected", help="accuracy to compare (%(default)s)")
    losses = "the MDM's loss at which families are compared (%(default)s)"
    add("--likelihood", choices=("nelbo", "left_to_right"), default="nelbo", help=losses)
    add("--degree", type=int, choices=(1, 2), default=1, help="of the curve through a family's runs (%(default)s)")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code; see the module's docstring."""
    flags = parser().parse_args(argv)

    def work() -> int:
        require(flags.jobs >= 1, "--jobs", flags.jobs, "at least 1")
        from mdm_jax.tasks.capability.table import refuse_copies

        out = as_path(flags.out)
        make_folder(out)
        check_writable(out / TABLE)
        tables = [path for path in flags.models if path.endswith(".csv") and is_file(path)]
        models, unread = finished_models([path for path in flags.models if path not in tables])
        codes = [say(line, DONE) for line in unread]
        if flags.jobs > 1 and len(models) > 1:
            codes.append(_shared(flags, models))
        measured, code = _measured(flags, models, tables, out)
        codes.append(code)
        refuse_copies(measured)
        if not flags.only_measure and measured:
            _compare(flags, measured, out)
        return max(codes)

    return exit_code(work)


def finished_models(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """The models at the paths, each once, with a sweep's finished runs by name; and a line for each run left out.

    Raises:
        ValueError: a sweep has no runs.
    """
    from mdm_jax.files.results import TRUNK_SEGMENT, Status, read_result
    from mdm_jax.tasks.model_paths import runs_of_sweep

    found, left_out = dict[str, None](), []
    for path in paths:
        runs = runs_of_sweep(path)
        if runs is None:
            found[path] = None
            continue
        for run in runs:
            row = read_result(run / RESULT_FILE) if is_file(run / RESULT_FILE) else None
            if row is None or row.status is not Status.OK or row.excluded_reason == TRUNK_SEGMENT:
                why = "it has no result yet" if row is None else row.excluded_reason or f"it is {row.status.value}"
                left_out.append(f"{run.name}: left out, {why}")
            else:
                found[str(run)] = None
    return list(found), left_out


def _shared(flags: argparse.Namespace, models: Sequence[str]) -> int:
    """The exit code of processes that share the models. They end with this process."""
    settings = ["--out", flags.out, "--questions", str(flags.questions), "--seed", str(flags.seed), "--only-measure"]
    settings += ["--text", *flags.text] if flags.text else []
    children: list[subprocess.Popen] = []
    jobs = min(flags.jobs, len(models))
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(PREEMPTED))
    try:
        for job in range(jobs):
            with on_cores(cores_of(job, jobs)):
                command = [sys.executable, "-m", "mdm_jax.tasks.capability", *models[job::jobs], *settings]
                children.append(subprocess.Popen(command))
        codes = [child.wait() for child in children]
    finally:
        for child in children:
            child.terminate()
        signal.signal(signal.SIGTERM, before)
    for code in codes:
        if code not in (DONE, BAD):
            say(f"one of the processes ended with {describe_exit(code)}: the same command goes on", BAD)
    return DONE if all(code == DONE for code in codes) else BAD


def _measured(flags: argparse.Namespace, models: Sequence[str], tables: Sequence[str], out: Path) -> tuple[list, int]:
    """All rows, of the tables and of the models; and the exit code."""
    from mdm_jax.run.program_cache import program_cache
    from mdm_jax.tasks.capability.measure import Questions, measure
    from mdm_jax.tasks.capability.table import read_table
    from mdm_jax.tasks.model_paths import check_names

    questions = Questions(flags.text, flags.questions, flags.seed)
    check_names(models)
    rows, code = [row for path in tables for row in read_table(as_path(path))], DONE
    with program_cache(lambda line: print(line, file=sys.stderr)):
        for number, path in enumerate(models, 1):
            try:
                found, kept = measure(path, questions, out)
            except (ValueError, OSError) as error:
                code = say(f"{path}: {error}" if path not in str(error) else error, BAD)
                continue
            rows += found
            if not kept:
                say(f"{found[0].model}: measured ({number} of {len(models)})", DONE)
    return rows, code


def _compare(flags: argparse.Namespace, rows: list, out: Path) -> None:
    """Writes the table, and the comparison if there is one; prints what is short."""
    from mdm_jax.tasks.capability.report import compared, model_lines
    from mdm_jax.tasks.capability.table import table_csv

    write_atomic(out / TABLE, table_csv(rows))
    if len({row.model for row in rows}) <= FEW_MODELS:
        print("\n".join(model_lines(rows)))
    try:
        found = compared(rows, flags.score, flags.likelihood, flags.degree)
    except ValueError as reason:
        print(f"no comparison at equal loss: {reason}")
        return
    write_atomic(out / COMPARISON, found.csv)
    write_atomic(out / FIGURE, found.svg)
    print("\n".join(found.lines))


if __name__ == "__main__":
    sys.exit(main())
