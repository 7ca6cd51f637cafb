"""The Studio: pages over runs, attempts, comparisons and curves, served to a browser on this machine."""
