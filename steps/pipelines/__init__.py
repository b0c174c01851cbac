"""Entry points that run whole pipelines, each as a child run."""
