"""API keys and the file of them."""

import hmac
import tomllib
from datetime import UTC, datetime, timedelta

import pytest
import structlog
import typer.testing

from innerloop_server.commands import app
from innerloop_server.domain.callers import OwnerLimits, Scope
from innerloop_server.identity import api_keys
from innerloop_server.identity.api_keys import ApiKeys
from innerloop_server.identity.followed_file import UnusableFileError
from innerloop_server.identity.invalid_credential import InvalidCredentialError
from innerloop_server.identity.new_key import append_entry, new_key

PREDICT = [Scope.PREDICT]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.toml"


def write(file, *entries):
    """Replace a file as a deployment does, at once."""
    scratch = file.with_suffix(".writing")
    scratch.write_text("\n".join(entries))
    scratch.replace(file)


def look_twice(keys):
    keys.look()
    keys.look()


def test_a_key_stands_for_its_owner_with_the_scopes_and_limits_of_its_entry(file):
    made = new_key("acme", PREDICT)
    write(file, made.entry, "limits = { requests_per_second = 2.5, waiting = 3, adaptations = 4 }")
    caller = ApiKeys(file).caller(made.key)
    assert (caller.owner, caller.scopes) == ("api-key:acme", {Scope.PREDICT})
    assert caller.limits == OwnerLimits(requests_per_second=2.5, waiting=3, adaptations=4)


def test_keys_of_one_owner_are_one_owner_and_of_others_are_others(file):
    made = [new_key(owner, PREDICT) for owner in ("acme", "acme", "other")]
    write(file, *(each.entry for each in made))
    first, second, other = (ApiKeys(file).caller(each.key).owner for each in made)
    assert first == second != other


def test_nothing_but_the_whole_key_is_valid(file):
    made, other = new_key("acme", PREDICT), new_key("acme", PREDICT)
    write(file, made.entry)
    keys = ApiKeys(file)
    assert keys.caller(made.key)
    for wrong in ("", made.key[:-1], f"{made.key}A", f"{made.key}\n", made.key.upper(), made.key[:13] + other.key[13:]):
        with pytest.raises(InvalidCredentialError):
            keys.caller(wrong)


def test_a_key_expires(file):
    now = datetime.now(UTC)
    valid, expired = (new_key("acme", PREDICT, now + timedelta(seconds=seconds)) for seconds in (60, -1))
    write(file, valid.entry, expired.entry)
    keys = ApiKeys(file)
    assert keys.caller(valid.key)
    with pytest.raises(InvalidCredentialError, match="expired"):
        keys.caller(expired.key)


def test_every_key_is_compared_in_constant_time_one_that_is_not_there_too(file, monkeypatch):
    compared = []

    def compare(one, other):
        compared.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(api_keys, "compare_digest", compare)
    made, unknown = new_key("acme", PREDICT), new_key("acme", PREDICT)
    write(file, made.entry)
    keys = ApiKeys(file)
    keys.caller(made.key)
    for wrong in (made.key[:-1] + ("A" if made.key[-1] != "A" else "B"), unknown.key, "ilk_"):
        with pytest.raises(InvalidCredentialError):
            keys.caller(wrong)
    assert compared == [(32, 32)] * 4


def test_an_entry_holds_neither_the_key_nor_a_part_of_it():
    made = new_key("acme", PREDICT)
    secret = made.key[13:]
    assert not any(secret[start : start + 8] in made.entry for start in range(len(secret) - 7))


def test_keys_are_rotated_and_revoked_while_the_server_runs(file):
    old, new = new_key("acme", PREDICT), new_key("acme", PREDICT)
    write(file, old.entry)
    keys = ApiKeys(file)
    write(file, old.entry, new.entry)
    look_twice(keys)
    assert keys.caller(old.key).owner == keys.caller(new.key).owner
    write(file, new.entry)
    look_twice(keys)
    assert keys.caller(new.key)
    with pytest.raises(InvalidCredentialError):
        keys.caller(old.key)


def test_a_file_that_is_broken_or_gone_changes_nothing_and_is_logged(file):
    made = new_key("acme", PREDICT)
    write(file, made.entry)
    keys = ApiKeys(file)
    for break_it in (lambda: write(file, "[keys"), file.unlink):
        break_it()
        with structlog.testing.capture_logs() as logs:
            look_twice(keys)
        assert [line["log_level"] for line in logs] == ["error"]
        assert keys.caller(made.key)
    write(file)
    look_twice(keys)
    with pytest.raises(InvalidCredentialError):
        keys.caller(made.key)


