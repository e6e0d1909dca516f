"""What a device can do: probed on this machine, or stated by its data sheet."""
