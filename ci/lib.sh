# Shared by the commands in this folder; sourced, not run.
# shellcheck shell=bash
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repo"
# Downloads that outlive a clone: the guest's kernel and initramfs. hw-tests looks in the same place.
cache=${CULVERT_CACHE:-${XDG_CACHE_HOME:-${HOME:-$repo/.cache}/.cache}/culvert}
target=${CARGO_TARGET_DIR:-target}
logs=$(mktemp -d "${TMPDIR:-/tmp}/culvert-ci.XXXXXX")
trap 'rm -rf "$logs"' EXIT
export PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
# A clone that is built once has no use for what makes the next build faster.
[ -z "${CI-}" ] || export CARGO_INCREMENTAL=0
# Commands that call each other count from the same start.
export CULVERT_CI_START=${CULVERT_CI_START:-$(date +%s)}

# say TEXT: one progress line, with the time since the start.
say() { printf '[%4ds] %s\n' $(($(date +%s) - CULVERT_CI_START)) "$*"; }

die() { say "error: $*" >&2; exit 1; }

# quietly TITLE COMMAND...: runs a command with its output in a file; shows that it is alive every 15 seconds, and
# the end of the output when it fails.
quietly() {
    local title=$1 log pid status=0 waited=0; shift
    log=$(mktemp "$logs/XXXXXX")
    say "$title"
    "$@" >"$log" 2>&1 </dev/null & pid=$!
    while kill -0 $pid 2>/dev/null; do
        sleep 0.2; waited=$((waited + 1))
        [ $((waited % 75)) -ne 0 ] || say "$title: $(tail -n 1 "$log" | tr -d '\r' | cut -c 1-100)"
    done
    wait $pid || status=$?
    [ $status -eq 0 ] || { tail -n 40 "$log" >&2; die "$title: exit status $status"; }
}

# need_root: everything past the build works on namespaces, hugepages and packages.
need_root() { [ "$(id -u)" -eq 0 ] || die "$(basename "$0") must run as root: it uses namespaces, taps and hugepages"; }
