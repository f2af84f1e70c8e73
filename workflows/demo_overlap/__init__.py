"""Six images composed of real nuclei that overlap, and their truth (see README.md here)."""
