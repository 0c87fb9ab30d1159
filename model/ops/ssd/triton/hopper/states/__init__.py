"""States along a segment, and their gradients backwards. A program has two heads of a group, which share B, or C. The
warps

    load   tiles and decays of the next chunks (one warp)
    carry  of the one head, and of the other: its state, in registers (four warps each)
"""
