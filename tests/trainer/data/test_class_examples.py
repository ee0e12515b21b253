from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop_learner.inputs import normalise
from innerloop_learner.spec import InputSpec
from innerloop_trainer.data import ClassExamples, DataError, EpisodeShape
from innerloop_trainer.data.class_digests import digest_arrays
from innerloop_trainer.data.example_set import ExampleSet

SPEC = InputSpec(shape=(1, 1, 2), dtype="uint8", mean=(0.5,), std=(0.5,), scale=1 / 255)


def split(*sizes: int, speakers: Sequence[int] | None = None) -> ClassExamples:
    """A split whose images say which they are: pixels (class, example), or (class, speaker) if there are speakers."""
    pixels = [(index, example) for index, size in enumerate(sizes) for example in range(size)]
    images = np.array(pixels, dtype=np.uint8).reshape(-1, 1, 1, 2)
    names = tuple(f"class {index}" for index in range(len(sizes)))
    counts = np.array(sizes, dtype=np.int64)
    data = ExampleSet(names, counts, images, digest_arrays(counts, images))
    if speakers is not None:
        images[:, 0, 0, 1] = speakers
        data = replace(data, speakers=np.array(speakers, dtype=np.int64))
    return ClassExamples("toy, test split", data, SPEC, torch.device("cpu"))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def splits_and_shapes(draw: st.DrawFn) -> tuple[tuple[int, ...], EpisodeShape]:
    sizes = draw(st.lists(st.integers(2, 9), min_size=1, max_size=7))
    examples = min(sizes)
    shots = draw(st.integers(1, examples - 1))
    queries = draw(st.integers(1, examples - shots))
    return tuple(sizes), EpisodeShape(draw(st.integers(1, len(sizes))), shots, queries)


@settings(max_examples=60, deadline=None)
@given(splits_and_shapes(), st.integers(1, 4), st.integers(0, 2**31))
def test_tasks_have_distinct_classes_distinct_examples_and_right_labels(
    case: tuple[tuple[int, ...], EpisodeShape], tasks: int, seed: int
) -> None:
    sizes, shape = case
    raw = split(*sizes).sample_raw(shape, tasks, seeded(seed))
    assert raw.support.shape == (tasks, shape.ways * shape.shots, 1, 1, 2)
    assert raw.query.shape == (tasks, shape.ways * shape.queries, 1, 1, 2)
    for task in range(tasks):
        classes = raw.classes[task].tolist()
        assert len(set(classes)) == shape.ways
        images = torch.cat([raw.support[task], raw.query[task]]).flatten(1).tolist()
        labels = torch.cat([raw.support_labels[task], raw.query_labels[task]]).tolist()
        assert len({tuple(image) for image in images}) == len(images)
        assert [image[0] for image in images] == [classes[label] for label in labels]
        assert all(example < sizes[index] for index, example in images)
        assert raw.support_labels[task].bincount().tolist() == [shape.shots] * shape.ways
        assert raw.query_labels[task].bincount().tolist() == [shape.queries] * shape.ways


def test_sample_is_sample_raw_normalised_with_nothing_masked() -> None:
    data, shape = split(6, 6, 6), EpisodeShape(2, 1, 3)
    raw = data.sample_raw(shape, 4, seeded(1))
    episodes = data.sample(shape, 4, seeded(1))
    torch.testing.assert_close(episodes.support.x, normalise(SPEC, raw.support), rtol=0, atol=0)
    torch.testing.assert_close(episodes.query.x, normalise(SPEC, raw.query), rtol=0, atol=0)
    assert torch.equal(episodes.support.y, raw.support_labels)
    assert torch.equal(episodes.targets, raw.query_labels)
    assert episodes.support.mask.all()
    assert episodes.query.mask.all()
    assert episodes.support.ways.tolist() == [2, 2, 2, 2]
    assert episodes.support.max_ways == 2


