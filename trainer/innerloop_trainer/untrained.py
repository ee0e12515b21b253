"""Bundles that nothing was trained for: a head that needs no training behind a frozen encoder."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from innerloop_learner.bundle import save_bundle
from innerloop_learner.encoders import FrozenEncoder
from innerloop_learner.learner import Learner, build_learner, methods
from innerloop_learner.manifest import BundleError, Manifest, Provenance, TaskLimits, read_manifest
from innerloop_learner.signatures import SigningKey
from innerloop_learner.spec import ClassBalance, InputSpec, LearnerSpec
from innerloop_learner.tasks import Params
from innerloop_trainer.config import ConfigError
from innerloop_trainer.outer_loop import SERVING_WAYS
from innerloop_trainer.runs.provenance import made_with

DEFAULT_HEAD = "lr-d2"
"""The usual head behind encoders of all kinds. Behind the catalogue's, it gains over class means, at one and at five
examples per class (points of accuracy, 600 paired episodes of training classes): photographs 0.6 ± 0.2 and 0.9 ± 0.2,
texts 0.2 ± 0.1 and 0.6 ± 0.1, speech 1.4 ± 0.4 and 0.5 ± 0.2."""

UNTRAINED_SETTINGS: Mapping[str, Mapping[str, Any]] = {"lr-d2": {"scale": 4.0}}
"""Settings of heads that training would have changed. With the usual scale of 10, `lr-d2` is far too sure: the
cross-entropy of its answers at one and at five examples per class is 1.02 and 0.79 on photographs, 0.53 and 0.24 on
texts, 0.14 and 0.07 on speech; with 4 it is 0.76 and 0.39, 0.33 and 0.11, 0.26 and 0.05 (training classes)."""

BACKBONE = "scaled"


@dataclass(frozen=True)
class HeadOptions:
    """Settings of the head that a user may choose.

    Attributes:
        method: registered name of the method.
        settings: settings of the method, by name.
        max_ways: most classes that a request may have.
        class_balance: how classes of the support set count, as in `LearnerSpec`.
    """

    method: str = DEFAULT_HEAD
    settings: Mapping[str, Any] = field(default_factory=dict)
    max_ways: int = SERVING_WAYS
    class_balance: ClassBalance = "equal"


def write_untrained(
    path: Path, name: str, encoder: FrozenEncoder, head: HeadOptions, key: SigningKey | None = None
) -> Manifest:
    """Write a bundle that can be served at once.

    Args:
        path: folder to write.
        name: suggested name of the model.
        encoder: the encoder in front.
        head: what answers from its features.
        key: key to sign the bundle with; None to leave it unsigned.

    Returns:
        the manifest as written; it says that nothing was meta-trained.

    Raises:
        ConfigError: the head is made of parameters that training must find, or the bundle there was meta-trained.
        UnknownNameError, SettingsError: there is no such method or setting.
        BundleError, OSError: the bundle can't be written.
    """
    _keep_trained(path)
    method = head.method
    spec = LearnerSpec(
        method=method,
        input=InputSpec(encoder.spec.output_shape),
        max_ways=head.max_ways,
        backbone=BACKBONE,
        settings={**UNTRAINED_SETTINGS.get(method, {}), **head.settings},
        class_balance=head.class_balance,
    )
    learner = build_learner(spec)
    params = _fixed_params(learner)
    if params is None:
        raise ConfigError(
            f"{method} answers by parameters that training must find; train it with `innerloop train {method}`, or "
            f"take a head that needs none: {', '.join(_heads(spec))}"
        )
    manifest = Manifest(
        name=name,
        learner=learner.spec,
        limits=TaskLimits(0, 0, 0, head.max_ways, learner.max_steps),
        provenance=Provenance(
            data="",
            seed=0,
            iterations=0,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=made_with(),
        ),
        encoder=encoder.spec,
    )
    return save_bundle(path, manifest, params, encoder.files, key)


def _keep_trained(path: Path) -> None:
    """Refuse to replace a bundle that training was spent on."""
    with suppress(BundleError):  # there is none, or none that can be read; what is there is judged when it is written
        if read_manifest(path).provenance.meta_trained:
            raise ConfigError(f"{path} holds a bundle that was meta-trained; choose another path, or move it away")


def _fixed_params(learner: Learner) -> Params | None:
    """Initial parameters, if they are always the same; None if some are drawn at random for training to start from."""
    first, second = (learner.init(torch.Generator().manual_seed(seed)) for seed in (0, 1))
    return first if all(torch.equal(first[name], second[name]) for name in first) else None


def _heads(spec: LearnerSpec) -> list[str]:
    """Names of the methods that need no training."""
    return [
        name
        for name in methods
        if "classification" in methods[name].info.tasks
        and _fixed_params(build_learner(LearnerSpec(name, spec.input, backbone=BACKBONE))) is not None
    ]
