#!/usr/bin/env bash
# Checks what Prometheus is given with its own tool: a running instance's metrics, the scrape configuration, the alert
# rules and their tests. promtool is in Debian's package `prometheus`.
#
#   scripts/check-metrics.sh http://127.0.0.1:8080
set -euo pipefail
cd "$(dirname "$0")/.."

url=${1:?"name a running instance: scripts/check-metrics.sh http://127.0.0.1:8080"}

curl --fail --silent --show-error "$url/metrics" | promtool check metrics
promtool check config deploy/prometheus/prometheus.yml
promtool test rules deploy/prometheus/alerts_test.yml
