"""The stages of the fleet flow."""
