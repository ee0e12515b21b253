"""docs/benchmarks.md and the README quote what the benchmarks measured."""

import json
import re
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
QUOTED = ("protonet", "matching", "maml", "anil", "lstm-optimizer", "snail", "cnaps", "r2d2", "baseline", "scratch")
README, PAGE = (" ".join((ROOT / name).read_text().split()) for name in ("README.md", "docs/benchmarks.md"))


def results(benchmark: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "benchmarks" / benchmark / "results.json").read_text())["results"]
    return content


def test_accuracies_are_those_measured() -> None:
    measured = results("omniglot")
    assert set(QUOTED) <= measured.keys()
    for method in QUOTED:
        result = measured[method]
        settings = [result["settings"][name]["inductive"] for name in ("5w1s", "5w5s", "20w1s", "20w5s")]
        cells = [f"{setting['accuracy']:.2%} ± {setting['confidence_interval']:.2%}" for setting in settings]
        minutes = " + ".join(f"{run['minutes']:.0f}{'*' * bool(run['starts_from'])}" for run in result["runs"].values())
        assert f"| `{method}` | {' | '.join(cells)} | {result['served']:.2%} | {minutes} min |" in PAGE


@pytest.mark.parametrize("method", ["protonet", "anil", "maml"])
def test_the_readme_quotes_what_the_page_does(method: str) -> None:
    settings = [results("omniglot")[method]["settings"][name]["inductive"] for name in ("5w1s", "5w5s")]
    cells = [f"{setting['accuracy']:.2%} ± {setting['confidence_interval']:.2%}" for setting in settings]
    milliseconds, _ = results("engine")[method]["one_client"]["served"]
    assert f"| `{method}` | {' | '.join(cells)} | {milliseconds:.1f} ms |" in README


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/**/*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    for link, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", (ROOT / page).read_text()):
        target = (ROOT / page).parent / link if link else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), f"{link}#{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors that a forge gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("method", ["lstm-optimizer", "meta-lstm"])
def test_the_gain_of_learned_optimizers_is_that_measured(method: str) -> None:
    measured = results("learned_optimizers")["few_shot"][method]
    learned, same = measured["learned"], measured["same_initialisation"]
    gain, served = (measured["gain_over_same_initialisation"][where] for where in ("offline", "served"))
    row = (
        f"| `{method}` | {learned['accuracy']:.2%} | {same['accuracy']:.2%} "
        f"| {gain['mean']:+.2%} ± {gain['confidence_interval']:.2%} "
        f"| {served['mean']:+.2%} ± {served['confidence_interval']:.2%} |"
    )
    assert row in PAGE


def error_of(figure: dict[str, float | None]) -> str:
    if figure["mean_squared_error"] is None:
        return "diverges"
    return f"{figure['mean_squared_error']:.3f} ± {figure['confidence_interval']:.3f}"


@pytest.mark.parametrize("method", ["maml", "meta-sgd", "lstm-optimizer", "meta-lstm", "snail"])
def test_errors_of_regression_are_those_measured(method: str) -> None:
    for shots in ("5 shots", "10 shots"):
        measured = results("sinusoid")[method][shots]
        errors = [error_of(figure) for figure in measured.values()]
        cells = errors if len(errors) > 1 else [*errors, "", ""]
        assert f"| `{method}` | {shots} | {' | '.join(cells)} |".replace("  ", " ") in PAGE


@pytest.mark.parametrize("model", ["protonet", "anil", "maml"])
def test_what_serving_costs_is_that_measured(model: str) -> None:
    measured = results("engine")[model]
    many, one, steady = measured["throughput"].values(), measured["one_client"], measured["steady"]
    cells = [f"{served:.1f} ms ({added:+.1f})" for served, added in zip(one["served"], one["added_ms"], strict=True)]
    cells += [f"{server['served']:.0f}/s ({server['ratio']:.0%})" for server in many]
    cells.append(f"{steady['p50_ms']:.0f} / {steady['p99_ms']:.0f} ms at {steady['rate']:.0f}/s")
    assert f"| `{model}` | {' | '.join(cells)} |" in PAGE
    adapt, predict = measured["one_client_one_thread"]["added_ms"]
    assert re.search(rf"{re.escape(f'{adapt:+.1f} / {predict:+.1f} ms')} (to Adapt / Predict )?of `{model}`", PAGE)


def test_what_answering_takes_of_the_processors_is_that_measured() -> None:
    rounds = results("engine")["anil"]["throughput"]["plain"]["rounds"]
    generator, main, workers = (
        median(one["cpu_ms"][who] for one in rounds) for who in ("generator", "main_process", "other_processes")
    )
    text = f"{workers:.1f} ms of the processors to compute and {generator + main:.1f} ms to ask for and to answer"
    assert text in PAGE


def test_answers_a_second_of_other_servers_are_those_measured() -> None:
    content = json.loads((ROOT / "benchmarks" / "serving" / "results.json").read_text())
    times = ", ".join(f"{pair['times']:.2f}" for pair in content["pairs"]["clients"].values())
    assert f"both running: {times} times as many" in PAGE
    servers = content["servers"]
    for name, server in servers.items():
        title = "Innerloop, AdaptPredict" if name == "Innerloop" else name
        rows = {title: server["AdaptPredict"]}
        if name == "Innerloop":
            rows["Innerloop, Predict of a kept adaptation"] = server["Predict"]
        for label, measured in rows.items():
            points = [format(point["per_second"], ".1f") for point in measured["clients"].values()]
            assert f"| {label} | {' | '.join(points)} |" in PAGE or "vmap of 8" in name


@pytest.mark.parametrize("method", ["protonet", "r2d2", "anil", "lstm-optimizer", "snail", "maml"])
def test_how_onnx_runtime_compares_is_that_measured(method: str) -> None:
    measured = results("onnx")["cpu"]["methods"]
    cells = []
    for call in ("adapt", "predict"):
        times = measured[method][call]["milliseconds"]
        ratio = measured[method][call]["ratio"]
        cells.append(f"{times['pytorch']:.1f} / {times['onnxruntime']:.1f} ms ({ratio:.2f}x)")
    size = sum(measured[method]["bytes"][file] for file in ("adapt.onnx", "predict.onnx")) / 1e3
    assert f"| `{method}` | {' | '.join(cells)} | {size:,.0f} kB |" in PAGE
    least = [min(result[call]["ratio"] for result in measured.values()) for call in ("adapt", "predict")]
    assert f"at least {least[0]:.2f} times in adapting, {least[1]:.2f} in predicting" in PAGE


