"""The stages of the backtest flow."""
