"""The window: overlay, painting, snapshots, keyboard."""