def test_what_adaptations_and_precision_cost_is_that_measured() -> None:
    head, all_weights = results("memory")["anil"], results("memory")["maml"]
    assert f"{head['held']:,} of `anil` (the head adapts) take {head['state_bytes']:,} bytes each" in PAGE
    assert f"{head['resident_bytes_each'] / 1e3:.1f} kB resident; {all_weights['held']:,} of `maml`" in PAGE
    for model, precisions in results("precision").items():
        low = precisions["bfloat16"]
        assert f"{low['difference']:+.2f} ± {low['confidence_interval']:.2f} points (`{model}`)" in PAGE


def test_what_reading_and_packing_data_takes_is_that_measured() -> None:
    reading, packing = (results("data")[part] for part in ("reading", "packing"))
    assert reading["images"] == 60_000
    for name, source in (("a folder", "small"), ("a zip", "small.zip")):
        cells = [f"{reading[source][when]['seconds_of_computing']:.1f} s" for when in ("first", "second")]
        assert f"| {name} | {' | '.join(cells)} |" in PAGE
    assert f"{packing['images']:,} JPEGs of 240 to 500 pixels a side in {packing['classes']} classes" in PAGE
    assert f"({packing['photos_mb']:,.0f} MB)" in PAGE
    packed, drawn, again = (packing[part] for part in ("packed", "drawn", "drawn_from_disk"))
    assert f"the pack of {packed['pack_mb']:,.0f} MB, five at a time: {drawn['drawn_mb']:,.0f} MB of pixels" in PAGE
    for row, found, rate in (
        ("packing", packed, f"{packed['images_per_second_of_computing']:.0f} images/s"),
        ("drawing", drawn, f"{drawn['episodes_per_second_of_computing']:.0f} tasks/s"),
        (
            "drawing from a pack that the system had to read again",
            again,
            f"{again['episodes_per_second_of_computing']:.0f} tasks/s",
        ),
    ):
        assert f"| {row} | {rate} | {found['memory_mb']:.0f} MB | {found['mapped_mb']:.0f} MB |" in PAGE


def test_what_packing_as_many_files_as_imagenet_has_takes_is_that_measured() -> None:
    many = results("data")["many"]
    packed = many["packed"]
    assert f"{many['images']:,} JPEGs of 32 to 48 pixels a side in {many['classes']:,} classes" in PAGE
    assert f"({many['photos_mb']:,.0f} MB), packed at" in PAGE
    assert f"32x32 pixels into {packed['pack_mb']:,.0f} MB" in PAGE
    assert f"packing takes {packed['memory_mb'] * 1e3 / many['images']:.1f} kB of memory for each" in PAGE
    computing = many["images"] / packed["images_per_second_of_computing"]
    assert f"Packing took {packed['seconds'] / 60:.0f} minutes, {computing / 60:.0f} of them computing" in PAGE
    rates = [packed["images_per_second_of_computing"]]
    rates += [many[part]["episodes_per_second_of_computing"] for part in ("drawn", "drawn_from_disk")]
    rows = (
        ("packing as many files as ImageNet", packed, "images/s"),
        ("drawing from that pack", many["drawn"], "tasks/s"),
        ("drawing from it where the system had to read it again", many["drawn_from_disk"], "tasks/s"),
    )
    for (row, found, unit), rate in zip(rows, rates, strict=True):
        assert f"| {row} | {rate:,.0f} {unit} | {found['memory_mb']:.0f} MB | {found['mapped_mb']:.0f} MB |" in PAGE


def test_where_the_time_of_short_runs_goes_is_that_measured() -> None:
    for method, measured in results("short_runs").items():
        assert set(measured["tasks"].values()) == {100}
        phases = ("start", "outer steps", "validation", "test", "calibration", "report")
        cells = [f"{measured['seconds'][phase]:.1f} s" for phase in phases]
        assert f"| `{method}` | {' | '.join(cells)} |" in PAGE
        assert measured["seconds"]["export"] < 0.1


def test_what_training_in_bfloat16_changes_is_that_measured() -> None:
    measured = json.loads((ROOT / "benchmarks/precision/training.json").read_text())["results"]
    for method, precisions in measured.items():
        low = precisions["bfloat16"]
        cells = [f"{precisions['float32']['accuracy']:.1f}%"]
        cells += [f"{low['difference']:+.2f} ± {low['confidence_interval']:.2f}"]
        cells += [", ".join(f"{each:+.2f}" for each in low["by_seed"])]
        assert f"| `{method}` | {' | '.join(cells)} |" in PAGE
        assert low["difference"] + low["confidence_interval"] > 0  # "nothing is lost"


def test_memory_and_time_of_recomputed_steps_are_those_measured() -> None:
    for steps, found in results("recomputation").items():
        ways = found["kept"], found["recomputed"]
        cells = [f"{way[what]:.0f} MiB" for what in ("memory_mib", "tensors_mib") for way in ways]
        assert f"| {steps} | {' | '.join(cells)} | {found['time']:.2f} |" in PAGE
        assert found["time"] < 1.55  # "up to half more time", as docs and help say
        share = found["recomputed"]["memory_mib"] / found["kept"]["memory_mib"]
        assert int(steps) < 10 or 0.45 < share < 0.55  # "about half the memory"


def test_what_computing_frozen_blocks_once_saves_is_that_measured() -> None:
    for network, measured in results("frozen_blocks").items():
        for row, name in (("adapting, as served", "adapt"), ("an outer step", "outer_step")):
            found = measured[name]
            cells = [f"{1e3 * found[way]:.0f} ms" for way in ("every_step", "once")]
            assert f"| `{network}`, {row} | {' | '.join(cells)} | {found['times_faster']:.1f} |" in PAGE


def test_the_isolation_of_concurrent_calls_is_that_measured() -> None:
    mixed, packed = results("isolation").values()
    assert mixed["equal"] == packed["equal"] == mixed["calls"] == 200
    largest = max(mixed["largest_difference"], packed["largest_difference"])
    assert f"batches of {packed['mean_batch_size']['adapt']:.1f} on average" in PAGE
    assert f"(largest difference of a probability: {largest:.0e})" in PAGE


def test_accuracies_behind_an_encoder_are_those_measured() -> None:
    for name, measured in results("banking77").items():
        learned = "over_logistic_regression" in measured["settings"]["5w1s"]
        cells = [accuracy_of(setting) for setting in measured["settings"].values()]
        assert f"| {f'`{name}`' if learned else name} | {' | '.join(cells)} |" in PAGE
    gains = [setting["over_logistic_regression"] for setting in results("banking77")["lr-d2"]["settings"].values()]
    cells = [f"{gain['mean']:+.1%} ± {gain['confidence_interval']:.1%}" for gain in gains]
    assert f"| gain of `lr-d2` over logistic regression | {' | '.join(cells)} |" in PAGE


