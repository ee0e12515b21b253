"""The command line can't import the learner, which needs more than the base installs, so it has lists of its own."""

from innerloop_command.image_folders import EXTENSIONS, JUNK
from innerloop_learner.media import formats
from innerloop_trainer.data import file_tree


def test_the_shell_takes_for_images_what_trainers_and_servers_do():
    assert {extension for several in formats.EXTENSIONS.values() for extension in several} == EXTENSIONS
    assert file_tree.JUNK == JUNK
