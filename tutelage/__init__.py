"""The pure core of tutelage: privileged views, distillation and the verdict. It imports neither Prefect nor MLflow."""

import os

# Threads that wait for each other sleep: where other processes want the cores, spinning ones are many times slower.
# OpenMP reads it when torch is loaded, so it is set here, before any module of this project imports torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
