"""Encodes a data source by a frozen encoder; features are computed once and kept on disk."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.encoders import EncoderSpec, FrozenEncoder, pack_texts
from innerloop_learner.spec import InputSpec
from innerloop_trainer.data.cache import cached
from innerloop_trainer.data.class_examples import ClassExamples
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.source import DataError, DataSource, TaskSampler
from innerloop_trainer.progress import progress_of

AT_ONCE = 256


def encoded(source: DataSource, encoder: FrozenEncoder) -> DataSource:
    """Replace the inputs of a source by an encoder's features.

    Raises:
        DataError: the encoder does not take this kind of inputs.
        EncoderError: the encoder does not take images of this shape.
    """
    _check_form(source, encoder.spec)
    spec = InputSpec(shape=encoder.spec.output_shape)

    def encode(split: TaskSampler) -> TaskSampler:
        if not isinstance(split, ClassExamples):
            raise DataError(
                f"{source.name} makes up its examples, so that they can't be encoded; train without encoder"
            )
        return split.with_inputs(lambda data: _features(data, encoder, source.name), spec)

    return replace(
        source,
        description=f"{source.description}; as {_described(encoder.spec)}",
        input=spec,
        train=encode(source.train),
        validation=encode(source.validation),
        test=encode(source.test),
        texts=False,
        rate=0,
        encoder=encoder,
    )


def _described(spec: EncoderSpec) -> str:
    """The features, and the encoder's name where it is known."""
    encoder = spec.origin.name if spec.origin and spec.origin.name else "a frozen encoder"
    return f"{'x'.join(map(str, spec.output_shape))} features of {encoder}"


def _check_form(source: DataSource, spec: EncoderSpec) -> None:
    taken = spec.input
    images = source.input.dtype == "uint8" and len(source.input.shape) == 3
    form = "texts" if source.texts else "audio" if source.rate else "images" if images else "numbers"
    if form == "texts" and taken == "images":
        raise DataError(f"{source.name} has texts, whose encoder needs a tokenizer; name its file with --tokenizer")
    if form != taken:
        raise DataError(f"this encoder takes {taken}, {source.name} has {form}")
    if spec.rate != source.rate:
        raise DataError(f"this encoder takes audio at {spec.rate:,} Hz; read {source.name} with ?rate={spec.rate}")


def _features(data: ExampleSet, encoder: FrozenEncoder, title: str) -> ExampleSet:
    if not data.names:
        return replace(data, examples=np.zeros((0, *encoder.spec.output_shape), np.float32))

    def build() -> ExampleSet:
        parts = []
        with progress_of(f"Encoding {title}", len(data.examples), "examples") as advance:
            for start in range(0, len(data.examples), AT_ONCE):
                parts.append(encoder.encode(_raw(data.examples[start : start + AT_ONCE])))
                advance(len(parts[-1]))
        return replace(data, examples=np.concatenate(parts))

    features = cached("features", {"encoder": encoder.digest, "data": _digest(data)}, build)
    return replace(data, examples=features.examples)


def _raw(examples: NDArray[Any]) -> NDArray[Any]:
    """Inputs in the form that an encoder takes, in which texts are packed."""
    return pack_texts(examples.tolist()) if examples.dtype == object else examples


def _digest(data: ExampleSet) -> str:
    examples = data.examples
    described = [data.names, data.counts.tolist(), str(examples.dtype), examples.shape]
    digest = hashlib.sha256(json.dumps(described).encode())
    for example in (example for part in data.in_parts() for example in part):
        digest.update(hashlib.sha256(example.encode() if isinstance(example, str) else example.tobytes()).digest())
    return digest.hexdigest()
