"""The ONNX Runtime engine: a batch gives what each request alone gives, wherever task states lie."""

import gc
import hashlib
import json
import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from bundles import IMAGE, PROTOTYPES, REGRESSION, a_calibration, write_bundle
from onnx_bundles import (
    ADAPT_CLASSES,
    ADAPT_CURVES,
    CLASSES,
    CURVES,
    PREDICT_CLASSES,
    PREDICT_CURVES,
    class_logits,
    line_values,
    write_onnx_bundle,
    write_onnx_models,
)

from innerloop_learner import run_limit
from innerloop_learner.manifest import digest_of
from innerloop_learner.self_contained import reach_of
from innerloop_learner.spec import InputSpec
from innerloop_server.domain.tasks import SupportSet
from innerloop_server.engine import query_chunks
from innerloop_server.engine.interface import AbandonedError, AdaptBatch, LoadError, MemoryFullError
from innerloop_server.engine.onnx.accelerator import Accelerator
from innerloop_server.engine.onnx.choose import choose_onnx_device
from innerloop_server.engine.onnx.engine import OnnxEngine, OnnxSettings
from innerloop_server.engine.onnx.host import HostDevice
from innerloop_server.engine.states import budget as state_budget

DEVICES = {
    "host": lambda: HostDevice(threads=1, lanes=2),
    # The code that keeps states on a GPU, with the host's memory in the part of the GPU's.
    "accelerator": lambda: Accelerator("cpu", 0, []),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_onnx_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(params=DEVICES)
def device(request):
    return DEVICES[request.param]()


@pytest.fixture
def engine(device):
    return OnnxEngine(OnnxSettings(), device)


def image_task(seed, ways, shots):
    random = np.random.default_rng(seed)
    x = random.integers(0, 256, (ways * shots, *IMAGE), dtype=np.uint8)
    return SupportSet(x, np.tile(np.arange(ways), shots), ways)


def curve_task(seed, shots):
    random = np.random.default_rng(seed)
    x = random.normal(size=(shots, 1)).astype(np.float32)
    return SupportSet(x, np.sin(x), 0)


def test_a_batch_of_unequal_tasks_is_answered_as_each_should_be(engine, folder):
    model = engine.load("classes", folder / "classes")
    tasks = [image_task(0, 5, 1), image_task(1, 3, 4), image_task(2, 8, 2)]
    queries = [np.concatenate([task.x, task.x])[: 3 + index] for index, task in enumerate(tasks)]
    adapted = model.adapt(tasks, 0, 8)
    assert [task.losses for task in adapted] == [(), (), ()]
    for task, query, answer in zip(
        tasks, queries, model.predict([each.state for each in adapted], queries), strict=True
    ):
        logits = class_logits(task.x, task.y, task.ways, query)
        np.testing.assert_allclose(answer.logits, logits, rtol=1e-4, atol=1e-4)
        exponents = np.exp(logits - logits.max(1, keepdims=True))
        np.testing.assert_allclose(
            answer.probabilities, exponents / exponents.sum(1, keepdims=True), rtol=1e-3, atol=1e-6
        )
        assert answer.finite


def test_a_model_has_the_calibration_of_its_bundle(engine, folder, tmp_path):
    shutil.copytree(folder / "classes", tmp_path / "sure")
    manifest = json.loads((tmp_path / "sure" / "manifest.json").read_text())
    manifest["calibration"] = a_calibration().to_json()
    manifest["digest"] = digest_of(manifest)
    (tmp_path / "sure" / "manifest.json").write_text(json.dumps(manifest))
    sure, plain = engine.load("sure", tmp_path / "sure"), engine.load("plain", folder / "classes")
    assert (sure.calibration, sure.description.calibrated) == (a_calibration(), True)
    assert (plain.calibration, plain.description.calibrated) == (None, False)


@pytest.mark.parametrize("steps", [1, 5])
def test_steps_are_the_requests_choice_and_their_losses_are_told(engine, folder, steps):
    model = engine.load("curves", folder / "curves")
    tasks = [curve_task(0, 5), curve_task(1, 10), curve_task(2, 1)]
    queries = [task.x[: 1 + index] for index, task in enumerate(tasks)]
    adapted = model.adapt(tasks, steps, 0)
    answers = model.predict([each.state for each in adapted], queries)
    for task, query, each, answer in zip(tasks, queries, adapted, answers, strict=True):
        values, losses = line_values(task.x, task.y, steps, query)
        np.testing.assert_allclose(answer.values, values, rtol=1e-4, atol=1e-5)
        assert each.losses == pytest.approx(losses, rel=1e-4)
        assert answer.logits is None


def test_no_steps_have_no_losses(engine, folder):
    (adapted,) = engine.load("curves", folder / "curves").adapt([curve_task(0, 5)], 0, 0)
    assert adapted.losses == ()


def test_states_of_several_batches_are_answered_in_one(engine, folder):
    model = engine.load("classes", folder / "classes")
    tasks = [image_task(seed, 4, 2) for seed in range(5)]
    states = [adapted.state for part in (tasks[:3], tasks[3:4], tasks[4:]) for adapted in model.adapt(part, 0, 4)]
    assert len({state.signature for state in states}) == 1
    order = [4, 1, 3, 0, 2]
    answers = model.predict([states[index] for index in order], [tasks[index].x for index in order])
    for index, answer in zip(order, answers, strict=True):
        task = tasks[index]
        np.testing.assert_allclose(answer.logits, class_logits(task.x, task.y, 4, task.x), rtol=1e-4, atol=1e-4)


def test_states_of_other_shapes_are_told_apart(engine, folder):
    model = engine.load("classes", folder / "classes")
    signatures = [model.adapt([image_task(0, ways, 1)], 0, 8)[0].state.signature for ways in (3, 4, 3)]
    assert signatures[0] == signatures[2] != signatures[1]


def test_queries_answered_in_chunks_are_answered_as_in_one(engine, folder, monkeypatch):
    model = engine.load("classes", folder / "classes")
    tasks = [image_task(seed, 5, 2) for seed in range(3)]
    states = [adapted.state for adapted in model.adapt(tasks, 0, 8)]
    queries = [task.x[: 4 + index] for index, task in enumerate(tasks)]
    whole = model.predict(states, queries)
    monkeypatch.setattr(query_chunks, "EXAMPLES_AT_ONCE", 7)
    for part, expected in zip(model.predict(states, queries), whole, strict=True):
        np.testing.assert_allclose(part.logits, expected.logits, rtol=1e-5, atol=1e-5)


def test_floats_in_raw_units_answer_as_uint8_does(engine, folder):
    model, task = engine.load("classes", folder / "classes"), image_task(0, 3, 2)
    as_floats = SupportSet(task.x.astype(np.float32), task.y, task.ways)
    states = [model.adapt([version], 0, 4)[0].state for version in (task, as_floats)]
    queries = [task.x, task.x.astype(np.float32)]
    answers = [model.predict([state], [query])[0].logits for state, query in zip(states, queries, strict=True)]
    np.testing.assert_array_equal(*answers)


def test_a_state_takes_what_predicting_reads_and_frees_it_when_nothing_refers_to_it(engine, device, folder):
    model = engine.load("classes", folder / "classes")
    adapted = model.adapt([image_task(seed, 4, 1) for seed in range(8)], 0, 4)
    size = adapted[0].state.size_bytes
    assert size == 4 * 6 * 4 + 8, "class means and the number of ways, and not what nothing reads"
    assert engine.memory()[device.name, "states"] == 8 * size
    del adapted[2:]
    gc.collect()
    assert engine.memory()[device.name, "states"] == 2 * size
    assert engine.memory()["cpu", "resident"] > 2**20


def test_on_the_host_a_state_does_not_hold_the_memory_of_its_batch(folder):
    model = OnnxEngine(OnnxSettings(), HostDevice()).load("classes", folder / "classes")
    (state, *_) = [adapted.state for adapted in model.adapt([image_task(seed, 4, 1) for seed in range(8)], 0, 4)]
    assert all(array.base is None for array in state.place.tensors.values())


def test_on_an_accelerator_a_state_stays_where_graphs_run(folder):
    model = OnnxEngine(OnnxSettings(), Accelerator("cpu", 0, [])).load("classes", folder / "classes")
    task = image_task(0, 4, 1)
    for adapted in [*model.adapt([task], 0, 4), *model.adapt([task] * 3, 0, 4)]:
        values = adapted.state.place.tensors.values()
        assert all(isinstance(value, onnxruntime.OrtValue) and value.shape()[0] == 1 for value in values)


def test_what_an_accelerator_needs_must_be_there(folder):
    missing = Accelerator("cpu", 0, [("CUDAExecutionProvider", {})])
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("it is there")
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(LoadError, match="can't load"):
        OnnxEngine(OnnxSettings(), missing).load("classes", folder / "classes")


def test_states_that_do_not_fit_are_refused_and_those_that_are_there_stay(device, folder, monkeypatch):
    monkeypatch.setattr(state_budget, "LEAST_ROOM", 0)
    engine = OnnxEngine(OnnxSettings(state_bytes=2000), device)
    model, task = engine.load("classes", folder / "classes"), image_task(0, 4, 1)
    kept = [model.adapt([task], 0, 4)[0].state]
    before = model.predict(kept, [task.x])[0].logits
    with pytest.raises(MemoryFullError):
        model.adapt([task] * 64, 0, 4)
    assert engine.memory()[device.name, "states"] == kept[0].size_bytes
    np.testing.assert_array_equal(model.predict(kept, [task.x])[0].logits, before)


def test_states_that_left_the_device_for_the_host_answer_as_before(device, folder, monkeypatch):
    monkeypatch.setattr(state_budget, "LEAST_ROOM", 0)
    engine = OnnxEngine(OnnxSettings(state_bytes=1000, host_state_bytes=2**20), device)
    model, tasks = engine.load("classes", folder / "classes"), [image_task(seed, 4, 1) for seed in range(30)]
    states = [model.adapt([task], 0, 4)[0].state for task in tasks]
    memory, size = engine.memory(), states[0].size_bytes
    assert memory["host", "states"] + memory[device.name, "states"] == 30 * size
    assert memory["host", "states"] >= 19 * size
    for batch in (slice(0, 5), slice(10, 11), slice(3, 9)):
        for task, answer in zip(
            tasks[batch], model.predict(states[batch], [task.x for task in tasks[batch]]), strict=True
        ):
            np.testing.assert_allclose(answer.logits, class_logits(task.x, task.y, 4, task.x), rtol=1e-4, atol=1e-4)
    del states
    gc.collect()
    assert engine.memory()["host", "states"] == engine.memory()[device.name, "states"] == 0


def test_the_states_used_last_stay_on_the_device(device, folder, monkeypatch):
    monkeypatch.setattr(state_budget, "LEAST_ROOM", 0)
    engine = OnnxEngine(OnnxSettings(state_bytes=400, host_state_bytes=2**20), device)
    model, task = engine.load("classes", folder / "classes"), image_task(0, 4, 1)
    states = [model.adapt([task], 0, 4)[0].state for _ in range(4)]  # there is room for four
    model.predict(states[:1], [task.x])
    others = model.adapt([task], 0, 4)
    assert [state.place.on_device for state in states] == [True, False, True, True]
    del others


def test_many_threads_get_their_own_answers(engine, folder):
    model, failures = engine.load("classes", folder / "classes"), []

    def use(seed):
        for turn in range(10):
            task = image_task(100 * seed + turn, 4, 1 + turn % 3)
            (adapted,) = model.adapt([task], 0, 4)
            (answer,) = model.predict([adapted.state], [task.x])
            if not np.allclose(answer.logits, class_logits(task.x, task.y, 4, task.x), rtol=1e-4, atol=1e-4):
                failures.append(seed)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    gc.collect()
    assert not any(size for (_, kind), size in engine.memory().items() if kind == "states")


def test_preparing_tries_usual_batches_and_keeps_nothing(engine, folder):
    for name in ("classes", "curves"):
        engine.load(name, folder / name).prepare()
    gc.collect()
    assert not any(size for (_, kind), size in engine.memory().items() if kind == "states")


def test_preparing_tries_no_batches_for_which_there_is_no_room(folder, monkeypatch):
    monkeypatch.setattr(state_budget, "LEAST_ROOM", 0)
    device = Accelerator("cpu", 0, [])
    engine = OnnxEngine(OnnxSettings(state_bytes=1000), device)
    engine.load("classes", folder / "classes").prepare()
    assert len([graph for graph in device._graphs if graph[0] == "split"]) == 2, "of two and of four, not of eight"


def test_a_model_describes_itself_as_its_manifest_does_but_needs_all_examples_to_learn_more(engine, folder):
    classes, curves = (engine.load(name, folder / name).description for name in ("classes", "curves"))
    assert (classes.method, classes.input_dtype) == ("protonet", "uint8")
    assert CLASSES.extends
    assert (classes.traits, curves.traits) == (replace(CLASSES, extends=False), CURVES)


def test_a_bundle_without_graphs_is_refused_and_the_way_to_make_them_told(engine, tmp_path):
    write_bundle(tmp_path / "plain", PROTOTYPES)
    with pytest.raises(LoadError, match=r"plain: has no ONNX graphs.*`innerloop export plain --out DIR --onnx`"):
        engine.load("plain", tmp_path / "plain")


def test_a_bundle_whose_method_does_not_export_is_refused_with_the_reason(engine, folder):
    with pytest.raises(LoadError, match="refused: can't be served by ONNX Runtime: its memory has no end"):
        engine.load("refused", folder / "refused")


def test_an_altered_graph_is_refused(engine, tmp_path):
    write_onnx_models(tmp_path)
    file = tmp_path / "classes" / "adapt.onnx"
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(LoadError, match=r"classes: adapt\.onnx is truncated or altered"):
        engine.load("classes", tmp_path / "classes")


def test_graphs_that_are_not_of_one_learner_are_refused(engine, tmp_path):
    write_onnx_bundle(tmp_path / "mixed", PROTOTYPES, CLASSES, ADAPT_CLASSES, PREDICT_CURVES)
    with pytest.raises(LoadError, match=r"mixed: adapt\.onnx and predict\.onnx do not fit together"):
        engine.load("mixed", tmp_path / "mixed")


def test_a_graph_that_onnx_runtime_can_not_load_is_refused_without_its_inner_words(engine, tmp_path, capsys):
    write_onnx_models(tmp_path)
    bundle = tmp_path / "classes"
    _replace(bundle, "adapt.onnx", b"no graph")
    with pytest.raises(LoadError) as refused:
        engine.load(bundle.name, bundle)
    assert str(refused.value) == "classes: ONNX Runtime can't load its graphs; export it again"
    assert "graphs not loaded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spec", "graphs", "words"),
    [
        (replace(PROTOTYPES, input=InputSpec((1, 9, 9), "uint8")), CLASSES, "other inputs"),
        (replace(PROTOTYPES, input=InputSpec((1, 8, 8))), CLASSES, "other inputs"),
        (PROTOTYPES, replace(CLASSES, default_steps=1, max_steps=3), "no steps"),
    ],
    ids=["shape", "element type", "steps"],
)
def test_graphs_of_which_the_manifest_says_otherwise_are_refused(engine, tmp_path, spec, graphs, words):
    write_onnx_bundle(tmp_path / "mixed", spec, graphs, ADAPT_CLASSES, PREDICT_CLASSES)
    with pytest.raises(LoadError, match=f"mixed: .*takes {words}"):
        engine.load("mixed", tmp_path / "mixed")


