# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
#
# What scripts that boot a Debian kernel in QEMU share. Source it after lib.sh.

# Kernels are unpacked in here, and never installed.
vm_cache=${NETCTL_VM_CACHE:-/var/cache/netctl/vm}

# Prints the names of the archive's kernels of the line $1, e.g. 6.1, oldest first.
kernels_of_line() {
    local pattern="^linux-image-${1//./\\.}\\.[0-9.-]+(\\+[a-z0-9]+)?-amd64\$"
    apt-cache pkgnames "linux-image-$1." | grep -E "$pattern" | sort -V
}

newest_kernel() {
    local names
    if ! names=$(kernels_of_line "$1"); then
        apt-get -qq update >&2 || true # package lists may have been thrown away to save space
        if ! names=$(kernels_of_line "$1"); then
            names=$(cd "$vm_cache" && printf '%s\n' "linux-image-$1".*/ | grep -v '\*' | sort -V) ||
                die "no kernel $1 in this machine's archive, nor in $vm_cache"
        fi
    fi
    names=${names##*$'\n'}
    echo "${names%/}"
}

# Unpacks the package $1 (a name or a file) into the directory $2.
unpack_kernel() {
    local package=$1 tree=$2 part
    part=$(mktemp -d "$vm_cache/part.XXXXXX")
    at_exit rm -rf "$part"
    if [[ ! -f $package ]]; then
        say "downloading $package" >&2
        (cd "$part" && quietly apt-get -qq -o APT::Sandbox::User=root download "$package") ||
            die "cannot download $package"
        package=$(echo "$part"/*.deb)
    fi
    dpkg-deb -x "$package" "$part/tree"
    [[ -e $part/tree/lib ]] || ln -s usr/lib "$part/tree/lib"
    depmod -b "$part/tree" "$(basename "$part"/tree/lib/modules/*)"
    rm -rf "$tree"
    mv "$part/tree" "$tree"
}

# find_kernel KERNEL: 6.1 and the like (the newest of that line in the archive), a package's name, or a .deb. Sets
# `tree` to the folder that it is unpacked in, and `release` to its name for itself.
find_kernel() {
    local kernel=$1 lock
    mkdir -p "$vm_cache"
    if [[ $kernel =~ ^[0-9]+\.[0-9]+$ ]]; then
        kernel=$(newest_kernel "$kernel")
    fi
    tree=$vm_cache/$(basename "$kernel" .deb)
    exec {lock}>"$vm_cache/.lock"
    flock "$lock"
    [[ -d $tree && ! $kernel -nt $tree ]] || unpack_kernel "$kernel" "$tree"
    exec {lock}>&-
    release=$(basename "$tree"/lib/modules/*)
}

# pack_initramfs DIR FILE: busybox, and the modules that it takes to see this machine's files, in order; DIR/init is
# there already. The folders are those that such an init mounts on.
pack_initramfs() {
    local directory=$1 number=100 action module copy
    mkdir -p "$directory"/{bin,dev,modules,new,proc,ro,rw,stage,sys}
    cp /bin/busybox "$directory/bin/"
    while read -r action module _; do
        [[ $action == insmod ]] || continue # else it is built in
        copy=$directory/modules/$((number++))-$(basename "$module")
        cp "$module" "$copy"
        case $copy in
            *.xz) xz -d "$copy" ;;
            *.zst) zstd -q --rm -d "$copy" ;;
        esac
    done < <(modprobe --dirname "$tree" --set-version "$release" --show-depends --all \
        virtio_pci 9pnet_virtio 9p overlay | awk '!seen[$0]++')
    chmod +x "$directory/init"
    (cd "$directory" && find . | cpio --quiet -o -H newc | gzip -1) >"$2"
}

# share_option TAG FOLDER READONLY: QEMU's words for a folder that the guest sees.
share_option() {
    printf '%s\n' -fsdev "local,id=$1,path=$2,security_model=none,multidevs=remap,readonly=$3" \
        -device "virtio-9p-pci,fsdev=$1,mount_tag=$1"
}
