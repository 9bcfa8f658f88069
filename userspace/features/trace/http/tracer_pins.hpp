// SPDX-License-Identifier: GPL-2.0-only
//
// What a tracer pins while it runs.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "bpf/dir_lock.hpp"
#include "bpf/object.hpp"
#include "bpf/pin_dir.hpp"
#include "core/result.hpp"
#include "core/root_options.hpp"

namespace netctl::trace {

/// Settings and counters under <root>/trace/PID, for whoever wants to change or read them; they go
/// away with this. Its lock tells that the tracer lives: process ids are used again, and differ
/// between PID namespaces.
class TracerPins {
  public:
    /// Makes this process's directory with the loaded object's maps of these names, under the same names,
    /// and removes those of tracers that were killed.
    static Result<TracerPins> make(const RootOptions& root, const bpf::Object& object,
                                   std::span<const char* const> maps);
    TracerPins(TracerPins&&) noexcept = default;
    TracerPins& operator=(TracerPins&&) = delete;
    ~TracerPins();

    /// The directory.
    const std::string& path() const { return dir_.path(); }

  private:
    TracerPins(RootOptions root, const bpf::PinDir& dir, bpf::DirLock lock)
        : root_(std::move(root)), dir_(dir), lock_(std::move(lock)) {}

    RootOptions root_;
    bpf::PinDir dir_;
    bpf::DirLock lock_; ///< none: another was made of this one
};

} // namespace netctl::trace
