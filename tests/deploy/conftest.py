import urllib.request
from collections import defaultdict

import numpy as np
import pytest
from bundles import IMAGE, PROTOTYPES, write_calibrated, write_encoded, write_models
from encoders import image_encoder
from forks import ServerProcess
from prometheus_client.parser import text_string_to_metric_families

from innerloop import Client, ModelNotFoundError
from innerloop_learner.encoders import EncoderOptions, describe_encoder


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    folder = write_models(tmp_path_factory.mktemp("models"))
    write_encoded(folder / "encoded", "protonet", describe_encoder(image_encoder(), None, EncoderOptions()))
    write_calibrated(folder / "calibrated", PROTOTYPES)
    return folder


@pytest.fixture(scope="session")
def server(models, tmp_path_factory):
    store = f"sqlite:{tmp_path_factory.mktemp('store') / 'adaptations'}"
    with ServerProcess(models, threads=1, lanes=1, store=store) as server:
        yield server


@pytest.fixture(scope="session")
def series(server):
    """Values by metric and label of a server that has answered every kind of request."""
    images = np.random.default_rng(0).integers(0, 256, (3, *IMAGE), dtype=np.uint8)
    with Client(server.target) as client:
        for model in ("prototypes", "gradients", "encoded"):
            client.adapt(model, images, ["a", "b", "c"]).predict(images)
        client.adapt("calibrated", images, ["a", "b", "c"], diagnose=True).predict(images, coverage=0.9)
        with pytest.raises(ModelNotFoundError):
            client.adapt("absent", images, ["a", "b", "c"])
    with urllib.request.urlopen(server.metrics_url) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    found = defaultdict(lambda: defaultdict(set))
    for family in families:
        for sample in family.samples:
            found[sample.name]  # a metric without labels is one too
            for label, value in sample.labels.items():
                found[sample.name][label].add(value)
    return found
