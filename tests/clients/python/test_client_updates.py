"""Adaptations that learn other examples: with servers that keep the examples, and with one that keeps none."""

from contextlib import contextmanager
from itertools import chain

import grpc
import numpy as np
import pytest
from bundles import IMAGE, write_models
from forks import ServerProcess
from google.rpc.error_details_pb2 import ErrorInfo
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import Failure, bad_request, reason
from twins import collect, connect

from innerloop import (
    AdaptationNotFoundError,
    Client,
    DeadlineExceededError,
    ExamplesNotKeptError,
    InnerloopError,
    InvalidArgumentError,
    RevisionChangedError,
)
from innerloop.changes import Change, read_relabelling, read_removal
from innerloop.examples import Examples, Names
from innerloop.own_examples import OwnExamples, UnknownExampleError
from innerloop.recipe import make_recipe, make_support, read_answers
from innerloop.tensors import decode_tensor


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *IMAGE), np.uint8)


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """The address of a server that keeps examples, unless it is told not to."""
    folder = tmp_path_factory.mktemp("updates")
    models = write_models(folder / "models")
    with ServerProcess(models, store=f"sqlite:{folder / 'store'}", threads=1, lanes=1) as running:
        yield running.target


@pytest.fixture(params=["sync", "async"])
async def real(request, target):
    """A client of a real server."""
    client = connect(request.param, target)
    yield client
    await client.close()


def kept_or_not(test):
    """Runs a test with examples that the server keeps, and with some that only the client keeps."""
    return pytest.mark.parametrize("forget_examples", [False, True], ids=["kept", "forgotten"])(test)


async def listed(adaptation):
    return {each.id: each.label for each in await adaptation.examples()}


@kept_or_not
async def test_examples_come_and_go_whether_or_not_the_server_keeps_them(real, forget_examples):
    x = pictures(7)
    adaptation = await real.adapt("prototypes", x[:4], [1, 2, 1, 2], forget_examples=forget_examples)
    made = adaptation.id
    assert await adaptation.add(x[4:6], ["new", 1]) == (4, 5)
    assert adaptation.classes == (1, 2, "new")
    assert (await adaptation.predict(x[4:5])).labels == ["new"]
    await adaptation.relabel([5, 0], [2, "new"])
    await adaptation.relabel(classes={2: 3})
    await adaptation.remove([4], classes=[1])
    assert await adaptation.add(x[6:], [3]) == (6,)
    assert await listed(adaptation) == {0: "new", 1: 3, 3: 3, 5: 3, 6: 3}
    assert (adaptation.id, adaptation.info.revision) == (made, 6)
    at_once = await real.adapt("prototypes", x[[0, 1, 3, 5, 6]], ["new", 3, 3, 3, 3])
    query = pictures(3, seed=1)
    wanted, found = await at_once.predict(query), await adaptation.predict(query)
    assert wanted.labels == found.labels
    np.testing.assert_allclose([p.probability for p in found], [p.probability for p in wanted], rtol=1e-4, atol=1e-5)


@kept_or_not
async def test_targets_come_and_go(real, forget_examples):
    x = np.linspace(-1, 1, 6, dtype=np.float32)[:, None]
    adaptation = await real.adapt("regression", x[:4], targets=x[:4, 0], forget_examples=forget_examples)
    assert await adaptation.add(x[4:], targets=[7.0, 8.0]) == (4, 5)
    await adaptation.remove([0])
    await adaptation.relabel([4, 1], targets=[[0.5], [0.25]])
    found = [(each.id, float(each.target[0])) for each in await adaptation.examples()]
    assert found == [(1, 0.25), (2, pytest.approx(x[2, 0])), (3, pytest.approx(x[3, 0])), (4, 0.5), (5, 8.0)]


