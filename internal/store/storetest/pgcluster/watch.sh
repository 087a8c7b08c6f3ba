# Runs the server in $2/data with the programs in $1 until standard input ends,
# then removes $2. See the package comment.

# Ctrl-C is meant for whoever asked for the server, whose end is told by the pipe.
trap '' HUP INT TERM

exec 3<&0 # commands in the background read from nowhere unless told
"$1/postgres" -D "$2/data" </dev/null 3<&- >"$2/log" 2>&1 &
server=$!
{ cat <&3; kill -QUIT "$server"; kill -CONT "$server"; } >/dev/null 2>&1 & # a frozen one hears of it too
pipe=$!
exec 3<&- </dev/null

wait "$server"
kill -KILL "$pipe" 2>/dev/null # the server may have ended by itself, and its number be another's soon
tail -n 20 "$2/log" >&2
rm -rf "$2"
