# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
#
# What the scripts share. Source it after `set -euo pipefail`.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$(realpath -m "${NETCTL_BUILD:-$repo/build}")

# Debian's own tools first: a private Python ahead in PATH has neither Debian's pytest nor its scapy.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH

say() {
    printf '%s: %s\n' "${0##*/}" "$*"
}

die() {
    say "$*" >&2
    exit 1
}

# Prints the comment at the top of the calling script.
usage() {
    awk 'NR > 3 && !/^#/ { exit } NR > 3 { sub(/^# ?/, ""); print }' "$0"
}

require_root() {
    ((EUID == 0)) || die 'must be root'
}

# at_exit COMMAND ARGUMENT...: run it when the script ends, last registered first, signals included.
exit_commands=()
at_exit() {
    exit_commands+=("$(printf '%q ' "$@")")
}
run_exit_commands() {
    local status=$? i
    trap '' INT TERM HUP
    set +e
    for ((i = ${#exit_commands[@]} - 1; i >= 0; i--)); do
        eval "${exit_commands[i]}"
    done
    exit "$status"
}
trap run_exit_commands EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Sets the variable NAME to a new directory that goes away with the script.
temporary_directory() {
    local -n name=$1
    name=$(mktemp -d "${TMPDIR:-/tmp}/netctl-${0##*/}.XXXXXX")
    at_exit rm -rf "$name"
}

# end_namespace SIGNAL PID: has the signal end what `unshare --pid --fork` with this process id has started, all of
# it, and waits until it is gone. unshare itself lets SIGTERM wait for ever.
end_namespace() {
    local children=()
    { read -ra children <"/proc/$2/task/$2/children"; } 2>/dev/null
    if ((${#children[@]})); then
        kill "-$1" "${children[@]}"
    else
        kill -KILL "$2" 2>/dev/null
    fi
    wait "$2"
}

# Runs a command with its output held back, unless it fails.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 || status=$?
    ((status == 0)) || cat "$log" >&2
    rm -f "$log"
    return "$status"
}

# Brings all of the build directory up to date.
build_netctl() {
    build_targets all
}

# build_targets TARGET...: brings these up to date; `all` is all, tests included. Scripts that run at the same
# time wait for each other. A directory that is not there yet and is to have certain targets only, is made for
# being built once: one unit a folder, which takes half the time; who edits files does better without, so a
# directory that was made otherwise stays as it is. What has been built in either is used by the other scripts.
build_targets() {
    local once=()
    [[ $1 == all ]] || once=(-Dunity=on -Dtests=false)
    "$repo/scripts/setup" build
    mkdir -p "$build"
    (
        flock 9
        if [[ ! -e $build/build.ninja ]]; then
            say "configuring $build"
            quietly meson setup "$build" "$repo" "-Dwerror=${NETCTL_WERROR:-true}" "${once[@]}" ||
                die 'meson setup failed'
        elif [[ $1 == all ]] && ! grep -q '^build netctl-unit:' "$build/build.ninja"; then
            quietly meson configure "$build" -Dtests=true || die 'meson configure failed'
        fi
        # Packages that came since then may bring what the build leaves out without them.
        if [[ /var/lib/dpkg/status -nt $build/build.ninja ]]; then
            quietly meson setup --reconfigure "$build" "$repo" || die 'meson setup failed'
        fi
        say "building $build"
        quietly ninja -C "$build" "$@" || die 'the build failed'
        # For editors; meson's own leaves out what clang compiles for BPF.
        ninja -C "$build" -t compdb >"$repo/compile_commands.json"
    ) 9>"$build/.netctl-lock"
}
