"""The machine of a run, its mesh, and how the program spends memory and time there. None of it is hashed."""

import dataclasses
from dataclasses import dataclass

from mdm_jax.spec.kinds import LayerLoop, Remat
from mdm_jax.spec.validation import require


@dataclass(frozen=True)
class HardwareSpec:
    """The machine and the mesh of a run. They change the result only by the rounding of sums in another order."""

    mesh_data: int = 1
    mesh_model: int = 1
    mesh_replica: int = 1
    """Copies of the weights, each on `mesh_data` x `mesh_model` devices: one or more for each TPU slice of the run."""
    microbatches: int = 1
    layers: LayerLoop = LayerLoop.SCAN
    remat: Remat = Remat.NONE
    """What the backward pass computes again, in the first `remat_layers` layers."""
    remat_layers: int = 0
    """How many of the first layers `remat` is for; 0 is all of them."""
    remat_rest: Remat = Remat.NONE
    """`remat` of the layers after the first `remat_layers`; it recomputes less than `remat`."""
    cpu_tuning: bool = True
    """Whether training on a CPU may split a large batch further, and then unroll the layers or recompute more, and may
    make several small steps in a call (see `train/cpu_tuning.py`)."""
    log_every: int = 10
    checkpoint_every: int = 1000

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            if f.type is int:
                value, least = getattr(self, f.name), int(f.name != "remat_layers")
                require(value >= least, f"hardware.{f.name}", value, f"at least {least}")
        self._check_remat()

    def _check_remat(self) -> None:
        some = self.remat is not Remat.NONE or not self.remat_layers
        bound = "0 with hardware.remat = none, which recomputes nothing"
        require(some, "hardware.remat_layers", self.remat_layers, bound)
        order = list(Remat)
        allowed = order[: order.index(self.remat)] if self.remat_layers else order[:1]
        names = f"{'one of ' if len(allowed) > 1 else ''}{', '.join(allowed)}"
        bound = f"{names} with hardware.remat = {self.remat.value}"
        if not self.remat_layers:
            bound = "none (the default) unless hardware.remat_layers says where the rest begins"
        require(self.remat_rest in allowed, "hardware.remat_rest", self.remat_rest.value, bound)

    def layer_policies(self, n_layers: int) -> tuple[tuple[Remat, int], ...]:
        """Each policy of recomputation with its number of consecutive layers, the first layers first.

        There are two if `remat_layers` is from 1 to `n_layers - 1`, and otherwise one.
        """
        first = self.remat_layers or n_layers
        rest = ((self.remat_rest, n_layers - first),) if first < n_layers else ()
        return ((self.remat, first), *rest)

    @property
    def row_shards(self) -> int:
        """The number of parts into which the devices split the rows of a batch."""
        return self.mesh_replica * self.mesh_data

    @property
    def devices(self) -> int:
        """The number of the run's devices."""
        return self.row_shards * self.mesh_model

    @property
    def mesh(self) -> str:
        """DATAxMODEL such as 16x1, or REPLICAxDATAxMODEL with several replicas."""
        replicas = f"{self.mesh_replica}x" if self.mesh_replica > 1 else ""
        return f"{replicas}{self.mesh_data}x{self.mesh_model}"
