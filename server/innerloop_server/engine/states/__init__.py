"""Task states in pages of one memory, on a device and behind it in the host's memory.

`layout` says where the tensors of a state lie in a row of words, `memory` hands out pages and takes them back, `copies`
moves them between device and host, and `budget` says how much room there is.
"""
