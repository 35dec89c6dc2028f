#!/usr/bin/env bash
# Installs Debian's programs around the server: nginx with JavaScript, Prometheus, its Alertmanager, and Chromium, in
# which the tests open pages. Called by `make setup-ops`. Where systemd would start them by itself, that is undone:
# `make serve-edge` has a nginx of its own.
set -euo pipefail

packages=(chromium nginx libnginx-mod-http-js openssl prometheus prometheus-alertmanager systemd) # systemd checks its unit
missing=()
for package in "${packages[@]}"; do
  dpkg-query --show --showformat '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "error: no apt-get here; install these by your system's means: ${missing[*]}" >&2
  exit 1
fi
root=()
[ "$(id -u)" -eq 0 ] || root=(sudo)
echo "installing ${missing[*]} (about 400 MB, a minute)"
"${root[@]}" apt-get update --quiet=2
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}" >/dev/null
if [ -d /run/systemd/system ]; then
  for package in "${missing[@]}"; do
    "${root[@]}" systemctl disable --now "$package.service" 2>/dev/null || true # some have no service
  done
fi
