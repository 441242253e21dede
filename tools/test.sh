#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Run the stages of `make test` one after the other, all of them whatever
# fails, and add up. A stage is a make target; a line of the form
#
#     NAME: N passed, N failed, N skipped
#
# is its account; where there are several, they add up. A stage that ends badly,
# or gives no account, counts as one failure more, so that a stage that dies early
# is never a success.
#
# With RESUME set, a stage that has passed on the very same files is not run again,
# so that hours of stages that were stopped go on.
set -uo pipefail
cd "$(dirname "$0")/.."

logs=build/test
mkdir -p "$logs"
passed=0 failed=0 skipped=0
accounts=()
start=$SECONDS

state=
if [ -n "${RESUME-}" ]; then
	state=$({
		git rev-parse HEAD
		git diff HEAD
		git ls-files -z --others --exclude-standard | xargs -0 -r sha256sum
	} | sha256sum | cut -c1-16)
fi

for stage in "$@"; do
	printf '\n=== %s\n' "$stage"
	began=$SECONDS
	log=$logs/$stage.log
	if [ -n "$state" ] && read -r was p s < "$logs/$stage.passed" && [ "$was" = "$state" ]; then
		printf 'passed before, on the same files; remove %s to run it again\n' "$logs/$stage.passed"
		passed=$((passed + p)) skipped=$((skipped + s))
		accounts+=("$(printf '%-22s %5d passed %4d failed %4d skipped   before' "$stage" "$p" 0 "$s")")
		continue
	fi 2>/dev/null
	rm -f "$logs/$stage.passed"
	"${MAKE:-make}" "$stage" 2>&1 | tee "$log"
	rc=${PIPESTATUS[0]}
	read -r p f s accounted < <(awk '
		match($0, /[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/) {
			split(substr($0, RSTART), n, /[^0-9]+/); p += n[1]; f += n[2]; s += n[3]; any = 1
		}
		END { print p + 0, f + 0, s + 0, any + 0 }' "$log")
	note=
	if [ "$rc" -ne 0 ] && [ "$f" -eq 0 ]; then
		f=1 note=" (the stage itself failed, exit $rc)"
	elif [ "$accounted" -eq 0 ]; then
		f=1 note=" (the stage gave no account)"
	fi
	if [ -n "$state" ] && [ "$f" -eq 0 ]; then
		printf '%s %d %d\n' "$state" "$p" "$s" > "$logs/$stage.passed"
	fi
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	accounts+=("$(printf '%-22s %5d passed %4d failed %4d skipped %5d s%s' "$stage" "$p" "$f" "$s" $((SECONDS - began)) "$note")")
done

printf '\n'
printf '%s\n' "${accounts[@]}"
printf 'in %d s; logs are in %s\n' $((SECONDS - start)) "$logs"
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