def test_graphs_with_steps_of_which_the_manifest_knows_nothing_are_refused(engine, tmp_path):
    """They would serve what nothing was learned by."""
    graphs = replace(CURVES, default_steps=0, max_steps=0)
    write_onnx_bundle(tmp_path / "mixed", REGRESSION, graphs, ADAPT_CURVES, PREDICT_CURVES)
    with pytest.raises(LoadError, match=r"mixed: adapt\.onnx takes steps, but its manifest says otherwise"):
        engine.load("mixed", tmp_path / "mixed")


def test_a_graph_that_takes_tensors_from_files_of_the_server_is_refused(engine, tmp_path):
    """Answers would give away what is in them; ONNX Runtime lets graphs reach the folder that a server runs in."""
    write_onnx_models(tmp_path)
    stolen = onnx.TensorProto(name="stolen", data_type=onnx.TensorProto.FLOAT, data_location="EXTERNAL", dims=[4])
    stolen.external_data.add(key="location", value="pyproject.toml")
    model = onnx.load_from_string((tmp_path / "classes" / "adapt.onnx").read_bytes())
    model.graph.initializer.append(stolen)
    _replace(tmp_path / "classes", "adapt.onnx", model.SerializeToString())
    with pytest.raises(LoadError, match=r"classes: a graph of it takes tensors from other files"):
        engine.load("classes", tmp_path / "classes")


