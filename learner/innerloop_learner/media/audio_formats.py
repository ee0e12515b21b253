"""The formats of recordings that are read, by the names that libsndfile gives them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class AudioFormat:
    """One format of recordings.

    Attributes:
        extensions: ends of the names of its files, in lower case.
        beginnings: bytes that its files begin with.
        libsndfile: the names of its variants in libsndfile.
    """

    extensions: Sequence[str]
    beginnings: tuple[bytes, ...]
    libsndfile: Sequence[str]


AUDIO_FORMATS: Mapping[str, AudioFormat] = {
    "WAV": AudioFormat((".wav", ".wave"), (b"RIFF", b"RIFX", b"RF64"), ("WAV", "WAVEX", "RF64")),
    "FLAC": AudioFormat((".flac",), (b"fLaC",), ("FLAC",)),
    "OGG": AudioFormat((".ogg", ".oga", ".opus"), (b"OggS",), ("OGG",)),
}
"""Every format that is read. MP3 is left out: its decoder writes to the process's output when a file is damaged, and
takes half a file for a whole one."""

SPEECH_EXTRA = 'pip install "innerloop[speech]"'
"""How to make an installation read sound, in the words of messages."""


def audio_extensions() -> frozenset[str]:
    """The ends of the names of files that are read as sound, in lower case."""
    return frozenset(extension for each in AUDIO_FORMATS.values() for extension in each.extensions)


def audio_format_names() -> str:
    """The formats that are read, for messages."""
    return ", ".join(AUDIO_FORMATS)


@cache
def reads_audio() -> bool:
    """Whether this installation has the libraries that read sound."""
    try:
        import soundfile  # noqa: F401
        import soxr  # noqa: F401
    except (ImportError, OSError):  # OSError: there is no libsndfile for this machine
        return False
    return True
