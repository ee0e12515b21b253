"""The command line reads tables of texts as the trainer does, and says what is wrong with them."""

import pytest
import typer

from innerloop_command.text_tables import labelled_texts_in, texts_in
from innerloop_trainer.data import load_source

ROWS = [("lost my card", "lost"), ("which, rate?", "rate"), ('he said "slow"', "slow"), ("two\nlines", "slow")] * 3


def table(separator=",", header="text,label", end="\n"):
    quoted = [[f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row] for row in ROWS]
    return end.join([header.replace(",", separator), *(separator.join(row) for row in quoted)]) + end


CONTENTS = {
    "commas": table().encode(),
    "blank lines": b"\n" + table().encode() + b"\n",
    "Windows": table(end="\r\n").encode("utf-8-sig"),
    "semicolons": table(";").encode(),
    "sep=": b"sep=;\r\n" + table(";").encode(),
    "UTF-16": table("\t").encode("utf-16"),
    "case": table(header=" Text ,LABEL").encode(),
    "category": table(header="text,category").encode(),
    "trailing commas": table().replace('"rate"\n', '"rate",,\n').encode(),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_table_is_read_as_the_trainer_reads_it(content, tmp_path):
    file = tmp_path / "t.csv"
    file.write_bytes(content)
    source = load_source(f"texts:{file}")
    trainers = {name for split in (source.train, source.validation, source.test) for name in split.names}
    texts, labels = labelled_texts_in(file)
    assert list(zip(texts, labels, strict=True)) == ROWS
    assert set(labels) == trainers
    assert f"{len(texts)} texts" in source.description
    assert texts_in(file) == texts


def test_texts_to_ask_about_may_stand_alone(tmp_path):
    (tmp_path / "q.csv").write_text("question\nHi\nBye\n")
    (tmp_path / "q.txt").write_text("Hi\n\nBye, you\n")
    assert texts_in(tmp_path / "q.csv") == ["Hi", "Bye"]
    assert texts_in(tmp_path / "q.txt") == ["Hi", "Bye, you"]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("t.csv", b"text,label\n", "has no texts: give it a header"),
        ("t.csv", b"", "has no texts"),
        ("t.csv", b"body,label\nHi,a\n", "has no column 'text', only: body, label"),
        ("t.csv", b"text,kind,team\nHi,a,b\n", "has no column 'label', only: text, kind, team"),
        (
            "t.csv",
            b"text,label\nHi,a\nBye\nYo,\nNaN,b\n",
            "line 3 has 1 columns.*line 4 has no label; line 5 has no text",
        ),
        ("t.csv", "text,label\nHi,a\nÀ,a\n".encode("latin-1"), "line 3: is not UTF-8"),
        ("t.csv", b'text,label\n"Hi"x,a\n', "line 2: can't be read as CSV"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(name, content, why, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(typer.BadParameter, match=why):
        labelled_texts_in(tmp_path / name)
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(typer.BadParameter, match="has no texts, one in each line"):
        texts_in(tmp_path / "empty.txt")