def test_a_graph_can_not_hide_that_by_writing_lengths_in_more_bytes_than_they_take():
    for length in (b"\x08", b"\x88\x00", b"\x88\x80\x80\x00"):
        assert reach_of(b"\x6a\x0a\x0a" + length + b"location")
    assert not reach_of(b"\x0a\x0aallocation")


def test_a_graph_that_holds_compiled_code_is_refused(engine, tmp_path):
    write_onnx_models(tmp_path)
    model = onnx.load_from_string((tmp_path / "classes" / "predict.onnx").read_bytes())
    model.graph.node.append(onnx.helper.make_node("EPContext", [], ["code"], domain="com.microsoft"))
    _replace(tmp_path / "classes", "predict.onnx", model.SerializeToString())
    with pytest.raises(LoadError, match="classes: a graph of it holds code compiled for a device"):
        engine.load("classes", tmp_path / "classes")


def test_only_the_onnx_format_is_read(engine, tmp_path):
    write_onnx_models(tmp_path)
    bundle, options = tmp_path / "classes", onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "adapt.ort")  # ONNX Runtime's own, which nobody checks
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession((bundle / "adapt.onnx").read_bytes(), options, providers=["CPUExecutionProvider"])
    _replace(bundle, "adapt.onnx", (tmp_path / "adapt.ort").read_bytes())
    with pytest.raises(LoadError, match="ONNX Runtime can't load its graphs"):
        engine.load(bundle.name, bundle)


