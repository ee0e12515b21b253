"""All commands of the trainer."""

import typer

from innerloop_trainer.cli.calibrate import calibrate
from innerloop_trainer.cli.card import card
from innerloop_trainer.cli.compare import compare
from innerloop_trainer.cli.data import data
from innerloop_trainer.cli.encoders import encoders
from innerloop_trainer.cli.evaluate import evaluate
from innerloop_trainer.cli.export import export
from innerloop_trainer.cli.inspect import inspect
from innerloop_trainer.cli.methods import methods
from innerloop_trainer.cli.new import new
from innerloop_trainer.cli.reproduce import reproduce
from innerloop_trainer.cli.search import search
from innerloop_trainer.cli.sources import sources
from innerloop_trainer.cli.train import train
from innerloop_trainer.cli.tune import tune

app = typer.Typer(no_args_is_help=True, add_completion=False)
for command in (
    methods,
    sources,
    encoders,
    new,
    train,
    calibrate,
    evaluate,
    reproduce,
    compare,
    search,
    tune,
    export,
    card,
    inspect,
):
    app.command()(command)
app.add_typer(data, name="data")
