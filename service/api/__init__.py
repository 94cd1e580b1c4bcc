"""What knows HTTP: a file per face."""