def test_accuracies_behind_encoders_of_four_kinds_are_those_measured() -> None:
    for name, measured in results("encoders").items():
        settings = measured["settings"]
        for key in ("5w1s", "5w5s"):
            cells = [accuracy_of(settings[row][key]) for row in ("class means", "logistic regression", "innerloop new")]
            trained, scratch = settings.get("meta-trained"), settings.get("from scratch")
            if trained:
                cells += [accuracy_of(trained[key]), gain_of(trained[key]["over"]["innerloop new"])]
            else:
                cells += ["", ""]
            cells.append(accuracy_of(scratch[key]) if scratch else "")
            assert f"| {name} | {key[2]} | {' | '.join(cells)} |".replace("  ", " ") in PAGE
        for row in settings["served"].values():
            for figures in row.values():
                assert f"{figures['served']:.2f}" == f"{figures['in_process']:.2f}"
                assert f"over the same {figures['episodes']} episodes through a server" in PAGE


def test_what_parts_of_a_head_are_worth_is_that_measured() -> None:
    measured = json.loads((ROOT / "benchmarks" / "encoders" / "ablation.json").read_text())["results"]
    columns = [measured[data] for data in ("small photographs", "intents", "spoken digits")]
    assert len(columns) == len(measured)
    for row in columns[0]:
        if row != "class means" and not row.startswith("option: "):
            cells = [gain_of(column[row][key]["gain"]) for column in columns for key in ("5w1s", "5w5s")]
            assert f"| {row} | {' | '.join(cells)} |" in PAGE
    options = [(data, row, rows[row]) for data, rows in measured.items() for row in rows if row.startswith("option: ")]
    assert options
    for data, option, figures in options:
        cells = [gain_of(figures[key]["gain"]) for key in ("5w1s", "5w5s")]
        assert f"| {data}: {option.removeprefix('option: ')} | {' | '.join(cells)} |" in PAGE


def test_costs_of_encoders_are_those_measured() -> None:
    measured = json.loads((ROOT / "benchmarks" / "encoders" / "speed.json").read_text())["results"]
    assert measured
    for name, figures in measured.items():
        rates = list(figures["examples_per_second"].values())
        loads = {(load["rpc"], load["clients"]): f"{load['p50_ms']:.0f} ms" for load in figures["served"]}
        cells = [f"{rates[0]['encoder']:.0f}", f"{min(rate['share'] for rate in rates):.0%}"]
        cells += [loads[rpc, clients] for clients in (1, 32) for rpc in ("Adapt", "Predict")]
        cells.append(f"{max(load['memory_mib'] for load in figures['served']):.0f} MiB")
        assert f"| `{name}` | {' | '.join(cells)} |" in PAGE


@pytest.mark.parametrize("model", ["maml", "anil"])
def test_answers_under_overload_are_those_measured(model: str) -> None:
    measured = json.loads((ROOT / "benchmarks" / "overload" / "results.json").read_text())[model]
    goodput, fairness = measured["goodput"], measured["fairness"]
    outcomes = fairness["quiet_beside"]["outcomes"]
    cells = [f"{goodput['capacity_per_s']:.0f}/s", f"{goodput['goodput_of_capacity']:.0%}"]
    cells += [f"{fairness[case]['latency']['p50_ms']:.0f} ms" for case in ("quiet_alone", "quiet_beside")]
    cells.append(f"{outcomes.get('OK', 0)} of {sum(outcomes.values())}")
    assert f"| `{model}` | {' | '.join(cells)} |" in PAGE


@pytest.mark.parametrize("model", ["anil", "maml"])
def test_costs_of_lasting_adaptations_are_those_measured(model: str) -> None:
    measured = results("durability")
    one, many = (measured["adapt"]["median"][f"{model} {clients}"]["through"] for clients in (1, 32))
    cells = [f"{one['more_than_memory_ms']:+.1f} ms", f"{many['of_memorys_throughput']:.0%}"]
    cells += [f"{measured['miss'][model][f'{case}_p50_ms']:.0f} ms" for case in ("hit", "miss", "adapt_predict")]
    assert f"| `{model}` | {' | '.join(cells)} |" in PAGE


def test_starts_with_many_adaptations_took_as_long_as_is_said() -> None:
    measured = results("durability")
    unsynchronised = measured["adapt"]["median"]["anil 32"]["none"]["of_memorys_throughput"]
    assert f"(`--durability none`), `anil` has {unsynchronised:.0%}" in PAGE
    starts, kept = measured["restart"]["median"], measured["restart"]["kept"]
    full, empty = (starts[name]["first_predict_s"] for name in ("full", "empty"))
    words = " ".join(PAGE.split())
    assert f"A server with {kept:,} adaptations in its file answers its first Predict" in words
    assert f"{full:.1f} s after its start, one with an empty file after {empty:.1f} s" in words
    assert f"importing PyTorch and gRPC takes {starts['imports']['imports_s']:.1f} s" in words


def test_the_rate_of_a_migration_is_that_measured() -> None:
    measured = results("migration")
    assert f"{measured['moved_per_s_alone']:.0f} a second move while nobody else is there" in PAGE
    assert f"and {measured['moved_per_s_beside_others']:.0f} beside four clients" in PAGE
    alone, beside = (measured[case]["latency"]["p99_ms"] for case in ("others_alone", "others_beside"))
    assert f"take {alone:.0f} ms at the 99th percentile alone and {beside:.0f} ms meanwhile" in PAGE


def test_what_is_said_of_adaptations_that_grow_was_measured() -> None:
    measured = results("growing")
    parts = [(method, name, figures) for method, growths in measured.items() for name, figures in growths.items()]
    for method, name, figures in parts:
        cells = [f"{mean:.1f} ± {half:.1f}" for mean, half in (figures[key] for key in ("before", "grown", "at once"))]
        mean, half = figures["grown - at once"]
        waited = [f"{figures['ms'][key]:.0f}" for key in ("first update", "last update", "adapt at once")]
        cells += [f"{mean:+.2f} ± {half:.2f}", f"{waited[0]}, {waited[1]} ms", f"{waited[2]} ms"]
        assert f"| `{method}` | {name} | {figures['tasks']} | {' | '.join(cells)} |" in PAGE
    alike = min(figures["answered alike"] for *_, figures in parts)
    largest = max(figures["largest difference of a probability"] for *_, figures in parts)
    assert f"answer {alike:.1f}% of the queries alike, and their probabilities differ by {largest:.1g} at most" in PAGE


