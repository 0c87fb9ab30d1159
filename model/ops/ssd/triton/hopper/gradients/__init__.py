"""The gradients of a chunk. A program has some heads of a group, in turn. Four warps each

    load     tiles and decays of the next heads
    through  what goes through the states: dB, dC; and of the loss, what crosses the chunk
    maps     the map between positions, its gradient summed over the heads, and the shares of the loss of its decays
    updates  dx: what an update does to the chunk's end, and by that map to outputs; and all shares

`maps` hands the map of each head to `updates` and, with the next, its shares as far as it has summed them; the gradient
of B C^T, summed over the heads, it hands to `through`, which ends with it.

Barriers: `ready`, B and C are there; `made`, a map is; `ended`, `updates` is done with the head before; `finished`, the
summed gradient is there.
"""
