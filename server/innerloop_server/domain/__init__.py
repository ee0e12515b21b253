"""The words that the whole server uses: tasks, answers, models, adaptations, callers, deadlines, errors.

Nothing here computes, waits or knows of a library beyond NumPy, and it imports nothing of the server.
"""
