"""Peer: Ray Serve, requests one at a time or batched by vmap."""

import signal

import conv4
import ray
import torch
from ray import serve
from settings import Settings, read_settings
from starlette.requests import Request
from starlette.responses import Response

BATCH_TIMEOUT_SECONDS = 0.005


class OneByOne:
    """A replica that answers one request at a time."""

    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(settings.threads)
        self.answer = conv4.ADAPT[settings.adapt](conv4.load(settings.weights, settings.device))
        self.device = settings.device

    async def __call__(self, request: Request) -> Response:
        """Adapt and predict."""
        return Response(conv4.answer_one(self.answer, await request.body(), self.device))


class Batched:
    """A replica that computes the requests that came together at once."""

    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(settings.threads)
        self.answer = conv4.by_vmap(conv4.load(settings.weights, settings.device))
        self.device = settings.device
        self.together.set_max_batch_size(settings.batch)

    @serve.batch(batch_wait_timeout_s=BATCH_TIMEOUT_SECONDS)
    async def together(self, requests: list[bytes]) -> list[bytes]:
        """Adapt and predict a batch."""
        return conv4.answer_batch(self.answer, requests, self.device)

    async def __call__(self, request: Request) -> Response:
        """Adapt and predict."""
        return Response(await self.together(await request.body()))


def listen_on_loopback() -> None:
    """Keep a replica's own gRPC port off other interfaces, for which Ray 2.60 has no setting."""
    from ray.serve._private import replica

    add_port = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, address: add_port(server, address.replace("[::]", "127.0.0.1"))


def main() -> None:
    """Serve until the process ends."""
    settings = read_settings()
    gpus = 1 if settings.device == "cuda" else 0
    ray.init(
        num_cpus=settings.workers * settings.threads,
        num_gpus=gpus,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(settings.folder),
        runtime_env={"worker_process_setup_hook": listen_on_loopback},
    )
    serve.start(http_options={"host": "127.0.0.1", "port": settings.ports[0]})
    # Twice as many as are computed together, so that the next ones wait at the replica and not at the proxy.
    deployment = serve.deployment(Batched if settings.batch > 1 else OneByOne).options(
        num_replicas=settings.workers,
        max_ongoing_requests=2 * settings.batch,
        ray_actor_options={"num_cpus": settings.threads, "num_gpus": gpus / settings.workers},
    )
    serve.run(deployment.bind(settings))
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()


if __name__ == "__main__":
    main()
