"""What a parametric fit refuses, and what it says."""

import numpy as np
import pandas as pd
import pytest
import synthetic_sweeps as sweeps

from analysis import fit_parametric
from analysis.surface.bootstrap import bootstrap_parametric
from analysis.surface.fit import fit_surface

BAD = [
    (2, np.nan, "losses: run 0 has nan"),
    (2, -2.0, "losses: run 0 has -2.0"),
    (0, np.inf, "n: run 0 has inf"),
    (1, 0.0, "d: run 0 has 0.0"),
]


@pytest.mark.parametrize(("which", "value", "message"), BAD)
def test_numbers_that_are_none_are_refused(which: int, value: float, message: str) -> None:
    n, d, loss = sweeps.scattered()
    (n, d, loss)[which][0] = value
    with pytest.raises(ValueError, match=message):
        fit_surface(n, d, loss)


def test_too_few_runs_sizes_or_families_are_refused() -> None:
    n, d, loss = sweeps.scattered()
    with pytest.raises(ValueError, match="5 runs"):
        fit_surface(n[:5], d[:5], loss[:5])
    with pytest.raises(ValueError, match="n: 1 different values"):
        fit_surface(np.full(40, 1e8), d, loss)
    with pytest.raises(ValueError, match="one length"):
        fit_surface(n, d[1:], loss)
    with pytest.raises(ValueError, match="space = 'cubic'"):
        fit_surface(n, d, loss, space="cubic")
    with pytest.raises(ValueError, match="delta = -1"):
        fit_surface(n, d, loss, delta=-1.0)
    both = sweeps.table(sweeps.both())
    with pytest.raises(ValueError, match="arm and mdm"):
        fit_parametric(both)
    with pytest.raises(ValueError, match="no usable run of gpt"):
        fit_parametric(both, family="gpt")
    negative = sweeps.table([row | {"loss": -1.0} for row in sweeps.rows()])
    with pytest.raises(ValueError, match="loss is not positive"):
        fit_parametric(negative)
    with pytest.raises(ValueError, match="lacks family, params_non_embedding, loss, tokens"):
        fit_parametric(pd.DataFrame({"N": n}))
    with pytest.raises(ValueError, match="backend = 'torch'"):
        bootstrap_parametric(fit_surface(n, d, loss), backend="torch")
    with pytest.raises(ValueError, match="n = 0"):
        bootstrap_parametric(fit_surface(n, d, loss), n=0)
