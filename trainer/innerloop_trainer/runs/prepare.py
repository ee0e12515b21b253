"""Makes a run that is ready to train from its configuration."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from innerloop_learner.host_memory import keep_freed_memory
from innerloop_trainer.config import TrainingConfig, check_config
from innerloop_trainer.data import DataSource
from innerloop_trainer.encoders import EncoderFiles, load_encoded
from innerloop_trainer.plan import make_plan
from innerloop_trainer.runs.conduct import USUAL, Conduct
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.initial_parameters import Start, read_initial_parameters, start_from
from innerloop_trainer.runs.training import Training
from innerloop_trainer.seeds import generator_for
from innerloop_trainer.seen_classes import joined_records, leave_out_seen
from innerloop_trainer.teaching import NO_TEACHERS, Teachers


@dataclass(frozen=True)
class PreparedRun:
    """A run whose training can begin or go on.

    Attributes:
        training: the run.
        start: the given parameters that it starts from; None if it starts from random ones.
        left_out: names of test classes that are left out, because the given parameters or teachers were trained or
            validated on them.
    """

    training: Training
    start: Start | None
    left_out: Sequence[str]


def prepare(
    config: TrainingConfig,
    folder: RunFolder,
    device: torch.device,
    *,
    encoder: EncoderFiles | None = None,
    init: Path | None = None,
    teachers: Teachers = NO_TEACHERS,
    resume: bool = False,
    source: DataSource | None = None,
    conduct: Conduct = USUAL,
) -> PreparedRun:
    """Check the configuration, read the data, and make or restore the run. Nothing is written yet.

    Args:
        config: configuration of the run.
        folder: folder of the run.
        device: device to train on.
        encoder: encoder whose features to learn from, if there is one.
        init: bundle, run or safetensors file whose parameters to start from.
        teachers: models that teach, on that device.
        resume: whether to continue the run that the folder holds.
        source: the data, if it is loaded and encoded already.
        conduct: how the run is carried out.

    Raises:
        RunError, ConfigError, UnknownNameError, SettingsError, DataError, EncoderError, InitialParametersError,
            BundleError, SeenClassesError, TeacherError: the run can't be made as configured. Mistakes are found before
            the data is read where possible, since reading may take a while.
    """
    keep_freed_memory()
    if conduct.group.leads:  # alone sees the folder
        folder.check(resume=resume)
    config = replace(config, teacher=teachers.record)
    check_config(config)
    given = None if init is None else read_initial_parameters(init)
    if given is not None:
        config = replace(config, init=given.record)
    source = source or load_encoded(config.data, device, encoder)
    records = [bundle.manifest.provenance.classes for bundle in teachers.bundles]
    seen = joined_records(*records, {} if given is None else given.classes)
    test, left_out = leave_out_seen(source.test, "test", seen, config.ways)
    source = replace(source, test=test)
    plan = make_plan(config, source, device, teachers)
    initial = plan.init(generator_for(config.seed, "initialisation"))
    start = None if given is None else start_from(given, plan.learner, initial)
    training = Training(
        plan,
        folder,
        device,
        start.params if start else initial,
        resume=resume,
        conduct=conduct,
        seen=seen,
    )
    return PreparedRun(training, start, left_out)
