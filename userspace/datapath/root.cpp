// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/root.hpp"

#include <cerrno>
#include <unistd.h>

#include <fmt/format.h>

#include "bpf/bpffs.hpp"
#include "bpf/probe.hpp"
#include "bpf/standalone.hpp"
#include "core/abi_version.hpp"
#include "core/log.hpp"
#include "datapath/one_writing.hpp"

namespace netctl::datapath {

namespace {

using MetaMap = bpf::Map<std::uint32_t, nc_meta>;

Result<MetaMap> open_meta(const bpf::PinDir& dir) {
    return MetaMap::wrap(NETCTL_TRY(dir.open_map("meta")));
}

Result<> make_meta(const bpf::PinDir& dir) {
    const bpf::RawMap raw = NETCTL_TRY(bpf::create_standalone("meta", 1));
    const std::uint32_t zero = 0;
    const nc_meta meta{abi_version(), 0, 0};
    NETCTL_TRY(raw.update(&zero, &meta)); // filled before it is published
    return dir.replace("meta", raw);
}

/// A writer makes an older root its own before it writes, so that the older netctl no longer does.
enum class Version { read, write };

Result<> check_version(const bpf::PinDir& dir, Version purpose) {
    if (!NETCTL_TRY(dir.look_for("meta")))
        return {};
    const MetaMap map = NETCTL_TRY(open_meta(dir));
    auto meta = NETCTL_TRY(map.lookup(0));
    if (meta && reads_abi(meta->abi_version)) {
        if (purpose == Version::read || meta->abi_version == abi_version())
            return {};
        meta->abi_version = abi_version();
        return map.update(0, *meta);
    }
    if (meta && meta->abi_version > abi_version()) {
        if (purpose == Version::write)
            return Error::unknown(
                fmt::format("{} has ABI version {}, this netctl speaks version {}: nothing was "
                            "changed",
                            dir.path(), meta->abi_version, abi_version()),
                "a newer netctl has written there: use that, or another --root");
        tell_of_newer_abi(dir.path(), meta->abi_version);
        return {};
    }
    return Error::failed(
        fmt::format("{} has ABI version {}, this netctl speaks version {}", dir.path(),
                    meta ? meta->abi_version : 0, abi_version()),
        "what runs there keeps running; use the netctl that made it, or another --root");
}

/// Whether all in there may be trusted, and is of a version that this one may write.
Result<> check_writable(const bpf::PinDir& dir) {
    NETCTL_TRY(dir.check_below());
    return check_version(dir, Version::write);
}

constexpr const char* lock_name = "lock";

/// The reading that this thread has begun.
thread_local const OneReading* begun = nullptr;
/// The writing that this thread has begun.
thread_local const OneWriting* writing = nullptr;

/// "netctl (pid 4711)" for each process that holds the lock.
std::string holders_of(const bpf::PinDir& lock) {
    std::vector<std::string> texts;
    for (const bpf::LockHolder& holder : bpf::lock_holders(lock))
        texts.push_back(fmt::format("{} (pid {})", holder.name, holder.pid));
    return texts.empty() ? "somebody whom this PID namespace does not know"
                         : fmt::format("{}", fmt::join(texts, ", "));
}

/// Locks the root. Two locks: whoever waits for the second has the first, so that readers who come one
/// after another do not keep a writer out, nor writers a reader. An error of code ENOENT: there is no
/// such lock, or no longer.
Result<bpf::DirLock> take_lock(const bpf::PinDir& dir, bpf::LockMode mode,
                               const RootOptions& options) {
    const bpf::PinDir lock = dir.sub(lock_name);
    const bpf::LockWait wait{std::chrono::steady_clock::now() + options.lock_timeout, [&] {
                                 tell(fmt::format("waiting for the lock of {}, held by {}",
                                                  dir.path(), holders_of(lock)));
                             }};
    const auto taken = [&](Result<bpf::DirLock> result) -> Result<bpf::DirLock> {
        if (result || result.error().code != ETIMEDOUT)
            return result;
        return Error::failed(
            fmt::format("the lock of {} was not to be had within {} s: it is held by {}",
                        dir.path(), options.lock_timeout.count(), holders_of(lock)),
            "--lock-timeout SECONDS waits longer");
    };
    if (!lock.exists()) {
        NETCTL_TRY(lock.open_directory()); // for its error
        return Error::system(ENOENT, fmt::format("cannot open {}", lock.path()));
    }
    const bpf::DirLock turn = NETCTL_TRY(taken(bpf::DirLock::acquire(dir, mode, wait)));
    bpf::DirLock held = NETCTL_TRY(taken(bpf::DirLock::acquire(lock, mode, wait)));
    if (!held.still_at(lock))
        return Error::system(ENOENT, fmt::format("{} was removed", lock.path()));
    return held;
}

} // namespace

Result<Root> Root::open(const RootOptions& options) {
    NETCTL_TRY(bpf::check_capabilities()); // else a root that we may not see looks like none
    const std::string path = NETCTL_TRY(bpf::root_path(options.path));
    if (begun && begun->root_.dir().path() == path)
        return Root(begun->root_.dir(), {});
    if (writing && writing->root().dir().path() == path)
        return Root(writing->root().dir(), {});
    for (;;) {
        const bpf::PinDir dir = NETCTL_TRY(bpf::PinDir::open(path));
        if (!dir.exists())
            return Root(dir.absent(), {});
        auto lock = take_lock(dir, bpf::LockMode::shared, options);
        if (!lock && lock.error().code != ENOENT)
            return std::move(lock).error();
        if (!lock && dir.has(lock_name))
            continue; // it was removed and made again
        // A writer makes the lock first and removes it last. What lies beside none is of no writer.
        const bool empty = !lock && dir.list().empty();
        if (empty)
            return Root(dir.absent(), {});
        NETCTL_TRY(dir.check_below());
        NETCTL_TRY(check_version(dir, Version::read));
        return Root(dir, lock ? std::move(*lock) : bpf::DirLock());
    }
}

Result<OneReading> OneReading::begin(const RootOptions& options) {
    OneReading reading(NETCTL_TRY(Root::open(options)));
    begun = &reading;
    return reading;
}

OneReading::OneReading(OneReading&& other) noexcept : root_(std::move(other.root_)) {
    if (begun == &other)
        begun = this;
}

OneReading::~OneReading() {
    if (begun == this)
        begun = nullptr;
}

Result<OneWriting> OneWriting::begin(const RootOptions& options) {
    OneWriting one(NETCTL_TRY(LockedRoot::acquire(options)));
    writing = &one;
    return one;
}

OneWriting::OneWriting(OneWriting&& other) noexcept : root_(std::move(other.root_)) {
    if (writing == &other)
        writing = this;
}

OneWriting::~OneWriting() {
    if (writing == this)
        writing = nullptr;
}

Result<LockedRoot> LockedRoot::acquire(const RootOptions& options) {
    NETCTL_TRY(bpf::check_capabilities());
    const std::string path = NETCTL_TRY(bpf::root_path(options.path));
    if (writing && writing->root().dir().path() == path)
        return LockedRoot(writing->root().dir(), {});
    const std::string mounted = NETCTL_TRY(bpf::ensure_bpffs(path));
    if (!mounted.empty())
        tell(fmt::format("mounted bpffs at {}", mounted));
    return wait_for(NETCTL_TRY(bpf::PinDir::open(path)), options);
}

Result<LockedRoot> LockedRoot::open(const RootOptions& options) {
    NETCTL_TRY(bpf::check_capabilities());
    const std::string path = NETCTL_TRY(bpf::root_path(options.path));
    if (writing && writing->root().dir().path() == path)
        return LockedRoot(writing->root().dir(), {});
    const bpf::PinDir dir = NETCTL_TRY(bpf::PinDir::open(path));
    if (dir.list().empty())
        return LockedRoot(dir.absent(), {});
    return wait_for(dir, options);
}

Result<LockedRoot> LockedRoot::wait_for(const bpf::PinDir& dir, const RootOptions& options) {
    const bpf::PinDir lock_dir = dir.sub(lock_name);
    const auto end = std::chrono::steady_clock::now() + options.lock_timeout;
    for (;;) {
        const auto made = lock_dir.create();
        auto lock = made ? take_lock(dir, bpf::LockMode::exclusive, options)
                         : Result<bpf::DirLock>(made.error());
        // The last user may remove the root between any two steps; and a bpffs that is gone stays so.
        if (!lock && lock.error().code == ENOENT && std::chrono::steady_clock::now() < end)
            continue;
        if (!lock) {
            leave_as_found(dir);
            return std::move(lock).error();
        }
        if (const auto fit = check_writable(dir); !fit) {
            // Made for this lock, it is still empty; what is not to be trusted, or newer, is left alone.
            if (dir.list() == std::vector<std::string>{lock_name}) {
                lock_dir.remove_if_empty();
                dir.remove_if_empty();
            }
            return Error(fit.error());
        }
        LockedRoot root(dir, std::move(*lock));
        if (!NETCTL_TRY(dir.look_for("meta")))
            NETCTL_TRY(make_meta(dir));
        return root;
    }
}

/// Takes away a root that was made for a lock that could not be had. Only who holds the lock may remove
/// it; if somebody else does, the root is his to remove.
void LockedRoot::leave_as_found(const bpf::PinDir& dir) {
    const bpf::PinDir lock_dir = dir.sub(lock_name);
    auto lock = bpf::DirLock::try_acquire(lock_dir);
    if (lock && lock->still_at(lock_dir))
        LockedRoot(dir, std::move(*lock)); // which goes with it, if nothing else is there
    else
        dir.remove_if_empty();
}

LockedRoot::~LockedRoot() {
    if (!lock_)
        return; // moved on, and so is this duty
    if (const auto tidied = tidy(); !tidied)
        warn(Text::format("the root {} could not be tidied up: {}", dir_.path(),
                          tidied.error().what));
}

/// With nothing but our own lock and meta left, leaves the host as it was (invariant I9). What is empty below a
/// feature's directory may be a stranger's, and stays.
Result<> LockedRoot::tidy() const {
    NETCTL_TRY(dir_.sweep());
    for (const char* feature : {"xdp", "tc", "sets", "redirect", "policy", "trace"}) {
        NETCTL_TRY(dir_.sub(feature).sweep());
        NETCTL_TRY(dir_.sub(feature).remove_empty());
    }
    // The policy's programs have these from the start, sets or not.
    if (!NETCTL_TRY(dir_.look_for("sets")) && !NETCTL_TRY(dir_.look_for("policy")))
        NETCTL_TRY(dir_.sub("bases").remove_all());
    // Where a new root could not be made whole, it may lack one of these, or have one aside.
    std::vector<std::string> names = NETCTL_TRY(dir_.names());
    const bool listed = std::erase(names, lock_name) != 0;
    std::erase(names, "meta");
    std::erase(names, "meta~new");
    if (!listed || !names.empty())
        return {};
    NETCTL_TRY(dir_.unpin("meta~new"));
    NETCTL_TRY(dir_.unpin("meta"));
    NETCTL_TRY(dir_.sub(lock_name).remove_empty());
    return dir_.remove_empty();
}

Result<std::uint64_t> LockedRoot::next_generation() const {
    const MetaMap map = NETCTL_TRY(open_meta(dir_));
    const auto found = NETCTL_TRY(map.lookup(0));
    nc_meta meta = found.value_or(nc_meta{abi_version(), 0, 0});
    meta.generation++;
    NETCTL_TRY(map.update(0, meta));
    return meta.generation;
}

} // namespace netctl::datapath
