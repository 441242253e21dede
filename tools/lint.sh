#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# gofmt, vet, staticcheck (pinned by tools/lint/go.mod), bash -n, and the
# licence line of every file that can have one.
set -uo pipefail
cd "$(dirname "$0")/.."
passed=0 failed=0

check() {
	local name=$1 out
	shift
	if out=$("$@" 2>&1) && [ -z "$out" ]; then
		passed=$((passed + 1))
		echo "ok   $name"
	else
		failed=$((failed + 1))
		printf 'FAIL %s\n%s\n' "$name" "$out"
	fi
}

sources() { git ls-files --cached --others --exclude-standard -- "$@" | while read -r f; do [ ! -e "$f" ] || echo "$f"; done; }

# Empty output is success; xargs splits no name, for there are none with spaces.
format() { sources '*.go' | xargs -r gofmt -l; }
scripts() { sources '*.sh' .ci/run | xargs -r -n 1 bash -n; }
licences() {
	sources '*.go' '*.[chS]' '*.sh' '*.mk' 'Makefile' '*/Makefile' '*.config' .ci/run | xargs -r grep -L 'SPDX-License-Identifier: '
}

# On a new machine these speak of what they fetch, which is no finding.
go list -deps -test ./... >/dev/null && go tool -modfile=tools/lint/go.mod -n staticcheck >/dev/null || exit

check gofmt format
check vet go vet ./...
check staticcheck go tool -modfile=tools/lint/go.mod staticcheck ./...
check 'bash -n' scripts
check SPDX licences
printf 'lint: %d passed, %d failed, 0 skipped\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
