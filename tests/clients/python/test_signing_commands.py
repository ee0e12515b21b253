"""`innerloop signing-key`, `sign`, `verify`, and `export --sign-key`."""

import subprocess
import sys

import pytest
from bundles import PROTOTYPES, write_bundle
from typer.testing import CliRunner

from innerloop_command.app import app


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture
def signed(tmp_path):
    """Two signed bundles and the key beside them."""
    bundles = [tmp_path / "birds", tmp_path / "words"]
    for path in bundles:
        write_bundle(path, PROTOTYPES)
    assert run("signing-key", tmp_path / "key").exit_code == 0
    result = run("sign", *bundles, "--key", tmp_path / "key")
    assert (result.exit_code, result.stdout.count("signed by")) == (0, 2)
    return bundles


def test_bundles_are_signed_and_verified_without_pytorch(signed, tmp_path):
    code = (
        "import sys; sys.modules.update(torch=None, safetensors=None)\n"
        "from innerloop_command import main; sys.argv[0] = 'innerloop'; main()"
    )
    command = [sys.executable, "-c", code, "verify", *signed, "--keys", tmp_path / "key.pub"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("signed and complete") == 2


def test_a_bundle_that_is_not_as_it_was_signed_is_named_and_the_others_are_verified(signed, tmp_path):
    (signed[0] / "parameters.safetensors").write_bytes(b"")
    result = run("verify", *signed, "--keys", tmp_path / "key.pub")
    assert result.exit_code == 1
    assert result.stdout == f"{signed[1]}: version {result.stdout.split()[2]} signed and complete\n"
    assert result.stderr.startswith(f"innerloop: {signed[0]}: parameters.safetensors is truncated or altered")


def test_a_key_is_not_overwritten_and_a_private_one_is_not_trusted(signed, tmp_path):
    result = run("signing-key", tmp_path / "key")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"innerloop: {tmp_path}/key exists and is not overwritten; choose another name\n"
    result = run("verify", signed[0], "--keys", tmp_path / "key")
    assert (result.exit_code, "holds a private key" in result.stderr) == (1, True)


def test_an_export_is_signed_if_asked_for_and_says_if_it_replaces_a_signed_bundle_by_an_unsigned_one(signed, tmp_path):
    keys = ("--keys", tmp_path / "key.pub")
    result = run("export", signed[0], "--out", tmp_path / "exported", "--sign-key", tmp_path / "key")
    assert result.exit_code == 0
    assert run("verify", tmp_path / "exported", *keys).exit_code == 0
    result = run("export", signed[0], "--out", tmp_path / "exported")
    assert "the bundle that was replaced was signed, and the new one is not" in result.stdout + result.stderr
    assert "is not signed" in run("verify", tmp_path / "exported", *keys).stderr
    result = run("export", signed[0], "--out", tmp_path / "exported", "--sign-key", tmp_path / "nothing")
    assert (result.exit_code, "can't be read" in result.stderr) == (2, True)
