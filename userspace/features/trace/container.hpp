// SPDX-License-Identifier: GPL-2.0-only
//
// In which container a process is, from its cgroup and what the runtimes leave in files. No daemon is asked.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

namespace netctl::trace {

struct Container {
    std::string runtime; ///< docker, podman, containerd, crio, lxc, nspawn
    std::string id;      ///< 64 hexadecimal digits; lxc, nspawn: the name
    std::string name;    ///< empty if it is not known
    std::string image;   ///< empty if it is not known

    /// Its name, or the first twelve characters of its id.
    std::string label() const;
    /// Whether `wanted` is its name, its image, its id, or at least eight characters that its id begins with.
    bool is_called(std::string_view wanted) const;
};

/// The innermost container of a cgroup's path; nothing if it is in none. Without name and image, but for
/// runtimes whose ids are names.
std::optional<Container> container_of(std::string_view cgroup);

/// Reads name and image from the files of its runtime below `root`: Docker's and Podman's, CRI-O's stores, and
/// containerd's bundles. What cannot be read stays empty.
void name_container(Container& container, const std::string& root);

/// The containers of cgroups, each looked up once.
class Containers {
  public:
    using CgroupName = std::function<std::optional<std::string>(std::uint64_t)>;

    /// `cgroup_name` tells a cgroup's path by its id; files are read below `root`.
    explicit Containers(CgroupName cgroup_name, std::string root = "/")
        : cgroup_name_(std::move(cgroup_name)), root_(std::move(root)) {}

    /// Null if the cgroup is in none, or gone.
    std::shared_ptr<const Container> of(std::uint64_t cgroup_id);

  private:
    CgroupName cgroup_name_;
    std::string root_;
    std::unordered_map<std::uint64_t, std::shared_ptr<const Container>> known_;
};

} // namespace netctl::trace
