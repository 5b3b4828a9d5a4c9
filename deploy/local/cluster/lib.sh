# shellcheck shell=bash
# Shared by up, down and node; sourced, never run.
#
# DIR/cluster.json        who listens where, for people and for loadtest verify
# DIR/members.toml        the registry's members, if there are any
# DIR/cluster             what down has to know, one key=value a line
# DIR/NAME/               a process: command (one argument a line), environment (its TIDEGATE__ variables), addresses, log,
#                         ports.json, data/ and, while it was started by us, pid

here=${here:?}
# shellcheck source=../kafka/lib.sh
. "$here/kafka/lib.sh"

default_cluster_dir() { printf '%s/tidegate-local-%s\n' "${TMPDIR:-/tmp}" "$(id -u)"; }

# The processes of cluster directory $1 whose names begin with $2, in order.
names_of() {
    local at
    for at in "$1/$2"*; do
        if [ -r "$at/command" ]; then printf '%s\n' "${at##*/}"; fi
    done
}

# Prints the pid of the process in directory $1 if it runs. A pid file outlives a kill -9 and its number may since belong
# to another process, so the command line has to name a file in this very directory.
process_of() {
    local pid
    [ -r "$1/pid" ] || return 1
    pid=$(<"$1/pid")
    [[ $pid =~ ^[0-9]+$ ]] || return 1
    [[ $(command_of "$pid") == *" $1/"* ]] || return 1
    printf '%s\n' "$pid"
}

# Starts the process in directory $1 with its command, and with the settings that `up` found in the environment, not those of now.
start_process() {
    local command environment=()
    mapfile -t command <"$1/command"
    [ ! -r "$1/environment" ] || mapfile -d '' -t environment <"$1/environment"
    rm -f "$1/ports.json"
    (unset "${!TIDEGATE__@}" && exec setsid env "${environment[@]}" "${command[@]}") </dev/null >>"$1/log" 2>&1 &
    local pid=$! until=$((SECONDS + 10))
    echo "$pid" >"$1/pid"
    # Until it is that command it is still this shell, and process_of does not know it.
    while ! process_of "$1" >/dev/null && kill -0 "$pid" 2>/dev/null && [ "$SECONDS" -lt "$until" ]; do sleep 0.01; done
}

# The status that HOST:PORT $1 answers GET $2 with; nothing if it does not answer within 2 s.
status_of() {
    local status='' line=''
    if exec 3<>"/dev/tcp/${1%:*}/${1##*:}"; then
        printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
        read -r -t 2 line <&3 || true
        exec 3<&- 3>&-
        read -r _ status _ <<<"$line"
    fi 2>/dev/null
    printf '%s\n' "$status"
}

# Whether HOST:PORT $1 takes connections.
listens() { (exec 3<>"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null; }

# Waits until the process in directory $1 answers $2 with 200 and takes connections where it should, at most $3 s.
await_process() {
    local address ok until=$((SECONDS + $3)) admin
    admin=$(value_of "$1/addresses" admin)
    while :; do
        process_of "$1" >/dev/null || return 1
        ok=yes
        [ "$(status_of "$admin" "$2")" = 200 ] || ok=no
        for address in $(value_of "$1/addresses" listens); do listens "$address" || ok=no; done
        [ "$ok" = no ] || return 0
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.05
    done
}

# Ends the process in directory $1: SIGTERM, and SIGKILL if it is still there after $2 s. Fails if none ran.
end_process() {
    local pid until=$((SECONDS + $2))
    pid=$(process_of "$1") || { rm -f "$1/pid"; return 1; }
    kill -TERM "$pid" 2>/dev/null || true
    kill -CONT "$pid" 2>/dev/null || true # one that was stopped hears nothing
    while process_of "$1" >/dev/null; do
        if [ "$SECONDS" -ge "$until" ]; then
            say "${1##*/} (process $pid) did not end within $2 s; killing it"
            kill -KILL "$pid" 2>/dev/null || true
            until=$((SECONDS + 30))
        fi
        sleep 0.05
    done
    rm -f "$1/pid"
}
