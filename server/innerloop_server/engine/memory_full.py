"""Recognises the errors by which PyTorch and ONNX Runtime say that there is no memory left."""

from innerloop_server.engine.interface import MemoryFullError

WORDS = (
    "can't allocate memory",  # PyTorch on a CPU
    "out of memory",  # PyTorch and ONNX Runtime on a GPU, "CUDA out of memory" and "cudaErrorMemoryAllocation: ..."
    "ALLOC_FAILED",  # cuBLAS and cuDNN
    "Failed to allocate memory",  # ONNX Runtime
    "bad_alloc",  # any C++
)
"""Words of their messages: they raise their general errors, which have no types or codes of their own for this."""


def is_memory_full(error: Exception) -> bool:
    """Whether a computation failed for want of memory, so that a smaller one may succeed."""
    return isinstance(error, MemoryFullError | MemoryError) or any(words in str(error) for words in WORDS)
