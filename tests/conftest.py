"""Set before numpy is imported: threads of its matrix products would spin against each other."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
