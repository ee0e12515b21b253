"""Loads data for an encoder, and encodes it."""

from collections.abc import Mapping

import torch

from innerloop_learner.encoders import EncoderSpec, FrozenEncoder, open_encoder
from innerloop_learner.encoders.session import Computing
from innerloop_trainer.data import DataSource, load_source
from innerloop_trainer.data.encoded import encoded
from innerloop_trainer.encoders.files import EncoderFiles, open_files
from innerloop_trainer.encoders.spectrogram import spectrogram_encoder


def load_encoded(data: str, device: torch.device, files: EncoderFiles | None) -> DataSource:
    """Load a data source, and encode its examples if there is an encoder.

    Recordings without one become spectrograms, of which backbones of images make features. Where the encoder takes
    inputs of one shape, the data is brought to it, unless the user asked for another.

    Raises:
        DataError, EncoderError: the data or the encoder can't be used, or not together.
    """
    if files is None:
        source = load_source(data, device)
        return encoded(source, _spectrograms(source, computing_on(device))) if source.rate else source
    if files.options.shape is not None or files.tokenizer is not None:
        return load_for_encoder(data, device, open_files(files, computing_on(device)))
    source = load_source(data, device)
    return encoded(source, open_files(files, computing_on(device), source.input.shape))


def _spectrograms(source: DataSource, computing: Computing) -> FrozenEncoder:
    (samples,) = source.input.shape
    return spectrogram_encoder(source.rate, samples, computing)


def load_for_encoder(data: str, device: torch.device, encoder: FrozenEncoder) -> DataSource:
    """Load a data source in the shape that an encoder takes, and encode its examples.

    Raises:
        DataError, EncoderError: the data can't be used, or not by this encoder.
    """
    return encoded(load_source(data, device, encoder.spec), encoder)


def open_bundled(spec: EncoderSpec, files: Mapping[str, bytes], device: torch.device) -> FrozenEncoder:
    """Open the encoder of a bundle. Raises EncoderError if it can't be used."""
    return open_encoder(spec, files, computing_on(device))


def computing_on(device: torch.device) -> Computing:
    """The hardware that encoders compute on when learners compute on `device`."""
    return Computing(torch.get_num_threads(), cuda=device.type == "cuda")
