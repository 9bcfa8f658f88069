// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/root.hpp"

#include <cerrno>
#include <unistd.h>

#include <fmt/format.h>

#include "bpf/probe.hpp"
#include "bpf/standalone.hpp"

namespace netctl::datapath {

namespace {

using MetaMap = bpf::Map<std::uint32_t, nc_meta>;

Result<MetaMap> open_meta(const bpf::PinDir& dir) {
    return MetaMap::wrap(NETCTL_TRY(bpf::RawMap::open(dir.path_of("meta"))));
}

Result<> make_meta(const bpf::PinDir& dir) {
    const bpf::RawMap raw = NETCTL_TRY(bpf::create_standalone("meta", 1));
    const std::uint32_t zero = 0;
    const nc_meta meta{NC_ABI_VERSION, 0, 0};
    NETCTL_TRY(raw.update(&zero, &meta)); // filled before it is published
    return dir.replace("meta", raw);
}

} // namespace

Result<> Root::check_version() const {
    if (!dir_.has("meta"))
        return {};
    const auto opened = open_meta(dir_);
    if (!opened)
        return Error(opened.error());
    const auto meta = NETCTL_TRY(opened->lookup(0));
    if (!meta || meta->abi_version != NC_ABI_VERSION)
        return Error::failed(
            fmt::format("{} has ABI version {}, this netctl speaks version {}", dir_.path(),
                        meta ? meta->abi_version : 0, NC_ABI_VERSION),
            "what runs there keeps running; use the netctl that made it, or another --root");
    return {};
}

Result<Root> Root::open(const std::string& path) {
    NETCTL_TRY(bpf::check_capabilities()); // else a root that we may not see looks like none
    Root root(path);
    if (!root.exists())
        return root;
    if (!bpf::in_bpffs(path))
        return Error::failed(fmt::format("{} is not in a bpffs", path),
                             "give a directory of a mounted bpffs with --root");
    NETCTL_TRY(root.check_version());
    return root;
}

Result<LockedRoot> LockedRoot::acquire(const std::string& path, std::vector<std::string>& notes) {
    NETCTL_TRY(bpf::check_capabilities());
    const std::string mounted = NETCTL_TRY(bpf::ensure_bpffs(path));
    if (!mounted.empty())
        notes.push_back(fmt::format("mounted bpffs at {}", mounted));
    const bpf::PinDir dir(path);
    for (;;) {
        NETCTL_TRY(dir.sub("lock").create());
        auto lock = bpf::DirLock::acquire(dir.path_of("lock"));
        if (!lock && lock.error().code == ENOENT)
            continue; // the last user removed the root between the two steps
        if (!lock)
            return std::move(lock).error();
        if (!lock->still_at(dir.path_of("lock")))
            continue;
        LockedRoot root(path, std::move(*lock));
        if (!dir.has("meta"))
            NETCTL_TRY(make_meta(dir));
        NETCTL_TRY(root.check_version());
        return root;
    }
}

LockedRoot::~LockedRoot() {
    // Nothing but our own lock and meta left: leave the host as it was (invariant I9).
    for (const char* name : {"xdp", "tc", "sets", "redirect", "policy", "trace"})
        dir_.sub(name).remove_if_empty();
    // The policy's programs have these from the start, sets or not.
    if (!dir_.sub("sets").exists() && !dir_.sub("policy").exists())
        (void)dir_.sub("bases").remove_all(); // if it fails: again next time
    const auto names = dir_.list();
    if (names == std::vector<std::string>{"lock", "meta"} && dir_.unpin("meta")) {
        dir_.sub("lock").remove_if_empty();
        dir_.remove_if_empty();
    }
}

Result<std::uint64_t> LockedRoot::next_generation() const {
    const MetaMap map = NETCTL_TRY(open_meta(dir_));
    const auto found = NETCTL_TRY(map.lookup(0));
    nc_meta meta = found.value_or(nc_meta{NC_ABI_VERSION, 0, 0});
    meta.generation++;
    NETCTL_TRY(map.update(0, meta));
    return meta.generation;
}

} // namespace netctl::datapath
