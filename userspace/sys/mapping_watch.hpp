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

/// What a process mapped with the right to execute it: a program, a library, or memory that it writes code into.
struct Mapping {
    std::uint32_t pid = 0;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    std::uint64_t device = 0; ///< as makedev() makes it
    std::uint64_t inode = 0;  ///< 0: no file; the path is empty then, or such as `[vdso]`
    std::string path;         ///< as the process sees it
    std::uint64_t offset = 0; ///< in the file, of `begin`
};

/// All that a running process may execute, by address; none if it is gone.
std::vector<Mapping> code_mappings(std::uint32_t pid);
/// Those of them that are files.
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