@kept_or_not
async def test_what_can_not_be_is_refused_and_leaves_the_examples_here_as_they_are(real, forget_examples):
    adaptation = await real.adapt("gradients", pictures(3), list("abc"), forget_examples=forget_examples)
    for call in (
        lambda: adaptation.remove([7]),
        lambda: adaptation.remove(classes=["a", "b"]),
        lambda: adaptation.remove(),
        lambda: adaptation.remove([-1]),
        lambda: adaptation.remove(["a"]),
        lambda: adaptation.relabel([0], ["a", "b"]),
        lambda: adaptation.relabel(),
        lambda: adaptation.relabel([0]),
        lambda: adaptation.add(pictures(2), ["x"]),
        lambda: adaptation.add(pictures(3), list("xyz")),
        lambda: adaptation.add(pictures(1), ["x"], expected_revision=0),
        lambda: adaptation.relabel(classes={"nothing": "x"}),
    ):
        with pytest.raises(InvalidArgumentError):
            await call()
    assert await listed(adaptation) == {0: "a", 1: "b", 2: "c"}
    assert await adaptation.add(pictures(2), list("de")) == (3, 4)


async def test_labels_that_read_alike_are_refused_across_updates_too(real):
    adaptation = await real.adapt("prototypes", pictures(2), [1, 2])
    with pytest.raises(InvalidArgumentError, match="both read '1'"):
        await adaptation.add(pictures(1), ["1"])


async def test_labels_and_targets_are_not_taken_for_each_other(real):
    curve = await real.adapt("regression", np.zeros((3, 1), np.float32), targets=[1.0, 2.0, 3.0])
    classes = await real.adapt("prototypes", pictures(2), ["a", "b"])
    for call in (
        lambda: curve.add(np.zeros((1, 1), np.float32), ["a"]),
        lambda: curve.relabel([0], ["a"]),
        lambda: classes.add(pictures(1), targets=[1.0]),
        lambda: classes.relabel([0], targets=[1.0]),
    ):
        with pytest.raises(InvalidArgumentError, match="the examples before have"):
            await call()


async def test_several_changes_make_one_revision(real):
    adaptation = await real.adapt("prototypes", pictures(4), list("abcd"))
    changes = {"remove": [0], "remove_classes": ["b"], "relabel": {2: "x"}, "rename": {"d": "y"}}
    assert await adaptation.update(pictures(1), ["z"], **changes) == (4,)
    assert await listed(adaptation) == {2: "x", 3: "y", 4: "z"}
    assert await adaptation.update(remove=[4], expected_revision=2) == ()
    assert adaptation.info.revision == 3
    for nonsense in ({}, {"labels": ["a"]}):
        with pytest.raises(InvalidArgumentError):
            await adaptation.update(**nonsense)
    curve = await real.adapt("regression", np.zeros((3, 1), np.float32), targets=[1.0, 2.0, 3.0])
    await curve.update(relabel={1: 5.0})
    assert [float(each.target[0]) for each in await curve.examples()] == [1.0, 5.0, 3.0]


async def test_another_revision_than_expected_is_told(real):
    adaptation = await real.adapt("prototypes", pictures(2), ["a", "b"])
    await adaptation.add(pictures(1), ["c"], expected_revision=1)
    with pytest.raises(RevisionChangedError) as refused:
        await adaptation.add(pictures(1), ["c"], expected_revision=1)
    assert refused.value.revision == 2


async def test_who_only_looked_it_up_updates_what_the_server_keeps(real):
    made = await real.adapt("prototypes", pictures(2), ["a", "b"])
    found = await real.get_adaptation(made.id)
    assert await found.add(pictures(1), ["c"]) == (2,)
    assert await listed(found) == {0: "a", 1: "b", 2: "c"}
    forgotten = await real.adapt("gradients", pictures(2), ["a", "b"], forget_examples=True)
    found = await real.get_adaptation(forgotten.id)
    for call in (lambda: found.add(pictures(1), ["c"]), lambda: found.examples()):
        with pytest.raises(ExamplesNotKeptError, match="`support`"):
            await call()