def gain_of(measured: dict[str, float]) -> str:
    return f"{measured['accuracy']:+.1%} ± {measured['confidence_interval']:.1%}"


def test_accuracies_of_uneven_support_sets_are_those_measured() -> None:
    for method, cases in results("class_balance").items():
        columns = [("1:1:1:1:1", "equal"), ("15:1:1:1:1", "proportional"), ("15:1:1:1:1", "equal")]
        figures = [cases[shots][balance]["other classes"] for shots, balance in columns]
        cells = [f"{mean:.1f}% ± {interval:.1f}%" for mean, interval in figures]
        assert f"| `{method}` | {' | '.join(cells)} |" in PAGE


def accuracy_of(measured: dict[str, float]) -> str:
    return f"{measured['accuracy']:.1%} ± {measured['confidence_interval']:.1%}"


def test_errors_by_evolution_are_those_measured() -> None:
    measured = results("estimators")["es"]
    assert f"the same {measured['tasks']:,} waves" in PAGE
    for name, run in measured["runs"].items():
        cells = [mean_of(run["errors"][steps]) for steps in ("0", "1", "5", "10")]
        gap = "" if name == "backpropagation" else mean_of(run["more_than_backpropagation"]["5"], "+")
        assert f"| {name} | {' | '.join(cells)} | {gap} | {run['seconds']:.0f} s |".replace("  ", " ") in PAGE


def mean_of(figure: dict[str, float | None], sign: str = "") -> str:
    """A mean with its interval, as pages write it."""
    if figure["mean"] is None:
        return "diverges"
    return f"{figure['mean']:{sign}.3f} ± {figure['confidence_interval']:.3f}"


def test_what_long_unrolls_reach_is_that_measured() -> None:
    measured = results("estimators")["pes"]
    assert f"trained on unrolls of {measured['steps']:,} steps" in PAGE
    for unrolls, run in measured["unrolls"].items():
        cells = [mean_of(run["pes"]), mean_of(run["truncated"]), mean_of(run["truncated_more_than_pes"], "+")]
        assert f"| {unrolls} unrolls | {' | '.join(cells)} |" in PAGE
    assert f"Untrained it has {mean_of(measured['untrained'])}" in PAGE
    assert f"the best of four rates {mean_of(measured['gradient descent'])}" in PAGE


def test_what_implicit_gradients_take_and_reach_is_that_measured() -> None:
    measured = results("estimators")["implicit"]
    for name, megabytes in measured["megabytes"].items():
        cells = [f"{size:.0f} MB" for size in megabytes.values()]
        cells += [accuracy_of_mean(rate["accuracy"][name]) for rate in measured["rates"].values()]
        assert f"| {name} | {' | '.join(cells)} |" in PAGE
    for rate in measured["rates"].values():
        over = rate["over_backpropagation"]
        assert f"{over['mean']:+.1%} ± {over['confidence_interval']:.1%}" in PAGE
    assert f"{accuracy_of_mean(measured['rates']['0.1']['accuracy']['untrained'])} untrained" in PAGE


def test_what_noise_in_the_inner_loop_gains_and_costs_is_that_measured() -> None:
    for setting, noises in results("meta_dropout").items():
        for noise, measured in noises.items():
            for samples, figures in measured["samples"].items():
                title = f"`{noise}`" + (f", {samples} samples" if samples != "1" else "")
                gain = "" if noise == "none" else accuracy_of_mean(figures["over_none"], "+")
                cells = [accuracy_of_mean(figures["accuracy"]), gain, f"{figures['adapt_ms']:.1f} ms"]
                once = samples == "1"
                cells += [accuracy_of_mean(measured["seen"]), f"{measured['training_s']:.0f} s"] if once else ["", ""]
                assert f"| {setting} | {title} | {' | '.join(cells)} |".replace("  ", " ") in PAGE
        learned = noises["meta_dropout"]["samples"]["1"]["over_fixed"]
        assert f"{accuracy_of_mean(learned, '+')} above fixed noise at {setting}" in PAGE


def test_what_teachers_add_is_that_measured() -> None:
    measured = results("teachers")
    students = measured["students"]
    for side, figures in students.items():
        over = [figures.get(f"over {other}") for other in ("alone", "labels", "plain")]
        cells = [accuracy_of_mean(figures["accuracy"]), *(accuracy_of_mean(gain, "+") if gain else "" for gain in over)]
        assert f"| {side} | {' | '.join(cells)} | {figures['ms_per_step']:.1f} ms |".replace("  ", " ") in PAGE
    assert f"had 1,200 and reaches {accuracy_of_mean(measured['teachers']['teacher'])}" in PAGE
    learned = measured["learned temperatures"]
    assert f"falls from 4 to {min(learned):.1f} to {max(learned):.1f}" in PAGE
    plain = {
        (each["teacher_share"], each["temperature"]): each for each in measured["tried"] if each["side"] == "plain"
    }
    at = [f"{plain[0.9, temperature]['accuracy']:.1%}" for temperature in (1.0, 4.0, 16.0)]
    assert "has {} at temperature 1, {} at 4 and {} at 16".format(*at) in PAGE
    low, high = measured["other starts"]
    assert f"to {high['to']:.1f} ({high['accuracy']:.1%})" in PAGE
    assert f"stays at {low['to']:.1f} ({low['accuracy']:.1%})" in PAGE
    for side, sign in (("head", 1), ("ensemble", 1), ("temperature", -1)):  # in four seeds of five, says the page
        assert sum(sign * gain > 0 for gain in students[side]["over plain"]["of_seeds"]) == 4


def test_what_domains_held_out_and_features_varied_gain_is_that_measured() -> None:
    for case, measured in results("domains").items():
        for side, figures in measured["test"].items():
            assert row_of_domains(case, side, figures, f"{figures['training_s']:.0f} s") in PAGE
        for side, figures in measured.get("control", {}).items():
            assert row_of_domains(case, f"{side}, random domains", figures, "") in PAGE
        if "gain_by_true_domains" in measured:
            figure = measured["gain_by_true_domains"]
            gain = f"{100 * figure['mean']:+.1f} ± {100 * figure['over_seeds']:.1f} points"
            assert re.search(rf"{re.escape(gain)} \(`{case}`\)", PAGE)
        shift = measured["test"]["learned"]["strengths"]["transformation.norm0.shift"]
        assert re.search(rf"first norm falls from 0\.50 to [^;]*{shift:.2f} \(`{case}`\)", PAGE)
    pooled, longer, fixed = (
        fmean(results("domains")["digits"]["test"][side]["loss"]) for side in ("pooled", "longer", "fixed")
    )
    assert f"is {pooled:.2f} after 200 steps and {longer:.3f} after 460, " in PAGE
    assert f"keeps the loss of training at {fixed:.2f}, " in PAGE


