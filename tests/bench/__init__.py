"""The benchmark: `pt` and its rivals, measured side by side in one run."""
