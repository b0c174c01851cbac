"""What the steps share: parameters, the frame of a run, the order of the steps."""
