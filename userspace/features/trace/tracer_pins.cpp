// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/tracer_pins.hpp"

#include <unistd.h>

#include <fmt/format.h>

#include "core/log.hpp"
#include "datapath/root.hpp"

namespace netctl::trace {

Result<TracerPins> TracerPins::make(const RootOptions& root) {
    const auto locked = NETCTL_TRY(datapath::LockedRoot::acquire(root));
    const bpf::PinDir all = locked.dir().sub("trace");
    for (const std::string& name : all.list())
        if (bpf::DirLock::try_acquire(all.sub(name)))
            NETCTL_TRY(all.sub(name).remove_all()); // of a tracer that was killed
    std::string name = std::to_string(getpid());
    for (int i = 2; all.has(name); ++i)
        name = fmt::format("{}-{}", getpid(), i);
    const bpf::PinDir own = all.sub(name);
    NETCTL_TRY(own.create());
    return TracerPins(root, own, NETCTL_TRY(bpf::DirLock::try_acquire(own)));
}

TracerPins::~TracerPins() {
    if (!lock_)
        return;
    const auto locked = datapath::LockedRoot::acquire(root_);
    const auto removed = dir_.remove_all();
    if (!removed)
        debug(removed.error().what);
}

Result<> TracerPins::pin(const bpf::Object& object, std::span<const char* const> maps) const {
    for (const char* name : maps)
        NETCTL_TRY(dir_.pin(name, NETCTL_TRY(object.map(name))));
    return {};
}

} // namespace netctl::trace
