"""Models on ResNet-12, ResNet-18 and the vision transformer are served as their learners answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bundles import IMAGES, small_settings, write_bundle
from cases import TINY
from wire import array, inputs, support

from innerloop.v1 import adaptation_pb2 as pb
from innerloop_learner import LearnerSpec, Query, Support
from innerloop_learner.bundle import load_bundle

SIZE = (1, 16, 16)
LABELS = [0, 1, 0, 2, 1]


def spec_of(method, backbone, norm):
    settings = {**TINY[backbone], "norm": norm}
    inputs = replace(IMAGES, shape=SIZE)
    of_method = small_settings(method)
    return LearnerSpec(method, inputs, max_ways=4, backbone=backbone, backbone_settings=settings, settings=of_method)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for backbone in TINY:
        write_bundle(folder / f"protonet-{backbone}", spec_of("protonet", backbone, "batch"))
    write_bundle(folder / "anil-resnet12", spec_of("anil", "resnet12", "task"))
    return folder


@pytest.fixture(scope="module")
def server(start_server, folder):
    with start_server(folder) as server:
        yield server


def pictures(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE), dtype=np.uint8)


def offline(bundle, images, queries):
    """Probabilities [Q, ways] of the bundle without a server."""

    def normalised(pixels):
        return (torch.from_numpy(pixels).float().unsqueeze(0) / 255 - 0.5) / 0.5

    every, width = torch.ones(1, len(LABELS), dtype=torch.bool), bundle.learner.padded_ways(3)
    given = Support(normalised(images), torch.tensor([LABELS]), every, torch.tensor([3]), width)
    asked = Query(normalised(queries), torch.ones(1, len(queries), dtype=torch.bool))
    with torch.no_grad():
        state = bundle.learner.adapt(bundle.params, given).state
        return bundle.learner.predict(bundle.params, state, asked)[0, :, :3].softmax(-1).numpy()


@pytest.mark.parametrize("model", [*(f"protonet-{backbone}" for backbone in TINY), "anil-resnet12"])
def test_the_server_answers_as_the_learner_does(client, folder, model):
    images, queries = pictures(len(LABELS), seed=3), pictures(4, seed=4)
    request = pb.AdaptPredictRequest(
        model=model, support=support(images, [f"class {label}" for label in LABELS]), query=inputs(queries)
    )
    predictions = client.adaptations.AdaptPredict(request).predictions
    expected = offline(load_bundle(folder / model), images, queries)
    np.testing.assert_allclose(array(predictions.probabilities), expected, atol=1e-5)
