// SPDX-License-Identifier: GPL-2.0-only
//
// What a tracer pins while it runs.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "bpf/object.hpp"
#include "bpf/pin_dir.hpp"
#include "core/result.hpp"

namespace netctl::trace {

/// Settings and counters under <root>/trace/PID, for whoever wants to change or read them; they go
/// away with this. Its lock tells that the tracer lives: process ids are used again, and differ
/// between PID namespaces.
class TracerPins {
  public:
    /// Makes this process's directory, and removes those of tracers that were killed. Mounts are told
    /// in `notes`.
    static Result<TracerPins> make(const std::string& root, std::vector<std::string>& notes);
    TracerPins(TracerPins&& other) noexcept;
    TracerPins& operator=(TracerPins&&) = delete;
    ~TracerPins();

    /// Pins the loaded object's maps of these names, under the same names.
    Result<> pin(const bpf::Object& object, std::span<const char* const> maps) const;
    /// The directory.
    const std::string& path() const { return path_; }

  private:
    TracerPins(std::string root, std::string path, bpf::DirLock lock)
        : root_(std::move(root)), path_(std::move(path)), lock_(std::move(lock)) {}

    std::string root_;
    std::string path_;
    bpf::DirLock lock_;
};

} // namespace netctl::trace
