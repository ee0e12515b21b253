"""BANKING77's intents by topic, as domains.

The data set has no topics. These are read off the names of its intents: TOPICS was written down before anything was
measured. An intent belongs to the first topic that has one of the words of its name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle, islice

from innerloop_trainer.data import ClassExamples, DataSource
from innerloop_trainer.data.example_set import ExampleSet

TOPICS: Mapping[str, frozenset[str]] = {
    "top-ups": frozenset({"top", "topping"}),
    "exchange": frozenset({"exchange", "currency", "currencies"}),
    "transfers": frozenset({"transfer", "beneficiary", "receiving"}),
    "cash": frozenset({"cash", "cheque", "atm", "swallowed"}),
    "payments": frozenset({"payment", "refund", "transaction", "charge"}),
    "accounts": frozenset({"identity", "funds", "account", "details", "passcode", "pin", "phone", "age", "country"}),
    "cards": frozenset({"card", "contactless", "mastercard", "pay"}),
}
"""Words of the names of each topic's intents; what comes first counts (`card_payment_wrong_exchange_rate`)."""

HELD_OUT = 2
"""Number of topics whose intents are for test."""


def topic_of(intent: str) -> str:
    """The topic of an intent.

    Raises:
        ValueError: no topic has a word of its name.
    """
    words = set(intent.lower().strip("?").split("_"))
    for topic, of_topic in TOPICS.items():
        if words & of_topic:
            return topic
    raise ValueError(f"no topic has a word of the intent {intent!r}")


def split_by_topic(source: DataSource, seed: int) -> tuple[ClassExamples, ClassExamples]:
    """All intents of a source in topics, which are domains: those to train on, and those of other topics for test.

    Args:
        source: source of intents; how it divides them does not count.
        seed: number of the run. Topics take turns for test in the order of the table, two in each run.
    """
    first, *others = source.train, source.validation, source.test
    if not isinstance(first, ClassExamples):
        raise TypeError("only classes have topics")
    joined = first.joined(*others)
    tested = list(islice(cycle(TOPICS), HELD_OUT * seed, HELD_OUT * (seed + 1)))

    def of_topics(topics: Sequence[str]) -> ClassExamples:
        without = [name for name in joined.names if topic_of(name) not in topics]
        return joined.without(without).with_inputs(_with_topics, source.input)

    return of_topics([topic for topic in TOPICS if topic not in tested]), of_topics(tested)


def _with_topics(data: ExampleSet) -> ExampleSet:
    return replace(data, domains=tuple(topic_of(name) for name in data.names))