async def test_a_lost_adaptation_learns_more_and_its_examples_keep_the_names_that_the_caller_knows(real):
    adaptation = await real.adapt("prototypes", pictures(4), list("abcd"))
    await adaptation.remove([0])
    lost = adaptation.id
    await real.delete_adaptation(lost)
    assert await adaptation.add(pictures(1, seed=1), ["e"]) == (4,)
    assert adaptation.id != lost
    assert await listed(adaptation) == {1: "b", 2: "c", 3: "d", 4: "e"}
    await adaptation.remove([2])
    await adaptation.relabel([3], ["x"])
    assert await adaptation.add(pictures(1, seed=2), ["f"]) == (5,)
    assert await listed(adaptation) == {1: "b", 3: "x", 4: "e", 5: "f"}
    with pytest.raises(InvalidArgumentError, match="no example 2"):
        await adaptation.remove([2])
    await real.delete_adaptation(adaptation.id)
    assert (await adaptation.predict(pictures(1, seed=2))).labels == ["f"], "made again with all of that"


async def test_examples_that_somebody_else_changed_are_not_adapted_to_in_part(real):
    adaptation = await real.adapt("prototypes", pictures(2), ["a", "b"])
    other = await real.get_adaptation(adaptation.id)
    await other.add(pictures(1, seed=1), ["c"])
    assert await adaptation.add(pictures(1, seed=2), ["d"]) == (3,)
    assert await listed(adaptation) == {0: "a", 1: "b", 2: "c", 3: "d"}
    await adaptation.remove([2])
    await real.delete_adaptation(adaptation.id)
    with pytest.raises(AdaptationNotFoundError):
        await adaptation.predict(pictures(1))


async def test_what_somebody_else_has_taught_is_not_replaced_by_examples_without_it(real):
    adaptation = await real.adapt("prototypes", pictures(2), ["a", "b"], forget_examples=True)
    other = await real.get_adaptation(adaptation.id)
    await other.add(pictures(1, seed=1), ["c"])
    with pytest.raises(RevisionChangedError):
        await adaptation.relabel(classes={"a": "x"})
    with pytest.raises(ExamplesNotKeptError):
        await adaptation.relabel(classes={"a": "x"})
    assert (await real.get_adaptation(adaptation.id)).classes == ("a", "b", "c")


async def test_all_examples_are_sent_to_a_revision_that_has_the_same_ones(client, server):
    adaptation = await client.adapt("grey", np.zeros((2, 28, 28), np.uint8), ["a", "b"])
    moved = ErrorInfo(reason="REVISION_CHANGED", domain="innerloop", metadata={"revision": "7"})
    server.script(
        "UpdateAdaptation",
        Failure(grpc.StatusCode.FAILED_PRECONDITION, "too large by now", (reason("EXAMPLES_NOT_KEPT"),)),
        Failure(grpc.StatusCode.ABORTED, "moved", (moved,)),
    )
    await adaptation.relabel([1], ["c"])
    last = server.requests("UpdateAdaptation")[-1]
    assert (list(last.support.labels.values), last.expected_revision) == (["a", "c"], 7)


async def test_examples_of_another_form_are_refused_while_the_client_keeps_them(real, tmp_path):
    from PIL import Image

    Image.fromarray(pictures(1)[0, 0]).save(tmp_path / "a.png")
    adaptation = await real.adapt("prototypes", pictures(2), ["a", "b"])
    with pytest.raises(InvalidArgumentError, match="readapt=False"):
        await adaptation.add([tmp_path / "a.png"], ["c"])
    found = await real.get_adaptation(adaptation.id)
    assert await found.add([tmp_path / "a.png"], ["c"]) == (2,)


