"""A window of training steps in jax's profiler: a trace of the host's and the devices' work, for a person to look at.

The trace changes no result. So a trace that cannot be written does not end the run: the run says so and goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax

from mdm_jax.files.storage import Path, as_path

HOW_TO_OPEN = (
    "open its .trace.json.gz at https://ui.perfetto.dev, or run `tensorboard --logdir` on it (pip install xprof)"
)


@dataclass
class Profiler:
    """Traces the steps of the window that this process trains.

    Attributes:
        steps: the window, counted as in the metrics: the first step is 1. An empty window traces nothing.
        folder: the folder of the trace.
        say: prints one line for the user.
    """

    steps: range = range(0)
    folder: Path = field(default_factory=lambda: as_path("profile"))
    say: Callable[[str], None] = lambda line: None
    _since: int = 0
    """The first traced step while a trace is being taken, else 0."""

    def announce(self, first: int) -> None:
        """Says so if a run that goes on after step `first` has no step of the window left."""
        if self.steps and first >= self.steps[-1]:
            self.say(f"no profile: the run goes on after step {first}, and the window ends at step {self.steps[-1]}")

    def begins_at(self, step: int) -> bool:
        """Whether `before` begins the trace at this step."""
        return step in self.steps and not self._since

    def ends_at(self, step: int) -> bool:
        """Whether `after` ends the trace at this step."""
        return bool(self._since) and step == self.steps[-1]

    def before(self, step: int) -> None:
        """Begins the trace, if the step is in the window and no trace is being taken."""
        if self.begins_at(step):
            self._since = step
            self._tried(lambda: jax.profiler.start_trace(str(self.folder)))

    def after(self, step: int) -> None:
        """Ends the trace after the window's last step, whose results must be ready, and says where it is."""
        if self.ends_at(step):
            self._end(step)

    def close(self) -> None:
        """Ends a trace that is being taken, because the run ends inside the window."""
        if self._since:
            self._end(self.steps[-1])

    def _end(self, step: int) -> None:
        first, self._since = self._since, 0
        if self._tried(jax.profiler.stop_trace):
            self.say(f"profile from step {first} to at most {step} written to {self.folder}: {HOW_TO_OPEN}")

    def _tried(self, call: Callable[[], object]) -> bool:
        """Whether the call to the profiler succeeded. If not, its reason is printed, and no trace is taken."""
        try:
            call()
        except (OSError, RuntimeError, ValueError) as error:
            self._since, self.steps = 0, range(0)
            self.say(f"no profile: {str(error).partition(chr(10))[0]}; the run goes on")
            return False
        return True
