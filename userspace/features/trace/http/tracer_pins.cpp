// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/tracer_pins.hpp"

#include <unistd.h>

#include <fmt/format.h>

#include "core/log.hpp"
#include "datapath/root.hpp"

namespace netctl::trace {

Result<TracerPins> TracerPins::make(const RootOptions& root, const bpf::Object& object,
                                    std::span<const char* const> maps) {
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
    auto lock = NETCTL_TRY(bpf::DirLock::try_acquire(own));
    const auto fill = [&]() -> Result<> {
        for (const char* map : maps)
            NETCTL_TRY(own.pin(map, NETCTL_TRY(object.map(map))));
        return {};
    };
    if (auto filled = fill(); !filled) {
        (void)own.remove_all();
        return std::move(filled).error();
    }
    return TracerPins(root, own, std::move(lock));
}

TracerPins::~TracerPins() {
    if (!lock_)
        return;
    const auto locked = datapath::LockedRoot::open(root_);
    const auto removed = dir_.remove_all();
    if (!removed)
        debug(removed.error().what);
}

} // namespace netctl::trace
