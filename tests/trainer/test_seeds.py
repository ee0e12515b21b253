"""Random streams."""

import itertools

import torch

from innerloop_trainer.seeds import generator_for


def draw(seed: int, stream: str, position: int) -> list[float]:
    return torch.rand(4, generator=generator_for(seed, stream, position)).tolist()


def test_every_seed_stream_and_position_draws_other_numbers() -> None:
    uses = list(itertools.product((0, 1, 11), ("training", "evaluation"), (0, 1, 11)))
    assert len({tuple(draw(*use)) for use in uses}) == len(uses)


def test_the_same_use_draws_the_same_numbers_whatever_was_drawn_before() -> None:
    first = draw(3, "training", 7)
    torch.manual_seed(0)
    draw(3, "training", 6)
    assert draw(3, "training", 7) == first


def test_streams_stay_what_they_are() -> None:
    # Changing them would silently change the episodes behind every published figure.
    assert generator_for(0, "evaluation").initial_seed() == 6239267862622075623
    assert generator_for(1, "training", 2).initial_seed() == 759036396194881163
