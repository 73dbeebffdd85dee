"""What is stored inside a registered model."""
