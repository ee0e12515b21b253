"""A few seconds of hostile requests over all RPCs; `benchmarks/hostile/fuzz.py` sends 200,000."""

from bundles import IMAGE, write_models
from forks import ServerProcess
from hostile.fuzz import Inputs, adapting, fuzz

from innerloop import Client

NAMES = ["prototypes", "gradients", "regression"]


def test_no_request_crashes_the_server_or_is_answered_as_if_it_were_the_servers_fault(tmp_path):
    models = write_models(tmp_path / "models")
    settings = {"threads": 1, "lanes": 1, "admin": True, "downloads": True, "store": f"sqlite:{tmp_path / 'store'}"}
    with ServerProcess(models, **settings) as server:
        with Client(server.target) as client:
            found = fuzz(server, Inputs(0, NAMES), 1500, lambda: adapting(client, "prototypes", IMAGE))
        assert not found["faults"]
        assert found["resident_bytes"][-1] - found["resident_bytes"][0] < 200 * 2**20
        good = {"Adapt OK", "Predict OK", "UpdateAdaptation OK", "ListExamples OK"}
        bad = {"DownloadAdaptation FAILED_PRECONDITION", "DownloadAdaptation NOT_FOUND"}
        bad |= {"Adapt INVALID_ARGUMENT", "Check INVALID_ARGUMENT", "UpdateAdaptation INVALID_ARGUMENT"}
        assert good | bad <= found["statuses"].keys()
        assert "Traceback" not in server.log
