"""`python -m innerloop_server serve ...` is `innerloop serve ...`."""

from innerloop_server.commands import app

app(prog_name="innerloop")
