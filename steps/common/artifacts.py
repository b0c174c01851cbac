"""What one step calls the files that another reads."""

PROFILES = "profile.json"  # of a preprocess run: what its train and valid trips look like
