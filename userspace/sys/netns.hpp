// SPDX-License-Identifier: GPL-2.0-only
//
// Network namespaces: entering one for a while, and telling them apart.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/fd.hpp"
#include "core/result.hpp"

namespace netctl::sys {

/// While it lives, the calling thread is on another namespace's network, and nothing else of it
/// (the mounts, and so bpffs, stay). Does nothing for an empty name.
class NetnsGuard {
  public:
    /// `name` as `ip netns` knows it, or a path such as /proc/PID/ns/net.
    static Result<NetnsGuard> enter(const std::string& name);
    /// The same; nothing if there is no such namespace any more. That is no excuse for any other failure.
    static Result<std::optional<NetnsGuard>> enter_if_there(const std::string& name);
    /// A new one with nothing in it but a loopback interface that is down; it goes away with this and with
    /// what was attached in it.
    static Result<NetnsGuard> make();

    NetnsGuard(NetnsGuard&&) noexcept = default;
    NetnsGuard& operator=(NetnsGuard&&) = delete;
    NetnsGuard(const NetnsGuard&) = delete;
    NetnsGuard& operator=(const NetnsGuard&) = delete;
    ~NetnsGuard();

  private:
    explicit NetnsGuard(Fd previous) : previous_(std::move(previous)) {}
    Fd previous_;
};

/// An error if there is no network namespace of this name or path, as NetnsGuard takes it.
Result<> check_netns(const std::string& name);

/// The number by which the kernel knows the namespace at `path` within the current one. It gives
/// one if there is none yet, as any listing of a veth device between the two makes it do.
Result<int> netns_number(const std::string& path);

/// The name, as `ip netns` knows it, of the namespace with this inode number: empty for the current one, nothing if there
/// is none.
Result<std::optional<std::string>> netns_of_inode(std::uint64_t inode);

/// The inode number that identifies the current network namespace.
Result<std::uint64_t> current_netns_inode();

} // namespace netctl::sys
