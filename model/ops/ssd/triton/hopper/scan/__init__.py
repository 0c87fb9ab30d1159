"""The outputs of a segment. A program has two heads of a group, which share B, C and their products. The warps

    load     tiles and decays of the next chunks; and store what outputs are left in the place of x (one warp)
    maps     the map from a chunk's updates to its outputs, for both heads (four warps)
    outputs  of the one head, and of the other: the outputs, by the state and by that map; the state, in registers
             (four warps each)

Barriers: `made`, both maps are there; `taken`, they were used.
"""