def row_of_domains(case: str, side: str, figures: dict[str, Any], training: str) -> str:
    """A row of the table of domains: gains with their intervals over episodes, and then over seeds."""
    gain = figures.get("over_pooled")
    gains = [accuracy_of_mean(gain, "+"), f"± {gain['over_seeds']:.1%}"] if gain else ["", ""]
    cells = [case, side, accuracy_of_mean(figures["accuracy"]), *gains, training]
    return " ".join(f"| {' | '.join(cells)} |".split())


def accuracy_of_mean(figure: dict[str, float], sign: str = "") -> str:
    return f"{figure['mean']:{sign}.1%} ± {figure['confidence_interval']:.1%}"


def points(figure: list[float], sign: str = "") -> str:
    return f"{figure[0]:{sign}.2f} ± {figure[1]:.2f}"


def test_accuracies_on_hundreds_of_classes_are_those_measured() -> None:
    for arm, measured in results("lifelong").items():
        after = [measured["accuracy"].get(classes) for classes in ("10", "50", "100", "200", "400", "600")]
        cells = [points(figure) if figure else "" for figure in after]
        rate = f"{measured['rate']:g}" if "rate" in measured else ""
        assert f"| {arm} | {rate} | {' | '.join(cells)} |".replace("  ", " ") in PAGE
    content = json.loads((ROOT / "benchmarks" / "lifelong" / "results.json").read_text())
    for pair, difference in content["differences"].items():
        assert f"| {pair} | {points(difference['100'], '+')} | {points(difference['600'], '+')} |" in PAGE


@pytest.mark.parametrize("method", list(results("sample_weights")))
def test_what_weights_of_examples_regain_is_that_measured(method: str) -> None:
    arms = ("clean", "wrong", "switched off", "weights")
    regained, first = [], []
    for case, figures in results("sample_weights")[method].items():
        uneven = case == "19:1:1:1:1"
        cells = [points(figures[arm]) for arm in (("clean, proportional", *arms) if uneven else arms)]
        if not uneven:
            cells.append(points(figures["removed"]) if "removed" in figures else "")
        gain = points(figures["weights - wrong"], "+")
        assert f"| `{method}` | {case} | {' | '.join(cells)} | {gain} |".replace("  ", " ") in PAGE
        if "removed" in figures:
            regained.append(f"{figures['weights - wrong'][0] / figures['removed - wrong'][0]:.0%}")
            first.append(f"{figures['right first'][0]:.1f}%")
        if uneven or case == "10 shots":
            assert points(figures["weights - switched off"], "+") in PAGE
        if case == "10 shots, 4 wrong":
            assert re.search(
                rf"{figures['weight of wrong examples'][0]:.0f}% (of the mean of their class )?with `{method}`", PAGE
            )
    assert "{}, {} and {}".format(*first) in PAGE
    assert "{}, {} and {} with `".format(*regained) in PAGE or all(int(share[:-1]) >= 100 for share in regained)


def test_accuracies_without_labels_are_those_measured() -> None:
    for name, run in results("unlabelled").items():
        cells = [accuracy_of_mean(run["accuracy"][shape]) for shape in ("5w1s", "5w5s")]
        if name != run["compared"]:
            cells += [accuracy_of_mean(run["difference"][shape], "+") for shape in ("5w1s", "5w5s")]
        else:
            cells += ["", ""]
        assert f"| {name} | {' | '.join(cells)} |".replace("  ", " ") in PAGE


def test_speeds_of_training_beside_other_libraries_are_those_measured() -> None:
    workloads = json.loads((ROOT / "benchmarks" / "training" / "results.json").read_text())["workloads"]
    assert len(workloads) == 4
    for name in dict.fromkeys(name for workload in workloads.values() for name in workload["sides"]):
        cells = []
        for workload in workloads.values():
            figures = workload["sides"].get(name, {"failed": ""})
            rate, memory = figures.get("tasks_per_second"), figures.get("peak_bytes", 0) / 1e9
            cells.append("" if "failed" in figures else f"{rate:.2f}, {memory:.1f} GB")
        assert f"| {name} | {' | '.join(cells)} |" in PAGE.replace("| |", "|  |").replace("| |", "|  |")
    ratios = []
    for workload in workloads.values():
        times = workload["comparison"]["times"]
        ratios.append(f"{times['times']:.2f} ({times['interval'][0]:.2f} to {times['interval'][1]:.2f})")
    assert f"| Innerloop over the best peer | {' | '.join(ratios)} |" in PAGE


def test_what_networks_reach_on_photographs_is_that_measured() -> None:
    measured = results("real_images")
    for name, side in measured["sides"].items():
        method = max(side["tried"]["methods"], key=lambda tried: tried["accuracy"])["method"]
        for stage, label in (("pre-trained", "pre-trained"), ("fine-tuned", f"fine-tuned (`{method}`)")):
            cells = [accuracy_of_mean(side[stage][shots]) for shots in ("1 shot", "5 shots")]
            assert f"| {name}, {label} | {' | '.join(cells)} |" in PAGE
        assert f"{side['minutes']:.0f} minutes of one thread for {name}" in PAGE
    for stage, gaps in measured["gaps"].items():
        cells = [accuracy_of_mean(gaps[shots], "+") for shots in ("1 shot", "5 shots")]
        label = "as validation chose" if stage == "chosen" else stage
        assert f"| ResNet-12 over Conv4, {label} | {' | '.join(cells)} |" in PAGE


def test_what_choices_reinforce_makes_and_what_they_reach_is_that_measured() -> None:
    measured = results("estimators")["reinforce"]
    for case, in_words in (("characters", accuracy_of_mean), ("waves", in_errors)):
        assert f"{measured[case]['tasks']:,} tasks" in PAGE
        for side, test in measured[case]["test"].items():
            runs = [seed[side] for seed in measured[case]["seeds"]]
            ahead = "" if side == "reinforce" else in_words(measured[case]["ahead"][side], "+")
            choices = ", ".join(choice_of(run) for run in runs if run["adapts"])
            seconds = sum(run["seconds"] for run in runs) / len(runs)
            cells = [in_words(test), ahead, choices, f"{seconds:.0f} s"]
            assert f"| {side} | {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |") in PAGE


