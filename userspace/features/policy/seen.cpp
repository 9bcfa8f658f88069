// SPDX-License-Identifier: GPL-2.0-only
//
// What the programs tell: events, and what the mode audit let pass.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <sys/stat.h>
#include <tuple>

#include <fmt/format.h>

#include "bpf/ring_buffer.hpp"
#include "core/text.hpp"
#include "features/policy/controller.hpp"
#include "features/policy/state.hpp"
#include "sys/cgroup.hpp"

namespace netctl::policy {

using datapath::Root;

namespace {

std::string link_target(const std::string& path) {
    std::error_code failure;
    const std::filesystem::path target = std::filesystem::read_symlink(path, failure);
    return failure ? std::string() : target.string();
}

/// The path of an executable, as long as a process runs it.
std::string exe_path(std::uint32_t tgid, std::uint64_t inode) {
    const std::string link = fmt::format("/proc/{}/exe", tgid);
    struct stat status {};
    if (stat(link.c_str(), &status) != 0 || status.st_ino != inode)
        return {};
    return link_target(link);
}

} // namespace

Result<> Controller::read_log(const std::function<bool(const LogEvent&)>& handle, bool follow,
                              const std::function<bool()>& idle) const {
    std::optional<Root> root = NETCTL_TRY(Root::open(root_));
    const bpf::PinDir dir = policy_dir(*root);
    const auto live = NETCTL_TRY(open_live(*root));
    root.reset(); // a log may be read for long
    if (!live)
        return not_enabled();
    const auto lock = bpf::DirLock::try_acquire(dir);
    if (!lock) {
        if (lock.error().code == EWOULDBLOCK)
            return Error::failed("the log of the policy is being read already",
                                 "a ring buffer gives each event to one reader only");
        return Error(lock.error());
    }
    std::map<std::uint64_t, std::string> cgroups; // finding a name walks the hierarchy
    auto buffer = NETCTL_TRY(bpf::RingBuffer::open(
        NETCTL_TRY(live->program.map("events")), [&](std::span<const std::byte> record) {
            LogEvent logged;
            nc_policy_event& event = logged.event;
            if (record.size() < sizeof event)
                return true;
            std::memcpy(&event, record.data(), sizeof event);
            event.comm[sizeof event.comm - 1] = 0;
            event.exe_name[sizeof event.exe_name - 1] = 0;
            const auto [at, fresh] = cgroups.try_emplace(event.cgroup_id);
            if (fresh)
                at->second = sys::cgroup_name(event.cgroup_id).value_or("");
            logged.cgroup = at->second;
            logged.exe = exe_path(event.tgid, event.exe_inode);
            if (logged.exe.empty())
                logged.exe = event.exe_name;
            return handle(logged);
        }));
    if (!follow) {
        NETCTL_TRY(buffer.consume());
        return {};
    }
    while (NETCTL_TRY(buffer.poll(100)))
        if (!idle() || !dir.has("stats"))
            break;
    return {};
}

namespace {

/// Path of an executable of which only name and identity are known: from the process that was seen
/// last, or out of the usual directories.
std::string find_path(const nc_policy_seen& key, const nc_policy_seen_value& value) {
    const ExeId wanted{key.exe_dev, key.exe_inode};
    // A process may be in a mount namespace of its own, where the path is another file.
    std::string path = exe_path(value.tgid, key.exe_inode);
    if (!path.empty() && find_exe(path) == wanted)
        return path;
    const std::string name(value.exe_name, strnlen(value.exe_name, sizeof value.exe_name));
    for (const char* directory : {"/usr/bin/", "/usr/sbin/", "/usr/local/bin/", "/usr/local/sbin/",
                                  "/bin/", "/sbin/", "/usr/libexec/"})
        if (find_exe(directory + name) == wanted)
            return directory + name;
    return {};
}

} // namespace

Result<std::vector<Learnt>> Controller::learn(bool forget) const {
    const Root root = NETCTL_TRY(Root::open(root_));
    const auto live = NETCTL_TRY(open_live(root));
    if (!live)
        return not_enabled();
    const bpf::RawMap seen = NETCTL_TRY(live->program.map("seen"));
    // One rule for each executable, user, protocol and port; its destinations become a list.
    struct Group {
        std::vector<Prefix> destinations;
        std::uint64_t count = 0;
        std::string who;
    };
    std::map<std::tuple<std::string, std::uint32_t, int, int>, Group> groups;
    const bpf::MapKeys keys = NETCTL_TRY(seen.keys());
    for (const std::uint8_t* key : keys) {
        nc_policy_seen one{};
        std::memcpy(&one, key, sizeof one);
        nc_policy_seen_value value{};
        if (!NETCTL_TRY(seen.lookup(&one, &value)))
            continue;
        const int port = has_ports(one.proto) ? one.dport : -1;
        Group& group = groups[{find_path(one, value), one.uid, one.proto, port}];
        Prefix prefix;
        prefix.address.family = one.family == 4 ? Family::ipv4 : Family::ipv6;
        std::memcpy(prefix.address.bytes.data(), one.dst, one.family == 4 ? 4 : 16);
        prefix.length = static_cast<std::uint8_t>(prefix.address.bits());
        group.destinations.push_back(prefix);
        group.count += value.count;
        group.who = std::string(value.comm, strnlen(value.comm, sizeof value.comm));
    }
    std::vector<Learnt> learnt;
    for (auto& [about, group] : groups) {
        const auto& [exe, uid, proto, port] = about;
        std::sort(group.destinations.begin(), group.destinations.end());
        group.destinations.erase(std::unique(group.destinations.begin(), group.destinations.end()),
                                 group.destinations.end());
        std::string list;
        for (const Prefix& prefix : group.destinations)
            list += (list.empty() ? "" : ", ") + prefix.to_string();
        if (group.destinations.size() > 1)
            list = fmt::format("{{{}}}", list);
        std::string text = fmt::format("dst {} proto {} uid {}", list, proto, uid);
        if (port >= 0)
            text += fmt::format(" dport {}", port);
        std::vector<std::string> words{text};
        if (!exe.empty())
            words.push_back("exe " + rule_quoted(exe));
        words.push_back("allow");
        std::string whole;
        for (const std::string& word : words)
            whole += (whole.empty() ? "" : " ") + word;
        learnt.push_back({NETCTL_TRY(parse_rule(whole, Hook::policy)), group.count, group.who});
    }
    if (forget)
        for (const std::uint8_t* key : keys)
            NETCTL_TRY(seen.erase(key));
    return learnt;
}

} // namespace netctl::policy
