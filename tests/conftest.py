"""Set before numpy is imported: its BLAS threads would spin against each other on small matrices."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
