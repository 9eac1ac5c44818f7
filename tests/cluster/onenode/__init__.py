"""A real Kubernetes on this machine: one node, made of Go modules and Debian packages, with GPUs that are not there.

Its processes are host processes of root; everything they write lies in one folder, which `down` removes. What takes
long to build lies in a cache. No traffic leaves the machine: pods have no way out.
"""
