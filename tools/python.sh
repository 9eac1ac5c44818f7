#!/bin/sh
# Runs its arguments with the first Python that is new enough, or says in one line why there is none.
# Plain sh, because the Python at hand may be too old to read anything else here.
found=""
for python in "${PYTHON:-python3}" python3 python3.13 python3.12 python3.11 python3.14; do
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        exec "$python" "$@"
    fi
    found="$found $python is $version,"
done
echo "cnai needs Python 3.11 or newer:${found:- no python3 in PATH,} install one (Debian: apt-get install python3) or set PYTHON=/path/to/python3.x" >&2
exit 1
