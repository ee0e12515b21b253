"""Updates of adaptations: what they leave is what adapting at once gives, however they meet each other and the rest."""

import asyncio
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
import pytest
from bundles import GRADIENTS, IMAGE, PROTOTYPES, write_bundle
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from whole_server import ME, Server

from innerloop_learner import InputSpec
from innerloop_learner.encoders import pack_texts, unpack_texts
from innerloop_server.adaptations.parts import KeptParts
from innerloop_server.adaptations.recipe import ArrayBytes, Recipe
from innerloop_server.adaptations.record import AdaptationRecord
from innerloop_server.adaptations.sealing import seal, unseal_recipe, unseal_record
from innerloop_server.adaptations.stores.interface import Part
from innerloop_server.adaptations.stores.redis import RedisStore
from innerloop_server.adaptations.stores.sqlite import SqliteStore
from innerloop_server.domain.adaptations import KeepOptions
from innerloop_server.domain.callers import OwnerLimits
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import (
    AdaptationNotFoundError,
    AdaptationTooLargeError,
    DivergedError,
    InvalidRequestError,
    NotPortableError,
    OverloadedError,
    RevisionChangedError,
    StoreUnavailableError,
)
from innerloop_server.domain.examples import LabelledExamples
from innerloop_server.domain.tasks import AdaptTask, ExampleIds, PredictTask, SupportSet
from innerloop_server.domain.updates import Edits, SupportUpdate, UpdateOptions, UpdateTask
from innerloop_server.serving.changed_examples import changed_examples, joined_inputs
from innerloop_server.serving.rate_limits import RateLimits

MODELS = {"prototypes": PROTOTYPES, "gradients": GRADIENTS}
LABELS = "abcdefg"


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, IMAGE, np.uint8)


def change(add=(), **edits):
    """A change that adds examples, each a seed of its picture and a label."""
    x = np.array([picture(seed) for seed, _ in add], np.uint8).reshape(-1, *IMAGE)
    labels = tuple(label for _, label in add)
    nothing = np.zeros((0, 0), np.float32)
    return SupportUpdate(Edits(labels, **edits), x, np.zeros((len(add), 0), np.float32), nothing)


class Updating(Server):
    """A server whose adaptations are made of pictures by their seeds."""

    async def learn(self, model, examples, **options):
        served = await self.serving.model(ME, model)
        update = change(examples)
        kept = LabelledExamples(update.x, update.edits.labels, update.targets, ExampleIds.first(len(examples)))
        support, classes = kept.support(in_order=False)
        task = AdaptTask(served, support, classes, served.description.traits.default_steps, steps_chosen=False)
        return (await self.serving.adapt(ME, task, KeepOptions(0.0, **options), Deadline())).adaptation

    async def update(self, adaptation, update, request_id="", expected=0, most=100):
        model = await self.serving.model_of(ME, adaptation.id)
        options = UpdateOptions(request_id, request_id.encode(), expected, most)
        task = UpdateTask(model, adaptation.id, update, options)
        return await self.serving.update(ME, task, Deadline())

    async def listed(self, adaptation):
        found = await self.serving.examples(ME, adaptation.id, Deadline())
        return dict(zip(found.ids, found.labels, strict=True))


@pytest.fixture
def folder(tmp_path):
    for name, spec in MODELS.items():
        write_bundle(tmp_path / "models" / name, spec)
    write_bundle(tmp_path / "models" / "signs" / "1", PROTOTYPES, seed=1)
    write_bundle(tmp_path / "models" / "signs" / "2", PROTOTYPES, seed=2)
    return tmp_path / "models"


@pytest.fixture
async def start(folder, store, metrics):
    """Starts a server; several share the store."""
    started = []

    async def start(kept=store):
        server = Updating(folder, kept, metrics)
        started.append(server)
        await server.repository.load_all()
        return server

    yield start
    for server in started:
        await server.stop()


