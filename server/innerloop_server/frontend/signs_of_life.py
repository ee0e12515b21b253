"""How front ends and the engine process notice that the other one is frozen."""

ASK_SECONDS = 2.0
"""Seconds between an answer of the engine process and a front end's next question: so each hears of the other."""

SILENT_SECONDS = 10.0
"""Seconds without an answer after which a front end says that nothing serves."""

SILENT_LOOKS = 5
"""Number of looks, one each `ASK_SECONDS`, without a word after which the engine process replaces a front end. They are
counted by the event loop, so that nobody is replaced because the engine process itself was stopped for a while."""
