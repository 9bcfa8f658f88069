// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/tracer_pins.hpp"

#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "bpf/map.hpp"
#include "core/log.hpp"
#include "datapath/root.hpp"

namespace netctl::trace {

Result<TracerPins> TracerPins::make(const std::string& root, std::vector<std::string>& notes) {
    auto locked = NETCTL_TRY(datapath::LockedRoot::acquire(root, notes));
    const bpf::PinDir all = locked.dir().sub("trace");
    for (const std::string& name : all.list())
        if (bpf::DirLock::try_acquire(all.path_of(name)))
            NETCTL_TRY(all.sub(name).remove_all()); // of a tracer that was killed
    std::string name = std::to_string(getpid());
    for (int i = 2; all.has(name); ++i)
        name = fmt::format("{}-{}", getpid(), i);
    const bpf::PinDir own = all.sub(name);
    NETCTL_TRY(own.create());
    return TracerPins(root, own.path(), NETCTL_TRY(bpf::DirLock::try_acquire(own.path())));
}

TracerPins::TracerPins(TracerPins&& other) noexcept
    : root_(std::move(other.root_)),
      path_(std::exchange(other.path_, {})),
      lock_(std::move(other.lock_)) {}

TracerPins::~TracerPins() {
    if (path_.empty())
        return;
    std::vector<std::string> notes;
    const auto locked = datapath::LockedRoot::acquire(root_, notes);
    const auto removed = bpf::PinDir(path_).remove_all();
    if (!removed)
        debug(removed.error().what);
}

Result<> TracerPins::pin(const bpf::Object& object, std::span<const char* const> maps) const {
    for (const char* name : maps) {
        const bpf::RawMap map = NETCTL_TRY(object.map(name));
        NETCTL_TRY(map.pin(bpf::PinDir(path_).path_of(name)));
    }
    return {};
}

} // namespace netctl::trace
