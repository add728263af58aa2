"""What the chapters share: figures, claims, exercises, artifacts, sweeps, and how a notebook is built."""
