#!/bin/sh
# Ends with 1 and says what to install when the Go in PATH cannot build this
# module. Run from the root of the tree.
set -eu

need=$(sed -n 's/^go //p' go.mod)

if ! command -v go >/dev/null; then
	echo "simlatch needs Go $need or newer, and there is no go in PATH." >&2
	echo "Install it from https://go.dev/dl/ (unpack it to /usr/local and add /usr/local/go/bin to PATH)." >&2
	exit 1
fi

# Since 1.21 an older Go fetches the one that go.mod asks for, if it may; then
# this says the fetched one's version.
have=$(go env GOVERSION 2>&1) || true
have=${have#go}
case $have in
devel*) exit 0 ;; # built from source, newer than any release
[0-9]*) ;;
*)
	have=$(cd / && GOTOOLCHAIN=local go env GOVERSION)
	have=${have#go}
	;;
esac
if [ "$(printf '%s\n%s\n' "$need" "${have%% *}" | sort -V | head -n 1)" != "$need" ]; then
	echo "simlatch needs Go $need or newer; $(command -v go) is Go $have." >&2
	echo "Install a newer one from https://go.dev/dl/ (unpack it to /usr/local and put /usr/local/go/bin first in PATH)." >&2
	exit 1
fi