ENDLESS = """    rounds = Constant<value = int64 {1000000000}>()
    go = Constant<value = bool {1}>()
    first = MatMul(turned, features)
    sums = Loop(rounds, go, first) <body = body (int64 number, bool on, float[T,W,6] a)
        => (bool on_still, float[T,W,6] b) {
        on_still = Identity(on)
        b = Add(a, a)
    }>
"""

WRONG = """sizes = Constant<value_ints=[7, 7, 6]>()
    state_means = Reshape(sums, sizes)"""


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("    sums = MatMul(turned, features)\n", ENDLESS, "classes: takes too long on a made-up task"),
        ("state_means = Div(sums, divisors)", WRONG, "classes: fails on a made-up task"),
        (
            "one = Constant<value_float=1.0>()",
            "one = Constant<value_float=nan>()",
            "classes: answers a made-up task with no finite numbers",
        ),
    ],
)
def test_a_model_is_tried_before_it_serves(engine, tmp_path, monkeypatch, old, new, why):
    monkeypatch.setattr(run_limit, "RUN_SECONDS", 0.3)
    adapt = ADAPT_CLASSES.replace(old, new)
    write_onnx_bundle(tmp_path / "classes", PROTOTYPES, CLASSES, adapt, PREDICT_CLASSES)
    model = engine.load("classes", tmp_path / "classes")
    started = time.monotonic()
    with pytest.raises(LoadError, match=why) as refused:
        model.prepare()
    assert time.monotonic() - started < 10
    assert "onnx" not in str(refused.value).lower()


