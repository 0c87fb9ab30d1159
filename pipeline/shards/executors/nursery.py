"""The first import of the server that worker processes are forked from: what holds for it and all of them."""

import os
import signal

os.environ |= {"POLARS_MAX_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # the caller has a process for each core
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's, with whom all of them end
