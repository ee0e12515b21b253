"""`innerloop bench` on the command line: its mistakes in one line, its files, its exit code."""

import json
from io import StringIO

import pytest
from rich.console import Console
from scripted_server import overloaded

from innerloop_command.bench import BenchSettings, Histogram, run_bench
from innerloop_command.bench.report import print_result

QUICK = ("--warm-up", 0, "--duration", 0.2, "--adaptations", 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("grey", "--mix", "adapt=1,forget=2"), "there is no 'forget'"),
        (("grey", "--mix", "adapt=many"), "the weight of adapt is 'many'"),
        (("grey", "--mix", "adapt=0"), "one of them at least is more than 0"),
        (("grey", "--mix", "adapt=1,adapt=2"), "adapt twice"),
        (("grey", "--clients", 2, "--rate", 5), "exclude one another"),
        (("grey", "--clients", 0), "at least 1"),
        (("grey", "--rate", -1), "more than 0 requests per second"),
        (("grey", "--sweep", "1,x"), "numbers with commas"),
        (("grey", "--sweep", "1,0"), "at least 1"),
        (("grey", "--open"), "--sweep"),
        (("grey", "--duration", 0), "more than 0 seconds"),
        (("grey", "--metrics", "file:///etc/passwd"), "no http"),
        (("grey", "--metrics", "http://127.0.0.1:1/metrics"), "can't read http://127.0.0.1:1/metrics"),
        (("grey", "--metrics", "http://127.0.0.1:port/"), "can't read http://127.0.0.1:port/"),
        (("grey", "--server-pid", 2**22 + 1), "can't be watched"),
        (("grey", "--server-pid", -3), "at least 1"),
        (("grey", "--steps", 2**32), "at most 4294967295"),
        (("grey", "--mix", "adapt=1e308,predict=1e308"), "too large"),
        (("grey", "--json", "/proc/none/bench.json"), "--json: can't write /proc/none/bench.json"),
        (("grey", "--json", "/tmp"), "--json: can't write /tmp"),
        (("grey", "--plot", "/tmp/bench.table"), "--plot: there are no pictures of type 'table'"),
        (("absent",), "MODEL_NOT_FOUND"),
        (("grey", "--server", "127.0.0.1:1"), "failed to connect"),
    ],
)
def test_a_mistake_is_told_in_one_line(run, server, arguments, says):
    code, out, err = run("bench", *arguments)
    assert (code, out, err.strip().count("\n")) == (1, "", 0)
    assert says in err
    assert not server.requests("Adapt")


@pytest.mark.parametrize("content", ["mine", '{"model": "mine"}', "[1]"])
def test_nothing_but_earlier_figures_is_replaced(run, tmp_path, content):
    file = tmp_path / "notes.json"
    file.write_text(content)
    code, _, err = run("bench", "grey", *QUICK, "--json", file)
    assert code == 1
    assert "holds something else" in err
    assert file.read_text() == content


def test_the_first_refusal_of_the_server_ends_the_run(run, server):
    server.script("Predict", overloaded(1.0))
    code, out, err = run("bench", "grey", *QUICK, "--mix", "predict=1")
    assert (code, out) == (1, "")
    assert "OVERLOADED" in err
    assert len(server.requests("Predict")) == 1
    assert not server.kept


def test_a_run_in_which_requests_failed_ends_with_1_unless_that_is_allowed(run, server):
    for code, arguments in ((1, ()), (0, ("--allow-errors",))):
        # The first request is sent before the load, and must succeed.
        server.script("AdaptPredict", None, overloaded(1.0), overloaded(1.0))
        found, out, err = run("bench", "grey", *QUICK, "--mix", "adapt-predict=1", *arguments)
        assert found == code
        assert ("requests failed: RESOURCE_EXHAUSTED 2" in err) == (code == 1)
        assert "AdaptPredict" in out


def test_a_sweep_is_a_table_a_file_and_a_plot(run, server, tmp_path, monkeypatch):
    monkeypatch.setenv("INNERLOOP_API_KEY", "secret-key")
    file, picture = tmp_path / "bench.json", tmp_path / "new" / "bench.svg"
    sweep = ("--sweep", "40,80", "--open", "--popularity", "zipf")
    file.write_text('{"model": {}, "task": {}, "loads": []}')  # of an earlier run, and replaced
    code, out, _ = run("bench", "grey", *QUICK, *sweep, "--json", file, "--plot", picture)
    assert code == 0
    assert "40/s" in out
    assert "80/s" in out
    data = json.loads(file.read_text())
    assert (data["model"]["name"], data["settings"]["popularity"], data["task"]["ways"]) == ("grey", "zipf", 5)
    assert [load["load"] for load in data["loads"]] == [{"loop": "open", "rate": rate} for rate in (40, 80)]
    for load in data["loads"]:
        for rpc in load["rpcs"].values():
            read = Histogram.decode(rpc["latency"].pop("hdr_histogram_us"))
            assert read.summary() == rpc["latency"]
            assert read.count == rpc["requests"]
    assert picture.read_text().startswith("<?xml")
    assert {received.authorization for received in server.received} == {"Bearer secret-key"}
    assert "secret-key" not in out + file.read_text()


def test_the_closed_loop_says_that_its_figures_are_service_times(run):
    code, out, _ = run("bench", "grey", *QUICK, "--clients", 2)
    assert code == 0
    assert "coordinated omission" in out
    code, out, _ = run("bench", "grey", *QUICK, "--rate", 50)
    assert "coordinated omission" not in out


def test_figures_are_told_in_full_however_narrow_the_terminal(server):
    settings = BenchSettings("grey", server=server.address, adaptations=2, warm_up=0, duration=0.2)
    console = Console(file=StringIO(), width=60)
    print_result(run_bench(settings), console)
    assert "…" not in console.file.getvalue()


def test_where_no_terminal_bounds_it_each_figure_stands_on_one_line(run):
    _, out, _ = run("bench", "grey", *QUICK, "--clients", 2)
    (line,) = [line for line in out.splitlines() if "Predict" in line.split() and "/" not in line]
    assert len(line.split()) == len(
        ["2", "clients", "Predict", "answers/s", 50, 90, 99, 99.9, "max", "evicted", "errors"]
    )
