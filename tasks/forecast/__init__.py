"""The stages of the forecast flow."""
