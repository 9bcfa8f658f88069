// SPDX-License-Identifier: GPL-2.0-only
//
// Where a fleet's hosts and operators meet: names with bytes behind them. Nothing that comes from there is believed
// before its signature or hash is.
//
//   head            the head, signed
//   body-SHA256     a release's file, as it is or compressed by zstd
//   release-N       the heads that were, for the way back
//   rollout-N       how far release N is
//   status/HOST     what a host reports
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.hpp"

namespace netctl::fleet {

struct StatusEntry {
    std::string host;
    std::string text;
    std::int64_t age = 0; ///< seconds since it was written
};

/// Whatever keeps a task held.
using Held = std::shared_ptr<void>;

class Source {
  public:
    virtual ~Source() = default;

    /// What stands behind a name; nothing if nothing does. Errors: it cannot be asked, or there are more than `most`
    /// bytes, of which no more are read.
    virtual Result<std::optional<std::string>> read(const std::string& name, std::size_t most) = 0;
    /// Puts it there in one step: who reads gets the old or the new, whole.
    virtual Result<> write(const std::string& name, std::string_view bytes) = 0;
    /// Changes it with nobody else's change between what `change` is given and what it returns; nothing returned: it
    /// stays as it is.
    using Change =
        std::function<Result<std::optional<std::string>>(const std::optional<std::string>& old)>;
    virtual Result<> update(const std::string& name, std::size_t most, const Change& change) = 0;
    /// Holds a task for this process alone, as long as what is returned lives. Errors: who else has it.
    virtual Result<Held> hold(const std::string& task, const std::string& who) = 0;
    virtual Result<> write_status(const std::string& host, std::string_view text) = 0;
    /// Of all hosts, in the order of their names. Larger ones than a host writes are left out.
    virtual Result<std::vector<StatusEntry>> statuses() = 0;
    /// Waits until something may have changed, a signal came, or the time is up. True: look.
    virtual bool wait(unsigned milliseconds) = 0;
    /// From now on reports wake the waiter, too: for drivers.
    virtual void watch_statuses() = 0;
    /// Whether bodies had better be stored compressed.
    virtual bool prefers_compressed() const { return false; }
    /// Where it is, for messages.
    virtual std::string name() const = 0;
};

constexpr std::size_t most_status_bytes = std::size_t{64} << 10;
constexpr std::size_t most_state_bytes = std::size_t{16} << 10;

std::string body_name(const std::string& sha256);
std::string release_name(std::uint64_t release);
std::string rollout_name(std::uint64_t release);

} // namespace netctl::fleet
