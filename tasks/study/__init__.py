"""The stages of the study flow."""
