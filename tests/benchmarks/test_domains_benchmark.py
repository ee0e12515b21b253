"""The benchmark of domains: intents in topics, those for test never trained on."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from innerloop_trainer.data import DataSource, EpisodeShape, load_source

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "domains"
TOPIC_OF_INTENT = {
    "topping_up_by_card": "top-ups",
    "top_up_by_bank_transfer_charge": "top-ups",
    "card_payment_wrong_exchange_rate": "exchange",
    "fiat_currency_support": "exchange",
    "transfer_fee_charged": "transfers",
    "receiving_money": "transfers",
    "card_swallowed": "cash",
    "balance_not_updated_after_cheque_or_cash_deposit": "cash",
    "Refund_not_showing_up": "payments",
    "reverted_card_payment?": "payments",
    "lost_or_stolen_phone": "accounts",
    "terminate_account": "accounts",
    "lost_or_stolen_card": "cards",
    "apple_pay_or_google_pay": "cards",
}
"""Intents of BANKING77, two of each topic."""


@pytest.fixture(name="topics", scope="module")
def _topics() -> Iterator[ModuleType]:
    sys.path.insert(0, str(FOLDER))
    import topics  # type: ignore[import-not-found]

    sys.path.remove(str(FOLDER))
    yield topics
    del sys.modules["topics"]


@pytest.fixture(name="source", scope="module")
def _source(tmp_path_factory: pytest.TempPathFactory) -> DataSource:
    """Intents in a table with BANKING77's columns, three texts each."""
    file = tmp_path_factory.mktemp("banking77") / "train.csv"
    with file.open("w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["text", "category"])
        rows.writerows([f"Question {n}, about {intent}?", intent] for intent in TOPIC_OF_INTENT for n in range(3))
    return load_source(f"texts:{file.parent}?label=category")


def test_the_topic_of_an_intent_is_the_first_that_has_a_word_of_its_name(topics: ModuleType) -> None:
    assert {intent: topics.topic_of(intent) for intent in TOPIC_OF_INTENT} == TOPIC_OF_INTENT
    with pytest.raises(ValueError, match="weather_tomorrow"):
        topics.topic_of("weather_tomorrow")


def test_no_topic_is_both_trained_on_and_measured_and_each_is_measured_in_some_run(
    topics: ModuleType, source: DataSource
) -> None:
    measured = set()
    for seed in range(5):
        train, test = topics.split_by_topic(source, seed)
        assert {*train.names, *test.names} == set(TOPIC_OF_INTENT)
        for split in (train, test):
            assert split.data.domains == tuple(TOPIC_OF_INTENT[name] for name in split.names)
        assert not set(train.data.domains) & set(test.data.domains)
        assert len(set(test.data.domains)) == 2
        measured |= set(test.data.domains)
    assert measured == set(topics.TOPICS)


def test_the_intents_of_an_episode_are_of_one_topic(topics: ModuleType, source: DataSource) -> None:
    train, _ = topics.split_by_topic(source, 0)
    drawn = train.sample(EpisodeShape(ways=2, shots=1, queries=1), 5, torch.Generator().manual_seed(0))
    of_tasks = [{TOPIC_OF_INTENT[train.names[number]] for number in task.tolist()} for task in drawn.classes]
    assert all(len(of_task) == 1 for of_task in of_tasks)
    assert len(set.union(*of_tasks)) == 5
