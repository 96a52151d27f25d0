"""A trained model: logits with guidance, losses of texts, log-likelihoods of targets, and export."""

import functools
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Integer

from mdm_jax.data.tokenizer import Tokenizer
from mdm_jax.devices.sharding import row_shards
from mdm_jax.evaluate.draws import DRAWS
from mdm_jax.evaluate.likelihood.encoding import Part, encode_pairs
from mdm_jax.evaluate.likelihood.pairs import Options, PairScore, known_method, score
from mdm_jax.evaluate.likelihood.requests import Requests
from mdm_jax.evaluate.likelihood.start_token import with_start
from mdm_jax.evaluate.logits import checked_prompt_mask, checked_tokens, padded_logits
from mdm_jax.evaluate.stream import Progress, RowNats, stream_nats
from mdm_jax.evaluate.texts import TextLoss, text_loss
from mdm_jax.files.storage import Path
from mdm_jax.interop.hf.folder import write_hf
from mdm_jax.interop.hf.tokenizer import tokenizer_files
from mdm_jax.interop.model_file import ModelFile, Weights
from mdm_jax.interop.smdm.weights import write_smdm
from mdm_jax.model.transformer import Transformer
from mdm_jax.sample.options import SamplingOptions
from mdm_jax.sample.rows import FilledRow, Row, fill_rows
from mdm_jax.spec import Attention, Family, Likelihood, ModelSpec, RunSpec
from mdm_jax.spec.counting import count_parameters
from mdm_jax.spec.validation import build, require
from mdm_jax.trained.generation import (
    Generated,
    Request,
    as_generated,
    batches_of,
    infill_requests,
    prompt_requests,
    seeded_rows,
)
from mdm_jax.trained.sliding import Slide, slide
from mdm_jax.trained.tokenizer import tokenizer_beside, tokenizer_of
from mdm_jax.trained.weights import named_weights, weights_hash

MOST_GUIDANCE = 100


