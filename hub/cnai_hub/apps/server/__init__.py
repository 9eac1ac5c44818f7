"""The app server: Voila for one release, behind the gate."""
