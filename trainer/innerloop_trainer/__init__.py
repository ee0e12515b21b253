"""Meta-training: data, episodes, outer loops, evaluation and export."""