def test_a_file_that_is_being_written_is_not_read_half(file):
    made = new_key("acme", PREDICT)
    write(file, made.entry)
    keys = ApiKeys(file)
    file.write_text("")  # as an editor leaves it for a moment
    keys.look()
    file.write_text(made.entry + "\n")
    look_twice(keys)
    assert keys.caller(made.key)


SHA = f'sha256 = "{"0" * 64}"'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[keys", "is not valid TOML"),
        (f"a = {'[' * 10_000}", "is not valid TOML"),
        ("a = 1", r"something else than tables \[keys.ID\]"),
        ("keys = 1", r"something else than tables \[keys.ID\]"),
        ("keys.0a0a0a0a = 1", r"something else than tables \[keys.ID\]"),
        ("[keys.ilk_SECRET]", "8 digits"),
        (f'[keys.0a0a0a0a]\nowner = "a"\n{SHA}\nscopes = ["all"]', "keys.0a0a0a0a.scopes.0: .*'predict'"),
        (f'[keys.0a0a0a0a]\nowner = "a"\n{SHA}', "keys.0a0a0a0a.scopes: Field required"),
        (f'[keys.0a0a0a0a]\nowner = "a b"\n{SHA}\nscopes = []', "keys.0a0a0a0a.owner: "),
        ('[keys.0a0a0a0a]\nowner = "a"\nsha256 = "SECRET"\nscopes = []', "keys.0a0a0a0a.sha256: "),
        (f'[keys.0a0a0a0a]\nowner = "a"\n{SHA}\nscopes = []\nexpires = 2026-01-01T00:00:00', "expires: .*timezone"),
        (f'[keys.0a0a0a0a]\nowner = "a"\n{SHA}\nscopes = []\nexpires = "SECRET"', "expires: "),
        (f'[keys.0a0a0a0a]\nowner = "a"\n{SHA}\nscopes = []\nlimits.waiting = 0', "limits.waiting: "),
        (f'[keys.0a0a0a0a]\nowner = "a"\n{SHA}\nscopes = []\nkey = "SECRET"', "key: "),
    ],
)
def test_what_is_wrong_with_a_file_is_said_without_quoting_it(file, content, words):
    file.write_text(content)
    with pytest.raises(UnusableFileError, match=words) as refused:
        ApiKeys(file)
    assert "SECRET" not in str(refused.value)


def test_an_entry_is_added_to_a_file_and_all_else_stays(file):
    first, second = new_key("acme", PREDICT), new_key("acme", PREDICT)
    append_entry(file, first.entry)
    before = "# ours\n" + file.read_text().rstrip("\n")
    file.write_text(before)
    append_entry(file, second.entry)
    assert file.read_text().startswith(before)
    assert ApiKeys(file).caller(first.key).owner == ApiKeys(file).caller(second.key).owner


def test_nothing_is_added_to_a_file_that_is_something_else(file):
    file.write_text("# a table of something else\n[other]")
    with pytest.raises(UnusableFileError, match="nothing was added"):
        append_entry(file, new_key("acme", PREDICT).entry)
    assert file.read_text() == "# a table of something else\n[other]"


def run(*arguments):
    return typer.testing.CliRunner().invoke(app, ["key", *map(str, arguments)])


def test_the_command_prints_a_key_once_and_the_entry_to_put_into_the_file(file):
    key, entry = run("acme", "--scopes", "predict,adapt,admin", "--days", 30).stdout.split("\n\n")
    file.write_text(entry)
    caller = ApiKeys(file).caller(key)
    assert (caller.owner, caller.scopes) == ("api-key:acme", set(Scope))
    (written,) = tomllib.loads(entry)["keys"].values()
    assert timedelta(days=29) < written["expires"] - datetime.now(UTC) <= timedelta(days=30)


def test_the_command_adds_the_entry_to_a_file_and_prints_the_key_alone(file):
    keys = [run("acme", "--file", file).stdout.removesuffix("\n") for _ in range(2)]
    assert {ApiKeys(file).caller(key).owner for key in keys} == {"api-key:acme"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a b"], "letters, digits"),
        (['"'], "letters, digits"),
        (["acme", "--scopes", "all"], "predict, adapt"),
        (["acme", "--days", 0], "days"),
        (["acme", "--days", 10**9], "days"),
        (["acme", "--file", "/nowhere/keys.toml"], "No such file"),
    ],
)
def test_the_command_says_what_is_wrong_and_makes_no_key(arguments, words):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in " ".join(result.stderr.replace("│", "").split())
