"""The prompt language: plain text in, plain data out. Standard library only."""
