"""The doctor's exam: small VAEs with one planted mistake each, and healthy ones among them."""

import os

# Of networks this small, threads wait for each other more than they compute.
for _name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
