# shellcheck shell=bash
# One port in front of all gateways; sourced by up.

# Prints a configuration: directory $1, port $2, then the gateways' addresses.
nginx_conf() {
    local at=$1 port=$2 gateway
    shift 2
    cat <<CONF
# Written by up at each start.
daemon off;
$([ "$(id -u)" -ne 0 ] || printf 'user root;\n')
worker_processes 1;
pid $at/nginx.pid;
error_log stderr warn;
events { worker_connections 8192; }
http {
    access_log off;
    client_body_temp_path $at/tmp/body;
    proxy_temp_path $at/tmp/proxy;
    fastcgi_temp_path $at/tmp/fastcgi;
    uwsgi_temp_path $at/tmp/uwsgi;
    scgi_temp_path $at/tmp/scgi;
    map \$http_upgrade \$connection_upgrade { default upgrade; '' ''; }
    upstream gateways {
        least_conn;
$(for gateway in "$@"; do printf '        server %s max_fails=1 fail_timeout=1s;\n' "$gateway"; done)
        keepalive 64;
    }
    server {
        listen 127.0.0.1:$port;
        location / {
            proxy_pass http://gateways;
            proxy_http_version 1.1;
            proxy_set_header Host \$http_host;
            proxy_set_header Upgrade \$http_upgrade;
            proxy_set_header Connection \$connection_upgrade;
            # Events go out as they come, and a quiet stream lives: a gateway pings every 25 s, a poll waits 55 s.
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout 120s;
            proxy_connect_timeout 1s;
        }
    }
}
CONF
}
