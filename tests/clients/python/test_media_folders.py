"""The command line can't import the learner, which needs more than the base installs, so it has lists of its own."""

from innerloop_command.media_folders import IMAGES, JUNK, RECORDINGS
from innerloop_learner.media import audio_extensions, formats
from innerloop_trainer.data import file_tree


def test_the_shell_takes_for_media_what_trainers_and_servers_do():
    assert {extension for several in formats.EXTENSIONS.values() for extension in several} == IMAGES.extensions
    assert audio_extensions() == RECORDINGS.extensions
    assert file_tree.JUNK == JUNK
