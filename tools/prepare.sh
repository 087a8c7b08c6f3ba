#!/bin/sh
# Installs with Debian's apt-get what "make test" needs besides Go and is not
# there: the PostgreSQL server (unless TEST_POSTGRES is empty or a URL), Chromium,
# in which the console is tested (unless TEST_CHROMIUM is off), and a C
# compiler, which the race detector needs (unless TEST_RACE is empty). With
# "cluster", what "make cluster" needs: PostgreSQL, etcd, Patroni and HAProxy
# (unless CLUSTER_INSTALL is empty; it is then only named). It says so before it
# does, and starts nothing, now or at the next boot: tests and the cluster run
# servers of their own.
set -eu

target=${1:-test}
say() { echo "make $target: $*" >&2; }

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

policy=/usr/sbin/policy-rc.d
restore_policy() {
	as_root rm -f "$policy"
	if [ -e "$policy.simlatch" ]; then
		as_root mv "$policy.simlatch" "$policy"
	fi
}

# Debian starts a server as soon as it is installed, and at every boot, unless a
# policy says no while it is and its units are disabled afterwards.
install_quietly() { # packages
	if [ -e "$policy" ]; then
		as_root mv "$policy" "$policy.simlatch"
	fi
	trap restore_policy EXIT
	printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
	as_root chmod 755 "$policy"
	status=0
	install "$@" || status=$?
	restore_policy
	trap - EXIT
	for service in "$@"; do
		service=${service%-server} # of etcd-server
		if [ -e "/etc/init.d/$service" ] || [ -e "/lib/systemd/system/$service.service" ]; then
			as_root update-rc.d "$service" disable >&2 || say "$service may start at the next boot"
		fi
	done
	return $status
}

# Programs of servers are in sbin, which not everyone has in PATH.
has_program() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null; }

has_chromium() {
	for name in chromium chromium-browser google-chrome; do
		has_program "$name" && return 0
	done
	return 1
}

packages='' opt_out=''
need() { # what is missing, packages, opt-out
	say "$1"
	packages="$packages $2" opt_out="$opt_out $3"
}
no_postgres="there is no PostgreSQL server (initdb and postgres in PATH or /usr/lib/postgresql/*/bin)"
if [ "$target" = cluster ]; then
	has_postgres || need "$no_postgres" postgresql ''
	has_program etcd || need "there is no etcd" etcd-server ''
	has_program patroni || need "there is no patroni" patroni ''
	has_program haproxy || need "there is no haproxy" haproxy ''
	opt_out=' CLUSTER_INSTALL='
else
	case ${TEST_POSTGRES-} in
	auto | durable) has_postgres || need "$no_postgres" postgresql TEST_POSTGRES= ;;
	esac
	if [ "${TEST_CHROMIUM-}" = auto ]; then
		has_chromium || need "there is no Chromium (chromium, chromium-browser or google-chrome in PATH)" chromium TEST_CHROMIUM=off
	fi
	if [ -n "${TEST_RACE-}" ]; then
		has_compiler || need "there is no C compiler (${CC:-gcc}), which the race detector needs" "gcc libc6-dev" TEST_RACE=
	fi
fi
[ -n "$packages" ] || exit 0

give_up() {
	say "cannot install$packages: $1"
	if [ "$target" = cluster ]; then
		say "install what is missing by hand"
	else
		say "install what is missing by hand, or do without: make test$opt_out"
	fi
	exit 1
}

if [ "$target" = cluster ] && [ -z "${CLUSTER_INSTALL-yes}" ]; then
	give_up "CLUSTER_INSTALL is empty"
fi

command -v apt-get >/dev/null || give_up "there is no apt-get here"
[ "$(id -u)" = 0 ] || command -v sudo >/dev/null || give_up "that takes root, and there is no sudo"
[ "$(id -u)" = 0 ] || [ -t 0 ] || sudo -n true 2>/dev/null || give_up "that takes root, and sudo wants a password"
if [ "$target" = cluster ]; then
	say "installing Debian's packages$packages, without starting any of them; to install nothing: make cluster$opt_out"
else
	say "installing Debian's packages$packages; to do without them: make test$opt_out"
fi
as_root apt-get update >&2 || say "the package lists could not be brought up to date; trying with the old ones"
for package in $packages; do
	case $package in
	postgresql) install_postgres ;;
	etcd-server | patroni | haproxy) install_quietly "$package" ;;
	*) install "$package" ;;
	esac || give_up "apt-get did not work"
done
