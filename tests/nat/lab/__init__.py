"""The laboratory: routers of every kind and the machines behind them, each in a network namespace of its own."""
