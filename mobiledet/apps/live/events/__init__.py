"""What happens at lines and in zones, sent to other programs; nothing here ever makes a frame wait."""
