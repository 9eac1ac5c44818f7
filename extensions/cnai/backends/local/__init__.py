"""Local: two detached processes of this user on this machine."""
