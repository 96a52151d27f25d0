"""A trained MDM or ARM as a model of lm-evaluation-harness, registered under the name `mdm_jax`.

The harness sees one process (`world_size` is 1): the model shards its own batches. Equal requests are scored once.
Neither the order of the requests nor the size of a batch changes a score, because the draws of an answer depend on its
tokens and on the seed.
"""

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook, TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import simple_parse_args_string
from tqdm import tqdm

from mdm_jax.evaluate.harness.cache import Score, ScoreCache, score_key
from mdm_jax.evaluate.harness.estimators import Estimator, Estimators
from mdm_jax.evaluate.harness.pairs import Pair, Place, cut_left, place_of, rolling_windows, split_text
from mdm_jax.evaluate.harness.writing import Wanted, fit_to_row, seed_of, wanted
from mdm_jax.evaluate.likelihood.encoding import encode_continuation, encode_text
from mdm_jax.evaluate.likelihood.pairs import Options
from mdm_jax.spec import Family, Likelihood
from mdm_jax.spec.validation import require, to_dict, unknown_key

if TYPE_CHECKING:
    from mdm_jax.trained.model import Model

PAIRS_AT_A_TIME = 512
FORWARDS_AT_A_TIME = 1 << 14
"""Most pairs, and most Monte Carlo draws of all of them, between two commits to the cache."""
UNUSED_ARGUMENTS = {"batch_size", "max_batch_size", "device"}
"""Arguments that the harness gives every model. This model chooses its own batches and devices."""
OPTIONS: Mapping[str, type[str | float | int]] = {
    "path": str,
    "preset": str,
    "method": str,
    "guidance": float,
    "draws": int,
    "max_se": float,
    "seed": int,
    "rolling_context": int,
    "cache": str,
    "sampler": str,
    "steps": int,
    "block": int,
}
"""The names in the harness's `--model_args`, and the types of their values."""
ADAPTER_OPTIONS = ("seed", "rolling_context", "cache", "sampler", "steps", "block")
"""The options that `HarnessModel` takes itself. The others, except the path, choose the estimators."""
logger = logging.getLogger(__name__)