@dataclass
class Plain:
    """What the examples of an adaptation should be: by id, in the order in which they came."""

    examples: dict[int, tuple[int, str]] = field(default_factory=dict)
    next_id: int = 0
    revision: int = 1

    def add(self, examples):
        for example in examples:
            self.examples[self.next_id] = example
            self.next_id += 1

    @property
    def classes(self):
        return sorted({label for _, label in self.examples.values()})


def updates_machine(loop, server, store_path, metrics):
    class Updates(RuleBasedStateMachine):
        """Changes one adaptation of each model, and a list of its examples."""

        def run(self, call):
            return loop.run_until_complete(asyncio.wait_for(call, 20))

        @initialize(model=st.sampled_from(sorted(MODELS)))
        def begin(self, model):
            self.model, self.plain, self.seed = model, Plain(), 10
            first = [(0, "a"), (1, "b"), (2, "a")]
            self.made = self.run(server[0].learn(model, first))
            self.plain.add(first)

        def attempt(self, update, apply):
            """Do both, or, if it can't be, neither."""
            plain = Plain(dict(self.plain.examples), self.plain.next_id, self.plain.revision + 1)
            apply(plain)
            most = 5 if self.model == "gradients" else 32
            possible = 2 <= len(plain.classes) <= most and len(plain.examples) <= 12
            try:
                result = self.run(server[0].update(self.made, update, most=12))
            except InvalidRequestError:
                assert not possible
                return
            assert possible
            added = [each for each in plain.examples if each not in self.plain.examples]
            assert result.example_ids == tuple(added)
            self.plain = plain
            assert result.adaptation.revision == plain.revision
            assert list(result.adaptation.classes) == plain.classes
            assert result.adaptation.support_size == len(plain.examples)

        @rule(labels=st.lists(st.sampled_from(LABELS), min_size=1, max_size=3))
        def add(self, labels):
            examples = []
            for label in labels:
                self.seed += 1
                examples.append((self.seed, label))
            self.attempt(change(examples), lambda plain: plain.add(examples))

        @rule(chance=st.randoms(use_true_random=False), count=st.integers(1, 3))
        def remove(self, chance, count):
            gone = chance.sample(sorted(self.plain.examples), min(count, len(self.plain.examples)))
            self.attempt(change(remove=tuple(gone)), lambda plain: [plain.examples.pop(each) for each in gone])

        @rule(label=st.sampled_from(LABELS), to=st.sampled_from(LABELS))
        def rename(self, label, to):
            if label not in self.plain.classes:
                with pytest.raises(InvalidRequestError):
                    self.run(server[0].update(self.made, change(rename=((label, to),))))
                return

            def apply(plain):
                plain.examples = {
                    each: (seed, to if old == label else old) for each, (seed, old) in plain.examples.items()
                }

            self.attempt(change(rename=((label, to),)), apply)

        @rule(chance=st.randoms(use_true_random=False), to=st.sampled_from(LABELS))
        def relabel_and_remove_a_class(self, chance, to):
            each, label = chance.choice(sorted(self.plain.examples)), chance.choice(self.plain.classes)

            def apply(plain):
                seed, _ = plain.examples[each]
                stay = {known: value for known, value in plain.examples.items() if value[1] != label}
                plain.examples = {known: (seed, to) if known == each else value for known, value in stay.items()}

            update = change(relabel=(each,), new_labels=(to,), remove_classes=(label,))
            self.attempt(update, apply)

        @rule()
        def start_again(self):
            """A server that finds the file as the one before left it when it was killed."""

            async def again():
                await server[0].stop()
                await server[1].close()
                server[1] = SqliteStore(store_path, synchronous=False)
                await server[1].open()
                server[0] = Updating(server[0].folder, server[1], metrics)
                await server[0].repository.load_all()

            self.run(again())

        @invariant()
        def answers_are_those_of_adapting_at_once(self):
            if not hasattr(self, "made"):
                return
            listed = {each: label for each, (_, label) in self.plain.examples.items()}
            assert self.run(server[0].listed(self.made)) == listed
            assert list(self.run(server[0].listed(self.made))) == list(listed)
            at_once = self.run(server[0].learn(self.model, list(self.plain.examples.values())))
            wanted = self.run(server[0].predict(at_once))
            np.testing.assert_allclose(self.run(server[0].predict(self.made)), wanted, rtol=1e-3, atol=1e-3)

    return Updates


