"""The outputs of segments and the gradients of chunks on Hopper, in Gluon: programs whose warps each do one thing.

What they read lies in shared memory once for all, loaded ahead by warps of their own into a ring of STAGES places, and
while some wait others work. They hand over to each other by barriers: `full` and `empty` are those of each place of
the ring. What threads copied or wrote to shared memory the tensor cores and the copy engine see after a fence; what the
copy engine brought they see. A fence waits for its thread's stores, and a load behind others' for these: registers that
are spilled cost far more than elsewhere.

All in bf16, with states of 64 x 128. Gluon has no interpreter: a GPU's tests and the check before the first use
(`selfcheck`) hold it to fp64.
"""
