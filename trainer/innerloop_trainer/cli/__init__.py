"""The trainer's commands: what a user types (`arguments`), what happens, and what is shown (`display`, `progress`).

One file for each command, put together in `app`. This folder alone knows typer and rich, prints, catches signals
(`interrupts`) and turns errors into messages and exit statuses (`mistakes`).
"""
