# Runs one server and ends it with whoever started this, however that ended: its standard input is a pipe that closes then.
# A stopped server cannot see such a thing itself, so it is killed. Arguments: the log, the directory to remove then, the
# server's command. Prints the server's process id.
log=$1 home=$2
shift 2
exec 3<&0 </dev/null
# The kernel hangs up a group of processes that is left alone with a stopped one among them.
trap '' HUP
"$@" >>"$log" 2>&1 3<&- &
server=$!
abandoned=
trap 'abandoned=yes; kill -KILL "$server"' TERM
echo "$server"
(trap - TERM; read -r _ <&3; kill -TERM "$$") >/dev/null 2>&1 &
guard=$!
wait "$server"
status=$?
if [ "$abandoned" ]; then
    wait "$server"
    rm -rf "$home"
else
    kill -TERM "$guard"
fi
exit "$status"
