"""What a device can do: what this machine has, and what data sheets promise."""
