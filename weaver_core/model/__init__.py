"""The native model: planner features, Twin DiT, flow matching and checkpoints (paper section 3)."""
