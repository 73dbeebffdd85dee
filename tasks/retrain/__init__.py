"""The stages of the retrain flow; a backtest also runs them, up to the evaluation."""