class Model:
    """A trained MDM or ARM on one device.

    Attributes:
        spec: the shape of the model.
        run: the run that trained it; None for a file.
        step: the training step of the run's checkpoint; None for a file.
        seq_len: tokens of a row that it was trained on.
        family: MDM or ARM.
        has_start: whether id V is a token that the model reads: MASK for an MDM, the start for an ARM trained here.
            SMDM's own ARM has none.
    """

    def __init__(
        self,
        path: Path,
        params: Transformer,
        spec: ModelSpec,
        seq_len: int,
        mesh: Mesh,
        run: RunSpec | None = None,
        step: int | None = None,
        has_start: bool = True,
    ) -> None:
        self.spec, self.seq_len, self.run, self.step, self.has_start = spec, seq_len, run, step, has_start
        self.family = Family.ARM if spec.attention is Attention.CAUSAL else Family.MDM
        self._path, self._params, self._mesh = path, params, mesh

    def __repr__(self) -> str:
        spec, count = self.spec, count_parameters(self.spec).non_embedding
        step = "" if self.run is None else f" at step {self.step} of {self.run.schedule.steps}"
        shape = f"{spec.n_layers} layers, d_model {spec.d_model}, {spec.n_heads} heads, ffn {spec.d_ffn}"
        parameters = f"{count / 1e6:.4g}M" if count >= 1e6 else f"{count / 1e3:.3g}k"
        size = f"{parameters} non-embedding parameters, vocabulary {spec.vocab_size}, rows of {self.seq_len} tokens"
        return f"<{self.family.value.upper()}: {shape}, {size}, from {self._path}{step}>"

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the run's prepared data. A file has `tokenizer.model` or `tokenizer.json` beside it.

        A file without either has the tokenizer of bytes if V is 257.

        Raises:
            ValueError: the tokenizer is absent or corrupt, or is not the one that the model was trained with.
        """
        if self.run is None:
            return tokenizer_beside(self._path, self.spec)
        return tokenizer_of(self.run, self._path)

    def logits(
        self,
        tokens_BL: Integer[np.ndarray, "B L"] | Int[Array, "B L"],
        guidance: float = 0.0,
        prompt_mask_BL: Bool[np.ndarray, "B L"] | Bool[Array, "B L"] | None = None,
    ) -> Float[Array, "B L V"]:
        """Logits, float32: position i predicts its own token in an MDM, and the next token, i + 1, in an ARM.

        With guidance w they are `u + (w + 1) (c - u)`, where c reads the tokens, and u the tokens with MASK in place
        of every prompt token (SMDM's unsupervised classifier-free guidance).

        Args:
            tokens_BL: ids in 0..V; V is MASK (MDM) or the start token (ARM).
            guidance: w; 0 is the model itself.
            prompt_mask_BL: True for tokens of the prompt; only guidance needs it.

        Raises:
            ValueError: the tokens are not a matrix of integers, or an id is out of range; or guidance is given for an
                ARM, or without a prompt mask of the tokens' shape.
        """
        tokens_BL = checked_tokens(tokens_BL, most=self.spec.vocab_size - (not self.has_start))
        plain_BLV = self._plain_logits(tokens_BL)
        if not guidance:
            return plain_BLV
        self._check_guidance(guidance)
        prompt_BL = checked_prompt_mask(prompt_mask_BL, tokens_BL.shape)
        hidden_BLV = self._plain_logits(np.where(prompt_BL, self.spec.vocab_size, tokens_BL))
        return hidden_BLV + (guidance + 1) * (plain_BLV - hidden_BLV)

    def _plain_logits(self, tokens_BL: np.ndarray) -> Array:
        with jax.set_mesh(self._mesh):
            return padded_logits(self._params, self.spec, tokens_BL, self.seq_len)

    def _check_guidance(self, guidance: float) -> None:
        fits = isinstance(guidance, int | float | np.floating) and abs(guidance) <= MOST_GUIDANCE
        require(fits, "guidance", guidance, f"a number from -{MOST_GUIDANCE} to {MOST_GUIDANCE}")
        bound = "0 for an ARM: it has no MASK to hide the prompt with"
        require(self.family is Family.MDM or guidance == 0, "guidance", guidance, bound)

    def nelbo(self, texts: list[str] | tuple[str, ...], draws: int = DRAWS) -> TextLoss:
        """The NELBO of the texts together, in nats; see `mdm_jax.evaluate.texts`.

        An ARM without a start token reads EOS in its place, as lm-evaluation-harness does for GPT-2.

        Args:
            texts: texts, of which at least one is not empty.
            draws: Monte Carlo draws of an MDM's bound over all rows, at least 2. An ARM needs one pass.

        Raises:
            ValueError: all texts are empty, `draws` is out of range, or the tokenizer is unusable (see `tokenizer`).
        """
        return self.text_loss(texts, draws=draws)

    def text_loss(
        self, texts: list[str] | tuple[str, ...], method: str = Likelihood.NELBO, draws: int = DRAWS
    ) -> TextLoss:
        """The loss of the texts together, in nats: `nelbo(texts)`, or the exact likelihood of another method.

        Args:
            texts: texts, of which at least one is not empty.
            method: `nelbo`, or `left_to_right` or `confidence`, which read each row once for each of its tokens. An ARM
                has only `left_to_right`, which is also its `nelbo` and takes one pass.
            draws: Monte Carlo draws of an MDM's `nelbo`.

        Raises:
            ValueError: as for `nelbo`, or the method is unknown or not one for texts.
        """
        known, seq_len = known_method(method), self.seq_len
        with jax.set_mesh(self._mesh):
            return text_loss(self.params, self.spec, self.tokenizer, texts, seq_len, draws, self._mesh, known)

    def loglikelihood(
        self,
        pairs: Sequence[tuple[Part, Part]],
        method: str = Likelihood.NELBO,
        *,
        draws: int = 128,
        max_se: float = 0.0,
        guidance: float = 0.0,
        seed: int = 0,
        greedy: bool = False,
    ) -> list[PairScore]:
        """The log-likelihood of each target given its prompt, in nats, in the order of the pairs.

        A score does not depend on the other pairs, and its draws depend only on the pair's ids and the seed.

        Args:
            pairs: `(prompt, target)`, each a text, or ids in 0..V-1. A prompt may be empty. Prompt and target are
                encoded by themselves, so that no token spans the cut.
            method: `nelbo` estimates a lower bound; a target with at most as many sets of tokens as draws gets its
                exact value. `any_order` is that value for up to 12 tokens, `left_to_right` and `confidence` are exact
                likelihoods. An ARM has only `left_to_right`, which is also its `nelbo`.
            draws: the most Monte Carlo draws of a pair, from 2; rounded up to a multiple of 8, at least 24.
            max_se: the standard error in nats at which a pair gets no more draws; 0 uses all draws.
            guidance: w of unsupervised classifier-free guidance (see `logits`). The score is no likelihood then.
            seed: chooses the draws, from 0.
            greedy: also tell whether greedy generation gives the target: an MDM reveals the most confident token first.

        Raises:
            ValueError: an argument is out of range, or a pair (named) has no target, is longer than the model's rows,
                or has unknown ids; or the family does not have the method; or a score is not finite.
        """
        options = Options(known_method(method), draws, max_se, seed, greedy)
        self._check_guidance(guidance)
        encoded = encode_pairs(pairs, self.spec.vocab_size, self.seq_len, lambda: self.tokenizer)
        w = float(guidance) if guidance else None
        with jax.set_mesh(self._mesh):
            return score(Requests(self.params, self.spec, encoded, self.seq_len, self._mesh, w), options)

    def generate(
        self,
        prompts: str | Sequence[Part],
        tokens: int | None = None,
        *,
        n: int = 1,
        seed: int | Sequence[int] = 0,
        stride: int | None = None,
        **options: Any,
    ) -> list[Generated]:
        """Texts that continue the prompts: `n` of each, one prompt after the other.

        A text depends on its prompt, the options and its own seed, and not on the other texts.

        Args:
            prompts: a text, or several of them, each a text or ids in 0..V-1. A prompt may be empty.
            tokens: new tokens of each text, at most; an EOS ends a text before. None fills the model's row.
            n: texts of each prompt.
            seed: the seed of the first text, and the next ones have the next seeds; or the seeds of all texts.
            stride: allows texts longer than a row: each next row has this many new tokens after the last ones of the
                text (see `mdm_jax.trained.sliding`).
            options: `sampler`, `steps`, `block`, `bound`, `temperature`, `top_k`, `top_p`, `guidance` and `cache`; see
                `mdm_jax.sample.options`.

        Raises:
            ValueError: a prompt (named) leaves no room in a row or has unknown ids, an option is unknown or out of
                range, or the family does not have it; or the tokenizer is unusable.
        """
        chosen = self.sampling_options(**options)
        given = [prompts] if isinstance(prompts, str) else prompts
        requests = prompt_requests(given, tokens, self.spec.vocab_size, self.seq_len, self.tokenizer, stride)
        return self._filled(requests, n, chosen, seed, self.tokenizer.eos_id, stride)

    def infill(
        self, texts: str | Sequence[Part], *, n: int = 1, seed: int | Sequence[int] = 0, **options: Any
    ) -> list[Generated]:
        """The texts with their holes filled: `n` of each, one text after the other. It needs an MDM.

        Args:
            texts: a text, or several of them. `[MASK]` is a hole of one token, and `[MASK:N]` of N tokens. A text may
                also be ids, in which V is a hole.
            n: results of each text.
            seed: see `generate`.
            options: see `generate`.

        Raises:
            ValueError: the model is an ARM, a text (named) has no hole or is longer than a row, or as for `generate`.
        """
        self.check_infill()
        chosen = self.sampling_options(**options)
        given = [texts] if isinstance(texts, str) else texts
        requests = infill_requests(given, self.spec.vocab_size, self.seq_len, self.tokenizer)
        return self._filled(requests, n, chosen, seed, None)

    def check_infill(self) -> None:
        """Refuses a model that cannot fill holes.

        Raises:
            ValueError: the model is an ARM.
        """
        require(self.family is Family.MDM, "infill: family", self.family.value, "mdm: an ARM reads only what is before")

    def sampling_options(self, **options: Any) -> SamplingOptions:
        """What `generate` would use, with the family's own sampler if none is named.

        Raises:
            ValueError: an option is unknown or out of range, or the family does not have it.
        """
        return build(SamplingOptions, options).of(self.family)

    def _filled(
        self,
        requests: Sequence[Request],
        n: int,
        options: SamplingOptions,
        seed: int | Sequence[int],
        eos_id: int | None,
        stride: int | None = None,
    ) -> list[Generated]:
        if not requests:
            return []
        rows = seeded_rows(requests, n, options, seed, self.spec.vocab_size)

        def fill(rows: Sequence[Row]) -> Sequence[FilledRow]:
            batches = batches_of(rows, self.seq_len, row_shards(self._mesh))
            with jax.set_mesh(self._mesh):
                return fill_rows(self.params, self.spec, rows, options, batches, eos_id)

        if stride is None:
            filled = fill(rows)
        else:
            filled = slide(fill, rows, Slide(self.seq_len, stride, self.spec.vocab_size, eos_id, options.block))
        each = [request for request in requests for _ in range(n)]
        return [as_generated(*one, eos_id, self.tokenizer) for one in zip(each, rows, filled, strict=True)]

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that decides a score: the weights, the model's shape, and the tokenizer."""
        about = (self.spec, self.seq_len, self.has_start, self.tokenizer.hash)
        return weights_hash(about, self._params)

    @functools.cached_property
    def params(self) -> Transformer:
        """The weights, on one device; an ARM that was trained without a start token has EOS in its place."""
        if self.has_start:
            return self._params
        return with_start(self._params, self.spec.vocab_size, self.tokenizer.eos_id)

    def row_nats(
        self,
        ids: Integer[np.ndarray, "tokens"],
        method: Likelihood = Likelihood.NELBO,
        draws: int = DRAWS,
        progress: Progress = lambda share: None,
    ) -> RowNats:
        """The nats of each row of a stream of tokens, in each draw; see `mdm_jax.evaluate.stream`.

        Args:
            ids: tokens in 0..V-1, at least one. They are cut into rows of `seq_len`.
            method: `nelbo`, or an exact likelihood that the family has.
            draws: Monte Carlo draws of an MDM's NELBO over all rows, at least 2.
            progress: called after each part of the work with the share that is done.

        Raises:
            ValueError: no token, too few draws, or a method that the family does not have.
        """
        with jax.set_mesh(self._mesh):
            return stream_nats(self.params, self.spec, ids, self.seq_len, self._mesh, method, draws, progress)

    def export(self, path: str | os.PathLike[str]) -> None:
        """Writes the model as a safetensors file under SMDM's names, which `load` reads to the same bits.

        Raises:
            ValueError: the path is a link, or the model is conditioned on time.
            OSError: no room or no access.
        """
        write_smdm(path, self._weights(), self.spec, self.seq_len, self.has_start)

    def export_hf(self, folder: str | os.PathLike[str], tokenizer: bool = True) -> None:
        """Writes the model as a Hugging Face folder, which `load` reads to the same bits.

        An ARM becomes a `LlamaForCausalLM`, and an MDM has LLaDA's layout; see `mdm_jax.interop.hf`.

        Args:
            folder: path of the folder, which must be absent or empty.
            tokenizer: whether to write the tokenizer too, and the id of EOS with it.

        Raises:
            ValueError: there is something at the path already, or the tokenizer is unusable (see `tokenizer`), or the
                model is conditioned on time.
            OSError: no room or no access.
        """
        files, eos_id = {}, None
        if tokenizer:
            eos_id = self.tokenizer.eos_id
            files = tokenizer_files(self.tokenizer, self.spec, self.has_start, self.seq_len)
        write_hf(folder, ModelFile(self.spec, self.seq_len, self.has_start, self._weights()), eos_id, files)

    def _weights(self) -> Weights:
        timed = self.spec.time_conditioning
        bound = "false: these formats have no place for it"
        require(not timed, f"export of {self._path}: time_conditioning", timed, bound)
        return named_weights(self._params)
