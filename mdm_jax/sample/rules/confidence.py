"""Orders of confidence: each step reveals the tokens of which the model is surest, an equal share of the row.

| rule | surest is the greatest | known as |
|---|---|---|
| probability | probability of the drawn token | SMDM's greedy (arXiv 2410.18514), LLaDA's low confidence (2502.09992) |
| margin | lead of the likeliest token over the next one | top-k margin (Kim et al. 2025, arXiv 2502.06768) |
| entropy | certainty: the least entropy of the prediction | Dream (Ye et al. 2025, arXiv 2508.15487) |

The scores are those of the model itself, with guidance, before temperature, top-k and top-p. SMDM's code counts over
the whole batch; here each row is counted by itself.
"""

from collections.abc import Callable

from jaxtyping import Array, Key

from mdm_jax.sample.draw import Predicted
from mdm_jax.sample.rules.counts import tokens_now
from mdm_jax.sample.rules.order import lowest
from mdm_jax.sample.rules.rule import Change, Rule, View, only_reveal


def _by(doubt: Callable[[Predicted], Array]) -> Rule:
    def choose(view: View, _: Key[Array, ""]) -> Change:
        assert view.predicted is not None
        score_L = doubt(view.predicted)
        return only_reveal(lowest(score_L, view.masked_L, tokens_now(view), view.tolerance))

    return Rule(choose, sees=True)


PROBABILITY = _by(lambda predicted: predicted.nats)
MARGIN = _by(lambda predicted: -predicted.margin)
ENTROPY = _by(lambda predicted: predicted.entropy)
