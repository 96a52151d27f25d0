"""Parameters and FLOPs of a run under each convention, as exact integers.

N excludes embedding and head (SMDM: N = n_layers (4 d^2 + 3 d ffn + 2 d) + d). D is the number of training tokens.

| convention | C |
|---|---|
| `smdm_6nd` | 6 N D (SMDM; Kaplan et al. 2020, Eq. 2.2 without the head) |
| `with_head` | 6 (N + d V) D: the untied head is a matrix product too (Porian et al. 2024) |
| `exact` | matrix products only, 2 FLOPs a multiply-add, backward twice the forward (Narayanan et al. 2021, appendix) |
| `chinchilla` | Hoffmann et al. 2022, Appendix F, backward twice the forward |

`exact` counts attention over L^2 pairs (bidirectional) or L(L+1)/2 pairs (causal), and the head on the positions that
have a loss. It counts neither rematerialisation nor the optimiser. D3PM's reconstruction term is a second forward pass.
D3PM without zero masking needs one product with the head, which `exact` counts; the program computes more than one.
The weights of a time conditioning are used once in a row, and `exact` counts them so. They count at every token under
`smdm_6nd` and `with_head`, and not at all under `chinchilla`.

`chinchilla` counts for each sequence:

- the embedding as a matrix product (2 L V d), and the final logits at every position (2 L d V);
- in each layer the projections to q, k and v (6 L d^2), the attention logits (2 L^2 d), the softmax (3 H L^2), its
  product with the values (2 L^2 d), the output projection (2 L d^2), and the dense block.

It counts all L^2 pairs of causal attention too, so both families cost the same. One deviation: the paper's dense block
has two matrices (4 L d ffn), SwiGLU has three (6 L d ffn).
"""

from dataclasses import dataclass
from fractions import Fraction

from mdm_jax.spec import Attention, FlopConvention, ModelSpec, ObjectiveSpec, RunSpec


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of weights, without the columns that pad the head to the mesh."""

    non_embedding: int
    embedding: int
    head: int

    @property
    def total(self) -> int:
        return self.non_embedding + self.embedding + self.head


def count_parameters(model: ModelSpec) -> ParameterCount:
    """Weights of the trunk (N), of the embedding (V+1 rows; the last is MASK or start) and of the untied head.

    N includes the weights of the time conditioning.
    """
    d = model.d_model
    trunk = model.n_layers * (4 * d * d + 3 * d * model.d_ffn + 2 * d) + d
    return ParameterCount(trunk + _time_weights(model), (model.vocab_size + 1) * d, _head_columns(model) * d)


def _time_weights(model: ModelSpec) -> int:
    """Weights of the time conditioning. Each is used once in a row, not once in a token."""
    c = model.d_time
    return (2 * c * c + model.n_layers * 4 * c * model.d_model) * model.time_conditioning


def _head_columns(model: ModelSpec) -> int:
    return model.vocab_size + model.mask_column


def scored_positions(objective: ObjectiveSpec, batch: int, seq_len: int) -> int:
    """Positions of a batch that go through the head. Pairs of counts mask exactly B(L+1)/2 positions."""
    if objective.pairs_counts:
        return batch * (seq_len + 1) // 2
    return batch * seq_len


def evaluated_tokens(spec: RunSpec) -> int:
    """Tokens of the final evaluation: `evaluation.eval_tokens` rounded down to whole batches."""
    batch_tokens = spec.evaluation.batch * spec.data.seq_len
    return spec.evaluation.eval_tokens // batch_tokens * batch_tokens


def forward_flops(
    model: ModelSpec, objective: ObjectiveSpec, batch: int, seq_len: int, full_attention: bool = False
) -> int:
    """FLOPs of the matrix products of one forward pass over `[batch, seq_len]` tokens.

    All positions of all layers count, also those that a step leaves out of the last layer (`model/transformer.py`).

    Args:
        full_attention: count L^2 query-key pairs for the causal model too, as a kernel without block skipping computes.
    """
    trunk = trunk_flops(model, objective, batch, seq_len, full_attention)
    clean = batch * seq_len if objective.reconstructs else 0
    return trunk + 2 * model.d_model * _head_columns(model) * (scored_positions(objective, batch, seq_len) + clean)


def trunk_flops(
    model: ModelSpec, objective: ObjectiveSpec, batch: int, seq_len: int, full_attention: bool = False
) -> int:
    """`forward_flops` without the head."""
    d = model.d_model
    dense = model.n_layers * (4 * d * d + 3 * d * model.d_ffn) * batch * seq_len
    causal = model.attention is Attention.CAUSAL and not full_attention
    pairs = seq_len * (seq_len + 1) // 2 if causal else seq_len * seq_len
    attention = model.n_layers * 2 * pairs * d * batch
    passes = 1 + objective.reconstructs
    return 2 * passes * (dense + attention + _time_weights(model) * batch)


def chinchilla_forward_flops(
    n_layers: int, d_model: int, n_heads: int, d_ffn: int, vocab_size: int, seq_len: int
) -> int:
    """FLOPs of one forward pass over one sequence: Hoffmann et al. 2022, Appendix F, with SwiGLU's three matrices."""
    d, length = d_model, seq_len
    attention = 6 * length * d * d + 4 * length * length * d + 3 * n_heads * length * length + 2 * length * d * d
    dense = 2 * length * 3 * d * d_ffn
    embedding = logits = 2 * length * vocab_size * d
    return embedding + n_layers * (attention + dense) + logits