FEW = settings(max_examples=4, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=60, stateful_step_count=40)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("effort", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)])
def test_any_updates_leave_what_adapting_at_once_to_their_examples_gives(folder, tmp_path, metrics, effort):
    loop = asyncio.new_event_loop()

    async def begin():
        store = SqliteStore(tmp_path / "updates.sqlite", synchronous=False)
        await store.open()
        server = Updating(folder, store, metrics)
        await server.repository.load_all()
        return [server, store]

    server = loop.run_until_complete(begin())
    try:
        machine = updates_machine(loop, server, tmp_path / "updates.sqlite", metrics)
        run_state_machine_as_test(machine, settings=effort)
    finally:
        loop.run_until_complete(server[0].stop())
        loop.run_until_complete(server[1].close())
        loop.close()


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_of_updates_at_once_on_two_servers_of_a_store_none_is_lost(start, store, kind, request):
    if kind == "redis":
        store = RedisStore(request.getfixturevalue("redis").url)
        await store.open()
    store.shared = True
    first, second = await start(store), await start(store)
    made = await first.learn("prototypes", [(0, "a"), (1, "b")])
    done = await asyncio.gather(
        *((first, second)[n % 2].update(made, change([(n, f"new {n}")])) for n in range(10)),
        *((first, second)[n % 2].update(made, change([(7, "twin")])) for n in range(4)),
    )
    assert sorted(each.adaptation.revision for each in done) == [*range(2, 16)]
    assert sorted(each.example_ids[0] for each in done) == [*range(2, 16)], "equal ones count as often as they came"
    wanted = {0: "a", 1: "b"} | {each.example_ids[0]: f"new {n}" for n, each in enumerate(done[:10])}
    wanted |= {each.example_ids[0]: "twin" for each in done[10:]}
    assert await first.listed(made) == await second.listed(made) == wanted
    np.testing.assert_array_equal(await first.predict(made), await second.predict(made))
    await store.close()


async def test_the_same_request_on_two_servers_happens_once(start, store):
    store.shared = True
    servers = await start(), await start()
    made = await servers[0].learn("prototypes", [(0, "a"), (1, "b")])
    done = await asyncio.gather(*(servers[n % 2].update(made, change([(2, "c")]), request_id="once") for n in range(6)))
    assert {each.example_ids for each in done} == {(2,)}
    assert (await servers[0].serving.look(ME, made.id)).revision == 2


async def test_of_two_who_expect_the_same_revision_one_is_told_that_there_is_another(start):
    server = await start()
    made = await server.learn("prototypes", [(0, "a"), (1, "b")])
    both = await asyncio.gather(
        *(server.update(made, change([(n, "c")]), expected=1) for n in range(2)), return_exceptions=True
    )
    assert [type(each) for each in both].count(RevisionChangedError) == 1
    assert (await server.serving.look(ME, made.id)).revision == 2


