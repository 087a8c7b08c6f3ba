# Runs the server in $2/data with the programs in $1 until standard input ends,
# then removes $2. A server that ends while $2/again is there is started again.
# See the package comment.

# Ctrl-C is meant for whoever asked for the server, whose end is told by the pipe.
trap '' HUP INT TERM

exec 3<&0 # commands in the background read from nowhere unless told
while :; do
	"$1/postgres" -D "$2/data" </dev/null 3<&- >>"$2/log" 2>&1 &
	server=$!
	{ cat <&3; kill -QUIT "$server"; kill -CONT "$server"; } >/dev/null 2>&1 & # a frozen one hears of it too
	pipe=$!
	wait "$server"
	kill -KILL "$pipe" 2>/dev/null # the server may have ended by itself, and its number be another's soon
	rm "$2/again" 2>/dev/null || break
done
exec 3<&- </dev/null

tail -n 20 "$2/log" >&2
rm -rf "$2"
