// SPDX-License-Identifier: GPL-2.0-only
//
// What processes map to run it, as it happens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/fd.hpp"
#include "core/result.hpp"

namespace netctl::sys {

/// A file that a process mapped with the right to execute it: a program, or a library.
struct Mapping {
    std::uint32_t pid = 0;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    std::uint64_t device = 0; ///< as makedev() makes it
    std::uint64_t inode = 0;
    std::string path; ///< as the process sees it
};

/// The mappings of a running process, of files that may be executed; none if it is gone.
std::vector<Mapping> executable_mappings(std::uint32_t pid);
/// Opens the mapped file itself, whatever namespace its name is of. None if it or the process is gone.
Fd open_mapped(const Mapping& mapping);
/// The ids of all processes.
std::vector<std::uint32_t> all_processes();

/// New mappings of all processes, which the kernel writes into a ring for each CPU (perf_event_open(2),
/// PERF_RECORD_MMAP2).
class MappingWatch {
  public:
    MappingWatch() = default;
    MappingWatch(const MappingWatch&) = delete;
    MappingWatch& operator=(const MappingWatch&) = delete;
    ~MappingWatch();

    /// Begins. Errors: the kernel refuses, as it does without CAP_PERFMON.
    Result<> start();
    /// Hands out what came since the last time. False if some of it was lost.
    bool read(const std::function<void(const Mapping&)>& handler);

  private:
    struct Ring {
        Fd fd;
        std::byte* memory = nullptr;
    };
    std::vector<Ring> rings_;
    std::vector<std::byte> record_;
};

} // namespace netctl::sys
