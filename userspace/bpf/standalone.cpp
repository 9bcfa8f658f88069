// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/standalone.hpp"

#include <cerrno>

#include <bpf/bpf.h>
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

Result<std::vector<RawMap>> create_standalone(const std::string& name, std::uint32_t max_entries,
                                              std::size_t count) {
    std::vector<RawMap> made;
    if (count == 0)
        return made;
    made.push_back(NETCTL_TRY(create_standalone(name, max_entries)));
    bpf_map_info info{};
    __u32 size = sizeof info;
    if (bpf_map_get_info_by_fd(made[0].fd(), &info, &size) != 0)
        return Error::system(errno, "cannot ask about map " + name);
    const Fd btf(bpf_btf_get_fd_by_id(info.btf_id));
    LIBBPF_OPTS(bpf_map_create_opts, options, .btf_fd = static_cast<__u32>(btf.get()),
                .btf_key_type_id = info.btf_key_type_id,
                .btf_value_type_id = info.btf_value_type_id, .map_flags = info.map_flags);
    while (made.size() < count) {
        Fd fd(bpf_map_create(static_cast<bpf_map_type>(info.type), info.name, info.key_size,
                             info.value_size, max_entries, &options));
        if (!fd)
            return Error::system(errno, "cannot make a map " + name);
        made.emplace_back(std::move(fd), name);
    }
    return made;
}

} // namespace netctl::bpf
