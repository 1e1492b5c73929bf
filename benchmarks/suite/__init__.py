"""What `make bench` is made of: recording, passes, noise, tables, and their places in README.md."""
