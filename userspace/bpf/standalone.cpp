// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/standalone.hpp"

#include <bpf/libbpf.h>

#include "bpf/object.hpp"
#include "standalone.skel.h"

namespace netctl::bpf {

Result<RawMap> create_standalone(const std::string& name, std::uint32_t max_entries) {
    const auto skeleton = NETCTL_TRY(Skeleton<standalone>::open());
    const Object object = skeleton.object();
    bpf_map* map = nullptr;
    bpf_object__for_each_map(map, skeleton->obj) {
        const std::string candidate = bpf_map__name(map);
        NETCTL_TRY(object.set_autocreate(candidate, candidate == name));
    }
    NETCTL_TRY(object.set_max_entries(name, max_entries));
    NETCTL_TRY(object.load());
    return object.map(name);
}

} // namespace netctl::bpf