def _replace(bundle, name, content):
    """Write a file of a bundle, with all digests right."""
    (bundle / name).write_bytes(content)
    data = json.loads((bundle / "manifest.json").read_text())
    data["files"][name] = hashlib.sha256(content).hexdigest()
    data["digest"] = digest_of(data)
    (bundle / "manifest.json").write_text(json.dumps(data))


def test_a_bad_bundle_is_refused_with_a_reason_free_of_paths(engine, tmp_path):
    with pytest.raises(LoadError) as refused:
        engine.load("missing", tmp_path / "missing")
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("name", ["cuda", "cuda:99"])
def test_a_device_that_onnx_runtime_can_not_use_is_refused(name, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(LoadError, match=f"can't use {name} here"):
        OnnxEngine(OnnxSettings(name))


def test_the_cpu_is_taken_where_there_is_no_gpu():
    assert choose_onnx_device("auto", None, 3).name in ("cpu", "cuda:0")
    assert choose_onnx_device("cpu", None, 3).lanes == 3


def test_a_graph_has_one_thread_where_there_are_lanes_and_the_threads_asked_for_where_there_is_one(folder):
    def threads(**settings):
        model = OnnxEngine(OnnxSettings("cpu", **settings)).load("classes", folder / "classes")
        return model._adapting.get_session_options().intra_op_num_threads

    assert threads(lanes=2, threads=3) == 1
    assert threads(lanes=1, threads=3) == 3


def test_an_inner_loop_ends_when_nobody_waits_for_it_any_more(engine, folder):
    model, left = engine.load("curves", folder / "curves"), threading.Event()
    leaving = threading.Timer(0.2, left.set)
    leaving.start()
    with pytest.raises(AbandonedError):
        model.compute(AdaptBatch([curve_task(0, 5)], 10**9, 0, abandoned=left.is_set), alone=True)
    assert left.is_set()
    after = model.compute(AdaptBatch([curve_task(0, 5)], 2, 0), alone=True)
    assert len(after.adapted[0].losses) == 2
