#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tools/gotest.sh NAME ARGUMENTS…: go test, its failures in full, the rest as
# one line a package, and the account that tools/test.sh wants.
set -uo pipefail
name=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# A test that takes minutes says how far it is in lines that begin with its name;
# whoever ends this script sees those at least.
go test -v "$@" 2>&1 | tee "$log" | grep --line-buffered -E '^Test[A-Za-z/]+: '
rc=${PIPESTATUS[0]}
grep -E '^(ok|FAIL|panic:|---|#)' "$log" | grep -vE '^--- (PASS|SKIP)' || true
if [ $rc -ne 0 ]; then
	printf 'go test failed; all it said, but for what passed:\n'
	grep -vE '^(=== (RUN|PAUSE|CONT|NAME)|[[:space:]]*--- (PASS|SKIP)|PASS$|ok[[:space:]]|\?[[:space:]])' "$log" | tail -n 400
fi
count() { grep -cE "^[[:space:]]*--- $1: " "$log"; }
f=$(count FAIL)
if [ $rc -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
printf '%s: %d passed, %d failed, %d skipped\n' "$name" "$(count PASS)" "$f" "$(count SKIP)"
exit $rc
