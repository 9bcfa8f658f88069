// SPDX-License-Identifier: GPL-2.0-only
//
// Which functions addresses lie in: of programs and libraries, of what processes compiled for themselves, of the kernel.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/fd.hpp"
#include "features/trace/profile/perf_map.hpp"
#include "sys/file_symbols.hpp"
#include "sys/kernel_symbols.hpp"
#include "sys/mapping_watch.hpp"

namespace netctl::trace::profile {

struct Frame {
    enum class Kind { user, kernel, compiled };

    Kind kind = Kind::user;
    std::string function; ///< demangled; of one without a name `[FILE]`, `[kernel]` or `[unknown]`
    std::string file;     ///< path, as the process sees it; empty: none
    bool named = false;   ///< whether it has a name

    auto operator<=>(const Frame&) const = default;
};

/// A process as one program.
struct ProgramRun {
    std::uint32_t pid = 0;
    std::uint64_t started = 0;
    std::uint32_t program = 0;
    auto operator<=>(const ProgramRun&) const = default;
};

/// Addresses become places as soon as they come, while their process is there; a place has a name when it is asked for.
class Places {
  public:
    using Id = std::uint32_t;

    Places();

    /// Appends the places of frames, the innermost first: it is where the thread is, others are where calls return to.
    /// False if the process was gone before it could be looked at.
    bool add_user(const ProgramRun& run, std::span<const std::uint64_t> addresses,
                  std::vector<Id>& ids);
    void add_kernel(std::span<const std::uint64_t> addresses, std::vector<Id>& ids);

    Frame name(Id id);

  private:
    struct Source {
        Frame::Kind kind = Frame::Kind::user;
        std::string path;
        Fd file; ///< of a program or library, until its symbols are read
        std::optional<sys::FileSymbols> symbols;
        std::uint32_t pid = 0; ///< of one that compiles, as it is numbered in its own namespace
        Fd directory;          ///< where its map is
        std::uint32_t uid = 0; ///< whose map is believed, beside root's
        std::optional<PerfMap> map;
    };
    struct Process {
        std::vector<sys::Mapping> mappings;  ///< by address
        std::optional<std::size_t> compiled; ///< its source for code without a file
        std::int64_t read_ns = 0;            ///< when they were (CLOCK_MONOTONIC)
    };

    Process& process_of(const ProgramRun& run);
    std::pair<std::size_t, std::uint64_t> place_of(Process& process, std::uint32_t pid,
                                                   std::uint64_t address);
    std::size_t file_source(const sys::Mapping& mapping);
    std::size_t compiled_source(std::uint32_t pid);
    Id id_of(std::size_t source, std::uint64_t offset);

    std::vector<Source> sources_;
    std::size_t compilers_ = 0;
    std::map<std::pair<std::uint64_t, std::uint64_t>, std::size_t> files_; ///< by device and inode
    std::map<ProgramRun, Process> processes_;
    std::map<std::pair<std::size_t, std::uint64_t>, Id> ids_;
    std::vector<std::pair<std::size_t, std::uint64_t>> places_; ///< source, and where in it
    sys::KernelSymbols kernel_;
};

} // namespace netctl::trace::profile
