#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A fuzzing campaign as a job array of SLURM, a shard each:
#
#     make build && build/wflp fuzz run -iterations 1     # kernels, once
#     sbatch --array=0-15 --cpus-per-task=2 --mem-per-cpu=1G --time=8:10:00 \
#         tools/fuzz-slurm.sh out/cluster -time 8h
#     build/wflp fuzz merge out/all out/cluster/shard-*   # when they are done
#
# The checkout and the cache (XDG_CACHE_HOME) are on a file system that all nodes
# share. A task that is preempted or times out goes on when it is submitted again.
#SBATCH --job-name=wflp-fuzz
#SBATCH --output=%x-%A-%a.log
#SBATCH --requeue
#SBATCH --signal=B:TERM@60
set -euo pipefail

: "${SLURM_ARRAY_TASK_ID:?this script is for sbatch --array=0-N; see its head}"
if [ $# -lt 1 ]; then
	echo 'usage: sbatch --array=0-N tools/fuzz-slurm.sh FOLDER [FLAGS OF wflp fuzz run]' >&2
	exit 2
fi
out=$1
shift
# SLURM runs a copy of this script; where it was submitted is the checkout.
cd "${SLURM_SUBMIT_DIR:?}"
first=${SLURM_ARRAY_TASK_MIN:-0}
mkdir -p "$out"

build/wflp fuzz run -out "$out/shard-$SLURM_ARRAY_TASK_ID" -jobs "${SLURM_CPUS_PER_TASK:-1}" \
	-shard "$((SLURM_ARRAY_TASK_ID - first))/${SLURM_ARRAY_TASK_COUNT:?}" "$@" &
fuzz=$!
# The signal of the time limit comes to this shell. What the campaign has done is
# in its folder then.
trap 'kill -TERM "$fuzz"' TERM
# A trap ends a wait before its time.
while :; do
	rc=0
	wait "$fuzz" || rc=$?
	kill -0 "$fuzz" 2>/dev/null || break
done
# A finding is no failure of the job.
[ "$rc" -eq 1 ] && rc=0
exit "$rc"
