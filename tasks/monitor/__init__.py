"""The stages of the monitor flow."""
