"""Fetching files from the network and members from archives: whole, checked, resumable."""
