"""Text from a trained model: continuations of prompts, or texts whose holes are filled.

    python -m mdm_jax.sample MODEL --prompt "The cat" --tokens 40 --n 3
    python -m mdm_jax.sample MODEL --infill "The [MASK:8] of" --sampler first_hitting

MODEL is a run's folder, a safetensors file with its tokenizer beside it, or a Hugging Face folder. Without a prompt the
text begins a row. `[MASK]` is a hole of one token, `[MASK:N]` of N tokens. Each text has its own seed: the first has
--seed, and the next ones follow. `--out FILE` writes a line of JSON for each text, with its seed, its forward passes
(nfe), and the seconds of its batch, in which the first batch of a shape compiles its program. `--watch` shows each text
while it is written: tokens that are not there yet as ░, and those of the last step highlighted. Where the output is no
terminal, each step is a line.

Samplers of an MDM: first_hitting (the default, exact with one step a token), ancestral, confidence, margin, entropy,
threshold, entropy_bound, remask_cap, remask_rescale, remask_confidence. An ARM writes from left to right.

A text that is longer than a row needs --stride N: the last tokens are the prefix of a next row, which has N new ones.

With --block, --cache makes an MDM faster: the steps of a block read only the block (dual), or everything from it on
(prefix), and use the keys and values of the other tokens as they were at the begin of the block. The text is another
one then, and its quality may differ. An ARM always keeps its keys and values.
"""

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from mdm_jax.command import DONE, exit_code, new_parser
from mdm_jax.files.storage import write_atomic
from mdm_jax.sample.names import BOUNDS, Sampler
from mdm_jax.spec.validation import require

if TYPE_CHECKING:  # jax and rich would make --help and the first error wait for seconds
    import rich.text

    from mdm_jax.trained.generation import Generated
    from mdm_jax.trained.watching import Glimpse

FRAME_SECONDS = 0.05
"""A step stays on the screen at least for this time, or the steps of a small model could not be seen."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("mdm_jax.sample", __doc__)
    add = flags.add_argument
    add("model", metavar="MODEL", help="a run's folder, or a file or folder of weights")
    what = flags.add_mutually_exclusive_group()
    what.add_argument("--prompt", nargs="+", default=[""], metavar="TEXT", help="texts to continue (default: none)")
    what.add_argument("--infill", nargs="+", metavar="TEXT", help="texts with [MASK] or [MASK:N]")
    add("--tokens", type=int, metavar="N", help="most new tokens after a prompt (default: the rest of the row)")
    add("--stride", type=int, metavar="N", help="for texts longer than a row: new tokens of each further row")
    add("--n", type=int, default=1, help="texts for each prompt (%(default)s)")
    add("--seed", type=int, default=0, help="seed of the first text (%(default)s)")
    add("--sampler", metavar="NAME", help=f"one of {', '.join(Sampler)}")
    add("--steps", type=int, metavar="N", help="steps of each text (default: one a token)")
    add("--block", type=int, metavar="N", help="fill blocks of N tokens from left to right (default: the whole row)")
    defaults = ", ".join(f"{name} {bound:g}" for name, bound in BOUNDS.items())
    add("--cache", metavar="NAME", help="what an MDM keeps within a block: none, prefix or dual (default: none)")
    add("--bound", type=float, metavar="X", help=f"the number that a sampler depends on (defaults: {defaults})")
    add("--temperature", type=float, metavar="T", help="0 takes the likeliest token (default: 1)")
    add("--top-k", type=int, metavar="K", help="only the K likeliest tokens (default: all)")
    add("--top-p", type=float, metavar="P", help="only the likeliest tokens of this probability together (default: 1)")
    add("--guidance", type=float, metavar="W", help="unsupervised classifier-free guidance of an MDM (default: 0)")
    add("--watch", action="store_true", help="show each text while it is written")
    add("--out", metavar="FILE", help="JSONL file of the texts")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 after one line that says what is wrong."""
    flags = parser().parse_args(argv)

    def work() -> int:
        for name in ("tokens", "stride"):
            value = getattr(flags, name)
            require(value is None or not flags.infill, f"--{name}", value, "absent with --infill")
        bound = "absent with --watch, which shows one row"
        require(flags.stride is None or not flags.watch, "--stride", flags.stride, bound)

        from mdm_jax.sample.options import SamplingOptions
        from mdm_jax.trained.load import load
        from mdm_jax.trained.watching import watch

        settings = [setting.name for setting in dataclasses.fields(SamplingOptions)]
        given = {name: getattr(flags, name) for name in settings if getattr(flags, name) is not None}
        model = load(flags.model)
        counts = {"n": flags.n, "seed": flags.seed}
        if flags.watch:
            prompts, infill = flags.infill or flags.prompt, bool(flags.infill)
            texts = _watched(watch(model, prompts, flags.tokens, infill, **counts, **given))
        elif flags.infill:
            texts = model.infill(flags.infill, **counts, **given)
        else:
            texts = model.generate(flags.prompt, flags.tokens, stride=flags.stride, **counts, **given)
        if flags.out:
            slid = {} if flags.stride is None else {"stride": flags.stride}
            record = {"model": flags.model, "family": model.family.value, **slid, **given}
            write_atomic(flags.out, "".join(_line(text, record) for text in texts))
        _show(texts, infilled=bool(flags.infill))
        return DONE

    return exit_code(work)


def _line(text: "Generated", record: dict[str, Any]) -> str:
    return json.dumps(record | dataclasses.asdict(text), ensure_ascii=False) + "\n"


def _watched(glimpses: "Iterable[Glimpse]") -> "list[Generated]":
    """The texts, each shown while it is written: in one place on a terminal, and as a line for each step elsewhere."""
    import rich.console
    import rich.live

    console, texts = rich.console.Console(highlight=False), []
    glimpses = iter(glimpses)
    while first := next(glimpses, None):
        with rich.live.Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext() as live:
            for glimpse in itertools.chain([first], glimpses):
                if live is not None:
                    live.update(_picture(glimpse), refresh=True)
                    time.sleep(FRAME_SECONDS)
                else:
                    row = "".join(text for _, text in glimpse.pieces).replace("\n", "↵")
                    print(f"seed {glimpse.seed} step {glimpse.step}: {row}")
                if glimpse.text is not None:
                    texts.append(glimpse.text)
                    break
    return texts


def _picture(glimpse: "Glimpse") -> "rich.text.Text":
    """What the terminal shows of a text after a step."""
    import rich.text

    from mdm_jax.trained.watching import Part

    looks = {Part.GIVEN: "dim", Part.HIDDEN: "bright_black", Part.NEW: "bold black on bright_yellow", Part.OLD: ""}
    left = f", {glimpse.left} tokens left" if glimpse.left else ""
    head = (f"seed {glimpse.seed}, step {glimpse.step}{left}\n", "dim")
    return rich.text.Text.assemble(head, *((text, looks[part]) for part, text in glimpse.pieces))


def _show(texts: "Sequence[Generated]", infilled: bool) -> None:
    """Prints the texts, and between them a line with seed, forward passes and seconds."""
    for text in texts:
        cost = f"{text.tokens} tokens, {text.nfe} forward passes, {text.seconds:.2f} s in a batch of {text.batch}"
        print(f"--- seed {text.seed}: {cost}")
        print(text.text if infilled else text.prompt + text.text)


if __name__ == "__main__":
    sys.exit(main())
