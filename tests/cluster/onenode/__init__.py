"""A real Kubernetes on this machine: one node, built from Go modules and Debian packages, with simulated GPUs.

Its components run as root on the host; they write only to one folder, which `down` deletes. Slow builds are kept in a
cache. No traffic leaves the machine: pods can't connect to other hosts.
"""