class HarnessModel(TemplateLM):
    """A model of `mdm_jax.load` that answers the requests of lm-evaluation-harness.

    Attributes:
        scores: the score of each request that was answered, by its place.
        cut_contexts: the number of contexts of each task that were cut on their left to fit a row.
        writing: sampler, steps and block of generated text.
        greedy_tasks: tasks whose metrics read whether an answer is the greedy one; None if all may read it.
    """

    def __init__(
        self,
        model: "Model",
        estimators: Estimators,
        *,
        name: str = "",
        seed: int = 0,
        rolling_context: int = 1,
        cache: str = "",
        sampler: str = "",
        steps: int | None = None,
        block: int | None = None,
        pairs_at_a_time: int = PAIRS_AT_A_TIME,
    ) -> None:
        """The adapter of one model; see `rolling_windows` for `rolling_context`. `name` is the model's in results.

        Generated text is by `sampler`, with `steps` (at most the new tokens) and `block` of `SamplingOptions`. An MDM's
        sampler is `confidence` by default, whose greedy answer is the one that `loglikelihood` speaks of.

        Raises:
            ValueError: the model has no tokenizer, `rolling_context` does not fit a row, the seed is out of range, or
                the cache is no cache.
            OSError: the cache cannot be opened.
        """
        super().__init__()
        bound = f"from 0 to {model.seq_len - 1}, less than a row of the model"
        require(0 <= rolling_context < model.seq_len, "rolling_context", rolling_context, bound)
        require(pairs_at_a_time > 0, "pairs_at_a_time", pairs_at_a_time, "1 or more")
        Options(seed=seed)  # refuses a bad seed now, before a task is read
        self.model, self.estimators, self.seed, self.rolling_context = model, estimators, seed, rolling_context
        self.name = name or repr(model)
        sampler = sampler or ("confidence" if model.family is Family.MDM else "ancestral")
        self.writing = {"sampler": sampler, "steps": steps, "block": block}
        model.sampling_options(**self.writing)  # refuses a bad choice now
        self.scores: dict[Place, Score] = {}
        self.cut_contexts: dict[str, int] = {}
        self.greedy_tasks: frozenset[str] | None = None
        self._encoder, self._pairs_at_a_time = model.tokenizer, pairs_at_a_time
        self._cache = ScoreCache(cache) if cache else None

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict | None = None) -> "HarnessModel":
        """The model of the harness's `--model_args path=...,preset=...`."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(cls, arg_dict: Mapping, additional_config: dict | None = None) -> "HarnessModel":
        """The model of the harness's arguments.

        Args:
            arg_dict: `path` (required), the fields of `Estimators` except the family, `seed`, `rolling_context`,
                `cache`, `sampler`, `steps` and `block`.
            additional_config: arguments that the harness gives every model; this model has no use for them.

        Raises:
            ValueError: `path` is absent or has no model, an argument is unknown, or a value is out of range.
        """
        from mdm_jax.trained.load import load

        given = {name: _read(name, value) for name, value in arg_dict.items() if name not in UNUSED_ARGUMENTS}
        require("path" in given, "model_args", dict(arg_dict), "given with path=, a run's folder or a safetensors file")
        path = given.pop("path")
        rest = {name: given.pop(name) for name in ADAPTER_OPTIONS if name in given}
        model = load(path)
        return cls(model, Estimators(model.family, **given), name=path, **rest)

    def set_cache_hook(self, cache_hook: CacheHook) -> NoReturn:
        """Refuses the harness's cache.

        Raises:
            ValueError: always. The keys of that cache are texts alone, so another checkpoint or method would answer.
        """
        remedy = "give the model the argument cache=PATH, whose keys name checkpoint, method, draws and seed"
        raise ValueError(f"use_cache: the harness's cache does not know which model scored a text: {remedy}")

    @property
    def eot_token_id(self) -> int:
        """EOS, the token between documents."""
        return self._encoder.eos_id

    @property
    def max_length(self) -> int:
        """Tokens of a row."""
        return self.model.seq_len

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids of a text; the tokenizers here have no special tokens to add."""
        return self._encoder.encode(string).tolist()

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The ids of a context, or of what stands in place of an empty one, and of a continuation."""
        before, after = split_text(context, continuation)
        if not before:
            return self._prefix, encode_text(self._encoder, after).tolist()
        prompt = encode_text(self._encoder, before)
        return prompt.tolist(), encode_continuation(self._encoder, before, prompt, after).tolist()

    @property
    def _prefix(self) -> list[int]:
        """What a text without context follows."""
        return [self.eot_token_id] if self.model.has_start else []

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation in nats, by its task's estimator, and whether it is the greedy one.

        Raises:
            ValueError: a continuation is empty or longer than a row. It is found before anything is scored.
        """
        answers: dict[int, tuple[float, bool]] = {}
        by_task = _by_task(requests)
        pairs_of = {task: self._fitting_pairs(task, [requests[i].args for i in of]) for task, of in by_task.items()}
        for task, pairs in pairs_of.items():
            greedy = self.greedy_tasks is None or task in self.greedy_tasks
            scores = self._scored(pairs, self.estimators.of(task), greedy, disable_tqdm)
            for i, score in zip(by_task[task], scores, strict=True):
                self.scores[place_of(requests[i])] = score
                answers[i] = (score.loglikelihood, bool(score.is_greedy))
        return [answers[i] for i in range(len(requests))]

    def _fitting_pairs(self, task: str | None, texts: Sequence[tuple[Any, ...]]) -> list[Pair]:
        """The pairs of a task's requests. It counts and logs the contexts that had to be cut."""
        pairs, cut = [], 0
        for context, continuation in texts:
            prompt, target = self._encode_pair(context, continuation)
            whole = Pair(tuple(prompt), tuple(target))
            pairs.append(cut_left(whole, self.max_length, continuation))
            cut += pairs[-1].length < whole.length
        self.cut_contexts[task or ""] = cut
        if cut:
            said = f"{cut} of {len(pairs)} contexts were cut on their left to fit rows of {self.max_length} tokens"
            logger.warning("%s: %s", task, said)
        return pairs

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """The answers to requests without a task: ((context, continuation), prompt ids, target ids)."""
        pairs = [
            cut_left(Pair(tuple(prompt), tuple(target)), self.max_length, texts[1])
            for texts, prompt, target in requests
        ]
        scores = self._scored(pairs, self.estimators.of(None), True, disable_tqdm)
        return [(score.loglikelihood, bool(score.is_greedy)) for score in scores]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each whole text in nats, in windows of one row; see `rolling_windows`.

        Raises:
            ValueError: the estimator of a task has guidance, with which a text has no likelihood.
        """
        answers: dict[int, float] = {}
        for task, places in _by_task(requests).items():
            estimator = self.estimators.of_text(task)
            texts = [self._windows(requests[i].args[0]) for i in places]
            scores = iter(self._scored([window for text in texts for window in text], estimator, False, disable_tqdm))
            for i, windows in zip(places, texts, strict=True):
                total = _sum_of(windows, [next(scores) for _ in windows])
                self.scores[place_of(requests[i])] = total
                answers[i] = total.loglikelihood
        return [answers[i] for i in range(len(requests))]

    def _windows(self, text: str) -> list[Pair]:
        return rolling_windows(self.tok_encode(text), self._prefix, self.max_length, self.rolling_context)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The generated answer to each context, cut at the first of the task's stop texts.

        Neither the order of the requests nor the other requests change an answer.

        Raises:
            ValueError: the family does not have the sampler, or an argument of the task is out of range.
        """
        groups: dict[tuple[Wanted, int], list[int]] = defaultdict(list)
        prompts = []
        for i, request in enumerate(requests):
            given: Any = request.args
            context, arguments = given
            asked = wanted(arguments)
            ids = encode_text(self._encoder, context).tolist() if context else self._prefix
            prompt, tokens = fit_to_row(ids, asked.tokens, self.max_length)
            prompts.append(prompt)
            groups[asked, tokens].append(i)
        answers: dict[int, str] = {}
        with tqdm(total=len(requests), desc="generated", disable=disable_tqdm or None) as bar:
            for (asked, tokens), places in groups.items():
                seeds = [seed_of(self.seed, prompts[i], requests[i].idx) for i in places]
                texts = self._written([prompts[i] for i in places], tokens, asked, seeds)
                answers |= dict(zip(places, map(asked.shortened, texts), strict=True))
                bar.update(len(places))
        return [answers[i] for i in range(len(requests))]

    def _written(self, prompts: list[tuple[int, ...]], tokens: int, asked: Wanted, seeds: list[int]) -> list[str]:
        chosen = {name: value for name, value in self.writing.items() if value is not None}
        if "steps" in chosen:
            chosen["steps"] = min(int(chosen["steps"]), tokens)
        settings = {"temperature": asked.temperature, "top_k": asked.top_k, "top_p": asked.top_p}
        return [text.text for text in self.model.generate(prompts, tokens, seed=seeds, **settings, **chosen)]

    def _scored(self, pairs: Sequence[Pair], estimator: Estimator, greedy: bool, disable_tqdm: bool) -> list[Score]:
        """The score of each pair. Equal pairs are scored once; the cache is read before and written after each part."""
        keys = {pair: self._key(pair, estimator, greedy) for pair in pairs} if self._cache else {}
        cached = self._cache.find(list(keys.values())) if self._cache else {}
        known = {pair: cached[key] for pair, key in keys.items() if key in cached}
        missing = sorted(dict.fromkeys(pair for pair in pairs if pair not in known), key=lambda pair: -pair.length)
        with tqdm(total=len(missing), desc=str(estimator.method), disable=disable_tqdm or None) as bar:
            size = self._pairs_at_a_time
            if estimator.method is Likelihood.NELBO:
                size = max(1, min(size, FORWARDS_AT_A_TIME // estimator.draws))
            for first in range(0, len(missing), size):
                part = missing[first : first + size]
                new = dict(zip(part, self._ask(part, estimator, greedy), strict=True))
                if self._cache:
                    self._cache.add({keys[pair]: score for pair, score in new.items()})
                known |= new
                bar.update(len(part))
        return [known[pair] for pair in pairs]

    def _ask(self, pairs: list[Pair], estimator: Estimator, greedy: bool) -> list[Score]:
        answers = self.model.loglikelihood(
            pairs,
            method=estimator.method,
            draws=estimator.draws,
            max_se=estimator.max_se,
            guidance=estimator.guidance,
            seed=self.seed,
            greedy=greedy,
        )
        return [Score(answer.loglikelihood, answer.se_mc, answer.is_greedy) for answer in answers]

    def _key(self, pair: Pair, estimator: Estimator, greedy: bool) -> str:
        return score_key(self.model.fingerprint, to_dict(estimator), self.seed, greedy, pair.prompt, pair.target)


register_model("mdm_jax")(HarnessModel)  # as a decorator it would hide the class's type from type checkers


def _by_task(requests: Sequence[Instance]) -> dict[str | None, list[int]]:
    """The places of each task's requests."""
    places: dict[str | None, list[int]] = defaultdict(list)
    for i, request in enumerate(requests):
        places[request.task_name].append(i)
    return places


def _read(name: str, value: Any) -> Any:
    """The value of an argument from the harness, which reads `1e3` as a number and `draws=many` as a text."""
    if name not in OPTIONS:
        raise unknown_key("", name, list(OPTIONS))
    kind = OPTIONS[name]
    try:
        read = kind(value)
    except (TypeError, ValueError, OverflowError):  # the last is that of int(inf)
        read = None
    same = kind is str or isinstance(value, str | kind) or read == value
    bound = {int: "a whole number", float: "a number"}.get(kind, "a text")
    require(read is not None and same, name, value, bound)
    return read


def _sum_of(windows: list[Pair], parts: list[Score]) -> Score:
    """The score of a text from its windows. Equal windows have equal draws, so that their errors add up."""
    copies, error = Counter(windows), dict(zip(windows, (part.se_mc for part in parts), strict=True))
    variance = sum((copies[window] * error[window]) ** 2 for window in copies)
    return Score(math.fsum(part.loglikelihood for part in parts), math.sqrt(variance))
