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

# export_tree DIR: copies the working tree as it is, with what git does not ignore, and no build directory.
export_tree() {
    if [[ -e $repo/.git ]]; then
        git -c safe.directory='*' -C "$repo" ls-files -z --cached --others --exclude-standard |
            (cd "$repo" && xargs -0 ls -d 2>/dev/null)
    else
        (cd "$repo" && find . -path './build*' -prune -o ! -type d -print)
    fi | tar -C "$repo" --create --no-recursion --files-from=- | tar -C "$1" --extract --no-same-owner
}

# Prints the source of a Debian release, or, for one that apt does not know, the one of the release that it knows: both
# are in the same archive, under one key.
debian_source() {
    local release=$1 known
    {
        echo 'Types: deb'
        printf 'Suites: %s\nComponents: main\n' "$release"
        for known in "$release" bookworm trixie; do
            "$repo/scripts/apt-source" "$known" 2>/dev/null && return
        done
    }
    echo "apt knows no source of Debian 12 or 13" >&2
    return 1
}

# debian_root RELEASE DIR ARGUMENT...: a bare root of Debian, with these arguments for mmdebstrap. Not what nobody
# reads: pages, translations. And no waiting for the disk. What apt needs to reach the archive from here, it needs in
# the root.
debian_root() {
    local release=$1 root=$2 option options=() transport sources
    shift 2
    mapfile -t transport < <(apt-config dump --format '%f "%v";%n' Acquire | grep -E '^Acquire::https?::' || true)
    for option in "${transport[@]}" 'Acquire::Languages "none";' 'Acquire::Retries "2";'; do
        options+=(--aptopt="$option")
    done
    sources=$root.sources
    if ! debian_source "$release" >"$sources" ||
        ! mmdebstrap --quiet --variant=minbase "${options[@]}" --dpkgopt=force-unsafe-io \
            --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
            --dpkgopt='path-exclude=/usr/share/locale/*' "$@" "$release" "$root" "$sources"; then
        echo "cannot make a root of Debian's $release from the archive of this machine's apt"
        return 1
    fi
    rm "$sources"
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