def step_flops(spec: RunSpec, convention: FlopConvention) -> int:
    """FLOPs of one optimiser step (forward and backward) under a convention.

    With a stochastic length the FLOPs are the expected ones, rounded. The step computes whole rows nevertheless.
    """
    whole, short = _step_flops(spec, convention, spec.data.seq_len), spec.objective.stochastic_length
    if not short:
        return whole
    share = Fraction(short)
    return round((1 - share) * whole + share * _mean_over_lengths(spec, convention))


def _mean_over_lengths(spec: RunSpec, convention: FlopConvention) -> Fraction:
    """The mean FLOPs of a step over rows of 1 .. seq_len tokens. FLOPs are a quadratic function of the length."""
    one, two, three = (_step_flops(spec, convention, n) for n in (1, 2, 3))
    curvature, last = three - 2 * two + one, spec.data.seq_len - 1
    # Newton's forward differences from length 1, and the means of i and of i (i - 1) / 2 over i = 0 .. last.
    return one + Fraction(last, 2) * (two - one) + Fraction(last * (last - 1), 6) * curvature


def _step_flops(spec: RunSpec, convention: FlopConvention, length: int) -> int:
    count, batch = count_parameters(spec.model), spec.optim.global_batch
    if convention is FlopConvention.SMDM_6ND:
        return 6 * count.non_embedding * batch * length
    if convention is FlopConvention.WITH_HEAD:
        return 6 * (count.non_embedding + count.head) * batch * length
    if convention is FlopConvention.CHINCHILLA:
        m = spec.model
        forward = chinchilla_forward_flops(m.n_layers, m.d_model, m.n_heads, m.d_ffn, m.vocab_size, length)
        return 3 * batch * forward
    return 3 * forward_flops(spec.model, spec.objective, batch, length)


def train_flops(spec: RunSpec, convention: FlopConvention) -> int:
    """FLOPs of the run's whole schedule under a convention; those of a parent's steps are included."""
    return spec.schedule.steps * step_flops(spec, convention)


def trained_flops(spec: RunSpec, convention: FlopConvention) -> int:
    """FLOPs of the run's own steps under a convention; those of a parent's steps are not included."""
    return (spec.schedule.steps - spec.cell.parent_steps) * step_flops(spec, convention)
