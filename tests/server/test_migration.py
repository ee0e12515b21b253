"""Adaptations move to other versions of their models: none is lost, and answers are the old ones or the new."""

import asyncio

import numpy as np
import pytest
from bundles import GRADIENTS, PROTOTYPES, write_bundle
from whole_server import ME, Server

from innerloop_server.domain.errors import AdaptationNotFoundError, ModelRetiredError
from innerloop_server.domain.migrations import MigrationState


@pytest.fixture
def folder(tmp_path):
    write_bundle(tmp_path / "models" / "signs" / "1", GRADIENTS, seed=1)
    write_bundle(tmp_path / "models" / "signs" / "2", PROTOTYPES, seed=2)
    return tmp_path / "models"


@pytest.fixture
async def start(folder, store, metrics):
    """Starts a server of the two versions; several share the store."""
    started = []

    async def start(**settings):
        server = Server(folder, store, metrics, **settings)
        started.append(server)
        await server.repository.load_all()
        return server

    yield start
    for server in started:
        await server.stop()


async def test_an_adaptation_stays_with_its_version_and_moves_when_that_is_gone(start, value):
    server = await start()
    made = await server.adapt("signs@1")
    forgotten = await server.adapt("signs@1", forget_examples=True)
    before = await server.predict(made)
    anew = await server.predict(await server.adapt("signs@2"))
    assert np.abs(before - anew).max() > 0.1
    await server.repository.unload("signs@1")
    np.testing.assert_allclose(await server.predict(made), anew, rtol=1e-4, atol=1e-4)
    now = await server.serving.look(ME, made.id)
    assert (now.revision, now.model_version) == (2, server.repository.get("signs@2").description.version)
    assert (now.created_ns, now.classes, now.steps) == (made.created_ns, made.classes, 0)
    with pytest.raises(ModelRetiredError):
        await server.predict(forgotten)
    assert value("innerloop_adaptations_migrated_total", model="signs", outcome="migrated") == 1
    await server.repository.load("signs@1")
    assert (await server.predict(forgotten)).shape == before.shape
    np.testing.assert_allclose(await server.predict(made), anew, rtol=1e-4, atol=1e-4)


async def test_nothing_moves_where_the_operator_forbids_it(start):
    server = await start(migrate="never")
    made = await server.adapt("signs@1")
    await server.repository.unload("signs@1")
    with pytest.raises(ModelRetiredError):
        await server.predict(made)


async def test_a_migration_moves_all_it_can_and_whoever_predicts_gets_the_old_answers_or_the_new(start):
    server = await start()
    made = [await server.adapt("signs@1", seed) for seed in range(12)]
    kept, deleted = await server.adapt("signs@1", forget_examples=True), await server.adapt("signs@1", 50)
    wide = await server.adapt("signs@2", ways=8)
    before = [await server.predict(each) for each in made]
    anew = [await server.predict(await server.adapt("signs@2", seed)) for seed in range(12)]
    migration = asyncio.create_task(server.migrated())
    await server.serving.delete(ME, deleted.id)
    moved = np.zeros(12, int)
    while not migration.done():
        for index, each in enumerate(made):
            answers = await server.predict(each)
            fits = [np.allclose(answers, one, rtol=1e-4, atol=1e-4) for one in (before[index], anew[index])]
            assert any(fits)
            moved[index] += fits[1]
    progress = migration.result()
    assert (progress.state, progress.version) == (MigrationState.DONE, "2")
    assert (progress.migrated, progress.failed, progress.without_recipe) == (12, 0, 1)
    assert [(await server.serving.look(ME, each.id)).revision for each in made] == [2] * 12
    assert (await server.predict(kept)).shape == before[0].shape
    with pytest.raises(AdaptationNotFoundError):
        await server.predict(deleted)
    assert (await server.migrated()).migrated == 0
    back = await server.migrated(to="1")  # which has a head of five classes
    assert (back.migrated, back.failed) == (24, 1)
    np.testing.assert_allclose(await server.predict(made[0]), before[0], rtol=1e-3, atol=1e-3)
    assert (await server.serving.look(ME, wide.id)).revision == 1


async def test_two_servers_that_move_the_same_adaptations_do_so_once(start, store, value):
    store.shared = True
    first, second = await start(), await start()
    made = [await first.adapt("signs@1", seed) for seed in range(20)]
    both = await asyncio.gather(first.migrated(), second.migrated())
    assert [(each.migrated, each.failed) for each in both] == [(20, 0)] * 2
    for each in made:
        assert (await first.serving.look(ME, each.id)).revision == 2
        np.testing.assert_array_equal(await first.predict(each), await second.predict(each))
    assert value("innerloop_adaptations_migrated_total", model="signs", outcome="migrated") == 20


async def test_adaptations_follow_stable_by_themselves_but_for_those_of_other_aliases(start, folder):
    (folder / "signs" / "aliases.toml").write_text('stable = "1"\npinned = "1"\n')
    server = await start(migrate="background")
    made = await server.adapt()
    for aliases, revision in (('stable = "2"\npinned = "1"\n', 1), ('stable = "2"\n', 2)):
        (folder / "signs" / "aliases.toml").write_text(aliases)
        await server.repository.look()
        async with asyncio.timeout(20):
            while (progress := await server.serving.migration("signs")).state is not MigrationState.DONE:
                await asyncio.sleep(0.01)
        assert (progress.version, progress.examined) == ("2", 1)
        assert (await server.serving.look(ME, made.id)).revision == revision
