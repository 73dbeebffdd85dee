"""The stages of the flows approve and rollback."""