async def test_a_stream_goes_on_when_the_classes_change(real, target):
    adaptation = await real.adapt("prototypes", pictures(2), ["a", "b"])
    other = await real.get_adaptation(adaptation.id)
    asked = []

    def queries():
        for n in range(120):
            if n == 40:
                with Client(target) as changing:
                    changing.get_adaptation(adaptation.id).relabel(classes={"a": "z"})
            asked.append(n)
            yield pictures(2)

    answers = await collect(adaptation.predict_stream(queries()))
    labels = [answer.labels for answer in answers]
    assert len(labels) == 120
    assert set(map(tuple, labels)) == {("a", "b"), ("z", "b")}
    assert labels[-1] == ["z", "b"]
    assert (await other.predict(pictures(2))).labels == ["z", "b"]


async def test_an_update_whose_answer_is_lost_is_asked_for_again_under_the_same_request_id(client, server):
    adaptation = await client.adapt("grey", np.zeros((2, 28, 28), np.uint8), ["a", "b"])
    server.script("UpdateAdaptation", *[Failure(grpc.StatusCode.UNAVAILABLE)] * 2)
    assert await adaptation.add(np.zeros((1, 28, 28), np.uint8), ["c"]) == (2,)
    requests = server.requests("UpdateAdaptation")
    assert (len(requests), len({request.request_id for request in requests})) == (3, 1)
    await adaptation.remove([2])
    assert server.requests("UpdateAdaptation")[-1].request_id != requests[0].request_id


async def test_an_update_whose_answer_never_came_is_repeated_under_its_request_id(client, server):
    adaptation = await client.adapt("grey", np.zeros((2, 28, 28), np.uint8), ["a", "b"])
    x = np.zeros((1, 28, 28), np.uint8)
    for code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL):
        server.script("UpdateAdaptation", Failure(code))
        with pytest.raises(InnerloopError):
            await adaptation.add(x, ["c"])
    server.script("UpdateAdaptation", bad_request("remove_examples", "names examples that are not there"))
    with pytest.raises(InvalidArgumentError):
        await adaptation.remove([7])
    await adaptation.add(x, ["c"])
    await adaptation.add(x, ["c"])
    first, second, removal, repeated, meant = server.requests("UpdateAdaptation")
    assert first == second == repeated
    assert len({first.request_id, removal.request_id, meant.request_id}) == 3


@contextmanager
def losing_answers(adaptation, arrives=True):
    """Updates whose answers have never come: the next one's does not as long as the list is empty.

    With `arrives=False` the server does not get it either, and it is one with all examples.
    """
    core = adaptation._core.core
    ask, lost = core.call, []

    def lose_answers(call, deadline):
        loses = not lost and call.method == "UpdateAdaptation" and (arrives or call.request.HasField("support"))
        answer = None if loses and not arrives else (yield from ask(call, deadline))
        if loses:
            lost.append(call)
            raise DeadlineExceededError("the answer never came")
        return answer

    core.call = lose_answers
    try:
        yield lost
        assert lost
    finally:
        core.call = ask


@kept_or_not
async def test_an_update_that_was_carried_out_before_its_answer_was_lost_happens_once(real, forget_examples):
    adaptation = await real.adapt("prototypes", pictures(3), ["a", "b", "b"], forget_examples=forget_examples)
    with losing_answers(adaptation) as lost:
        for change in (lambda: adaptation.relabel([1], ["a"]), lambda: adaptation.add(pictures(1, seed=1), ["c"])):
            lost.clear()
            with pytest.raises(DeadlineExceededError):
                await change()
            await change()
    assert adaptation.info.revision == 3
    assert await listed(adaptation) == {0: "a", 1: "a", 2: "b", 3: "c"}
    assert (await real.get_adaptation(adaptation.id)).info.support_size == 4


async def test_another_update_after_one_whose_answer_was_lost_builds_on_it(real):
    adaptation = await real.adapt("gradients", pictures(3), ["a", "b", "b"], forget_examples=True)
    with losing_answers(adaptation):
        with pytest.raises(DeadlineExceededError):
            await adaptation.add(pictures(1, seed=1), ["c"])
        await adaptation.relabel([1], ["a"])
    assert await adaptation.add(pictures(1, seed=2), ["d"]) == (4,)
    assert adaptation.info.revision == 4
    assert await listed(adaptation) == {0: "a", 1: "a", 2: "b", 3: "c", 4: "d"}
    assert (await real.get_adaptation(adaptation.id)).info.support_size == 5