def test_what_fixed_choices_reach_on_the_way_is_that_measured() -> None:
    for steps, figures in results("estimators")["reinforce"]["fixed"].items():
        if steps != "liked":
            loss, accuracy = figures["loss"], figures["accuracy"]
            cells = [f"{loss['liked']:.3f}", f"{loss['anil']:.3f}", in_errors(loss["more"], "+")]
            cells += [f"{accuracy['liked']:.1%}", f"{accuracy['anil']:.1%}", accuracy_of_mean(accuracy["more"], "+")]
            assert f"| {steps} | {' | '.join(cells)} |" in PAGE


def in_errors(figure: dict[str, float], sign: str = "") -> str:
    return f"{figure['mean']:{sign}.3f} ± {figure['confidence_interval']:.3f}"


def choice_of(run: dict[str, Any]) -> str:
    """What adapts and for how many steps, as in the table: 13h x2 are block1, block3 and the head, in two steps."""
    return f"{''.join(block.removeprefix('block')[0] for block in run['adapts'])} x{run['steps']}"


def in_points(figure: dict[str, float], sign: str = "") -> str:
    return f"{100 * figure['mean']:{sign}.2f} ± {100 * figure['confidence_interval']:.2f}"


def test_regrets_of_searchers_are_those_measured() -> None:
    measured = results("architecture_search")["replay"]
    table = measured["table"]
    for name, seen in measured["seen"].items():
        ahead = "" if name == "random" else in_points(measured["ahead_of_random"][name]["40"], "+")
        cells = [*map(in_points, seen.values()), ahead, in_points(measured["test"][name]["40"])]
        assert f"| `{name}` | {' | '.join(cells)} |".replace("|  |", "| |") in PAGE
    assert f"over {measured['replays']} replays" in PAGE
    assert f"the best of the {table['alive']} that tell classes apart has {table['best_accuracy']:.1%}" in PAGE
    assert f"the median {table['median_accuracy']:.1%}" in PAGE
    assert f"{100 * table['between_networks']:.1f} points between networks" in PAGE
    assert f"{100 * table['between_seeds']:.1f} between seeds of one network" in PAGE
    assert f"of all 125 has a regret of {100 * measured['all']:.2f} points" in PAGE


def test_what_mixtures_pick_is_that_measured() -> None:
    measured = results("architecture_search")["mixtures"]
    for side in ("auxiliary skip", "plain"):
        runs = measured[side]["runs"]
        picks = ", ".join(" ".join(run["pick"].values()) for run in runs)
        regrets = ", ".join(f"{100 * run['regret']:.2f}" for run in runs)
        skips = sum(run["weight_of_skips"] for run in runs) / len(runs)
        seconds = sum(run["seconds"] for run in runs) / len(runs)
        assert f"| {side} | {picks} | {regrets} | {skips:.0%} | {seconds:.0f} s |" in PAGE
    means = [f"{100 * measured[side]['regret']:.2f}" for side in ("auxiliary skip", "plain")]
    assert "A mean regret of {} points with the connection, and of {} without it".format(*means) in PAGE
    of_random = results("architecture_search")["replay"]["test"]["random"]["20"]["mean"]
    assert f"with a regret of {100 * of_random:.2f} points after 20 networks" in PAGE


CONV4 = ("conv4-64 stride", "conv4-64 max_pool")


def test_what_searches_within_the_arithmetic_of_conv4_find_is_that_measured() -> None:
    measured = results("architecture_search")["useful"]
    for name, network in measured["networks"].items():
        ahead = [in_points(network["ahead_of"][other], "+") if other in network["ahead_of"] else "" for other in CONV4]
        by_seed = ", ".join(f"{accuracy:.1%}" for accuracy in network["by_seed"])
        cells = [f"{network['multiply_adds'] / 1e6:.2f}M", in_points(network["accuracy"]), by_seed, *ahead]
        assert f"| {name} | {' | '.join(cells)} |".replace("|  |", "| |") in PAGE
    assert f"tries {measured['trials']} networks" in PAGE
    assert "The searches took {:.0f} s and {:.0f} s".format(*measured["search_seconds"].values()) in PAGE
    taken = {name: network["multiply_adds"] for name, network in measured["networks"].items()}
    small, half = (taken[name] / taken[CONV4[1]] for name in measured["search_seconds"])
    assert f"that takes {small / taken[CONV4[0]] * taken[CONV4[1]]:.0%} of it, and {small:.0%} of that of" in PAGE
    assert f"one that takes {half:.0%}" in PAGE


def long_run(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())
    return content


@pytest.mark.parametrize(("store", "title"), [("sqlite", "SQLite"), ("redis", "Redis")])
def test_kills_under_load_lost_nothing(store: str, title: str) -> None:
    measured = long_run(f"durability/crashes-{store}")["results"]
    assert not [key for counts in measured.values() for key in counts if key.startswith("problem")]
    kills = [f"{counts['rounds']} of a {victim}" for victim, counts in measured.items()]
    made, deleted = (sum(counts[key] for counts in measured.values()) for key in ("made", "deleted"))
    assert (
        f"| kills under load, {title} | {', '.join(kills)} | {made:,} adaptations whose making was answered answer as "
        f"before, and {deleted:,} deleted ones are gone |" in PAGE
    )


def test_no_hostile_request_led_to_a_fault() -> None:
    measured = long_run("hostile/fuzz")
    assert not measured["faults"]
    assert not measured["tracebacks_in_log"]
    assert not measured["exit_code"]
    assert f"| hostile requests | {measured['inputs']:,} | no crash, hang, INTERNAL or UNKNOWN |" in PAGE


def test_everything_at_once_went_well() -> None:
    measured, leaking = (long_run(f"hostile/{name}") for name in ("soak", "soak-leak"))
    counts = measured["counts"]
    answered = counts["Adapt answered"] + counts["Predict answered"]
    cancelled = counts["Adapt cancelled"] + counts["Predict cancelled"]
    assert not measured["problems"]
    assert not any(measured["left"].values())
    assert (
        f"| everything at once | {measured['minutes']:.0f} minutes: {answered:,} answers, "
        f"{cancelled:,} cancelled calls, {measured['found']['store']:,} adaptations that came back "
        f"from the store, {counts['migrations']} migrations, {counts['reloads']} reloads "
        "| every answer right, nothing left in memory, which grew by "
        f"{measured['growth'] / 1e6:.1f} MB a minute; {leaking['growth'] / 1e6:.0f} where nothing was deleted |" in PAGE
    )


