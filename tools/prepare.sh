#!/bin/sh
# Installs with Debian's apt-get what "make test" needs besides Go and is not
# there: the PostgreSQL server (unless TEST_POSTGRES is empty or a URL) and a C
# compiler, which the race detector needs (unless TEST_RACE is empty). It says so
# before it does, and starts nothing: tests run a server of their own.
set -eu

say() { echo "make test: $*" >&2; }

has_postgres() {
	for dir in $(echo "$PATH" | tr : ' ') /usr/lib/postgresql/*/bin; do
		# Beside the real initdb: PATH may have a link.
		initdb=$(readlink -f "$dir/initdb" 2>/dev/null) || continue
		[ -x "$initdb" ] && [ -x "$(dirname "$initdb")/postgres" ] && return 0
	done
	return 1
}

has_compiler() { echo '#include <stdlib.h>' | ${CC:-gcc} -E - >/dev/null 2>&1; }

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif [ -t 0 ]; then
		sudo "$@"
	else
		sudo -n "$@"
	fi
}

install() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >&2
}

# Debian's server package makes a system-wide server and starts it, unless it is
# told beforehand. The word goes away again.
install_postgres() {
	settings=/etc/postgresql-common/createcluster.d
	install postgresql-common
	as_root mkdir -p "$settings"
	echo 'create_main_cluster = off' | as_root tee "$settings/simlatch-test.conf" >/dev/null
	status=0
	install postgresql || status=$?
	as_root rm -f "$settings/simlatch-test.conf"
	return $status
}

give_up() {
	say "$1"
	say "install these by hand, or leave out what needs them:$opt_out"
	exit 1
}

packages='' opt_out=''
case ${TEST_POSTGRES-} in auto | durable) own_postgres=yes ;; *) own_postgres='' ;; esac
if [ "$own_postgres" ] && ! has_postgres; then
	packages="$packages postgresql"
	opt_out="$opt_out TEST_POSTGRES="
	say "PostgreSQL's server is not installed (no initdb and postgres in PATH or /usr/lib/postgresql/*/bin)"
fi
if [ -n "${TEST_RACE-}" ] && ! has_compiler; then
	packages="$packages gcc libc6-dev"
	opt_out="$opt_out TEST_RACE="
	say "there is no C compiler, which the race detector needs (${CC:-gcc})"
fi
# The place for more: Chromium, once the console has tests in a browser.
[ -n "$packages" ] || exit 0

say "installing Debian's packages$packages; to leave out what needs them: make test$opt_out"
command -v apt-get >/dev/null || give_up "there is no apt-get here to install$packages with"
[ "$(id -u)" = 0 ] || command -v sudo >/dev/null || give_up "only root can install$packages, and there is no sudo"
as_root apt-get update >&2 || say "the package lists could not be brought up to date; trying with the old ones"
for package in $packages; do
	case $package in
	postgresql) install_postgres ;;
	*) install "$package" ;;
	esac || give_up "installing$packages did not work"
done
