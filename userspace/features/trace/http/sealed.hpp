// SPDX-License-Identifier: GPL-2.0-only
//
// Connections that carry TLS which nobody decoded: how many, of whom, and why.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "features/trace/parties.hpp"

namespace netctl::trace {

class SealedConnections {
  public:
    /// Of a process, while it is still there.
    using Why = std::function<std::string(std::uint32_t pid)>;

    explicit SealedConnections(Why why) : why_(std::move(why)) {}

    /// `process` has one end of such a connection. Told of both ends it counts once.
    void add(const Endpoint& local, const Endpoint& remote, const Process& process);
    /// One of its ends was decoded.
    void decoded(const Endpoint& local, const Endpoint& remote);

    std::size_t count() const { return beyond_ + sealed_.size(); }
    /// `node 3: the reason; app 2: ...`, those with the most first, at most so many; the names as they may be shown.
    std::string told(std::size_t most) const;

  private:
    /// Either end's, the lower first.
    using Key = std::pair<Endpoint, Endpoint>;
    struct Who {
        std::string name;
        std::string why;
        auto operator<=>(const Who&) const = default;
    };
    static Key key_of(const Endpoint& one, const Endpoint& other) {
        return one < other ? Key{one, other} : Key{other, one};
    }

    static constexpr std::size_t limit = 65536;
    Why why_;
    std::map<Key, Who> sealed_;
    std::map<std::uint32_t, Who> processes_; ///< asked already
    std::size_t beyond_ = 0;                 ///< that could not be remembered
};

} // namespace netctl::trace
