"""Tells several trackers of one run; one that fails is left out from then on, unless it finds no room on a disk."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from innerloop_trainer.config import ConfigError
from innerloop_trainer.recipes import Recipe
from innerloop_trainer.recipes.recipe import TABLES
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.log import Row
from innerloop_trainer.runs.room import no_room
from innerloop_trainer.tracking.tracker import Outcome, TrackedRun, Tracker, trackers


class Tracking:
    """All trackers of a run.

    Args:
        trackers: the trackers by name.
        tell: called with a notice for the user, once for each tracker that fails.

    Attributes:
        outcome: what trackers hear at the end of a run, which failed unless it is said otherwise.
    """

    outcome: Outcome

    def __init__(self, trackers: Mapping[str, Tracker], tell: Callable[[str], None]) -> None:
        self._trackers, self._tell = dict(trackers), tell
        self._unheard: dict[str, list[Row]] = {name: [] for name in trackers}
        self._told: set[str] = set()

    @contextmanager
    def run(self, folder: RunFolder, recipe: Recipe) -> "Iterator[Tracking]":
        """A context in which a run begins or goes on, and at whose end trackers hear of its `outcome`.

        Args:
            folder: folder of the run.
            recipe: its recipe, defaults filled in.
        """
        run = TrackedRun(folder.path.resolve().name, folder.path, _flat(recipe))
        self.outcome = Outcome("failed")
        self._each(lambda _, tracker: tracker.start(run))
        try:
            yield self
        finally:
            self._each(self._finish)

    def log(self, row: Row) -> None:
        """Tell of a validation; a tracker that finds no room for it hears of it again with the next one."""
        for name in self._trackers:
            self._unheard[name].append(row)
        self._each(self._log)

    def _log(self, name: str, tracker: Tracker) -> None:
        try:
            self._catch_up(name, tracker)
        except Exception as error:
            if not no_room(error):
                raise
            if name not in self._told:
                self._told.add(name)
                self._tell(f"the tracker {name} finds no room ({error}); it hears of this validation with the next one")

    def _catch_up(self, name: str, tracker: Tracker) -> None:
        while self._unheard[name]:
            tracker.log(self._unheard[name][0])
            del self._unheard[name][0]
        self._told.discard(name)

    def _finish(self, name: str, tracker: Tracker) -> None:
        try:
            self._catch_up(name, tracker)
        finally:  # else the run would seem to go on where the tracker shows it
            tracker.finish(self.outcome)

    def _each(self, act: Callable[[str, Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                act(name, tracker)
            except Exception as error:  # whatever it is, hours of training are worth more
                del self._trackers[name]
                self._tell(f"the tracker {name} failed and hears no more of this run: {type(error).__name__}: {error}")


NO_TRACKING = Tracking({}, lambda _: None)


def make_tracking(names: Sequence[str], tell: Callable[[str], None]) -> Tracking:
    """Make trackers by their names.

    Args:
        names: registered names.
        tell: see `Tracking`.

    Raises:
        UnknownNameError: there is no tracker of a name.
        ConfigError: the library of a tracker is not installed.
    """
    made = {}
    for name in names:
        kind = trackers[name]
        try:
            made[name] = kind()
        except ModuleNotFoundError as error:
            raise ConfigError(f'--tracker {name} needs {error.name}: pip install "innerloop[{name}]"') from error
    return Tracking(made, tell)


def _flat(recipe: Recipe) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in recipe.to_settings().items():
        flat |= {f"{name}.{key}": entry for key, entry in value.items()} if name in TABLES else {name: value}
    return flat
