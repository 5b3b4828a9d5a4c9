# shellcheck shell=bash
# Shared by kafka-up and kafka-down, and by the scripts of a whole cluster; sourced, never run.
#
# DIR/cluster             id, first port and number of brokers, one key=value a line
# DIR/broker-N/           server.properties, data/, kafka.log and, while it was started by us, pid

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    say "$1"
    shift
    local line
    for line in "$@"; do printf '    %s\n' "$line" >&2; done
    exit 1
}

default_dir() { printf '%s/tidegate-kafka-%s\n' "${TMPDIR:-/tmp}" "$(id -u)"; }

# The command line of process $1, or nothing.
command_of() {
    if [ -r "/proc/$1/cmdline" ]; then
        tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null || true
    else
        ps -ww -o command= -p "$1" 2>/dev/null || true
    fi
}

# Prints the pid of the broker in node directory $1 if it runs. A pid file outlives a kill -9 and its number
# may since belong to another process, so the command line has to name this very server.properties.
pid_of() {
    local pid
    [ -r "$1/pid" ] || return 1
    pid=$(<"$1/pid")
    [[ $pid =~ ^[0-9]+$ ]] || return 1
    [[ $(command_of "$pid") == *" kafka.Kafka $1/server.properties"* ]] || return 1
    printf '%s\n' "$pid"
}

# The value of key $2 in file $1.
value_of() { sed -n "s/^$2=//p" "$1"; }

# Ends the broker in node directory $1 and waits until it is gone; fails if none ran there.
stop_node() {
    local pid until=$((SECONDS + 30)) ran=1
    if pid=$(pid_of "$1"); then
        ran=0
        kill -TERM "$pid" 2>/dev/null || true
        while pid_of "$1" >/dev/null; do
            if [ "$SECONDS" -ge "$until" ]; then
                say "${1##*/} (process $pid) did not end within 30 s; killing it"
                kill -KILL "$pid" 2>/dev/null || true
                until=$((SECONDS + 30))
            fi
            sleep 0.1
        done
    fi
    rm -f "$1/pid"
    return "$ran"
}