async def test_whoever_predicts_meanwhile_gets_the_old_answers_or_the_new(start):
    server = await start()
    made = await server.learn("prototypes", [(0, "a"), (1, "b")])
    answers, over = [await server.answers(made)], False

    async def ask():
        while not over:
            answers.append(await server.answers(made))

    asking = [asyncio.create_task(ask()) for _ in range(3)]
    wanted = [answers[0]]
    for n in range(6):
        await server.update(made, change([(10 + n, f"new {n}")]))
        wanted.append(await server.answers(made))
    over = True
    await asyncio.gather(*asking)
    for classes, logits in answers:
        (same,) = [known for known in wanted if known[0] == classes]
        np.testing.assert_allclose(logits, same[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", ["prototypes", "gradients"])
async def test_examples_that_a_model_diverges_on_leave_an_adaptation_as_it_was(start, folder, monkeypatch, model):
    spec = {"prototypes": PROTOTYPES, "gradients": replace(GRADIENTS, settings={"steps": 1})}[model]
    write_bundle(folder / "points", replace(spec, input=InputSpec((2,), scale=100.0)))
    server = await start()
    served = await server.serving.model(ME, "points")
    support = SupportSet(np.float32([[0, 1], [1, 0]]), np.array([0, 1]), 2)
    steps = served.description.traits.default_steps
    task = AdaptTask(served, support, ("a", "b"), steps, steps_chosen=False)
    made = (await server.serving.adapt(ME, task, KeepOptions(0.0), Deadline())).adaptation
    before = await server.serving.predict(ME, PredictTask(served, made.id, support.x), Deadline())
    add = SupportUpdate(Edits(("c",)), np.full((1, 2), 3.4e38, np.float32), *[np.zeros((0, 0), np.float32)] * 2)
    for recipe_bytes in (2**20, 0):  # adapted to all examples again, and the new ones alone learned
        monkeypatch.setattr(server.keeper, "_parts", KeptParts(recipe_bytes))
        with pytest.raises(DivergedError):
            await server.update(made, replace(add, targets=np.zeros((1, 0), np.float32)))
        if model == "gradients":
            break
    after = await server.serving.predict(ME, PredictTask(served, made.id, support.x), Deadline())
    assert (await server.serving.look(ME, made.id)).revision == 1
    np.testing.assert_array_equal(after.answers.logits, before.answers.logits)


async def test_who_lists_examples_keeps_to_the_rate_of_requests(start, monkeypatch):
    server = await start()
    made = await server.learn("prototypes", [(0, "a"), (1, "b")])
    monkeypatch.setattr(server.serving, "_limits", RateLimits(OwnerLimits(requests_per_second=2.0), lambda: 0.0))
    for _ in range(3):
        await server.listed(made)
    with pytest.raises(OverloadedError, match="more requests a second"):
        await server.listed(made)


async def test_what_can_not_answer_alone_is_refused_before_its_state_is_brought_back(start, monkeypatch):
    server = await start()
    made = await server.learn("prototypes", [(0, "a"), (1, "b")])
    monkeypatch.setattr(server.serving, "_live", None)
    with pytest.raises(NotPortableError):
        await server.serving.download(ME, made.id, Deadline())


async def test_an_adaptation_grows_no_more_labels_than_an_answer_can_carry(start):
    server = await start()
    made = await server.learn("prototypes", [(0, "a" * 2**19), (1, "b" * (2**19 - 1))])
    await server.update(made, change([(2, "c")]))
    for update in (change([(3, "d")]), change(rename=(("c", "cc"),))):
        with pytest.raises(InvalidRequestError, match="labels of 1048577 bytes in all, at most 1048576"):
            await server.update(made, update)
    await server.update(made, change([(3, "d")], remove_classes=("c",)))
    assert (await server.serving.look(ME, made.id)).revision == 3


@pytest.mark.parametrize("first", ["update", "delete"])
async def test_what_is_deleted_while_it_is_updated_stays_deleted(start, first):
    server = await start()
    made = await server.learn("prototypes", [(0, "a"), (1, "b")])
    calls = {
        "update": lambda: server.update(made, change([(2, "c")])),
        "delete": lambda: server.serving.delete(ME, made.id),
    }
    order = sorted(calls, key=lambda name: name != first)
    done = await asyncio.gather(*(calls[name]() for name in order), return_exceptions=True)
    deleted = done[order.index("delete")]
    assert not isinstance(deleted, Exception)
    for call in (server.predict, server.listed):
        with pytest.raises(AdaptationNotFoundError):
            await call(made)
    assert not await server.keeper.count()


async def test_updates_and_a_migration_of_the_same_adaptations_all_happen(start):
    server = await start()
    made = [await server.learn("signs@1", [(n, "a"), (n + 1, "b")]) for n in range(6)]
    progress, *_ = await asyncio.gather(
        server.migrated(to="2"), *(server.update(each, change([(50, "c")])) for each in made)
    )
    assert (progress.migrated, progress.failed) == (6, 0)
    for n, each in enumerate(made):
        now = await server.serving.look(ME, each.id)
        assert (now.revision, now.model_version) == (3, server.repository.get("signs@2").description.version)
        at_once = await server.learn("signs@2", [(n, "a"), (n + 1, "b"), (50, "c")])
        np.testing.assert_allclose(await server.predict(each), await server.predict(at_once), rtol=1e-4, atol=1e-4)


async def test_an_update_moves_an_adaptation_whose_version_is_gone_and_keeps_its_ids(start):
    server = await start()
    made = await server.learn("signs@1", [(0, "b"), (1, "a"), (2, "c")])
    await server.update(made, change(remove=(0,)))
    await server.repository.unload("signs@1")
    updated = await server.update(made, change([(3, "d")]), expected=2)
    assert (updated.adaptation.revision, updated.example_ids) == (3, (3,))
    assert updated.adaptation.model_version == server.repository.get("signs@2").description.version
    assert await server.listed(made) == {1: "a", 2: "c", 3: "d"}


async def test_ids_stay_when_an_adaptation_moves_to_another_version(start):
    server = await start()
    made = await server.learn("signs@1", [(0, "b"), (1, "a"), (2, "c")])
    await server.update(made, change([(3, "d")], remove=(1,)))
    await server.migrated(to="2")
    assert await server.listed(made) == {0: "b", 2: "c", 3: "d"}
    assert (await server.update(made, change([(4, "e")]))).example_ids == (4,)


async def test_a_caller_that_leaves_during_the_write_leaves_memory_and_store_at_one(start, store, monkeypatch):
    server = await start()
    made = await server.learn("prototypes", [(0, "a"), (1, "b")])
    reached, go_on, replace = asyncio.Event(), asyncio.Event(), store.replace

    async def slowly(adaptation):
        reached.set()
        await go_on.wait()
        return await replace(adaptation)

    monkeypatch.setattr(store, "replace", slowly)
    update = asyncio.create_task(server.update(made, change([(2, "c")])))
    await reached.wait()
    update.cancel()
    with pytest.raises(asyncio.CancelledError):
        await update
    assert (await server.answers(made))[0] == ("a", "b")
    go_on.set()
    async with asyncio.timeout(5):
        while (await server.answers(made))[0] != ("a", "b", "c"):
            await asyncio.sleep(0.01)
    assert await server.listed(made) == {0: "a", 1: "b", 2: "c"}


@pytest.mark.parametrize("written", [True, False])
async def test_after_a_write_of_unknown_outcome_answers_are_those_of_what_is_kept(start, store, monkeypatch, written):
    server = await start()
    made = await server.learn("prototypes", [(0, "a"), (1, "b")], request_id="made")
    replace = store.replace

    async def unknown(adaptation):
        if written:
            await replace(adaptation)
        raise StoreUnavailableError

    monkeypatch.setattr(store, "replace", unknown)
    with pytest.raises(StoreUnavailableError):
        await server.update(made, change([(2, "c")]), request_id="mine")
    monkeypatch.setattr(store, "replace", replace)
    revision = 2 if written else 1
    assert (await server.serving.look(ME, made.id)).revision == revision
    assert (await server.learn("prototypes", [(0, "a"), (1, "b")], request_id="made")).revision == revision
    assert (await server.answers(made))[0] == (("a", "b", "c") if written else ("a", "b"))
    repeated = await server.update(made, change([(2, "c")]), request_id="mine")
    assert (repeated.adaptation.revision, repeated.example_ids) == (2, (2,))
    assert (await server.answers(made))[0] == ("a", "b", "c")


async def test_an_adaptation_that_would_outgrow_its_owners_memory_stays_as_it_was(start):
    server = await start()
    made = await server.learn("prototypes", [(0, "a"), (1, "b")])
    before = await server.answers(made)
    server.keeper._live.owner_budget = made.size_bytes
    with pytest.raises(AdaptationTooLargeError):
        await server.update(made, change([(n, f"new {n}") for n in range(20)]))
    after = await server.answers(made)
    assert before[0] == after[0]
    np.testing.assert_array_equal(before[1], after[1])
    assert (await server.serving.look(ME, made.id)).revision == 1


@pytest.mark.parametrize(("update", "counted"), [(change([(2, "c")]), 1), (change(remove=(0,)), 3)])
async def test_examples_count_against_their_callers_limits_where_they_may_be_needed(start, update, counted):
    server = await start()
    made = await server.learn("prototypes", [(0, "a"), (1, "b"), (2, "a")])
    spent, server.serving._limits.spend = [], lambda _, examples: spent.append(examples)
    await server.update(made, update)
    assert spent == [counted]


async def test_only_the_latest_requests_are_known_again(start):
    server = await start()
    made = await server.learn("prototypes", [(0, "a"), (1, "b")])
    for n in range(70):
        label = (("a", "x"), ("x", "a"))[n % 2]
        await server.update(made, change(rename=(label,)), request_id=f"r{n}")
    assert (await server.update(made, change(rename=(("x", "a"),)), request_id="r69")).adaptation.revision == 71
    assert (await server.update(made, change(rename=(("a", "x"),)), request_id="r6")).adaptation.revision == 71
    assert (await server.update(made, change(rename=(("a", "x"),)), request_id="r0")).adaptation.revision == 72


def test_records_and_recipes_of_servers_before_there_were_updates_are_read():
    record = AdaptationRecord(
        id="i",
        owner="o",
        revision=1,
        model="m",
        model_digest="d",
        model_version="v",
        classes=("a", "b"),
        support_size=2,
        steps=0,
        losses=(),
        size_bytes=1,
        created_ns=1,
        time_to_live=0.0,
    )
    x, y = ArrayBytes.of(np.zeros((2, 1), np.float32)), ArrayBytes.of(np.array([1, 0]))
    recipe = Recipe(x=x, y=y, ways=2, steps=0)
    added = {"forget_examples", "updates", "next_id", "ids"}

    def of_before(struct, part):
        fields = msgspec.structs.asdict(struct)
        assert added & fields.keys()
        content = msgspec.msgpack.encode({name: value for name, value in fields.items() if name not in added})
        return seal(part, "i", content)

    assert unseal_record("i", of_before(record, Part.RECORD)) == record
    assert record.applied("any") is None
    read = unseal_recipe("i", of_before(recipe, Part.RECIPE)).examples(record.classes)
    assert (read.labels, read.ids) == (("b", "a"), ExampleIds((0, 1), 2))


def test_texts_of_other_lengths_go_together_and_so_do_bytes_and_floats():
    joined = joined_inputs(pack_texts(["a", "longer"]), pack_texts(["the longest", "b"]))
    assert unpack_texts(joined) == ["a", "longer", "the longest", "b"]
    mixed = joined_inputs(np.full((1, 2), 3, np.uint8), np.full((1, 2), 0.5, np.float32))
    assert (mixed.dtype, mixed.tolist()) == (np.float32, [[3.0, 3.0], [0.5, 0.5]])


def test_an_update_leaves_the_examples_before_as_they_were():
    targets = np.array([[1.0], [2.0]], np.float32)
    targets.flags.writeable = False
    before = LabelledExamples(np.zeros((2, 1), np.float32), (), targets, ExampleIds.first(2))
    update = SupportUpdate(
        Edits(relabel=(1,)), np.zeros((0, 1), np.float32), np.zeros((0, 1), np.float32), np.array([[7.0]], np.float32)
    )
    after = changed_examples(before, update)
    assert (before.targets.tolist(), after.targets.tolist()) == ([[1.0], [2.0]], [[1.0], [7.0]])
