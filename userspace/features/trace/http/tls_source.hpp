// SPDX-License-Identifier: GPL-2.0-only
//
// Plaintext of TLS libraries as records of the system-call source, into the same ring.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bpf/object.hpp"
#include "core/result.hpp"

namespace netctl::trace {

class TlsSource {
  public:
    virtual ~TlsSource() = default;

    /// `calls` is the loaded object of http_syscall, whose maps are shared; `tracepoints`: sockets report through
    /// them. Puts probes into what there is and into `libraries`, files that the user named. Errors: one of these
    /// is no such file; the kernel takes no probes, or not from this process.
    static Result<std::unique_ptr<TlsSource>> open(const bpf::Object& calls, bool tracepoints,
                                                   std::span<const std::string> libraries);

    /// Takes all probes away.
    virtual void detach() = 0;
    /// Looks for libraries that came since the last time.
    virtual void poll() = 0;
    /// Tells the kernel that no bytes of a stream are wanted before these positions, by direction.
    virtual void skip(std::uint64_t stream, const std::uint64_t (&until)[2]) = 0;
    /// See TlsLibraries::why_not().
    virtual std::string why_not(std::uint32_t pid) = 0;
    /// Files with probes.
    virtual std::size_t libraries() const = 0;
};

} // namespace netctl::trace
