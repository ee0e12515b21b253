"""`python -m innerloop_server.healthcheck`: whether the server of this machine serves, as an exit code, for containers.

It speaks plaintext on INNERLOOP_PORT; for a server with TLS, use a probe that has the certificates.
"""

import os
import sys

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from innerloop_server.settings import ServerSettings

TIMEOUT_SECONDS = 3.0


def is_serving(target: str) -> bool:
    """Whether the server at `target` (HOST:PORT) answers, has a model to serve, and is not stopping."""
    # A proxy, which containers are often told of, leads anywhere but to this machine.
    with grpc.insecure_channel(target, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = HealthStub(channel).Check(HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        except grpc.RpcError:
            return False
    return bool(answer.status == HealthCheckResponse.SERVING)


def main() -> None:
    """Exit with 0 if the server serves, with 1 if not."""
    port = os.environ.get("INNERLOOP_PORT", ServerSettings.model_fields["port"].default)
    sys.exit(0 if is_serving(f"localhost:{port}") else 1)


if __name__ == "__main__":
    main()
