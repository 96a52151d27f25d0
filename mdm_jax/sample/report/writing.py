"""The texts of one setting, written batch by batch, with the time of each batch apart from compilation."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mdm_jax.sample.report.prompts import Job
from mdm_jax.sample.report.settings import Setting
from mdm_jax.sample.report.texts import Text, key_of

NOT_IN_THE_PROGRAM = ("steps", "bound")
"""Options of a row that a compiled program reads as data."""
Generate = Callable[..., Sequence[Any]]
"""`Model.generate`, which gives texts as in `mdm_jax.trained.generation.Generated`."""


def setting_key(setting: Setting, job: Job, fingerprint: str, device: str) -> str:
    """A short hash of all that decides a setting's texts and their seconds.

    Args:
        setting: the setting.
        job: the report's job.
        fingerprint: the fingerprint of the model.
        device: the kind of the device.
    """
    options = dataclasses.asdict(setting.options)
    written = {"prompts": job.prompts, "tokens": job.tokens, "texts": [job.seed, job.texts, job.batch]}
    others = {"model": fingerprint, "tokenizer": job.tokenizer.hash, "device": device}
    return key_of({"options": options, **written, **others})


def write_setting(
    setting: Setting, job: Job, generate: Generate, same_tokens: bool, compiled: set[Any]
) -> Iterator[Text]:
    """The texts of a setting.

    Args:
        setting: the setting.
        job: the report's job.
        generate: writes the texts.
        same_tokens: whether the model has the job's tokenizer. If not, it reads the prompts as text.
        compiled: the programs that ran before. The first batch of any other one is written twice, and only the second
            time counts. The new programs are added.

    Raises:
        ValueError: the model cannot write so; see `Model.generate`.
    """
    options, decode = dataclasses.asdict(setting.options), job.tokenizer.decode
    fixed = [(name, value) for name, value in options.items() if name not in NOT_IN_THE_PROGRAM]
    for batch, first in enumerate(range(0, job.texts, job.batch)):
        numbers = range(first, first + job.batch)
        prompt_ids = [job.prompts[i % len(job.prompts)] for i in numbers]
        prompts = [decode(np.array(ids, np.int32)) for ids in prompt_ids]
        shown = [list(ids) for ids in prompt_ids] if same_tokens else prompts
        seeds = [job.seed + i for i in numbers]
        write = functools.partial(generate, shown, job.tokens, seed=seeds, **options)
        program, first_seconds = (setting.model, *fixed, *sorted(map(len, shown))), None
        if program not in compiled:
            _, first_seconds = _timed(write)
            compiled.add(program)
        made, seconds = _timed(write)
        for i, ids, prompt, one in zip(numbers, prompt_ids, prompts, made, strict=True):
            yield Text(
                id=f"{setting.name}/{i}",
                model=setting.model,
                sampler=setting.sampler,
                steps=setting.options.steps,
                prompt=prompt,
                prompt_ids=ids,
                unit=i % len(job.prompts),
                text=one.text,
                ids=one.ids if same_tokens else tuple(job.tokenizer.encode(one.text).tolist()),
                ended=one.ended,
                tokens=one.tokens,
                own_nats=one.nats,
                seed=one.seed,
                nfe=one.nfe,
                batch=batch,
                seconds=seconds / job.batch,
                compile_seconds=0.0 if first_seconds is None else max(0.0, first_seconds - seconds),
            )


def _timed(write: Callable[[], Sequence[Any]]) -> tuple[Sequence[Any], float]:
    begun = time.perf_counter()
    made = write()
    return made, time.perf_counter() - begun
