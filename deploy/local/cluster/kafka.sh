# shellcheck shell=bash
# Where up takes its Kafka from; sourced by up. Sets kafka, engine, container and bootstrap.

here=${here:?} dir=${dir:?}

# Prints the container engine that runs on this machine, if one does.
engine_of_this_machine() {
    local engine
    for engine in docker podman; do
        if "$engine" info >/dev/null 2>&1; then
            printf '%s\n' "$engine"
            return 0
        fi
    done
    return 1
}

# One broker in a container, reachable on port $1.
start_container() {
    local version port=$1 setting settings=()
    version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/kafka/pom.xml")
    container=tidegate-kafka-$(id -u)-$port
    for setting in NODE_ID=1 PROCESS_ROLES=broker,controller CONTROLLER_LISTENER_NAMES=CONTROLLER \
        CONTROLLER_QUORUM_VOTERS=1@localhost:9093 LISTENERS="PLAINTEXT://:$port,CONTROLLER://:9093" \
        ADVERTISED_LISTENERS="PLAINTEXT://127.0.0.1:$port" \
        LISTENER_SECURITY_PROTOCOL_MAP=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT \
        OFFSETS_TOPIC_REPLICATION_FACTOR=1 TRANSACTION_STATE_LOG_REPLICATION_FACTOR=1 \
        TRANSACTION_STATE_LOG_MIN_ISR=1 GROUP_INITIAL_REBALANCE_DELAY_MS=0 AUTO_CREATE_TOPICS_ENABLE=false \
        LOG_MESSAGE_TIMESTAMP_TYPE=LogAppendTime; do
        settings+=(--env "KAFKA_$setting")
    done
    "$engine" run --rm --detach --name "$container" --publish "127.0.0.1:$port:$port" "${settings[@]}" \
        "apache/kafka:$version" >/dev/null || die "$engine could not start apache/kafka:$version" \
        "Pass --bootstrap of a Kafka that runs, or stop the engine: then it is started from its jars."
    kafka=container
    bootstrap=127.0.0.1:$port
}

# $1: how many brokers; $2: a free port.
start_kafka() {
    if [ "$1" = 1 ] && [ ! -d "$dir/kafka" ] && engine=$(engine_of_this_machine); then
        start_container "$2"
        return
    fi
    bootstrap=$("$here/kafka-up" --dir "$dir/kafka" --brokers "$1" --port 0)
    kafka=own
}
