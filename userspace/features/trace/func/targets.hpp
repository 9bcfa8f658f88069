// SPDX-License-Identifier: GPL-2.0-only
//
// Functions by the words that users have for them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "features/trace/program_file.hpp"

namespace netctl::trace::func {

/// A place of a probe that a program has built in.
struct Mark {
    std::uint64_t offset = 0;    ///< in the file
    std::uint64_t semaphore = 0; ///< see sys::UsdtProbe
    bool done = false;           ///< something ends there, and begins at the others
};

struct Place {
    static constexpr std::size_t kernel = SIZE_MAX;

    std::size_t file = kernel; ///< of Targets::files
    std::string name;          ///< demangled; with `+0x10` if it is within the function
    std::string symbol;        ///< as the linker has it; empty if it was named by an offset
    std::uint64_t offset = 0;  ///< in the file
    std::vector<Mark> marks{}; ///< if any, it is no function, but where these are
};

struct Targets {
    std::vector<ProgramFile> files;
    std::vector<Place> places; ///< each once

    /// `libc.so.6:malloc`, `k:tcp_sendmsg`.
    std::string label(const Place& place) const;
};

/// Whether there is a no-operation of five bytes. A call there, which kernels make of such a place from 6.18 on, writes below
/// the stack of the function that it is in the middle of. Errors: the file cannot be read.
Result<bool> is_wide_nop(int file, std::uint64_t offset);

/// What of a function is looked at.
enum class Look { calls, times };

/// Each word is `FILE:NAME`, `FILE:NAME+OFFSET` or `FILE:+OFFSET`, FILE as for find_program_file(), or `k:NAME` of the kernel;
/// NAME may be a glob. Errors name what there is not, with what is like it, and what may not be looked at so.
Result<Targets> find_targets(const std::vector<std::string>& words, std::uint32_t pid, Look look);

} // namespace netctl::trace::func
