"""The stages of the ablation flow."""
