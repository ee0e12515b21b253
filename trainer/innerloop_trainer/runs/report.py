"""The page that a finished run ends with."""

from innerloop_learner.bundle import load_bundle
from innerloop_learner.manifest import Metric
from innerloop_trainer.bundle_evaluation import BundleFigure
from innerloop_trainer.data import EpisodeShape
from innerloop_trainer.report import QUICK, make_report, subject_of, write_report
from innerloop_trainer.runs.room import saving
from innerloop_trainer.runs.training import Training


def report_run(training: Training, tested: Metric, shape: EpisodeShape) -> None:
    """Report on a run's best parameters, measured by few tasks of the test split.

    Args:
        training: the finished run.
        tested: the figure that it was measured by.
        shape: shape of the test episodes.

    Raises:
        DataError: the data can't be read any more, or gives no such tasks.
        OSError: the page can't be written.
    """
    folder, source, config = training.folder, training.source, training.plan.config
    bundle = load_bundle(folder.bundle, training.device)
    figure = BundleFigure(tested, source, (), bundle.learner.default_steps, source.test, shape)
    page = make_report(subject_of(bundle, config.data, figure, config.seed), QUICK)
    with saving("the report", folder.path):
        write_report(folder.report, page)
