"""`texts:PATH`: what is read, how classes are split, and what is said of files that won't do."""

import tracemalloc
from pathlib import Path

import pytest
from encoders import write_texts

from innerloop_learner.encoders import MAX_TEXT_BYTES
from innerloop_trainer.data import ClassExamples, DataError, DataSource, load_source


def texts_of(source: DataSource) -> dict[str, set[str]]:
    """All texts by class."""
    found: dict[str, set[str]] = {}

    def note(data):  # type: ignore[no-untyped-def]
        texts = iter(data.examples)
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
        ("text,label\nHi,a\nBye\n", "", "line 3 has 1 columns, the header 2.*skip_broken=true"),
        ("text,label\nHi\0,a\nBye,b\nYo,c\n", "", "U\\+0000|can't be read"),
        (
            "text,label\nHi,a\n",
            "?encoding=latin-1",
            "unknown option 'encoding'; it has: .* text, label, domains",
        ),
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


ROWS = [(f"question {number} about {intent}", f"intent {intent}") for intent in range(6) for number in range(3)]


def table(separator: str = ",", header: str = "text,label", end: str = "\n") -> str:
    lines = [header.replace(",", separator), *(f"{text}{separator}{label}" for text, label in ROWS)]
    return end.join(lines) + end


@pytest.mark.parametrize(
    "content",
    [
        table().encode() + b"\n",
        table().replace("intent 3\n", "intent 3\n\n , \n", 1).encode(),
        b"\n" + table().encode(),
        table(end="\r\n").encode("utf-8-sig"),
        table(";").encode(),
        b"sep=;\r\n" + table(";").encode(),
        table("\t").encode(),
        table("\t").encode("utf-16"),
        table("\t").encode("utf-16-be").join([b"\xfe\xff", b""]),
        table(header=" Text ,LABEL").encode(),
        table(header="category,text").replace("category,text", "text,category").encode(),
        table().replace(",intent", ", intent").encode(),
        table().replace(",intent 1\n", ",intent 1 ,,\n").encode(),
        table(header="text,Category,note").replace("\n", ",x\n").replace(",note,x", ",note").encode(),
    ],
    ids=[
        *("blank line at the end", "blank lines between", "blank line first", "Windows", "semicolons", "sep=", "tabs"),
        *("UTF-16", "UTF-16 the other way", "case", "category", "spaces", "trailing commas", "three columns"),
    ],
)
def test_tables_are_read_as_people_leave_them(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(content)
    found = texts_of(load_source(f"texts:{file}"))
    assert found == {
        f"intent {intent}": {text for text, label in ROWS if label == f"intent {intent}"} for intent in range(6)
    }


@pytest.mark.parametrize("nothing", ["", "  ", "None", "NaN", "nan", "NULL", "<NA>"])
@pytest.mark.parametrize("row", ["Hi,{}", "{},intent 1"])
def test_nothing_is_no_text_and_no_label(nothing: str, row: str, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text(table() + f'"two\nlines",intent 1\n{row.format(nothing)}\nlast,\n')
    with pytest.raises(DataError, match=r"line 22 has no (text|label) .*line 23 has no label") as refused:
        load_source(f"texts:{file}")
    assert "line 20" not in str(refused.value)
    source = load_source(f"texts:{file}?skip_broken=true")
    assert source.notices == ("2 rows without a usable text and label left out",)
    assert "19 texts of 6 classes" in source.description


def test_a_stray_quote_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text(table() + '"say "hi" now",intent 0\n')
    with pytest.raises(DataError, match=r"line 20: can't be read as CSV .*quote"):
        load_source(f"texts:{file}")


def test_columns_that_could_be_either_are_not_guessed(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("text,class,category\nHi,a,b\n")
    with pytest.raises(DataError, match="has no column 'label', only: text, class, category"):
        load_source(f"texts:{file}")


def test_small_classes_and_other_files_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(table() + "alone,lonely\n")
    (tmp_path / "b.TSV").write_text("text\tlabel\nmore\tintent 1\n")
    (tmp_path / "._a.csv").write_bytes(b"\0\5\26\7")
    (tmp_path / "LICENSE").write_text("free")
    (tmp_path / "Thumbs.db").write_bytes(b"\0")
    (tmp_path / "older").mkdir()
    source = load_source(f"texts:{tmp_path}?min_examples=2")
    assert "19 texts of 6 classes" in source.description
    assert source.notices == (
        "1 file (1 without an extension) left out: no CSV or TSV",
        "1 folder left out: only tables in the folder itself are read",
        "1 class with fewer than 2 examples left out: lonely",
    )


def test_a_link_to_no_table_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(table())
    (tmp_path / "b.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"b\.csv can't be read \(No such file"):
        load_source(f"texts:{tmp_path}")


def test_a_long_text_takes_its_own_memory_and_is_cut_where_serving_refuses_it(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    short = [f"question {number},intent {number % 12}\n" for number in range(5000)]
    file.write_text("text,label\n" + "".join(short) + f'"{"forwarded mail é " * 20_000}",intent 0\n')
    tracemalloc.start()
    source = load_source(f"texts:{file}?test=0.1&val=0.1&seed=1")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6
    assert source.notices == (f"1 text of more than {MAX_TEXT_BYTES:,} bytes cut, as no server takes more",)
    assert max(len(text.encode()) for texts in texts_of(source).values() for text in texts) <= MAX_TEXT_BYTES
