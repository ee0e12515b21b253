"""Peer: a plain gRPC server, as a user writes it in an afternoon; a process for each port."""

import multiprocessing
from concurrent import futures

import conv4
import grpc
import torch
from settings import Settings, read_settings


def serve(settings: Settings, port: int) -> None:
    """Serve on one port until the process ends."""
    torch.set_num_threads(settings.threads)
    answer = conv4.ADAPT[settings.adapt](conv4.load(settings.weights, settings.device))

    def adapt_predict(request: bytes, _: grpc.ServicerContext) -> bytes:
        return conv4.answer_one(answer, request, settings.device)

    methods = {"AdaptPredict": grpc.unary_unary_rpc_method_handler(adapt_predict)}
    # One at a time: two at once would share the cores and, in Python, the interpreter lock.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("FewShot", methods),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def main() -> None:
    """Serve until the process ends."""
    settings = read_settings()
    spawn = multiprocessing.get_context("spawn")
    for port in settings.ports[1:]:
        spawn.Process(target=serve, args=(settings, port), daemon=True).start()
    serve(settings, settings.ports[0])


if __name__ == "__main__":
    main()