def test_equal_seeds_draw_equal_tasks_whatever_was_drawn_before_and_leave_the_global_generator_alone() -> None:
    data, shape = split(*[8] * 20), EpisodeShape(5, 2, 3)
    first = data.sample_raw(shape, 3, seeded(7))
    data.sample(shape, 2, seeded(8))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = data.sample_raw(shape, 3, seeded(7))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.support, again.support)
    assert torch.equal(first.query, again.query)
    assert not torch.equal(first.support, data.sample_raw(shape, 3, seeded(8)).support)


def test_classes_labels_and_examples_are_drawn_evenly_though_classes_differ_in_size() -> None:
    sizes, tasks = (3, 6, 12, 4), 6000
    raw = split(*sizes).sample_raw(EpisodeShape(2, 1, 1), tasks, seeded(0))
    at_label = torch.nn.functional.one_hot(raw.classes, 4).sum(0)  # [2, 4]
    torch.testing.assert_close(at_label / tasks, torch.full((2, 4), 1 / 4), rtol=0, atol=0.03)
    support = raw.support.reshape(-1, 2)
    for index, size in enumerate(sizes):
        examples = support[support[:, 0] == index, 1].long().bincount(minlength=size)
        torch.testing.assert_close(examples / examples.sum(), torch.full((size,), 1 / size), rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("sizes", "shape", "message"),
    [
        ((5, 5), EpisodeShape(3, 1, 1), r"toy, test split has 2 classes, too few for 3 ways; lower --ways to 2"),
        (
            (5, 3, 5),
            EpisodeShape(2, 1, 3),
            r"class 'class 1' has 3 examples, but 4 .*1 shots and 3 queries; lower",
        ),
        ((2, 5, 3, 1), EpisodeShape(2, 1, 3), r"class 'class 0' has 2 examples.*\(2 more classes have too few\)"),
        ((5, 5), EpisodeShape(2, 0, 1), r"--ways 2 --shots 0 --queries 1 won't do"),
        ((5, 5), EpisodeShape(0, 1, 1), r"--ways 0"),
        ((5, 5), EpisodeShape(2, 1, 0), r"--queries 0"),
    ],
)
def test_tasks_that_the_split_cannot_give_are_refused_with_what_to_change(
    sizes: tuple[int, ...], shape: EpisodeShape, message: str
) -> None:
    data = split(*sizes)
    with pytest.raises(DataError, match=message):
        data.check(shape)
    with pytest.raises(DataError, match=message):
        data.sample(shape, 1, seeded(0))


def test_no_tasks_are_drawn_from_an_empty_split() -> None:
    with pytest.raises(DataError, match="toy, test split has no classes"):
        split().sample(EpisodeShape(1, 1, 1), 1, seeded(0))


def test_tasks_without_speakers_are_those_that_they_always_were() -> None:
    raw = split(9, 9, 9).sample_raw(EpisodeShape(3, 1, 2), 1, seeded(0))
    assert raw.classes.tolist() == [[1, 0, 2]]
    assert raw.support.flatten(2).tolist() == [[[1, 4], [0, 5], [2, 5]]]
    assert raw.query.flatten(2).tolist() == [[[1, 2], [1, 6], [0, 4], [0, 8], [2, 0], [2, 2]]]


