// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/selection.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <span>
#include <string_view>

#include <fmt/format.h>

#include "features/trace/number_list.hpp"
#include "netctl/abi/trace.h"
#include "sys/cgroup.hpp"
#include "sys/netns.hpp"

namespace netctl::trace {

namespace {

Result<std::vector<Prefix>> parse_prefix_list(const Arguments& arguments, const char* option) {
    std::vector<Prefix> prefixes;
    if (!arguments.has(option))
        return prefixes;
    const std::string text = arguments.get(option);
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(',', begin), text.size());
        auto prefix = Prefix::parse(std::string_view(text).substr(begin, end - begin));
        if (!prefix)
            return Error::usage(fmt::format("--{}: {}", option, prefix.error().what.string()),
                                "192.0.2.1, 2001:db8::/32, or several with commas between them");
        prefixes.push_back(*prefix);
        begin = end + 1;
    }
    if (prefixes.size() > NC_TRACE_PREFIXES)
        return Error::usage(
            fmt::format("--{} takes at most {} networks", option, NC_TRACE_PREFIXES));
    return prefixes;
}

nc_trace_prefix key_of(const Prefix& prefix) {
    nc_trace_prefix key{};
    const std::span<const std::uint8_t, 16> bytes = prefix.address.bytes;
    if (prefix.address.family == Family::ipv6) {
        key.length = prefix.length;
        std::copy(bytes.begin(), bytes.end(), std::begin(key.address));
    } else {
        key.length = 96u + prefix.length;
        key.address[10] = key.address[11] = 0xff;
        std::copy_n(bytes.begin(), 4, key.address + 12);
    }
    return key;
}

} // namespace

namespace {

std::vector<Option> owner_options(const char* what) {
    return {
        {"pid", "PID", fmt::format("only {} of this process", what), {}},
        {"comm", "NAME", fmt::format("only {} of processes of this name", what), {}},
        {"cgroup", "PATH", fmt::format("only {} of this cgroup or below it", what), {}},
        {"container",
         "NAME|any",
         fmt::format("only {} of this container, by its name, image or id, or of any; and show the "
                     "containers",
                     what),
         {}},
    };
}

} // namespace

std::vector<Option> selection_options() {
    std::vector<Option> options = owner_options("sockets");
    options.push_back({"port", "PORTS", "only sockets with one of these ports: 80,8000-8010", {}});
    options.push_back({"src",
                       "NETWORKS",
                       "only sockets with such an address of this host: 192.0.2.0/24,::1",
                       {}});
    options.push_back({"dst", "NETWORKS", "only sockets with such a remote address", {}});
    return options;
}

std::vector<Option> task_selection_options() {
    return owner_options("calls");
}

Result<Selection> parse_selection(const Arguments& arguments, const Context& context) {
    Selection selection;
    selection.pid = NETCTL_TRY(parse_pid(arguments));
    selection.comm = NETCTL_TRY(parse_comm(arguments));
    selection.cgroup = arguments.get("cgroup");
    selection.container = arguments.get("container");
    selection.netns = context.netns;
    if (arguments.has("port"))
        selection.ports = NETCTL_TRY(parse_port_list(arguments.get("port")));
    selection.sources = NETCTL_TRY(parse_prefix_list(arguments, "src"));
    selection.destinations = NETCTL_TRY(parse_prefix_list(arguments, "dst"));
    return selection;
}

Result<> select_before_load(const bpf::Object& object, const Selection& selection) {
    nc_trace_selection constant{};
    if (!selection.ports.empty())
        constant.select |= NC_TRACE_SELECT_PORT;
    if (!selection.sources.empty())
        constant.select |= NC_TRACE_SELECT_SRC;
    if (!selection.destinations.empty())
        constant.select |= NC_TRACE_SELECT_DST;
    if (selection.pid != 0) {
        constant.select |= NC_TRACE_SELECT_PID;
        constant.pid = selection.pid;
    }
    if (!selection.comm.empty()) {
        constant.select |= NC_TRACE_SELECT_COMM;
        std::memcpy(constant.comm, selection.comm.data(),
                    std::min(selection.comm.size(), sizeof constant.comm - 1));
    }
    if (!selection.cgroup.empty()) {
        const sys::Cgroup cgroup = NETCTL_TRY(sys::find_cgroup(selection.cgroup));
        constant.select |= NC_TRACE_SELECT_CGROUP;
        constant.cgroup_id = cgroup.id;
        constant.cgroup_level = sys::cgroup_level(cgroup.name);
    }
    if (!selection.netns.empty()) {
        const auto inside = NETCTL_TRY(sys::NetnsGuard::enter(selection.netns));
        constant.select |= NC_TRACE_SELECT_NETNS;
        constant.netns = static_cast<__u32>(NETCTL_TRY(sys::current_netns_inode()));
    }
    return object.set_rodata("selection", std::as_bytes(std::span(&constant, 1)));
}

Result<> select_after_load(const bpf::Object& object, const Selection& selection) {
    const std::uint8_t one = 1;
    if (!selection.ports.empty()) {
        const bpf::RawMap ports = NETCTL_TRY(object.map("ports"));
        for (const std::uint32_t port : selection.ports)
            NETCTL_TRY(ports.update(&port, &one));
    }
    const auto fill = [&](const char* name, const std::vector<Prefix>& prefixes) -> Result<> {
        if (prefixes.empty())
            return {};
        const bpf::RawMap map = NETCTL_TRY(object.map(name));
        for (const Prefix& prefix : prefixes) {
            const nc_trace_prefix key = key_of(prefix);
            NETCTL_TRY(map.update(&key, &one));
        }
        return {};
    };
    NETCTL_TRY(fill("sources", selection.sources));
    return fill("destinations", selection.destinations);
}

bool container_selected(const Selection& selection, const Container* container) {
    if (selection.container.empty())
        return true;
    return container && (selection.container == "any" || container->is_called(selection.container));
}

Result<std::uint32_t> parse_pid(const Arguments& arguments) {
    const auto pid = static_cast<std::uint32_t>(NETCTL_TRY(arguments.number("pid", 0, 1, 4194304)));
    if (pid != 0 && !process_exists(pid))
        return Error::failed(fmt::format("there is no process {}", pid));
    return pid;
}

bool process_exists(std::uint32_t pid) {
    return kill(static_cast<pid_t>(pid), 0) == 0 || errno != ESRCH;
}

Result<std::string> parse_comm(const Arguments& arguments) {
    std::string comm = arguments.get("comm");
    if (arguments.has("comm") && (comm.empty() || comm.size() > 15))
        return Error::usage(fmt::format("no process can have the name '{}'", comm),
                            "the kernel keeps 15 characters; see /proc/PID/comm");
    return comm;
}

Result<std::uint32_t> parse_ring_bytes(const Arguments& arguments) {
    const std::uint64_t ring = NETCTL_TRY(arguments.number("buffer", 16, 1, 1024));
    if ((ring & (ring - 1)) != 0)
        return Error::usage(fmt::format("--buffer takes a power of two, not {}", ring));
    return static_cast<std::uint32_t>(ring * 1024 * 1024);
}

} // namespace netctl::trace
