"""The stage of the flow tidy."""
