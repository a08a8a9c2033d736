"""The systemd units of a revision: checked, recorded, stopped, started, watched, put back."""
