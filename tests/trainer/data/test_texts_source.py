"""`texts:PATH`: what is read, how classes are split, and what is said of files that won't do."""

from pathlib import Path

import pytest
from encoders import write_texts

from innerloop_learner.encoders import unpack_texts
from innerloop_trainer.data import ClassExamples, DataError, DataSource, load_source


def texts_of(source: DataSource) -> dict[str, set[str]]:
    """All texts by class."""
    found: dict[str, set[str]] = {}

    def note(data):  # type: ignore[no-untyped-def]
        texts = iter(unpack_texts(data.examples))
        for name, count in zip(data.names, data.counts, strict=True):
            found[name] = {next(texts) for _ in range(count)}
        return data

    for split in (source.train, source.validation, source.test):
        assert isinstance(split, ClassExamples)
        split.with_inputs(note, source.input)
    return found


def test_texts_of_a_file_are_split_by_class(tmp_path: Path) -> None:
    source = load_source(f"texts:{write_texts(tmp_path / 'intents.csv')}?val=0.25&test=0.25")
    splits = [set(split.names) for split in (source.train, source.validation, source.test)]
    assert [len(split) for split in splits] == [6, 3, 3]
    assert len(set.union(*splits)) == 12
    assert (source.name, source.texts) == ("texts:intents", True)
    assert "144 texts of 12 classes, split by class with seed 0: 6 classes for training" in source.description


def test_files_of_a_folder_are_put_together(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text('category,text\ngreeting,"Hello, you"\nparting,Bye\n')
    (tmp_path / "train.csv").write_text('text,category\nHi,greeting\nÀ bientôt,parting\n"two\nlines",other\n')
    (tmp_path / "notes.txt").write_text("not data")
    assert texts_of(load_source(f"texts:{tmp_path}")) == {
        "greeting": {"Hello, you", "Hi"},
        "parting": {"Bye", "À bientôt"},
        "other": {"two\nlines"},
    }


def test_columns_can_be_named(tmp_path: Path) -> None:
    file = tmp_path / "tickets.csv"
    file.write_text("id,subject,team,label\n1,lost,cards,x\n2,slow,payments,x\n3,rate,exchange,x\n")
    found = texts_of(load_source(f"texts:{file}?text=subject&label=team"))
    assert found == {"cards": {"lost"}, "payments": {"slow"}, "exchange": {"rate"}}
    assert set(texts_of(load_source(f"texts:{file}?text=subject&test=0.1&label=id"))) == {"1", "2", "3"}


@pytest.mark.parametrize(
    ("content", "options", "why"),
    [
        ("text,label\n", "", "has no texts"),
        ("", "", "has no column 'text', only: none"),
        ("body,label\nHi,a\n", "", r"has no column 'text', only: body, label; name it with \?text="),
        ("text,kind,team\nHi,a,b\n", "", r"has no column 'label', only: text, kind, team; name it with \?label="),
        ("text,label\nHi,a\n", "?label=text", "are one column"),
        ("text,label\nHi,a\nBye\n", "", "line 3: has 1 columns, the header 2"),
        ("text,label\nHi,a\nBye,b\n", "", "2 classes leave none for training"),
        ("text,label\nHi\0,a\nBye,b\nYo,c\n", "", "U\\+0000|can't be read"),
        ("text,label\nHi,a\n", "?encoding=latin-1", "unknown option 'encoding'; it has: val, test, seed, text, label"),
    ],
)
def test_files_that_will_not_do_are_named(content: str, options: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "intents.csv"
    file.write_text(content)
    with pytest.raises(DataError, match=why):
        load_source(f"texts:{file}{options}")


def test_a_file_of_another_encoding_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "intents.csv"
    file.write_bytes("text,label\nÀ,a\n".encode("latin-1"))
    with pytest.raises(DataError, match="can't be read as CSV in UTF-8"):
        load_source(f"texts:{file}")
