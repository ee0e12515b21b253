"""Moving the adaptations of a model to another version of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

MigratePolicy = Literal["never", "on-use", "background"]
"""When adaptations move to another version by themselves: never, when they are used and their own version is gone, or
as soon as `stable` points to another version than the one that made them."""


class MigrationState(StrEnum):
    """The state of a migration."""

    NONE = "none"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Migration:
    """How far a migration is.

    Attributes:
        model: name of the model.
        version: label of the version that adaptations are moved to; empty if there was no migration.
        state: none since the server started, running, done, or stopped before its end.
        migrated: adaptations that were made again on that version.
        failed: adaptations that stay where they are, because making them again failed.
        without_recipe: adaptations that stay where they are, because their examples were not kept.
        examined: adaptations of the model that were looked at, with those that needed no migration.
        stored: adaptations that the store kept when it began, of all models.
        error: why it was stopped.
    """

    model: str
    version: str = ""
    state: MigrationState = MigrationState.NONE
    migrated: int = 0
    failed: int = 0
    without_recipe: int = 0
    examined: int = 0
    stored: int = 0
    error: str = ""
