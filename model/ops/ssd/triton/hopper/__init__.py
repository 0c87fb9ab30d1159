"""The gradients of a chunk on Hopper, in Gluon: one program whose warps each do one thing.

A program has a chunk and some heads of a group, in turn, as those of `gradients` have, and computes the same. Four
warps each
    load     tiles and decays of the next heads into a ring of shared memory
    through  what goes through the states: dB, dC
    maps     the map between positions, its gradient summed over the heads, and the shares of the loss of its decays
    updates  dx: what an update does to the chunk's end, and by that map to outputs; and sums over whole tiles
What they read lies there once for all, and while some wait others work. `maps` hands the map of each head to `updates`
and gets from it what is added to a share; the summed gradient it hands to `through`, which ends with it.

Barriers: `full` and `empty`, of each place of the ring; `ready`, B and C are there; `made`, `ended` and `finished`,
what is handed over. Who waits for a tile that was copied to shared memory lets the tensor cores see it by a fence.

Gluon has no interpreter: a GPU's tests and the check before the first use (`selfcheck`) hold it to fp64.
"""