def test_starts_went_well() -> None:
    measured = long_run("hostile/starts")
    assert measured["outcomes"] == {"well": measured["starts"]}
    assert f"| starts and stops, every third with killed workers | {measured['starts']} | no crash |" in PAGE


def test_workers_that_were_killed_were_replaced() -> None:
    measured = long_run("hostile/replacements")
    assert not any(server["problems"] for server in measured["servers"])
    assert all(abs(server["growth"]["descriptors"]) < 0.1 for server in measured["servers"])
    grew = [f"{each['growth']['resident_bytes'] / 1e3:.0f} kB" for each in measured["servers"]]
    counts = [each["replacements"] for each in measured["servers"]]
    assert (
        f"| workers killed under load and replaced | {measured['replacements']} | no crash, {measured['answers']:,} "
        f"answers, all right; no descriptor or mapping is left behind, and memory grew by {grew[0]} a kill over "
        f"{counts[0]} of them and by {grew[1]} over {counts[1]} |" in PAGE
    )


def test_what_copies_of_support_examples_gain_and_cost_is_that_measured() -> None:
    measured = results("support_policy")
    columns = [(name, shape) for name, own in measured.items() for shape in own if shape != "runs"]
    arms = list(measured["protonet"]["5w1s"])
    for arm in arms:
        figures = [measured[name][shape].get(arm) for name, shape in columns]
        cells = [
            "" if each is None else accuracy_of_mean(each[what], sign)
            for each in figures
            for what, sign in [("accuracy", "") if arm == "none" else ("over_none", "+")]
        ]
        assert f"| {arm} | {' | '.join(cells)} |".replace("  ", " ") in PAGE
    for name, shape in columns:
        runs = measured[name]["runs"]
        without, with_copies = measured[name][shape]["learned"]["adapt_ms"]
        times = [f"{runs[arm]['training_s']:.0f} s" for arm in ("none", "learned")]
        assert f"| `{name}`, {shape} | {without:.1f} ms | {with_copies:.1f} ms | {' | '.join(times)} |" in PAGE
        learned = measured[name][shape]["learned"]
        assert f"{accuracy_of_mean(learned['over_fixed'], '+')} above copies of fixed strengths at {shape}" in PAGE
        if name == "protonet":
            assert re.search(
                rf"theirs by .*{re.escape(accuracy_of_mean(learned['over_as_long'], '+'))} at {shape}", PAGE
            )
        else:
            assert f"differ from `none` by {accuracy_of_mean(learned['over_none'], '+')}," in PAGE
    for name, arm in (("protonet", "learned"), ("protonet", "learned from harmful"), ("maml", "learned")):
        first, second = measured[name]["runs"][arm]["count"]
        assert f"count {first:.2f} and {second:.2f}" in PAGE


def test_how_sure_answers_are_is_that_measured() -> None:
    measured = results("answers")
    regression = measured.pop("maml-sinusoid")
    for name, shapes in measured.items():
        method, data = name.split("-")
        for shape, own in shapes.items():
            named = f"| `{method}`, {data}, {shape}"
            known, baseline = (f"{own[each][0]:.3f} ± {own[each][1]:.3f}" for each in ("separation", "baseline"))
            gain, interval = own["separation - baseline"]
            assert (
                f"{named} | {per_cent(own['accuracy'])}% | {known} | {baseline} | {gain:+.3f} ± {interval:.3f} | "
                f"{per_cent(own['false_alarms'])}% |" in PAGE
            )
            sets = [f"{per_cent(own[f'coverage at {c}%'])}%, {own[f'size at {c}%'][0]:.2f}" for c in (90, 95, 99)]
            errors = [per_cent(own[each]) for each in ("error_before", "error_after")]
            assert f"{named} | {' | '.join([*errors, *sets])} |" in PAGE
            assert abs(own["control"][0] - 0.5) < 0.02
            assert all(abs(served - here) < 2e-5 for served, here in own.get("served", {}).values())
            assert own["candidates"]["boosted trees"] < own["candidates"]["three features"] + 0.002
    for shots, levels in regression.items():
        cells = [f"{per_cent(levels[c]['coverage'])}%, {levels[c]['width']:.1f}" for c in ("90%", "95%", "99%")]
        assert f"| {shots.split()[0]} | {' | '.join(cells)} |" in PAGE

    photos = [measured["protonet-small_photos"][shape] for shape in ("5w1s", "5w5s")]
    known = " and ".join(f"{own['validation']['accuracy'][0]:.0%}" for own in photos)
    missed = " and ".join(f"{90 - 100 * own['coverage at 90%'][0]:.1f}" for own in photos)
    assert f"the 12 classes that calibrate ({known})" in PAGE
    assert f"sets hold the truth too rarely by {missed} points" in PAGE


def per_cent(figure: list[float]) -> str:
    return f"{100 * figure[0]:.1f} ± {100 * figure[1]:.1f}"


def test_what_answers_cost_is_that_measured() -> None:
    cost = json.loads((ROOT / "benchmarks" / "answers" / "results.json").read_text())["cost"]
    for once in cost:
        ratios = (each["ratio"] for each in once.values())
        assert f"| {' | '.join(f'{ratio:.3f} ± {interval:.3f}' for ratio, interval in ratios)} |" in PAGE


def test_what_left_out_examples_do_for_sets_is_that_measured() -> None:
    measured = json.loads((ROOT / "benchmarks" / "answers" / "results.json").read_text())["left out"]
    for name, thresholds in measured.items():
        method, data = name.split("-")
        for threshold in thresholds:
            found = thresholds[threshold]["90%"]
            cells = [", ".join(f"{100 * coverage:.1f}%" for coverage, _ in found["coverages"]), f"{found['size']:.2f}"]
            cells += [f"{100 * found[fifth]:.1f}%" for fifth in ("hardest", "easiest")]
            assert f"| `{method}`, {data} | {threshold} | {' | '.join(cells)} |" in PAGE
    for level in ("90%", "95%"):
        for name in (each for each in measured if each.endswith(("omniglot", "glyphs"))):
            plain, shifted = (measured[name][threshold][level] for threshold in ("over tasks", "shifted"))
            assert 1 < shifted["size"] / plain["size"] < 1.035
            assert shifted["easiest"] - shifted["hardest"] < 0.75 * (plain["easiest"] - plain["hardest"])


def test_what_a_diagnosis_costs_is_that_measured() -> None:
    serving = " ".join((ROOT / "docs" / "serving.md").read_text().split())
    for method, said in (("protonet", "took {} to {} times as long"), ("anil", "and {} to {} times with `anil`")):
        models = [found for name, found in results("doubtful").items() if name.startswith(method)]
        ratios = [cost["ratio"] for found in models for cost in found["cost"].values()]
        assert said.format(f"{min(ratios):.1f}", f"{max(ratios):.1f}") in serving


