"""Meta-training on recordings without an encoder of one's own: spectrograms stand in front of the learner."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from runs import CPU, SMALL
from shell import innerloop, mistake

from innerloop_learner.bundle import load_bundle
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.encoders import load_encoded
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.prepare import prepare

RATE = 4_000
QUICK = [
    *("--ways", 2, "--queries", 2, "--iterations", 4, "--meta-batch", 2, "--train-ways", 2, "--device", "cpu"),
    *("--validate-every", 2, "--validation-episodes", 2, "--test-episodes", 10, "--backbone-set", "width=4"),
]


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Eight classes, which differ in pitch, by four speakers."""
    random = np.random.default_rng(0)
    for number in range(8):
        folder = tmp_path / "tones" / f"tone{number}"
        folder.mkdir(parents=True)
        for take in range(12):
            hertz = (200 + 150 * number) * random.uniform(0.95, 1.05)
            tone = 0.3 * np.sin(2 * np.pi * hertz * np.arange(RATE // 4) / RATE) + random.normal(0, 0.01, RATE // 4)
            soundfile.write(folder / f"{'abcd'[take % 4]}_{take}.wav", tone, RATE, subtype="PCM_16")
    return f"audio:{tmp_path / 'tones'}?rate={RATE}&seconds=0.2&speakers=prefix&val=0.25&test=0.25"


def test_a_run_without_encoder_learns_from_spectrograms_and_leaves_a_bundle_that_computes_them(
    data: str, tmp_path: Path
) -> None:
    answer = innerloop("train", "protonet", "--data", data, *QUICK, "--out", tmp_path / "run")
    assert answer.status == 0, answer
    bundle = load_bundle(tmp_path / "run" / "bundle")
    encoder = bundle.manifest.encoder
    assert encoder is not None
    assert (encoder.input, encoder.rate, encoder.shape) == ("audio", RATE, (800,))
    assert (bundle.learner.spec.backbone, bundle.learner.spec.input.shape) == ("conv4", encoder.feature_shape)
    assert encoder.feature_shape == (1, 40, 18)
    test = bundle.manifest.metrics[-1]
    evaluated = innerloop("evaluate", tmp_path / "run", "--data", data, "--queries", 2, "--episodes", 10)
    assert f"accuracy {test.value:.2%} ± {test.confidence_interval:.2%}" in evaluated.output
    assert f"audio, 800 samples at {RATE} Hz" in innerloop("inspect", tmp_path / "run").output


def test_a_resumed_run_is_to_the_bit_what_an_uninterrupted_one_is(data: str, tmp_path: Path) -> None:
    source = load_encoded(data, CPU, None)
    config = TrainingConfig("protonet", data, ways=2, train_ways=2, backbone_settings={"width": 4}, **SMALL)
    ends = []
    for name, stop in (("whole", None), ("stopped", 7)):
        for resume in (False,) if stop is None else (False, True):
            run = prepare(config, RunFolder(tmp_path / name), CPU, source=source, resume=resume).training
            run.run(lambda _: None, lambda run=run, stop=None if resume else stop: run.progress.iteration == stop)
        ends.append(load_bundle(RunFolder(tmp_path / name).bundle))
    assert ends[0].manifest.encoder == ends[1].manifest.encoder
    assert all(torch.equal(value, ends[1].params[name]) for name, value in ends[0].params.items())


def test_recordings_that_are_too_short_for_a_spectrogram_are_refused(data: str, tmp_path: Path) -> None:
    command = ["train", "protonet", "--data", data.replace("seconds=0.2", "seconds=0.02"), *QUICK]
    assert "recordings of 80 samples at 4,000 Hz are too short" in mistake(*command, "--out", tmp_path / "run")
