"""Speed, memory, accuracy and seams: each prints one table and writes JSON."""
