"""Entry points that run whole pipelines, each as a run below their own."""