def test_what_is_said_of_doubtful_examples_was_measured() -> None:
    for name, found in results("doubtful").items():
        method, source = name.split("-")
        model = f"`{method}`, {source}"
        for condition in (each for each in found if "wrong" in each):
            figures = found[condition]
            cells = [f"{figures[each][0]:.0%}" for each in ("precision", "recall")]
            cells.append(f"{figures['area'][0]:.3f}")
            accuracies = ["true labels", "doing nothing", "dropping the doubtful"]
            accuracies += ["dropping as many at random", "dropping the wrong"]
            cells += [f"{100 * figures[each][0]:.2f} ± {100 * figures[each][1]:.2f}" for each in accuracies]
            cells.append("{:+.2f} ± {:.2f}".format(*(100 * each for each in figures["gain"])))
            assert f"| {model} | {condition} | {' | '.join(cells)} |" in PAGE
        for shots, said in found["true labels"].items():
            cells = [f"{said[each][0]:.1%}" for each in ("interval holds", "accuracy above it", "width")]
            cells.append(f"{100 * said['expected - true'][0]:+.1f}")
            cells += [f"{said['doubtful'][0]:.1%}", f"{said['pairs named'][0]:.2f}"]
            assert f"| {model} | {shots} | {' | '.join(cells)} |" in PAGE
        named = found["one class under two names"]
        assert f"named in {named['named'][0]:.1%} of tasks with {model}" in PAGE
        for choice, chosen in found["suggestions"].items():
            cells = [f"{100 * chosen['rounds'][each]:.2f}" for each in (0, 1, 2, 3, 5, 10)]
            cells.append("{:+.2f} ± {:.2f}".format(*(100 * each for each in chosen["gain"])))
            assert f"| {model} | {choice} | {' | '.join(cells)} |" in PAGE
        for examples, cost in found["cost"].items():
            cells = [f"{cost['without']:.1f} ms", f"{cost['with']:.1f} ms", f"{cost['ratio']:.1f}x"]
            assert f"| {model} | {examples} | {' | '.join(cells)} |" in PAGE


def test_what_a_compiled_backbone_takes_in_training_is_that_measured() -> None:
    measured = json.loads((ROOT / "benchmarks" / "training" / "compiled.json").read_text())["results"]
    eager, compiled = (measured["protonet"][side] for side in ("eager", "compiled"))
    assert f"takes {compiled['cpu_seconds']:.2f} s of processor time instead of {eager['cpu_seconds']:.2f} s" in PAGE
    assert f"and the first one {compiled['first_step_cpu_seconds']:.0f} s (one thread" in PAGE
    assert f'"{measured["maml"]["failed"]}"' in PAGE


def test_what_training_tasks_are_made_of_changes_what_is_said() -> None:
    for method, sides in results("training_tasks").items():
        for side, figures in sides.items():
            cells = [f"{figures[name]:.1f}%" for name in ("5-way 1-shot", "20-way 1-shot")]
            cells += [
                f"{each['mean']:+.1f} ± {each['half_width']:.1f}" if (each := figures.get("gain", {}).get(name)) else ""
                for name in ("5-way 1-shot", "20-way 1-shot")
            ]
            row = f"| `{method}` | {side} | {' | '.join(cells)} | {figures['seconds']:.0f} s |"
            assert row.replace("|  |", "| |").replace("|  |", "| |") in PAGE


def test_the_best_models_of_omniglot_reach_what_is_said() -> None:
    for model, measured in results("records").items():
        rows = {
            "in process": [
                f"{each['accuracy']:.2f} ± {each['half_width']:.2f}" for each in measured["in process"].values()
            ],
            "served, the first 200 tasks": [f"{round(accuracy, 4):.2f}" for accuracy in measured["served"].values()],
            "in process, the same": [f"{round(accuracy, 4):.2f}" for accuracy in measured["same"].values()],
            "five views": [f"{each['accuracy']:.2f} ± {each['half_width']:.2f}" for each in measured["views"].values()],
            "gain of five views": gains_of_views(measured["views"], "gain"),
            "gain of five views of support examples": gains_of_views(measured["views"], "support"),
        }
        for label, cells in rows.items():
            assert f"| {model} | {label} | {' | '.join(cells)} |" in PAGE
        if "within" in measured:
            assert_what_is_said_within_one_alphabet(model, measured["within"])
        alike = measured["look_alikes"]
        cells = [f"{alike['errors']:.2f}%", f"{alike['pairs']:,}"]
        cells += [f"{alike[f'share of {most}']:.0f}%" for most in (50, 200)]
        assert f"| {model} | {' | '.join(cells)} |" in PAGE


def assert_what_is_said_within_one_alphabet(model: str, within: dict[str, Any]) -> None:
    for part, label in (("in process", "within one alphabet"), ("views", "within one alphabet, five views")):
        cells = [f"{each['accuracy']:.2f} ± {each['half_width']:.2f}" for each in within[part].values()]
        assert f"| {model} | {label} | | | {' | '.join(cells)} |" in PAGE
    cells = gains_of_views(within["views"], "support")
    row = f"| {model} | within one alphabet, gain of five views of support examples | | | {' | '.join(cells)} |"
    assert row in PAGE
    worst, best = (choose(within["by alphabet"].items(), key=lambda each: each[1]) for choose in (min, max))
    assert f"`{model}` has from {worst[1]:.1f}% ({worst[0]}) to {best[1]:.1f}% ({best[0]})" in PAGE


def gains_of_views(views: dict[str, dict[str, float]], which: str) -> list[str]:
    return [f"{each[which]:+.2f} ± {each[f'{which}_half_width']:.2f}" for each in views.values()]


def test_what_longer_training_gains_at_twenty_ways_is_that_measured() -> None:
    measured = json.loads((ROOT / "benchmarks/omniglot/budgets.json").read_text())["results"]
    for method, figures in measured.items():
        reached = {each["tasks"]: f"{each['transductive']:.1f}%" for each in figures["budgets"]}
        cells = [reached.get(tasks, "") for tasks in (2000, 4000, 8000)]
        thousands = figures["tasks_for_paper"] / 1000
        cells += [f"{figures['slope']:+.1f}", f"{figures['paper']}%", f"{thousands:.0f} thousand tasks"]
        assert f"| `{method}` | {' | '.join(cells)} |".replace("|  |", "| |") in PAGE
