#!/bin/sh
# The front door as the one thing that a container does: edge.sh SETTINGS STATE CLIENTS [SECONDS]
# It starts once what stands behind it is there, and ends some seconds after its pod has lost its traffic.
set -eu
settings=$1 state=$2 clients=$3 linger=${4:-5}
edge() { "$(dirname "$0")/../../.venv/bin/imagexplain" edge "$@" --run "$state"; }

mkdir -p -m 0700 "$state/edge"
install -m 0600 "$clients" "$state/edge/clients.json"
trap 'sleep "$linger"; edge stop; exit 0' TERM
until edge start --settings "$settings"; do sleep 5; done
while kill -0 "$(cat "$state/edge/nginx.pid")"; do
  sleep 5 &
  wait $! # which a signal ends
done