@st.composite
def speakers_of_classes(draw: st.DrawFn) -> tuple[tuple[int, ...], list[int], EpisodeShape]:
    """Sizes of classes, the speaker of each example, and a shape of tasks."""
    sizes = draw(st.lists(st.integers(4, 30), min_size=1, max_size=6))
    number = draw(st.integers(1, 8))
    speakers = draw(st.lists(st.integers(0, number - 1), min_size=sum(sizes), max_size=sum(sizes)))
    shape = EpisodeShape(draw(st.integers(1, len(sizes))), draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    return tuple(sizes), speakers, shape


@settings(max_examples=25, deadline=None)
@given(speakers_of_classes(), st.integers(0, 2**31))
def test_no_speaker_is_on_both_sides_of_a_task_or_the_split_is_refused(
    case: tuple[tuple[int, ...], list[int], EpisodeShape], seed: int
) -> None:
    sizes, speakers, shape = case
    data = split(*sizes, speakers=speakers)
    try:
        data.check(shape)
    except DataError:
        with pytest.raises(DataError):
            data.sample(shape, 1, seeded(seed))
        return
    raw = data.sample_raw(shape, 5, seeded(seed))
    for task in range(5):
        support, query = raw.support[task].flatten(1), raw.query[task].flatten(1)
        assert not set(support[:, 1].tolist()) & set(query[:, 1].tolist())
        classes = raw.classes[task]
        assert support[:, 0].tolist() == classes[raw.support_labels[task]].tolist()
        assert query[:, 0].tolist() == classes[raw.query_labels[task]].tolist()


def test_every_speaker_is_on_each_side_in_turn() -> None:
    speakers = list(range(6)) * 4
    raw = split(12, 12, speakers=speakers).sample_raw(EpisodeShape(2, 1, 1), 3000, seeded(0))
    for side in (raw.support, raw.query):
        shares = side[..., 1].flatten().long().bincount(minlength=6) / side[..., 1].numel()
        torch.testing.assert_close(shares, torch.full((6,), 1 / 6), rtol=0, atol=0.03)


def test_classes_with_two_speakers_each_are_divided_though_hardly_any_division_serves_all() -> None:
    sizes, speakers = (2,) * 10, [speaker for row in range(10) for speaker in (row, (row + 1) % 10)]
    raw = split(*sizes, speakers=speakers).sample_raw(EpisodeShape(5, 1, 1), 20, seeded(0))
    for task in range(20):
        assert not set(raw.support[task, :, 0, 0, 1].tolist()) & set(raw.query[task, :, 0, 0, 1].tolist())


def test_a_class_by_one_speaker_is_refused_by_name() -> None:
    data = split(4, 4, speakers=[0, 0, 1, 1, 2, 2, 2, 2])
    with pytest.raises(
        DataError, match=r"class 'class 1' has 4 examples by 1 speaker, but 1 for the support .* add sp"
    ):
        data.check(EpisodeShape(2, 1, 1))


def test_splits_become_one_unless_their_speakers_would_tell_their_classes_apart() -> None:
    joined = split(2, 3, speakers=[0, 1, 0, 1, 1]).joined(split(4, speakers=[1, 0, 1, 0]))
    assert joined.names == ("class 0", "class 1", "class 0")
    joined.check(EpisodeShape(3, 1, 1))
    with pytest.raises(DataError, match=r"voices would tell classes apart; read the data with \?test_speakers=0"):
        split(4, speakers=[0, 1, 0, 1]).joined(split(4, speakers=[2, 3, 2, 3]))


def test_wrong_labels_are_those_of_other_classes_and_classes_keep_their_sizes() -> None:
    shape = EpisodeShape(ways=4, shots=5, queries=2, wrong_labels=0.4)
    raw = split(*[9] * 6).sample_raw(shape, 200, seeded(0))
    truth = raw.support[:, :, 0, 0, 0].long()  # [T, S], the class of the split that each example is of
    named = raw.classes.gather(1, raw.support_labels)
    assert torch.equal(raw.classes.gather(1, raw.query_labels), raw.query[:, :, 0, 0, 0].long())
    wrong = truth != named
    counts = torch.stack([((raw.support_labels == label) & wrong).sum(1) for label in range(4)], 1)  # [T, W]
    assert (counts == counts[:, :1]).all()
    assert sorted(set(counts[:, 0].tolist())) == [0, 1, 2]
    for labels, own, told in zip(raw.support_labels.tolist(), truth, named, strict=True):
        assert list(dict.fromkeys(labels)) == [0, 1, 2, 3]
        assert sorted(labels) == sorted([0, 1, 2, 3] * 5)
        assert torch.equal(own.bincount(minlength=6), told.bincount(minlength=6))
