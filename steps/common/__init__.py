"""What the steps share: parameters, the set-up and close of a run, the order of the steps."""