async def test_a_lost_update_is_not_made_up_for_where_somebody_else_has_changed_the_examples(real):
    adaptation = await real.adapt("gradients", pictures(2), ["a", "b"], forget_examples=True)
    other = await real.adapt("gradients", pictures(2), ["a", "b"], forget_examples=True)
    other._core.info = adaptation.info
    with losing_answers(adaptation, arrives=False):
        with pytest.raises(DeadlineExceededError):
            await adaptation.add(pictures(1, seed=1), ["c"])
        await other.relabel([0], ["z"])
        with pytest.raises(RevisionChangedError):
            await adaptation.relabel([1], ["a"])
    assert (await real.get_adaptation(adaptation.id)).classes == ("b", "z")


async def test_a_file_that_an_update_can_not_read_is_named(client, server, tmp_path):
    (tmp_path / "cat.png").write_bytes(b"content")
    adaptation = await client.adapt("grey", [tmp_path / "cat.png"] * 2, ["a", "b"])
    server.script("UpdateAdaptation", bad_request("add.inputs.images.files[0]", "is damaged"))
    with pytest.raises(InvalidArgumentError, match=r"cat\.png': is damaged"):
        await adaptation.add([tmp_path / "cat.png"], ["a"])


EXAMPLES = st.lists(st.sampled_from("abc"), min_size=1, max_size=4)


@given(
    first=EXAMPLES, steps=st.lists(st.tuples(EXAMPLES, st.randoms(use_true_random=False)), max_size=4), data=st.data()
)
def test_the_clients_own_examples_follow_every_change(first, steps, data):
    form = data.draw(st.sampled_from(["tensor", "texts", "images", "targets"]))
    numbers = iter(range(1000))

    def support(labels):
        count = [next(numbers) for _ in labels]
        values = {
            "tensor": np.array(count, np.uint8)[:, None],
            "texts": [f"text {n}" for n in count],
            "images": [b"%d" % n for n in count],
            "targets": np.array(count, np.float32)[:, None],
        }[form]
        examples = Examples(values, Names("support example"), "tensor" if form == "targets" else form)
        answers = (
            read_answers(None, [float(ord(x)) for x in labels]) if form == "targets" else read_answers(labels, None)
        )
        return examples, answers, dict(zip(count, labels, strict=True))

    examples, answers, known = support(first)
    own = OwnExamples.of(make_recipe("m", examples, answers, None, None, False))
    plain = dict(enumerate(known.items()))
    for labels, chance in steps:
        examples, answers, more = support(labels)
        removed = chance.sample(sorted(plain), min(1, len(plain)))
        change = Change(make_support(examples, answers), remove=tuple(removed))
        own, ids = own.changed(change, ())
        for each in removed:
            del plain[each]
        plain.update(zip(ids, more.items(), strict=True))
        relabelled = chance.choice(sorted(plain))
        given = (
            {"targets": [float(ord("z"))], "labels": None} if form == "targets" else {"targets": None, "labels": ["z"]}
        )
        own, _ = own.changed(read_relabelling([relabelled], classes=None, **given))
        plain[relabelled] = (plain[relabelled][0], "z")
        own = own.made_again()
    names = {each: label for each, (_, label) in plain.items()}
    found = {each.id: chr(int(each.target[0])) if form == "targets" else each.label for each in own.listed({})}
    assert found == names
    inputs = own.recipe.support.inputs
    wanted = [number for number, _ in plain.values()]
    if form in ("tensor", "targets"):
        assert decode_tensor(inputs.tensor)[:, 0].tolist() == wanted
    else:
        sent = list(chain(inputs.texts.values, inputs.images.files))
        assert sent == [f"text {n}" if form == "texts" else b"%d" % n for n in wanted]
    with pytest.raises(UnknownExampleError):
        own.changed(read_removal([1000], ()))
