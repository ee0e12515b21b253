import numpy as np

from innerloop_trainer.data.class_digests import digest_arrays
from innerloop_trainer.data.class_split import shuffled
from innerloop_trainer.data.example_set import ExampleSet

COUNTS, PIXELS = np.array([1, 2, 1]), np.arange(4 * 9, dtype=np.uint8).reshape(4, 1, 3, 3)
IMAGES = ExampleSet(("a", "b", "c"), COUNTS, PIXELS, digest_arrays(COUNTS, PIXELS))


def test_selecting_classes_keeps_each_with_its_images_in_the_order_asked_for() -> None:
    chosen = IMAGES.select(["c", "b"])
    assert chosen.names == ("c", "b")
    assert chosen.counts.tolist() == [1, 2]
    assert chosen.digests == (IMAGES.digests[2], IMAGES.digests[1])
    np.testing.assert_array_equal(chosen.examples, IMAGES.examples[[3, 1, 2]])


def test_rotations_are_further_classes_of_the_same_images_turned() -> None:
    rotated = IMAGES.with_rotations()
    assert len(set(rotated.names)) == len(set(rotated.digests)) == 12
    assert rotated.digests[:3] == IMAGES.digests
    assert rotated.counts.tolist() == [1, 2, 1] * 4
    quarter = rotated.select(["b rotated by 90"]).examples
    half = rotated.select(["b rotated by 180"]).examples
    original = IMAGES.select(["b"]).examples
    np.testing.assert_array_equal(quarter, np.rot90(original, 1, axes=(2, 3)))
    np.testing.assert_array_equal(half, original[:, :, ::-1, ::-1])


def test_a_class_order_is_published_so_it_never_changes() -> None:
    assert shuffled("abcdef", 0) == ["f", "d", "a", "c", "b", "e"]


def test_a_class_order_depends_on_names_and_seed_alone_and_survives_a_further_class() -> None:
    names = [f"class {index}" for index in range(50)]
    order = shuffled(names, 0)
    assert sorted(order) == sorted(names)
    assert order == shuffled(reversed(names), 0)
    assert order != shuffled(names, 1)
    assert [name for name in shuffled([*names, "new"], 0) if name != "new"] == order
