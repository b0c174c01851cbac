"""What developers and users run beside the pipeline."""
