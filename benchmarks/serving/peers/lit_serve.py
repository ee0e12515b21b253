"""Peer: LitServe, requests one at a time or batched by vmap."""

from typing import Annotated, Any

import conv4
import litserve
import torch
from fastapi import Body, Response
from settings import Settings, read_settings

BATCH_TIMEOUT_SECONDS = 0.005


class OneByOne(litserve.LitAPI):
    """Each worker answers one request at a time."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        super().__init__(**options)
        self.settings = settings

    def setup(self, device: str) -> None:
        """Load the network in a worker process."""
        torch.set_num_threads(self.settings.threads)
        self.answer = conv4.ADAPT[self.settings.adapt](conv4.load(self.settings.weights, device))

    def decode_request(self, request: Annotated[bytes, Body()]) -> bytes:
        """The body as it came."""
        return request

    def predict(self, request: bytes) -> bytes:
        """Adapt and predict."""
        return conv4.answer_one(self.answer, request, self.device)

    def encode_response(self, output: bytes) -> Response:
        """Bytes, not JSON."""
        return Response(output, media_type="application/octet-stream")


class Batched(OneByOne):
    """Each worker computes the requests that came together at once."""

    def setup(self, device: str) -> None:
        """Load the network in a worker process."""
        torch.set_num_threads(self.settings.threads)
        self.answer = conv4.by_vmap(conv4.load(self.settings.weights, device))

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Left to `predict`, which stacks tensors."""
        return inputs

    def predict(self, request: list[bytes]) -> list[bytes]:
        """Adapt and predict a batch."""
        return conv4.answer_batch(self.answer, request, self.device)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """Already apart."""
        return output


def main() -> None:
    """Serve until the process ends."""
    settings = read_settings()
    if settings.batch > 1:
        api = Batched(settings, max_batch_size=settings.batch, batch_timeout=BATCH_TIMEOUT_SECONDS)
    else:
        api = OneByOne(settings)
    server = litserve.LitServer(api, accelerator=settings.device, devices=1, workers_per_device=settings.workers)
    server.run(host="127.0.0.1", port=settings.ports[0], generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
