// SPDX-License-Identifier: GPL-2.0-only
//
// Copies of the packets that a rule matches, which is in force nowhere.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "bpf/object.hpp"
#include "core/result.hpp"
#include "core/rule.hpp"
#include "datapath/root.hpp"
#include "netctl/abi/capture.h"

namespace netctl::datapath {

struct CaptureRequest {
    Rule rule;                               ///< its keys (parse_filter())
    std::uint32_t snaplen = NC_CAPTURE_MOST; ///< most bytes of a packet; at least 1
};

struct CapturedPacket {
    std::uint64_t time_ns = 0; ///< CLOCK_BOOTTIME
    std::uint32_t length = 0;  ///< of the frame
    std::span<const std::uint8_t> bytes{};
    std::optional<std::int32_t>
        answer{}; ///< of the hook's program (enum xdp_action), where it is known
};

/// Loads `object`, with a program of lib/capture.h, opened and with the hook's own constants set. Sets that the rule asks
/// are those of `root`.
Result<> load_capture(const bpf::Object& object, const Root& root, const CaptureRequest& request);

/// A program that copies what it sees, attached and nowhere pinned: it goes with this, or with this process, however
/// that ends.
class Capture {
  public:
    /// Its attachment, as the hook has it.
    class Attachment {
      public:
        virtual ~Attachment() = default;
        /// Called some times a second. An error: what is captured at is gone.
        virtual Result<> look_after() = 0;
        /// No more packets come behind it, but those that are under way.
        virtual void detach() = 0;
    };
    /// `object` has the maps. `ether`: frames have a link header.
    Capture(bpf::OwnedObject object, std::unique_ptr<Attachment> attachment, bool ether)
        : object_(std::move(object)), attachment_(std::move(attachment)), ether_(ether) {}

    bool ether() const { return ether_; }

    /// Gets each packet; false ends the capture.
    using Handle = std::function<bool(const CapturedPacket&)>;
    /// Calls `handle` for each packet until it returns false, or `go_on` does, which is asked behind each and at least
    /// ten times a second; `idle` is called when there is none at the moment. Then it is detached, and what was under
    /// way is handled, too, unless `handle` ended it. An error: the interface is gone.
    Result<> follow(const Handle& handle, const std::function<bool()>& go_on,
                    const std::function<bool()>& idle);

    /// So far. Behind follow(): when it ended; what matched was handled by then or is lost, unless `handle` ended it.
    Result<nc_capture_counts> counts() const;

  private:
    Result<nc_capture_counts> read_counts() const;

    bpf::OwnedObject object_;
    std::unique_ptr<Attachment> attachment_;
    bool ether_;
    std::optional<nc_capture_counts> final_;
};

} // namespace netctl::datapath
