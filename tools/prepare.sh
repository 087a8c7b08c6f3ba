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

packages='' opt_out=''
need() { # what is missing, packages, opt-out
	say "$1"
	packages="$packages $2" opt_out="$opt_out $3"
}
case ${TEST_POSTGRES-} in
auto | durable)
	has_postgres || need "there is no PostgreSQL server (initdb and postgres in PATH or /usr/lib/postgresql/*/bin)" \
		postgresql TEST_POSTGRES=
	;;
esac
if [ -n "${TEST_RACE-}" ]; then
	has_compiler || need "there is no C compiler (${CC:-gcc}), which the race detector needs" "gcc libc6-dev" TEST_RACE=
fi
# The place for more: Chromium, once the console has tests in a browser.
[ -n "$packages" ] || exit 0

give_up() {
	say "cannot install$packages: $1"
	say "install what is missing by hand, or do without: make test$opt_out"
	exit 1
}

command -v apt-get >/dev/null || give_up "there is no apt-get here"
[ "$(id -u)" = 0 ] || command -v sudo >/dev/null || give_up "that takes root, and there is no sudo"
[ "$(id -u)" = 0 ] || [ -t 0 ] || sudo -n true 2>/dev/null || give_up "that takes root, and sudo wants a password"
say "installing Debian's packages$packages; to do without them: make test$opt_out"
as_root apt-get update >&2 || say "the package lists could not be brought up to date; trying with the old ones"
for package in $packages; do
	case $package in
	postgresql) install_postgres ;;
	*) install "$package" ;;
	esac || give_up "apt-get did not work"
done
