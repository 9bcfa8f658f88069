// SPDX-License-Identifier: GPL-2.0-only
//
// Finding out whether a connection is refused: what a canary needs besides its program (invariant
// I5).
#pragma once

#include <cstdint>
#include <string>

#include "core/result.hpp"

namespace netctl::policy {

/// An address out of 127.0.0.0/8 that nobody else connects to, in network order.
std::uint32_t canary_address();

/// A cgroup that goes away with this.
class TemporaryCgroup {
  public:
    /// Below the cgroup at this directory.
    static Result<TemporaryCgroup> below(const std::string& directory);
    TemporaryCgroup(TemporaryCgroup&& other) noexcept;
    TemporaryCgroup& operator=(TemporaryCgroup&&) = delete;
    ~TemporaryCgroup();
    const std::string& path() const { return path_; }

  private:
    explicit TemporaryCgroup(std::string path) : path_(std::move(path)) {}
    std::string path_;
};

/// Connects to port 1 of the address from a child process, which moves into the cgroup at the
/// directory `cgroup` before, unless that is empty. Returns the errno of connect(), 0 if it went on.
Result<int> connect_from_child(std::uint32_t address, const std::string& cgroup);

} // namespace netctl::policy
