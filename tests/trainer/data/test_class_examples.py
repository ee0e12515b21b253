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


def split(*sizes: int) -> ClassExamples:
    """A split whose images say which they are: pixels (class, example)."""
    pixels = [(index, example) for index, size in enumerate(sizes) for example in range(size)]
    images = np.array(pixels, dtype=np.uint8).reshape(-1, 1, 1, 2)
    names = tuple(f"class {index}" for index in range(len(sizes)))
    counts = np.array(sizes, dtype=np.int64)
    data = ExampleSet(names, counts, images, digest_arrays(counts, images))
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


def test_an_empty_split_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="toy, test split is empty"):
        split()
